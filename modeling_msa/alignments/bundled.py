"""The alignment that is bundled with the package."""

from __future__ import annotations

import os
from pathlib import Path

from .._files import stands_for

_FOLDER = Path(__file__).parents[1] / "families"


def bundled_family(name: str = "fn3") -> Path:
    """Path of an alignment that is bundled with the package, for examples and tests.

    Parameters
    ----------
    name : str, default: "fn3"
        ``fn3`` is the fibronectin type III domain, the seed alignment of Pfam PF00041: 98 rows, 117 columns.

    Returns
    -------
    path : Path
        A Stockholm file.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    known = sorted(path.stem for path in _FOLDER.glob("*.sto"))
    if name not in known:
        raise ValueError(f"unknown bundled family {name!r}; use one of {', '.join(known)}")
    return _FOLDER / f"{name}.sto"


def find_bundled(name: str | os.PathLike[str]) -> Path | None:
    """Path of the bundled alignment that a name stands for; None for a path, such as ``./fn3``, or another name."""
    path = _FOLDER / f"{os.fspath(name)}.sto"
    return path if stands_for(name, path, "family") else None
