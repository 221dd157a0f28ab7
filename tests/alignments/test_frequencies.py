"""Frequencies are counts of the 20 amino acids; gaps are counted apart, and other letters not at all."""

import numpy as np
import pytest

from modeling_msa import Alignment
from modeling_msa.alignments.frequencies import column_frequencies, entropy


def test_frequencies_by_hand():
    family = Alignment.from_sequences(["ACX", "ACX", "GC-", "-XB"])
    frequencies, gaps = column_frequencies(family.array, np.array([0.5, 0.25, 1, 1]))
    expected = np.zeros((2, 20))
    expected[0, [0, 5]] = 0.75 / 1.75, 1 / 1.75  # A, G
    expected[1, 1] = 1  # C; X is neither residue nor gap
    assert np.allclose(frequencies[:2], expected, rtol=0, atol=1e-15)
    assert np.isnan(frequencies[2]).all()  # X, X, a gap, B
    assert gaps.tolist() == [1 / 2.75, 0, 1]
    plain, _ = column_frequencies(family.array)
    assert plain[0, [0, 5]].tolist() == [2 / 3, 1 / 3]


def test_entropy_by_hand():
    values = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.25, 0.25, 0], [np.nan] * 4])
    assert entropy(values)[:3] == pytest.approx([0, np.log(2), 1.5 * np.log(2)], abs=1e-15)
    assert np.isnan(entropy(values)[3])
    assert entropy(np.full(20, 0.05)) == pytest.approx(np.log(20))
