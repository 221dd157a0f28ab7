"""Train: pretraining, continued pretraining and fine-tuning, each a recipe for transformers' Trainer.

``msa train RECIPE.yaml`` reads a recipe (`modeling_msa.recipes`), builds a model, datasets and a collator from it, and
leaves the rest to `MsaTrainer`: transformers' Trainer with batches grouped by size, losses and metrics that are sums
over all targets, and target accuracy and tokens per second in its logs.
"""

from __future__ import annotations

import json
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError, safe_open
from torch.utils.data import Dataset, DistributedSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, set_seed
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from . import data, hub
from .configuration_msa import MsaConfig
from .files import whole_file
from .metrics import Statistics, metric_for
from .modeling_msa import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
)
from .recipes import DataArguments, ModelArguments, Recipe, find_config, parse_recipe

logger = logging.get_logger(__name__)

CLASSES = {
    "mlm": MsaForMaskedLM,
    "token": MsaForTokenClassification,
    "sequence": MsaForSequenceClassification,
    "contacts": MsaForContactPrediction,
    "variants": MsaForSequenceClassification,
}


class _EpochCallback(TrainerCallback):
    """Tell dataset and sampler which epoch begins.

    accelerate's loader tells either the sampler or the dataset, and after a resumed run on several processes neither.
    """

    def __init__(self, trainer: MsaTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for listener in (self.trainer.train_dataset, self.trainer.train_sampler):
            if hasattr(listener, "set_epoch"):
                listener.set_epoch(int(state.epoch or 0))


class MsaTrainer(Trainer):
    """transformers' Trainer for alignments.

    It adds: batches of alignments of like size; an evaluation whose loss and metrics are over all targets of all
    batches and processes, from a few numbers per alignment instead of logits ``(B, R, C, V)``, and which draws the same
    masks each time; perplexity, target accuracy and tokens per second beside the training loss.

    Parameters
    ----------
    *args, **kwargs
        As transformers' Trainer takes.
    metric : Statistics, optional
        What evaluation measures; see `modeling_msa.metrics`.
    eval_collator : callable, optional
        The collator of evaluation; default: that of training.
    group_by_size : bool, default True
        Whether alignments of like size go in one batch.
    """

    def __init__(
        self,
        *args: Any,
        metric: Statistics | None = None,
        eval_collator: Any = None,
        group_by_size: bool = True,
        **kwargs: Any,
    ):
        self.metric = metric
        self.eval_collator = eval_collator
        self.group_by_size = group_by_size
        self.train_sampler: Any = None
        if metric is not None:
            kwargs.setdefault("compute_metrics", lambda prediction: metric.summarise(prediction.predictions))
        super().__init__(*args, **kwargs)
        self.add_callback(_EpochCallback(self))
        self._restart_figures()

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if self.group_by_size and hasattr(data, "SizeGroupedSampler"):
            # whole optimizer steps, so that one process and many make the same ones of the same seed
            size = self._train_batch_size * self.args.world_size
            self.train_sampler = data.SizeGroupedSampler(dataset, size, seed=seed)
        else:  # a shuffle that knows epochs; each process draws all of it, and accelerate shares it out
            self.train_sampler = DistributedSampler(dataset, num_replicas=1, rank=0, seed=seed)
        return self.train_sampler

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Make the loader as transformers does, with the collator of evaluation."""
        training = self.data_collator
        try:
            self.data_collator = self.eval_collator or training
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        """Compute the loss as transformers does, and count tokens and right targets of training."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        if model.training:
            tokens = inputs["attention_mask"].sum()
            right, targets = self.metric.count_right(outputs["logits"], inputs["labels"]) if self.metric else (0, 0)
            self._figures += torch.stack([torch.as_tensor(n, device=loss.device) for n in (tokens, right, targets)])
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Reduce each alignment's logits to a few sums before processes exchange them: their shapes may differ."""
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if logits is None or self.metric is None:
            return loss, logits, labels
        logits = logits[0] if isinstance(logits, tuple) else logits
        numbers = self.metric.per_example(logits, labels)
        return loss, numbers, numbers[:, :1]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as transformers does; its time is not training's."""
        start = time.perf_counter()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._clock += time.perf_counter() - start

    def _restart_figures(self) -> None:
        self._figures = torch.zeros(3, dtype=torch.int64, device=self.args.device)  # tokens, right targets, targets
        self._clock = time.perf_counter()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as transformers does; beside the training loss what was counted since the last time."""
        if "loss" in logs:
            figures = self.accelerator.reduce(self._figures, "sum")
            tokens, right, targets = figures.tolist()
            if targets:
                logs["accuracy"] = right / targets
            if self.metric is not None:
                logs.update(self.metric.of_loss(logs["loss"]))
            logs["tokens_per_second"] = round(tokens / max(time.perf_counter() - self._clock, 1e-9), 1)
            self._restart_figures()
        super().log(logs, *args, **kwargs)


def find_broken(checkpoint: str | os.PathLike) -> str | None:
    """Say what a checkpoint folder lacks to resume from it; None if it is whole.

    A killed run leaves folders in which files are missing or cut off. Weights, optimizer, scheduler and random states
    are looked at without being loaded; ``trainer_state.json`` is written last.
    """
    folder = Path(checkpoint)
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except OSError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is cut off"
    if any(folder.glob("global_step*")) or any(folder.glob("pytorch_model_fsdp*")):
        return None  # DeepSpeed's and FSDP's own folders, which they check
    weights = [*folder.glob("model*.safetensors"), *folder.glob("adapter_model.safetensors")]
    if not weights:
        return "the weights are missing"
    for file in weights:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return f"{file.name} is cut off"
    for name in ("optimizer.pt", "scheduler.pt"):
        if not (folder / name).is_file():
            return f"{name} is missing"
    for file in folder.glob("*.pt*"):
        if file.stem in ("optimizer", "scheduler") or file.stem.startswith("rng_state"):
            if not zipfile.is_zipfile(file):
                return f"{file.name} is cut off"
    return None


def find_checkpoint(output_dir: str | os.PathLike, resume: str | None) -> Path | None:
    """Find the checkpoint that a run starts from.

    Parameters
    ----------
    output_dir : path
        The run's folder.
    resume : str or None
        What ``resume_from_checkpoint`` says: a folder, or "true" for the last whole one in `output_dir`.

    Returns
    -------
    Path or None
        None if the run starts at its beginning.

    Raises
    ------
    ValueError
        If the named checkpoint is not whole, if none is, or if `output_dir` has checkpoints that nobody asked for.
    """
    output_dir = Path(output_dir)
    found = sorted(output_dir.glob("checkpoint-*"), key=lambda path: path.name.rpartition("-")[2].zfill(20))
    if resume is None or resume.lower() in ("false", "no", ""):
        if found:
            raise ValueError(
                f"{output_dir} holds a run already ({found[-1].name}): go on with it by --resume_from_checkpoint true, "
                "or name another --output_dir."
            )
        return None
    if resume.lower() not in ("true", "yes"):
        if not Path(resume).is_dir():
            raise ValueError(f"There is no checkpoint {resume} to resume from.")
        if reason := find_broken(resume):
            raise ValueError(
                f"{resume} is not a whole checkpoint: {reason}. Take an earlier one, or true for the last."
            )
        return Path(resume)
    for checkpoint in reversed(found):
        if not (reason := find_broken(checkpoint)):
            return checkpoint
        logger.warning(f"{checkpoint} is not a whole checkpoint ({reason}): it is passed over.")
    if found:
        raise ValueError(f"None of the checkpoints in {output_dir} is whole: start again with another --output_dir.")
    return None


def make_model(arguments: ModelArguments, seed: int) -> PreTrainedModel:
    """Make the model of a recipe: from scratch or from weights, its head, and its adapters.

    Raises
    ------
    ValueError, OSError
        If the weights cannot be loaded.
    """
    options: dict[str, Any] = dict(arguments.config_overrides or {})
    if arguments.attn_implementation:
        options["attn_implementation"] = arguments.attn_implementation
    if arguments.objective in ("token", "sequence", "variants"):
        names = arguments.class_names or [f"LABEL_{k}" for k in range(arguments.num_labels or 1)]
        options["id2label"] = dict(enumerate(names))
        options["label2id"] = {name: k for k, name in enumerate(names)}
        options["problem_type"] = "regression" if len(names) == 1 else "single_label_classification"
    cls = CLASSES[arguments.objective]
    set_seed(seed)  # of new weights
    if arguments.config is not None:
        model = cls._from_config(MsaConfig.from_pretrained(find_config(arguments.config), **options))
    else:
        model = cls.from_pretrained(
            resolve_model(arguments.model), dtype=torch.float32, ignore_mismatched_sizes=True, **options
        )
    return model if arguments.lora_r is None else _with_adapters(model, arguments)


def resolve_model(name: str | None) -> str:
    """Find the weights that a name stands for."""
    if hasattr(hub, "resolve_model"):
        return str(hub.resolve_model(name))
    embedded = Path(__file__).parent / "checkpoints" / str(name)
    return str(embedded if embedded.is_dir() else name)


def _with_adapters(model: PreTrainedModel, arguments: ModelArguments) -> Any:
    """Put LoRA adapters on the attentions' projections; a new head is trained whole."""
    from peft import LoraConfig, get_peft_model

    heads = {"token": "classifier", "sequence": "classifier", "variants": "classifier", "contacts": "contact_head"}
    exclude = None
    if arguments.objective == "contacts":  # what the contact logits do not depend on, see MsaForContactPrediction
        last = rf".*layers\.{model.config.num_hidden_layers - 1}"
        exclude = rf"{last}\.(row_attention\.(v_proj|out_proj)|column_attention\..*|feed_forward\..*)"
    config = LoraConfig(
        r=arguments.lora_r,
        lora_alpha=arguments.lora_alpha or 2 * arguments.lora_r,
        lora_dropout=arguments.lora_dropout,
        target_modules=arguments.lora_target_modules or ["q_proj", "k_proj", "v_proj", "out_proj"],
        exclude_modules=exclude,
        modules_to_save=[heads[arguments.objective]] if arguments.objective in heads else None,
    )
    return get_peft_model(model, config)


def make_datasets(arguments: DataArguments, objective: str, seed: int) -> tuple[Dataset, Dataset | None]:
    """List the alignments of a recipe, for training and for evaluation.

    Raises
    ------
    ValueError, OSError
        If there are none, or alignments and labels do not go together.
    """
    options = {"format": arguments.format, "on_error": arguments.on_error}
    files = _listed(arguments.train_data or [])
    held_out = _listed(arguments.eval_data) if arguments.eval_data else []
    if arguments.eval_fraction is not None:
        count = round(arguments.eval_fraction * len(files))
        if not 0 < count < len(files):
            raise ValueError(
                f"eval_fraction {arguments.eval_fraction} of {len(files)} alignments leaves none on one side: name "
                "eval_data instead."
            )
        order = np.random.default_rng(seed).permutation(len(files))
        held_out = [files[k] for k in sorted(order[:count])]
        files = [files[k] for k in sorted(order[count:])]
    training = data.MsaDataset(files, **options)
    return training, data.MsaDataset(held_out, fixed=True, **options) if held_out else None


def _listed(sources: Sequence[str]) -> list[Path]:
    return [path for source in sources for path in data.list_alignments(source)]


def make_collators(arguments: DataArguments, objective: str, config: MsaConfig, seed: int) -> tuple[Any, Any]:
    """Make the collators of training and of evaluation, which takes all rows that fit and the first columns.

    Raises
    ------
    ValueError
        If the model takes no alignments of that size.
    """
    tokenizer = hub.tokenizer_for(config)
    rows = min(1024, tokenizer.model_max_depth) if arguments.max_rows is None else arguments.max_rows
    columns = arguments.max_columns or tokenizer.model_max_length
    for name, wanted, limit in (
        ("max_rows", rows, tokenizer.model_max_depth),
        ("max_columns", columns, tokenizer.model_max_length),
    ):
        if wanted > limit:
            raise ValueError(f"{name} is {wanted}, but the model takes {limit}.")
    common = {"max_tokens": arguments.max_tokens, "max_rows": rows, "max_columns": columns, "seed": seed}
    common |= {"min_rows": arguments.min_rows, "select": arguments.select}
    varied = {"depth": arguments.depth, "crop": arguments.crop, "random_positions": arguments.random_positions}
    names = {"mlm": "MaskedLM", "token": "TokenClassification", "contacts": "ContactPrediction"}
    cls = getattr(data, f"MsaDataCollatorFor{names.get(objective, 'SequenceClassification')}")
    if objective == "mlm":
        common |= {key: getattr(arguments, key) for key in ("mlm_probability", "mask_columns", "mask_gaps")}
    return cls(tokenizer, **common, **varied), cls(tokenizer, **common, crop="first")


def make_trainer(recipe: Recipe) -> MsaTrainer:
    """Build the Trainer of a recipe.

    Parameters
    ----------
    recipe : Recipe
        See `modeling_msa.recipes.parse_recipe`.

    Returns
    -------
    MsaTrainer

    Raises
    ------
    ValueError, OSError
        If data, labels or weights are not there or do not go together.
    """
    objective, arguments = recipe.model.objective, recipe.training
    training, held_out = make_datasets(recipe.data, objective, arguments.seed)
    model = make_model(recipe.model, arguments.seed)
    collator, eval_collator = make_collators(recipe.data, objective, model.config, arguments.seed)
    return MsaTrainer(
        model,
        arguments,
        data_collator=collator,
        eval_collator=eval_collator,
        train_dataset=training,
        eval_dataset=held_out,
        processing_class=collator.tokenizer,
        metric=metric_for(objective, model.config.problem_type),
        group_by_size=recipe.data.group_by_size,
    )


def train(recipe: str | os.PathLike, overrides: Sequence[str] = ()) -> dict[str, float]:
    """Train by a recipe, and leave a folder that the auto classes load.

    Parameters
    ----------
    recipe : path
        See `modeling_msa.recipes`.
    overrides : sequence of str
        Command-line arguments that beat it.

    Returns
    -------
    dict of str to float
        The last figures of training and evaluation.

    Raises
    ------
    ValueError, OSError
        For what is wrong with the recipe, the data, the weights or a checkpoint to resume from, before training.
    """
    read = parse_recipe(recipe, overrides)
    folder = Path(read.training.output_dir)
    checkpoint = find_checkpoint(folder, read.training.resume_from_checkpoint)
    trainer = make_trainer(read)
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / "recipe.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(read.given, sort_keys=False), encoding="utf-8")
    figures = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    if trainer.eval_dataset is not None:
        figures |= trainer.evaluate()
    trainer.save_model()
    trainer.save_metrics("all", figures, combined=False)
    trainer.save_state()
    _report_unreadable(trainer)
    return figures


def _report_unreadable(trainer: MsaTrainer) -> None:
    """Count the files that were skipped."""
    for dataset in (trainer.train_dataset, trainer.eval_dataset):
        skipped = getattr(dataset, "unreadable", None)
        if skipped:
            first = next(iter(skipped.values()))
            logger.warning(f"{len(skipped)} of {len(dataset)} alignments could not be read; the first: {first}")
