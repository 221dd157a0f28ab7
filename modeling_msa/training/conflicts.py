"""Values of a recipe that contradict each other, or name files that do not exist; checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..alignments.bundled import find_bundled
from .arguments import SIMULATED, DataArguments, ModelArguments
from .shipped import find_config


def find_conflicts(model: ModelArguments, data: DataArguments, training: dict[str, Any]) -> Iterator[str]:
    """Describe what is wrong with the values of a recipe, one sentence each.

    Parameters
    ----------
    model, data : ModelArguments, DataArguments
    training : dict
        Values of all keys of `MsaTrainingArguments`, defaults included.
    """
    yield from _of_model(model)
    yield from _of_files(data)
    yield from _of_data(model, data, training)
    yield from _of_averaging(model, training)
    if training["muon"] and model.lora_r is not None:
        yield "muon and lora_r exclude each other: the thin matrices of adapters are not what Muon is made for."


def _of_model(model: ModelArguments) -> Iterator[str]:
    if (model.model is None) == (model.config is None):
        yield "Pass either model (weights to start from) or config (to train from scratch)."
    if model.config is not None and not find_config(model.config):
        yield f"config: there is neither a file {model.config} nor a configuration of that name."
    if model.lora_r is not None and model.config is not None:
        yield "lora_r requires model instead of config: adapters on random weights learn nothing."
    names = model.class_names if model.objective in ("sequence", "token") else None
    if names and model.num_labels not in (None, len(names)):
        yield f"num_labels is {model.num_labels}, but class_names has {len(names)} names."
    if names and len(set(names)) < len(names):
        yield "class_names has a name twice: give each class its own."


def _of_files(data: DataArguments) -> Iterator[str]:
    if not data.train_data:
        yield "train_data is missing: pass a folder of alignments."
    for key in ("train_data", "eval_data", "labels", "eval_labels"):
        paths = getattr(data, key)
        paths = [paths] if isinstance(paths, str) else paths or []
        if not ((data.streaming or data.shares) and key == "train_data"):
            lacking = [path for path in paths if not Path(path).exists()]
            if key.endswith("data"):
                lacking = [path for path in lacking if find_bundled(path) is None]
            yield from (f"{key}: {path} does not exist." for path in lacking)


def _of_data(model: ModelArguments, data: DataArguments, training: dict[str, Any]) -> Iterator[str]:
    if data.eval_data and data.eval_fraction is not None:
        yield "Pass either eval_data or eval_fraction."
    if data.repeats < 1:
        yield f"repeats must be at least 1, not {data.repeats}."
    if data.repeats > 1 and (data.labels or data.streaming):
        yield "repeats cannot be combined with labels or streaming."
    if data.eval_fraction is not None and not 0 < data.eval_fraction < 1:
        yield f"eval_fraction must be between 0 and 1, not {data.eval_fraction}."
    if str(training["eval_strategy"]) != "no" and not data.eval_data and data.eval_fraction is None:
        yield "eval_strategy requires eval_data or eval_fraction."
    if model.objective == "mlm" and data.labels:
        yield "The objective mlm has no labels: it predicts the residues themselves."
    if model.objective != "mlm" and data.labels is None:
        yield f"The objective {model.objective} requires labels."
    if not 0 < data.mlm_probability < 1:
        yield f"mlm_probability must be between 0 and 1, not {data.mlm_probability}."
    if data.shares is not None:
        yield from _of_shares(model, data, training)
    elif SIMULATED in (data.train_data or []):
        yield "train_data: simulated families require shares, such as 1 if there is nothing else."
    if data.streaming:
        if model.objective == "variants":
            yield "streaming cannot be combined with the objective variants, which has a single alignment."
        if data.eval_fraction is not None:
            yield "streaming requires eval_data instead of eval_fraction: a stream cannot be split."
        if training["max_steps"] <= 0:
            yield "streaming requires max_steps: a stream has no length."


def _of_shares(model: ModelArguments, data: DataArguments, training: dict[str, Any]) -> Iterator[str]:
    shares, sources = data.shares or [], data.train_data or []
    if len(shares) != len(sources):
        yield f"shares must have a number for each of train_data: there are {len(shares)} for {len(sources)}."
    if any(not 0 < share < float("inf") for share in shares):
        yield "shares must be positive numbers: leave out what is not to be trained on."
    if model.objective != "mlm":
        yield "shares requires the objective mlm."
    if training["max_steps"] <= 0:
        yield "shares requires max_steps: a mixture has no length."
    if data.streaming or data.repeats > 1 or data.eval_fraction is not None:
        yield "shares cannot be combined with streaming, repeats or eval_fraction: pass eval_data instead."
    if (data.depth, data.select, data.crop, data.group_by_size) != ("log_uniform", "random", "random", True):
        yield "shares requires depth log_uniform, select random, crop random and group_by_size true."


def _of_averaging(model: ModelArguments, training: dict[str, Any]) -> Iterator[str]:
    if training["max_time"] is not None and not training["max_time"] > 0:
        yield f"max_time must be a number of minutes above 0, not {training['max_time']}."
    yield from _of_moving_average(model, training)
    count, limit, strategy = (training[key] for key in ("average_checkpoints", "save_total_limit", "save_strategy"))
    if count < 0:
        yield f"average_checkpoints must be at least 0, not {count}."
    if count < 2:
        return
    if str(strategy) not in ("steps", "epoch"):
        yield f"average_checkpoints requires checkpoints: set save_strategy to steps or epoch, not {strategy}."
    if limit is not None and limit < count:
        yield f"average_checkpoints is {count}, but save_total_limit keeps {limit}."
    if training["load_best_model_at_end"]:
        yield "Pass either average_checkpoints or load_best_model_at_end."
    if model.lora_r is not None:
        yield "average_checkpoints and lora_r exclude each other: a mean of adapters is not the adapter of a mean."


def _of_moving_average(model: ModelArguments, training: dict[str, Any]) -> Iterator[str]:
    decay = training["average_decay"]
    if not 0 <= decay < 1:
        yield f"average_decay must be at least 0 and below 1, not {decay}."
    if decay and (training["average_checkpoints"] > 1 or training["load_best_model_at_end"]):
        yield "Pass only one of average_decay, average_checkpoints and load_best_model_at_end."
    if decay and model.lora_r is not None:
        yield "average_decay and lora_r exclude each other: a mean of adapters is not the adapter of a mean."
