"""Variants on the command line of ``msa score``, tables and sequences: finding them, and checking their columns."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .._words import counted
from ..alignments.listing import name_of
from ..alignments.search import read_protein
from ..alignments.sequences import read_sequences
from ..alignments.tables import Table, number_in, read_table
from ..alignments.variants import places_of
from ..tasks.score_tables import FORMATS, paired, score_columns, spearman
from ..tasks.sequence_files import MORE

_MISSING = ("", "nan", "na", "n/a", "none", "null", "-")
_VARIANT = re.compile(r"(p\.)?[A-Z][a-z]{0,2}-?\d+[A-Z=*][a-z]{0,2}(:.*)?")


def split_inputs(
    inputs: Sequence[str], variants: Path | None, all_singles: bool, sequences: Path | None = None
) -> tuple[list[str], Path | None]:
    """Tell the alignments from the table of variants, or the sequences, or the folder of such files."""
    tables = [Path(each) for each in inputs if each.lower().endswith(FORMATS)]
    tables += [variants] if variants is not None else []
    if sequences is not None:
        if other := "--all-singles" if all_singles else tables and f"a table of variants ({tables[0]})":
            raise ValueError(f"--sequences cannot be used with {other}.")
        return list(inputs), sequences
    if len(tables) > 1:
        raise ValueError("Pass one table of variants; for several alignments, a folder of tables with --variants.")
    if all_singles and tables:
        raise ValueError(f"--all-singles cannot be used with a table of variants ({tables[0]}).")
    if not all_singles and not tables:
        raise ValueError("Pass a table of variants (.csv, .tsv) after the alignment, --sequences, or --all-singles.")
    alignments = [each for each in inputs if not each.lower().endswith(FORMATS)]
    if not alignments:
        raise ValueError(f"Pass an alignment before the table {tables[0]}.")
    return alignments, tables[0] if tables else None


def find_table(path: Path, tables: Path | None, endings: Sequence[str] = FORMATS) -> Path | None:
    """Find the table of an alignment: `tables` itself if it is a file, otherwise by name in this folder."""
    if tables is None or not tables.is_dir():
        return tables
    candidates = (tables / f"{name_of(path)}{ending}" for ending in endings)
    return next((table for table in candidates if table.is_file()), None)


def require_table(path: Path, tables: Path, endings: Sequence[str] = FORMATS) -> Path:
    """Find the table of an alignment, or raise FileNotFoundError."""
    if (source := find_table(path, tables, endings)) is None:
        *some, last = endings
        raise FileNotFoundError(f"{path}: there is no file {name_of(path)}{', '.join(some)} or {last} in {tables}.")
    return source


def read_whole_sequences(
    source: Path, variant_column: str, measured_column: str | None, new: str
) -> tuple[Table | None, list[str], list[str]]:
    """Read sequences from FASTA, or from a column of a table: the table, names for messages, and the sequences."""
    if source.suffix.lower() not in FORMATS:
        if measured_column is not None:
            raise ValueError(f"{source}: FASTA has no column {measured_column!r} (--measured-column); pass a table.")
        return None, *read_sequences(source)
    table = read_table(source)
    check_columns(table, source, variant_column, measured_column, new, MORE)
    names = [f"line {line}" for line in table.lines]
    cells = zip(table.cells(variant_column), names, strict=True)
    return table, names, [read_protein(text, str(source), name) for text, name in cells]


def check_columns(
    table: Table,
    source: Path,
    variant_column: str,
    measured_column: str | None = None,
    new: str | None = None,
    more: Sequence[str] = (),
) -> None:
    """Raise ValueError if the table lacks a column that is read, or has one that is to be written.

    `new` is the column of scores, `more` are endings of those beside it.
    """
    for option, column in (("--variant-column", variant_column), ("--measured-column", measured_column)):
        if column is not None and column not in table.columns:
            words = f"the columns are {', '.join(table.columns)}."
            if any(number_in(cell) is not None or _VARIANT.fullmatch(cell.strip()) for cell in table.columns):
                words = f"line 1 ({', '.join(table.columns)}) is not a header; add one, such as {column}."
            raise ValueError(f"{source}: there is no column {column!r} ({option}); {words}")
    table.cells(variant_column)  # ValueError for two of this name
    for line, cell in zip(table.lines, table.cells(measured_column) if measured_column else (), strict=False):
        number = number_in(cell)
        if number is None and cell.strip().lower() not in _MISSING:
            hint = "; write decimals with a point" if number_in(cell.replace(",", ".")) is not None else ""
            raise ValueError(f"{source}: line {line}: {cell!r} in {measured_column} is not a number{hint}.")
        if number is not None and math.isinf(number):
            raise ValueError(
                f"{source}: line {line}: {cell!r} in {measured_column} is infinite; write a number, or leave it empty."
            )
    try:
        if new is not None:
            score_columns(table, new, more)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def without_score(
    reasons: Sequence[str],
    variants: Sequence[str],
    source: Path,
    lines: Sequence[int] | None = None,
    what: str = "score",
    noun: str = "variant",
) -> str:
    """Say how many variants, or what `noun` says, have no `what`, and the most frequent reason with an example."""
    from ..tasks.scoring import common_reasons

    count = sum(map(bool, reasons))
    if count == 0:
        return ""
    most, example = common_reasons(reasons)[0]
    which = f"{counted(count, noun)} have no {what}, {'all' if most == count else f'{most} of them'} like"
    words = f"1 {noun} has no {what}:" if count == 1 else which
    return f"; {words} {source}, {places_of(variants, lines)[example]}: {reasons[example]}"


def measured_values(table: Table, column: str) -> np.ndarray:
    """Read a column of measured values, shape=(N,), dtype=float64; NaN where none was measured."""
    numbers = [number_in(text) for text in table.cells(column)]
    return np.array([math.nan if number is None else number for number in numbers])


def agreement(scores: np.ndarray, measured: np.ndarray) -> str:
    """Spearman's correlation of the variants that have both numbers."""
    scores, measured = paired(scores, measured)
    value = spearman(scores, measured)
    shown = "not defined" if math.isnan(value) else f"{value:.4f}"
    return f", Spearman {shown} ({counted(len(scores), 'variant')})"


def mixed_words(weight: float) -> str:
    """Say how much of the scores is not the model's."""
    return f", {weight:g} of each score by the family's frequencies" if weight else ""
