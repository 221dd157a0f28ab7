"""Pictures of results; requires matplotlib (``pip install modeling-msa[plot]``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._files import whole_file
from .._words import counted
from ..alignments.chains import BETWEEN, separated
from .contact_files import check_beside
from .contact_precision import covered_contacts, precision, same_pair_contacts
from .contact_viewers import RIGHT, WRONG
from .contacts import MIN_SEPARATION, PairMap
from .distances import Distances
from .pictures import check_picture, draw_boundaries, number_by_chain
from .score_tables import paired, spearman
from .scoring import SubstitutionScores, VariantScores
from .sequence_scoring import SequenceScores

# distinguishable with any colour vision (Okabe and Ito); their marks differ too
_RIGHT, _WRONG, _SAME = RIGHT, WRONG, "#cc79a7"
_KNOWN, _UNKNOWN = "#c4c4c4", "#f5eedc"
_UNCOVERED = "#a6a6a6"


def plot_contacts(
    contacts: PairMap,
    path: str | os.PathLike,
    title: str | None = None,
    known: np.ndarray | None = None,
    between_chains: bool = False,
    beside: Sequence[PairMap] = (),
) -> None:
    """Draw a contact map: probabilities above the diagonal, the L most probable contacts below it.

    With a structure, its contacts are grey below the diagonal and unresolved pairs are shaded. The L most probable
    pairs are drawn over them: true positives as blue dots, false positives as orange crosses, unresolved pairs as
    rings. All pairs are at least 6 apart. Above the diagonal, pairs that no window of the model covers are grey.

    Parameters
    ----------
    contacts : ContactMap or CategoricalJacobian
        The map to draw. The darkest colour is the probability 1, or of scores that of the strongest tenth of these L.
    path : path
        Picture to write; its ending (.png, .pdf, .svg) is the format. It appears whole or not at all.
    title : str, optional
        Default: the query's name and, with a structure, P@L (`modeling_msa.precision`, without unresolved pairs).
    known : ndarray, shape=(N, N) or (L, L), optional
        Contacts of the query's residues, or of the map's: 1, 0 and -100 (unknown); see `structure_contacts`.
    between_chains : bool, default False
        Draw only pairs of different chains of a complex. Its chains are separated by lines, and residues are numbered
        by chain. Between chains of equal sequence, pairs that are contacts within a chain (`same_pair_contacts`) are
        drawn as purple triangles.
    beside : sequence of CoevolutionMap, default ()
        Further maps of the same residues, drawn in the same way from left to right.

    Raises
    ------
    ImportError, ValueError
        Without matplotlib; if the ending is not a picture format, `known` has another size, or other maps have other
        residues.
    """
    check_picture(path)
    check_beside(contacts, beside)
    from matplotlib.figure import Figure

    panels = 1 + len(beside)
    figure = Figure(figsize=(6.4 * panels, 6.4), dpi=150, layout="constrained" if beside else "compressed")
    parts: Any = figure.subfigures(1, panels) if beside else [figure]
    counted_pairs = None
    if known is not None and (beside or title is None):
        counted_pairs = covered_contacts((contacts, *beside), known)
    for each, part in zip((contacts, *beside), parts, strict=True):
        of_map = each.method if beside else title or _title(each)
        _draw_contacts(part, each, known, of_map, counted_pairs, between_chains)
    if beside:
        figure.suptitle(title or _title(contacts))
    with whole_file(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight")


def _title(contacts: PairMap) -> str:
    """ColabFold separates the names of a complex's chains by tabs, for which fonts have no shape."""
    return " + ".join(contacts.name.split("\t"))


