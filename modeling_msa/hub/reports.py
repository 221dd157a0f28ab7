"""What is reported of a model: how it was converted or trained, from which weights, and what it reaches."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..configuration_msa_transformer import MsaConfig


@dataclass
class ConversionReport:
    """What a conversion wrote and what it compared.

    Attributes
    ----------
    output : Path
        The folder (or, in reverse, the file) that was written.
    config : MsaConfig
        The model's sizes.
    tensors, parameters : int
        Tensors compared with the source, all equal bit for bit, and the numbers in them.
    has_contacts : bool
        Whether a fitted contact regression is included.
    differences : dict of str to float
        Largest absolute difference from fair-esm's own outputs, by name; empty if fair-esm is not installed.
    compared_on, fair_esm_version : str
        The input of that comparison, and the version of fair-esm.
    """

    output: Path
    config: MsaConfig
    tensors: int
    parameters: int
    has_contacts: bool
    differences: dict[str, float] = field(default_factory=dict)
    compared_on: str = ""
    fair_esm_version: str = ""

    def __str__(self) -> str:
        config = self.config
        width = config.row_position_embedding_size
        lines = {
            "written": str(self.output),
            "model": f"{config.num_hidden_layers} layers, width {config.hidden_size}, {config.num_attention_heads} "
            f"heads, {config.max_position_embeddings} columns, "
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
    """One figure that was measured: a row of the card's table, and an entry of the Hub's ``model-index``.

    Attributes
    ----------
    metric : str
        A key of `modeling_msa.hub.card.METRICS`.
    value : float
        The figure.
    dataset : str
        What it was measured on, in words.
    error : float, optional
        Its standard error.
    split : str, optional
        "train" for what was fitted on, "test" for what was not.
    note : str
        What stands beside it in the table: a baseline's figure.
    """

    metric: str
    value: float
    dataset: str
    error: float | None = None
    split: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Source:
    """The weights that others were made of.

    Attributes
    ----------
    name : str
        For readers.
    model_id : str, optional
        Its Hub id, or the name of a published checkpoint; None for a folder that is known here only.
    license : str, optional
        The licence that its card names.
    """

    name: str
    model_id: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class TrainingReport:
    """What a model card says of a training run.

    Attributes
    ----------
    data : str
        What it was trained on, and how; Markdown.
    settings : tuple of (str, str)
        Names and values, the rows of a table.
    results : tuple of Result
        What was measured.
    limits : tuple of str
        Sentences for the card's list of limits.
    source : Source, optional
        The weights that it started from.
    relation : str, optional
        What it is to them, in the Hub's words.
    datasets : tuple of str
        Hub ids of the data.
    """

    data: str = ""
    settings: tuple[tuple[str, str], ...] = ()
    results: tuple[Result, ...] = ()
    limits: tuple[str, ...] = ()
    source: Source | None = None
    relation: Literal["finetune", "adapter", "quantized"] | None = None
    datasets: tuple[str, ...] = ()
