"""Write contact maps and pairs of substitutions: tab-separated tables, CASP's RR and NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .._files import check_ending, whole_file

if TYPE_CHECKING:  # so that the formats are known without torch
    from .contacts import PairMap
    from .jacobian import CategoricalJacobian

FORMATS = (".tsv", ".npz", ".rr")
_BLOCK = 2**16  # pairs that are text at a time: a long protein has millions


def write_contacts(contacts: PairMap, path: str | os.PathLike, min_separation: int = 6) -> None:
    """Write a contact map, in the format given by the ending; the file appears whole or not at all.

    Parameters
    ----------
    contacts : ContactMap or CategoricalJacobian
        The map to write.
    path : path
        ``.tsv``: a tab-separated table i, j, probability (of a Jacobian: score), with query residue numbers from 1,
        most probable pair first; pairs that no window covers are last, without a number. ``.rr``: CASP's format RR, in
        the same order, without such pairs; a submission also requires a line ``AUTHOR`` with the group's code. RR has
        probabilities, so that scores are divided by the highest and negative ones are 0. ``.npz``: the attributes of
        the map under their names, for `numpy.load`; it has all pairs, and no pickled object. The whole Jacobian is
        float16 there.
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
                np.savez_compressed(file, **contacts.arrays())
        else:
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(
                    _table(contacts, min_separation) if suffix == ".tsv" else _casp_rr(contacts, min_separation)
                )


def _table(contacts: PairMap, min_separation: int) -> Iterator[str]:
    yield f"i\tj\t{contacts.measure}\n"
    yield from _pair_lines(contacts, min_separation, "{}\t{}\t{:.6f}\n")
    for some in _blocks(contacts.uncovered(min_separation)):
        yield "".join(f"{i}\t{j}\t\n" for i, j in contacts.residues[some].tolist())


def _pair_lines(contacts: PairMap, min_separation: int, form: str, scaled: bool = False) -> Iterator[str]:
    highest = None
    for some in _blocks(contacts.top(min_separation=min_separation)):
        values = contacts.values[some[:, 0], some[:, 1]]
        if scaled:
            highest = max(values[0], np.finfo(np.float32).tiny) if highest is None else highest
            values = np.maximum(values, 0) / highest
        numbers = zip(contacts.residues[some].tolist(), values.tolist(), strict=True)
        yield "".join(form.format(i, j, value) for (i, j), value in numbers)


def _blocks(pairs: np.ndarray) -> Iterator[np.ndarray]:
    return (pairs[start : start + _BLOCK] for start in range(0, len(pairs), _BLOCK))


def _casp_rr(contacts: PairMap, min_separation: int) -> Iterator[str]:
    # blanks separate, tabs are not allowed; a contact is a distance of 0 to 8 Angstrom
    name = (contacts.name.split() or ["unknown"])[0]
    query = "".join(f"{contacts.query[start : start + 50]}\n" for start in range(0, len(contacts.query), 50))
    rows = f"{contacts.depth} row{'s' if contacts.depth != 1 else ''}"
    head = f"PFRMAT RR\nTARGET {name}\nMETHOD {contacts.method}, {rows} of the alignment\n"
    scaled = contacts.measure != "probability"
    if scaled:
        head += "REMARK scores, divided by the highest; they are not probabilities\n"
    yield f"{head}MODEL 1\n{query}"
    yield from _pair_lines(contacts, min_separation, "{} {} 0 8 {:.6f}\n", scaled)
    yield "END\n"


def write_pairs(jacobian: CategoricalJacobian, path: str | os.PathLike) -> None:
    """Write a Jacobian's strongest pairs of substitutions as a tab-separated table, whole or not at all.

    The columns are mutant, such as ``A42V:G57D``, as `modeling_msa.score_variants` reads it, and epistasis, in nats.
    """
    values = zip(jacobian.pairs, jacobian.epistasis.tolist(), strict=True)
    lines = "".join(f"{name}\t{value:.6f}\n" for name, value in values)
    check_ending(path, (".tsv",))
    with whole_file(path) as temporary:
        temporary.write_text(f"mutant\tepistasis\n{lines}")
