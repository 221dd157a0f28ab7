"""Known contacts of a query, from a structure.

Residues are matched by aligning the query with the chain's sequence, never by author numbering, which starts anywhere,
skips numbers and has insertion codes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._files import read_plain, require_file
from .._words import counted
from .alignment import Alignment

if TYPE_CHECKING:
    import gemmi

_STANDARD = "ACDEFGHIKLMNPQRSTVWY"

_MAX_BYTES = 250_000_000  # decompressed; gemmi takes twice as much memory


def structure_contacts(
    path: str | os.PathLike[str],
    alignment_or_query: Alignment | str,
    chain: str | None = None,
    cutoff: float = 8.0,
    *,
    min_separation: int = 0,
    min_identity: float = 0.8,
    impute_beta: bool = False,
) -> np.ndarray:
    r"""Find the contacts of a query in a structure: C-beta atoms (C-alpha of glycine) less than `cutoff` apart.

    This is the paper's definition of a contact (section 4.1), applied to the first model and each atom's first
    conformation.

    Parameters
    ----------
    path : str or path-like
        PDB or mmCIF file, plain or compressed by gzip.
    alignment_or_query : Alignment or str
        A family, whose query counts, or the query itself; gaps in a string are removed.
    chain : str, optional
        The chain's (author) name; by default the chain in which most residues of the query are found.
    cutoff : float, default 8.0
        Distance in Angstrom.
    min_separation : int, default 0
        Pairs closer in sequence are -100, which excludes them from training.
    min_identity : float, default 0.8
        Minimum fraction of identical residues among the aligned ones.
    impute_beta : bool, default False
        Ignore the file's C-beta atoms, and place an ideal one for each residue, glycine included, 1.522 Angstrom from
        C-alpha, from its N, C-alpha and C. fair-esm's contact notebook does so for its published figures.

    Returns
    -------
    ndarray, shape=(N, N), dtype=int8
        Over the query's N residues, insertions included: 1 contact, 0 none, -100 where the structure lacks one of
        the two residues (or its C-beta).

    Raises
    ------
    ImportError
        If gemmi is not installed.
    OSError
        If the file does not exist.
    ValueError
        If the file is not a structure, lacks the chain or a protein, or its sequence is not the query's.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> atom = "ATOM  {0:5}  CA  GLY A{1:4}    {2:8.3f}   0.000   0.000  1.00  0.00           C  "
    >>> lines = [atom.format(k, 40 + k, 3.8 * k) for k in range(1, 5)]  # numbered from 41
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "glycines.pdb")
    ...     _ = path.write_text("\n".join(lines))
    ...     contacts = structure_contacts(path, "AGGGG")
    >>> contacts
    array([[-100, -100, -100, -100, -100],
           [-100,    1,    1,    1,    0],
           [-100,    1,    1,    1,    1],
           [-100,    1,    1,    1,    1],
           [-100,    0,    1,    1,    1]], dtype=int8)
    """
    query = _letters(alignment_or_query)
    structure = _read(path)  # must be kept: its chains do not outlive it
    matched = _matched(_chains(structure, path, chain), query, path, min_identity)[1]
    nowhere = np.full(3, np.nan)
    positions = np.array([nowhere if each is None else _beta(each, impute_beta) for each in matched])
    known = ~np.isnan(positions[:, 0])
    if known.sum() < 2:
        atoms = "N, CA and C atoms" if impute_beta else "a C-beta atom"
        raise ValueError(
            f"{path}: only {counted(known.sum(), 'residue')} of the query with {atoms}; give the whole structure."
        )
    with np.errstate(invalid="ignore"):
        contacts = (np.linalg.norm(positions[:, None] - positions[None], axis=-1) < cutoff).astype(np.int8)
    numbers = np.arange(len(query))
    unknown = ~(known[:, None] & known) | (np.abs(numbers[:, None] - numbers) < min_separation)
    contacts[unknown] = -100
    return contacts


class StructureResidue(NamedTuple):
    """A residue of a structure, by the names that its file gives: the author's, not mmCIF's own.

    Attributes
    ----------
    chain : str
        Name of its chain; empty if the file names none.
    number : int
        Residue number.
    insertion : str
        Insertion code; empty for most.
    atom : str
        The atom that decides about contacts: "CB", of glycine "CA"; empty if the file lacks it.
    """

    chain: str
    number: int
    insertion: str
    atom: str


def structure_residues(
    path: str | os.PathLike[str],
    alignment_or_query: Alignment | str,
    chain: str | None = None,
    min_identity: float = 0.8,
) -> tuple[list[StructureResidue | None], int]:
    """Find the residues of a query in a structure, matched as by `structure_contacts`.

    Parameters
    ----------
    path, alignment_or_query, chain, min_identity
        As for `structure_contacts`, with its errors.

    Returns
    -------
    residues : list of StructureResidue or None
        For each of the query's N residues, insertions included; None where the structure lacks it.
    models : int
        Number of models in the file, of which the first counts.
    """
    structure = _read(path)
    name, matched = _matched(_chains(structure, path, chain), _letters(alignment_or_query), path, min_identity)
    residues = [
        None
        if each is None
        else StructureResidue(
            name.strip(),
            each.seqid.num,
            each.seqid.icode.strip(),
            "" if np.isnan(_beta(each, False)[0]) else "CA" if each.name == "GLY" else "CB",
        )
        for each in matched
    ]
    return residues, len(structure)


def _letters(alignment_or_query: Alignment | str) -> str:
    query = alignment_or_query.query if isinstance(alignment_or_query, Alignment) else alignment_or_query
    return "".join(letter for letter in query.upper() if letter.isalpha())


def require_gemmi() -> None:
    """Raise ImportError if structures cannot be read, for want of gemmi."""
    try:
        import gemmi  # noqa: F401
    except ImportError as error:
        raise ImportError("Reading structures requires gemmi: pip install 'modeling-msa[structure]'.") from error


def _read(path: str | os.PathLike[str]) -> gemmi.Structure:
    require_gemmi()
    import gemmi

    require_file(path)
    with open(path, "rb") as file:
        if read_plain(file, _MAX_BYTES) is None:
            raise ValueError(f"{path} has more than {_MAX_BYTES // 10**6} MB of text; keep the chain of the query.")
    try:
        structure = gemmi.read_structure(os.fspath(path))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is not a structure ({error}); give a PDB or mmCIF file, plain or .gz.") from error
    structure.setup_entities()
    return structure


def _chains(
    structure: gemmi.Structure, path: str | os.PathLike[str], chain: str | None
) -> dict[str, gemmi.ResidueSpan]:
    """Protein chains of the first model, or the requested one; the structure must outlive them."""
    from gemmi import PolymerType

    chains = {}
    for each in structure[0] if len(structure) else ():
        polymer = each.get_polymer()
        if polymer.check_polymer_type() in (PolymerType.PeptideL, PolymerType.PeptideD):
            chains[each.name] = polymer
    if not chains:
        raise ValueError(f"{path} has no protein chain; give a PDB or mmCIF file with the query's structure.")
    if chain is not None and chain not in chains:
        raise ValueError(f"{path} has no protein chain {chain!r}; use one of {', '.join(chains)}.")
    return chains if chain is None else {chain: chains[chain]}


def _matched(
    chains: dict[str, gemmi.ResidueSpan], query: str, path: str | os.PathLike[str], min_identity: float
) -> tuple[str, list[gemmi.Residue | None]]:
    """Name of the chain that matches the query best, and its residue for each of the query's, or None."""
    import gemmi

    letters = "".join(letter if letter in _STANDARD else "X" for letter in query)
    names = gemmi.expand_one_letter_sequence(letters, gemmi.ResidueKind.AA)
    scoring = gemmi.AlignmentScoring("b")  # BLOSUM62; the default forbids mismatches
    best: tuple[int, int, str, list[gemmi.Residue | None]] | None = None
    for name, polymer in chains.items():
        residues = list(polymer.first_conformer())
        for residue in residues:  # a modified residue counts as its parent: selenomethionine as methionine
            parent = gemmi.find_tabulated_residue(residue.name).one_letter_code.upper()
            if parent in _STANDARD:
                residue.name = gemmi.expand_one_letter(parent, gemmi.ResidueKind.AA)
        alignment = gemmi.align_sequence_to_polymer(names, polymer, gemmi.PolymerType.PeptideL, scoring)
        if best is not None and alignment.match_count <= best[0]:
            continue
        filled = [
            np.array(list(alignment.add_gaps(text, which))) != "-"
            for which, text in ((1, letters), (2, "X" * len(residues)))
        ]
        aligned = filled[0] & filled[1]
        matched: list[gemmi.Residue | None] = [None] * len(query)
        for number, index in zip(*((np.cumsum(side) - 1)[aligned] for side in filled), strict=True):
            matched[number] = residues[index]
        best = alignment.match_count, int(aligned.sum()), name, matched
    matches, count, name, matched = best  # type: ignore[misc]
    if matches < min_identity * count or matches == 0:
        raise ValueError(
            f"{path}, chain {name}: {matches} of {count} aligned residues are the query's, less than "
            f"{min_identity:.0%}; give the query's own structure, another chain, or (in Python) a lower min_identity."
        )
    return name, matched


def _beta(residue: gemmi.Residue, impute: bool) -> np.ndarray:
    """Position of C-beta (C-alpha of glycine), or of an ideal one, (3,); NaN if atoms are missing."""
    names = ("N", "CA", "C") if impute else ("CA",) if residue.name == "GLY" else ("CB",)
    found = [residue.find_atom(name, "*") for name in names]
    if any(atom is None for atom in found):
        return np.full(3, np.nan)
    places = np.array([atom.pos.tolist() for atom in found])
    return _ideal_beta(*places) if impute else places[0]


def _ideal_beta(n: np.ndarray, alpha: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Place C-beta by its bond to C-alpha, its angle with N and its dihedral with C about N - C-alpha."""
    length, angle, dihedral = 1.522, 1.927, -2.143  # Angstrom and radians; fair-esm's notebook, trRosetta before it
    along = (n - alpha) / np.linalg.norm(n - alpha)
    normal = np.cross(n - c, along)  # of the plane of the three atoms
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, along)
    sideways = np.cos(dihedral) * across - np.sin(dihedral) * normal
    return alpha + length * (np.cos(angle) * along + np.sin(angle) * sideways)
