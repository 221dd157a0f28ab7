"""What a model card says of a training run: the weights it started from, its data, its settings and its results."""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._words import counted
from ..hub.card import METRICS, find_source, plain
from ..hub.reports import Result, Source, TrainingReport

if TYPE_CHECKING:
    from .recipes import Recipe

OBJECTIVES = {
    "mlm": "masked language modelling",
    "token": "classes of the query's residues",
    "sequence": "a class or value of the query",
    "contacts": "contacts of the query's residues",
    "variants": "scores of variants: the variant replaces the query, the other rows stay",
}
_DATASET = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)")


def report_of_run(trainer: Any, recipe: Recipe | None = None) -> TrainingReport:
    """Collect what is known of a run.

    Parameters
    ----------
    trainer : MsaTrainer
        After training, or during it; before, only what it started from is known.
    recipe : Recipe, optional
        What it was built from; without one, neither data nor source are known.

    Returns
    -------
    TrainingReport
    """
    source = find_source(recipe.model.model, trainer.model.config) if recipe and recipe.model.model else None
    if not trainer.state.global_step:
        return TrainingReport(source=source)
    settings = [*(_of_recipe(recipe, source) if recipe else ()), *_of_data(trainer, recipe), *_of_steps(trainer)]
    limits = []
    if source and recipe and recipe.model.objective != "contacts":
        limits.append(
            f"The contact regression is that of {plain(source.name)}, but the weights below it have changed: before "
            "you rely on contacts, fit it again (`msa fit-contacts`)."
        )
    return TrainingReport(
        settings=tuple(settings),
        results=tuple(_results(trainer, recipe)),
        limits=tuple(limits),
        source=source,
        relation="finetune" if source else None,
        datasets=tuple(dict.fromkeys(_DATASET.findall("\n".join(recipe.data.train_data or []) if recipe else ""))),
    )


def _of_recipe(recipe: Recipe, source: Source | None) -> Iterator[tuple[str, str]]:
    model = recipe.model
    yield "recipe", f"{f'{plain(recipe.name)}; ' if recipe.name else ''}`recipe.yaml` has every key that was set"
    yield "objective", OBJECTIVES[model.objective]
    if source:
        yield "started from", plain(source.name)
    else:
        yield "started from", f"random weights, with the configuration {_names([str(model.config)])}"
    if model.lora_r is not None:
        alpha = model.lora_alpha or 2 * model.lora_r
        yield "LoRA adapters", f"rank {model.lora_r}, alpha {alpha}, dropout {model.lora_dropout:g}"


