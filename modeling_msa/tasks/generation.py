"""Generate sequences of a family by iterative masking (Sgarbossa, Lupo and Bitbol, eLife 12:e79854, 2023).

Entries of an alignment, residues and gaps alike, are masked at random and replaced by what the model predicts there;
many rounds turn natural rows into new members of the family, one from each.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from ..alignments.alignment import Alignment
from ..alignments.chains import Chain, chain_indices
from ..alignments.sampling import filter_rows
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaForMaskedLM
from ..tokenization_msa_transformer import ALPHABET, MsaTokenizer
from .context import kept_layers, row_states
from .generation_plan import batches, columns_to_change, find_rows, named_batch, residue_numbers
from .inputs import check_whole, encode, row_limit
from .strategies import Mode, check_mode

LIKELIHOOD_PASSES = 10  # one entry in ten is masked, as in the iterations by default
# ids (21,) of the letters that are written: the 20 amino acids, and the gap, which comes last
_LETTERS = torch.tensor([ALPHABET.index(letter) for letter in "LAGVSERTIDPKQNFYMHWC-"])
_CODES = np.array([ord(token) if len(token) == 1 else 0 for token in ALPHABET], dtype=np.uint8)
_MASK = ALPHABET.index("<mask>")
_GAP = ord("-")
# from tokens (R, C) and a mask (R, L) to logits (M, V) of the M masked entries
_Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Generated:
    """Sequences generated from a family's rows, one from each; G of them.

    Attributes
    ----------
    alignment : Alignment
        The G sequences, aligned to the query's residues, without insertions, which the model never sees. If the query
        was not regenerated, or became a row of gaps, which no alignment begins with, it comes first, unchanged.
    names : tuple of str
        Names of the G sequences: ``generated_12|parent``.
    parents, nearest : ndarray, shape=(G,), dtype=int64
        Rows of the input, from 0: the one that the sequence was made from, and the most similar of all.
    parent_names, nearest_names : tuple of str
        Names of these rows.
    parent_identity, nearest_identity : ndarray, shape=(G,), dtype=float64
        Fraction of the query's residues at which the sequence has the same letter as that row, gaps included: one
        minus the paper's (normalised Hamming) distance.
    gaps : ndarray, shape=(G,), dtype=float64
        Fraction of gaps.
    log_likelihood_before, log_likelihood_after : ndarray, shape=(G,), dtype=float64
        That of the parent among the natural rows that the model saw, and that of the sequence among the rows generated
        from them; see `row_log_likelihoods`. NaN for a row of gaps.
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
        """Columns of the table that `write_generated` writes, as ``pandas.DataFrame`` accepts them."""
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
    rows: int | None = None,
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

    Each iteration masks entries at random, runs the model once, and fills all masked entries, each independently.

    ``mode="fast"`` is for a single row that changes (`only_rows` with one row, or ``count=1``): the other rows are run
    once, and each iteration runs that row alone, at about the cost of one row. This is an approximation: the other
    rows see that row masked as a whole, for the likelihoods too. It holds the keys and values of all layers,
    2 * layers * R * C * D numbers: 0.8 GB for the published checkpoints with 64 rows and 170 residues, in float32.

    Parameters
    ----------
    alignment : Alignment
        Query first. The model sees the columns with a residue of the query.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``.
    iterations : int, default 200
        Number of rounds of masking.
    mask_probability : float, default 0.1
        Probability that an entry, residue or gap, is masked in an iteration.
    sampling : {"greedy", "sample"}, default "greedy"
        Take the most probable letter, or draw one by its probability.
    temperature, top_p : float, optional
        For "sample": divide the logits by `temperature`; then keep the most probable letters that make up `top_p`.
    rows, select, seed, coverage, identity
        Which rows make up the alignment that is regenerated, as for `modeling_msa.select_rows`; no more than the
        model reads. Without `rows`, all that `select_rows` has chosen, of other alignments at most 600. `seed` also
        determines the masks and draws, which do not depend on the device.
    count : int, optional
        Maximum number of sequences to generate. Above `rows`, the family is divided into alignments of different rows,
        which are regenerated in turn. Below, the remaining rows are context. Default: as many as the model sees at
        once.
    only_rows : sequence of int or str, optional
        Rows to change: numbers from 1 (the query) in `alignment`, ranges such as "3-10", or names (whole, or their
        first word). The model sees them regardless of `select` and the filters; further rows are context and stay.
    only_residues, fixed_residues : str or iterable of int, optional
        Residue numbers of the query, from 1, such as "3,10-12": the only ones to change in any row, and those to leave
        unchanged in every row. Of a complex by chain, such as "A:3,A:10-12,B"; "B" is all of a chain.
    keep_query : bool, default False
        Leave the query unchanged.
    new_gaps : bool, default True
        Whether a residue of the parent may become a gap.
    keep_gaps : bool, default False
        Leave the parent's gaps. Otherwise they may become residues; a model that was trained without gaps as targets,
        such as msa-small, fills them all.
    mode : {"exact", "fast"}, default "exact"
        See above.
    progress : bool, default False
        Show a progress bar over the iterations.

    Returns
    -------
    Generated

    Raises
    ------
    ValueError
        Before the model runs: if rows or residues do not exist, nothing is left to change, the model cannot read the
        alignment, a parameter is out of range, or several rows change in fast mode.

    Warns
    -----
    UserWarning
        If sequences consist of gaps only.

    Notes
    -----
    The authors' code (Bitbol-Lab/Iterative_masking, `gen_MSAs` as in its README) differs:

    - Its greedy mode takes the best of all 33 tokens; here only the 20 amino acids and the gap are written.
    - It masks ``<cls>`` too, and restores it after each iteration; here it is never masked.
    - It shuffles the rows. Here they keep their order, and the query is row 0 of every alignment: in the second and
      later ones (see `count`) as context only. The last alignment is filled up with rows used before.
    - It keeps all columns of the file, and has no top-p.

    Examples
    --------
    >>> from modeling_msa import bundled_family, load_model, read_alignment
    >>> from modeling_msa.tasks.generation import generate
    >>> family = read_alignment(bundled_family())
    >>> model = load_model(cls=MsaForMaskedLM)
    >>> generated = generate(family, model, iterations=2, rows=8, select="diverse", fixed_residues="1-40")
    >>> generated.alignment.depth, generated.names[0]
    (8, 'generated_1|1TEN_A')
    >>> generated.alignment.sequences[0][:40] == family.drop_query_gaps().sequences[0][:40]
    True
    """
    generator = torch.Generator().manual_seed(seed)
    choose = _chooser(sampling, temperature, top_p, generator)
    check_mode(mode)
    check_whole(model)
    if iterations < 1 or not 0 < mask_probability <= 1:
        raise ValueError(
            "iterations must be at least 1, and mask_probability above 0 and at most 1; they are "
            f"{iterations} and {mask_probability}."
        )
    family = alignment.drop_query_gaps()
    columns = columns_to_change(family, only_residues, fixed_residues)
    rows = row_limit(alignment, rows, MsaTokenizer.for_config(model.config).model_max_depth, usual=600)
    pool = filter_rows(family.array, coverage, identity)
    if only_rows is None:
        planned = batches(family, pool, rows, select, seed, count, keep_query)
    elif count is not None or keep_query:
        raise ValueError("only_rows cannot be combined with count or keep_query: it already names the rows to change.")
    else:
        planned = [named_batch(family, pool, rows, select, seed, find_rows(alignment, only_rows))]
    changing = max(changed.sum() for _, changed in planned)
    if mode == "fast" and changing > 1:
        raise ValueError(
            f"{family.source or family.names[0]}: fast mode changes a single row, but {changing} rows would change: "
            "name one (only_rows), or use count 1 or mode exact."
        )

    parents, made, before, after = [], [], [], []
    model = evaluation_copy(model)
    with (
        torch.inference_mode(),
        tqdm(total=iterations * len(planned), unit="pass", leave=False, disable=None if progress else True) as bar,
    ):
        for index, changed in planned:
            seen = family.take(index)
            tokens = encode(seen, model)["input_ids"][0]  # (R, C)
            gaps = seen.array == _GAP
            change = torch.from_numpy(changed[:, None] & columns & ~(gaps & keep_gaps))  # (R, L)
            gap_allowed = None if new_gaps else torch.from_numpy(gaps)
            targets = np.flatnonzero(changed)
            predict = None  # frees the context of the last alignment before the next one is made
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
    passes as columns, each residue is masked alone and the value is exact; the more is masked at once, the less
    context is seen.

    Parameters
    ----------
    alignment : Alignment
        As the model sees it: all of its rows and columns.
    model : MsaForMaskedLM
    rows : sequence of int, optional
        Rows to score, from 0. Default: all.
    passes : int, default 10
        Number of groups, at most one per column.
    seed : int, default 0
        Random seed of the groups.

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
        raise ValueError(f"passes must be at least 1, but is {passes}.")
    targets = np.arange(alignment.depth)[slice(None) if rows is None else list(rows)]
    tokens = encode(alignment, model)["input_ids"][0]
    model = evaluation_copy(model)
    with torch.inference_mode():
        return _log_likelihoods(tokens, targets, _predictor(model, tokens), passes, seed)


def check_arguments(
    sampling: str,
    temperature: float = 1.0,
    top_p: float | None = None,
    only_residues: str | None = None,
    fixed_residues: str | None = None,
    mode: str = "exact",
) -> None:
    """Raise ValueError for arguments that `generate` refuses for any alignment."""
    check_mode(mode)
    _chooser(sampling, temperature, top_p, torch.Generator())
    for what, numbers in (("residues to change", only_residues), ("fixed residues", fixed_residues)):
        if numbers is not None and not re.search("[A-Za-z]", numbers):  # chains are those of the alignment
            residue_numbers(numbers, what)


def _chooser(
    sampling: str, temperature: float, top_p: float | None, generator: torch.Generator
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make the function that chooses from scores ``(M, 21)`` an index ``(M,)``."""
    if sampling == "greedy":
        if temperature != 1 or top_p is not None:
            raise ValueError("temperature and top_p require the sampling 'sample'; the default is 'greedy'.")
        return lambda scores: scores.argmax(-1)
    if sampling != "sample":
        raise ValueError(f"unknown sampling {sampling!r}; use greedy or sample.")
    if not temperature > 0 or not (top_p is None or 0 < top_p <= 1):
        raise ValueError(
            f"temperature must be above 0, and top_p above 0 and at most 1; they are {temperature} and {top_p}."
        )
    warpers = [TemperatureLogitsWarper(float(temperature))] + ([] if top_p is None else [TopPLogitsWarper(top_p)])

    def draw(scores: torch.Tensor) -> torch.Tensor:
        for warper in warpers:
            scores = warper(None, scores)
        return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]

    return draw


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


