"""The contract of distances from column attention.

The features are the mean over columns, `<cls>` among them, of fair-esm's column attention, and are made without ever
holding all columns' maps. The weights are those of a binomial GLM on Hamming distances, here solved by iteratively
reweighted least squares; R2 and Pearson's r are scikit-learn's and scipy's on pairs that were not fitted. Weights of
another model are refused.
"""

import json
import sys

import families
import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from scipy.special import expit
from scipy.stats import pearsonr
from sklearn.metrics import r2_score
from small import small_model
from torch.utils._python_dispatch import TorchDispatchMode

from modeling_msa import (
    Alignment,
    DistanceModel,
    MsaForMaskedLM,
    MsaModel,
    MsaTokenizer,
    bundled_family,
    fit_distances,
    load_model,
    predict_distances,
    read_alignment,
)
from modeling_msa.tasks import distances as phylogeny
from modeling_msa.tasks.distances import column_attention_features, hamming_distances

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = [families.family(name, depth, 30, seed) for seed, (name, depth) in enumerate([("a", 20), ("b", 13)])]


OTHER = families.family("c", 16, 24, 7)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Small, random: 2 layers of 2 heads."""
    return load_model(families.make_model(tmp_path_factory.mktemp("model") / "small"))


@pytest.fixture(scope="module")
def fitted(model):
    return fit_distances(FAMILIES, model, rows=32, select="first")


def tokens_of(alignment):
    return MsaTokenizer()(alignment, return_tensors="pt")["input_ids"]


@torch.no_grad()
def reference_predictors(model, alignment, offset=1):
    """Pairs' predictors, and their Hamming distances by scipy.

    Mean attention is the module's own, which other tests compare: a fit without a penalty magnifies roundings.
    """
    mean = column_attention_features(model, tokens_of(alignment)).astype(np.float64)
    i, j = np.triu_indices(alignment.depth, offset)
    distances = squareform(pdist(alignment.array, "hamming"))[i, j]
    return alignment.depth * (mean + mean.transpose(0, 2, 1))[:, i, j].T, distances


def binomial_glm(predictors, distances):
    """Intercept and weights by iteratively reweighted least squares."""
    design = np.column_stack([np.ones(len(predictors)), predictors])
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        mean = expit(design @ beta)
        weight = mean * (1 - mean)
        working = design @ beta + (distances - mean) / weight
        root = np.sqrt(weight)
        beta = np.linalg.lstsq(design * root[:, None], working * root, rcond=None)[0]
    return beta


@pytest.mark.parametrize(("attention", "numbers"), [("eager", 2**20), ("sdpa", 500)])
def test_features_are_the_mean_over_columns(attention, numbers, blocks, monkeypatch):
    """Whatever the attention's implementation, however few columns at a time, and with any class."""
    model = small_model(MsaForMaskedLM).train()
    model.set_attn_implementation(attention)
    tokens = tokens_of(families.family("f", 9, 29, 3))
    monkeypatch.setattr(phylogeny, "_NUMBERS_PER_BLOCK", numbers)
    blocks(40)
    found = column_attention_features(model, tokens)
    assert model.training
    assert all(module.training for module in model.modules())
    model.eval()
    with torch.no_grad():
        maps = model(tokens, output_column_attentions=True).column_attentions
    expected = torch.cat([each[0].mean(1) for each in maps]).numpy()
    assert found.shape == (4, 9, 9)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= 1e-6
    assert np.array_equal(column_attention_features(model, tokens), found)  # no hook is left behind


def test_features_equal_fair_esm(converted):
    theirs, folder = converted("msa-tiny")
    tokens = tokens_of(families.family("f", 12, 40, 5))
    with torch.no_grad():
        maps = theirs(tokens, need_head_weights=True)["col_attentions"]  # (B, layers, H, C, R, R)
    expected = maps[0].mean(2).flatten(0, 1).numpy()
    assert np.abs(column_attention_features(MsaModel.from_pretrained(folder), tokens) - expected).max() <= 1e-5


