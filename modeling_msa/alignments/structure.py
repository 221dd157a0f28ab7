"""Known contacts of a query, from a structure.

Residues are matched by aligning the query with the chain's sequence, never by author numbering, which starts anywhere,
skips numbers and has insertion codes.
"""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .._files import read_plain, require_file
from .._words import counted
from .alignment import Alignment
from .chains import chain_slices, separated

if TYPE_CHECKING:
    import gemmi

_STANDARD = "ACDEFGHIKLMNPQRSTVWY"

_MOST_ORDERS, _MOST_EQUAL = 10_000, 120  # ways to match chains: to try, and that fit equally well
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
        The chain's (author) name; by default the chain in which most residues of the query are found. Of an alignment
        with chains, see `complex_contacts`, whose first matching is returned.
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
    if isinstance(alignment_or_query, Alignment) and alignment_or_query.chains:
        how = {"min_separation": min_separation, "min_identity": min_identity, "impute_beta": impute_beta}
        return next(iter(complex_contacts(path, alignment_or_query, chain, cutoff, **how).values()))  # type: ignore
    query = _letters(alignment_or_query)
    structure = _read(path)  # must be kept: its chains do not outlive it
    best = _best_match(structure, path, chain, query, min_identity)
    return _contacts(best.positions(impute_beta), np.arange(len(query)), cutoff, min_separation, path, impute_beta)


def complex_contacts(
    path: str | os.PathLike[str],
    alignment: Alignment,
    chain: str | None = None,
    cutoff: float = 8.0,
    *,
    min_separation: int = 0,
    min_identity: float = 0.8,
    impute_beta: bool = False,
) -> dict[str, np.ndarray]:
    """Find the contacts within and between the chains of a complex in a structure.

    Each chain of the alignment is matched with a chain of the structure by its sequence, no two with the same. If
    several matchings fit equally well, as both do of a homo-dimer, all of them are returned. A structure with fewer
    chains is expanded to its first biological assembly, if the file describes one.

    Parameters
    ----------
    path, cutoff, min_identity, impute_beta
        As for `structure_contacts`.
    alignment : Alignment
        With `Alignment.chains`.
    chain : str, optional
        Names of the structure's chains, one for each chain of the alignment and in their order, such as ``"A,C"``.
    min_separation : int, default 0
        Pairs of one chain that are closer in sequence are -100.

    Returns
    -------
    dict of str to ndarray, shape=(N, N), dtype=int8
        By the matching, such as ``"A:A,B:C"`` (chain of the alignment, then of the structure), the contacts over the
        query's N residues, as of `structure_contacts`.

    Raises
    ------
    ImportError, OSError, ValueError
        As `structure_contacts`; also if the structure has too few chains, or too many matchings fit equally well.
    """
    structure = _read(path)  # must be kept: its chains do not outlive it
    chains, wanted = alignment.chains, None if chain is None else [name.strip() for name in chain.split(",")]
    polymers = _expanded(structure, path, len(chains))
    if wanted is not None:
        if len(wanted) != len(chains) or len(set(wanted)) != len(wanted):
            raise ValueError(
                f"{path}: the alignment has {len(chains)} chains; name as many of the structure, in their order, such "
                f"as {','.join(list(polymers)[: len(chains)])}."
            )
        polymers = {name: _chains(structure, path, name)[name] for name in wanted}
    if len(polymers) < len(chains):
        raise ValueError(
            f"{path} has {counted(len(polymers), 'protein chain')}, but the alignment has {len(chains)}; give a "
            "structure of the whole complex, such as its biological assembly (mmCIF)."
        )
    parts = [alignment.query[start:end] for start, end in chain_slices(chains, len(alignment.query))]
    found = [{name: _match(name, each, part) for name, each in polymers.items()} for part in parts]
    orders: list[tuple[str, ...]]
    if wanted is not None:
        orders = [tuple(wanted)]
    else:
        if math.perm(len(polymers), len(parts)) > _MOST_ORDERS:
            raise ValueError(_too_many(path, len(polymers)))
        orders = list(itertools.permutations(polymers, len(parts)))
        totals = [sum(each[name].matches for each, name in zip(found, order, strict=True)) for order in orders]
        orders = [order for order, total in zip(orders, totals, strict=True) if total == max(totals)]
        if len(orders) > _MOST_EQUAL:
            raise ValueError(_too_many(path, len(polymers)))
    numbers = separated(chains, np.arange(1, len(alignment.query) + 1))
    contacts = {}
    for order in orders:
        matched = [each[name] for each, name in zip(found, order, strict=True)]
        for each in matched:
            each.check(path, min_identity)
        key = ",".join(f"{ours.name}:{theirs}" for ours, theirs in zip(chains, order, strict=True))
        positions = np.concatenate([each.positions(impute_beta) for each in matched])
        contacts[key] = _contacts(positions, numbers, cutoff, min_separation, path, impute_beta)
    return contacts


def _too_many(path: str | os.PathLike[str], count: int) -> str:
    return (
        f"{path} has {count} protein chains, and the complex fits them in too many ways; name the chains of the "
        "structure (chain, --chain A,B), in the order of the alignment's."
    )


def _expanded(structure: gemmi.Structure, path: str | os.PathLike[str], count: int) -> dict[str, gemmi.ResidueSpan]:
    """Protein chains of a structure; of its first biological assembly, if it has fewer than `count`."""
    import gemmi

    chains = _chains(structure, path, None)
    if len(chains) < count and len(structure.assemblies):
        structure.transform_to_assembly(structure.assemblies[0].name, gemmi.HowToNameCopiedChain.Short)
        structure.setup_entities()
        chains = _chains(structure, path, None)
    return chains


