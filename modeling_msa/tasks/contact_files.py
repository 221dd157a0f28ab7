"""Write contact maps and pairs of substitutions: tab-separated tables, CASP's RR and NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._files import check_ending, whole_file
from ..alignments.chains import chain_slices, format_chains, residue_names

if TYPE_CHECKING:  # so that the formats are known without torch
    from .contacts import PairMap
    from .jacobian import CategoricalJacobian

FORMATS = (".tsv", ".npz", ".rr")
_BLOCK = 2**16  # pairs that are text at a time: a long protein has millions


def write_contacts(
    contacts: PairMap,
    path: str | os.PathLike,
    min_separation: int = 6,
    between_chains: bool = False,
    beside: Sequence[PairMap] = (),
) -> None:
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
    between_chains : bool, default False
        Write only pairs of different chains of a complex to a ``.tsv`` or ``.rr``. There, residues of a complex are
        numbered by chain, ``A:42``; in ``.npz`` they go on from one chain to the next, and ``chain_names`` and
        ``chain_lengths`` say where each begins.
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
        else:
            form = _table if suffix == ".tsv" else _casp_rr
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(form(contacts, min_separation, between_chains, beside))


def check_beside(contacts: PairMap, beside: Sequence[PairMap]) -> None:
    """Raise ValueError if maps that are to stand beside another one are of other residues."""
    if wrong := [each for each in beside if not np.array_equal(each.residues, contacts.residues)]:
        raise ValueError(f"{wrong[0].method}: its residues are not those of the map that it is to stand beside.")


def _table(contacts: PairMap, min_separation: int, between_chains: bool, beside: Sequence[PairMap]) -> Iterator[str]:
    maps = (contacts, *beside)
    yield "\t".join(["i", "j", *(each.measure for each in maps)]) + "\n"
    names = np.array(residue_names(contacts.chains, contacts.residues))
    for some in _blocks(contacts.top(None, min_separation, between_chains)):
        yield _lines("{}\t{}" + "\t{:.6f}" * len(maps) + "\n", names[some], [_values(each, some) for each in maps])
    empty = "{}\t{}\t" + "\t{:.6f}" * len(beside) + "\n"
    for some in _blocks(contacts.uncovered(min_separation, between_chains)):
        yield _lines(empty, names[some], [_values(each, some) for each in beside])


def _blocks(pairs: np.ndarray) -> Iterator[np.ndarray]:
    return (pairs[start : start + _BLOCK] for start in range(0, len(pairs), _BLOCK))


def _values(contacts: PairMap, pairs: np.ndarray) -> list[float]:
    return contacts.values[pairs[:, 0], pairs[:, 1]].tolist()


def _lines(form: str, names: np.ndarray, columns: Sequence[Sequence[float]]) -> str:
    return "".join(form.format(i, j, *row) for i, j, *row in zip(*names.T.tolist(), *columns, strict=True))


def _casp_rr(contacts: PairMap, min_separation: int, between_chains: bool, beside: Sequence[PairMap]) -> Iterator[str]:
    # blanks separate, tabs are not allowed; a contact is a distance of 0 to 8 Angstrom
    name = (contacts.name.split() or ["unknown"])[0]
    parts = [contacts.query[start:end] for start, end in chain_slices(contacts.chains, len(contacts.query))]
    query = "".join(f"{part[start : start + 50]}\n" for part in parts for start in range(0, len(part), 50))
    rows = f"{contacts.depth} row{'s' if contacts.depth != 1 else ''}"
    head = f"PFRMAT RR\nTARGET {name}\nMETHOD {contacts.method}, {rows} of the alignment\n"
    scaled = contacts.measure != "probability"
    if scaled:
        head += "REMARK scores, divided by the highest; they are not probabilities\n"
    if contacts.chains:
        head += (
            f"REMARK chains {format_chains(contacts.chains)}, one below the other; residues are numbered by chain\n"
        )
    yield f"{head}MODEL 1\n{query}"
    names = np.array(residue_names(contacts.chains, contacts.residues))
    pairs = contacts.top(None, min_separation, between_chains)
    highest = max(_values(contacts, pairs[:1])[0], float(np.finfo(np.float32).tiny)) if scaled and len(pairs) else 1.0
    for some in _blocks(pairs):
        values = [max(value, 0) / highest if scaled else value for value in _values(contacts, some)]
        yield _lines("{} {} 0 8 {:.6f}\n", names[some], [values])
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
