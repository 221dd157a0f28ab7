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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.generic import is_flash_attention_requested, maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from .configuration_msa_transformer import MsaConfig
from .inference_msa_transformer import evaluation_copy, fuses, inference_blocks, is_traced, padding, widen
from .sharing_msa_transformer import SharedModelMixin
from .tokenization_msa_transformer import MsaTokenizer


class MsaKwargs(TransformersKwargs, total=False):
    """Options of `MsaModel.forward` beyond transformers' own."""

    output_column_attentions: bool | None
    is_padded: bool | None


@dataclass
class MsaOutput(ModelOutput):
    """Output of every class: what it makes, and what was requested (``output_hidden_states=True`` and so on).

    ``last_hidden_state`` ``(B, R, C, D)``, of `MsaModel`, is after the final layer norm; so is the last of
    ``hidden_states``, of the embeddings and each layer, as in fair-esm's ``representations``. ``attentions`` are each
    layer's tied row map ``(B, H, C, C)``, float32; ``column_attentions`` its column maps ``(B, H, C, R, R)``: huge.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    column_attentions: tuple[Tensor, ...] | None = None


class MsaMasks(NamedTuple):
    """What a mask means to the layers. A row or column without a token is as if it were not there."""

    columns: Tensor  # (B, C) bool: columns with a token, the keys of row attention
    rows: Tensor  # (B, R) bool: rows with a token
    # None if all rows have the same mask, as in a batch of MSAs of one depth:
    tokens: Tensor | None  # (B, R, C) bool: the query, key and value of others count for nothing in row attention
    column_keys: Tensor | None  # (B, C, R) bool: keys of column attention; in an empty column rows, lest it give NaN

    @classmethod
    def make(cls, tokens: Tensor, same_in_rows: bool) -> "MsaMasks":
        columns, rows = tokens.any(1), tokens.any(2)
        if same_in_rows:
            return cls(columns, rows, None, None)
        some = rows | ~rows.any(1, keepdim=True)
        return cls(columns, rows, tokens, tokens.transpose(1, 2) | ~columns.unsqueeze(2) & some.unsqueeze(1))

    def of(self, rows: slice = slice(None), columns: slice = slice(None)) -> "MsaMasks":
        """Masks of a block: of the rows that row attention runs on, or the columns that column attention does."""
        if self.tokens is None or self.column_keys is None:
            return self
        return self._replace(tokens=self.tokens[:, rows], column_keys=self.column_keys[:, columns])


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

    def check_size(self, rows: int, columns: int) -> None:
        """Refuse an MSA beyond the tables."""
        if columns > self.max_columns:
            raise ValueError(
                f"The MSA has {columns} columns with <cls>, but the model's table of column positions ends at "
                f"{self.max_columns}: crop the alignment, or tokenize with truncation=True."
            )
        if (table := self.row_position_embeddings) is not None and rows > table.num_embeddings:
            raise ValueError(
                f"The MSA has {rows} rows, but the model's table of row positions ends at {table.num_embeddings}: "
                "choose fewer rows (modeling_msa.select_rows), or tokenize with truncation=True."
            )

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        position_ids: Tensor | None = None,
        row_ids: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        # one name throughout: without gradients each step frees the tensor of the one before
        hidden_states = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds  # (B, R, C, D)
        if position_ids is None:
            position_ids = torch.arange(hidden_states.shape[2], device=hidden_states.device).unsqueeze(0)
        else:  # those of columns without a token may be any
            position_ids = position_ids.clamp(0, self.max_columns - 1)
        positions = self.position_embeddings(position_ids + self.position_offset)  # (B or 1, C, D)
        hidden_states = hidden_states + positions.unsqueeze(1).to(hidden_states.device)
        if self.row_position_embeddings is not None:
            if row_ids is None:
                row_ids = torch.arange(hidden_states.shape[1], device=hidden_states.device).unsqueeze(0)
            row_positions = self.row_position_embeddings(row_ids)  # (B or 1, R, D or 1)
            hidden_states = hidden_states + row_positions.unsqueeze(2).to(hidden_states.device)
        hidden_states = self.layer_norm(hidden_states)
        if mask is not None:  # masked tokens count for nothing, even if they are NaN
            hidden_states = hidden_states.masked_fill(~mask.unsqueeze(3), 0)
        return self.dropout(hidden_states)


class MsaSublayer(nn.Module):
    """What the parts of a layer share: a norm, which the layer calls but fair-esm files here, and dropout."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.config = config
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout)

    def norm(self, hidden_states: Tensor) -> Tensor:
        """Layer norm; under autocast in half precision, of which each projection would make its own copy."""
        hidden_states, kind = self.layer_norm(hidden_states), hidden_states.device.type
        is_half = kind != "meta" and torch.is_autocast_enabled(kind)  # autocast refuses meta
        return hidden_states.to(torch.get_autocast_dtype(kind)) if is_half else hidden_states


