"""Variants of a query: substitutions such as ``A42V:G7D``, read, checked and applied.

Residues are numbered from 1 on the query, insertions included; `Alignment.residue_columns` gives their columns.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from .alignment import Alignment
from .tables import number_in, read_table

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
_SUBSTITUTION = re.compile(r"([A-Z])(-?\d+)([A-Z])")
_STOP = re.compile(r"[A-Z]-?\d+\*")
_INDEL = re.compile(r"del|ins|dup|fs|ext|-$")
_REFERENCE = re.compile(r"^\S+?:p\.")  # accession or gene
_THREE_LETTERS = re.compile(r"[A-Z][a-z]{2}")
_ONE_LETTER = dict(
    zip(
        _THREE_LETTERS.findall("AlaCysAspGluPheGlyHisIleLysLeuMetAsnProGlnArgSerThrValTrpTyrTer"),
        AMINO_ACIDS + "*",
        strict=True,
    )
)
_WILD_TYPE = ("WT", "wt", "_wt", "wild-type", "wildtype", "p.=", "p.(=)")
_SHOWN = 5
LOWER_CASE_ADVICE = "If lower case only marks residues in this file, read it as FASTA: pass format='fasta'."


class Substitution(NamedTuple):
    """One residue replaced by another."""

    wild_type: str
    number: int  # residue of the query, from 1
    mutant: str

    def __str__(self) -> str:
        return f"{self.wild_type}{self.number}{self.mutant}"


class Misfit(NamedTuple):
    """Why a variant, or one of its substitutions, cannot be used."""

    kind: Literal["notation", "range", "wild type", "coverage"]
    words: str


def parse_variants(
    variants: Sequence[str],
    alignment: Alignment,
    offset: int = 0,
    source: str = "variants",
    lines: Sequence[int] | None = None,
) -> list[tuple[Substitution, ...]]:
    """Read variants and check that all of them fit a query.

    Parameters
    ----------
    variants : sequence of str
        Substitutions such as ``A42V``, several joined by ``:``; ``WT`` is the query itself. HGVS is read too:
        ``p.Ala42Val``, ``p.[Ala42Val;Gly7Asp]``, ``p.[(Ala42Val);(Gly7Asp)]``, ``NP_000537.3:p.Ala42Val``,
        ``p.Ser1_Pro3=``.
    alignment : Alignment
        Query first.
    offset : int, default 0
        Difference between the variants' numbers and the query's: 100 if the query's first residue is numbered 101.
    source : str
        Where the variants come from, for messages.
    lines : sequence of int, optional
        Their lines in `source`, for messages.

    Returns
    -------
    list of tuple of Substitution
        Numbered on the query.

    Raises
    ------
    ValueError
        If a variant cannot be read, names a residue that the query lacks or that has no column, or another wild type
        than the query's. The message shows the first ones, and an offset with which all would fit.

    Examples
    --------
    >>> family = Alignment.from_sequences(["mKV-L", "RVAL"])
    >>> parse_variants(["K2R:L4I", "WT"], family)
    [(Substitution(wild_type='K', number=2, mutant='R'), Substitution(wild_type='L', number=4, mutant='I')), ()]
    >>> parse_variants(["M1V"], family)
    Traceback (most recent call last):
    ...
    ValueError: variants: M1V: residue 1 (M) is in lower case in the query, so no column of the alignment covers it. If
    lower case only marks residues in this file, read it as FASTA: pass format='fasta'.
    """
    parsed, misfits = check_variants(variants, alignment, offset)
    named = [
        (f"{place}: {each.words}", each)
        for place, some in zip(places_of(variants, lines), misfits, strict=True)
        for each in some
    ]
    _raise_all([words for words, each in named if each.kind == "notation"], source, "variants cannot be read")
    better = better_offset(parsed, alignment.query, offset)
    advice = "" if better is None else f" All wild types fit with offset={better}."
    if named and all(each.kind == "coverage" for _, each in named):
        advice = f" {LOWER_CASE_ADVICE}"
    _raise_all([words for words, _ in named], source, "substitutions do not fit the query", advice)
    return parsed


def places_of(variants: Sequence[str], lines: Sequence[int] | None) -> list[str]:
    """Name variants for messages: by their text and, if they are from a table, by their line.

    Examples
    --------
    >>> places_of(["K2R", ""], None), places_of(["K2R"], [3])
    (['K2R', "''"], ['line 3 (K2R)'])
    """
    names = [text or repr(text) for text in variants]
    return names if lines is None else [f"line {line} ({name})" for line, name in zip(lines, names, strict=True)]


def check_variants(
    variants: Sequence[str], alignment: Alignment, offset: int = 0
) -> tuple[list[tuple[Substitution, ...]], list[list[Misfit]]]:
    """Read variants as `parse_variants` does, and list what does not fit the query instead of raising.

    Returns each variant's substitutions, numbered on the query (none for ``WT``, or if it cannot be read), and its
    misfits, one for each substitution that cannot be used.

    Examples
    --------
    >>> family = Alignment.from_sequences(["mKV-L", "RVAL"])
    >>> _, misfits = check_variants(["K2R", "K2*", "A3V"], family)
    >>> for each in misfits:
    ...     print(each)
    []
    [Misfit(kind='notation', words='a stop; a substitution is written like A42V, several like A42V:G7D.')]
    [Misfit(kind='wild type', words='residue 3 of the query is V, not A.')]
    """
    parsed: list[tuple[Substitution, ...]] = []
    misfits: list[list[Misfit]] = []
    for text in variants:
        try:
            parsed.append(_parse(text, offset))
            misfits.append([each for substitution in parsed[-1] for each in _misfit(substitution, alignment, offset)])
        except ValueError as error:
            parsed.append(())
            misfits.append([Misfit("notation", str(error))])
    return parsed, misfits


def _misfit(substitution: Substitution, alignment: Alignment, offset: int) -> list[Misfit]:
    wild_type, number, _ = substitution
    query, called = alignment.query, number + offset
    if not 1 <= number <= len(query):
        residues = f"{1 + offset} to {len(query) + offset}"
        return [Misfit("range", f"there is no residue {called}; the query has {residues}.")]
    if query[number - 1] != wild_type:
        return [Misfit("wild type", f"residue {called} of the query is {query[number - 1]}, not {wild_type}.")]
    if alignment.residue_columns[number - 1] < 0:
        why = "is in lower case in the query, so no column of the alignment covers it."
        return [Misfit("coverage", f"residue {called} ({wild_type}) {why}")]
    return []


def _parse(text: str, offset: int) -> tuple[Substitution, ...]:
    if text.strip() in _WILD_TYPE:
        return ()
    substitutions = []
    for part in _in_one_letters(text.strip()).split(":"):
        match = _SUBSTITUTION.fullmatch(part)
        if match is None:
            raise ValueError(f"{_what(part)}; a substitution is written like A42V, several like A42V:G7D.")
        if match[3] not in AMINO_ACIDS:
            raise ValueError(f"{match[3]} is not one of the 20 amino acids.")
        substitutions.append(Substitution(match[1], int(match[2]) - offset, match[3]))
    if len({each.number for each in substitutions}) < len(substitutions):
        raise ValueError("one residue is replaced twice.")
    return tuple(substitutions)


def _in_one_letters(text: str) -> str:
    """Write HGVS's ``p.[Ala42Val;Gly7=]`` as ``A42V:G7G``, without an accession; other notations stay."""
    text = _REFERENCE.sub("p.", text)
    if text.startswith("p."):
        text = re.sub(r"[\[\]()]", "", text[2:]).replace(";", ":")
    text = _THREE_LETTERS.sub(lambda match: _ONE_LETTER.get(match[0], match[0]), text)
    text = re.sub(r"([A-Z])(-?\d+)_([A-Z])(-?\d+)=", r"\1\2\1:\3\4\3", text)  # unchanged from here to there
    return re.sub(r"([A-Z])(-?\d+)=", r"\1\2\1", text)


