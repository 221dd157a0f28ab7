"""A family on one page: its alignment, and what a model reads in it, all from one choice of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.chains import residue_names
from ..alignments.frequencies import column_frequencies, entropy, log_frequencies
from ..alignments.sampling import residue_codes
from ..alignments.statistics import AlignmentStatistics, alignment_statistics
from ..modeling_msa_transformer import MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .coevolution import Method, check_memory, check_method, coevolution
from .contact_precision import (
    COMPLEX_TOPS,
    TOPS,
    best_assignment,
    chance,
    check_contact_array,
    covered_contacts,
    figure_name,
    precisions,
    same_pair_contacts,
)
from .contacts import ContactMap, PairMap, predict_contacts
from .inputs import row_limit
from .profiles import Profile, predict_profile
from .scoring import SubstitutionScores
from .windows import Windows

_BANDS = 120  # of the alignment's picture


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What a report shows of a family.

    Attributes
    ----------
    statistics : AlignmentStatistics
        Of all rows of the file.
    bands : ndarray, shape=(B, L), dtype=float64
        The alignment's picture: rows ordered by identity to the query, in at most 120 bands of about as many rows;
        share of a band's rows that have a residue in each column.
    band_identity : ndarray, shape=(B,), dtype=float64
        Mean identity to the query of a band's rows, 0 where none has a residue in a column of the query.
    contacts : ContactMap
        The model's contacts, NaN for pairs that no window covers.
    windows : Windows
        The columns that the contacts were read in.
    baselines : dict of str to PairMap
        Maps of classical methods, by name, from the same rows.
    known : ndarray, shape=(L, L), dtype=int8, or None
        Contacts of a structure: 1, 0 and -100 (unknown).
    same_pair : ndarray, shape=(L, L), dtype=bool, or None
        Of a homo-oligomer, pairs of two chains that are in contact within one instead (`same_pair_contacts`).
    matched : str
        Which chains of the structure are those of a complex, such as "A:A,B:C".
    profile : Profile
        The model's in fast mode, the family's frequencies over all rows of the file.
    scores : SubstitutionScores
        Masked marginals in fast mode.
    """

    statistics: AlignmentStatistics
    bands: np.ndarray
    band_identity: np.ndarray
    contacts: ContactMap
    windows: Windows
    baselines: dict[str, PairMap]
    known: np.ndarray | None
    same_pair: np.ndarray | None
    matched: str
    profile: Profile
    scores: SubstitutionScores

    @property
    def maps(self) -> dict[str, PairMap]:
        """The model's contacts, and the baselines, by the method's name."""
        return {self.contacts.method: self.contacts, **self.baselines}

    @property
    def residue_names(self) -> list[str]:
        """What the residues with a column are called: their numbers, of a complex by chain."""
        return residue_names(self.contacts.chains, self.contacts.residues)

    def judged(self) -> dict[str, dict[str, float]]:
        """Return `modeling_msa.precisions` of each map; empty without a structure.

        The line ``chance`` has the share of contacts among all pairs of known state in the range. All are of the pairs
        that the model's windows cover.
        """
        if self.known is None:
            return {}
        known, tops = covered_contacts(self.maps.values(), self.known), COMPLEX_TOPS if self.contacts.chains else TOPS
        found = {name: precisions(each, known) for name, each in self.maps.items()}
        shares = chance(self.contacts, known)
        return found | {
            "chance": {figure_name(name, top): share for name, share in shares.items() for top in tops},
        }


