"""What may change when sequences are generated: which residues, and the rows of each alignment that is regenerated."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence

import numpy as np

from .._ranges import parse_ranges
from ..alignments.alignment import Alignment
from ..alignments.chains import Chains, parse_residues
from ..alignments.sampling import choose_rows

_NUMBERS = re.compile(r"[\d\s,-]+")


def residue_numbers(numbers: str | Iterable[int], what: str, chains: Chains = ()) -> list[int]:
    """Read residue numbers, such as "3,10-12", or "A:3,B"; ValueError, which begins with `what`, for other text."""
    if isinstance(numbers, str):
        return parse_residues(numbers, chains, what)
    return [operator.index(number) for number in numbers]


def columns_to_change(
    family: Alignment, only: str | Iterable[int] | None, fixed: str | Iterable[int] | None
) -> np.ndarray:
    """Find the columns of residues that may change.

    Parameters
    ----------
    family : Alignment
        Without gaps in the query.
    only, fixed : str or iterable of int, optional
        Residue numbers of the query: the only ones to change, and those to leave. Of a complex as text by chain,
        ``"A:3,B:10-12"``; ``"B"`` is all of a chain.

    Returns
    -------
    ndarray, shape=(L,), dtype=bool

    Raises
    ------
    ValueError
        If the query has no such residue, or nothing is left to change.
    """
    columns = np.full(family.length, only is None)
    if only is not None:
        numbers = residue_numbers(only, "residues to change", family.chains)
        if isinstance(only, str) and family.chains and ":" not in only:  # whole chains, whose insertions never change
            numbers = [number for number in numbers if family.residue_columns[number - 1] >= 0]
        columns[[family.column_of(number) for number in numbers]] = True
    for number in [] if fixed is None else residue_numbers(fixed, "fixed residues", family.chains):
        if not 1 <= number <= len(family.query) or family.residue_columns[number - 1] >= 0:
            columns[family.column_of(number)] = False  # a residue without a column never changes
    if not columns.any():
        raise ValueError(f"{family.source or family.names[0]}: all residues are fixed, so nothing can be generated.")
    return columns


def find_rows(alignment: Alignment, wanted: Sequence[int | str]) -> np.ndarray:
    """Find rows by names (whole, or their first word), numbers from 1 and ranges; return sorted indices from 0.

    Examples
    --------
    >>> family = Alignment.from_sequences(["MKV", "MRV", "M-V", "LKV"], ["q", "a human", "b", "c"])
    >>> find_rows(family, ["c", "2-3", 2])
    array([1, 2, 3])
    """
    where = alignment.source or "alignment"
    names: dict[str, set[int]] = {}
    for row, name in enumerate(alignment.names):
        for label in {name, name.partition(" ")[0]}:
            names.setdefault(label, set()).add(row)
    rows: set[int] = set()
    for each in [wanted] if isinstance(wanted, str) else wanted:
        if isinstance(each, str) and (found := names.get(each)):
            if len(found) > 1:
                numbers = ", ".join(str(row + 1) for row in sorted(found))
                raise ValueError(f"{where}: rows {numbers} all have the name {each}: pass the row's number instead.")
            rows |= found
            continue
        if isinstance(each, str) and not _NUMBERS.fullmatch(each):
            raise ValueError(f"{where}: there is no row with the name {each!r}.")
        for number in parse_ranges(each, "rows to change") if isinstance(each, str) else [operator.index(each)]:
            if not 1 <= number <= alignment.depth:
                raise ValueError(
                    f"{where}: rows are numbered from 1 (the query) to {alignment.depth}, so there is no row {number}."
                )
            rows.add(number - 1)
    if not rows:
        raise ValueError(f"{where}: only_rows is empty: name at least one row that may change.")
    return np.array(sorted(rows), dtype=np.int64)


def named_batch(
    family: Alignment, pool: np.ndarray, rows: int, select: str, seed: int, named: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Choose an alignment with the rows `named` in it: row indices, the query first, and a mask of those rows.

    The others are chosen from `pool`, which begins with the query; `rows` in all.
    """
    fixed = np.union1d([0], named)
    if len(fixed) > rows:
        raise ValueError(
            f"{family.source or family.names[0]}: the query and the rows to change are {len(fixed)} rows, but the "
            f"model is given {rows}: raise rows, if the model reads more, or change fewer."
        )
    others = np.union1d([0], np.setdiff1d(pool, fixed))
    index = np.union1d(fixed, _choose(family, others, rows - len(fixed) + 1, select, seed))
    return index, np.isin(index, named)


def batches(
    family: Alignment, pool: np.ndarray, rows: int, select: str, seed: int, count: int | None, keep_query: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide `pool`, which begins with the query, into alignments to regenerate, until `count` rows change.

    Each is row indices, the query first, and a mask of the rows that change: no row changes twice.
    """
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, but is {count}.")
    made: list[tuple[np.ndarray, np.ndarray]] = []
    left, used, wanted = pool[1:], pool[:0], count
    while not made or (wanted and len(left) and rows > 1):
        new = _choose(family, np.append(0, left), rows, select, seed)[1:]
        index = np.union1d(np.append(0, new), used[: rows - 1 - len(new)])
        changed = np.isin(index, new)
        changed[0] = not made and not keep_query
        wanted = changed.sum() if wanted is None else wanted
        changed &= np.cumsum(changed) <= wanted
        wanted -= changed.sum()
        left, used = np.setdiff1d(left, new), np.append(used, new)
        made.append((index, changed))
    if not made[0][1].any():
        raise ValueError(
            f"{family.source or family.names[0]}: the model sees only the query, which is to be kept, so nothing can "
            "be generated."
        )
    return made


def _choose(family: Alignment, candidates: np.ndarray, rows: int, select: str, seed: int) -> np.ndarray:
    """Choose among candidates (row indices, 0 first); returns row indices, 0 first."""
    return candidates[choose_rows(family.take(candidates), rows, select, seed)]
