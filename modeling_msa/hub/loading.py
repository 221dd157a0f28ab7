"""Folders and repositories: loading them with this package's code, and refusing weights that do not fit."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
from safetensors import SafetensorError
from transformers.utils import cached_file, logging

from .. import modeling_msa_transformer
from ..configuration_msa_transformer import MsaConfig
from ..modeling_msa_transformer import MsaForContactPrediction, MsaForMaskedLM, MsaModel, MsaPreTrainedModel
from .adapters import merge_adapters, read_adapter_weights
from .checks import check_numbers, check_weights, read_config
from .errors import describe_misfit, hub_errors, must_use_cache
from .finding import ADAPTER_CONFIG, EMBEDDED, find_base, find_model, is_adapter, read_adapter

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
    revision: str = "main",
) -> _Model:
    """Load a folder or Hub id with this package's code (the folder's own copy of it is not run).

    Parameters
    ----------
    folder : path or str, default "msa-small"
        Saved from any class; or LoRA adapters, which are merged into the model that they belong to. "msa-small" comes
        with the package, as does "msa-tiny", for tests.
    device : str, default "auto"
        "auto" is a GPU if there is one.
    dtype : str, default "auto"
        "auto" is the type it was saved in; else "float32", "bfloat16" or "float16".
    cls : type, default MsaModel
        The class to load: `MsaForMaskedLM` for logits. Heads that it does not have are left out.
    revision : str, default "main"
        Branch, tag or commit of a repository on the Hub.

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
        If there is no such folder or repository, the model that adapters belong to is missing, or the Hub cannot be
        reached or refuses it.
    ImportError
        If the folder holds adapters, and PEFT is not installed.
    """
    if device == "auto":
        rank = int(os.environ.get("LOCAL_RANK", "0"))  # of the processes that accelerate launch started here
        device = f"cuda:{rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"There is no device {device!r} here ({str(error).splitlines()[0]}).") from None
    model: Any = load_checkpoint(cls, folder, dtype=dtype, revision=revision)
    return model.to(device)


def load_checkpoint(cls: type[_Model], folder: str | os.PathLike, *, new_head: bool = False, **options: Any) -> _Model:
    """Load a folder or Hub id as ``cls.from_pretrained`` does, and refuse weights that do not fit the config.

    Parameters
    ----------
    cls : type
        The class to load.
    folder : path or str
        Folder, Hub id, "msa-small" or "msa-tiny".
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
        if not os.path.isdir(name) and must_use_cache(name, options.get("revision", "main")):
            options["local_files_only"] = True
        hub = {key: options[key] for key in ("local_files_only", "revision") if key in options}
        if adapters := _adapter_folder(name, **hub):
            return _load_adapted(cls, adapters, new_head, options)
        if "config" not in options:  # what a config says of it is for plain transformers
            options.setdefault("return_dict", True)
        saved = read_config(name, **hub)
        if cls is MsaModel and "quantization_config" in saved and saved.get("architectures") != [cls.__name__]:
            # quantized tensors load under the names they were saved with, which have the prefix
            whole = load_checkpoint(MsaForContactPrediction, name, **options)
            backbone: MsaModel = whole.base_model  # type: ignore[assignment]
            backbone.contact_head.requires_grad_(False)
            return backbone  # type: ignore[return-value]
        return _load_fitting(cls, name, saved, new_head, options)


def _adapter_folder(name: str, revision: str = "main", local_files_only: bool = False) -> str | None:
    """Folder of the adapters that `name` stands for, downloaded if need be; None if it is a whole model."""
    if os.path.isdir(name):
        return name if is_adapter(name) else None
    options: dict[str, Any] = {"revision": revision, "local_files_only": local_files_only}
    options["_raise_exceptions_for_missing_entries"] = False
    with hub_errors(name):
        if cached_file(name, "config.json", **options) is not None:
            return None
        *_, found = [cached_file(name, file, **options) for file in ("adapter_model.safetensors", ADAPTER_CONFIG)]
    return None if found is None else os.path.dirname(found)


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep back transformers' table of weights that are new: the adapters bring them."""
    reports: Any = logging.get_logger("transformers.modeling_utils")

    def keep_back(record: Any) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    reports.addFilter(keep_back)
    try:
        yield
    finally:
        reports.removeFilter(keep_back)


def _load_adapted(cls: type[_Model], folder: str, new_head: bool, options: dict[str, Any]) -> _Model:
    """Load adapters merged into their model, as a folder in which that was saved would load."""
    weights, saved = read_adapter_weights(folder), read_adapter(folder)
    trained, base = saved_class(folder), find_base(folder)
    known = saved["auto_mapping"]["modeling_msa"]["config"]
    if not known:  # not trained by `msa train`: the head's size is all that is known of it
        heads = [len(tensor) for name, tensor in weights.items() if name.endswith(".classifier.bias")]
        changes: dict[str, Any] = {"num_labels": heads[0]} if heads else {}
    else:
        changes = {"config": MsaConfig(**known)}
    changes |= {"dtype": torch.float32, "revision": saved.get("revision") or "main"}
    # a head that was trained is in the adapters; the base may have none, or another
    with _without_reports():
        whole = load_checkpoint(trained, base, new_head=bool(saved.get("modules_to_save")), **changes)
    whole = merge_adapters(whole, folder, weights)
    whole.config.architectures = [trained.__name__]
    kept = {key: options.pop(key) for key in ("dtype", "attn_implementation") if key in options}
    config = options.pop("config", whole.config).to_dict()
    config, options = MsaConfig.from_dict(config, return_unused_kwargs=True, **options)
    options |= kept | {"config": config, "state_dict": whole.state_dict()}
    model = _load_fitting(cls, folder, {}, new_head, options)
    model.name_or_path = model.config.name_or_path = folder
    return model


def _load_fitting(
    cls: type[_Model], name: str, saved: dict[str, Any], new_head: bool, options: dict[str, Any]
) -> _Model:
    again = "Download, copy or convert it again, whole and with its own config.json."
    try:
        if "state_dict" not in options:
            hub = ("local_files_only", "revision", "use_safetensors")
            check_weights(name, saved, **{key: options[key] for key in hub if key in options})
        # transformers' own error about shapes does not name the tensors
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, info = cls.from_pretrained(None if "state_dict" in options else name, **options)
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
    hub: dict[str, Any] = {"local_files_only": not os.path.isdir(name) and must_use_cache(name)}
    if adapters := _adapter_folder(name, **hub):
        saved = [read_adapter(adapters)["auto_mapping"].get("base_model_class")]
    else:
        saved = read_config(name, **hub).get("architectures") or []
    known = [getattr(modeling_msa_transformer, name) for name in saved if name in modeling_msa_transformer.__all__]
    return known[0] if known else MsaForMaskedLM
