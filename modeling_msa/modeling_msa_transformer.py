# Copyright 2026 The modeling-msa authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The MSA Transformer (Rao et al., "MSA Transformer", ICML 2021).

Axes in shape comments: B batch, R rows (sequences; row 0 is the query), C columns of tokens including ``<cls>``,
L = C - 1 residue columns, D hidden, H heads, K head dimension, V vocabulary. Hidden states are ``(B, R, C, D)``.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN, GELUActivation
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import is_flash_attention_requested, maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_msa_transformer import MsaConfig
from .sharing_msa_transformer import SharedModelMixin
from .tokenization_msa_transformer import MsaTokenizer, check_padding

# Smallest and largest number of tokens in a block of inference. On CPUs inner tensors stay under 32 MB, where malloc
# reuses its pages, and products of fewer tokens are as fast; a GPU requires large ones.
TOKENS_PER_BLOCK = {"cpu": (384, 2048), "other": (2**14, 2**16)}
# At least so many blocks, if large enough: the inner tensors of one, up to 8 times its states, are half of all.
BLOCKS = 16


@dataclass
class MsaModelOutput(BaseModelOutput):
    """Output of `MsaModel`.

    ``last_hidden_state`` ``(B, R, C, D)`` is after the final layer norm; so is the last of ``hidden_states``, output
    of the embeddings and of each layer, as in fair-esm's ``representations``. ``attentions`` are each layer's tied row
    map ``(B, H, C, C)``, float32; ``column_attentions`` are its column maps ``(B, H, C, R, R)``, which are huge. The
    last three are present on request (``output_hidden_states=True`` and so on).
    """

    column_attentions: tuple[Tensor, ...] | None = None


@dataclass
class MsaTaskOutput(ModelOutput):
    """Output of the task classes: `MsaModelOutput` with ``logits`` and, if labels were passed, ``loss``."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    column_attentions: tuple[Tensor, ...] | None = None
    last_hidden_state: Tensor | None = None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Turn dropout off for a while, module by module: Trainer leaves it on, and some may be frozen on purpose."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _is_plain_inference(module: nn.Module) -> bool:
    """Whether tensors may be cut into blocks and updated in place: no training, no gradients, no traced graph.

    Reentrant checkpointing first trains without gradients, and must draw the same dropout again. A traced graph must
    not depend on sizes.
    """
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not (module.training or torch.is_grad_enabled() or tracing)


def inference_blocks(module: nn.Module, states: Tensor, axis: int) -> list[slice]:
    """Slices along an axis of `states` ``(B, R, C, D)``, of which plain inference makes several."""
    if not _is_plain_inference(module):
        return [slice(None)]
    length = states.shape[axis]
    tokens = states[..., 0].numel()
    least, most = TOKENS_PER_BLOCK["cpu" if states.device.type == "cpu" else "other"]
    step = max(1, min(max(tokens // BLOCKS, least), most) * length // tokens)
    return [slice(start, start + step) for start in range(0, length, step)]


def widen(tensor: Tensor) -> Tensor:
    """Bring half precision to float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class MsaEmbeddings(nn.Module):
    """Token, column and row embeddings, layer norm, dropout."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.max_columns = config.max_position_embeddings
        # fair-esm numbers columns from padding_idx + 1; the table keeps the unused first entries, so that checkpoints
        # are converted both ways bit for bit.
        padding_idx = config.pad_token_id
        self.position_offset = padding_idx + 1
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx)
        self.position_embeddings = nn.Embedding(self.max_columns + padding_idx + 1, config.hidden_size, padding_idx)
        self.row_position_embeddings = None
        # CODEPATH: MSA-1b has a row embedding of the hidden size, MSA-1 one of width 1; own models may have none
        if (width := config.row_position_embedding_size) is not None:
            self.row_position_embeddings = nn.Embedding(config.max_row_position_embeddings, width)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        first_row: int = 0,
    ) -> Tensor:
        # first_row: number of the first row, if this is a part of an MSA
        # one name throughout: without gradients each step frees the tensor of the one before
        hidden_states = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds  # (B, R, C, D)
        rows, columns = hidden_states.shape[1:3]
        if columns > self.max_columns:
            raise ValueError(
                f"The MSA has {columns} columns with <cls>, but the model's table of column positions ends at "
                f"{self.max_columns}: crop the alignment, or tokenize with truncation=True."
            )
        device = hidden_states.device
        if position_ids is None:
            position_ids = torch.arange(columns, device=device).unsqueeze(0)
        positions = self.position_embeddings(position_ids + self.position_offset)  # (B or 1, C, D)
        hidden_states = hidden_states + positions.unsqueeze(1).to(device)
        if self.row_position_embeddings is not None:
            rows += first_row
            max_rows = self.row_position_embeddings.num_embeddings
            if rows > max_rows:
                raise ValueError(
                    f"The MSA has {rows} rows, but the model's table of row positions ends at {max_rows}: choose "
                    "fewer rows (modeling_msa.select_rows), or tokenize with truncation=True."
                )
            row_positions = self.row_position_embeddings(torch.arange(first_row, rows, device=device))
            hidden_states = hidden_states + row_positions[:, None].to(device)  # (R, 1, D or 1)
        return self.dropout(self.layer_norm(hidden_states))


class MsaAttention(nn.Module):
    """The modules of both attentions."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def norm(self, states: Tensor) -> Tensor:
        """Layer norm; under autocast in half precision, of which the projections would each make their own copy."""
        states, kind = self.layer_norm(states), states.device.type
        is_half = kind != "meta" and torch.is_autocast_enabled(kind)  # autocast refuses meta
        return states.to(torch.get_autocast_dtype(kind)) if is_half else states


