"""Folders and repositories: loading them with this package's code, and refusing weights that do not fit."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from safetensors import SafetensorError
from transformers.utils import logging

from .. import modeling_msa_transformer
from ..modeling_msa_transformer import MsaForContactPrediction, MsaForMaskedLM, MsaModel, MsaPreTrainedModel
from .checks import check_numbers, check_weights, read_config
from .errors import describe_misfit, hub_errors, must_use_cache
from .finding import EMBEDDED, find_model

_Model = TypeVar("_Model", bound=MsaPreTrainedModel)


def quiet_loading() -> None:
    """Turn off transformers' bars over loaded weights, and keep those over downloads, which it turns off too."""
    shown = not are_progress_bars_disabled()
    logging.disable_progress_bar()
    if shown:
        enable_progress_bars()


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
        If the folder holds another kind of model, its weights are damaged, do not fit or are not finite numbers, or
        there is no such device.
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
    model: Any = load_checkpoint(cls, folder, dtype=dtype)
    return model.to(device)


def load_checkpoint(cls: type[_Model], folder: str | os.PathLike, *, new_head: bool = False, **options: Any) -> _Model:
    """Load a folder or Hub id as ``cls.from_pretrained`` does, and refuse weights that do not fit the config.

    Parameters
    ----------
    cls : type
        The class to load.
    folder : path or str
        Folder, Hub id, or "msa-tiny".
    new_head : bool, default False
        Whether a whole head may be new, because the folder has none or one of another shape.
    **options
        For ``from_pretrained``.

    Raises
    ------
    ValueError
        If the folder holds another kind of model, or weights that are damaged, do not fit or are not finite numbers;
        names the tensors.
    OSError
        If there is no such folder or repository, files of weights are missing, or the Hub refuses them.
    """
    name = find_model(folder)
    with nullcontext() if os.path.isdir(name) else hub_errors(name):
        if not os.path.isdir(name) and must_use_cache(name):
            options["local_files_only"] = True
        options.setdefault("return_dict", True)  # what a config says of it is for plain transformers
        saved = read_config(name, options.get("local_files_only", False))
        if cls is MsaModel and "quantization_config" in saved and saved.get("architectures") != [cls.__name__]:
            # quantized tensors load under the names they were saved with, which have the prefix
            whole = load_checkpoint(MsaForContactPrediction, name, **options)
            backbone: MsaModel = whole.base_model  # type: ignore[assignment]
            backbone.contact_head.requires_grad_(False)
            return backbone  # type: ignore[return-value]
        return _load_fitting(cls, name, saved, new_head, options)


def _load_fitting(
    cls: type[_Model], name: str, saved: dict[str, Any], new_head: bool, options: dict[str, Any]
) -> _Model:
    again = "Download, copy or convert it again, whole and with its own config.json."
    try:
        check_weights(
            name, saved, **{key: options[key] for key in ("local_files_only", "use_safetensors") if key in options}
        )
        # transformers' own error about shapes does not name the tensors
        model, info = cls.from_pretrained(name, output_loading_info=True, ignore_mismatched_sizes=True, **options)
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        if isinstance(error, KeyError) and error.args[0] not in ("metadata", "weight_map"):  # of an index
            raise
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"The weights of {name}, or their index, are damaged ({reason}). {again}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"The weights of {name} are not complete: {error}. {again}") from error
    except ValueError as error:
        if name in str(error):
            raise
        raise ValueError(f"{name} cannot be loaded as its config.json says: {error}") from error
    if misfit := _misfit(model, info, new_head):
        raise ValueError(f"The weights of {name} do not fit {cls.__name__} and config.json: {misfit}. {again}")
    check_numbers(model, name)
    return model


def _misfit(model: MsaPreTrainedModel, info: dict[str, Any], new_head: bool) -> str:
    """Describe what transformers only warns about; "" if there is nothing.

    Heads that this class does not have are no problem, nor, with `new_head`, a whole head that is new.
    """
    backbone = {name for name, _ in model.base_model.named_children()}

    def head_of(name: str) -> str | None:
        part = name.removeprefix(f"{model.base_model_prefix}.").partition(".")[0]
        return None if part in backbone else part

    missing, tied = set(info["missing_keys"]), set(getattr(model, "all_tied_weights_keys", {}))
    mismatched = [each for each in info["mismatched_keys"] if not (new_head and head_of(each[0]))]
    unexpected = {name for name in info["unexpected_keys"] if missing or head_of(name) is None}
    # a folder that was saved from this class must have the head; of another's, what it has must be whole
    if new_head and type(model).__name__ not in (model.config.architectures or ()):
        found = {head_of(name) for name in model.state_dict() if name not in missing | tied}
        missing = {name for name in missing if head_of(name) in found | {None}}
        unexpected = {name for name in unexpected if missing or head_of(name) is None}
    return describe_misfit(missing, unexpected, mismatched)


def saved_class(folder: str | os.PathLike) -> type[MsaPreTrainedModel]:
    """Class that a folder or Hub id was saved from, so that it keeps its head; `MsaForMaskedLM` if it does not say."""
    name = find_model(folder)
    saved = read_config(name, not os.path.isdir(name) and must_use_cache(name)).get("architectures") or []
    known = [getattr(modeling_msa_transformer, name) for name in saved if name in modeling_msa_transformer.__all__]
    return known[0] if known else MsaForMaskedLM
