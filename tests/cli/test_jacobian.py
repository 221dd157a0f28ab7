"""The contract of `msa jacobian`: the map of `categorical_jacobian`, its pairs and its precision."""

import numpy as np
import pytest
from families import make_known
from typer.testing import CliRunner

from modeling_msa import MsaForMaskedLM, categorical_jacobian, load_model, precision, read_alignment
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A model, families f0 .. f7 and contact maps of them."""
    return make_known(tmp_path_factory.mktemp("jacobian"))


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, (result.output, result.exception)
    return " ".join(result.output.split())


def expected(places, name, **options):
    model = load_model(places / "model", cls=MsaForMaskedLM)
    return categorical_jacobian(read_alignment(places / "families" / f"{name}.a3m"), model, **options)


def test_map_pairs_precision_and_picture(places, tmp_path):
    path, known = places / "families" / "f0.a3m", places / "labels" / "maps" / "f0.npy"
    more = ["--structure", known, "--pairs", 7, "--rows", 4, "--plot", "png", "--model", places / "model"]
    output = msa("jacobian", path, "-o", tmp_path / "j.tsv", *more)
    result = expected(places, "f0", rows=4, pairs=7)
    table = np.loadtxt(tmp_path / "j.tsv", skiprows=1)
    assert (tmp_path / "j.tsv").read_text().startswith("i\tj\tscore\n")
    assert (table[:, 1] - table[:, 0] >= 6).all()
    i, j = table[:, :2].astype(int).T - 1
    assert table[:, 2] == pytest.approx(result.scores[i, j], abs=2e-6)
    lines = [line.split("\t") for line in (tmp_path / "j.pairs.tsv").read_text().splitlines()]
    assert lines[0] == ["mutant", "epistasis"]
    assert [line[0] for line in lines[1:]] == list(result.pairs)
    value = precision(result, np.load(known))
    assert f"all >=6 {value:.2f}" in output
    assert f"all\t{value:.6f}" in (tmp_path / "j.precision.tsv").read_text()
    assert (tmp_path / "j.png").is_file()
    scores = msa("score", path, tmp_path / "j.pairs.tsv", "-o", tmp_path / "s.tsv", "--model", places / "model")
    assert "7 of 7 variants" in scores


def test_many_families_with_the_whole_jacobian(places, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("f0", "f1"):
        (tmp_path / "in" / f"{name}.a3m").write_bytes((places / "families" / f"{name}.a3m").read_bytes())
    more = ["--mode", "exact", "--full", "--model", places / "model", "--rows", 3]
    msa("jacobian", tmp_path / "in", "-o", tmp_path / "out", *more)
    for name in ("f0", "f1"):
        result = expected(places, name, rows=3, mode="exact", full=True)
        with np.load(tmp_path / "out" / f"{name}.npz", allow_pickle=False) as arrays:
            assert arrays["jacobian"].dtype == np.float16
            assert np.allclose(arrays["jacobian"], result.jacobian, rtol=1e-3, atol=1e-4)
            assert arrays["scores"] == pytest.approx(result.scores, abs=1e-5)
            assert str(arrays["mode"]) == "exact"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "j.csv"], "unknown output format '.csv'; use .tsv, .npz or .rr"),
        (["-o", "j.tsv", "--full"], "--full requires NumPy's format, not .tsv: pass --format npz, or an output .npz"),
        (["-o", "j.rr", "--full"], "--full requires NumPy's format, not .rr"),
        (["-o", "j.tsv", "--format", "rr"], "does not end with .rr"),
        (["-o", "j.tsv", "--structure", "nowhere"], "nowhere: no such file or folder"),
        (["-o", "j.tsv", "--plot", "j.docx"], "unknown picture format"),
    ],
)
def test_errors_in_words(arguments, words, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = places / "families" / "f0.a3m"
    assert words in msa("jacobian", path, "--model", places / "model", *arguments, code=1)
    assert list(tmp_path.iterdir()) == []
