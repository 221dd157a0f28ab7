"""Pictures of results; needs matplotlib (``pip install modeling-msa[plot]``)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .contacts import MIN_SEPARATION, ContactMap
from .files import whole_file


def check_picture(path: str | os.PathLike) -> None:
    """Raise, before work starts, if no picture can be drawn there: ImportError, ValueError."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ImportError("Pictures need matplotlib: pip install 'modeling-msa[plot]'.") from None
    endings = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.removeprefix(".") not in endings:
        raise ValueError(f"{path} names no kind of picture: end it with .png, .pdf or .svg.")


def plot_contacts(contacts: ContactMap, path: str | os.PathLike, title: str | None = None) -> None:
    """Draw a contact map: probabilities above the diagonal, the L most probable contacts below it.

    Parameters
    ----------
    contacts : ContactMap
        What to draw.
    path : path
        The picture; its ending (.png, .pdf, .svg) decides the format. It appears whole or not at all.
    title : str, optional
        Default: the query's name.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    first, last = contacts.residues[0], contacts.residues[-1]
    size = last - first + 1
    # residues without a column stay blank
    upper = np.full((size, size), np.nan, dtype=np.float32)
    upper[np.ix_(contacts.residues - first, contacts.residues - first)] = contacts.probabilities
    upper[np.tril_indices(size, MIN_SEPARATION - 1)] = np.nan
    top = contacts.residues[contacts.top(len(contacts.residues))]

    figure = Figure(figsize=(6.4, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    box = (first - 0.5, last + 0.5, last + 0.5, first - 0.5)
    image = axes.imshow(upper, cmap="Blues", vmin=0, vmax=1, extent=box, interpolation="nearest")
    axes.plot([first, last], [first, last], color="0.7", linewidth=0.8)
    radius = max(2.0, min(20.0, 1500 / size))
    label = f"the {len(top)} most probable pairs, |i - j| ≥ {MIN_SEPARATION}"
    axes.scatter(top[:, 0], top[:, 1], s=radius, color="tab:red", marker="s", linewidths=0, label=label)
    axes.set(xlabel="residue", ylabel="residue", title=title or contacts.name)
    figure.legend(loc="outside lower center", frameon=False)
    figure.colorbar(image, ax=axes, label="contact probability", shrink=0.85)
    with whole_file(path) as temporary:
        figure.savefig(temporary)
