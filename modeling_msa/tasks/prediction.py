"""Apply a trained head: classes of residues, classes or values of alignments and of variants, contacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from ..alignments.alignment import Alignment
from ..alignments.chains import Chains
from ..alignments.sampling import select_rows
from ..alignments.variants import Substitution, mutate
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaPreTrainedModel
from ..pipeline_msa_transformer import check_head, class_scores, classes_of, label_names, problem_of, unwrapped
from ..tokenization_msa_transformer import MsaTokenizer
from .contacts import ContactMap, predict_contacts
from .inputs import check_whole, encode, row_limit
from .scoring import fit_variants

CONTACTS, RESIDUES, ALIGNMENT = HEADS = (
    "MsaForContactPrediction",
    "MsaForTokenClassification",
    "MsaForSequenceClassification",
)
_TOKENS_PER_PASS = 2**14  # of several variants in one pass
_CLASSES = "single_label_classification"
_KINDS = {_CLASSES: "classes", "multi_label_classification": "labels", "regression": "values"}


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a trained head predicts for one family.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its residues, insertions included.
    of : {"residues", "alignment", "variants"}
        What the rows of `scores` are of: the L residues, the alignment as a whole (one row), or N variants.
    kind : {"classes", "labels", "values"}
        Whether `scores` are probabilities of classes, which add up to 1, probabilities of labels, of which several may
        apply, or values.
    labels : tuple of str
        Names of the K classes, labels or values, from the model's config.
    scores : ndarray, shape=(L, K), (1, K) or (N, K), dtype=float32
        NaN for a variant that does not fit the query.
    residues : ndarray, shape=(L,), dtype=int64
        Numbers, from 1, of the query's residues that have a column in the alignment. Insertions have none.
    variants, reasons : tuple of str
        The N variants as they were given, and why one has no scores (empty if it has); both empty without variants.
    depth : int
        Number of alignment rows given to the model.
    chains : tuple of Chain
        Chains of a complex, whose residues are numbered one after the other in `residues`; empty for one protein.
    """

    name: str
    query: str
    of: Literal["residues", "alignment", "variants"]
    kind: Literal["classes", "labels", "values"]
    labels: tuple[str, ...]
    scores: np.ndarray
    residues: np.ndarray
    variants: tuple[str, ...]
    reasons: tuple[str, ...]
    depth: int
    chains: Chains = ()

    @property
    def best(self) -> tuple[str, ...]:
        """Name of the most probable class in each row of `scores`; empty where there are no scores."""
        if self.kind != "classes":
            raise ValueError(f"The model predicts {self.kind}, not one of several classes: use scores.")
        rows = zip(self.scores.argmax(axis=1).tolist(), np.isnan(self.scores[:, 0]).tolist(), strict=True)
        return tuple("" if lacks else self.labels[k] for k, lacks in rows)


def head_of(model: MsaPreTrainedModel) -> str:
    """Return which of `HEADS` a model has; ValueError if it has none."""
    names = classes_of(model)
    if found := [head for head in HEADS if head in names]:
        return found[0]
    raise ValueError(without_head(names[0]))


def without_head(model: str) -> str:
    """Say that a model has no trained head, which heads there are, and what to do instead."""
    return (
        f"{model} has no trained head to predict with. Heads are trained on classes of residues, classes or values of "
        "alignments, values of variants, and contacts (msa train secondary-structure, lora, fitness, contacts). A "
        "model without one can be used with msa contacts, msa score and msa embed."
    )


def check_variants_of(head: str) -> None:
    """Raise ValueError if a head, one of `HEADS`, does not give one answer for each variant."""
    if head != ALIGNMENT:
        what = "contacts" if head == CONTACTS else "classes of residues"
        raise ValueError(
            f"Variants require a head with one answer for each alignment, but this one predicts {what}: leave the "
            "variants out, or write each one as the query of an alignment of its own."
        )


def outputs_of(model: MsaPreTrainedModel) -> tuple[str, tuple[str, ...]]:
    """Return what a classifier gives, a `Prediction`'s `kind`, and the names of its classes or values."""
    problem = problem_of(model.config) if head_of(model) == ALIGNMENT else _CLASSES
    return _KINDS[problem], label_names(model.config)


