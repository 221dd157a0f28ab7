"""How well a regression predicts measured fitness: ProteinGym's folds, few labels, and metrics with intervals."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from .._files import check_ending, whole_file
from .._words import counted
from ..alignments.tables import delimiter_of
from ..alignments.variants import Substitution
from .proteingym_metrics import benchmark_metrics

Scheme = Literal["random", "modulo", "contiguous"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
METRICS = ("Spearman", "NDCG", "MSE", "AUC", "MCC", "Top_recall")
FORMATS = (".csv", ".tsv")
POOLED = "pooled"
_TEST_PART = 0.2  # of the variants, with few labels
_FEWEST = 10  # variants with a best tenth


@dataclass(frozen=True, eq=False)
class FitnessEvaluation:
    """Metrics of one way of splitting variants.

    Attributes
    ----------
    scheme : str
        ``random``, ``modulo`` or ``contiguous``; or ``24 labels`` and the like.
    metrics : tuple of dict
        By fold, or by draw of few labels: the metrics by name, see `fitness_metrics`.
    pooled : dict of str to float, optional
        Those of the predictions of all folds together, as ProteinNPT computes ProteinGym's supervised ones.
    predictions : ndarray, shape=(N,), dtype=float64, optional
        Of each variant, by the fold that has left it out.
    """

    scheme: str
    metrics: tuple[dict[str, float], ...]
    pooled: dict[str, float] | None = None
    predictions: np.ndarray | None = None

    def mean(self, metric: str) -> float:
        """Mean over the folds where the metric is defined; NaN if it is in none."""
        values = self._values(metric)
        return float(values.mean()) if len(values) else math.nan

    def half_width(self, metric: str) -> float:
        """Half of the 95 % interval of this mean, by Student's t; NaN for fewer than two folds.

        Folds share most of their training variants, so the interval of a new assay would be wider.
        """
        from scipy.stats import t

        values = self._values(metric)
        if len(values) < 2:
            return math.nan
        return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))

    def _values(self, metric: str) -> np.ndarray:
        values = np.array([each[metric] for each in self.metrics])
        return values[np.isfinite(values)]


def fitness_metrics(measured: np.ndarray, predicted: np.ndarray, cutoff: float | None = None) -> dict[str, float]:
    """Compare predictions with measurements as ProteinGym does.

    Parameters
    ----------
    measured, predicted : ndarray, shape=(N,), dtype=float64
    cutoff : float, optional
        Variants with a higher measured value count as fit, for AUC and MCC. Default: the median of `measured`.

    Returns
    -------
    dict of str to float
        ``MSE``, and those of `modeling_msa.tasks.proteingym_metrics.benchmark_metrics`, which says how equal
        predictions are ordered; NaN where a metric is not defined, also NDCG of fewer than ten variants, whose best
        tenth is empty.

    Examples
    --------
    >>> found = fitness_metrics(np.arange(20.0), np.arange(20.0) + 1)
    >>> [found[name] for name in METRICS]
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    cutoff = float(np.median(measured)) if cutoff is None else cutoff
    found = benchmark_metrics(measured, predicted, measured > cutoff)
    if len(measured) < _FEWEST:  # 0 in ProteinGym, which would lower the mean over folds
        found["NDCG"] = math.nan
    return {name: found.get(name, float(np.mean((measured - predicted) ** 2))) for name in METRICS}


def fold_numbers(
    variants: Sequence[Sequence[Substitution]], scheme: Scheme, seed: int = 0, count: int = 5
) -> np.ndarray:
    """Assign variants to folds as ProteinGym's supervised benchmark does.

    ``random``
        Each variant by a draw of its own, so that folds differ in size. If some have several substitutions, each
        number of substitutions is dealt out evenly.
    ``modulo``
        The mutated residues in order, dealt out one by one: the first to fold 0, the second to fold 1, ...
    ``contiguous``
        The mutated residues in order, cut into stretches with equally many of them; the first ones have one more.

    Parameters
    ----------
    variants : sequence of sequence of Substitution
        N variants, as `modeling_msa.alignments.variants.parse_variants` returns them.
    scheme : {"random", "modulo", "contiguous"}
        The last two require single substitutions.
    seed : int, default 0
        Of ``random``.
    count : int, default 5
        Number of folds.

    Returns
    -------
    ndarray, shape=(N,), dtype=int64
        From 0.

    Raises
    ------
    ValueError
        If a fold is empty, or variants do not suit the scheme.

    Examples
    --------
    >>> singles = [(Substitution("A", number, "V"),) for number in (9, 2, 3, 5, 8, 2)]
    >>> print(fold_numbers(singles, "modulo", count=2), fold_numbers(singles, "contiguous", count=2))
    [0 0 1 0 1 0] [1 0 0 0 1 0]
    """
    if scheme not in SCHEMES:
        raise ValueError(f"unknown folds {scheme!r}; use {', '.join(SCHEMES)}.")
    if count < 2:
        raise ValueError(f"There must be at least 2 folds, not {count}.")
    numbers = np.array([len(each) for each in variants])
    if scheme == "random":
        random = np.random.default_rng(seed)
        folds = random.integers(count, size=len(variants))
        for number in np.unique(numbers) if (numbers > 1).any() else ():
            of_number = np.flatnonzero(numbers == number)
            folds[of_number] = random.permutation(np.arange(len(of_number)) % count)
    else:
        if (numbers != 1).any():
            several = ":".join(map(str, variants[int(np.flatnonzero(numbers != 1)[0])])) or "WT"
            raise ValueError(f"{scheme} folds require variants with one substitution, unlike {several}: use random.")
        places, index = np.unique([each[0].number for each in variants], return_inverse=True)
        rank = np.arange(len(places))
        bounds = np.cumsum([len(part) for part in np.array_split(rank, count)])
        folds = (rank % count if scheme == "modulo" else np.searchsorted(bounds, rank, side="right"))[index]
    if empty := sorted(set(range(count)).difference(folds.tolist())):
        found = counted(len(variants), "variant") if scheme == "random" else counted(len(places), "mutated residue")
        raise ValueError(
            f"{scheme}: fold {empty[0] + 1} of {count} is empty, as there are only {found} with a value: leave out "
            "these folds (--folds), or measure more."
        )
    return folds


