"""Training by a recipe, from reading it to a folder that the auto classes load.

A killed run continues from its last whole checkpoint. On a CPU it ends with the same weights, bit for bit, as one that
was not killed: which rows, columns and masks are drawn depends on example and epoch alone. A stream has no random
access: what was trained on is read again, and the same batches follow if shards, processes and workers are as many as
before.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from .._files import whole_file
from .._words import counted
from .averaging import load_average
from .building import make_trainer
from .checkpoints import find_changed, find_checkpoint, last_whole, load_mean
from .recipes import parse_recipe
from .trainer import MsaTrainer


class RunReport(NamedTuple):
    """The result of `train`."""

    folder: Path
    steps: int
    figures: dict[str, float]  # the last ones of training and evaluation
    skipped: str  # which alignments could not be read; empty if all could

    def __str__(self) -> str:
        keys = ("train_loss", *(key for key in self.figures if key.startswith("eval_")))
        shown = [f"{key} {self.figures[key]:.4g}" for key in keys if not key.endswith(("_runtime", "_second"))]
        seconds, total = self.figures["data_seconds"], self.figures["train_runtime"]
        waited = f"Waited {seconds:.1f} s for batches, {seconds / max(total, 1e-9):.1%} of the training."
        return "\n".join(
            filter(None, [f"{self.folder}: {counted(self.steps, 'step')}, {', '.join(shown)}", waited, self.skipped])
        )


def train(recipe: str | os.PathLike, overrides: Sequence[str] = ()) -> RunReport:
    """Train by a recipe, and save a folder that the auto classes load.

    Parameters
    ----------
    recipe : path
        See `modeling_msa.training.recipes`.
    overrides : sequence of str
        Command-line arguments that replace its values.

    Returns
    -------
    RunReport

    Raises
    ------
    ValueError, OSError
        If the recipe, the data, the weights or a checkpoint to resume from are wrong; before training. If the loss
        or the weights become NaN or infinite; checkpoints from before that stay, and no model is saved.
    """
    start = time.monotonic()
    read = parse_recipe(recipe, overrides)
    folder = Path(str(read.training.output_dir))
    checkpoint = find_checkpoint(folder, read.training.resume_from_checkpoint)
    trainer = make_trainer(read)
    if trainer.deadline:
        trainer.deadline.start = start  # before the data were read
    averaged = read.training.average_checkpoints
    if averaged > 1 and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        raise ValueError(
            "average_checkpoints requires whole weights, but FSDP and DeepSpeed save them in parts: train with DDP."
        )
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / "recipe.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(read.given, sort_keys=False), encoding="utf-8")
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    figures = {**result.metrics, "data_seconds": trainer.waited}
    if averaged > 1:
        trainer.accelerator.wait_for_everyone()  # the last checkpoint is written by one process
        kept = last_whole(folder, averaged, find_changed)
        load_mean(trainer.accelerator.unwrap_model(trainer.model), kept)
        trainer.averaged_checkpoints = len(kept)
    if trainer.average_decay:
        load_average(cast(Any, trainer.optimizer))
    if read.training.max_time is not None:
        trainer.save_model(_internal_call=True)  # in time, however long the evaluation lasts
    if trainer.eval_dataset is not None:
        last = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
        known = last and last[-1]["step"] == result.global_step and averaged < 2
        figures |= last[-1] if known else trainer.evaluate()
    has_whole = read.model.lora_r is not None and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)
    merged = _merge(trainer) if has_whole and trainer.is_world_process_zero() else None
    trainer.save_model(_internal_call=True)  # not pushed yet
    trainer.save_metrics("all", figures, combined=False)
    trainer.save_state()
    if merged is not None:
        merged.save_pretrained(folder / "merged")
        cast(Any, trainer.processing_class).save_pretrained(folder / "merged")
    if trainer.args.push_to_hub:
        trainer.push_to_hub()  # with the card
    else:
        trainer.create_model_card()
    skipped = [_skipped(dataset) for dataset in (trainer.train_dataset, trainer.eval_dataset)]
    return RunReport(folder, result.global_step, figures, "\n".join(filter(None, skipped)))


def _skipped(dataset: Any) -> str:
    """Message about the alignments that were left out; empty if none was."""
    if hasattr(dataset, "report"):
        return dataset.report()
    count = getattr(dataset, "skipped", 0)  # a stream's
    return f"{counted(count, 'alignment')} could not be read." if count else ""


def _merge(trainer: MsaTrainer) -> Any:
    """Return a copy of the model with its adapters merged in: for the auto classes, without PEFT."""
    model = copy.deepcopy(cast(Any, trainer.accelerator.unwrap_model(trainer.model))).merge_and_unload()
    trainer.require_finite(model)  # products of finite adapters can be too large
    return model
