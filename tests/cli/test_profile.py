"""The contract of `msa profile`: the table of `predict_profile`, with the options as they were given."""

import numpy as np
import pytest
from families import make_folder, make_model
from typer.testing import CliRunner

from modeling_msa import MsaForMaskedLM, load_model, predict_profile, read_alignment
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    make_folder(folder / "families", 2)
    make_model(folder / "model")
    return folder


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, ["profile", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


def test_options_reach_the_profile(places, tmp_path):
    path = places / "families" / "f0.a3m"
    options = ["--rows", 3, "--mode", "fast", "--offset", 20, "--frequencies", "seen"]
    output = msa(path, "-o", tmp_path / "p.npz", "--model", places / "model", "--plot", tmp_path / "p.png", *options)
    model = load_model(places / "model", cls=MsaForMaskedLM)
    expected = predict_profile(read_alignment(path), model, rows=3, mode="fast", offset=20, frequencies="seen")
    with np.load(tmp_path / "p.npz") as arrays:
        assert np.array_equal(arrays["residues"], expected.residues)
        assert arrays["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
        assert np.array_equal(arrays["frequencies"], expected.frequencies)
    assert f"mean entropy {expected.entropy.mean():.2f} nats" in output
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_many_families_with_pictures(places, tmp_path):
    more = ["--model", places / "model", "--mode", "fast", "--format", "npz", "--plot", "svg"]
    msa(places / "families", "-o", tmp_path / "out", *more)
    names = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert names == {"f0.npz", "f0.profile.svg", "f1.npz", "f1.profile.svg"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "p.csv"], "unknown output format '.csv'; use .tsv or .npz"),
        (["-o", "p.tsv", "--format", "npz"], "does not end with .npz"),
        (["-o", "p.tsv", "--plot", "p.docx"], "unknown picture format"),
    ],
)
def test_errors_in_words(arguments, words, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in msa(places / "families" / "f0.a3m", "--model", places / "model", *arguments, code=1)
    assert list(tmp_path.iterdir()) == []
