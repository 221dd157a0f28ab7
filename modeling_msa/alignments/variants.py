"""Variants of a query: substitutions such as ``A42V:G7D``, insertions and deletions, read, checked and applied.

Residues are numbered from 1 on the query, insertions included; `Alignment.residue_columns` gives their columns.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, cast

import numpy as np

from .alignment import Alignment
from .chains import Chains, chain_slices, check_offset, residue_names
from .edits import Edit
from .tables import number_in, read_table

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
_SUBSTITUTION = re.compile(r"([A-Z])(-?\d+)([A-Z])")
_STOP = re.compile(r"[A-Z]-?\d+\*")
_CHANGED_LENGTH = re.compile(r"(?:([A-Z])(-?\d+))?(_)?(?:([A-Z])(-?\d+))?(delins|del|ins|dup)([A-Z]*)")
_INDEL = re.compile(r"del|ins|dup|fs|ext|-$")
_ALLELES = re.compile(r"\]\s*;\s*\[|\(;\)")  # HGVS: of two chromosomes, or it is not known of which
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
_INDEL_ADVICE = "insertions and deletions are written like A42del, K23_V25del, L13_K14insGG, A42delinsGG or A42dup."
_ONLY_SUBSTITUTIONS = (
    "; only substitutions such as A42V or A42V:G7D can be used here (msa score --strategy pseudo-log-likelihood "
    "scores insertions and deletions too)."
)
LOWER_CASE_ADVICE = "If lower case only marks residues in this file, read it as FASTA: pass format='fasta'."


class Substitution(NamedTuple):
    """One residue replaced by another."""

    wild_type: str
    number: int  # residue of the query, from 1
    mutant: str

    def __str__(self) -> str:
        return f"{self.wild_type}{self.number}{self.mutant}"

    @property
    def residues(self) -> tuple[tuple[str, int], ...]:
        """The residue that is named, and its number."""
        return ((self.wild_type, self.number),)

    @property
    def edit(self) -> Edit:
        """The change."""
        return Edit(self.number - 1, self.number, self.mutant)


def variant_name(substitutions: Sequence[Substitution], chains: Chains = ()) -> str:
    """Write substitutions as `parse_variants` reads them, of a complex by chain.

    >>> some = [Substitution("K", 2, "R"), Substitution("L", 4, "I")]
    >>> chains = Alignment.from_sequences(["MKVLAW"], chains="3,3").chains
    >>> variant_name(some), variant_name(some, chains)
    ('K2R:L4I', 'A:K2R:B:L1I')
    """
    if not chains:
        return ":".join(map(str, substitutions))
    names = residue_names(chains, [each.number for each in substitutions])
    parts = zip(substitutions, (name.rpartition(":") for name in names), strict=True)
    return ":".join(f"{chain}:{each.wild_type}{number}{each.mutant}" for each, (chain, _, number) in parts)


class _OutOfRange(ValueError):
    """A residue that a chain does not have."""


class Indel(NamedTuple):
    """Residues that are inserted, deleted, or replaced by another number of residues."""

    residues: tuple[tuple[str, int], ...]  # that its notation names, with their numbers
    edit: Edit


Change = Substitution | Indel


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
        ``p.Ser1_Pro3=``. In a complex each begins with its chain, ``A:V17I``; ``A:V17I:G20D:B:K3R`` are two in A and
        one in B.
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
    substitutions = cast("list[tuple[Substitution, ...]]", parsed)  # the others are misfits
    named = [
        (f"{place}: {each.words}", each)
        for place, some in zip(places_of(variants, lines), misfits, strict=True)
        for each in some
    ]
    raise_all([words for words, each in named if each.kind == "notation"], source, "variants cannot be read")
    better = None if alignment.chains else better_offset(parsed, alignment.query, offset)
    advice = "" if better is None else f" All wild types fit with offset={better}."
    if named and all(each.kind == "coverage" for _, each in named):
        advice = f" {LOWER_CASE_ADVICE}"
    raise_all([words for words, _ in named], source, "substitutions do not fit the query", advice)
    return substitutions


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
    variants: Sequence[str], alignment: Alignment, offset: int = 0, indels: bool = False
) -> tuple[list[tuple[Change, ...]], list[list[Misfit]]]:
    """Read variants as `parse_variants` does, and list what does not fit the query instead of raising.

    Returns each variant's substitutions, numbered on the query (none for ``WT``, or if it cannot be read), and its
    misfits, one for each substitution that cannot be used. With `indels`, insertions and deletions are read too:
    ``A42del``, ``K23_V25del``, ``L13_K14insGG``, ``A42delinsGG``, ``A42dup``, and the same in HGVS's three letters.

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
    check_offset(alignment.chains, offset, alignment.source or alignment.names[0])
    parsed: list[tuple[Change, ...]] = []
    misfits: list[list[Misfit]] = []
    for text in variants:
        try:
            parsed.append(_parse_any(text, alignment, offset, indels))
            misfits.append([each for change in parsed[-1] for each in _misfit(change, alignment, offset)])
        except ValueError as error:
            parsed.append(())
            misfits.append([Misfit("range" if isinstance(error, _OutOfRange) else "notation", str(error))])
    return parsed, misfits


