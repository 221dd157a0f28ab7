"""The contract of families of known structure: judging a model on them, and fitting its contact regression.

Precision is that of the table that `msa contacts` writes, whatever the structure's residue numbers. A set's means have
bootstrap intervals over families. What is fitted is a complete new folder that differs in its regression alone.
"""

import json
import re

import numpy as np
import pytest
import torch
import typer
from families import make_folder, make_labels, make_model
from made_up import SHARED, real_data
from safetensors.torch import load_file
from scipy.stats import bootstrap
from typer.testing import CliRunner

from modeling_msa import MsaForMaskedLM, MsaForSequenceClassification, load_model
from modeling_msa.alignments.known_contacts import list_families
from modeling_msa.cli import contacts as cli_contacts
from modeling_msa.hub.contact_fitting import fit_contacts
from modeling_msa.tasks import contact_evaluation as evaluation
from modeling_msa.tasks.contact_evaluation import ContactEvaluation, evaluate_contacts, read_evaluation
from modeling_msa.tasks.contacts import ContactMap

pytestmark = pytest.mark.usefixtures("one_thread")
REGRESSION = "msa.contact_head.regression"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A model, families f0 .. f7 and contact maps of them in maps/, listed in families.tsv."""
    folder = tmp_path_factory.mktemp("evaluation")
    families = make_folder(folder / "families")
    make_labels(folder / "labels", families)
    lines = [f"families/{name}.a3m\tlabels/maps/{name}.npy\n" for name in families]
    (folder / "families.tsv").write_text("# made up\n\n" + "".join(lines))
    make_model(folder / "model")
    return folder


def run(command, *arguments):
    app = typer.Typer()
    app.command("contacts")(cli_contacts.contacts)
    app.command("evaluate-contacts")(cli_contacts.evaluate)
    app.command("fit-contacts")(cli_contacts.fit)
    return CliRunner().invoke(app, [command, *map(str, arguments)])


def beta_carbons(path):
    """C-beta (glycine: C-alpha) positions of a PDB file with one chain, by its columns; author number and place."""
    atoms = {}
    for line in path.read_text().splitlines():
        wanted = "CA" if line[17:20] == "GLY" else "CB"
        if line.startswith("ATOM") and line[16] in " A" and line[12:16].strip() == wanted:
            atoms[line[22:27]] = [float(line[start : start + 8]) for start in (30, 38, 46)]
    return np.array(list(atoms.values()))


@real_data
@pytest.mark.parametrize("name", ["6exz", "1prw"])
def test_precision_of_the_written_table(name, places, tmp_path):
    """Counted from the table and the PDB's own lines; the first 5 and 9 others of its residues are cut out of it."""
    source = (SHARED / "structure" / f"{name}.pdb").read_text().splitlines()
    numbers = list(dict.fromkeys(line[22:27] for line in source if line.startswith("ATOM")))
    cut = [*range(5), *range(30, 39)]
    # the others have the author numbers 901, 902 ... without a jump
    renumbered = {number: k for k, number in enumerate(n for i, n in enumerate(numbers) if i not in cut)}
    lines = [
        f"{line[:22]}{901 + renumbered[line[22:27]]:4} {line[27:]}"
        for line in source
        if line.startswith("ATOM") and line[22:27] in renumbered
    ]
    (tmp_path / "cut.pdb").write_text("\n".join([*lines, "END", ""]))

    options = ("--rows", 16, "--structure", tmp_path / "cut.pdb", "--plot", "png")
    alignment = SHARED / "msa" / f"{name}.a3m"
    result = run("contacts", alignment, "-o", tmp_path / "c.tsv", *options)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "c.precision.tsv", "c.tsv", "cut.pdb"]

    beta = beta_carbons(SHARED / "structure" / f"{name}.pdb")
    length = len(beta)
    distances = np.sqrt(((beta[:, None] - beta) ** 2).sum(-1))
    touch = {}
    for i in range(length):
        for j in range(length):
            if i not in cut and j not in cut:
                touch[i + 1, j + 1] = distances[i, j] < 8
    table = [line.split("\t")[:2] for line in (tmp_path / "c.tsv").read_text().splitlines()[1:]]
    ranked = [(int(i), int(j)) for i, j in table if (int(i), int(j)) in touch]
    written = [line.split("\t") for line in (tmp_path / "c.precision.tsv").read_text().splitlines()]
    assert written[0] == ["contacts", "P@L", "P@L/2", "P@L/5"]
    ranges = {"all": (6, 999), "short": (6, 11), "medium": (12, 23), "long": (24, 999)}
    assert [row[0] for row in written[1:]] == list(ranges)
    for row in written[1:]:
        low, high = ranges[row[0]]
        chosen = [pair for pair in ranked if low <= pair[1] - pair[0] <= high]
        for cell, part in zip(row[1:], (1, 2, 5), strict=True):
            count = length // part
            expected = sum(touch[pair] for pair in chosen[:count]) / count
            assert float(cell) == pytest.approx(expected, abs=1e-6)
            assert f"{expected:.2f}" in result.output


