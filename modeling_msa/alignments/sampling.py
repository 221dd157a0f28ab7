"""Which rows of an alignment the model sees.

A family has thousands of rows, and the model reads some hundreds. Rao et al. (2021) compare ways to subsample an MSA
at inference; maximising diversity, by greedy choice of the row with the largest Hamming distance to those chosen ("Max
Hamming"), is what fair-esm's contact notebook does, and the default here.

`choose_rows` and `select_rows` work on an `Alignment`. The rules themselves (`first_rows`, `random_rows`,
`diverse_rows`, `weighted_rows`) work on its array, ``(R, L)`` uint8 ASCII codes with the query as row 0. They choose
`depth` rows, query included, return sorted row indices, ``(min(depth, R),)`` int64 with 0 first, and raise ValueError
if `depth` is below 1.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .alignment import Alignment

_GAP = ord("-")
_AMINO_ACIDS = b"ACDEFGHIKLMNPQRSTVWY"
# ASCII code -> 1..20; 0 for gaps and letters that do not name one amino acid (X, J, O). As in HH-suite, B, Z and U
# count as D, E and C.
_CODES = np.zeros(256, dtype=np.uint8)
_CODES[list(_AMINO_ACIDS)] = np.arange(1, 21)
_CODES[list(b"BZU")] = _CODES[list(b"DEC")]
_ONE_HOT = np.eye(21, dtype=np.float32)[:, 1:]
_BLOCK_BYTES = 64_000_000  # size of one one-hot block; a few are alive at a time


def residue_codes(array: np.ndarray) -> np.ndarray:
    """Turn ASCII codes into 1 to 20 for the amino acids, 0 for what no filter or weight counts as a residue.

    Gaps and letters that do not name one amino acid (X, J, O) are 0; B, Z and U count as D, E and C.
    """
    return _CODES[array]


def first_rows(array: np.ndarray, depth: int) -> np.ndarray:
    """Choose the first rows of the file."""
    return np.arange(min(_check_depth(depth), len(array)), dtype=np.int64)


def random_rows(array: np.ndarray, depth: int, seed: int = 0) -> np.ndarray:
    """Draw rows uniformly at random, without replacement; the same seed always gives the same rows."""
    if _check_depth(depth) >= len(array):
        return np.arange(len(array), dtype=np.int64)
    drawn = np.random.default_rng(seed).choice(len(array) - 1, depth - 1, replace=False)
    return _with_query(drawn + 1)


def diverse_rows(array: np.ndarray, depth: int) -> np.ndarray:
    """Choose greedily the rows that differ most from those already chosen.

    "Max Hamming" of Rao et al. (2021), and ``greedy_select`` of fair-esm's contact notebook: start from the query,
    then add, one by one, the row with the largest summed Hamming distance to the rows chosen so far. The distance is
    the number of columns with different characters, a gap being a character. Of equal rows, the first is added.

    Examples
    --------
    >>> from modeling_msa import Alignment
    >>> family = Alignment.from_sequences(["MKVL", "MKVI", "MRAI", "M---"])
    >>> print(diverse_rows(family.array, depth=3))
    [0 2 3]
    """
    if _check_depth(depth) >= len(array):
        return np.arange(len(array), dtype=np.int64)
    columns = np.ascontiguousarray(array.T)  # (L, R): sums over columns are vectorised over rows
    sums = np.zeros(len(array), dtype=np.int64)
    rows = [0]
    while len(rows) < depth:
        sums += _count(columns != columns[:, rows[-1], None])
        sums[rows] = -1
        rows.append(int(sums.argmax()))
    return np.sort(rows)


def weighted_rows(
    array: np.ndarray, depth: int, seed: int = 0, theta: float = 0.2, weights: np.ndarray | None = None
) -> np.ndarray:
    """Draw rows without replacement, in proportion to their sequence weights.

    The rule of ProteinGym's MSA Transformer baseline: rows of crowded subfamilies are drawn less often. Rows of
    weight 0, which have no residue, come last.

    `weights`, shape=(R,), is the result of `sequence_weights` with `theta`, if it is known already: it is slow for
    large alignments. The same seed always gives the same rows.
    """
    if _check_depth(depth) >= len(array):
        return np.arange(len(array), dtype=np.int64)
    weights = (sequence_weights(array, theta) if weights is None else weights)[1:]
    # The order of exponential waiting times with rates w is the order of draws without replacement with p = w / sum.
    waiting = np.full(len(weights), np.inf)
    clock = np.random.default_rng(seed).exponential(size=len(weights))
    np.divide(clock, weights, out=waiting, where=weights > 0)
    return _with_query(np.argsort(waiting, kind="stable")[: depth - 1] + 1)


def redrawn_rows(weights: np.ndarray, depth: int, seed: int = 0) -> np.ndarray:
    """Draw rows with replacement, in proportion to their weights: the choice of ProteinGym's script, row by row.

    Parameters
    ----------
    weights : ndarray, shape=(R,), dtype=float64
        `sequence_weights` of the alignment.
    depth : int
        Number of rows, query included.
    seed : int, default: 0
        Seed of Python's ``random``, which the script uses.

    Returns
    -------
    rows : ndarray, shape=(depth,), dtype=int64
        The query, 0, then the rows as they were drawn, some of them several times; only the query if no other row has
        a weight.

    Examples
    --------
    >>> print(redrawn_rows(np.array([1.0, 0.5, 0.5, 1.0]), depth=6, seed=1))
    [0 1 3 3 2 2]
    """
    others = weights[1:]
    if _check_depth(depth) == 1 or not others.any():
        return np.zeros(1, dtype=np.int64)
    drawn = random.Random(seed).choices(range(1, len(weights)), weights=list(others / others.sum()), k=depth - 1)
    return np.array([0, *drawn], dtype=np.int64)


def sequence_weights(array: np.ndarray, theta: float = 0.2) -> np.ndarray:
    """Weight each row by one over the number of rows that resemble it.

    EVcouplings' and ProteinGym's definition: row j is a neighbour of row i if it has the same residue in at least
    ``1 - theta`` of the columns in which row i has a residue (gaps never match, so the relation is not symmetric);
    a row is its own neighbour. Letters that do not name one amino acid, like X, count as gaps.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes.
    theta : float, default: 0.2
        Maximum fraction of a row's residues that differ in a neighbour; 0.2 is common for most proteins, 0.01 for
        viral ones.

    Returns
    -------
    weights : ndarray, shape=(R,), dtype=float64
        In (0, 1]; 0 for a row without residues.

    Raises
    ------
    ValueError
        If `theta` is not in [0, 1).

    Examples
    --------
    >>> from modeling_msa import Alignment
    >>> family = Alignment.from_sequences(["MKVLA", "MKVLG", "MRGIC"])
    >>> print(sequence_weights(family.array))
    [0.5 0.5 1. ]
    """
    if not 0 <= theta < 1:
        raise ValueError(f"theta is a fraction of residues, 0 <= theta < 1, but is {theta}")
    codes = _CODES[array]
    residues = (codes > 0).sum(axis=1)
    # 1e-6 undoes rounding: (1 - 0.2) * 15 may come out above 12.
    needed = np.ceil((1 - theta) * residues - 1e-6).astype(np.float32)
    neighbours = np.zeros(len(codes), dtype=np.int64)
    blocks = _blocks(*codes.shape)
    for k, left in enumerate(blocks):
        one_hot = _one_hot(codes[left])
        for right in blocks[k:]:
            matches = one_hot @ (one_hot if right == left else _one_hot(codes[right])).T
            neighbours[left] += (matches >= needed[left, None]).sum(axis=1)
            if right != left:
                neighbours[right] += (matches >= needed[None, right]).sum(axis=0)
    return np.where(residues > 0, 1 / np.maximum(neighbours, 1), 0.0)


def neff(array: np.ndarray, theta: float = 0.2) -> float:
    """Effective number of sequences: the sum of the sequence weights.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes.
    theta : float, default: 0.2
        See `sequence_weights`.

    Returns
    -------
    neff : float
        Between 1 (all rows are neighbours) and R (no two are); not divided by the length.
    """
    return float(sequence_weights(array, theta).sum())


def filter_rows(array: np.ndarray, coverage: float | None = None, identity: float | None = None) -> np.ndarray:
    """Leave out short and redundant rows, like ``hhfilter -cov COVERAGE -id IDENTITY``.

    Rows that cover too little of the query are left out. The others are visited from the one with the most residues to
    the one with the fewest, the query before all and equal ones in their order; a row is left out if it is more than
    `identity` percent identical to one that is kept already, counted over the columns in which both have a residue.
    Gaps and letters that do not name one amino acid (X) are not residues; B, Z and U count as D, E and C.

    hhfilter visits rows with equally many residues in the order that its sorting leaves. Without such rows the rows
    kept are the same; with them, others of the same groups are kept.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes; row 0 is the query, which is always kept.
    coverage : float, optional
        Minimum percentage of the query's columns in which a row must have a residue, 0 to 100. By default rows of any
        coverage pass.
    identity : float, optional
        Maximum percentage of identical residues between two rows that are kept, 0 to 100. By default, and with 100,
        rows of any identity pass.

    Returns
    -------
    rows : ndarray, shape=(<=R,), dtype=int64
        Sorted row indices, 0 first.

    Raises
    ------
    ValueError
        If a percentage is not in 0 to 100.

    Examples
    --------
    >>> from modeling_msa import Alignment
    >>> family = Alignment.from_sequences(["MKVLAC", "MKVLAG", "MRGI-C", "M-----"])
    >>> print(filter_rows(family.array, coverage=50))
    [0 1 2]
    >>> print(filter_rows(family.array, coverage=50, identity=80))
    [0 2]
    """
    for name, percent in (("coverage", coverage), ("identity", identity)):
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"{name} is a percentage, 0 to 100, but is {percent}")
    codes = _CODES[array]
    keep = np.ones(len(codes), dtype=bool)
    if coverage is not None:
        query_columns = array[0] != _GAP
        covered = (codes[:, query_columns] > 0).sum(axis=1)
        keep = 100 * covered >= coverage * query_columns.sum()
        keep[0] = True
    if identity is None or identity == 100:
        return np.flatnonzero(keep)
    residues = (codes > 0).sum(axis=1)
    residues[0] = codes.shape[1] + 1  # the query is visited first
    rows = np.argsort(-residues, kind="stable")
    kept: list[int] = []
    columns = np.zeros(codes.shape[::-1], dtype=np.uint8)  # (L, R) codes of the rows kept so far, one after the other
    for row in rows[keep[rows]]:
        covered = codes[row] > 0
        others = columns[covered, : len(kept)]
        overlap = _count(others > 0)
        different = overlap - _count(others == codes[row, covered, None])
        if (100 * different >= (100 - identity) * overlap).all():
            columns[:, len(kept)] = codes[row]
            kept.append(int(row))
    return np.sort(kept)


def choose_rows(
    alignment: Alignment,
    depth: int,
    method: str = "diverse",
    seed: int = 0,
    *,
    coverage: float | None = None,
    identity: float | None = None,
    theta: float = 0.2,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Choose rows as `select_rows` does; return their sorted indices, shape=(<=depth,), dtype=int64, 0 first."""
    rules: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "diverse": lambda array: diverse_rows(array, depth),
        "first": lambda array: first_rows(array, depth),
        "random": lambda array: random_rows(array, depth, seed),
        "weighted": lambda array: weighted_rows(array, depth, seed, theta, weights),
    }
    if method not in rules:
        raise ValueError(f"unknown method of choosing rows {method!r}; use one of {', '.join(sorted(rules))}")
    depth = _check_depth(depth)
    if weights is not None and (coverage, identity) != (None, None):
        raise ValueError("weights cannot be combined with a filter: filter first, then compute the weights")
    rows = filter_rows(alignment.array, coverage, identity)
    if depth < len(rows):
        rows = rows[rules[method](alignment.array[rows])]
    return rows