def _parse_any(text: str, alignment: Alignment, offset: int, indels: bool) -> tuple[Change, ...]:
    """Read a variant of one protein, or of a complex: each of its chains as if it were alone."""
    if _ALLELES.search(text):
        raise ValueError(
            "two alleles, or changes that may be of two; those of one protein are written like A42V:G7D or "
            "p.[Ala42Val;Gly7Asp]."
        )
    chains = alignment.chains
    if not chains or text.strip() in _WILD_TYPE:
        return _parse(text, alignment.query, offset, indels)
    of_chain: dict[str, list[str]] = {each.name: [] for each in chains}
    current = None
    for part in map(str.strip, text.split(":")):
        if part in of_chain:
            current = part
        elif current is None:
            first = chains[0].name
            raise ValueError(
                f"{part!r} has no chain; in a complex a substitution is written like {first}:A42V, and the chains are "
                f"{', '.join(of_chain)}."
            )
        else:
            if _INDEL.search(part):
                raise ValueError(f"{_what(part)}; in a complex only substitutions such as A:A42V can be used.")
            of_chain[current].append(part)
    changes: list[Change] = []
    for chain, (start, end) in zip(chains, chain_slices(chains, len(alignment.query)), strict=True):
        if not of_chain[chain.name]:
            continue
        for each in _parse(":".join(map(_in_one_letters, of_chain[chain.name])), alignment.query[start:end], 0, False):
            assert isinstance(each, Substitution)  # without indels
            if not 1 <= each.number <= chain.length:
                raise _OutOfRange(
                    f"there is no residue {chain.name}:{each.number}; chain {chain.name} has 1 to {chain.length}."
                )
            changes.append(each._replace(number=start + each.number))
    if current is None or not changes:
        raise ValueError(f"no substitution; in a complex one is written like {chains[0].name}:A42V.")
    return tuple(changes)


def _misfit(change: Change, alignment: Alignment, offset: int) -> list[Misfit]:
    query = alignment.query
    for wild_type, number in change.residues:
        called = alignment.residue_name(number) if alignment.chains else number + offset
        if not 1 <= number <= len(query):
            residues = f"{1 + offset} to {len(query) + offset}"
            return [Misfit("range", f"there is no residue {called}; the query has {residues}.")]
        if query[number - 1] != wild_type:
            return [Misfit("wild type", f"residue {called} of the query is {query[number - 1]}, not {wild_type}.")]
    return edit_misfits(change.edit, alignment, offset)


def edit_misfits(edit: Edit, alignment: Alignment, offset: int = 0) -> list[Misfit]:
    """Say so if an edit of the query is where no column of the alignment is.

    Examples
    --------
    >>> family = Alignment.from_sequences(["mKV-L", "RVAL"])
    >>> edit_misfits(Edit(0, 1, ""), family)[0].words
    'residue 1 (M) is in lower case in the query, so no column of the alignment covers it.'
    >>> edit_misfits(Edit(1, 1, "GG"), family)  # before K, which has a column
    []
    """
    start, end, _ = edit
    columns = alignment.residue_columns
    uncovered = np.flatnonzero(columns[start:end] < 0) + start
    if start == end and (columns[max(start - 1, 0) : start + 1] < 0).all():
        uncovered = np.array([min(start, len(columns) - 1)])
    if not len(uncovered):
        return []
    number = uncovered[0] + 1
    called = alignment.residue_name(number) if alignment.chains else number + offset
    residue = f"residue {called} ({alignment.query[number - 1]})"
    return [Misfit("coverage", f"{residue} is in lower case in the query, so no column of the alignment covers it.")]


