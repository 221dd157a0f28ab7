"""Contract of `modeling_msa.alignments.known_contacts`: contact maps are found by name, and checked."""

import numpy as np
import pytest

from modeling_msa.alignments.alignment import Alignment
from modeling_msa.alignments.known_contacts import contact_files, list_families, load_contacts, read_known

FAMILY = Alignment.from_sequences(["mKV--Lc", "RVAGL", "R-AGI"], source="family.a3m")


def test_contact_maps(tmp_path):
    contacts = np.array([[1, 0, -100, 0, 0]] * 5)
    np.save(tmp_path / "a.npy", contacts)
    np.savez(tmp_path / "b.npz", distances=np.zeros(3), contacts=contacts.astype(bool))
    (tmp_path / "c.pdb.gz").write_bytes(b"")
    assert contact_files(tmp_path) == {name[0]: tmp_path / name for name in ("a.npy", "b.npz", "c.pdb.gz")}
    assert load_contacts(tmp_path / "a.npy", FAMILY).tolist() == contacts.tolist()
    assert load_contacts(tmp_path / "b.npz", FAMILY).dtype == np.int8
    np.save(tmp_path / "a.npy", contacts * 8.5)
    with pytest.raises(ValueError, match=r"a.npy: contains .*; a contact map contains only 1, 0 and -100"):
        load_contacts(tmp_path / "a.npy", FAMILY)
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"a.npy: is not a NumPy array"):
        load_contacts(tmp_path / "a.npy", FAMILY)
    np.savez(tmp_path / "b.npz", distances=contacts, maps=contacts)
    with pytest.raises(ValueError, match=r"b.npz: none of its arrays \(distances, maps\) is named contacts"):
        load_contacts(tmp_path / "b.npz", FAMILY)
    (tmp_path / "a.pdb").write_text("")
    with pytest.raises(ValueError, match="are both named 'a'"):
        contact_files(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: contains neither contact maps"):
        contact_files(tmp_path / "empty")


def test_families_are_files_or_in_memory(tmp_path):
    contacts = np.eye(5, dtype=np.int8)
    np.save(tmp_path / "a.npy", contacts)
    (tmp_path / "a.a3m").write_text(">q\nmKV--Lc\n")
    for alignment, known in ((FAMILY, contacts), (tmp_path / "a.a3m", tmp_path / "a.npy")):
        family, found = read_known(alignment, known)
        assert family.query == "MKVLC"
        assert np.array_equal(found, contacts)


def test_list_of_families(tmp_path):
    """By a table, or by names: then alignments without a structure are left out, with a warning."""
    for folder in ("families", "few"):
        (tmp_path / folder).mkdir()
    for name in ("f0", "f3"):
        (tmp_path / "families" / f"{name}.a3m").write_text(">q\nMKV\n")
    (tmp_path / "few" / "f3.npy").write_bytes(b"")
    table = tmp_path / "list.txt"
    table.write_text("# made up\n\nfamilies/f0.a3m\tfew/f3.npy\tB\nfamilies/f3.a3m few/f3.npy\n")
    found = [(family.alignment.name, family.structure.name, family.chain) for family in list_families(table)]
    assert found == [("f0.a3m", "f3.npy", "B"), ("f3.a3m", "f3.npy", None)]
    with pytest.warns(UserWarning, match="1 of 2 alignments have no structure"):
        [family] = list_families(tmp_path / "families", tmp_path / "few")
    assert (family.alignment.name, family.structure.name, family.chain) == ("f3.a3m", "f3.npy", None)
    for text, error, words in (
        ("families/f0.a3m\n", ValueError, "line 1: .* is not alignment, TAB, structure"),
        ("families/f0.a3m\tnowhere.pdb\n", FileNotFoundError, "line 1: .*nowhere.pdb does not exist"),
        ("families/f0.a3m few/f3.npy\n" * 2, ValueError, "both named f0"),
        ("# nothing\n", ValueError, "lists no family"),
    ):
        table.write_text(text)
        with pytest.raises(error, match=words):
            list_families(table)
    with pytest.raises(ValueError, match="pass the folder of their structures too"):
        list_families(tmp_path / "families")
    (tmp_path / "few" / "f3.npy").rename(tmp_path / "few" / "other.npy")
    with pytest.raises(ValueError, match="give them the same names"):
        list_families(tmp_path / "families", tmp_path / "few")
