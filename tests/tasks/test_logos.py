"""Logos: letters stand where their residues are, as high as their share of the information; long queries in panels."""

import matplotlib.figure
import numpy as np
import pytest

from modeling_msa import Profile, plot_profile
from modeling_msa.alignments.frequencies import entropy

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def made_up(residues, values):
    count = len(residues)
    zeros, even = np.zeros(count), np.full((count, 20), 0.05)
    return Profile(
        "q", "A" * count, np.array(residues), LETTERS, values, zeros, entropy(values), even, entropy(even), zeros, 1, 1
    )


@pytest.fixture
def drawn(monkeypatch):
    figures = []

    def save(figure, path, **_):
        figures.append(figure)
        path.touch()

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", save)
    return figures


def test_heights_by_hand(drawn, tmp_path):
    """Residue 3 is A (3/4) or W (1/4), residue 6 always Y; 4 and 5 have no column. Even columns show nothing."""
    values = np.zeros((2, 20))
    values[0, [0, 18]] = 0.75, 0.25
    values[1, 19] = 1
    plot_profile(made_up([3, 6], values), tmp_path / "p.png")
    above, below = (part.axes[k] for part in drawn[0].subfigs for k in (0, 1))
    boxes = [path.get_extents() for path in above.collections[0].get_paths()]
    information = np.log(20) - (0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    found = [[box.x0 + 0.47, box.y0, box.y1] for box in boxes]
    expected = [[3, 0, information / 4], [3, information / 4, information], [6, 0, np.log(20)]]
    assert np.array(found) == pytest.approx(np.array(expected), abs=1e-6)
    assert not below.collections[0].get_paths()
    assert [text.get_text() for text in above.texts] == ["A", "A"]
    assert [text.xy[0] for text in above.texts] == [3, 6]


@pytest.mark.parametrize(("length", "panels"), [(5, 1), (60, 1), (86, 2), (263, 4), (1000, 13)])
def test_long_queries_are_drawn_in_panels(length, panels, drawn, tmp_path):
    plot_profile(made_up(range(1, length + 1), np.full((length, 20), 0.05)), tmp_path / "p.png")
    assert len(drawn[0].subfigs) == panels
    letters = sum(len(part.axes[0].texts) for part in drawn[0].subfigs)
    assert letters == length


def test_a_column_without_residues_and_other_endings(tmp_path):
    values = np.full((2, 20), 0.05)
    values[1] = np.nan
    plot_profile(made_up([1, 2], values), tmp_path / "p.svg", title="a title")
    assert "<svg" in (tmp_path / "p.svg").read_text()
    with pytest.raises(ValueError, match=r"unknown picture format '.txt'"):
        plot_profile(made_up([1, 2], values), tmp_path / "p.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["p.svg"]
