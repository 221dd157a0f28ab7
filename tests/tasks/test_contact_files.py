"""The contract of contact files: the ending decides the format, tab-separated, CASP's RR, or NumPy's."""

import numpy as np
import pytest
from made_up import contact_map

from modeling_msa import Alignment, CategoricalJacobian, CoevolutionMap, write_contacts, write_pairs
from modeling_msa.alignments.variants import parse_variants as parse


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


def coevolution_map(measure="mutual_information", residues=range(1, 9), **pairs):
    made = contact_map(8, list(residues), **pairs)
    return CoevolutionMap(made.name, made.query, made.residues, made.probabilities, 7, measure, measure)


def test_other_maps_stand_beside(tmp_path):
    """A column each, in the order of the probabilities; an array each. Other residues and RR are refused."""
    contacts = contact_map(8, p0_6=0.25, p1_7=0.5)
    beside = [coevolution_map(p0_6=2.5, p0_7=-0.5), coevolution_map("dca", p1_7=0.125)]
    write_contacts(contacts, tmp_path / "c.tsv", beside=beside)
    assert (tmp_path / "c.tsv").read_text().splitlines() == [
        "i\tj\tprobability\tmutual_information\tdca",
        "2\t8\t0.500000\t0.000000\t0.125000",
        "1\t7\t0.250000\t2.500000\t0.000000",
        "1\t8\t0.000000\t-0.500000\t0.000000",
    ]
    write_contacts(contacts, tmp_path / "c.npz", beside=beside)
    with np.load(tmp_path / "c.npz", allow_pickle=False) as loaded:
        assert {*loaded} == {"depth", "name", "probabilities", "query", "residues", "mutual_information", "dca"}
        assert np.array_equal(loaded["dca"], beside[1].scores)
    with pytest.raises(ValueError, match="RR has one number for each pair"):
        write_contacts(contacts, tmp_path / "c.rr", beside=beside)
    with pytest.raises(ValueError, match="its residues are not those of the map"):
        write_contacts(contacts, tmp_path / "d.tsv", beside=[coevolution_map(residues=range(2, 10))])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.npz", "c.tsv"]


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


def jacobian(scores=None, **more):
    scores = contact_map(8, p0_6=2.5, p1_7=5.0).probabilities if scores is None else scores
    scores[0, 7] = scores[7, 0] = -1
    return CategoricalJacobian("1abc_A", "MKVLAWYC", np.arange(1, 9), scores, 7, "fast", **more)


def test_scores_are_not_called_probabilities(tmp_path):
    """A table has them as they are; RR, which has probabilities, as parts of the highest, none below 0."""
    write_contacts(jacobian(), tmp_path / "c.tsv")
    lines = (tmp_path / "c.tsv").read_text().splitlines()
    assert lines == ["i\tj\tscore", "2\t8\t5.000000", "1\t7\t2.500000", "1\t8\t-1.000000"]
    write_contacts(jacobian(), tmp_path / "c.rr")
    assert (tmp_path / "c.rr").read_text() == (
        "PFRMAT RR\nTARGET 1abc_A\nMETHOD categorical Jacobian of an MSA Transformer, 7 rows of the alignment\n"
        "REMARK scores, divided by the highest; they are not probabilities\nMODEL 1\nMKVLAWYC\n"
        "2 8 0 8 1.000000\n1 7 0 8 0.500000\n1 8 0 8 0.000000\nEND\n"
    )
    write_contacts(jacobian(np.zeros((8, 8), dtype=np.float32) - 1), tmp_path / "c.rr")  # none is above 0
    assert (tmp_path / "c.rr").read_text().count(" 0 8 0.000000\n") == 3


def test_the_whole_jacobian_is_float16(tmp_path):
    whole = np.random.default_rng(0).normal(size=(8, 20, 8, 20)).astype(np.float32)
    write_contacts(jacobian(pairs=("M1A:Y7V",), epistasis=np.array([0.5]), jacobian=whole), tmp_path / "c.npz")
    with np.load(tmp_path / "c.npz", allow_pickle=False) as loaded:
        assert loaded["jacobian"].dtype == np.float16
        assert np.abs(loaded["jacobian"] - whole).max() < 2e-3
        assert loaded["pairs"].tolist() == ["M1A:Y7V"]
        assert str(loaded["amino_acids"]) == "ACDEFGHIKLMNPQRSTVWY"
    write_contacts(jacobian(), tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz", allow_pickle=False) as loaded:
        assert "jacobian" not in loaded


def test_pairs_can_be_scored(tmp_path):
    made = jacobian(pairs=("M1A:Y7V", "K2R:C8W"), epistasis=np.array([0.5, -0.25]))
    write_pairs(made, tmp_path / "p.tsv")
    assert (tmp_path / "p.tsv").read_text() == "mutant\tepistasis\nM1A:Y7V\t0.500000\nK2R:C8W\t-0.250000\n"
    parsed = parse(made.pairs, Alignment.from_sequences([made.query]))
    assert [len(each) for each in parsed] == [2, 2]
    with pytest.raises(ValueError, match=r"unknown output format '.txt'; use \.tsv"):
        write_pairs(made, tmp_path / "p.txt")
