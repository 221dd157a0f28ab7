"""Recipes of training: a YAML file of keys and values, and the command line's values over them.

Three dataclasses say which keys there are: `ModelArguments`, `DataArguments`, and `MsaTrainingArguments`, which is
transformers' TrainingArguments with a few defaults of our own. transformers' HfArgumentParser converts the values; the
file's go through it as if they stood on the command line, so that ``1e-4`` is a number there too (YAML 1.1 reads it as
a word). `parse_recipe` collects all problems before it raises, and reads no data.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers import HfArgumentParser, TrainingArguments

from ..configuration_msa_transformer import MsaConfig

Objective = Literal["mlm", "token", "sequence", "contacts", "variants"]


@dataclass
class ModelArguments:
    """What is trained, from which weights, and by which objective."""

    objective: Objective = field(
        default="mlm",
        metadata={
            "help": "mlm (masked residues), token (classes of the query's residues), sequence (a class or value of "
            "the query), contacts (pairs of residues), variants (scores of variants of the query)."
        },
    )
    model: str | None = field(default=None, metadata={"help": "Folder or Hub id of the weights to start from."})
    config: str | None = field(
        default=None,
        metadata={"help": "Instead of model, from scratch: a config.json, or a name in configuration/models."},
    )
    config_overrides: dict | str | None = field(
        default=None, metadata={"help": 'Changes to the configuration, such as {"hidden_dropout": 0.0}.'}
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "sdpa (default), eager or flash_attention_2."}
    )
    num_labels: int | None = field(
        default=None, metadata={"help": "Classes of token and sequence; one (sequence, variants) is a value."}
    )
    class_names: list[str] | None = field(
        default=None, metadata={"help": "Names of the classes, in order; labels may be these, or numbers from 0."}
    )
    lora_r: int | None = field(
        default=None, metadata={"help": "Rank of LoRA adapters; only these and a new head are trained."}
    )
    lora_alpha: int | None = field(default=None, metadata={"help": "Scale of the adapters; default: twice the rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Layers with adapters; default: all projections of the attentions."}
    )

    def __post_init__(self) -> None:
        """Read the mapping that the command line gives as text."""
        if isinstance(self.config_overrides, str):
            try:
                self.config_overrides = json.loads(self.config_overrides)
            except ValueError:
                raise ValueError(f"config_overrides: {self.config_overrides!r} is no JSON.") from None
        changes = {} if self.config_overrides is None else self.config_overrides
        if not isinstance(changes, dict):
            raise ValueError('config_overrides is a mapping, such as {"hidden_dropout": 0.0}.')
        for key in changes:
            if key not in (known := {entry.name for entry in dataclasses.fields(MsaConfig)}):
                raise ValueError(f"config_overrides: there is no such key as {key}{_nearest(key, known)}.")


@dataclass
class DataArguments:
    """Where alignments and labels are, and how a batch is made of them."""

    train_data: list[str] | None = field(
        default=None, metadata={"help": "Folder of alignments (A3M and others, .gz, .xz too), files, or a list file."}
    )
    eval_data: list[str] | None = field(default=None, metadata={"help": "The same, held out."})
    eval_fraction: float | None = field(
        default=None,
        metadata={"help": "Instead of eval_data: hold out this fraction of the files, or of one family's rows."},
    )
    repeats: int = field(
        default=1, metadata={"help": "Visits of an alignment in an epoch, each of other rows: for a single family."}
    )
    labels: str | None = field(
        default=None, metadata={"help": "Table, FASTA or JSON of labels by file stem; contacts: folder of structures."}
    )
    eval_labels: str | None = field(default=None, metadata={"help": "Labels of eval_data; default: labels."})
    format: Literal["a3m", "a2m", "fasta", "stockholm"] | None = field(
        default=None, metadata={"help": "Format of the files; default: by the ending."}
    )
    streaming: bool = field(
        default=False, metadata={"help": "train_data are shards made by msa pack, read as a stream; eval_data files."}
    )
    on_error: Literal["raise", "skip"] = field(
        default="raise", metadata={"help": "What a file that cannot be read does."}
    )
    max_tokens: int = field(default=2**14, metadata={"help": "Tokens of one alignment: rows = max_tokens / columns."})
    max_rows: int | None = field(
        default=None, metadata={"help": "Most rows; default: what the model takes, at most 1,024."}
    )
    max_columns: int | None = field(
        default=None, metadata={"help": "Most columns, <cls> included; default: what the model takes."}
    )
    min_rows: int = field(default=1, metadata={"help": "Fewest rows."})
    select: Literal["random", "diverse", "weighted", "first"] = field(
        default="random", metadata={"help": "Which rows; random ones anew each visit."}
    )
    depth: Literal["full", "log_uniform"] = field(
        default="full", metadata={"help": "How many of the rows a training step sees."}
    )
    crop: Literal["random", "first"] = field(
        default="random", metadata={"help": "Which columns of a training alignment that is too long."}
    )
    random_positions: bool = field(
        default=False, metadata={"help": "Number columns from a random place, so that the whole table trains."}
    )
    mlm_probability: float = field(default=0.15, metadata={"help": "Fraction of residues to predict."})
    mask_columns: float = field(default=0.0, metadata={"help": "Fraction of columns to mask whole."})
    mask_gaps: bool = field(default=True, metadata={"help": "Whether gaps are predicted too."})
    group_by_size: bool = field(default=True, metadata={"help": "Batches of alignments of like size: less padding."})


@dataclass
class MsaTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments; other defaults for a few."""

    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Always false: features are whole alignments."}
    )
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Always labels."})
    logging_steps: float = field(default=10, metadata={"help": "Steps from one line of the log to the next."})
    save_total_limit: int | None = field(default=3, metadata={"help": "Checkpoints to keep."})
    average_checkpoints: int = field(
        default=0,
        metadata={
            "help": "End with the mean of the weights of so many of the last checkpoints; at a constant learning rate "
            "that is worth a good part of a falling one. 0 or 1: with the last weights."
        },
    )
    muon: bool = field(
        default=False,
        metadata={
            "help": "Train the layers' matrices with Muon and the rest with AdamW; for training from scratch, and not "
            "with FSDP, DeepSpeed or LoRA."
        },
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": "A checkpoint's folder, or true: the run's last.", "nargs": "?", "const": "true"},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata={"help": "Whether parameters may stay without a gradient; here none does."}
    )
    report_to: list[str] | str | None = field(default="none", metadata={"help": "tensorboard, wandb ..."})


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read.

    Attributes
    ----------
    model, data, training : ModelArguments, DataArguments, MsaTrainingArguments
        The values.
    given : dict
        Those that the file and the command line set, converted; what ``recipe.yaml`` of a run's folder repeats.
    name : str
        The file's, without ending.
    """

    model: ModelArguments
    data: DataArguments
    training: MsaTrainingArguments
    given: dict[str, Any]
    name: str = ""


def _nearest(key: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(key, [name for name in known if "-" not in name], 1, 0.5)
    return f"; the nearest is {nearest[0]}" if nearest else ""


class _Parser(HfArgumentParser):
    """Raises where argparse would print its usage (hundreds of keys) and end the process."""

    def error(self, message: str) -> Any:
        raise ValueError(message)


def parse_recipe(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path : path
        YAML file of keys and values, or the name of one in ``configuration/training``.
    overrides : sequence of str
        Command-line arguments, ``["--max_steps", "100"]``; they beat the file.

    Returns
    -------
    Recipe

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If a key does not exist, a value is not of its key's type, or the values do not go together. The message
        lists all that is wrong.
    """
    path = find_recipe(path)
    classes: Any = (ModelArguments, DataArguments, MsaTrainingArguments)
    parser = _Parser(classes, allow_abbrev=False, add_help=False)
    problems: list[str] = []
    arguments: list[str] = []
    keys: list[str] = []
    for key, group in [*_file_groups(path), *_command_groups(overrides)]:
        if problem := _check_group(parser, key, group):
            problems.append(problem)
        else:
            arguments += group
            keys.append(parser._option_string_actions[f"--{key}"].dest)  # of --no_key it is key
    _raise_all(path, problems)
    namespace = parser.parse_args(arguments)
    if "output_dir" not in keys:
        namespace.output_dir = str(Path("runs") / path.stem)
    values = vars(namespace)
    given = {key: _plain(values[key]) for key in values if key in keys or key == "output_dir"}
    try:
        model, data = (_make(cls, values) for cls in (ModelArguments, DataArguments))
        _raise_all(path, list(_conflicts(model, data, values)))
        return Recipe(model, data, _make(MsaTrainingArguments, values), given, path.stem)
    except ValueError as error:
        raise error if str(error).startswith(f"{path}: ") else ValueError(f"{path}: {error}") from error


