"""Tables of variant scores: written as CSV or TSV, and compared with measurements by Spearman's correlation."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._files import check_ending, whole_file
from ..alignments.tables import Table, delimiter_of
from ..alignments.variants import Substitution, variant_name

if TYPE_CHECKING:  # so that the formats are known without torch
    from .scoring import SubstitutionScores, VariantScores

FORMATS = (".csv", ".tsv")
DECIMALS = 6  # of a score


def score_columns(table: Table | None = None, name: str = "score", more: Sequence[str] = ()) -> list[str]:
    """Name the columns that `write_scores` adds to a table; ValueError if the table already has one of them.

    `more` are endings of further columns.

    Examples
    --------
    >>> score_columns(name="msa")
    ['msa', 'msa_std', 'reason']
    """
    added = [name, f"{name}_std", *(f"{name}_{each}" for each in more), "reason"]
    present = [column for column in added if table is not None and column in table.columns]
    if present:
        raise ValueError(
            f"the table already has a column {' and '.join(present)}: rename it, or choose another name for the new "
            "column (score_column, --score-column)."
        )
    return added


def write_scores(
    scores: VariantScores | SubstitutionScores,
    path: str | os.PathLike[str],
    table: Table | None = None,
    score_column: str = "score",
) -> None:
    r"""Write scores as a table, ``.csv`` (commas) or ``.tsv`` (tabs); the file appears whole or not at all.

    Parameters
    ----------
    scores : VariantScores or SubstitutionScores
        The latter fill one row per substitution, except where the wild type is not one of the 20 amino acids.
    path : path
        The file to write.
    table : Table, optional
        The table that the variants come from: its columns come first, unchanged. Default: one column, ``mutant``.
    score_column : str, default "score"
        Name of the column of scores. Its name with ``_std`` follows if there were several seeds, and ``reason`` for
        `VariantScores`.

    Raises
    ------
    ValueError
        For another ending, or if the table already has such a column.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from modeling_msa import VariantScores
    >>> values = np.array([[-1.5, np.nan]])
    >>> scores = VariantScores("q", ("K2R", "K2*"), values[0], None, ("", "a stop"), values, (0,), 1)
    >>> path = Path(tempfile.mkdtemp(), "scores.csv")
    >>> write_scores(scores, path)
    >>> print(path.read_text())
    mutant,score,reason
    K2R,-1.500000,
    K2*,,a stop
    """
    from .scoring import VariantScores

    check_ending(path, FORMATS)
    mean, std, reason = score_columns(table, score_column)
    columns = {mean: cells(scores.score)}
    if scores.score_std is not None:
        columns[std] = cells(scores.score_std)
    if isinstance(scores, VariantScores):
        columns[reason] = list(scores.reason)
        table = table or Table(["mutant"], [[text] for text in scores.variants], [])
        rows = [[*row, *added] for row, added in zip(table.rows, zip(*columns.values(), strict=True), strict=True)]
    else:
        table = Table(["mutant"], [], [])
        pairs = list(zip(scores.wild_type, scores.residues.tolist(), strict=True))
        singles = [Substitution(letter, number, new) for letter, number in pairs for new in scores.amino_acids]
        names = [variant_name([each], scores.chains) for each in singles]
        same = [each.wild_type == each.mutant for each in singles]
        lines = zip(same, names, *columns.values(), strict=True)
        rows = [[name, *values] for is_same, name, *values in lines if not is_same and values[0]]
    write_rows(path, [[*table.columns, *columns], *rows])


def write_rows(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table's header and rows; the file appears whole or not at all."""
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter_of(path), lineterminator="\n").writerows(rows)


def cells(values: np.ndarray) -> list[str]:
    """Numbers as they are written; NaN is an empty cell."""
    return ["" if np.isnan(value) else f"{value:.{DECIMALS}f}" for value in values.ravel().tolist()]


def paired(scores: np.ndarray, measured: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the variants that have both numbers, with the scores as they are written: ties in the table are ties here.

    Examples
    --------
    >>> paired(np.array([-1.00000012, 0.5, np.nan]), np.array([3, np.nan, 2]))
    (array([-1.]), array([3.]))
    """
    scores = np.round(scores, DECIMALS)
    both = np.isfinite(measured) & np.isfinite(scores)
    return scores[both], measured[both]


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Compute Spearman's rank correlation; equal values share the mean of their ranks.

    Parameters
    ----------
    x, y : array_like, shape=(N,)
        Finite numbers.

    Returns
    -------
    float
        NaN if either has fewer than two different values.

    Examples
    --------
    >>> round(spearman([1, 2, 3, 4], [1, 3, 2, 2]), 4)
    0.3162
    """
    ranks = []
    for values in (x, y):
        _, place, count = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
        if len(count) < 2:
            return float("nan")
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
