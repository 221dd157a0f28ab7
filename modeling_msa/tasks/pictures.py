"""Whether a picture can be drawn; does not import torch."""

from __future__ import annotations

import os
from pathlib import Path


def check_picture(path: str | os.PathLike) -> None:
    """Raise, before work starts, if no picture can be drawn there: ImportError, ValueError."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ImportError("Pictures require matplotlib: pip install 'modeling-msa[plot]'.") from None
    suffix = Path(path).suffix
    if suffix.removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"{path}: unknown picture format {suffix!r}; use .png, .pdf or .svg.")
