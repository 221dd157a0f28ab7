"""Datasets for training: the alignments of files, and the variants of a family.

A dataset must be told about each epoch (`set_epoch`), or every pass draws the same rows and masks. Trainer tells the
dataset only if the sampler has no epochs; `SizeGroupedSampler` always passes it on.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .._words import counted
from ..alignments.alignment import Alignment, AlignmentError
from ..alignments.known_contacts import check_shape, label_shape, load_contacts
from ..alignments.listing import Peek, list_alignments, name_of, peek
from ..alignments.reading import format_of, read_alignment
from ..alignments.variants import mutate, parse_variants, read_variants

logger = logging.getLogger(__name__)


class _VisitedDataset(Dataset):
    """A dataset that knows the epoch, in memory shared with worker processes, including persistent ones."""

    def __init__(self, fixed: bool) -> None:
        self.fixed = fixed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that `set_epoch` was called with last; 0 at first."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Begin a new pass, with other rows, columns and masks; reaches running workers."""
        self._epoch.fill_(epoch)

    def _visit(self, index: int) -> tuple[int, int]:
        return (0 if self.fixed else self.epoch, index)


class MsaDataset(_VisitedDataset):
    """Alignments that are listed at the start and read on access.

    Parameters
    ----------
    source : str, path-like, or list of paths and `Alignment`
        See `list_alignments`; a list may mix files, folders and alignments.
    labels : mapping of str to label, optional
        By the name of the alignment (its file's, without endings); other labels are ignored. A label that is a path
        is read with the alignment, see `modeling_msa.alignments.known_contacts.load_contacts`.
    format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        Format of all files; default: by their endings.
    on_error : {"raise", "skip"}, default "raise"
        Whether a file that is unreadable or has no label stops the run or is skipped. A skipped unreadable file is
        replaced by the next readable one, and listed in `unreadable`.
    fixed : bool, default False
        For evaluation: draw the same rows, columns and masks at every visit.

    Raises
    ------
    FileNotFoundError, ValueError
        If a source does not exist, there is no alignment, an alignment has no label, or the number of labels is not
        that of the query's residues (found from the beginning of the file).

    Examples
    --------
    >>> from modeling_msa import bundled_family
    >>> dataset = MsaDataset([bundled_family()], labels={"fn3": 1})
    >>> dataset[0]["name"], dataset[0]["alignment"].depth, dataset[0]["visit"], dataset[0]["labels"]
    ('fn3', 1826, (0, 0), 1)
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Alignment | Iterable[str | os.PathLike[str] | Alignment],
        *,
        labels: Mapping[str, Any] | None = None,
        format: str | None = None,
        on_error: str = "raise",
        fixed: bool = False,
    ) -> None:
        super().__init__(fixed)
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', not {on_error!r}.")
        self.items = _list_items(source)
        self.names = [_item_name(item) for item in self.items]
        self.labels = labels
        self.format = format
        self.on_error = on_error
        self._peeks: dict[int, Peek] = {}
        if labels is not None:
            self._keep_labelled(labels)
        # in shared memory, so that worker processes report what they could not read
        self._failed = torch.zeros(len(self.items), dtype=torch.bool).share_memory_()
        self._messages: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        count = len(self.items)
        if not -count <= index < count:
            raise IndexError(f"There is no example {index} among {count}.")
        index %= count
        for k in (*range(index, count), *range(index)):
            if self._failed[k]:
                continue
            try:
                return {**self._read(k), "visit": self._visit(index)}
            except (OSError, ValueError) as error:
                if self.on_error == "raise":
                    raise
                self._failed[k] = True
                self._messages[k] = str(error)
                logger.warning("skipped: %s", error)
        raise AlignmentError(f"None of the alignments can be read.\n{self.report()}")

    def size(self, index: int) -> tuple[int, int]:
        """Depth (estimated) and length of an alignment, from the beginning of its file; (1, 1) if that fails."""
        if index not in self._peeks:
            try:
                self._peeks[index] = peek(self.items[index], self.format)
            except (OSError, ValueError):  # reported when the file is read
                self._peeks[index] = Peek(1, 1, 1)
        return self._peeks[index][:2]

    @property
    def unreadable(self) -> dict[str, str]:
        """Files that this process and its workers skipped, and why."""
        for k in np.flatnonzero(self._failed.numpy()).tolist():
            if k not in self._messages:  # only a worker knows why: try again
                try:
                    self._read(k)
                    self._messages[k] = f"{self.items[k]}: could not be read at that time"
                except (OSError, ValueError) as error:
                    self._messages[k] = str(error)
        return {_where(self.items[k]): self._messages[k] for k in sorted(self._messages)}

    def report(self) -> str:
        """Message with the number and names of the files that were skipped; empty if none was."""
        messages = list(self.unreadable.values())
        if not messages:
            return ""
        return "\n".join([f"{len(messages)} of {counted(len(self), 'alignment')} could not be read:", *messages])

    def _read(self, index: int) -> dict[str, Any]:
        item, name = self.items[index], self.names[index]
        alignment = item if isinstance(item, Alignment) else read_alignment(item, self.format)
        if self.labels is None:
            return {"name": name, "alignment": alignment}
        label = self.labels[name]
        label = load_contacts(label, alignment) if isinstance(label, os.PathLike) else label
        return {"name": name, "alignment": alignment, "labels": label}

    def _keep_labelled(self, labels: Mapping[str, Any]) -> None:
        places: dict[str, int] = {}
        for k, name in enumerate(self.names):
            if name in labels and places.setdefault(name, k) != k:
                first, second = _where(self.items[places[name]]), _where(self.items[k])
                raise ValueError(f"{first} and {second} have the same name, {name!r}, for labels; rename one of them.")
        kept = sorted(places.values())
        without = [name for name in self.names if name not in labels]
        if without:
            message = (
                f"{len(without)} of {counted(len(self.names), 'alignment')} have no label, the first is {without[0]!r}"
            )
            if self.on_error == "raise" or not kept:
                raise ValueError(
                    f"{message}; a label's name must be the file's name without endings, but there are labels of "
                    f"{', '.join(map(repr, list(labels)[:3])) or 'none'}. Remove files without labels, or skip them "
                    "(on_error='skip')."
                )
            logger.warning("skipped: %s", message)
        self.items, self.names = [self.items[k] for k in kept], [self.names[k] for k in kept]
        for k, name in enumerate(self.names):
            shape = label_shape(labels[name])
            if shape and self.size(k) != (1, 1):
                check_shape(shape, self._peeks[k].residues, labels[name], _where(self.items[k]))


def _list_items(source: Any) -> list[Path | Alignment]:
    if isinstance(source, (str, os.PathLike)):
        return list(list_alignments(source))
    if isinstance(source, Alignment):
        return [source]
    items: list[Path | Alignment] = []
    for item in source:
        if isinstance(item, Alignment):
            items.append(item)
            continue
        path = Path(item)  # there may be 100,000: only look at the disk where the ending is not an alignment's
        items += list_alignments(path) if not format_of(path.name) and path.is_dir() else [path]
    if not items:
        raise ValueError("The dataset is empty: the list of alignments has no entry.")
    return items


def _item_name(item: Path | Alignment) -> str:
    if isinstance(item, Alignment):
        return name_of(item.source) if item.source else (item.names[0].split() or [""])[0]
    return name_of(item)


def _where(item: Path | Alignment) -> str:
    return (item.source or item.names[0]) if isinstance(item, Alignment) else str(item)


class VariantDataset(_VisitedDataset):
    r"""One example for each variant of a family: the alignment with its query mutated; the label is a score.

    Parameters
    ----------
    alignment : str, path-like or Alignment
        Query first.
    table : str or path-like
        Comma- or tab-separated; see `modeling_msa.alignments.variants.read_variants`.
    variant_column : str, default "mutant"
        Such as ``A42V`` or ``A42V:G7D``, numbered on the query's residues from 1.
    score_column : str, optional
        Default: the only other column.
    offset : int, default 0
        The table's residue number minus the query's.
    fixed : bool, default False
        See `MsaDataset`.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read, or variants do not match the query; the message counts those that do not.

    Examples
    --------
    >>> import tempfile
    >>> table = Path(tempfile.mkdtemp(), "scores.csv")
    >>> _ = table.write_text("mutant,score\nK2R,0.5\nM1L:V3I,-1\n")
    >>> example = VariantDataset(Alignment.from_sequences(["MKV", "MRV"]), table)[1]
    >>> example["name"], example["alignment"].sequences, example["labels"]
    ('M1L:V3I', ['LKI', 'MRV'], -1.0)
    """

    def __init__(
        self,
        alignment: str | os.PathLike[str] | Alignment,
        table: str | os.PathLike[str],
        variant_column: str = "mutant",
        score_column: str | None = None,
        *,
        offset: int = 0,
        fixed: bool = False,
    ) -> None:
        super().__init__(fixed)
        self.alignment = alignment if isinstance(alignment, Alignment) else read_alignment(alignment)
        rows = read_variants(table, variant_column, score_column)
        self.names = [name for name, _, _ in rows]
        self.scores = [score for _, score, _ in rows]
        lines = [line for _, _, line in rows]
        self.variants = parse_variants(self.names, self.alignment, offset, os.fspath(table), lines)

    def __len__(self) -> int:
        return len(self.variants)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "name": self.names[index],
            "alignment": mutate(self.alignment, self.variants[index]),
            "visit": self._visit(index % len(self)),
            "labels": self.scores[index],
        }

    def take(self, index: Sequence[int], *, fixed: bool = False) -> VariantDataset:
        """Keep some variants, without reading the table again."""
        part = copy.copy(self)
        _VisitedDataset.__init__(part, fixed)  # an epoch of its own
        part.names = [self.names[k] for k in index]
        part.scores = [self.scores[k] for k in index]
        part.variants = [self.variants[k] for k in index]
        return part

    def size(self, index: int) -> tuple[int, int]:
        """Depth and length, the same for all."""
        return self.alignment.depth, self.alignment.length
