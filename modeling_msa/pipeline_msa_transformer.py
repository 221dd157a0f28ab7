# Copyright 2026 The modeling-msa authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Pipelines of transformers for MSAs: ``fill-mask``, ``feature-extraction``, ``text-classification``,
``token-classification`` and ``msa-contact-prediction``.

Importing this file, in the package or as code of a folder, makes ``transformers.pipeline`` use them for models of this
type; its other tasks for text are refused, because they would read each row as a text of its own.

What counts as one MSA and what as a batch follows the tokenizer: a string is an MSA of one row, a list of strings is
one MSA, a list of MSAs is a batch. (In transformers' own pipelines a list of strings is a batch of texts.)

Axes: B batch, R rows (row 0 is the query), C columns of tokens including ``<cls>``, L residues, M masks, V vocabulary.
"""

# Like transformers' own pipelines, these give the steps of their base class other parameters.
# mypy: disable-error-code="override, misc"

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline, PipelineException
from transformers.pipelines.feature_extraction import FeatureExtractionPipeline
from transformers.pipelines.fill_mask import FillMaskPipeline

from .tokenization_msa_transformer import is_batch, is_row

MODEL_TYPE = "msa_transformer"
CONTACT_TASK = "msa-contact-prediction"
# the classes that have a head, with the tasks that use it
TASKS_OF_HEADS = {
    "MsaForMaskedLM": "fill-mask",
    "MsaForSequenceClassification": "text-classification",
    "MsaForTokenClassification": "token-classification",
}


@dataclass
class _Msa:
    """A tokenized MSA. transformers' pipelines pad tensors along one axis and leave other objects as they are."""

    ids: np.ndarray  # (R, C) int64
    residues: np.ndarray  # (C - 1,) int64: the query's residue number in each column, 0 at gaps


def _as_msa(inputs: Any) -> Any:
    """Make an MSA of a single row, or of the ``"sequences"`` of a row of a `modeling_msa.load_alignments` dataset.

    transformers' own pipelines know mappings with a ``"text"``.
    """
    if isinstance(inputs, Mapping):
        if inputs.get("text_pair") is not None:
            raise ValueError("There are no pairs of alignments: pass a list of alignments.")
        inputs = inputs.get("sequences", inputs.get("text", inputs))
    return [inputs] if is_row(inputs) else inputs


class MsaPipeline(Pipeline):
    """Base class: from MSAs to padded batches, and back to each MSA's own rows and columns."""

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True
    model: Any
    tokenizer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.eval()  # transformers' pipelines leave dropout on in a model that was just trained

    def __call__(
        self, inputs: Any, num_workers: int | None = None, batch_size: int | None = None, **kwargs: Any
    ) -> Any:
        """Run on one MSA, a batch, or a dataset or generator of MSAs.

        Parameters
        ----------
        inputs : str, sequence, ndarray or Alignment; Dataset or iterator
            One MSA or a batch, as for the tokenizer: all are tokenized before the model runs. All rows of an MSA are
            used: choose them before, as `modeling_msa.select_rows` does. Each item of a dataset
            (torch's or Hugging Face's) or an iterator is one MSA, read when its turn comes. Of a mapping the
            ``"sequences"`` are used, or else the ``"text"``.
        num_workers : int, optional
            Number of processes that read and tokenize a dataset.
        batch_size : int, optional
            Number of MSAs per forward pass; results do not depend on it.
        **kwargs
            The options of the class, for this call only.

        Returns
        -------
        object, list or iterator
            One result for one MSA, a list for a batch, an iterator for a dataset or an iterator.

        Raises
        ------
        ValueError, TypeError
            If the tokenizer refuses an MSA (for instance, rows differ in length), or an MSA has more rows or columns
            than the model accepts.
        """
        kwargs = {"num_workers": num_workers, "batch_size": batch_size, **kwargs}
        if isinstance(inputs, Mapping):
            inputs = _as_msa(inputs)  # a slice of a dataset has several
        # Not super(): FillMaskPipeline unpacks a batch of one.
        if isinstance(inputs, Iterator) or hasattr(inputs, "column_names"):  # datasets.Dataset
            return Pipeline.__call__(self, (msa for msa in inputs), **kwargs)
        if isinstance(inputs, Dataset):
            return Pipeline.__call__(self, inputs, **kwargs)
        several = is_batch(inputs)
        results = Pipeline.__call__(self, self._read_all(inputs if several else [_as_msa(inputs)], kwargs), **kwargs)
        return results if several else results[0]

    def _read_all(self, msas: Sequence, kwargs: dict[str, Any]) -> list[_Msa]:
        """Tokenize all MSAs, so that errors come before the model runs."""
        own = {key: value for key, value in kwargs.items() if key not in ("num_workers", "batch_size")}
        settings = {**self._preprocess_params, **self._sanitize_parameters(**own)[0]}
        if rows := [number for number, msa in enumerate(msas) if is_row(msa)]:
            raise TypeError(f"MSA {rows[0]} of the batch is a single row: put it into a list.")
        return [self._read(msa, f"MSA {number}", **settings) for number, msa in enumerate(msas)]

    def preprocess(self, msa: Any, **settings: Any) -> dict[str, _Msa]:
        """Tokenize one MSA, unless it already is."""
        return {"msa": msa if isinstance(msa, _Msa) else self._read(msa, "The MSA", **settings)}

    def _read(self, msa: Any, name: str, tokenizer_kwargs: dict | None = None, **tokenize_kwargs: Any) -> _Msa:
        settings = {**(tokenizer_kwargs or {}), **tokenize_kwargs}
        if settings.get("truncation") and self.tokenizer.truncation_side == "left":
            raise ValueError("Truncation on the left would renumber the residues: set truncation_side='right'.")
        settings |= {"padding": False, "return_tensors": "np", "return_attention_mask": False, "verbose": False}
        try:
            msa = _as_msa(msa)
            ids = self.tokenizer([msa], **settings)["input_ids"][0]
            if ids[0, 0] != self.tokenizer.cls_token_id:
                raise ValueError("The pipelines require <cls> before each row: leave add_special_tokens on.")
            read = self._prepare(_Msa(ids, self._residues(ids, msa)))
            self._check_size(read.ids)
        except (ValueError, TypeError, PipelineException) as error:
            error.args = (str(error).replace("MSA 0", name, 1),)  # the tokenizer saw only this one
            raise
        return read

    def _prepare(self, msa: _Msa) -> _Msa:
        """Check or change the MSA for the task."""
        return msa

    def _residues(self, ids: np.ndarray, msa: Any) -> np.ndarray:
        """Residue numbers of the query by column, 1-based, 0 at gaps. A masked column counts as a residue."""
        if (known := getattr(msa, "column_residues", None)) is not None:  # an Alignment also counts insertions
            return known[: ids.shape[1] - 1]
        residues = ~np.isin(ids[0, 1:], self.tokenizer.convert_tokens_to_ids(["-", "."]))
        return np.where(residues, residues.cumsum(), 0)

    def _check_size(self, ids: np.ndarray) -> None:
        config = self.model.config
        has_table = config.row_position_embedding_size is not None
        max_rows = config.max_row_position_embeddings if has_table else len(ids)
        limits = (("rows", max_rows), ("columns with <cls>", config.max_position_embeddings))
        for size, (name, limit) in zip(ids.shape, limits, strict=True):
            if size > limit:
                raise ValueError(
                    f"MSA 0 has {size} {name}, but the model accepts at most {limit}: choose fewer, or have the "
                    "tokenizer cut it (tokenizer_kwargs={'truncation': True}; for feature-extraction truncation=True)."
                )

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        msas = model_inputs["msa"]
        together = msas if isinstance(msas, list) else [msas]
        batch = self.tokenizer.pad({"input_ids": [msa.ids for msa in together]}, return_tensors="pt", verbose=False)
        outputs = self._run(together, batch.to(self.device))
        # transformers splits lists and gives each tensor an axis of one MSA
        return {"msa": msas, "output": outputs if isinstance(msas, list) else outputs[0][None]}

    def _run(self, msas: list[_Msa], batch: Any) -> list[torch.Tensor]:
        """Run the model and return one tensor per MSA, without padding."""
        raise NotImplementedError


class MsaFillMaskPipeline(MsaPipeline, FillMaskPipeline):
    """Fill masks in MSAs: ``pipeline("fill-mask", ...)``.

    Parameters
    ----------
    model : MsaForMaskedLM
    tokenizer : MsaTokenizer
    top_k : int, default 5
        Maximum number of predictions per mask.
    targets : str or list of str, optional
        Tokens to choose from; by default the whole vocabulary. Scores stay probabilities among all tokens. A target
        that is not a token is an error (elsewhere in transformers its first piece is used).
    tokenizer_kwargs : dict, optional
        Options of the tokenizer, for instance ``{"truncation": True}``.

    Returns
    -------
    list of dict, or a list of such lists if there are several masks
        For each mask, in the order of rows, the predictions, most probable first: ``score``, the probability;
        ``token``, its id; ``token_str``; ``sequence``, the row with this prediction (its other masks stay);
        ``row`` and ``column`` of the mask, 0-based, so that ``msa[row][column]`` is what was predicted; ``residue``,
        the query's residue number in that column, 1-based, or None where the query has a gap.

    Raises
    ------
    PipelineException
        If an MSA has no mask.
    ValueError
        If a target is not a token, or the model has no masked language model head or its folder no weights for it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_head(self.model, "MsaForMaskedLM")

    def _sanitize_parameters(self, top_k: int | None = None, **kwargs: Any) -> tuple[dict, dict, dict]:
        _check_positive(top_k=top_k)
        return super()._sanitize_parameters(top_k=top_k, **kwargs)

    def get_target_ids(self, targets: str | list[str]) -> np.ndarray:
        """Look up the ids of targets; unlike elsewhere in transformers, each must be a token."""
        vocab = self.tokenizer.get_vocab()
        targets = [targets] if isinstance(targets, str) else list(targets)
        if unknown := [target for target in targets if target not in vocab]:
            alphabet = " ".join(sorted(vocab, key=vocab.__getitem__))  # tokenizers returns any order
            raise ValueError(f"targets must be tokens of the alphabet ({alphabet}), not {unknown[0]!r}.")
        if not targets:
            raise ValueError("targets is empty: pass at least one token, or leave it out.")
        return np.array([vocab[target] for target in dict.fromkeys(targets)])

    def _prepare(self, msa: _Msa) -> _Msa:
        if not (msa.ids == self.tokenizer.mask_token_id).any():
            reason = f"No mask_token ({self.tokenizer.mask_token}) found on the input (MSA 0)"
            raise PipelineException("fill-mask", self.model.base_model_prefix, reason)
        return msa

    def _run(self, msas: list[_Msa], batch: Any) -> list[torch.Tensor]:
        logits = self.model(**batch).logits
        masks = [torch.from_numpy(msa.ids == self.tokenizer.mask_token_id) for msa in msas]
        return [logits[index, : len(mask), : mask.shape[1]][mask] for index, mask in enumerate(masks)]  # (M, V)

    def postprocess(self, model_outputs: Any, top_k: int = 5, target_ids: np.ndarray | None = None) -> list:
        """Rank the tokens of each mask."""
        msa, probabilities = model_outputs["msa"], model_outputs["output"][0].float().softmax(-1)
        tokens = torch.arange(probabilities.shape[-1]) if target_ids is None else torch.from_numpy(target_ids)
        scores, order = probabilities[:, tokens].topk(min(top_k, len(tokens)))
        places = np.argwhere(msa.ids == self.tokenizer.mask_token_id).tolist()
        results = [
            self._predictions(msa, row, column, *ranked)
            for (row, column), *ranked in zip(places, scores.tolist(), tokens[order].tolist(), strict=True)
        ]
        return results[0] if len(results) == 1 else results

    def _predictions(self, msa: _Msa, row: int, column: int, scores: list[float], tokens: list[int]) -> list[dict]:
        place = {"row": row, "column": column - 1, "residue": int(msa.residues[column - 1]) or None}
        filled, predictions = msa.ids[row].copy(), []
        for score, token in zip(scores, tokens, strict=True):
            filled[column] = token
            sequence = self.tokenizer.decode(filled, skip_special_tokens=True)
            prediction = {"score": score, "token": token, "token_str": self.tokenizer.decode([token])}
            predictions.append({**prediction, "sequence": sequence, **place})
        return predictions


class MsaFeatureExtractionPipeline(MsaPipeline, FeatureExtractionPipeline):
    """Last hidden states of MSAs: ``pipeline("feature-extraction", ...)``.

    Parameters
    ----------
    model : MsaModel, or a class with a head
        The head does not run.
    tokenizer : MsaTokenizer
    return_tensors : bool, default False
        Return tensors instead of nested lists.
    truncation : bool, optional
        Cut MSAs to the size that the model accepts.
    tokenize_kwargs, tokenizer_kwargs : dict, optional
        Options of the tokenizer. The names mean the same: the first is transformers', the second that of other tasks.

    Returns
    -------
    list or torch.Tensor
        ``(1, R, C, D)``: all rows and columns of the MSA, without padding; column 0 is ``<cls>``.
    """

    def _sanitize_parameters(
        self,
        truncation: Any = None,
        tokenize_kwargs: dict | None = None,
        tokenizer_kwargs: dict | None = None,
        return_tensors: bool | None = None,
        **unknown: Any,
    ) -> tuple[dict, dict, dict]:
        if unknown:
            known = "truncation, tokenize_kwargs, tokenizer_kwargs and return_tensors"
            raise TypeError(f"feature-extraction has no option {next(iter(unknown))!r}, only {known}.")
        if tokenize_kwargs and tokenizer_kwargs:
            raise ValueError("tokenize_kwargs and tokenizer_kwargs mean the same: pass one.")
        settings = dict(tokenize_kwargs or tokenizer_kwargs or {})  # a copy: transformers writes into it
        return super()._sanitize_parameters(truncation, settings, return_tensors)

    def _run(self, msas: list[_Msa], batch: Any) -> list[torch.Tensor]:
        states = unwrapped(self.model).base_model(**batch).last_hidden_state
        return [states[index, : msa.ids.shape[0], : msa.ids.shape[1]] for index, msa in enumerate(msas)]

    def postprocess(self, model_outputs: Any, return_tensors: bool = False) -> Any:
        """Return the tensor, or nested lists."""
        return model_outputs["output"] if return_tensors else model_outputs["output"].tolist()


class MsaTextClassificationPipeline(MsaPipeline):
    """The class of each MSA, or its value or values: ``pipeline("text-classification", ...)``.

    Parameters
    ----------
    model : MsaForSequenceClassification
    tokenizer : MsaTokenizer
    top_k : int or None, default 1
        Number of classes to return, most probable first; None: all.
    tokenizer_kwargs : dict, optional
        Options of the tokenizer, for instance ``{"truncation": True}``.

    Returns
    -------
    dict, or a list of dict if `top_k` is passed or the model has several values
        ``label``, the name of the class, and ``score``, its probability. Of a model that was trained on values
        (``problem_type`` "regression", or a single label), ``label`` is the name of the value and ``score`` the value
        itself; several values are all returned, in the order of the config.

    Raises
    ------
    ValueError
        If the model has no head for it or its folder no weights for that head (when the pipeline is made), or the
        query has no residues.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_head(self.model, "MsaForSequenceClassification")

    def _sanitize_parameters(self, top_k: Any = "", tokenizer_kwargs: dict | None = None) -> tuple[dict, dict, dict]:
        before = {} if tokenizer_kwargs is None else {"tokenizer_kwargs": tokenizer_kwargs}
        if top_k == "":  # not passed; None asks for all classes, in a list
            return before, {}, {}
        _check_positive(top_k=top_k)
        return before, {}, {"top_k": top_k}

    def _prepare(self, msa: _Msa) -> _Msa:
        _check_residues(msa)
        return msa

    def _run(self, msas: list[_Msa], batch: Any) -> list[torch.Tensor]:
        return list(self.model(**batch).logits)  # (K,) each

    def postprocess(self, model_outputs: Any, top_k: Any = "") -> Any:
        """Name the classes and rank them, or name the values."""
        config = self.model.config
        problem = problem_of(config)
        scores = class_scores(model_outputs["output"][0], problem)
        order = torch.arange(len(scores))
        if problem != "regression":
            order = scores.argsort(descending=True, stable=True)[: 1 if top_k == "" else top_k]
        names = label_names(config)
        found = [{"label": names[k], "score": scores[k].item()} for k in order.tolist()]
        return found[0] if top_k == "" and len(found) == 1 else found


class MsaTokenClassificationPipeline(MsaPipeline):
    """The class of each residue of the query: ``pipeline("token-classification", ...)``.

    Parameters
    ----------
    model : MsaForTokenClassification
    tokenizer : MsaTokenizer
    tokenizer_kwargs : dict, optional
        Options of the tokenizer, for instance ``{"truncation": True}``.

    Returns
    -------
    list of dict
        One for each residue of the query that has a column: ``entity``, the name of its class; ``score``, the
        probability of that class; ``word``, the residue's letter; ``column``, 0-based, so that ``msa[0][column]`` is
        that letter; ``residue``, its number, 1-based (an `Alignment` counts the query's insertions, which have no
        column).

    Raises
    ------
    ValueError
        If the model has no head for it or its folder no weights for that head (when the pipeline is made), or the
        query has no residues.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_head(self.model, "MsaForTokenClassification")

    def _sanitize_parameters(self, tokenizer_kwargs: dict | None = None) -> tuple[dict, dict, dict]:
        return {} if tokenizer_kwargs is None else {"tokenizer_kwargs": tokenizer_kwargs}, {}, {}

    def _prepare(self, msa: _Msa) -> _Msa:
        _check_residues(msa)
        return msa

    def _run(self, msas: list[_Msa], batch: Any) -> list[torch.Tensor]:
        logits = self.model(**batch).logits
        return [logits[index, 1 : msa.ids.shape[1]] for index, msa in enumerate(msas)]  # (L, K) each

    def postprocess(self, model_outputs: Any) -> list[dict[str, Any]]:
        """Name the class of each residue."""
        msa, names = model_outputs["msa"], label_names(self.model.config)
        scores, classes = class_scores(model_outputs["output"][0]).max(-1)
        letters = self.tokenizer.convert_ids_to_tokens(msa.ids[0, 1:].tolist())
        found = zip(classes.tolist(), scores.tolist(), letters, msa.residues.tolist(), strict=True)
        return [
            {"entity": names[k], "score": score, "word": letter, "column": column, "residue": residue}
            for column, (k, score, letter, residue) in enumerate(found)
            if residue
        ]


class MsaContactPredictionPipeline(MsaPipeline):
    """Contacts of each MSA's query: ``pipeline("msa-contact-prediction", ...)``.

    Columns in which the query has a gap are left out before the model runs, as in `modeling_msa.predict_contacts`.

    Parameters
    ----------
    model : MsaModel, or a class with a head
        Its contact regression must be fitted.
    tokenizer : MsaTokenizer
    top_k : int, optional
        Maximum number of pairs in ``contacts``; default: L, the number of residues.
    min_separation : int, default 6
        Smallest difference of the residue numbers of a pair in ``contacts``.
    tokenizer_kwargs : dict, optional
        Options of the tokenizer, for instance ``{"truncation": True}``.

    Returns
    -------
    dict
        ``probabilities``, ndarray ``(L, L)`` float32, that two residues of the query are in contact; ``residues``,
        ndarray ``(L,)`` int64, their numbers, 1-based (an `Alignment` counts the query's insertions, which have no
        column); ``contacts``, a list of ``{"i", "j", "score"}``, residue numbers i < j, most probable first.

    Raises
    ------
    ValueError
        If the contact regression was never fitted (when the pipeline is made), or the query has no residues.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        cls, gap = self.tokenizer.cls_token_id, self.model.config.gap_token_id
        self.model.predict_contacts(torch.tensor([[[cls, gap]]], device=self.device))  # raises unless fitted

    def _sanitize_parameters(
        self, top_k: int | None = None, min_separation: int | None = None, tokenizer_kwargs: dict | None = None
    ) -> tuple[dict, dict, dict]:
        _check_positive(top_k=top_k, min_separation=min_separation)
        before = {} if tokenizer_kwargs is None else {"tokenizer_kwargs": tokenizer_kwargs}
        after = {"top_k": top_k, "min_separation": min_separation}
        return before, {}, {name: value for name, value in after.items() if value is not None}

    def _prepare(self, msa: _Msa) -> _Msa:
        _check_residues(msa)
        kept = np.flatnonzero(msa.residues)
        return _Msa(msa.ids[:, [0, *(kept + 1)]], msa.residues[kept])

    def _run(self, msas: list[_Msa], batch: Any) -> list[torch.Tensor]:
        maps = self.model.predict_contacts(**batch)
        return [maps[index, : len(msa.residues), : len(msa.residues)] for index, msa in enumerate(msas)]

    def postprocess(self, model_outputs: Any, top_k: int | None = None, min_separation: int = 6) -> dict[str, Any]:
        """Rank the pairs of residues."""
        residues, probabilities = model_outputs["msa"].residues, model_outputs["output"][0].numpy()
        pairs = rank_pairs(probabilities, residues, min_separation)[: len(residues) if top_k is None else top_k]
        contacts = [
            {"i": int(residues[i]), "j": int(residues[j]), "score": float(probabilities[i, j])} for i, j in pairs
        ]
        return {"probabilities": probabilities, "residues": residues, "contacts": contacts}


def problem_of(config: Any) -> str:
    """Return what the head of a config's `MsaForSequenceClassification` was trained on, as transformers' loss does.

    "single_label_classification", "multi_label_classification" or "regression".
    """
    return config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")


def label_names(config: Any) -> tuple[str, ...]:
    """Return the names of a head's classes or values, in the order of its outputs.

    Raises ValueError if a config numbers them in another way than from 0, or has a name twice.
    """
    names = config.id2label
    if wrong := [k for k in range(len(names)) if k not in names]:
        numbers = ", ".join(map(str, names))
        raise ValueError(
            f"id2label of the model's config has no name for {wrong[0]}: number the names from 0, not {numbers}."
        )
    found = tuple(names[k] for k in range(len(names)))
    if twice := [name for name in dict.fromkeys(found) if found.count(name) > 1]:
        raise ValueError(f"id2label of the model's config has the name {twice[0]!r} twice: give each class its own.")
    return found


def class_scores(logits: torch.Tensor, problem: str = "single_label_classification") -> torch.Tensor:
    """Turn logits ``(..., K)`` into float32 probabilities of the K classes; of a "regression" they are the values."""
    logits = logits.float()
    if problem == "regression":
        return logits
    return logits.sigmoid() if problem == "multi_label_classification" else logits.softmax(-1)


def rank_pairs(
    scores: np.ndarray, residues: np.ndarray, min_separation: int = 6, max_separation: int | None = None
) -> np.ndarray:
    """Rank pairs of residues by their score; of equal scores, the pair that comes first ranks higher.

    Parameters
    ----------
    scores : ndarray, shape=(L, L)
        Only those with i < j are used.
    residues : ndarray, shape=(L,), dtype=int64
        Residue numbers of its rows and columns, ascending.
    min_separation, max_separation : int, optional
        Smallest and largest difference of residue numbers, both included.

    Returns
    -------
    ndarray, shape=(pairs, 2), dtype=int64
        Indices i < j into `residues`, from 0.
    """
    i, j = np.triu_indices(len(residues), 1)
    separations = residues[j] - residues[i]
    chosen = separations >= min_separation
    if max_separation is not None:
        chosen &= separations <= max_separation
    i, j = i[chosen], j[chosen]
    order = np.argsort(-scores[i, j], kind="stable")
    return np.stack([i[order], j[order]], axis=1)


def _check_positive(**numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, not {number!r}.")


def _check_residues(msa: _Msa) -> None:
    if not msa.residues.any():
        raise ValueError("MSA 0: the query has no residues.")


def unwrapped(model: Any) -> Any:
    """Remove the wrappers of torch.compile and PEFT; adapters stay."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def classes_of(model: Any) -> list[str]:
    """Names of a model's class and of those it inherits from, such as FSDP's subclasses do."""
    return [cls.__name__ for cls in type(unwrapped(model)).__mro__]


def _usable_tasks(model: Any) -> str:
    names = [TASKS_OF_HEADS[name] for name in classes_of(model) if name in TASKS_OF_HEADS]
    return f"{', '.join([*names, 'feature-extraction'])} or {CONTACT_TASK}"


def check_head(model: Any, needed: str) -> None:
    """Raise ValueError unless a model is of the class `needed`, and its head neither random nor another class's."""
    task, head = TASKS_OF_HEADS[needed], "lm_head" if needed == "MsaForMaskedLM" else "classifier"
    if needed not in classes_of(model):
        name = type(model).__name__
        raise ValueError(f"{task} requires an {needed}; {name} has no such head. Use {_usable_tasks(model)} with it.")
    saved = model.config.architectures or [needed]
    biases = [value for name, value in getattr(model, head).named_parameters() if name.endswith("bias")]
    is_new = not any(bias.any() for bias in biases)  # training moves them off zero
    is_other = head == "classifier" and "Classification" in saved[0]  # the two have weights of the same names
    if model.name_or_path and needed not in saved and (is_new or is_other):
        raise ValueError(
            f"{model.name_or_path} contains weights of {saved[0]}, which has no head for {task}: the head would be "
            f"{'made for another task' if is_other else 'random'}. Pass a folder that was saved from an {needed}."
        )


# In every saved config.json, for the Hub and other readers; this code registers them when it is imported.
CUSTOM_PIPELINES = {
    "fill-mask": {"impl": "pipeline_msa_transformer.MsaFillMaskPipeline", "pt": ["AutoModelForMaskedLM"]},
    "feature-extraction": {"impl": "pipeline_msa_transformer.MsaFeatureExtractionPipeline", "pt": ["AutoModel"]},
    "text-classification": {
        "impl": "pipeline_msa_transformer.MsaTextClassificationPipeline",
        "pt": ["AutoModelForSequenceClassification"],
    },
    "token-classification": {
        "impl": "pipeline_msa_transformer.MsaTokenClassificationPipeline",
        "pt": ["AutoModelForTokenClassification"],
    },
    CONTACT_TASK: {"impl": "pipeline_msa_transformer.MsaContactPredictionPipeline", "pt": ["AutoModel"]},
}


class _ByModel:
    """Registry entry of one of transformers' own tasks; other models get the class that was registered before."""

    def __init__(self, task: str, pipeline_class: type[MsaPipeline] | None, others: Any) -> None:
        self.task = task
        self.pipeline_class = pipeline_class  # None: the task is refused
        self.__name__ = pipeline_class.__name__ if pipeline_class else f"{task} of other models"
        self._others = others

    @property
    def others(self) -> Any:
        return pkgutil.resolve_name(self._others) if isinstance(self._others, str) else self._others

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.others, name)  # such as which processors transformers has to load

    def __call__(self, model: Any, **kwargs: Any) -> Pipeline:
        if getattr(model.config, "model_type", None) != MODEL_TYPE:
            return self.others(model=model, **kwargs)
        if self.pipeline_class is None:
            raise ValueError(
                f"The pipeline {self.task} would read each row as a text of its own, so it cannot be used with "
                f"{type(model).__name__}. Use {_usable_tasks(model)}."
            )
        return self.pipeline_class(model=model, **kwargs)


def register_pipelines() -> None:
    """Make ``transformers.pipeline`` use these classes for models of this type; other models keep theirs."""
    ours: dict[str, type[MsaPipeline]] = {
        "fill-mask": MsaFillMaskPipeline,
        "feature-extraction": MsaFeatureExtractionPipeline,
        "text-classification": MsaTextClassificationPipeline,
        "token-classification": MsaTokenClassificationPipeline,
    }
    registered = PIPELINE_REGISTRY.supported_tasks
    for task, info in registered.items():
        if task in ours or info.get("type") in ("text", "multimodal"):
            # that of an earlier copy of this code, of another folder, is replaced
            info["impl"] = _ByModel(task, ours.get(task), getattr(info["impl"], "_others", info["impl"]))
    registered.pop(CONTACT_TASK, None)
    PIPELINE_REGISTRY.register_pipeline(CONTACT_TASK, MsaContactPredictionPipeline, pt_model=AutoModel)


register_pipelines()

__all__ = [
    "MsaContactPredictionPipeline",
    "MsaFeatureExtractionPipeline",
    "MsaFillMaskPipeline",
    "MsaPipeline",
    "MsaTextClassificationPipeline",
    "MsaTokenClassificationPipeline",
    "check_head",
    "class_scores",
    "classes_of",
    "label_names",
    "problem_of",
    "rank_pairs",
    "unwrapped",
]
