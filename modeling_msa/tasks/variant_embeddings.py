"""Hidden states of a query's variants as features: means over all residues, or over the mutated ones."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from .._version import __version__
from ..alignments.alignment import Alignment
from ..alignments.variants import Substitution, mutate
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .context import context_layers, row_states, versions_per_batch
from .embeddings import Embeddings, model_name, resolve_layers
from .inputs import ROWS, check_whole, model_inputs
from .scoring import fit_variants
from .strategies import Mode, check_mode

Which = Literal["mean", "mutated", "both"]
WHICH = ("mean", "mutated", "both")
_TOKENS_PER_PASS = 2**14  # of several variants in one pass, in exact mode
_Place = tuple[Substitution, ...]


@dataclass(frozen=True, eq=False)
class VariantEmbeddings:
    """Hidden states of N variants of a query.

    Attributes
    ----------
    name, query : str
        The query's name and its residues, insertions included.
    variants : tuple of str
        As they were given.
    arrays : dict of int to ndarray
        By layer ``(N, D)``, or ``(N, 2 D)`` for ``which="both"``, float32; NaN for a variant without an embedding.
    reasons : tuple of str
        Why a variant has no embedding; empty if it has one.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each residue column.
    row_names : tuple of str
        The R alignment rows given to the model, query first.
    settings : dict
        As of `modeling_msa.Embeddings`, and ``mode``.
    """

    name: str
    query: str
    variants: tuple[str, ...]
    arrays: dict[int, np.ndarray]
    reasons: tuple[str, ...]
    residues: np.ndarray
    row_names: tuple[str, ...]
    settings: dict[str, Any]

    @property
    def features(self) -> np.ndarray:
        """All layers side by side, ``(N, F)``."""
        return np.concatenate(list(self.arrays.values()), axis=1)

    @property
    def depth(self) -> int:
        """Number of alignment rows given to the model, R."""
        return len(self.row_names)

    def by_variant(self) -> dict[str, Embeddings]:
        """Give each variant that has an embedding as `Embeddings`, for `modeling_msa.write_embeddings`."""
        return {
            variant: Embeddings(
                self.name,
                self.query,
                self.residues,
                self.row_names,
                {layer: array[k] for layer, array in self.arrays.items()},
                self.settings,
            )
            for k, (variant, reason) in enumerate(zip(self.variants, self.reasons, strict=True))
            if not reason
        }


def embed_variants(
    alignment: Alignment,
    variants: Sequence[str],
    model: MsaPreTrainedModel,
    *,
    which: Which = "mean",
    layers: Sequence[int] = (-1,),
    mode: Mode = "exact",
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    skip_mismatches: bool = False,
    batch_size: int | None = None,
    dtype: str = "float32",
    source: str = "variants",
    lines: Sequence[int] | None = None,
) -> VariantEmbeddings:
    """Compute hidden states of variants as features.

    ``mode="exact"`` puts each variant in the query's place and runs all rows. ``mode="fast"`` runs the homologs once
    for many variants, and then the variants' rows alone: the homologs see the query masked as a whole
    (`modeling_msa.tasks.context`). All variants see the same rows.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    variants : sequence of str
        Such as ``A42V``, ``A42V:G7D`` or ``WT``; see `modeling_msa.score_variants`.
    model : MsaModel, or a class with a head
        Its dropout is turned off meanwhile.
    which : {"mean", "mutated", "both"}, default "mean"
        The mean over all residues that have a column; over those that the variant replaces by another (which the wild
        type lacks); or one after the other.
    layers : sequence of int, default (-1,)
        As for `modeling_msa.embed`.
    mode : {"exact", "fast"}, default "exact"
        See above.
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.prepare_alignment`.
    offset, skip_mismatches, source, lines
        How variants are numbered, and where they come from; see `modeling_msa.score_variants`.
    batch_size : int, optional
        Number of variants in one pass; default: by their size. It does not change the result.
    dtype : {"float32", "float16"}, default "float32"
        Type of the arrays; means are computed in float32.

    Returns
    -------
    VariantEmbeddings
        In the order of `variants`.

    Raises
    ------
    ValueError
        Before the model runs: if wild types are not the query's, none of the variants has an embedding, an argument is
        wrong, or the alignment is too large for the model.

    Examples
    --------
    >>> from modeling_msa import load_model
    >>> family = Alignment.from_sequences(["mkVL-AWY", "VIGAWY", "-LGAFF"])
    >>> result = embed_variants(family, ["V3I", "V3I:W6F", "K2R"], load_model(), mode="fast")
    >>> result.features.shape, result.reasons[2][:27]
    ((3, 192), 'residue 2 (K) is in lower c')
    """
    check_whole(model)
    check_mode(mode)
    if which not in WHICH:
        raise ValueError(f"which must be one of {', '.join(WHICH)}, not {which!r}.")
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype must be float32 or float16, not {dtype!r}.")
    if batch_size is not None and operator.index(batch_size) < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}.")
    wanted = resolve_layers(layers, model.config.num_hidden_layers)
    parsed, reasons = fit_variants(alignment, variants, offset, skip_mismatches, source, lines)
    parsed = [tuple(sorted(each for each in some if each.mutant != each.wild_type)) for some in parsed]
    if which != "mean":
        lacks = "there is no mutated residue to embed; which='mean' embeds the wild type too."
        reasons = tuple(why or ("" if some else lacks) for some, why in zip(parsed, reasons, strict=True))
        if all(reasons):
            raise ValueError(f"{source}: none of the variants can be embedded: {reasons[0]}")
    seen, inputs = model_inputs(alignment, model, rows, select, seed, coverage, identity)
    distinct = list(dict.fromkeys(each for each, why in zip(parsed, reasons, strict=True) if not why))
    found = _pooled(seen, inputs["input_ids"], model, distinct, which, wanted, mode, batch_size)
    place = {each: k for k, each in enumerate(distinct)}
    at = [-1 if why else place[each] for each, why in zip(parsed, reasons, strict=True)]
    arrays = {}
    for layer, states in found.items():
        arrays[layer] = states[at].astype(dtype)
        arrays[layer][np.array(at) < 0] = np.nan
    limit = None if rows is None and alignment.is_selected else rows or ROWS
    settings: dict[str, Any] = {
        "model": model_name(model),
        "which": which,
        "layers": list(wanted),
        "mode": mode,
        "rows": limit,
    }
    settings |= {"select": select, "seed": seed, "coverage": coverage, "identity": identity, "dtype": dtype}
    settings |= {"version": __version__}
    where = (seen.names[0], seen.query, tuple(variants))
    return VariantEmbeddings(*where, arrays, reasons, seen.column_residues, seen.names, settings)


@torch.inference_mode()
def _pooled(
    seen: Alignment,
    ids: torch.Tensor,
    model: MsaPreTrainedModel,
    variants: Sequence[_Place],
    which: Which,
    layers: tuple[int, ...],
    mode: Mode,
    batch_size: int | None,
) -> dict[int, np.ndarray]:
    """By layer, means of variants' hidden states, ``(N, D)`` or ``(N, 2 D)``."""
    backbone: MsaModel = evaluation_copy(model.base_model)  # type: ignore[assignment]
    query = seen.take([0])
    # verbose=False: these are rows of as many alignments
    sequences = [mutate(query, each).sequences[0] for each in variants]
    tokens = MsaTokenizer()(sequences, return_tensors="pt", verbose=False)["input_ids"][0]  # (N, C)
    changed = (tokens != ids[0, 0].cpu())[:, 1:]  # (N, L)
    rows, columns = ids.shape[1:]
    if mode == "fast":
        default, run = versions_per_batch(backbone, rows, columns), _run_fast
    else:
        default, run = max(1, _TOKENS_PER_PASS // (rows * columns)), _run_exact
    size = batch_size or default
    parts: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    with tqdm(total=len(tokens), desc="embedding", unit="variant", disable=None, leave=False) as bar:
        for versions, mutated in zip(tokens.split(size), changed.split(size), strict=True):
            pool = _pool_of(mutated.to(ids.device), which)

            def take(layer: int, states: torch.Tensor, pool: Any = pool) -> None:
                if layer in parts:
                    states = backbone.layer_norm(states) if layer == len(backbone.layers) else states
                    parts[layer].append(pool(states[:, 1:].float()).cpu().numpy())  # without <cls>

            run(backbone, ids, versions.to(ids.device), max(layers), take)
            bar.update(len(versions))
    return {layer: np.concatenate(parts[layer]) for layer in layers}


def _pool_of(mutated: torch.Tensor, which: Which) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function from states ``(n, L, D)`` to ``(n, D)`` or ``(n, 2 D)``; `mutated` is ``(n, L)`` bool."""

    def at_mutated(states: torch.Tensor) -> torch.Tensor:
        weights = mutated.to(states.dtype)
        return torch.einsum("nl,nld->nd", weights / weights.sum(1, keepdim=True), states)

    if which == "mean":
        return lambda states: states.mean(1)
    if which == "mutated":
        return at_mutated
    return lambda states: torch.cat([states.mean(1), at_mutated(states)], dim=1)


def _run_exact(model: MsaModel, ids: torch.Tensor, versions: torch.Tensor, stop: int, take: Any) -> None:
    tokens = ids.repeat(len(versions), 1, 1)
    tokens[:, 0] = versions
    prepared = model.prepare(tokens)
    take(0, prepared["hidden_states"][:, 0])
    model.run_layers(prepared, lambda index, states, _: take(index + 1, states[:, 0]), stop=stop)


def _run_fast(model: MsaModel, ids: torch.Tensor, versions: torch.Tensor, stop: int, take: Any) -> None:
    layers: Iterator[Any] = itertools.islice(context_layers(model, ids), stop)
    row_states(model, layers, versions, visit=take)
