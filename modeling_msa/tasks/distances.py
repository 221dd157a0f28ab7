"""Distances between the rows of an alignment from the model's column attention.

Lupo, Sgarbossa & Bitbol, "Protein language models trained on multiple sequence alignments learn phylogenetic
relationships", Nat. Commun. 13, 6298 (2022): each head's column attention, averaged over columns and symmetrised, is
one predictor, and a logistic model with one weight per head gives the Hamming distance of two rows, as the fraction of
columns in which they differ. Fitted on some families, it predicts others.

Two things differ from the authors' notebook:

- They fit and evaluate the upper triangle with its diagonal, every row's distance 0 to itself. These are easy to
  predict, far from all others, and most of the variance, so R2 is high whatever the other pairs are like. Here only
  pairs of different rows are used; `fit_distances` has ``diagonal=True``, and `Distances.r2_with_diagonal` is R2 as
  they count it.
- Attention of R rows is about 1 / R, so weights would hold for a single depth. Here predictors are multiplied by R,
  which changes nothing among families of the same depth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .._words import counted
from ..alignments.alignment import Alignment
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from .distance_model import DistanceModel, agreement, fit_distance_model, require_sklearn
from .inputs import windowed_inputs
from .windows import Windows

_NUMBERS_PER_BLOCK = 2**20  # of the maps of some columns, (columns, H, R, R)
_TRAIN_ROWS = 0.7  # share of a family's rows used for its own fit (the authors' notebook)


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances between the rows of an alignment, as fractions of its columns.

    Attributes
    ----------
    names : tuple of str
        R header lines, in the order of the file, query first.
    predicted : ndarray, shape=(R, R), dtype=float64
        From column attention; symmetric, zero on the diagonal.
    hamming : ndarray, shape=(R, R), dtype=float64
        Fraction of columns in which two rows differ; a gap counts as a letter.
    fitted : ndarray, shape=(R,), dtype=bool
        Rows whose distances the weights were fitted on; none if the weights come from other families.
    r2, pearson : float
        Coefficient of determination and Pearson correlation of predicted with Hamming distances, over the upper
        triangle of the rows not in `fitted`; NaN where Hamming distances do not vary.
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
        """Row indices i < j of the pairs used for `r2` and `pearson`."""
        i, j = np.triu_indices(len(self.names), 1)
        new = ~(self.fitted[i] | self.fitted[j])
        return i[new], j[new]


@torch.no_grad()
def column_attention_features(
    model: MsaPreTrainedModel, tokens: torch.Tensor, weights: np.ndarray | None = None
) -> np.ndarray:
    """Column attention of all layers and heads, averaged over columns (including ``<cls>``, as the authors do).

    It is summed while the model runs, some columns at a time: the maps of all columns are never in memory. The mean of
    ``output_column_attentions=True`` is the same, and requires C times the memory.

    Parameters
    ----------
    model : MsaModel, or a class with a head
        Its dropout is turned off meanwhile.
    tokens : torch.Tensor
        ``(1, R, C)``: one MSA without padding.
    weights : ndarray, shape=(C,), dtype=float32, optional
        Weights of the columns. Default: all the same.

    Returns
    -------
    ndarray, shape=(layers * H, R, R), dtype=float32
        Layer by layer, head by head; each row adds up to 1.

    Examples
    --------
    >>> from modeling_msa import MsaConfig, MsaModel, MsaTokenizer
    >>> model = MsaModel(MsaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64))
    >>> tokens = MsaTokenizer()(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")["input_ids"]
    >>> column_attention_features(model, tokens).shape
    (8, 3, 3)
    """
    backbone: MsaModel = evaluation_copy(model.base_model)  # type: ignore[assignment]
    heads, rows = backbone.config.num_attention_heads, tokens.shape[1]
    step = max(1, _NUMBERS_PER_BLOCK // (heads * rows * rows))
    sums: dict[int, torch.Tensor] = {}
    shares = None if weights is None else torch.from_numpy(weights).to(backbone.device)
    done = dict.fromkeys(range(len(backbone.layers)), 0)  # columns that a layer has seen

    def project(layer: int, original: Callable, *args: Any) -> list[torch.Tensor]:
        query, key, value = original(*args)  # of a block of columns, (1, R, columns, H, K)
        for q, k in zip(query[0].split(step, dim=1), key[0].split(step, dim=1), strict=True):
            q, k = (each.permute(1, 2, 0, 3) for each in (q, k))  # (columns, H, R, K)
            logits = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(2, 3))
            maps = logits.softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
            if shares is not None:
                maps *= shares[done[layer] : done[layer] + len(maps), None, None, None]
            done[layer] += len(maps)
            total = maps.sum(0)
            sums[layer] = sums[layer].add_(total) if layer in sums else total
        return [query, key, value]

    # not hooks, with which a layer would run in one piece
    for index, layer in enumerate(backbone.layers):
        attention: Any = layer.column_attention
        attention.project = functools.partial(project, index, attention.project)
    backbone(tokens.to(backbone.device))
    features = np.concatenate([sums[layer].float().cpu().numpy() for layer in sorted(sums)])
    features /= np.float32(tokens.shape[2] if weights is None else weights.sum())  # in place: it is large
    return features


def _mean_attention(model: MsaPreTrainedModel, tokens: torch.Tensor, windows: Windows) -> np.ndarray:
    """Column attention averaged over the columns of all windows, in which each residue column counts once.

    So does ``<cls>``, which every window has.
    """
    if len(windows) == 1:
        return column_attention_features(model, tokens)
    mean: Any = 0
    for shares, part in zip(windows.shares, windows.read({"input_ids": tokens}), strict=True):
        weights = np.append(np.float32(1 / len(windows)), shares)
        features = column_attention_features(model, part["input_ids"], weights)
        mean += features * (weights.sum() / np.float32(1 + windows.length))
    return mean


def hamming_distances(array: np.ndarray) -> np.ndarray:
    """Fraction of columns in which rows differ, ``(R, R)`` float64, of `Alignment.array`, ``(R, L)``.

    A gap counts as a letter.

    Examples
    --------
    >>> from modeling_msa import Alignment
    >>> hamming_distances(Alignment.from_sequences(["MKVL", "MRV-"]).array).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    return np.stack([(array != row).mean(axis=1) for row in array])


def fit_distances(
    families: Iterable[Alignment],
    model: MsaPreTrainedModel,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    *,
    name: str | None = None,
    diagonal: bool = False,
    window: int | None = None,
    overlap: int | None = None,
) -> DistanceModel:
    """Fit one logistic model, from column attention to Hamming distance, on the pairs of rows of some families.

    A binomial GLM with a logit link and no penalty, by scikit-learn (by statsmodels in the authors' notebook, on 12
    seed alignments of Pfam). As there, all pairs have the same weight, however many columns they have. All predictors
    are in memory: pairs times heads times 16 bytes, and as much again in the solver.

    Parameters
    ----------
    families : iterable of Alignment
    model : MsaModel, or a class with a head
    rows, select, seed, coverage, identity
        Which rows are given to the model; see `modeling_msa.prepare_alignment`. Without `rows`, all
        that `modeling_msa.select_rows` has chosen, of other alignments at most 128.
    name : str, optional
        The model's name, kept in the result; default: the last part of the folder or Hub id it was loaded from.
    diagonal : bool, default False
        Fit each row's distance 0 to itself too, as the authors do.
    window, overlap
        As for `predict_distances`.

    Raises
    ------
    ValueError, ImportError
        Before the model runs, if there are not more pairs than weights, an alignment has too many rows for the model,
        windows are impossible, or scikit-learn is missing.
    """
    require_sklearn()
    chosen = (rows, select, seed, coverage, identity, window, overlap)
    seen = [windowed_inputs(family, model, *chosen) for family in families]
    _check_pairs([family.depth for family, _, _ in seen], model, f"The rows of {counted(len(seen), 'family')}")
    pairs, distances = [], []
    for family, inputs, windows in tqdm(seen, desc="distance weights", unit="MSA", disable=None, leave=False):
        i, j = np.triu_indices(family.depth, 0 if diagonal else 1)
        pairs.append(_predictors(_mean_attention(model, inputs["input_ids"], windows), i, j))
        distances.append(hamming_distances(family.array)[i, j])
    return fit_distance_model(model, name, [family for family, _, _ in seen], pairs, distances)


def predict_distances(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    weights: DistanceModel | None = None,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    *,
    window: int | None = None,
    overlap: int | None = None,
) -> Distances:
    """Predict the distances between an alignment's rows from column attention.

    An alignment with more columns than a window is read in several that overlap
    (`modeling_msa.tasks.windows.Windows`). The attention of a column that is in more than one is averaged, so that
    each column counts once.

    Parameters
    ----------
    alignment : Alignment
        Query first. Columns where the query has a gap are left out.
    model : MsaModel, or a class with a head
    weights : DistanceModel, optional
        Fitted on other families, for this model. Default: they are fitted on 70% of this alignment's own rows, drawn
        with `seed`, and evaluated on the pairs of the other rows (the paper's first experiment).
    rows, select, seed, coverage, identity
        Which rows are given to the model; see `modeling_msa.prepare_alignment`. Without `rows`, all
        that `modeling_msa.select_rows` has chosen, of other alignments at most 128.
    window, overlap
        See `modeling_msa.predict_contacts`. Default: windows only if the query is longer than the model reads.

    Returns
    -------
    Distances
        Of the rows given to the model, in the order of the file.

    Raises
    ------
    ValueError, ImportError
        Before the model runs, if there are fewer than 3 rows, too few for a fit, windows are impossible, or the
        weights are of another model; without weights and scikit-learn.

    Examples
    --------
    >>> from modeling_msa import bundled_family, load_model, read_alignment
    >>> family = read_alignment(bundled_family())
    >>> distances = predict_distances(family, load_model("msa-tiny"), rows=32)
    >>> distances.predicted.shape, int(distances.fitted.sum()), distances.origin
    ((32, 32), 22, "22 of the family's own 32 rows")
    """
    chosen = (rows, select, seed, coverage, identity)
    seen, inputs, windows = windowed_inputs(alignment, model, *chosen, window, overlap)
    fitted = np.zeros(seen.depth, dtype=bool)
    where = seen.source or seen.names[0]
    if weights is None:
        require_sklearn()
        count = int(_TRAIN_ROWS * seen.depth)
        fitted[np.random.default_rng(seed).choice(seen.depth, count, replace=False)] = True
        _check_pairs([count], model, f"{where}: {count} of {counted(seen.depth, 'row')} are used for the fit; they")
    else:
        weights.check(model)
    if (~fitted).sum() < 3:
        raise ValueError(f"{where}: {counted(seen.depth, 'row')}, too few to evaluate the distances: add rows.")
    hamming = hamming_distances(seen.array)
    i, j = np.triu_indices(seen.depth)
    predictors = _predictors(_mean_attention(model, inputs["input_ids"], windows), i, j)
    if weights is None:
        own = fitted[i] & fitted[j] & (i < j)
        weights = fit_distance_model(model, None, [seen], [predictors[own]], [hamming[i, j][own]])
        origin = f"{count} of the family's own {seen.depth} rows"
    else:
        origin = counted(len(weights.families), "family")
        if (seen.names[0], seen.length) in {(name, columns) for name, _, columns in weights.families}:
            origin += ", this one among them"
    values = weights(predictors)
    predicted = np.zeros_like(hamming)
    predicted[i, j] = predicted[j, i] = np.where(i == j, 0, values)
    new = ~(fitted[i] | fitted[j])
    r2, pearson = agreement(hamming[i, j][new & (i < j)], values[new & (i < j)])
    with_diagonal = agreement(hamming[i, j][new], values[new])[0]
    return Distances(seen.names, predicted, hamming, fitted, r2, pearson, with_diagonal, origin)


def _predictors(attention: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Mean column attention ``(F, R, R)``, symmetrised and in units of 1 / R, of pairs: ``(pairs, F)`` float64."""
    values = attention[:, i, j].astype(np.float64) + attention[:, j, i]
    return (values * attention.shape[-1]).T


def _check_pairs(depths: list[int], model: MsaPreTrainedModel, what: str) -> None:
    """Raise if there are not more pairs of rows than numbers to fit, a weight for each head and the intercept."""
    pairs = sum(depth * (depth - 1) // 2 for depth in depths)
    needed = model.config.num_hidden_layers * model.config.num_attention_heads + 2
    if pairs < needed:
        raise ValueError(
            f"{what} have {counted(pairs, 'pair')}, but fitting distance weights requires at least {needed} pairs of "
            "rows: add rows, or fit the weights on more families (msa fit-distances)."
        )
