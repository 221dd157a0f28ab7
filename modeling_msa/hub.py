"""Model cards of exported folders."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import HfApi, ModelCard, ModelCardData

from .configuration_msa import MsaConfig

if TYPE_CHECKING:
    from .conversion import ConversionReport

# by name: what is published about the weights that fair-esm distributes
PUBLISHED = {
    "esm_msa1b_t12_100M_UR50S": "ESM-MSA-1b, trained on 26 million MSAs of UniRef50 queries against UniClust30",
    "esm_msa1_t12_100M_UR50S": "ESM-MSA-1, trained on 26 million MSAs of UniRef50 queries against UniClust30",
}


def require_login() -> None:
    """Raise if nobody is logged in to the Hub: better before a long conversion than after."""
    try:
        HfApi().whoami()
    except OSError as error:
        raise OSError(f"The Hub does not know you ({error}). Log in first: hf auth login.") from error


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

    Returns
    -------
    Path
        The file.
    """
    data = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="fill-mask",
        tags=["biology", "protein", "protein-language-model", "msa", "msa-transformer", "contact-prediction"],
        # MSAs are no text: the Hub's widget cannot send them
        inference=False,
    )
    card = ModelCard.from_template(
        data,
        template_str=card_template(),
        name=name,
        model_id=model_id,
        config=config,
        report=report,
        published=PUBLISHED.get(name),
        license=license,
        note=note,
    )
    path = Path(folder) / "README.md"
    path.write_text(card.content, encoding="utf-8")
    return path