class MsaRowAttention(MsaAttention):
    """Tied row attention (paper, section 3 and appendix A.2) as a pre-norm residual block.

    All rows share one map per head: its logits are the sum over rows of query-key products, divided by
    sqrt(K * depth). With rows and head dimensions side by side that is one matrix product, and so is the update.
    """

    def fold(self, states: Tensor) -> Tensor:
        """``(B, R, C, H*K)`` in the form of the matrix products, ``(B*H, C, R*K)``."""
        batch, rows, columns, _ = states.shape
        states = states.view(batch, rows, columns, -1, self.head_dim).permute(0, 3, 2, 1, 4)  # (B, H, C, R, K)
        return states.reshape(-1, columns, rows * self.head_dim)

    def unfold(self, states: Tensor, batch: int, rows: int) -> Tensor:
        """Undo `fold`."""
        columns = states.shape[1]
        states = states.view(batch, -1, columns, rows, self.head_dim).permute(0, 3, 2, 1, 4)  # (B, R, C, H, K)
        return states.reshape(batch, rows, columns, -1)

    def forward(
        self,
        hidden_states: Tensor,
        row_weights: Tensor,
        attention_mask: Tensor | None = None,
        row_maps_only: bool = False,
    ) -> tuple[Tensor | None, Tensor]:
        # hidden_states (B, R, C, D); row_weights (B, R, 1, 1); attention_mask (B, 1, 1, C)
        # with several blocks the norm is computed again in `update`, which is cheaper than to keep it
        blocks = inference_blocks(self, hidden_states, 1)
        normed = self.norm(hidden_states) if len(blocks) == 1 else None
        logits = self.tied_logits(hidden_states, row_weights, normed)
        if attention_mask is not None:
            logits = logits.masked_fill(~attention_mask, torch.finfo(logits.dtype).min)
        row_maps = logits.softmax(-1)  # (B, H, C, C)
        del logits
        return None if row_maps_only else self.update(hidden_states, row_maps, normed), row_maps

    def tied_logits(self, hidden_states: Tensor, row_weights: Tensor, normed: Tensor | None = None) -> Tensor:
        """Logits of the map, ``(B, H, C, C)`` at least float32: a sum over the rows, weighted with `row_weights`."""
        batch, _, columns, _ = hidden_states.shape
        logits: Tensor | None = None
        for block in inference_blocks(self, hidden_states, 1):
            states = self.norm(hidden_states[:, block]) if normed is None else normed
            # a padded row's weight is zero: it adds nothing to the map
            query = self.fold(self.q_proj(states) * row_weights[:, block].to(states.dtype))
            key = self.fold(self.k_proj(states))
            product = widen(torch.bmm(query, key.transpose(1, 2)))  # (B*H, C, C); blocks add up in float32
            logits = product if logits is None else logits.add_(product)
        return logits.view(batch, -1, columns, columns)

    def update(self, hidden_states: Tensor, row_maps: Tensor, normed: Tensor | None = None) -> Tensor:
        """Every row updated through the same maps ``(B, H, C, C)``: hidden states of the same shape."""
        batch = hidden_states.shape[0]
        maps = F.dropout(row_maps, p=self.config.attention_dropout, training=self.training).flatten(0, 1)
        blocks = inference_blocks(self, hidden_states, 1)
        updated = hidden_states if len(blocks) == 1 else torch.empty_like(hidden_states)
        for block in blocks:
            states = self.norm(hidden_states[:, block]) if normed is None else normed
            value = self.fold(self.v_proj(states))
            context = self.unfold(torch.bmm(maps.to(value.dtype), value), batch, states.shape[1])
            update = self.dropout(self.out_proj(context))
            if len(blocks) == 1:
                return hidden_states + update
            torch.add(hidden_states[:, block], update, out=updated[:, block])
        return updated


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention of one sequence axis: ``(N, H, S, K)`` each -> ``(N, S, H, K)`` and maps ``(N, H, S, S)``."""
    logits = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        # added in place: the fewest passes over the largest tensor, forward and backward
        lowest = torch.finfo(logits.dtype).min
        logits += torch.zeros_like(attention_mask, dtype=logits.dtype).masked_fill_(~attention_mask, lowest)
    with maybe_autocast(logits.device.type, enabled=False):  # softmax sums in float32 in any dtype
        maps = logits.softmax(-1)
    return torch.matmul(F.dropout(maps, p=dropout, training=module.training), value).transpose(1, 2), maps


class MsaColumnAttention(MsaAttention):
    """Attention along each column (paper, section 3) as a pre-norm residual block, through transformers' interface.

    Without gradients it updates `hidden_states` in place: the layer has just made that tensor.
    """

    is_causal = False

    def fold(self, states: Tensor) -> Tensor:
        """Make each column a sequence: ``(B, R, C, H*K)`` -> ``(B*C, H, R, K)``."""
        batch, rows, columns, _ = states.shape
        states = states.view(batch, rows, columns, -1, self.head_dim).permute(0, 2, 3, 1, 4)  # (B, C, H, R, K)
        return states.reshape(batch * columns, -1, rows, self.head_dim)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        output_column_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        # hidden_states (B, R, C, D); attention_mask (B, 1, 1, R), or (B, R) for flash; maps (B, H, C, R, R)
        batch, rows = hidden_states.shape[:2]
        # no kernel has maps
        implementation = "eager" if output_column_attentions else self.config._attn_implementation
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        all_maps = []
        for block in inference_blocks(self, hidden_states, 2):
            states = self.norm(hidden_states[:, :, block])
            columns = states.shape[2]
            mask = attention_mask
            if mask is not None:
                # (B*C, 1, 1, R), or (B*C, R) for flash; torch.onnx mistranslates repeat_interleave of a batch
                mask = mask.unsqueeze(1).expand(-1, columns, *mask.shape[1:]).flatten(0, 1)
            context, maps = attention(
                self,
                self.fold(self.q_proj(states)),
                self.fold(self.k_proj(states)),
                self.fold(self.v_proj(states)),
                mask,
                dropout=self.config.attention_dropout if self.training else 0.0,
                scaling=self.head_dim**-0.5,
                **kwargs,
            )
            update = self.out_proj(context.reshape(batch, columns, rows, -1)).transpose(1, 2)  # (B, R, C, D)
            del context
            if _is_plain_inference(self):
                hidden_states[:, :, block] += self.dropout(update)
            else:
                hidden_states = hidden_states + self.dropout(update)
            if output_column_attentions:
                all_maps.append(maps.view(batch, columns, -1, rows, rows).transpose(1, 2))
        return hidden_states, torch.cat(all_maps, dim=2) if all_maps else None


class MsaFeedForward(nn.Module):
    """Feed-forward as a pre-norm residual block; without gradients in place, as `MsaColumnAttention`."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.activation_dropout = nn.Dropout(config.activation_dropout)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def transition(self, hidden_states: Tensor) -> Tensor:
        """Return the update alone."""
        inner = self.fc1(self.layer_norm(hidden_states))
        # in place, unless a hook may have kept it: without a copy of the widest tensor, blocks may be larger
        owned = type(self.activation) is GELUActivation and _is_plain_inference(self) and not self.fc1._forward_hooks
        inner = torch.ops.aten.gelu_(inner) if owned else self.activation(inner)
        return self.dropout(self.fc2(self.activation_dropout(inner)))

    def forward(self, hidden_states: Tensor) -> Tensor:
        if not _is_plain_inference(self):
            return hidden_states + self.transition(hidden_states)
        tokens = hidden_states.view(1, 1, -1, hidden_states.shape[-1])
        for block in inference_blocks(self, tokens, 2):
            tokens[:, :, block] += self.transition(tokens[:, :, block])
        return hidden_states