def _draw_contacts(
    figure: Any,
    contacts: PairMap,
    known: np.ndarray | None,
    name: str,
    counted_pairs: np.ndarray | None,
    between_chains: bool,
) -> None:
    """Draw one map into a figure, or a part of one; P@L of the counted pairs, if there are any, follows the name."""
    from matplotlib.colors import ListedColormap

    residues, count = contacts.residues, len(contacts.residues)
    first, last = residues[0], residues[-1]
    axes = figure.add_subplot()
    pairs = contacts.top(count, between_chains=between_chains)
    places = separated(contacts.chains, residues)
    least = BETWEEN if between_chains else MIN_SEPARATION
    hidden = np.abs(places[:, None] - places) < least
    radius = max(4.0, min(40.0, 3000 / (last - first + 1)))

    def draw(values: np.ndarray, lower: bool, **how: Any) -> Any:
        whole = np.full((last - first + 1,) * 2, np.nan, dtype=np.float32)  # residues without a column stay blank
        values = np.where(hidden, np.nan, values)
        whole[np.ix_(residues - first, residues - first)] = values
        whole[np.tril_indices_from(whole)] = np.nan
        box = (first - 0.5, last + 0.5, last + 0.5, first - 0.5)
        return axes.imshow(whole.T if lower else whole, extent=box, interpolation="nearest", **how)

    def mark(chosen: np.ndarray, label: str, **how: Any) -> None:
        marked = residues[pairs[chosen]]
        axes.scatter(marked[:, 0], marked[:, 1], label=f"{label} ({len(marked)})", **how)

    is_probability, most = contacts.measure == "probability", 1.0
    if not is_probability and len(pairs):
        most = max(1e-30, float(np.quantile(contacts.values[pairs[:, 0], pairs[:, 1]], 0.9)))
    image = draw(contacts.values, False, cmap="Blues", vmin=0, vmax=most)
    if np.isnan(contacts.values).any():
        draw(np.where(np.isnan(contacts.values), 1, np.nan), False, cmap=ListedColormap([_UNCOVERED]))
        axes.scatter([], [], s=40, color=_UNCOVERED, marker="s", label="in no window of the model")
    if known is None:
        which = "between chains" if between_chains else f"with |i - j| ≥ {MIN_SEPARATION}"
        label = f"{'most probable' if is_probability else 'strongest'} pairs {which}"
        mark(np.ones(len(pairs), dtype=bool), label, s=radius, color="0.25", marker="s", linewidths=0)
    else:
        same = np.zeros(len(pairs), dtype=bool)
        if contacts.chains and len(known) == len(contacts.query):
            marked = same_pair_contacts(known, contacts.query, contacts.chains)
            same = marked[tuple(residues[pairs].T - 1)]
        if len(known) != count:
            known = known[np.ix_(residues - 1, residues - 1)]
        state = np.asarray(known)[pairs[:, 0], pairs[:, 1]]
        draw(np.where(known == 0, np.nan, known == 1), True, cmap=ListedColormap([_UNKNOWN, _KNOWN]), vmin=0, vmax=1)
        axes.scatter([], [], s=40, color=_KNOWN, marker="s", label="contacts in the structure")
        mark(state == 1, "true positives", s=radius, color=_RIGHT, marker="o", linewidths=0)
        mark((state == 0) & ~same, "false positives", s=radius, color=_WRONG, marker="x", linewidths=1.2)
        if (same & (state == 0)).any():
            how = {"color": _SAME, "marker": "^", "linewidths": 0}
            mark((state == 0) & same, "in contact within a chain instead", s=radius, **how)
        if (known < 0).any():
            axes.scatter([], [], s=40, color=_UNKNOWN, marker="s", label="unresolved in the structure")
            how = {"facecolors": "none", "edgecolors": "0.35", "marker": "o", "linewidths": 0.8}
            mark(state < 0, "predicted, unresolved", s=radius, **how)
        if counted_pairs is not None:
            value = precision(contacts, counted_pairs, min_separation=least)
            name += f", P@L {'between chains ' * between_chains}{value:.2f}"
    for axis in (axes.xaxis, axes.yaxis):
        number_by_chain(axis, contacts.chains)
    draw_boundaries(axes, contacts.chains, horizontal=True)
    axes.plot([first, last], [first, last], color="0.7", linewidth=0.8)
    axes.set(xlabel="residue", ylabel="residue", title=name)
    figure.legend(loc="outside lower center", frameon=False, ncols=2)
    words = {"probability": "contact probability", "score": "score of the categorical Jacobian"}
    how_much = words.get(contacts.measure, f"{contacts.method}, corrected (APC)")
    figure.colorbar(image, ax=axes, label=how_much, shrink=0.85, extend="neither" if is_probability else "both")


# aliphatic, aromatic, small, polar, basic, acidic
BY_CHEMISTRY = "ILVMCAFYWGPSTNQHKRDE"