def _what(part: str) -> str:
    """Describe a part that is not a substitution."""
    if _INDEL.search(part):
        return "an insertion, deletion or frameshift"
    return "a stop" if _STOP.fullmatch(part) else "not a substitution" if part else "empty"


def better_offset(parsed: Sequence[tuple[Substitution, ...]], query: str, offset: int = 0) -> int | None:
    """Find the only other offset with which all wild types fit; None if there is none, or several.

    `parsed` is what `check_variants` returns for `offset`.

    Examples
    --------
    >>> better_offset([(Substitution("K", 12, "R"), Substitution("L", 14, "I"))], "MKVL")
    10
    """
    wild = {(each.number, each.wild_type) for variant in parsed for each in variant}
    if not wild:
        return None
    first, last = min(wild)[0], max(wild)[0]
    fits = [
        offset + shift
        for shift in range(last - len(query), first)
        if shift and all(query[number - shift - 1] == letter for number, letter in wild)
    ]
    return fits[0] if len(fits) == 1 else None


def _raise_all(wrong: list[str], source: str, what: str, advice: str = "") -> None:
    if not wrong:
        return
    shown = " ".join(wrong[:_SHOWN])
    if len(wrong) == 1:
        raise ValueError(f"{source}: {shown}{advice}")
    more = f" ... and {len(wrong) - _SHOWN} more." if len(wrong) > _SHOWN else ""
    raise ValueError(f"{source}: {len(wrong)} {what}: {shown}{more}{advice}")


def mutate(alignment: Alignment, substitutions: Sequence[Substitution]) -> Alignment:
    """Replace residues of the query by a variant, as `parse_variants` returns it; other rows do not change.

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
) -> list[tuple[str, float, int]]:
    """Read variants, such as ``A42V:G7D``, their scores and their lines from a table with a header (see `read_table`).

    The default of `score_column` is the only other column.

    Raises
    ------
    OSError, ValueError
        If the file does not exist, lacks a column or has no row, or a score is not a number.
    """
    table = read_table(path)
    columns = table.columns
    others = [column for column in columns if column != variant_column]
    if score_column is None and len(others) == 1:
        score_column = others[0]
    for what, column in (("variant_column", variant_column), ("score_column", score_column)):
        if column not in columns:
            raise ValueError(f"{path}: {what} is {column!r}, but the columns are {', '.join(columns)}; choose one.")
    cells = table.cells(variant_column), table.cells(str(score_column))
    rows = list(zip(table.lines, *cells, strict=True))
    wrong = [f"line {line} ({variant}): {score!r}." for line, variant, score in rows if not _is_number(score)]
    _raise_all(wrong, str(path), f"scores in {score_column} are not numbers; remove these rows")
    return [(variant, float(score), line) for line, variant, score in rows]


def _is_number(text: str | None) -> bool:
    number = number_in(text or "nan")
    return number is not None and math.isfinite(number)
