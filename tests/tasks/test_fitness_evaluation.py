"""The contract of the evaluation: ProteinGym's folds and metrics by hand, by scikit-learn and by SciPy."""

import csv
import math

import numpy as np
import pytest
from made_up import SHARED, real_data
from scipy.stats import spearmanr, t
from sklearn.linear_model import Ridge
from sklearn.metrics import matthews_corrcoef, roc_auc_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from modeling_msa import (
    FitnessEvaluation,
    FitnessRegressor,
    evaluate_few,
    evaluate_folds,
    fitness_metrics,
    fitness_pipeline,
    fold_numbers,
    read_alignment,
    write_evaluations,
)
from modeling_msa.alignments.variants import Substitution, parse_variants, read_variants
from modeling_msa.tasks.fitness_evaluation import METRICS

RANDOM = np.random.default_rng(0)
NUMBERS = RANDOM.choice([3, 4, 7, 8, 9, 20, 21, 22, 30, 31, 44, 50], 80)
SINGLES = [(Substitution("A", int(number), "V"),) for number in NUMBERS]
X = RANDOM.normal(size=(80, 4))
Y = X @ [1, -1, 0.5, 0] + RANDOM.normal(size=80)


def test_modulo_and_contiguous_folds_are_proteingyms():
    """ProteinNPT's cv_split.py: the rank of the residue modulo 5; stretches of which the first have one more."""
    places = sorted(set(NUMBERS.tolist()))
    assert len(places) == 12
    stretches = [0] * 3 + [1] * 3 + [2] * 2 + [3] * 2 + [4] * 2
    assert fold_numbers(SINGLES, "modulo").tolist() == [places.index(number) % 5 for number in NUMBERS]
    assert fold_numbers(SINGLES, "contiguous").tolist() == [stretches[places.index(number)] for number in NUMBERS]


def test_random_folds_are_independent_draws_and_seeded():
    folds = fold_numbers(SINGLES, "random", seed=4)
    assert np.array_equal(folds, fold_numbers(SINGLES, "random", seed=4))
    assert not np.array_equal(folds, fold_numbers(SINGLES, "random", seed=5))
    sizes = np.bincount(folds)
    assert len(sizes) == 5
    assert sizes.max() > sizes.min() + 1


def test_random_folds_of_multiples_are_even_by_the_number_of_substitutions():
    several = [tuple(Substitution("A", n + 1, "V") for n in range(k % 3 + 1)) for k in range(45)]
    folds = fold_numbers(several, "random")
    counts = np.array([[(folds[k::3] == fold).sum() for fold in range(5)] for k in range(3)])
    assert (counts == 3).all()


@pytest.mark.parametrize(
    ("variants", "scheme", "words"),
    [
        (SINGLES[:3], "random", "random: fold . of 5 is empty, as there are only 3 variants with a value"),
        (SINGLES[:1] * 40, "modulo", "modulo: fold 2 of 5 is empty, as there are only 1 mutated residue with"),
        (SINGLES[:1] * 40, "contiguous", "contiguous: fold 2 of 5 is empty"),
        ([SINGLES[0], SINGLES[0] * 2], "modulo", "modulo folds require variants with one substitution, unlike A.*:A"),
        ([SINGLES[0], ()], "contiguous", "contiguous folds require variants with one substitution, unlike WT"),
        (SINGLES, "structure", "unknown folds 'structure'; use random, modulo, contiguous"),
    ],
)
def test_folds_that_cannot_be_made(variants, scheme, words):
    with pytest.raises(ValueError, match=words):
        fold_numbers(variants, scheme)


def test_metrics_are_those_of_scikit_learn_and_scipy():
    predicted = Y + RANDOM.normal(size=80)
    found = fitness_metrics(Y, predicted)
    fit = np.median(Y) < Y
    gains = (Y - Y.min()) / (Y.max() - Y.min())
    best, ideal = np.argsort(-predicted)[:8], np.sort(gains)[::-1][:8]
    discounts = 1 / np.log2(np.arange(2, 10))
    highest = set(np.argsort(-Y)[:8]) & set(np.argsort(-predicted)[:8])
    assert found == pytest.approx(
        {
            "Spearman": spearmanr(Y, predicted).statistic,
            "NDCG": (gains[best] * discounts).sum() / (ideal * discounts).sum(),
            "MSE": np.square(Y - predicted).mean(),
            "AUC": roc_auc_score(fit, predicted),
            "MCC": matthews_corrcoef(fit, predicted >= np.median(predicted)),
            "Top_recall": len(highest) / 8,
        }
    )
    assert tuple(found) == METRICS


