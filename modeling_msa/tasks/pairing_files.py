"""Files of paired alignments: tables of known pairs, and what `msa pair` writes."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import write_table
from ..alignments.listing import name_of
from ..alignments.species import as_in_tables, read_columns
from ..alignments.writing import check_alignment_ending, write_alignment

if TYPE_CHECKING:  # so that the names of files are known without torch
    from .pairing import Pairing


def read_pairs(path: str | os.PathLike[str]) -> tuple[list[tuple[str, str]], list[int]]:
    """Read a table with the columns ``name_a`` and ``name_b``, such as `write_pairing` writes; and its lines.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, a cell is empty, or a name is listed twice in a column.
    """
    columns = ("name_a", "name_b")
    a, b, lines = read_columns(path, columns, once=columns)
    return list(zip(a, b, strict=True)), lines


def write_pairing(pairing: Pairing, path: str | os.PathLike[str]) -> Path:
    """Write the paired alignment to `path`, and `Pairing.table` to NAME.partners.tsv beside it.

    Each file appears whole or not at all, the table first.

    Parameters
    ----------
    pairing : Pairing
    path : str or path-like
        ``.a3m``, or another ending that `modeling_msa.write_alignment` knows.

    Returns
    -------
    Path
        The table.
    """
    check_alignment_ending(path)
    path = Path(path)
    table = table_beside(path)
    columns = pairing.table
    write_table(columns, (map(_cell, row) for row in zip(*columns.values(), strict=True)), table)
    write_alignment(pairing.alignment, path)
    return table


def table_beside(path: Path) -> Path:
    """Return the table's file beside the alignment."""
    return path.with_name(f"{name_of(path)}.partners.tsv")


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6f}"
    return as_in_tables(str(value))
