"""Contract of `modeling_msa.alignments.known_contacts`: contact maps are found by name, and checked."""

import numpy as np
import pytest

from modeling_msa.alignments.alignment import Alignment
from modeling_msa.alignments.known_contacts import contact_files, load_contacts

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
    (tmp_path / "a.pdb").write_text("")
    with pytest.raises(ValueError, match="are both named 'a'"):
        contact_files(tmp_path)
