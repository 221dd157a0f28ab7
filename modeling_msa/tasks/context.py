"""One row of an MSA read in many versions: exactly, or against the other rows, which are run once.

Scores and the generation of single rows change one row of an alignment again and again, and read that row alone.
`query_states` runs the whole MSA for each version, without what the last layer computes for others. `context_layers`
and `row_states` are the fast mode: the other rows, the context, are run once, and then the row alone, many versions at
once. The cost of a version falls from R rows to about one.

The approximation: in the model the other rows see the row that changes; here they see it fully masked, whatever its
version. The masked copy is a row of the context's own maps and columns; the versions do not see it. All the rest is
the model: a version's map is the softmax of the context's logits plus its own, scaled by the full depth (paper,
equation 1), and in a column it sees itself and the context. Without other rows nothing is approximated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import torch
from torch.nn import functional as F

from ..inference_msa_transformer import widen
from ..modeling_msa_transformer import MsaColumnAttention, MsaLayer, MsaModel, MsaRowAttention

# Of `versions_per_batch`: tokens that keep a processor busy, versions for each row of the context, bytes of states.
_TOKENS, _FEWEST, _MOST, _BYTES = 2**16, 4, 16, 2**28
# Size of an inner tensor. On CPUs 4 MB: it is written and read several times, which is fastest within the caches, and
# smaller ones leave little to each of several threads.
_NUMBERS_PER_BLOCK = {"cpu": 2**20, "other": 2**26}


@dataclasses.dataclass(frozen=True, eq=False)
class LayerContext:
    """What one layer of the model knows of the rows that do not change.

    Attributes
    ----------
    layer : MsaLayer
    scaling : float
        1 / sqrt(K * R), by which row logits are scaled; R counts all rows.
    row_logits : torch.Tensor, shape=(1, H, C, C)
        Their share of the row map's logits, scaled; at least float32.
    columns : iterable of (slice, torch.Tensor, torch.Tensor)
        Blocks of S columns, with the column attention's keys and values ``(S, H, R, K)``. Row 0 of these is zero: the
        place of the row that changes.
    """

    layer: MsaLayer
    scaling: float
    row_logits: torch.Tensor
    columns: Iterable[tuple[slice, torch.Tensor, torch.Tensor]]

    def kept(self) -> LayerContext:
        """Keep the columns for several uses: 2 * R * C * D numbers."""
        return dataclasses.replace(self, columns=list(self.columns))


@torch.inference_mode()
def context_layers(model: MsaModel, tokens: torch.Tensor, row: int = 0) -> Iterator[LayerContext]:
    """Run an MSA with one row masked, layer by layer.

    A layer's columns are computed as they are read, so that it needs no more memory than a pass of the model.
    `kept_layers` keeps them all, for several uses.

    Parameters
    ----------
    model : MsaModel
        In eval mode.
    tokens : torch.Tensor
        ``(1, R, C)`` int64, unpadded. The content of `row` does not matter.
    row : int, default 0
        The row that changes, from 0.

    Yields
    ------
    LayerContext
        Its columns can be read once, before the next one is requested.

    Raises
    ------
    ValueError
        If there is padding, or if layers are offloaded.

    Examples
    --------
    >>> from modeling_msa import MsaTokenizer, load_model
    >>> model = load_model().eval()
    >>> tokens = MsaTokenizer()(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")["input_ids"]
    >>> versions = MsaTokenizer()(["MKVLA", "MKWLA"], return_tensors="pt")["input_ids"][0]
    >>> row_states(model, context_layers(model, tokens), versions).shape
    torch.Size([2, 6, 192])
    """
    if any(hasattr(layer, "_hf_hook") for layer in model.layers):
        raise ValueError("The fast mode requires a model that is entirely on one device: load it without device_map.")
    if tokens.eq(cast(int, model.config.pad_token_id)).any():
        raise ValueError("The MSA has padding: pass it without.")
    tokens = tokens.clone()
    tokens[:, row, 1:] = cast(int, model.config.mask_token_id)
    inputs = model.prepare(tokens)
    hidden_states, scaling = inputs.pop("hidden_states"), inputs["scaling"]
    if row:  # the masked row comes first; the order of rows matters to embeddings alone
        order = [row, *(k for k in range(tokens.shape[1]) if k != row)]
        hidden_states = hidden_states[:, order]
    for layer in cast(Iterable[MsaLayer], model.layers):
        masked = layer.row_logits(hidden_states[:, :1], scaling)
        others = torch.zeros_like(masked)
        if tokens.shape[1] > 1:
            others = layer.row_logits(hidden_states[:, 1:], scaling)
        hidden_states = layer.add_row_update(hidden_states, layer.row_attention.maps(masked.add_(others)))
        is_last = layer is model.layers[-1]
        columns = _columns(layer, hidden_states, is_last)
        yield LayerContext(layer, scaling, others, columns)
        if not is_last:
            for _ in columns:  # blocks that were not read
                pass
            layer.add_feed_forward(hidden_states)


def versions_per_batch(model: MsaModel, rows: int, columns: int) -> int:
    """Give the number of versions to run against a context that is computed anew for each batch.

    The context adds about a sixteenth to the cost, or up to a quarter where that many states would need much memory.
    """
    fitting = _BYTES // (columns * cast(int, model.config.hidden_size) * model.dtype.itemsize)
    return max(_TOKENS // columns, _FEWEST * rows, min(_MOST * rows, fitting))


def kept_layers(model: MsaModel, tokens: torch.Tensor, row: int = 0) -> list[LayerContext]:
    """Run an MSA with one row masked, and keep the result of `context_layers` for several uses.

    Parameters
    ----------
    model, tokens, row
        As for `context_layers`.

    Returns
    -------
    list of LayerContext
        They hold 2 * layers * R * C * D numbers of the model's dtype.

    Raises
    ------
    ValueError
        Before the model runs, if that is more than the free memory; and as `context_layers`.
    """
    from accelerate.utils import get_max_memory  # slow to import

    numbers = 2 * len(model.layers) * tokens.numel() * cast(int, model.config.hidden_size)
    needed, free = numbers * model.dtype.itemsize, get_max_memory()
    left = free.get(model.device.type, free.get(model.device.index or 0, 0))
    if needed > left:
        raise ValueError(
            f"The fast mode keeps keys and values of {tokens.shape[1]} rows and {tokens.shape[2] - 1} columns "
            f"({needed / 2**30:.3g} GiB), but {left / 2**30:.3g} GiB are free on {model.device}: use fewer rows, "
            "bfloat16, or the exact mode."
        )
    return [layer.kept() for layer in context_layers(model, tokens, row)]


@torch.inference_mode()
def _columns(
    layer: MsaLayer, hidden_states: torch.Tensor, is_last: bool
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Run the context's column attention in place, and yield keys and values block by block."""
    attention = layer.column_attention
    for block in layer.blocks(hidden_states, 2):
        states = attention.norm(hidden_states[:, :, block])
        keys, values = map(_by_column, attention.project(states, "kv"))
        if not is_last:
            (queries,) = map(_by_column, attention.project(states, "q"))
            context = F.scaled_dot_product_attention(queries, keys, values)  # (S, H, R, K)
            hidden_states[:, :, block] += attention.out_proj(context.permute(2, 0, 1, 3).flatten(2))
        keys[:, :, 0] = 0
        values[:, :, 0] = 0
        yield block, keys, values


def _by_column(states: torch.Tensor) -> torch.Tensor:
    """Make each column of one MSA a sequence: ``(1, R, S, H, K)`` -> ``(S, H, R, K)``."""
    return states[0].permute(1, 2, 0, 3)


@torch.inference_mode()
def row_states(
    model: MsaModel,
    layers: Iterable[LayerContext],
    tokens: torch.Tensor,
    places: torch.Tensor | None = None,
    row: int = 0,
    visit: Callable[[int, torch.Tensor], None] = lambda layer, states: None,
) -> torch.Tensor:
    """Run versions of one row against a context.

    Parameters
    ----------
    model : MsaModel
        In eval mode.
    layers : iterable of LayerContext
        From `context_layers` or `kept_layers`, for the same row.
    tokens : torch.Tensor
        ``(N, C)`` int64: versions of the row.
    places : torch.Tensor, optional
        ``(N,)`` int64: the column to read of each version. The last layer then computes only what it requires.
    row : int, default 0
        The row's number, from 0.
    visit : callable, optional
        ``visit(layer, states)`` gets ``(N, C, D)`` after the embedding layer, 0, and after each layer, as they are
        inside the model: the last ones are not normed yet, and all of them change later.

    Returns
    -------
    torch.Tensor
        Last hidden states as `MsaModel` gives them: ``(N, C, D)``, or ``(N, D)`` with `places`.
    """
    states = model.embeddings(tokens[:, None], row_ids=torch.full((1, 1), row, device=tokens.device)).transpose(
        0, 1
    )  # (1, N, C, D), as rows of one MSA
    _, versions, columns, _ = states.shape
    visit(0, states[0])
    for number, context in enumerate(layers, start=1):
        layer, heads = context.layer, context.row_logits.shape[1]
        if places is not None and layer is model.layers[-1]:
            states = _last_layer(context, states, places)
            layer.add_feed_forward(states)
            return model.layer_norm(states)[0, 0]
        for block in _cut(states, versions, heads * columns**2):
            rows = states[0, block, None]  # (n, 1, C, D), as MSAs of their own
            states[0, block] = _row_attention(layer.row_attention, rows, context)[:, 0]
        for some, at, keys, values in _column_parts(context, states):
            states[:, some, at] += _column_update(layer.column_attention, states[:, some, at], keys, values)
        layer.add_feed_forward(states)
        visit(number, states[0])
    return model.layer_norm(states)[0]


def _column_parts(
    context: LayerContext, states: torch.Tensor
) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor]]:
    """Slices of versions and columns, with the context's keys and values: few columns of as many versions as fit."""
    versions = states.shape[1]
    for block, keys, values in context.columns:
        first = block.start or 0
        for columns in _cut(states, len(keys), versions * keys[0, ..., 0].numel()):
            at = slice(first + columns.start, first + min(columns.stop, len(keys)))
            for some in _cut(states, versions, keys[columns, ..., 0].numel()):
                yield some, at, keys[columns], values[columns]


