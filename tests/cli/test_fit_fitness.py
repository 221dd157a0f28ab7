"""The contract of `msa fit-fitness` and `msa score --fitness`: Python's numbers in files, or words and no files."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from families import family, make_model
from typer.testing import CliRunner

from modeling_msa import FitnessModel, MsaForMaskedLM, fit_fitness, load_model, read_alignment, write_alignment
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A family, and a table of all substitutions of twelve residues by three letters."""
    monkeypatch.chdir(tmp_path)
    rows = family("f", 8, 14, 1)
    write_alignment(rows, "family.a3m")
    names = [f"{rows.query[k]}{k + 1}{letter}" for k in range(12) for letter in "AKW" if rows.query[k] != letter]
    values = np.random.default_rng(0).normal(size=len(names)).round(3)
    lines = [f"{k},{name},{value}\n" for k, (name, value) in enumerate(zip(names, values, strict=True))]
    Path("measured.csv").write_text("id,mutant,fitness\n" + "".join(lines))
    return names, values


def run(*arguments, ok=True):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code == 0) == ok, result.output
    return result.output


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if str(path).endswith(".tsv") else ","))


FIT = ("fit-fitness", "family.a3m", "measured.csv", "-o", "f.safetensors", "--measured-column", "fitness")


def test_what_is_fitted_and_predicted_is_pythons(here, model):
    names, values = here
    options = ("--rows", 4, "--features", "one-hot,embedding,zero-shot", "--kernel", "gp", "--which", "mutated")
    shown = run(*FIT, "--model", model, *options, "--layers", "1,-1", "--labels", "5,10", "--report", "report.tsv")
    network = load_model(model, cls=MsaForMaskedLM)
    alignment = read_alignment("family.a3m")
    expected = fit_fitness(
        alignment,
        names,
        values,
        network,
        rows=4,
        features=["one-hot", "embedding", "zero-shot"],
        kernel="gp",
        which="mutated",
        layers=(1, -1),
        labels=(5, 10),
    )
    assert "f.safetensors: gp on one-hot, embedding, zero-shot, fitted on" in shown
    schemes = ["random", "modulo", "contiguous", "5 labels", "10 labels"]
    assert [line.partition(":")[0] for line in shown.splitlines() if "Spearman" in line] == schemes
    means = {row["scheme"]: row for row in table("report.tsv") if row["fold"] == "mean"}
    for each in expected.evaluations:
        assert float(means[each.scheme]["MSE"]) == pytest.approx(each.mean("MSE"), rel=1e-4)
        assert f"{each.scheme}: Spearman {each.mean('Spearman'):.3f} ± {each.half_width('Spearman'):.3f}" in shown
    Path("new.csv").write_text(f"mutant,note\n{names[0][:-1]}D,x\n{names[0][:-1]}D:{names[9]},y\nWT,z\n")
    shown = run("score", "family.a3m", "new.csv", "-o", "out.csv", "--model", model, "--fitness", "f.safetensors")
    assert "2 of 3 variants, 4 of 8 rows" in shown
    found = table("out.csv")
    right = expected.predict(alignment, [row["mutant"] for row in found], network).score
    assert [float(row["score"]) for row in found[:2]] == pytest.approx(right[:2], abs=1e-5)
    assert found[2]["score"] == ""
    assert "no substitution" in found[2]["reason"]
    run("score", "family.a3m", "--all-singles", "-o", "all.csv", "--model", model, "--fitness", "f.safetensors")
    singles = {row["mutant"]: float(row["score"]) for row in table("all.csv")}
    assert len(singles) == 14 * 19
    assert singles[found[0]["mutant"]] == pytest.approx(right[0], abs=1e-5)


def test_shifted_numbers_and_other_columns(here, model):
    names, _ = here
    lines = Path("measured.csv").read_text().splitlines()[1:]
    moved = [line.split(",")[1:] for line in lines]
    text = "".join(f"{v[0]}{int(v[1:-1]) + 100}{v[-1]}\t{value}\n" for v, value in moved)
    Path("moved.tsv").write_text("variant\tactivity\n" + text)
    common = ("--model", model, "--rows", 4, "--folds", "none")
    run(*FIT, *common)
    run(
        "fit-fitness",
        "family.a3m",
        "moved.tsv",
        "-o",
        "g.safetensors",
        *common,
        "--variant-column",
        "variant",
        "--offset",
        100,
    )  # the measured column is the only other one
    first, second = (FitnessModel.load(f"{name}.safetensors") for name in "fg")
    assert np.array_equal(first.regressor.coef_, second.regressor.coef_)
    assert first.evaluations == ()
    options = ("--model", model, "--fitness", "g.safetensors", "--variant-column", "variant", "--offset", 100)
    shown = run("score", "family.a3m", "moved.tsv", "-o", "o.csv", *options, "--measured-column", "activity")
    assert f"{len(names)} of {len(names)} variants" in shown


