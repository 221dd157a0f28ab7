"""Variants as features of fitness: embeddings, one-hot substitutions and zero-shot scores; scikit-learn transformers.

Each is given variants of one query as text, such as ``A42V:G7D``, in an array of shape (N,) or (N, 1). They have no
state that depends on the variants: `fit` only checks the parameters and the variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.variants import AMINO_ACIDS
from ..modeling_msa_transformer import MsaPreTrainedModel
from ._estimators import BaseEstimator, TransformerMixin
from .fitness_regression import FitnessRegressor
from .scoring import fit_variants, score_variants
from .strategies import Mode, Strategy
from .variant_embeddings import Which, embed_variants

FEATURES = ("one-hot", "embedding", "zero-shot")


class _OfVariants(TransformerMixin, BaseEstimator):
    """A transformer of text."""

    alignment: Alignment
    offset: int

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        tags.requires_fit = False
        return tags

    def __sklearn_clone__(self) -> Any:
        return type(self)(**self.get_params(deep=False))  # scikit-learn would copy the model

    def fit(self, X: Any, y: Any = None) -> Any:
        """Check that all variants fit the query; ValueError names those that do not."""
        self._variants(X)
        return self

    def _variants(self, X: Any) -> list[str]:
        array = np.asarray(X, dtype=object)
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1 or not all(isinstance(each, str) for each in array):
            raise ValueError(f"Pass variants as text, such as 'A42V', in one dimension, not shape {array.shape}.")
        variants = array.tolist()
        wrong = [f"{text}: {why}" for text, why in zip(variants, self._reasons(variants), strict=True) if why]
        if wrong:
            more = f" ... and {len(wrong) - 3} more." if len(wrong) > 3 else ""
            raise ValueError(f"{len(wrong)} of {len(variants)} variants cannot be used: {' '.join(wrong[:3])}{more}")
        return variants

    def _reasons(self, variants: list[str]) -> tuple[str, ...]:
        return fit_variants(self.alignment, variants, self.offset)[1]


class MsaVariantEmbedder(_OfVariants):
    """Embeddings of variants: a scikit-learn transformer over `modeling_msa.embed_variants`.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    model : MsaModel, or a class with a head
    which, layers, mode, rows, select, seed, coverage, identity, offset, batch_size
        As for `embed_variants`; layers are put side by side.

    Examples
    --------
    >>> from modeling_msa import load_model
    >>> family = Alignment.from_sequences(["MKVLAWY", "MRIGAWY"])
    >>> MsaVariantEmbedder(family, load_model(), layers=(0, -1)).fit_transform(["K2R", "V3I:A5G"]).shape
    (2, 768)
    """

    def __init__(
        self,
        alignment: Alignment,
        model: MsaPreTrainedModel,
        *,
        which: Which = "both",
        layers: Sequence[int] = (-1,),
        mode: Mode = "fast",
        rows: int | None = None,
        select: str = "diverse",
        seed: int = 0,
        coverage: float | None = None,
        identity: float | None = None,
        offset: int = 0,
        batch_size: int | None = None,
    ) -> None:
        self.alignment = alignment
        self.model = model
        self.which = which
        self.layers = layers
        self.mode = mode
        self.rows = rows
        self.select = select
        self.seed = seed
        self.coverage = coverage
        self.identity = identity
        self.offset = offset
        self.batch_size = batch_size

    def transform(self, X: Any) -> np.ndarray:
        """Embed variants: ``(N, F)`` float32."""
        options = {name: value for name, value in vars(self).items() if name not in ("alignment", "model")}
        found = embed_variants(self.alignment, self._variants(X), self.model, **options)
        if any(found.reasons):
            bad = next(k for k, why in enumerate(found.reasons) if why)
            raise ValueError(f"{found.variants[bad]} cannot be embedded: {found.reasons[bad]}")
        return found.features


class VariantOneHot(_OfVariants):
    """One-hot sequences of variants, without that of the query: a scikit-learn transformer.

    A substitution has 1 in the column of its new residue and -1 in that of the wild type. With an intercept, a ridge
    regression gives the same predictions as with the whole one-hot sequence, from which it differs by a constant.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    offset : int, default 0
        As for `modeling_msa.score_variants`.

    Examples
    --------
    >>> family = Alignment.from_sequences(["MAC"])
    >>> VariantOneHot(family).fit_transform(["A2C", "WT"]).toarray()[:, 20:23]
    array([[-1.,  1.,  0.],
           [ 0.,  0.,  0.]])
    """

    def __init__(self, alignment: Alignment, *, offset: int = 0) -> None:
        self.alignment = alignment
        self.offset = offset

    def transform(self, X: Any) -> Any:
        """Encode variants: a sparse matrix ``(N, 20 L)`` of the query's L residues with a column, float64."""
        from scipy import sparse

        variants = self._variants(X)
        parsed, _ = fit_variants(self.alignment, variants, self.offset)
        covered = np.cumsum(self.alignment.residue_columns >= 0) - 1  # from 0, along the residues with a column
        entries = [
            (row, 20 * covered[each.number - 1] + AMINO_ACIDS.index(letter), value)
            for row, some in enumerate(parsed)
            for each in some
            if each.mutant != each.wild_type
            for letter, value in ((each.wild_type, -1.0), (each.mutant, 1.0))
        ]
        rows, columns, values = zip(*entries, strict=True) if entries else ((), (), ())
        shape = (len(variants), 20 * int(covered[-1] + 1))
        return sparse.csr_array((values, (rows, columns)), shape=shape, dtype=np.float64)


