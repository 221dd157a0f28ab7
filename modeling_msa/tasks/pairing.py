"""Pair the rows of two alignments, proteins that may interact: by species, by rank, or by the model.

The model tells paralogs apart: residues of interacting proteins depend on each other, so that a row is more probable
beside its partner. Every row of one family is read beside a masked row of the other, in fast mode, with pairs that are
known as the context (see `context`): one pass for each row gives its loss with every possible partner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from tqdm import tqdm

from ..alignments.alignment import Alignment
from ..alignments.chains import refuse_chains
from ..alignments.sampling import select_rows
from ..alignments.species import rows_of_names, shared_species
from ..alignments.variants import AMINO_ACIDS
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaForMaskedLM, MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .context import LayerContext, kept_layers, row_states
from .inputs import ROWS, check_whole

Method = Literal["model", "rank", "species"]
_TOKENS_PER_PASS = 2**15  # of the rows that are read at once
_GAP = ord("-")
_FORBIDDEN = 1e6  # a cost that no pair has


@dataclass(frozen=True, eq=False)
class Pairing:
    """Rows of two alignments, A and B, paired: P pairs.

    Attributes
    ----------
    alignment : Alignment
        The pairs as rows, A and B side by side as its chains; the queries first. With `keep_unpaired`, the others
        follow, with gaps in the other chain.
    names : tuple of (str, str)
        Names of the P pairs' rows.
    rows : ndarray, shape=(P, 2), dtype=int64
        Their rows in A and B, from 0.
    species : tuple of str
        Species of each pair; empty if the rows have none in common.
    by : tuple of str
        Why they are paired: ``query``, ``known``, ``single`` (the only rows of a species), ``rank`` or ``model``.
    loss : ndarray, shape=(P,), dtype=float64
        For pairs by the model: the mean negative log-probability of a residue, in nats, where its row is masked and
        the partner is not; the mean of both rows. NaN for others, as in `margin`.
    margin : ndarray, shape=(P,), dtype=float64
        By how much the losses of the species' pairs would rise in the best pairing without this pair.
    unpaired : (int, int)
        Number of rows of A and of B without a partner.
    shared : int
        Number of species in both.
    form : str
        Where species were read (`modeling_msa.alignments.species.FORMS`, or ``table``).
    depth : int
        Number of pairs that the model has seen as the context, in the last round; 0 without a model.
    """

    alignment: Alignment
    names: tuple[tuple[str, str], ...]
    rows: np.ndarray
    species: tuple[str, ...]
    by: tuple[str, ...]
    loss: np.ndarray
    margin: np.ndarray
    unpaired: tuple[int, int]
    shared: int
    form: str
    depth: int

    @property
    def table(self) -> dict[str, list]:
        """Columns of the table that `write_pairing` writes, as ``pandas.DataFrame`` accepts them; rows from 1."""
        return {
            "name_a": [a for a, _ in self.names],
            "name_b": [b for _, b in self.names],
            "row_a": (self.rows[:, 0] + 1).tolist(),
            "row_b": (self.rows[:, 1] + 1).tolist(),
            "species": list(self.species),
            "by": list(self.by),
            "loss": self.loss.tolist(),
            "margin": self.margin.tolist(),
        }


class _Pair(NamedTuple):
    a: int
    b: int
    by: str
    loss: float = np.nan
    margin: float = np.nan


_Group = tuple[list[int], list[int]]  # rows of a species in A and in B


def pair_alignments(
    a: Alignment,
    b: Alignment,
    model: MsaPreTrainedModel | None = None,
    *,
    method: Method = "model",
    species: Mapping[str, str] | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    keep_unpaired: bool = False,
    rounds: int = 5,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    source: str = "pairs",
    lines: Sequence[int] | None = None,
    progress: bool = False,
) -> Pairing:
    """Pair the rows of two alignments, within species.

    The queries, the first rows, are a pair. So are `pairs`, whatever their species. Of the other rows,

    - ``method="species"`` pairs those of species that have one row in each alignment;
    - ``"rank"`` pairs one of each species: in each alignment the row with the most residues of the query, of equal
      ones the first (ColabFold takes the first hit of each species);
    - ``"model"`` pairs as many as there are in both: those of species with one row in each, and of others the rows
      that the model finds most probable together. For each species `scipy.optimize.linear_sum_assignment` finds the
      pairs with the smallest sum of costs. The cost of a pair is its loss (see `Pairing`), minus that of its rows
      without a partner, which matters where the numbers of rows differ.

    The context of the first round are the queries, `pairs`, and the species with one row in each. If there is room,
    further rounds add pairs of the round before, those with the largest margins first, and more in each. Species are
    dealt out into two halves for this, and each half's context is from the other, so that no pair confirms itself.

    Parameters
    ----------
    a, b : Alignment
        Queries first. Columns in which a query has a gap become insertions.
    model : MsaForMaskedLM, optional
        ``load_model(name, cls=MsaForMaskedLM)``; for the method ``"model"``.
    method : {"model", "rank", "species"}, default "model"
    species : mapping of str to str, optional
        Species by names of rows. Default: read from the headers (`modeling_msa.alignments.species`).
    pairs : sequence of (str, str)
        Names of known pairs, of A and of B: whole headers, or their first words.
    keep_unpaired : bool, default False
        Keep rows without a partner, below the pairs, with gaps in the other chain, as ColabFold does.
    rounds : int, default 5
        Most rounds of the method ``"model"``.
    rows : int, optional
        Maximum number of pairs in the context. Default: 128.
    select, seed, coverage, identity
        How these are chosen of the known ones if there are more, see `modeling_msa.select_rows`. The seed also deals
        out the species.
    source : str
        Where `pairs` come from, for messages.
    lines : sequence of int, optional
        Their lines in `source`, for messages.
    progress : bool, default False
        Show a progress bar.

    Returns
    -------
    Pairing

    Raises
    ------
    ImportError
        If scipy is not installed, for the method ``"model"``.
    ValueError
        Before the model runs: if the alignments are the same or complexes already, share no species, are too long
        together for the model, or if `pairs` name a row twice, or one that does not exist.
    TypeError
        If the method ``"model"`` gets no model with a language model head.

    Examples
    --------
    >>> a = Alignment.from_sequences(["MKVL", "MRVL", "MKIL"], ["query", "A1_ECOLI", "A2_YEAST"])
    >>> b = Alignment.from_sequences(["WYC", "WFC", "WYS"], ["query", "B1_YEAST", "B2_ECOLI"])
    >>> paired = pair_alignments(a, b, method="species")
    >>> paired.alignment.sequences, paired.species
    (['MKVLWYC', 'MRVLWYS', 'MKILWFC'], ('', 'ECOLI', 'YEAST'))
    """
    if method not in get_args(Method):
        raise ValueError(f"unknown method {method!r}; use model, rank or species.")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, but is {rounds}.")
    a, b = a.drop_query_gaps(), b.drop_query_gaps()
    _check_two(a, b)
    scorer = _Scorer(a, b, model) if method == "model" else None
    shared = shared_species(a, b, species)
    found = [_Pair(0, 0, "query"), *_known(a, b, pairs, source, lines)]
    more, groups = _by_species(a, b, shared.groups.values(), found, method)
    found += more
    depth = 0
    if scorer is not None and groups:
        known = select_rows(_join(a, b, found), scorer.room(rows), select, seed, coverage=coverage, identity=identity)
        halves = np.random.default_rng(seed).permutation(len(groups)) % 2
        by_model, depth = scorer.pair(groups, halves, known, rounds, scorer.room(rows), progress)
        found += by_model
    found.sort()
    of_rows = shared.of_rows
    alone = [
        np.setdiff1d(np.arange(each.depth), rows)
        for each, rows in zip((a, b), ([p.a for p in found], [p.b for p in found]), strict=True)
    ]
    return Pairing(
        alignment=_join(a, b, found, alone if keep_unpaired else ()),
        names=tuple((a.names[each.a], b.names[each.b]) for each in found),
        rows=np.array([(each.a, each.b) for each in found], dtype=np.int64),
        species=tuple((of_rows[0][x.a] or "") if of_rows[0][x.a] == of_rows[1][x.b] else "" for x in found),
        by=tuple(each.by for each in found),
        loss=np.array([each.loss for each in found]),
        margin=np.array([each.margin for each in found]),
        unpaired=(a.depth - len(found), b.depth - len(found)),
        shared=len(shared.groups),
        form=shared.form,
        depth=depth,
    )


def _check_two(a: Alignment, b: Alignment) -> None:
    for each in (a, b):
        refuse_chains(each.chains, _where(each), "each alignment to pair")
    if a.names == b.names and np.array_equal(a.array, b.array):
        raise ValueError(
            f"{_where(a)} and {_where(b)} are the same alignment: pass those of two different proteins. For copies of "
            f"one chain no pairing is needed: begin its A3M file with a line such as '#{a.length}<TAB>2'."
        )


def _where(alignment: Alignment) -> str:
    return alignment.source or alignment.names[0]


def _known(
    a: Alignment, b: Alignment, pairs: Sequence[tuple[str, str]], source: str, lines: Sequence[int] | None
) -> list[_Pair]:
    """Rows of known pairs, but for that of the queries; each row at most once."""
    places = (
        [f"{source}, line {n}" for n in lines] if lines else [f"{source}, pair {k + 1}" for k in range(len(pairs))]
    )
    rows = [rows_of_names(each, [pair[k] for pair in pairs], places) for k, each in enumerate((a, b))]
    seen: list[dict[int, str]] = [{0: "the queries, which are a pair"}, {0: "the queries, which are a pair"}]
    found = []
    for *pair, place in zip(*rows, places, strict=True):
        if pair == [0, 0]:
            continue
        for k, row in enumerate(pair):
            if (other := seen[k].setdefault(row, place)) != place:
                raise ValueError(
                    f"{place}: row {row + 1} ({(a, b)[k].names[row]}) of {_where((a, b)[k])} has another partner in "
                    f"{other}; remove one of the two."
                )
        found.append(_Pair(pair[0], pair[1], "known"))
    return found


def _by_species(
    a: Alignment, b: Alignment, groups: Iterable[_Group], found: Sequence[_Pair], method: Method
) -> tuple[list[_Pair], list[_Group]]:
    """Pairs that need no model, and the rows of species that do."""
    taken = [{pair.a for pair in found}, {pair.b for pair in found}]
    empty = [set(np.flatnonzero((each.array == _GAP).all(axis=1))) for each in (a, b)]
    identical = [(each.array == each.array[0]).sum(axis=1) for each in (a, b)]
    pairs, left = [], []
    for group in groups:
        rows = [[row for row in each if row not in empty[k]] for k, each in enumerate(group)]
        by = "single" if len(rows[0]) == len(rows[1]) == 1 else method
        if method == "rank" and all(rows):
            rows = [[each[int(np.argmax(identical[k][each]))]] for k, each in enumerate(rows)]
        free = [[row for row in each if row not in taken[k]] for k, each in enumerate(rows)]
        if not all(free):
            continue
        if len(rows[0]) == len(rows[1]) == 1:
            pairs.append(_Pair(rows[0][0], rows[1][0], by))
        elif method == "model":
            left.append((free[0], free[1]))
    return pairs, left


def _join(a: Alignment, b: Alignment, pairs: Sequence[_Pair], alone: Sequence[np.ndarray] = ()) -> Alignment:
    """Put rows side by side, and rows of A and of B that are alone below them."""
    both = [[row.decode() for row in each.raw_rows or map(bytes, each.array)] for each in (a, b)]
    rows = [both[0][pair.a] + both[1][pair.b] for pair in pairs]
    names = ["\t".join(x.names[k].replace("\t", " ") for x, k in ((a, pair.a), (b, pair.b))) for pair in pairs]
    if alone:
        rows += [both[0][row] + "-" * b.length for row in alone[0]] + [
            "-" * a.length + both[1][row] for row in alone[1]
        ]
        names += [a.names[row] for row in alone[0]] + [b.names[row] for row in alone[1]]
    source = f"{_where(a)} and {_where(b)}, paired"
    return Alignment.from_sequences(rows, names, source=source, chains=[len(a.query), len(b.query)])


class _Scorer:
    """Pairs rows of two alignments by the model; errors are raised when it is made."""

    def __init__(self, a: Alignment, b: Alignment, model: MsaPreTrainedModel | None) -> None:
        if not isinstance(model, MsaForMaskedLM):
            raise TypeError(
                f"Pairing by the model requires one with a language model head, not {type(model).__name__}: "
                "load_model(name, cls=MsaForMaskedLM)."
            )
        check_whole(model)
        self.assign = _solver()
        self.model, self.tokenizer = evaluation_copy(model), MsaTokenizer.for_config(model.config)
        most = self.tokenizer.model_max_length - 1
        if a.length + b.length > most:
            raise ValueError(
                f"{_where(a)} and {_where(b)}: the queries have {a.length} and {b.length} aligned residues, "
                f"{a.length + b.length} together, but the model reads at most {most}: cut the alignments into "
                "domains, or pair by the method rank or species, which need no model."
            )
        self.tokens = [self._encode(each) for each in (a, b)]  # (R, C) each, C with <cls>
        columns = torch.arange(1, 1 + a.length + b.length, device=model.device)
        self.columns = columns.split([a.length, b.length])
        letters = torch.tensor(self.tokenizer(AMINO_ACIDS)["input_ids"][0][0][1:], device=model.device)
        self.is_residue = [torch.isin(each[:, 1:], letters) for each in self.tokens]

    def _encode(self, alignment: Alignment) -> torch.Tensor:
        return self.tokenizer(alignment, return_tensors="pt", verbose=False)["input_ids"][0].to(self.model.device)

    def room(self, rows: int | None) -> int:
        """Number of pairs in the context: one row of the model's is that which is read."""
        return max(1, min(ROWS if rows is None else rows, self.tokenizer.model_max_depth - 1))

    def pair(
        self, groups: list[_Group], halves: np.ndarray, known: Alignment, rounds: int, room: int, progress: bool
    ) -> tuple[list[_Pair], int]:
        """Pair the rows of species; returns the largest context of the last round as well."""
        context = self._encode(known)
        found = self._pair_all(groups, context)
        room, depth = room - len(context), len(context)
        if len(groups) == 1 or room < 1:
            rounds = 1
        bar = tqdm(range(1, rounds), desc="pairing", unit="round", disable=None if progress else True, leave=False)
        for number in bar:
            before, found, depth = found, [[] for _ in groups], 0
            for half in (0, 1):
                others = [pair for k, pairs in enumerate(before) for pair in pairs if halves[k] != half]
                others.sort(key=lambda pair: -np.nan_to_num(pair.margin, nan=0.0))
                sure = others[: min(room, round(len(others) * number / (rounds - 1)))]
                mine = [k for k in range(len(groups)) if halves[k] == half]
                rows = [torch.cat([self.tokens[0][pair.a], self.tokens[1][pair.b][1:]]) for pair in sure]
                with_sure = torch.stack([*context, *rows])
                depth = max(depth, len(with_sure))
                for k, pairs in zip(mine, self._pair_all([groups[k] for k in mine], with_sure), strict=True):
                    found[k] = pairs
        return [pair for pairs in found for pair in pairs], depth

    def _pair_all(self, groups: Sequence[_Group], context: torch.Tensor) -> list[list[_Pair]]:
        """Pair the rows of each species with this context, (R, C)."""
        layers = kept_layers(self.model.msa, torch.cat([context, context[:1]])[None], row=len(context))
        alone, beside = [], []
        for side in (0, 1):
            own, other = [[group[k] for group in groups] for k in (side, 1 - side)]
            partners = [rows for group, rows in zip(own, other, strict=True) for _ in group]
            every = [row for rows in other for row in rows]
            losses = self._losses(
                layers, len(context), side, [-1, *(row for rows in own for row in rows)], [every, *partners]
            )
            alone.append(dict(zip(every, next(losses), strict=True)))
            beside.append([np.array([next(losses) for _ in rows]) for rows in own])
        return [
            self._pair_group(
                group, (of_b + of_a.T) / 2, [[alone[1 - k][row] for row in rows] for k, rows in enumerate(group)]
            )
            for group, of_b, of_a in zip(groups, *beside, strict=True)
        ]

    @torch.inference_mode()
    def _losses(
        self, layers: list[LayerContext], number: int, side: int, rows: list[int], partners: list[list[int]]
    ) -> Iterator[np.ndarray]:
        """Losses of each row's possible partners on the other side, which is masked; -1 is a row that is masked."""
        own, other = self.columns[side], self.columns[1 - side]
        size = max(1, _TOKENS_PER_PASS // (1 + len(own) + len(other)))
        place = torch.arange(len(other), device=own.device)
        for start in range(0, len(rows), size):
            some = torch.tensor(rows[start : start + size], device=own.device)
            tokens = torch.full((len(some), 1 + len(own) + len(other)), cast(int, self.tokenizer.mask_token_id))
            tokens = tokens.to(own.device)
            tokens[:, 0] = self.tokens[side][0, 0]
            seen = torch.nonzero(some >= 0)
            tokens[seen, own] = self.tokens[side][some[seen[:, 0]], 1:]
            states = row_states(self.model.msa, layers, tokens, row=number)[:, other]
            logs = self.model.lm_head(states[:, None])[:, 0].float().log_softmax(-1)  # (n, L, V)
            for log, those in zip(logs, partners[start : start + size], strict=True):
                targets, is_residue = self.tokens[1 - side][those, 1:], self.is_residue[1 - side][those]
                loss = -(log[place, targets].double() * is_residue).sum(1) / is_residue.sum(1)
                yield loss.cpu().numpy()

    def _pair_group(self, group: _Group, loss: np.ndarray, alone: Sequence[Sequence[float]]) -> list[_Pair]:
        """Pair the rows of a species, given their losses beside each other, (rows of A, rows of B), and alone."""
        cost = loss - np.add.outer(np.array(alone[0]), np.array(alone[1])) / 2
        rows, columns = self.assign(cost)
        pairs = []
        for i, j in zip(rows, columns, strict=True):
            other = cost.copy()
            other[i, j] = _FORBIDDEN
            margin = other[self.assign(other)].sum() - cost[rows, columns].sum()
            margin = margin if margin < _FORBIDDEN / 2 else np.nan
            pairs.append(_Pair(group[0][i], group[1][j], "model", loss[i, j], margin))
        return pairs


def _solver() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError("Pairing by the model requires scipy: pip install 'modeling-msa[train]'.") from None
    return linear_sum_assignment
