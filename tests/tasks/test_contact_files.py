"""The contract of contact files: the ending decides the format, tab-separated, CASP's RR, or NumPy's."""

import numpy as np
import pytest
from made_up import contact_map

from modeling_msa import write_contacts


def test_table_by_hand(tmp_path):
    """Query residue numbers i < j from 1, at least 6 apart; the most probable first."""
    contacts = contact_map(8, [1, 2, 3, 4, 5, 6, 7, 9], p0_6=0.25, p1_7=0.5, p0_1=0.9)
    write_contacts(contacts, tmp_path / "c.tsv")
    lines = (tmp_path / "c.tsv").read_text().splitlines()
    assert lines == ["i\tj\tprobability", "2\t9\t0.500000", "1\t7\t0.250000", "1\t9\t0.000000", "3\t9\t0.000000"]


def test_casp_rr(tmp_path):
    """Blanks, no tabs; the whole query, 50 letters a line; residue numbers i < j from 1; the most probable first."""
    contacts = contact_map(8, [1, 2, 3, 4, 5, 6, 7, 62], p0_6=0.25, p1_7=0.5, p0_1=0.9)
    write_contacts(contacts, tmp_path / "c.rr")
    assert (tmp_path / "c.rr").read_text() == (
        "PFRMAT RR\nTARGET 1abc_A\nMETHOD MSA Transformer, 7 rows of the alignment\nMODEL 1\n"
        f"{'MKVLAWYCDE' * 5}\nMKVLAWYCDEFG\n"
        "2 62 0 8 0.500000\n1 7 0 8 0.250000\n1 62 0 8 0.000000\n3 62 0 8 0.000000\n4 62 0 8 0.000000\n"
        "5 62 0 8 0.000000\n6 62 0 8 0.000000\n7 62 0 8 0.000000\nEND\n"
    )


@pytest.mark.parametrize("name", ["c.npz", "c.NPZ"])
def test_numpy_without_pickle(name, tmp_path):
    contacts = contact_map(p0_6=0.25)
    write_contacts(contacts, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with np.load(tmp_path / name, allow_pickle=False) as loaded:
        assert sorted(loaded) == ["depth", "name", "probabilities", "query", "residues"]
        assert loaded["probabilities"].dtype == np.float32
        assert np.array_equal(loaded["probabilities"], contacts.probabilities)
        assert np.array_equal(loaded["residues"], contacts.residues)
        assert (str(loaded["name"]), str(loaded["query"]), int(loaded["depth"])) == (contacts.name, contacts.query, 7)


def test_other_endings(tmp_path):
    for name in ("c.txt", "c", "c.npy"):
        with pytest.raises(ValueError, match=r"unknown output format .*; use \.tsv, \.npz or \.rr"):
            write_contacts(contact_map(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
