"""The contract of the transformers of variants: the tasks' own numbers, in scikit-learn's manner."""

import runpy
import sys

import numpy as np
import pytest
from families import family, make_model
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaVariantEmbedder,
    VariantOneHot,
    ZeroShotScore,
    embed_variants,
    fitness_pipeline,
    load_model,
    score_variants,
)
from modeling_msa.alignments.variants import AMINO_ACIDS, mutate, parse_variants
from modeling_msa.tasks import _estimators

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = family("f", 6, 14, 1)
ALIGNMENT = Alignment.from_sequences(["m" + ROWS[0][1], *(row for _, row in list(ROWS)[1:])])
QUERY = ALIGNMENT.query
VARIANTS = [f"{QUERY[k]}{k + 1}{letter}" for k in range(1, 13) for letter in "AKW" if QUERY[k] != letter]
VARIANTS += [f"{VARIANTS[0]}:{VARIANTS[-1]}", f"{VARIANTS[4]}:{VARIANTS[9]}"]
VALUES = np.random.default_rng(0).normal(size=len(VARIANTS))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(make_model(tmp_path_factory.mktemp("model") / "small"), cls=MsaForMaskedLM)


def transformers(model):
    return MsaVariantEmbedder(ALIGNMENT, model), VariantOneHot(ALIGNMENT), ZeroShotScore(ALIGNMENT, model)


# The others, 50 or so, fit numbers, which scikit-learn itself leaves out for an estimator whose input is text.
@pytest.mark.parametrize(
    "name",
    [
        "check_estimator_cloneable",
        "check_no_attributes_set_in_init",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_repr",
        "check_valid_tag_types",
        "check_mixin_order",
        "check_estimator_tags_renamed",
    ],
)
@pytest.mark.parametrize("number", range(3))
def test_scikit_learns_checks_that_apply(name, number, model):
    estimator = transformers(model)[number]
    getattr(estimator_checks, name)(type(estimator).__name__, estimator)


def test_scikit_learn_leaves_out_the_checks_with_numbers(model):
    for estimator in transformers(model):
        with pytest.warns(UserWarning, match="Can't test estimator"):
            names = {each["check_name"] for each in estimator_checks.check_estimator(estimator)}
        assert "check_fit2d_1sample" not in names


def test_a_clone_shares_the_model(model):
    for estimator in transformers(model):
        copy = clone(estimator)
        assert copy is not estimator
        assert copy.alignment is ALIGNMENT
        assert getattr(copy, "model", model) is model


def test_embeddings_and_scores_are_those_of_the_tasks(model):
    options = {"which": "mean", "layers": (0, -1), "mode": "exact", "rows": 3, "select": "random", "seed": 5}
    found = MsaVariantEmbedder(ALIGNMENT, model, **options).fit_transform(VARIANTS)
    assert np.array_equal(found, embed_variants(ALIGNMENT, VARIANTS, model, **options).features)
    shifted = [f"{QUERY[2]}103W", f"{QUERY[5]}106W"]
    found = MsaVariantEmbedder(ALIGNMENT, model, offset=100).transform(np.array(shifted, dtype=object)[:, None])
    fast = {"which": "both", "mode": "fast"}
    assert np.array_equal(found, embed_variants(ALIGNMENT, [f"{QUERY[2]}3W", f"{QUERY[5]}6W"], model, **fast).features)
    scores = ZeroShotScore(ALIGNMENT, model, rows=3).fit_transform(VARIANTS)
    assert np.array_equal(scores[:, 0], score_variants(ALIGNMENT, VARIANTS, model, mode="fast", rows=3).score)


def one_hot_sequences(variants):
    """Of all residues with a column, letter by letter."""
    rows = [mutate(ALIGNMENT, some).sequences[0].replace("-", "") for some in parse_variants(variants, ALIGNMENT)]
    return np.array([[letter == each for letter in row for each in AMINO_ACIDS] for row in rows], dtype=float)


def test_one_hot_changes_are_whole_sequences_without_the_querys():
    found = VariantOneHot(ALIGNMENT).fit_transform([*VARIANTS, "WT"]).toarray()
    assert np.array_equal(found, one_hot_sequences([*VARIANTS, "WT"]) - one_hot_sequences(["WT"]))


