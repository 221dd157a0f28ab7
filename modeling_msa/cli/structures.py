"""Structures that predicted contacts are compared with: which belongs to an alignment, and what it says of a map."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from .._words import counted
from ..alignments.alignment import Alignment
from ..alignments.known_contacts import is_structure, load_assignments
from ..alignments.listing import name_of
from .inputs import list_structures
from .options import flag, option

if TYPE_CHECKING:
    from ..tasks.contacts import PairMap

Structure = Annotated[
    Path | None,
    option(
        "PATH",
        "Structure (PDB, mmCIF) to compare with; for several alignments, a folder of files with the same names. fn3 "
        "is the structure of the bundled family. Requires the extra structure: pip install 'modeling-msa[structure]'.",
    ),
]
Chain = Annotated[
    str | None,
    option(
        "CHAIN",
        "Chain of the structure; of a complex several, as A,B. Default: the closest to the query, by sequence.",
    ),
]
ChainGap = Annotated[
    int,
    option(
        "N",
        "Of a complex, leave N positions between its chains. Default: 0, the columns are numbered one after the "
        "other.",
        min=0,
    ),
]
BetweenChains = Annotated[bool, flag("--between-chains", "Of a complex, list and draw pairs of two chains only.")]


@dataclasses.dataclass
class Known:
    """The options --structure and --chain of a command."""

    structure: Path | None
    chain: str | None

    def __post_init__(self) -> None:
        if self.chain is not None and self.structure is None:
            raise ValueError(
                "--chain names a chain of a structure: pass --structure too. Lengths of the alignment's chains are "
                "passed with --chains."
            )
        self.files = list_structures(self.structure)
        if self.chain is not None and not any(map(is_structure, self.files.values())):
            raise ValueError(f"--chain names a chain of a structure, but {self.structure} has only contact maps.")
        self.matched, self.tried = "", 0

    def of(self, path: Path) -> dict[str, Path]:
        """Return the structure of an alignment, as what its result depends on; empty without one."""
        file = self.files.get("", self.files.get(name_of(path)))
        return {} if file is None else {"structure": file}

    def check(self, paths: Iterable[Path]) -> None:
        """Raise ValueError if none of these alignments has a structure, though some were to."""
        paths = list(paths)
        if self.files and not any(map(self.of, paths)):
            raise ValueError(f"{self.structure} has no structure named like an alignment, such as {paths[0]}.")

    def contacts(self, path: Path, family: Alignment) -> dict[str, np.ndarray] | None:
        """Read the contacts of an alignment's structure, for each way to match its chains; None without one."""
        file = self.of(path).get("structure")
        return None if file is None else load_assignments(file, family, self.chain)

    def closest(self, result: PairMap, assignments: dict[str, np.ndarray] | None) -> np.ndarray | None:
        """Choose the contacts that agree best with a prediction, if there are several; remember which they are."""
        from ..tasks.contact_precision import best_assignment

        if assignments is None:
            return None
        self.matched = best_assignment(result, assignments) if len(assignments) > 1 else next(iter(assignments))
        self.tried = len(assignments)
        return assignments[self.matched]

    def chain_names(self, matched: str) -> str | None:
        """Names of the structure's chains in a matching, as --chain reads them; of one protein what was passed."""
        return ",".join(each.split(":")[1] for each in matched.split(",")) if matched else self.chain

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
            table = "\n" + precision_table({name: shown(value) for name, value in values.items()})
            return table + (f"\n{compared_table(beside)}" if beside else "") + self._of_complex(result, known)
        names = ["P@L", "long P@L", "long P@L/2", "long P@L/5"]
        names += ["between P@L", "between P@10"] if result.chains else []
        figures = "".join(f", {name} {shown(values[name])}" for name in names)
        return figures + "".join(f", {name} {shown(each['all'])}" for name, each in [*beside.items()][1:])

    def _of_complex(self, result: PairMap, known: np.ndarray) -> str:
        """Say which chains were matched, and how many wrong pairs between chains are contacts within one."""
        from ..tasks.contact_precision import same_pair_contacts

        if not result.chains:
            return ""
        how = f" (the best of {self.tried} ways that fit equally well)" if self.tried > 1 else ""
        words = f"\nchains of the alignment and the structure: {self.matched}{how}" if self.matched else ""
        if len(known) != len(result.query):
            return words
        pairs = result.residues[result.top(len(result.residues), between_chains=True)].T - 1
        wrong = known[pairs[0], pairs[1]] == 0
        same = int((wrong & same_pair_contacts(known, result.query, result.chains)[pairs[0], pairs[1]]).sum())
        what = f"{same} of the {counted(int(wrong.sum()), 'wrong pair')} between chains"
        return words + (f"\n{what} are in contact within a chain instead" if same else "")


def _precision_file(target: Path) -> Path:
    return target.with_suffix(".precision.tsv")


def shown(value: float) -> str:
    """Format a precision for the screen; NaN is a dash."""
    return "-" if np.isnan(value) else f"{value:.2f}"
