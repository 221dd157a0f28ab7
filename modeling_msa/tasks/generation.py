"""Generate sequences of a family by iterative masking (Sgarbossa, Lupo and Bitbol, eLife 12:e79854, 2023).

Entries of an alignment, residues and gaps alike, are masked at random and replaced by what the model predicts there;
many rounds turn natural rows into new members of the family, one from each.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from .._files import whole_file
from .._ranges import parse_ranges
from ..alignments.alignment import Alignment
from ..alignments.listing import name_of
from ..alignments.reading import SUFFIXES, format_of
from ..alignments.sampling import filter_rows, select_rows
from ..alignments.writing import write_alignment
from ..modeling_msa_transformer import MsaForMaskedLM, evaluating
from ..tokenization_msa_transformer import ALPHABET, MsaTokenizer
from .context import kept_layers, row_states
from .inputs import check_whole, encode
from .strategies import Mode, check_mode

LIKELIHOOD_PASSES = 10  # so that one entry in ten is masked, as in the iterations by default
# ids (21,) of what may be written: the 20 amino acids, and the gap, which comes last
_LETTERS = torch.tensor([ALPHABET.index(letter) for letter in "LAGVSERTIDPKQNFYMHWC-"])
_CODES = np.array([ord(token) if len(token) == 1 else 0 for token in ALPHABET], dtype=np.uint8)
_MASK = ALPHABET.index("<mask>")
_GAP = ord("-")
_RANGE = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")
# from tokens (R, C) and a mask (R, L) to logits (M, V) of the M masked entries
_Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Generated:
    """Sequences generated from a family's rows, one from each; G of them.

    Attributes
    ----------
    alignment : Alignment
        The G sequences, aligned to the query's residues. If the query itself was not regenerated, it is row 0, as it
        was, and they follow. Insertions of their parents, which the model never sees, are not in them.
    names : tuple of str
        Of the G sequences: ``generated_12|parent``.
    parents, nearest : ndarray, shape=(G,), dtype=int64
        Rows, from 0, of the input: the one that the sequence was made from, and the nearest of all.
    parent_names, nearest_names : tuple of str
        Names of these.
    parent_identity, nearest_identity : ndarray, shape=(G,), dtype=float64
        Fraction of the query's residues at which the sequence has the same letter as that row; a gap is a letter. It
        is one minus the paper's (normalised Hamming) distance.
    gaps : ndarray, shape=(G,), dtype=float64
        Fraction of gaps.
    log_likelihood_before, log_likelihood_after : ndarray, shape=(G,), dtype=float64
        Of the parent among the natural rows that the model saw, and of the sequence among those that it has made of
        them; see `row_log_likelihoods`.
    """

    alignment: Alignment
    names: tuple[str, ...]
    parents: np.ndarray
    parent_names: tuple[str, ...]
    nearest: np.ndarray
    nearest_names: tuple[str, ...]
    parent_identity: np.ndarray
    nearest_identity: np.ndarray
    gaps: np.ndarray
    log_likelihood_before: np.ndarray
    log_likelihood_after: np.ndarray

    @property
    def table(self) -> dict[str, list]:
        """Columns of the table that `write_generated` writes; ``pandas.DataFrame`` takes it as it is."""
        return {
            "name": list(self.names),
            "parent": list(self.parent_names),
            "nearest": list(self.nearest_names),
            "identity_to_nearest": self.nearest_identity.tolist(),
            "identity_to_parent": self.parent_identity.tolist(),
            "log_likelihood_before": self.log_likelihood_before.tolist(),
            "log_likelihood_after": self.log_likelihood_after.tolist(),
            "gaps": self.gaps.tolist(),
        }


def generate(
    alignment: Alignment,
    model: MsaForMaskedLM,
    *,
    iterations: int = 200,
    mask_probability: float = 0.1,
    sampling: str = "greedy",
    temperature: float = 1.0,
    top_p: float | None = None,
    rows: int = 600,
    select: str = "random",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    count: int | None = None,
    only_rows: Sequence[int | str] | None = None,
    only_residues: str | Iterable[int] | None = None,
    fixed_residues: str | Iterable[int] | None = None,
    keep_query: bool = False,
    new_gaps: bool = True,
    keep_gaps: bool = False,
    mode: Mode = "exact",
    progress: bool = False,
) -> Generated:
    """Generate sequences by iterative masking; the defaults are the paper's.

    Each iteration masks entries at random, runs the model once, and fills all that are masked, each by itself.

    ``mode="fast"`` is for a single row that changes (`only_rows` with one, or ``count=1``): the other rows are run
    once, and each iteration runs that row alone, at about the cost of one row. What it approximates: the other rows do
    not see the residues of the row that changes, but that row masked as a whole, in the likelihoods too. It holds the
    keys and values of all layers, 2 * layers * R * C * D numbers: 0.8 GB for the published checkpoints with 64 rows
    and 170 residues, in float32.

    Parameters
    ----------
    alignment : Alignment
        Query first. The model sees the columns with a residue of the query.
    model : MsaForMaskedLM
    iterations : int, default 200
    mask_probability : float, default 0.1
        Of each entry, residue or gap, in each iteration.
    sampling : {"greedy", "sample"}, default "greedy"
        Take the most probable letter, or draw one by its probability.
    temperature, top_p : float, optional
        For "sample": divide the logits by `temperature`; then keep the most probable letters that make up `top_p`.
    rows, select, seed, coverage, identity
        Which rows make up the alignment that is regenerated, as for `modeling_msa.select_rows`; no more than the
        model reads. `seed` is that of masks and draws too, which do not depend on the device.
    count : int, optional
        Most sequences to generate. Above `rows`, the family is worked through in alignments of other rows each, until
        they run out. Below, the rows left over are context. Default: as many as the model sees at once.
    only_rows : sequence of int or str, optional
        Rows to change: numbers from 1 (the query) in `alignment`, ranges such as "3-10", or names (whole, or their
        first word). The model sees them whatever `select` and the filters say; further rows are context and stay.
    only_residues, fixed_residues : str or iterable of int, optional
        Residue numbers of the query, from 1, such as "3,10-12": the only ones to change in any row, those to leave in
        every row.
    keep_query : bool, default False
        Leave the query as it is.
    new_gaps : bool, default True
        Whether a gap may come where the parent has a residue.
    keep_gaps : bool, default False
        Leave the parent's gaps. Otherwise they may become residues; a model that was trained without gaps as targets,
        such as msa-tiny, fills them all.
    mode : {"exact", "fast"}, default "exact"
        See above.
    progress : bool, default False
        Show a bar over the iterations.

    Returns
    -------
    Generated

    Raises
    ------
    ValueError
        Before the model runs: if rows or residues are not there, nothing is left to change, the model cannot read the
        alignment, a parameter is out of its range, or several rows change in fast mode. After it: if the query turned
        into gaps only.

    Notes
    -----
    The authors' code (Bitbol-Lab/Iterative_masking, `gen_MSAs` as in its README) differs in this:

    - Greedy, it takes the best of all 33 tokens. Here only the 20 amino acids and the gap are ever written, as it
      does when it samples.
    - It masks ``<cls>`` too, and puts it back after each iteration. Here ``<cls>`` is never masked.
    - It shuffles the rows. Here they keep their order, and the query is row 0 of every alignment: in the second and
      later ones (see `count`) as context only. Rows already used fill up the last of these; there it is shallower.
    - It has every column of the file. Here columns are residues of the query.
    - It has no top-p.

    Examples
    --------
    >>> from modeling_msa import bundled_family, load_model, read_alignment
    >>> from modeling_msa.tasks.generation import generate
    >>> family = read_alignment(bundled_family())
    >>> model = load_model(cls=MsaForMaskedLM)
    >>> generated = generate(family, model, iterations=2, rows=8, select="diverse", fixed_residues="1-40")
    >>> generated.alignment.depth, generated.names[0]
    (8, 'generated_1|LAR_DROME/418-503')
    >>> generated.alignment.sequences[0][:40] == family.drop_query_gaps().sequences[0][:40]
    True
    """
    generator = torch.Generator().manual_seed(seed)
    choose = _chooser(sampling, temperature, top_p, generator)
    check_mode(mode)
    check_whole(model)
    if iterations < 1 or not 0 < mask_probability <= 1:
        raise ValueError(
            f"iterations is at least 1 and mask_probability above 0 and at most 1; they are {iterations} and "
            f"{mask_probability}."
        )
    family = alignment.drop_query_gaps()
    columns = _columns_to_change(family, only_residues, fixed_residues)
    rows = min(rows, MsaTokenizer.for_config(model.config).model_max_depth)
    pool = filter_rows(family.array, coverage, identity)
    if only_rows is None:
        batches = _batches(family, pool, rows, select, seed, count, keep_query)
    else:
        if count is not None or keep_query:
            raise ValueError(
                "only_rows says itself how many rows change, and whether the query does: leave out the "
                "count and keep_query."
            )
        batches = [_named_batch(family, pool, rows, select, seed, _find_rows(alignment, only_rows))]

    changing = max(changed.sum() for _, changed in batches)
    if mode == "fast" and changing > 1:
        raise ValueError(
            f"{family.source or family.names[0]}: fast mode is for a single row that changes, but {changing} do: name "
            "one (only_rows), say count 1, or take mode exact."
        )

    parents, made, before, after = [], [], [], []
    with (
        evaluating(model),
        torch.inference_mode(),
        tqdm(total=iterations * len(batches), unit="pass", leave=False, disable=None if progress else True) as bar,
    ):
        for index, changed in batches:
            seen = family.take(index)
            tokens = encode(seen, model)["input_ids"][0]  # (R, C)
            gaps = seen.array == _GAP
            change = torch.from_numpy(changed[:, None] & columns & ~(gaps & keep_gaps))  # (R, L)
            gap_allowed = None if new_gaps else torch.from_numpy(gaps)
            targets = np.flatnonzero(changed)
            predict = None  # the context of the last alignment goes before the next one is made
            predict = _predictor(model, tokens, int(targets[0]) if mode == "fast" else None)
            before.append(_log_likelihoods(tokens, targets, predict, LIKELIHOOD_PASSES, seed))
            new = tokens
            for _ in range(iterations):
                mask = change & (torch.rand(change.shape, generator=generator) < mask_probability)
                new = _refill(new, mask, predict, choose, gap_allowed)
                bar.update()
            after.append(_log_likelihoods(new, targets, predict, LIKELIHOOD_PASSES, seed))
            parents.append(index[changed])
            made.append(_letters(seen.array, tokens, new)[changed])
    return _collect(alignment, family, np.concatenate(parents), np.concatenate(made), before, after)


def row_log_likelihoods(
    alignment: Alignment,
    model: MsaForMaskedLM,
    rows: Sequence[int] | None = None,
    passes: int = LIKELIHOOD_PASSES,
    seed: int = 0,
) -> np.ndarray:
    """Estimate how probable the model finds rows of an alignment: pseudo-log-likelihoods per residue.

    The columns of each row are dealt out at random into `passes` groups. Each pass masks one group of every scored
    row, all these rows at once, so that every entry is masked once. A row's value is the mean of log p over its
    entries that are one of the 20 amino acids, p being the softmax over all tokens. With a single row and as many
    passes as columns this is the exact one, each residue masked alone; the more is masked at
    once, the less of the context is seen.

    Parameters
    ----------
    alignment : Alignment
        As the model sees it: all of its rows and columns.
    model : MsaForMaskedLM
    rows : sequence of int, optional
        Rows to score, from 0. Default: all.
    passes : int, default 10
        At most one per column is made.
    seed : int, default 0
        Of the groups.

    Returns
    -------
    ndarray, shape=(len(rows),), dtype=float64
        In nats; NaN for a row of gaps.

    Raises
    ------
    ValueError
        If the model cannot read the alignment, or `passes` is below 1.

    Examples
    --------
    >>> from modeling_msa import Alignment, load_model
    >>> from modeling_msa.tasks.generation import row_log_likelihoods
    >>> family = Alignment.from_sequences(["MKVLA", "MRVLA", "MKILG"])
    >>> row_log_likelihoods(family, load_model(cls=MsaForMaskedLM), rows=[0], passes=5).shape
    (1,)
    """
    if passes < 1:
        raise ValueError(f"passes is at least 1, but is {passes}.")
    targets = np.arange(alignment.depth)[slice(None) if rows is None else list(rows)]
    tokens = encode(alignment, model)["input_ids"][0]
    with evaluating(model), torch.inference_mode():
        return _log_likelihoods(tokens, targets, _predictor(model, tokens), passes, seed)


def check_arguments(
    sampling: str,
    temperature: float = 1.0,
    top_p: float | None = None,
    only_residues: str | None = None,
    fixed_residues: str | None = None,
    mode: str = "exact",
) -> None:
    """Raise ValueError for what `generate` refuses of any alignment."""
    check_mode(mode)
    _chooser(sampling, temperature, top_p, torch.Generator())
    for what, numbers in (("residues to change", only_residues), ("fixed residues", fixed_residues)):
        if numbers is not None:
            _numbers(numbers, what)


def check_generated(path: str | os.PathLike[str]) -> None:
    """Raise ValueError unless `write_generated` can tell a format from the ending of `path`."""
    if format_of(Path(path).name) is None:
        raise ValueError(f"{path}: generated sequences are written as {' '.join(SUFFIXES)}, or with .gz or .xz too.")


def write_generated(generated: Generated, path: str | os.PathLike[str]) -> Path:
    """Write the alignment to `path`, after `Generated.table` to NAME.generated.tsv beside it.

    Each file appears whole or not at all.

    Parameters
    ----------
    generated : Generated
    path : str or path-like
        ``.a3m``, or another ending that `modeling_msa.write_alignment` knows.

    Returns
    -------
    Path
        The table; not NAME.tsv, which other tasks write.
    """
    check_generated(path)
    path = Path(path)
    table = path.with_name(f"{name_of(path)}.generated.tsv")
    columns = generated.table
    lines = [columns, *zip(*columns.values(), strict=True)]
    text = "".join("\t".join(map(_cell, line)) + "\n" for line in lines)
    with whole_file(table) as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_alignment(generated.alignment, path)
    return table


def _cell(value: str | float) -> str:
    return value.replace("\t", " ") if isinstance(value, str) else f"{value:.6f}"


def _chooser(
    sampling: str, temperature: float, top_p: float | None, generator: torch.Generator
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make the function that chooses from scores ``(M, 21)`` an index ``(M,)``."""
    if sampling == "greedy":
        if temperature != 1 or top_p is not None:
            raise ValueError("temperature and top_p are for drawing: say sampling 'sample', or leave them out.")
        return lambda scores: scores.argmax(-1)
    if sampling != "sample":
        raise ValueError(f"sampling is 'greedy' or 'sample', but is {sampling!r}.")
    if not temperature > 0 or not (top_p is None or 0 < top_p <= 1):
        raise ValueError(f"temperature is above 0, top_p above 0 and at most 1; they are {temperature} and {top_p}.")
    warpers = [TemperatureLogitsWarper(float(temperature))] + ([] if top_p is None else [TopPLogitsWarper(top_p)])

    def draw(scores: torch.Tensor) -> torch.Tensor:
        for warper in warpers:
            scores = warper(None, scores)
        return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]

    return draw


