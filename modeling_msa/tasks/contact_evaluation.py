"""Families of known structure: how well a model predicts their contacts, and a contact regression fitted on them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .._files import whole_file
from ..alignments.alignment import Alignment
from ..alignments.known_contacts import read_known
from ..alignments.listing import name_of
from ..modeling_msa_transformer import MsaPreTrainedModel
from .contacts import RANGES, precisions, predict_contacts

TOPS = ("L", "L/2", "L/5")
_ROWS = {"all": "", **{name: f"{name} " for name in RANGES}}  # of a table, and how `precisions` names them
_SIZES = ("length", "depth")


@dataclass(frozen=True, eq=False)
class ContactEvaluation:
    """Precision of predicted contacts, family by family.

    Attributes
    ----------
    names : tuple of str
        Of the families, F of them.
    lengths, depths : ndarray, shape=(F,), dtype=int64
        Residues of each contact map, L, and rows of the alignment that the model saw.
    precisions : dict of str to ndarray, shape=(F,), dtype=float64
        By the names that `modeling_msa.precisions` gives them: "P@L" ... "long P@L/5". NaN where a family has no pair
        in the range.

    Examples
    --------
    >>> values = {f"{kind}P@{top}": np.array([0.5, 0.7]) for kind in _ROWS.values() for top in TOPS}
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
            Of confidence.
        resamples : int, default 10000
            How often as many families as there are are drawn from them, with replacement.
        seed : int, default 0
            Of the draws.

        Returns
        -------
        dict of str to ndarray, shape=(3,), dtype=float64
            Mean, lower and upper end of the interval, by the names of `precisions`. Families with NaN do not count;
            the interval of a single family is NaN.

        Examples
        --------
        >>> one = np.array([0.2, 0.4, 0.6, np.nan])
        >>> ContactEvaluation(("a", "b", "c", "d"), one, one, {"P@L": one}).means()["P@L"].round(2).tolist()
        [0.4, 0.2, 0.6]
        """
        tails = ((1 - level) / 2, (1 + level) / 2)
        table = {}
        for name, values in self.precisions.items():
            counted = values[~np.isnan(values)]
            ends = np.full(2, np.nan)
            if len(counted) > 1:
                random = np.random.default_rng(seed)
                # one draw after the other: all at once would be gigabytes for the 14,842 families of the paper
                drawn = [counted[random.integers(0, len(counted), len(counted))].mean() for _ in range(resamples)]
                ends = np.quantile(drawn, tails)
            table[name] = np.array([counted.mean() if len(counted) else np.nan, *ends])
        return table

    def __str__(self) -> str:
        means = self.means()
        cells = {name: "-" if np.isnan(mean) else f"{mean:.2f}" for name, (mean, *_) in means.items()}
        if len(self.names) > 1:
            for name, (mean, low, high) in means.items():
                cells[name] += f" {low:.2f}-{high:.2f}" if not np.isnan(mean + low) else ""
        note = f"mean of {len(self.names)} families and its 95 % bootstrap interval over families"
        return precision_table(cells) + (f"\n{note}" if len(self.names) > 1 else "")


def precision_table(cells: dict[str, str]) -> str:
    """Lay out what `modeling_msa.precisions` names: a line for each range of separations, a column for each P@.

    Examples
    --------
    >>> cells = {f"{kind}P@{top}": "0.50" for kind in _ROWS.values() for top in TOPS}
    >>> print(precision_table(cells))
    contacts  |i-j|   P@L  P@L/2  P@L/5
    all         >=6  0.50   0.50   0.50
    short      6-11  0.50   0.50   0.50
    medium    12-23  0.50   0.50   0.50
    long       >=24  0.50   0.50   0.50
    """
    limits = {"all": ">=6"} | {name: f"{low}-{high}" if high else f">={low}" for name, (low, high) in RANGES.items()}
    widths = [max(len(f"P@{top}"), *(len(cells[f"{kind}P@{top}"]) for kind in _ROWS.values())) + 2 for top in TOPS]

    def line(*values: str) -> str:
        return "".join(f"{value:>{width}}" for value, width in zip(values, widths, strict=True))

    lines = [f"{'contacts':<9}{'|i-j|':>6}{line(*(f'P@{top}' for top in TOPS))}"]
    for name, kind in _ROWS.items():
        lines.append(f"{name:<9}{limits[name]:>6}{line(*(cells[f'{kind}P@{top}'] for top in TOPS))}")
    return "\n".join(lines)


def write_precisions(values: dict[str, float], path: str | os.PathLike) -> None:
    """Write one family's `modeling_msa.precisions` as a tab-separated table, whole or not at all.

    A line for each range of separations: contacts, P@L, P@L/2, P@L/5; empty where the family has no such pair.
    """
    lines = ["\t".join(("contacts", *(f"P@{top}" for top in TOPS)))]
    lines += ["\t".join((name, *(_cell(values[f"{kind}P@{top}"]) for top in TOPS))) for name, kind in _ROWS.items()]
    with whole_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def evaluate_contacts(
    families: Iterable[tuple],
    model: MsaPreTrainedModel,
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> ContactEvaluation:
    """Predict contacts of families whose structures are known, and count the right ones.

    With the published checkpoint and trRosetta's families this is the paper's Table 1. Its authors name 256 rows
    (facebookresearch/esm, issue 54), and 14,842 families that are none of the 20 the regression was fitted on (issue
    167). Which rows they took is not known here: "diverse" is what fair-esm's examples do. This package has not been
    run on that set yet.

    Parameters
    ----------
    families : iterable of (alignment, known) or (alignment, known, chain)
        An `Alignment` or its file; contacts ``(N, N)`` of 1, 0 and -100 over the query's residues, or the file of a
        structure or of a contact map (`modeling_msa.alignments.known_contacts.load_contacts`); `list_families`
        makes such a list.
    model : MsaModel, or a class with a head
        With a fitted contact regression.
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.prepare_alignment`.

    Returns
    -------
    ContactEvaluation

    Raises
    ------
    OSError, ValueError
        If there is no family, a file cannot be read, a structure is not the query's, or the model's contact
        regression was never fitted.

    Examples
    --------
    >>> from modeling_msa import bundled_family, load_model, read_alignment
    >>> family = read_alignment(bundled_family())
    >>> known = np.zeros((len(family.query),) * 2, dtype=int)
    >>> known[5, 80] = known[80, 5] = 1
    >>> evaluation = evaluate_contacts([(family, known)], load_model(), rows=16)
    >>> evaluation.names, evaluation.lengths.tolist(), evaluation.depths.tolist()
    (('LAR_DROME/418-503',), [86], [16])
    """
    names, sizes, values = [], [], []
    for family in tqdm(list(families), desc="contacts", unit="MSA", disable=None, leave=False):
        alignment, known = read_known(*family)
        predicted = predict_contacts(alignment, model, rows, select, seed, coverage, identity)
        names.append(alignment.names[0] if isinstance(family[0], Alignment) else name_of(family[0]))
        sizes.append((len(predicted.residues), predicted.depth))
        values.append(precisions(predicted, known))
    if not names:
        raise ValueError("There is no family to evaluate the model on.")
    table = {name: np.array([each[name] for each in values]) for name in values[0]}
    lengths, depths = np.array(sizes).T
    return ContactEvaluation(tuple(names), lengths, depths, table)


def write_evaluation(evaluation: ContactEvaluation, path: str | os.PathLike) -> None:
    """Write a tab-separated table, whole or not at all: name, length, depth, P@L ... of each family."""
    lines = ["\t".join(("name", *_SIZES, *evaluation.precisions))]
    columns = zip(evaluation.lengths, evaluation.depths, *evaluation.precisions.values(), strict=True)
    for name, (length, depth, *values) in zip(evaluation.names, columns, strict=True):
        lines.append("\t".join((name, str(length), str(depth), *map(_cell, values))))
    with whole_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_evaluation(*paths: str | os.PathLike) -> ContactEvaluation:
    """Read what `write_evaluation` wrote; several tables are put one after the other."""
    rows = [line.split("\t") for path in paths for line in Path(path).read_text(encoding="utf-8").splitlines()]
    header = rows[0]
    rows = [row for row in rows if row != header]
    values = np.array([[float(cell or "nan") for cell in row[1:]] for row in rows])
    lengths, depths, *columns = values.T
    names = tuple(row[0] for row in rows)
    table = dict(zip(header[3:], columns, strict=True))
    return ContactEvaluation(names, lengths.astype(np.int64), depths.astype(np.int64), table)


def write_means(evaluation: ContactEvaluation, path: str | os.PathLike) -> None:
    """Write a tab-separated table, whole or not at all: figure, families, mean, low, high (95 % bootstrap)."""
    lines = ["figure\tfamilies\tmean\tlow\thigh"]
    for name, values in evaluation.means().items():
        count = np.count_nonzero(~np.isnan(evaluation.precisions[name]))
        lines.append("\t".join((name, str(count), *map(_cell, values))))
    with whole_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"
