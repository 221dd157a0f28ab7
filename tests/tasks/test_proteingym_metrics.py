"""The five metrics of an assay against SciPy, scikit-learn, and definitions written out."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import matthews_corrcoef, ndcg_score, roc_auc_score

from modeling_msa.tasks.proteingym_metrics import benchmark_metrics


@pytest.mark.parametrize("count", [9, 10, 37, 200])
@pytest.mark.parametrize("levels", [None, 5])
def test_metrics_by_other_libraries(count, levels):
    """With and without equal values."""
    rng = np.random.default_rng(count)
    measured, scores = rng.normal(size=(2, count))
    scores += measured
    if levels:
        measured, scores = np.round(measured * levels) / levels, np.round(scores)
    fit = (measured > np.median(measured)).astype(int)
    found = benchmark_metrics(measured, scores, fit)
    top = measured > np.percentile(measured, 90)
    wanted = {
        "Spearman": spearmanr(measured, scores)[0],
        "AUC": roc_auc_score(fit, scores),
        "MCC": matthews_corrcoef(fit, scores >= np.median(scores)),
        "Top_recall": (top & (scores > np.percentile(scores, 90))).sum() / top.sum() if top.any() else np.nan,
    }
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, nan_ok=True)
    if count < 10:  # a tenth of nine is no variant
        assert found["NDCG"] == 0
    else:
        gains = (measured - measured.min()) / (measured.max() - measured.min())
        order = sorted(range(count), key=lambda k: -scores[k])  # Python's sort is stable
        best = sorted(gains, reverse=True)
        pairs = [(gains[order[k]] / np.log2(k + 2), best[k] / np.log2(k + 2)) for k in range(count // 10)]
        assert found["NDCG"] == pytest.approx(sum(a for a, _ in pairs) / sum(b for _, b in pairs))
        if not levels:
            assert found["NDCG"] == pytest.approx(ndcg_score([gains], [scores], k=count // 10))


def test_what_is_not_defined():
    """A constant, and one class."""
    values = np.arange(20.0)
    flat = benchmark_metrics(np.zeros(20), values, np.zeros(20))
    assert np.isnan([flat[name] for name in ("Spearman", "NDCG", "AUC", "Top_recall")]).all()
    assert flat["MCC"] == matthews_corrcoef(np.zeros(20), values >= 9.5) == 0
    same = benchmark_metrics(values, np.zeros(20), values > 10)
    assert np.isnan(same["Spearman"])
    assert (same["AUC"], same["MCC"], same["Top_recall"]) == (0.5, 0, 0)
    assert same["NDCG"] == pytest.approx((0 / 1 + 1 / 19 / np.log2(3)) / (1 + 18 / 19 / np.log2(3)))
