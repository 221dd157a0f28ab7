"""Collators: batches of tokens and labels from alignments.

A feature is one alignment, ``{"alignment": Alignment or uint8 (R, L)}`` or ``{"sequences": list of str}``, with
optional ``labels`` and ``visit``; without these, an `Alignment`, such an array or a list of rows may stand for itself.
What is one alignment and what a batch follows the tokenizer: a list of strings is one alignment.

A collator chooses rows and columns at each visit, turns them into tokens and pads them: `MsaDataCollatorForMaskedLM`
for pretraining, the others for labels of residues, of whole alignments and of pairs of residues.

All random choices depend only on a seed and on the visit ``(epoch, example)``, so a batch is the same for any number
of worker processes and in a resumed run.

Axes: B batch, R rows (row 0 is the query), L match columns, C token columns (L + 1, with ``<cls>``), N residues of the
query, including those without a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ..alignments.alignment import Alignment
from ..alignments.sampling import diverse_rows, first_rows, random_rows, weighted_rows
from ..tokenization_msa_transformer import MsaTokenizer, is_batch, is_row

_GAP = ord("-")
_IGNORE = -100


class _Example(NamedTuple):
    ids: np.ndarray  # (R, C) int64, <cls> first
    columns: slice  # of the alignment's L match columns
    feature: Mapping[str, Any]
    random: np.random.Generator


@dataclass
class MsaDataCollator:
    """Choose rows and columns of alignments, tokenize and pad them.

    Rao et al. (2021, section 3): each MSA has a budget of 2^14 tokens, so a longer one gets fewer rows.

    Parameters
    ----------
    tokenizer : MsaTokenizer
        Its `model_max_length` and `model_max_depth` limit the columns and rows.
    max_tokens : int, default 2**14
        Maximum number of tokens of one MSA: rows times columns, with ``<cls>``.
    max_rows, max_columns : int, default 1024
        Maximum number of rows, and of columns with ``<cls>``.
    min_rows : int, default 1
        Minimum number of rows that a log-uniform depth draws.
    select : {"random", "diverse", "weighted", "first"}, default "random"
        How rows are chosen; see `modeling_msa.select_rows`. The query is always kept. ``diverse`` and ``weighted``
        compare all rows at each visit, which is slow for a deep alignment.
    depth : {"full", "log_uniform"}, default "full"
        As many rows as fit, or a number drawn uniformly on a logarithmic scale from `min_rows` to that. One quantile
        is drawn for a batch, so that MSAs of similar size keep similar sizes.
    crop : {"random", "first"}, default "random"
        Which contiguous columns of an alignment that is too long.
    random_positions : bool, default False
        Start the columns at a random index of the position table (`position_ids`), so that short families train the
        whole table; ``<cls>`` keeps index 0.
    pad_to_multiple_of : int, default 1
        Pad the columns to a multiple of this, unless that exceeds the tokenizer's `model_max_length`.
    seed : int, default 0
        Seed of all draws, together with the feature's `visit`. A feature without `visit` draws from torch's generator.

    Examples
    --------
    >>> from modeling_msa import bundled_family, read_alignment
    >>> collator = MsaDataCollator(MsaTokenizer(), max_tokens=2048)
    >>> batch = collator([{"alignment": read_alignment(bundled_family()), "visit": (0, 0)}])
    >>> batch["input_ids"].shape  # 2048 // (80 + 1) rows
    torch.Size([1, 25, 81])
    """

    tokenizer: MsaTokenizer
    max_tokens: int = 2**14
    max_rows: int = 1024
    max_columns: int = 1024
    min_rows: int = 1
    select: str = "random"
    depth: str = "full"
    crop: str = "random"
    random_positions: bool = False
    pad_to_multiple_of: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "select": ("random", "diverse", "weighted", "first"),
            "depth": ("full", "log_uniform"),
            "crop": ("random", "first"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}.")
        lowest = {"max_tokens": 2, "max_rows": 1, "max_columns": 2, "min_rows": 1, "pad_to_multiple_of": 1, "seed": 0}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        # ASCII code -> token id; -1 for characters that are left to the tokenizer
        self._ids = np.full(256, -1, dtype=np.int64)
        letters = {ord(token): i for token, i in self.tokenizer.get_vocab().items() if len(token) == 1}
        self._ids[list(letters)] = list(letters.values())

    def size(self, depth: int, length: int) -> tuple[int, int]:
        """Return the rows and token columns of an alignment of this depth and length, at full depth."""
        columns = min(length + 1, self.max_columns, self.tokenizer.model_max_length, self.max_tokens)
        rows = min(depth, self.max_rows, self.tokenizer.model_max_depth, self.max_tokens // columns)
        return rows, columns

    def __call__(self, features: Any) -> dict[str, torch.Tensor]:
        """Make a batch.

        Parameters
        ----------
        features : sequence of features, or one feature
            See the module's docstring.

        Returns
        -------
        batch : dict
            `input_ids` and `attention_mask`, int64 (B, R, C); `position_ids`, int64 (B, C), with `random_positions`;
            `labels`, if the features have any.

        Raises
        ------
        ValueError
            If a feature has no alignment, or labels that do not match it; the message names the example.
        TypeError
            If something is not a feature.
        """
        features = [_as_feature(each, k) for k, each in enumerate(features if is_batch(features) else [features])]
        quantile = self._generator(features[0], 1).random() if self.depth == "log_uniform" else 1.0
        examples = [self._example(feature, quantile) for feature in features]
        rows, columns = (max(example.ids.shape[axis] for example in examples) for axis in (0, 1))
        padded = -(-columns // self.pad_to_multiple_of) * self.pad_to_multiple_of
        columns = padded if padded <= self.tokenizer.model_max_length else columns
        ids = np.full((len(examples), rows, columns), self.tokenizer.pad_token_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        for k, example in enumerate(examples):
            depth, width = example.ids.shape
            ids[k, :depth, :width], mask[k, :depth, :width] = example.ids, 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.random_positions:
            batch["position_ids"] = self._positions(examples, columns)
        batch |= self.make_labels(examples, ids)
        return {key: torch.from_numpy(value) for key, value in batch.items()}

    def make_labels(self, examples: list[_Example], ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return the labels of a batch; may change its token ids (B, R, C) in place."""
        return {}

    def _generator(self, feature: Mapping[str, Any], salt: int = 0) -> np.random.Generator:
        visit = feature.get("visit")
        if visit is None:
            return np.random.default_rng(int(torch.randint(2**62, ())))
        return np.random.default_rng([self.seed, *map(int, visit), salt])

    def _example(self, feature: Mapping[str, Any], quantile: float) -> _Example:
        random = self._generator(feature)
        rows = _codes_of(feature)
        length = rows.shape[1]
        depth, columns = self.size(*rows.shape)
        if columns <= length:
            start = int(random.integers(length - columns + 2)) if self.crop == "random" else 0
            window = slice(start, start + columns - 1)
            rows = rows[:, window]
            occupied = (rows != _GAP).any(axis=1)  # drop fragments that lie outside of the crop
            occupied[0] = True
            rows = rows[occupied]
            depth = min(depth, len(rows))
        else:
            window = slice(0, length)
        if self.depth == "log_uniform":
            least = min(self.min_rows, depth)
            depth = min(depth, int(least * ((depth + 1) / least) ** quantile))
        codes = self._take(rows, depth, random)
        ids = self._ids[codes]
        if ids.min(initial=0) < 0:
            ids = self.tokenizer([codes], verbose=False, return_tensors="np")["input_ids"][0][:, 1:]
        first = np.full((len(ids), 1), self.tokenizer.cls_token_id)
        return _Example(np.concatenate([first, ids], axis=1), window, feature, random)

    def _take(self, rows: np.ndarray, depth: int, random: np.random.Generator) -> np.ndarray:
        if depth >= len(rows):
            return rows
        if self.select in ("random", "weighted"):
            draw = random_rows if self.select == "random" else weighted_rows
            return rows[draw(rows, depth, int(random.integers(2**62)))]
        return rows[(diverse_rows if self.select == "diverse" else first_rows)(rows, depth)]

    def _positions(self, examples: list[_Example], columns: int) -> np.ndarray:
        table = self.tokenizer.model_max_length
        positions = np.tile(np.arange(columns), (len(examples), 1))
        for k, example in enumerate(examples):
            positions[k, 1:] += example.random.integers(table - example.ids.shape[1] + 1)
        return np.minimum(positions, table - 1)  # only padding exceeds the table


