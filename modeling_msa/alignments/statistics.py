"""What an alignment is: its size, depth, coverage, identity to the query, gaps, and what to watch out for."""

from __future__ import annotations

import itertools
import json
import os
import string
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._files import check_ending, whole_file, write_table
from .._words import counted
from .alignment import Alignment
from .chains import Chains, chain_indices, format_chains, format_residues, residue_names
from .sampling import choose_rows, neff, residue_codes, sequence_weights
from .variants import AMINO_ACIDS

FORMATS = (".tsv", ".json")
LONGEST = 1023  # aligned residues that the published models read at a time
# limits of the warnings
_FEW = 16  # effective rows
_SHORT = 50  # percent of the query's columns
_SHARE = 0.3  # of rows, columns or letters
_ODD_SHARE = 0.01
_DUPLICATE_SHARE = 0.1
_DISTANT = 20  # percent identity
_LISTED = 5  # pairs of chains
_LOWER = string.ascii_lowercase.encode()
_LETTERS = frozenset(f"{AMINO_ACIDS}-".encode())


@dataclass(frozen=True, eq=False)
class AlignmentStatistics:
    """What an alignment is, counted in the L columns in which the query has a residue.

    Letters that do not name one amino acid (X, J, O) are neither residues nor gaps; B, Z and U count as D, E and C.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each column.
    query_gaps : int
        Columns of the file in which the query has a gap; no task uses them.
    depth : int
        Rows of the file, R.
    passing : int
        Rows that pass the filters.
    rows : ndarray, shape=(<=R,), dtype=int64
        Indices of the rows that the model would see.
    weights : ndarray, shape=(R,), dtype=float64
        Sequence weights (`modeling_msa.sequence_weights`).
    theta : float
        Maximum fraction of residues that differ in rows which share one vote.
    neff, neff_seen : float
        Effective number of sequences: of all rows, and of those that the model would see.
    coverage : ndarray, shape=(L,), dtype=float64
        Share of the rows with a residue in each column.
    identity : ndarray, shape=(L,), dtype=float64
        Share of the query's amino acid among the residues of the other rows; NaN for a column without any.
    row_coverage, row_identity : ndarray, shape=(R,), dtype=float64
        Share of the columns in which a row has a residue, and share of these in which it has the query's, of those in
        which both have one; NaN without any.
    gaps : float
        Share of gaps among all letters and gaps.
    insertions, rows_with_insertions : int
        Letters without a column of the query in the other rows, and how many rows have any.
    odd_letters : dict of str to int
        Letters that are not one of the 20 amino acids, with their number, the most frequent first.
    duplicates : int
        Rows that are, in these columns, the same as an earlier one.
    warnings : tuple of str
        What makes results less reliable, each a sentence with what to do.
    chains : tuple of Chain
        Chains of a complex, whose residues are numbered one after the other in `residues`; empty for one protein.
    rows_by_chain : ndarray, shape=(K,), dtype=int64
        Rows with a residue in each of the K chains.
    paired : int
        Rows with a residue in every chain; all that have any in one protein.
    """

    name: str
    query: str
    residues: np.ndarray
    query_gaps: int
    depth: int
    passing: int
    rows: np.ndarray
    weights: np.ndarray
    theta: float
    neff: float
    neff_seen: float
    coverage: np.ndarray
    identity: np.ndarray
    row_coverage: np.ndarray
    row_identity: np.ndarray
    gaps: float
    insertions: int
    rows_with_insertions: int
    odd_letters: dict[str, int]
    duplicates: int
    warnings: tuple[str, ...]
    chains: Chains
    rows_by_chain: np.ndarray
    paired: int

    def quartiles(self, name: str) -> np.ndarray:
        """Quartiles of ``row_identity`` or ``row_coverage`` over the rows but the query, ``(3,)``; NaN without any."""
        values = getattr(self, name)[1:]
        values = values[~np.isnan(values)]
        return np.quantile(values, [0.25, 0.5, 0.75]) if len(values) else np.full(3, np.nan)

    def summary(self) -> dict[str, str | int | float]:
        """Return the numbers of a table's line, by the name of their column."""
        identity, coverage = self.quartiles("row_identity"), self.quartiles("row_coverage")
        columns = np.array([self.coverage.min(), np.median(self.coverage), self.coverage.mean()])
        return {
            "query": self.name,
            "query_length": len(self.query),
            "chains": format_chains(self.chains),
            "aligned": len(self.residues),
            "query_gaps": self.query_gaps,
            "rows": self.depth,
            "rows_in_all_chains": self.paired,
            "rows_passing_filters": self.passing,
            "rows_seen": len(self.rows),
            "neff": self.neff,
            "neff_seen": self.neff_seen,
            "theta": self.theta,
            **_named("column_coverage_{}", ("min", "median", "mean"), columns),
            **_named("identity_{}", ("q1", "median", "q3"), identity),
            **_named("row_coverage_{}", ("q1", "median", "q3"), coverage),
            "gaps": self.gaps,
            "insertions": self.insertions,
            "rows_with_insertions": self.rows_with_insertions,
            "odd_letters": ",".join(f"{letter}:{count}" for letter, count in self.odd_letters.items()),
            "duplicates": self.duplicates,
            "warnings": " ".join(self.warnings),
        }