class MsaLayer(GradientCheckpointingLayer):
    """Row attention, column attention, feed-forward (paper, figure 1)."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.row_attention = MsaRowAttention(config)
        self.column_attention = MsaColumnAttention(config)
        self.feed_forward = MsaFeedForward(config)

    def forward(
        self,
        hidden_states: Tensor,
        row_weights: Tensor,
        row_attention_mask: Tensor | None = None,
        column_attention_mask: Tensor | None = None,
        row_maps_only: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        hidden_states, row_maps = self.row_attention(hidden_states, row_weights, row_attention_mask, row_maps_only)
        if row_maps_only:
            return None, row_maps, None
        hidden_states, column_maps = self.column_attention(hidden_states, column_attention_mask, **kwargs)
        return self.feed_forward(hidden_states), row_maps, column_maps


class MsaContactRegression(nn.Module):
    """Logistic regression on the symmetrised, APC-corrected row maps (paper, section 4.1; Rao et al., ICLR 2021).

    Weights are ordered by layer and head, as in fair-esm. A call returns one layer's share of the logits, so that only
    one layer's maps are held at a time. Not an nn.Linear, which offloading, sharding and quantization expect to be
    called.
    """

    def __init__(self, num_maps: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, num_maps))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, row_maps: Tensor, layer_idx: int, pair_mask: Tensor | None = None) -> Tensor:
        # row_maps (B, H, C, C); pair_mask (B, L, L)
        with maybe_autocast(row_maps.device.type, enabled=False):  # the correction is a difference of near equals
            maps = widen(row_maps[..., 1:, 1:])  # without <cls>
            if pair_mask is not None:
                maps = maps * pair_mask.unsqueeze(1)
            heads = maps.shape[1]
            weights = self.weight[0, layer_idx * heads : (layer_idx + 1) * heads].to(maps.dtype)
            # APC of a symmetrised map S is S - s s^T / sum(s), with s its row sums; the regression is linear, so the
            # weighted sum over heads comes first, and no corrected map is made.
            sums = maps.sum(-1) + maps.sum(-2)  # (B, H, L)
            total = sums.sum(-1)
            scale = weights / total.clamp(min=1e-12)  # (B, H); total is zero if <cls> gets all
            weighted = torch.matmul(weights, maps.flatten(2)).view(maps.shape[0], *maps.shape[2:])  # (B, L, L)
            correction = torch.matmul((sums * scale.unsqueeze(-1)).transpose(1, 2), sums)
            logits = weighted + weighted.transpose(1, 2) - correction
            return logits + self.bias.to(logits.dtype) if layer_idx == 0 else logits


class MsaContactHead(nn.Module):
    """The regression, under its name in fair-esm's checkpoints."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.regression = MsaContactRegression(config.num_hidden_layers * config.num_attention_heads)

    def forward(self, *inputs: Any) -> Tensor:
        return self.regression(*inputs)


