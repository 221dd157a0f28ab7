"""The profile of a query: which amino acids the model, and the family itself, expect at each of its residues."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.chains import Chains, check_offset
from ..alignments.frequencies import column_frequencies, entropy
from ..alignments.sampling import sequence_weights
from ..alignments.variants import AMINO_ACIDS
from ..modeling_msa_transformer import MsaForMaskedLM, MsaPreTrainedModel
from .profile_files import Frequencies, check_frequencies
from .scorer import Scorer
from .strategies import Mode
from .windows import check_windows


@dataclass(frozen=True, eq=False)
class Profile:
    """Amino acids that are expected at each residue of a query.

    Attributes
    ----------
    name : str
        The query's name.
    wild_type : str
        The L residues that the alignment covers.
    residues : ndarray, shape=(L,), dtype=int64
        Their numbers, from 1 plus the offset.
    amino_acids : str
        The 20 letters of the second axis of `probabilities` and `frequencies`.
    probabilities : ndarray, shape=(L, 20), dtype=float64
        What the model expects where the residue is masked; each row adds up to 1.
    other : ndarray, shape=(L,), dtype=float64
        Probability that the model gives to everything else: the gap, X and other signs. `probabilities` are what is
        left of them without these.
    entropy : ndarray, shape=(L,), dtype=float64
        Of `probabilities`, in nats: 0 (one amino acid is certain) to ln 20 = 3.00 (all are equally likely).
    frequencies : ndarray, shape=(L, 20), dtype=float64
        How often the amino acids occur in the column, among its residues; each row adds up to 1. Rows are counted by
        their sequence weights (`modeling_msa.sequence_weights`, theta 0.2), and nothing is added to the counts. NaN
        for a column without one of the 20 amino acids.
    family_entropy : ndarray, shape=(L,), dtype=float64
        Of `frequencies`, in nats.
    gaps : ndarray, shape=(L,), dtype=float64
        Weighted share of gaps in the column.
    neff : float
        Sum of the weights of the rows that were counted.
    depth : int
        Number of alignment rows given to the model.
    chains : tuple of Chain
        Chains of a complex, whose residues are numbered one after the other in `residues`; empty for one protein.
    """

    name: str
    wild_type: str
    residues: np.ndarray
    amino_acids: str
    probabilities: np.ndarray
    other: np.ndarray
    entropy: np.ndarray
    frequencies: np.ndarray
    family_entropy: np.ndarray
    gaps: np.ndarray
    neff: float
    depth: int
    chains: Chains = ()


def predict_profile(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    *,
    mode: Mode = "exact",
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    window: int | None = None,
    batch_size: int | None = None,
    frequencies: Frequencies = "all",
) -> Profile:
    """Predict the amino acids at each residue of an alignment's query, and count those of its family.

    Each residue that the alignment covers is masked in turn. ``log p(mutant) - log p(wild type)`` of the profile are
    the scores of `modeling_msa.score_all_singles` with masked marginals and ``profile_weight=0``. A query that is
    longer than a window is read in one around each residue, which lies in its middle or as near to it as the ends of
    the query allow; in fast mode, windows move in steps of an eighth of their width. Nothing is averaged.

    Parameters
    ----------
    alignment : Alignment
        Query first; residues in lower case have no column and are not in the profile.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``.
    mode : {"exact", "fast"}, default "exact"
        One pass of all rows for each residue, or the homologs once; see `modeling_msa.score_variants`.
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.select_rows`. Without `rows`, all that `select_rows` has chosen,
        of other alignments at most 128.
    offset, batch_size
        As for `modeling_msa.score_variants`.
    window : int, optional
        Maximum number of residues, 2 or more, that are read around the masked one. Default: all that the model can.
    frequencies : {"all", "seen"}, default "all"
        Rows whose residues are counted: all of the alignment, or those that the model sees. Their weights are computed
        on the query's columns; this is slow for tens of thousands of rows.

    Raises
    ------
    TypeError, ValueError
        As `modeling_msa.score_variants`, before the model runs.

    Examples
    --------
    >>> from modeling_msa import MsaForMaskedLM, load_model
    >>> family = Alignment.from_sequences(["mKV-L", "RVAL", "RI-L", "R--L"])
    >>> profile = predict_profile(family, load_model(cls=MsaForMaskedLM))
    >>> profile.wild_type, profile.residues.tolist(), profile.probabilities.shape
    ('KVL', [2, 3, 4], (3, 20))
    """
    check_frequencies(frequencies)
    check_offset(alignment.chains, offset, alignment.source or alignment.names[0])
    if isinstance(model, MsaForMaskedLM):
        check_windows(window, None, model.config.max_position_embeddings - 1)
    scorer = Scorer(
        alignment, model, "masked-marginals", mode, rows, select, seed, coverage, identity, window, batch_size
    )
    counted = alignment.drop_query_gaps() if frequencies == "all" else scorer.choices[0]
    weights = sequence_weights(counted.array)
    found, gaps = column_frequencies(counted.array, weights)
    everything = np.exp(scorer.log_probabilities())  # (L, V)
    expected = everything[:, [scorer.letters[letter] for letter in AMINO_ACIDS]]
    known = expected.sum(axis=1)
    expected /= known[:, None]
    residues = np.flatnonzero(alignment.residue_columns >= 0) + 1
    return Profile(
        name=alignment.names[0],
        wild_type="".join(alignment.query[number - 1] for number in residues),
        residues=residues + offset,
        amino_acids=AMINO_ACIDS,
        probabilities=expected,
        other=1 - known,
        entropy=entropy(expected),
        frequencies=found,
        family_entropy=entropy(found),
        gaps=gaps,
        neff=float(weights.sum()),
        depth=scorer.depth,
        chains=alignment.chains,
    )