def alignment_statistics(
    alignment: Alignment,
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    theta: float = 0.2,
) -> AlignmentStatistics:
    """Describe an alignment; no model is required.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    rows, select, seed, coverage, identity
        Which rows the model would see; see `modeling_msa.select_rows`.
    theta : float, default 0.2
        For the weights, see `modeling_msa.sequence_weights`; they are slow for tens of thousands of rows.

    Examples
    --------
    >>> family = Alignment.from_sequences(["mKVLA", "KVL-", "KIaLX"])
    >>> found = alignment_statistics(family)
    >>> found.depth, found.coverage.round(2).tolist(), found.row_identity[1:].round(2).tolist()
    (3, [1.0, 1.0, 1.0, 0.33], [1.0, 0.67])
    >>> found.odd_letters, found.insertions, found.gaps
    ({'X': 1}, 1, 0.08333333333333333)
    """
    whole, alignment = alignment, alignment.drop_query_gaps()
    array, raw_rows = alignment.array, alignment.raw_rows
    codes = residue_codes(array)
    weights = sequence_weights(array, theta)
    known, same = codes > 0, (codes == codes[0]) & (codes > 0)
    chosen = choose_rows(alignment, rows, select, seed, coverage=coverage, identity=identity)
    passing = len(choose_rows(alignment, alignment.depth, "first", coverage=coverage, identity=identity))
    letters = np.bincount(array.ravel(), minlength=256)
    odd = sorted((-int(letters[code]), chr(code)) for code in np.flatnonzero(letters) if code not in _LETTERS)
    inserted = np.array([len(row) - len(row.translate(None, _LOWER)) for row in (raw_rows or ())[1:]], dtype=np.int64)
    of_chain = chain_indices(alignment.chains, alignment.column_residues)
    has_chain = np.stack([known[:, of_chain == k].any(axis=1) for k in range(max(1, len(alignment.chains)))])
    found = {
        "name": alignment.names[0],
        "query": alignment.query,
        "residues": alignment.column_residues,
        "query_gaps": whole.length - alignment.length,
        "depth": alignment.depth,
        "passing": passing,
        "rows": chosen,
        "weights": weights,
        "theta": theta,
        "neff": float(weights.sum()),
        "neff_seen": float(weights.sum()) if len(chosen) == len(array) else neff(array[chosen], theta),
        "coverage": known.mean(axis=0),
        "identity": _share(same[1:].sum(axis=0), known[1:].sum(axis=0) * (codes[0] > 0)),
        "row_coverage": known.mean(axis=1),
        "row_identity": _share(same.sum(axis=1), (known & known[0]).sum(axis=1)),
        "gaps": float((array == ord("-")).mean()),
        "insertions": int(inserted.sum()),
        "rows_with_insertions": int((inserted > 0).sum()),
        "odd_letters": {letter: -count for count, letter in odd},
        "duplicates": alignment.depth - len(set(map(bytes, array))),
        "chains": alignment.chains,
        "rows_by_chain": has_chain.sum(axis=1),
        "paired": int(has_chain.all(axis=0).sum()),
    }
    return AlignmentStatistics(**found, warnings=tuple(_warnings(found, has_chain)))  # type: ignore[arg-type]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _never_together(chains: Chains, has_chain: np.ndarray) -> list[str]:
    """Pairs of chains, such as ``A-B``, that no row but the query has residues of; has_chain is (chains, rows)."""
    pairs = itertools.combinations(range(len(chains)), 2)
    return [f"{chains[i].name}-{chains[j].name}" for i, j in pairs if not (has_chain[i] & has_chain[j])[1:].any()]


