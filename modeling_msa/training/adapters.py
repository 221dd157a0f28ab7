"""LoRA adapters in training: adding them to a model, and noting in a saved folder what they belong to."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel

from .._files import file_sha256, whole_file
from ..hub.adapters import import_peft
from ..hub.finding import ADAPTER_CONFIG, embedded_name, model_files
from .arguments import ModelArguments

# what another version, another folder or another type of the same model may have differently
_NOT_NOTED = ("auto_map", "custom_pipelines", "architectures", "dtype", "transformers_version", "_name_or_path")


def add_adapters(model: PreTrainedModel, arguments: ModelArguments, head: str | None) -> Any:
    """Add LoRA adapters to the attentions' projections; `head`, if there is a new one, is trained whole.

    Raises ImportError if PEFT is missing.
    """
    peft = import_peft()
    exclude = None
    if arguments.objective == "contacts":  # what the contact logits do not depend on, see MsaForContactPrediction
        last = rf".*layers\.{model.config.num_hidden_layers - 1}"
        exclude = rf"{last}\.(row_attention\.(v_proj|out_proj)|column_attention\..*|feed_forward\..*)"
    rank = arguments.lora_r or 8
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=arguments.lora_alpha or 2 * rank,
        lora_dropout=arguments.lora_dropout,
        target_modules=arguments.lora_target_modules or ["q_proj", "k_proj", "v_proj", "out_proj"],
        exclude_modules=exclude,
        modules_to_save=[head] if head else None,
    )
    return peft.get_peft_model(model, config)


def note_base(folder: str | os.PathLike, model: Any) -> None:
    """Note in a folder that PEFT has saved where the base of the adapters is, which weights and which config it has.

    PEFT itself looks for a local base relative to where Python runs: its path is made absolute. For a folder that is
    moved with its base, the path relative to the folder is noted too, and to tell bases apart the SHA-256 of their
    weights, inside ``auto_mapping``, where PEFT lets other keys be. A base from the Hub is named with its commit.
    `model` is the adapted model.
    """
    path = Path(folder, ADAPTER_CONFIG)
    saved, place = json.loads(path.read_text(encoding="utf-8")), Path(folder).resolve()
    name = saved["base_model_name_or_path"] or ""
    config = model.get_base_model().config.to_diff_dict()
    noted: dict[str, Any] = {"config": {key: value for key, value in config.items() if key not in _NOT_NOTED}}
    noted["base_folder"] = None
    if os.path.isdir(name):
        base = Path(name).resolve()
        if (embedded := embedded_name(base)) is not None:
            saved["base_model_name_or_path"] = embedded
        else:
            saved["base_model_name_or_path"], noted["base_folder"] = str(base), os.path.relpath(base, place)
        weights = [file for file in model_files(base).values() if file.parent == base and file.suffix != ".json"]
        noted["base_sha256"] = {file.name: _digest(file, file.stat().st_mtime_ns) for file in weights}
    elif isinstance(cached := try_to_load_from_cache(name, "config.json"), str):
        saved["revision"] = saved["revision"] or Path(cached).parent.name
    saved["auto_mapping"] = (saved["auto_mapping"] or {}) | {"modeling_msa": noted}
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(saved, indent=2, sort_keys=True), encoding="utf-8")


@functools.cache  # each checkpoint notes the same base
def _digest(file: Path, changed: int) -> str:
    return file_sha256(file)
