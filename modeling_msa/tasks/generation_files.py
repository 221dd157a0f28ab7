"""Write generated sequences: the alignment, and a table that describes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import write_table
from ..alignments.listing import name_of
from ..alignments.writing import check_alignment_ending, write_alignment

if TYPE_CHECKING:  # so that the formats are known without torch
    from .generation import Generated


def write_generated(generated: Generated, path: str | os.PathLike[str]) -> Path:
    """Write the alignment to `path`, and `Generated.table` to NAME.generated.tsv beside it.

    Each file appears whole or not at all, the table first.

    Parameters
    ----------
    generated : Generated
    path : str or path-like
        ``.a3m``, or another ending that `modeling_msa.write_alignment` knows.

    Returns
    -------
    Path
        The table; not NAME.tsv, which other tasks write.
    """
    check_alignment_ending(path)
    path = Path(path)
    table = table_beside(path)
    columns = generated.table
    write_table(columns, (map(_cell, row) for row in zip(*columns.values(), strict=True)), table)
    write_alignment(generated.alignment, path)
    return table


def table_beside(path: Path) -> Path:
    """Return the table's file beside the alignment."""
    return path.with_name(f"{name_of(path)}.generated.tsv")


def _cell(value: str | float) -> str:
    return value.replace("\t", " ") if isinstance(value, str) else f"{value:.6f}"
