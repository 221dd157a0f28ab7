"""LoRA adapters (PEFT): merging those of a folder into the model that they belong to."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel

from .errors import describe_misfit
from .finding import read_adapter


def import_peft() -> ModuleType:
    """Import PEFT; ImportError, which says how to install it, if it is missing."""
    try:
        import peft
    except ImportError as error:
        raise ImportError("LoRA adapters require PEFT: pip install 'modeling-msa[train]'.") from error
    return peft


def read_adapter_weights(folder: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read the tensors of a folder's adapters.

    Raises
    ------
    ImportError
        If PEFT, which merges them, is missing.
    FileNotFoundError
        If there are none.
    ValueError
        If they are damaged, or of another kind than LoRA.
    """
    import_peft()  # the first thing to say
    path, again = Path(folder, "adapter_model.safetensors"), "Copy or train the adapters again."
    if (kind := read_adapter(folder).get("peft_type")) != "LORA":
        raise ValueError(f"{folder} holds adapters of the type {kind!r}; only LORA can be loaded.")
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {path.name}. {again}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). {again}") from error


def merge_adapters(model: PreTrainedModel, folder: str | os.PathLike, weights: dict[str, torch.Tensor]) -> Any:
    """Return a model with the adapters of a folder, and the heads that were trained beside them, merged in.

    Parameters
    ----------
    model : PreTrainedModel
        What the adapters belong to, of the class that they were trained with; changed in place.
    folder : path
        Has the adapter_config.json.
    weights : dict of str to Tensor
        See `read_adapter_weights`.

    Raises
    ------
    ValueError
        If adapters and model do not fit; names the tensors.
    """
    peft = import_peft()
    try:
        config = peft.LoraConfig.from_pretrained(os.fspath(folder))
        config.megatron_config = None  # would import a module that the file names
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that will go
            adapted = peft.PeftModel(model, config)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"The adapters of {folder} do not fit {type(model).__name__}: {error}") from error
    expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    shapes = [
        (name, tuple(weights[name].shape), tuple(tensor.shape))
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if misfit := describe_misfit(expected.keys() - weights.keys(), weights.keys() - expected.keys(), shapes):
        raise ValueError(f"The adapters of {folder} do not fit {type(model).__name__}: {misfit}.")
    peft.set_peft_model_state_dict(adapted, weights)
    return adapted.merge_and_unload()