def _parse(text: str, query: str, offset: int, indels: bool) -> tuple[Change, ...]:
    if text.strip() in _WILD_TYPE:
        return ()
    changes: list[Change] = []
    for part in _in_one_letters(text.strip()).split(":"):
        if (match := _SUBSTITUTION.fullmatch(part)) is not None:
            _check_letters(match[3])
            changes.append(Substitution(match[1], int(match[2]) - offset, match[3]))
        elif indels and (match := _CHANGED_LENGTH.fullmatch(part)) is not None:
            changes.append(_indel(match, query, offset))
        elif _INDEL.search(part):
            advice = f" that cannot be read; {_INDEL_ADVICE}" if indels else _ONLY_SUBSTITUTIONS
            raise ValueError(f"{_what(part)}{advice}")
        else:
            raise ValueError(f"{_what(part)}; a substitution is written like A42V, several like A42V:G7D.")
    edits = sorted(each.edit for each in changes)
    if any(a.end > b.start or a[:2] == b[:2] for a, b in itertools.pairwise(edits)):
        same = all(isinstance(each, Substitution) for each in changes)
        raise ValueError("one residue is replaced twice." if same else "two of its changes overlap.")
    return tuple(changes)


def _check_letters(letters: str) -> None:
    if odd := letters.strip(AMINO_ACIDS):
        raise ValueError(f"{odd[0]} is not one of the 20 amino acids.")


def _indel(match: re.Match[str], query: str, offset: int) -> Indel:
    named = tuple((match[k], int(match[k + 1]) - offset) for k in (1, 4) if match[k])
    kind, letters = match[6], match[7]
    _check_letters(letters)
    is_range = match[3] is not None
    if not named or is_range != (len(named) == 2 or kind == "ins") or bool(letters) != kind.endswith("ins"):
        raise ValueError(f"an insertion or deletion that cannot be read; {_INDEL_ADVICE}")
    first, last = named[0][1], named[-1][1]
    if len(named) == 2 and not (last == first + 1 if kind == "ins" else last > first):
        order = "an insertion lies between two neighbours" if kind == "ins" else "the first residue comes first"
        raise ValueError(f"its residues are {first + offset} and {last + offset}, but {order}.")
    if kind == "ins":
        place = first if match[1] else first - 1
        if (not match[1] and place != 0) or (not match[4] and place != len(query)):
            raise ValueError(f"an insertion has two neighbours, as in L13_K14insGG; {_INDEL_ADVICE}")
        return Indel(named, Edit(place, place, letters))
    if kind == "dup":
        return Indel(named, Edit(last, last, query[max(first - 1, 0) : max(last, 0)]))
    return Indel(named, Edit(first - 1, last, letters))


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


def better_offset(parsed: Sequence[tuple[Change, ...]], query: str, offset: int = 0) -> int | None:
    """Find the only other offset with which all wild types fit; None if there is none, or several.

    `parsed` is what `check_variants` returns for `offset`.

    Examples
    --------
    >>> better_offset([(Substitution("K", 12, "R"), Substitution("L", 14, "I"))], "MKVL")
    10
    """
    wild = {(number, letter) for variant in parsed for each in variant for letter, number in each.residues}
    if not wild:
        return None
    first, last = min(wild)[0], max(wild)[0]
    fits = [
        offset + shift
        for shift in range(last - len(query), first)
        if shift and all(query[number - shift - 1] == letter for number, letter in wild)
    ]
    return fits[0] if len(fits) == 1 else None


def raise_all(wrong: list[str], source: str, what: str, advice: str = "") -> None:
    """Raise ValueError with the first of several messages, if there are any; `what` says what they are."""
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
    raise_all(wrong, str(path), f"scores in {score_column} are not numbers; remove these rows")
    return [(variant, float(score), line) for line, variant, score in rows]


def _is_number(text: str | None) -> bool:
    number = number_in(text or "nan")
    return number is not None and math.isfinite(number)
