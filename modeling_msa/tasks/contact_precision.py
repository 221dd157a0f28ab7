"""Judge predicted contacts by known ones: precision, and the table of it.

Known contacts are square arrays of 1 where two residues are in contact, 0 where they are not and -100 where this is
unknown; `modeling_msa.alignments.structure` makes them from a structure.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .._files import write_table
from ..alignments.chains import BETWEEN, Chains, chain_slices, separated
from ..pipeline_msa_transformer import rank_pairs
from .contacts import MIN_SEPARATION, PairMap

# smallest and largest separation; short, medium and long range are CASP's
RANGES: dict[str, tuple[int, int | None]] = {
    "all": (6, None),
    "short": (6, 11),
    "medium": (12, 23),
    "long": (24, None),
}
TOPS = ("L", "L/2", "L/5")
# of a complex: those of single chains, and pairs between chains, of which there are few
COMPLEX_RANGES = RANGES | {"long": (24, BETWEEN - 1), "between": (BETWEEN, None)}
COMPLEX_TOPS = (*TOPS, "50", "10")


def figure_name(range_name: str, top: str) -> str:
    """Name of a figure in `precisions`."""
    return f"P@{top}" if range_name == "all" else f"{range_name} P@{top}"


def precision(
    scores: np.ndarray | PairMap,
    contacts: np.ndarray,
    *,
    top: int | str = "L",
    min_separation: int = MIN_SEPARATION,
    max_separation: int | None = None,
    residues: np.ndarray | None = None,
) -> float:
    """Fraction of contacts among the pairs with the highest scores: P@L, P@L/2, P@L/5.

    Computed as fair-esm does: of the pairs i < j of known state in the range of separations, the highest L/k are
    taken, k = 1, 2, 5, and the number of contacts among them is divided by L/k (rounded down, at least 1). If the
    range has fewer pairs than that, the missing ones count as wrong. Pairs of a `ContactMap` that no window covers are
    left out, as if their state were unknown.

    Parameters
    ----------
    scores : ndarray, shape=(L, L), or ContactMap, CategoricalJacobian
        Probabilities or any other score; only those with i < j are used. Of equal scores, the pair that comes first
        counts as higher.
    contacts : ndarray, shape=(L, L), dtype=bool or int
        1 (True) contact, 0 not, -100 unknown. For a map over its residues or over the whole query, (N, N).
    top : {"L", "L/2", "L/5"} or "L/" with another number, or int, default "L"
        Number of pairs; L is the size of the map.
    min_separation, max_separation : int, optional
        Smallest and largest difference of residue numbers, both included. Short range is 6 to 11, medium 12 to 23,
        long 24 and more: ``RANGES``.
    residues : ndarray, shape=(L,), optional
        Residue numbers of an array's rows and columns, ascending; default: 1 to L.

    Returns
    -------
    float
        In [0, 1]; NaN if the range has no pair of known state.

    Raises
    ------
    ValueError
        If shapes do not match, contacts contain other numbers, an array of scores contains NaN, or `top` is something
        else.

    Examples
    --------
    >>> contacts = np.zeros((8, 8), dtype=bool)
    >>> contacts[0, 6] = contacts[6, 0] = True
    >>> scores = np.zeros((8, 8))
    >>> scores[0, 6], scores[0, 7] = 0.5, 0.9
    >>> precision(scores, contacts, top=2)
    0.5
    """
    states, length = _ranked_states(scores, contacts, min_separation, max_separation, residues)
    count = _count_of(top, length)
    return float((states[:count] == 1).sum() / count) if len(states) else float("nan")


def _ranked_states(
    scores: np.ndarray | PairMap,
    contacts: np.ndarray,
    min_separation: int,
    max_separation: int | None,
    residues: np.ndarray | None = None,
) -> tuple[np.ndarray, int]:
    """States (1 or 0) of the pairs of known state, the highest scores first, and the size of the map."""
    places = residues
    if isinstance(scores, PairMap):
        residues, values, places = scores.residues, scores.values, separated(scores.chains, scores.residues)
        sizes = {len(residues): "the map's residues", len(scores.query): "the query's"}
    else:
        values = np.asarray(scores, dtype=float)
        residues = np.arange(1, len(values) + 1) if residues is None else residues
        sizes = {len(values): "as the scores"}
    length, places = len(residues), residues if places is None else places
    if values.shape != (length, length):
        raise ValueError(f"Scores must be a square array, (L, L), but have the shape {values.shape}.")
    contacts = check_contact_array(contacts, sizes, "precision")
    if len(contacts) != length:
        contacts = contacts[np.ix_(residues - 1, residues - 1)]
    i, j = rank_pairs(values, places, min_separation, max_separation).T
    known = contacts[i, j] >= 0
    if isinstance(scores, PairMap):
        known &= ~np.isnan(values[i, j])  # in no window of the model
    if np.isnan(values[i, j][known]).any():
        raise ValueError("Scores contain NaN; pass a number for every pair of known state.")
    return contacts[i, j][known], length


def _count_of(top: int | str, length: int) -> int:
    """Return the number of pairs that "L", "L/2" or a number stands for."""
    named = re.fullmatch(r"L(?:/([1-9]\d*))?", top) if isinstance(top, str) else None
    if named:
        return max(1, length // int(named[1] or 1))
    if isinstance(top, str) or operator.index(top) < 1:
        raise ValueError(f"top must be L, L/2, L/5 or the like, or a number of pairs, 1 or more, not {top!r}.")
    return top


def check_contact_array(contacts: np.ndarray, sizes: dict[int, str], where: str) -> np.ndarray:
    """Return known contacts as int8; ValueError if they are not a symmetric array of 1, 0 and -100 of a known size.

    `sizes` says what each allowed length of the axes counts; `where` begins the error.
    """
    contacts = np.asarray(contacts)
    if contacts.ndim != 2 or contacts.shape[0] != contacts.shape[1] or len(contacts) not in sizes:
        wanted = " or ".join(f"({size}, {size}), {what}" for size, what in sizes.items())
        raise ValueError(f"{where}: contacts must have the shape {wanted}, but have {contacts.shape}.")
    wrong = ~np.isin(contacts, (0, 1, -100))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise ValueError(
            f"{where}: contacts must be 1, 0 or -100 (unknown), but the value at ({i}, {j}), from 0, is "
            f"{contacts[i, j]}; convert distances to contacts first (< 8 Angstrom)."
        )
    contacts = contacts.astype(np.int8)
    if (contacts != contacts.T).any():
        i, j = np.argwhere(contacts != contacts.T)[0]
        raise ValueError(f"{where}: contacts must be symmetric, but ({i}, {j}) and ({j}, {i}), from 0, differ.")
    return contacts


def precisions(scores: np.ndarray | PairMap, contacts: np.ndarray) -> dict[str, float]:
    """Compute P@L, P@L/2 and P@L/5 of all pairs at least 6 apart, and of each range; see `precision`.

    The keys are "P@L", "P@L/2", "P@L/5", then "short P@L" ... "long P@L/5". Of a complex, short, medium and long are
    pairs within a chain; "between P@L" ... are pairs of two chains, and each range also has "P@50" and "P@10". L
    counts the residues of all chains.
    """
    is_complex = isinstance(scores, PairMap) and scores.chains
    ranges, tops = (COMPLEX_RANGES, COMPLEX_TOPS) if is_complex else (RANGES, TOPS)
    return {
        figure_name(name, top): precision(
            scores, contacts, top=int(top) if top.isdigit() else top, min_separation=least, max_separation=most
        )
        for name, (least, most) in ranges.items()
        for top in tops
    }


def chance(scores: PairMap, contacts: np.ndarray) -> dict[str, float]:
    """Compute the precision to expect of pairs drawn at random: the share of contacts among pairs of known state.

    The keys are names of ranges, such as "all" and "long", of a complex also "between"; NaN where a range has no such
    pair. For the arguments see `precision`.
    """
    shares = {}
    for name, (least, most) in (COMPLEX_RANGES if scores.chains else RANGES).items():
        states = _ranked_states(scores, contacts, least, most)[0]
        shares[name] = float((states == 1).mean()) if len(states) else float("nan")
    return shares


def covered_contacts(maps: Iterable[PairMap], contacts: np.ndarray) -> np.ndarray:
    """Contacts of the pairs that each of several maps has a number for, ``(L, L)`` int8; -100 for others.

    A model's windows may leave out pairs, which are far apart and seldom in contact: methods that see all pairs are
    comparable with it on its own pairs only.
    """
    first, *others = maps
    sizes = {len(first.residues): "the map's residues", len(first.query): "the query's"}
    contacts = check_contact_array(contacts, sizes, "contacts")
    if len(contacts) != len(first.residues):
        contacts = contacts[np.ix_(first.residues - 1, first.residues - 1)]
    lacking = np.any([np.isnan(each.values) for each in (first, *others)], axis=0)
    return np.where(lacking, np.int8(-100), contacts)


def best_assignment(scores: PairMap, assignments: Mapping[str, np.ndarray], top: int | str = "L") -> str:
    """Find the matching of chains (`complex_contacts`) with the highest precision between chains.

    Chains of equal sequence can be exchanged, and a prediction does not know which is which. Of equally good ones the
    first is taken.
    """
    values = {
        name: precision(scores, contacts, top=top, min_separation=BETWEEN) for name, contacts in assignments.items()
    }
    return max(values, key=lambda name: -1 if np.isnan(values[name]) else values[name])


def same_pair_contacts(contacts: np.ndarray, query: str, chains: Chains) -> np.ndarray:
    """Mark pairs of chains of equal sequence whose residues are in contact within one of the chains.

    A model cannot tell A:10 from B:10 by the sequence of a homo-oligomer, so that it predicts contacts within a chain
    as contacts between chains, too.

    Parameters
    ----------
    contacts : ndarray, shape=(N, N)
        1 contact, 0 not, -100 unknown.
    query : str
        The query's N residues.
    chains : tuple of Chain

    Returns
    -------
    ndarray, shape=(N, N), dtype=bool
        True at i and j of different chains if i and the residue of its chain at the place of j are in contact in
        either of the two chains.

    Examples
    --------
    >>> from modeling_msa import Chain
    >>> contacts = np.zeros((4, 4), dtype=int)
    >>> contacts[0, 1] = contacts[1, 0] = 1
    >>> print(same_pair_contacts(contacts, "MKMK", (Chain("A", 2), Chain("B", 2))).astype(int))
    [[0 0 0 1]
     [0 0 1 0]
     [0 1 0 0]
     [1 0 0 0]]
    """
    parts = [slice(*ends) for ends in chain_slices(chains, len(query))]
    marked = np.zeros(contacts.shape, dtype=bool)
    for a, b in itertools.permutations(parts, 2):
        if query[a] == query[b]:
            marked[a, b] = (contacts[a, a] == 1) | (contacts[b, b] == 1)
    return marked


def precision_table(cells: dict[str, str]) -> str:
    """Lay out the figures of `precisions`: a line for each range of separations, a column for each P@."""
    ranges, tops = _layout(cells)
    rows = {name: [cells[figure_name(name, top)] for top in tops] for name in ranges}
    columns = zip((f"P@{top}" for top in tops), *rows.values(), strict=True)
    widths = [max(map(len, column)) + 2 for column in columns]

    def line(name: str, limits: str, values: list[str]) -> str:
        numbers = (f"{value:>{width}}" for value, width in zip(values, widths, strict=True))
        return f"{name:<9}{limits:>6}{''.join(numbers)}"

    lines = [line("contacts", "|i-j|", [f"P@{top}" for top in tops])]
    for name, (least, most) in ranges.items():
        limits = "" if least == BETWEEN else f">={least}" if most in (None, BETWEEN - 1) else f"{least}-{most}"
        lines.append(line(name, limits, rows[name]))
    return "\n".join(lines)


def compared(maps: Sequence[PairMap], contacts: np.ndarray) -> dict[str, dict[str, float]]:
    """Compute P@L of several maps in each range, by their methods, and last that of pairs drawn at random.

    All are of the pairs that each of the maps has a number for (`covered_contacts`).
    """
    contacts = covered_contacts(maps, contacts)
    by_chance = chance(maps[0], contacts)
    limits = {name: COMPLEX_RANGES[name] for name in by_chance}
    figures = {
        each.method: {
            name: precision(each, contacts, min_separation=least, max_separation=most)
            for name, (least, most) in limits.items()
        }
        for each in maps
    }
    return figures | {"chance": by_chance}


def compared_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out the figures of `compared`: a line for each method, a column for each range."""
    width = max(map(len, ["P@L by method", *figures])) + 2
    head = f"{'P@L by method':<{width}}" + "".join(f"{name:>9}" for name in figures["chance"])
    cells = {
        name: "".join(f"{'-' if np.isnan(value) else f'{value:.2f}':>9}" for value in each.values())
        for name, each in figures.items()
    }
    return "\n".join([head, *(f"{name:<{width}}{row}" for name, row in cells.items())])


def _layout(cells: Mapping[str, object]) -> tuple[dict[str, tuple[int, int | None]], tuple[str, ...]]:
    """Return the ranges and numbers of pairs of which there are figures."""
    return (COMPLEX_RANGES, COMPLEX_TOPS) if "between P@L" in cells else (RANGES, TOPS)


def write_precisions(
    values: dict[str, float], path: str | os.PathLike, others: Mapping[str, Mapping[str, float]] | None = None
) -> None:
    """Write one family's `precisions` as a tab-separated table, whole or not at all.

    A line for each range of separations: contacts, P@L, P@L/2, P@L/5; empty where the family has no such pair. Of a
    complex also a line ``between``, and columns P@50 and P@10. `others` are further columns by their names, with a
    figure for each range.
    """
    ranges, tops = _layout(values)
    more = (others or {}).values()
    rows = [
        [name, *(text_of(values[figure_name(name, top)]) for top in tops), *(text_of(each[name]) for each in more)]
        for name in ranges
    ]
    write_table(["contacts", *(f"P@{top}" for top in tops), *(others or {})], rows, path)


def text_of(value: float) -> str:
    """Write a figure with six decimals; NaN as nothing."""
    return "" if np.isnan(value) else f"{value:.6f}"
