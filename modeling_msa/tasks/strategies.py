"""How variants may be scored: strategies, modes and the recipes of benchmarks. None of it imports torch."""

from __future__ import annotations

from typing import Literal, get_args

Strategy = Literal["masked-marginals", "wt-marginals", "pseudo-log-likelihood"]
Mode = Literal["exact", "fast"]

# Recipes of benchmarks, as arguments of `score_variants`.
#
# ProteinGym's compute_fitness.py: hhfilter -cov 75 -id 90, weights (theta = 0.2) of what is left, the wild type and
# 399 rows drawn by weight, masked marginals, mean over five seeds. It draws rows with replacement, so that some occur
# twice; this package draws them without, unless `msa proteingym --replacement` asks for the script's own choice. For
# windows, see `score_variants`.
PROTOCOLS: dict[str, dict[str, object]] = {
    "proteingym": {
        "strategy": "masked-marginals",
        "rows": 400,
        "select": "weighted",
        "seed": (1, 2, 3, 4, 5),
        "coverage": 75.0,
        "identity": 90.0,
    }
}


def check_mode(mode: str) -> None:
    """Raise ValueError for an unknown mode.

    Examples
    --------
    >>> check_mode("quick")
    Traceback (most recent call last):
    ...
    ValueError: unknown mode 'quick'; use exact or fast.
    """
    _check("mode", mode, get_args(Mode))


def check_strategy(strategy: str, mode: str = "exact") -> None:
    """Raise ValueError for an unknown strategy or mode, and for two that do not go together.

    Examples
    --------
    >>> check_strategy("pseudo-log-likelihood", "fast")
    >>> check_strategy("wt-marginals", "fast")
    Traceback (most recent call last):
    ...
    ValueError: wt-marginals has no fast mode, as it runs the model once only; use the mode exact, or another
    strategy.
    """
    _check("strategy", strategy, get_args(Strategy))
    check_mode(mode)
    if mode == "fast" and strategy == "wt-marginals":
        raise ValueError(
            "wt-marginals has no fast mode, as it runs the model once only; use the mode exact, or another strategy."
        )


def _check(what: str, value: str, known: tuple[str, ...]) -> None:
    *some, last = known
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; use {', '.join(some)} or {last}.")
