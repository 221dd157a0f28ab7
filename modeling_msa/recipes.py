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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers import HfArgumentParser, TrainingArguments

Objective = Literal["mlm", "token", "sequence", "contacts", "variants"]


def _key(help: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass
class ModelArguments:
    """What is trained, from which weights, and by which objective."""

    objective: Objective = _key(
        "mlm: masked residues; token, sequence: classes or values of the query's residues, or of the whole query; "
        "contacts: pairs; variants: scores of variants of the query.",
        "mlm",
    )
    model: str | None = _key("Folder or Hub id of the weights to start from.")
    config: str | None = _key("Instead of model, from scratch: a config.json, or a name in configuration/models.")
    config_overrides: dict | str | None = _key('Changes to the configuration, such as {"hidden_dropout": 0.0}.')
    attn_implementation: str | None = _key("sdpa (default), eager or flash_attention_2.")
    num_labels: int | None = _key("Classes of token and sequence; one (sequence, variants) is a value.")
    class_names: list[str] | None = _key("Names of the classes, in order; labels may be these, or numbers from 0.")
    lora_r: int | None = _key("Rank of LoRA adapters; only these and a new head are trained.")
    lora_alpha: int | None = _key("Scale of the adapters; default: twice the rank.")
    lora_dropout: float = _key("Dropout before the adapters.", 0.0)
    lora_target_modules: list[str] | None = _key("Layers with adapters; default: all projections of the attentions.")


@dataclass
class DataArguments:
    """Where alignments and labels are, and how a batch is made of them."""

    train_data: list[str] | None = _key("Folder of alignments (A3M and others, .gz, .xz too), files, or a list file.")
    eval_data: list[str] | None = _key("The same, held out.")
    eval_fraction: float | None = _key("Instead of eval_data: this fraction of the training files is held out.")
    labels: str | None = _key("Table, FASTA or JSON of labels by file stem; contacts: folder of structures.")
    eval_labels: str | None = _key("Labels of eval_data; default: labels.")
    format: Literal["a3m", "a2m", "fasta", "stockholm"] | None = _key("Format of the files; default: by the ending.")
    streaming: bool = _key("train_data are shards made by msa pack, read as a stream.", False)
    on_error: Literal["raise", "skip"] = _key("What a file that cannot be read does.", "raise")
    max_tokens: int = _key("Tokens of one alignment: rows = max_tokens / columns.", 2**14)
    max_rows: int | None = _key("Most rows; default: what the model takes, at most 1,024.")
    max_columns: int | None = _key("Most columns, <cls> included; default: what the model takes.")
    min_rows: int = _key("Fewest rows.", 1)
    select: Literal["random", "diverse", "weighted", "first"] = _key(
        "Which rows; random ones anew each visit.", "random"
    )
    depth: Literal["full", "log_uniform"] = _key("How many of the rows a training step sees.", "full")
    crop: Literal["random", "first"] = _key("Which columns of a training alignment that is too long.", "random")
    random_positions: bool = _key("Number columns from a random place, so that the whole table trains.", False)
    mlm_probability: float = _key("Fraction of residues to predict.", 0.15)
    mask_columns: float = _key("Fraction of columns to mask whole.", 0.0)
    mask_gaps: bool = _key("Whether gaps are predicted too.", True)
    group_by_size: bool = _key("Batches of alignments of like size: less padding.", True)


@dataclass
class MsaTrainingArguments(TrainingArguments):
    """transformers' TrainingArguments; other defaults for a few."""

    remove_unused_columns: bool = _key("Always false: features are whole alignments.", False)
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Always labels."})
    logging_steps: float = _key("Steps from one line of the log to the next.", 10)
    save_total_limit: int | None = _key("Checkpoints to keep.", 3)
    report_to: None | str | list[str] = _key("tensorboard, wandb ...", "none")


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read.

    Attributes
    ----------
    model, data, training : ModelArguments, DataArguments, MsaTrainingArguments
        The values.
    given : dict
        Those that the file and the command line set, converted; what ``recipe.yaml`` of a run's folder repeats.
    """

    model: ModelArguments
    data: DataArguments
    training: MsaTrainingArguments
    given: dict[str, Any]


class _Parser(HfArgumentParser):
    """Raises where argparse would print its usage (hundreds of keys) and end the process."""

    def error(self, message: str) -> Any:
        raise ValueError(message)


def parse_recipe(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path : path
        YAML file of keys and values.
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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no recipe {path}; see configuration/training for some to start from.")
    parser = _Parser((ModelArguments, DataArguments, MsaTrainingArguments), allow_abbrev=False, add_help=False)
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
    model, data = (_make(cls, values) for cls in (ModelArguments, DataArguments))
    problems += _conflicts(model, data, values)
    _raise_all(path, problems)
    given = {key: _plain(values[key]) for key in values if key in keys or key == "output_dir"}
    try:
        training = _make(MsaTrainingArguments, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Recipe(model, data, training, given)


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
        nearest = difflib.get_close_matches(key, [name for name in known if "-" not in name], 1, 0.5)
        return f"{key}: there is no such key" + (f"; the nearest is {nearest[0]}." if nearest else ".")
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
    if data.eval_fraction is not None and not 0 < data.eval_fraction < 1:
        yield f"eval_fraction is between 0 and 1, not {data.eval_fraction}."
    if str(_plain(values["eval_strategy"])) != "no" and not data.eval_data and data.eval_fraction is None:
        yield "eval_strategy needs eval_data or eval_fraction."
    if (model.objective == "mlm") != (data.labels is None):
        wrong = "has no labels: residues are the labels" if data.labels else "needs labels"
        yield f"the objective {model.objective} {wrong}."
    if data.streaming:
        if model.objective != "mlm":
            yield f"streaming goes with the objective mlm, not {model.objective}."
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
    if model.objective == "token" and not model.class_names and (model.num_labels or 0) < 2:
        yield "the objective token needs class_names, or num_labels of at least 2."
    if model.lora_r is not None and model.config is not None:
        yield "lora_r goes with model: adapters on random weights learn nothing."
    if not 0 < data.mlm_probability < 1:
        yield f"mlm_probability is between 0 and 1, not {data.mlm_probability}."


def _configuration(*parts: str) -> list[Path]:
    """Places of a shipped file: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parent
    return [folder.joinpath("configuration", *parts) for folder in (package, package.parent)]


def find_config(name: str) -> Path | None:
    """Find a model's ``config.json``: a file, its folder, or a name in ``configuration/models``."""
    path = Path(name)
    candidates = [path, path / "config.json", *_configuration("models", name, "config.json")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


_COMMON = (
    "output_dir resume_from_checkpoint max_steps num_train_epochs per_device_train_batch_size "
    "gradient_accumulation_steps learning_rate lr_scheduler_type warmup_steps weight_decay max_grad_norm bf16 "
    "gradient_checkpointing eval_strategy eval_steps save_steps logging_steps seed dataloader_num_workers use_cpu"
).split()


def help_text() -> str:
    """Say which keys a recipe can have."""
    lines = [
        "Usage: msa train RECIPE.yaml [--key value ...]",
        "",
        "Train by a recipe, a YAML file of keys and values; those given here beat the file's.",
        "",
        "Example: msa train configuration/training/continue-family.yaml --train_data family.a3m --max_steps 20",
        "Several processes: accelerate launch --config_file configuration/accelerate/ddp.yaml -m modeling_msa.cli "
        "train RECIPE.yaml",
    ]
    for title, cls in (("Model", ModelArguments), ("Data", DataArguments)):
        lines += ["", f"{title}:"]
        for entry in dataclasses.fields(cls):
            default = "" if entry.default in (None, False) else f" [{entry.default}]"
            lines.append(f"  --{entry.name:<20} {entry.metadata['help']}{default}")
    lines += ["", "Training (every key of transformers.TrainingArguments; most used):", ""]
    line = " "
    for key in _COMMON:
        if len(line) + len(key) > 110:
            lines.append(line)
            line = " "
        line += f" --{key}"
    return "\n".join([*lines, line])