class ZeroShotScore(_OfVariants):
    """Scores by a model that was trained on no measured variant: a scikit-learn transformer over `score_variants`.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    model : MsaForMaskedLM
    strategy, mode, rows, select, seed, coverage, identity, offset, batch_size
        As for `modeling_msa.score_variants`.
    """

    def __init__(
        self,
        alignment: Alignment,
        model: MsaPreTrainedModel,
        *,
        strategy: Strategy = "masked-marginals",
        mode: Mode = "fast",
        rows: int | None = None,
        select: str = "diverse",
        seed: int | Sequence[int] = 0,
        coverage: float | None = None,
        identity: float | None = None,
        offset: int = 0,
        batch_size: int | None = None,
    ) -> None:
        self.alignment = alignment
        self.model = model
        self.strategy = strategy
        self.mode = mode
        self.rows = rows
        self.select = select
        self.seed = seed
        self.coverage = coverage
        self.identity = identity
        self.offset = offset
        self.batch_size = batch_size

    def transform(self, X: Any) -> np.ndarray:
        """Score variants: ``(N, 1)`` float64."""
        options = {name: value for name, value in vars(self).items() if name not in ("alignment", "model")}
        return score_variants(self.alignment, self._variants(X), self.model, **options).score[:, None]


def fitness_pipeline(
    alignment: Alignment,
    model: MsaPreTrainedModel | None = None,
    *,
    features: Sequence[str] = ("embedding", "zero-shot"),
    kernel: str = "ridge",
    which: Which = "both",
    layers: Sequence[int] = (-1,),
    mode: Mode = "fast",
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    batch_size: int | None = None,
) -> Any:
    """Make a scikit-learn pipeline from variants to fitness.

    Its first step, ``features``, has no state, so that a cross-validation may compute it once:
    ``matrix = pipeline[0].fit_transform(variants)``, then ``cross_val_predict(pipeline[1], matrix, values)``.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    model : MsaForMaskedLM, or another class without zero-shot scores; None for one-hot features alone
    features : sequence of {"one-hot", "embedding", "zero-shot"}, default ("embedding", "zero-shot")
        What the regression sees. Zero-shot scores are a covariate that is not penalised; ("one-hot", "zero-shot") is
        the augmented model of Hsu et al. (Nature Biotechnology 2022).
    kernel : {"ridge", "gp"}, default "ridge"
        Ridge regression, or a Gaussian process with an RBF kernel; see `FitnessRegressor`.
    which, layers, mode, rows, select, seed, coverage, identity, offset, batch_size
        As for `modeling_msa.embed_variants`; zero-shot scores are masked marginals in the same mode, with the same
        rows. `seed` is also that of the inner folds.

    Returns
    -------
    sklearn.pipeline.Pipeline
        With the steps ``features`` and ``fitness``, a `FitnessRegressor`.

    Raises
    ------
    ImportError, ValueError
        Without scikit-learn; for features or a kernel that do not exist, or a model that they lack.

    Examples
    --------
    >>> family = Alignment.from_sequences(["MKVLAWY"])
    >>> pipeline = fitness_pipeline(family, features=["one-hot"])
    >>> pipeline.fit(["K2R", "K2E", "V3I"], [1.0, -1.0, 0.5]).predict(["K2R:V3I"]).shape
    (1,)
    """
    ordered = [each for each in FEATURES if each in features]
    if not ordered or len(ordered) < len(features):
        raise ValueError(f"features must be some of {', '.join(FEATURES)}, each once, but are {', '.join(features)}.")
    if model is None and ordered != ["one-hot"]:
        raise ValueError(f"{' and '.join(each for each in ordered if each != 'one-hot')} require a model.")
    seen: dict[str, Any] = {"rows": rows, "select": select, "seed": seed, "coverage": coverage, "identity": identity}
    shared: dict[str, Any] = seen | {"mode": mode, "offset": offset, "batch_size": batch_size}
    one_hot = VariantOneHot(alignment, offset=offset)
    blocks: dict[str, Any] = {"one-hot": one_hot}
    if model is not None:
        blocks["embedding"] = MsaVariantEmbedder(alignment, model, which=which, layers=layers, **shared)
        blocks["zero-shot"] = ZeroShotScore(alignment, model, **shared)
    from sklearn.pipeline import FeatureUnion, Pipeline

    plain = 20 * int((alignment.residue_columns >= 0).sum()) if "one-hot" in ordered else 0
    regressor = FitnessRegressor(kernel, plain=plain, covariates=int("zero-shot" in ordered), seed=seed)
    union = FeatureUnion([(name, blocks[name]) for name in ordered])
    return Pipeline([("features", union), ("fitness", regressor)])
