"""Finding recipes and configurations by name: the files that come with the package."""

from __future__ import annotations

import os
from pathlib import Path


def _places(*parts: str) -> list[Path]:
    """Places of a shipped file: inside the installed package, or beside it in the repository."""
    package = Path(__file__).parents[1]
    return [folder.joinpath("configuration", *parts) for folder in (package, package.parent)]


def find_recipe(name: str | os.PathLike) -> Path:
    """Find a recipe: a file, or a name in ``configuration/training``.

    Raises
    ------
    OSError
        If it does not exist.
    """
    found = next((path for path in (Path(name), *_places("training", f"{name}.yaml")) if path.is_file()), None)
    if found is None:
        names = sorted(path.stem for folder in _places("training") for path in folder.glob("*.yaml"))
        raise FileNotFoundError(f"There is no recipe {name}: pass a file, or one of {', '.join(names)}.")
    return found


def find_config(name: str | None) -> Path | None:
    """Find a model's ``config.json``: a file, its folder, or a name in ``configuration/models``; else None."""
    if name is None:
        return None
    candidates = [Path(name), Path(name, "config.json"), *_places("models", name, "config.json")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)
