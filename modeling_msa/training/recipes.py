"""Recipes of training: a YAML file of keys and values, and values of the command line that replace them.

`modeling_msa.training.arguments` lists the keys. `parse_recipe` collects all problems before it raises an error, and
reads no data.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments

from .arguments import DataArguments, ModelArguments, TrainingKeys, nearest
from .conflicts import find_conflicts
from .shipped import find_recipe

_KINDS = {int: "a whole number", float: "a number"}


@dataclass
class MsaTrainingArguments(TrainingKeys, TrainingArguments):
    """transformers' TrainingArguments, with a few keys of our own and a few other defaults."""

    def __post_init__(self) -> None:
        """Complete the values as transformers does, which takes all that is not called loss for better if greater."""
        if self.greater_is_better is None and (self.metric_for_best_model or "").endswith("perplexity"):
            self.greater_is_better = False
        super().__post_init__()


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read.

    Attributes
    ----------
    model, data, training : ModelArguments, DataArguments, MsaTrainingArguments
        The values.
    given : dict
        The values that the file and the command line set; ``recipe.yaml`` of a run's folder repeats them.
    name : str
        Name of the file, without its ending.
    """

    model: ModelArguments
    data: DataArguments
    training: MsaTrainingArguments
    given: dict[str, Any]
    name: str = ""


def parse_recipe(path: str | os.PathLike, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path : path
        YAML file of keys and values, or the name of one in ``configuration/training``.
    overrides : sequence of str
        Command-line arguments, ``["--max_steps", "100"]``, which replace values of the file.

    Returns
    -------
    Recipe

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If a key does not exist, a value has the wrong type, or values contradict each other. The message lists all
        problems.
    """
    path = find_recipe(path)
    actions = _actions()
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in [*_values_of_file(path), *_values_of_command(overrides)]:
        try:
            if (action := actions.get(key)) is None:
                if not key:
                    raise ValueError("values must follow a key, as in --max_steps 100.")
                raise ValueError(f"there is no such key{nearest(key, actions)}")
            if value is not None:  # None keeps the default
                values[action.dest] = _convert(value, action)
        except ValueError as error:
            problems.append(f"{key or value[0]}: {error}")
    _raise_all(path, problems)
    values.setdefault("output_dir", str(Path("runs") / path.stem))
    try:
        first = HfArgumentParser((ModelArguments, DataArguments))  # type: ignore[arg-type]
        model, data = first.parse_dict(values, allow_extra_keys=True)
        _raise_all(path, list(find_conflicts(model, data, _defaults(MsaTrainingArguments) | values)))
        (training,) = HfArgumentParser(MsaTrainingArguments).parse_dict(values, allow_extra_keys=True)  # type: ignore[arg-type]
    except ValueError as error:
        raise error if str(error).startswith(f"{path}: ") else ValueError(f"{path}: {error}") from error
    given = {action.dest: values[action.dest] for action in actions.values() if action.dest in values}
    return Recipe(model, data, training, given, path.stem)


def _actions() -> dict[str, argparse.Action]:
    """What transformers' parser makes of the dataclasses: key -> type, choices and number of values."""
    classes: Any = (ModelArguments, DataArguments, MsaTrainingArguments)
    actions = HfArgumentParser(classes, add_help=False)._option_string_actions
    return {option.removeprefix("--"): action for option, action in actions.items() if "-" not in option[2:]}


def _defaults(cls: Any) -> dict[str, Any]:
    return {each.name: getattr(each.default, "value", each.default) for each in dataclasses.fields(cls)}


def _raise_all(path: Path, problems: list[str]) -> None:
    if problems:
        heading = f"{path}: " if len(problems) == 1 else f"{path}: {len(problems)} problems:\n  "
        raise ValueError(heading + "\n  ".join(problems))


def _values_of_file(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a recipe, a YAML file of keys and values: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a recipe: it must contain lines of the form 'key: value'.")
    for key, value in content.items():
        yield str(key), value


def _values_of_command(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Keys and values of ``--key value``, ``--key=value`` and ``--key a b``; a key without value has an empty list."""
    groups: list[tuple[str, list[str]]] = []
    for argument in overrides:
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            groups.append((key.replace("-", "_"), [value] if equals else []))
        elif groups:
            groups[-1][1].append(argument)
        else:
            groups.append(("", [argument]))
    return iter(groups)


def _convert(value: Any, action: argparse.Action) -> Any:
    """Return a value in its key's type; what YAML reads as another, such as the word ``1e-4``, is converted."""
    if action.nargs == 0:  # --no_key
        if value not in ([], True):
            raise ValueError("this key has no value.")
        return action.const
    if value == [] and action.nargs == "?":
        return action.const
    if isinstance(value, dict):
        if action.type is not str:
            raise ValueError("a mapping is not allowed here.")
        return value
    texts = [_text(each) for each in (value if isinstance(value, list) else [value])]
    if not texts:
        raise ValueError("a value is missing.")
    if action.nargs != "+" and len(texts) > 1:
        raise ValueError(f"only one value is allowed, not {' '.join(texts)}.")
    converted = [_convert_one(text, action) for text in texts]
    return converted if action.nargs == "+" else converted[0]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _convert_one(text: str, action: argparse.Action) -> Any:
    kind: Any = action.type
    try:
        value = kind(text)
    except (ValueError, argparse.ArgumentTypeError):
        raise ValueError(f"{text!r} is not {_KINDS.get(kind, 'true or false')}.") from None
    if action.choices is not None and value not in action.choices:
        raise ValueError(f"{text!r} is not one of {', '.join(map(str, action.choices))}.")
    return value
