"""Score variants of a query: how well the model tolerates residues that are replaced by others.

A score is the natural logarithm of a ratio of probabilities, mutant over wild type; 0 is the wild type, higher is
better tolerated. Variants without a score are kept, with the reason. `modeling_msa.variants` reads their notation.
"""

from __future__ import annotations

import csv
import operator
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from tqdm import tqdm

from .alignment import Alignment
from .files import whole_file
from .hub import tokenizer_for
from .inputs import evaluating
from .modeling_msa import MsaForMaskedLM, MsaPreTrainedModel
from .sampling import select_rows, sequence_weights
from .variants import AMINO_ACIDS, Misfit, Substitution, Table, better_offset, check_variants, delimiter_of

STRATEGIES = ("masked-marginals", "wt-marginals", "pseudo-log-likelihood")
Strategy = Literal["masked-marginals", "wt-marginals", "pseudo-log-likelihood"]

# Benchmarks' recipes, as arguments of `score_variants`.
#
# ProteinGym's compute_fitness.py: hhfilter -cov 75 -id 90, weights (theta = 0.2) of what is left, the wild type and
# 399 rows drawn by weight, masked marginals, mean over five seeds. There rows are drawn with replacement, so that some
# come twice; here without. Windows: see `score_variants`.
PROTOCOLS: dict[str, dict[str, object]] = {
    "proteingym": {
        "strategy": "masked-marginals",
        "rows": 400,
        "select": "weighted",
        "seed": (1, 2, 3, 4, 5),
        "coverage": 75.0,
        "identity": 90.0,
    }
}

_TOKENS_PER_PASS = 2**14  # of several masked copies in one pass, where no batch_size is given
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class VariantScores:
    """Scores of a query's variants.

    Attributes
    ----------
    name : str
        The query's name.
    variants : tuple of str
        N variants as they were given.
    score : ndarray, shape=(N,), dtype=float64
        Natural-log ratio, higher is better tolerated; of several seeds the mean. NaN where there is none.
    score_std : ndarray, shape=(N,), dtype=float64, or None
        Sample standard deviation (divided by seeds - 1) over the seeds; None for one seed.
    reason : tuple of str
        Why a variant has no score; empty where it has one.
    per_seed : ndarray, shape=(seeds, N), dtype=float64
        The scores of each seed.
    seeds : tuple of int
        Of the row choices.
    depth : int
        Rows of the alignment that the model saw.
    """

    name: str
    variants: tuple[str, ...]
    score: np.ndarray
    score_std: np.ndarray | None
    reason: tuple[str, ...]
    per_seed: np.ndarray
    seeds: tuple[int, ...]
    depth: int


@dataclass(frozen=True, eq=False)
class SubstitutionScores:
    """Scores of all single substitutions of a query.

    Attributes
    ----------
    name : str
        The query's name.
    wild_type : str
        L residues: those that are covered by the alignment.
    residues : ndarray, shape=(L,), dtype=int64
        Their numbers, from 1 plus the offset.
    amino_acids : str
        The 20 letters of the second axis.
    score : ndarray, shape=(L, 20), dtype=float64
        Natural-log ratio, higher is better tolerated; 0 for the wild type. NaN where that is no amino acid (X).
    score_std : ndarray, shape=(L, 20), dtype=float64, or None
        As in `VariantScores`.
    seeds : tuple of int
        Of the row choices.
    depth : int
        Rows of the alignment that the model saw.
    """

    name: str
    wild_type: str
    residues: np.ndarray
    amino_acids: str
    score: np.ndarray
    score_std: np.ndarray | None
    seeds: tuple[int, ...]
    depth: int


