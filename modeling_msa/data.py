"""Alignments for training: datasets, batches of alike size, and collators.

A feature is one alignment, ``{"alignment": Alignment or uint8 (R, L)}`` or ``{"sequences": list of str}``, with
optional ``labels`` and ``visit``. A collator chooses rows and columns anew at each visit, turns them into tokens and
pads them: `MsaDataCollatorForMaskedLM` for pretraining, the other three for labels.

All random choices follow from a seed and from the visit ``(epoch, example)``, so that a batch depends neither on how
many worker processes there are nor on whether a run was resumed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from .alignment import Alignment, AlignmentError, _format_of, read_alignment
from .sampling import diverse_rows, first_rows, random_rows, weighted_rows
from .tokenization_msa import MsaTokenizer

logger = logging.getLogger(__name__)

_GAP = ord("-")
_IGNORE = -100
_LIST_SUFFIXES = (".txt", ".list", ".lst")


def list_alignments(source: str | os.PathLike[str]) -> list[Path]:
    """List the alignment files of a folder, of a list file, or the one file itself; none is opened.

    Parameters
    ----------
    source : str or path-like
        A folder (searched with its subfolders for ``.a3m .a2m .fasta .fa .afa .aln .sto .stk .stockholm``, with or
        without ``.gz`` or ``.xz``), a list (``.txt .list .lst``: one path a line, from the list's folder; ``#`` begins
        a comment), or one alignment file.

    Returns
    -------
    paths : list of Path
        Sorted, or in the order of the list.

    Raises
    ------
    FileNotFoundError
        If `source`, or a file that a list names, is not there.
    ValueError
        If there is no alignment.
    """
    source = Path(source)
    if source.is_dir():
        paths = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(source, followlinks=True)
            for name in names
            if _format_of(name) and not name.startswith(".")
        )
        if not paths:
            raise ValueError(f"{source}: the folder has no alignment (.a3m, .a2m, .fasta, .sto ..., .gz, .xz).")
        return paths
    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder of alignments.")
    if source.suffix.lower() not in _LIST_SUFFIXES:
        return [source]
    lines = [line.strip() for line in source.read_text().splitlines()]
    paths = [source.parent / line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise ValueError(f"{source}: the list names no alignment; give one path a line.")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{source}: {len(missing)} of {len(paths)} files are not there, the first is {missing[0]}; paths count "
            "from the list's folder."
        )
    return paths


def name_of(path: str | os.PathLike[str]) -> str:
    """Name of an alignment file, without the endings of format and compression.

    Examples
    --------
    >>> name_of("families/1abc_A.a3m.gz")
    '1abc_A'
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix.lower() in (".gz", ".xz") else path
    return path.stem if _format_of(path.name) else path.name


