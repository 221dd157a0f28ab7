"""Write contact maps and pairs of substitutions: tab-separated tables, CASP's RR and NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._files import check_ending, whole_file

if TYPE_CHECKING:  # so that the formats are known without torch
    from .contacts import PairMap
    from .jacobian import CategoricalJacobian

FORMATS = (".tsv", ".npz", ".rr")


def write_contacts(
    contacts: PairMap, path: str | os.PathLike, min_separation: int = 6, beside: Sequence[PairMap] = ()
) -> None:
    """Write a contact map, in the format given by the ending; the file appears whole or not at all.

    Parameters
    ----------
    contacts : ContactMap or CategoricalJacobian
        The map to write.
    path : path
        ``.tsv``: a tab-separated table i, j, probability (of a Jacobian: score), with query residue numbers from 1,
        most probable pair first. ``.rr``: CASP's format RR, in the same order; a submission also requires a line
        ``AUTHOR`` with the group's code. RR has probabilities, so that scores are divided by the highest and negative
        ones are 0. ``.npz``: the attributes of the map under their names, for `numpy.load`; it has all pairs, and no
        pickled object. The whole Jacobian is float16 there.
    min_separation : int, default 6
        Smallest difference of residue numbers of the pairs in a ``.tsv`` or ``.rr``.
    beside : sequence of CoevolutionMap, default ()
        Further maps of the same residues: a column each in a ``.tsv``, an array each in an ``.npz``, named
        mutual_information or dca. A ``.rr`` holds one number for each pair.

    Raises
    ------
    ValueError
        For another ending; if other maps have other residues, or are to go into a ``.rr``.

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
    check_beside(contacts, beside)
    if beside and suffix == ".rr":
        raise ValueError(f"{path}: RR has one number for each pair; write a .tsv or .npz for several.")
    with whole_file(path) as temporary:
        if suffix == ".npz":
            with temporary.open("wb") as file:  # given a name, NumPy appends .npz to .NPZ
                np.savez_compressed(file, **contacts.arrays() | {each.measure: each.values for each in beside})
        elif suffix == ".tsv":
            form = "{}\t{}" + "\t{:.6f}" * (1 + len(beside)) + "\n"
            head = "\t".join(["i", "j", contacts.measure, *(each.measure for each in beside)])
            temporary.write_text(f"{head}\n{_pair_lines(contacts, min_separation, form, beside=beside)}")
        else:
            temporary.write_text(_casp_rr(contacts, min_separation))


def check_beside(contacts: PairMap, beside: Sequence[PairMap]) -> None:
    """Raise ValueError if maps that are to stand beside another one are of other residues."""
    if wrong := [each for each in beside if not np.array_equal(each.residues, contacts.residues)]:
        raise ValueError(f"{wrong[0].method}: its residues are not those of the map that it is to stand beside.")


def _pair_lines(
    contacts: PairMap, min_separation: int, form: str, scaled: bool = False, beside: Sequence[PairMap] = ()
) -> str:
    pairs = contacts.top(min_separation=min_separation)
    numbers = contacts.residues[pairs].tolist()
    values = np.stack([each.values[pairs[:, 0], pairs[:, 1]] for each in (contacts, *beside)], axis=1)
    if scaled and len(values):
        values = np.maximum(values, 0) / max(values[0, 0], np.finfo(np.float32).tiny)
    return "".join(form.format(i, j, *row) for (i, j), row in zip(numbers, values.tolist(), strict=True))


def _casp_rr(contacts: PairMap, min_separation: int) -> str:
    # blanks separate, tabs are not allowed; a contact is a distance of 0 to 8 Angstrom
    name = (contacts.name.split() or ["unknown"])[0]
    query = "".join(f"{contacts.query[start : start + 50]}\n" for start in range(0, len(contacts.query), 50))
    rows = f"{contacts.depth} row{'s' if contacts.depth != 1 else ''}"
    head = f"PFRMAT RR\nTARGET {name}\nMETHOD {contacts.method}, {rows} of the alignment\n"
    scaled = contacts.measure != "probability"
    if scaled:
        head += "REMARK scores, divided by the highest; they are not probabilities\n"
    pairs = _pair_lines(contacts, min_separation, "{} {} 0 8 {:.6f}\n", scaled)
    return f"{head}MODEL 1\n{query}{pairs}END\n"


def write_pairs(jacobian: CategoricalJacobian, path: str | os.PathLike) -> None:
    """Write a Jacobian's strongest pairs of substitutions as a tab-separated table, whole or not at all.

    The columns are mutant, such as ``A42V:G57D``, as `modeling_msa.score_variants` reads it, and epistasis, in nats.
    """
    values = zip(jacobian.pairs, jacobian.epistasis.tolist(), strict=True)
    lines = "".join(f"{name}\t{value:.6f}\n" for name, value in values)
    check_ending(path, (".tsv",))
    with whole_file(path) as temporary:
        temporary.write_text(f"mutant\tepistasis\n{lines}")
