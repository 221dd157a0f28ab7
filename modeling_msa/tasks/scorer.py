"""Runs the model for the scores of an alignment's variants: chooses rows, windows and batches, in either mode."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
from tqdm import tqdm

from ..alignments.alignment import Alignment
from ..alignments.edits import Edit, apply_edits, normal_form
from ..alignments.sampling import select_rows, sequence_weights
from ..alignments.variants import AMINO_ACIDS, Change
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaForMaskedLM, MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .context import context_layers, query_states, row_states, versions_per_batch
from .inputs import check_depth, check_whole, row_limit
from .strategies import check_strategy
from .windows import cut, windows_around

_TOKENS_PER_PASS = 2**14  # of several masked copies in one pass, without a batch_size
_FAST_STEPS = 8  # windows move by this part of their width in fast mode
_Changes = tuple[tuple[int, int], ...]  # columns, from 0, and their new tokens
_T = TypeVar("_T")


class _Version(NamedTuple):
    """The query's row with other residues: its columns of the alignment, -1 for inserted ones, and its tokens."""

    columns: np.ndarray  # (L,) int64
    tokens: np.ndarray  # (L,) int16, as there are many for all single substitutions


class Scorer:
    """Scores variants of the query, lists of changes, on one alignment.

    The parameters are those of `modeling_msa.score_variants`; all errors are raised when it is made.

    Attributes
    ----------
    seeds : tuple of int
        Seeds of the row choices.
    depth : int
        Rows that the model sees.
    """

    def __init__(
        self,
        alignment: Alignment,
        model: MsaPreTrainedModel,
        strategy: str,
        mode: str,
        rows: int | None,
        select: str,
        seed: int | Sequence[int],
        coverage: float | None,
        identity: float | None,
        window: int | None,
        batch_size: int | None,
    ) -> None:
        if not isinstance(model, MsaForMaskedLM):
            raise TypeError(
                f"Scoring requires a model with a language model head, not {type(model).__name__}: "
                "load_model(name, cls=MsaForMaskedLM)."
            )
        check_strategy(strategy, mode)
        check_whole(model)
        for name, value in (("window", window), ("batch_size", batch_size)):
            if value is not None and operator.index(value) < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}.")
        self.seeds = _seeds(seed, select, rows is None and alignment.is_selected)
        self.model, self.strategy, self.mode, self.batch_size = model, strategy, mode, batch_size
        self.tokenizer = MsaTokenizer.for_config(model.config)
        self.letters = dict(zip(AMINO_ACIDS, self.tokenizer(AMINO_ACIDS)["input_ids"][0][0][1:], strict=True))
        self.window = min(window or model.config.max_position_embeddings, self.tokenizer.model_max_length - 1)
        rows = row_limit(alignment, rows, self.tokenizer.model_max_depth)
        # neither the filter nor the weights depend on the seed
        kept = select_rows(alignment.drop_query_gaps(), alignment.depth, "first", coverage=coverage, identity=identity)
        weights = sequence_weights(kept.array) if select == "weighted" and rows < kept.depth else None
        self.choices = [select_rows(kept, rows, select, each, weights=weights) for each in self.seeds]
        check_depth(self.choices[0], self.tokenizer)
        self.depth = self.choices[0].depth

    def __call__(self, variants: Sequence[Sequence[Change]]) -> np.ndarray:
        """Score variants: ``(seeds, variants)`` float64."""
        if self.strategy == "pseudo-log-likelihood":
            covered = self.choices[0].residue_columns >= 0
            edits = [normal_form(self.choices[0].query, (each.edit for each in some), covered) for some in variants]
            if not any(edits):  # the wild type's score is 0
                return np.zeros((len(self.seeds), len(variants)))
            scores = [length_corrected(logs) for logs in self.likelihoods(edits)]
        else:
            changes = [self._changes(some) for some in variants]
            scores = self._per_choice(lambda ids: self._marginals(ids, changes))
        return np.array(scores).reshape(len(self.seeds), len(variants))

    def likelihoods(self, variants: Sequence[Sequence[Edit]]) -> list[list[np.ndarray]]:
        """Give the log-probability of each residue, masked alone, for each seed: of the query, and of each variant.

        `variants` are edits in normal form (`modeling_msa.alignments.edits`). For each, the family has a column for
        each residue of the variant: the homologs have gaps in those of inserted residues, and columns of deleted
        residues are left out, as in an alignment that was built for the variant.

        Returns
        -------
        list of list of ndarray, shape=(L,), dtype=float64
            The first of each seed is the query's own. L differs between variants.
        """

        def score(ids: torch.Tensor) -> list[np.ndarray]:
            wild = ids[0, 0, 1:].cpu().numpy()
            return self._likelihoods(ids, [self._version(wild, each) for each in [(), *variants]])

        return self._per_choice(score)

    def _per_choice(self, score: Callable[[torch.Tensor], _T]) -> list[_T]:
        results: list[_T] = []
        for k, seen in enumerate(self.choices):
            # all seeds choose the same of few rows
            same = next((j for j in range(k) if np.array_equal(self.choices[j].array, seen.array)), None)
            results.append(results[same] if same is not None else score(self._encode(seen)))
        return results

    def log_probabilities(self) -> np.ndarray:
        """Log-probabilities of all tokens at each residue, masked alone, with the first seed: ``(L, V)`` float64."""
        ids = self._encode(self.choices[0])
        return self._masked(ids, range(ids.shape[2] - 1))

    def _changes(self, substitutions: Sequence[Change]) -> _Changes:
        """Columns and new tokens; a residue that is replaced by itself is no change."""
        columns, query = self.choices[0].residue_columns, self.choices[0].query
        edits = normal_form(query, (each.edit for each in substitutions))
        return tuple((int(columns[each.start]), self.letters[each.letters]) for each in edits)

    def _version(self, wild: np.ndarray, edits: Sequence[Edit]) -> _Version:
        seen = self.choices[0]
        sequence, numbers = apply_edits(seen.query, edits)
        letters, own = (np.frombuffer(each.encode(), dtype="S1") for each in (sequence, seen.query))
        columns = np.where(numbers > 0, seen.residue_columns[numbers - 1], -1)
        is_new = (numbers == 0) | (letters != own[numbers - 1])
        tokens = wild[columns].astype(np.int16)
        tokens[is_new] = [self.letters[letter] for letter in letters[is_new].astype(str)]
        is_read = (numbers == 0) | (columns >= 0)
        return _Version(columns[is_read], tokens[is_read])

    def _encode(self, seen: Alignment) -> torch.Tensor:
        # verbose=False: a long one is read in windows
        return self.tokenizer(seen, return_tensors="pt", verbose=False)["input_ids"].to(self.model.device)

    def _marginals(self, ids: torch.Tensor, changes: Sequence[_Changes]) -> np.ndarray:
        columns = sorted({column for each in changes for column, _ in each})
        wild = ids[0, 0, 1:].cpu().numpy()
        if self.strategy == "wt-marginals":
            logs = np.full((len(wild), self.model.config.vocab_size), np.nan)
            for inside, values in self._unmasked_logs(ids, columns):
                logs[inside] = values
        else:
            logs = self._masked(ids, columns)
        return np.array(
            [sum(logs[column, token] - logs[column, wild[column]] for column, token in each) for each in changes],
            dtype=np.float64,
        )

    def _masked(self, ids: torch.Tensor, columns: Sequence[int]) -> np.ndarray:
        """Log-probabilities ``(L, V)`` at these columns of the query, each masked alone; NaN at others."""
        wild = ids[0, 0, 1:].cpu().numpy()
        logs = np.full((len(wild), self.model.config.vocab_size), np.nan)
        with self._bar(len(columns)) as bar:
            for _, masked, values in self._masked_logs(ids, wild[None], columns, bar):
                logs[masked] = values
        return logs

    def _likelihoods(self, ids: torch.Tensor, versions: Sequence[_Version]) -> list[np.ndarray]:
        keys = [(each.columns.tobytes(), each.tokens.tobytes()) for each in versions]
        distinct = dict(zip(keys, versions, strict=True))
        groups: dict[bytes, list[tuple[bytes, bytes]]] = {}  # versions with the same columns
        for key in distinct:
            groups.setdefault(key[0], []).append(key)
        logs: dict[tuple[bytes, bytes], np.ndarray] = {}
        with self._bar(sum(len(each.tokens) for each in distinct.values())) as bar:
            for group in groups.values():
                columns = distinct[group[0]].columns
                queries = np.stack([distinct[key].tokens for key in group])
                found = np.empty(queries.shape)
                masked = self._masked_logs(self._with_columns(ids, columns), queries, range(len(columns)), bar)
                for which, places, values in masked:
                    found[which, places] = values[np.arange(len(which)), queries[which, places]]
                logs |= zip(group, found, strict=True)
        return [logs[key] for key in keys]

    def _with_columns(self, ids: torch.Tensor, columns: np.ndarray) -> torch.Tensor:
        """Rows with some of the columns of ``ids``, ``(1, R, C)``, and new ones of gaps for -1."""
        index = torch.from_numpy(np.concatenate([[0], columns + 1])).to(ids.device)
        new = ids[:, :, index]
        new[:, :, 1:][:, :, torch.from_numpy(columns < 0).to(ids.device)] = cast(int, self.model.config.gap_token_id)
        return new

    @staticmethod
    def _bar(total: int) -> tqdm:
        return tqdm(total=total, desc="scoring", unit="pass", disable=None, leave=False)

    @torch.inference_mode()
    def _unmasked_logs(self, ids: torch.Tensor, columns: Sequence[int]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Log-probabilities ``(n, V)`` of all tokens at n columns of the query's row, with one pass per window."""
        windows = windows_around(ids.shape[2] - 1, columns, self.window)
        width = min(ids.shape[2] - 1, self.window)
        model = evaluation_copy(self.model)
        with self._bar(len(windows)) as bar:
            for start, inside in windows.items():
                tokens = cut(ids, start, width)
                places = [1 + column - start for column in inside]
                states = model.msa(tokens, return_dict=True).last_hidden_state[0, 0, places]
                yield inside, self._logs(states)
                bar.update()

    @torch.inference_mode()
    def _masked_logs(
        self, ids: torch.Tensor, queries: np.ndarray, columns: Sequence[int], bar: tqdm
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Log-probabilities of all tokens at masked residues, each masked alone, for several versions of the query.

        `ids` ``(1, R, C)`` are the alignment's tokens, `queries` ``(Q, L)`` those of the query's row. Each batch of n
        yields the versions and the columns, ``(n,)`` each, and ``(n, V)`` float64.
        """
        rows, length = ids.shape[1], ids.shape[2] - 1
        width = min(length, self.window)
        fast = self.mode == "fast"
        if fast:
            default = versions_per_batch(self.model.msa, rows, width + 1)
        else:
            default = max(1, _TOKENS_PER_PASS // (rows * (width + 1)))
        windows = windows_around(length, columns, width, max(1, width // _FAST_STEPS) if fast else 1)
        jobs: list[Iterator[tuple[int, ...]]] = [
            itertools.product([start], range(len(queries)), inside) for start, inside in windows.items()
        ]
        if not fast:  # each of a batch has its own window
            jobs = [itertools.chain.from_iterable(jobs)]
        model = evaluation_copy(self.model)
        for batch in _batches(jobs, self.batch_size or default):
            start, which, column = batch.T
            seen = start[:, None] + np.arange(width)
            places = torch.from_numpy(1 + column - start).to(ids.device)
            query = torch.from_numpy(queries[which[:, None], seen].astype(np.int64)).to(ids.device)
            query = torch.cat([ids[0, :1, :1].expand(len(batch), 1), query], dim=1)  # (n, 1 + width)
            query[torch.arange(len(batch)), places] = self.tokenizer.mask_token_id
            index = torch.from_numpy(np.pad(1 + seen, ((0, 0), (1, 0)))).to(ids.device)  # with <cls>
            if fast:
                layers = context_layers(model.msa, ids[:, :, index[0]])
                states = row_states(model.msa, layers, query, places)
            else:
                tokens = ids[0][:, index].transpose(0, 1).contiguous()  # (n, R, 1 + width)
                tokens[:, 0] = query
                states = query_states(model.msa, tokens, places)
            yield which, column, self._logs(states)
            bar.update(len(batch))

    def _logs(self, states: torch.Tensor) -> np.ndarray:
        # the head only reads the states of interest; on all rows it would need much memory
        logits = self.model.lm_head(states[:, None, None])[:, 0, 0]  # (n, V)
        # in float64: scores add differences of these, and float32 rounds each at the size of the logarithm itself
        return logits.cpu().double().log_softmax(-1).numpy()


def length_corrected(logs: Sequence[np.ndarray]) -> np.ndarray:
    """Score versions of the query by `Scorer.likelihoods`: ``(N,)``, for the query's own and those of N versions.

    Mean per residue, minus the query's mean, times the query's number of residues. For as many residues this is the
    difference of the sums; a residue more or less counts as much as the version's mean.

    Examples
    --------
    >>> length_corrected([np.array([-1.0, -2.0]), np.array([-1.0, -3.0]), np.array([-1.0, -2.0, -3.0])])
    array([-1., -1.])
    """
    own, *others = logs
    return np.array([each.sum() * (len(own) / len(each)) - own.sum() for each in others])


def _batches(jobs: Sequence[Iterator[tuple[int, ...]]], size: int) -> Iterator[np.ndarray]:
    """At most `size` of one iterator at a time."""
    for each in jobs:
        while batch := list(itertools.islice(each, size)):
            yield np.array(batch)


def _seeds(seed: int | Sequence[int], select: str, is_selected: bool) -> tuple[int, ...]:
    seeds = tuple(map(operator.index, seed if isinstance(seed, Sequence) else [seed]))
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seed must be one number or several different ones, but is {seeds}.")
    if len(seeds) > 1 and select in ("first", "diverse"):
        raise ValueError(
            f"All {len(seeds)} seeds would choose the same rows, since select={select!r} is not random: select "
            "'random' or 'weighted' rows."
        )
    if len(seeds) > 1 and is_selected:
        raise ValueError(
            f"All {len(seeds)} seeds would use the same rows, which select_rows has chosen: pass rows, or the whole "
            "alignment."
        )
    return seeds
