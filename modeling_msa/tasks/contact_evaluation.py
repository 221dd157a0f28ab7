"""Evaluate predicted contacts on families of known structure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .._files import write_table
from ..alignments.alignment import Alignment
from ..alignments.known_contacts import read_known
from ..alignments.listing import name_of
from ..modeling_msa_transformer import MsaPreTrainedModel
from .contact_precision import precision_table, precisions, text_of
from .contacts import predict_contacts


@dataclass(frozen=True, eq=False)
class ContactEvaluation:
    """Precision of predicted contacts, family by family.

    Attributes
    ----------
    names : tuple of str
        Names of the F families.
    lengths, depths : ndarray, shape=(F,), dtype=int64
        Residues of each contact map, L, and number of alignment rows given to the model.
    precisions : dict of str to ndarray, shape=(F,), dtype=float64
        By the names of `modeling_msa.precisions`: "P@L" ... "long P@L/5". NaN where a family has no pair in the
        range.

    Examples
    --------
    >>> from modeling_msa.tasks.contact_precision import RANGES, TOPS, figure_name
    >>> values = {figure_name(name, top): np.array([0.5, 0.7]) for name in RANGES for top in TOPS}
    >>> print(ContactEvaluation(("a", "b"), np.array([90, 80]), np.array([64, 64]), values))
    contacts  |i-j|             P@L           P@L/2           P@L/5
    all         >=6  0.60 0.50-0.70  0.60 0.50-0.70  0.60 0.50-0.70
    short      6-11  0.60 0.50-0.70  0.60 0.50-0.70  0.60 0.50-0.70
    medium    12-23  0.60 0.50-0.70  0.60 0.50-0.70  0.60 0.50-0.70
    long       >=24  0.60 0.50-0.70  0.60 0.50-0.70  0.60 0.50-0.70
    mean of 2 families and its 95 % bootstrap interval over families
    """

    names: tuple[str, ...]
    lengths: np.ndarray
    depths: np.ndarray
    precisions: dict[str, np.ndarray]

    def means(self, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> dict[str, np.ndarray]:
        """Average over families, with percentile bootstrap intervals.

        Parameters
        ----------
        level : float, default 0.95
            Confidence level.
        resamples : int, default 10000
            Number of samples, each of as many families as there are, drawn with replacement.
        seed : int, default 0
            Random seed of the draws.

        Returns
        -------
        dict of str to ndarray, shape=(3,), dtype=float64
            Mean, lower and upper end of the interval, by the names of `precisions`. Families with NaN do not count;
            the interval of a single family is NaN.
        """
        tails = ((1 - level) / 2, (1 + level) / 2)
        table = {}
        for name, values in self.precisions.items():
            counted = values[~np.isnan(values)]
            ends = np.full(2, np.nan)
            if (count := len(counted)) > 1:
                random = np.random.default_rng(seed)
                # a few draws at a time: all at once would be gigabytes for the 14,842 families of the paper
                steps = np.diff([*range(0, resamples, max(1, 2**18 // count)), resamples])
                drawn = [counted[random.integers(0, count, (step, count))].mean(axis=1) for step in steps]
                ends = np.quantile(np.concatenate(drawn), tails)
            table[name] = np.array([counted.mean() if count else np.nan, *ends])
        return table

    def __str__(self) -> str:
        cells = {}
        for name, (mean, low, high) in self.means().items():
            cells[name] = "-" if np.isnan(mean) else f"{mean:.2f}"
            if len(self.names) > 1 and not np.isnan(mean + low):
                cells[name] += f" {low:.2f}-{high:.2f}"
        note = f"\nmean of {len(self.names)} families and its 95 % bootstrap interval over families"
        return precision_table(cells) + (note if len(self.names) > 1 else "")


def evaluate_contacts(
    families: Iterable[tuple],
    model: MsaPreTrainedModel,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    *,
    window: int | None = None,
    overlap: int | None = None,
) -> ContactEvaluation:
    """Predict the contacts of families of known structure, and compute their precision.

    With the published checkpoint and trRosetta's families this is the paper's Table 1. Its authors report 256 rows
    (facebookresearch/esm, issue 54), and 14,842 families, none of them among the 20 that the regression was fitted on
    (issue 167). They do not say which rows; "diverse" is what fair-esm's examples use. This package has not been run
    on that set yet.

    Parameters
    ----------
    families : iterable of (alignment, known) or (alignment, known, chain)
        An `Alignment` or its file; contacts ``(N, N)`` of 1, 0 and -100 over the query's residues, or the file of a
        structure or of a contact map (`modeling_msa.alignments.known_contacts.load_contacts`); `list_families` makes
        such a list.
    model : MsaModel, or a class with a head
        With a fitted contact regression.
    rows, select, seed, coverage, identity
        Which rows are given to the model; see `modeling_msa.prepare_alignment`. Without `rows`, all
        that `modeling_msa.select_rows` has chosen, of other alignments at most 128.
    window, overlap
        See `modeling_msa.predict_contacts`. Pairs that no window covers are left out, see `modeling_msa.precision`.

    Raises
    ------
    OSError, ValueError
        If there are no families, a file cannot be read, a structure is not the query's, or the model's contact
        regression was never fitted.
    """
    names, sizes, values = [], [], []
    for family in tqdm(list(families), desc="contacts", unit="MSA", disable=None, leave=False):
        alignment, known = read_known(*family)
        chosen = (rows, select, seed, coverage, identity)
        predicted = predict_contacts(alignment, model, *chosen, window=window, overlap=overlap)
        names.append(alignment.names[0] if isinstance(family[0], Alignment) else name_of(family[0]))
        sizes.append((len(predicted.residues), predicted.depth))
        values.append(precisions(predicted, known))
    if not names:
        raise ValueError("There are no families to evaluate the model on.")
    table = {name: np.array([each[name] for each in values]) for name in values[0]}
    lengths, depths = np.array(sizes).T
    return ContactEvaluation(tuple(names), lengths, depths, table)


def write_evaluation(evaluation: ContactEvaluation, path: str | os.PathLike) -> None:
    """Write a tab-separated table, whole or not at all: name, length, depth, P@L ... of each family."""
    columns = zip(
        evaluation.names, evaluation.lengths, evaluation.depths, *evaluation.precisions.values(), strict=True
    )
    rows = [[name, str(length), str(depth), *map(text_of, values)] for name, length, depth, *values in columns]
    write_table(["name", "length", "depth", *evaluation.precisions], rows, path)


def read_evaluation(*paths: str | os.PathLike) -> ContactEvaluation:
    """Read what `write_evaluation` wrote; several tables become one."""
    rows = [line.split("\t") for path in paths for line in Path(path).read_text(encoding="utf-8").splitlines()]
    header = rows[0]
    rows = [row for row in rows if row != header]
    lengths, depths, *columns = np.array([[float(cell or "nan") for cell in row[1:]] for row in rows]).T
    table = dict(zip(header[3:], columns, strict=True))
    return ContactEvaluation(tuple(row[0] for row in rows), lengths.astype(np.int64), depths.astype(np.int64), table)


def write_means(evaluation: ContactEvaluation, path: str | os.PathLike) -> None:
    """Write a tab-separated table, whole or not at all: figure, families, mean, low, high (95 % bootstrap)."""
    rows = [
        [name, str(np.count_nonzero(~np.isnan(evaluation.precisions[name]))), *map(text_of, values)]
        for name, values in evaluation.means().items()
    ]
    write_table(["figure", "families", "mean", "low", "high"], rows, path)
