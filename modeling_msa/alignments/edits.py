"""Insertions, deletions and substitutions as edits of a query's residues, in a form that a protein has only once.

Where residues repeat, an insertion or deletion could be placed at several residues with the same protein as result.
Its place decides which columns of a family stand beside it, so that there must be one: the last, HGVS's 3' rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np


class Edit(NamedTuple):
    """Residues `start` + 1 to `end` of a query are replaced: by none in a deletion; none are in an insertion."""

    start: int
    end: int
    letters: str

    @property
    def is_substitution(self) -> bool:
        """Whether one residue is replaced by one."""
        return self.end - self.start == len(self.letters) == 1


def normal_form(query: str, edits: Iterable[Edit], covered: np.ndarray | None = None) -> tuple[Edit, ...]:
    """Bring edits into their only form: single substitutions, deletions and insertions.

    Edits that touch, of which one changes the length, become one, and this one is split into substitutions and at most
    one insertion or deletion, placed where the fewest residues change. Of equally good places it takes the last.

    Parameters
    ----------
    query : str
        Its residues.
    edits : iterable of Edit
        They do not overlap.
    covered : ndarray, shape=(N,), dtype=bool, optional
        Residues that have a column of the alignment; insertions and deletions are not moved to others.

    Returns
    -------
    tuple of Edit
        From the first residue to the last; residues replaced by themselves are left out.

    Examples
    --------
    >>> normal_form("MKKKV", [Edit(1, 2, "")])  # any of three K
    (Edit(start=3, end=4, letters=''),)
    >>> normal_form("MKV", [Edit(1, 2, "KG")])
    (Edit(start=2, end=2, letters='G'),)
    """
    covered = np.ones(len(query), dtype=bool) if covered is None else covered
    new = tuple(sorted(edits))
    old: tuple[Edit, ...] | None = None
    while new != old:  # what was moved may touch the next
        old = new
        split = [part for each in _merged(old) for part in _split(query, each)]
        new = tuple(_moved(query, split, covered))
    return new


def _merged(edits: Sequence[Edit]) -> list[Edit]:
    merged: list[Edit] = []
    for each in edits:
        if merged and merged[-1].end == each.start and not (merged[-1].is_substitution and each.is_substitution):
            each = Edit(merged[-1].start, each.end, merged.pop().letters + each.letters)
        merged.append(each)
    return merged


def _split(query: str, edit: Edit) -> list[Edit]:
    """Substitutions, and one deletion or insertion where most residues stay as they are."""
    start, end, letters = edit
    old = query[start:end]
    both = min(len(old), len(letters))  # residues that are paired, first from the left and then from the right
    left = list(accumulate((a == b for a, b in zip(old, letters, strict=False)), initial=0))
    right = list(accumulate((a == b for a, b in zip(old[::-1], letters[::-1], strict=False)), initial=0))
    cut = both if len(old) == len(letters) else max(range(both + 1), key=lambda k: (left[k] + right[both - k], k))
    back = both - cut
    parts = [Edit(start + k, start + k + 1, letters[k]) for k in range(cut) if old[k] != letters[k]]
    if len(old) != len(letters):
        parts.append(Edit(start + cut, end - back, letters[cut : len(letters) - back]))
    pairs = zip(range(end - back, end), letters[len(letters) - back :], strict=True)
    return parts + [Edit(k, k + 1, letter) for k, letter in pairs if query[k] != letter]


def _moved(query: str, edits: Sequence[Edit], covered: np.ndarray) -> list[Edit]:
    """Move deletions and insertions to the last place with the same protein."""
    moved: list[Edit] = []
    limit = len(query)
    for start, end, letters in reversed(edits):
        if end - start != len(letters):
            while end < limit and covered[end] and query[end] == (letters or query[start:])[0]:
                start, end, letters = start + 1, end + 1, letters[1:] + letters[:1]
        moved.append(Edit(start, end, letters))
        limit = start
    return moved[::-1]


def edits_between(
    query: str, sequence: str, pairs: Iterable[tuple[int, int]] = (), covered: np.ndarray | None = None
) -> tuple[Edit, ...]:
    """Find the edits that make a sequence of the query.

    Parameters
    ----------
    query, sequence : str
        Residues.
    pairs : iterable of (int, int)
        Residues of the query and of the sequence that are aligned, from 0, in order. Without them the sequence differs
        by one insertion or deletion at most, and by substitutions.
    covered : ndarray, optional
        As for `normal_form`.

    Examples
    --------
    >>> edits_between("MKVLAW", "MKVAW")
    (Edit(start=3, end=4, letters=''),)
    """
    edits, i, j = [], 0, 0
    for k, m in [*pairs, (len(query), len(sequence))]:
        edits.append(Edit(i, k, sequence[j:m]))
        if k < len(query):
            edits.append(Edit(k, k + 1, sequence[m]))
        i, j = k + 1, m + 1
    return normal_form(query, [each for each in edits if query[each.start : each.end] != each.letters], covered)


def kept_residues(query: str, edits: Iterable[Edit]) -> int:
    """Count the residues of the query that stay as they are.

    >>> kept_residues("MKVLAW", [Edit(3, 4, ""), Edit(5, 5, "GG")])
    5
    """
    return len(query) - sum(each.end - each.start for each in edits)


def apply_edits(query: str, edits: Iterable[Edit]) -> tuple[str, np.ndarray]:
    """Return the sequence that edits in normal form make, and which residue of the query each of its residues is.

    Returns
    -------
    sequence : str
        Its residues.
    numbers : ndarray, dtype=int64
        Residues of the query, from 1; 0 for inserted ones.

    Examples
    --------
    >>> sequence, numbers = apply_edits("MKVLAW", [Edit(1, 2, "R"), Edit(3, 4, ""), Edit(5, 5, "GG")])
    >>> sequence, numbers.tolist()
    ('MRVAGGW', [1, 2, 3, 5, 0, 0, 6])
    """
    parts: list[str] = []
    numbers: list[int] = []
    at = 0
    for start, end, letters in [*edits, Edit(len(query), len(query), "")]:
        parts += [query[at:start], letters]
        numbers += range(at + 1, start + 1)
        numbers += [end if end > start else 0] * len(letters)
        at = end
    return "".join(parts), np.array(numbers, dtype=np.int64)


def edit_names(query: str, edits: Iterable[Edit], offset: int = 0) -> str:
    """Write edits in the notation of variants; the query itself is ``WT``.

    Before the first residue and behind the last, one neighbour of an insertion is left out.

    Examples
    --------
    >>> edit_names("MKVLAW", [Edit(1, 2, "R"), Edit(3, 4, ""), Edit(5, 5, "GG"), Edit(6, 6, "H")])
    'K2R:L4del:A5_W6insGG:W6_insH'
    """

    def residue(place: int) -> str:
        return f"{query[place]}{place + 1 + offset}" if 0 <= place < len(query) else ""

    names = []
    for start, end, letters in edits:
        if end - start == len(letters):
            names.append(f"{residue(start)}{letters}")
        elif letters:
            names.append(f"{residue(start - 1)}_{residue(start)}ins{letters}")
        else:
            names.append(residue(start) + (f"_{residue(end - 1)}" if end > start + 1 else "") + "del")
    return ":".join(names) or "WT"
