"""Train: pretraining, continued pretraining and fine-tuning, each a recipe for transformers' Trainer.

``msa train RECIPE.yaml`` reads a recipe (`modeling_msa.training.recipes`), builds a model, datasets and a collator
from it, and
leaves the rest to `MsaTrainer`: transformers' Trainer with batches grouped by size, losses and metrics that are sums
over all targets, and target accuracy and tokens per second in its logs.

A run that was killed goes on from its last whole checkpoint. On a CPU it ends with the weights, bit for bit, of one
that was not: example and epoch alone say which rows, columns and masks are drawn. A stream has no random access: what
was trained on is read again, and the same batches follow if shards, processes and workers are as many as before.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast
from zipfile import is_zipfile

import numpy as np
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, set_seed

from .._files import whole_file
from ..alignments.known_contacts import contact_files
from ..alignments.listing import list_alignments, name_of
from ..alignments.reading import read_alignment
from ..configuration_msa_transformer import MsaConfig
from ..hub import loading as hub
from ..hub.card import write_model_card
from ..modeling_msa_transformer import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
)
from ..tokenization_msa_transformer import MsaTokenizer
from .collators import (
    MsaDataCollatorForContactPrediction,
    MsaDataCollatorForMaskedLM,
    MsaDataCollatorForSequenceClassification,
    MsaDataCollatorForTokenClassification,
)
from .datasets import MsaDataset, VariantDataset
from .labels import read_labels
from .metrics import Statistics, metric_for
from .optimizers import MuonWithAdamW
from .recipes import DataArguments, ModelArguments, Recipe, find_config, parse_recipe
from .run_report import report_of_run
from .sampler import SizeGroupedSampler

logger = logging.getLogger(__name__)

CLASSES = {
    "mlm": MsaForMaskedLM,
    "token": MsaForTokenClassification,
    "sequence": MsaForSequenceClassification,
    "contacts": MsaForContactPrediction,
    "variants": MsaForSequenceClassification,
}
COLLATORS = {
    "mlm": MsaDataCollatorForMaskedLM,
    "token": MsaDataCollatorForTokenClassification,
    "sequence": MsaDataCollatorForSequenceClassification,
    "contacts": MsaDataCollatorForContactPrediction,
    "variants": MsaDataCollatorForSequenceClassification,
}


class _EpochCallback(TrainerCallback):
    """Tell dataset and sampler which epoch begins.

    accelerate's loader tells either the sampler or the dataset, and after a resumed run on several processes neither.
    """

    def __init__(self, trainer: MsaTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        listeners: tuple[Any, Any] = (self.trainer.train_dataset, self.trainer.train_sampler)
        for listener in listeners:
            if hasattr(listener, "set_epoch"):
                listener.set_epoch(int(state.epoch or 0))


class MsaTrainer(Trainer):
    """transformers' Trainer for alignments.

    It adds batches of alignments of like size; an evaluation whose loss and metrics are over all targets of all
    batches and processes, from a few numbers per alignment instead of logits ``(B, R, C, V)``; and perplexity, target
    accuracy and tokens per second beside the training loss.

    Parameters
    ----------
    *args, **kwargs
        As transformers' Trainer takes.
    metric : Statistics, optional
        What evaluation measures; see `modeling_msa.training.metrics`.
    eval_collator : callable, optional
        The collator of evaluation; default: that of training.
    group_by_size : bool, default True
        Whether alignments of like size go in one batch.
    recipe : Recipe, optional
        What it is built from, for the model card.
    """

    def __init__(
        self,
        *args: Any,
        metric: Statistics | None = None,
        eval_collator: Any = None,
        group_by_size: bool = True,
        recipe: Recipe | None = None,
        **kwargs: Any,
    ):
        self.metric = metric
        self.recipe = recipe
        self.eval_collator = eval_collator
        self.group_by_size = group_by_size
        self.averaged_checkpoints = 0  # as many as there were, for the card
        self.train_sampler: Any = None
        if metric is not None:
            kwargs.setdefault("compute_metrics", lambda prediction: metric.summarise(prediction.predictions))
        super().__init__(*args, **kwargs)
        self.add_callback(_EpochCallback(self))
        self._restart_figures()

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if self.group_by_size:
            # of all processes together, so that the same batches come out however many there are
            size = self._train_batch_size * self.args.world_size
            collator: Any = self.data_collator
            self.train_sampler = SizeGroupedSampler(dataset, size, collator, seed=seed)
        else:  # a shuffle that knows epochs; each process draws all of it, and accelerate shares it out
            self.train_sampler = DistributedSampler(dataset, num_replicas=1, rank=0, seed=seed)
        return self.train_sampler

    def get_train_dataloader(self) -> DataLoader:
        """Make the loader as transformers does; a stream without end is shared out already, and read as it comes."""
        dataset: Any = self.train_dataset
        if not getattr(dataset, "repeat_passes", False):
            return super().get_train_dataloader()
        return DataLoader(
            dataset,
            self._train_batch_size,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type != "cpu",
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Make the loader as transformers does, with the collator of evaluation."""
        training = self.data_collator
        try:
            self.data_collator = self.eval_collator or training
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = training

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimizer as transformers does, or with `muon` Muon and AdamW."""
        if self.optimizer is None and getattr(self.args, "muon", False):
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ValueError("muon needs whole matrices, but FSDP and DeepSpeed split them: train with DDP.")
            args, trained = self.args, cast(Any, self.model if model is None else model)
            self.optimizer = MuonWithAdamW(
                trained,
                set(self.get_decay_parameter_names(trained)),
                args.learning_rate,
                args.weight_decay,
                (args.adam_beta1, args.adam_beta2),
                args.adam_epsilon,
            )
        return super().create_optimizer(model)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss as transformers does, and count tokens and right targets of training."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            tokens = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
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
        numbers = self.metric.per_example(logits, inputs["labels"])
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

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        for name, source in (getattr(self.model, "_tied_weights_keys", None) or {}).items():
            if (
                state_dict
                and {name, source} <= state_dict.keys()
                and torch.equal(state_dict[name], state_dict[source])
            ):
                del state_dict[name]  # put together from shards, tied weights come twice
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            for file in Path(output_dir or str(self.args.output_dir)).glob("_fsdp_*.py"):
                file.unlink()  # torch's: FSDP2 makes a class of the model's, and transformers copies its "code"

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write this package's card, of what the run tells; transformers' knows nothing of alignments."""
        if not self.is_world_process_zero():
            return
        folder, model = Path(str(self.args.output_dir)), cast(Any, self.accelerator.unwrap_model(self.model))
        model = model.get_base_model() if hasattr(model, "peft_config") else model
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__.removeprefix("FSDP")]  # that of the weights it started from, else
        name = (self.hub_model_id or str(folder.resolve())).rpartition("/")[2]
        report = report_of_run(self, self.recipe)
        write_model_card(folder, name, self.hub_model_id or str(folder), config, training=report)
        if (merged := folder / "merged").is_dir():
            merged_id = (
                "merged" if self.hub_model_id else str(merged)
            )  # the Hub has no name for a folder in a repository
            write_model_card(merged, f"{name}, merged", merged_id, config, training=report)


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
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model_fsdp*"), *folder.glob("global_step*")]
    if not weights:
        return "the weights are missing"
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return f"{file.name} is cut off"
    if not any(folder.glob("global_step*")):  # DeepSpeed's own folder holds all of these
        for name in ("optimizer*", "scheduler.pt", "rng_state*.pth"):
            if not any(folder.glob(name)):
                return f"{name} is missing"
    cut = [file.name for file in folder.iterdir() if file.suffix in (".pt", ".pth", ".bin") and not is_zipfile(file)]
    return f"{cut[0]} is cut off" if cut else None


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
    found = list_checkpoints(output_dir)
    if resume is None or resume.lower() in ("false", "no", ""):
        if found:
            raise ValueError(
                f"{output_dir} holds a run already ({found[-1].name}): go on with it by --resume_from_checkpoint true,"
                " or name another --output_dir."
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
    logger.warning(f"{output_dir} has no checkpoint to resume from: the run starts at its beginning.")
    return None


def list_checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """List a run's checkpoints, the oldest first."""
    return sorted(Path(output_dir).glob("checkpoint-*"), key=lambda path: path.name.rpartition("-")[2].zfill(20))


def load_mean(model: PreTrainedModel, checkpoints: Sequence[Path]) -> None:
    """Give a model the mean of the weights of checkpoints of it, summed in float64.

    Along a constant learning rate weights wander about a better place than any of them is at (Izmailov et al., UAI
    2018; Vaswani et al., NeurIPS 2017, average their last 5 to 20 checkpoints so). The model has no statistics of
    activations that would have to be taken anew.

    Parameters
    ----------
    model : PreTrainedModel
    checkpoints : sequence of Path
        Folders with ``.safetensors`` files, as Trainer saves.
    """
    sums: dict[str, torch.Tensor] = {}
    for checkpoint in checkpoints:
        for file in checkpoint.glob("*.safetensors"):
            for name, tensor in load_file(file).items():
                sums[name] = sums[name].add_(tensor) if name in sums else tensor.double()
    weights = model.state_dict()  # of the same storage as the parameters; tied ones are in the files once
    with torch.no_grad():
        for name, total in sums.items():
            weights[name].copy_(total / len(checkpoints))


def make_model(arguments: ModelArguments, classes: Sequence[str] | None, seed: int) -> PreTrainedModel:
    """Make the model of a recipe: from scratch or from weights, its head, and its adapters.

    Parameters
    ----------
    arguments : ModelArguments
        The recipe's.
    classes : sequence of str or None
        Names of the classes to tell apart; None for values, and where there is no new head.
    seed : int
        Of new weights.

    Raises
    ------
    ValueError, OSError
        If the weights cannot be loaded.
    """
    assert not isinstance(arguments.config_overrides, str)
    options: dict[str, Any] = dict(arguments.config_overrides or {})
    if arguments.objective in ("token", "sequence", "variants"):
        names = classes or ["value"]
        options |= {"id2label": dict(enumerate(names)), "label2id": {name: k for k, name in enumerate(names)}}
        options["problem_type"] = "single_label_classification" if classes else "regression"
    cls = CLASSES[arguments.objective]
    set_seed(seed)
    if path := find_config(arguments.config):
        # not from_pretrained, which changes single values unchecked
        config = MsaConfig(**MsaConfig.get_config_dict(path)[0] | options)
        model = cls._from_config(config, attn_implementation=arguments.attn_implementation)
    else:
        options |= {"dtype": torch.float32, "attn_implementation": arguments.attn_implementation}
        # a head of another number of classes is made new
        model = hub.load_checkpoint(cls, str(arguments.model), new_head=True, **options)
    return model if arguments.lora_r is None else _with_adapters(model, arguments)


def _with_adapters(model: PreTrainedModel, arguments: ModelArguments) -> Any:
    """Put LoRA adapters on the attentions' projections; a new head is trained whole."""
    from peft import LoraConfig, get_peft_model

    heads = {"token": "classifier", "sequence": "classifier", "variants": "classifier", "contacts": "contact_head"}
    exclude = None
    if arguments.objective == "contacts":  # what the contact logits do not depend on, see MsaForContactPrediction
        last = rf".*layers\.{model.config.num_hidden_layers - 1}"
        exclude = rf"{last}\.(row_attention\.(v_proj|out_proj)|column_attention\..*|feed_forward\..*)"
    rank = arguments.lora_r or 8
    config = LoraConfig(
        r=rank,
        lora_alpha=arguments.lora_alpha or 2 * rank,
        lora_dropout=arguments.lora_dropout,
        target_modules=arguments.lora_target_modules or ["q_proj", "k_proj", "v_proj", "out_proj"],
        exclude_modules=exclude,
        modules_to_save=[heads[arguments.objective]] if arguments.objective in heads else None,
    )
    return get_peft_model(model, config)


def make_datasets(recipe: Recipe) -> tuple[Any, MsaDataset | VariantDataset | None, Sequence[str] | None]:
    """List the alignments of a recipe, and read their labels.

    Returns
    -------
    training, evaluation : Dataset
        None where nothing is held out.
    classes : sequence of str or None
        Names of the classes that labels are; None for values, contacts and masked residues.

    Raises
    ------
    ValueError, OSError
        If there are none, or alignments and labels do not go together.
    """
    arguments, seed = recipe.data, recipe.training.seed
    options: dict[str, Any] = {"format": arguments.format, "on_error": arguments.on_error}
    if recipe.model.objective == "variants":
        return *_variant_datasets(arguments, seed), None
    labels, eval_labels, classes = _labels(arguments, recipe.model)
    held_out = _listed(arguments.eval_data)
    if arguments.streaming:
        training: Any = _stream(recipe, labels)
    else:
        files = _listed(arguments.train_data)
        if labels is not None:
            _require_files(labels, [*files, *held_out] if eval_labels is labels else files, arguments.labels)
            files = [path for path in files if name_of(path) in labels]
        if arguments.eval_fraction is not None:
            if len(files) == 1 and recipe.model.objective == "mlm":
                return *_row_datasets(files[0], arguments, seed), None
            kept, out = _split(len(files), arguments.eval_fraction, seed)
            files, held_out = [files[k] for k in kept], [files[k] for k in out]
        training = MsaDataset(files * arguments.repeats, labels=_of(files, labels), **options)
    evaluation = None
    if held_out:
        evaluation = MsaDataset(held_out, labels=_of(held_out, eval_labels), fixed=True, **options)
    return training, evaluation, classes


def _stream(recipe: Recipe, labels: Mapping[str, Any] | None) -> Any:
    """Shards of the training data, this process's part of them."""
    from .shards import load_stream

    arguments, training = recipe.data, recipe.training
    part = {"rank": training.process_index, "world_size": training.world_size} if training.world_size > 1 else {}
    shards = arguments.train_data or []
    return load_stream(shards, labels=labels, seed=training.seed, on_error=arguments.on_error, repeat=True, **part)


def _of(files: Sequence[Path], labels: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Take the labels of some files out of all."""
    if labels is None:
        return None
    names = [name_of(path) for path in files]
    return {name: labels[name] for name in names if name in labels}


def _listed(sources: Sequence[str] | None) -> list[Path]:
    return [path for source in sources or () for path in list_alignments(source)]


def _labels(arguments: DataArguments, model: ModelArguments) -> tuple[Any, Any, Sequence[str] | None]:
    """Labels of training and of evaluation by name, and the names of the classes."""
    paths = arguments.labels, arguments.eval_labels or arguments.labels
    if arguments.labels is None:
        return None, None, None
    if model.objective == "contacts":
        tables = [contact_files(path) for path in dict.fromkeys(map(str, paths))]
        return tables[0], tables[-1], None
    read = read_labels(str(paths[0]), model.class_names, model.num_labels)
    classes = read.classes
    if classes is None and (model.num_labels or 1) > 1:
        classes = tuple(str(k) for k in range(model.num_labels or 1))
    if classes is None and model.objective == "token":
        raise ValueError(f"{paths[0]}: the labels are numbers; give num_labels, or class_names.")
    if paths[0] == paths[1]:
        return read.by_name, read.by_name, classes
    return read.by_name, read_labels(str(paths[1]), read.classes, model.num_labels).by_name, classes


def _require_files(labels: Mapping[str, Any], files: Sequence[Path], source: str | None) -> None:
    """Raise if labels have no alignment."""
    missing = set(labels) - {name_of(path) for path in files}
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} of {len(labels)} labels have no alignment, {min(missing)!r} for one; labels go "
            f"by the file's name without endings, such as {name_of(files[0])!r}."
        )


def _split(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Which of `count` examples (or rows) are for training, and which are held out."""
    number = round(fraction * count)
    if not 0 < number < count:
        raise ValueError(f"eval_fraction {fraction} of {count} leaves none on one side: name eval_data instead.")
    order = np.random.default_rng(seed).permutation(count).tolist()
    return sorted(order[number:]), sorted(order[:number])


def _row_datasets(path: Path, arguments: DataArguments, seed: int) -> tuple[MsaDataset, MsaDataset]:
    """One family with some of its rows held out; the query is in both parts."""
    family = read_alignment(path, arguments.format)
    kept, out = ([0, *(k + 1 for k in rows)] for rows in _split(family.depth - 1, arguments.eval_fraction or 0, seed))
    return MsaDataset([family.take(kept)] * arguments.repeats), MsaDataset(family.take(out), fixed=True)


def _variant_datasets(arguments: DataArguments, seed: int) -> tuple[VariantDataset, VariantDataset | None]:
    """Variants of one family, for training and held out."""
    files = _listed(arguments.train_data)
    if len(files) != 1:
        raise ValueError(f"the objective variants takes the alignment of one family, not {len(files)}.")
    family = read_alignment(files[0], arguments.format)
    training = VariantDataset(family, str(arguments.labels))
    if arguments.eval_labels:
        others = _listed(arguments.eval_data)
        family = read_alignment(others[0], arguments.format) if others else family
        return training, VariantDataset(family, arguments.eval_labels, fixed=True)
    if arguments.eval_fraction is None:
        return training, None
    kept, out = _split(len(training), arguments.eval_fraction, seed)
    return training.take(kept), training.take(out, fixed=True)


def make_collators(arguments: DataArguments, model: Any, objective: str, seed: int) -> tuple[Any, Any]:
    """Make the collators of training and of evaluation, which takes all rows that fit and the first columns.

    Raises
    ------
    ValueError
        If the model takes no alignments of that size.
    """
    tokenizer = MsaTokenizer.for_config(model.config)
    rows = min(1024, tokenizer.model_max_depth) if arguments.max_rows is None else arguments.max_rows
    columns = arguments.max_columns or tokenizer.model_max_length
    limits = {"max_rows": (rows, tokenizer.model_max_depth), "max_columns": (columns, tokenizer.model_max_length)}
    for name, (wanted, limit) in limits.items():
        if wanted > limit:
            raise ValueError(f"{name} is {wanted}, but the model takes {limit}.")
    common = {"max_tokens": arguments.max_tokens, "max_rows": rows, "max_columns": columns, "seed": seed}
    common |= {"min_rows": arguments.min_rows, "select": arguments.select}
    varied = {"depth": arguments.depth, "crop": arguments.crop, "random_positions": arguments.random_positions}
    if objective == "mlm":
        common |= {key: getattr(arguments, key) for key in ("mlm_probability", "mask_columns", "mask_gaps")}
    elif objective != "contacts":
        common["num_labels"] = model.config.num_labels
    cls: Any = COLLATORS[objective]
    return cls(tokenizer, **common, **varied), cls(tokenizer, **common, crop="first")


def make_trainer(recipe: Recipe) -> MsaTrainer:
    """Build the Trainer of a recipe.

    Parameters
    ----------
    recipe : Recipe
        See `modeling_msa.training.recipes.parse_recipe`.

    Returns
    -------
    MsaTrainer

    Raises
    ------
    ValueError, OSError
        If data, labels or weights are not there or do not go together.
    """
    objective, arguments = recipe.model.objective, recipe.training
    training, held_out, classes = make_datasets(recipe)
    model = make_model(recipe.model, classes, arguments.seed)
    collator, eval_collator = make_collators(recipe.data, model, objective, arguments.seed)
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
        recipe=recipe,
    )


class RunReport(NamedTuple):
    """What `train` leaves."""

    folder: Path
    steps: int
    figures: dict[str, float]  # the last of training and evaluation
    skipped: str  # which alignments could not be read; empty if all could

    def __str__(self) -> str:
        keys = ("train_loss", *(key for key in self.figures if key.startswith("eval_")))
        shown = [f"{key} {self.figures[key]:.4g}" for key in keys if not key.endswith(("_runtime", "_second"))]
        return "\n".join(filter(None, [f"{self.folder}: {self.steps} steps, {', '.join(shown)}", self.skipped]))


def train(recipe: str | os.PathLike, overrides: Sequence[str] = ()) -> RunReport:
    """Train by a recipe, and leave a folder that the auto classes load.

    Parameters
    ----------
    recipe : path
        See `modeling_msa.training.recipes`.
    overrides : sequence of str
        Command-line arguments that beat it.

    Returns
    -------
    RunReport

    Raises
    ------
    ValueError, OSError
        For what is wrong with the recipe, the data, the weights or a checkpoint to resume from, before training.
    """
    read = parse_recipe(recipe, overrides)
    folder = Path(str(read.training.output_dir))
    checkpoint = find_checkpoint(folder, read.training.resume_from_checkpoint)
    trainer = make_trainer(read)
    averaged = read.training.average_checkpoints
    if averaged > 1 and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        raise ValueError("average_checkpoints reads whole weights, but FSDP and DeepSpeed save them in parts.")
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / "recipe.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(read.given, sort_keys=False), encoding="utf-8")
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    figures = dict(result.metrics)
    if averaged > 1:
        trainer.accelerator.wait_for_everyone()  # the last checkpoint is written by one process
        kept = list_checkpoints(folder)[-averaged:]
        load_mean(trainer.accelerator.unwrap_model(trainer.model), kept)
        trainer.averaged_checkpoints = len(kept)
    if trainer.eval_dataset is not None:
        last = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
        known = last and last[-1]["step"] == result.global_step and averaged < 2
        figures |= last[-1] if known else trainer.evaluate()
    trainer.save_model(_internal_call=True)  # not pushed yet
    trainer.save_metrics("all", figures, combined=False)
    trainer.save_state()
    if read.model.lora_r is not None and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        _save_merged(trainer, folder / "merged")
    if trainer.args.push_to_hub:
        trainer.push_to_hub()  # with the card
    else:
        trainer.create_model_card()
    skipped = [_skipped(dataset) for dataset in (trainer.train_dataset, trainer.eval_dataset)]
    return RunReport(folder, result.global_step, figures, "\n".join(filter(None, skipped)))


def _skipped(dataset: Any) -> str:
    """Say which alignments were left out; empty if none was."""
    if hasattr(dataset, "report"):
        return dataset.report()
    count = getattr(dataset, "skipped", 0)  # of a stream
    return f"{count} alignments could not be read." if count else ""


def _save_merged(trainer: MsaTrainer, folder: Path) -> None:
    """Save a copy of the model with its adapters merged in: a folder for the auto classes, without PEFT."""
    if trainer.is_world_process_zero():
        model = copy.deepcopy(cast(Any, trainer.accelerator.unwrap_model(trainer.model))).merge_and_unload()
        model.save_pretrained(folder)
        cast(Any, trainer.processing_class).save_pretrained(folder)
