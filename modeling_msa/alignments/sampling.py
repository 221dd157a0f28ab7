"""Which rows of an alignment the model sees.

A family has thousands of rows and the model takes some hundreds. Rao et al. (2021) compare ways to subsample an MSA
at inference; maximising diversity, by greedy choice of the row with the largest Hamming distance to those chosen
("Max Hamming"), is the one that fair-esm's contact notebook takes, and the default here.

Every rule works on an ``(R, L)`` uint8 array of ASCII codes (`Alignment.array`), row 0 being the query, and returns
sorted row indices that begin with 0. `select_rows` is the one entry for an `Alignment`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np

from .alignment import Alignment

_GAP = ord("-")
_AMINO_ACIDS = b"ACDEFGHIKLMNPQRSTVWY"
# ASCII code -> 1..20, 0 for gaps and letters of no one amino acid (X, J, O). B, Z and U count as D, E and C, as in
# HH-suite.
_CODES = np.zeros(256, dtype=np.uint8)
_CODES[list(_AMINO_ACIDS)] = np.arange(1, 21)
_CODES[list(b"BZU")] = _CODES[list(b"DEC")]
_ONE_HOT = np.eye(21, dtype=np.float32)[:, 1:]
_BLOCK_BYTES = 64_000_000  # size of one one-hot block; a few are alive at a time


def first_rows(array: np.ndarray, depth: int) -> np.ndarray:
    """Take the first rows of the file.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes; row 0 is the query.
    depth : int
        Number of rows to take, query included.

    Returns
    -------
    rows : ndarray, shape=(min(depth, R),), dtype=int64
        Row indices ``0, 1, 2, ...``.

    Raises
    ------
    ValueError
        If `depth` is below 1.
    """
    return np.arange(min(_check_depth(depth), len(array)), dtype=np.int64)


def random_rows(array: np.ndarray, depth: int, seed: int = 0) -> np.ndarray:
    """Draw rows evenly at random, without replacement.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes; row 0 is the query, which is always kept.
    depth : int
        Number of rows to take, query included.
    seed : int, default: 0
        Seed of the generator; one seed always gives the same rows.

    Returns
    -------
    rows : ndarray, shape=(min(depth, R),), dtype=int64
        Sorted row indices, 0 first.

    Raises
    ------
    ValueError
        If `depth` is below 1.
    """
    if _check_depth(depth) >= len(array):
        return np.arange(len(array), dtype=np.int64)
    drawn = np.random.default_rng(seed).choice(len(array) - 1, depth - 1, replace=False)
    return _with_query(drawn + 1)


def diverse_rows(array: np.ndarray, depth: int) -> np.ndarray:
    """Take greedily the rows that differ most from those already taken.

    "Max Hamming" of Rao et al. (2021, subsampling of MSAs at inference), and ``greedy_select`` of fair-esm's contact
    notebook: start from the query, then add, one at a time, the row with the largest summed Hamming distance (number
    of columns with different characters, a gap being a character) to the rows taken so far. The notebook compares
    means of fractions, where rounding tells equal sums apart; the same is done here, so that the rows are the
    notebook's. Among rows that are still equal the first is taken.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes; row 0 is the query.
    depth : int
        Number of rows to take, query included.

    Returns
    -------
    rows : ndarray, shape=(min(depth, R),), dtype=int64
        Sorted row indices, 0 first.

    Raises
    ------
    ValueError
        If `depth` is below 1.

    Examples
    --------
    >>> from modeling_msa.alignments.alignment import Alignment
    >>> family = Alignment.from_sequences(["MKVL", "MKVI", "MRAI", "M---"])
    >>> print(diverse_rows(family.array, depth=3))
    [0 2 3]
    """
    if _check_depth(depth) >= len(array):
        return np.arange(len(array), dtype=np.int64)
    columns = np.ascontiguousarray(array.T)  # (L, R): sums over the first axis are vectorised over rows
    mismatches = np.zeros((depth - 1, len(array)), dtype=np.min_scalar_type(len(columns)))
    total = np.zeros(len(array), dtype=np.int64)
    rows = [0]
    for n in range(depth - 1):
        mismatches[n] = _mismatches(columns, rows[-1])
        total += mismatches[n]
        total[rows[-1]] = np.iinfo(np.int64).min // 2  # taken
        tied = np.flatnonzero(total == total.max())
        if len(tied) > 1:
            # Contiguous rows, since NumPy then adds in the order in which it does in the notebook.
            fractions = np.ascontiguousarray(mismatches[: n + 1, tied].T) / len(columns)
            tied = tied[[np.argmax(fractions.mean(axis=1))]]
        rows.append(int(tied[0]))
    return np.array(sorted(rows), dtype=np.int64)


def weighted_rows(
    array: np.ndarray, depth: int, seed: int = 0, theta: float = 0.2, weights: np.ndarray | None = None
) -> np.ndarray:
    """Draw rows without replacement, in proportion to their sequence weights.

    The rule of ProteinGym's MSA Transformer baseline: rows of crowded subfamilies are drawn less often. Rows of
    weight 0 (no residue at all) come last.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes; row 0 is the query, which is always kept.
    depth : int
        Number of rows to take, query included.
    seed : int, default: 0
        Seed of the generator; one seed always gives the same rows.
    theta : float, default: 0.2
        See `sequence_weights`.
    weights : ndarray, shape=(R,), optional
        What `sequence_weights` gives, if it is known already: for large alignments that takes long.

    Returns
    -------
    rows : ndarray, shape=(min(depth, R),), dtype=int64
        Sorted row indices, 0 first.

    Raises
    ------
    ValueError
        If `depth` is below 1 or `theta` is not in [0, 1).
    """
    if _check_depth(depth) >= len(array):
        return np.arange(len(array), dtype=np.int64)
    weights = (sequence_weights(array, theta) if weights is None else weights)[1:]
    # The order of exponential waiting times with rates w is the order of draws without replacement with p = w / sum.
    waiting = np.full(len(weights), np.inf)
    clock = np.random.default_rng(seed).exponential(size=len(weights))
    np.divide(clock, weights, out=waiting, where=weights > 0)
    return _with_query(np.argsort(waiting, kind="stable")[: depth - 1] + 1)


def sequence_weights(array: np.ndarray, theta: float = 0.2) -> np.ndarray:
    """Weigh each row by one over the number of rows that resemble it.

    EVcouplings' and ProteinGym's definition: row j is a neighbour of row i if it has the same residue in at least
    ``1 - theta`` of the columns in which row i has a residue (gaps never match, so the relation is not symmetric);
    a row is its own neighbour. Letters that stand for no one amino acid, like X, count as gaps.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes.
    theta : float, default: 0.2
        Largest fraction of a row's residues that may differ in a neighbour; 0.2 is the custom for most proteins, 0.01
        for viral ones.

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
    >>> from modeling_msa.alignments.alignment import Alignment
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
        Between 1 (all rows alike) and R (no two alike); not divided by the length.
    """
    return float(sequence_weights(array, theta).sum())


def filter_rows(array: np.ndarray, coverage: float | None = None, identity: float | None = None) -> np.ndarray:
    """Leave out short and redundant rows, like ``hhfilter -cov COVERAGE -id IDENTITY``.

    Rows that cover too little of the query are dropped. The others are visited from the one with most residues to
    the one with fewest, the query before all, and a row is dropped if it is more than `identity` percent identical to
    one that is kept already, counted over the columns in which both have a residue. Gaps and letters of no one amino
    acid (X) are no residues; B, Z and U count as D, E and C. Rows with equally many residues are visited in hhfilter's
    order, so that the rows kept are the same.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes; row 0 is the query, which is always kept.
    coverage : float, optional
        Least percentage of the query's columns in which a row must have a residue, 0 to 100. By default rows of any
        coverage pass.
    identity : float, optional
        Largest percentage of identical residues between two rows that are kept, 0 to 100. By default, and with 100,
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
    >>> from modeling_msa.alignments.alignment import Alignment
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
    order = _visiting_order((codes > 0).sum(axis=1))
    order = order[keep[order]]
    return np.sort(order[_greedy_nonredundant(codes[order], identity)])


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
    """Choose at most `depth` rows of an alignment for the model.

    Parameters
    ----------
    alignment : Alignment
        The family; its query (row 0) is always kept.
    depth : int
        Number of rows to keep, query included. If no more rows than this are there, all are kept, in order.
    method : {"diverse", "first", "random", "weighted"}, default: "diverse"
        ``diverse`` takes the rows that differ most (`diverse_rows`; Max Hamming of Rao et al. 2021), ``first`` the
        first of the file, ``random`` an even draw, ``weighted`` a draw by sequence weight (`weighted_rows`). The
        order of the file is kept.
    seed : int, default: 0
        Seed of the draws; ``diverse`` and ``first`` do not draw.
    coverage, identity : float, optional
        Percentages: filter by `filter_rows` before choosing.
    theta : float, default: 0.2
        For ``weighted``: see `sequence_weights`.
    weights : ndarray, shape=(R,), optional
        For ``weighted`` without a filter: see `weighted_rows`.

    Returns
    -------
    rows : ndarray, shape=(<=depth,), dtype=int64
        Sorted row indices of `alignment`, 0 first.

    Raises
    ------
    ValueError
        If the method is unknown, `depth` is below 1, or a percentage is not in 0 to 100.
    """
    rules: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "diverse": lambda array: diverse_rows(array, depth),
        "first": lambda array: first_rows(array, depth),
        "random": lambda array: random_rows(array, depth, seed),
        "weighted": lambda array: weighted_rows(array, depth, seed, theta, weights),
    }
    if method not in rules:
        raise ValueError(f"no way to choose rows is called {method!r}; the ways are: {', '.join(sorted(rules))}")
    depth = _check_depth(depth)
    if weights is not None and (coverage, identity) != (None, None):
        raise ValueError("weights are those of all rows: filter first, then weigh what is left")
    if coverage is None and identity is None:
        rows = np.arange(len(alignment.array), dtype=np.int64)
    else:
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
    """Take the rows that `choose_rows` chooses; it describes the parameters and errors.

    Returns
    -------
    alignment : Alignment
        The chosen rows, the query first.

    Examples
    --------
    >>> from modeling_msa.alignments.bundled import bundled_family
    >>> from modeling_msa.alignments.reading import read_alignment
    >>> family = read_alignment(bundled_family())
    >>> few = select_rows(family, depth=16, identity=90)
    >>> print(family.depth, few.depth, few.names[0] == family.names[0])
    98 16 True
    """
    rows = choose_rows(
        alignment, depth, method, seed, coverage=coverage, identity=identity, theta=theta, weights=weights
    )
    return alignment.take(rows)


