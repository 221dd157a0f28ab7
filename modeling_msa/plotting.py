"""Pictures of results; needs matplotlib (``pip install modeling-msa[plot]``)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .contacts import MIN_SEPARATION, ContactMap
from .files import whole_file
from .phylogeny import Distances
from .scoring import SubstitutionScores


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


# neighbours are alike: aliphatic, aromatic, small, polar, basic, acidic
_BY_CHEMISTRY = "ILVMCAFYWGPSTNQHKRDE"


def plot_substitutions(scores: SubstitutionScores, path: str | os.PathLike, title: str | None = None) -> None:
    """Draw the scores of all substitutions: residues across, in several panels for a long query, amino acids down.

    Amino acids are ordered by chemistry. Blue substitutions are better than the wild type, red ones worse; a dot marks
    the wild type. Residues without a score are grey.

    Parameters
    ----------
    scores : SubstitutionScores
        What to draw; see `modeling_msa.score_all_singles`.
    path : path
        The picture; its ending (.png, .pdf, .svg) decides the format. It appears whole or not at all.
    title : str, optional
        Default: the query's name.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If the ending is none of a picture.
    """
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    first, last = int(scores.residues[0]), int(scores.residues[-1])
    whole = np.full((last - first + 1, 20), np.nan)
    order = [scores.amino_acids.index(letter) for letter in _BY_CHEMISTRY]
    whole[scores.residues - first] = scores.score[:, order]
    wild = dict(zip(scores.residues.tolist(), scores.wild_type, strict=True))
    # a few extreme scores must not leave the others pale
    finite = np.abs(whole[np.isfinite(whole)])
    most = float(np.quantile(finite, 0.99)) if finite.any() else 1.0
    length = len(whole)
    panels = -(-length // (60 if length <= 240 else 100))
    width = -(-length // panels)  # all panels alike
    size = 0.14 if width <= 60 else 0.11  # inches of a cell
    figure = Figure(
        figsize=(max(4.0, width * size + 1.6), panels * (20 * size + 0.62) + 1.0), dpi=150, layout="constrained"
    )
    grid = np.atleast_1d(figure.subplots(panels))
    for panel, axes in enumerate(grid):
        start = first + panel * width
        part = whole[panel * width : (panel + 1) * width]
        box = (start - 0.5, start + len(part) - 0.5, 19.5, -0.5)
        image = axes.imshow(part.T, cmap="RdBu", vmin=-most, vmax=most, extent=box, interpolation="nearest")
        axes.set(xlim=(start - 0.5, start + width - 0.5), facecolor="white")
        axes.fill_between((box[0], box[1]), -0.5, 19.5, color="0.85", zorder=-1)
        shown = {number: wild[number] for number in range(start, start + len(part)) if number in wild}
        dots = [(number, _BY_CHEMISTRY.index(letter)) for number, letter in shown.items() if letter in _BY_CHEMISTRY]
        axes.scatter(*np.array(dots).reshape(-1, 2).T, s=60 * size, color="0.1", linewidths=0)
        axes.set_yticks(range(20), _BY_CHEMISTRY, fontsize=50 * size, family="monospace")
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 5, 10]))
        axes.spines[["right", "top"]].set_visible(False)
        for number, letter in shown.items():
            axes.text(number, -0.8, letter, ha="center", va="bottom", fontsize=50 * size, family="monospace")
    grid[-1].set_xlabel("residue; above it the wild type")
    figure.suptitle(title or scores.name)
    ratio = "log p(mutant) / p(wild type)"
    figure.colorbar(
        image, ax=list(grid), label=ratio, shrink=min(1.0, 2.5 / panels), aspect=20, extend="both", pad=0.01
    )
    with whole_file(path) as temporary:
        figure.savefig(temporary)


def plot_distances(distances: Distances, path: str | os.PathLike, title: str | None = None) -> None:
    """Draw predicted against Hamming distances, a point for each pair of rows.

    Parameters
    ----------
    distances : Distances
        What to draw; pairs that the weights were fitted on are grey.
    path : path
        The picture; its ending (.png, .pdf, .svg) decides the format. It appears whole or not at all.
    title : str, optional
        Default: the query's name, R2 and Pearson correlation.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If the ending is none of a picture.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    i, j = np.triu_indices(len(distances.names), 1)
    new = ~(distances.fitted[i] | distances.fitted[j])
    shown = [(~new, "pairs with a row of the fit", "0.75"), (new, "pairs of other rows", "tab:blue")]
    figure = Figure(figsize=(5.6, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    low = max(0.0, min(distances.predicted[i, j].min(), distances.hamming[i, j].min()) - 0.02)
    high = min(1.0, max(distances.predicted[i, j].max(), distances.hamming[i, j].max()) + 0.02)
    axes.plot([low, high], [low, high], color="0.4", linewidth=0.8, zorder=3)
    size = min(12.0, max(1.5, 40000 / max(1, len(i))))
    for chosen, label, color in shown:
        if chosen.any():
            x, y = distances.predicted[i[chosen], j[chosen]], distances.hamming[i[chosen], j[chosen]]
            label = f"{chosen.sum()} {label}" if not new.all() else f"{chosen.sum()} pairs of rows"
            # thousands of points: as pixels also in a .pdf or .svg
            axes.scatter(x, y, s=size, color=color, linewidths=0, alpha=0.5, label=label, rasterized=True)
    name = distances.names[0].split()[0] if distances.names[0].split() else "query"
    axes.set(
        xlim=(low, high),
        ylim=(low, high),
        aspect="equal",
        xlabel="distance predicted from column attention",
        ylabel="Hamming distance (fraction of columns)",
        title=title or f"{name}, R² {distances.r2:.2f}, Pearson {distances.pearson:.2f}",
    )
    figure.legend(loc="outside lower center", frameon=False, ncols=2, markerscale=3)
    with whole_file(path) as temporary:
        figure.savefig(temporary)