def plot_substitutions(scores: SubstitutionScores, path: str | os.PathLike, title: str | None = None) -> None:
    """Draw the scores of all substitutions: residues from left to right, amino acids from top to bottom.

    A long query is drawn in several panels. Amino acids are ordered by chemistry. Blue substitutions score higher than
    the wild type, red ones lower; a dot marks the wild type. Residues without a score are grey.

    Parameters
    ----------
    scores : SubstitutionScores
        The scores to draw; see `modeling_msa.score_all_singles`.
    path, title
        As for `plot_contacts`; default title: the query's name.
    """
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    first, last = int(scores.residues[0]), int(scores.residues[-1])
    whole = np.full((last - first + 1, 20), np.nan)
    order = [scores.amino_acids.index(letter) for letter in BY_CHEMISTRY]
    whole[scores.residues - first] = scores.score[:, order]
    wild = dict(zip(scores.residues.tolist(), scores.wild_type, strict=True))
    # a few extreme scores must not make all others pale
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
        dots = [(number, BY_CHEMISTRY.index(letter)) for number, letter in shown.items() if letter in BY_CHEMISTRY]
        axes.scatter(*np.array(dots).reshape(-1, 2).T, s=60 * size, color="0.1", linewidths=0)
        axes.set_yticks(range(20), BY_CHEMISTRY, fontsize=50 * size, family="monospace")
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 5, 10]))
        axes.spines[["right", "top"]].set_visible(False)
        for number, letter in shown.items():
            axes.text(number, -0.8, letter, ha="center", va="bottom", fontsize=50 * size, family="monospace")
        number_by_chain(axes.xaxis, scores.chains, width)
        draw_boundaries(axes, scores.chains)
        axes.set_xlim(start - 0.5, start + width - 0.5)
    grid[-1].set_xlabel("residue (wild type above)")
    figure.suptitle(title or scores.name)
    ratio = "log [p(mutant) / p(wild type)]"
    figure.colorbar(
        image, ax=list(grid), label=ratio, shrink=min(1.0, 2.5 / panels), aspect=20, extend="both", pad=0.01
    )
    with whole_file(path) as temporary:
        figure.savefig(temporary)


def plot_variants(
    scores: VariantScores | SequenceScores,
    measured: np.ndarray,
    path: str | os.PathLike,
    title: str | None = None,
    label: str = "measured value",
) -> None:
    """Draw measured values against predicted scores, a point for each variant that has both.

    Parameters
    ----------
    scores : VariantScores or SequenceScores
        The scores; see `modeling_msa.score_variants` and `modeling_msa.score_sequences`.
    measured : ndarray, shape=(N,), dtype=float64
        Measured values of the same N variants; NaN where there is none.
    path, title
        As for `plot_contacts`; default title: the query's name, Spearman's correlation and the number of variants.
    label : str
        What was measured, for the axis.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    predicted, values = paired(scores.score, np.asarray(measured, dtype=float))
    figure = Figure(figsize=(5.6, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    size = min(20.0, max(3.0, 20000 / max(1, len(values))))
    # thousands of points: as pixels also in a .pdf or .svg
    axes.scatter(predicted, values, s=size, color=_RIGHT, linewidths=0, alpha=0.5, rasterized=True)
    low, high = axes.get_xlim()
    if low < 0 < high:
        axes.axvline(0, color="0.6", linewidth=0.8, zorder=0)
        how: dict[str, Any] = {"ha": "right", "va": "top", "rotation": 90, "color": "0.4"}
        axes.annotate("wild type", (0, 1), (-2, -2), axes.get_xaxis_transform(), "offset points", **how)
    correlation = spearman(predicted, values)
    words = "not defined" if np.isnan(correlation) else f"{correlation:.2f}"
    axes.set(
        xlabel="predicted score: ln [p(mutant) / p(wild type)] (natural logarithm)",
        ylabel=label,
        title=title or f"{scores.name}, Spearman {words} ({counted(len(values), 'variant')})",
    )
    axes.spines[["right", "top"]].set_visible(False)
    with whole_file(path) as temporary:
        figure.savefig(temporary)


def plot_distances(distances: Distances, path: str | os.PathLike, title: str | None = None) -> None:
    """Draw predicted against Hamming distances, a point for each pair of rows.

    Parameters
    ----------
    distances : Distances
        The distances to draw; pairs that have a row in the fit of the weights are grey.
    path, title
        As for `plot_contacts`; default title: the query's name, R2 and Pearson correlation.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    i, j = np.triu_indices(len(distances.names), 1)
    new = ~(distances.fitted[i] | distances.fitted[j])
    others = "pairs of rows" if new.all() else "pairs of other rows"
    shown = [(~new, "pairs with a row in the fit", "0.75"), (new, others, "tab:blue")]
    figure = Figure(figsize=(5.6, 5.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    low = max(-0.02, min(distances.predicted[i, j].min(), distances.hamming[i, j].min()) - 0.02)
    high = min(1.02, max(distances.predicted[i, j].max(), distances.hamming[i, j].max()) + 0.02)
    axes.plot([low, high], [low, high], color="0.4", linewidth=0.8, zorder=3)
    size = min(12.0, max(1.5, 40000 / max(1, len(i))))
    for chosen, label, color in shown:
        if chosen.any():
            x, y = distances.predicted[i[chosen], j[chosen]], distances.hamming[i[chosen], j[chosen]]
            label = f"{label} ({chosen.sum()})"
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