def _as_feature(feature: Any, index: int) -> Mapping[str, Any]:
    """Make a mapping of an alignment, an array or a list of rows."""
    if isinstance(feature, Mapping):
        return feature
    if isinstance(feature, (Alignment, np.ndarray)):
        return {"alignment": feature}
    if isinstance(feature, Sequence) and len(feature) and not is_row(feature) and all(map(is_row, feature)):
        return {"sequences": [row if isinstance(row, str) else row[1] for row in feature]}
    what = "a single row: put it into a list" if is_row(feature) else f"of type {type(feature).__name__}"
    raise TypeError(
        f"Feature {index} of the batch is {what}. A feature is an Alignment, a list of rows, an array (R, L), or a "
        'mapping with an "alignment" or with "sequences".'
    )


def _codes_of(feature: Mapping[str, Any]) -> np.ndarray:
    """ASCII codes (R, L) of a feature's rows."""
    if "alignment" in feature:
        alignment = feature["alignment"]
        array = alignment.array if isinstance(alignment, Alignment) else np.asarray(alignment)
        if array.dtype != np.uint8 or array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"{_label(feature)}: an alignment must be an Alignment or a uint8 array (R, L), not {array.dtype} "
                f"{array.shape}."
            )
        return array
    if "sequences" not in feature:
        raise ValueError(
            f"A feature has neither 'alignment' nor 'sequences', but {sorted(feature)}; with Trainer, set "
            "remove_unused_columns=False."
        )
    rows = feature["sequences"]
    text = "".join(rows)
    if not text or not text.isascii() or len(set(map(len, rows))) > 1:
        return Alignment.from_sequences(rows, format="fasta", source=_label(feature)).array  # explains what is wrong
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8).reshape(len(rows), -1)


