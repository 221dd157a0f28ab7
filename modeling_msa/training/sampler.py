"""Sampling of batches whose alignments have similar numbers of rows and columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from .collators import MsaDataCollator


class SizeGroupedSampler(Sampler[int]):
    """A shuffle in which the alignments of a batch have similar numbers of rows and columns, to save padding.

    Each pool of some batches, drawn at random, is halved along the axis in which its alignments differ most, until
    each part is one batch; the batches of a pool come in random order. Sizes are looked up pool by pool, so that
    100,000 files need not be opened before the first step.

    Parameters
    ----------
    dataset : MsaDataset, VariantDataset, or another with `size(index)`
        This sampler tells it about each epoch; the order depends on its `epoch` and on `seed`.
    batch_size : int
        Number of examples in one batch, or in one step of all processes.
    collator : MsaDataCollator, optional
        Decides the rows and columns of alignments of a size; default: a collator's default budget.
    pool_batches : int, default 64
        Number of batches in a pool.
    seed : int, default 0
        Random seed, the same in all processes.

    Examples
    --------
    >>> sizes = [(1000, 60), (4, 60), (1000, 300), (4, 61), (900, 61), (800, 290)]
    >>> families = [np.full(size, 65, dtype=np.uint8) for size in sizes]
    >>> class Families(list):
    ...     def size(self, index):
    ...         return self[index].shape
    >>> order = list(SizeGroupedSampler(Families(families), batch_size=2))
    >>> sorted(sorted(order[k : k + 2]) for k in (0, 2, 4))
    [[0, 4], [1, 3], [2, 5]]
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        collator: MsaDataCollator | None = None,
        *,
        pool_batches: int = 64,
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or pool_batches < 1:
            raise ValueError(f"batch_size and pool_batches must be at least 1, not {batch_size} and {pool_batches}.")
        if not hasattr(dataset, "size"):
            raise ValueError(f"{type(dataset).__name__} has no size(index), which grouping requires.")
        self.dataset = dataset
        self.batch_size = batch_size
        self.collator = collator
        self.pool_batches = pool_batches
        self.seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Begin a new pass, in another order, and tell the dataset."""
        self._epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __iter__(self) -> Iterator[int]:
        # after resuming a run of several processes, accelerate tells the dataset about epochs but not every sampler
        random = np.random.default_rng([self.seed, getattr(self.dataset, "epoch", self._epoch)])
        order = random.permutation(len(self.dataset))
        for start in range(0, len(order), pool := self.pool_batches * self.batch_size):
            index = order[start : start + pool]
            batches = self._halve(index, np.log([self._size(k) for k in index.tolist()]))
            complete = len(index) // self.batch_size  # an incomplete batch stays the last
            for k in (*random.permutation(complete).tolist(), *range(complete, len(batches))):
                yield from batches[k].tolist()

    def _size(self, index: int) -> tuple[int, int]:
        depth, length = self.dataset.size(index)
        if self.collator is not None:
            return self.collator.size(depth, length)
        columns = min(length + 1, MsaDataCollator.max_columns)
        return min(depth, MsaDataCollator.max_rows, MsaDataCollator.max_tokens // columns), columns

    def _halve(self, index: np.ndarray, logs: np.ndarray) -> list[np.ndarray]:
        """Batches of indices with similar logarithms (n, 2) of their sizes."""
        if len(index) <= self.batch_size:
            return [index]
        order = np.argsort(logs[:, np.ptp(logs, axis=0).argmax()], kind="stable")
        half = -(-len(order) // (2 * self.batch_size)) * self.batch_size
        left, right = order[:half], order[half:]
        return self._halve(index[left], logs[left]) + self._halve(index[right], logs[right])
