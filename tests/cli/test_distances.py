"""The contract of `msa distances` and `msa fit-distances`: from files to matrices; errors before the model runs."""

import families
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from modeling_msa import DistanceModel, bundled_family, load_model, predict_distances, write_alignment
from modeling_msa.cli.distances import distances_command
from modeling_msa.cli.fit_distances import fit_distances_command
from modeling_msa.hub.finding import find_distance_weights
from modeling_msa.tasks import distances as phylogeny

pytestmark = pytest.mark.usefixtures("one_thread")

FAMILIES = [families.family(name, depth, 30, seed) for seed, (name, depth) in enumerate([("a", 20), ("b", 13)])]


OTHER = families.family("c", 16, 24, 7)


def run(command, *arguments):
    app = typer.Typer()
    app.command("distances")(distances_command)
    app.command("fit-distances")(fit_distances_command)
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def test_commands_from_fit_to_matrix(tmp_path):
    folder = families.make_model(tmp_path / "small")
    for family in (*FAMILIES, OTHER):
        write_alignment(family, tmp_path / f"{family.names[0][0]}.a3m")
    options = ("--model", folder, "--rows", 16)
    own = run("distances", tmp_path / "c.a3m", "-o", tmp_path / "own.phy", *options)
    assert own.exit_code == 0, own.output
    assert "16 of 16 rows, fitted on 11 of the family's own 16 rows; on the other 5 R2" in own.output

    fit = run("fit-distances", tmp_path / "a.a3m", tmp_path / "b.a3m", "-o", tmp_path / "w.json", *options)
    assert fit.exit_code == 0, fit.output
    assert "4 weights for small, fitted on 198 pairs of rows of 2 families" in fit.output
    weights = DistanceModel.load(tmp_path / "w.json")
    expected = predict_distances(OTHER, load_model(folder), weights, rows=16)
    many = run(
        "distances", tmp_path, "-o", tmp_path / "out", "--weights", tmp_path / "w.json", "--plot", ".png", *options
    )
    assert many.exit_code == 0, many.output
    made = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    assert made == ["a.distances.png", "a.phy", "b.distances.png", "b.phy", "c.distances.png", "c.phy"]
    count, *lines = (tmp_path / "out" / "c.phy").read_text().splitlines()
    names, *matrix = np.array([line.split() for line in lines]).T
    assert int(count) == len(OTHER.names)
    assert names.tolist() == list(OTHER.names)
    assert np.abs(np.array(matrix, dtype=float) - expected.predicted).max() <= 1e-6
    assert "16 of 16 rows, fitted on 2 families: R2" in many.output

    # in the model's folder they are found
    assert find_distance_weights(folder) is None
    (tmp_path / "w.json").rename(folder / "distances.json")
    assert find_distance_weights(folder) == folder / "distances.json"
    assert "fitted on 2 families" in run("distances", tmp_path / "c.a3m", "-o", tmp_path / "c.tsv", *options).output
    assert len((tmp_path / "c.tsv").read_text().splitlines()) == 121


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["distances", "FAMILY", "-o", "d.nwk"], "use .phy, .tsv or .npz"),
        (["distances", "FAMILY", "-o", "d.phy", "--plot", "d.docx"], "unknown picture format"),
        (["distances", "FAMILY", "-o", "d.phy", "--weights", "none.json"], "none.json"),
        (["distances", "FAMILY", "-o", "d.phy", "--weights", "FAMILY"], "not distance weights"),
        (["distances", "short.a3m", "-o", "d.phy"], "short.a3m: 1 of 2 rows are used for the fit; they have 0 pairs"),
        (["fit-distances", "FAMILY", "-o", "no/d.json"], "folder no does not exist"),
        (["fit-distances", "FAMILY", "bad.a3m", "-o", "d.json"], "1 of 2 alignments cannot be read"),
    ],
)
def test_errors_in_words_before_work(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.a3m").write_text(">q\nMKV\n>r\nMRV\n")
    (tmp_path / "bad.a3m").write_text("MKV\n")
    monkeypatch.setattr(phylogeny, "column_attention_features", None)
    result = run(*[str(bundled_family()) if each == "FAMILY" else each for each in arguments])
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.a3m", "short.a3m"]
