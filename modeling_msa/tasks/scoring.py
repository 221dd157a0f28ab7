"""Score variants of a query: how well the model tolerates residues that are replaced by others.

A score is the natural logarithm of a ratio of probabilities, mutant over wild type: 0 for the wild type, higher for
better tolerated variants. Variants that cannot be scored are kept, with the reason. Their notation is described in
`modeling_msa.alignments.variants`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.chains import Chains, check_offset, residue_names
from ..alignments.edits import normal_form
from ..alignments.frequencies import log_frequencies
from ..alignments.sequences import sequence_misfits
from ..alignments.variants import (
    AMINO_ACIDS,
    LOWER_CASE_ADVICE,
    Change,
    Indel,
    Misfit,
    Substitution,
    better_offset,
    check_variants,
    places_of,
)
from ..modeling_msa_transformer import MsaPreTrainedModel
from .scorer import Scorer
from .strategies import Mode, Strategy, check_strategy

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class VariantScores:
    """Scores of a query's variants.

    Attributes
    ----------
    name : str
        The query's name.
    variants : tuple of str
        The N variants, as they were given.
    score : ndarray, shape=(N,), dtype=float64
        Natural-log ratio, higher is better tolerated; the mean over several seeds. NaN for variants without a score.
    score_std : ndarray, shape=(N,), dtype=float64, or None
        Sample standard deviation (divided by seeds - 1) over the seeds; None for one seed.
    reason : tuple of str
        Why a variant has no score; empty if it has one.
    per_seed : ndarray, shape=(seeds, N), dtype=float64
        The scores with each seed.
    seeds : tuple of int
        Seeds of the row choices.
    depth : int
        Number of alignment rows given to the model.
    profile_weight : float
        Share of the family's frequencies in the scores.
    """

    name: str
    variants: tuple[str, ...]
    score: np.ndarray
    score_std: np.ndarray | None
    reason: tuple[str, ...]
    per_seed: np.ndarray
    seeds: tuple[int, ...]
    depth: int
    profile_weight: float = 0.0


@dataclass(frozen=True, eq=False)
class SubstitutionScores:
    """Scores of all single substitutions of a query.

    Attributes
    ----------
    name : str
        The query's name.
    wild_type : str
        The L residues that the alignment covers.
    residues : ndarray, shape=(L,), dtype=int64
        Their numbers, from 1 plus the offset.
    amino_acids : str
        The 20 letters of the second axis.
    score : ndarray, shape=(L, 20), dtype=float64
        Natural-log ratio, higher is better tolerated; 0 for the wild type. NaN if the wild type is not one of the 20
        amino acids (X).
    score_std : ndarray, shape=(L, 20), dtype=float64, or None
        As in `VariantScores`.
    seeds : tuple of int
        Seeds of the row choices.
    depth : int
        Number of alignment rows given to the model.
    chains : tuple of Chain
        Chains of a complex, whose residues are numbered one after the other in `residues`; empty for one protein.
    profile_weight : float
        Share of the family's frequencies in the scores.
    """

    name: str
    wild_type: str
    residues: np.ndarray
    amino_acids: str
    score: np.ndarray
    score_std: np.ndarray | None
    seeds: tuple[int, ...]
    depth: int
    chains: Chains = ()
    profile_weight: float = 0.0


def score_variants(
    alignment: Alignment,
    variants: Sequence[str],
    model: MsaPreTrainedModel,
    *,
    strategy: Strategy = "masked-marginals",
    mode: Mode = "exact",
    rows: int | None = None,
    select: str = "diverse",
    seed: int | Sequence[int] = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    window: int | None = None,
    skip_mismatches: bool = False,
    batch_size: int | None = None,
    profile_weight: float | None = None,
    source: str = "variants",
    lines: Sequence[int] | None = None,
) -> VariantScores:
    r"""Score variants by what the model expects in their place.

    ``masked-marginals``
        The residue is masked in the query's row, the other rows stay: ``log p(mutant) - log p(wild type)``, with
        probabilities over the whole vocabulary. Several substitutions add up, each masked alone. fair-esm's
        ``predict.py`` gives the same numbers. One pass for each residue that is mutated in any variant.
    ``wt-marginals``
        The same without a mask: one pass for all variants (one for each window of a query that is too long).
    ``pseudo-log-likelihood``
        The sum over the query's residues, each masked in turn, of ``log p``, for the mutant minus for the wild type.
        It sees several substitutions together. L passes for each distinct variant, and L for the wild type. It alone
        scores insertions and deletions, as `modeling_msa.score_sequences` does.

    A query that is longer than the model reads is scored in windows, each around its residue, which lies in the middle
    or as near to it as the ends allow (ProteinGym's "optimal" window). Rows are chosen on the whole alignment. Each
    window begins with ``<cls>``, like every alignment that the model was trained on.

    ``mode="exact"`` runs the whole alignment for each masked residue, as these strategies are defined. ``mode="fast"``
    runs the homologues once, and then the query's row alone for each masked residue (and for each variant, by
    pseudo-log-likelihood). This is an approximation: the homologues see a query that is masked as a whole, so that
    nothing of the predicted residue leaks. Without homologues both modes agree; the documentation's page on variants
    shows how well they agree otherwise. Windows move by an eighth of their width in fast mode, since each requires its
    own pass of the homologues.

    With a `profile_weight` of w, the first two strategies' scores are mixed with the family's frequencies f in the
    residue's column, over all rows of `alignment` but the query, with a pseudocount of 1/20: ``(1 - w) score
    + w (log f(mutant) - log f(wild type))``. The ranking is that of a product of the two distributions. Small models
    gain from it.

    Parameters
    ----------
    alignment : Alignment
        Query first; residues in lower case have no column and no score.
    variants : sequence of str
        Such as ``A42V`` or ``A42V:G7D``, numbered on the query's residues from 1, or ``WT``, whose score is 0; see
        `modeling_msa.alignments.variants.parse_variants`. By pseudo-log-likelihood also ``A42del``, ``K23_V25del``,
        ``L13_K14insGG``, ``A42delinsGG``, ``A42dup`` and the same in HGVS, such as ``p.Lys23del``.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``.
    strategy : {"masked-marginals", "wt-marginals", "pseudo-log-likelihood"}
        See above.
    mode : {"exact", "fast"}, default "exact"
        See above. Fast mode exists for the two strategies that mask; "wt-marginals" is one pass in any case.
    rows, select, coverage, identity
        Which rows the model sees; see `modeling_msa.select_rows`. Without `rows`, all that `select_rows` has
        chosen, of other alignments at most 128.
    seed : int or sequence of int, default 0
        Random seed of the row choice. With several, scores are means over row choices, and ``select`` must be "random"
        or "weighted".
    offset : int, default 0
        How far the numbers are ahead of the query's: 100 if the query's first residue is called 101.
    window : int, optional
        Maximum number of residues given to the model at a time; default: as many as it reads.
    skip_mismatches : bool, default False
        Keep variants whose wild type is not the query's, without a score, instead of raising an error.
    batch_size : int, optional
        Number of masked copies of the alignment in one pass; default: up to 16,384 tokens, at least one copy. In fast
        mode, number of versions of the query's row for one pass of the homologues; default: four times the rows, or
        up to 65,536 tokens if that is more. It does not change the scores.
    profile_weight : float, optional
        From 0, the model alone, to 1, the family's frequencies alone. Default: the ``profile_weight`` of the model's
        config, 0 for published models; 0 by pseudo-log-likelihood, with which no other is possible.
    source : str
        Where the variants come from, for messages.
    lines : sequence of int, optional
        Their lines in `source`, for messages.

    Returns
    -------
    VariantScores
        In the order of `variants`.

    Raises
    ------
    ValueError
        Before the model runs: if wild types are not the query's (all are listed, with the offset that would fit, if
        one does), if none of the variants can be scored, or if an argument is wrong.
    TypeError
        If the model has no language model head.

    Examples
    --------
    >>> from modeling_msa import MsaForMaskedLM, bundled_family, load_model, read_alignment
    >>> family = read_alignment(bundled_family())
    >>> model = load_model(cls=MsaForMaskedLM)
    >>> scores = score_variants(family, ["D1D", "P3K", "P3R:Q5D", "A9V"], model, rows=16, skip_mismatches=True)
    >>> scores.score.shape, float(scores.score[0])
    ((4,), 0.0)
    >>> scores.reason
    ('', '', '', 'residue 9 of the query is K, not A.')
    """
    check_strategy(strategy, mode)
    weight = resolve_profile_weight(profile_weight, model, strategy)
    indels = strategy == "pseudo-log-likelihood"
    parsed, reasons = fit_changes(alignment, variants, offset, skip_mismatches, source, lines, indels)
    scorer = Scorer(alignment, model, strategy, mode, rows, select, seed, coverage, identity, window, batch_size)
    scored = [k for k, reason in enumerate(reasons) if not reason]
    per_seed = np.full((len(scorer.seeds), len(parsed)), np.nan)
    known = [parsed[k] for k in scored]
    substitutions = cast("list[tuple[Substitution, ...]]", known)  # where there is a weight
    per_seed[:, scored] = mix_with_profile(scorer(known), alignment, substitutions, weight)
    score, score_std = mean_and_std(per_seed)
    return VariantScores(
        name=alignment.names[0],
        variants=tuple(variants),
        score=score,
        score_std=score_std,
        reason=reasons,
        per_seed=per_seed,
        seeds=scorer.seeds,
        depth=scorer.depth,
        profile_weight=weight,
    )


def score_all_singles(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    *,
    strategy: Strategy = "masked-marginals",
    mode: Mode = "exact",
    rows: int | None = None,
    select: str = "diverse",
    seed: int | Sequence[int] = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    window: int | None = None,
    batch_size: int | None = None,
    profile_weight: float | None = None,
) -> SubstitutionScores:
    """Score every substitution of every residue that the alignment covers.

    One pass for each residue, in fast mode of the query alone; by pseudo-log-likelihood 19 L + 1 times L passes.

    Parameters
    ----------
    alignment, model, strategy, mode, rows, select, seed, coverage, identity, offset, window, batch_size
        As for `score_variants`.
    profile_weight : float, optional
        As for `score_variants`.

    Returns
    -------
    SubstitutionScores

    Raises
    ------
    TypeError, ValueError
        As `score_variants`.

    Examples
    --------
    >>> from modeling_msa import MsaForMaskedLM, load_model
    >>> family = Alignment.from_sequences(["mKV-L", "RVAL", "RI-L"])
    >>> scores = score_all_singles(family, load_model(cls=MsaForMaskedLM))
    >>> scores.wild_type, scores.residues.tolist(), scores.score.shape
    ('KVL', [2, 3, 4], (3, 20))
    """
    weight = resolve_profile_weight(profile_weight, model, strategy)
    scorer = Scorer(alignment, model, strategy, mode, rows, select, seed, coverage, identity, window, batch_size)
    check_offset(alignment.chains, offset, alignment.source or alignment.names[0])
    residues = np.flatnonzero(alignment.residue_columns >= 0) + 1
    wild_type = "".join(alignment.query[number - 1] for number in residues)
    known = [k for k, letter in enumerate(wild_type) if letter in AMINO_ACIDS]
    variants = [(Substitution(wild_type[k], int(residues[k]), letter),) for k in known for letter in AMINO_ACIDS]
    per_seed = np.full((len(scorer.seeds), len(residues), len(AMINO_ACIDS)), np.nan)
    found = mix_with_profile(scorer(variants), alignment, variants, weight)
    per_seed[:, known] = found.reshape(len(scorer.seeds), len(known), len(AMINO_ACIDS))
    score, score_std = mean_and_std(per_seed)
    return SubstitutionScores(
        name=alignment.names[0],
        wild_type=wild_type,
        residues=residues + offset,
        amino_acids=AMINO_ACIDS,
        score=score,
        score_std=score_std,
        seeds=scorer.seeds,
        depth=scorer.depth,
        chains=alignment.chains,
        profile_weight=weight,
    )


def resolve_profile_weight(
    weight: float | None, model: MsaPreTrainedModel, strategy: Strategy = "masked-marginals"
) -> float:
    """Return the share of the family's frequencies in scores, by default the model's own; ValueError if wrong."""
    if strategy == "pseudo-log-likelihood":
        if weight:
            raise ValueError(
                "pseudo-log-likelihood cannot be mixed with the family's frequencies (profile_weight): use masked or "
                "wt-marginals."
            )
        return 0.0
    weight = float(model.config.profile_weight if weight is None else weight)
    if not 0 <= weight <= 1:
        raise ValueError(f"profile_weight must be in 0 to 1, but is {weight}.")
    return weight


def mix_with_profile(
    scores: np.ndarray, alignment: Alignment, variants: Sequence[Sequence[Substitution]], weight: float
) -> np.ndarray:
    """Mix scores ``(seeds, N)`` of N variants with those by the family's frequencies, whose share is `weight`."""
    return (1 - weight) * scores + weight * _profile_scores(alignment, variants) if weight else scores