def _warnings(found: dict, has_chain: np.ndarray) -> Iterable[str]:
    """Say what makes results of an alignment less reliable, and what to do about it."""
    residues, depth, length = found["residues"], found["depth"], len(found["query"])
    if depth == 1:
        yield "There is a single row; the model relies on homologs, so expect little of the results."
    elif found["neff"] < _FEW:
        yield (
            f"There are few different homologs (Neff {found['neff']:.1f}, less than {_FEW}): search a larger database."
        )
    if found["passing"] < min(_FEW, depth):
        yield f"The filters leave {counted(found['passing'], 'row')} of {depth:,}: relax them."
    if lacking := sorted(set(range(1, length + 1)).difference(residues.tolist())):
        yield (
            f"{len(lacking)} of the query's {counted(length, 'residue')} are in lower case and have no column, so no "
            f"result covers them: {format_residues(found['chains'], lacking)}."
        )
    if len(residues) > LONGEST:
        yield (
            f"The query has {len(residues):,} aligned residues; the published models read {LONGEST:,} at a time, "
            "longer ones in windows. Pairs that no window covers have no contact probability."
        )
    if depth > 1 and (apart := _never_together(found["chains"], has_chain)):
        count = len(found["chains"])
        every = len(apart) == count * (count - 1) // 2
        listed = f"{', '.join(apart[:_LISTED])}{' ...' if len(apart) > _LISTED else ''}"
        where = "in more than one chain" if every else f"in both chains of {listed}"
        pairs = "between chains" if every else "between these chains"
        yield f"No row but the query has residues {where}, so there is nothing to learn of pairs {pairs}."
    if depth > 1:
        short = float((100 * found["row_coverage"][1:] < _SHORT).mean())
        if short > _SHARE:
            yield (
                f"{_percent(short)} of the rows cover less than {_SHORT} % of the query: try --filter-coverage "
                f"{_SHORT}, which leaves them out."
            )
        thin = residues[found["coverage"] < _SHARE]
        if len(thin):
            yield (
                f"Less than {_percent(_SHARE)} of the rows have a residue in {counted(len(thin), 'column')}, so "
                f"results there rest on few sequences: residues {format_residues(found['chains'], thin.tolist())}."
            )
        if found["gaps"] > _SHARE:
            yield f"{_percent(found['gaps'])} of the alignment are gaps."
        identity = found["row_identity"][1:]
        if not np.isnan(identity).all() and 100 * np.nanmedian(identity) < _DISTANT:
            yield f"Half of the rows are less than {_DISTANT} % identical to the query; some may be unrelated to it."
        if found["duplicates"] > _DUPLICATE_SHARE * depth:
            yield f"{counted(found['duplicates'], 'row')} of {depth:,} repeat an earlier one."
    if (odd := sum(found["odd_letters"].values())) > _ODD_SHARE * depth * len(residues):
        yield (
            f"{100 * odd / depth / len(residues):.1f} % of the alignment are letters other than the 20 amino acids "
            f"({', '.join(found['odd_letters'])})."
        )


