"""The option --baseline: contacts without a model, beside the model's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from ..alignments.alignment import Alignment
from .options import option

if TYPE_CHECKING:
    from ..tasks.coevolution import CoevolutionMap

Baseline = Annotated[
    str | None,
    option(
        "METHODS",
        "Also compute scores without a model from the same rows: mi (mutual information), dca (direct coupling "
        "analysis by pseudo-likelihood, which takes minutes for a long protein), or mi,dca.",
    ),
]
_METHODS = ("mi", "dca")


def parse_baselines(text: str | None) -> list[str]:
    """Read the methods of --baseline, each once.

    Examples
    --------
    >>> parse_baselines("dca, mi"), parse_baselines(None)
    (['dca', 'mi'], [])
    """
    methods = [] if text is None else list(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if wrong := [each for each in methods if each not in _METHODS]:
        raise ValueError(f"--baseline: {wrong[0]!r} is not a method; pass mi, dca or mi,dca.")
    return methods


def check_baselines(methods: list[str], family: Alignment) -> None:
    """Raise ValueError, before the model runs, if a method cannot be used for this alignment."""
    if "dca" in methods:
        from ..tasks.coevolution import check_memory

        check_memory(family)


def baselines(methods: list[str], family: Alignment, rows: dict[str, Any]) -> list[CoevolutionMap]:
    """Compute the maps of these methods; `rows` are the options that choose rows."""
    if not methods:
        return []
    from ..tasks.coevolution import coevolution

    return [coevolution(family, each, **rows) for each in methods]  # type: ignore[arg-type]