class MsaPreTrainedModel(SharedModelMixin, PreTrainedModel):  # type: ignore[misc]  # push_to_hub adds options
    """Weight initialisation, loading and saving common to all MSA Transformer classes."""

    config: MsaConfig
    base_model_prefix = "msa"
    tokenizer_class = MsaTokenizer  # what push_to_hub adds to the model
    supports_gradient_checkpointing = True
    _no_split_modules = ["MsaLayer"]
    _input_embed_layer = "word_embeddings"  # of MsaModel.embeddings
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # From the layers, not from the attention modules: a layer's outputs keep their gradient under checkpointing.
    _can_record_outputs = {
        "hidden_states": MsaLayer,
        "attentions": OutputRecorder(MsaLayer, index=1),
        "column_attentions": OutputRecorder(MsaLayer, index=2),
    }
    # One checkpoint serves every class: the heads of others are expected.
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^classifier\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MsaContactRegression):  # zero means "never fitted"; see predict_contacts
            init.zeros_(module.weight)
            init.zeros_(module.bias)

    def _freeze_unused(self) -> None:
        """Freeze the parameters that this class's loss does not reach, here the contact regression.

        A trainable parameter without a gradient breaks DDP together with gradient checkpointing.
        """
        self.base_model.contact_head.requires_grad_(False)

    @torch.no_grad()
    def predict_contacts(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Probability that two residue columns are in contact (C-beta within 8 Angstrom; paper, section 4.1).

        The parameters are `MsaModel.forward`'s. It computes no column maps and only the row map of the last layer, and
        holds one layer's row maps at a time.

        Returns
        -------
        torch.Tensor
            ``(B, L, L)`` float32, symmetric, L = C - 1 (without ``<cls>``); zero where a column is padding.

        Raises
        ------
        ValueError
            If the contact regression was never fitted, and for input that `MsaModel.forward` refuses.
        """
        model = self.base_model
        weight = model.contact_head.regression.weight
        if hasattr(weight, "full_tensor"):  # sharded, this rank may hold nothing of it
            weight = weight.full_tensor()
        # offloaded weights are on the meta device; whether they are zero shows in the result
        fitted = torch.compiler.is_compiling() or weight.device.type == "meta" or weight.any()
        with evaluating(self):
            if fitted:
                logits = model.contact_logits(input_ids, attention_mask, position_ids, inputs_embeds)[0]
                fitted = weight.device.type != "meta" or len(logits.unique()) > 2 or logits.shape[1] < 3
        if not fitted:
            raise ValueError(
                "This model's contact regression was never fitted (its weights are zero). Convert the checkpoint "
                "with its contact-regression file, fit it (fit_contact_regression), or train MsaForContactPrediction."
            )
        return logits.sigmoid()


class MsaModel(MsaPreTrainedModel):
    """The MSA Transformer without a task head but with its contact regression.

    Examples
    --------
    >>> import torch
    >>> from modeling_msa import MsaConfig, MsaModel, MsaTokenizer
    >>> config = MsaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    >>> model = MsaModel(config).eval()
    >>> inputs = MsaTokenizer()(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")
    >>> with torch.no_grad():
    ...     output = model(**inputs, output_attentions=True)
    >>> output.last_hidden_state.shape  # (B, R, C, D)
    torch.Size([1, 3, 6, 32])
    >>> output.attentions[0].shape  # (B, H, C, C): one map for all rows
    torch.Size([1, 4, 6, 6])
    """

    def __init__(self, config: MsaConfig):
        super().__init__(config)
        self.embeddings = MsaEmbeddings(config)
        self.layers = nn.ModuleList([MsaLayer(config) for _ in range(config.num_hidden_layers)])
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.contact_head = MsaContactHead(config)
        self.gradient_checkpointing = False
        self._freeze_unused()
        self.post_init()

    def token_mask(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None
    ) -> Tensor | None:
        """Check the input and return which tokens count, ``(B, R, C)`` bool; None if all do."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids and inputs_embeds.")
        tensor = input_ids if inputs_embeds is None else inputs_embeds
        name, axes = ("input_ids", "(B, R, C)") if inputs_embeds is None else ("inputs_embeds", "(B, R, C, D)")
        shape = tuple(tensor.shape)
        if len(shape) != axes.count(",") + 1 or 0 in shape:
            raise ValueError(
                f"{name} must have the axes {axes}, none of them empty: a batch of MSAs. Its shape is {shape}. One "
                "MSA is a batch of one: use MsaTokenizer, or add the axis with unsqueeze(0)."
            )
        if attention_mask is None:
            if input_ids is None:
                return None
            attention_mask = input_ids.ne(self.config.pad_token_id)
        if (found := tuple(attention_mask.shape)) != shape[:3]:
            raise ValueError(f"attention_mask must have the shape of the tokens, {shape[:3]}, got {found}.")
        mask = attention_mask.bool()
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or mask.device.type == "meta":
            return mask  # a graph must not depend on values
        if mask.all():
            return None
        check_padding(mask)
        return mask

    def prepare(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        inputs_embeds: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any], Tensor | None]:
        """Make what `run_layers` starts from, of `forward`'s parameters.

        Returns the embeddings ``(B, R, C, D)``; the keyword arguments of every layer, with ``row_weights``
        ``(B or 1, R, 1, 1)``, by which rows count in the tied maps, and masks where there is padding; and which pairs
        of residue columns ``(B, L, L)`` are real (None: all).
        """
        mask = self.token_mask(input_ids, attention_mask, inputs_embeds)
        # without the other output flags: the attention interface warns of flags that it cannot serve
        wanted = kwargs.get("output_column_attentions", self.config.output_column_attentions)
        options = {name: value for name, value in kwargs.items() if not name.startswith("output_")}
        options["output_column_attentions"] = bool(wanted)
        hidden_states = self.embeddings(input_ids, inputs_embeds, position_ids)
        rows = hidden_states.shape[1]
        head_dim = self.config.hidden_size // self.config.num_attention_heads
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        if mask is None:
            weights = hidden_states.new_full((1, rows, 1, 1), 1 / math.sqrt(head_dim * rows), dtype=dtype)
            return hidden_states, options | {"row_weights": weights}, None
        mask = mask.to(hidden_states.device)
        # Padding is right and below, so the first column has the mask of the rows, and the first row that of the
        # columns. Padding is a key that none sees; it sees the real rows and columns, so that each softmax has keys.
        row_mask, column_mask = mask[:, :, 0], mask[:, 0]
        # The depth is the MSA's own. fair-esm divides by the padded depth, so that its output depends on the batch.
        weights = row_mask / (head_dim * row_mask.sum(-1, keepdim=True, dtype=dtype)).sqrt()  # (B, R)
        # Not transformers' create_bidirectional_mask: it would expand to (B*C, 1, R, R).
        flash = is_flash_attention_requested(self.config)
        options |= {
            "row_weights": weights[:, :, None, None],
            "row_attention_mask": column_mask[:, None, None],  # (B, 1, 1, C)
            "column_attention_mask": row_mask if flash else row_mask[:, None, None],  # (B, R) or (B, 1, 1, R)
        }
        return hidden_states, options, column_mask[:, 1:, None] & column_mask[:, None, 1:]  # of residue columns

    def run_layers(
        self,
        hidden_states: Tensor,
        options: dict[str, Any],
        visit: Callable[[int, Tensor, Tensor], None] | None = None,
        *,
        stop: int | None = None,
        last_map_only: bool = False,
    ) -> Tensor:
        """Run ``layers[:stop]`` one after another on what `prepare` made; return the last one's output.

        After each, ``visit(index, hidden_states, row_maps)`` gets its output ``(B, R, C, D)``, over which the next may
        write, and its row maps ``(B, H, C, C)``. With `last_map_only` no more of the last layer runs than its
        maps, and its output is None.
        """
        for index, layer in enumerate(self.layers[:stop]):
            map_only = last_map_only and index == len(self.layers) - 1
            hidden_states, row_maps, _ = layer(hidden_states, row_maps_only=map_only, **options)
            if visit is not None:
                visit(index, hidden_states, row_maps)
            del row_maps  # before the next layer makes its own
        return hidden_states

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> MsaModelOutput:
        """Run the model.

        Parameters
        ----------
        input_ids : torch.Tensor
            ``(B, R, C)`` int64 token ids: a batch of MSAs, row 0 the query, column 0 ``<cls>``.
        attention_mask : torch.Tensor, optional
            ``(B, R, C)``, 1 or True where a token counts; padding is right and below. Default: everything that is
            not ``<pad>`` (everything, for `inputs_embeds`).
        position_ids : torch.Tensor, optional
            ``(B, C)`` or ``(1, C)`` int64 column numbers from 0 (``<cls>``). Default: 0 .. C - 1.
        inputs_embeds : torch.Tensor, optional
            ``(B, R, C, D)`` token embeddings, instead of `input_ids`; for instance of a mixture of tokens,
            ``probabilities @ model.get_input_embeddings().weight``.
        **kwargs
            ``output_hidden_states``, ``output_attentions``, ``output_column_attentions``, ``return_dict``.

        Returns
        -------
        MsaModelOutput
            ``last_hidden_state`` ``(B, R, C, D)`` and the outputs that were requested. An MSA's result does not depend
            on the other MSAs of its batch; at padding it has no meaning.

        Raises
        ------
        ValueError
            For input without the three axes, a mask of another shape, padding that is not right and below, an MSA of
            padding only, and more rows or columns than the position tables have.
        """
        hidden_states, options, _ = self.prepare(input_ids, attention_mask, position_ids, inputs_embeds, **kwargs)
        return MsaModelOutput(last_hidden_state=self.layer_norm(self.run_layers(hidden_states, options)))

    def contact_logits(
        self, *inputs: Tensor | None, whole_last_layer: bool = False, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Logits of `predict_contacts`, ``(B, L, L)`` float32, with gradients if they are enabled.

        `inputs` are `forward`'s four. With `whole_last_layer` the last layer runs as a whole, and the second output is
        the last hidden state (otherwise None). Padded columns get the lowest finite logit.
        """
        hidden_states, options, pair_mask = self.prepare(*inputs, **kwargs)
        shares: list[Tensor] = []  # small, (B, L, L) each

        def add_share(index: int, _: Tensor, row_maps: Tensor) -> None:
            shares.append(self.contact_head(row_maps, index, pair_mask))

        hidden_states = self.run_layers(hidden_states, options, add_share, last_map_only=not whole_last_layer)
        logits = torch.stack(shares).sum(0)
        if pair_mask is not None:
            logits = logits.masked_fill(~pair_mask.to(logits.device), torch.finfo(logits.dtype).min)
        return logits, self.layer_norm(hidden_states) if whole_last_layer else None


class MsaLMHead(nn.Module):
    """Dense layer, GELU, layer norm and the tied projection onto the vocabulary."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        rows = inference_blocks(self, hidden_states, 1)
        logits = [self.decoder(self.layer_norm(self.activation(self.dense(hidden_states[:, row])))) for row in rows]
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)  # (B, R, C, V)


