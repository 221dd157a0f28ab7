"""What `import modeling_msa` registers: our classes with transformers' auto classes, our card with `push_to_hub`.

Importing the pipelines, which the config does, registers them.
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from ..configuration_msa_transformer import MsaConfig
from ..modeling_msa_transformer import (
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    MsaPreTrainedModel,
)
from ..tokenization_msa_transformer import MsaTokenizer
from .repository import write_pushed_card


def register() -> None:
    """Register them; other models stay as they are. Registering again changes nothing."""
    AutoConfig.register(MsaConfig.model_type, MsaConfig, exist_ok=True)
    AutoTokenizer.register(MsaConfig, MsaTokenizer, exist_ok=True)
    for auto, cls in (
        (AutoModel, MsaModel),
        (AutoModelForMaskedLM, MsaForMaskedLM),
        (AutoModelForSequenceClassification, MsaForSequenceClassification),
        (AutoModelForTokenClassification, MsaForTokenClassification),
    ):
        auto.register(MsaConfig, cls, exist_ok=True)
    MsaPreTrainedModel.write_card = write_pushed_card