def test_all_columns_maps_are_never_in_memory():
    """No tensor of the whole run is as large as (C, R, R), the maps of a single head."""
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes.extend(each.numel() for each in torch.utils._pytree.tree_leaves(result) if hasattr(each, "numel"))
            return result

    model = small_model(MsaModel, max_position_embeddings=256, max_row_position_embeddings=256)
    tokens = tokens_of(families.family("f", 160, 200, 0))
    with Watch():
        column_attention_features(model, tokens)
    assert max(sizes) <= phylogeny._NUMBERS_PER_BLOCK < 201 * 160 * 160


def test_hamming_distances_are_scipys():
    assert np.array_equal(hamming_distances(OTHER.array), squareform(pdist(OTHER.array, "hamming")))


@pytest.mark.parametrize("diagonal", [False, True])
def test_fit_is_the_binomial_glm(model, diagonal):
    """All pairs of all families with equal weight, each pair once."""
    found = fit_distances(FAMILIES, model, rows=32, select="first", diagonal=diagonal)
    pairs = [reference_predictors(model, family, 0 if diagonal else 1) for family in FAMILIES]
    predictors, distances = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    beta = binomial_glm(predictors, distances)
    assert found.weights.shape == (2, 2)
    assert np.allclose([found.intercept, *found.weights.ravel()], beta, rtol=1e-5)
    assert np.allclose(found(predictors), expit(predictors @ beta[1:] + beta[0]), atol=1e-6)
    assert found.pairs == len(distances)
    assert found.families == (("a/0", 20, 30), ("b/0", 13, 30))
    scores = [r2_score(known, expit(values @ beta[1:] + beta[0])) for values, known in pairs]
    assert found.r2 == pytest.approx(np.mean(scores), abs=1e-6)


def test_prediction_for_another_family(model, fitted):
    """By the formula, in the order of the file, zero on the diagonal, judged on all pairs."""
    result = predict_distances(OTHER, model, fitted, rows=32)
    values, known = reference_predictors(model, OTHER)
    expected = expit(values @ fitted.weights.ravel() + fitted.intercept)
    i, j = np.triu_indices(16, 1)
    assert result.names == OTHER.names
    assert np.abs(result.predicted[i, j] - expected).max() <= 1e-6
    assert np.array_equal(result.predicted, result.predicted.T)
    assert not result.predicted.diagonal().any()
    assert np.array_equal(result.hamming[i, j], known)
    assert not result.fitted.any()
    assert result.r2 == pytest.approx(r2_score(known, expected), abs=1e-6)
    assert result.pearson == pytest.approx(pearsonr(known, expected)[0], abs=1e-6)
    values, known = reference_predictors(model, OTHER, 0)
    with_diagonal = r2_score(known, expit(values @ fitted.weights.ravel() + fitted.intercept))
    assert result.r2_with_diagonal == pytest.approx(with_diagonal, abs=1e-6)
    assert result.origin == "2 families"
    assert "this one among them" in predict_distances(FAMILIES[0], model, fitted).origin


def test_own_fit_is_judged_on_other_rows(model):
    """Without weights: 70% of the rows are fitted, and R2 is of pairs among the other rows alone."""
    result = predict_distances(OTHER, model, rows=32, seed=3)
    assert result.fitted.sum() == 11
    values, known = reference_predictors(model, OTHER)
    i, j = np.triu_indices(16, 1)
    own = result.fitted[i] & result.fitted[j]
    beta = binomial_glm(values[own], known[own])
    expected = expit(values @ beta[1:] + beta[0])
    assert np.allclose(result.predicted[i, j], expected, atol=1e-6)
    new = ~result.fitted[i] & ~result.fitted[j]
    assert new.sum() == 10
    assert np.array_equal(np.column_stack(result.judged_pairs()), np.column_stack([i[new], j[new]]))
    assert result.r2 == pytest.approx(r2_score(known[new], expected[new]), abs=1e-5)
    assert result.origin == "11 of the family's own 16 rows"
    assert np.array_equal(predict_distances(OTHER, model, rows=32, seed=3).predicted, result.predicted)
    assert not np.array_equal(predict_distances(OTHER, model, rows=32, seed=4).fitted, result.fitted)