def evaluate_folds(
    regressor: Any, X: Any, y: np.ndarray, folds: np.ndarray, scheme: str, cutoff: float | None = None
) -> FitnessEvaluation:
    """Predict each fold by a regression that was fitted on the others.

    Parameters
    ----------
    regressor : scikit-learn regressor, or None
        It is cloned for each fold. None: the only column of X is a prediction already, such as a zero-shot score,
        whose mean squared error is not defined.
    X : array_like or sparse matrix, shape=(N, F)
        Features, such as ``fitness_pipeline(...)[0].fit_transform(variants)``.
    y : ndarray, shape=(N,)
        Measured values.
    folds : ndarray, shape=(N,)
        From `fold_numbers`, or any numbers.
    scheme : str
        Name of the folds.
    cutoff : float, optional
        As for `fitness_metrics`; default: the median of y.

    Returns
    -------
    FitnessEvaluation
    """
    cutoff = float(np.median(y)) if cutoff is None else cutoff
    predictions, metrics = np.full(len(y), np.nan), []
    for fold in np.unique(folds):
        left = folds == fold
        predictions[left] = _predicted(regressor, X, y, np.flatnonzero(~left), np.flatnonzero(left))
        metrics.append(_metrics(regressor, y[left], predictions[left], cutoff))
    return FitnessEvaluation(scheme, tuple(metrics), _metrics(regressor, y, predictions, cutoff), predictions)


def evaluate_few(
    regressor: Any, X: Any, y: np.ndarray, labels: int, draws: int = 10, seed: int = 0
) -> FitnessEvaluation:
    """Fit on few variants and predict a fifth of all, which is drawn anew each time.

    Parameters
    ----------
    regressor, X, y
        As for `evaluate_folds`.
    labels : int
        Number of variants to fit on.
    draws : int, default 10
        How many times.
    seed : int, default 0
        Of the draws; those with more labels contain those with fewer.

    Returns
    -------
    FitnessEvaluation
        Named ``24 labels`` and the like.

    Raises
    ------
    ValueError
        If fewer variants than `labels` are left.
    """
    cutoff, metrics = float(np.median(y)), []
    test = check_few(labels, len(y))
    for draw in range(draws):
        order = np.random.default_rng([seed, draw]).permutation(len(y))
        left, fitted = order[:test], order[test : test + labels]
        metrics.append(_metrics(regressor, y[left], _predicted(regressor, X, y, fitted, left), cutoff))
    return FitnessEvaluation(f"{labels} labels", tuple(metrics))


def check_few(labels: int, variants: int) -> int:
    """Return how many variants to test on; ValueError if too few remain to fit on."""
    test = max(2, round(_TEST_PART * variants))
    if labels < 2 or labels > variants - test:
        raise ValueError(
            f"{labels} labels cannot be drawn: fitting requires at least 2, and of the {variants} variants with a "
            f"value {test} are for testing. Pass at most {max(variants - test, 0)} labels."
        )
    return test


def _predicted(regressor: Any, X: Any, y: np.ndarray, fitted: np.ndarray, left: np.ndarray) -> np.ndarray:
    if regressor is None:
        return np.asarray(X[left]).ravel()
    from sklearn.base import clone

    return clone(regressor).fit(X[fitted], y[fitted]).predict(X[left])


def _metrics(regressor: Any, measured: np.ndarray, predicted: np.ndarray, cutoff: float) -> dict[str, float]:
    found = fitness_metrics(measured, predicted, cutoff)
    return found if regressor is not None else found | {"MSE": math.nan}


def write_evaluations(evaluations: Sequence[FitnessEvaluation], path: str | os.PathLike[str]) -> None:
    """Write a table, ``.csv`` or ``.tsv``: a row for each fold, and the mean, its interval and the pooled metrics."""
    check_ending(path, FORMATS)
    rows = [["scheme", "fold", *METRICS], *(row for each in evaluations for row in _rows_of(each))]
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter_of(Path(path)), lineterminator="\n").writerows(rows)


def _rows_of(evaluation: FitnessEvaluation) -> Iterator[list[str]]:
    def cells(fold: str, value_of: Callable[[str], float]) -> list[str]:
        values = [value_of(name) for name in METRICS]
        return [evaluation.scheme, fold, *("" if math.isnan(value) else f"{value:.6f}" for value in values)]

    for number, metrics in enumerate(evaluation.metrics, start=1):
        yield cells(str(number), metrics.__getitem__)
    yield cells("mean", evaluation.mean)
    yield cells("plus or minus (95 %)", evaluation.half_width)
    if evaluation.pooled is not None:
        yield cells(POOLED, evaluation.pooled.__getitem__)