def _of_data(trainer: Any, recipe: Recipe | None) -> Iterator[tuple[str, str]]:
    unit = "variant" if recipe and recipe.model.objective == "variants" else "alignment"
    words = [_names(recipe.data.train_data)] if recipe else []
    if getattr(trainer.train_dataset, "whole_batches", False):
        words = [plain(str(trainer.train_dataset))]
    elif hasattr(trainer.train_dataset, "__len__"):
        repeats = recipe.data.repeats if recipe else 1
        words.append(counted(len(trainer.train_dataset) // repeats, unit) + f", {repeats} visits" * (repeats > 1))
    if words:
        yield "data", "; ".join(words)
    limits = {"tokens": "max_tokens", "rows": "max_rows", "columns": "max_columns"}
    sizes = {name: getattr(trainer.data_collator, key, None) for name, key in limits.items()}
    if any(sizes.values()):
        yield "maximum size of an alignment", ", ".join(f"{size:,} {name}" for name, size in sizes.items() if size)


def _of_steps(trainer: Any) -> Iterator[tuple[str, str]]:
    arguments, state = trainer.args, trainer.state
    is_mixture = getattr(trainer.train_dataset, "whole_batches", False)
    has_epochs = state.epoch and hasattr(trainer.train_dataset, "__len__") and not is_mixture
    epochs = f", {state.epoch:.3g} epochs" if has_epochs else ""
    yield "steps", f"{state.global_step:,}{epochs}"
    factors = (arguments.train_batch_size, arguments.gradient_accumulation_steps, arguments.world_size)
    names = ("per batch", "accumulated", "processes")
    parts = ", ".join(f"{n} {name}" for n, name in zip(factors, names, strict=True) if n > 1)
    total = factors[0] * factors[1] * factors[2]
    if is_mixture:
        yield "tokens per step", f"at most {total * trainer.train_dataset.shape.max_tokens:,}, with padding"
    else:
        yield "alignments per step", f"{total}{f' ({parts})' if total not in factors else ''}"
    schedule = getattr(arguments.lr_scheduler_type, "value", arguments.lr_scheduler_type)
    warmup = f" after {arguments.warmup_steps:g} of warm-up" if arguments.warmup_steps else ""
    if (deadline := getattr(trainer, "deadline", None)) is not None:
        warmup += f", falling to zero in the last {deadline.share:.0%} of {deadline.seconds / 60:g} minutes"
    yield "learning rate", f"{arguments.learning_rate:g}, {str(schedule).replace('_', ' ')}{warmup}"
    decay = f", weight decay {arguments.weight_decay:g}" if arguments.weight_decay else ""
    optimizer = str(getattr(arguments.optim, "value", arguments.optim))
    if "adam" in optimizer:
        optimizer += f", betas {arguments.adam_beta1:g} and {arguments.adam_beta2:g}"
    muon = "Muon for the layers' matrices, for the rest " if getattr(arguments, "muon", False) else ""
    yield "optimizer", f"{muon}{optimizer}{decay}"
    yield "precision", "bfloat16, mixed" if arguments.bf16 else "float16, mixed" if arguments.fp16 else "float32"
    if (averaged := getattr(trainer, "averaged_checkpoints", 0)) > 1:
        yield "weights", f"mean of the last {averaged} checkpoints"
    if decay_of_average := getattr(trainer, "average_decay", 0):
        yield "weights", f"exponential moving average, decay {decay_of_average:g}"
    yield "seed", str(arguments.seed)
    logged = [entry["loss"] for entry in state.log_history if "loss" in entry]
    if logged:
        yield "last logged training loss", f"{logged[-1]:.4g}"
    yield "versions", ", ".join(_versions(("modeling-msa", "transformers", "torch"), trainer))


def _versions(packages: Iterable[str], trainer: Any) -> Iterator[str]:
    for package in (*packages, *(("peft",) if hasattr(trainer.model, "peft_config") else ())):
        with suppress(importlib.metadata.PackageNotFoundError):  # run from a checkout
            yield f"{package} {importlib.metadata.version(package)}"


def _results(trainer: Any, recipe: Recipe | None) -> Iterator[Result]:
    """Figures of the last evaluation of the weights that are kept."""
    logged = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    best = getattr(trainer.state, "best_global_step", None) if trainer.args.load_best_model_at_end else None
    for entry in [entry for entry in logged if best in (None, entry["step"])][-1:]:
        for key in METRICS:
            if not math.isnan(entry.get(f"eval_{key}", math.nan)):  # such as the rank correlation of constants
                yield Result(key, entry[f"eval_{key}"], _held_out(trainer, recipe), split="validation")


def _held_out(trainer: Any, recipe: Recipe | None) -> str:
    """Describe what was held out."""
    if recipe is None:
        return "held-out alignments"
    unit = "variant" if recipe.model.objective == "variants" else "alignment"
    fraction = recipe.data.eval_fraction
    names = _names(recipe.data.eval_data or recipe.data.train_data)
    if fraction is not None and len(trainer.eval_dataset) == 1 and unit == "alignment":
        return f"{names}: {fraction:g} of its rows held out"
    part = "" if fraction is None else f" ({fraction:g} of all)"
    return f"{names}: {counted(len(trainer.eval_dataset), unit)} held out{part}"


def _names(paths: Sequence[str] | None) -> str:
    """Names of files and folders, without the paths of this machine."""
    return ", ".join(plain(path if "://" in path else Path(path).resolve().name) for path in paths or ())
