"""The alignment that is bundled with the package."""

from __future__ import annotations

from pathlib import Path


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
    folder = Path(__file__).parents[1] / "families"
    known = sorted(path.stem for path in folder.glob("*.sto"))
    if name not in known:
        raise ValueError(f"unknown bundled family {name!r}; use one of {', '.join(known)}")
    return folder / f"{name}.sto"