def _check_depth(depth: int) -> int:
    depth = operator.index(depth)
    if depth < 1:
        raise ValueError(f"depth is the number of rows to keep, 1 (the query alone) or more, but is {depth}")
    return depth


def _with_query(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.sort(rows)]).astype(np.int64)


def _mismatches(columns: np.ndarray, row: int) -> np.ndarray:
    """Hamming distance, in columns, of one row of an (L, R) array to every row."""
    total = np.zeros(columns.shape[1], dtype=np.int64)
    for start in range(0, len(columns), 255):  # 255 mismatches still fit the fast uint8 sum
        part = columns[start : start + 255]
        total += (part != part[:, row, None]).view(np.uint8).sum(axis=0, dtype=np.uint8)
    return total


def _one_hot(codes: np.ndarray) -> np.ndarray:
    """Turn (B, L) residue codes into (B, L * 20) float32; a product of two counts identical residues exactly."""
    return _ONE_HOT[codes].reshape(len(codes), -1)


def _blocks(depth: int, length: int) -> list[slice]:
    size = int(np.clip(_BLOCK_BYTES // (80 * length), 16, 2048))
    return [slice(start, min(start + size, depth)) for start in range(0, depth, size)]


def _visiting_order(residues: np.ndarray) -> np.ndarray:
    """Row 0, then the others by falling number of residues, ties as hhfilter leaves them.

    It sorts with the quicksort of Kernighan and Ritchie, which is not stable: the middle element becomes the pivot,
    and each larger element is swapped to the front in turn.
    """
    order = np.arange(len(residues), dtype=np.int64)
    pending = [(1, len(order) - 1)]
    while pending:
        left, right = pending.pop()
        if left >= right:
            continue
        middle = (left + right) // 2
        order[[left, middle]] = order[[middle, left]]
        last = left
        larger = residues[order[left + 1 : right + 1]] > residues[order[left]]
        for i in (np.flatnonzero(larger) + left + 1).tolist():
            last += 1
            order[[last, i]] = order[[i, last]]
        order[[left, last]] = order[[last, left]]
        pending += [(left, last - 1), (last + 1, right)]
    return order


def _greedy_nonredundant(codes: np.ndarray, identity: float) -> np.ndarray:
    """Positions of the rows kept when each is compared with those kept before it."""
    kept = np.zeros(0, dtype=np.int64)
    for block in _blocks(*codes.shape):
        candidates = np.arange(block.start, block.stop)
        one_hot = _one_hot(codes[block])
        mask = (codes[block] > 0).astype(np.float32)

        def redundant(others: np.ndarray, one_hot: np.ndarray = one_hot, mask: np.ndarray = mask) -> np.ndarray:
            overlap = mask @ (others > 0).astype(np.float32).T
            mismatches = overlap - one_hot @ _one_hot(others).T
            return 100 * mismatches < (100 - identity) * overlap

        alive = np.ones(len(candidates), dtype=bool)
        for start in range(0, len(kept), len(candidates)):
            alive &= ~redundant(codes[kept[start : start + len(candidates)]]).any(axis=1)
        within = redundant(codes[block])
        for k in range(len(candidates)):
            if alive[k]:
                alive[k + 1 :] &= ~within[k, k + 1 :]
        kept = np.concatenate([kept, candidates[alive]])
    return kept
