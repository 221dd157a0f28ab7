"""How ProteinGym compares scores of variants with measurements: five metrics of one assay.

They are those of its ``performance_DMS_benchmarks.py``. Where scores are equal, NDCG takes them in the order of the
file; ProteinGym's own order of equal scores is left to NumPy's unstable sort.
"""

from __future__ import annotations

import numpy as np

from .score_tables import spearman

_TOP = 0.1  # of NDCG and recall


def benchmark_metrics(measured: np.ndarray, scores: np.ndarray, fit: np.ndarray) -> dict[str, float]:
    """Compute the metrics of an assay.

    Parameters
    ----------
    measured, scores : ndarray, shape=(N,), dtype=float64
        Finite; higher is fitter.
    fit : ndarray, shape=(N,)
        1 for variants that count as fit, 0 for others.

    Returns
    -------
    dict of str to float
        Spearman; NDCG of the tenth with the highest scores, gains being measured values from 0 to 1; AUC; MCC of
        scores from the median up; Top_recall, the part of the tenth with the highest measured values that is in the
        tenth with the highest scores. NaN where one is not defined.

    Examples
    --------
    >>> measured = np.arange(20.0)
    >>> benchmark_metrics(measured, measured**3, measured > 9)
    {'Spearman': 1.0, 'NDCG': 1.0, 'AUC': 1.0, 'MCC': 1.0, 'Top_recall': 1.0}
    """
    is_fit = np.asarray(fit) > 0
    return {
        "Spearman": spearman(measured, scores),
        "NDCG": _ndcg(measured, scores),
        "AUC": _auc(scores, is_fit),
        "MCC": _mcc(is_fit, scores >= np.median(scores)),
        "Top_recall": _recall(_highest(measured), _highest(scores)),
    }


def _ndcg(measured: np.ndarray, scores: np.ndarray) -> float:
    count, low, high = int(len(measured) * _TOP), measured.min(), measured.max()
    if low == high:
        return float("nan")
    gains = (measured - low) / (high - low)
    discounts = np.log2(np.arange(count) + 2)
    found = gains[np.argsort(-scores, kind="stable")[:count]]
    best = np.sort(gains)[::-1][:count]
    return float((found / discounts).sum() / (best / discounts).sum()) if count else 0.0


def _auc(scores: np.ndarray, is_fit: np.ndarray) -> float:
    """Probability that a fit variant scores higher than another; equal scores count half."""
    positive, negative = np.sort(scores[is_fit]), np.sort(scores[~is_fit])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.sum() / 2 / len(positive) / len(negative))


def _mcc(is_fit: np.ndarray, is_high: np.ndarray) -> float:
    """Matthews' correlation; 0 if all of either are alike, as in scikit-learn."""
    if len({*is_fit}) < 2 or len({*is_high}) < 2:
        return 0.0
    return float(np.corrcoef(is_fit, is_high)[0, 1])


def _highest(values: np.ndarray) -> np.ndarray:
    return values > np.percentile(values, 100 * (1 - _TOP))


def _recall(wanted: np.ndarray, found: np.ndarray) -> float:
    return float((wanted & found).sum() / wanted.sum()) if wanted.any() else float("nan")