def _label(feature: Mapping[str, Any]) -> str:
    """Name of an example in messages."""
    alignment = feature.get("alignment")
    source = alignment.source if isinstance(alignment, Alignment) else None
    return source or feature.get("name") or "an example"


@dataclass
class MsaDataCollatorForMaskedLM(MsaDataCollator):
    """Mask residues and gaps of alignments, for pretraining and continued pretraining.

    Rao et al. (2021, section 3): 15 % of the positions, uniformly over rows and columns, are targets; 80 % of these
    are replaced by ``<mask>``, 10 % by a random letter, and 10 % are kept. ``<cls>``, padding and characters outside
    the alphabet are never targets. A batch has at least one target: if the draw gives none, one position is chosen
    and masked.

    Parameters
    ----------
    mlm_probability : float, default 0.15
        Fraction of the positions that are targets.
    mask_replace_prob, random_replace_prob : float, default 0.8 and 0.1
        Fraction of the targets that is masked, and that is replaced by one of the 20 amino acids (or a gap, with
        `mask_gaps`).
    mask_gaps : bool, default True
        Whether gaps are targets too, as in the paper. Without them a batch that has only gaps still has one target,
        a gap.
    mask_columns : float, default 0.0
        Fraction of the targets that come as whole columns, in which no other row reveals the answer: all rows of such
        a column are masked, replaced or kept together. The total fraction stays `mlm_probability`.

    Examples
    --------
    >>> from modeling_msa import bundled_family, read_alignment
    >>> collator = MsaDataCollatorForMaskedLM(MsaTokenizer())
    >>> batch = collator([{"alignment": read_alignment(bundled_family()), "visit": (0, 0)}])
    >>> share = (batch["labels"] != -100)[:, :, 1:].float().mean()  # without <cls>
    >>> print(f"{share:.2f}")
    0.15
    """

    mlm_probability: float = 0.15
    mask_replace_prob: float = 0.8
    random_replace_prob: float = 0.1
    mask_gaps: bool = True
    mask_columns: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mlm_probability <= 1:
            raise ValueError(f"mlm_probability must be above 0 and at most 1, not {self.mlm_probability}.")
        for name in ("mask_replace_prob", "random_replace_prob", "mask_columns"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}.")
        if self.mask_replace_prob + self.random_replace_prob > 1 + 1e-9:
            raise ValueError("The sum of mask_replace_prob and random_replace_prob must not exceed 1.")
        gap = int(self._ids[_GAP])
        self._targets = np.zeros(len(self.tokenizer), dtype=bool)  # token ids that may be targets
        self._targets[self._ids[self._ids >= 0]] = True
        self._targets[gap] = self.mask_gaps
        letters = self._ids[list(b"ACDEFGHIKLMNPQRSTVWY")]
        self._letters = np.append(letters, gap) if self.mask_gaps else letters

    def make_labels(self, examples: list[_Example], ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return labels int64 (B, R, C): the token of a target, else -100; masks `ids` in place."""
        labels = np.full_like(ids, _IGNORE)
        for k, example in enumerate(examples):
            inside = (k, slice(len(example.ids)), slice(1, example.ids.shape[1]))
            self._mask(ids[inside], labels[inside], example.random)
        if (labels == _IGNORE).all():
            self._mask_one(ids, labels, examples[0].random)
        return {"labels": labels}

    def _mask(self, ids: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> None:
        """Mask one MSA (R, L), without <cls>, in place."""
        by_column = self.mask_columns * self.mlm_probability
        rate = (self.mlm_probability - by_column) / (1 - by_column) if by_column < 1 else 0.0
        # A draw below 1 makes a target; its place in [0, 1) decides between mask, replacement and keeping.
        draws = random.random(ids.shape, dtype=np.float32) / np.float32(rate) if rate > 0 else np.ones(ids.shape)
        if by_column > 0:
            whole = np.divide(random.random(len(ids[0]), dtype=np.float32), np.float32(by_column))
            draws[:, whole < 1] = whole[whole < 1]
        rows, columns = np.nonzero(draws < 1)
        tokens = ids[rows, columns]
        kept = self._targets[tokens]
        rows, columns, tokens = rows[kept], columns[kept], tokens[kept]
        labels[rows, columns] = tokens
        draws = draws[rows, columns]
        masked, replaced = np.cumsum([self.mask_replace_prob, self.random_replace_prob])
        tokens[draws < replaced] = random.choice(self._letters, np.count_nonzero(draws < replaced))
        tokens[draws < masked] = self.tokenizer.mask_token_id
        ids[rows, columns] = tokens

    def _mask_one(self, ids: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> None:
        letters = np.zeros_like(self._targets)
        letters[self._ids[self._ids >= 0]] = True
        for allowed in (self._targets, letters):
            places = np.argwhere(allowed[ids])
            if len(places):
                place = tuple(places[random.integers(len(places))])
                labels[place], ids[place] = ids[place], self.tokenizer.mask_token_id
                return
        raise ValueError("A batch has no letter of the alphabet that could be a target; check the alignments.")


@dataclass
class MsaDataCollatorForTokenClassification(MsaDataCollator):
    """Batches with a class for each residue of the query, such as its secondary structure.

    A feature's `labels` are N class numbers, one for each residue of the query, insertions included; -100 means
    unknown. In the batch, `labels` are int64 (B, C): -100 at ``<cls>``, gaps and padding.

    Parameters
    ----------
    num_labels : int, optional
        Number of classes; with it, class numbers are checked.

    Examples
    --------
    >>> collator = MsaDataCollatorForTokenClassification(MsaTokenizer(), num_labels=3)
    >>> family = Alignment.from_sequences(["MK-v", "MRL"])  # the query's last residue, in lower case, has no column
    >>> collator([{"alignment": family, "labels": [0, 2, 1]}])["labels"]
    tensor([[-100,    0,    2, -100]])
    """

    num_labels: int | None = None

    def make_labels(self, examples: list[_Example], ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return labels int64 (B, C)."""
        if not (labelled := _labelled(examples)):
            return {}
        labels = np.full(ids[:, 0].shape, _IGNORE, dtype=np.int64)
        for k, (example, values) in enumerate(labelled):
            columns = _query_columns(example)
            _check_labels(values, (len(columns),), range(self.num_labels) if self.num_labels else None, example)
            seen = columns >= 0
            labels[k, columns[seen] + 1] = values[seen]
        return {"labels": labels}


@dataclass
class MsaDataCollatorForSequenceClassification(MsaDataCollator):
    """Batches with one label for each alignment: a class, a value, or several values.

    In the batch, `labels` are int64 (B,) for classes (whole numbers), else float32 (B,) or (B, values).

    Parameters
    ----------
    num_labels : int, optional
        Number of classes, or of values; 1 is a regression. With it, labels are checked.

    Examples
    --------
    >>> collator = MsaDataCollatorForSequenceClassification(MsaTokenizer())
    >>> family = Alignment.from_sequences(["MKV", "MRL"])
    >>> collator([{"alignment": family, "labels": 0.5}, {"alignment": family, "labels": 2}])["labels"]
    tensor([0.5000, 2.0000])
    """

    num_labels: int | None = None

    def make_labels(self, examples: list[_Example], ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return labels (B,) or (B, values)."""
        if not (labelled := _labelled(examples)):
            return {}
        shape = labelled[0][1].shape
        integers = all(values.dtype.kind in "iub" for _, values in labelled) and self.num_labels != 1
        for example, values in labelled:
            classes = range(self.num_labels) if self.num_labels and integers and not shape else None
            _check_labels(values, shape, classes, example, floats=True)
        return {"labels": np.stack([values for _, values in labelled]).astype(np.int64 if integers else np.float32)}


@dataclass
class MsaDataCollatorForContactPrediction(MsaDataCollator):
    """Batches with the contacts between the residues of the query.

    A feature's `labels` are (N, N) over all residues of the query: 1 contact, 0 none, -100 unknown. In the batch,
    `labels` are int64 (B, L, L), -100 at gaps, padding and pairs close in sequence.

    Parameters
    ----------
    min_separation : int, default 6
        Pairs of residues whose numbers differ by less are -100, as in the paper (section 4.1).

    Examples
    --------
    >>> collator = MsaDataCollatorForContactPrediction(MsaTokenizer(), min_separation=2)
    >>> family = Alignment.from_sequences(["M-KV", "MRKL"])
    >>> collator([{"alignment": family, "labels": np.ones((3, 3), dtype=np.int8)}])["labels"]
    tensor([[[-100, -100, -100,    1],
             [-100, -100, -100, -100],
             [-100, -100, -100, -100],
             [   1, -100, -100, -100]]])
    """

    min_separation: int = 6

    def make_labels(self, examples: list[_Example], ids: np.ndarray) -> dict[str, np.ndarray]:
        """Return labels int64 (B, L, L)."""
        if not (labelled := _labelled(examples)):
            return {}
        length = ids.shape[2] - 1
        labels = np.full((len(ids), length, length), _IGNORE, dtype=np.int64)
        for k, (example, values) in enumerate(labelled):
            columns = _query_columns(example)
            _check_labels(values, (len(columns),) * 2, range(2), example)
            residues = np.flatnonzero(columns >= 0)
            pairs = values[np.ix_(residues, residues)].astype(np.int64)
            pairs[np.abs(residues[:, None] - residues) < self.min_separation] = _IGNORE
            labels[k][np.ix_(columns[residues], columns[residues])] = pairs
        return {"labels": labels}


def _labelled(examples: list[_Example]) -> list[tuple[_Example, np.ndarray]]:
    """Pair examples with their labels; empty if no example has any."""
    labels = [example.feature.get("labels") for example in examples]
    if all(label is None for label in labels):
        return []
    for example, label in zip(examples, labels, strict=True):
        if label is None:
            raise ValueError(f"{_label(example.feature)}: has no labels, but other examples of the batch have.")
    return [(example, np.asarray(label)) for example, label in zip(examples, labels, strict=True)]


def _query_columns(example: _Example) -> np.ndarray:
    """Column of each residue of the query (N,) in the batch, not counting <cls>; -1 if it has none."""
    feature, window = example.feature, example.columns
    alignment = feature.get("alignment")
    if isinstance(alignment, Alignment):
        columns = alignment.residue_columns
    elif "query" in feature:
        columns = _columns_of_query(feature)
    else:
        columns = np.flatnonzero(_codes_of(feature)[0] != _GAP)
    inside = (columns >= window.start) & (columns < window.stop)
    return np.where(inside, columns - window.start, -1)


def _columns_of_query(feature: Mapping[str, Any]) -> np.ndarray:
    """Column of each residue of ``query``, in A3M notation or as residues alone if the first row has them all."""
    query = Alignment.from_sequences([feature["query"]], source=_label(feature))
    first = _codes_of(feature)[0]
    if np.array_equal(query.array[0], first):
        return query.residue_columns
    if query.query.encode() != first[first != _GAP].tobytes():
        raise ValueError(
            f"{_label(feature)}: the query has residues without a column, and its residues alone do not show which; "
            "labels of residues require the query in A3M notation, as load_stream and MsaDataset give it."
        )
    return np.flatnonzero(first != _GAP)


def _check_labels(
    values: np.ndarray, shape: tuple[int, ...], classes: range | None, example: _Example, floats: bool = False
) -> None:
    where = _label(example.feature)
    if values.dtype.kind not in ("iubf" if floats else "iub"):
        raise ValueError(f"{where}: labels must be whole numbers, -100 for unknown, but these are {values.dtype}.")
    if values.shape != shape:
        sizes = " x ".join(map(str, values.shape)) or "one value"
        expected = " x ".join(map(str, shape)) or "one value"
        whose = "" if floats else " for the residues of the query, insertions included"
        raise ValueError(f"{where}: the labels are {sizes}, but must be {expected}{whose}.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{where}: a label is {values[~np.isfinite(values)].flat[0]}; leave the example out.")
    if classes is not None:
        wrong = values[(values != _IGNORE) & ((values < 0) | (values >= len(classes)))]
        if wrong.size:
            raise ValueError(
                f"{where}: label {wrong.flat[0]} is not a class; use 0 to {len(classes) - 1}, or -100 for unknown."
            )
