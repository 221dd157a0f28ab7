"""The contract of contacts from a structure: C-beta atoms (C-alpha of glycine) less than 8 Angstrom apart.

They are numbered on the query, insertions included. Author numbering, missing residues, other chains and modified
residues do not shift them, what the structure lacks is -100, and errors say what to do.
"""

import sys
from pathlib import Path

import gemmi
import numpy as np
import pytest
from straight_chains import THREE, atom, chain_of, near, write

from modeling_msa import Alignment, read_alignment
from modeling_msa.alignments.structure import structure_contacts

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def test_distance_by_hand(tmp_path):
    """Residues 4 Angstrom apart: neighbours at 4 touch, second neighbours at exactly 8 do not; at 9 they do."""
    path = write(tmp_path / "a.pdb", *chain_of("MKVLAW", step=4.0))
    contacts = structure_contacts(path, "MKVLAW")
    assert contacts.dtype == np.int8
    assert np.array_equal(contacts, near(6, 1))
    assert np.array_equal(structure_contacts(path, "MKVLAW", cutoff=9.0), near(6, 2))
    far = structure_contacts(path, "MKVLAW", cutoff=9.0, min_separation=2)
    assert np.array_equal(far, np.where(near(6, 1) == 1, -100, near(6, 2)))


def test_which_atom(tmp_path):
    """C-beta, not C-alpha; C-alpha of glycine; the first of two conformations; no C-beta: unknown."""
    lines = [
        *(atom("CA", "MET", 1, 0), atom("CB", "MET", 1, 0, y=5)),
        *(atom("CA", "LYS", 2, 4), atom("CB", "LYS", 2, 4, y=-5)),  # 10.8 from the first, their C-alphas 4
        *(atom("CA", "GLY", 3, 8),),  # 9.4 from the first, 6.4 from the second
        *(atom("CA", "VAL", 4, 12), atom("CB", "VAL", 4, 9, altloc="A"), atom("CB", "VAL", 4, 90, altloc="B")),
        atom("CA", "LEU", 5, 16),
    ]
    contacts = structure_contacts(write(tmp_path / "a.pdb", *lines), "MKGVL")
    unknown = -100
    assert contacts.tolist() == [
        [1, 0, 0, 0, unknown],
        [0, 1, 1, 1, unknown],
        [0, 1, 1, 1, unknown],
        [0, 1, 1, 1, unknown],
        [unknown] * 5,
    ]


def test_residues_are_matched_by_sequence(tmp_path):
    """Author numbers 501, 501A, 503, 12 ...; two residues missing within, one before; a mutation; MSE for M."""
    whole = "MKVLAWDCKAVLMWDACLKV"
    lines = []
    for index, letter in enumerate(whole):
        if index in (0, 8, 9):
            continue
        residue = {5: "ALA", 12: "MSE"}.get(index, THREE[letter])
        number, code = (501, "A") if index == 2 else (500 + index, " ") if index < 5 else (7 + index, " ")
        lines += [atom(name, residue, number, 5.0 * index, code=code) for name in ("CA", "CB")]
    contacts = structure_contacts(write(tmp_path / "a.pdb", *lines), whole)
    expected = near(20, 1)
    expected[[0, 8, 9]] = -100
    expected[:, [0, 8, 9]] = -100
    assert np.array_equal(contacts, expected)


def test_query_of_an_alignment(tmp_path):
    """The query has insertions, gaps, letters beyond the chain, and lacks the chain's first residue."""
    path = write(tmp_path / "a.pdb", *chain_of("MKVLAWDCKA"))
    family = Alignment.from_sequences(["kvL-AWDCKADD", "LMAWDCKADD"])
    expected = np.full((11, 11), -100, dtype=np.int8)
    expected[:9, :9] = near(9, 1)
    assert np.array_equal(structure_contacts(path, family), expected)
    assert np.array_equal(structure_contacts(path, "kvL-AWDCKADD"), expected)