def predict(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    variants: Sequence[str] | None = None,
    *,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    skip_mismatches: bool = False,
    source: str = "variants",
    lines: Sequence[int] | None = None,
) -> Prediction | ContactMap:
    """Apply a model's trained head to an alignment, or to variants of its query.

    The model sees what it sees in training: all columns, also those in which the query has a gap, and a variant in the
    place of the query. (Contacts are those of `modeling_msa.predict_contacts`, which leaves such columns out.) All
    variants see the same rows, so that their values compare; the Trainer's evaluation chooses rows for each anew, and
    agrees if no rows are left out or the first are taken.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    model : MsaForTokenClassification, MsaForSequenceClassification or MsaForContactPrediction
        With a trained head. Its dropout is turned off meanwhile.
    variants : sequence of str, optional
        Such as ``A42V`` or ``A42V:G7D``; they require an MsaForSequenceClassification.
    rows, select, seed, coverage, identity
        Which rows are given to the model; see `modeling_msa.select_rows`. Without `rows`, all that it has chosen, of
        other alignments at most 128.
    offset, skip_mismatches, source, lines
        How variants are numbered, and where they come from; see `modeling_msa.score_variants`.

    Returns
    -------
    Prediction or ContactMap
        The latter of an MsaForContactPrediction.

    Raises
    ------
    ValueError
        Before the model runs: if it has no trained head or another one than `variants` require, variants do not fit
        the query, or the alignment is too large for the model.

    Examples
    --------
    >>> from modeling_msa import MsaConfig, MsaForTokenClassification
    >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    >>> model = MsaForTokenClassification(MsaConfig(id2label={0: "H", 1: "E", 2: "C"}, **sizes))  # yours is trained
    >>> result = predict(Alignment.from_sequences(["mkVL-AWY", "VIGAWY", "-LGAFF"]), model)
    >>> result.scores.shape, result.labels, result.residues.tolist()
    ((5, 3), ('H', 'E', 'C'), [3, 4, 5, 6, 7])
    """
    head = head_of(model)
    if variants is not None:
        check_variants_of(head)
    chosen = {"select": select, "seed": seed, "coverage": coverage, "identity": identity}
    if head == CONTACTS:
        return predict_contacts(alignment, model, rows, **chosen)  # type: ignore[arg-type]
    check_head(model, head)
    check_whole(model)
    kind, labels = outputs_of(model)
    parsed: list[tuple[Substitution, ...]] = [()]
    reasons: tuple[str, ...] = ("",)
    if variants is not None:
        if len(variants) == 0:
            raise ValueError("variants is empty: pass at least one, or leave it out for the query itself.")
        parsed, reasons = fit_variants(alignment, variants, offset, skip_mismatches, source, lines)
    rows = row_limit(alignment, rows, MsaTokenizer.for_config(model.config).model_max_depth)
    seen = select_rows(alignment, rows, select, seed, coverage=coverage, identity=identity)
    residues = seen.column_residues
    logits = _logits(seen, model, [each for each, reason in zip(parsed, reasons, strict=True) if not reason])
    problem = problem_of(model.config) if head == ALIGNMENT else _CLASSES
    found = class_scores(logits, problem).cpu().numpy()
    if head == RESIDUES:
        scores = found[0, 1:][residues > 0]  # without <cls>
    else:
        scores = np.full((len(parsed), found.shape[-1]), np.nan, dtype=np.float32)
        scores[[not reason for reason in reasons]] = found
    return Prediction(
        name=seen.names[0],
        query=seen.query,
        of="residues" if head == RESIDUES else "alignment" if variants is None else "variants",
        kind=kind,  # type: ignore[arg-type]
        labels=labels,
        scores=scores,
        residues=residues[residues > 0],
        variants=() if variants is None else tuple(variants),
        reasons=() if variants is None else reasons,
        depth=seen.depth,
        chains=seen.chains,
    )


@torch.inference_mode()
def _logits(seen: Alignment, model: MsaPreTrainedModel, variants: Sequence[tuple[Substitution, ...]]) -> torch.Tensor:
    """Logits of an alignment with each variant as its query, equal ones run once: ``(N, K)`` or ``(N, C, K)``."""
    inputs = encode(seen, model)
    place = {each: k for k, each in enumerate(dict.fromkeys(variants))}
    rows = [mutate(seen.take([0]), each).sequences[0] for each in place]
    # verbose=False: these are rows of as many alignments
    queries = MsaTokenizer()(rows, return_tensors="pt", verbose=False)["input_ids"][0]  # (N, C)
    network = evaluation_copy(unwrapped(model))
    size = max(1, _TOKENS_PER_PASS // inputs["input_ids"].numel())
    logits = []
    starts = range(0, len(place), size)
    for start in tqdm(starts, "predicting", unit="batch", disable=None if len(starts) > 1 else True, leave=False):
        part = queries[start : start + size].to(model.device)
        together = {name: each.repeat(len(part), 1, 1) for name, each in inputs.items()}
        together["input_ids"][:, 0] = part
        logits.append(network(**together).logits)
    return torch.cat(logits)[[place[each] for each in variants]]