def test_a_set_by_hand(monkeypatch):
    """Two families of 8 residues, one pair 6 apart or more right of 3; a third of 5 residues has no such pair."""

    def predicted(alignment, *_):
        length = len(alignment.query)
        values = np.zeros((length, length), dtype=np.float32)
        values[0, -1] = values[-1, 0] = 0.9
        return ContactMap("q", alignment.query, np.arange(1, length + 1), values, depth=4)

    monkeypatch.setattr(evaluation, "predict_contacts", predicted)
    known = np.zeros((8, 8), dtype=np.int8)
    known[0, 7] = known[7, 0] = 1
    family = evaluation.Alignment.from_sequences
    families = [
        (family(["MKVLAWYC"], ["a"]), known),
        (family(["MKVLAWYC"], ["b"]), np.zeros((8, 8), dtype=np.int8)),
        (family(["MKVLA"], ["c"]), np.zeros((5, 5), dtype=np.int8)),
    ]
    result = evaluate_contacts(families, None)
    assert (result.names, result.lengths.tolist(), result.depths.tolist()) == (("a", "b", "c"), [8, 8, 5], [4, 4, 4])
    assert result.precisions["P@L"][:2].tolist() == [1 / 8, 0]
    assert result.precisions["P@L/5"][:2].tolist() == [1, 0]
    assert result.precisions["short P@L/2"][:2].tolist() == [1 / 4, 0]
    assert all(np.isnan(values[2]) for values in result.precisions.values())
    assert np.isnan(result.precisions["long P@L"]).all()
    assert result.means()["P@L/5"].tolist() == [0.5, 0, 1]
    lines = str(result).splitlines()
    assert lines[1].split() == ["all", ">=6", "0.06", "0.00-0.12", "0.12", "0.00-0.25", "0.50", "0.00-1.00"]
    assert lines[4].split() == ["long", ">=24", "-", "-", "-"]
    with pytest.raises(ValueError, match="no family"):
        evaluate_contacts([], None)


def test_intervals_are_scipys():
    """Both ends within 0.001, which is 4 times the error that 100,000 resamples leave."""
    values = np.random.default_rng(1).beta(2, 3, 60)
    result = ContactEvaluation(("f",) * 60, values, values, {"P@L": np.append(values, np.nan)}).means(0.9, 100_000)
    expected = bootstrap((values,), np.mean, confidence_level=0.9, n_resamples=100_000, method="percentile", rng=2)
    assert result["P@L"][0] == pytest.approx(values.mean())
    assert np.abs(result["P@L"][1:] - np.array(expected.confidence_interval)).max() < 0.001


