"""ProteinGym's files: the reference file that lists the assays, the assays, and the tables of scores.

A table of scores is the assay's own with a column for each seed, ``NAME_seed1`` and so on, and one of their mean,
``NAME_ensemble``: what ProteinGym's scripts read and write.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._files import whole_file
from .._words import counted
from ..alignments.alignment import Alignment
from ..alignments.tables import Table, number_in, read_table
from ..alignments.variants import places_of
from .score_tables import DECIMALS

SUMMARY, PER_ASSAY = "proteingym_summary.csv", "proteingym_assays.csv"  # beside the tables of scores
VIRAL, USUAL = 0.01, 0.2  # theta
_REQUIRED = ("DMS_id", "DMS_filename", "UniProt_ID", "target_seq", "MSA_filename", "coarse_selection_type")
_SHOWN = 5


@dataclass(frozen=True)
class Assay:
    """A row of the reference file.

    Attributes
    ----------
    name : str
        DMS_id.
    protein : str
        UniProt_ID.
    function : str
        coarse_selection_type.
    target : str
        target_seq: the protein, whose residues are numbered from 1.
    start, end : int
        MSA_start and MSA_end: the residues that the alignment covers, from 1, both included.
    theta : float
        Of the sequence weights.
    cutoff : float or None
        DMS_binarization_cutoff.
    table, alignment : Path
        The files of the assay and of its alignment.
    where : str
        Reference file and line, for messages.
    """

    name: str
    protein: str
    function: str
    target: str
    start: int
    end: int
    theta: float
    cutoff: float | None
    table: Path
    alignment: Path
    where: str

    def check_query(self, alignment: Alignment) -> None:
        """Raise ValueError if the alignment's query is not the part of the target that the reference file says."""
        wanted, found = self.target[self.start - 1 : self.end], alignment.query
        if found == wanted:
            return
        part = f"residues {self.start} to {self.end} (MSA_start, MSA_end) of target_seq ({self.where})"
        what = f"has {counted(len(found), 'residue')}, not {len(wanted)}"
        if len(found) == len(wanted):
            place = next(k for k in range(len(found)) if found[k] != wanted[k])
            what = f"has {found[place]} at residue {self.start + place}, the target {wanted[place]}"
        raise ValueError(
            f"{self.alignment}: the query is not {part}: it {what}. Fix the row, or the first row of the alignment."
        )


def read_reference(
    path: str | os.PathLike[str], alignments: str | os.PathLike[str], assays: str | os.PathLike[str]
) -> list[Assay]:
    """Read ProteinGym's reference file of substitutions.

    Parameters
    ----------
    path : path
        Such as ``DMS_substitutions.csv``. Columns DMS_id, DMS_filename, UniProt_ID, target_seq, MSA_filename and
        coarse_selection_type; MSA_theta, or taxon, from which theta is 0.01 for ``Virus`` and 0.2 otherwise; and, if
        the table has them, MSA_start, MSA_end, seq_len and DMS_binarization_cutoff.
    alignments, assays : path
        Folders with the files that MSA_filename and DMS_filename name.

    Returns
    -------
    list of Assay
        In the order of the file.

    Raises
    ------
    OSError, ValueError
        If columns or files are missing, or a row contradicts itself; the message names the lines.
    """
    table = read_table(path)
    lacking = [name for name in _REQUIRED if name not in table.columns]
    lacking += ["MSA_theta (or taxon)"] if not {"MSA_theta", "taxon"} & set(table.columns) else []
    if lacking:
        raise ValueError(
            f"{path}: there is no column {', '.join(lacking)}; the columns are {', '.join(table.columns)}. Pass "
            "ProteinGym's reference file, DMS_substitutions.csv."
        )
    folders = Path(alignments), Path(assays)
    listed = [
        _assay(dict(zip(table.columns, row, strict=True)), f"{path}: line {line}", *folders)
        for line, row in zip(table.lines, table.rows, strict=True)
    ]
    for what, names in (("DMS_id", [each.name for each in listed]), ("DMS_filename", [each.table for each in listed])):
        name, count = Counter(map(str, names)).most_common(1)[0]
        if count > 1:
            wheres = [each.where for each in listed if name in (each.name, str(each.table))]
            raise ValueError(f"{wheres[1]}: the same {what} as in {wheres[0].removeprefix(f'{path}: ')}; remove one.")
    files = [(each, kind, file) for each in listed for kind, file in _files_of(each) if not file.is_file()]
    if files:
        some = "; ".join(f"{each.where} ({each.name}): {kind} {file}" for each, kind, file in files[:_SHOWN])
        more = f"; and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
        raise FileNotFoundError(
            f"{counted(len(files), 'file')} of the reference file do not exist: {some}{more}. Remove these rows, or "
            "get the files."
        )
    return listed