def score_variants(
    alignment: Alignment,
    variants: Sequence[str],
    model: MsaPreTrainedModel,
    *,
    strategy: Strategy = "masked-marginals",
    rows: int = 128,
    select: str = "diverse",
    seed: int | Sequence[int] = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    window: int | None = None,
    skip_mismatches: bool = False,
    batch_size: int | None = None,
    source: str = "variants",
) -> VariantScores:
    r"""Score variants by what the model expects in their place.

    ``masked-marginals``
        The residue is masked in the query's row, the other rows stay: ``log p(mutant) - log p(wild type)``, with
        probabilities over the whole vocabulary. Several substitutions add up, each masked alone. fair-esm's
        ``predict.py`` gives the same numbers. One pass for each residue that is mutated in any variant.
    ``wt-marginals``
        The same without a mask: one pass for all variants (one for each window of a query that is too long).
    ``pseudo-log-likelihood``
        The sum over the query's residues, each masked in turn, of ``log p``, of the mutant minus of the wild type. It
        sees several substitutions together. The cost is L passes for each distinct variant, and L for the wild type.

    A query that is longer than the model reads is scored in windows, each around its residue, which lies in the middle
    or as near to it as the ends allow (ProteinGym's "optimal" window). Rows are chosen on the whole alignment. Each
    window begins with ``<cls>``, as every alignment that the model was trained on; ProteinGym cuts it off, and its
    windows hold one residue more.

    Parameters
    ----------
    alignment : Alignment
        Query first; residues in lower case have no column and no score.
    variants : sequence of str
        Such as ``A42V`` or ``A42V:G7D``, numbered on the query's residues from 1, or ``WT``, whose score is 0; see
        `modeling_msa.variants.parse_variants`.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``.
    strategy : {"masked-marginals", "wt-marginals", "pseudo-log-likelihood"}
        See above.
    rows, select, coverage, identity
        Which rows the model sees; see `modeling_msa.select_rows`.
    seed : int or sequence of int, default 0
        Of the row choice. With several, scores are means over row choices; ``select`` must draw, then: "random" or
        "weighted".
    offset : int, default 0
        By how much the numbers are ahead of the query's: 100 if the query's first residue is called 101.
    window : int, optional
        Most residues that the model sees at a time; default: as many as it reads.
    skip_mismatches : bool, default False
        Keep variants with another wild type than the query's without a score, instead of an error.
    batch_size : int, optional
        Masked copies of the alignment in one pass; default: as many as have 16,384 tokens together, at least one. It
        does not change the scores.
    source : str
        Where the variants come from, for messages.

    Returns
    -------
    VariantScores
        In the order of `variants`.

    Raises
    ------
    ValueError
        Before the model runs: if wild types are not the query's (all are listed, with the offset that would fit, if
        one does), or none of the variants can be scored, or an argument is wrong.
    TypeError
        If the model has no language model head.

    Examples
    --------
    >>> from modeling_msa import MsaForMaskedLM, bundled_family, load_model, read_alignment
    >>> family = read_alignment(bundled_family())
    >>> model = load_model(cls=MsaForMaskedLM)
    >>> scores = score_variants(family, ["S1S", "P3K", "P3R:N5D", "A9V"], model, rows=16, skip_mismatches=True)
    >>> scores.score.shape, float(scores.score[0])
    ((4,), 0.0)
    >>> scores.reason
    ('', '', '', 'residue 9 of the query is R, not A.')
    """
    parsed, reasons = fit_variants(alignment, variants, offset, skip_mismatches, source)
    scorer = _Scorer(alignment, model, strategy, rows, select, seed, coverage, identity, window, batch_size)
    scored = [k for k, reason in enumerate(reasons) if not reason]
    per_seed = np.full((len(scorer.seeds), len(parsed)), np.nan)
    per_seed[:, scored] = scorer([parsed[k] for k in scored])
    score, score_std = _mean_and_std(per_seed)
    name = alignment.names[0]
    return VariantScores(name, tuple(variants), score, score_std, reasons, per_seed, scorer.seeds, scorer.depth)


