"""The contract of --window and --overlap: as in Python; what no window covers is told apart in all that is written."""

import json
import re

import numpy as np
import pytest
from families import family, make_model
from typer.main import get_command
from typer.testing import CliRunner

from modeling_msa import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForTokenClassification,
    MsaModel,
    embed,
    load_model,
    precision,
    predict_contacts,
    predict_distances,
    read_alignment,
    row_maps,
    write_alignment,
)
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models that read 63 and 30 columns, an alignment of 80, another of 40, and known contacts of both."""
    folder = tmp_path_factory.mktemp("windows")
    make_model(folder / "model")
    make_model(folder / "short", max_position_embeddings=31)
    (folder / "families").mkdir()
    (folder / "maps").mkdir()
    for name, columns in (("long", 80), ("fits", 40)):
        write_alignment(family(name, 12, columns, columns), folder / "families" / f"{name}.a3m")
        known = np.zeros((columns, columns), dtype=np.int8)
        known[np.arange(columns - 8), np.arange(8, columns)] = 1
        known[0, columns - 1] = 1
        np.save(folder / "maps" / f"{name}.npy", known | known.T)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return " ".join(result.output.replace("│", " ").split())


def test_contacts(folder, tmp_path):
    """Windows of 63 overlap by 32: columns 0 to 62 and 17 to 79. Of 80 columns, 17 times 17 pairs are in neither."""
    path, known = folder / "families" / "long.a3m", folder / "maps" / "long.npy"
    more = ("--model", folder / "model", "--structure", known, "--plot", "png")
    output = msa("contacts", path, "-o", "c.tsv", *more)
    assert "80 residues, 12 of 12 rows, in 2 windows of 63; 289 pairs are in no window: no prob" in output
    result = predict_contacts(read_alignment(path), load_model(folder / "model"))
    lines = [line.split("\t") for line in (tmp_path / "c.tsv").read_text().splitlines()[1:]]
    assert len(lines) == sum(range(1, 75))
    empty = [line[:2] for line in lines if line[2] == ""]
    assert empty == [[str(i), str(j)] for i in range(1, 18) for j in range(64, 81)]
    assert lines[-289:] == [[*pair, ""] for pair in empty]
    values = {(int(i), int(j)): float(value) for i, j, value in lines[:-289]}
    assert list(values.values()) == sorted(values.values(), reverse=True)
    for (i, j), value in values.items():
        assert value == pytest.approx(result.probabilities[i - 1, j - 1], abs=1e-6)
    best = list(values)[:80]
    by_hand = sum(j - i == 8 for i, j in best) / 80
    assert precision(result, np.load(known)) == pytest.approx(by_hand)
    assert f"all >=6 {by_hand:.2f}" in output
    msa("contacts", path, "-o", "c.rr", "--model", folder / "model")
    pairs = [line.split()[:2] for line in (tmp_path / "c.rr").read_text().splitlines() if " 0 8 " in line]
    assert pairs == [line[:2] for line in lines[:-289]]
    msa("contacts", path, "-o", "c.npz", "--model", folder / "model", "--window", 20, "--overlap", 5)
    with np.load("c.npz") as arrays:
        other = predict_contacts(read_alignment(path), load_model(folder / "model"), window=20, overlap=5)
        assert arrays["probabilities"].tobytes() == other.probabilities.tobytes()


def test_classical_methods_beside_windows(folder, tmp_path):
    """They have a score for all pairs, but are judged on those of the windows, as chance is."""
    path, known = folder / "families" / "long.a3m", folder / "maps" / "long.npy"
    more = ("--model", folder / "model", "--structure", known, "--baseline", "mi", "--enrichment", "tsv")
    output = msa("contacts", path, "-o", "c.tsv", *more, "--plot", "png")
    rows = [line.split("\t") for line in (tmp_path / "c.tsv").read_text().splitlines()]
    assert rows[0] == ["i", "j", "probability", "mutual_information"]
    pairs = {(int(i), int(j)): (p, float(score)) for i, j, p, score in rows[1:]}
    covered = [pair for pair, (probability, _) in pairs.items() if probability]
    assert (len(pairs), len(covered)) == (2775, 2775 - 289)
    best = sorted(covered, key=lambda pair: -pairs[pair][1])[:80]
    by_hand = sum(j - i == 8 for i, j in best) / 80
    header, first, *_ = (line.split("\t") for line in (tmp_path / "c.precision.tsv").read_text().splitlines())
    figures = dict(zip(header, first, strict=True))
    assert float(figures["mutual_information P@L"]) == pytest.approx(by_hand, abs=1e-6)
    assert float(figures["chance P@L"]) == pytest.approx(72 / 2486, abs=1e-6)
    assert f"mutual information {by_hand:.2f}" in output
    strong = [line.split("\t") for line in (tmp_path / "c.enrichment.tsv").read_text().splitlines()[1:]]
    top = [pair for pair in pairs if pair in covered][:80]
    assert [int(row[2]) for row in strong] == [sum(k in pair for pair in top) for k in range(1, 81)]


def test_what_fits_is_the_same_with_and_without_windows(folder, tmp_path):
    path = folder / "families" / "fits.a3m"
    output = msa("contacts", path, "-o", "a.tsv", "--model", folder / "model")
    assert "window" not in output
    for more in (("--window", 63), ("--window", 40, "--overlap", 39), ("--overlap", 5)):
        assert msa("contacts", path, "-o", "b.tsv", "--model", folder / "model", *more).endswith(
            output.split(": ", 1)[1]
        )
        assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()


def test_other_tasks(folder):
    """Embeddings, distances and their weights, profiles, and precision over many."""
    path, model = folder / "families" / "long.a3m", folder / "model"
    long, loaded = read_alignment(path), load_model(model)
    assert "80 residues, 12 of 12 rows, in 2 windows of 63" in msa("embed", path, "-o", "e.npz", "--model", model)
    with np.load("e.npz") as arrays:
        assert np.array_equal(arrays["long"], embed(long, loaded).array)
    msa("embed", folder / "families", "-o", "all.npz", "--model", model, "--window", 30, "--overlap", 7)
    with np.load("all.npz") as arrays:
        assert np.array_equal(arrays["long"], embed(long, loaded, window=30, overlap=7).array)
        settings = json.loads(arrays["__metadata__"].item())["settings"]
    assert (settings["window"], settings["overlap"]) == (30, 7)
    msa("fit-distances", path, "-o", "w.json", "--model", model, "--window", 50)
    output = msa("distances", path, "-o", "d.tsv", "--model", model, "--window", 50, "--weights", "w.json")
    assert "12 of 12 rows, in 3 windows of 50, fitted on 1 family" in output
    whole = msa("distances", path, "-o", "d.npz", "--model", model)
    with np.load("d.npz") as arrays:
        assert np.array_equal(arrays["predicted"], predict_distances(long, loaded).predicted)
    assert "in 2 windows of 63" in whole
    assert "80 residues" in msa("profile", path, "-o", "p.tsv", "--model", model, "--mode", "fast", "--window", 20)
    output = msa(
        "evaluate-contacts", folder / "families", "--structures", folder / "maps", "-o", "v.tsv", "--model", model
    )
    assert "80 residues, 12 rows, in 2 windows of 63; P@L of the pairs that they cover" in output
    assert "40 residues, 12 rows, P@L" in output


def test_a_trained_contact_head(folder):
    from modeling_msa import MsaForContactPrediction

    make_model("head", MsaForContactPrediction)
    output = msa("predict", "head", folder / "families" / "long.a3m", "-o", "c.tsv")
    assert "289 pairs are in no window" in output


TOO_WIDE = ("--window 64", "error: window is 64 columns, but the model reads at most 63: pass a smaller one", 1)
REFUSED = [
    TOO_WIDE,
    ("--window 20 --overlap 20", "error: overlap must be smaller than the window of 20 columns, but is 20.", 1),
    ("--overlap 63", "error: overlap must be smaller than the window of 63 columns, but is 63.", 1),
    ("--window 1", "Invalid value for '--window'", 2),
    ("--overlap -1", "Invalid value for '--overlap'", 2),
]
COMMANDS = {
    "contacts families/fits.a3m -o o.tsv": REFUSED,
    "contacts families -o out": REFUSED[:3],
    "embed families/fits.a3m -o o.npz": REFUSED[:3],
    "distances families -o out": REFUSED[:3],
    "fit-distances families -o o.json": REFUSED[:3],
    "evaluate-contacts families --structures maps -o o.tsv": REFUSED[:3],
    "profile families -o out": [TOO_WIDE],
    "profile families/fits.a3m -o o.tsv": [TOO_WIDE, ("--overlap 5", "No such option", 2)],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_bad_windows(command, folder, tmp_path):
    """Of alignments that would fit too: one error before any work, and nothing is left."""
    words = [str(folder / word) if word.split("/")[0] in ("families", "maps") else word for word in command.split()]
    for options, said, code in COMMANDS[command]:
        output = msa(*words, *options.split(), "--model", folder / "model", code=code)
        assert said in output
        assert output.count("window") <= 3
        assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != "."] == []


def test_tasks_without_windows_refuse_long_alignments(folder, tmp_path):
    path = folder / "families" / "long.a3m"
    query = read_alignment(path).query
    (tmp_path / "t.csv").write_text(f"mutant\n{query[0]}1{'A' if query[0] != 'A' else 'C'}\n")
    words = (
        "long.a3m: the query has 80 aligned residues, but the model reads at most 63: cut the alignment into domains. "
        "(This task does not read in windows.)"
    )
    for line in ("jacobian IN -o o.tsv", "generate IN -o o.a3m --iterations 1", "embed IN -o o.npz --variants t.csv"):
        assert words in msa(*line.replace("IN", str(path)).split(), "--model", folder / "model", code=1)
    line = f"embed {path} -o o.npz --variants t.csv --window 20"
    assert "Variants are not embedded in windows" in msa(*line.split(), "--model", folder / "model", code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


# every command that reads an alignment, of a query that is longer than the model reads
IN_WINDOWS = {
    "contacts": "contacts LONG -o o.tsv",
    "report": "report LONG -o o.html --baseline mi",
    "embed": "embed LONG -o o.npz",
    "distances": "distances LONG -o o.phy",
    "fit-distances": "fit-distances LONG -o o.json",
    "evaluate-contacts": "evaluate-contacts LIST -o o.tsv",
    "profile": "profile LONG -o o.tsv --mode fast",
    "score": "score LONG -o o.csv --all-singles --mode fast",
    "proteingym": "proteingym reference.csv --msas . --assays . -o out --seeds 1 --mode fast",
    "predict": "predict contacts LONG -o o.tsv",
}
NOT_IN_WINDOWS = {
    "jacobian": "jacobian LONG -o o.tsv",
    "generate": "generate LONG -o o.a3m --iterations 1",
    "pair": "pair LONG b.a3m -o o.a3m",
    "fit-contacts": "fit-contacts LIST -o o",
    "fit-fitness": "fit-fitness LONG t.csv -o o.safetensors",
    "predict": "predict residues LONG -o o.tsv",
}
CROPPED = {"train"}  # by the recipe's max_columns
NO_MODEL = {"info", "pack", "search", "export", "push", "convert"}


@pytest.fixture
def long_files(folder, tmp_path):
    long = read_alignment(folder / "families" / "long.a3m")
    write_alignment(long, "long.a3m")
    write_alignment(family("b", 12, 20, 3), "b.a3m")
    variants = [f"{long.query[k]}{k + 1}{'W' if long.query[k] != 'W' else 'A'}" for k in range(30)]
    (tmp_path / "t.csv").write_text("mutant,value\n" + "".join(f"{each},{k % 7}\n" for k, each in enumerate(variants)))
    (tmp_path / "assay.csv").write_text(f"mutant,DMS_score,DMS_score_bin\n{variants[0]},1,1\n{variants[1]},0,0\n")
    (tmp_path / "reference.csv").write_text(
        "DMS_id,DMS_filename,target_seq,MSA_filename,MSA_start,MSA_end,MSA_theta,DMS_binarization_cutoff,"
        f"UniProt_ID,coarse_selection_type\na,assay.csv,{long.query},long.a3m,1,80,0.2,0,X,Activity\n"
    )
    (tmp_path / "list.tsv").write_text(f"long.a3m\t{folder / 'maps' / 'long.npy'}\n")
    make_model("contacts", MsaForContactPrediction)
    make_model("residues", MsaForTokenClassification)


def run_long(line, folder, **more):
    words = [{"LONG": "long.a3m", "LIST": "list.tsv"}.get(word, word) for word in line.split()]
    model = [] if words[0] == "predict" else ["--model", folder / "model"]
    return msa(*words, *model, **more)


def test_every_command_is_here():
    names = {*IN_WINDOWS, *NOT_IN_WINDOWS, *CROPPED, *NO_MODEL}
    assert set(get_command(app).commands) == names
    for name in NOT_IN_WINDOWS:
        assert "longer than the model reads" in " ".join(get_command(app).commands[name].help.split())
    assert "max_columns" in msa("train", "--help")


@pytest.mark.parametrize("name", IN_WINDOWS)
def test_commands_that_read_in_windows(name, folder, long_files, tmp_path):
    run_long(IN_WINDOWS[name], folder)
    assert [path for path in tmp_path.iterdir() if path.stem in ("o", "out")]


@pytest.mark.parametrize("name", NOT_IN_WINDOWS)
def test_commands_that_do_not_read_in_windows(name, folder, long_files, tmp_path, monkeypatch):
    monkeypatch.setattr(MsaModel, "prepare", lambda *_, **__: pytest.fail("the model ran"))
    output = run_long(NOT_IN_WINDOWS[name], folder, code=1)
    assert re.search(r"the model reads at most (63|32 and 64)", output)
    assert [path.name for path in tmp_path.iterdir() if path.stem == "o"] == []


def test_what_windows_cannot_give_is_refused_before_the_model_runs(folder, tmp_path, monkeypatch):
    """Row maps and a gap between chains of a long query: nothing runs, and nothing is left."""
    monkeypatch.setattr(MsaModel, "prepare", lambda *_, **__: pytest.fail("the model ran"))
    path, model = folder / "families" / "long.a3m", folder / "model"
    line = ["contacts", path, "-o", "c.tsv", "--plot", "png", "--model", model]
    output = msa(*line, "--structure", folder / "maps" / "long.npy", "--row-maps", "npz", code=1)
    assert "long.a3m: the query has 80 aligned residues, but the model reads at most 63, and row maps" in output
    for more in ([], ["--row-maps", "npz"]):
        output = msa(*line, "--chains", "40,40", "--chain-gap", 3, *more, code=1)
        assert ("row maps" if more else "a gap between chains cannot be used with windows") in output
    output = msa(*line, "--chains", "40,40", "--chain-gap", 3, "--window", 50, code=1)
    assert "a gap between chains cannot be used with windows" in output
    with pytest.raises(ValueError, match=r"row maps .* are not read in windows"):
        row_maps(read_alignment(path), load_model(model))
    assert [path for path in tmp_path.iterdir() if path.name[0] != "."] == []


def test_profile_of_a_long_query(folder, tmp_path):
    """Scores of the default window are those of the largest."""
    model = load_model(folder / "short", cls=MsaForMaskedLM)
    path = folder / "families" / "long.a3m"
    assert model.config.max_position_embeddings == 31
    msa("profile", path, "-o", "a.tsv", "--model", folder / "short", "--mode", "fast")
    msa("profile", path, "-o", "b.tsv", "--model", folder / "short", "--mode", "fast", "--window", 30)
    assert (tmp_path / "a.tsv").read_bytes() == (tmp_path / "b.tsv").read_bytes()
