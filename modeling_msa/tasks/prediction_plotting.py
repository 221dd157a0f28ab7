"""A picture of the classes of a query's residues; requires matplotlib (``pip install modeling-msa[plot]``)."""

from __future__ import annotations

import os

import numpy as np

from .._files import whole_file
from .pictures import check_picture, draw_boundaries, number_by_chain
from .prediction import Prediction


def plot_prediction(prediction: Prediction, path: str | os.PathLike[str], title: str | None = None) -> None:
    """Draw the probability of each class (from top to bottom) for each residue (from left to right).

    A dot marks the most probable class; the query's letters are above. Residues without a column are grey. A long
    query is drawn in several panels.

    Parameters
    ----------
    prediction : Prediction
        Of residues; see `modeling_msa.predict`.
    path : path
        Picture to write; its ending (.png, .pdf, .svg) is the format. It appears whole or not at all.
    title : str, optional
        Default: the query's name.

    Raises
    ------
    ImportError, ValueError
        Without matplotlib; if the ending is not a picture format, or the prediction is not of residues.
    """
    check_picture(path)
    if prediction.of != "residues":
        raise ValueError(f"{path}: only classes of residues can be drawn, but the prediction is of {prediction.of}.")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    first, last = int(prediction.residues[0]), int(prediction.residues[-1])
    count = len(prediction.labels)
    whole = np.full((last - first + 1, count), np.nan)
    whole[prediction.residues - first] = prediction.scores
    panels = -(-len(whole) // 100)
    width = -(-len(whole) // panels)  # all panels alike
    height = panels * (max(1.0, 0.2 * count) + 0.55) + 0.9
    figure = Figure(figsize=(max(4.0, 0.11 * width + 2.2), height), dpi=150, layout="constrained")
    grid = np.atleast_1d(figure.subplots(panels))
    best = prediction.scores.argmax(axis=1)
    for panel, axes in enumerate(grid):
        start = first + panel * width
        part = whole[panel * width : (panel + 1) * width]
        box = (start - 0.5, start + len(part) - 0.5, count - 0.5, -0.5)
        image = axes.imshow(part.T, cmap="Blues", vmin=0, vmax=1, extent=box, interpolation="nearest", aspect="auto")
        axes.fill_between(box[:2], -0.5, count - 0.5, color="0.85", zorder=-1)
        inside = (prediction.residues >= start) & (prediction.residues < start + len(part))
        axes.scatter(prediction.residues[inside], best[inside], s=8, color="#d55e00", linewidths=0)
        axes.set(xlim=(start - 0.5, start + width - 0.5), ylim=(count - 0.5, -0.5), facecolor="white")
        axes.set_yticks(range(count), prediction.labels)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 5, 10]))
        number_by_chain(axes.xaxis, prediction.chains)
        draw_boundaries(axes, prediction.chains)
        axes.set_xlim(start - 0.5, start + width - 0.5)
        axes.spines[["right", "top"]].set_visible(False)
        for number in prediction.residues[inside].tolist():
            letter = prediction.query[number - 1]
            axes.annotate(letter, (number, -0.5), (0, 2), "data", "offset points", ha="center", fontsize=5.5)
    grid[-1].set_xlabel("residue (the query's letters above; dots: the most probable class)")
    figure.suptitle(title or prediction.name)
    figure.colorbar(image, ax=list(grid), label="probability", aspect=12, pad=0.01)
    with whole_file(path) as temporary:
        figure.savefig(temporary)
