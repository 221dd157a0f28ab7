"""The model card of an exported folder: ``hub_card.md``, filled with what is known of the weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

from .configuration_msa import MsaConfig

if TYPE_CHECKING:
    from .conversion import ConversionReport

# by name: what is published about the weights that fair-esm distributes
PUBLISHED = {
    "esm_msa1b_t12_100M_UR50S": "ESM-MSA-1b, trained on 26 million MSAs of UniRef50 queries against UniClust30",
    "esm_msa1_t12_100M_UR50S": "ESM-MSA-1, trained on 26 million MSAs of UniRef50 queries against UniClust30",
}


@dataclass(frozen=True)
class TrainingReport:
    """What a model card says of a training run.

    Attributes
    ----------
    data : str
        What it was trained on, and how; Markdown.
    has_contacts : bool
        Whether the contact regression was fitted.
    figures : tuple of (str, str)
        What was measured, and the figure; the rows of a table.
    limits : tuple of str
        Sentences for the card's list of limits.
    """

    data: str
    has_contacts: bool = False
    figures: tuple[tuple[str, str], ...] = ()
    limits: tuple[str, ...] = ()


def is_published(name: str, config: MsaConfig) -> bool:
    """Whether a checkpoint has the name and the sizes of one that fair-esm distributes."""
    sizes = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    return name in PUBLISHED and sizes == (12, 768, 12)


def card_template() -> str:
    """Text of ``hub_card.md``: in the repository it lies above the package, in an installed package inside it."""
    package = Path(__file__).parent
    for folder in (package, package.parent):
        if (folder / "hub_card.md").is_file():
            return (folder / "hub_card.md").read_text(encoding="utf-8")
    raise FileNotFoundError("hub_card.md is missing from the installation: install modeling-msa again.")


def write_model_card(
    folder: str | os.PathLike,
    name: str,
    model_id: str,
    config: MsaConfig,
    report: ConversionReport | None = None,
    license: str | None = None,
    note: str | None = None,
    training: TrainingReport | None = None,
) -> Path:
    """Fill ``hub_card.md`` into `folder`/README.md; what is not known is left out.

    Parameters
    ----------
    folder : path
        The exported folder.
    name : str
        The checkpoint's name.
    model_id : str
        What a reader gives to ``from_pretrained``: a Hub id or a path.
    config : MsaConfig
        The model's sizes.
    report : ConversionReport, optional
        What was compared when the checkpoint was converted.
    license : str, optional
        Licence of the weights, by its Hub name.
    note : str, optional
        A sentence about these weights, put on top.
    training : TrainingReport, optional
        What the weights were trained on and what they reach.

    Returns
    -------
    Path
        The file.
    """
    data = ModelCardData(
        license=license,
        library_name="transformers",
        tags=["biology", "protein", "protein-language-model", "msa", "msa-transformer", "contact-prediction"],
        inference=False,  # MSAs are no text: the Hub's widget cannot send them; so no pipeline_tag either
    )
    card = ModelCard.from_template(
        data,
        template_str=card_template(),
        name=name,
        model_id=model_id,
        config=config,
        report=report,
        published=PUBLISHED[name] if is_published(name, config) else None,
        license=license,
        note=note,
        training=training,
    )
    path = Path(folder) / "README.md"
    path.write_text(card.content, encoding="utf-8")
    return path