def test_list_of_families(places, tmp_path):
    assert [family.alignment.name for family in list_families(places / "families.tsv")] == [
        f"f{k}.a3m" for k in range(8)
    ]
    (places / "few").mkdir(exist_ok=True)
    (places / "few" / "f3.npy").write_bytes((places / "labels/maps/f3.npy").read_bytes())
    with pytest.warns(UserWarning, match="7 of 8 alignments have no structure"):
        [family] = list_families(places / "families", places / "few")
    assert (family.alignment.name, family.structure.name, family.chain) == ("f3.a3m", "f3.npy", None)
    table = tmp_path / "list.txt"
    alignment, structure = places / "families/f0.a3m", places / "labels/maps/f0.npy"
    for text, error, words in (
        (f"{alignment}\n", ValueError, "line 1: .* is not alignment, TAB, structure"),
        (f"{alignment}\tnowhere.pdb\n", FileNotFoundError, "line 1: .*nowhere.pdb does not exist"),
        (f"{alignment} {structure}\n{alignment} {structure} B\n", ValueError, "are both named f0"),
        ("# nothing\n", ValueError, "lists no family"),
    ):
        table.write_text(text)
        with pytest.raises(error, match=words):
            list_families(table)
    with pytest.raises(ValueError, match="give the folder of their structures too"):
        list_families(places / "families")


