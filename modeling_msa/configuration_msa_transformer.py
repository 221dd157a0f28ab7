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
"""Configuration of the MSA Transformer."""

import copy
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from .pipeline_msa_transformer import CUSTOM_PIPELINES
from .sharing_msa_transformer import SharingMixin

# The whole map goes into every saved config.json: transformers writes only the entry of the class that was saved,
# and AutoModel then refuses a folder that came from the masked-LM head. transformers has no auto class for contact
# maps; its entry names the class for those who look it up.
AUTO_MAP = {
    "AutoConfig": "configuration_msa_transformer.MsaConfig",
    "AutoModel": "modeling_msa_transformer.MsaModel",
    "AutoModelForContactPrediction": "modeling_msa_transformer.MsaForContactPrediction",
    "AutoModelForMaskedLM": "modeling_msa_transformer.MsaForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_msa_transformer.MsaForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_msa_transformer.MsaForTokenClassification",
}


@strict
class MsaConfig(SharingMixin, PreTrainedConfig):
    """Sizes and rates of an MSA Transformer; the defaults are those of ESM-MSA-1b.

    Parameters
    ----------
    vocab_size : int, default 33
        Tokens in the alphabet.
    hidden_size : int, default 768
        Width D of the hidden states.
    num_hidden_layers : int, default 12
        Blocks of row attention, column attention and feed-forward.
    num_attention_heads : int, default 12
        Heads H of both attentions; must divide ``hidden_size``.
    intermediate_size : int, default 3072
        Width of the feed-forward layer.
    hidden_act : str, default "gelu"
        Activation of the feed-forward layer and the masked-LM head ("gelu" is the exact, erf one).
    hidden_dropout, attention_dropout, activation_dropout, classifier_dropout : float, default 0.1
        Dropout rates of the residual branches, the attention maps, the feed-forward activation and the input of the
        classification heads, in [0, 1].
    max_position_embeddings : int, default 1024
        Maximum number of columns C of an MSA, ``<cls>`` included.
    max_row_position_embeddings : int, default 1024
        Maximum number of rows R of an MSA. Without row position embedding the depth is not limited.
    row_position_embedding_size : int, None or "hidden_size", default "hidden_size"
        Width of the learned embedding of the row number: ``hidden_size`` in MSA-1b, 1 in MSA-1 (one number per row,
        added to every channel: the width that its weights were published with), ``None`` for no such embedding.
    layer_norm_eps : float, default 1e-5
        Epsilon of every layer norm.
    initializer_range : float, default 0.02
        Standard deviation of newly initialised weights.
    profile_weight : float, default 0
        For scores of substitutions, not for the model itself: the share in [0, 1] that the family's frequencies have
        in them, fitted for small models (`modeling_msa.score_variants`).
    output_column_attentions : bool, default False
        Whether the model returns its column maps, ``(B, H, C, R, R)`` per layer: huge.
    pad_token_id, bos_token_id, eos_token_id, mask_token_id, gap_token_id : int
        Token ids; ``bos_token_id`` is ``<cls>``. Gaps of the query are left out when a sequence is pooled.
    tie_word_embeddings : bool, default True
        Whether the masked-LM head shares the token embedding's weights.

    Raises
    ------
    huggingface_hub.errors.StrictDataclassError
        For a value of the wrong type or an impossible size.

    Examples
    --------
    >>> from modeling_msa import MsaConfig
    >>> MsaConfig(hidden_size=64, num_attention_heads=4).row_position_embedding_size
    64
    """

    model_type = "msa_transformer"
    # The residual stream stays whole on every rank; column heads and feed-forward channels are split. Row attention
    # splits its weights and projections only: every rank makes all row maps, which the contact regression needs.
    base_model_tp_plan = {
        "layers.*.row_attention.q_proj": "colwise_gather_output",
        "layers.*.row_attention.k_proj": "colwise_gather_output",
        "layers.*.row_attention.v_proj": "colwise_gather_output",
        "layers.*.row_attention.out_proj": "rowwise_split_input",
        "layers.*.column_attention.q_proj": "colwise",
        "layers.*.column_attention.k_proj": "colwise",
        "layers.*.column_attention.v_proj": "colwise",
        "layers.*.column_attention.out_proj": "rowwise",
        "layers.*.feed_forward.fc1": "colwise",
        "layers.*.feed_forward.fc2": "rowwise",
    }
    # The word embedding by itself: transformers takes it out again where the masked-LM head is tied to it.
    base_model_fsdp_plan = {
        "embeddings.word_embeddings": "free_full_weight",
        "layers.*": "free_full_weight",
        "layer_norm": "keep_full_weight",
        "contact_head.regression": "keep_full_weight",
    }

    vocab_size: int = 33
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    activation_dropout: float | int = 0.1
    classifier_dropout: float | int = 0.1
    max_position_embeddings: int = 1024
    max_row_position_embeddings: int = 1024
    row_position_embedding_size: int | str | None = "hidden_size"
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    profile_weight: float | int = 0.0
    output_column_attentions: bool = False
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    mask_token_id: int | None = 32
    gap_token_id: int | None = 30
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Resolve the row embedding's width and leave the rest to transformers."""
        if self.row_position_embedding_size == "hidden_size":
            self.row_position_embedding_size = self.hidden_size
        super().__post_init__(**kwargs)

    # Row maps exist under every attention implementation (row attention never runs in a kernel), so unlike
    # transformers' base class this one lets `output_attentions` go with sdpa and flash.
    @property
    def output_attentions(self) -> bool | None:
        """Whether the model returns its row maps."""
        return self._output_attentions

    @output_attentions.setter
    def output_attentions(self, value: bool | None) -> None:
        self._output_attentions = value

    def validate_output_attentions(self) -> None:
        """Nothing to refuse: see `output_attentions`."""

    def validate_architecture(self) -> None:
        """Refuse sizes that no model can have."""
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
            "max_row_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_attention_heads "
                f"({self.num_attention_heads})."
            )
        if self.row_position_embedding_size not in (None, 1, self.hidden_size):
            raise ValueError(
                f"row_position_embedding_size must be hidden_size ({self.hidden_size}), 1 or None, "
                f"got {self.row_position_embedding_size!r}."
            )
        rates = ("hidden_dropout", "attention_dropout", "activation_dropout", "classifier_dropout", "profile_weight")
        for name in rates:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act must be one of transformers' activations, got {self.hidden_act!r}.")
        if not 0 < self.layer_norm_eps < 0.1:  # NaN is neither
            raise ValueError(f"layer_norm_eps must be between 0 and 0.1, got {self.layer_norm_eps}.")
        if not 0 <= self.initializer_range < float("inf"):
            raise ValueError(f"initializer_range must not be negative, got {self.initializer_range}.")
        if self.pad_token_id is None or not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id must be in the vocabulary (0 to {self.vocab_size - 1}).")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary, with the maps from auto classes and tasks to their classes here."""
        maps = {"auto_map": dict(AUTO_MAP), "custom_pipelines": copy.deepcopy(CUSTOM_PIPELINES)}
        return super().to_dict() | maps

    @property
    def custom_pipelines(self) -> dict[str, dict[str, Any]]:
        """Nothing: importing the pipelines has registered them, and transformers would ask for trust_remote_code."""
        return {}

    @custom_pipelines.setter
    def custom_pipelines(self, value: Any) -> None:
        """Ignore the value: that of a file or of a pipeline's ``save_pretrained`` may be of another repository."""


MsaConfig.register_for_auto_class()

__all__ = ["MsaConfig"]
