"""The contract of what is written and drawn of a contact map.

The ending decides the format: tab-separated, CASP's RR, or NumPy's; another is refused before anything is written. In
a picture with a structure, a pair is marked right, wrong or unknown where it stands.
"""

import matplotlib.figure
import numpy as np
import pytest

from modeling_msa.tasks.contacts import ContactMap, check_contacts, write_contacts
from modeling_msa.tasks.plotting import plot_contacts


def contact_map(length=9, residues=None, **pairs):
    """A map of a made-up query; `p0_6=0.5` is the pair of residues at indices 0 and 6."""
    probabilities = np.zeros((length, length), dtype=np.float32)
    for name, value in pairs.items():
        i, j = map(int, name[1:].split("_"))
        probabilities[i, j] = probabilities[j, i] = value
    residues = np.arange(1, length + 1) if residues is None else np.array(residues)
    return ContactMap("1abc_A chain A", "MKVLAWYCDE" * 6 + "FG", residues, probabilities, depth=7)


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
        with pytest.raises(ValueError, match=r"written as \.tsv, \.npz or \.rr"):
            check_contacts(tmp_path / name)
        with pytest.raises(ValueError, match=r"written as \.tsv, \.npz or \.rr"):
            write_contacts(contact_map(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def drawn(monkeypatch):
    """Figures that were saved."""
    figures = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure, "savefig", lambda self, *args, **kw: figures.append(self) or save(self, *args, **kw)
    )
    return figures


def marks(figure):
    """Points of a figure by the words of its legend, as (x, y)."""
    points = {}
    for collection in figure.axes[0].collections:
        points[collection.get_label()] = np.asarray(collection.get_offsets()).tolist()
    return points


@pytest.mark.parametrize("whole", [True, False])
def test_picture_tells_right_from_wrong(whole, drawn, tmp_path):
    """Residue 2 has no column. Of the 3 pairs there are, (1, 7) touches, (1, 8) does not, (3, 9) is not resolved."""
    residues = [1, 3, 4, 5, 7, 8, 9]
    contacts = contact_map(7, residues, p0_4=0.9, p0_5=0.8, p1_6=0.7)
    known = np.zeros((62, 62), dtype=np.int8)
    known[0, 6] = known[6, 0] = 1
    known[2] = known[:, 2] = -100
    if not whole:
        known = known[np.ix_(contacts.residues - 1, contacts.residues - 1)]
    plot_contacts(contacts, tmp_path / "map.png", known=known)
    points = marks(drawn[0])
    assert [points[f"1 predicted, {what}"] for what in ("right", "not resolved")] == [[[1, 7]], [[3, 9]]]
    assert points["2 predicted, wrong"] == [[1, 8], [1, 9]]
    # 7 pairs count, 3 are known and there, and 1 is right
    assert drawn[0].axes[0].get_title() == "1abc_A chain A, P@L 0.14"
    lower = drawn[0].axes[0].images[1].get_array()  # from residue 1 on; row j, column i
    assert [(row + 1, column + 1) for row, column in np.argwhere(lower == 1)] == [(7, 1)]
    assert [(row + 1, column + 1) for row, column in np.argwhere(lower == 0)] == [(9, 3)]
    upper = drawn[0].axes[0].images[0].get_array()
    assert upper[0, 6] == np.float32(0.9)
    assert upper.count() == 4  # (1, 7) (1, 8) (1, 9) (3, 9)


def test_picture_without_a_structure(drawn, tmp_path):
    plot_contacts(contact_map(8, p0_6=0.9, p1_7=0.8), tmp_path / "map.svg", title="mine")
    assert marks(drawn[0]) == {"3 most probable pairs, |i - j| ≥ 6": [[1, 7], [2, 8], [1, 8]]}
    assert drawn[0].axes[0].get_title() == "mine"
