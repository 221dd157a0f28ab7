"""Write contact maps: tab-separated tables, CASP's RR and NumPy arrays."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from .._files import check_ending, whole_file

if TYPE_CHECKING:  # so that the formats are known without torch
    from .contacts import ContactMap

FORMATS = (".tsv", ".npz", ".rr")


def write_contacts(contacts: ContactMap, path: str | os.PathLike, min_separation: int = 6) -> None:
    """Write a contact map, in the format given by the ending; the file appears whole or not at all.

    Parameters
    ----------
    contacts : ContactMap
        The map to write.
    path : path
        ``.tsv``: a tab-separated table i, j, probability, with query residue numbers from 1, most probable pair
        first. ``.rr``: CASP's format RR, in the same order; a submission also requires a line ``AUTHOR`` with the
        group's code. ``.npz``: the attributes of `ContactMap` under their names, for `numpy.load`; it has all pairs,
        and no pickled object.
    min_separation : int, default 6
        Smallest difference of residue numbers of the pairs in a ``.tsv`` or ``.rr``.

    Raises
    ------
    ValueError
        For another ending.

    Examples
    --------
    >>> import tempfile
    >>> from modeling_msa import ContactMap
    >>> contacts = ContactMap("dipeptide", "MK", np.array([1, 2]), np.array([[0, 0.9], [0.9, 0]]), depth=1)
    >>> with tempfile.NamedTemporaryFile(suffix=".rr") as file:
    ...     write_contacts(contacts, file.name, min_separation=1)
    ...     print(open(file.name).read())
    PFRMAT RR
    TARGET dipeptide
    METHOD MSA Transformer, 1 row of the alignment
    MODEL 1
    MK
    1 2 0 8 0.900000
    END
    """
    suffix = check_ending(path, FORMATS)
    with whole_file(path) as temporary:
        if suffix == ".npz":
            with temporary.open("wb") as file:  # given a name, NumPy appends .npz to .NPZ
                np.savez_compressed(file, **vars(contacts))
        elif suffix == ".tsv":
            lines = _pair_lines(contacts, min_separation, "{}\t{}\t{:.6f}\n")
            temporary.write_text(f"i\tj\tprobability\n{lines}")
        else:
            temporary.write_text(_casp_rr(contacts, min_separation))


def _pair_lines(contacts: ContactMap, min_separation: int, form: str) -> str:
    pairs = contacts.top(min_separation=min_separation)
    numbers = contacts.residues[pairs].tolist()
    values = contacts.probabilities[pairs[:, 0], pairs[:, 1]].tolist()
    return "".join(form.format(i, j, value) for (i, j), value in zip(numbers, values, strict=True))


def _casp_rr(contacts: ContactMap, min_separation: int) -> str:
    # blanks separate, tabs are not allowed; a contact is a distance of 0 to 8 Angstrom
    name = (contacts.name.split() or ["unknown"])[0]
    query = "".join(f"{contacts.query[start : start + 50]}\n" for start in range(0, len(contacts.query), 50))
    rows = f"{contacts.depth} row{'s' if contacts.depth != 1 else ''}"
    head = f"PFRMAT RR\nTARGET {name}\nMETHOD MSA Transformer, {rows} of the alignment\nMODEL 1\n"
    return head + query + _pair_lines(contacts, min_separation, "{} {} 0 8 {:.6f}\n") + "END\n"
