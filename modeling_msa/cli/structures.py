"""Structures that predicted contacts are compared with: which belongs to an alignment, and what it says of a map."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.known_contacts import load_contacts
from ..alignments.listing import name_of
from .inputs import list_structures
from .options import option

if TYPE_CHECKING:
    from ..tasks.contacts import PairMap

Structure = Annotated[
    Path | None,
    option(
        "PATH",
        "Structure (PDB, mmCIF) to compare with; for several alignments, a folder of files with the same names. "
        "Requires the extra structure: pip install 'modeling-msa[structure]'.",
    ),
]
Chain = Annotated[str | None, option("CHAIN", "Chain of the structure. Default: the one closest to the query.")]


@dataclasses.dataclass
class Known:
    """The options --structure and --chain of a command."""

    structure: Path | None
    chain: str | None

    def __post_init__(self) -> None:
        self.files = list_structures(self.structure)

    def of(self, path: Path) -> dict[str, Path]:
        """Return the structure of an alignment, as what its result depends on; empty without one."""
        file = self.files.get("", self.files.get(name_of(path)))
        return {} if file is None else {"structure": file}

    def check(self, paths: Iterable[Path]) -> None:
        """Raise ValueError if none of these alignments has a structure, though some were to."""
        paths = list(paths)
        if self.files and not any(map(self.of, paths)):
            raise ValueError(f"{self.structure} has no structure named like an alignment, such as {paths[0]}.")

    def contacts(self, path: Path, family: Alignment) -> np.ndarray | None:
        """Read the contacts of an alignment's structure; None without one."""
        file = self.of(path).get("structure")
        return None if file is None else load_contacts(file, family, self.chain)

    def beside(self, path: Path, target: Path) -> list[Path]:
        """List the file of precisions that is written beside a target."""
        return [_precision_file(target)] if self.of(path) else []

    def judged(
        self, result: PairMap, known: np.ndarray | None, target: Path, whole: bool, baselines: Sequence[PairMap] = ()
    ) -> str:
        """Write a map's precisions beside its target; return them, all or the most important, to be printed.

        With baselines, their P@L and that of chance are written and printed too.
        """
        from ..tasks.contact_precision import compared, compared_table, precision_table, precisions, write_precisions

        if known is None:
            return f"; no structure in {self.structure}" if self.files else ""
        values = precisions(result, known)
        beside = compared([result, *baselines], known) if baselines else {}
        others = [*(each.measure for each in baselines), "chance"] if baselines else []
        columns = {f"{name} P@L": each for name, each in zip(others, [*beside.values()][1:], strict=True)}
        write_precisions(values, _precision_file(target), columns)
        if whole:
            table = precision_table({name: shown(value) for name, value in values.items()})
            return "\n" + table + (f"\n{compared_table(beside)}" if beside else "")
        figures = "".join(
            f", {name} {shown(values[name])}" for name in ("P@L", "long P@L", "long P@L/2", "long P@L/5")
        )
        return figures + "".join(f", P@L of {name} {shown(each['all'])}" for name, each in [*beside.items()][1:])


def _precision_file(target: Path) -> Path:
    return target.with_suffix(".precision.tsv")


def shown(value: float) -> str:
    """Format a precision for the screen; NaN is a dash."""
    return "-" if np.isnan(value) else f"{value:.2f}"