@pytest.mark.parametrize("scheme", ["random", "modulo", "contiguous"])
def test_folds_are_predicted_by_the_others(scheme):
    folds = fold_numbers(SINGLES, scheme)
    found = evaluate_folds(Ridge(2.0), X, Y, folds, scheme)
    expected = cross_val_predict(Ridge(2.0), X, Y, cv=PredefinedSplit(folds))
    assert np.abs(found.predictions - expected).max() < 1e-12
    assert found.pooled["Spearman"] == pytest.approx(spearmanr(Y, expected).statistic)
    values = [spearmanr(Y[folds == fold], expected[folds == fold]).statistic for fold in range(5)]
    assert [each["Spearman"] for each in found.metrics] == pytest.approx(values)
    assert found.mean("Spearman") == pytest.approx(np.mean(values))
    low, high = t.interval(0.95, 4, np.mean(values), np.std(values, ddof=1) / math.sqrt(5))
    assert found.half_width("Spearman") == pytest.approx((high - low) / 2)
    # what counts as fit is decided on the whole assay
    one = folds == 2
    assert found.metrics[2]["AUC"] == pytest.approx(roc_auc_score(Y[one] > np.median(Y), expected[one]))


def test_a_second_run_is_equal():
    folds = fold_numbers(SINGLES, "random")
    first, second = (evaluate_folds(FitnessRegressor("gp"), X, Y, folds, "random") for _ in range(2))
    assert first.metrics == second.metrics
    assert evaluate_few(Ridge(), X, Y, 20).metrics == evaluate_few(Ridge(), X, Y, 20).metrics


def test_few_labels_are_nested_and_tested_on_a_fifth():
    found = evaluate_few(Ridge(1.0), X, Y, 24, draws=3, seed=7)
    assert found.scheme == "24 labels"
    assert found.pooled is None
    for draw, metrics in enumerate(found.metrics):
        order = np.random.default_rng([7, draw]).permutation(80)
        left, fitted = order[:16], order[16:40]
        predicted = Ridge(1.0).fit(X[fitted], Y[fitted]).predict(X[left])
        assert metrics["Spearman"] == pytest.approx(spearmanr(Y[left], predicted).statistic)
        assert metrics["MSE"] == pytest.approx(np.square(Y[left] - predicted).mean())
    for labels in (1, 65):
        with pytest.raises(ValueError, match="Pass at most 64 labels"):
            evaluate_few(Ridge(), X, Y, labels)


def test_a_score_is_evaluated_as_it_is():
    folds = fold_numbers(SINGLES, "random")
    found = evaluate_folds(None, X[:, :1], Y, folds, "random")
    assert np.array_equal(found.predictions, X[:, 0])
    assert math.isnan(found.mean("MSE"))
    assert found.pooled["Spearman"] == pytest.approx(spearmanr(X[:, 0], Y).statistic)


def test_what_is_not_defined_is_left_out_of_the_mean(tmp_path):
    """Of one-hot features on residues that were never mutated, all predictions are equal."""
    one_hot = (NUMBERS[:, None] == np.unique(NUMBERS)).astype(float)
    found = evaluate_folds(Ridge(), one_hot, Y, fold_numbers(SINGLES, "modulo"), "modulo")
    assert math.isnan(found.mean("Spearman"))
    assert math.isnan(fitness_metrics(Y[:9], Y[:9])["NDCG"])  # of fewer than ten, no tenth is the best
    assert fitness_metrics(Y[:10], Y[:10])["NDCG"] == 1
    some = FitnessEvaluation("x", tuple(dict.fromkeys(METRICS, value) for value in (1.0, math.nan, 2.0)))
    assert some.mean("Spearman") == 1.5
    assert some.half_width("Spearman") == pytest.approx(12.7062 * math.sqrt(0.5) / math.sqrt(2), rel=1e-5)
    write_evaluations([found, some], tmp_path / "m.tsv")
    with open(tmp_path / "m.tsv", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[0] == ["scheme", "fold", *METRICS]
    assert [row[:2] for row in rows[1:]] == [
        *(["modulo", str(k)] for k in (*range(1, 6), "mean", "plus or minus (95 %)", "pooled")),
        *(["x", str(k)] for k in (1, 2, 3, "mean", "plus or minus (95 %)")),
    ]
    assert rows[6][2] == ""
    assert rows[-2][2] == "1.500000"
    with pytest.raises(ValueError, match="unknown output format"):
        write_evaluations([some], tmp_path / "m.json")


@real_data
def test_folds_of_tem_1():
    """One-hot ridge of a real assay, fold by fold, against scikit-learn's on the changes."""
    family = read_alignment(SHARED / "fitness" / "blat_ecolx.a2m").take([0])
    rows = read_variants(SHARED / "fitness" / "blat_ecolx_singles.csv", score_column="log_fitness")[:400]
    variants, values = [row[0] for row in rows], np.array([row[1] for row in rows])
    folds = fold_numbers(parse_variants(variants, family, 23), "random", seed=1)
    pipeline = fitness_pipeline(family, features=["one-hot"], offset=23)
    matrix = pipeline[0].fit_transform(variants)
    regressor = pipeline[1].set_params(alphas=[0.1])
    found = evaluate_folds(regressor, matrix, values, folds, "random")
    dense = matrix.toarray()
    for fold in range(5):
        left = folds == fold
        alpha = 0.1 * dense[~left].var(axis=0).sum()
        expected = Ridge(alpha).fit(dense[~left], values[~left]).predict(dense[left])
        assert np.abs(found.predictions[left] - expected).max() < 1e-8
