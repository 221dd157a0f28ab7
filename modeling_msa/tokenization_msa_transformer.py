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
"""Tokenizer for multiple sequence alignments.

Hub code: this file is copied into model folders, so within the package it imports only the other Hub files.

Axes: B batch, R rows (row 0 is the query), L residue columns, C columns of tokens (L + 1 with `<cls>`).
"""

import string
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import BatchEncoding, TokenizersBackend
from transformers.tokenization_utils_base import PaddingStrategy, TruncationStrategy

from .sharing_msa_transformer import SharingMixin

# fair-esm's order: the checkpoints' embedding rows follow it.
ALPHABET = ("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>")

# Entries of the lookup table for characters that are not a token.
_UNKNOWN, _LOWERCASE, _WHITESPACE = -1, -2, -3
# Each token of several letters is replaced by one private character, so that a column is one character (fair-esm
# counts the letters of <mask> as columns when it sizes the batch).
_PRIVATE = 0x10F000
_NO_LIMIT = sys.maxsize

# Arguments of transformers' tokenizers that mean nothing for an alignment; values that switch them off are accepted.
_NOT_FOR_MSAS = {
    "text_target", "text_pair_target", "max_target_length", "stride", "is_split_into_words", "return_token_type_ids",
    "return_overflowing_tokens", "return_offsets_mapping", "return_length", "split_special_tokens", "tokenizer_kwargs",
}  # fmt: skip


