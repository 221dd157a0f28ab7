"""How fair-esm's contact notebook chooses rows."""

import numpy as np
import pytest


def notebook_order(array: np.ndarray, depth: int) -> list[int]:
    """``greedy_select`` of fair-esm's contact notebook (MIT licence), on the array; rows in the order of choice."""
    cdist = pytest.importorskip("scipy.spatial.distance").cdist
    all_indices = np.arange(len(array))
    indices = [0]
    pairwise_distances = np.zeros((0, len(array)))
    for _ in range(depth - 1):
        dist = cdist(array[indices[-1:]], array, "hamming")
        pairwise_distances = np.concatenate([pairwise_distances, dist])
        shifted_distance = np.delete(pairwise_distances, indices, axis=1).mean(0)
        indices.append(np.delete(all_indices, indices)[np.argmax(shifted_distance)])
    return indices


def notebook_rows(array: np.ndarray, depth: int) -> list[int]:
    return sorted(notebook_order(array, depth))
