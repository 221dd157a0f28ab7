"""How many of the strong pairs each residue has: a table of residues that are coupled to many others."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._files import check_ending, write_table
from ..alignments.chains import residue_names

if TYPE_CHECKING:  # so that the format is known without torch
    from .contacts import PairMap


@dataclass(frozen=True, eq=False)
class Enrichment:
    """Strong pairs of each residue of a map.

    Attributes
    ----------
    residues : ndarray, shape=(L,), dtype=int64
        Residue numbers, as of the map.
    pairs : ndarray, shape=(L,), dtype=int64
        Number of the residue's pairs among the strongest.
    strength : ndarray, shape=(L,), dtype=float64
        Sum of their probabilities or scores.
    enrichment : ndarray, shape=(L,), dtype=float64
        `strength`, divided by the mean of all strongest pairs.
    """

    residues: np.ndarray
    pairs: np.ndarray
    strength: np.ndarray
    enrichment: np.ndarray


def enrichment(contacts: PairMap, count: int | None = None, between_chains: bool = False) -> Enrichment:
    r"""Sum up the strength of the strongest pairs of each residue.

    .. math:: e_i = \sum_{j : (i, j) \in T} s_{ij} \Bigm/ \frac{1}{|T|} \sum_{(k, l) \in T} s_{kl}

    T are the strongest pairs, at least 6 apart, and s their probabilities or scores. This is EVcouplings' enrichment
    (Hopf et al., Cell 149, 1607, 2012): 0 for a residue without such a pair, 1 for one with a single pair of average
    strength. Residues with high values are often functional sites.

    Parameters
    ----------
    contacts : ContactMap, CategoricalJacobian or CoevolutionMap
        The map.
    count : int, optional
        Number of strongest pairs; default: L, the size of the map.
    between_chains : bool, default False
        Count only pairs of different chains of a complex.

    Examples
    --------
    >>> from modeling_msa import ContactMap
    >>> values = np.zeros((8, 8))
    >>> values[0, 6], values[0, 7] = 0.9, 0.6
    >>> result = enrichment(ContactMap("q", "MKVLAWYC", np.arange(1, 9), values + values.T, depth=1), count=2)
    >>> print(result.pairs, result.enrichment)
    [2 0 0 0 0 0 1 1] [2.  0.  0.  0.  0.  0.  1.2 0.8]
    """
    length = len(contacts.residues)
    top = contacts.top(length if count is None else count, between_chains=between_chains)
    values = contacts.values[top[:, 0], top[:, 1]].astype(np.float64)
    pairs = np.bincount(top.ravel(), minlength=length)
    strength = np.bincount(top.ravel(), np.repeat(values, 2), minlength=length)
    mean = values.mean() if len(values) else 0.0
    ratio = strength / mean if mean > 0 else np.zeros(length)
    return Enrichment(contacts.residues, pairs, strength, ratio)


def write_enrichment(
    contacts: PairMap, path: str | os.PathLike[str], count: int | None = None, between_chains: bool = False
) -> None:
    """Write the `enrichment` of a map as a tab-separated table, whole or not at all.

    A line for each residue of the map, in their order: residue (of a complex by chain, ``A:42``), amino_acid, pairs,
    strength and enrichment. The other parameters are those of `enrichment`.
    """
    check_ending(path, (".tsv",))
    found = enrichment(contacts, count, between_chains)
    names = residue_names(contacts.chains, found.residues)
    letters = [contacts.query[number - 1] for number in found.residues.tolist()]
    strength, ratio = ([f"{value:.6f}" for value in each] for each in (found.strength, found.enrichment))
    rows = zip(names, letters, map(str, found.pairs.tolist()), strength, ratio, strict=True)
    write_table(["residue", "amino_acid", "pairs", "strength", "enrichment"], rows, path)