def test_evaluate_command(places, tmp_path):
    """A broken family is named and counted; the others are in the table; the next run does only what is left."""
    for name in ("families", "labels/maps"):
        (tmp_path / name).mkdir(parents=True)
        for path in (places / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    (tmp_path / "families.tsv").write_bytes((places / "families.tsv").read_bytes())
    whole = (tmp_path / "labels/maps/f2.npy").read_bytes()
    np.save(tmp_path / "labels/maps/f2.npy", np.zeros((3, 3), dtype=np.int8))
    arguments = (tmp_path / "families.tsv", "-o", tmp_path / "table.tsv", "--model", places / "model", "--rows", 4)
    result = run("evaluate-contacts", *arguments)
    assert result.exit_code == 1
    assert "1 of 8 alignments failed" in result.output
    assert "3 x 3 entries" in result.output
    assert read_evaluation(tmp_path / "table.tsv").names == ("f0", "f1", "f3", "f4", "f5", "f6", "f7")
    (tmp_path / "labels/maps/f2.npy").write_bytes(whole)
    result = run("evaluate-contacts", *arguments)
    assert result.exit_code == 0, result.output
    assert re.findall(r"^f\d", result.output, re.MULTILINE) == ["f2"]

    written = read_evaluation(tmp_path / "table.tsv")
    expected = evaluate_contacts(list_families(places / "families.tsv"), load_model(places / "model"), rows=4)
    assert written.names == expected.names
    assert written.lengths.tolist() == expected.lengths.tolist()
    assert written.depths.tolist() == [4] * 8
    for name, values in expected.precisions.items():
        assert written.precisions[name] == pytest.approx(values, abs=1e-6, nan_ok=True)
    assert str(written) in result.output
    means = [line.split("\t") for line in (tmp_path / "table.means.tsv").read_text().splitlines()]
    assert means[0] == ["figure", "families", "mean", "low", "high"]
    assert means[1][:2] == ["P@L", "8"]
    assert float(means[1][2]) == pytest.approx(expected.precisions["P@L"].mean(), abs=1e-5)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_contacts_of_many(places, tmp_path):
    """A table and a picture each; f3 alone has a structure. One picture for all is refused, as is an odd ending."""
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "f3.npy").write_bytes((places / "labels/maps/f3.npy").read_bytes())
    inputs = [places / "families" / f"f{k}.a3m" for k in (1, 3)]
    options = ("--model", places / "model", "--structure", tmp_path / "maps")
    result = run("contacts", *inputs, "-o", tmp_path / "out", *options, "--plot", "svg", "--format", "rr")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith("."))
    assert names == ["f1.contacts.svg", "f1.rr", "f3.contacts.svg", "f3.precision.tsv", "f3.rr"]
    assert "no structure in" in result.output
    assert (tmp_path / "out" / "f3.rr").read_text().startswith("PFRMAT RR\nTARGET f3/0\n")
    for arguments, words in (
        ([*inputs, "-o", tmp_path / "more", "--plot", tmp_path / "a.png"], "say --plot png"),
        ([inputs[0], "-o", tmp_path / "a.tsv", "--plot", "a.docx"], "no kind of picture"),
        ([inputs[0], "-o", tmp_path / "a.csv"], ".tsv, .npz or .rr"),
        ([inputs[0], "-o", tmp_path / "a.tsv", "--format", "rr"], "does not end with .rr"),
        ([inputs[0], "-o", tmp_path / "a.tsv", "--structure", "nowhere.pdb"], "no such structure"),
        ([inputs[0], "-o", tmp_path / "a.tsv", "--structure", tmp_path / "maps"], "no structure that is called"),
    ):
        result = run("contacts", *arguments, "--model", places / "model")
        assert result.exit_code == 1
        assert words in result.output.replace("\n", " ")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["maps", "out"]
    result = run("contacts", inputs[1], "-o", tmp_path / "out", *options, "--plot", tmp_path / "maps", "--overwrite")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "maps" / "f3.contacts.png").is_file()


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def test_fit_command(places, tmp_path):
    """Nothing but the regression changes; the type stays; the folder is complete and names its source and licence."""
    source = tmp_path / "source"
    MsaForMaskedLM.from_pretrained(places / "model", dtype=torch.bfloat16).save_pretrained(source)
    (source / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# mine\n")
    arguments = (places / "families.tsv", "-o", tmp_path / "fitted", "--model", source, "--regularization", 1e4)
    result = run("fit-contacts", *arguments, "--rows", 5)
    assert result.exit_code == 0, result.output
    assert "8 families" in result.output
    names = {path.name for path in (tmp_path / "fitted").iterdir()}
    code = {"configuration_msa_transformer.py", "modeling_msa_transformer.py", "tokenization_msa_transformer.py"}
    assert code | {"README.md", "config.json", "model.safetensors", "tokenizer_config.json"} <= names
    before, after = tensors_of(source), tensors_of(tmp_path / "fitted")
    assert before.keys() == after.keys()
    assert any(name.startswith("lm_head") for name in after)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {f"{REGRESSION}.weight", f"{REGRESSION}.bias"}
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    card = (tmp_path / "fitted" / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "# fitted\n" in card
    assert "those of source" in card
    assert "structures of 8 families, at most 5 rows" in card
    result = run("fit-contacts", *arguments)
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fitted", "source"]


def test_fit_keeps_other_heads(places, tmp_path):
    model = MsaForSequenceClassification.from_pretrained(places / "model", num_labels=3)
    model.save_pretrained(tmp_path / "classifier")
    families = list_families(places / "families.tsv")
    fit_contacts(families, tmp_path / "classifier", tmp_path / "fitted", rows=5, regularization=1e4)
    before, after = tensors_of(tmp_path / "classifier"), tensors_of(tmp_path / "fitted")
    assert any(name.startswith("classifier") for name in after)
    assert {name for name in after if not torch.equal(before[name], after[name])} == {
        f"{REGRESSION}.weight",
        f"{REGRESSION}.bias",
    }
    config = json.loads((tmp_path / "fitted" / "config.json").read_text())
    assert config["architectures"] == ["MsaForSequenceClassification"]


def test_fit_leaves_nothing_behind(places, tmp_path):
    """Too strong a penalty; a contact map of another family."""
    families = list_families(places / "families.tsv")
    with pytest.raises(ValueError, match="No row map tells"):
        fit_contacts(families, places / "model", tmp_path / "new" / "fitted", regularization=1e-9)
    wrong = [families[0], (families[1].alignment, families[2].structure)]
    with pytest.raises(ValueError, match="but the query has"):
        fit_contacts(wrong, places / "model", tmp_path / "new" / "fitted")
    assert list(tmp_path.iterdir()) == []