def test_rows_are_in_the_order_of_the_file_and_query_gaps_do_not_count(model, fitted):
    family = Alignment.from_sequences(
        ["MKV-L-A", "MRVWLWA", "MKVWLGA", "-----GA", "MRVC-GG", "GKAW--A"], list("qabcde")
    )
    result = predict_distances(family, model, fitted, rows=4)
    kept = [family.names.index(name) for name in result.names]
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert len(kept) == 4
    assert np.array_equal(result.hamming, hamming_distances(family.drop_query_gaps().array[kept]))


def test_identical_rows_have_no_r2(model, fitted):
    result = predict_distances(Alignment.from_sequences(["MKVLA"] * 4), model, fitted)
    assert np.isnan([result.r2, result.pearson]).all()
    with pytest.raises(ValueError, match="All rows are the same"):
        fit_distances([Alignment.from_sequences(["MKVLA"] * 9)], model)


def test_weights_are_saved_and_read(model, fitted, tmp_path):
    path = tmp_path / "distances.json"
    fitted.save(path)
    read = DistanceModel.load(path)
    assert json.loads(path.read_text())["model"] == "small"
    assert np.array_equal(read.weights, fitted.weights)
    assert (read.intercept, read.families, read.pairs, read.r2) == (
        fitted.intercept,
        fitted.families,
        fitted.pairs,
        fitted.r2,
    )
    found = predict_distances(OTHER, model, read).predicted
    assert np.array_equal(found, predict_distances(OTHER, model, fitted).predicted)
    read.check(model.bfloat16())
    model.float()


def test_weights_of_another_model_are_refused(fitted, tmp_path):
    with pytest.raises(ValueError, match=r"for 2 layers of 2 heads .* has 4 of 4"):
        predict_distances(OTHER, load_model("msa-tiny"), fitted)
    with pytest.raises(ValueError, match="another model of the same size"):
        predict_distances(OTHER, small_model(MsaModel), fitted)
    with pytest.raises(FileNotFoundError, match=r"x.json does not exist; create it with msa fit-distances"):
        DistanceModel.load(tmp_path / "x.json")
    for text in ("{}", "nothing", "[1]", '{"model": "x", "weights": "y"}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=r"x.json: not distance weights"):
            DistanceModel.load(tmp_path / "x.json")


def test_fitting_requires_sklearn(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    for fit in (lambda: fit_distances(FAMILIES, model), lambda: predict_distances(OTHER, model)):
        with pytest.raises(ImportError, match=r"requires scikit-learn: pip install 'modeling-msa\[train\]'"):
            fit()


def test_too_little_to_fit_on_is_said_before_the_model_runs(model, fitted, monkeypatch):
    monkeypatch.setattr(phylogeny, "column_attention_features", None)
    few = families.family("few", 3, 20, 0)
    with pytest.raises(ValueError, match=r"1 family have 3 pairs, but .* requires at least 6 pairs of rows"):
        fit_distances([few], model)
    with pytest.raises(ValueError, match="few/0: 2 of 3 rows are used for the fit; they have 1 pair,"):
        predict_distances(few, model)
    with pytest.raises(ValueError, match="few/0: 2 rows, too few"):
        predict_distances(few, model, fitted, rows=2)
    with pytest.raises(ValueError, match="window is 64 columns, but the model reads at most 63"):
        fit_distances([OTHER, families.family("long", 9, 90, 0)], model, window=64)


def test_embedded_default_tells_close_rows_of_a_real_family():
    """On rows that were not in the fit: no figure of the paper, but far from nothing."""
    result = predict_distances(read_alignment(bundled_family()), load_model("msa-tiny"), rows=98)
    assert len(result.names) == 98
    assert result.pearson > 0.5
