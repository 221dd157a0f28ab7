"""Draw profiles as sequence logos; requires matplotlib (``pip install modeling-msa[plot]``)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .._files import whole_file
from .pictures import check_picture, draw_boundaries, number_by_chain
from .profiles import Profile

# distinguishable with any colour vision (Okabe and Ito)
_GROUPS = {
    "aliphatic (AVILMC)": ("AVILMC", "#3b3b3b"),
    "aromatic (FWY)": ("FWY", "#009e73"),
    "small (GP)": ("GP", "#cc79a7"),
    "polar (STNQ)": ("STNQ", "#e69f00"),
    "basic (KRH)": ("KRH", "#0072b2"),
    "acidic (DE)": ("DE", "#d55e00"),
}
_COLORS = {letter: color for letters, color in _GROUPS.values() for letter in letters}
_MOST = np.log(20)  # information of a column with one amino acid only, in nats
_LEAST = 0.02  # nats: lower letters are not seen


def plot_profile(profile: Profile, path: str | os.PathLike, title: str | None = None) -> None:
    """Draw a profile as two sequence logos, one above the other: the model's probabilities, the family's frequencies.

    The height of a column is its information, ln 20 minus its entropy, in nats; a letter takes the share of it that is
    its probability, the most probable on top. The query's residues are written between the two. A long query is drawn
    in several panels.

    Parameters
    ----------
    profile : Profile
        The profile to draw; see `modeling_msa.predict_profile`.
    path : path
        Picture to write; its ending (.png, .pdf, .svg) is the format. It appears whole or not at all.
    title : str, optional
        Default: the query's name.

    Raises
    ------
    ImportError, ValueError
        Without matplotlib; if the ending is not a picture format.
    """
    check_picture(path)
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Patch

    first, last = int(profile.residues[0]), int(profile.residues[-1])
    length = last - first + 1
    panels = -(-length // (60 if length <= 240 else 80))
    width = -(-length // panels)  # all panels alike
    size = (max(6.5, width * 0.2 + 1.2), panels * 2.5 + 0.9)
    figure = Figure(figsize=size, dpi=150, layout=ConstrainedLayoutEngine(h_pad=0.04, hspace=0))
    parts = figure.subfigures(panels, 1, squeeze=False)[:, 0]
    for panel, part in enumerate(parts):
        start = first + panel * width
        above, below = part.subplots(2, 1, sharex=True)
        _draw_logo(above, profile, profile.probabilities, profile.entropy, start, width)
        _draw_logo(below, profile, profile.frequencies, profile.family_entropy, start, width)
        above.set_ylabel("model")
        below.set_ylabel("family")
        above.tick_params(axis="x", length=0, labelbottom=False)
        for number, letter in zip(profile.residues, profile.wild_type, strict=True):
            if start <= number < start + width:
                place = {"xytext": (0, -4), "textcoords": "offset points", "annotation_clip": False}
                above.annotate(letter, (number, 0), ha="center", va="top", fontsize=7, family="monospace", **place)
    figure.supylabel("information (nats): ln 20 − entropy", fontsize=9)
    parts[-1].axes[-1].set_xlabel("residue (wild type between the two)")
    figure.suptitle(title or profile.name)
    patches = [Patch(color=color, label=name) for name, (_, color) in _GROUPS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=6 if width > 45 else 3, frameon=False, fontsize=8)
    with whole_file(path) as temporary:
        figure.savefig(temporary)


def _draw_logo(axes: Any, profile: Profile, values: np.ndarray, entropy: np.ndarray, start: int, width: int) -> None:
    """Draw the letters of the residues from `start` on; those without a column stay blank."""
    from matplotlib.collections import PathCollection
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import Affine2D

    shapes = _letter_shapes(profile.amino_acids)
    paths, colors = [], []
    for row in np.flatnonzero((profile.residues >= start) & (profile.residues < start + width)):
        heights = np.nan_to_num(values[row] * (_MOST - entropy[row]))
        bottom = 0.0
        for k in np.argsort(heights, kind="stable"):
            if heights[k] >= _LEAST:
                place = Affine2D().scale(0.94, heights[k]).translate(profile.residues[row] - 0.47, bottom)
                paths.append(shapes[k].transformed(place))
                colors.append(_COLORS[profile.amino_acids[k]])
            bottom += heights[k]
    axes.add_collection(PathCollection(paths, facecolors=colors, linewidths=0))
    axes.set(xlim=(start - 0.6, start + width - 0.4), ylim=(0, _MOST), yticks=[0, 1, 2, 3])
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True, steps=[1, 5, 10]))
    number_by_chain(axes.xaxis, profile.chains)
    draw_boundaries(axes, profile.chains)
    axes.set_xlim(start - 0.6, start + width - 0.4)
    axes.tick_params(labelsize=8)
    axes.spines[["right", "top"]].set_visible(False)


def _letter_shapes(letters: str) -> list[Any]:
    """Outlines of letters, each stretched to the square from (0, 0) to (1, 1)."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    font = FontProperties(family="DejaVu Sans Mono", weight="bold")  # comes with matplotlib; its I is wide
    shapes = []
    for letter in letters:
        outline = TextPath((0, 0), letter, size=1, prop=font)
        box = outline.get_extents()
        shapes.append(outline.transformed(Affine2D().translate(-box.x0, -box.y0).scale(1 / box.width, 1 / box.height)))
    return shapes