def test_the_chain_that_has_the_query(tmp_path):
    lines = chain_of("DDDDDDDDDD", chain="A") + chain_of("MKVLAWDCKA", chain="H", start=40, y=50.0)
    path = write(tmp_path / "a.pdb", *lines, *chain_of("MKVLAW", chain="L", y=90.0, step=3.0))
    assert np.array_equal(structure_contacts(path, "MKVLAWDCKA"), near(10, 1))
    assert np.array_equal(structure_contacts(path, "MKVLAW", chain="L"), near(6, 2))
    with pytest.raises(ValueError, match=r"no protein chain 'B'; use one of A, H, L"):
        structure_contacts(path, "MKVLAW", chain="B")
    with pytest.raises(ValueError, match=r"chain A: .* less than 80%"):
        structure_contacts(path, "MKVLAWDCKA", chain="A")


@pytest.mark.parametrize("name", ["a.cif", "a.pdb.gz", "a.cif.gz", "a.ent"])
def test_formats(name, tmp_path):
    import gzip

    path = write(tmp_path / "plain.pdb", *chain_of("MKVLAWDCKA", start=7))
    text = path.read_text()
    if ".cif" in name:
        structure = gemmi.read_structure(str(path))
        structure.setup_entities()
        text = structure.make_mmcif_document().as_string()
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (tmp_path / name).write_bytes(data)
    assert np.array_equal(structure_contacts(tmp_path / name, "MKVLAWDCKA"), near(10, 1))


def test_only_the_first_model_counts(tmp_path):
    models = [
        *("MODEL        1", *chain_of("MKVLAW"), "ENDMDL"),
        *("MODEL        2", *chain_of("MKVLAW", step=1.0), "ENDMDL"),
    ]
    assert np.array_equal(structure_contacts(write(tmp_path / "a.pdb", *models), "MKVLAW"), near(6, 1))


@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        ("a.pdb", "hello\n", ValueError, "no protein chain"),
        ("a.cif", "hello\n", ValueError, "is not a structure"),
        ("a.txt", "hello\n", ValueError, "is not a structure"),
        ("a.pdb", "\n".join(atom("P", "DA", k, 5.0 * k) for k in range(1, 9)), ValueError, "no protein chain"),
        ("a.pdb", "\n".join(atom("CA", "LYS", k, 5.0 * k) for k in range(1, 9)), ValueError, "0 residues .* C-beta"),
        ("a.pdb", None, FileNotFoundError, "a.pdb"),
    ],
)
def test_errors(name, text, error, words, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=words):
        structure_contacts(tmp_path / name, "KKKKKKKK")


def test_without_gemmi(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gemmi", None)
    with pytest.raises(ImportError, match="requires gemmi: pip install"):
        structure_contacts(write(tmp_path / "a.pdb", *chain_of("MKVLAW")), "MKVLAW")


@pytest.mark.parametrize("name", ["1prw", "6exz", "6e6r", "5trv"])
def test_real_structures(name):
    """Beside a reading of the file's columns by hand; these chains are complete, and begin with the query."""
    path = DATA / "structure" / f"{name}.pdb"
    if not path.is_file():
        pytest.skip("the shared structures are not here")
    family = read_alignment(DATA / "msa" / f"{name}.a3m")
    atoms = {}
    for line in path.read_text().splitlines():
        if line.startswith("ATOM") and line[16] in " A":
            beta = "CA" if line[17:20] == "GLY" else "CB"
            if line[12:16].strip() == beta:
                atoms[line[22:27]] = [float(line[start : start + 8]) for start in (30, 38, 46)]
    positions = np.array(list(atoms.values()))
    assert len(positions) == len(family.query)
    expected = np.sqrt(((positions[:, None] - positions) ** 2).sum(-1)) < 8
    assert np.array_equal(structure_contacts(path, family), expected)
