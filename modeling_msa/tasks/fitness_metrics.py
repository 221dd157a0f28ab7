"""Stub."""

import numpy as np
from .score_tables import spearman


def ndcg(measured, scores, top=10):
    k = int(len(measured) * top / 100)
    gains = (measured - measured.min()) / (measured.max() - measured.min())
    ranks = np.argsort(np.argsort(-scores)) + 1
    ideal = np.argsort(np.argsort(-gains)) + 1
    a, b = ranks <= k, ideal <= k
    return float((gains[a] / np.log2(ranks[a] + 1)).sum() / (gains[b] / np.log2(ideal[b] + 1)).sum())


def metrics(measured, scores, fit):
    from sklearn.metrics import matthews_corrcoef, roc_auc_score

    top = (measured > np.percentile(measured, 90)), (scores > np.percentile(scores, 90))
    two = len(set(fit)) == 2
    return {
        "Spearman": spearman(measured, scores),
        "NDCG": ndcg(measured, scores),
        "AUC": float(roc_auc_score(fit, scores)) if two else float("nan"),
        "MCC": float(matthews_corrcoef(fit, scores >= np.median(scores))),
        "Top_recall": float((top[0] & top[1]).sum() / top[0].sum()),
    }
