"""Write distances between rows: PHYLIP matrices, tab-separated tables and NumPy arrays."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal

import numpy as np

from .._files import check_ending, whole_file

if TYPE_CHECKING:  # so that the formats are known without torch
    from .distances import Distances

FORMATS = (".phy", ".tsv", ".npz")


def write_distances(
    distances: Distances, path: str | os.PathLike, names: Literal["relaxed", "strict"] = "relaxed"
) -> None:
    """Write distances, in the format given by the ending; the file appears whole or not at all.

    ``.phy`` is PHYLIP's square matrix of the predicted distances, which tree builders read. ``.tsv`` is a table of
    row pairs: numbers from 1, names, predicted and Hamming distance. ``.npz`` holds the fields of `Distances`.

    Parameters
    ----------
    distances : Distances
    path : path
    names : {"relaxed", "strict"}, default "relaxed"
        For PHYLIP: names as `tree_names` makes them, or cut to the 10 characters that the original programs allow.

    Raises
    ------
    ValueError
        For another ending.
    """
    suffix = check_ending(path, FORMATS)
    labels = tree_names(distances.names, 10 if names == "strict" else None)
    with whole_file(path) as temporary:
        if suffix == ".npz":
            with temporary.open("wb") as file:  # given a name, NumPy appends .npz to .NPZ
                np.savez_compressed(file, **asdict(distances))
        elif suffix == ".phy":
            lines = [
                f"{label:<10} {' '.join(f'{value:.6f}' for value in row)}\n"
                for label, row in zip(labels, distances.predicted, strict=True)
            ]
            temporary.write_text(f"{len(lines)}\n" + "".join(lines))
        else:
            lines = [
                f"{a + 1}\t{b + 1}\t{labels[a]}\t{labels[b]}\t{distances.predicted[a, b]:.6f}\t"
                f"{distances.hamming[a, b]:.6f}\n"
                for a, b in zip(*(index.tolist() for index in np.triu_indices(len(labels), 1)), strict=True)
            ]
            temporary.write_text("i\tj\tname_i\tname_j\tpredicted\thamming\n" + "".join(lines))


def tree_names(names: Iterable[str], length: int | None = None) -> list[str]:
    """Make names that PHYLIP and Newick files can hold: first words, without Newick's signs, all different.

    `names` are header lines, `length` is the maximum number of characters of a name; a repeated name gets a number at
    its end.

    Examples
    --------
    >>> tree_names(["FINC_RAT/1-80 rat", "a(b):c", "a(b):c", ""])
    ['FINC_RAT/1-80', 'a_b__c', 'a_b__c_2', 'row_4']
    >>> tree_names(["UniRef100_A", "UniRef100_B"], 10)
    ['UniRef100_', 'UniRef10_2']
    """
    made: dict[str, None] = {}
    for row, name in enumerate(names, start=1):
        word = re.sub(r"[^\w.|/+*#@=-]", "_", (name.split() or [f"row_{row}"])[0], flags=re.ASCII)
        label, count = word[:length], 1
        while label in made:
            count += 1
            end = f"_{count}"
            label = (word if length is None else word[: length - len(end)]) + end
        made[label] = None
    return list(made)
