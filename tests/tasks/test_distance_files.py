"""The contract of distance files: what is written is what a reader of the format gets back."""

import numpy as np
import pytest
from scipy.spatial.distance import squareform

from modeling_msa import Distances, write_distances
from modeling_msa.tasks.distance_files import tree_names


def read_phylip(text, strict=False):
    """Names and matrix of a PHYLIP file, by the format's description: 10 characters of name, or a word."""
    count, *lines = text.splitlines()
    cut = [(line[:10].strip(), line[10:]) if strict else line.split(maxsplit=1) for line in lines]
    names, rows = zip(*cut, strict=True)
    assert len(names) == len(set(names)) == int(count)
    return list(names), np.array([row.split() for row in rows], dtype=float)


@pytest.fixture
def made_up():
    names = ("UniRef100_A0A023 long description", "UniRef100_A0A024", "a(b):c,d;[e]'f'", "a(b):c,d;[e]'f'", "")
    predicted = squareform(np.linspace(0.05, 0.95, 10))
    fitted = np.array([False, True, False, False, False])
    return Distances(names, predicted, predicted / 2, fitted, 0.5, 0.75, 0.9, "words")


def test_phylip_is_read_back(made_up, tmp_path):
    write_distances(made_up, tmp_path / "d.phy")
    names, matrix = read_phylip((tmp_path / "d.phy").read_text())
    assert names == ["UniRef100_A0A023", "UniRef100_A0A024", "a_b__c_d__e__f_", "a_b__c_d__e__f__2", "row_5"]
    assert np.abs(matrix - made_up.predicted).max() <= 5e-7
    write_distances(made_up, tmp_path / "d.phy", names="strict")
    names, matrix = read_phylip((tmp_path / "d.phy").read_text(), strict=True)
    assert names == ["UniRef100_", "UniRef10_2", "a_b__c_d__", "a_b__c_d_2", "row_5"]
    assert np.abs(matrix - made_up.predicted).max() <= 5e-7


def test_names_stay_different_whatever_they_are():
    assert tree_names(["a", "a", "a_2", "a"]) == ["a", "a_2", "a_2_2", "a_3"]
    made = tree_names(["same-long-name"] * 1200, 10)
    assert len(set(made)) == 1200
    assert max(map(len, made)) == 10


def test_table_and_arrays(made_up, tmp_path):
    write_distances(made_up, tmp_path / "d.tsv")
    header, first, *rest = (tmp_path / "d.tsv").read_text().splitlines()
    assert header.split("\t") == ["i", "j", "name_i", "name_j", "predicted", "hamming"]
    assert first.split("\t") == ["1", "2", "UniRef100_A0A023", "UniRef100_A0A024", "0.050000", "0.025000"]
    assert len(rest) == 9
    write_distances(made_up, tmp_path / "d.npz")
    with np.load(tmp_path / "d.npz") as arrays:
        assert arrays["names"].tolist() == list(made_up.names)
        assert np.array_equal(arrays["predicted"], made_up.predicted)
        assert np.array_equal(arrays["hamming"], made_up.hamming)
        assert arrays["r2"] == 0.5
    with pytest.raises(ValueError, match=r"unknown output format '.nwk'; use .phy, .tsv or .npz"):
        write_distances(made_up, tmp_path / "d.nwk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.npz", "d.tsv"]
