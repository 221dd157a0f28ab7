"""Overlapping windows over the columns of an alignment that is longer than the model reads.

Each window is read like an alignment of its own: rows that were chosen on the whole alignment, ``<cls>`` in front.
Where windows overlap, what they say is averaged. Weights fall linearly towards an edge of a window, where residues
lack their surroundings; an end of the protein is not an edge.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

if TYPE_CHECKING:  # so that the command checks its options without torch
    import torch


def check_windows(window: int | None, overlap: int | None, most: int | None = None) -> None:
    """Raise ValueError for windows that cannot be placed, or read by a model of at most `most` residue columns."""
    if window is not None and operator.index(window) < 2:
        raise ValueError(f"window must be at least 2 columns, but is {window}.")
    if window is not None and most is not None and window > most:
        raise ValueError(
            f"window is {window:,} columns, but the model reads at most {most:,}: pass a smaller one, or leave it out."
        )
    if overlap is not None and operator.index(overlap) < 0:
        raise ValueError(f"overlap must be at least 0, but is {overlap}.")
    width = window or most
    if overlap is not None and width is not None and overlap >= width:
        raise ValueError(f"overlap must be smaller than the window of {width:,} columns, but is {overlap:,}.")


@dataclass(frozen=True)
class Windows:
    """Windows of equal width over the L residue columns of an alignment; a single one if it fits.

    Attributes
    ----------
    length : int
        Number of columns, L.
    width : int
        Columns of a window, W, without ``<cls>``.
    starts : tuple of int
        First column of each window, from 0, ascending. The first window begins, and the last one ends, where the
        alignment does.
    """

    length: int
    width: int
    starts: tuple[int, ...]

    @classmethod
    def place(cls, length: int, most: int, window: int | None = None, overlap: int | None = None) -> Windows:
        """Spread as few windows as possible evenly, such that neighbours overlap by at least `overlap` columns.

        All pairs of columns that are at most `overlap` apart are then in some window.

        Parameters
        ----------
        length : int
            Number of columns, L.
        most : int
            Columns that the model reads, without ``<cls>``.
        window : int, optional
            Columns of a window. Default: `most`.
        overlap : int, optional
            Default: half the window, rounded up: 512 of 1,023.

        Raises
        ------
        ValueError
            See `check_windows`.

        Examples
        --------
        >>> Windows.place(3000, 1023).starts
        (0, 494, 988, 1482, 1977)
        >>> Windows.place(1023, 1023)
        Windows(length=1023, width=1023, starts=(0,))
        """
        check_windows(window, overlap, most)
        width = window or most
        if length <= width:
            return cls(length, length, (0,))
        step = width - (-(-width // 2) if overlap is None else overlap)
        steps = -(-(length - width) // step)
        return cls(length, width, tuple(k * (length - width) // steps for k in range(steps + 1)))

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def columns(self) -> list[slice]:
        """Columns of each window."""
        return [slice(start, start + self.width) for start in self.starts]

    @property
    def weights(self) -> list[np.ndarray]:
        """Weights of each window's columns, ``(W,)`` float32, in (0, 1]."""
        falling = np.arange(self.width, 0, -1, dtype=np.float32) / np.float32(self.width)
        made = []
        for start in self.starts:
            left = falling[::-1] if start > 0 else np.ones_like(falling)
            right = falling if start + self.width < self.length else np.ones_like(falling)
            made.append(np.minimum(left, right))
        return made

    @property
    def shares(self) -> list[np.ndarray]:
        """Weights of each window's columns as shares, ``(W,)`` float32: those of a column add up to 1."""
        total = np.zeros(self.length, dtype=np.float32)
        for columns, weights in zip(self.columns, self.weights, strict=True):
            total[columns] += weights
        return [weights / total[columns] for columns, weights in zip(self.columns, self.weights, strict=True)]

    def read(self, inputs: Mapping[str, torch.Tensor]) -> Iterator[dict[str, Any]]:
        """Cut tokens and masks, ``(1, R, 1 + L)``, into those of each window, ``(1, R, 1 + W)``, with ``<cls>``."""
        if len(self) == 1:
            yield dict(inputs)
            return
        for start in tqdm(self.starts, "windows", unit="window", disable=None, leave=False):
            yield {name: cut(each, start, self.width) for name, each in inputs.items()}

    def mean_of_pairs(self, parts: Iterable[np.ndarray]) -> np.ndarray:
        """Average the windows' maps ``(W, W)``, in their order: ``(L, L)`` float32; NaN for pairs in no window.

        The weight of a pair is the product of those of its columns.
        """
        if len(self) == 1:
            return next(iter(parts))
        mean, total = (np.zeros((self.length, self.length), dtype=np.float32) for _ in range(2))
        for columns, weights, part in zip(self.columns, self.weights, parts, strict=True):
            product = np.outer(weights, weights)
            total[columns, columns] += product
            mean[columns, columns] += product * part
        total[total == 0] = np.nan
        mean /= total
        return mean


def cut(tokens: torch.Tensor, start: int, width: int) -> torch.Tensor:
    """Tokens ``(B, R, 1 + W)`` of a window: ``<cls>``, then W residue columns from `start`, which counts from 0."""
    import torch

    return torch.cat([tokens[:, :, :1], tokens[:, :, 1 + start : 1 + start + width]], dim=2)


def windows_around(length: int, columns: Sequence[int], width: int, step: int = 1) -> dict[int, list[int]]:
    """Place a window around each column, which lies in its middle or as near to it as the ends allow.

    Returns
    -------
    dict of int to list of int
        First columns of windows, multiples of `step` except for the last, and the columns that each is for.

    Examples
    --------
    >>> windows_around(9, [0, 4, 8], 5), windows_around(20, [9, 10, 11], 8, 4)
    ({0: [0], 2: [4], 4: [8]}, {4: [9], 8: [10, 11]})
    """
    width = min(length, width)
    windows: dict[int, list[int]] = {}
    for column in columns:
        start = round(max(column - width // 2, 0) / step) * step
        windows.setdefault(min(start, length - width), []).append(column)
    return windows
