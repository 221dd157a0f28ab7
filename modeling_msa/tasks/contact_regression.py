"""Fit a model's contact regression on alignments of known contacts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from .._words import counted
from ..alignments.alignment import Alignment
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .contact_precision import check_contact_array, precision
from .contacts import MIN_SEPARATION


@dataclass(frozen=True)
class ContactFit:
    """What `fit_contact_regression` fitted the regression on, and how well.

    Attributes
    ----------
    examples, pairs, positives : int
        Alignments, pairs of known state and contacts among these.
    weights, nonzero : int
        Row maps (layers times heads), and those whose weight the L1 penalty left above or below zero.
    precision : float
        Mean P@L on the examples themselves.
    """

    examples: int
    pairs: int
    positives: int
    weights: int
    nonzero: int
    precision: float


@dataclass(frozen=True, eq=False)
class _Example:
    """One MSA, its known contacts by column, and the pairs that count."""

    tokens: torch.Tensor  # (1, R, C) int64
    residues: np.ndarray  # (L,) residue numbers (columns, for tokens)
    contacts: np.ndarray  # (L, L) int8: 1, 0, -100
    i: np.ndarray  # (pairs,) residue columns from 0, i < j
    j: np.ndarray

    @property
    def touch(self) -> np.ndarray:  # (pairs,) bool
        return self.contacts[self.i, self.j] == 1

    def precision(self, scores: np.ndarray, min_separation: int) -> float:
        """P@L of scores of its pairs, ``(pairs,)``; 0 without pairs."""
        values = np.zeros(self.contacts.shape)
        values[self.i, self.j] = scores
        found = precision(values, self.contacts, min_separation=min_separation, residues=self.residues)
        return float(np.nan_to_num(found))


def fit_contact_regression(
    model: MsaPreTrainedModel,
    examples: Iterable[tuple[Alignment | np.ndarray | torch.Tensor, np.ndarray]],
    *,
    regularization: float = 0.15,
    min_separation: int = MIN_SEPARATION,
    seed: int = 0,
) -> ContactFit:
    """Fit the model's contact regression on alignments of known contacts (paper, section 4.1).

    A logistic regression with an L1 penalty, by scikit-learn's liblinear solver, on the row maps of all layers and
    heads, symmetrised and APC-corrected (`contact_features`). Twenty families are enough (Rao et al., ICLR 2021); the
    settings are those of fair-esm's authors (facebookresearch/esm, issue 249). The rest of the model stays as it is.
    At the end all features are in memory: pairs times maps times 8 bytes, and twice that in the solver.

    Parameters
    ----------
    model : MsaModel, or a class with a head
        Its ``contact_head.regression`` is overwritten at the end, if everything went well.
    examples : iterable of (alignment, contacts)
        The alignment is an `Alignment` (all of its rows are given to the model: see `modeling_msa.select_rows`;
        columns where the query has a gap are left out, as in `predict_contacts`), or tokens ``(R, C)`` that begin
        with ``<cls>``. Contacts are a symmetric array of 1, 0 and -100, over the query's N residues, ``(N, N)``, or
        over the columns, ``(L, L)``.
    regularization : float, default 0.15
        scikit-learn's C, the inverse of the penalty's strength.
    min_separation : int, default 6
        Smallest difference of residue numbers (of columns, for tokens).
    seed : int, default 0
        Random seed of the solver, which visits the features in random order.

    Raises
    ------
    ValueError, ImportError
        Before the model runs: if there are no examples, contacts have another size or other values, the pairs have no
        contact or only contacts, or scikit-learn is missing. Afterwards: if no map is of use; then the model is left
        as it was.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "Fitting a contact regression requires scikit-learn: pip install 'modeling-msa[train]'."
        ) from error
    known = [
        _labelled_example(model, *example, min_separation, f"example {number} (from 0)")
        for number, example in enumerate(examples)
    ]
    touch = np.concatenate([example.touch for example in known]) if known else np.zeros(0, dtype=bool)
    if not touch.any() or touch.all():
        raise ValueError(
            f"{counted(len(known), 'example')} with {counted(touch.sum(), 'contact')} among {len(touch)} pairs of "
            f"known state at least {min_separation} residues apart; pass examples with both contacts and other pairs."
        )
    bar = tqdm(known, desc="contact regression", unit="MSA", disable=None, leave=False)
    features = np.concatenate([contact_features(model, example.tokens, example.i, example.j) for example in bar])
    # the seed is of the order in which coordinates are visited; 100 iterations, the default, are not always enough
    classifier = LogisticRegression(
        C=regularization, l1_ratio=1, solver="liblinear", max_iter=1000, random_state=seed
    ).fit(features, touch)
    nonzero = int(np.count_nonzero(classifier.coef_))
    if nonzero == 0:
        raise ValueError(
            f"No row map tells contacts from other pairs at C = {regularization}: train the model first, pass more "
            "examples, or raise C (regularization)."
        )
    backbone: MsaModel = model.base_model  # type: ignore[assignment]
    regression = backbone.contact_head.regression
    with torch.no_grad():
        regression.weight.copy_(torch.from_numpy(classifier.coef_))
        regression.bias.copy_(torch.from_numpy(classifier.intercept_))
    scores = np.split(classifier.decision_function(features), np.cumsum([len(each.i) for each in known[:-1]]))
    found = [example.precision(values, min_separation) for example, values in zip(known, scores, strict=True)]
    return ContactFit(len(known), len(touch), int(touch.sum()), classifier.coef_.size, nonzero, float(np.mean(found)))