def _files_of(assay: Assay) -> tuple[tuple[str, Path], tuple[str, Path]]:
    return ("alignment", assay.alignment), ("assay", assay.table)


def _assay(row: dict[str, str], where: str, alignments: Path, assays: Path) -> Assay:
    empty = [name for name in _REQUIRED if not row[name].strip()]
    if empty:
        raise ValueError(f"{where}: {', '.join(empty)} is empty; every assay requires it. Fix or remove the row.")
    name, target = row["DMS_id"].strip(), row["target_seq"].strip().upper()
    if Path(name).name != name or name.startswith(".") or f"{name}.csv" in (SUMMARY, PER_ASSAY):
        raise ValueError(f"{where}: the DMS_id {name!r} cannot be the name of a file of results; rename it.")
    if not (target.isascii() and target.isalpha()):
        raise ValueError(f"{where} ({name}): target_seq is not a sequence of letters; fix it.")
    number = _reader(row, f"{where} ({name})")
    length = number("seq_len", len(target))
    if length != len(target):
        raise ValueError(
            f"{where} ({name}): seq_len is {length:g}, but target_seq has {len(target)} residues; fix it."
        )
    start, end = number("MSA_start", 1), number("MSA_end", len(target))
    if not (start.is_integer() and end.is_integer() and 1 <= start <= end <= len(target)):
        raise ValueError(
            f"{where} ({name}): MSA_start {start:g} and MSA_end {end:g} are not residues of target_seq, 1 to "
            f"{len(target)}; fix them."
        )
    theta = number("MSA_theta", VIRAL if row.get("taxon", "").strip() == "Virus" else USUAL)
    if not 0 <= theta < 1:
        raise ValueError(f"{where} ({name}): MSA_theta is {theta:g}, but must be a fraction, 0 <= theta < 1; fix it.")
    return Assay(
        name,
        row["UniProt_ID"].strip(),
        row["coarse_selection_type"].strip(),
        target,
        int(start),
        int(end),
        theta,
        number("DMS_binarization_cutoff", math.nan) if row.get("DMS_binarization_cutoff", "").strip() else None,
        assays / row["DMS_filename"].strip(),
        alignments / row["MSA_filename"].strip(),
        where,
    )


def _reader(row: dict[str, str], where: str) -> Callable[[str, float], float]:
    def number(column: str, default: float) -> float:
        text = row.get(column, "").strip()
        value = number_in(text) if text else float(default)
        if value is None or (text and not math.isfinite(value)):
            raise ValueError(f"{where}: {text!r} in {column} is not a number; fix it.")
        return value

    return number