class MsaForMaskedLM(MsaPreTrainedModel):
    """The MSA Transformer with the masked language model head it was trained with (paper, section 3.1)."""

    _tied_weights_keys = {"lm_head.decoder.weight": "msa.embeddings.word_embeddings.weight"}

    def __init__(self, config: MsaConfig):
        super().__init__(config)
        self.msa = MsaModel(config)
        self.lm_head = MsaLMHead(config)
        self.post_init()

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        self.lm_head.decoder = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MsaTaskOutput:
        """Predict tokens; the other parameters are `MsaModel.forward`'s.

        `labels` ``(B, R, C)`` int64 are the tokens to predict, -100 where there is none. The loss is the mean
        cross-entropy over targets, in nats; zero (not NaN) if there are none.
        """
        outputs = self.msa(input_ids, attention_mask, position_ids, inputs_embeds, return_dict=True, **kwargs)
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            targets = _targets(labels != -100, kwargs)
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=targets)
        return MsaTaskOutput(loss=loss, logits=logits, **_recorded(outputs))


def _recorded(outputs: MsaModelOutput) -> dict[str, Any]:
    return {name: getattr(outputs, name) for name in ("hidden_states", "attentions", "column_attentions")}


def _targets(known: Tensor, kwargs: dict[str, Any]) -> Any:
    """Count the targets that a loss is divided by: Trainer's count, or this batch's, at least one."""
    count = kwargs.get("num_items_in_batch")
    return known.sum().clamp(min=1) if count is None else count