def select_rows(
    alignment: Alignment,
    depth: int,
    method: str = "diverse",
    seed: int = 0,
    *,
    coverage: float | None = None,
    identity: float | None = None,
    theta: float = 0.2,
    weights: np.ndarray | None = None,
) -> Alignment:
    """Choose at most `depth` rows of an alignment for the model.

    Parameters
    ----------
    alignment : Alignment
        The family; its query (row 0) is always kept.
    depth : int
        Maximum number of rows, query included. An alignment with no more rows than this is kept whole.
    method : {"diverse", "first", "random", "weighted"}, default: "diverse"
        ``diverse`` chooses the rows that differ most (`diverse_rows`; Max Hamming of Rao et al. 2021), ``first`` the
        first rows of the file, ``random`` a uniform sample, ``weighted`` a sample by sequence weight
        (`weighted_rows`).
    seed : int, default: 0
        Random seed of ``random`` and ``weighted``.
    coverage, identity : float, optional
        Percentages; rows are filtered by `filter_rows` first.
    theta : float, default: 0.2
        For ``weighted``, see `sequence_weights`.
    weights : ndarray, shape=(R,), optional
        For ``weighted`` without a filter, see `weighted_rows`.

    Returns
    -------
    alignment : Alignment
        The chosen rows, in the order of the file; its `is_selected` is true, so that tasks use all of them.

    Raises
    ------
    ValueError
        If the method is unknown, `depth` is below 1, or a percentage is not in 0 to 100.

    Examples
    --------
    >>> from modeling_msa import bundled_family, read_alignment
    >>> family = read_alignment(bundled_family())
    >>> few = select_rows(family, depth=16, identity=90)
    >>> print(family.depth, few.depth, few.names[0] == family.names[0])
    1826 16 True
    """
    rows = choose_rows(
        alignment, depth, method, seed, coverage=coverage, identity=identity, theta=theta, weights=weights
    )
    return replace(alignment.take(rows), is_selected=True)


def _check_depth(depth: int) -> int:
    depth = operator.index(depth)
    if depth < 1:
        raise ValueError(f"depth is the number of rows to keep, 1 (the query alone) or more, but is {depth}")
    return depth


def _with_query(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.sort(rows)]).astype(np.int64)


def _count(marks: np.ndarray) -> np.ndarray:
    """Count the true entries of each column of an (L, R) mask; much faster than a plain sum."""
    return marks.view(np.uint8).sum(axis=0, dtype=np.min_scalar_type(len(marks))).astype(np.int64)


def _one_hot(codes: np.ndarray) -> np.ndarray:
    """Turn (B, L) residue codes into (B, L * 20) float32; a product of two counts identical residues exactly."""
    return _ONE_HOT[codes].reshape(len(codes), -1)


def _blocks(depth: int, length: int) -> list[slice]:
    size = int(np.clip(_BLOCK_BYTES // (80 * length), 16, 2048))
    return [slice(start, min(start + size, depth)) for start in range(0, depth, size)]
