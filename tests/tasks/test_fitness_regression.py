"""The contract of the regression: scikit-learn's ridge and Gaussian process, and their limit for covariates."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from modeling_msa import FitnessRegressor

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 9)) * [1, 5, 0.1, 1, 1, 2, 1, 1, 3] + 4
Y = X[:, 0] - 0.3 * X[:, 1] + np.sin(X[:, 5]) + RANDOM.normal(size=60)
NEW = RANDOM.normal(size=(7, 9)) + 4


# check_array_api_input is skipped by scikit-learn itself, unless SCIPY_ARRAY_API is set
@parametrize_with_checks([FitnessRegressor(), FitnessRegressor("gp")])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_ridge_is_scikit_learns_with_the_alpha_of_inner_folds():
    fitted = FitnessRegressor(plain=9, alphas=(0.01, 0.1, 1.0, 10.0), seed=3).fit(X, Y)
    unit = X.var(axis=0).sum()  # mean variance of the linear kernel: that of all columns together
    inner = KFold(5, shuffle=True, random_state=3)
    grid = {"alpha": [unit * each for each in (0.01, 0.1, 1.0, 10.0)]}
    search = GridSearchCV(Ridge(), grid, cv=inner, scoring="neg_mean_squared_error").fit(X, Y)
    assert fitted.alpha_ == pytest.approx(search.best_params_["alpha"], rel=1e-9)
    assert np.abs(fitted.predict(NEW) - search.predict(NEW)).max() < 1e-9
    assert np.abs(fitted.coef_ - search.best_estimator_.coef_).max() < 1e-9


def test_columns_that_are_not_plain_are_standardised_and_weigh_one_together():
    fitted = FitnessRegressor(alphas=[0.5]).fit(X, Y)
    assert fitted.alpha_ == pytest.approx(0.5)  # of columns whose variances add up to 1
    by_hand = make_pipeline(StandardScaler(), Ridge(0.5 * 9)).fit(X, Y)
    assert np.abs(fitted.predict(NEW) - by_hand.predict(NEW)).max() < 1e-9


def test_covariates_are_not_penalised():
    """The normal equations of a ridge whose penalty spares the intercept and the last two columns."""
    fitted = FitnessRegressor(plain=7, covariates=2, alphas=[0.3]).fit(X, Y)
    design = np.column_stack([X, np.ones(60)])
    penalty = np.diag([fitted.alpha_] * 7 + [0.0] * 3)
    weights = np.linalg.solve(design.T @ design + penalty, design.T @ Y)
    assert np.abs(fitted.predict(NEW) - np.column_stack([NEW, np.ones(7)]) @ weights).max() < 1e-8
    only = FitnessRegressor(covariates=9).fit(X, Y)  # nothing else: least squares
    expected = np.linalg.lstsq(design, Y, rcond=None)[0]
    assert np.abs(only.predict(NEW) - np.column_stack([NEW, np.ones(7)]) @ expected).max() < 1e-8


def test_gaussian_process_is_scikit_learns_with_a_wide_prior_of_the_mean():
    fitted = FitnessRegressor("gp", alphas=[0.1], lengths=[0.7]).fit(X, Y)
    scaled = (X - X.mean(0)) / X.std(0) / 3
    squares = ((scaled[:, None] - scaled) ** 2).sum(-1)
    length = 0.7 * np.sqrt(squares.mean())
    assert fitted.length_ == pytest.approx(length)
    kernel = ConstantKernel(1e5, "fixed") + RBF(length, "fixed")
    process = GaussianProcessRegressor(kernel, alpha=fitted.alpha_, optimizer=None).fit(scaled, Y)
    expected = process.predict((NEW - X.mean(0)) / X.std(0) / 3)
    assert np.abs(fitted.predict(NEW) - expected).max() < 1e-3


def test_gaussian_process_takes_the_length_and_noise_of_the_lowest_error():
    candidates = [(length, alpha) for length in (0.5, 2.0) for alpha in (0.03, 0.3)]
    errors = []
    for length, alpha in candidates:
        total = 0.0
        for fitted, left in KFold(5, shuffle=True, random_state=0).split(X):
            # the scale is that of all, so the units are too
            whole = FitnessRegressor("gp", alphas=[alpha], lengths=[length]).fit(X, Y)
            scaled = (X - whole.center_) / whole.scale_
            process = GaussianProcessRegressor(
                ConstantKernel(1e6, "fixed") + RBF(whole.length_, "fixed"), alpha=whole.alpha_, optimizer=None
            ).fit(scaled[fitted], Y[fitted])
            total += np.square(process.predict(scaled[left]) - Y[left]).sum()
        errors.append(total)
    best = candidates[int(np.argmin(errors))]
    chosen = FitnessRegressor("gp", alphas=[0.03, 0.3], lengths=[0.5, 2.0]).fit(X, Y)
    expected = FitnessRegressor("gp", alphas=[best[1]], lengths=[best[0]]).fit(X, Y)
    assert (chosen.length_, chosen.alpha_) == (expected.length_, expected.alpha_)


@pytest.mark.parametrize("kernel", ["ridge", "gp"])
def test_sparse_features_are_dense_ones(kernel):
    plain = (RANDOM.random((60, 30)) < 0.1).astype(float)
    matrix = np.concatenate([plain, X], axis=1)
    options = {"plain": 30, "covariates": 1, "alphas": [0.1, 1.0]}
    dense = FitnessRegressor(kernel, **options).fit(matrix, Y)
    thin = FitnessRegressor(kernel, **options).fit(sparse.csr_array(matrix), Y)
    assert dense.alpha_ == pytest.approx(thin.alpha_)
    assert np.abs(dense.predict(matrix) - thin.predict(sparse.csr_array(matrix))).max() < 1e-9


def test_columns_that_do_not_vary_are_no_matter():
    constant = np.column_stack([X, np.full(60, 1e6), np.zeros(60)])
    fitted = FitnessRegressor(alphas=[1.0]).fit(constant, Y)
    assert np.isfinite(fitted.predict(constant)).all()
    assert np.array_equal(fitted.coef_[9:], [0, 0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel": "tree"}, "kernel must be ridge or gp"),
        ({"plain": 8, "covariates": 2}, "There are 9 columns"),
        ({"plain": -1}, "There are 9 columns"),
        ({"alphas": []}, "alphas must be positive"),
        ({"lengths": [0.0]}, "lengths must be positive"),
        ({"folds": 1}, "folds must be at least 2"),
        ({"most": 1}, "most must be at least 2"),
    ],
)
def test_wrong_parameters(options, words):
    with pytest.raises(ValueError, match=words):
        FitnessRegressor(**options).fit(X, Y)


def test_few_columns_and_few_variants_are_one_ridge(monkeypatch):
    """Fewer columns than variants are fitted by columns, others by pairs of variants, with the same result."""
    options = {"plain": 3, "covariates": 1, "alphas": (0.01, 0.1, 1.0)}
    columns = FitnessRegressor(**options).fit(X, Y)
    monkeypatch.setattr(FitnessRegressor, "_fit_columns", FitnessRegressor._fit_kernel)
    pairs = FitnessRegressor(**options).fit(X, Y)
    assert columns.alpha_ == pytest.approx(pairs.alpha_, rel=1e-9)
    assert np.abs(columns.predict(NEW) - pairs.predict(NEW)).max() < 1e-9
    wide = RANDOM.normal(size=(12, 30))
    by_hand = Ridge(FitnessRegressor(plain=30, alphas=[0.2]).fit(wide, Y[:12]).alpha_).fit(wide, Y[:12])
    found = FitnessRegressor(plain=30, alphas=[0.2]).fit(wide, Y[:12])
    assert np.abs(found.predict(wide) - by_hand.predict(wide)).max() < 1e-9
    assert np.abs(found.coef_ - by_hand.coef_).max() < 1e-9


def test_of_many_variants_some_choose_the_noise():
    """Those of a seeded draw, by inner folds of their own; all are fitted."""
    options = {"alphas": (0.03, 0.3, 3.0), "lengths": (0.5, 1.0), "seed": 2}
    fitted = FitnessRegressor("gp", most=25, **options).fit(X, Y)
    some = np.sort(np.random.default_rng(2).permutation(60)[:25])
    errors = {}
    for length in options["lengths"]:
        for alpha in options["alphas"]:
            one = FitnessRegressor("gp", alphas=[alpha], lengths=[length]).fit(X, Y)
            scaled = ((X - one.center_) / one.scale_)[some]
            errors[one.length_, one.alpha_] = sum(
                np.square(
                    GaussianProcessRegressor(
                        ConstantKernel(1e6, "fixed") + RBF(one.length_, "fixed"), alpha=one.alpha_, optimizer=None
                    )
                    .fit(scaled[known], Y[some][known])
                    .predict(scaled[left])
                    - Y[some][left]
                ).sum()
                for known, left in KFold(5, shuffle=True, random_state=2).split(some)
            )
    assert (fitted.length_, fitted.alpha_) == min(errors, key=errors.get)
    assert len(fitted.support_) == 60
