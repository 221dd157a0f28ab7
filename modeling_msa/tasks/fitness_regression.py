"""A regression on features of variants: ridge, or a Gaussian process with an RBF kernel; a scikit-learn estimator.

Both solve one system, that of kriging with a linear trend. With a kernel matrix K of the training variants, the
covariates Z (an intercept first) and a noise alpha, the weights of variants a and those of covariates b are

    (K + alpha I) a + Z b = y,    Z' a = 0.

With a linear kernel this is ridge regression in which intercept and covariates are not penalised, the limit in which
Hsu et al. (Nature Biotechnology 2022) add the score of a sequence model to one-hot features. With an RBF kernel it is
the mean of a Gaussian process whose own mean is linear in the covariates.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._estimators import BaseEstimator, RegressorMixin

KERNELS = ("ridge", "gp")


class FitnessRegressor(RegressorMixin, BaseEstimator):
    """Predict a value from features of variants by ridge regression or a Gaussian process.

    The columns of X are, in this order: `plain` ones, which are taken as they are (one-hot); those in between
    (embeddings), which are standardised and divided by the root of their number, so that they weigh as much as one
    column; and `covariates`, which are standardised and not penalised (zero-shot scores).

    Parameters
    ----------
    kernel : {"ridge", "gp"}, default "ridge"
        A linear kernel, or an RBF kernel (a Gaussian process).
    plain, covariates : int, default 0
        How many columns come first and last.
    alphas : sequence of float
        Noise to choose from, as a part of the kernel's mean variance over the training variants. Ridge's own alpha is
        `alpha_`.
    lengths : sequence of float
        Length scales of an RBF kernel to choose from, in units of the root mean square distance of two variants.
    folds : int, default 5
        Inner folds, at random, by which noise and length scale are chosen: those with the lowest mean squared error,
        of equal ones the smoothest. At most as many as there are variants.
    most : int, default 1500
        Number of variants in these folds, at random, if there are more: with a kernel, each candidate costs the third
        power of their number. A ridge of fewer columns than variants needs no kernel, and uses all.
    seed : int, default 0
        Of the inner folds, and of this choice.

    Attributes
    ----------
    alpha_, length_ : float
        What was chosen, in units of the kernel and of the features; `length_` is NaN for ridge.
    center_, scale_ : ndarray, shape=(F,)
        Features are shifted by the one and divided by the other.
    coef_ : ndarray, shape=(F,)
        Of scaled features; for a Gaussian process only those of covariates differ from 0.
    intercept_ : float
    support_, dual_coef_ : ndarray, shape=(N, F - covariates) and (N,)
        Of a Gaussian process: scaled features of the training variants, and their weights.

    Examples
    --------
    >>> x = np.arange(8.0)[:, None]
    >>> model = FitnessRegressor(alphas=[1e-6]).fit(x, 2 * x[:, 0] + 1)
    >>> model.predict([[10.0]]).round(3)
    array([21.])
    """

    def __init__(
        self,
        kernel: str = "ridge",
        *,
        plain: int = 0,
        covariates: int = 0,
        alphas: Sequence[float] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        lengths: Sequence[float] = (0.5, 1.0, 2.0),
        folds: int = 5,
        most: int = 1500,
        seed: int = 0,
    ) -> None:
        self.kernel = kernel
        self.plain = plain
        self.covariates = covariates
        self.alphas = alphas
        self.lengths = lengths
        self.folds = folds
        self.most = most
        self.seed = seed

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any) -> FitnessRegressor:
        """Choose noise and length scale by inner folds, then fit all variants.

        Parameters
        ----------
        X : array_like or sparse matrix, shape=(N, F)
        y : array_like, shape=(N,)

        Returns
        -------
        FitnessRegressor
            Itself.

        Raises
        ------
        ValueError
            If there are fewer than two variants, or a parameter is wrong.
        """
        from sklearn.utils.validation import validate_data

        X, y = validate_data(self, X, y, accept_sparse="csr", dtype=np.float64, y_numeric=True)
        if X.shape[0] < 2:
            raise ValueError(
                f"Fitting requires at least 2 variants with a value, but there is n_samples={X.shape[0]}."
            )
        self._check(X.shape[1])
        self._set_scale(X)
        rest, trend = self._split(X)
        self.coef_ = np.zeros(X.shape[1])
        self.support_, self.dual_coef_ = np.zeros((0, rest.shape[1])), np.zeros(0)
        if self.kernel == "ridge" and rest.shape[1] < len(y):
            coefs = self._fit_columns(_dense(rest), trend, y)
        else:
            coefs = self._fit_kernel(rest, trend, y)
        self.intercept_ = float(coefs[0])
        self.coef_[rest.shape[1] :] = coefs[1:]
        return self

    def _fit_columns(self, rest: np.ndarray, trend: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fit a ridge of fewer columns than variants; return the coefficients of the trend."""
        alphas = self._absolute(rest.var(axis=0).sum())
        errors = np.zeros(len(alphas))
        for fitted, left in self._inner(y):
            found = _ridge(rest[fitted], trend[fitted], y[fitted], alphas)
            errors += np.array([np.square(rest[left] @ w + trend[left] @ b - y[left]).sum() for w, b in found])
        self.alpha_, self.length_ = alphas[_first_lowest(errors)], np.nan
        ((self.coef_[: rest.shape[1]], coefs),) = _ridge(rest, trend, y, [self.alpha_])
        return coefs

    def _fit_kernel(self, rest: Any, trend: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fit by the kernel of all pairs of variants; return the coefficients of the trend."""
        gram = _dot(rest, rest)
        squares = _squares(gram)
        root = float(np.sqrt(squares.mean() or 1.0))
        relative = [np.nan] if self.kernel == "ridge" else sorted(map(float, self.lengths), reverse=True)
        candidates: list[tuple[float, float]] = []
        errors = []
        some = np.sort(np.random.default_rng(self.seed).permutation(len(y))[: self.most])
        for length in (each * root for each in relative):
            kernel = self._kernel(gram, squares, length)
            alphas = self._absolute(_variance(kernel))
            candidates += [(length, alpha) for alpha in alphas]
            known = kernel[np.ix_(some, some)], trend[some], y[some], alphas
            errors.append(np.sum([_errors(*known, *parts) for parts in self._inner(y[some])], axis=0))
        self.length_, self.alpha_ = candidates[_first_lowest(np.concatenate(errors))]
        weights, coefs = _solve(self._kernel(gram, squares, self.length_), trend, y, self.alpha_)
        if self.kernel == "ridge":
            self.coef_[: rest.shape[1]] = rest.T @ weights
        else:
            self.support_, self.dual_coef_ = _dense(rest), weights
        return coefs

    def _absolute(self, unit: float) -> list[float]:
        """Noise in the kernel's unit, the most first."""
        return sorted((float(each) * (float(unit) or 1.0) for each in self.alphas), reverse=True)

    def predict(self, X: Any) -> np.ndarray:
        """Predict values, ``(N,)`` float64, of features ``(N, F)``."""
        from sklearn.utils.validation import check_is_fitted, validate_data

        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        return predict_scaled(self, X)

    def _check(self, columns: int) -> None:
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel must be {' or '.join(KERNELS)}, not {self.kernel!r}.")
        if min(self.plain, self.covariates) < 0 or self.plain + self.covariates > columns:
            raise ValueError(
                f"There are {columns} columns, but plain={self.plain} and covariates={self.covariates} are more."
            )
        for name, values in (("alphas", self.alphas), ("lengths", self.lengths)):
            if not len(values) or min(values) <= 0:
                raise ValueError(f"{name} must be positive numbers, at least one, but are {values}.")
        for name, value in (("folds", self.folds), ("most", self.most)):
            if operator.index(value) < 2:
                raise ValueError(f"{name} must be at least 2, but is {value}.")

    def _set_scale(self, X: Any) -> None:
        self.center_, self.scale_ = np.zeros(X.shape[1]), np.ones(X.shape[1])
        rest = _dense(X[:, self.plain :])
        spread = rest.std(axis=0)
        # what does not vary is noise of rounding, which would be blown up
        spread[spread <= 1e-9 * np.abs(rest).max(axis=0, initial=0)] = 1
        width = max(X.shape[1] - self.plain - self.covariates, 1)
        weigh = np.append(np.full(rest.shape[1] - self.covariates, np.sqrt(width)), np.ones(self.covariates))
        self.center_[self.plain :], self.scale_[self.plain :] = rest.mean(axis=0), spread * weigh

    def _inner(self, y: np.ndarray) -> Any:
        from sklearn.model_selection import KFold

        folds = min(operator.index(self.folds), len(y))
        return KFold(folds, shuffle=True, random_state=self.seed).split(y[:, None])

    def _split(self, X: Any) -> tuple[Any, np.ndarray]:
        return split_scaled(X, self.center_, self.scale_, self.plain, self.covariates)

    def _kernel(self, gram: np.ndarray, squares: np.ndarray, length: float) -> np.ndarray:
        return gram if self.kernel == "ridge" else np.exp(squares * (-0.5 / length**2))


def split_scaled(X: Any, center: np.ndarray, scale: np.ndarray, plain: int, covariates: int) -> tuple[Any, np.ndarray]:
    """Scale features and part them: those of the kernel, sparse if all are plain and sparse, and the trend's."""
    first, count = X[:, :plain], X.shape[1]
    rest = (_dense(X[:, plain:]) - center[plain:]) / scale[plain:]
    trend = np.column_stack([np.ones(len(rest)), rest[:, len(rest[0]) - covariates :]])
    middle = rest[:, : count - plain - covariates]
    if hasattr(first, "tocsr"):
        from scipy import sparse

        features = sparse.hstack([first, sparse.csr_array(middle)], format="csr") if middle.shape[1] else first
    else:
        features = np.concatenate([np.asarray(first), middle], axis=1)
    return features, trend


def predict_scaled(model: Any, X: Any) -> np.ndarray:
    """Predict from the arrays of a fitted `FitnessRegressor`, or of whatever has its attributes; NumPy alone."""
    rest, trend = split_scaled(X, model.center_, model.scale_, model.plain, model.covariates)
    width = rest.shape[1]
    values = trend @ np.append(model.intercept_, model.coef_[width:])
    if model.kernel == "ridge":
        return values + rest @ model.coef_[:width]
    squares = _norms(rest)[:, None] + _norms(model.support_) - 2 * _dot(rest, model.support_)
    return values + np.exp(np.maximum(squares, 0) * (-0.5 / model.length_**2)) @ model.dual_coef_


def _dense(X: Any) -> np.ndarray:
    return X.toarray() if hasattr(X, "toarray") else np.asarray(X)


def _dot(left: Any, right: Any) -> np.ndarray:
    return _dense(left @ right.T)


def _norms(X: Any) -> np.ndarray:
    return np.asarray(X.multiply(X).sum(axis=1)).ravel() if hasattr(X, "tocsr") else np.square(X).sum(axis=1)


def _squares(gram: np.ndarray) -> np.ndarray:
    """Squared distances of all pairs."""
    norms = np.diag(gram)
    return np.maximum(norms[:, None] + norms - 2 * gram, 0)


def _variance(kernel: np.ndarray) -> float:
    """Mean variance of a kernel's features: the mean of its diagonal once it is centred."""
    return float(np.diag(kernel).mean() - kernel.mean())


def _solve(kernel: np.ndarray, trend: np.ndarray, y: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights of variants and of the trend, by Cholesky's decomposition."""
    from scipy.linalg import cho_factor, cho_solve

    noisy = kernel.copy()
    noisy[np.diag_indices_from(noisy)] += alpha
    solved = cho_solve(
        cho_factor(noisy, lower=True, overwrite_a=True, check_finite=False), np.column_stack([y, trend])
    )
    # least squares: covariates may be alike, as those of few variants often are
    coefs = np.linalg.lstsq(trend.T @ solved[:, 1:], trend.T @ solved[:, 0], rcond=None)[0]
    return solved[:, 0] - solved[:, 1:] @ coefs, coefs


def _ridge(
    features: np.ndarray, trend: np.ndarray, y: np.ndarray, alphas: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Weights of features and of the trend, which is not penalised, for each alpha."""
    from scipy.linalg import cho_factor, cho_solve

    inverse = np.linalg.pinv(trend)
    rest = features - trend @ (inverse @ features)
    gram, moment = rest.T @ rest, rest.T @ (y - trend @ (inverse @ y))
    found = []
    for alpha in alphas:
        factor = cho_factor(gram + alpha * np.eye(len(gram)), lower=True, overwrite_a=True, check_finite=False)
        weights = cho_solve(factor, moment)
        found.append((weights, inverse @ (y - features @ weights)))
    return found


def _first_lowest(errors: np.ndarray) -> int:
    """Place of the first of the lowest errors, which rounding may have set apart."""
    return int(np.flatnonzero(errors <= errors.min() * (1 + 1e-12))[0])


def _errors(
    kernel: np.ndarray, trend: np.ndarray, y: np.ndarray, alphas: Sequence[float], fitted: np.ndarray, left: np.ndarray
) -> np.ndarray:
    """Sums of squared errors, one for each alpha, on variants that are left out."""
    known, to_left = kernel[np.ix_(fitted, fitted)], kernel[np.ix_(left, fitted)]
    found = []
    for alpha in alphas:
        weights, coefs = _solve(known, trend[fitted], y[fitted], alpha)
        found.append(np.square(to_left @ weights + trend[left] @ coefs - y[left]).sum())
    return np.array(found)
