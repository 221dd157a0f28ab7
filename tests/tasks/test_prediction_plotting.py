"""The contract of the picture of classes: each probability stands at its residue and its class."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from modeling_msa import Prediction, plot_prediction

SCORES = np.array([[0.25, 0.75], [1, 0], [0.5, 0.5]], dtype=np.float32)
RESIDUES = Prediction("q/1", "MKVAL", "residues", "classes", ("H", "other, E"), SCORES, np.array([2, 3, 5]), (), (), 7)
VARIANTS = Prediction("q", "MK", "variants", "values", ("x",), SCORES[:1, :1], np.array([1, 2]), ("M1K",), ("",), 1)


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they were when they were to be saved."""
    figures = []

    def save(figure, path, **_):
        figures.append(figure)
        Path(path).touch()

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", save)
    return figures


def test_picture_of_classes(drawn, tmp_path):
    """Residue 4 has no column; a dot stands at the most probable class of each other one."""
    plot_prediction(RESIDUES, tmp_path / "p.png")
    axes = drawn[0].axes[0]
    image = axes.images[0]
    assert image.get_extent() == [1.5, 5.5, 1.5, -0.5]
    assert (image.norm.vmin, image.norm.vmax) == (0, 1)
    shown = image.get_array()
    assert shown[:, [0, 1, 3]].tolist() == [[0.25, 1, 0.5], [0.75, 0, 0.5]]
    assert shown.mask[:, 2].all()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["H", "other, E"]
    assert axes.collections[-1].get_offsets().tolist() == [[2, 1], [3, 0], [5, 0]]
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [("K", 2), ("V", 3), ("L", 5)]
    assert drawn[0].get_suptitle() == "q/1"
    residues = np.arange(1, 231)
    long = Prediction("q", "A" * 230, "residues", "classes", ("H",), np.ones((230, 1)), residues, (), (), 1)
    plot_prediction(long, tmp_path / "p.svg", title="mine")
    assert [axes.get_xlim() for axes in drawn[1].axes[:3]] == [(0.5, 77.5), (77.5, 154.5), (154.5, 231.5)]
    with pytest.raises(ValueError, match="only classes of residues can be drawn, but the prediction is of variants"):
        plot_prediction(VARIANTS, tmp_path / "q.png")
    with pytest.raises(ValueError, match="unknown picture format"):
        plot_prediction(RESIDUES, tmp_path / "q.docx")