class MsaAttention(MsaSublayer):
    """The modules of both attentions."""

    def __init__(self, config: MsaConfig):
        super().__init__(config)
        size = config.hidden_size
        self.head_dim = size // config.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(size, size) for _ in range(4))

    def project(self, hidden_states: Tensor, names: str = "qkv") -> list[Tensor]:
        """Query, key and value of `hidden_states` ``(B, R, C, D)``, by heads: ``(B, R, C, H, K)`` each."""
        projections = [getattr(self, f"{name}_proj") for name in names]
        if len(names) == 1 or not fuses(hidden_states, projections):
            states = [projection(hidden_states) for projection in projections]
            return [each.view(*each.shape[:-1], each.shape[-1] // self.head_dim, self.head_dim) for each in states]
        # One product: a GPU reads its input once, backward too. Heads come first, so that columns and heads stay one
        # axis for column attention.
        weight = torch.stack(
            [each.weight.unflatten(0, (-1, self.head_dim)) for each in projections], 1
        )  # (H, 3, K, D)
        bias = torch.stack([each.bias.unflatten(0, (-1, self.head_dim)) for each in projections], 1)
        return list(F.linear(hidden_states, weight.flatten(0, 2), bias.flatten()).unflatten(-1, bias.shape).unbind(-2))


class MsaRowAttention(MsaAttention):
    """Tied row attention (paper, section 3 and appendix A.2).

    All rows share one map per head: its logits are the sum over rows of query-key products, divided by
    sqrt(K * depth). With rows and head dimensions side by side that is one matrix product, and so is the update.
    """

    def forward(
        self, hidden_states: Tensor, scaling: float, masks: MsaMasks | None = None, maps_only: bool = False
    ) -> tuple[Tensor | None, Tensor]:
        # hidden_states (B, R, C, D), normed; scaling 1 / sqrt(K * R)
        query, key, *value = self.project(hidden_states, "qk" if maps_only else "qkv")
        row_maps = self.maps(self.logits(query, key, scaling, masks), masks)
        return self.update(row_maps, value[0], masks) if value else None, row_maps

    def logits(self, query: Tensor, key: Tensor, scaling: float, masks: MsaMasks | None = None) -> Tensor:
        """Logits of the maps ``(B, H, C, C)``, of queries and keys ``(B, R, C, H, K)``: a sum over the rows."""
        batch, _, columns, heads, _ = key.shape
        pad = padding(key)
        query, key = self.fold(query, masks), self.fold(key, masks, pad)
        # scaled within the product, since float16 may not hold the sum
        logits = torch.baddbmm(query.new_empty(()), query, key.transpose(1, 2), beta=0, alpha=scaling)
        return logits.unflatten(0, (batch, heads))[..., :columns]

    def maps(self, logits: Tensor, masks: MsaMasks | None = None) -> Tensor:
        """Row maps ``(B, H, C, C)``, at least float32."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        if masks is not None:
            # The depth in `scaling` is the padded one, as in fair-esm, whose output depends on the batch: correct it.
            depth = masks.rows.sum(1, dtype=dtype).clamp(min=1)[:, None, None, None]
            logits = logits.to(dtype) * (masks.rows.shape[1] / depth).sqrt()
            logits = logits.masked_fill(~masks.columns[:, None, None], torch.finfo(dtype).min)
        return logits.softmax(-1, dtype=dtype)

    def update(self, row_maps: Tensor, value: Tensor, masks: MsaMasks | None = None) -> Tensor:
        """Every row updated through the same maps: ``(B, R, C, D)``, of values ``(B, R, C, H, K)``."""
        batch, rows, _, heads, size = value.shape
        pad = padding(value)
        maps = F.dropout(row_maps, p=self.config.attention_dropout, training=self.training).to(value.dtype)
        maps = F.pad(maps, (0, pad)) if pad else maps
        context = torch.bmm(maps.flatten(0, 1), self.fold(value, masks, pad))  # (B*H, C, R*K)
        context = context.unflatten(2, (rows, size)).unflatten(0, (batch, heads)).permute(0, 3, 2, 1, 4)
        return self.dropout(self.out_proj(context.flatten(3)))  # from (B, R, C, H, K)

    def fold(self, states: Tensor, masks: MsaMasks | None = None, pad: int = 0) -> Tensor:
        """``(B, R, C, H, K)`` in the form of the matrix products, ``(B*H, C, R*K)``, with zero for masked tokens."""
        batch, rows, columns, heads, size = states.shape
        if masks is not None and masks.tokens is not None:
            states = states.masked_fill(~masks.tokens[..., None, None], 0)
        states = states.permute(0, 3, 2, 1, 4)  # (B, H, C, R, K)
        states = F.pad(states, (0, 0, 0, 0, 0, pad)) if pad else states
        return states.reshape(batch * heads, columns + pad, rows * size)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[Tensor, Tensor]:
    """Attention of one sequence axis: ``(N, H, S, K)`` each -> ``(N, S, H, K)`` and maps ``(N, H, S, S)``."""
    logits = torch.matmul(query * scaling, key.transpose(2, 3))
    if attention_mask is not None:
        # added in place: the fewest passes over the largest tensor, forward and backward
        bias = torch.zeros_like(attention_mask, dtype=logits.dtype)
        logits += bias.masked_fill_(~attention_mask, torch.finfo(logits.dtype).min)
    with maybe_autocast(logits.device.type, enabled=False):  # softmax sums in float32 in any dtype
        maps = logits.softmax(-1)
    return torch.matmul(F.dropout(maps, p=dropout, training=dropout > 0), value).transpose(1, 2), maps


class MsaColumnAttention(MsaAttention):
    """Attention along each column (paper, section 3), through transformers' attention interface."""

    is_causal = False

    def forward(
        self,
        hidden_states: Tensor,
        masks: MsaMasks | None = None,
        output_column_attentions: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        # hidden_states (B, R, C, D), normed -> the same, maps (B, H, C, R, R)
        batch, rows, columns, _ = hidden_states.shape
        query, key, value = self.project(hidden_states)
        heads, keys = query.shape[3], masks and masks.column_keys
        # no kernel has maps
        implementation = "eager" if output_column_attentions else self.config._attn_implementation
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        # Columns lie beside heads in memory, so that they are heads of one sequence without a copy. A flash kernel
        # has one mask for all heads: there they are sequences of their own.
        by_column = implementation != "eager" and is_flash_attention_requested(self.config)
        if by_column:
            query, key, value = (each.transpose(1, 2).flatten(0, 1).transpose(1, 2) for each in (query, key, value))
            mask = None if keys is None else keys.flatten(0, 1)  # (B*C, R)
        else:
            query, key, value = (each.flatten(2, 3).transpose(1, 2) for each in (query, key, value))  # (B, C*H, R, K)
            mask = None if keys is None else keys[:, :, None].expand(-1, -1, heads, -1).flatten(1, 2).unsqueeze(2)
        dropout = self.config.attention_dropout if self.training else 0.0
        scaling = self.head_dim**-0.5
        context, maps = attention(self, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs)
        if by_column:
            context = context.view(batch, columns, rows, -1).transpose(1, 2)
        update = self.dropout(self.out_proj(context.reshape(batch, rows, columns, -1)))
        if not output_column_attentions:
            return update, None
        return update, maps.view(batch, columns, heads, rows, rows).transpose(1, 2)


class MsaFeedForward(MsaSublayer):
    """Two linear layers with a GELU between them."""

    def __init__(self, config: MsaConfig):
        super().__init__(config)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.activation_dropout = nn.Dropout(config.activation_dropout)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dropout(self.fc2(self.activation_dropout(self.activation(self.fc1(hidden_states)))))


class MsaLayer(GradientCheckpointingLayer):
    """Row attention, column attention, feed-forward (paper, figure 1), each with a norm before it and a residual."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.row_attention = MsaRowAttention(config)
        self.column_attention = MsaColumnAttention(config)
        self.feed_forward = MsaFeedForward(config)

    def forward(
        self,
        hidden_states: Tensor,
        scaling: float,
        masks: MsaMasks | None = None,
        row_maps_only: bool = False,
        output_column_attentions: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        # hidden_states (B, R, C, D) -> the same, row maps (B, H, C, C), column maps (B, H, C, R, R)
        if len(self.blocks(hidden_states, 2)) > 1 and not output_column_attentions:
            row_maps = self.row_attention.maps(self.row_logits(hidden_states, scaling, masks), masks)
            if row_maps_only:
                return None, row_maps, None
            hidden_states = self.add_row_update(hidden_states, row_maps, masks)
            self.add_column_update(hidden_states, masks, **kwargs)
            self.add_feed_forward(hidden_states)
            return hidden_states, row_maps, None
        update, row_maps = self.row_attention(self.row_attention.norm(hidden_states), scaling, masks, row_maps_only)
        if row_maps_only:
            return None, row_maps, None
        hidden_states = hidden_states + update
        normed = self.column_attention.norm(hidden_states)
        update, column_maps = self.column_attention(normed, masks, output_column_attentions, **kwargs)
        hidden_states = hidden_states + update
        hidden_states = hidden_states + self.feed_forward(self.feed_forward.norm(hidden_states))
        return hidden_states, row_maps, column_maps

    # The same for large MSAs at inference, block by block and in place: inner tensors are larger than their input.

    def blocks(self, hidden_states: Tensor, axis: int, inner: int = 1) -> list[slice]:
        """Slices of the input that are run one after another."""
        return inference_blocks(self, hidden_states, axis, inner, inside=True)

    def row_logits(self, hidden_states: Tensor, scaling: float, masks: MsaMasks | None = None) -> Tensor:
        """Logits of the row maps, ``(B, H, C, C)``, summed at least in float32."""
        attention, logits = self.row_attention, None
        for rows in self.blocks(hidden_states, 1):
            query, key = attention.project(attention.norm(hidden_states[:, rows]), "qk")
            share = widen(attention.logits(query, key, scaling, masks and masks.of(rows)))
            logits = share if logits is None else logits.add_(share)
        return logits  # type: ignore[return-value]

    def add_row_update(self, hidden_states: Tensor, row_maps: Tensor, masks: MsaMasks | None = None) -> Tensor:
        """Make a new tensor, since the input may be recorded."""
        attention, updated = self.row_attention, hidden_states.new_empty(hidden_states.shape)
        for rows in self.blocks(hidden_states, 1):
            (value,) = attention.project(attention.norm(hidden_states[:, rows]), "v")
            update = attention.update(row_maps, value, masks and masks.of(rows))
            torch.add(hidden_states[:, rows], update, out=updated[:, rows])
        return updated

    def add_column_update(self, hidden_states: Tensor, masks: MsaMasks | None, **kwargs: Any) -> None:
        for columns in self.blocks(hidden_states, 2):
            normed = self.column_attention.norm(hidden_states[:, :, columns])
            update = self.column_attention(normed, masks and masks.of(columns=columns), **kwargs)[0]
            hidden_states[:, :, columns].add_(update)

    def add_feed_forward(self, hidden_states: Tensor) -> None:
        tokens = hidden_states.flatten(0, 2)[None, :, None]
        for some in self.blocks(tokens, 1, inner=2):  # before and after the activation
            tokens[:, some].add_(self.feed_forward(self.feed_forward.norm(tokens[:, some])))


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
            scale = weights / sums.sum(-1).clamp(min=1e-12)  # (B, H); the total is zero if <cls> gets all
            weighted = torch.matmul(weights, maps.flatten(2)).view(maps.shape[0], *maps.shape[2:])  # (B, L, L)
            correction = torch.matmul((sums * scale.unsqueeze(-1)).transpose(1, 2), sums)
            logits = weighted + weighted.transpose(1, 2) - correction
            return logits + self.bias.to(logits.dtype) if layer_idx == 0 else logits


class MsaContactHead(nn.Module):
    """The regression, under its name in fair-esm's checkpoints."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.regression = MsaContactRegression(config.num_hidden_layers * config.num_attention_heads)

    def forward(self, row_maps: Tensor, layer_idx: int, pair_mask: Tensor | None = None) -> Tensor:
        return self.regression(row_maps, layer_idx, pair_mask)


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
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^classifier\."]  # one checkpoint serves every class

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

        The parameters are `MsaModel.forward`'s. Only one layer's row maps are held at a time.

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
        if fitted:
            contact_logits = evaluation_copy(model).contact_logits
            logits = contact_logits(input_ids, attention_mask, position_ids, inputs_embeds).logits
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
    >>> output.last_hidden_state.shape, output.attentions[0].shape  # (B, R, C, D); (B, H, C, C), one map for all rows
    (torch.Size([1, 3, 6, 32]), torch.Size([1, 4, 6, 6]))
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
        """Check shapes and return which tokens count, ``(B, R, C)`` bool; None if all do, by definition."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass exactly one of input_ids and inputs_embeds.")
        tensor = input_ids if inputs_embeds is None else inputs_embeds
        axes = "input_ids (B, R, C)" if inputs_embeds is None else "inputs_embeds (B, R, C, D)"
        if len(shape := tuple(tensor.shape)) != axes.count(",") + 1 or 0 in shape:
            raise ValueError(
                f"The model requires {axes}, a batch of MSAs, with no empty axis; the shape is {shape}. One MSA is a "
                "batch of one: use MsaTokenizer, or add the axis with unsqueeze(0)."
            )
        if attention_mask is None:
            return None if input_ids is None else input_ids.ne(self.config.pad_token_id)
        if (found := tuple(attention_mask.shape)) != shape[:3]:
            raise ValueError(f"attention_mask must have the shape of the tokens, {shape[:3]}, got {found}.")
        return attention_mask.bool()

    def prepare(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_padded: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> dict[str, Any]:
        """Make the first layer's arguments, of `forward`'s parameters.

        Among them are the embeddings, ``hidden_states`` ``(B, R, C, D)``, and for all layers ``masks`` (`MsaMasks`;
        None if every token counts) and ``scaling``.
        """
        mask = self.token_mask(input_ids, attention_mask, inputs_embeds)
        mask = None if is_padded is False else mask
        tensor = input_ids if inputs_embeds is None else inputs_embeds
        self.embeddings.check_size(*tensor.shape[1:3])
        is_all, same_in_rows = self._read(mask, position_ids)
        mask = None if mask is None or is_all else mask.to(tensor.device)
        masks = None if mask is None else MsaMasks.make(mask, same_in_rows)
        row_ids = None if masks is None else masks.rows.cumsum(1).sub(1).clamp(min=0)  # of the rows that are there
        hidden_states = self.embeddings(input_ids, inputs_embeds, position_ids, row_ids=row_ids, mask=mask)
        # without the other output flags: the attention interface warns of flags that it cannot serve
        wanted = kwargs.get("output_column_attentions", self.config.output_column_attentions)
        options = {name: value for name, value in kwargs.items() if not name.startswith("output_")}
        scaling = (self.config.hidden_size // self.config.num_attention_heads * tensor.shape[1]) ** -0.5
        options |= {"scaling": scaling, "masks": masks, "output_column_attentions": bool(wanted)}
        return options | {"hidden_states": hidden_states}

    def _read(self, mask: Tensor | None, position_ids: Tensor | None) -> list[bool]:
        """Whether a mask is all true, and the same in each row; checks positions, and reads the device once."""
        given = [tensor for tensor in (mask, position_ids) if tensor is not None]
        if is_traced() or not given or given[0].device.type == "meta":
            return [False, False]
        mask, last = torch.ones(1, 1, 1) if mask is None else mask, self.embeddings.max_columns - 1
        positions = torch.zeros(1) if position_ids is None else position_ids
        fit = ((positions >= 0) & (positions <= last) | ~mask.any(1).to(positions.device)).all()
        values = torch.stack([mask.all(), (mask == mask[:, :1]).all(), fit.to(mask.device)]).tolist()
        if not values[2]:
            raise ValueError(
                f"position_ids must be from 0 (<cls>) to {last}, where the model's table of column positions ends; "
                f"they are from {positions.min().item()} to {positions.max().item()}."
            )
        return values[:2]

    def run_layers(
        self,
        inputs: dict[str, Any],
        visit: Callable[[int, Tensor, Tensor], None] | None = None,
        stop: int | None = None,
        last_map_only: bool = False,
    ) -> Tensor:
        """Run ``layers[:stop]`` one after another on what `prepare` made; return the last one's output.

        It takes the embeddings out of `inputs`, lest they stay in memory. After each layer
        ``visit(index, hidden_states, row_maps)`` gets its output ``(B, R, C, D)`` and its row maps ``(B, H, C, C)``.
        With `last_map_only` no more of the last layer runs than its maps, and its output is None.
        """
        hidden_states = inputs.pop("hidden_states")
        for index, layer in enumerate(self.layers[:stop]):
            map_only = last_map_only and index == len(self.layers) - 1
            hidden_states, row_maps, _ = layer(hidden_states, row_maps_only=map_only, **inputs)
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
        **kwargs: Unpack[MsaKwargs],
    ) -> MsaOutput:
        """Run the model.

        Parameters
        ----------
        input_ids : torch.Tensor
            ``(B, R, C)`` int64 token ids: a batch of MSAs, row 0 the query, column 0 ``<cls>``.
        attention_mask : torch.Tensor, optional
            ``(B, R, C)``, 1 or True where a token counts; any mask. Default: everything that is not ``<pad>``
            (everything, for `inputs_embeds`). The query, key and value of a masked token count for nothing; a row or
            column without a token is as if it were not there, so that the first row with a token is the query and the
            first such column ``<cls>``.
        position_ids : torch.Tensor, optional
            ``(B, C)`` or ``(1, C)`` int64 column numbers from 0 (``<cls>``). Default: 0 .. C - 1, whatever the mask.
        inputs_embeds : torch.Tensor, optional
            ``(B, R, C, D)`` token embeddings, instead of `input_ids`; for instance of a mixture of tokens,
            ``probabilities @ model.get_input_embeddings().weight``.
        **kwargs
            ``output_hidden_states``, ``output_attentions``, ``output_column_attentions``, ``return_dict``.
            ``is_padded=False`` promises that no token is masked: a compiled model, which cannot look, is then faster.

        Returns
        -------
        MsaOutput
            ``last_hidden_state`` ``(B, R, C, D)`` and the outputs that were requested. An MSA's result does not depend
            on the other MSAs of its batch; at masked tokens it has no meaning.

        Raises
        ------
        ValueError
            For input without the three axes, a mask of another shape, and more rows or columns, or other positions,
            than the position tables have.
        """
        inputs = self.prepare(input_ids, attention_mask, position_ids, inputs_embeds, **kwargs)
        return MsaOutput(last_hidden_state=self.layer_norm(self.run_layers(inputs)))

    @merge_with_config_defaults
    @capture_outputs
    def contact_logits(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Unpack[MsaKwargs],
    ) -> MsaOutput:
        """Logits of `predict_contacts`, ``(B, L, L)`` float32, with gradients if they are enabled.

        The parameters are `forward`'s. The last layer's update is computed only if hidden states or column maps are
        requested; otherwise there is no ``last_hidden_state``. Pairs with masked columns get the lowest finite logit.
        """
        flags = ("output_hidden_states", "output_column_attentions")
        whole = any(kwargs.get(name, getattr(self.config, name)) for name in flags)
        inputs = self.prepare(input_ids, attention_mask, position_ids, inputs_embeds, **kwargs)
        pair_mask = None
        if (masks := inputs["masks"]) is not None:
            residues = (masks.columns & (masks.columns.cumsum(1) > 1))[:, 1:]  # the first column is <cls>
            pair_mask = residues[:, :, None] & residues[:, None]  # (B, L, L)
        shares: list[Tensor] = []  # small, (B, L, L) each

        def add_share(index: int, _: Tensor, row_maps: Tensor) -> None:
            shares.append(self.contact_head(row_maps, index, pair_mask))

        hidden_states = self.run_layers(inputs, add_share, last_map_only=not whole)
        logits = torch.stack(shares).sum(0)
        if pair_mask is not None:
            logits = logits.masked_fill(~pair_mask.to(logits.device), torch.finfo(logits.dtype).min)
        return MsaOutput(logits=logits, last_hidden_state=self.layer_norm(hidden_states) if whole else None)


class MsaLMHead(nn.Module):
    """Dense layer, GELU, layer norm and the tied projection onto the vocabulary."""

    def __init__(self, config: MsaConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.decoder(self.layer_norm(self.activation(self.dense(hidden_states))))  # (B, R, C, V)


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
        **kwargs: Unpack[MsaKwargs],
    ) -> MsaOutput:
        """Predict tokens; the other parameters are `MsaModel.forward`'s.

        `labels` ``(B, R, C)`` int64 are the tokens to predict, -100 where there is none. The loss is the mean
        cross-entropy over targets, in nats; zero (not NaN) if there are none.
        """
        outputs = self.msa(input_ids, attention_mask, position_ids, inputs_embeds, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        blocks = [self.lm_head(states[:, rows]) for rows in inference_blocks(self.lm_head, states, 1)]
        logits = torch.cat(blocks, dim=1) if len(blocks) > 1 else blocks[0]
        loss = None
        if labels is not None:
            targets = _targets(labels != -100, kwargs)
            loss = self.loss_function(logits, labels, self.config.vocab_size, num_items_in_batch=targets)
        return MsaOutput(loss=loss, logits=logits, **_recorded(outputs))


def _recorded(outputs: MsaOutput) -> dict[str, Any]:
    return {name: outputs[name] for name in ("hidden_states", "attentions", "column_attentions") if name in outputs}


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

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[MsaKwargs],
    ) -> MsaOutput:
        """Predict contacts, with gradients; the other parameters are `MsaModel.forward`'s.

        `labels` ``(B, L, L)`` are 1 for residue columns in contact, 0 for others, and -100 for pairs to leave out
        (unknown, padding, close in sequence). The loss is the mean binary cross-entropy over the rest.
        """
        inputs = (input_ids, attention_mask, position_ids, inputs_embeds)
        outputs = self.msa.contact_logits(*inputs, return_dict=True, **kwargs)
        logits, loss = outputs.logits, None
        if labels is not None:
            labels = labels.to(logits.device)
            known = (labels != -100) & (logits != torch.finfo(logits.dtype).min)  # not padding; NaN shows in the loss
            if not torch.compiler.is_compiling() and (known & (labels != 0) & (labels != 1)).any():
                raise ValueError("Contact labels must be 0, 1 or -100: convert distances first, < 8 Angstrom to 1.")
            losses = F.binary_cross_entropy_with_logits(
                logits.masked_fill(~known, 0), labels.to(logits.dtype).masked_fill(~known, 0), reduction="none"
            )
            loss = (losses * known).sum() / _targets(known, kwargs)
        return MsaOutput(loss=loss, logits=logits, **_recorded(outputs))


class MsaClassifier(MsaPreTrainedModel):
    """What both classifiers share: a linear layer on states of the query, the first row that has a token."""

    def __init__(self, config: MsaConfig):
        super().__init__(config)
        self.msa = MsaModel(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Unpack[MsaKwargs],
    ) -> MsaOutput:
        """Classify the query; the parameters are `MsaModel.forward`'s, and `labels` the class's."""
        outputs = self.msa(input_ids, attention_mask, position_ids, inputs_embeds, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        mask = self.msa.token_mask(input_ids, attention_mask, inputs_embeds)
        mask = torch.ones_like(states[..., 0], dtype=torch.bool) if mask is None else mask.to(states.device)
        batch, first = torch.arange(mask.shape[0], device=mask.device), mask.any(2).int().argmax(1)
        residues = mask[batch, first] & (mask.any(1).cumsum(1) > 1)  # (B, C): without the first column, <cls>
        if input_ids is not None:
            tokens = input_ids.to(mask.device)[batch, first]
            residues = residues & (tokens != self.config.pad_token_id) & (tokens != self.config.gap_token_id)
        logits = self.classifier(self.dropout(self._pool(states[batch, first], residues)))
        loss = None if labels is None else self._loss(logits, labels, **kwargs)
        return MsaOutput(loss=loss, logits=logits, **_recorded(outputs))

    def _pool(self, query: Tensor, residues: Tensor) -> Tensor:
        return query  # (B, C, D); residues (B, C)

    def _loss(self, logits: Tensor, labels: Tensor, **kwargs: Any) -> Tensor:
        return self.loss_function(logits, labels, self.config, num_items_in_batch=_targets(labels != -100, kwargs))


class MsaForTokenClassification(MsaClassifier):
    """The MSA Transformer with a linear classifier on each token of the query.

    `labels` ``(B, C)`` int64 are in [0, num_labels), or -100 where there is none: at ``<cls>``, padding and gaps.
    """


class MsaForSequenceClassification(MsaClassifier):
    """The MSA Transformer with a classifier (or regressor) on the mean over the query's residues.

    `labels` are ``(B,)`` int64 classes, or ``(B,)`` or ``(B, num_labels)`` float targets, by ``config.problem_type``
    as in transformers.
    """

    accepts_loss_kwargs = False  # the loss is this batch's mean: Trainer must divide it by the accumulation steps

    def _pool(self, query: Tensor, residues: Tensor) -> Tensor:
        weights = residues.to(query.dtype).unsqueeze(2)
        return (query * weights).sum(1) / weights.sum(1).clamp(min=1)  # (B, D)

    def _loss(self, logits: Tensor, labels: Tensor, **kwargs: Any) -> Tensor:
        return self.loss_function(labels=labels, pooled_logits=logits, config=self.config)


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
