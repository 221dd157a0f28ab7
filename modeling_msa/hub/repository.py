"""What makes a saved folder a complete repository: the tokenizer and the card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..configuration_msa_transformer import MsaConfig
from ..tokenization_msa_transformer import MsaTokenizer
from .card import plain, write_model_card
from .reports import TrainingReport


def complete_folder(
    folder: str | os.PathLike,
    config: MsaConfig,
    name: str,
    model_id: str | None = None,
    *,
    tokenizer: MsaTokenizer | None = None,
    **card: Any,
) -> None:
    """Add the tokenizer and the card to a folder that a model was saved to.

    Parameters
    ----------
    folder : path
        With the weights, the config, the code and its licence.
    config : MsaConfig
        The model's.
    name : str
        The checkpoint's name, for the card.
    model_id : str, optional
        What a reader gives to ``from_pretrained``; default: `name`.
    tokenizer : MsaTokenizer, optional
        Default: the one that fits `config`.
    **card
        What else is known of the weights; see `modeling_msa.hub.card.write_model_card`.
    """
    (tokenizer or MsaTokenizer.for_config(config)).save_pretrained(folder)
    write_model_card(folder, name, model_id or name, config, **card)


def write_pushed_card(model: Any, folder: Path, repo_id: str) -> None:
    """Write the card of a model that ``push_to_hub`` uploads: what its config and its source tell.

    The weights differ from the source's, whose card would have been used otherwise.
    """
    source = model.name_or_path
    limit = (
        f"It was made from {plain(Path(source).name if Path(source).exists() else source)}, with other weights or "
        "another head; nothing more is known about it. Before you rely on contacts, fit the contact regression again "
        "(`msa fit-contacts`)."
    )
    report = TrainingReport(limits=(limit,) if source else ())
    write_model_card(folder, repo_id.rpartition("/")[2], repo_id, model.config, training=report)