def _cut(states: torch.Tensor, length: int, numbers_each: int) -> list[slice]:
    numbers = _NUMBERS_PER_BLOCK["cpu" if states.device.type == "cpu" else "other"]
    step = max(1, numbers // numbers_each)
    return [slice(start, start + step) for start in range(0, length, step)]


def _row_attention(attention: MsaRowAttention, states: torch.Tensor, context: LayerContext) -> torch.Tensor:
    """Row attention of versions ``(N, 1, C, D)``, each together with the context."""
    query, key, value = attention.project(attention.norm(states))
    logits = widen(attention.logits(query, key, context.scaling)).add_(context.row_logits)
    return states + attention.update(attention.maps(logits), value)


def _column_update(
    attention: MsaColumnAttention, states: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """Column attention's update of N versions in S columns, ``(1, N, S, D)``: each sees itself and the context."""
    query, key, value = map(_by_column, attention.project(attention.norm(states)))  # (S, H, N, K)
    query = query * attention.head_dim**-0.5
    logits = widen(torch.matmul(query, keys.transpose(2, 3)))  # (S, H, N, R)
    logits[..., 0] = (widen(query) * widen(key)).sum(-1)
    maps = logits.softmax(-1).to(value.dtype)
    context = torch.matmul(maps, values).addcmul_(maps[..., :1], value)
    return attention.out_proj(context.permute(2, 0, 1, 3).flatten(2))[None]


def _last_layer(context: LayerContext, states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The last layer's attentions at the column to read: versions ``(1, N, C, D)`` to ``(1, 1, N, D)``."""
    _, versions, columns, size = states.shape
    read = states.new_empty(1, 1, versions, size)
    for block in _cut(states, versions, 3 * columns * size):  # normed states, keys and values
        logits = context.row_logits[0][:, places[block]].transpose(0, 1)  # (n, H, C)
        rows = _row_attention_at(context.layer, states[0, block, None], places[block], context.scaling, logits)
        read[0, 0, block] = rows[:, 0, 0]
    for block, keys, values in context.columns:
        start, stop, _ = block.indices(columns)
        inside = torch.nonzero((places >= start) & (places < stop))[:, 0]
        for part in _cut(states, len(inside), keys[0].numel()):
            # versions take the axis of columns: each has a column of its own
            some = inside[part]
            index = places[some] - start
            read[:, :, some] += _column_update(
                context.layer.column_attention, read[:, :, some], keys[index], values[index]
            )
    return read


def _row_attention_at(
    layer: MsaLayer,
    hidden_states: torch.Tensor,
    places: torch.Tensor,
    scaling: float,
    logits: torch.Tensor | None = None,
) -> torch.Tensor:
    """Row attention of unpadded MSAs ``(B, R, C, D)`` at one column of each: ``(B, R, 1, D)``.

    `logits` ``(B, H, C)`` are those of further rows.
    """
    attention = layer.row_attention
    batch = len(hidden_states)
    here = hidden_states[torch.arange(batch, device=places.device), :, places][:, :, None]  # (B, R, 1, D)
    (query,) = attention.project(attention.norm(here), "q")
    blocks = layer.blocks(hidden_states, 1)
    total = None if logits is None else logits.unsqueeze(2)
    for rows in blocks:
        (key,) = attention.project(attention.norm(hidden_states[:, rows]), "k")
        product = widen(attention.logits(query[:, rows], key, scaling))  # (B, H, 1, C)
        total = product if total is None else total + product
    assert total is not None
    maps, updates = attention.maps(total), []
    for rows in blocks:
        (value,) = attention.project(attention.norm(hidden_states[:, rows]), "v")
        updates.append(attention.update(maps, value))
    return here + torch.cat(updates, dim=1)


@torch.inference_mode()
def query_states(model: MsaModel, tokens: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Run MSAs and read one column of each query.

    The result is the model's own. The last layer runs at that column only, and its feed-forward for the query only.

    Parameters
    ----------
    model : MsaModel
        In eval mode.
    tokens : torch.Tensor
        ``(B, R, C)`` int64, unpadded.
    places : torch.Tensor
        ``(B,)`` int64 columns.

    Returns
    -------
    torch.Tensor
        ``(B, D)``: ``last_hidden_state[b, 0, places[b]]`` of `MsaModel`.
    """
    last = cast(MsaLayer, model.layers[-1])
    if hasattr(last, "_hf_hook"):  # accelerate loads an offloaded layer's weights when the layer is called
        states = model(tokens, return_dict=True).last_hidden_state
        return states[torch.arange(len(places)), 0, places.cpu()]  # it may be on another device
    inputs = model.prepare(tokens)
    hidden_states = model.run_layers(inputs, stop=-1)
    states = _row_attention_at(last, hidden_states, places, inputs["scaling"])
    states = (states + last.column_attention(last.column_attention.norm(states))[0])[
        :, :1
    ].contiguous()  # (B, 1, 1, D)
    last.add_feed_forward(states)
    return model.layer_norm(states)[:, 0, 0]