def _profile_scores(alignment: Alignment, variants: Sequence[Sequence[Substitution]]) -> np.ndarray:
    """Log-ratios of the frequencies of mutant and wild type in the family, added up: ``(N,)`` float64."""
    logs = log_frequencies(alignment.array[1:])
    columns = alignment.residue_columns
    index = {letter: k for k, letter in enumerate(AMINO_ACIDS)}

    def ratio(each: Substitution) -> float:
        column = logs[columns[each.number - 1]]
        return float(column[index[each.mutant]] - column[index[each.wild_type]])

    return np.array([sum(map(ratio, some)) for some in variants], dtype=np.float64)


def mean_and_std(per_seed: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and sample standard deviation over seeds, the first axis; no deviation of one seed."""
    return per_seed.mean(axis=0), per_seed.std(axis=0, ddof=1) if len(per_seed) > 1 else None


def fit_variants(
    alignment: Alignment,
    variants: Sequence[str],
    offset: int = 0,
    skip_mismatches: bool = False,
    source: str = "variants",
    lines: Sequence[int] | None = None,
) -> tuple[list[tuple[Substitution, ...]], tuple[str, ...]]:
    """Find out which variants can be scored and why the others cannot, before a model is loaded.

    Parameters
    ----------
    alignment, variants, offset, skip_mismatches, source, lines
        As for `score_variants`.

    Returns
    -------
    parsed : list of tuple of Substitution
        Numbered on the query.
    reasons : tuple of str
        Empty for those that can be scored.

    Raises
    ------
    ValueError
        If wild types are not the query's, if another offset would make residues fit that the query lacks, or if no
        variant can be scored.

    Examples
    --------
    >>> family = Alignment.from_sequences(["MKVL", "MRVL"])
    >>> fit_variants(family, ["K2R", "L9A"])[1]
    ('', 'there is no residue 9; the query has 1 to 4.')
    >>> fit_variants(family, ["K12R", "V13A", "L14*"])
    Traceback (most recent call last):
    ...
    ValueError: variants: 2 of 3 variants do not fit the query, such as K12R. All wild types fit with the offset 10.
    Mismatches: K12 (none), V13 (none).
    """
    parsed, reasons = fit_changes(alignment, variants, offset, skip_mismatches, source, lines, indels=False)
    return cast("list[tuple[Substitution, ...]]", parsed), reasons


def fit_changes(
    alignment: Alignment,
    variants: Sequence[str],
    offset: int = 0,
    skip_mismatches: bool = False,
    source: str = "variants",
    lines: Sequence[int] | None = None,
    indels: bool = True,
) -> tuple[list[tuple[Change, ...]], tuple[str, ...]]:
    """Find out what `fit_variants` does of variants that may have insertions and deletions, unless not `indels`."""
    parsed, misfits = check_variants(variants, alignment, offset, indels)
    for changes, some in zip(parsed, misfits, strict=True):
        if not some and any(isinstance(each, Indel) for each in changes):
            edits = normal_form(alignment.query, (each.edit for each in changes), alignment.residue_columns >= 0)
            some += sequence_misfits(alignment, edits, offset)
        for each in changes:
            if not some and isinstance(each, Substitution) and each.wild_type not in AMINO_ACIDS:
                some.append(Misfit("coverage", f"the wild type {each.wild_type} is not one of the 20 amino acids."))
    if not skip_mismatches:
        _raise_mismatches(alignment, variants, parsed, misfits, offset, source, lines)
    reasons = tuple(" ".join(each.words for each in some) for some in misfits)
    if variants and all(reasons):
        places = places_of(variants, lines)
        shown = " ".join(f"{count} like {places[k]}: {reasons[k]}" for count, k in common_reasons(reasons)[:_SHOWN])
        lower = all(any(each.kind == "coverage" and "lower case" in each.words for each in some) for some in misfits)
        advice = f" {LOWER_CASE_ADVICE}" if lower else ""
        if len(variants) == 1:
            raise ValueError(f"{source}: {places[0]}: {reasons[0]}{advice}")
        raise ValueError(f"{source}: none of the {len(variants)} variants can be scored: {shown}{advice}")
    return parsed, reasons


def common_reasons(reasons: Sequence[str]) -> list[tuple[int, int]]:
    """Count reasons that differ in more than residues, and give the index of the first variant with each.

    Examples
    --------
    >>> common_reasons(["", "a stop", "residue 9 of the query is R, not A.", "residue 8 of the query is C, not D."])
    [(2, 2), (1, 1)]
    """
    kinds = [re.sub(r"-?\d+|\b[A-Z]\b", "", reason) for reason in reasons]
    return [(count, kinds.index(kind)) for kind, count in Counter(filter(None, kinds)).most_common()]


def _raise_mismatches(
    alignment: Alignment,
    variants: Sequence[str],
    parsed: Sequence[tuple[Change, ...]],
    misfits: Sequence[Sequence[Misfit]],
    offset: int,
    source: str,
    lines: Sequence[int] | None,
) -> None:
    """Raise if wild types are not the query's; each is named once, since a table may have thousands."""
    query = alignment.query
    better = None if alignment.chains else better_offset(parsed, query, offset)
    wrong = {"wild type"} if better is None else {"wild type", "range"}
    bad = [k for k, some in enumerate(misfits) if any(each.kind in wrong for each in some)]
    if not bad:
        return
    advice = " Check the numbering, and which sequence is first in the alignment."
    if better is not None:
        advice = f" All wild types fit with the offset {better}."
    named = []
    wild = {(number, letter) for variant in parsed for each in variant for letter, number in each.residues}
    for number, letter in sorted(wild):
        found = query[number - 1] if 1 <= number <= len(query) else "none"
        if found != letter and (found != "none" or better is not None):
            chain, colon, called = residue_names(alignment.chains, [number])[0].rpartition(":")
            named.append(f"{chain}{colon}{letter}{int(called) + offset} ({found})")
    raise ValueError(
        f"{source}: {len(bad)} of {len(variants)} variants do not fit the query, such as "
        f"{places_of(variants, lines)[bad[0]]}.{advice} Mismatches: {', '.join(named)}."
    )
