"""Finding recipes and configurations by name: the files that come with the package."""

from __future__ import annotations

import os
from pathlib import Path

from .._files import stands_for


def _places(*parts: str) -> list[Path]:
    """Places of a shipped file: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parents[1]
    return [folder.joinpath("configuration", *parts) for folder in (package, package.parent)]


def find_recipe(name: str | os.PathLike) -> Path:
    """Find a recipe: a name in ``configuration/training``, or a file.

    Raises
    ------
    OSError
        If it does not exist.
    """
    found = _find(name, "recipe", _places("training", f"{name}.yaml"), [Path(name)])
    if found is None:
        names = sorted(path.stem for folder in _places("training") for path in folder.glob("*.yaml"))
        raise FileNotFoundError(f"There is no recipe {name}: pass a file, or one of {', '.join(names)}.")
    return found


def find_config(name: str | None) -> Path | None:
    """Find a model's ``config.json``: a name in ``configuration/models``, a file, or its folder; else None."""
    if name is None:
        return None
    return _find(name, "config", _places("models", name, "config.json"), [Path(name), Path(name, "config.json")])


def _find(name: str | os.PathLike, what: str, shipped: list[Path], own: list[Path]) -> Path | None:
    """Choose the shipped file if the name stands for it, otherwise the first of the user's that exists."""
    found = [path for path in shipped if path.is_file() and stands_for(name, path, what)]
    return next((path for path in found + own if path.is_file()), None)
