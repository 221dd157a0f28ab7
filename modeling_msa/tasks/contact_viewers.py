"""Scripts for PyMOL and ChimeraX that draw predicted contacts on a structure."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .._files import check_ending, whole_file
from .._words import counted
from ..alignments.alignment import Alignment
from ..alignments.structure import StructureResidue, structure_contacts, structure_residues

if TYPE_CHECKING:  # so that the formats are known without torch
    from .contacts import PairMap

VIEWERS = (".pml", ".cxc")
RIGHT, WRONG = "#0072b2", "#d55e00"  # of contacts in pictures too
_MODEL = 1000  # a number that nothing else has in a session of ChimeraX


def write_viewer(
    contacts: PairMap,
    structure: str | os.PathLike[str],
    path: str | os.PathLike[str],
    chain: str | None = None,
    count: int | None = None,
    between_chains: bool = False,
) -> int:
    """Write a script that opens a structure and draws the most probable pairs on it; it appears whole or not at all.

    A pair is a line between the C-beta atoms (C-alpha of glycine): blue if they are less than 8 Angstrom apart,
    orange if not. Pairs with a residue that the structure lacks are left out. Residues have the structure's own chain
    and numbers, insertion codes included; `structure_contacts` says how they are found. The structure is opened by its
    absolute path.

    Parameters
    ----------
    contacts : ContactMap, CategoricalJacobian or CoevolutionMap
        The map. Its pairs are at least 6 apart.
    structure : path
        PDB or mmCIF file, plain or .gz.
    path : path
        ``.pml``: for PyMOL, with the objects ``msa_structure``, ``msa_right`` and ``msa_wrong``. ``.cxc``: for UCSF
        ChimeraX, with the structure as model 1000 and pseudobonds "right" and "wrong".
    chain : str, optional
        The structure's chain; default: the one in which most residues of the query are found. Of a complex one for
        each of its chains, in their order, such as ``"A,C"``.
    count : int, optional
        Number of pairs, counted before any are left out; default: L, the size of the map.
    between_chains : bool, default False
        Draw only pairs of different chains of a complex.

    Returns
    -------
    int
        Number of pairs in the script.

    Raises
    ------
    ImportError, OSError, ValueError
        As `structure_contacts`; for another ending; if the program could not read the structure's path or chain.
    """
    suffix = check_ending(path, VIEWERS)
    query = Alignment.from_sequences([contacts.query], chains=contacts.chains)
    residues, models = check_viewer(structure, query, path, chain)
    known = structure_contacts(structure, query, chain)
    count = len(contacts.residues) if count is None else count
    pairs = contacts.residues[contacts.top(count, between_chains=between_chains)] - 1
    drawn = {kind: pairs[known[pairs[:, 0], pairs[:, 1]] == state] for kind, state in (("right", 1), ("wrong", 0))}
    atoms = {kind: [(residues[i], residues[j]) for i, j in each.tolist()] for kind, each in drawn.items()}
    number = len(drawn["right"]) + len(drawn["wrong"])
    head = (  # without a semicolon, after which both programs read a command
        f"# {counted(number, 'pair')} of the {len(pairs)} {_kind(contacts)}, "
        f"{len(pairs) - number} with a residue that the structure lacks\n"
        f"# right: {len(drawn['right'])}, less than 8 Angstrom apart, wrong: {len(drawn['wrong'])}\n"
    )
    write = _pymol if suffix == ".pml" else _chimerax
    text = head + write(Path(structure), atoms, models)  # type: ignore[arg-type]
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return number


def _kind(contacts: PairMap) -> str:
    return "most probable ones" if contacts.measure == "probability" else f"strongest ones ({contacts.measure})"


def check_viewer(
    structure: str | os.PathLike[str], query: Alignment, script: str | os.PathLike[str], chain: str | None = None
) -> tuple[list[StructureResidue | None], int]:
    """Return `structure_residues`; ValueError if a script cannot name their chains, or the structure."""
    check_path(structure, script)
    residues, models = structure_residues(structure, query, chain)
    is_chimerax = Path(script).suffix.lower() == ".cxc"
    for name in {each.chain for each in residues if each is not None}:
        if not re.fullmatch("[A-Za-z0-9_]*" if is_chimerax else "[A-Za-z0-9_-]*", name):
            program = "ChimeraX" if is_chimerax else "PyMOL"
            raise ValueError(f"{structure}: {program} cannot select a chain named {name!r}; rename it in the file.")
    return residues, models


def check_path(structure: str | os.PathLike[str], script: str | os.PathLike[str]) -> None:
    """Raise ValueError if a script cannot name this structure: neither PyMOL nor ChimeraX can quote all names."""
    name = Path(structure).absolute().as_posix()
    is_chimerax = Path(script).suffix.lower() == ".cxc"
    program = "ChimeraX" if is_chimerax else "PyMOL"
    found = re.search(r"[$\"\\\x00-\x1f\x7f]" if is_chimerax else r"[$\x00-\x1f\x7f]", name)
    if found:
        raise ValueError(f"{structure}: {program} cannot read a path with {found[0]!r}; rename the file or folder.")
    if is_chimerax and name.lower().endswith((".cif.gz", ".mmcif.gz")):
        raise ValueError(f"{structure}: ChimeraX does not read compressed mmCIF; unpack the file, or use a .pml.")


def _pymol(structure: Path, atoms: dict[str, list[tuple[StructureResidue, StructureResidue]]], models: int) -> str:
    """Write the lines; / begins a line of Python, where any path can be quoted."""

    def selected(residue: StructureResidue) -> str:
        number = f"{residue.number}".replace("-", "\\-") + residue.insertion
        # one atom, also where it has several places
        return f'first (msa_structure and chain "{residue.chain}" and resi {number} and name {residue.atom})'

    kind = "pdb" if re.search(r"\.(pdb|ent)(\.gz)?$", structure.name.lower()) else "cif"
    lines = [
        "delete msa_structure or msa_right or msa_wrong",
        "set cif_use_auth, on",
        f"/cmd.load({_python(structure.absolute().as_posix())}, 'msa_structure', format='{kind}')",
        "hide everything, msa_structure",
        "show cartoon, msa_structure",
        "color gray80, msa_structure",
    ]
    for name, color in (("right", RIGHT), ("wrong", WRONG)):
        lines += [f"distance msa_{name}, {selected(i)}, {selected(j)}" for i, j in atoms[name]]
        if atoms[name]:
            lines += [f"set_color msa_{name}_color, {_rgb(color)}", f"color msa_{name}_color, msa_{name}"]
            lines += [f"hide labels, msa_{name}", f"set dash_gap, 0, msa_{name}", f"set dash_width, 3, msa_{name}"]
    return "\n".join([*lines, "orient msa_structure", ""])


def _python(text: str) -> str:
    """Quote a text for Python; anything that PyMOL's parser may see as its own is escaped."""

    def escaped(match: re.Match[str]) -> str:
        return f"\\U{ord(match[0]):08x}"

    return "'" + re.sub(r"[^A-Za-z0-9/._ -]", escaped, text) + "'"


def _rgb(color: str) -> list[float]:
    return [round(int(color[k : k + 2], 16) / 255, 4) for k in (1, 3, 5)]


def _chimerax(structure: Path, atoms: dict[str, list[tuple[StructureResidue, StructureResidue]]], models: int) -> str:
    """Write the lines."""
    model = f"#{_MODEL}.1" if models > 1 else f"#{_MODEL}"  # an ensemble's members are submodels

    def selected(residue: StructureResidue) -> str:
        chain = f"/{residue.chain}" if residue.chain else ""
        return f"{model}{chain}:{residue.number}{residue.insertion}@{residue.atom}"

    lines = [
        f'open "{structure.absolute().as_posix()}" id {_MODEL}',
        f"hide {model} atoms",
        f"cartoon {model}",
        f"color {model} #cccccc",
    ]
    for name, color in (("right", RIGHT), ("wrong", WRONG)):
        lines += [
            f"pbond {selected(i)} {selected(j)} color {color} radius 0.15 dashes 0 name {name}" for i, j in atoms[name]
        ]
    return "\n".join([*lines, f"view {model}", ""])