def test_results_know_which_regression_they_are_from(here, model):
    run(*FIT, "--model", model, "--rows", 4, "--folds", "none")
    Path("in").mkdir()
    for name in "ab":
        Path("in", f"{name}.a3m").write_bytes(Path("family.a3m").read_bytes())
    common = ("score", "in", "measured.csv", "-o", "out", "--model", model)
    run(*common, "--fitness", "f.safetensors")
    assert "2 of them finished before" in run(*common, "--fitness", "f.safetensors")
    run(*FIT, "--model", model, "--rows", 3, "--folds", "none")
    shown = run(*common, "--fitness", "f.safetensors")
    assert "made again, because the regression has changed" in shown
    assert "the regression is left out" in run(*common)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--features", "structure"), "--features structure: 'structure' is not one of one-hot, embedding, zero-shot"),
        (("--features", "one-hot,one-hot"), "each once"),
        (
            ("--folds", "random,block"),
            "'block' is not one of random, modulo, contiguous, or none",
        ),
        (("--labels", "many"), "--labels: 'many' is not a number"),
        (("--labels", "500"), "measured.csv: 500 labels cannot be drawn"),
        (("--layers", "9"), "unknown layer 9"),
        (("--layers", "x"), "--layers x: pass numbers"),
        (("-o", "f.pkl"), "unknown output format '.pkl'"),
        (("-o", "nowhere/f.safetensors"), "the folder nowhere does not exist"),
        (("--report", "r.json"), "unknown output format '.json'"),
        (("--report", "measured.csv"), "measured.csv is an input, and would be replaced"),
        (("--measured-column", "activity"), "there is no column 'activity' (--measured-column)"),
        (("--variant-column", "name"), "there is no column 'name' (--variant-column)"),
        (("--offset", "3"), "measured.csv: "),
        (("--model", "nowhere"), "nowhere"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(options, words, here, model):
    before = sorted(os.listdir())
    shown = run(*FIT, "--model", model, *options, ok=False)
    assert words in " ".join(shown.split())
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            ["{0},1.5", "{0},1.6", "{1},2"],
            "1 variant with several values: line 3 ({0}) is 1.6, but line 2 ({0}) is",
        ),
        (["{0},1.5"], "fitting requires at least 2 variants with a value, but 1 can be used"),
        (["{0},1.5", "{1},"], "fitting requires at least 2 variants with a value, but 1 can be used"),
        (["{0},1", "{1},1", "{2},1"], "all 3 variants have the same value, 1: there is nothing to fit"),
        (["{0},1", "{1},2", "{2},3"], "random: fold"),
        (["{0},1", "{1},high"], "line 3: 'high' in fitness is not a number"),
        (["{0},1", "A3B,2", "Q900W,3"], "line 4 (Q900W)"),
    ],
)
def test_labels_that_cannot_be_fitted(rows, words, here, model, monkeypatch):
    monkeypatch.setattr("modeling_msa.cli.session.Session.load", None)  # it is said before the model is loaded
    names, _ = here
    Path("bad.csv").write_text("mutant,fitness\n" + "\n".join(rows).format(*names) + "\n")
    before = sorted(os.listdir())
    shown = run("fit-fitness", "family.a3m", "bad.csv", "-o", "f.safetensors", "--model", model, ok=False)
    assert "bad.csv" in shown
    assert words.format(*names) in " ".join(shown.split())
    assert sorted(os.listdir()) == before


def test_the_only_other_column_or_words(here, model):
    end = ("-o", "f.safetensors", "--model", model)
    shown = " ".join(run("fit-fitness", "family.a3m", "measured.csv", *end, ok=False).split())
    assert "pass the column with the measured values with --measured-column; the columns are id, mutant" in shown
    assert "is not a table of variants" in run("fit-fitness", "family.a3m", "family.a3m", *end, ok=False)
    Path("spaced.csv").write_text(" mutant ,x,y\nK2R,1,2\n")
    shown = " ".join(run("fit-fitness", "family.a3m", "spaced.csv", *end, ok=False).split())
    assert "there is no column 'mutant' (--variant-column); the columns are mutant , x, y" in shown


@pytest.mark.parametrize("option", ["--rows 3", "--seed 1", "--strategy wt-marginals", "--mode exact", "--seeds 1-2"])
def test_options_that_the_regression_decides(option, here, model):
    Path("f.safetensors").touch()
    common = ("score", "family.a3m", "measured.csv", "-o", "out.csv", "--model", model, "--fitness", "f.safetensors")
    shown = run(*common, *option.split(), ok=False)
    assert f"{option.split()[0]} is decided by the regression f.safetensors" in " ".join(shown.split())
    whole = run("score", "family.a3m", "--sequences", "x.fasta", *common[3:], ok=False)
    assert "--sequences cannot be used with --fitness" in " ".join(whole.split())


def test_a_regression_that_does_not_fit(here, model, tmp_path):
    common = ("score", "family.a3m", "measured.csv", "-o", "out.csv", "--model", model, "--fitness")
    assert "g.safetensors: no such file" in run(*common, "g.safetensors", ok=False)
    Path("g.safetensors").write_text("x")
    Path("g.json").write_text("{}")
    assert "g.safetensors: not a regression that msa fit-fitness has written" in " ".join(
        run(*common, "g.safetensors", ok=False).split()
    )
    run(*FIT, "--model", model, "--rows", 4, "--folds", "none")
    write_alignment(family("f", 8, 14, 2), "other.a3m")
    query = read_alignment("other.a3m").query
    Path("other.csv").write_text(f"mutant\n{query[0]}1{'A' if query[0] != 'A' else 'C'}\n")
    other = ("score", "other.a3m", "other.csv", "-o", "out.csv", "--model", model, "--fitness", "f.safetensors")
    assert "the query is not the one that the regression was fitted with" in " ".join(run(*other, ok=False).split())
    assert "--plot draws zero-shot scores" in run(*common, "f.safetensors", "--plot", "p.png", ok=False)
    assert not Path("out.csv").exists()
