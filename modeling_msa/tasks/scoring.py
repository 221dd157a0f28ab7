"""Score variants of a query: how well the model tolerates residues that are replaced by others.

A score is the natural logarithm of a ratio of probabilities, mutant over wild type; 0 is the wild type, higher is
better tolerated. Variants without a score are kept, with the reason. `modeling_msa.alignments.variants` reads their
notation.
"""

from __future__ import annotations

import csv
import itertools
import operator
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .._files import whole_file
from ..alignments.alignment import Alignment
from ..alignments.sampling import select_rows, sequence_weights
from ..alignments.variants import AMINO_ACIDS, Misfit, Substitution, Table, better_offset, check_variants, delimiter_of
from ..modeling_msa_transformer import MsaForMaskedLM, MsaPreTrainedModel, evaluating
from ..tokenization_msa_transformer import MsaTokenizer
from .context import context_layers, query_states, row_states
from .inputs import check_whole
from .strategies import Mode, Strategy, check_strategy

_TOKENS_PER_PASS = 2**14  # of several masked copies in one pass, where no batch_size is given
# In fast mode so many tokens of the query's versions at least, and so many versions for each row of the alignment: its
# rows are run anew for each batch, which then adds no more than about a quarter to its cost.
_FAST_TOKENS, _VERSIONS_PER_ROW = 2**16, 4
_FAST_STEPS = 8  # by this part of their width windows move in fast mode
DECIMALS = 6  # of a score in a table
_SHOWN = 5
_Changes = tuple[tuple[int, int], ...]  # columns, from 0, and their new tokens


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
    mode: Mode = "exact",
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

    ``mode="exact"`` runs the whole alignment for each masked residue, as these strategies are defined and everybody
    else computes them. ``mode="fast"`` runs the homologues once, and then the query's row alone for each masked
    residue (and for each variant, by pseudo-log-likelihood). What it approximates: homologues do not see the query.
    Their states are those beside a query that is masked as a whole; in the model they see the query's other residues
    too. So nothing of the predicted residue leaks, and the fewer rows, the more it matters; without homologues nothing
    is approximated. The documentation's page on variants has a table of how well both modes agree. Windows, each of
    which needs its homologues, move by an eighth of their width in fast mode, so that they are not
    those of exact mode.

    Parameters
    ----------
    alignment : Alignment
        Query first; residues in lower case have no column and no score.
    variants : sequence of str
        Such as ``A42V`` or ``A42V:G7D``, numbered on the query's residues from 1, or ``WT``, whose score is 0; see
        `modeling_msa.alignments.variants.parse_variants`.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``.
    strategy : {"masked-marginals", "wt-marginals", "pseudo-log-likelihood"}
        See above.
    mode : {"exact", "fast"}, default "exact"
        See above. Fast mode is for strategies that mask: "wt-marginals" is one pass already.
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
        Masked copies of the alignment in one pass; default: as many as have 16,384 tokens together, at least one. In
        fast mode versions of the query's row for one pass of the homologues; default: four times the rows, or as many
        as have 65,536 tokens together, if that is more. It does not change the scores.
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
    scorer = _Scorer(alignment, model, strategy, mode, rows, select, seed, coverage, identity, window, batch_size)
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
    mode: Mode = "exact",
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

    One pass for each residue, in fast mode of the query alone; by pseudo-log-likelihood 19 L + 1 times L.

    Parameters
    ----------
    alignment, model, strategy, mode, rows, select, seed, coverage, identity, offset, window, batch_size
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
    scorer = _Scorer(alignment, model, strategy, mode, rows, select, seed, coverage, identity, window, batch_size)
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
        mode: str,
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
        check_strategy(strategy, mode)
        check_whole(model)
        for name, value in (("window", window), ("batch_size", batch_size)):
            if value is not None and operator.index(value) < 1:
                raise ValueError(f"{name} is a number from 1, but is {value}.")
        self.seeds = _seeds(seed, select)
        self.model, self.strategy, self.mode, self.batch_size = model, strategy, mode, batch_size
        self.tokenizer = MsaTokenizer.for_config(model.config)
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

    def _changes(self, substitutions: Sequence[Substitution]) -> _Changes:
        """Columns and new tokens; nothing for a residue that is replaced by itself."""
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

    def _marginals(self, ids: torch.Tensor, changes: Sequence[_Changes]) -> np.ndarray:
        columns = sorted({column for each in changes for column, _ in each})
        wild = ids[0, 0, 1:].cpu().numpy()
        logs = np.full((len(wild), self.model.config.vocab_size), np.nan)
        if self.strategy == "wt-marginals":
            for inside, values in self._unmasked_logs(ids, columns):
                logs[inside] = values
        else:
            for _, masked, values in self._masked_logs(ids, wild[None], columns):
                logs[masked] = values
        return np.array(
            [sum(logs[column, token] - logs[column, wild[column]] for column, token in each) for each in changes],
            dtype=np.float64,
        )

    def _likelihoods(self, ids: torch.Tensor, changes: Sequence[_Changes]) -> np.ndarray:
        wild = ids[0, 0, 1:].cpu().numpy()
        distinct = sorted(set(changes) - {()})
        place = {each: k for k, each in enumerate([(), *distinct])}
        queries = np.repeat(wild[None], len(place), axis=0).astype(np.int16)  # many, for all single substitutions
        for each, k in place.items():
            for column, token in each:
                queries[k, column] = token
        sums = np.zeros(len(place))
        if distinct:
            for which, masked, values in self._masked_logs(ids, queries, range(len(wild))):
                np.add.at(sums, which, values[np.arange(len(which)), queries[which, masked]])
        return np.array([sums[place[each]] - sums[0] for each in changes], dtype=np.float64)

    @staticmethod
    def _bar(total: int) -> tqdm:
        return tqdm(total=total, desc="scoring", unit="pass", disable=None, leave=False)

    def _windows(self, length: int, columns: Sequence[int], step: int = 1) -> dict[int, list[int]]:
        """Windows' first columns, multiples of `step` but for the last, and the columns that each is for."""
        width = min(length, self.window)
        windows: dict[int, list[int]] = {}
        for column in columns:
            start = round(max(column - width // 2, 0) / step) * step
            windows.setdefault(min(start, length - width), []).append(column)
        return windows

    @torch.inference_mode()
    def _unmasked_logs(self, ids: torch.Tensor, columns: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Natural logs (n, V) of all tokens' probabilities at n columns of the query's row; a pass for each window."""
        windows = self._windows(ids.shape[2] - 1, columns)
        width = min(ids.shape[2] - 1, self.window)
        with evaluating(self.model), self._bar(len(windows)) as bar:
            for start, inside in windows.items():
                tokens = torch.cat([ids[:, :, :1], ids[:, :, 1 + start : 1 + start + width]], dim=2)
                places = [1 + column - start for column in inside]
                states = self.model.msa(tokens, return_dict=True).last_hidden_state[0, 0, places]
                yield inside, self._logs(states)
                bar.update()

    @torch.inference_mode()
    def _masked_logs(
        self, ids: torch.Tensor, queries: np.ndarray, columns: Sequence[int]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Natural logs of all tokens' probabilities where residues are masked, each alone, in each of some queries.

        Parameters
        ----------
        ids : torch.Tensor, shape=(1, R, C)
            Its homologues stay.
        queries : ndarray, shape=(Q, L)
            Tokens of the query's row.
        columns : sequence of int
            From 0.

        Yields
        ------
        which, column : ndarray, shape=(n,)
            Query, and column masked in it.
        logs : ndarray, shape=(n, V), dtype=float64
        """
        rows, length = ids.shape[1], ids.shape[2] - 1
        width = min(length, self.window)
        fast = self.mode == "fast"
        if fast:
            default = max(_FAST_TOKENS // (width + 1), _VERSIONS_PER_ROW * rows)
        else:
            default = max(1, _TOKENS_PER_PASS // (rows * (width + 1)))
        windows = self._windows(length, columns, max(1, width // _FAST_STEPS) if fast else 1)
        jobs: list[Iterator[tuple[int, ...]]] = [
            itertools.product([start], range(len(queries)), inside) for start, inside in windows.items()
        ]
        if not fast:  # each of a batch has its own window
            jobs = [itertools.chain.from_iterable(jobs)]
        with evaluating(self.model), self._bar(len(queries) * len(columns)) as bar:
            for batch in _batches(jobs, self.batch_size or default):
                start, which, column = batch.T
                seen = start[:, None] + np.arange(width)
                places = torch.from_numpy(1 + column - start).to(ids.device)
                query = torch.from_numpy(queries[which[:, None], seen].astype(np.int64)).to(ids.device)
                query = torch.cat([ids[0, :1, :1].expand(len(batch), 1), query], dim=1)  # (n, 1 + width)
                query[torch.arange(len(batch)), places] = self.tokenizer.mask_token_id
                index = torch.from_numpy(np.pad(1 + seen, ((0, 0), (1, 0)))).to(ids.device)  # with <cls>
                if fast:
                    layers = context_layers(self.model.msa, ids[:, :, index[0]])
                    states = row_states(self.model.msa, layers, query, places)
                else:
                    tokens = ids[0][:, index].transpose(0, 1).contiguous()  # (n, R, 1 + width)
                    tokens[:, 0] = query
                    states = query_states(self.model.msa, tokens, places)
                yield which, column, self._logs(states)
                bar.update(len(batch))

    def _logs(self, states: torch.Tensor) -> np.ndarray:
        # the head is applied to what is read alone: to all rows it would cost memory for nothing
        logits = self.model.lm_head(states[:, None, None])[:, 0, 0]  # (n, V)
        # scores add differences of these: in float32 each would be rounded at the size of the logarithm itself
        return logits.cpu().double().log_softmax(-1).numpy()


def _batches(jobs: Sequence[Iterator[tuple[int, ...]]], size: int) -> Iterator[np.ndarray]:
    """At most `size` of one iterator at a time."""
    for each in jobs:
        while batch := list(itertools.islice(each, size)):
            yield np.array(batch)


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
    return "" if np.isnan(value) else f"{value:.{DECIMALS}f}"
