"""One MSA over several processes, each of which holds some of its rows (sequence parallelism along the depth).

Rows are mixed by tied row attention, a sum over rows, and by column attention. So row attention adds up its logits
``(B, H, C, C)`` over the processes, and for column attention the hidden states are exchanged from rows to columns and
back: each process then has all rows of some columns. All else works on single tokens. Rows and columns are divided as
evenly as possible; no padding is moved.

Gradients follow one rule: the processes minimise the *sum* of their losses. The adjoint of a sum over processes is a
sum, that of an exchange the exchange back, and each parameter's gradient is summed before it is accumulated. Tensors
that every process has a copy of (row maps, contacts, the query) would count once for each: gradients are averaged
where they leave the split part, and so are those of the parameters after it.
"""

import atexit
import contextlib
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from transformers import PreTrainedModel

from .._processes import leave_processes
from ..inference_msa_transformer import inference_blocks, widen
from .inputs import is_split

# Inference exchanges about so many bytes at a time, in at most so many pieces, so that only these are held twice.
PIECE_BYTES = 16 * 2**20
MOST_PIECES = 8


def _even(length: int, parts: int) -> list[slice]:
    """Divide `length` entries into `parts` slices whose sizes differ by one at most, the longer first."""
    size, longer = divmod(length, parts)
    starts = [part * size + min(part, longer) for part in range(parts + 1)]
    return [slice(*ends) for ends in itertools.pairwise(starts)]


def _length(part: slice) -> int:
    return part.stop - part.start


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view_as(tensor)