def _named(pattern: str, names: Iterable[str], values: np.ndarray) -> dict[str, float]:
    return {pattern.format(name): value for name, value in zip(names, values.tolist(), strict=True)}


def describe(found: AlignmentStatistics) -> str:
    """Write statistics as lines for a screen."""
    aligned, seen = len(found.residues), len(found.rows)
    left_out = f"; {counted(found.query_gaps, 'column')} where it has a gap left out" if found.query_gaps else ""
    odd = ", ".join(f"{letter} {count:,}" for letter, count in found.odd_letters.items()) or "none"
    columns = found.coverage
    lines = {
        "query": f"{found.name}, {counted(len(found.query), 'residue')}, {aligned:,} of them in columns{left_out}",
        "rows": f"{found.depth:,}; {found.passing:,} pass the filters; the model would see {seen:,}",
        "Neff": f"{found.neff:.1f}, of the rows seen {found.neff_seen:.1f} (theta {found.theta:g})",
        "coverage": f"of columns by rows: mean {_percent(columns.mean())}, lowest {_percent(columns.min())}; "
        f"of the query by a row: {_quartiles(found, 'row_coverage')}",
        "identity": f"to the query: {_quartiles(found, 'row_identity')}",
        "gaps": f"{_percent(found.gaps)} of the columns' letters",
        "insertions": f"{counted(found.insertions, 'letter')} in {counted(found.rows_with_insertions, 'row')}",
        "odd letters": odd,
        "duplicates": f"{counted(found.duplicates, 'row')}",
    }
    if found.chains:
        rows = zip(found.chains, found.rows_by_chain.tolist(), strict=True)
        parts = [f"{each.name} {counted(each.length, 'residue')}, {counted(count, 'row')}" for each, count in rows]
        lines["chains"] = f"{'; '.join(parts)}; residues in every chain: {counted(found.paired, 'row')}"
    text = [f"  {name:<12}{line}" for name, line in lines.items()]
    return "\n".join([*text, *(f"  warning     {line}" for line in found.warnings)])


def _quartiles(found: AlignmentStatistics, name: str) -> str:
    lower, median, upper = map(_percent, found.quartiles(name))
    return "-" if median == "-" else f"median {median}, middle half {lower} to {upper}"


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.0f} %"


def write_statistics(path: str | os.PathLike[str], found: dict[str, AlignmentStatistics]) -> None:
    """Write statistics by alignment, in the format given by the ending; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        ``.tsv``: a line for each alignment, empty where there is no number. ``.json``: a list of objects with the same
        names, null where there is no number, the list of warnings, and, by column, ``residues`` (of a complex by
        chain, such as ``"A:42"``), ``coverage`` and ``identity``.
    found : dict of str to AlignmentStatistics
        By the alignment's file.

    Raises
    ------
    ValueError
        If the ending is not known.
    """
    ending = check_ending(path, FORMATS)
    records: list[dict[str, Any]] = [{"alignment": name, **each.summary()} for name, each in found.items()]
    if ending == ".tsv":
        write_table(records[0], (map(_cell, each.values()) for each in records), path)
        return
    for record, each in zip(records, found.values(), strict=True):
        columns = {name: getattr(each, name).tolist() for name in ("residues", "coverage", "identity")}
        if each.chains:
            columns["residues"] = residue_names(each.chains, each.residues)
        record |= {"odd_letters": each.odd_letters, "warnings": list(each.warnings), **columns}
    text = json.dumps(_without_nan(records), indent=1, allow_nan=False)
    with whole_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def _cell(value: str | int | float) -> str:
    """Write a cell; a name may have tabs."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return " ".join(str(value).split())


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return list(map(_without_nan, value))
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return value
