"""Contacts within and between the chains of a structure, matched with those of an alignment by their sequences.

The toy structures are straight chains of residues 5 Angstrom apart, so that within a chain only neighbours touch. A
second chain runs beside the first at 6 Angstrom: a residue touches its opposite (6) and both neighbours of it (7.8).
"""

import gemmi
import numpy as np
import pytest
from straight_chains import chain_of, near, write

from modeling_msa import Alignment, structure_contacts
from modeling_msa.alignments.known_contacts import load_assignments, read_known
from modeling_msa.alignments.structure import complex_contacts, structure_residues

A, B = "MKVLAWDC", "GWKDLM"
PAIR = Alignment.from_sequences([A + B], chains=[len(A), len(B)])
HOMO = Alignment.from_sequences([A + A], chains=[8, 8])


def blocks(inner, outer):
    """Contacts of two chains of which these are the blocks within and between them."""
    return np.block([[inner[0], outer], [outer.T, inner[1]]])


def test_two_chains_by_hand(tmp_path):
    """The order and names of the structure's chains do not matter, and residues are numbered on the whole query."""
    path = write(tmp_path / "a.pdb", *chain_of(B, chain="Q", start=90, y=6.0), "TER", *chain_of(A, chain="P"))
    contacts = structure_contacts(path, PAIR)
    outer = near(8, 1)[:, :6]
    assert np.array_equal(contacts, blocks((near(8, 1), near(6, 1)), outer))
    assert list(complex_contacts(path, PAIR)) == ["A:P,B:Q"]
    far = structure_contacts(path, PAIR, min_separation=2)  # within a chain only
    assert (far[:8, :8] == -100).sum() == 8 + 2 * 7
    assert np.array_equal(far[:8, 8:], outer)


def test_cif_and_missing_residues(tmp_path):
    lines = [*chain_of(A[:6], chain="A"), "TER", *chain_of(B, chain="B", y=6.0)]
    structure = gemmi.read_structure(str(write(tmp_path / "a.pdb", *lines)))
    structure.make_mmcif_document().write_file(str(tmp_path / "a.cif"))
    contacts = structure_contacts(tmp_path / "a.cif", PAIR)
    assert (contacts[6:8] == -100).all()
    assert np.array_equal(contacts[:6, 8:], near(6, 1))


def test_both_assignments_of_a_homo_dimer(tmp_path):
    """B begins opposite the fifth residue of A, so that exchanging the chains transposes the block between them."""
    shifted = [line[:30] + f"{float(line[30:38]) + 20:8.3f}" + line[38:] for line in chain_of(A, chain="B", y=6.0)]
    path = write(tmp_path / "a.pdb", *chain_of(A, chain="A"), "TER", *shifted)
    found = complex_contacts(path, HOMO)
    assert list(found) == ["A:A,B:B", "A:B,B:A"]
    outer = (np.abs(np.arange(8)[:, None] - np.arange(8) - 4) <= 1).astype(int)  # i - j = 4: residue 5 with residue 1
    assert np.array_equal(found["A:A,B:B"], blocks((near(8, 1), near(8, 1)), outer))
    assert np.array_equal(found["A:B,B:A"], blocks((near(8, 1), near(8, 1)), outer.T))
    assert list(complex_contacts(path, HOMO, "B,A")) == ["A:B,B:A"]
    assert list(load_assignments(path, HOMO)) == list(found)


def test_the_biological_assembly(tmp_path):
    """One chain in the file, two by its assembly: the second is turned about the x axis, 6 Angstrom away."""
    lines = [
        "REMARK 350 BIOMOLECULE: 1",
        "REMARK 350 AUTHOR DETERMINED BIOLOGICAL UNIT: DIMERIC",
        "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
        "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000",
        "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000",
        "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000",
        "REMARK 350   BIOMT1   2  1.000000  0.000000  0.000000        0.00000",
        "REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        6.00000",
        "REMARK 350   BIOMT3   2  0.000000  0.000000 -1.000000        0.00000",
    ]
    path = write(tmp_path / "a.pdb", *lines, *chain_of(A, chain="A"))
    contacts = structure_contacts(path, HOMO)
    assert np.array_equal(contacts, np.tile(near(8, 1), (2, 2)))
    with pytest.raises(ValueError, match="chain B is only in the biological assembly"):
        structure_residues(path, HOMO, "A,B")


def test_too_few_and_other_chains(tmp_path):
    one = write(tmp_path / "one.pdb", *chain_of(A))
    with pytest.raises(ValueError, match=r"has 1 protein chain, but the alignment has 2; .*biological assembly"):
        structure_contacts(one, PAIR)
    two = write(tmp_path / "two.pdb", *chain_of(A, chain="A"), "TER", *chain_of("WWKCAVWWAC", chain="B"))
    with pytest.raises(ValueError, match=r"chain B: \d of \d+ aligned residues are the query's"):
        structure_contacts(two, PAIR)
    for chain, words in {
        "A": "name as many .*such as A,B",
        "A,A": "name as many",
        "A,X": "no protein chain 'X'",
    }.items():
        with pytest.raises(ValueError, match=words):
            structure_contacts(two, PAIR, chain)
    many = [line for k, name in enumerate("ABCDEFGHIJKL") for line in [*chain_of(A, chain=name, y=9.0 * k), "TER"]]
    with pytest.raises(ValueError, match=r"has 12 protein chains, .*too many ways; name the chains"):
        structure_contacts(write(tmp_path / "many.pdb", *many), HOMO)


def test_families_of_known_structure_are_single_proteins(tmp_path):
    path = write(tmp_path / "two.pdb", *chain_of(A, chain="A"), "TER", *chain_of(B, chain="B", y=6.0))
    with pytest.raises(ValueError, match=r"families of known structure is for one protein, but .*complex of A:8,B:6"):
        read_known(PAIR, path)