class MsaTokenizer(SharingMixin, TokenizersBackend):
    """Turn multiple sequence alignments into token ids, always with three axes (B, R, C).

    The alphabet is that of fair-esm's MSA Transformer and is fixed, so no vocabulary file is needed. Every row begins
    with `<cls>`; `<eos>` exists but is never added.

    Parameters
    ----------
    model_max_length : int
        Maximum number of columns, including `<cls>`, that the model accepts.
    model_max_depth : int
        Maximum number of rows that the model accepts.
    **kwargs
        Arguments of every transformers tokenizer.

    Notes
    -----
    `tokenize`, `encode`, `convert_tokens_to_ids` and similar methods work on one row, as they do on a sentence
    elsewhere in transformers, and add no axes. Only calling the tokenizer checks that the rows fit together.

    Examples
    --------
    >>> tokenizer = MsaTokenizer()
    >>> batch = tokenizer([["MKV", "MRV", "-KV"], ["MKVLA"]], padding=True, return_tensors="pt")
    >>> batch["input_ids"].shape
    torch.Size([2, 3, 6])
    >>> batch["input_ids"][0]
    tensor([[ 0, 20, 15,  7,  1,  1],
            [ 0, 20, 10,  7,  1,  1],
            [ 0, 30, 15,  7,  1,  1]])
    >>> tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    [['MKV', 'MRV', '-KV'], ['MKVLA']]
    """

    vocab_files_names = {"tokenizer_file": "tokenizer.json"}  # noqa: RUF012
    _cached_tables: tuple[int, np.ndarray, dict[str, int]] | None = None

    def __init__(self, model_max_length: int = 1024, model_max_depth: int = 1024, **kwargs):
        for name in ("cls", "pad", "eos", "unk", "mask"):
            kwargs.setdefault(f"{name}_token", f"<{name}>")
        # from_pretrained passes these on, and save_pretrained would write them into tokenizer_config.json.
        for name in ("vocab", "merges", "is_local", "local_files_only"):
            kwargs.pop(name, None)

        self._tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(ALPHABET)}, [], unk_token="<unk>"))
        self._tokenizer.post_processor = TemplateProcessing(single="<cls> $A", special_tokens=[("<cls>", 0)])
        self._tokenizer.decoder = Fuse()
        self.model_max_depth = model_max_depth
        super().__init__(model_max_length=model_max_length, model_max_depth=model_max_depth, **kwargs)
        # Not special, since it does not mark structure, but never split into letters.
        self.add_tokens([AddedToken("<null_1>", normalized=False)])

    @classmethod
    def for_config(cls, config: Any) -> "MsaTokenizer":
        """Make the tokenizer of a model, with the model's limits on rows and columns."""
        depth = _NO_LIMIT if config.row_position_embedding_size is None else config.max_row_position_embeddings
        return cls(model_max_length=config.max_position_embeddings, model_max_depth=depth)

    def __call__(  # type: ignore[override]
        self,
        text: Any,
        text_pair: None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str | PaddingStrategy | None = False,
        truncation: bool | str | TruncationStrategy | None = None,
        max_length: int | None = None,
        max_depth: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        return_special_tokens_mask: bool = False,
        verbose: bool = True,
        **kwargs,
    ) -> BatchEncoding:
        """Tokenize one alignment or a batch of them.

        Parameters
        ----------
        text : str, sequence or ndarray
            A string is an alignment of one row, a list of strings one alignment, a list of lists a batch. A row may
            be a tuple `(name, sequence)`, so a tuple of two strings is never an alignment. An alignment may also be
            an array (R, L) of dtype uint8 (ASCII codes) or S1, or an object with such an array as `.array`. A
            written-out token, such as `<mask>`, is one column.
        text_pair : None
            Not supported: there are no pairs of alignments.
        add_special_tokens : bool
            Put `<cls>` before each row. If False, `<cls>`, `<pad>` and `<eos>` may be written in the rows.
        padding : bool or str
            True or "longest": pad to the deepest and the longest alignment of the batch, below and on the right.
            "max_length": pad to `max_length` columns, and to `max_depth` rows if given.
        truncation : bool
            Cut alignments to the first `max_depth` rows and `max_length` columns (the last columns if
            `truncation_side` is "left").
        max_length : int, optional
            Maximum number of columns, including `<cls>`. Truncation and padding default to `model_max_length`.
        max_depth : int, optional
            Maximum number of rows. Truncation defaults to `model_max_depth`.
        pad_to_multiple_of : int, optional
            Pad columns to a multiple of this.
        padding_side : "right", optional
            Only "right" is supported.
        return_tensors : "pt" or "np", optional
            Without it, nested lists, which are ragged if alignments differ in size and padding is off.
        return_attention_mask : bool, optional
            Pass False to leave the mask out.
        return_special_tokens_mask : bool
            Add `special_tokens_mask`, 1 at `<cls>`, `<pad>` and `<eos>`; a masked column is 0.
        verbose : bool
            Warn about alignments that exceed `model_max_length` or `model_max_depth`.
        **kwargs
            Other arguments of transformers' tokenizers, which mean nothing here and must be off.

        Returns
        -------
        BatchEncoding
            `input_ids` and `attention_mask`, int64 (B, R, C).

        Raises
        ------
        ValueError
            If the input is empty, rows of an alignment differ in length, a row contains lowercase letters
            (insertions of A3M) or blanks, an alignment exceeds `max_depth` or `max_length` without truncation, or
            tensors are requested for alignments of different sizes without padding.
        TypeError
            If `text` is none of the above, or an argument is unknown.

        Warns
        -----
        UserWarning
            Once per call if characters became `<unk>`, and once for each limit of the model that is exceeded.

        Examples
        --------
        >>> tokenizer = MsaTokenizer()
        >>> tokenizer([("query", "MK<mask>"), ("other", "M-V")])["input_ids"]
        [[[0, 20, 15, 32], [0, 20, 30, 7]]]
        >>> tokenizer(["MKV", "MRV", "-KV"], truncation=True, max_length=3, max_depth=2)["input_ids"]
        [[[0, 20, 15], [0, 20, 10]]]
        """
        _reject(text_pair, kwargs)
        self._check_padding_side(padding_side)
        strategy, cut = _padding_strategy(padding), _is_cutting(truncation)
        limits = self._limits(strategy, cut, max_depth, max_length)
        if cut and strategy != PaddingStrategy.DO_NOT_PAD and limits[1] % (pad_to_multiple_of or 1):
            raise ValueError(f"max_length={limits[1]} must be a multiple of pad_to_multiple_of={pad_to_multiple_of}.")

        msas, unknown, first_unknown = [], Counter[str](), ""
        for i, (rows, names) in enumerate(_as_batch(text)):
            codes = self._codes(rows[: limits[0]] if cut else rows, names, i)
            codes = self._cut_columns(codes, limits[1] - add_special_tokens) if cut else codes
            ids = self._lookup(codes, names, i, add_special_tokens)
            if ids.min() == _UNKNOWN:
                row, column = np.argwhere(ids == _UNKNOWN)[0]
                first_unknown = first_unknown or _place(i, row, names, column)
                unknown.update(_count(codes[ids == _UNKNOWN]))
                ids[ids == _UNKNOWN] = self.unk_token_id
            msas.append(ids if add_special_tokens else ids[:, 1:])
        if unknown and not getattr(text, "source", None):  # those of an alignment file were named when it was read
            _warn_of_unknown(unknown, first_unknown)
        self._check_sizes(msas, limits, verbose)

        shape = _padded_shape(msas, strategy, max_depth, limits[1], pad_to_multiple_of)
        msas = _pad_all(msas, shape, self.pad_token_id)
        data = {"input_ids": msas}
        if return_special_tokens_mask:
            structure = [self.cls_token_id, self.pad_token_id, self.eos_token_id]
            data["special_tokens_mask"] = [np.isin(ids, structure).astype(np.int64) for ids in msas]
        if return_attention_mask is not False:
            data["attention_mask"] = [(ids != self.pad_token_id).astype(np.int64) for ids in msas]
        return BatchEncoding({key: _stack(value, return_tensors) for key, value in data.items()})

    def pad(  # type: ignore[override]
        self,
        encoded_inputs: Any,
        padding: bool | str | PaddingStrategy = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
        *,
        max_depth: int | None = None,
    ) -> BatchEncoding:
        """Pad tokenized alignments to one size, for data collators.

        Parameters
        ----------
        encoded_inputs : list of mappings, or mapping
            One mapping for each alignment, or one for the batch. `input_ids` of an alignment is (R, C), or (1, R, C)
            as a call on one alignment returns it; lists, ndarrays or tensors. `attention_mask`,
            `special_tokens_mask` and `labels` of the same shape are padded with 0, 1 and -100, and so are `labels`
            of the query's tokens (C,) and of its residue pairs (C - 1, C - 1). Everything else, such as one label
            per alignment, is only stacked.
        padding, max_length, max_depth, pad_to_multiple_of, padding_side, return_attention_mask, verbose
            As in a call.
        return_tensors : "pt" or "np", optional
            Without it, the result has the type of the input.

        Returns
        -------
        BatchEncoding
            `input_ids` and `attention_mask`, int64 (B, R, C), and the other entries of the input.

        Raises
        ------
        ValueError
            If `input_ids` is missing or has another shape, and as in a call.

        Examples
        --------
        >>> tokenizer = MsaTokenizer()
        >>> features = [{"input_ids": [[0, 5, 23]], "labels": 1}, {"input_ids": [[0, 5], [0, 30]], "labels": 0}]
        >>> tokenizer.pad(features)["input_ids"]
        [[[0, 5, 23], [1, 1, 1]], [[0, 5, 1], [0, 30, 1]]]
        """
        self._check_padding_side(padding_side)
        features = _columns_of_features(encoded_inputs)
        if return_tensors is None:
            kind = type(features["input_ids"][0])
            return_tensors = "pt" if issubclass(kind, torch.Tensor) else "np" if kind is np.ndarray else None
        arrays = [_to_array(value) for value in features["input_ids"]]
        msas = [_one_msa(array) for array in arrays]
        strategy = _padding_strategy(padding)
        limits = self._limits(strategy, False, max_depth, max_length)
        self._check_sizes(msas, limits, verbose)
        if return_attention_mask is False:
            features.pop("attention_mask", None)
        elif "attention_mask" not in features:
            features["attention_mask"] = [(ids != self.pad_token_id).astype(np.int64) for ids in msas]

        shape = _padded_shape(msas, strategy, max_depth, limits[1], pad_to_multiple_of)
        fill = {"input_ids": self.pad_token_id, "attention_mask": 0, "special_tokens_mask": 1, "labels": -100}
        padded, rest = {}, {}
        for key, values in features.items():
            like_ids = [_to_array(value) for value in values] if key in fill else []
            if like_ids and all(v.shape in (a.shape, m.shape) for v, a, m in zip(like_ids, arrays, msas, strict=True)):
                like_ids = [value.reshape(ids.shape) for value, ids in zip(like_ids, msas, strict=True)]
                padded[key] = _stack(_pad_all(like_ids, shape, fill[key]), return_tensors)
            elif key == "labels" and (side := _label_side(like_ids, msas)) is not None:
                size = None if shape is None else (shape[1] - side,) * like_ids[0].ndim
                padded[key] = _stack(_pad_all(like_ids, size, fill[key]), return_tensors)
            else:
                rest[key] = [_to_array(value)[()] if torch.is_tensor(value) else value for value in values]
        return BatchEncoding({**padded, **BatchEncoding(rest, tensor_type=return_tensors)})

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **kwargs) -> Any:
        """Turn token ids back into rows.

        Parameters
        ----------
        token_ids : int, list, ndarray or Tensor
            Ids of one row (C,), of an alignment (R, C) or of a batch (B, R, C).
        skip_special_tokens : bool
            Leave out `<cls>`, `<pad>`, `<eos>` and rows of padding. `<mask>` and `<unk>` stay, so that columns stay
            columns (elsewhere in transformers they are left out too).
        **kwargs
            Ignored: there are no spaces to clean up.

        Returns
        -------
        str or list
            A string for a row, a list of strings for an alignment, a list of lists for a batch.

        Raises
        ------
        ValueError
            If an id is not in the vocabulary.

        Examples
        --------
        >>> tokenizer = MsaTokenizer()
        >>> tokenizer.decode([[0, 20, 32, 1], [1, 1, 1, 1]], skip_special_tokens=True)
        ['M<mask>']
        >>> tokenizer.decode([0, 20, 32, 1])
        '<cls>M<mask><pad>'
        """
        letters = {i: token for token, i in self.get_vocab().items()}
        if skip_special_tokens:
            kept = {self.mask_token_id, self.unk_token_id}
            letters.update((i, "") for i in self.all_special_ids if i not in kept)
        return self._decode_nested(token_ids, letters, skip_special_tokens)

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **kwargs) -> list:  # type: ignore[override]
        """Turn the token ids of several rows (R, C) or alignments (B, R, C) into a list; see `decode`."""
        text = self.decode(sequences, skip_special_tokens)
        return [text] if isinstance(text, str) else text

    def get_special_tokens_mask(
        self, token_ids_0: Any, token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list:
        """Mark special tokens with 1; unlike elsewhere in transformers, ids may be (C,), (R, C) or (B, R, C).

        This is how transformers' `DataCollatorForLanguageModeling`, which passes already_has_special_tokens=True,
        masks alignments as it does sentences.
        """
        if token_ids_1 is not None or not already_has_special_tokens:
            return super().get_special_tokens_mask(token_ids_0, token_ids_1, already_has_special_tokens)
        return np.isin(np.asarray(token_ids_0), self.all_special_ids).astype(int).tolist()

    def _decode_nested(self, ids: Any, letters: dict[int, str], skip: bool) -> Any:
        ids = ids.tolist() if hasattr(ids, "tolist") else ids
        ids = [ids] if isinstance(ids, int) else ids
        if len(ids) and hasattr(ids[0], "tolist"):
            ids = [row.tolist() for row in ids]
        if len(ids) == 0 or isinstance(ids[0], int):
            try:
                return "".join([letters[i] for i in ids])
            except KeyError as error:
                raise ValueError(f"{error} is not a token id. Replace labels of -100 first.") from None
        if skip:
            ids = [row for row in ids if len(row) == 0 or row.count(self.pad_token_id) < len(row)]
        return [self._decode_nested(row, letters, skip) for row in ids]

    def _check_padding_side(self, side: str | None) -> None:
        if (side or self.padding_side) != "right":
            raise ValueError("Alignments are padded below and on the right: pass padding_side='right'.")

    def _limits(
        self, strategy: PaddingStrategy, cut: bool, max_depth: int | None, max_length: int | None
    ) -> tuple[int, int]:
        """Maximum numbers of rows and columns."""
        for name, value in (("max_depth", max_depth), ("max_length", max_length)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        if max_depth is None and cut:
            max_depth = self.model_max_depth
        if max_length is None and (cut or strategy == PaddingStrategy.MAX_LENGTH):
            max_length = self.model_max_length
        return max_depth or _NO_LIMIT, max_length or _NO_LIMIT

    def _check_sizes(self, msas: list[np.ndarray], limits: tuple[int, int], verbose: bool) -> None:
        usual = ("model_max_depth", self.model_max_depth), ("model_max_length", self.model_max_length)
        for axis, axis_name in enumerate(("rows", "token columns")):
            i = max(range(len(msas)), key=lambda k: msas[k].shape[axis])
            size, limit = msas[i].shape[axis], limits[axis]
            what = f"MSA {i} has {size} {axis_name}"
            # Elsewhere in transformers max_length alone cuts; here residues are lost only on request.
            if size > limit:
                raise ValueError(f"{what}, more than the limit of {limit}: pass truncation=True to cut it.")
            if limit == _NO_LIMIT and verbose and size > usual[axis][1]:
                warnings.warn(
                    f"{what}, more than {usual[axis][0]}={usual[axis][1]}: the model will refuse it. Pass "
                    "truncation=True, or choose fewer rows or columns.",
                    stacklevel=3,
                )

    def _cut_columns(self, codes: np.ndarray, keep: int) -> np.ndarray:
        if self.truncation_side == "left":
            return np.concatenate([codes[:, :1], codes[:, 1:][:, -keep:][:, :keep]], axis=1)
        return codes[:, : 1 + keep]

    def _tables(self) -> tuple[np.ndarray, dict[str, int]]:
        """Lookup table from character code to id, and the tokens of several letters; made again after add_tokens."""
        if self._cached_tables is None or self._cached_tables[0] != len(self):
            vocab = self.get_vocab()
            letters = {ord(token): i for token, i in vocab.items() if len(token) == 1}
            # The last entry serves all codes beyond the table.
            table = np.full(max(256, *letters) + 2, _UNKNOWN)
            table[[ord(c) for c in string.ascii_lowercase]] = _LOWERCASE
            table[[ord(c) for c in string.whitespace]] = _WHITESPACE
            table[list(letters)] = list(letters.values())
            written = sorted((token for token in vocab if len(token) > 1), key=len, reverse=True)
            self._cached_tables = len(self), table, {token: vocab[token] for token in written}
        return self._cached_tables[1:]

    def _codes(self, rows: list[str] | np.ndarray, names: Sequence | None, msa: int) -> np.ndarray:
        """Character codes (R, 1 + L); column 0 is a line feed, in the place of `<cls>`."""
        if len(rows) == 0:
            raise ValueError(f"MSA {msa} has no rows.")
        if isinstance(rows, np.ndarray):
            codes = np.concatenate([np.full((len(rows), 1), ord("\n"), np.uint8), rows], axis=1)
        else:
            text = "".join(["\n" + row for row in rows])
            for token, i in self._tables()[1].items():
                text = text.replace(token, chr(_PRIVATE + i))
            if text.isascii():
                flat = np.frombuffer(text.encode("ascii"), np.uint8)
            else:
                flat = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
            starts = np.flatnonzero(flat == ord("\n"))
            if len(starts) != len(rows):
                row = next(r for r, text in enumerate(rows) if "\n" in text)
                raise ValueError(f"{_place(msa, row, names)} contains a line feed: strip() the rows.")
            lengths = np.diff(starts, append=len(flat)) - 1
            if (wrong := np.flatnonzero(lengths != lengths[0])).size:
                raise ValueError(
                    f"{_place(msa, wrong[0], names)} has {lengths[wrong[0]]} columns and the first row has "
                    f"{lengths[0]}: all rows must have the same length. Align them first, or read an A3M file with "
                    "read_alignment(), which drops insertions."
                )
            codes = flat.reshape(len(rows), -1)
        if codes.shape[1] == 1:
            raise ValueError(f"{_place(msa, 0, names)} is empty: an alignment needs at least one column.")
        return codes

    def _lookup(self, codes: np.ndarray, names: Sequence | None, msa: int, add_special_tokens: bool) -> np.ndarray:
        """Token ids (R, 1 + L) of character codes, _UNKNOWN included."""
        ids = self._tables()[0].take(codes, mode="clip")
        ids[:, 0] = self.cls_token_id
        if codes.dtype != np.uint8:
            written = codes >= _PRIVATE
            ids[written] = codes[written] - _PRIVATE
            structure = [self.cls_token_id, self.pad_token_id, self.eos_token_id]
            if add_special_tokens and (hits := np.argwhere(np.isin(ids[:, 1:], structure))).size:
                row, column = hits[0] + (0, 1)
                token = self.convert_ids_to_tokens(int(ids[row, column]))
                raise ValueError(
                    f"{_place(msa, row, names, column)}: {token} is written in the row, but the tokenizer adds it. "
                    "Leave it out, or pass add_special_tokens=False."
                )
        if ids.min() < _UNKNOWN:
            row, column = np.argwhere(ids < _UNKNOWN)[0]
            fix = "strip() the rows."
            if ids[row, column] == _LOWERCASE:
                fix = (
                    "lowercase letters are insertions of an A3M or A2M file, not columns. Read the file with "
                    "read_alignment(), which drops them, or use upper() if case means nothing in your rows."
                )
            raise ValueError(f"{_place(msa, row, names, column)}: {chr(codes[row, column])!r}; {fix}")
        return ids


def _count(codes: np.ndarray) -> dict[str, int]:
    found, counts = np.unique(codes, return_counts=True)
    return {chr(code): int(n) for code, n in zip(found, counts, strict=True)}


def _warn_of_unknown(counts: Counter[str], first: str) -> None:
    """Warn of the characters of one call that are not in the alphabet (fair-esm stops with a KeyError)."""
    total = counts.total()
    shown = ", ".join(f"{c!r} ({n})" for c, n in counts.most_common(10))
    more = ", ..." if len(counts) > 10 else ""
    warnings.warn(
        f"{total} character{'s are' if total > 1 else ' is'} not in the alphabet and became <unk>: {shown}{more}; "
        f"first at {first}",
        stacklevel=3,
    )


def _reject(text_pair: Any, kwargs: dict[str, Any]) -> None:
    """Refuse arguments that mean nothing for alignments, unless they are off."""
    if text_pair is not None:
        raise ValueError("There are no pairs of alignments: pass a list of alignments as the first argument.")
    wrong = [name for name, value in kwargs.items() if name not in _NOT_FOR_MSAS or value]
    if wrong:
        raise TypeError(f"MsaTokenizer does not support {', '.join(wrong)}.")


def _padding_strategy(padding: bool | str | PaddingStrategy | None) -> PaddingStrategy:
    if isinstance(padding, str):
        return PaddingStrategy(padding)
    return PaddingStrategy.LONGEST if padding else PaddingStrategy.DO_NOT_PAD


def _is_cutting(truncation: bool | str | TruncationStrategy | None) -> bool:
    if isinstance(truncation, str):
        return TruncationStrategy(truncation) != TruncationStrategy.DO_NOT_TRUNCATE
    return bool(truncation)


def is_row(x: Any) -> bool:
    """Whether `x` is one row of an alignment: a sequence, or a tuple (name, sequence)."""
    return isinstance(x, str) or (isinstance(x, tuple) and len(x) == 2 and all(isinstance(part, str) for part in x))


def is_batch(x: Any) -> bool:
    """Whether `x` is several alignments: a list of anything but rows, or an array of three axes."""
    if isinstance(x, np.ndarray):
        return x.ndim > 2
    if is_row(x) or not isinstance(x, Sequence) or hasattr(x, "array"):
        return False
    return len(x) > 0 and not is_row(x[0])


def _as_batch(text: Any) -> list[tuple[list[str] | np.ndarray, Sequence | None]]:
    """Rows, and names if known, of each alignment."""
    msas = text if is_batch(text) else [[text] if is_row(text) else text]
    if len(msas) == 0:
        raise ValueError("There is nothing to tokenize: the batch is empty.")
    return [_as_msa(msa, i) for i, msa in enumerate(msas)]


def _as_msa(msa: Any, i: int) -> tuple[list[str] | np.ndarray, Sequence | None]:
    names, array = getattr(msa, "names", None), getattr(msa, "array", msa)
    if isinstance(array, np.ndarray) and array.ndim == 2:
        if array.dtype == "S1":
            array = np.ascontiguousarray(array).view(np.uint8)
        if array.dtype != np.uint8:
            raise TypeError(f"MSA {i} is an array of {array.dtype}; pass uint8 (ASCII codes) or S1.")
        return array, names
    if is_row(msa) or not isinstance(msa, (Sequence, np.ndarray)):
        what = "a single row: put it into a list" if is_row(msa) else f"of type {type(msa).__name__}"
        raise TypeError(f"MSA {i} of the batch is {what}. An MSA is a list of rows, an array (R, L) or an Alignment.")
    for r, row in enumerate(msa):
        if not is_row(row):
            raise TypeError(f"MSA {i}, row {r + 1} is {type(row).__name__}, not a string or a tuple (name, sequence).")
    if any(isinstance(row, tuple) for row in msa):
        names = [row[0] if isinstance(row, tuple) else "" for row in msa]
    return [row[1] if isinstance(row, tuple) else row for row in msa], names


def _place(msa: int, row: int, names: Sequence | None, column: int | None = None) -> str:
    """Name a place in the words of errors; rows and columns, without `<cls>`, count from 1."""
    name = f" ({names[row]})" if names is not None and names[row] else ""
    return f"MSA {msa}, row {row + 1}{name}" + ("" if column is None else f", column {column}")


def _padded_shape(
    msas: list[np.ndarray], strategy: PaddingStrategy, max_depth: int | None, max_columns: int, multiple: int | None
) -> tuple[int, int] | None:
    """Rows and columns to pad to; None without padding."""
    if strategy == PaddingStrategy.DO_NOT_PAD:
        return None
    rows, columns = (max(ids.shape[axis] for ids in msas) for axis in (0, 1))
    if strategy == PaddingStrategy.MAX_LENGTH:
        rows, columns = max_depth or rows, max_columns
    multiple = multiple or 1
    return rows, -(-columns // multiple) * multiple


def _label_side(labels: list[np.ndarray], msas: list[np.ndarray]) -> int | None:
    """0 if there is a label for each token (C,), 1 if for each residue pair (C - 1, C - 1), None for other labels."""
    columns = [ids.shape[1] for ids in msas]
    if all(label.shape == (c,) for label, c in zip(labels, columns, strict=True)):
        return 0
    return 1 if all(label.shape == (c - 1, c - 1) for label, c in zip(labels, columns, strict=True)) else None


def _pad_all(arrays: list[np.ndarray], shape: tuple[int, ...] | None, fill: int) -> list[np.ndarray]:
    if shape is None:
        return arrays
    widths = ([(0, to - size) for to, size in zip(shape, array.shape, strict=True)] for array in arrays)
    return [np.pad(array, width, constant_values=fill) for array, width in zip(arrays, widths, strict=True)]


def _stack(msas: list[np.ndarray], return_tensors: str | None) -> Any:
    """Nested lists, or an array or tensor (B, R, C)."""
    if return_tensors is None:
        return [ids.tolist() for ids in msas]
    if return_tensors not in ("pt", "np"):
        raise ValueError(f"return_tensors={return_tensors!r}; pass 'pt', 'np' or None.")
    if len({ids.shape for ids in msas}) > 1:
        sizes = ", ".join(str(ids.shape) for ids in msas[:5])
        raise ValueError(f"MSAs of different (rows, columns), {sizes}, do not fit one tensor: pass padding=True.")
    batch = np.stack(msas)
    return torch.from_numpy(batch) if return_tensors == "pt" else batch


def _to_array(value: Any) -> np.ndarray:
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else np.asarray(value)


def _one_msa(array: np.ndarray) -> np.ndarray:
    """Array (R, C) of one feature, which may also be a row (C,) or a batch of one (1, R, C)."""
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim not in (1, 2) or array.dtype.kind not in "iu":
        raise ValueError(f"input_ids of an MSA must be integers (R, C), not {array.dtype} {array.shape}.")
    return np.atleast_2d(array)


def _columns_of_features(encoded: Any) -> dict[str, Any]:
    """For each key the values, one per alignment."""
    if isinstance(encoded, Mapping):
        features = dict(encoded)
        if len(features.get("input_ids", ())) and np.ndim(features["input_ids"][0]) == 1:
            features = {key: [value] for key, value in features.items()}
    else:
        features = {key: [feature[key] for feature in encoded] for key in (encoded[0] if len(encoded) else ())}
    if not len(features.get("input_ids", ())):
        raise ValueError(f"Padding requires input_ids; the features have {list(features)}.")
    return features


MsaTokenizer.register_for_auto_class("AutoTokenizer")

__all__ = ["MsaTokenizer", "is_batch", "is_row"]