class MsaForContactPrediction(MsaPreTrainedModel):
    r"""The MSA Transformer with its contact regression as the task to train.

    Modules that do not act on the logits (the last layer's update, the final layer norm) are frozen; exclude them from
    adapters. PEFT, 12 layers: ``exclude_modules=r".*\.11\.(row_attention\.[vo]|column_attention|feed_forward).*"``.
    """

    # transformers has no auto class for contact maps; with this name save_pretrained still copies the code
    _auto_class = "AutoModelForContactPrediction"

    def __init__(self, config: MsaConfig):
        super().__init__(config)
        self.msa = MsaModel(config)
        self._freeze_unused()
        self.post_init()

    def _freeze_unused(self) -> None:
        self.msa.contact_head.requires_grad_(True)
        last = self.msa.layers[-1]
        unused = (last.row_attention.v_proj, last.row_attention.out_proj, last.column_attention, last.feed_forward)
        for module in (*unused, self.msa.layer_norm):
            module.requires_grad_(False)

    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MsaTaskOutput:
        """Predict contacts, with gradients; the other parameters are `MsaModel.forward`'s.

        `labels` ``(B, L, L)`` are 1 for residue columns in contact, 0 for others, and -100 for pairs to leave out
        (unknown, padding, close in sequence). The loss is the mean binary cross-entropy over the rest.
        """
        flags = ("output_hidden_states", "output_column_attentions")
        whole = any(kwargs.get(name, getattr(self.config, name, False)) for name in flags)
        logits, last_hidden_state = self.msa.contact_logits(
            input_ids, attention_mask, position_ids, inputs_embeds, whole_last_layer=whole, **kwargs
        )
        loss = None
        if labels is not None:
            labels = labels.to(logits.device)
            known = (labels != -100) & (logits != torch.finfo(logits.dtype).min)  # not padding; NaN shows in the loss
            if not torch.compiler.is_compiling() and (known & (labels != 0) & (labels != 1)).any():
                raise ValueError(
                    "Contact labels must be 0, 1 or -100: convert distances to contacts first (< 8 Angstrom)."
                )
            losses = F.binary_cross_entropy_with_logits(
                logits.masked_fill(~known, 0), labels.to(logits.dtype).masked_fill(~known, 0), reduction="none"
            )
            loss = (losses * known).sum() / _targets(known, kwargs)
        return MsaTaskOutput(loss=loss, logits=logits, last_hidden_state=last_hidden_state)