def _chain_lengths(family: Alignment, row: np.ndarray) -> list[int]:
    """Count the residues of a row (L,) in each chain of a complex."""
    chains = chain_indices(family.chains, family.column_residues)
    return [int(((chains == k) & (row != _GAP)).sum()) for k in range(len(family.chains))]


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
    empty = (made == _GAP).all(axis=1)
    kept: list[tuple[str, str]] = []
    lengths = _chain_lengths(family, made[0])
    if parents[0] != 0 or empty[0] or 0 in lengths:
        lengths = [each.length for each in family.chains]
        raw = family.array[0].tobytes() if family.raw_rows is None else family.raw_rows[0]
        kept = [(family.names[0], raw.decode())]
    if empty.any():
        also = ", also the query's, so the natural query comes first" if parents[0] == 0 and empty[0] else ""
        warnings.warn(
            f"{where}: {empty.sum()} of {len(made)} generated sequences consist of gaps only{also}; allow no new gaps "
            "to prevent it.",
            stacklevel=3,
        )
    # identities of each new row to all natural ones, (N,) at a time
    nearest, identity = np.zeros(len(made), dtype=np.int64), np.zeros(len(made))
    for k, row in enumerate(made):
        same = (family.array == row).sum(axis=1)
        nearest[k] = same.argmax()
        identity[k] = same[nearest[k]] / family.length
    found = Alignment.from_sequences(
        [*(row for _, row in kept), *rows], [*(name for name, _ in kept), *names], source=f"generated from {where}"
    )
    return Generated(
        alignment=found.with_chains(
            [Chain(each.name, length) for each, length in zip(family.chains, lengths, strict=True)]
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
