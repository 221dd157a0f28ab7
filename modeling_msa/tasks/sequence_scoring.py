"""Score whole sequences of any length, insertions and deletions included, as variants of an alignment's query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.chains import refuse_chains
from ..alignments.edits import Edit, apply_edits, edit_names
from ..alignments.sequences import place_sequences
from ..alignments.variants import LOWER_CASE_ADVICE, places_of, raise_all
from ..modeling_msa_transformer import MsaPreTrainedModel
from .scorer import Scorer, length_corrected
from .scoring import mean_and_std
from .strategies import Mode


class Residues(NamedTuple):
    """The residues of a sequence that the model reads, and how probable it finds them.

    Attributes
    ----------
    letters : str
        The L residues.
    places : ndarray, shape=(L,), dtype=int64
        Their numbers in the sequence, from 1.
    numbers : ndarray, shape=(L,), dtype=int64
        Residues of the query in the same columns, from 1, without an offset; 0 for inserted ones.
    log_probability : ndarray, shape=(L,), dtype=float64
        Natural logarithm, each masked alone; the mean over several seeds.
    """

    letters: str
    places: np.ndarray
    numbers: np.ndarray
    log_probability: np.ndarray


@dataclass(frozen=True, eq=False)
class SequenceScores:
    """Scores of whole sequences.

    Attributes
    ----------
    name : str
        The query's name.
    names : tuple of str
        Names of the N sequences.
    variants : tuple of str
        How each differs from the query, such as ``A42del:V50I``; empty for those without a score.
    score : ndarray, shape=(N,), dtype=float64
        `mean` minus the query's, times the query's number of residues; higher is better, 0 is the query. The mean over
        several seeds. NaN for sequences without a score, as in the other arrays.
    score_std : ndarray, shape=(N,), dtype=float64, or None
        Sample standard deviation over the seeds; None for one seed.
    sum, mean, difference : ndarray, shape=(N,), dtype=float64
        The pseudo-log-likelihood, natural logarithm: summed over the residues, per residue, and the sum minus that of
        the query. The means over several seeds.
    reason : tuple of str
        Why a sequence has no score; empty if it has one.
    residues : tuple of Residues or None
        The residues of each sequence.
    query_residues : Residues
        Those of the query.
    per_seed : ndarray, shape=(seeds, N), dtype=float64
        The scores with each seed.
    seeds : tuple of int
        Seeds of the row choices.
    depth : int
        Number of alignment rows given to the model.
    offset : int
        Difference between the residue numbers in `variants` and the query's.
    """

    name: str
    names: tuple[str, ...]
    variants: tuple[str, ...]
    score: np.ndarray
    score_std: np.ndarray | None
    sum: np.ndarray
    mean: np.ndarray
    difference: np.ndarray
    reason: tuple[str, ...]
    residues: tuple[Residues | None, ...]
    query_residues: Residues
    per_seed: np.ndarray
    seeds: tuple[int, ...]
    depth: int
    offset: int = 0


def score_sequences(
    alignment: Alignment,
    sequences: Sequence[str],
    model: MsaPreTrainedModel,
    *,
    names: Sequence[str] | None = None,
    mode: Mode = "fast",
    rows: int | None = None,
    select: str = "diverse",
    seed: int | Sequence[int] = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    window: int | None = None,
    skip_mismatches: bool = False,
    batch_size: int | None = None,
    source: str = "sequences",
    lines: Sequence[int] | None = None,
    fitted: tuple[list[tuple[Edit, ...]], tuple[str, ...]] | None = None,
) -> SequenceScores:
    """Score whole sequences by their pseudo-log-likelihood, with the family as context.

    Each sequence is aligned to the query by HMMER (`modeling_msa.alignments.sequences.place_sequences`), and takes its
    place as the first row. Its inserted residues get columns of their own, in which the homologs have gaps; columns of
    residues that it lacks are left out, so that every column has a residue of it, as in the alignments that the model
    was trained on. Rows are chosen once, with the query. Each residue is masked in turn, and the logarithms of their
    probabilities are added.

    This sum falls with each residue, so that it favours deletions. The score corrects for length: it is the mean per
    residue minus that of the query, times the number of the query's residues. A residue more or less counts as much as
    the sequence's mean. For substitutions it is what `modeling_msa.score_variants` gives by pseudo-log-likelihood.

    Parameters
    ----------
    alignment : Alignment
        Query first. Its residues in lower case have no column: sequences must have the same ones.
    sequences : sequence of str
        Whole proteins; upper and lower case are the same.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``.
    names : sequence of str, optional
        Names of the sequences; by default ``sequence 1``, ``sequence 2``, ...
    mode : {"fast", "exact"}, default "fast"
        As for `score_variants`. The homologs are run again for each arrangement of insertions and deletions.
    rows, select, seed, coverage, identity, window, batch_size
        As for `score_variants`.
    offset : int, default 0
        As for `score_variants`; for the numbers in the result.
    skip_mismatches : bool, default False
        Keep sequences that do not fit, without a score, instead of raising an error.
    source : str
        Where the sequences come from, for messages.
    lines : sequence of int, optional
        Their lines in `source`, for messages.
    fitted : tuple, optional
        What `fit_sequences` has returned for these sequences, so that they are not aligned again.

    Returns
    -------
    SequenceScores
        In the order of `sequences`.

    Raises
    ------
    ImportError
        If pyhmmer is not installed.
    ValueError
        Before the model runs: if sequences do not fit (see `place_sequences`), or if an argument is wrong.
    TypeError
        If the model has no language model head.

    Examples
    --------
    >>> from modeling_msa import MsaForMaskedLM, bundled_family, load_model, read_alignment
    >>> family = read_alignment(bundled_family())
    >>> shorter = family.query[:30] + family.query[32:]
    >>> scores = score_sequences(family, [family.query, shorter], load_model(cls=MsaForMaskedLM), rows=16)
    >>> scores.variants, float(scores.score[0])
    (('WT', 'E31_L32del'), 0.0)
    """
    names = [f"sequence {k}" for k in range(1, len(sequences) + 1)] if names is None else list(names)
    if fitted is None:
        fitted = fit_sequences(alignment, sequences, names, offset, skip_mismatches, source, lines)
    edits, reasons = fitted
    scorer = Scorer(
        alignment,
        model,
        "pseudo-log-likelihood",
        mode,
        rows,
        select,
        seed,
        coverage,
        identity,
        window,
        batch_size,
    )
    scored = [k for k, reason in enumerate(reasons) if not reason]
    logs = scorer.likelihoods([edits[k] for k in scored])
    per_seed, sums, means = (np.full((len(scorer.seeds), len(names)), np.nan) for _ in range(3))
    for k, (own, *others) in enumerate(logs):
        per_seed[k, scored] = length_corrected([own, *others])
        sums[k, scored] = [each.sum() for each in others]
        means[k, scored] = [each.mean() for each in others]
    score, score_std = mean_and_std(per_seed)
    averaged = [np.mean(each, axis=0) for each in zip(*logs, strict=True)]
    query_residues = _residues(alignment, (), averaged[0])
    residues: list[Residues | None] = [None] * len(names)
    for k, each in zip(scored, averaged[1:], strict=True):
        residues[k] = _residues(alignment, edits[k], each)
    return SequenceScores(
        name=alignment.names[0],
        names=tuple(names),
        variants=tuple(
            "" if reason else edit_names(alignment.query, some, offset)
            for some, reason in zip(edits, reasons, strict=True)
        ),
        score=score,
        score_std=score_std,
        sum=sums.mean(axis=0),
        mean=means.mean(axis=0),
        difference=sums.mean(axis=0) - averaged[0].sum(),
        reason=reasons,
        residues=tuple(residues),
        query_residues=query_residues,
        per_seed=per_seed,
        seeds=scorer.seeds,
        depth=scorer.depth,
        offset=offset,
    )


def _residues(alignment: Alignment, edits: Sequence[Edit], logs: np.ndarray) -> Residues:
    sequence, numbers = apply_edits(alignment.query, edits)
    read = np.flatnonzero((numbers == 0) | (alignment.residue_columns[numbers - 1] >= 0))
    letters = "".join(sequence[place] for place in read)
    return Residues(letters, read + 1, numbers[read], logs)


def fit_sequences(
    alignment: Alignment,
    sequences: Sequence[str],
    names: Sequence[str],
    offset: int = 0,
    skip_mismatches: bool = False,
    source: str = "sequences",
    lines: Sequence[int] | None = None,
) -> tuple[list[tuple[Edit, ...]], tuple[str, ...]]:
    """Align sequences to the query and find out which can be scored, before a model is loaded.

    Parameters
    ----------
    alignment, sequences, names, offset, skip_mismatches, source, lines
        As for `score_sequences`.

    Returns
    -------
    edits : list of tuple of Edit
        How each differs from the query.
    reasons : tuple of str
        Empty for those that can be scored.

    Raises
    ------
    ImportError, ValueError
        As `score_sequences`; also if none can be scored.
    """
    refuse_chains(alignment.chains, alignment.source or alignment.names[0], "scoring of whole sequences")
    edits, misfits = place_sequences(alignment, [each.upper() for each in sequences], offset)
    wrong = [f"{place}: {some[0].words}" for place, some in zip(places_of(names, lines), misfits, strict=True) if some]
    if not skip_mismatches or len(wrong) == len(names):
        lower = any(each.kind == "coverage" for some in misfits for each in some)
        raise_all(wrong, source, "sequences do not fit the query", f" {LOWER_CASE_ADVICE}" if lower else "")
    return edits, tuple(" ".join(each.words for each in some) for some in misfits)