def make_report(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    *,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    known: np.ndarray | Mapping[str, np.ndarray] | None = None,
    baselines: Sequence[Method] = (),
    window: int | None = None,
    overlap: int | None = None,
) -> Report:
    """Describe an alignment, and run on it what `write_report` shows.

    The rows are chosen once. The numbers are those of `modeling_msa.alignment_statistics`,
    `modeling_msa.predict_contacts`, `modeling_msa.predict_profile` and `modeling_msa.score_all_singles` with this
    choice of rows, the last two in fast mode.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``, with a fitted contact regression.
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.select_rows`. Without `rows`, all that `select_rows` has chosen,
        of other alignments at most 128.
    known : ndarray, shape=(N, N) or (L, L), or dict of str to these, optional
        Contacts of the query's residues, or of those with a column: 1, 0 and -100 (unknown); see `structure_contacts`.
        Of several ways to match the chains of a complex (`complex_contacts`), the best for the model's contacts is
        taken.
    baselines : sequence of {"mi", "dca"}, optional
        Classical methods to compare with.
    window, overlap : int, optional
        See `modeling_msa.predict_contacts`; the profile and the substitutions have one window around each residue.

    Raises
    ------
    TypeError, ValueError
        As these functions.

    Examples
    --------
    >>> from modeling_msa import MsaForMaskedLM, load_model
    >>> family = Alignment.from_sequences(["mKVLAWYC", "RVLAWYC", "RI-AWFC"])
    >>> report = make_report(family, load_model(cls=MsaForMaskedLM))
    >>> report.contacts.residues.tolist(), report.scores.score.shape
    ([2, 3, 4, 5, 6, 7, 8], (7, 20))
    """
    rows = row_limit(alignment, rows, MsaTokenizer.for_config(model.config).model_max_depth)
    statistics = alignment_statistics(alignment, rows, select, seed, coverage, identity)
    whole = alignment.drop_query_gaps()
    seen = dataclasses.replace(whole.take(statistics.rows), is_selected=True)
    ways = known if isinstance(known, Mapping) else {} if known is None else {"": known}
    sizes = {whole.length: "the columns", len(whole.query): "the query's"}
    ways = {name: check_contact_array(each, sizes, "known") for name, each in ways.items()}
    for method in baselines:
        check_method(method)
    if "dca" in baselines:
        check_memory(seen)
    most = model.config.max_position_embeddings - 1
    windows = Windows.place(whole.length, most, window, overlap)
    contacts = predict_contacts(seen, model, window=window, overlap=overlap)
    matched = best_assignment(contacts, ways) if len(ways) > 1 else next(iter(ways), "")
    profile = predict_profile(seen, model, mode="fast", window=window)
    frequencies, gaps = column_frequencies(whole.array, statistics.weights)
    profile = dataclasses.replace(
        profile, frequencies=frequencies, family_entropy=entropy(frequencies), gaps=gaps, neff=statistics.neff
    )
    maps = [coevolution(seen, method) for method in baselines]
    return Report(
        statistics,
        *_picture(whole, statistics),
        contacts,
        windows,
        {each.method: each for each in maps},
        *_of_columns(ways.get(matched), whole),
        matched,
        profile,
        substitution_scores(alignment, profile, model.config.profile_weight, seed),
    )


def substitution_scores(alignment: Alignment, profile: Profile, weight: float, seed: int = 0) -> SubstitutionScores:
    """Turn a profile into the scores of all single substitutions by masked marginals: log ratios of its probabilities.

    They are those of `modeling_msa.score_all_singles` with the same rows and mode. `weight` is the model's own
    ``profile_weight``.
    """
    letters = profile.amino_acids
    wild = np.array([letters.find(letter) for letter in profile.wild_type])
    logs = np.log(profile.probabilities)
    scores = logs - logs[np.arange(len(logs)), wild, None]
    if weight:
        own = log_frequencies(alignment.drop_query_gaps().array[1:])
        scores = (1 - weight) * scores + weight * (own - own[np.arange(len(own)), wild, None])
    scores[wild < 0] = np.nan
    return SubstitutionScores(
        profile.name,
        profile.wild_type,
        profile.residues,
        letters,
        scores,
        None,
        (seed,),
        profile.depth,
        profile.chains,
        profile_weight=weight,
    )


def _of_columns(known: np.ndarray | None, whole: Alignment) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Contacts of the residues with a column, and their pairs of two chains that are in contact within one."""
    if known is None:
        return None, None
    query, columns = len(whole.query), np.ix_(whole.column_residues - 1, whole.column_residues - 1)
    if len(known) != query:
        return known, None
    same = same_pair_contacts(known, whole.query, whole.chains)[columns] if whole.chains else None
    return known[columns], same


def _picture(whole: Alignment, statistics: AlignmentStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Order rows by identity to the query, it first, and average them in bands."""
    identity = np.nan_to_num(statistics.row_identity)
    order = np.argsort(-identity, kind="stable")
    order = np.concatenate([[0], order[order > 0]])
    parts = np.array_split(order, min(_BANDS, len(order)))
    shares = np.stack([(residue_codes(whole.array[part]) > 0).mean(axis=0) for part in parts])
    return shares, np.array([identity[part].mean() for part in parts])
