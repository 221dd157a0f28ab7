"""Folders and repositories: loading them with this package's code."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from transformers.utils import logging

from .. import modeling_msa_transformer
from ..configuration_msa_transformer import MsaConfig
from ..modeling_msa_transformer import MsaForContactPrediction, MsaForMaskedLM, MsaModel, MsaPreTrainedModel
from ..tasks.distances import WEIGHTS_NAME
from .finding import EMBEDDED, find_model, resolve_model
from .pushing import hub_errors


def quiet_loading() -> None:
    """Turn off transformers' bars over loaded weights, and keep those over downloads, which it turns off too."""
    shown = not are_progress_bars_disabled()
    logging.disable_progress_bar()
    if shown:
        enable_progress_bars()


_Model = TypeVar("_Model", bound=MsaPreTrainedModel)


def load_model(
    folder: str | os.PathLike = EMBEDDED,
    device: str = "auto",
    dtype: str = "auto",
    *,
    cls: type[_Model] = MsaModel,  # type: ignore[assignment]
) -> _Model:
    """Load a folder or Hub id with this package's code (the folder's own copy of it is not run).

    Parameters
    ----------
    folder : path or str, default "msa-tiny"
        Saved from any class. "msa-tiny" is the small checkpoint that comes with the package.
    device : str, default "auto"
        "auto" is a GPU if there is one.
    dtype : str, default "auto"
        "auto" is the type it was saved in; else "float32", "bfloat16" or "float16".
    cls : type, default MsaModel
        The class to load: `MsaForMaskedLM` for logits. Heads that it does not have are left out.

    Returns
    -------
    MsaModel, or `cls`
        In evaluation mode.

    Raises
    ------
    ValueError
        If the folder holds another kind of model, or not all of this one's tensors, or there is no such device.
    OSError
        If there is no such folder or repository, or the Hub cannot be reached or refuses it.
    """
    if device == "auto":
        rank = int(os.environ.get("LOCAL_RANK", "0"))  # of the processes that accelerate launch started here
        device = f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"There is no device {device!r} here ({str(error).splitlines()[0]}).") from None
    folder = find_model(folder)
    with nullcontext() if os.path.isdir(folder) else hub_errors(folder):
        saved = MsaConfig.get_config_dict(folder)[0]
        if (kind := saved.get("model_type")) != MsaConfig.model_type:
            raise ValueError(f"{folder} holds a model of the type {kind!r}, not {MsaConfig.model_type!r}.")
        if cls is MsaModel and "quantization_config" in saved and saved.get("architectures") != [cls.__name__]:
            # quantized tensors load under the names they were saved with, which have the prefix
            whole = load_model(folder, device, dtype, cls=MsaForContactPrediction)
            backbone: MsaModel = whole.base_model  # type: ignore[assignment]
            backbone._freeze_unused()
            return backbone  # type: ignore[return-value]
        model, info = cls.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    if wrong := sorted(info["missing_keys"]):
        raise ValueError(
            f"{folder} lacks {len(wrong)} tensors of its model, {wrong[0]} for one: convert or download it again."
        )
    return model.to(device)


def saved_class(folder: str | os.PathLike) -> type[MsaPreTrainedModel]:
    """Class that a folder or Hub id was saved from, so that it keeps its head; `MsaForMaskedLM` if it does not say."""
    saved = MsaConfig.get_config_dict(resolve_model(folder))[0].get("architectures") or []
    known = [getattr(modeling_msa_transformer, name) for name in saved if name in modeling_msa_transformer.__all__]
    return known[0] if known else MsaForMaskedLM


def find_distance_weights(model: str | os.PathLike) -> Path | None:
    """Path of the ``distances.json`` in a model's folder or Hub repository, if it has one."""
    folder = Path(resolve_model(model))
    if folder.is_dir():
        return folder / WEIGHTS_NAME if (folder / WEIGHTS_NAME).is_file() else None
    try:
        return Path(hf_hub_download(str(model), WEIGHTS_NAME))
    except EntryNotFoundError:  # also without a network, if it was never fetched
        return None
