"""Distances between the rows of an alignment from the model's column attention.

Lupo, Sgarbossa & Bitbol, "Protein language models trained on multiple sequence alignments learn phylogenetic
relationships", Nat. Commun. 13, 6298 (2022): each head's column attention, averaged over columns and symmetrised, is
one predictor, and a logistic model with one weight per head gives the Hamming distance of two rows, as the fraction of
columns in which they differ. Fitted on some families, it holds for others.

Two things differ from the authors' notebook, for the sake of what is predicted for two different rows:

- They fit and judge the upper triangle with its diagonal, every row's distance 0 to itself. These are easily told, far
  from all others, and most of the variance: R2 comes out high whatever the other pairs are like. Here only pairs of
  different rows are fitted and judged; `fit_distances` takes ``diagonal=True``, and `Distances.r2_with_diagonal` is
  R2 as they count it.
- Attention of R rows is about 1 / R, so that weights would hold for one depth alone. Here predictors are multiplied by
  R, which changes nothing among families of the same depth.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from .._files import whole_file
from ..alignments.alignment import Alignment
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from .inputs import evaluating, model_inputs

WEIGHTS_NAME = "distances.json"  # in a model's folder or repository
FORMATS = (".phy", ".tsv", ".npz")
_NUMBERS_PER_BLOCK = 2**20  # of the maps of some columns, (columns, H, R, R)
_TRAIN_ROWS = 0.7  # share of a family's rows that its own fit takes (the authors' notebook)


@dataclass(frozen=True, eq=False)
class DistanceModel:
    """A logistic model from column attention to Hamming distance.

    Attributes
    ----------
    model : str
        Name of the model whose attention it weighs.
    weights : ndarray, shape=(layers, H), dtype=float64
        Of each head's predictor, see `column_attention_features`.
    intercept : float
    fingerprint : ndarray, shape=(layers,), dtype=float64
        Norm of each layer's query and key weights in column attention: says whether another model is nearly the same.
    families : tuple of (str, int, int)
        What it was fitted on: the query's name, rows, columns.
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
                f"({self.model}), the model has {layers} of {heads}: give that model, or fit again (fit_distances)."
            )
        found = _fingerprint(model)
        if not np.isnan(found).any() and not np.allclose(found, self.fingerprint, rtol=1e-3):
            raise ValueError(
                f"The distance weights were fitted for another model of the same size ({self.model}), or an earlier "
                "state of it: fit again (fit_distances)."
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write it as JSON, whole or not at all."""
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, default=np.ndarray.tolist) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike) -> DistanceModel:
        """Read what `save` wrote; ValueError if it is something else, OSError if there is no such file."""
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
            raise FileNotFoundError(f"{path}: there is no such file; msa fit-distances makes one.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: no distance weights as `msa fit-distances` writes them ({error!r}).") from None


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances between the rows of an alignment, as fractions of its columns.

    Attributes
    ----------
    names : tuple of str
        R header lines, in the order of the file; the query is the first.
    predicted : ndarray, shape=(R, R), dtype=float64
        From column attention; symmetric, zero on the diagonal.
    hamming : ndarray, shape=(R, R), dtype=float64
        Fraction of columns in which two rows differ; a gap is a letter among others.
    fitted : ndarray, shape=(R,), dtype=bool
        Rows whose distances the weights were fitted on; none, if the weights come from other families.
    r2, pearson : float
        Coefficient of determination and Pearson correlation of predicted with Hamming distances, over the upper
        triangle of the rows that are not in `fitted`; NaN where Hamming distances do not vary.
    r2_with_diagonal : float
        R2 as the paper's authors count it: with each row's own prediction for its distance 0 to itself.
    origin : str
        What the weights were fitted on, in words.
    """

    names: tuple[str, ...]
    predicted: np.ndarray
    hamming: np.ndarray
    fitted: np.ndarray
    r2: float
    pearson: float
    r2_with_diagonal: float
    origin: str

    def judged_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Row indices i < j of the pairs that `r2` and `pearson` are of."""
        i, j = np.triu_indices(len(self.names), 1)
        new = ~(self.fitted[i] | self.fitted[j])
        return i[new], j[new]


@torch.no_grad()
def column_attention_features(model: MsaPreTrainedModel, tokens: torch.Tensor) -> np.ndarray:
    """Column attention of all layers and heads, averaged over columns (``<cls>`` among them, as the authors do).

    It is added up while the model runs, some columns at a time: all columns' maps are never in memory. The mean of
    ``output_column_attentions=True`` is the same, and takes C times the memory.

    Parameters
    ----------
    model : MsaModel, or a class with a head
        Its dropout is off for the time.
    tokens : torch.Tensor
        ``(1, R, C)``: one MSA without padding.

    Returns
    -------
    ndarray, shape=(layers * H, R, R), dtype=float32
        Layer by layer, head by head; each row adds up to 1.

    Examples
    --------
    >>> from modeling_msa import MsaConfig, MsaModel, MsaTokenizer
    >>> from modeling_msa.tasks.distances import column_attention_features
    >>> model = MsaModel(MsaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64))
    >>> tokens = MsaTokenizer()(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")["input_ids"]
    >>> column_attention_features(model, tokens).shape
    (8, 3, 3)
    """
    backbone: MsaModel = model.base_model  # type: ignore[assignment]
    heads, rows = backbone.config.num_attention_heads, tokens.shape[1]
    step = max(1, _NUMBERS_PER_BLOCK // (heads * rows * rows))
    queries: list[torch.Tensor] = []
    sums: dict[int, torch.Tensor] = {}

    def add(layer: int, key: torch.Tensor) -> None:
        query = queries.pop()  # of the same columns, (1, R, columns, D): the module projects it first
        for q, k in zip(query[0].split(step, dim=1), key[0].split(step, dim=1), strict=True):
            q, k = (each.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for each in (q, k))  # (columns, H, R, K)
            logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))
            total = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32)).sum(0)
            sums[layer] = sums[layer].add_(total) if layer in sums else total

    # the projections are modules whatever the attention's implementation is, so they are what is listened to
    hooks = []
    for index, layer in enumerate(backbone.layers):
        attention: Any = layer.column_attention
        hooks.append(attention.q_proj.register_forward_hook(lambda _, __, query: queries.append(query)))
        hooks.append(attention.k_proj.register_forward_hook(lambda _, __, key, index=index: add(index, key)))
    try:
        with evaluating(backbone):
            backbone(tokens.to(backbone.device))
    finally:
        for hook in hooks:
            hook.remove()
    features = np.concatenate([sums[layer].float().cpu().numpy() for layer in sorted(sums)])
    features /= np.float32(tokens.shape[2])  # in place: it is large
    return features


def hamming_distances(array: np.ndarray) -> np.ndarray:
    """Fraction of columns in which rows differ.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        `Alignment.array`; a gap is a letter among others.

    Returns
    -------
    ndarray, shape=(R, R), dtype=float64

    Examples
    --------
    >>> from modeling_msa import Alignment
    >>> from modeling_msa.tasks.distances import hamming_distances
    >>> hamming_distances(Alignment.from_sequences(["MKVL", "MRV-"]).array).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    return np.stack([(array != row).mean(axis=1) for row in array])


def fit_distances(
    families: Iterable[Alignment],
    model: MsaPreTrainedModel,
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    *,
    name: str | None = None,
    diagonal: bool = False,
) -> DistanceModel:
    """Fit one logistic model, from column attention to Hamming distance, on the pairs of rows of some families.

    A binomial GLM with a logit link and no penalty, by scikit-learn (by statsmodels in the authors' notebook, on 12
    seed alignments of Pfam); all pairs weigh the same, however many columns they have, as there.
    All predictors are in memory: pairs times heads times 16 bytes, and as much again in the solver.

    Parameters
    ----------
    families : iterable of Alignment
    model : MsaModel, or a class with a head
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.prepare_alignment`.
    name : str, optional
        The model's name, kept in the result; default: the last part of the folder or Hub id it was loaded from.
    diagonal : bool, default False
        Fit each row's distance 0 to itself too, as the authors do.

    Returns
    -------
    DistanceModel

    Raises
    ------
    ValueError
        Before the model runs, if pairs are not more than weights, or an alignment is not for this model.
    ImportError
        Without scikit-learn.
    """
    _check_fitting()
    seen = [model_inputs(family, model, rows, select, seed, coverage, identity) for family in families]
    _check_pairs(sum(family.depth * (family.depth - 1) // 2 for family, _ in seen), model, f"{len(seen)} families")
    pairs, distances = [], []
    for family, inputs in tqdm(seen, desc="distance weights", unit="MSA", disable=None, leave=False):
        i, j = np.triu_indices(family.depth, 0 if diagonal else 1)
        pairs.append(_predictors(column_attention_features(model, inputs["input_ids"]), i, j))
        distances.append(hamming_distances(family.array)[i, j])
    return _fit(model, name, [family for family, _ in seen], pairs, distances)


def predict_distances(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    weights: DistanceModel | None = None,
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> Distances:
    """Predict the distances between an alignment's rows from column attention.

    Parameters
    ----------
    alignment : Alignment
        Query first. Columns where the query has a gap are left out.
    model : MsaModel, or a class with a head
    weights : DistanceModel, optional
        Fitted on other families, for this model. Default: they are fitted on 70% of this alignment's own rows, drawn
        by `seed`, and judged on the pairs of the other rows (the paper's first experiment).
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.prepare_alignment`.

    Returns
    -------
    Distances
        Of the rows that the model saw, in the order of the file.

    Raises
    ------
    ValueError
        Before the model runs, if there are fewer than 3 rows, too few for a fit, or weights of another model.
    ImportError
        Without scikit-learn, if there are no weights.

    Examples
    --------
    >>> from modeling_msa import bundled_family, load_model, read_alignment
    >>> from modeling_msa.tasks.distances import predict_distances
    >>> family = read_alignment(bundled_family())
    >>> distances = predict_distances(family, load_model("msa-tiny"), rows=32)
    >>> distances.predicted.shape, int(distances.fitted.sum()), distances.origin
    ((32, 32), 22, "22 of the family's own 32 rows")
    """
    seen, inputs = model_inputs(alignment, model, rows, select, seed, coverage, identity)
    fitted = np.zeros(seen.depth, dtype=bool)
    where = seen.source or seen.names[0]
    if weights is None:
        _check_fitting()
        count = int(_TRAIN_ROWS * seen.depth)
        fitted[np.random.default_rng(seed).choice(seen.depth, count, replace=False)] = True
        _check_pairs(count * (count - 1) // 2, model, f"{where}: {count} of {seen.depth} rows, the share to fit on,")
    else:
        weights.check(model)
    if (~fitted).sum() < 3:
        raise ValueError(f"{where}: {seen.depth} rows are too few to judge distances by: give more.")
    hamming = hamming_distances(seen.array)
    i, j = np.triu_indices(seen.depth)
    predictors = _predictors(column_attention_features(model, inputs["input_ids"]), i, j)
    if weights is None:
        own = fitted[i] & fitted[j] & (i < j)
        weights = _fit(model, None, [seen], [predictors[own]], [hamming[i, j][own]])
        origin = f"{count} of the family's own {seen.depth} rows"
    else:
        origin = f"{len(weights.families)} families"
        if (seen.names[0], seen.length) in {(name, columns) for name, _, columns in weights.families}:
            origin += ", this one among them"
    values = weights(predictors)
    predicted = np.zeros_like(hamming)
    predicted[i, j] = predicted[j, i] = np.where(i == j, 0, values)
    new = ~(fitted[i] | fitted[j])
    r2, pearson = _agreement(hamming[i, j][new & (i < j)], values[new & (i < j)])
    with_diagonal = _agreement(hamming[i, j][new], values[new])[0]
    return Distances(seen.names, predicted, hamming, fitted, r2, pearson, with_diagonal, origin)


def check_distances(path: str | os.PathLike) -> None:
    """Raise ValueError, before work starts, if the ending names no format of `write_distances`."""
    if Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"{path} names no kind of distances: end it with {', '.join(FORMATS)}.")


def write_distances(
    distances: Distances, path: str | os.PathLike, names: Literal["relaxed", "strict"] = "relaxed"
) -> None:
    """Write distances, in the format that the ending names; the file appears whole or not at all.

    ``.phy`` is PHYLIP's square matrix of the predicted distances, which tree builders read. ``.tsv`` is a table of
    row pairs: numbers from 1, names, predicted and Hamming distance. ``.npz`` holds the fields of `Distances`.

    Parameters
    ----------
    distances : Distances
    path : path
    names : {"relaxed", "strict"}, default "relaxed"
        For PHYLIP: names as `tree_names` makes them, or of the 10 characters that the original programs take.

    Raises
    ------
    ValueError
        For another ending.
    """
    check_distances(path)
    suffix = Path(path).suffix.lower()
    labels = tree_names(distances.names, 10 if names == "strict" else None)
    with whole_file(path) as temporary:
        if suffix == ".npz":
            np.savez_compressed(temporary, **asdict(distances))
        elif suffix == ".phy":
            lines = [
                f"{label:<10} {' '.join(f'{value:.6f}' for value in row)}\n"
                for label, row in zip(labels, distances.predicted, strict=True)
            ]
            temporary.write_text(f"{len(lines)}\n" + "".join(lines))
        else:
            lines = [
                f"{a + 1}\t{b + 1}\t{labels[a]}\t{labels[b]}\t{distances.predicted[a, b]:.6f}\t"
                f"{distances.hamming[a, b]:.6f}\n"
                for a, b in zip(*(index.tolist() for index in np.triu_indices(len(labels), 1)), strict=True)
            ]
            temporary.write_text("i\tj\tname_i\tname_j\tpredicted\thamming\n" + "".join(lines))


def tree_names(names: Iterable[str], length: int | None = None) -> list[str]:
    """Make names that PHYLIP and Newick files can hold: first words, without signs of Newick, all different.

    Parameters
    ----------
    names : iterable of str
        Header lines.
    length : int, optional
        Most characters of a name.

    Returns
    -------
    list of str
        A name that came before gets a number at its end.

    Examples
    --------
    >>> tree_names(["FINC_RAT/1-80 rat", "a(b):c", "a(b):c", ""])
    ['FINC_RAT/1-80', 'a_b__c', 'a_b__c_2', 'row_4']
    >>> tree_names(["UniRef100_A", "UniRef100_B"], 10)
    ['UniRef100_', 'UniRef10_2']
    """
    made: dict[str, None] = {}
    for row, name in enumerate(names, start=1):
        word = re.sub(r"[^\w.|/+*#@=-]", "_", (name.split() or [f"row_{row}"])[0], flags=re.ASCII)
        label, count = word[:length], 1
        while label in made:
            count += 1
            end = f"_{count}"
            label = (word if length is None else word[: length - len(end)]) + end
        made[label] = None
    return list(made)


def _predictors(attention: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Mean column attention ``(F, R, R)``, symmetrised and in units of 1 / R, of pairs: ``(pairs, F)`` float64."""
    values = attention[:, i, j].astype(np.float64) + attention[:, j, i]
    return (values * attention.shape[-1]).T


def _probability(predictors: np.ndarray, weights: np.ndarray, intercept: float) -> np.ndarray:
    return (1 + np.tanh((predictors @ weights + intercept) / 2)) / 2  # the logistic function, without overflow


def _fit(
    model: MsaPreTrainedModel,
    name: str | None,
    families: list[Alignment],
    predictors: list[np.ndarray],
    distances: list[np.ndarray],
) -> DistanceModel:
    """Fit a binomial GLM without penalty on all families' pairs."""
    from sklearn.linear_model import LogisticRegression

    inputs, known = np.concatenate(predictors), np.concatenate(distances)
    if not 0 < known.mean() < 1:
        raise ValueError("All rows are the same, or differ in every column: there is nothing to fit distances on.")
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
        _agreement(each, _probability(values, weights, intercept))[0]
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


def _agreement(known: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """R2 and Pearson correlation; NaN if either does not vary."""
    spread = known - known.mean()
    if not spread.any() or predicted.std() == 0:
        return math.nan, math.nan
    r2 = 1 - np.square(known - predicted).sum() / np.square(spread).sum()
    return float(r2), float(np.corrcoef(known, predicted)[0, 1])


def _check_fitting() -> None:
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError as error:
        raise ImportError("Fitting distances takes scikit-learn: pip install 'modeling-msa[train]'.") from error


def _check_pairs(pairs: int, model: MsaPreTrainedModel, what: str) -> None:
    needed = model.config.num_hidden_layers * model.config.num_attention_heads + 1
    if pairs <= needed:
        raise ValueError(
            f"{what} have {pairs} pairs of rows, and {needed} numbers are to be fitted: give more rows, or weights "
            "fitted on other families (msa fit-distances)."
        )
