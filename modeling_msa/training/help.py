"""The help of ``msa train``, from the keys of a recipe; does not import transformers."""

from __future__ import annotations

import dataclasses
import textwrap

from .arguments import DataArguments, ModelArguments, TrainingKeys

_OWN = ("average_checkpoints", "average_decay", "max_time", "muon", "resume_from_checkpoint")
_COMMON = """output_dir max_steps num_train_epochs per_device_train_batch_size gradient_accumulation_steps
learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm bf16 gradient_checkpointing eval_strategy
eval_steps save_steps save_total_limit logging_steps report_to seed dataloader_num_workers use_cpu"""


def help_text() -> str:
    """Describe the command ``msa train`` and the keys of a recipe."""
    lines = [
        "Usage: msa train RECIPE.yaml [--key value ...]",
        "",
        "Train a model as a recipe says: a YAML file of keys and values, or the name of one that comes with the",
        "package. Values given on the command line replace those of the file. Training reads the",
        "chains of a complex side by side, as one protein.",
        "",
        "Example: msa train continue-family --train_data fn3 --max_steps 20",
        "Several processes: accelerate launch --config_file configuration/accelerate/ddp.yaml -m modeling_msa.cli "
        "train RECIPE.yaml",
    ]
    for title, cls in (("Model", ModelArguments), ("Data", DataArguments)):
        lines += ["", f"{title}:"]
        for entry in dataclasses.fields(cls):
            default = "" if entry.default in (None, False) else f" [{entry.default}]"
            lines += _wrap(f"--{entry.name:<22} {entry.metadata['help']}{default}")
    own = {entry.name: entry.metadata["help"] for entry in dataclasses.fields(TrainingKeys)}
    lines += ["", "Training:", *(line for name in _OWN for line in _wrap(f"--{name:<22} {own[name]}"))]
    lines += ["", "Every key of transformers' TrainingArguments may be used as well. The most common ones:"]
    return "\n".join([*lines, *textwrap.wrap(_COMMON, 108, initial_indent="  ", subsequent_indent="  ")])


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent=" " * 27, break_on_hyphens=False)
