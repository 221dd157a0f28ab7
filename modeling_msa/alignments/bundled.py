"""The family that is bundled with the package: an alignment, and the structure of its query."""

from __future__ import annotations

import os
from pathlib import Path

from .._files import stands_for

_FOLDER = Path(__file__).parents[1] / "families"
_ALIGNMENT, _STRUCTURE = ".a3m", ".pdb"


def bundled_family(name: str = "fn3") -> Path:
    """Path of an alignment that is bundled with the package, for examples and tests.

    Parameters
    ----------
    name : str, default: "fn3"
        ``fn3`` is the fibronectin type III domain, Pfam PF00041, with the third one of tenascin as the query: 1,826
        rows, 80 columns.

    Returns
    -------
    path : Path
        An A3M file.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    return _bundled(name, _ALIGNMENT)


def bundled_structure(name: str = "fn3") -> Path:
    """Path of the structure of a bundled family's query: of ``fn3`` PDB entry 1TEN.

    Returns
    -------
    path : Path
        A PDB file.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    return _bundled(name, _STRUCTURE)


def find_bundled(name: str | os.PathLike[str], structure: bool = False) -> Path | None:
    """Path of the bundled alignment, or `structure`, that a name stands for.

    None for a path, such as ``./fn3``, or another name.
    """
    path = _FOLDER / f"{os.fspath(name)}{_STRUCTURE if structure else _ALIGNMENT}"
    return path if stands_for(name, path, "structure" if structure else "family") else None


def _bundled(name: str, ending: str) -> Path:
    known = sorted(path.stem for path in _FOLDER.glob(f"*{ending}"))
    if name not in known:
        raise ValueError(f"unknown bundled family {name!r}; use one of {', '.join(known)}")
    return _FOLDER / f"{name}{ending}"
