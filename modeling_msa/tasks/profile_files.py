"""Write profiles: tab-separated tables and NumPy arrays; which rows a profile may count. Does not import torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from .._files import check_ending, whole_file
from ..alignments.chains import array_fields, residue_names

if TYPE_CHECKING:  # so that the formats are known without torch
    from .profiles import Profile

FORMATS = (".tsv", ".npz")
Frequencies = Literal["all", "seen"]


def check_frequencies(frequencies: str) -> None:
    """Raise ValueError for an unknown choice of the rows to count."""
    if frequencies not in get_args(Frequencies):
        raise ValueError(f"unknown choice of rows to count {frequencies!r}; use all or seen.")


def write_profile(profile: Profile, path: str | os.PathLike[str]) -> None:
    """Write a profile, in the format given by the ending; the file appears whole or not at all.

    Parameters
    ----------
    profile : Profile
        The profile to write.
    path : path
        ``.tsv``: a tab-separated table with a line for each residue: residue, wild_type, entropy, family_entropy,
        other, gaps, then p_A ... p_Y, the model's probabilities, and f_A ... f_Y, the family's frequencies. Numbers
        have eight significant digits; a frequency is empty in a column without residues. ``.npz``: the attributes of
        `Profile` under their names, for `numpy.load`; no pickled object. In tables residues of a complex are numbered
        by chain, ``A:42``; in ``.npz`` they go on from one chain to the next, and ``chain_names`` and
        ``chain_lengths`` say where each begins.

    Raises
    ------
    ValueError
        For another ending.
    """
    suffix = check_ending(path, FORMATS)
    with whole_file(path) as temporary:
        if suffix == ".npz":
            with temporary.open("wb") as file:  # given a name, NumPy appends .npz to .NPZ
                np.savez_compressed(file, **array_fields(vars(profile)))
            return
        letters = profile.amino_acids
        single = ("entropy", "family_entropy", "other", "gaps")
        names = [
            "residue",
            "wild_type",
            *single,
            *(f"p_{each}" for each in letters),
            *(f"f_{each}" for each in letters),
        ]
        numbers = [getattr(profile, name)[:, None] for name in single]
        table = np.concatenate([*numbers, profile.probabilities, profile.frequencies], axis=1)
        lines = ["\t".join(names)]
        labels = residue_names(profile.chains, profile.residues)
        for residue, letter, values in zip(labels, profile.wild_type, table.tolist(), strict=True):
            cells = ("" if np.isnan(value) else f"{value:.8g}" for value in values)
            lines.append("\t".join([residue, letter, *cells]))
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
