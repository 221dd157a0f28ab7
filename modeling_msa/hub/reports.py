"""What is reported of a model: how it was converted or trained, from which weights, and what it reaches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .._words import counted
from ..configuration_msa_transformer import MsaConfig


@dataclass
class ConversionReport:
    """What a conversion wrote and what it compared."""

    output: Path  # the folder (or, in reverse, the file) that was written
    config: MsaConfig
    tensors: int  # tensors compared with the source, all equal bit for bit
    parameters: int  # the numbers in them
    has_contacts: bool  # whether a fitted contact regression is included
    # largest absolute difference from fair-esm's own outputs, by name; empty if fair-esm is not installed
    differences: dict[str, float] = field(default_factory=dict)
    compared_on: str = ""  # the input of that comparison
    fair_esm_version: str = ""

    def __str__(self) -> str:
        config = self.config
        width = config.row_position_embedding_size
        lines = {
            "written": str(self.output),
            "model": f"{counted(config.num_hidden_layers, 'layer')}, width {config.hidden_size}, "
            f"{counted(config.num_attention_heads, 'head')}, {config.max_position_embeddings} columns, "
            f"row position embedding {'none' if width is None else f'of width {width}'}",
            "contacts": "regression included" if self.has_contacts else "no regression: predict_contacts will refuse",
            "read back": f"{self.tensors} of {self.tensors} tensors equal bit for bit ({self.parameters:,} numbers)",
        }
        if self.differences:
            figures = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
            lines["against"] = f"fair-esm {self.fair_esm_version}, {self.compared_on}: max |difference| {figures}"
        return "\n".join(f"{name:<10} {text}" for name, text in lines.items())


@dataclass(frozen=True)
class Result:
    """One figure that was measured: a row of the card's table, and an entry of the Hub's ``model-index``."""

    metric: str  # a key of `modeling_msa.hub.card.METRICS`
    value: float
    dataset: str  # what it was measured on, in words
    error: float | None = None  # its standard error
    split: str | None = None  # "train" for what was fitted on, "test" for what was not
    note: str = ""  # what stands beside it in the table: a baseline's figure


@dataclass(frozen=True)
class Source:
    """The weights that others were made of."""

    name: str  # for readers
    model_id: str | None = None  # its Hub id, or a published checkpoint's name; None for a folder known here only
    license: str | None = None  # the licence that its card names


@dataclass(frozen=True)
class TrainingReport:
    """What a model card says of a training run."""

    data: str = ""  # what it was trained on, and how; Markdown
    settings: tuple[tuple[str, str], ...] = ()  # names and values, the rows of a table
    results: tuple[Result, ...] = ()
    limits: tuple[str, ...] = ()  # sentences for the card's list of limits
    source: Source | None = None  # the weights that it started from
    relation: Literal["finetune", "adapter", "quantized"] | None = None  # what it is to them, in the Hub's words
    datasets: tuple[str, ...] = ()  # Hub ids of the data