def score_all_singles(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    *,
    strategy: Strategy = "masked-marginals",
    rows: int = 128,
    select: str = "diverse",
    seed: int | Sequence[int] = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    window: int | None = None,
    batch_size: int | None = None,
) -> SubstitutionScores:
    """Score every substitution of every residue that the alignment covers.

    One pass for each residue; by pseudo-log-likelihood 19 L + 1 times L.

    Parameters
    ----------
    alignment, model, strategy, rows, select, seed, coverage, identity, offset, window, batch_size
        As `score_variants`.

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
    scorer = _Scorer(alignment, model, strategy, rows, select, seed, coverage, identity, window, batch_size)
    residues = np.flatnonzero(alignment.residue_columns >= 0) + 1
    wild_type = "".join(alignment.query[number - 1] for number in residues)
    known = [k for k, letter in enumerate(wild_type) if letter in AMINO_ACIDS]
    variants = [(Substitution(wild_type[k], int(residues[k]), letter),) for k in known for letter in AMINO_ACIDS]
    per_seed = np.full((len(scorer.seeds), len(residues), len(AMINO_ACIDS)), np.nan)
    per_seed[:, known] = scorer(variants).reshape(len(scorer.seeds), len(known), len(AMINO_ACIDS))
    score, score_std = _mean_and_std(per_seed)
    name = alignment.names[0]
    return SubstitutionScores(
        name, wild_type, residues + offset, AMINO_ACIDS, score, score_std, scorer.seeds, scorer.depth
    )


def fit_variants(
    alignment: Alignment,
    variants: Sequence[str],
    offset: int = 0,
    skip_mismatches: bool = False,
    source: str = "variants",
) -> tuple[list[tuple[Substitution, ...]], tuple[str, ...]]:
    """Find out which variants can be scored and why the others cannot, before a model is loaded.

    Parameters
    ----------
    alignment, variants, offset, skip_mismatches, source
        As `score_variants`.

    Returns
    -------
    parsed : list of tuple of Substitution
        Numbered on the query.
    reasons : tuple of str
        Empty for those that can be scored.

    Raises
    ------
    ValueError
        If wild types are not the query's, or another offset would mend residues that the query lacks, or no variant
        can be scored.

    Examples
    --------
    >>> family = Alignment.from_sequences(["MKVL", "MRVL"])
    >>> fit_variants(family, ["K2R", "L9A"])[1]
    ('', 'there is no residue 9; the query has 1 to 4.')
    >>> fit_variants(family, ["K12R", "V13A", "L14*"])
    Traceback (most recent call last):
    ...
    ValueError: variants: 2 of 3 variants do not fit the query. All wild types fit with the offset 10. Mismatches: K12
    (none), V13 (none).
    """
    parsed, misfits = check_variants(variants, alignment, offset)
    for substitutions, some in zip(parsed, misfits, strict=True):
        for each in substitutions:
            if not some and each.wild_type not in AMINO_ACIDS:
                some.append(Misfit("coverage", f"the wild type {each.wild_type} is none of the 20 amino acids."))
    if not skip_mismatches:
        _raise_mismatches(alignment, variants, parsed, misfits, offset, source)
    reasons = tuple(" ".join(each.words for each in some) for some in misfits)
    if variants and all(reasons):
        common = Counter(reasons).most_common(_SHOWN)
        shown = " ".join(f"{count} x {reason}" for reason, count in common)
        raise ValueError(f"{source}: none of the {len(variants)} variants can be scored: {shown}")
    return parsed, reasons


def _raise_mismatches(
    alignment: Alignment,
    variants: Sequence[str],
    parsed: Sequence[tuple[Substitution, ...]],
    misfits: Sequence[Sequence[Misfit]],
    offset: int,
    source: str,
) -> None:
    """Raise if wild types are not the query's: each of them is named once, since a table may have thousands."""
    query = alignment.query
    better = better_offset(parsed, query, offset)
    wrong = {"wild type"} if better is None else {"wild type", "range"}
    count = sum(any(each.kind in wrong for each in some) for some in misfits)
    if count == 0:
        return
    advice = " Check the numbering, and which sequence is the alignment's first."
    if better is not None:
        advice = f" All wild types fit with the offset {better}."
    named = []
    for number, letter in sorted({(each.number, each.wild_type) for variant in parsed for each in variant}):
        there = query[number - 1] if 1 <= number <= len(query) else "none"
        if there != letter and (there != "none" or better is not None):
            named.append(f"{letter}{number + offset} ({there})")
    raise ValueError(
        f"{source}: {count} of {len(variants)} variants do not fit the query.{advice} Mismatches: {', '.join(named)}."
    )


