"""transformers' Trainer for alignments.

Batches hold alignments of similar size, losses and metrics are sums over all targets, and the log has the accuracy
and tokens per second of training.
"""

from __future__ import annotations

import copy
import functools
import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from transformers import Trainer, TrainerCallback

from ..hub.card import write_model_card
from ..hub.finding import ADAPTER_CONFIG
from .adapters import note_base
from .averaging import AverageCallback, average_loaded
from .checkpoints import find_changed, find_diverged, write_digests
from .deadline import Deadline
from .metrics import Statistics
from .optimizers import MuonWithAdamW
from .run_report import report_of_run
from .sampler import SizeGroupedSampler

if TYPE_CHECKING:
    from .recipes import Recipe


class _EpochCallback(TrainerCallback):
    """Tell dataset and sampler which epoch begins.

    Depending on the versions of transformers and accelerate, a loader tells only one of them, or neither after a run
    of several processes was resumed.
    """

    def __init__(self, trainer: MsaTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        listeners: tuple[Any, Any] = (self.trainer.train_dataset, self.trainer.train_sampler)
        for listener in listeners:
            if hasattr(listener, "set_epoch"):
                listener.set_epoch(int(state.epoch or 0))


def _collate_whole(collator: Any, items: list[Any]) -> Any:
    """Make the batch of an item that is one."""
    return collator(items[0])


def _decay_share(args: Any) -> float:
    """Share of a run in which the learning rate falls."""
    decay = (args.lr_scheduler_kwargs or {}).get("num_decay_steps")
    return decay / args.max_steps if decay and args.max_steps > 0 else 1 / 3


class MsaTrainer(Trainer):
    """transformers' Trainer for alignments.

    It adds batches of alignments of similar size; an evaluation whose loss and metrics are over all targets of all
    batches and processes, from a few numbers per alignment instead of logits ``(B, R, C, V)``; a moving average of the
    weights and a run within a given time; and in the log of the training loss perplexity, target accuracy, tokens per
    second, the seconds that training waited for batches, and how many batches of a mixture were ready.

    Parameters
    ----------
    *args, **kwargs
        Arguments of transformers' Trainer.
    metric : Statistics, optional
        Metric of evaluation; see `modeling_msa.training.metrics`.
    eval_collator : callable, optional
        Collator of evaluation; default: that of training.
    group_by_size : bool, default True
        Whether to put alignments of similar size in one batch.
    recipe : Recipe, optional
        The recipe it is built from, for the model card.
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
        self.averaged_checkpoints = 0  # `train` counts them, for the card
        self.train_sampler: Any = None
        self.deadline: Deadline | None = None
        self.waited = 0.0  # seconds for batches, in this process
        self._fetched = 0
        if metric is not None:
            kwargs.setdefault("compute_metrics", metric.compute)
        super().__init__(*args, **kwargs)
        self.add_callback(_EpochCallback(self))
        self.average_decay = float(getattr(self.args, "average_decay", 0.0))
        if self.average_decay:
            self.add_callback(AverageCallback(self.average_decay))
        if (minutes := getattr(self.args, "max_time", None)) is not None:
            self.deadline = Deadline(minutes, _decay_share(self.args), time.monotonic())
            self.add_callback(self.deadline)
        self._restart_figures()

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if self.group_by_size:
            # the step of all processes together, so that any number of them gets the same batches
            size = self._train_batch_size * self.args.world_size
            collator: Any = self.data_collator
            self.train_sampler = SizeGroupedSampler(dataset, size, collator, seed=seed)
        else:  # a shuffle that knows epochs; each process draws all of it, and accelerate splits it
            self.train_sampler = DistributedSampler(dataset, num_replicas=1, rank=0, seed=seed)
        return self.train_sampler

    def get_train_dataloader(self) -> DataLoader:
        """Make the loader as transformers does; an endless stream, already split between processes, is read as is."""
        dataset: Any = self.train_dataset
        is_mixture = getattr(dataset, "whole_batches", False)
        if not getattr(dataset, "repeat_passes", False) and not is_mixture:
            return super().get_train_dataloader()
        loader: DataLoader = DataLoader(
            dataset,
            1 if is_mixture else self._train_batch_size,
            collate_fn=functools.partial(_collate_whole, self.data_collator) if is_mixture else self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and self.args.device.type != "cpu",
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        return self.accelerator.prepare(loader) if is_mixture else loader

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch batches as transformers does, and count the seconds until they came."""
        start = time.perf_counter()
        batches, count = super().get_batch_samples(*args, **kwargs)
        seconds = time.perf_counter() - start
        self._fetched += len(batches)
        self.waited += seconds
        self._waited += seconds
        return batches, count

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
                raise ValueError("muon requires whole matrices, but FSDP and DeepSpeed split them: train with DDP.")
            args, trained = self.args, cast(Any, self.model if model is None else model)
            self.optimizer = MuonWithAdamW(
                trained,
                set(self.get_decay_parameter_names(trained)),
                args.learning_rate,
                args.weight_decay,
                (args.adam_beta1, args.adam_beta2),
                args.adam_epsilon,
            )
        if self.average_decay and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                "average_decay requires whole weights, but FSDP and DeepSpeed split them: train with DDP."
            )
        return super().create_optimizer(model)

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        """Make the schedule as transformers does, or with `max_time` one that also follows the clock."""
        scheduler = super().create_scheduler(*args, **kwargs)
        return self.deadline.timed(scheduler) if self.deadline else scheduler

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Compute the loss as transformers does, and count tokens and correct targets of training."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            tokens = inputs["attention_mask"].sum() if "attention_mask" in inputs else inputs["input_ids"].numel()
            right, targets = self.metric.count_right(outputs["logits"], inputs["labels"]) if self.metric else (0, 0)
            self._figures += torch.stack([torch.as_tensor(n, device=loss.device) for n in (tokens, right, targets)])
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Reduce each alignment's logits, whose shapes differ between processes, to a few sums."""
        loss, logits, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        if logits is None or self.metric is None:
            return loss, logits, labels
        numbers = self.metric.reduce(logits, inputs["labels"])
        return loss, numbers, numbers[:, :1]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as transformers does, if the weights are finite; its time does not count as training's.

        With `average_decay` it is the average of the weights that is evaluated.
        """
        self.require_finite()
        start = time.perf_counter()
        try:
            with average_loaded(self.optimizer if self.average_decay else None):
                return super().evaluate(*args, **kwargs)
        finally:
            seconds = time.perf_counter() - start
            self._clock += seconds
            if self.deadline:
                self.deadline.evaluation_seconds = seconds

    def _restart_figures(self) -> None:
        self._figures = torch.zeros(3, dtype=torch.int64, device=self.args.device)  # tokens, right targets, targets
        self._clock = time.perf_counter()
        self._waited = 0.0

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log as transformers does, with the training loss what was counted since the last time.

        Raises ValueError if the loss is NaN or infinite. In float16 the loss scaler skips such steps.
        """
        if "loss" in logs:
            if not math.isfinite(logs["loss"]) and not self.args.fp16:
                raise ValueError(
                    f"The training loss is {logs['loss']} at step {self.state.global_step}: {self._advice}"
                )
            figures = self.accelerator.reduce(self._figures, "sum")
            tokens, right, targets = figures.tolist()
            if targets:
                logs["accuracy"] = right / targets
            if self.metric is not None:
                logs.update(self.metric.of_loss(logs["loss"]))
            logs["tokens_per_second"] = round(tokens / max(time.perf_counter() - self._clock, 1e-9), 1)
            logs["data_seconds"] = round(self._waited, 3)
            if getattr(self.train_dataset, "whole_batches", False) and self.args.dataloader_num_workers:
                logs["batches_ready"] = cast(Any, self.train_dataset).made - self._fetched
            self._restart_figures()
        super().log(logs, *args, **kwargs)

    @property
    def _advice(self) -> str:
        return (
            "training has diverged, so no model was saved. Train with a lower learning rate (it is "
            f"{self.args.learning_rate:g}) or more warmup_steps."
        )

    def require_finite(self, model: Any = None) -> None:
        """Raise ValueError, which names it, if a tensor of the model (default: the trained one) is not finite."""
        found = find_diverged(cast(Any, self.model if model is None else model).named_parameters())
        if self.is_fsdp_enabled:  # another process may have the shard; all must stop
            count = torch.tensor([found is not None], dtype=torch.int64, device=self.args.device)
            if self.accelerator.reduce(count, "sum").item() and found is None:
                found = "a tensor of another process"
        if found:
            raise ValueError(
                f"{found} has NaN, infinite or huge values at step {self.state.global_step}: {self._advice}"
            )

    def save_model(self, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does, if the weights are finite: else ValueError, and nothing is written."""
        self.require_finite()
        super().save_model(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its random state
        if self.args.should_save:
            write_digests(Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}")

    def _load_best_model(self) -> None:
        if (best := self.state.best_model_checkpoint) and (reason := find_changed(best)):
            raise ValueError(f"{best}, the best checkpoint, cannot be loaded: {reason}.")
        super()._load_best_model()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        for name, source in (getattr(self.model, "_tied_weights_keys", None) or {}).items():
            pair = [state_dict[key] for key in (name, source) if key in state_dict] if state_dict else []
            if len(pair) == 2 and torch.equal(*pair):
                del state_dict[name]  # a state gathered from shards has tied weights twice
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = Path(output_dir or str(self.args.output_dir))
            for file in folder.glob("_fsdp_*.py"):
                file.unlink()  # FSDP2 subclasses the model's class, and transformers copies that class's "code"
            if (folder / ADAPTER_CONFIG).is_file():
                note_base(folder, self.accelerator.unwrap_model(self.model))
            for file in folder.glob("*.safetensors"):  # safetensors keeps its files to their owner
                shutil.copymode(folder / "training_args.bin", file)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write this package's card about the run in the place of transformers'."""
        if not self.is_world_process_zero():
            return
        folder, model = Path(str(self.args.output_dir)), cast(Any, self.accelerator.unwrap_model(self.model))
        model = model.get_base_model() if hasattr(model, "peft_config") else model
        config = copy.deepcopy(model.config)
        # the config still has the class of the weights that training started from
        config.architectures = [type(model).__name__.removeprefix("FSDP")]
        name = (self.hub_model_id or str(folder.resolve())).rpartition("/")[2]
        report = report_of_run(self, self.recipe)
        write_model_card(folder, name, self.hub_model_id or str(folder), config, training=report)
        if (merged := folder / "merged").is_dir():
            merged_id = "merged" if self.hub_model_id else str(merged)  # folders in a repository have no id
            write_model_card(merged, f"{name}, merged", merged_id, config, training=report)
