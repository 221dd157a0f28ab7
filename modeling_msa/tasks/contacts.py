"""Predict which residues of an alignment's query are in contact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.chains import BETWEEN, Chains, array_fields, separated
from ..modeling_msa_transformer import MsaPreTrainedModel
from ..pipeline_msa_transformer import rank_pairs
from .inputs import gapped_positions, windowed_inputs

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
        """The numbers, shape=(L, L), symmetric; higher is more likely in contact. NaN: in no window of the model."""
        raise NotImplementedError

    def arrays(self) -> dict[str, Any]:
        """Return what an .npz file holds, by name."""
        return array_fields(vars(self))

    def top(
        self, count: int | None = None, min_separation: int = MIN_SEPARATION, between_chains: bool = False
    ) -> np.ndarray:
        """Pairs of map indices i < j that have a number, the most likely contacts first.

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
        pairs = rank_pairs(self.values, places, BETWEEN if between_chains else min_separation)
        return pairs[~np.isnan(self.values[pairs[:, 0], pairs[:, 1]])][:count]

    def uncovered(self, min_separation: int = MIN_SEPARATION, between_chains: bool = False) -> np.ndarray:
        """Pairs of map indices i < j without a number, as they are in no window: ``(pairs, 2)`` int64, by position."""
        pairs = np.argwhere(np.triu(np.isnan(self.values), 1))
        places = separated(self.chains, self.residues)
        return pairs[places[pairs[:, 1]] - places[pairs[:, 0]] >= (BETWEEN if between_chains else min_separation)]


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
        Probability that two residues are in contact: C-beta atoms within 8 Angstrom. NaN for pairs that no window
        covers, of a query that the model does not read whole.
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
    *,
    window: int | None = None,
    overlap: int | None = None,
) -> ContactMap:
    """Predict the contacts of an alignment's query.

    A query with more columns than a window is read in several that overlap (`modeling_msa.tasks.windows.Windows`).
    Probabilities of pairs that are in more than one are averaged; pairs that are in none, as they are too far apart,
    are NaN.

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
    window : int, optional
        Most columns that the model reads at once. Default: all that it can, so that windows are used only if needed.
    overlap : int, optional
        Fewest columns that neighbouring windows have in common. Default: half of `window`.

    Raises
    ------
    ValueError
        If `window` or `overlap` are impossible, or the model's contact regression was never fitted.
    """
    chosen = (rows, select, seed, coverage, identity)
    seen, inputs, windows = windowed_inputs(alignment, model, *chosen, window, overlap)
    if chain_gap:
        if len(windows) > 1:
            raise ValueError(
                f"{seen.source or seen.names[0]}: a gap between chains cannot be used with windows, and the query has "
                f"{seen.length:,} columns: leave out the gap (chain_gap)."
            )
        inputs["position_ids"] = gapped_positions(seen, model, chain_gap)
    maps = (model.predict_contacts(**part)[0].cpu().numpy() for part in windows.read(inputs))
    probabilities = windows.mean_of_pairs(_without_nan(each, seen) for each in maps)
    return ContactMap(seen.names[0], seen.query, seen.column_residues, probabilities, seen.depth, seen.chains)


def _without_nan(probabilities: np.ndarray, seen: Alignment) -> np.ndarray:
    if np.isnan(probabilities).any():  # which would stand for pairs that are in no window
        raise ValueError(f"{seen.source or seen.names[0]}: the model gives NaN: load it in float32 (--dtype float32).")
    return probabilities