class MsaDataset(Dataset):
    """Alignments, listed at the start and read when asked for.

    Parameters
    ----------
    source : str, path-like, or list of paths and `Alignment`
        See `list_alignments`; a list may mix files and alignments.
    labels : mapping of str to label, optional
        By the name of the alignment (`name_of` its file). The examples are then those with a label.
    format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        Of all files; default: by their endings.
    on_error : {"raise", "skip"}, default "raise"
        What an unreadable file does. Skipped, it is replaced by the next readable one, and is in `unreadable`.
    fixed : bool, default False
        For evaluation: every visit draws the same rows, columns and masks.

    Raises
    ------
    FileNotFoundError, ValueError
        If a source is not there, there is no alignment, or labels and alignments do not go together.

    Examples
    --------
    >>> from modeling_msa.alignment import bundled_family
    >>> dataset = MsaDataset([bundled_family()], labels={"fn3": 1})
    >>> dataset[0]["name"], dataset[0]["alignment"].depth, dataset[0]["visit"], dataset[0]["labels"]
    ('fn3', 98, (0, 0), 1)
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Iterable[str | os.PathLike[str] | Alignment],
        *,
        labels: Mapping[str, Any] | None = None,
        format: str | None = None,
        on_error: str = "raise",
        fixed: bool = False,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}.")
        self.items = _list_items(source)
        self.names = [_item_name(item) for item in self.items]
        self.labels = labels
        self.format = format
        self.on_error = on_error
        self.fixed = fixed
        # In shared memory: worker processes that outlive an epoch see the next one, and tell what they could not read.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        if labels is not None:
            self._keep_labelled(labels)
        self._failed = torch.zeros(len(self.items), dtype=torch.bool).share_memory_()
        self._messages: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.items)

    @property
    def epoch(self) -> int:
        """What `set_epoch` said last; 0 at first."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Begin a new pass, in which rows, columns and masks are drawn anew; reaches running workers."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        count = len(self.items)
        if not -count <= index < count:
            raise IndexError(f"there is no example {index} of {count}")
        index %= count
        for k in range(index, index + count):
            k %= count
            if self._failed[k]:
                continue
            try:
                alignment = self._read(k)
            except (OSError, ValueError) as error:
                if self.on_error == "raise":
                    raise
                self._failed[k] = True
                self._messages[k] = str(error)
                logger.warning("skipped: %s", error)
                continue
            feature = {
                "name": self.names[k],
                "alignment": alignment,
                "visit": (0 if self.fixed else self.epoch, index),
            }
            return feature if self.labels is None else {**feature, "labels": self.labels[self.names[k]]}
        first = next(iter(self.unreadable.values()))
        raise AlignmentError(f"none of the {count} alignments can be read; the first: {first}")

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that were skipped and why, those of worker processes included."""
        for k in np.flatnonzero(self._failed.numpy()).tolist():
            if k not in self._messages:  # a worker has the message: find it again
                try:
                    self._read(k)
                    self._messages[k] = f"{self.items[k]}: could not be read for a time"
                except (OSError, ValueError) as error:
                    self._messages[k] = str(error)
        return {str(self.items[k]): self._messages[k] for k in sorted(self._messages)}

    def _read(self, index: int) -> Alignment:
        item = self.items[index]
        return item if isinstance(item, Alignment) else read_alignment(item, self.format)

    def _keep_labelled(self, labels: Mapping[str, Any]) -> None:
        places: dict[str, int] = {}
        for k, name in enumerate(self.names):
            if name in labels and places.setdefault(name, k) != k:
                raise ValueError(
                    f"{self.items[places[name]]} and {self.items[k]} have one name, {name!r}: labels go by name."
                )
        missing = [name for name in labels if name not in places]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(labels)} labels have no alignment, the first is {missing[0]!r}; labels go by "
                f"the file's name without endings, such as {self.names[0]!r}."
            )
        kept = sorted(places.values())
        self.items, self.names = [self.items[k] for k in kept], [self.names[k] for k in kept]


def _list_items(source: Any) -> list[Path | Alignment]:
    if isinstance(source, (str, os.PathLike)):
        return list(list_alignments(source))
    if isinstance(source, Alignment):
        return [source]
    items = [item if isinstance(item, Alignment) else Path(item) for item in source]
    if not items:
        raise ValueError("the dataset is empty: the list of alignments has no entry.")
    return items


def _item_name(item: Path | Alignment) -> str:
    if isinstance(item, Alignment):
        return name_of(item.source) if item.source else (item.names[0].split() or [""])[0]
    return name_of(item)


class _Example(NamedTuple):
    ids: np.ndarray  # (R, C) int64, <cls> first
    columns: slice  # of the alignment's L match columns
    feature: Mapping[str, Any]
    random: np.random.Generator


@dataclass
class MsaDataCollator:
    """Choose rows and columns of alignments, tokenize and pad them.

    Rao et al. (2021, section 3): each MSA has a budget of 2^14 tokens, so a long one shows fewer rows.

    Parameters
    ----------
    tokenizer : MsaTokenizer
        Its `model_max_length` and `model_max_depth` bound what the model takes.
    max_tokens : int, default 2**14
        Most tokens of one MSA: rows times columns, with ``<cls>``.
    max_rows, max_columns : int, default 1024
        Most rows, and most columns with ``<cls>``.
    min_rows : int, default 1
        Fewest rows that a log-uniform depth draws.
    select : {"random", "diverse", "weighted", "first"}, default "random"
        Which rows; see `modeling_msa.select_rows`. The query is always kept.
    depth : {"full", "log_uniform"}, default "full"
        As many rows as fit, or a number drawn evenly on a logarithmic scale from `min_rows` to that. One quantile is
        drawn for a batch, so that MSAs alike in size stay alike.
    crop : {"random", "first"}, default "random"
        Which stretch of columns of an alignment that is too long.
    random_positions : bool, default False
        Begin the columns at a random place of the position table (`position_ids`), so that short families train the
        whole table; ``<cls>`` keeps place 0.
    seed : int, default 0
        Of all draws, together with the feature's `visit`. A feature without `visit` draws from torch's generator.

    Examples
    --------
    >>> from modeling_msa.alignment import bundled_family, read_alignment
    >>> collator = MsaDataCollator(MsaTokenizer(), max_tokens=2048)
    >>> batch = collator([{"alignment": read_alignment(bundled_family()), "visit": (0, 0)}])
    >>> batch["input_ids"].shape  # 2048 // (117 + 1) rows
    torch.Size([1, 17, 118])
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
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {
            "select": ("random", "diverse", "weighted", "first"),
            "depth": ("full", "log_uniform"),
            "crop": ("random", "first"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is one of {', '.join(known)}, not {getattr(self, name)!r}.")
        for name, least in {"max_tokens": 2, "max_rows": 1, "max_columns": 2, "min_rows": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        # ASCII code -> token id; -1 where only the tokenizer knows what to say
        self._ids = np.full(256, -1, dtype=np.int64)
        letters = {ord(token): i for token, i in self.tokenizer.get_vocab().items() if len(token) == 1}
        self._ids[list(letters)] = list(letters.values())

    def size(self, depth: int, length: int) -> tuple[int, int]:
        """Rows and token columns that an alignment of this depth and length gets, at full depth."""
        columns = min(length + 1, self.max_columns, self.tokenizer.model_max_length, self.max_tokens)
        rows = min(depth, self.max_rows, self.tokenizer.model_max_depth, self.max_tokens // columns)
        return rows, columns

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Parameters
        ----------
        features : sequence of mappings
            See the module's head.

        Returns
        -------
        batch : dict
            `input_ids` and `attention_mask`, int64 (B, R, C); `position_ids`, int64 (B, C), with `random_positions`;
            `labels`, where there are any.

        Raises
        ------
        ValueError
            If a feature has no alignment, or labels that do not fit it; the message names the example.
        """
        quantile = self._generator(features[0], 1).random() if self.depth == "log_uniform" else 1.0
        examples = [self._example(feature, quantile) for feature in features]
        rows, columns = (max(example.ids.shape[axis] for example in examples) for axis in (0, 1))
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
        """Labels of a batch; may change its token ids (B, R, C) in place."""
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
            occupied = (rows != _GAP).any(axis=1)  # a fragment from elsewhere says nothing here
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
        if self.select == "random":
            return rows[random_rows(rows, depth, int(random.integers(2**62)))]
        if self.select == "weighted":
            return rows[weighted_rows(rows, depth, int(random.integers(2**62)))]
        return rows[(diverse_rows if self.select == "diverse" else first_rows)(rows, depth)]

    def _positions(self, examples: list[_Example], columns: int) -> np.ndarray:
        table = self.tokenizer.model_max_length
        positions = np.tile(np.arange(columns), (len(examples), 1))
        for k, example in enumerate(examples):
            positions[k, 1:] += example.random.integers(table - example.ids.shape[1] + 1)
        return np.minimum(positions, table - 1)  # only padding reaches past the table


def _codes_of(feature: Mapping[str, Any]) -> np.ndarray:
    """ASCII codes (R, L) of a feature's rows."""
    if "alignment" in feature:
        alignment = feature["alignment"]
        array = alignment.array if isinstance(alignment, Alignment) else np.asarray(alignment)
        if array.dtype != np.uint8 or array.ndim != 2 or 0 in array.shape:
            raise ValueError(
                f"{_label(feature)}: an alignment is an Alignment or a uint8 array (R, L), not {array.dtype} "
                f"{array.shape}."
            )
        return array
    if "sequences" not in feature:
        raise ValueError(
            f"a feature has neither 'alignment' nor 'sequences', but {sorted(feature)}; under Trainer, set "
            "remove_unused_columns=False."
        )
    rows = feature["sequences"]
    text = "".join(rows)
    if not text or not text.isascii() or len(set(map(len, rows))) > 1:
        return Alignment.from_sequences(rows, format="fasta", source=_label(feature)).array  # says what is wrong
    return np.frombuffer(text.encode("ascii"), dtype=np.uint8).reshape(len(rows), -1)


def _label(feature: Mapping[str, Any]) -> str:
    """How messages call an example."""
    alignment = feature.get("alignment")
    source = alignment.source if isinstance(alignment, Alignment) else None
    return source or feature.get("name") or "an example"


@dataclass
class MsaDataCollatorForMaskedLM(MsaDataCollator):
    """Mask residues and gaps of alignments, for pretraining and continued pretraining.

    Rao et al. (2021, section 3): 15 % of the positions, evenly over rows and columns, are targets; of these 80 % are
    replaced by ``<mask>``, 10 % by a random letter, and 10 % are left as they are. ``<cls>``, padding and characters
    outside the alphabet are never targets. A batch has at least one target: should the draw give none, one position
    is chosen and masked.

    Parameters
    ----------
    mlm_probability : float, default 0.15
        Share of the positions that are targets.
    mask_replace_prob, random_replace_prob : float, default 0.8 and 0.1
        Share of the targets that is masked, and that is replaced by one of the 20 amino acids (or a gap, with
        `mask_gaps`).
    mask_gaps : bool, default True
        Whether gaps are targets too, as they are in the paper. Without them a batch of gaps alone still has one
        target, a gap.
    mask_columns : float, default 0.0
        Share of the targets that comes as whole columns, in which no other row gives the answer away: all rows of
        such a column are masked, replaced or left together. The rate as a whole stays `mlm_probability`.

    Examples
    --------
    >>> from modeling_msa.alignment import bundled_family, read_alignment
    >>> collator = MsaDataCollatorForMaskedLM(MsaTokenizer())
    >>> batch = collator([{"alignment": read_alignment(bundled_family()), "visit": (0, 0)}])
    >>> share = (batch["labels"] != -100).sum() / (98 * 117)
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
            raise ValueError(f"mlm_probability is a share, above 0 and at most 1, not {self.mlm_probability}.")
        for name in ("mask_replace_prob", "random_replace_prob", "mask_columns"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, from 0 to 1, not {getattr(self, name)}.")
        if self.mask_replace_prob + self.random_replace_prob > 1 + 1e-9:
            raise ValueError("mask_replace_prob and random_replace_prob together must not be over 1.")
        gap = int(self._ids[_GAP])
        self._targets = np.zeros(len(self.tokenizer), dtype=bool)  # token ids that may be targets
        self._targets[self._ids[self._ids >= 0]] = True
        self._targets[gap] = self.mask_gaps
        letters = self._ids[list(b"ACDEFGHIKLMNPQRSTVWY")]
        self._letters = np.append(letters, gap) if self.mask_gaps else letters

    def make_labels(self, examples: list[_Example], ids: np.ndarray) -> dict[str, np.ndarray]:
        """Labels int64 (B, R, C): the token where it is a target, else -100; masks `ids` in place."""
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
        # A draw below 1 is a target, and where it lies in [0, 1) says what becomes of it.
        draws = random.random(ids.shape, dtype=np.float32) / np.float32(max(rate, 1e-30))
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
        raise ValueError("a batch has no letter of the alphabet that could be a target; check the alignments.")
