"""The contract of pictures: pairs are marked for what they are, where they stand; other endings are refused."""

import dataclasses

import matplotlib.figure
import numpy as np
import pytest
from made_up import contact_map
from scipy.spatial.distance import squareform

from modeling_msa import (
    CategoricalJacobian,
    CoevolutionMap,
    Distances,
    SubstitutionScores,
    VariantScores,
    plot_contacts,
    plot_distances,
    plot_substitutions,
    plot_variants,
)


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they were when they were to be saved."""
    figures = []

    def save(figure, path, **_):
        figures.append(figure)
        path.touch()

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", save)
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
    assert points["true positives (1)"] == [[1, 7]]
    assert points["false positives (2)"] == [[1, 8], [1, 9]]
    assert points["predicted, unresolved (1)"] == [[3, 9]]
    # 7 pairs count, 3 are known and there, and 1 is right
    assert drawn[0].axes[0].get_title() == "1abc_A chain A, P@L 0.14"
    lower = drawn[0].axes[0].images[1].get_array()  # from residue 1 on; row j, column i
    assert [(row + 1, column + 1) for row, column in np.argwhere(lower == 1)] == [(7, 1)]
    assert [(row + 1, column + 1) for row, column in np.argwhere(lower == 0)] == [(9, 3)]
    upper = drawn[0].axes[0].images[0].get_array()
    assert upper[0, 6] == np.float32(0.9)
    assert upper.count() == 4  # (1, 7) (1, 8) (1, 9) (3, 9)


def test_pairs_in_no_window_are_grey(drawn, tmp_path):
    """Above the diagonal only, where the numbers stand; they are never among the most probable."""
    contacts = contact_map(9, p0_6=0.9, p0_8=np.nan, p1_8=np.nan)
    plot_contacts(contacts, tmp_path / "map.png")
    values, grey = (image.get_array() for image in drawn[0].axes[0].images)
    assert [(i + 1, j + 1) for i, j in np.argwhere(~grey.mask)] == [(1, 9), (2, 9)]
    assert values.count() == 4  # (1, 7) (1, 8) (2, 8) (3, 9)
    points = marks(drawn[0])
    assert points["in no window of the model"] == []
    assert points["most probable pairs with |i - j| ≥ 6 (4)"] == [[1, 7], [1, 8], [2, 8], [3, 9]]
    plot_contacts(contact_map(9, p0_6=0.9), tmp_path / "map.png")
    assert len(drawn[1].axes[0].images) == 1


def test_scatter_of_measured_values(drawn, tmp_path):
    """Ranks of the four variants with both numbers are 1 2 3 4 and 1 3 2 4: Spearman 1 - 6 * 2 / (4 * 15) = 0.8."""
    score = np.array([-4.0, -3.0, np.nan, -1.0, 0.5, 9.0])
    scores = VariantScores("q", tuple("abcdef"), score, None, ("",) * 6, score[None], (0,), 1)
    plot_variants(scores, np.array([1.0, 30, 5, 20, 40, np.nan]), tmp_path / "s.png", label="measured: yield")
    axes = drawn[0].axes[0]
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[-4, 1], [-3, 30], [-1, 20], [0.5, 40]]
    assert axes.get_title() == "q, Spearman 0.80 (4 variants)"
    assert axes.get_ylabel() == "measured: yield"
    assert "natural logarithm" in axes.get_xlabel()
    assert [text.get_text() for text in axes.texts] == ["wild type"]  # at 0, which is within the scores
    plot_variants(scores, np.array([1.0, np.nan, 5, np.nan, np.nan, np.nan]), tmp_path / "s.svg")
    assert drawn[1].axes[0].get_title() == "q, Spearman not defined (1 variant)"


def test_picture_without_a_structure(drawn, tmp_path):
    plot_contacts(contact_map(8, p0_6=0.9, p1_7=0.8), tmp_path / "map.svg", title="mine")
    assert marks(drawn[0]) == {"most probable pairs with |i - j| ≥ 6 (3)": [[1, 7], [2, 8], [1, 8]]}
    assert drawn[0].axes[0].get_title() == "mine"


def test_substitutions_where_they_stand(drawn, tmp_path):
    """Residue 6 has no column; 3 of 4 letters have a dot, the last is X. Letters are ordered by chemistry."""
    letters = "ACDEFGHIKLMNPQRSTVWY"
    score = np.arange(80.0).reshape(4, 20)
    scores = SubstitutionScores("q", "AVKX", np.array([4, 5, 7, 8]), letters, score, None, (0,), 1)
    plot_substitutions(scores, tmp_path / "s.png")
    axes = drawn[0].axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(shown) == list(letters)
    assert shown[:4] == list("ILVM")
    image = axes.images[0]
    assert image.get_extent() == [3.5, 8.5, 19.5, -0.5]
    for residue, row in ((4, 0), (5, 1), (7, 2), (8, 3)):
        column = image.get_array()[:, residue - 4]
        assert dict(zip(shown, column, strict=True)) == dict(zip(letters, score[row], strict=True))
    assert image.get_array().mask[:, 2].all()
    dots = axes.collections[-1].get_offsets().tolist()
    assert [(residue, shown[int(row)]) for residue, row in dots] == [(4, "A"), (5, "V"), (7, "K")]
    assert [text.get_text() for text in axes.texts] == list("AVKX")
    assert image.norm.vmax == -image.norm.vmin == pytest.approx(np.quantile(score, 0.99))
    long = SubstitutionScores("q", "A" * 130, np.arange(1, 131), letters, np.zeros((130, 20)), None, (0,), 1)
    plot_substitutions(long, tmp_path / "s.png", title="mine")
    assert [axes.get_xlim() for axes in drawn[1].axes[:3]] == [(0.5, 44.5), (44.5, 88.5), (88.5, 132.5)]
    assert drawn[1].get_suptitle() == "mine"


def test_distances_by_rows_of_the_fit(drawn, tmp_path):
    """Row 1 was fitted: 4 of the 10 pairs are grey. Predicted distances lie across, Hamming distances upwards."""
    predicted = squareform(np.linspace(0.05, 0.95, 10))
    fitted = np.arange(5) == 1
    plot_distances(
        Distances(("q x", *"abcd"), predicted, predicted / 2, fitted, 0.5, 0.75, 0.9, ""), tmp_path / "d.pdf"
    )
    points = marks(drawn[0])
    assert {name: len(each) for name, each in points.items()} == {
        "pairs with a row in the fit (4)": 4,
        "pairs of other rows (6)": 6,
    }
    assert points["pairs of other rows (6)"][0] == pytest.approx([predicted[0, 2], predicted[0, 2] / 2])
    assert drawn[0].axes[0].get_title() == "q, R² 0.50, Pearson 0.75"
    plot_distances(
        Distances(("", "a"), predicted[:2, :2], predicted[:2, :2], fitted[2:4], 1, 1, 1, ""), tmp_path / "d.png"
    )
    assert list(marks(drawn[1])) == ["pairs of rows (1)"]
    assert drawn[1].axes[0].get_title() == "query, R² 1.00, Pearson 1.00"


def test_endings(tmp_path):
    contacts = contact_map(p0_6=0.25)
    for name in ("map.pdf", "map.png", "map.svg"):
        plot_contacts(contacts, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(ValueError, match=r"unknown picture format '.docx'; use .png, .pdf or .svg"):
        plot_contacts(contacts, tmp_path / "map.docx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.pdf", "map.png", "map.svg"]


def test_baselines_are_panels(drawn, tmp_path):
    """From left to right, each with its own scale, name and P@L: 1 of 2 known pairs, and the other."""
    contacts = contact_map(8, p0_6=0.75, p1_7=0.5)
    known = np.zeros((8, 8), dtype=np.int8)
    known[0, 6] = known[6, 0] = 1
    other = contact_map(8, p0_7=3.0, p1_7=2.0, p0_6=1.0)
    baseline = CoevolutionMap("q", "MKVLAWYC", other.residues, other.probabilities, 7, "dca", "DCA")
    plot_contacts(contacts, tmp_path / "map.png", known=known, beside=[baseline])
    assert [part.axes[0].get_title() for part in drawn[0].subfigs] == ["MSA Transformer, P@L 0.12", "DCA, P@L 0.12"]
    left, right = (part.axes[0].images[0] for part in drawn[0].subfigs)
    assert (left.norm.vmax, right.norm.vmax) == (1, pytest.approx(2.8))
    assert [part.axes[1].get_ylabel() for part in drawn[0].subfigs] == ["contact probability", "DCA, corrected (APC)"]
    assert drawn[0].get_suptitle() == contacts.name
    far = CoevolutionMap("q", "MKVLAWYC", other.residues + 1, other.probabilities, 7, "dca", "DCA")
    with pytest.raises(ValueError, match="its residues are not those"):
        plot_contacts(contacts, tmp_path / "other.png", beside=[far])
    assert not (tmp_path / "other.png").exists()


def test_scores_of_a_jacobian(drawn, tmp_path):
    """They are not called probabilities; the darkest colour is the 90 % quantile of the L strongest, 1 to 3 here."""
    scores = contact_map(8, p0_6=3.0, p1_7=2.0, p0_7=1.0).probabilities
    jacobian = CategoricalJacobian("q", "MKVLAWYC", np.arange(1, 9), scores, 7, "fast")
    plot_contacts(jacobian, tmp_path / "map.png")
    image = drawn[0].axes[0].images[0]
    assert (image.norm.vmin, image.norm.vmax) == (0, pytest.approx(2.8))
    assert drawn[0].axes[1].get_ylabel() == "score of the categorical Jacobian"
    assert marks(drawn[0])["strongest pairs with |i - j| ≥ 6 (3)"] == [[1, 7], [2, 8], [1, 8]]


def test_methods_beside_windows_are_judged_on_the_same_pairs(drawn, tmp_path):
    """The best pair of the other method, 0-8, is a contact, but in no window of the model: it does not count."""
    known = np.zeros((9, 9), dtype=np.int8)
    known[0, 8] = known[8, 0] = known[0, 7] = known[7, 0] = 1
    made = contact_map(9, p0_7=0.9)
    made.probabilities[0, 8] = made.probabilities[8, 0] = np.nan
    scores = contact_map(9, p0_8=0.9, p0_6=0.1).probabilities
    other = CoevolutionMap("q", made.query, made.residues, scores, 7, "dca", "DCA")
    plot_contacts(made, tmp_path / "c.png", known=known, beside=[other])
    titles = [part.axes[0].get_title() for part in drawn[0].subfigs]
    assert titles == [
        "MSA Transformer, P@L 0.11",
        "DCA, P@L 0.11",
    ]  # 0-7, of L = 9; 0.22 with 0-8


def test_names_of_chains_in_the_title(drawn, tmp_path):
    """Tabs, as ColabFold writes them between the names of chains, have no shape in fonts."""
    plot_contacts(dataclasses.replace(contact_map(8, p0_6=0.5), name="one\ttwo"), tmp_path / "map.png")
    assert drawn[0].axes[0].get_title() == "one + two"
