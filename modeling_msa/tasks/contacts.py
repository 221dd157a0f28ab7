"""Predict which residues of an alignment's query are in contact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.chains import BETWEEN, Chains, array_fields, separated
from ..modeling_msa_transformer import MsaPreTrainedModel
from ..pipeline_msa_transformer import rank_pairs
from .inputs import gapped_positions, model_inputs

MIN_SEPARATION = 6  # pairs closer in sequence are not counted as contacts (CASP's convention)


class PairMap:
    """A number for each pair of a query's residues, which contact files and pictures hold."""

    measure: str = "probability"  # what the numbers are
    method: str = "MSA Transformer"

    name: str
    query: str
    residues: np.ndarray
    depth: int
    chains: Chains

    @property
    def values(self) -> np.ndarray:
        """The numbers, shape=(L, L), symmetric; higher is more likely in contact."""
        raise NotImplementedError

    def arrays(self) -> dict[str, Any]:
        """Return what an .npz file holds, by name."""
        return array_fields(vars(self))

    def top(
        self, count: int | None = None, min_separation: int = MIN_SEPARATION, between_chains: bool = False
    ) -> np.ndarray:
        """Pairs of map indices i < j, the most likely contacts first.

        Parameters
        ----------
        count : int, optional
            Number of pairs; default: all.
        min_separation : int, default 6
            Smallest difference of residue numbers; residues of different chains are never too close.
        between_chains : bool, default False
            Only pairs of residues of different chains.

        Returns
        -------
        ndarray, shape=(pairs, 2), dtype=int64
            Indices from 0 into `residues`.
        """
        places = separated(self.chains, self.residues)
        return rank_pairs(self.values, places, BETWEEN if between_chains else min_separation)[:count]


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
    chains : tuple of Chain
        Chains of a complex, whose residues are numbered one after the other in `residues`; empty for one protein.
    """

    name: str
    query: str
    residues: np.ndarray
    probabilities: np.ndarray
    depth: int
    chains: Chains = ()

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
    chain_gap: int = 0,
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
    chain_gap : int, default 0
        Of a complex: how many column positions lie between two chains. 0 numbers the columns one after the other, as
        is usual with the published model.

    Raises
    ------
    ValueError
        If the query is longer than the model can read, or the model's contact regression was never fitted.
    """
    seen, inputs = model_inputs(alignment, model, rows, select, seed, coverage, identity)
    if chain_gap:
        inputs["position_ids"] = gapped_positions(seen, model, chain_gap)
    probabilities = model.predict_contacts(**inputs)[0].cpu().numpy()
    return ContactMap(seen.names[0], seen.query, seen.column_residues, probabilities, seen.depth, seen.chains)
