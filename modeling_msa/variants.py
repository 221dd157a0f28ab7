"""Variants of a query: substitutions such as ``A42V:G7D``, read, checked and applied.

Residues are numbered from 1 on the query, insertions included, as users know them; the alignment's columns are found
through `Alignment.residue_columns`.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .alignment import Alignment

_SUBSTITUTION = re.compile(r"([A-Z])(-?\d+)([A-Z])")
_AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
_WILD_TYPE = ("WT", "wt", "_wt", "wild-type", "wildtype")
_SHOWN = 5


class Substitution(NamedTuple):
    """One residue replaced by another."""

    wild_type: str
    number: int  # of the residue of the query, from 1
    mutant: str

    def __str__(self) -> str:
        return f"{self.wild_type}{self.number}{self.mutant}"


def parse_variants(
    variants: Sequence[str], alignment: Alignment, offset: int = 0, source: str = "variants"
) -> list[tuple[Substitution, ...]]:
    """Read variants and check that they fit a query, all of them before any is used.

    Parameters
    ----------
    variants : sequence of str
        Substitutions such as ``A42V``, several joined by ``:``; ``WT`` is the query itself.
    alignment : Alignment
        Query first.
    offset : int, default 0
        By how much the numbers are ahead of the query's: 100 if the query's first residue is called 101.
    source : str
        Where the variants come from, for messages.

    Returns
    -------
    list of tuple of Substitution
        Numbered on the query.

    Raises
    ------
    ValueError
        If variants are not written so, name residues that the query does not have or that have no column, or another
        wild type than the query's; the first of each are shown, and an offset that would mend them.

    Examples
    --------
    >>> family = Alignment.from_sequences(["mKV-L", "RVAL"])
    >>> parse_variants(["K2R:L4I", "WT"], family)
    [(Substitution(wild_type='K', number=2, mutant='R'), Substitution(wild_type='L', number=4, mutant='I')), ()]
    >>> parse_variants(["M1V"], family)
    Traceback (most recent call last):
    ...
    ValueError: variants: M1V: residue 1 (M) is in lower case in the query, so no column of the alignment covers it.
    """
    parsed, wrong = [], []
    for text in variants:
        try:
            parsed.append(_parse(text, offset))
        except ValueError as error:
            wrong.append(str(error))
    _raise_all(wrong, source, "variants cannot be read")
    query = alignment.query
    for text, substitutions in zip(variants, parsed, strict=True):
        for wild_type, number, _ in substitutions:
            if not 1 <= number <= len(query):
                wrong.append(f"{text}: there is no residue {number}; the query has 1 to {len(query)}.")
            elif query[number - 1] != wild_type:
                wrong.append(f"{text}: residue {number} of the query is {query[number - 1]}, not {wild_type}.")
            elif alignment.residue_columns[number - 1] < 0:
                wrong.append(
                    f"{text}: residue {number} ({wild_type}) is in lower case in the query, so no column of the "
                    "alignment covers it."
                )
    _raise_all(wrong, source, "substitutions do not fit the query", _better_offset(parsed, query, offset))
    return parsed


def _parse(text: str, offset: int) -> tuple[Substitution, ...]:
    if text.strip() in _WILD_TYPE:
        return ()
    substitutions = []
    for part in text.strip().split(":"):
        match = _SUBSTITUTION.fullmatch(part)
        if match is None:
            raise ValueError(f"{text!r}: a substitution is written like A42V, several like A42V:G7D; this is not.")
        if match[3] not in _AMINO_ACIDS:
            raise ValueError(f"{text}: {match[3]} is not one of the 20 amino acids.")
        substitutions.append(Substitution(match[1], int(match[2]) - offset, match[3]))
    if len({each.number for each in substitutions}) < len(substitutions):
        raise ValueError(f"{text}: one residue is replaced twice.")
    return tuple(substitutions)


def _better_offset(parsed: list[tuple[Substitution, ...]], query: str, offset: int) -> str:
    """Advice, if another offset would make all wild types fit."""
    wild = {(each.number, each.wild_type) for variant in parsed for each in variant}
    if not wild:
        return ""
    first, last = min(wild)[0], max(wild)[0]
    fits = [
        offset + shift
        for shift in range(last - len(query), first)
        if shift and all(query[number - shift - 1] == letter for number, letter in wild)
    ]
    return f" All wild types fit with offset={fits[0]}." if len(fits) == 1 else ""


def _raise_all(wrong: list[str], source: str, what: str, advice: str = "") -> None:
    if not wrong:
        return
    shown = " ".join(wrong[:_SHOWN])
    if len(wrong) == 1:
        raise ValueError(f"{source}: {shown}{advice}")
    more = f" ... and {len(wrong) - _SHOWN} more." if len(wrong) > _SHOWN else ""
    raise ValueError(f"{source}: {len(wrong)} {what}: {shown}{more}{advice}")


def mutate(alignment: Alignment, substitutions: Sequence[Substitution]) -> Alignment:
    """Replace residues of the query; the other rows stay.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    substitutions : sequence of Substitution
        As `parse_variants` gives them.

    Returns
    -------
    Alignment

    Examples
    --------
    >>> family = Alignment.from_sequences(["mKV-L", "RVAL"])
    >>> mutant = mutate(family, parse_variants(["K2R"], family)[0])
    >>> mutant.query, mutant.sequences
    ('MRVL', ['RV-L', 'RVAL'])
    """
    if not substitutions:
        return alignment
    query = np.frombuffer(alignment.query.encode(), dtype=np.uint8).copy()
    numbers = [each.number - 1 for each in substitutions]
    letters = np.array([ord(each.mutant) for each in substitutions], dtype=np.uint8)
    query[numbers] = letters
    array = alignment.array.copy()
    array[0, alignment.residue_columns[numbers]] = letters
    raw_rows = alignment.raw_rows
    if raw_rows is not None:
        row = np.frombuffer(raw_rows[0], dtype=np.uint8).copy()
        row[np.flatnonzero(row != ord("-"))[numbers]] = letters
        raw_rows = (row.tobytes(), *raw_rows[1:])
    return replace(alignment, array=array, query=query.tobytes().decode(), raw_rows=raw_rows)


def read_variants(
    path: str | os.PathLike[str], variant_column: str = "mutant", score_column: str | None = None
) -> list[tuple[str, float]]:
    """Read a table of measured variants.

    Parameters
    ----------
    path : str or path-like
        Comma- (``.csv``) or tab-separated, with a header.
    variant_column : str, default "mutant"
        Column of variants, such as ``A42V:G7D``.
    score_column : str, optional
        Column of scores; default: the only other one.

    Returns
    -------
    list of (str, float)
        In the order of the table.

    Raises
    ------
    OSError, ValueError
        If the file is not there, has no such column or no row, or a score that is no number.
    """
    path = Path(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="," if path.suffix.lower() == ".csv" else "\t")
        columns = list(reader.fieldnames or [])
        others = [column for column in columns if column != variant_column]
        if score_column is None and len(others) == 1:
            score_column = others[0]
        for what, column in (("variant_column", variant_column), ("score_column", score_column)):
            if column not in columns:
                raise ValueError(
                    f"{path}: {what} is {column!r}, but the columns are {', '.join(columns) or 'none'}; name one."
                )
        rows = [(reader.line_num, row[variant_column] or "", row[str(score_column)]) for row in reader]
    wrong = [f"line {line} ({variant}): {score!r}." for line, variant, score in rows if not _is_number(score)]
    _raise_all(wrong, str(path), f"scores in {score_column} are no number; leave these rows out")
    if not rows:
        raise ValueError(f"{path}: the table has no row.")
    return [(variant, float(score)) for _, variant, score in rows]


def _is_number(text: str | None) -> bool:
    try:
        return math.isfinite(float(text or "nan"))
    except ValueError:
        return False
