"""Where ``--plot`` puts the pictures of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .._files import check_output
from ..tasks.pictures import check_picture
from .runs import Run

_KINDS = ("png", "pdf", "svg")


def pictures(plot: str | None, run: Run) -> Callable[[Path], Path] | None:
    """Check ``--plot`` before work starts, and return the function from target to picture; None without the option.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If no picture can be drawn there.
    """
    if plot is None:
        return None
    kind = plot.removeprefix(".")
    if kind in _KINDS:
        check_picture(f"x.{kind}")
        name = "" if run.is_single else f".{run.command}"  # other tasks may have pictures there too
        return lambda target: target.with_suffix(f"{name}.{kind}")
    path = Path(plot)
    if not run.is_single and (path.suffix or path.is_file()):
        raise ValueError(f"{plot} is one file: pass a folder, or --plot png for a picture beside each output.")
    check_picture(path if run.is_single else "x.png")
    check_output(path)
    if run.is_single:
        return lambda target: path

    def in_folder(target: Path) -> Path:
        path.mkdir(exist_ok=True)
        return path / f"{target.stem}.{run.command}.png"

    return in_folder