def read_assay(assay: Assay, score_column: str) -> Table:
    """Read an assay; DMS_score_bin is added by the cutoff (1 above it) if the file has no such column.

    Raises
    ------
    OSError, ValueError
        If the file lacks a column, has one that is to be written, a score is not a number, or a variant is there
        twice; the message names file and line.
    """
    source, table = assay.table, read_table(assay.table)
    lacking = [name for name in ("mutant", "DMS_score") if name not in table.columns]
    if lacking:
        raise ValueError(
            f"{source}: there is no column {' and '.join(lacking)}; the columns are {', '.join(table.columns)}."
        )
    taken = [name for name in table.columns if name.startswith((f"{score_column}_seed", f"{score_column}_ensemble"))]
    if taken:
        raise ValueError(f"{source}: there is a column {taken[0]} already; pass another name with --score-column.")
    mutants, scores = table.cells("mutant"), table.cells("DMS_score")
    for line, cell in zip(table.lines, scores, strict=True):
        value = number_in(cell)
        if value is None or not math.isfinite(value):
            raise ValueError(f"{source}: line {line}: {cell!r} in DMS_score is not a number; remove the row.")
    first: dict[str, int] = {}
    for line, mutant in zip(table.lines, mutants, strict=True):
        if first.setdefault(mutant, line) != line:
            raise ValueError(f"{source}: line {line}: {mutant} is in line {first[mutant]} already; remove one.")
    if "DMS_score_bin" in table.columns:
        for line, cell in zip(table.lines, table.cells("DMS_score_bin"), strict=True):
            if number_in(cell) not in (0, 1):
                raise ValueError(f"{source}: line {line}: {cell!r} in DMS_score_bin is neither 0 nor 1; fix it.")
        return table
    if assay.cutoff is None:
        raise ValueError(
            f"{source}: there is no column DMS_score_bin, and DMS_binarization_cutoff is empty ({assay.where}); "
            "AUC and MCC require one of them."
        )
    rows = [[*row, str(int(float(cell) > assay.cutoff))] for row, cell in zip(table.rows, scores, strict=True)]
    return Table([*table.columns, "DMS_score_bin"], rows, table.lines)


def check_draws(select: str, seeds: Sequence[int], replacement: bool) -> None:
    """Raise ValueError if rows are to be drawn with replacement, but not by weight, or seeds would choose the same."""
    if replacement and select != "weighted":
        raise ValueError(
            f"Rows are drawn with replacement by weight only, not with select={select!r}: use 'weighted'."
        )
    if len(seeds) > 1 and select in ("first", "diverse"):
        raise ValueError(
            f"All {len(seeds)} seeds would choose the same rows, since select={select!r} is not random: pass one "
            "seed, or select 'random' or 'weighted' rows."
        )


def check_scored(assay: Assay, table: Table, reasons: Sequence[str]) -> None:
    """Raise ValueError if a variant of an assay has no score: the benchmark requires all."""
    bad = [k for k, reason in enumerate(reasons) if reason]
    if bad:
        places = places_of(table.cells("mutant"), table.lines)
        shown = " ".join(f"{places[k]}: {reasons[k]}" for k in bad[:_SHOWN])
        more = f" ... and {len(bad) - _SHOWN} more." if len(bad) > _SHOWN else ""
        raise ValueError(f"{assay.table}: {counted(len(bad), 'variant')} cannot be scored: {shown}{more}")


def write_assay(table: Table, per_seed: np.ndarray, seeds: Sequence[int], score_column: str, path: Path) -> None:
    """Write a table of scores; it appears whole or not at all.

    `per_seed`, shape=(seeds, N), are the scores with each seed.
    """
    names = [*(f"{score_column}_seed{seed}" for seed in seeds), f"{score_column}_ensemble"]
    values = np.vstack([per_seed, per_seed.mean(axis=0)])
    cells = [[f"{value:.{DECIMALS}f}" for value in column] for column in values.T.tolist()]
    rows = [[*row, *more] for row, more in zip(table.rows, cells, strict=True)]
    write_rows(path, [[*table.columns, *names], *rows])


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> None:
    """Write a CSV file, whole or not at all; one with this content already is not touched."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode()
    if not (path.is_file() and path.read_bytes() == data):
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
