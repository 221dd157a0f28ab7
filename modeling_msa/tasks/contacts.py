"""Predict which residues of an alignment's query are in contact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..alignments.alignment import Alignment
from ..modeling_msa_transformer import MsaPreTrainedModel
from ..pipeline_msa_transformer import rank_pairs
from .inputs import model_inputs

MIN_SEPARATION = 6  # pairs closer in sequence are not counted as contacts (CASP's convention)


class PairMap:
    """A number for each pair of a query's residues, which contact files and pictures hold."""

    measure: str = "probability"  # what the numbers are
    method: str = "MSA Transformer"

    name: str
    query: str
    residues: np.ndarray
    depth: int

    @property
    def values(self) -> np.ndarray:
        """The numbers, shape=(L, L), symmetric; higher is more likely in contact."""
        raise NotImplementedError

    def arrays(self) -> dict[str, Any]:
        """Return what an .npz file holds, by name."""
        return vars(self)

    def top(self, count: int | None = None, min_separation: int = MIN_SEPARATION) -> np.ndarray:
        """Pairs of map indices i < j, the most likely contacts first.

        Parameters
        ----------
        count : int, optional
            Number of pairs; default: all.
        min_separation : int, default 6
            Smallest difference of residue numbers.

        Returns
        -------
        ndarray, shape=(pairs, 2), dtype=int64
            Indices from 0 into `residues`.
        """
        return rank_pairs(self.values, self.residues, min_separation)[:count]


@dataclass(frozen=True, eq=False)
class ContactMap(PairMap):
    """Contact probabilities of a query's residues.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each row and column of the map. Residues without a column in the alignment are left
        out.
    probabilities : ndarray, shape=(L, L), dtype=float32
        Probability that two residues are in contact: C-beta atoms within 8 Angstrom.
    depth : int
        Number of alignment rows given to the model.
    """

    name: str
    query: str
    residues: np.ndarray
    probabilities: np.ndarray
    depth: int

    @property
    def values(self) -> np.ndarray:
        """The probabilities."""
        return self.probabilities


def predict_contacts(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> ContactMap:
    """Predict the contacts of an alignment's query.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    model : MsaModel, or a class with a head
        With a fitted contact regression, in evaluation mode.
    rows, select, seed, coverage, identity
        Which rows are given to the model; see `modeling_msa.prepare_alignment`. Without `rows`, all
        that `modeling_msa.select_rows` has chosen, of other alignments at most 128.

    Raises
    ------
    ValueError
        If the query is longer than the model can read, or the model's contact regression was never fitted.
    """
    seen, inputs = model_inputs(alignment, model, rows, select, seed, coverage, identity)
    probabilities = model.predict_contacts(**inputs)[0].cpu().numpy()
    return ContactMap(seen.names[0], seen.query, seen.column_residues, probabilities, seen.depth)
