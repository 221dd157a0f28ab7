"""The bases of scikit-learn's estimators, or stand-ins that ask for it when they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
else:
    try:
        from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
    except ImportError:

        class BaseEstimator:
            """Raises ImportError when an estimator is made."""

            def __new__(cls, *args, **kwargs):
                raise ImportError(f"{cls.__name__} requires scikit-learn: pip install 'modeling-msa[train]'.")

        class RegressorMixin:
            """Stands for scikit-learn's."""

        class TransformerMixin:
            """Stands for scikit-learn's."""
