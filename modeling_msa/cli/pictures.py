"""Where ``--plot`` puts the pictures of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .._files import check_output
from ..tasks.pictures import check_picture

_KINDS = ("png", "pdf", "svg")


def pictures(plot: str | None, command: str, is_single: bool) -> Callable[[Path], Path] | None:
    """Check ``--plot`` before work starts, and return the function from target to picture; None without the option.

    Parameters
    ----------
    plot, command : str
        The option, and the task, which is in the names of pictures of several alignments.
    is_single : bool
        Whether there is one alignment and one output file.

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
        name = "" if is_single else f".{command}"  # other tasks may have pictures there too
        return lambda target: target.with_suffix(f"{name}.{kind}")
    path = Path(plot)
    if not is_single and (path.suffix or path.is_file()):
        raise ValueError(f"{plot} is one file: pass a folder, or --plot png for a picture beside each output.")
    check_picture(path if is_single else "x.png")
    check_output(path)
    if is_single:
        return lambda target: path
    return lambda target: path / f"{target.stem}.{command}.png"
