"""The logistic model from column attention to Hamming distance: fit, apply, save and load it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._files import whole_file
from ..alignments.alignment import Alignment

if TYPE_CHECKING:  # so that weights are read without torch
    from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel

WEIGHTS_NAME = "distances.json"  # in a model's folder or repository


@dataclass(frozen=True, eq=False)
class DistanceModel:
    """A logistic model from column attention to Hamming distance.

    Attributes
    ----------
    model : str
        Name of the model whose attention it weighs.
    weights : ndarray, shape=(layers, H), dtype=float64
        Weight of each head's predictor, see `modeling_msa.tasks.distances.column_attention_features`.
    intercept : float
    fingerprint : ndarray, shape=(layers,), dtype=float64
        Norm of each layer's query and key weights in column attention: tells whether another model is nearly the same.
    families : tuple of (str, int, int)
        Families that it was fitted on: the query's name, rows, columns.
    pairs : int
        Pairs of rows among these.
    r2 : float
        Mean R2 over these families, on the pairs of the fit: how well it fits, not how well it predicts.
    """

    model: str
    weights: np.ndarray
    intercept: float
    fingerprint: np.ndarray
    families: tuple[tuple[str, int, int], ...]
    pairs: int
    r2: float

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Distance, 0 to 1, of pairs with these predictors, ``(pairs, layers * H)``."""
        return _probability(features, self.weights.ravel(), self.intercept)

    def check(self, model: MsaPreTrainedModel) -> None:
        """Raise ValueError if it was fitted for another model than `model`."""
        layers, heads = model.config.num_hidden_layers, model.config.num_attention_heads
        if self.weights.shape != (layers, heads):
            raise ValueError(
                f"The distance weights are for {self.weights.shape[0]} layers of {self.weights.shape[1]} heads "
                f"({self.model}), but the model has {layers} of {heads}: use that model, or fit new weights "
                "(fit_distances)."
            )
        found = _fingerprint(model)
        if not np.isnan(found).any() and not np.allclose(found, self.fingerprint, rtol=1e-3):
            raise ValueError(
                f"The distance weights were fitted for another model of the same size ({self.model}), or an earlier "
                "state of it: fit new weights (fit_distances)."
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write it as JSON, whole or not at all."""
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, default=np.ndarray.tolist) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> DistanceModel:
        """Read what `save` wrote; ValueError if it is something else, OSError if the file does not exist."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(
                model=str(fields["model"]),
                weights=np.array(fields["weights"], dtype=np.float64, ndmin=2),
                intercept=float(fields["intercept"]),
                fingerprint=np.array(fields["fingerprint"], dtype=np.float64),
                families=tuple((str(name), int(rows), int(columns)) for name, rows, columns in fields["families"]),
                pairs=int(fields["pairs"]),
                r2=float(fields["r2"]),
            )
        except FileNotFoundError:
            raise FileNotFoundError(f"{path} does not exist; create it with msa fit-distances.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not distance weights written by msa fit-distances ({error!r}).") from None


def fit_distance_model(
    model: MsaPreTrainedModel,
    name: str | None,
    families: list[Alignment],
    predictors: list[np.ndarray],
    distances: list[np.ndarray],
) -> DistanceModel:
    """Fit a binomial GLM without a penalty on the pairs of rows of all families.

    Each family has an array of `predictors`, ``(pairs, layers * H)`` float64, and one of Hamming `distances`,
    ``(pairs,)``. `name` is the model's; default: the last part of the folder or Hub id it was loaded from. ValueError
    if all distances are 0, or all are 1; ImportError without scikit-learn.
    """
    require_sklearn()
    from sklearn.linear_model import LogisticRegression

    inputs, known = np.concatenate(predictors), np.concatenate(distances)
    if not 0 < known.mean() < 1:
        raise ValueError(
            "All rows are the same, or differ in every column: there is nothing to fit distances on; pass other rows."
        )
    scale = inputs.std(axis=0)
    scale[scale == 0] = 1
    # the likelihood of a fraction d is that of a one with weight d and a zero with weight 1 - d
    regression = LogisticRegression(C=math.inf, solver="newton-cholesky", tol=1e-9, max_iter=300)
    regression.fit(
        np.concatenate([inputs / scale] * 2),
        np.repeat([1, 0], len(known)),
        sample_weight=np.concatenate([known, 1 - known]),
    )
    weights, intercept = regression.coef_[0] / scale, float(regression.intercept_[0])
    fits = [
        agreement(each, _probability(values, weights, intercept))[0]
        for values, each in zip(predictors, distances, strict=True)
    ]
    return DistanceModel(
        model=name or Path(str(model.name_or_path)).name or "unnamed",
        weights=weights.reshape(model.config.num_hidden_layers, model.config.num_attention_heads),
        intercept=intercept,
        fingerprint=_fingerprint(model),
        families=tuple((family.names[0], family.depth, family.length) for family in families),
        pairs=len(known),
        r2=float(np.mean([value for value in fits if not math.isnan(value)] or [math.nan])),
    )


def require_sklearn() -> None:
    """Raise ImportError if scikit-learn is missing."""
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError as error:
        raise ImportError("Fitting distances requires scikit-learn: pip install 'modeling-msa[train]'.") from error


def agreement(known: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """R2 and Pearson correlation; NaN if either does not vary."""
    spread = known - known.mean()
    if not spread.any() or predicted.std() == 0:
        return math.nan, math.nan
    r2 = 1 - np.square(known - predicted).sum() / np.square(spread).sum()
    return float(r2), float(np.corrcoef(known, predicted)[0, 1])


def _probability(predictors: np.ndarray, weights: np.ndarray, intercept: float) -> np.ndarray:
    return (1 + np.tanh((predictors @ weights + intercept) / 2)) / 2  # the logistic function, without overflow


def _fingerprint(model: MsaPreTrainedModel) -> np.ndarray:
    """Norm of query and key weights of each layer's column attention; NaN where they cannot be read as numbers."""
    backbone: MsaModel = model.base_model  # type: ignore[assignment]
    norms = []
    for layer in backbone.layers:
        parts = [getattr(layer.column_attention, name).weight.detach() for name in ("q_proj", "k_proj")]
        # torchao's int8 tensors pass for floating point
        plain = all(part.is_floating_point() and not hasattr(part, "qdata") for part in parts)
        readable = plain and all(part.device.type != "meta" for part in parts)
        norms.append(math.sqrt(sum(float(part.float().square().sum()) for part in parts)) if readable else math.nan)
    return np.array(norms)