class _LinearMap(torch.autograd.Function):
    """A linear map between the processes; the backward pass takes its adjoint."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, there: Callable, back: Callable) -> torch.Tensor:
        ctx.back = back
        return there(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.back(gradient), None, None


class RowSplit:
    """The division of rows among processes that `split_rows` yields.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup, optional
        The processes. Default: this process alone.

    Attributes
    ----------
    rank, size : int
        Rank of this process among those that share an MSA, from 0, and their number.

    Examples
    --------
    >>> RowSplit().rows(7)  # one process has all of them
    slice(0, 7, None)
    >>> RowSplit().rows(7, rank=2, size=4)  # 2 + 2 + 2 + 1
    slice(4, 6, None)
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        self._active = True
        self._depth = 0  # of the last input
        self._query_rows: torch.Tensor | None = None  # (B,), if not 0

    def rows(self, depth: int, rank: int | None = None, size: int | None = None) -> slice:
        """Return the rows of an MSA that a process holds; none, if there are fewer rows than processes.

        Parameters
        ----------
        depth : int
            Rows of the input, including padding.
        rank, size : int, optional
            Another process, and another number of processes.

        Returns
        -------
        slice
            Consecutive rows; process 0 has the query (row 0). Their numbers differ by one at most.
        """
        return _even(depth, size or self.size)[self.rank if rank is None else rank]

    def gather(self, tensor: torch.Tensor, depth: int) -> torch.Tensor:
        """Gather the rows of all processes, on every process.

        Parameters
        ----------
        tensor : torch.Tensor
            ``(B, rows of this process, ...)``, such as hidden states or logits.
        depth : int
            Rows of the input.

        Returns
        -------
        torch.Tensor
            ``(B, depth, ...)``, the same on every process. Its gradient is averaged over the processes, which all go
            backward from the same loss.

        Raises
        ------
        ValueError
            If the tensor has another number of rows than this process holds of `depth`.
        """
        mine = self.rows(depth)
        if tensor.shape[1] != _length(mine):
            raise ValueError(
                f"Of {depth} rows, process {self.rank} of {self.size} holds {_length(mine)}, but the tensor has "
                f"{tensor.shape[1]}: pass what the model returned, and the depth of its input."
            )
        if self.size == 1:
            return tensor
        return self._map(tensor, functools.partial(self._gather, depth=depth), lambda grad: self._mean(grad)[:, mine])

    # ------------------------------------------------------------------------------------------------- linear maps

    def _map(self, tensor: torch.Tensor, there: Callable, back: Callable) -> torch.Tensor:
        def checked(gradient: torch.Tensor) -> torch.Tensor:
            if not self._active:
                raise RuntimeError("The backward pass of a split model must be called inside `with split_rows(...)`.")
            return back(gradient)

        return _LinearMap.apply(tensor, there, checked)

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum over the processes, the same bits on each."""
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(tensor, group=self.group)
        return tensor

    def _mean(self, tensor: torch.Tensor) -> torch.Tensor:
        return self._sum(tensor) / self.size

    def _count_once(self, tensor: torch.Tensor) -> torch.Tensor:
        """Pass on a tensor that every process has: its gradients will be summed."""
        return self._map(tensor, _same, lambda gradient: gradient / self.size)

    def _gather(self, tensor: torch.Tensor, depth: int) -> torch.Tensor:
        parts = _even(depth, self.size)
        padded = tensor.new_zeros(tensor.shape[0], _length(parts[0]), *tensor.shape[2:])  # all send the same size
        padded[:, : tensor.shape[1]] = tensor
        gathered = [torch.empty_like(padded) for _ in parts]
        dist.all_gather(gathered, padded, group=self.group)
        return torch.cat([each[:, : _length(part)] for each, part in zip(gathered, parts, strict=True)], dim=1)

    def _to_columns(self, states: torch.Tensor, depth: int) -> torch.Tensor:
        """All columns of this process's rows ``(B, rows, C, D)`` -> all rows of its columns ``(B, R, columns, D)``."""
        batch, rows, columns, hidden = states.shape
        parts = _even(columns, self.size)
        sizes = [batch * rows * _length(part) * hidden for part in parts]
        sent = states.new_empty(sum(sizes))
        for chunk, part in zip(sent.split(sizes), parts, strict=True):  # rows first, so that they arrive in order
            chunk.view(rows, batch, _length(part), hidden).copy_(states[:, :, part].transpose(0, 1))
        mine = _length(parts[self.rank])
        received = states.new_empty(depth, batch, mine, hidden)
        per_row = batch * mine * hidden
        self._exchange(received, sent, [_length(part) * per_row for part in _even(depth, self.size)], sizes)
        return received.transpose(0, 1)

    def _to_rows(self, states: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """Undo `_to_columns`."""
        batch, depth, mine, hidden = states.shape
        sent = states.transpose(0, 1).contiguous()
        parts = _even(columns, self.size)
        sizes = [batch * rows * _length(part) * hidden for part in parts]
        received = states.new_empty(sum(sizes))
        per_row = batch * mine * hidden
        self._exchange(received, sent, sizes, [_length(part) * per_row for part in _even(depth, self.size)])
        result = states.new_empty(batch, rows, columns, hidden)
        for chunk, part in zip(received.split(sizes), parts, strict=True):
            result[:, :, part] = chunk.view(rows, batch, _length(part), hidden).transpose(0, 1)
        return result

    def _exchange(self, received: torch.Tensor, sent: torch.Tensor, into: list[int], out_of: list[int]) -> None:
        """Send each process its part of `sent`; `into` and `out_of` are numbers of entries, by process."""
        dist.all_to_all_single(received.view(-1), sent.view(-1), into, out_of, group=self.group)

    # -------------------------------------------------------------------------- replacements of the model's methods
    # `original` is the method that is replaced, bound to its module.

    def _agree(self, numbers: torch.Tensor) -> bool:
        """Whether all processes have the same integers."""
        largest = torch.stack([numbers, -numbers])
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.group)
        return torch.equal(largest[0], -largest[1])

    @torch.no_grad()
    def _check_weights(self, model: PreTrainedModel) -> None:
        """Raise ValueError, in every process, if they have different weights."""
        kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        bits = [each.reshape(-1).view(kinds[each.element_size()]).sum() for each in model.parameters()]
        if not self._agree(torch.stack([each.to(model.device) for each in bits])):
            raise ValueError(
                "The processes that share an MSA have different weights: load the same checkpoint in each, and call "
                "transformers.set_seed before if the head is new."
            )

    def _check_inputs(self, model: PreTrainedModel, *inputs: torch.Tensor | None) -> None:
        """Raise ValueError, in every process, if they have different inputs or differ in what they run."""
        facts = [torch.tensor([model.training, torch.is_grad_enabled()])]
        for tensor in inputs:
            facts.append(torch.tensor(([] if tensor is None else list(tensor.shape) + 4 * [0])[:4] or 4 * [-1]))
            if tensor is not None and not tensor.is_floating_point():  # embeddings are compared by shape alone
                places = torch.arange(1, tensor.numel() + 1, device=tensor.device)
                facts.append((tensor.flatten() * places).sum().view(1))
            else:
                facts.append(torch.zeros(1))
        if not self._agree(torch.cat([each.to(model.device, torch.int64) for each in facts])):
            raise ValueError(
                "The processes that share an MSA have different inputs, or some train and others do not: pass the "
                "whole input to each (with the same random seed, if it is masked or sampled)."
            )

    def _prepare(
        self,
        original: Callable,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """`MsaModel.prepare`: hidden states of this process's rows, masks of its tokens and of all columns."""
        base = original.__self__  # type: ignore[attr-defined]
        self._check_inputs(base, input_ids, attention_mask, position_ids, inputs_embeds)
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        self._depth = tokens.shape[1]
        mine = self.rows(self._depth)
        embed = base.embeddings.forward

        def embed_rows(input_ids: Any, inputs_embeds: Any, position_ids: Any, row_ids: Any, mask: Any) -> torch.Tensor:
            cut = (None if each is None else each[:, mine] for each in (input_ids, inputs_embeds, mask))
            ids, embeds, mask = cut
            row_ids = torch.arange(self._depth, device=tokens.device)[None] if row_ids is None else row_ids
            return embed(ids, embeds, position_ids, row_ids[:, mine], mask)

        with _replaced(base.embeddings, "forward", embed_rows):
            inputs = original(input_ids, attention_mask, position_ids, inputs_embeds, **kwargs)
        if inputs["output_column_attentions"]:
            raise ValueError(
                "Column attention maps are not available while an MSA is split by rows, since each process has only "
                "some of the columns: request them outside of split_rows, for fewer rows."
            )
        masks = inputs["masks"]
        self._query_rows = None if masks is None else masks.rows.int().argmax(1)
        # the depth goes along, since checkpointing runs a layer again after other inputs
        return inputs | {"masks": masks and masks.of(rows=mine), "depth": self._depth}

    def _layer(self, original: Callable, *args: Any, **kwargs: Any) -> tuple[Any, torch.Tensor, None]:
        hidden_states, row_maps, _ = original(*args, **kwargs)
        return hidden_states, self._count_once(row_maps), None

    def _blocks(self, original: Callable, states: torch.Tensor, axis: int, *args: Any, **kwargs: Any) -> list[slice]:
        """The blocks of columns are those of the process with most rows, since all exchange each of them."""
        if axis != 2:
            return original(states, axis, *args, **kwargs)
        batch, _, columns, hidden = states.shape
        most = states.new_empty(1).expand(batch, -(-self._depth // self.size), columns, hidden)
        if len(original(most, 2)) == 1:
            return [slice(None)]
        pieces = math.ceil(most.numel() * most.element_size() / PIECE_BYTES)
        return _even(columns, max(2, min(MOST_PIECES, pieces, columns // self.size)))

    def _maps(self, original: Callable, logits: torch.Tensor, masks: Any = None) -> torch.Tensor:
        return original(self._map(widen(logits), self._sum, self._sum), masks)

    def _column_attention(
        self, original: Callable, hidden_states: torch.Tensor, masks: Any, *args: Any, depth: int, **kwargs: Any
    ) -> tuple[torch.Tensor, None]:
        rows, columns = hidden_states.shape[1:3]
        to_columns = functools.partial(self._to_columns, depth=depth)
        to_rows = functools.partial(self._to_rows, rows=rows, columns=columns)
        states = self._map(hidden_states, to_columns, to_rows)  # (B, R, columns of this process, D)
        mine = _even(columns, self.size)[self.rank]
        masks = masks and masks.of(columns=mine)
        if not _length(mine):  # fewer columns than processes: one that is thrown away
            states, masks = F.pad(states, (0, 0, 0, 1)), None
        updates = [
            original(states[:, :, block], masks and masks.of(columns=block), *args, **kwargs)[0]
            for block in inference_blocks(original.__self__, states, 2)  # type: ignore[attr-defined]
        ]
        update = torch.cat(updates, dim=2) if len(updates) > 1 else updates[0]
        return self._map(update[:, :, : _length(mine)], to_rows, to_columns), None

    def _row_loss(
        self, original: Callable, logits: torch.Tensor, labels: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Loss of a head on all tokens: the whole one, of which this process's share goes backward.

        The head has counted the targets of all rows, since it received all labels.
        """
        if labels.shape[1] != self._depth:
            raise ValueError(f"labels must cover all {self._depth} rows, but cover {labels.shape[1]}.")
        share = original(logits, labels[:, self.rows(self._depth)].contiguous(), *args, **kwargs)
        return self._map(share, self._sum, _same)

    def _query_head(self, original: Callable, base: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        """Forward of a head that reads the query only, which every process receives."""
        with _replaced(base, "forward", functools.partial(self._with_query, base.forward)):
            return original(*args, **kwargs)

    def _with_query(self, original: Callable, *args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        states, mine = output.last_hidden_state, self.rows(self._depth)
        states = states if states.shape[1] else F.pad(states, (0, 0, 0, 0, 0, 1))
        batch = torch.arange(len(states), device=states.device)
        first = torch.zeros_like(batch) if self._query_rows is None else self._query_rows
        query = states[batch, (first - mine.start).clamp(0, states.shape[1] - 1)]  # (B, C, D)
        query = query * ((mine.start <= first) & (first < mine.stop))[:, None, None]  # zero, if another process has it
        query = self._map(query, self._sum, self._mean)
        output.last_hidden_state = query[:, None].expand(-1, self._depth, -1, -1)  # the head chooses its row
        return output

    def _sum_gradient(self, copies: int, gradient: torch.Tensor) -> torch.Tensor:
        """Sum a parameter's gradient over the processes before it is accumulated."""
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        return (self._sum(wide) / copies).to(gradient.dtype)


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute of an instance for a while."""
    before = {name: vars(owner)[name]} if name in vars(owner) else {}
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        vars(owner).update(before)


def _check_model(model: Any) -> None:
    base = getattr(model, "base_model", None)
    if not isinstance(model, PreTrainedModel) or not hasattr(base, "run_layers"):
        raise ValueError(
            f"split_rows requires a model of this package as it was loaded, not a {type(model).__name__}: do not wrap "
            "it in DistributedDataParallel, FSDP or torch.compile, nor prepare it with Accelerate, since split_rows "
            "sums the gradients."
        )
    if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        raise ValueError(
            "The model's parameters are sharded (FSDP): split_rows requires all of them in every process."
        )
    if is_split(model):
        raise ValueError("This model's rows are already split: leave the other split_rows first.")


def _find_group(model: PreTrainedModel, group: Any) -> Any:
    """Find the processes that share the MSA; None if this one is alone."""
    if group is None:
        if not (dist.is_available() and dist.is_initialized()):
            if int(os.environ.get("WORLD_SIZE", "1")) == 1:
                return None
            from accelerate import PartialState

            atexit.register(leave_processes)
            PartialState(cpu=model.device.type == "cpu")
        group = dist.group.WORLD
    if dist.get_rank(group) < 0:
        raise ValueError(
            "This process is not in the group that shares the MSA: call split_rows in the group's processes only."
        )
    return group if dist.get_world_size(group) > 1 else None


@contextlib.contextmanager
def split_rows(model: Any, group: Any = None) -> Iterator[RowSplit]:
    """Run a model with the rows of its input divided among several processes, forward and backward.

    Every process has the whole model and passes it the whole input (``input_ids``, ``attention_mask``, ``labels``);
    inside the context it holds and returns hidden states of its own rows only. The results equal those of one process
    up to rounding. ``accelerate launch`` or ``torchrun`` starts the processes.

    Parameters
    ----------
    model : MsaPreTrainedModel
        A model of any class of this package, not wrapped: no DDP, FSDP or torch.compile. Its methods are replaced
        inside the context.
    group : torch.distributed.ProcessGroup, optional
        Processes that share one MSA. Default: all. Each of several groups has its own MSA; add up their gradients
        yourself.

    Yields
    ------
    RowSplit
        ``rows(depth)`` are the rows of this process, ``gather(tensor, depth)`` gathers those of all.

    Raises
    ------
    ValueError
        For a wrapped or sharded model, one that is already split, weights that differ between processes, or a process
        outside the group; inside the context, in every process, for inputs that differ, and for column maps.
    RuntimeError
        If the backward pass comes after the end of the context.

    Notes
    -----
    - ``last_hidden_state``, ``hidden_states`` and the logits of `MsaForMaskedLM` are of this process's rows. Row maps,
      contacts, the logits of the other classes and every loss are whole, the same on every process.
    - Call ``loss.backward()`` in every process, inside the context, even without rows. Each parameter's gradient is
      then the whole one on every process, and a plain optimizer keeps them in step.
    - A loss of your own from a process's rows counts as that process's share: divide it by the targets of all rows. A
      loss from whole tensors (row maps, gathered rows) must be the same on every process, and counts once.
    - The gradient of ``inputs_embeds`` is that of this process's rows, and zero for others.
    - Each process draws its own dropout, also for the row maps, of which it drops other entries than another process.
      Give the processes different random seeds.
    - Trainer gives each process another batch: write the loop yourself.

    With a single process the model runs unchanged.

    Examples
    --------
    >>> import torch
    >>> from modeling_msa import MsaConfig, MsaModel, MsaTokenizer, split_rows
    >>> config = MsaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    >>> model = MsaModel(config).eval()
    >>> inputs = MsaTokenizer()(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")
    >>> with torch.no_grad(), split_rows(model) as split:
    ...     states = model(**inputs).last_hidden_state
    ...     print(split.rows(3), split.gather(states, 3).shape)
    slice(0, 3, None) torch.Size([1, 3, 6, 32])
    """
    _check_model(model)
    split = RowSplit(_find_group(model, group))
    if split.size == 1:
        yield split
        return
    split._check_weights(model)
    base = model.base_model
    with contextlib.ExitStack() as stack:

        def replace(owner: nn.Module, name: str, stand_in: Callable, *bound: Any) -> None:
            original = getattr(owner, name.removeprefix("_") if name == "_loss_function" else name)
            value = functools.wraps(original)(functools.partial(stand_in, original, *bound))
            stack.enter_context(_replaced(owner, name, value))

        replace(base, "prepare", split._prepare)
        for layer in base.layers:
            replace(layer, "forward", split._layer)
            replace(layer, "blocks", split._blocks)
            replace(layer.row_attention, "maps", split._maps)
            replace(layer.column_attention, "forward", split._column_attention)
        if hasattr(model, "lm_head"):
            replace(model, "_loss_function", split._row_loss)  # behind transformers' property
        if hasattr(model, "classifier"):
            replace(model, "forward", split._query_head, base)
        copied = {id(each) for part in (base.contact_head, getattr(model, "classifier", None)) if part is not None
                  for each in part.parameters()}  # fmt: skip
        for parameter in model.parameters():
            if parameter.requires_grad:
                copies = split.size if id(parameter) in copied else 1
                stack.callback(parameter.register_hook(functools.partial(split._sum_gradient, copies)).remove)
        try:
            yield split
        finally:
            split._active = False
