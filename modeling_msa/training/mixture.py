"""A mixture of sources of families in given shares: alignments of files, and simulated ones made on the fly.

Each item of `MixedFamilies` is a whole batch of families of similar size. It depends on the seed and its number alone,
so the batches are the same for any number of worker processes, any number of processes train on different ones, and a
resumed run does not make again what it has trained on.

Axes: R rows, L columns of one family, without ``<cls>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from .._words import counted
from .arguments import SIMULATED
from .simulation import family_size, make_family

# Simulated families are numbered in lanes. An item is of one lane and draws from some of its families, which move on
# by one an item. A worker has few of the lanes, so it uses most families that it makes more than once.
_LANES, _WINDOW = 16, 32
_SEED = 100_000  # far from those of held-out families
_SHORTEST = 20  # residues of a row that may be the query
_ATTEMPTS = 200
_FIRST = 0.3  # probability that the first row is the query
_GAP = ord("-")


class SimulatedSource:
    """Families that are simulated when they are drawn, every third one "natural"; the first row is the query."""

    any_query = False

    def __init__(self, seed: int) -> None:
        self.seed = _SEED + seed

    def __str__(self) -> str:
        return SIMULATED

    def draw(self, item: int, random: np.random.Generator) -> int:
        """Draw the number of a family for an item."""
        return (item // _LANES + int(random.integers(_WINDOW))) * _LANES + item % _LANES

    def size(self, number: int) -> tuple[int, int]:
        """Depth, and nearly the length."""
        return family_size(self.seed, number, _kind(number))

    def codes(self, number: int) -> np.ndarray:
        """Letters, uint8 (R, L)."""
        return _simulated(self.seed, number)


def _kind(number: int) -> str:
    return "natural" if number % 3 == 0 else "varied"


@lru_cache(_LANES * _WINDOW)
def _simulated(seed: int, number: int) -> np.ndarray:
    return make_family(seed, number, _kind(number))[0].array


class FileSource:
    """Alignments of shards or files, drawn with weights that grow with the logarithm of their depth.

    Any row may be the query: the columns are then those in which it has a residue. Parameters as in
    `load_alignments`.
    """

    any_query = True

    def __init__(self, name: str, *, input_format: str | None = None, on_error: str = "raise") -> None:
        from .shards import load_alignments  # imports datasets, which most runs do without

        self.name = name
        self.rows = load_alignments(name, input_format=input_format, on_error=on_error).select_columns(["sequences"])
        import pyarrow.compute as pc  # after load_alignments has said what is not installed

        column = self.rows.data.column("sequences")
        self.depths = pc.list_value_length(column).to_numpy()
        self.lengths = pc.binary_length(pc.list_element(column, 0)).to_numpy()
        weights = np.log1p(self.depths)
        self.bounds = (weights / weights.sum()).cumsum()

    def __str__(self) -> str:
        name = self.name if "://" in self.name else Path(self.name).resolve().name
        return f"{name} ({counted(len(self.depths), 'alignment')})"

    def draw(self, item: int, random: np.random.Generator) -> int:
        """Draw the number of an alignment."""
        return min(int(np.searchsorted(self.bounds, random.random(), "right")), len(self.bounds) - 1)

    def size(self, number: int) -> tuple[int, int]:
        """Depth and length."""
        return int(self.depths[number]), int(self.lengths[number])

    def codes(self, number: int) -> np.ndarray:
        """Letters, uint8 (R, L)."""
        rows = self.rows[number]["sequences"]
        return np.frombuffer("".join(rows).encode("ascii"), np.uint8).reshape(len(rows), -1)


@dataclass(frozen=True)
class BatchShape:
    """Limits of a batch; see `MixedFamilies`."""

    max_tokens: int = 2**14
    families: int = 1
    max_rows: int = 1024
    max_columns: int = 1024
    min_rows: int = 1
    multiple: int = 1

    def padded(self, columns: int) -> int:
        """Columns of a batch whose longest family has so many, with ``<cls>``."""
        return min(-(-columns // self.multiple) * self.multiple, max(columns, self.max_columns))

    def widest(self, rows: int) -> int:
        """Most columns of a family of so many rows, with ``<cls>``."""
        columns = min(self.max_columns, self.max_tokens // rows)
        return max(columns // self.multiple * self.multiple, 2)


def _is_similar(length: int, other: int) -> bool:
    return abs(length - other) <= 0.15 * other + 3


class MixedFamilies(Dataset):
    """Batches of families of similar size, each batch of one source.

    The number of rows is drawn uniformly on a logarithmic scale for each batch. Families that have fewer rows, or
    whose length differs from the first one's by more than 15 % and three columns, are not added. A family that is too
    long for the budget is cropped at random.

    Parameters
    ----------
    sources : sequence of FileSource and SimulatedSource
    shares : sequence of float
        Shares of the batches; they need not add up to 1.
    batches : int
        Number of batches.
    shape : BatchShape
        One family has at most `max_tokens` tokens, of `min_rows` to `max_rows` rows and at most `max_columns` columns
        with ``<cls>``; a batch has at most `families` times as many tokens, padding to a `multiple` included, and as
        many families as that allows.
    seed : int, default 0

    Notes
    -----
    An item is a list of features for the collators: uint8 arrays (R, L) in which rows and columns have been chosen.
    """

    whole_batches = True

    def __init__(
        self,
        sources: Sequence[FileSource | SimulatedSource],
        shares: Sequence[float],
        batches: int,
        shape: BatchShape,
        seed: int = 0,
    ) -> None:
        self.sources = list(sources)
        self.shares = np.array(shares, dtype=float) / sum(shares)
        self.batches = batches
        self.shape = shape
        self.seed = seed
        self._made = torch.zeros(1024, dtype=torch.int64).share_memory_()  # by worker

    def __len__(self) -> int:
        return self.batches

    def __str__(self) -> str:
        return ", ".join(f"{share:.0%} {source}" for share, source in zip(self.shares, self.sources, strict=True))

    @property
    def made(self) -> int:
        """Number of batches that were made, in this process and its workers."""
        return int(self._made.sum())

    def __getitem__(self, item: int) -> list[dict[str, Any]]:
        if not 0 <= item < self.batches:
            raise IndexError(f"There is no batch {item} among {self.batches}.")
        random = np.random.default_rng([self.seed, item])
        source = self.sources[int(random.choice(len(self.sources), p=self.shares))]
        drawn = source.draw(item, random)
        depth, length = source.size(drawn)
        rows = self._rows(depth, random)
        features: list[dict[str, Any]] = []
        first = width = 0
        for attempt in range(_ATTEMPTS):
            number = source.draw(item, random) if attempt else drawn
            depth, nominal = source.size(number)
            if depth < rows or not _is_similar(nominal, length):
                continue
            codes = self._view(source, number, rows, random)
            columns = codes.shape[1] + 1
            tokens = self.shape.padded(max(width, columns)) * rows * (len(features) + 1)
            if features and (tokens > self._budget or not _is_similar(columns, first)):
                continue
            first = first or columns
            features.append({"alignment": codes, "name": str(source), "visit": (item, len(features))})
            width = max(width, columns)
            if self.shape.padded(width) * rows * (len(features) + 1) > self._budget:
                break
        worker = get_worker_info()
        self._made[0 if worker is None else worker.id] += 1
        return features

    @property
    def _budget(self) -> int:
        return self.shape.max_tokens * self.shape.families

    def _rows(self, depth: int, random: np.random.Generator) -> int:
        """Log-uniform number of rows, all of the family's if it has fewer."""
        most = max(min(self.shape.max_rows, self.shape.max_tokens // (_SHORTEST + 4)), 1)
        least = min(self.shape.min_rows, most)
        return min(depth, most, int(least * ((most + 1) / least) ** random.random()))

    def _view(self, source: Any, number: int, rows: int, random: np.random.Generator) -> np.ndarray:
        """Choose the query, the other rows and the columns of a family, (rows, L)."""
        codes = source.codes(number)
        query = 0
        if source.any_query:
            residues = np.count_nonzero(codes != _GAP, axis=1)
            query = 0 if random.random() < _FIRST else int(random.integers(len(codes)))
            if residues[query] < _SHORTEST:
                query = int(residues.argmax())
        others = random.permutation(len(codes) - 1)[: rows - 1]
        view = codes[np.r_[query, others + (others >= query)]]
        view = view[:, view[0] != _GAP]
        columns = min(view.shape[1], self.shape.widest(rows) - 1)
        start = int(random.integers(view.shape[1] - columns + 1))
        return np.ascontiguousarray(view[:, start : start + columns])