@torch.no_grad()
def contact_features(model: MsaPreTrainedModel, tokens: torch.Tensor, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Row maps of all layers and heads, symmetrised and APC-corrected: the inputs of the contact regression.

    Of one MSA without padding, ``(1, R, C)``, and pairs of residue columns i and j, ``(pairs,)``, from 0 (``<cls>``
    does not count). The model's dropout is turned off meanwhile. Returns ``(pairs, layers * heads)`` float64, layer by
    layer and head by head.
    """
    backbone: MsaModel = evaluation_copy(model.base_model)  # type: ignore[assignment]
    features = []

    def collect(module: torch.nn.Module, inputs: tuple) -> None:
        maps = inputs[0][0, :, 1:, 1:].cpu().double()  # (H, L, L) without <cls>
        maps = maps + maps.transpose(1, 2)
        sums = maps.sum(-1)
        # the total is zero if <cls> gets all attention
        corrected = maps - sums[:, :, None] * sums[:, None] / sums.sum(-1).clamp(min=1e-12)[:, None, None]
        features.append(corrected[:, i, j].T.numpy())  # (pairs, H)

    # the head sees one layer's maps after the other, and its own weights do not matter here
    backbone.contact_head.register_forward_pre_hook(collect)
    backbone.contact_logits(tokens.to(backbone.device))
    return np.concatenate(features, axis=1)


def _labelled_example(
    model: MsaPreTrainedModel,
    msa: Alignment | np.ndarray | torch.Tensor,
    contacts: np.ndarray,
    min_separation: int,
    where: str,
) -> _Example:
    tokenizer = MsaTokenizer.for_config(model.config)
    if isinstance(msa, Alignment):
        where = msa.source or f"{where}, {msa.names[0]}"
        columns = np.flatnonzero(msa.column_residues)  # those with a residue of the query
        residues = msa.column_residues[columns]
        index = residues - 1 if np.shape(contacts)[:1] == (len(msa.query),) else columns
        sizes = {len(msa.query): "the query's residues", msa.length: "its columns"}
        tokens = tokenizer(msa.drop_query_gaps(), verbose=False, return_tensors="pt")["input_ids"]
    else:
        tokens = torch.as_tensor(msa)
        tokens = tokens[None] if tokens.ndim == 2 else tokens
        begins = tokens.ndim == 3 and len(tokens) == 1 and (tokens[:, :, 0] == tokenizer.cls_token_id).all()
        if not begins or (tokens == tokenizer.pad_token_id).any():
            raise ValueError(
                f"{where}: tokens must be one MSA, (R, C), that begins with <cls> and has no padding, but have the "
                f"shape {tuple(tokens.shape)}; or pass an Alignment."
            )
        residues = index = np.arange(tokens.shape[2] - 1)
        sizes = {len(index): "columns without <cls>"}
    rows, length = tokens.shape[1:]
    if rows > tokenizer.model_max_depth or length > tokenizer.model_max_length:
        raise ValueError(
            f"{where}: {rows} rows and {length} columns with <cls>, but the model reads at most "
            f"{tokenizer.model_max_depth} and {tokenizer.model_max_length}: choose fewer rows "
            "(modeling_msa.select_rows) or crop the columns."
        )
    contacts = check_contact_array(contacts, sizes, where)[np.ix_(index, index)]
    i, j = np.triu_indices(len(index), 1)
    counted = (residues[j] - residues[i] >= min_separation) & (contacts[i, j] >= 0)
    return _Example(tokens, residues, contacts, i[counted], j[counted])
