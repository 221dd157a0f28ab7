"""Tables of text with a header."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

from .._files import require_file
from .._words import counted


class Table(NamedTuple):
    """A table's text as in the file, without blank lines."""

    columns: list[str]
    rows: list[list[str]]
    lines: list[int]  # line of the file in which each row ends
    source: str = "table"  # for messages

    def cells(self, column: str) -> list[str]:
        """Text of a column; ValueError if there are several of this name."""
        if (count := self.columns.count(column)) > 1:
            raise ValueError(f"{self.source}: {count} columns are named {column!r}; rename all but one of them.")
        place = self.columns.index(column)
        return [row[place] for row in self.rows]


def number_in(cell: str) -> float | None:
    """Read a cell as a number, which may be NaN; None if it is not one."""
    try:
        return None if "_" in cell else float(cell)  # Python reads 1_0 as 10
    except ValueError:
        return None


def delimiter_of(path: str | os.PathLike[str]) -> str:
    """Separator of a table's cells: a comma for ``.csv``, a tab for other suffixes."""
    return "," if Path(path).suffix.lower() == ".csv" else "\t"


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a table with a header, whose cells are separated by commas, tabs or semicolons.

    Raises
    ------
    OSError, ValueError
        If the file does not exist or is not UTF-8 text, or has no row or rows longer or shorter than the header.
    """
    try:
        require_file(path)
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            usual = delimiter_of(path)
            reader = csv.reader(file, delimiter=next((each for each in (usual, *"\t,;") if each in header), usual))
            numbered = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: is not a table in UTF-8 text ({error}).") from None
    if len(numbered) < 2:
        raise ValueError(f"{path}: the table has no row below the header.")
    (_, columns), *rows = numbered
    for line, row in rows:
        if len(row) != len(columns):
            raise ValueError(
                f"{path}: line {line} has {counted(len(row), 'cell')}, the header {len(columns)}; put cells that "
                "contain the separator in double quotes."
            )
    return Table(columns, [row for _, row in rows], [line for line, _ in rows], os.fspath(path))