def _numbers(numbers: str | Iterable[int], what: str) -> list[int]:
    return parse_ranges(numbers, what) if isinstance(numbers, str) else [operator.index(number) for number in numbers]


def _columns_to_change(
    family: Alignment, only: str | Iterable[int] | None, fixed: str | Iterable[int] | None
) -> np.ndarray:
    """Mask (L,) of the columns to change."""
    columns = np.full(family.length, only is None)
    if only is not None:
        columns[[family.column_of(number) for number in _numbers(only, "residues to change")]] = True
    for number in [] if fixed is None else _numbers(fixed, "fixed residues"):
        if not 1 <= number <= len(family.query) or family.residue_columns[number - 1] >= 0:
            columns[family.column_of(number)] = False  # a residue without a column never changes
    if not columns.any():
        raise ValueError(f"{family.source or family.names[0]}: all residues are fixed, nothing is left to generate.")
    return columns


def _find_rows(alignment: Alignment, wanted: Sequence[int | str]) -> np.ndarray:
    """Row indices, from 0, of names and numbers from 1."""
    where = alignment.source or "alignment"
    names: dict[str, set[int]] = {}
    for row, name in enumerate(alignment.names):
        for label in {name, name.partition(" ")[0]}:
            names.setdefault(label, set()).add(row)
    rows: set[int] = set()
    for each in [wanted] if isinstance(wanted, str) else wanted:
        if isinstance(each, str) and (found := names.get(each)):
            if len(found) > 1:
                numbers = ", ".join(str(row + 1) for row in sorted(found))
                raise ValueError(f"{where}: rows {numbers} are all called {each}: give the number instead.")
            rows |= found
            continue
        if isinstance(each, str) and not all(map(_RANGE.fullmatch, each.split(","))):
            raise ValueError(f"{where}: no row is called {each!r}.")
        for number in _numbers(each, "rows to change") if isinstance(each, str) else [operator.index(each)]:
            if not 1 <= number <= alignment.depth:
                raise ValueError(f"{where}: rows go from 1 (the query) to {alignment.depth}; there is no {number}.")
            rows.add(number - 1)
    if not rows:
        raise ValueError(f"{where}: no row is named that could change.")
    return np.array(sorted(rows), dtype=np.int64)