class MsaClassifier(MsaPreTrainedModel):
    """The modules of both classifiers."""

    def __init__(self, config: MsaConfig):
        super().__init__(config)
        self.msa = MsaModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()


class MsaForTokenClassification(MsaClassifier):
    """The MSA Transformer with a linear classifier on each token of the query row."""

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MsaTaskOutput:
        """Classify the query's tokens; the other parameters are `MsaModel.forward`'s.

        `labels` ``(B, C)`` int64 are in [0, num_labels), or -100 where there is none: at ``<cls>``, padding and gaps.
        """
        outputs = self.msa(input_ids, attention_mask, position_ids, inputs_embeds, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state[:, 0]))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config, num_items_in_batch=_targets(labels != -100, kwargs))
        return MsaTaskOutput(loss=loss, logits=logits, **_recorded(outputs))


class MsaForSequenceClassification(MsaClassifier):
    """The MSA Transformer with a classifier (or regressor) on the mean over the query's residues."""

    accepts_loss_kwargs = False  # the loss is this batch's mean: Trainer must divide it by the accumulation steps

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> MsaTaskOutput:
        """Classify the query; the other parameters are `MsaModel.forward`'s.

        `labels` are ``(B,)`` int64 classes, or ``(B,)`` or ``(B, num_labels)`` float targets, by
        ``config.problem_type`` as in transformers.
        """
        outputs = self.msa(input_ids, attention_mask, position_ids, inputs_embeds, return_dict=True, **kwargs)
        query = outputs.last_hidden_state[:, 0]  # (B, C, D)
        residues = torch.ones(query.shape[:2], dtype=torch.bool, device=query.device)
        if attention_mask is not None:
            residues = attention_mask[:, 0].bool().to(query.device)
        if input_ids is not None:
            tokens = input_ids[:, 0].to(query.device)
            residues = residues & (tokens != self.config.pad_token_id) & (tokens != self.config.gap_token_id)
        residues = residues.to(query.dtype)[:, 1:, None]  # (B, L, 1), without <cls>
        pooled = (query[:, 1:] * residues).sum(1) / residues.sum(1).clamp(min=1)  # (B, D)
        logits = self.classifier(self.dropout(pooled))
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        return MsaTaskOutput(loss=loss, logits=logits, **_recorded(outputs))


MsaModel.register_for_auto_class("AutoModel")
MsaForMaskedLM.register_for_auto_class("AutoModelForMaskedLM")
MsaForTokenClassification.register_for_auto_class("AutoModelForTokenClassification")
MsaForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = [
    "MsaForContactPrediction",
    "MsaForMaskedLM",
    "MsaForSequenceClassification",
    "MsaForTokenClassification",
    "MsaModel",
    "MsaPreTrainedModel",
]
