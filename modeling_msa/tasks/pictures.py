"""Whether a picture can be drawn; does not import torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..alignments.chains import Chains, chain_slices


def check_picture(path: str | os.PathLike) -> None:
    """Raise, before work starts, if no picture can be drawn there: ImportError, ValueError."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ImportError("Pictures require matplotlib: pip install 'modeling-msa[plot]'.") from None
    suffix = Path(path).suffix
    if suffix.removeprefix(".") not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"{path}: unknown picture format {suffix!r}; use .png, .pdf or .svg.")


def number_by_chain(axis: Any, chains: Chains, offset: float = 0) -> None:
    """Label an axis of residues, numbered on the whole query, by chain; nothing changes for one protein.

    Residue 1 of the query is drawn at 1 + `offset`. Each chain begins anew, as ``B:1``.
    """
    if not chains:
        return
    total = sum(each.length for each in chains)
    step = next((each for each in (5, 10, 20, 50, 100, 200) if total <= 12 * each), 500)
    ticks, labels = [], []
    for chain, (start, _) in zip(chains, chain_slices(chains, total), strict=True):
        numbers = [1, *range(step, chain.length - step // 3, step)]
        ticks += [start + number + offset for number in numbers]
        labels += [f"{chain.name}:{number}" if number == 1 else str(number) for number in numbers]
    axis.set_ticks(ticks, labels)


def draw_boundaries(axes: Any, chains: Chains, horizontal: bool = False, **how: Any) -> None:
    """Draw a line between the chains of a complex, whose residues are numbered from 1 on the whole query."""
    for start, _ in chain_slices(chains, 0)[1:]:
        axes.axvline(start + 0.5, **({"color": "0.4", "linewidth": 0.8} | how))
        if horizontal:
            axes.axhline(start + 0.5, **({"color": "0.4", "linewidth": 0.8} | how))