def _choose_rows(family: Alignment, candidates: np.ndarray, rows: int, select: str, seed: int) -> np.ndarray:
    """Choose among candidates (row indices, 0 first); returns row indices, 0 first."""
    named = replace(family.take(candidates), names=tuple(map(str, candidates)))
    return np.array(select_rows(named, rows, select, seed).names, dtype=np.int64)


def _named_batch(
    family: Alignment, pool: np.ndarray, rows: int, select: str, seed: int, named: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row indices that the model sees, the named ones among them, and a mask of these."""
    fixed = np.union1d([0], named)
    if len(fixed) > rows:
        raise ValueError(
            f"{family.source or family.names[0]}: {len(fixed)} rows, the query with those to change, but the model is "
            f"to see {rows}: raise rows, if the model reads more, or change fewer."
        )
    others = np.union1d([0], np.setdiff1d(pool, fixed))
    index = np.union1d(fixed, _choose_rows(family, others, rows - len(fixed) + 1, select, seed))
    return index, np.isin(index, named)


def _batches(
    family: Alignment, pool: np.ndarray, rows: int, select: str, seed: int, count: int | None, keep_query: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Alignments to regenerate: row indices, the query first, and a mask of those to change."""
    if count is not None and count < 1:
        raise ValueError(f"count is at least 1, but is {count}.")
    batches: list[tuple[np.ndarray, np.ndarray]] = []
    left, used, wanted = pool[1:], pool[:0], count
    while not batches or (wanted and len(left) and rows > 1):
        new = _choose_rows(family, np.append(0, left), rows, select, seed)[1:]
        index = np.union1d(np.append(0, new), used[: rows - 1 - len(new)])
        changed = np.isin(index, new)
        changed[0] = not batches and not keep_query
        wanted = changed.sum() if wanted is None else wanted
        changed &= np.cumsum(changed) <= wanted
        wanted -= changed.sum()
        left, used = np.setdiff1d(left, new), np.append(used, new)
        batches.append((index, changed))
    if not batches[0][1].any():
        raise ValueError(
            f"{family.source or family.names[0]}: the model sees no row but the query, which is to be kept."
        )
    return batches


def _predictor(model: MsaForMaskedLM, tokens: torch.Tensor, row: int | None = None) -> _Predict:
    """Make the function that predicts masked entries: of all rows of `tokens` (R, C), or of `row` by the fast mode."""
    if row is None:

        def states(masked: torch.Tensor) -> torch.Tensor:
            return model.msa(masked[None]).last_hidden_state[0]  # (R, C, D)
    else:
        layers = kept_layers(model.msa, tokens[None], row)

        def states(masked: torch.Tensor) -> torch.Tensor:
            return row_states(model.msa, layers, masked[row, None], row=row)  # (1, C, D)

    def predict(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits (M, V) float32, on the CPU; those of all entries, (R, C, V), are never made."""
        mask = F.pad(mask, (1, 0)).to(tokens.device)  # never <cls>
        found = states(tokens.masked_fill(mask, _MASK))[mask if row is None else mask[row, None]]
        return model.lm_head(found[None, :, None])[0, :, 0].float().cpu()

    return predict


def _refill(
    tokens: torch.Tensor,
    mask: torch.Tensor,
    predict: _Predict,
    choose: Callable[[torch.Tensor], torch.Tensor],
    gap_allowed: torch.Tensor | None,
) -> torch.Tensor:
    """One iteration: mask entries (R, L) of `tokens` (R, C), predict them, and fill each with a letter."""
    if not mask.any():
        return tokens
    scores = predict(tokens, mask)[:, _LETTERS]
    if gap_allowed is not None:
        scores[~gap_allowed[mask], -1] = -math.inf
    tokens = tokens.clone()
    tokens[F.pad(mask, (1, 0)).to(tokens.device)] = _LETTERS[choose(scores)].to(tokens.device)
    return tokens


def _log_likelihoods(tokens: torch.Tensor, rows: np.ndarray, predict: _Predict, passes: int, seed: int) -> np.ndarray:
    """`row_log_likelihoods` of tokens (R, C); the groups depend on the number of rows and columns alone."""
    targets = torch.from_numpy(rows)
    length = tokens.shape[1] - 1
    passes = min(passes, length)
    order = torch.rand(len(rows), length, generator=torch.Generator().manual_seed(seed)).argsort(1)
    groups = torch.empty_like(order).scatter_(1, order, (torch.arange(length) % passes).expand_as(order))
    truth = tokens.cpu()[:, 1:]  # (R, L)
    total = torch.zeros(truth.shape, dtype=torch.float64)
    for group in range(passes):
        mask = torch.zeros(truth.shape, dtype=torch.bool)
        mask[targets] = groups == group
        logs = predict(tokens, mask).log_softmax(-1)
        total[mask] = logs.gather(1, truth[mask][:, None])[:, 0].double()
    residues = torch.isin(truth, _LETTERS[:-1])
    return ((total * residues).sum(1) / residues.sum(1))[targets].numpy()


def _letters(array: np.ndarray, old: torch.Tensor, new: torch.Tensor) -> np.ndarray:
    """ASCII codes (R, L) of an alignment's rows after its tokens (R, C) have changed."""
    changed = (new != old)[:, 1:].cpu().numpy()
    return np.where(changed, _CODES[new[:, 1:].cpu().numpy()], array)


def _collect(
    alignment: Alignment,
    family: Alignment,
    parents: np.ndarray,
    made: np.ndarray,
    before: list[np.ndarray],
    after: list[np.ndarray],
) -> Generated:
    """Name the rows `made` (G, L), compare them with the natural ones, and put it all together."""
    where = alignment.source or alignment.names[0]
    parent_names = tuple(alignment.names[row] for row in parents)
    names = tuple(f"generated_{k}|{name}" for k, name in enumerate(parent_names, start=1))
    rows = [row.tobytes().decode() for row in made]
    kept: list[tuple[str, str]] = []
    if parents[0] != 0:
        raw = family.array[0].tobytes() if family.raw_rows is None else family.raw_rows[0]
        kept = [(family.names[0], raw.decode())]
    elif (made[0] == _GAP).all():
        raise ValueError(f"{where}: the query has become gaps only: keep it, or forbid new gaps.")
    # identities of each new row to all natural ones, (N,) at a time
    nearest, identity = np.zeros(len(made), dtype=np.int64), np.zeros(len(made))
    for k, row in enumerate(made):
        same = (family.array == row).sum(axis=1)
        nearest[k] = same.argmax()
        identity[k] = same[nearest[k]] / family.length
    return Generated(
        alignment=Alignment.from_sequences(
            [*(row for _, row in kept), *rows], [*(name for name, _ in kept), *names], source=f"generated from {where}"
        ),
        names=names,
        parents=parents,
        parent_names=parent_names,
        nearest=nearest,
        nearest_names=tuple(alignment.names[row] for row in nearest),
        parent_identity=(made == family.array[parents]).mean(axis=1),
        nearest_identity=identity,
        gaps=(made == _GAP).mean(axis=1),
        log_likelihood_before=np.concatenate(before),
        log_likelihood_after=np.concatenate(after),
    )
