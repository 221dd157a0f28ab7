"""Tied row-attention maps of an alignment as features: what contact and docking networks read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .._version import __version__
from ..alignments.alignment import Alignment
from ..alignments.chains import Chains, chain_indices
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from .embeddings import model_name
from .inputs import check_whole, gapped_positions, model_inputs


@dataclass(frozen=True, eq=False)
class RowMaps:
    """Tied row-attention maps of a query.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each row and column of the maps; as in `ContactMap`.
    maps : ndarray, shape=(layers, heads, L, L), dtype=float16
        As the model computes them: row i is how residue i attends to all others. They are not symmetric, not
        corrected, and rows add up to less than 1, because ``<cls>`` is left out.
    layers, heads : tuple of int
        Which layers and heads these are, from 1.
    depth : int
        Number of alignment rows given to the model.
    chains : tuple of Chain
        As of a `ContactMap`.
    settings : dict
        How they were made: model, the choice of rows, and version.
    """

    name: str
    query: str
    residues: np.ndarray
    maps: np.ndarray
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    depth: int
    chains: Chains = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def blocks(self) -> dict[str, np.ndarray]:
        """Return the maps by pairs of chains, such as ``A:B`` (A attends to B); of one protein all, as ``maps``.

        Each is ``(layers, heads, residues of the first chain, residues of the second)``.
        """
        if not self.chains:
            return {"maps": self.maps}
        of_chain = chain_indices(self.chains, self.residues)
        places = {each.name: np.flatnonzero(of_chain == k) for k, each in enumerate(self.chains)}
        return {f"{a}:{b}": self.maps[:, :, i][..., j] for a, i in places.items() for b, j in places.items()}


def row_maps(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    chain_gap: int = 0,
) -> RowMaps:
    """Compute the tied row-attention maps of an alignment, ``attentions`` of the model without ``<cls>``.

    One layer's maps are in memory in full precision at a time. Layers above the highest requested one do not run.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    model : MsaModel, or a class with a head
        Its contact regression is not used.
    layers, heads : sequence of int, optional
        Which ones, from 1; default: all.
    rows, select, seed, coverage, identity, chain_gap
        As for `modeling_msa.predict_contacts`.

    Raises
    ------
    ValueError
        Before the model runs: for an unknown layer or head, and an alignment that is too large for the model.

    Examples
    --------
    >>> from modeling_msa import load_model
    >>> family = Alignment.from_sequences(["MKVLAWYC", "MRVL-WYC", "MKIIAWFC"])
    >>> row_maps(family, load_model(), layers=[3, 4]).maps.shape
    (2, 12, 8, 8)
    """
    check_whole(model)
    check_length(alignment, model)
    chosen_layers, chosen_heads = check_chosen(model, layers, heads)
    seen, inputs = model_inputs(alignment, model, rows, select, seed, coverage, identity)
    if chain_gap:
        inputs["position_ids"] = gapped_positions(seen, model, chain_gap)
    maps = np.empty((len(chosen_layers), len(chosen_heads), seen.length, seen.length), dtype=np.float16)
    backbone: MsaModel = evaluation_copy(model.base_model)  # type: ignore[assignment]
    indices = [head - 1 for head in chosen_heads]

    def take(index: int, _: torch.Tensor, row_maps: torch.Tensor) -> None:
        if index + 1 in chosen_layers:
            maps[chosen_layers.index(index + 1)] = row_maps[0, indices, 1:, 1:].half().cpu().numpy()

    with torch.inference_mode():
        prepared = backbone.prepare(**inputs, output_column_attentions=False)
        backbone.run_layers(prepared, take, stop=max(chosen_layers), last_map_only=True)
    how = {"select": select, "seed": seed, "coverage": coverage, "identity": identity, "chain_gap": chain_gap}
    settings = {"model": model_name(model), "rows": rows, **how, "version": __version__}
    where = (seen.names[0], seen.query, seen.column_residues)
    return RowMaps(*where, maps, chosen_layers, chosen_heads, seen.depth, seen.chains, settings)


def check_length(alignment: Alignment, model: MsaPreTrainedModel) -> None:
    """Raise ValueError if the model does not read a query at once: maps cannot be put together from windows."""
    columns, most = int((alignment.residue_columns >= 0).sum()), model.config.max_position_embeddings - 1
    if columns > most:
        raise ValueError(
            f"{alignment.source or alignment.names[0]}: the query has {columns:,} aligned residues, but the model "
            f"reads at most {most:,}, and row maps (--row-maps) are not read in windows: cut the alignment into "
            "domains, or leave them out."
        )


def check_chosen(
    model: MsaPreTrainedModel, layers: Sequence[int] | None, heads: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return layers and heads, each once, all for None; ValueError if the model does not have them."""
    config = model.config
    return _chosen(layers, config.num_hidden_layers, "layer"), _chosen(heads, config.num_attention_heads, "head")


def _chosen(numbers: Sequence[int] | None, count: int, what: str) -> tuple[int, ...]:
    """Check numbers from 1, each kept once; None is all of them."""
    chosen = tuple(range(1, count + 1) if numbers is None else dict.fromkeys(numbers))
    wrong = [number for number in chosen if not 1 <= number <= count]
    if wrong or not chosen:
        which = f"there is no {what} {wrong[0]}" if wrong else f"no {what} was given"
        raise ValueError(f"Row maps: {which}; this model has {what}s 1 to {count}.")
    return chosen