def _contacts(
    positions: np.ndarray,
    numbers: np.ndarray,
    cutoff: float,
    min_separation: int,
    path: str | os.PathLike[str],
    impute_beta: bool,
) -> np.ndarray:
    """Turn C-beta positions (N, 3) into contacts; separations are differences of `numbers`."""
    known = ~np.isnan(positions[:, 0])
    if known.sum() < 2:
        atoms = "N, CA and C atoms" if impute_beta else "a C-beta atom"
        raise ValueError(
            f"{path}: only {counted(known.sum(), 'residue')} of the query with {atoms}; give the whole structure."
        )
    with np.errstate(invalid="ignore"):
        contacts = (np.linalg.norm(positions[:, None] - positions[None], axis=-1) < cutoff).astype(np.int8)
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
        As for `structure_contacts`, with its errors. Of an alignment with chains, `chain` names as many of the
        structure, such as ``"A,C"``; they must be in the file itself, not only in its biological assembly.

    Returns
    -------
    residues : list of StructureResidue or None
        For each of the query's N residues, insertions included; None where the structure lacks it.
    models : int
        Number of models in the file, of which the first counts.
    """
    structure = _read(path)  # must be kept: its chains do not outlive it
    if isinstance(alignment_or_query, Alignment) and alignment_or_query.chains:
        query, chains = alignment_or_query.query, alignment_or_query.chains
        names: list[str | None] = [name.strip() for name in (chain or "").split(",")]
        if len(names) != len(chains):
            raise ValueError(f"{path}: name {len(chains)} chains of the structure, in the order of the alignment's.")
        parts = [query[start:end] for start, end in chain_slices(chains, len(query))]
    else:
        names, parts = [chain], [_letters(alignment_or_query)]
    residues: list[StructureResidue | None] = []
    present = _chains(structure, path, None)
    for name, part in zip(names, parts, strict=True):
        if name not in (None, *present) and name in _expanded(structure.clone(), path, len(names)):
            raise ValueError(
                f"{path}: chain {name} is only in the biological assembly, which programs that open the file do not "
                "build; write the assembly to a file of its own."
            )
        best = _best_match(structure, path, name, part, min_identity)
        found = {number: _named(best.name, residue) for number, residue in best.pairs}
        residues += [found.get(number) for number in range(len(part))]
    return residues, len(structure)


def _letters(alignment_or_query: Alignment | str) -> str:
    query = alignment_or_query.query if isinstance(alignment_or_query, Alignment) else alignment_or_query
    return "".join(letter for letter in query.upper() if letter.isalpha())


def _best_match(
    structure: gemmi.Structure, path: str | os.PathLike[str], chain: str | None, query: str, min_identity: float
) -> _Match:
    """Find the chain that matches a query best, of equal ones the first."""
    found = [_match(name, each, query) for name, each in _chains(structure, path, chain).items()]
    best = max(found, key=lambda each: each.matches)
    best.check(path, min_identity)
    return best


def _named(chain: str, residue: gemmi.Residue) -> StructureResidue:
    atom = "" if np.isnan(_beta(residue, False)[0]) else "CA" if residue.name == "GLY" else "CB"
    number = residue.seqid.num or 0  # a residue that was read has one
    return StructureResidue(chain.strip(), number, residue.seqid.icode.strip(), atom)


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


@dataclass(frozen=True)
class _Match:
    """A query aligned to a chain of a structure."""

    name: str  # of the chain
    matches: int  # identical residues
    length: int  # of the query
    pairs: list[tuple[int, gemmi.Residue]]  # aligned residues, numbered on the query from 0

    def check(self, path: str | os.PathLike[str], min_identity: float) -> None:
        """Raise ValueError if the chain has another sequence than the query."""
        if self.matches < min_identity * len(self.pairs) or self.matches == 0:
            raise ValueError(
                f"{path}, chain {self.name}: {self.matches} of {len(self.pairs)} aligned residues are the query's, "
                f"less than {min_identity:.0%}; give the query's own structure, another chain, or (in Python) a lower "
                "min_identity."
            )

    def positions(self, impute_beta: bool) -> np.ndarray:
        """C-beta of each query residue, (N, 3); NaN where it is missing."""
        atoms = np.full((self.length, 3), np.nan)
        for number, residue in self.pairs:
            atoms[number] = _beta(residue, impute_beta)
        return atoms


def _match(name: str, polymer: gemmi.ResidueSpan, query: str) -> _Match:
    import gemmi

    letters = "".join(letter if letter in _STANDARD else "X" for letter in query)
    names = gemmi.expand_one_letter_sequence(letters, gemmi.ResidueKind.AA)
    scoring = gemmi.AlignmentScoring("b")  # BLOSUM62; the default forbids mismatches
    residues = list(polymer.first_conformer())
    for residue in residues:  # a modified residue counts as its parent: selenomethionine as methionine
        parent = gemmi.find_tabulated_residue(residue.name).one_letter_code.upper()
        if parent in _STANDARD:
            residue.name = gemmi.expand_one_letter(parent, gemmi.ResidueKind.AA)
    alignment = gemmi.align_sequence_to_polymer(names, polymer, gemmi.PolymerType.PeptideL, scoring)
    filled = [
        np.array(list(alignment.add_gaps(text, which))) != "-"
        for which, text in ((1, letters), (2, "X" * len(residues)))
    ]
    places = ((np.cumsum(side) - 1)[filled[0] & filled[1]].tolist() for side in filled)
    pairs = [(number, residues[index]) for number, index in zip(*places, strict=True)]
    return _Match(name, alignment.match_count, len(query), pairs)


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
