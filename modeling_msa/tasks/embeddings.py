"""Hidden states of an alignment as features: of the query's residues, their mean, or of all rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._version import __version__
from ..alignments.alignment import Alignment
from ..alignments.chains import Chains, chain_indices, chain_slices
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from .inputs import ROWS, check_whole, windowed_inputs
from .windows import Windows

WHICH = ("query", "mean", "rows")


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Hidden states of one family.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each residue column. Residues without a column in the alignment are left out.
    row_names : tuple of str
        The R alignment rows given to the model, query first.
    arrays : dict of int to ndarray
        By layer: ``(L, D)`` of the query's residues, ``(D,)`` of their mean, or ``(R, L, D)`` of all rows. A row has
        a state in each column, even at a gap; ``<cls>`` is left out.
    settings : dict
        How they were made: ``model``, ``which``, ``layers``, ``rows``, ``select``, ``seed``, ``coverage``,
        ``identity``, ``window``, ``overlap``, ``dtype`` and ``version`` (of modeling-msa). ``rows`` is None if all
        rows were selected before; ``window`` and ``overlap`` are as they were passed.
    chains : tuple of Chain
        The K chains of a complex, whose residues are numbered one after the other; empty for one protein. The mean of
        a complex is ``(K, D)``, one for each chain. `by_chain` splits them.
    """

    name: str
    query: str
    residues: np.ndarray
    row_names: tuple[str, ...]
    arrays: dict[int, np.ndarray]
    settings: dict[str, Any]
    chains: Chains = ()

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers, in the order requested: 0 is the embedding layer, then 1 to the number of layers."""
        return tuple(self.arrays)

    @property
    def depth(self) -> int:
        """Number of alignment rows given to the model, R."""
        return len(self.row_names)

    def by_chain(self) -> dict[str, Embeddings]:
        """Split a complex into its chains, by name, with residues numbered from 1.

        A chain without a column is left out. One protein stands under the empty name.
        """
        if not self.chains:
            return {"": self}
        found = {}
        of_chain = chain_indices(self.chains, self.residues)
        for k, (start, end) in enumerate(chain_slices(self.chains, len(self.query))):
            here = of_chain == k
            arrays = {
                layer: array[k] if self.settings["which"] == "mean" else array[..., here, :]
                for layer, array in self.arrays.items()
            }
            if here.any():
                found[self.chains[k].name] = replace(
                    self, query=self.query[start:end], residues=self.residues[here] - start, arrays=arrays, chains=()
                )
        return found

    @property
    def array(self) -> np.ndarray:
        """The array, if there is only one layer."""
        if len(self.arrays) != 1:
            raise ValueError(f"There are {len(self.arrays)} layers, {self.layers}: use arrays[layer].")
        return next(iter(self.arrays.values()))


def embed(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    *,
    which: str = "query",
    layers: Sequence[int] = (-1,),
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    dtype: str = "float32",
    window: int | None = None,
    overlap: int | None = None,
) -> Embeddings:
    """Compute hidden states of an alignment as features.

    Layers above the highest requested one do not run, and only the requested states are kept. A query with more
    columns than a window is read in several that overlap (`modeling_msa.tasks.windows.Windows`); the states of a
    column that is in more than one are averaged, and the mean is that of these averages.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    model : MsaModel, or a class with a head
        Its dropout is turned off meanwhile.
    which : {"query", "mean", "rows"}, default: "query"
        The query's residues, their mean, or all rows.
    layers : sequence of int, default: (-1,)
        0 is the output of the embedding layer, n that of layer n, -1 the last, after the final layer norm:
        ``hidden_states`` of the model, ``representations`` of fair-esm.
    rows, select, seed, coverage, identity
        Which rows are given to the model; see `modeling_msa.prepare_alignment`. Without `rows`, all
        that `modeling_msa.select_rows` has chosen, of other alignments at most 128.
    dtype : {"float32", "float16"}, default: "float32"
        Type of the arrays; means are computed in float32.
    window, overlap
        See `modeling_msa.predict_contacts`. Default: windows only if the query is longer than the model reads.

    Raises
    ------
    ValueError
        Before the model runs: for an unknown layer, `which` or `dtype`, impossible windows, and more rows than the
        model reads.

    Examples
    --------
    >>> from modeling_msa import load_model
    >>> family = Alignment.from_sequences(["mkVL-AWY", "VIGAWY", "-LGAFF"])
    >>> result = embed(family, load_model(), layers=(0, -1))
    >>> result.arrays[8].shape, result.residues.tolist()
    ((5, 192), [3, 4, 5, 6, 7])
    >>> embed(family, load_model(), which="mean").array.shape
    (192,)
    """
    check_whole(model)
    if which not in WHICH:
        raise ValueError(f"which must be one of {', '.join(WHICH)}, not {which!r}.")
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype must be float32 or float16, not {dtype!r}.")
    wanted = resolve_layers(layers, model.config.num_hidden_layers)
    seen, inputs, windows = windowed_inputs(alignment, model, rows, select, seed, coverage, identity, window, overlap)
    chains = chain_indices(seen.chains, seen.column_residues)
    parts = [chains == k for k in range(len(seen.chains))] or [slice(None)]
    if len(windows) == 1:
        states = _hidden_states(model, inputs, wanted, which, parts)
    else:
        states = _in_windows(model, inputs, wanted, which, parts, windows)
    if not seen.chains and which == "mean":
        states = {layer: means[0] for layer, means in states.items()}
    arrays = {layer: array.astype(dtype) for layer, array in states.items()}
    limit = None if rows is None and alignment.is_selected else rows or ROWS
    chosen = {"rows": limit, "select": select, "seed": seed, "coverage": coverage, "identity": identity}
    settings = {"model": model_name(model), "which": which, "layers": list(wanted), **chosen}
    settings |= {"window": window, "overlap": overlap, "dtype": dtype, "version": __version__}
    return Embeddings(seen.names[0], seen.query, seen.column_residues, seen.names, arrays, settings, seen.chains)


def resolve_layers(layers: Iterable[int], count: int) -> tuple[int, ...]:
    """Number layers from 0 (the embedding layer) to `count`, each once; negative ones count from the end.

    Examples
    --------
    >>> resolve_layers([-1, 0, 12], 12)
    (12, 0)
    """
    layers = list(layers)
    wrong = [layer for layer in layers if not -count - 1 <= layer <= count]
    if wrong or not layers:
        what = f"unknown layer {wrong[0]}" if wrong else "no layer was given"
        raise ValueError(
            f"{what}: this model has layers 0 (the embedding layer) to {count}; -1 is the last, -{count + 1} layer 0."
        )
    return tuple(dict.fromkeys(layer % (count + 1) for layer in layers))


@torch.inference_mode()
def _hidden_states(
    model: MsaPreTrainedModel, inputs: Mapping[str, Any], layers: tuple[int, ...], which: str, parts: Sequence[Any]
) -> dict[int, np.ndarray]:
    """Run the model as far as `layers` need it; its own recorder would keep the states of all layers."""
    backbone: MsaModel = evaluation_copy(model.base_model)  # type: ignore[assignment]
    last = len(backbone.layers)
    taken: dict[int, np.ndarray] = {}

    def take(layer: int, states: torch.Tensor) -> None:
        if layer in layers:
            states = backbone.layer_norm(states) if layer == last else states
            states = states[0] if which == "rows" else states[0, 0]
            # a copy: float() and cpu() may give the tensor itself, of which this is a view
            part = states[..., 1:, :].float().clone()  # without <cls>
            if which == "mean":  # of each chain
                part = torch.stack([part[each].mean(0) for each in parts])
            taken[layer] = part.cpu().numpy()

    prepared = backbone.prepare(**inputs, output_column_attentions=False)
    take(0, prepared["hidden_states"])
    backbone.run_layers(prepared, lambda index, states, _: take(index + 1, states), stop=max(layers))
    return {layer: taken[layer] for layer in layers}


def _in_windows(
    model: MsaPreTrainedModel,
    inputs: Mapping[str, Any],
    layers: tuple[int, ...],
    which: str,
    parts: Sequence[Any],
    windows: Windows,
) -> dict[int, np.ndarray]:
    """Average the hidden states of the windows, column by column."""
    mean: dict[int, np.ndarray] = {}
    of_window = "rows" if which == "rows" else "query"
    for columns, shares, tokens in zip(windows.columns, windows.shares, windows.read(inputs), strict=True):
        for layer, states in _hidden_states(model, tokens, layers, of_window, ()).items():
            if layer not in mean:
                mean[layer] = np.zeros((*states.shape[:-2], windows.length, states.shape[-1]), dtype=np.float32)
            mean[layer][..., columns, :] += shares[:, None] * states
    if which == "mean":
        return {layer: np.stack([states[each].mean(axis=0) for each in parts]) for layer, states in mean.items()}
    return mean


def model_name(model: MsaPreTrainedModel) -> str:
    """Folder or Hub id as it was given; only the name for a checkpoint that comes with the package."""
    name = model.name_or_path or ""
    return Path(name).name if Path(name).parent == Path(__file__).parents[1] / "checkpoints" else name
