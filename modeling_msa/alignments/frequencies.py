"""How often each amino acid occurs in the columns of an alignment."""

from __future__ import annotations

import numpy as np

from .variants import AMINO_ACIDS

_GAP = len(AMINO_ACIDS)
# ASCII code -> 0..19, 20 for the gap, 21 for letters that do not name one of the 20 amino acids (X, B, Z, ...)
_CODES = np.full(256, _GAP + 1, dtype=np.uint8)
_CODES[[ord(letter) for letter in AMINO_ACIDS]] = np.arange(_GAP)
_CODES[ord("-")] = _GAP


def column_frequencies(array: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Count residues and gaps in each column.

    Nothing is added to the counts: a residue that no row has there has the frequency 0. Letters that do not name one
    of the 20 amino acids (X, B, Z) are neither residues nor gaps.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes.
    weights : ndarray, shape=(R,), dtype=float64, optional
        What each row counts, such as `modeling_msa.sequence_weights`; default: 1.

    Returns
    -------
    frequencies : ndarray, shape=(L, 20), dtype=float64
        Of the amino acids in alphabetical order, among the column's residues: each column adds up to 1. NaN for a
        column without a residue.
    gaps : ndarray, shape=(L,), dtype=float64
        Share of gaps among residues and gaps; NaN for a column with neither.

    Examples
    --------
    >>> from modeling_msa import Alignment
    >>> family = Alignment.from_sequences(["MA", "MC", "M-", "-A"])
    >>> frequencies, gaps = column_frequencies(family.array)
    >>> print(frequencies[1, :3].round(2), gaps)
    [0.67 0.33 0.  ] [0.25 0.25]
    """
    counts = _counts(array, weights)
    residues = counts[:, :_GAP].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return counts[:, :_GAP] / residues[:, None], counts[:, _GAP] / (residues + counts[:, _GAP])


def log_frequencies(array: np.ndarray) -> np.ndarray:
    """Take natural logarithms of the amino acids' frequencies in each column, with a pseudocount.

    Parameters
    ----------
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes. Each row counts 1, and each amino acid 1/20 in addition.

    Returns
    -------
    ndarray, shape=(L, 20), dtype=float64
        In alphabetical order.

    Examples
    --------
    >>> from modeling_msa import Alignment
    >>> family = Alignment.from_sequences(["MA", "MC", "M-"])
    >>> print(np.exp(log_frequencies(family.array))[1, :3].round(3))  # (1 + 1/20) / 3, the same, (1/20) / 3
    [0.35  0.35  0.017]
    """
    counts = _counts(array)[:, :_GAP] + 1 / _GAP
    return np.log(counts / counts.sum(axis=1, keepdims=True))


def _counts(array: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """By column: weights of the 20 amino acids, of gaps and of other letters, ``(L, 22)`` float64."""
    columns = _CODES[array].T
    return np.stack([np.bincount(each, weights, minlength=_GAP + 2) for each in columns]).astype(np.float64)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Entropy over the last axis, in nats: 0 if one state is certain, ln 20 = 3.00 if all 20 are equally likely.

    Examples
    --------
    >>> print(entropy(np.array([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])).round(3))
    [0.    1.386]
    """
    logs = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities != 0)  # NaN stays NaN
    return -(probabilities * logs).sum(axis=-1) + 0.0  # not -0.0