def test_ridge_on_one_hot_is_scikit_learns_on_whole_sequences(model):
    pipeline = fitness_pipeline(ALIGNMENT, features=["one-hot"]).fit(VARIANTS, VALUES)
    by_hand = Ridge(pipeline[1].alpha_).fit(one_hot_sequences(VARIANTS), VALUES)
    assert np.abs(pipeline.predict(VARIANTS) - by_hand.predict(one_hot_sequences(VARIANTS))).max() < 1e-9


@pytest.mark.parametrize("kernel", ["ridge", "gp"])
def test_features_of_a_pipeline_may_be_computed_once(kernel, model):
    """Its first step has no state: folds of the whole pipeline are folds of its regression on one matrix."""
    features = ["zero-shot", "one-hot", "embedding"]
    pipeline = fitness_pipeline(ALIGNMENT, model, features=features, kernel=kernel, rows=4)
    matrix = pipeline[0].fit_transform(VARIANTS)
    assert matrix.shape == (len(VARIANTS), 20 * 14 + 32 + 1)
    once = cross_val_predict(pipeline[1], matrix, VALUES, cv=3)
    again = cross_val_predict(pipeline, np.array(VARIANTS, dtype=object), VALUES, cv=3)
    assert np.abs(once - again).max() < 1e-5


def test_augmented_one_hot_is_ridge_beside_an_unpenalised_score(model):
    pipeline = fitness_pipeline(ALIGNMENT, model, features=["one-hot", "zero-shot"]).fit(VARIANTS, VALUES)
    scores = score_variants(ALIGNMENT, VARIANTS, model, mode="fast").score
    design = np.column_stack([one_hot_sequences(VARIANTS), scores, np.ones(len(VARIANTS))])
    penalty = np.diag([pipeline[1].alpha_] * (20 * 14) + [0.0, 0.0])
    weights = np.linalg.lstsq(design.T @ design + penalty, design.T @ VALUES, rcond=None)[0]
    assert np.abs(pipeline.predict(VARIANTS) - design @ weights).max() < 1e-6


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[1.0, 2.0]], r"Pass variants as text, such as 'A42V', in one dimension, not shape \(1, 2\)"),
        ([1, 2], "Pass variants as text"),
        ([f"{QUERY[2]}3W", f"{QUERY[3]}4*"], rf"1 of 2 variants cannot be used: {QUERY[3]}4\*: a stop"),
    ],
)
def test_what_is_not_a_variant_is_refused(given, words, model):
    for estimator in transformers(model):
        with pytest.raises(ValueError, match=words):
            estimator.fit_transform(given)


def test_the_wild_type_has_no_mutated_residue(model):
    with pytest.raises(ValueError, match="WT cannot be embedded: there is no mutated residue"):
        MsaVariantEmbedder(ALIGNMENT, model).transform(["WT", VARIANTS[0]])
    assert MsaVariantEmbedder(ALIGNMENT, model, which="mean").transform(["WT"]).shape == (1, 16)


@pytest.mark.parametrize("features", [[], ["embedding", "embedding"], ["structure"]])
def test_features_that_do_not_exist(features, model):
    with pytest.raises(ValueError, match="features must be some of one-hot, embedding, zero-shot"):
        fitness_pipeline(ALIGNMENT, model, features=features)


def test_a_model_is_asked_for():
    with pytest.raises(ValueError, match="embedding and zero-shot require a model"):
        fitness_pipeline(ALIGNMENT)


def test_transformers_compose(model):
    assert make_pipeline(VariantOneHot(ALIGNMENT), Ridge()).fit(VARIANTS, VALUES).predict(VARIANTS[:2]).shape == (2,)


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    names = runpy.run_path(_estimators.__file__)
    kind = type("MsaVariantEmbedder", (names["TransformerMixin"], names["BaseEstimator"]), {})
    with pytest.raises(ImportError, match=r"MsaVariantEmbedder requires scikit-learn: pip .*\[train\]"):
        kind("alignment", model=None)