class _Scorer:
    """Scores lists of substitutions on one alignment; everything that can be wrong is found when it is made."""

    def __init__(
        self,
        alignment: Alignment,
        model: MsaPreTrainedModel,
        strategy: str,
        rows: int,
        select: str,
        seed: int | Sequence[int],
        coverage: float | None,
        identity: float | None,
        window: int | None,
        batch_size: int | None,
    ) -> None:
        if not isinstance(model, MsaForMaskedLM):
            raise TypeError(
                f"Scores take a model with its language model head, not {type(model).__name__}: "
                "load_model(name, cls=MsaForMaskedLM)."
            )
        if strategy not in STRATEGIES:
            raise ValueError(f"There is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}.")
        for name, value in (("window", window), ("batch_size", batch_size)):
            if value is not None and operator.index(value) < 1:
                raise ValueError(f"{name} is a number from 1, but is {value}.")
        self.seeds = _seeds(seed, select)
        self.model, self.strategy, self.batch_size = model, strategy, batch_size
        self.tokenizer = tokenizer_for(model.config)
        self.letters = dict(zip(AMINO_ACIDS, self.tokenizer(AMINO_ACIDS)["input_ids"][0][0][1:], strict=True))
        self.window = min(window or model.config.max_position_embeddings, self.tokenizer.model_max_length - 1)
        rows = min(rows, self.tokenizer.model_max_depth)
        # the filter does not depend on the seed
        kept = select_rows(alignment.drop_query_gaps(), alignment.depth, "first", coverage=coverage, identity=identity)
        weights = sequence_weights(kept.array) if select == "weighted" and rows < kept.depth else None  # of all seeds
        self.choices = [select_rows(kept, rows, select, each, weights=weights) for each in self.seeds]
        self.depth = self.choices[0].depth

    def __call__(self, variants: Sequence[Sequence[Substitution]]) -> np.ndarray:
        """Scores of each seed's rows, (seeds, variants) float64."""
        changes = [self._changes(substitutions) for substitutions in variants]
        score = self._likelihoods if self.strategy == "pseudo-log-likelihood" else self._marginals
        scores: list[np.ndarray] = []
        for k, seen in enumerate(self.choices):
            # few rows are the same for all seeds
            same = next((j for j in range(k) if np.array_equal(self.choices[j].array, seen.array)), None)
            scores.append(scores[same] if same is not None else score(self._encode(seen), changes))
        return np.array(scores).reshape(len(self.seeds), len(variants))

    def _changes(self, substitutions: Sequence[Substitution]) -> tuple[tuple[int, int], ...]:
        """Columns, from 0, and their new tokens; nothing for a residue that is replaced by itself."""
        columns = self.choices[0].residue_columns
        return tuple(
            sorted(
                (int(columns[each.number - 1]), self.letters[each.mutant])
                for each in substitutions
                if each.mutant != each.wild_type
            )
        )

    def _encode(self, seen: Alignment) -> torch.Tensor:
        # verbose=False: windows make a long one fit
        return self.tokenizer(seen, return_tensors="pt", verbose=False)["input_ids"].to(self.model.device)

    def _marginals(self, ids: torch.Tensor, changes: Sequence[tuple[tuple[int, int], ...]]) -> np.ndarray:
        columns = sorted({column for each in changes for column, _ in each})
        place = {column: k for k, column in enumerate(columns)}
        wild = ids[0, 0, 1:].tolist()
        masked = self.strategy == "masked-marginals"
        with self._bar(len(columns) if masked else 1) as bar:
            logs = self._log_probabilities(ids, columns, masked, bar)
        return np.array(
            [
                sum(logs[place[column], token] - logs[place[column], wild[column]] for column, token in each)
                for each in changes
            ],
            dtype=np.float64,
        )

    def _likelihoods(self, ids: torch.Tensor, changes: Sequence[tuple[tuple[int, int], ...]]) -> np.ndarray:
        columns = range(ids.shape[2] - 1)
        distinct = set(changes) - {()}
        sums: dict[tuple[tuple[int, int], ...], float] = {(): 0.0}
        with self._bar((len(distinct) + 1) * len(columns) if distinct else 0) as bar:
            for each in [(), *sorted(distinct)] if distinct else []:
                mutant = ids.clone()
                for column, token in each:
                    mutant[0, 0, 1 + column] = token
                logs = self._log_probabilities(mutant, columns, True, bar)
                sums[each] = float(logs[columns, mutant[0, 0, 1:].tolist()].sum())
        return np.array([sums[each] - sums[()] for each in changes], dtype=np.float64)

    @staticmethod
    def _bar(total: int) -> tqdm:
        return tqdm(total=total, desc="scoring", unit="pass", disable=None, leave=False)

    @torch.inference_mode()
    def _log_probabilities(self, ids: torch.Tensor, columns: Iterable[int], masked: bool, bar: tqdm) -> np.ndarray:
        """Natural logs of all tokens' probabilities at columns of the query's row, (columns, V) float64.

        With a mask each column has a pass of its own, without one all columns of one window share it. The head is
        applied to these columns alone: to all rows it would cost memory for nothing.
        """
        length = ids.shape[2] - 1
        width = min(length, self.window)
        jobs: dict[tuple[int, int], list[int]] = {}  # (window's start, masked column or -1): columns to read
        for column in columns:
            start = min(max(column - width // 2, 0), length - width)
            jobs.setdefault((start, column if masked else -1), []).append(column)
        size = self.batch_size or max(1, _TOKENS_PER_PASS // (ids.shape[1] * (width + 1)))
        keys, logs = list(jobs), {}
        with evaluating(self.model):
            for first in range(0, len(keys), size):
                batch = keys[first : first + size]
                read = [(b, column) for b, key in enumerate(batch) for column in jobs[key]]
                index = [[0, *range(1 + start, 1 + start + width)] for start, _ in batch]
                tokens = ids[0][:, torch.tensor(index, device=ids.device)].transpose(0, 1).contiguous()  # (B, R, C)
                places = [1 + column - batch[b][0] for b, column in read]
                if masked:
                    tokens[range(len(batch)), 0, places] = self.tokenizer.mask_token_id
                states = self.model.msa(tokens, return_dict=True).last_hidden_state[[b for b, _ in read], 0, places]
                logits = self.model.lm_head(states[:, None, None])[:, 0, 0]  # (columns, V)
                values = logits.float().log_softmax(-1).double().cpu().numpy()
                logs.update({column: value for (_, column), value in zip(read, values, strict=True)})
                bar.update(len(batch))
        return np.array([logs[column] for column in columns]).reshape(-1, self.model.config.vocab_size)


def _seeds(seed: int | Sequence[int], select: str) -> tuple[int, ...]:
    seeds = tuple(map(operator.index, seed if isinstance(seed, Sequence) else [seed]))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds are one number or several different ones, but are {seeds}.")
    if len(seeds) > 1 and select in ("first", "diverse"):
        raise ValueError(
            f"{len(seeds)} seeds would choose the same rows, since select={select!r} draws nothing: select 'random' "
            "or 'weighted' rows."
        )
    return seeds


def _mean_and_std(per_seed: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    return per_seed.mean(axis=0), per_seed.std(axis=0, ddof=1) if len(per_seed) > 1 else None


def spearman(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Parameters
    ----------
    x, y : array_like, shape=(N,)
        Finite numbers.

    Returns
    -------
    float
        NaN if either has fewer than two different values.

    Examples
    --------
    >>> round(spearman([1, 2, 3, 4], [1, 3, 2, 2]), 4)
    0.3162
    """
    ranks = []
    for values in (x, y):
        _, place, count = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
        if len(count) < 2:
            return float("nan")
        ranks.append((np.cumsum(count) - (count - 1) / 2)[place])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def check_scores(path: str | os.PathLike[str]) -> None:
    """Raise, before work starts, if `write_scores` knows no format by this ending: ValueError.

    Examples
    --------
    >>> check_scores("scores.csv")
    >>> check_scores("scores.xlsx")
    Traceback (most recent call last):
    ...
    ValueError: scores.xlsx: scores are written as .csv or .tsv; end the name with one of these.
    """
    if Path(path).suffix.lower() not in (".csv", ".tsv"):
        raise ValueError(f"{path}: scores are written as .csv or .tsv; end the name with one of these.")


def score_columns(table: Table | None = None, name: str = "score") -> list[str]:
    """Names of the columns that `write_scores` adds to a table: ValueError if the table has one already.

    Examples
    --------
    >>> score_columns(name="msa")
    ['msa', 'msa_std', 'reason']
    """
    added = [name, f"{name}_std", "reason"]
    there = [column for column in added if table is not None and column in table.columns]
    if there:
        raise ValueError(
            f"the table has a column {' and '.join(there)} already: call the new one otherwise (score_column, "
            "--score-column), or rename the old one."
        )
    return added


def write_scores(
    scores: VariantScores | SubstitutionScores,
    path: str | os.PathLike[str],
    table: Table | None = None,
    score_column: str = "score",
) -> None:
    r"""Write a table of scores to ``.csv`` (commas) or ``.tsv`` (tabs); it appears whole or not at all.

    Parameters
    ----------
    scores : VariantScores or SubstitutionScores
        What to write. Of the latter each substitution has a row; residues themselves and those of no one amino acid
        (X) have none.
    path : path
        Where to.
    table : Table, optional
        Whose rows these variants are: its columns come first, as they are. Default: one column, ``mutant``.
    score_column : str, default "score"
        Followed by that with ``_std``, if there were several seeds, and for variants by ``reason``.

    Raises
    ------
    ValueError
        For another ending, or if the table has such columns.

    Examples
    --------
    >>> import tempfile
    >>> values = np.array([[-1.5, np.nan]])
    >>> scores = VariantScores("q", ("K2R", "K2*"), values[0], None, ("", "a stop"), values, (0,), 1)
    >>> path = Path(tempfile.mkdtemp(), "scores.csv")
    >>> write_scores(scores, path)
    >>> print(path.read_text())
    mutant,score,reason
    K2R,-1.500000,
    K2*,,a stop
    """
    check_scores(path)
    mean, std, reason = score_columns(table, score_column)
    values, stds = scores.score.ravel().tolist(), None
    if scores.score_std is not None:
        stds = scores.score_std.ravel().tolist()
    if isinstance(scores, VariantScores):
        table = table or Table(["mutant"], [[text] for text in scores.variants], [])
        shown = list(range(len(values)))
    else:
        names = [
            f"{a}{n}{b}" for a, n in zip(scores.wild_type, scores.residues, strict=True) for b in scores.amino_acids
        ]
        shown = [k for k, text in enumerate(names) if text[0] != text[-1] and not np.isnan(values[k])]
        table = Table(["mutant"], [[names[k]] for k in shown], [])
    columns = {mean: [_text(values[k]) for k in shown]}
    if stds is not None:
        columns[std] = [_text(stds[k]) for k in shown]
    if isinstance(scores, VariantScores):
        columns[reason] = list(scores.reason)
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter_of(path), lineterminator="\n")
        writer.writerow([*table.columns, *columns])
        writer.writerows(
            [*row, *added] for row, added in zip(table.rows, zip(*columns.values(), strict=True), strict=True)
        )


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"