def _make(cls: type, values: dict[str, Any]) -> Any:
    return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls) if field.init})


def _plain(value: Any) -> Any:
    """Make a value that YAML can write."""
    return getattr(value, "value", value)


def _raise_all(path: Path, problems: list[str]) -> None:
    if problems:
        heading = f"{path}: " if len(problems) == 1 else f"{path}: {len(problems)} problems:\n  "
        raise ValueError(heading + "\n  ".join(problems))


def _file_groups(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Arguments of each key of a recipe, as on the command line."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold lines of the form 'key: value'.")
    for key, value in content.items():
        if value is None:
            continue  # the default
        if isinstance(value, list):
            yield str(key), [f"--{key}", *map(str, value)]
        else:
            yield str(key), [f"--{key}={json.dumps(value) if isinstance(value, dict | bool) else value}"]


def _command_groups(overrides: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Arguments of each key of the command line."""
    group: list[str] = []
    for argument in [*overrides, "--"]:
        if argument.startswith("--"):
            if group:
                yield group[0].partition("=")[0].removeprefix("--").replace("-", "_"), group
            group = []
        group.append(argument)


def _check_group(parser: _Parser, key: str, group: list[str]) -> str | None:
    """Say what is wrong with one key's arguments, if anything is."""
    known = {option.removeprefix("--") for option in parser._option_string_actions}
    if not group[0].startswith("--"):
        return f"{' '.join(group)}: values follow a key, as in --max_steps 100."
    if key not in known:
        return f"{key}: there is no such key{_nearest(key, known)}."
    try:
        rest = parser.parse_known_args(group)[1]
    except ValueError as error:
        return f"{key}: {str(error).partition(': ')[2]}."  # without argparse's "argument --key/--key"
    return f"{key} takes one value, but is followed by {' '.join(rest)}." if rest else None


def _conflicts(model: ModelArguments, data: DataArguments, values: dict[str, Any]) -> Iterator[str]:
    """Say which values do not go together, or name what is not there."""
    if (model.model is None) == (model.config is None):
        yield "give either model (weights to start from) or config (from scratch)."
    if model.config is not None and not find_config(model.config):
        yield f"config: there is neither a file {model.config} nor a configuration of that name."
    if not data.train_data:
        yield "train_data is missing: a folder of alignments."
    for key in ("train_data", "eval_data", "labels", "eval_labels"):
        paths = getattr(data, key)
        paths = [paths] if isinstance(paths, str) else paths or []
        if not (data.streaming and key == "train_data"):
            yield from (f"{key}: there is no {path}." for path in paths if not Path(path).exists())
    if data.eval_data and data.eval_fraction is not None:
        yield "give either eval_data or eval_fraction."
    if data.repeats < 1 or (data.repeats > 1 and (data.labels or data.streaming)):
        yield "repeats is at least 1, and goes neither with labels nor with streaming."
    if data.eval_fraction is not None and not 0 < data.eval_fraction < 1:
        yield f"eval_fraction is between 0 and 1, not {data.eval_fraction}."
    if str(_plain(values["eval_strategy"])) != "no" and not data.eval_data and data.eval_fraction is None:
        yield "eval_strategy needs eval_data or eval_fraction."
    if (model.objective == "mlm") != (data.labels is None):
        wrong = "has no labels: residues are the labels" if data.labels else "needs labels"
        yield f"the objective {model.objective} {wrong}."
    if data.streaming:
        if model.objective == "variants":
            yield "streaming does not go with the objective variants: there is one alignment."
        if data.eval_fraction is not None:
            yield "streaming goes with eval_data, not eval_fraction: a stream is not split."
        if values["max_steps"] <= 0:
            yield "streaming needs max_steps: a stream has no length."
    if (
        model.objective in ("sequence", "token")
        and model.class_names
        and model.num_labels
        not in (
            None,
            len(model.class_names),
        )
    ):
        yield f"num_labels is {model.num_labels}, but class_names has {len(model.class_names)}."
    yield from _conflicts_of_averaging(model, values)
    if values["muon"] and model.lora_r is not None:
        yield "muon does not go with lora_r: adapters are thin matrices, and not what Muon is for."
    if model.lora_r is not None and model.config is not None:
        yield "lora_r goes with model: adapters on random weights learn nothing."
    if not 0 < data.mlm_probability < 1:
        yield f"mlm_probability is between 0 and 1, not {data.mlm_probability}."


def _conflicts_of_averaging(model: ModelArguments, values: dict[str, Any]) -> Iterator[str]:
    count, limit = values["average_checkpoints"], values["save_total_limit"]
    if count < 0:
        yield f"average_checkpoints is at least 0, not {count}."
    if count < 2:
        return
    if str(_plain(values["save_strategy"])) not in ("steps", "epoch"):
        yield f"average_checkpoints needs checkpoints: save_strategy steps or epoch, not {values['save_strategy']}."
    if limit is not None and limit < count:
        yield f"average_checkpoints is {count}, but save_total_limit keeps {limit}."
    if values["load_best_model_at_end"]:
        yield "give either average_checkpoints or load_best_model_at_end."
    if model.lora_r is not None:
        yield "average_checkpoints does not go with lora_r: a mean of adapters is not the adapter of a mean."


def _configuration(*parts: str) -> list[Path]:
    """Places of a shipped file: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parents[1]
    return [folder.joinpath("configuration", *parts) for folder in (package, package.parent)]


def find_recipe(name: str | os.PathLike) -> Path:
    """Find a recipe: a file, or a name in ``configuration/training``.

    Raises
    ------
    OSError
        If there is none.
    """
    shipped = _configuration("training", f"{name}.yaml")
    found = next((path for path in (Path(name), *shipped) if path.is_file()), None)
    if found is None:
        names = sorted(path.stem for folder in _configuration("training") for path in folder.glob("*.yaml"))
        raise FileNotFoundError(f"There is no recipe {name}: name a file, or one of {', '.join(names)}.")
    return found


def find_config(name: str | None) -> Path | None:
    """Find a model's ``config.json``: a file, its folder, or a name in ``configuration/models``."""
    if name is None:
        return None
    path = Path(name)
    candidates = [path, path / "config.json", *_configuration("models", name, "config.json")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


_COMMON = """
  output_dir resume_from_checkpoint max_steps num_train_epochs per_device_train_batch_size
  gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm bf16
  gradient_checkpointing eval_strategy eval_steps save_steps save_total_limit logging_steps report_to seed
  dataloader_num_workers use_cpu"""


def help_text() -> str:
    """Say which keys a recipe can have."""
    lines = [
        "Usage: msa train RECIPE.yaml [--key value ...]",
        "",
        "Train by a recipe, a YAML file of keys and values; those given here beat the file's.",
        "",
        "Example: msa train continue-family --train_data family.a3m --max_steps 20",
        "Several processes: accelerate launch --config_file configuration/accelerate/ddp.yaml -m modeling_msa.cli "
        "train RECIPE.yaml",
    ]
    for title, cls in (("Model", ModelArguments), ("Data", DataArguments)):
        lines += ["", f"{title}:"]
        for entry in dataclasses.fields(cls):
            default = "" if entry.default in (None, False) else f" [{entry.default}]"
            text = f"--{entry.name:<20} {entry.metadata['help']}{default}"
            lines += textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent=" " * 25, break_on_hyphens=False)
    return "\n".join([*lines, "", f"Training, every key of transformers' TrainingArguments; most used:{_COMMON}"])
