"""The contract of `msa predict`: a head that `msa train` has trained gives what the model gives when called by hand.

By hand means transformers' own loading (PEFT's of a LoRA run), the tokenizer, one forward pass of all alignments in a
batch, and the softmax written out in double precision. Variants get what the Trainer's evaluation gives them.
"""

import csv
import functools
import json
import re
import shutil
from pathlib import Path

import hub_server
import numpy as np
import pytest
import torch
import yaml
from families import make_folder, make_labels, make_model
from typer.testing import CliRunner

from modeling_msa import (
    MsaForContactPrediction,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaTokenizer,
    VariantDataset,
    read_alignment,
)
from modeling_msa.cli import app
from modeling_msa.training.building import make_trainer
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.train import train

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("one_thread")
# the class of each objective's head, and what its recipe has beside the labels
HEADS = {
    "token": (MsaForTokenClassification, {"class_names": ["H", "E", "C"]}),
    "classes": (MsaForSequenceClassification, {"objective": "sequence", "class_names": ["soluble", "membrane"]}),
    "sequence": (MsaForSequenceClassification, {}),
    "contacts": (MsaForContactPrediction, {}),
    "variants": (MsaForSequenceClassification, {}),
}
LORA = pytest.mark.parametrize("lora", [False, True], ids=["folder", "LoRA"])
# residues 1 and 2 of the query have no column, and column 3 no residue of it
GAPPED = ">q\nmkVLAW-YCDEFG\n>r\nVIAWKYCDEFG\n>s\nVLGW-FCDAFG\n>t\nV--WKYCNEFG\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    families = make_folder(folder / "alignments", 5)
    make_labels(folder / "labels", families)
    (folder / "gapped.a3m").write_text(GAPPED)
    (folder / "gapped.csv").write_text("mutant,score\nV3I,0.5\nA5G:Y7F,-1\nWT,0\nG12A,2\n")
    make_model(folder / "base")
    return folder


@pytest.fixture(scope="module")
def trained(root):
    """`trained(name, lora)`: the folder of a run of this objective, and its recipe."""

    @functools.cache
    def run(name, lora=False):
        labels = {"token": "residues.fasta", "classes": "kinds.jsonl", "sequence": "values.csv", "contacts": "maps"}
        keys = {
            "objective": name,
            "model": str(root / "base"),
            "train_data": [str(root / "alignments")],
            "labels": str(root / "labels" / labels[name]) if name in labels else str(root / "gapped.csv"),
            "output_dir": str(root / f"{name}{'-lora' * lora}"),
            "max_tokens": 512,
            "max_steps": 2,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "disable_tqdm": True,
            "save_strategy": "no",
        } | HEADS[name][1]
        if name == "variants":
            keys["train_data"] = [str(root / "gapped.a3m")]
        if name == "classes":  # names of the classes in place of their numbers
            text = (root / "labels" / "kinds.jsonl").read_text()
            keys["labels"] = str(root / "named.jsonl")
            Path(keys["labels"]).write_text(re.sub(r'"label": (\d)', lambda m: f'"label": "{kinds[int(m[1])]}"', text))
        if lora:
            keys["lora_r"] = 2
        path = root / f"{name}-{lora}.yaml"
        path.write_text(yaml.safe_dump(keys))
        return train(path).folder, path

    kinds = ["soluble", "membrane"]
    return run


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


def load_by_hand(root, folder, name, lora):
    cls, _ = HEADS[name]
    if not lora:
        return cls.from_pretrained(folder).eval()
    saved = json.loads((folder / "adapter_config.json").read_text())["auto_mapping"]["modeling_msa"]["config"]
    options = {} if name == "contacts" else {"id2label": saved["id2label"], "problem_type": saved["problem_type"]}
    return peft.PeftModel.from_pretrained(cls.from_pretrained(root / "base", **options), folder).eval()


def by_hand(model, rows):
    """Probabilities of each alignment by one forward pass of all, without padding; `rows` are lists of sequences."""
    with torch.no_grad():
        logits = model(**MsaTokenizer()(rows, padding=True, return_tensors="pt")).logits.double().numpy()
    if model.config.problem_type == "regression":
        return list(logits)
    powers = np.exp(logits)
    if logits.ndim == 3 and logits.shape[1] == logits.shape[2]:  # contacts
        return [
            1 / (1 + np.exp(-each[: len(seen[0]), : len(seen[0])])) for each, seen in zip(logits, rows, strict=True)
        ]
    scores = powers / powers.sum(-1, keepdims=True)
    return [each[1 : len(seen[0]) + 1] if logits.ndim == 3 else each for each, seen in zip(scores, rows, strict=True)]


@LORA
def test_classes_of_residues(lora, root, trained, tmp_path):
    folder, _ = trained("token", lora)
    files = [*sorted((root / "alignments").iterdir()), root / "gapped.a3m"]
    output = msa(folder, *files, "-o", tmp_path / "out", "--plot", "svg")
    msa(folder, files[0], "-o", tmp_path / "alone.csv")
    assert read(tmp_path / "alone.csv") == read(tmp_path / "out" / "f0.tsv")
    assert {path.name for path in (tmp_path / "out").glob("*.svg")} == {f"{each.stem}.predict.svg" for each in files}
    rows = [read_alignment(each).sequences for each in files]
    for file, seen, expected in zip(
        files, rows, by_hand(load_by_hand(root, folder, "token", lora), rows), strict=True
    ):
        table = read(tmp_path / "out" / f"{file.stem}.tsv")
        expected = expected[[letter != "-" for letter in seen[0]]]
        found = [[float(row[f"p_{name}"]) for name in "HEC"] for row in table]
        assert found == [pytest.approx(each.tolist(), abs=1e-6) for each in expected]
        assert [row["label"] for row in table] == ["HEC"[k] for k in expected.argmax(1)]
        first = 3 if file.stem == "gapped" else 1
        assert [int(row["residue"]) for row in table] == list(range(first, first + len(table)))
        assert "".join(row["amino_acid"] for row in table) == seen[0].replace("-", "")
    assert "gapped.tsv: q, 10 residues, 4 of 4 rows; residues of the query without a column, left out: 1-2" in output
    assert output.count("left out") == 1


@LORA
@pytest.mark.parametrize("name", ["classes", "sequence"])
def test_one_answer_for_each_alignment(name, lora, root, trained, tmp_path):
    folder, _ = trained(name, lora)
    files = [*sorted((root / "alignments").iterdir()), root / "gapped.a3m"]
    output = msa(folder, root / "alignments", root / "gapped.a3m", "-o", tmp_path / "all.csv")
    assert "f0: f0/0, " in output
    table = read(tmp_path / "all.csv")
    assert [row["name"] for row in table] == [file.stem for file in files]
    rows = [read_alignment(each).sequences for each in files]
    expected = by_hand(load_by_hand(root, folder, name, lora), rows)
    columns = ["value"] if name == "sequence" else ["p_soluble", "p_membrane"]
    assert [[float(row[each]) for each in columns] for row in table] == [
        pytest.approx(each.tolist(), abs=1e-6) for each in expected
    ]
    if name == "classes":
        assert [row["label"] for row in table] == [("soluble", "membrane")[each.argmax()] for each in expected]
    msa(folder, files[0], "-o", tmp_path / "one.tsv")
    assert read(tmp_path / "one.tsv") == table[:1]
    msa(folder, root / "alignments", "-o", tmp_path / "each", "--format", "npz")
    with np.load(tmp_path / "each" / "f1.npz") as arrays:
        assert arrays["scores"] == pytest.approx(expected[1][None], abs=1e-6)
        assert arrays["labels"].tolist() == [each.removeprefix("p_") for each in columns]
    assert "6 of them finished before" in msa(folder, root / "alignments", files[-1], "-o", tmp_path / "all.csv")


@LORA
def test_contacts(lora, root, trained, tmp_path):
    folder, _ = trained("contacts", lora)
    files = sorted((root / "alignments").iterdir())
    msa(folder, root / "alignments", "-o", tmp_path / "maps", "--format", "npz")
    msa(folder, files[0], "-o", tmp_path / "one.tsv", "--plot", tmp_path / "one.png")
    rows = [read_alignment(each).sequences for each in files]
    expected = by_hand(load_by_hand(root, folder, "contacts", lora), rows)
    for file, each in zip(files, expected, strict=True):
        with np.load(tmp_path / "maps" / f"{file.stem}.npz") as arrays:
            assert arrays["probabilities"] == pytest.approx(each, abs=1e-6)
    for row in read(tmp_path / "one.tsv"):
        i, j = int(row["i"]) - 1, int(row["j"]) - 1
        assert float(row["probability"]) == pytest.approx(expected[0][i, j], abs=1e-6)
    assert (tmp_path / "one.png").is_file()


@LORA
@pytest.mark.parametrize(
    ("keys", "options"), [((), ()), (("--max_rows", "2", "--select", "first"), ("--rows", 2, "--select", "first"))]
)
def test_variants_as_the_trainer_evaluates_them(keys, options, lora, root, trained, tmp_path):
    folder, recipe = trained("variants", lora)[0], trained("variants")[1]
    trainer = make_trainer(parse_recipe(recipe, ["--model", str(folder), *keys]))  # its head is the folder's
    dataset = VariantDataset(root / "gapped.a3m", root / "gapped.csv", fixed=True)
    expected = trainer.predict(dataset).predictions[:, 0]
    msa(folder, root / "gapped.a3m", "--variants", root / "gapped.csv", "-o", tmp_path / "out.tsv", *options)
    table = read(tmp_path / "out.tsv")
    assert [row["mutant"] for row in table] == dataset.names
    assert [float(row["score"]) for row in table] == dataset.scores  # the table's own column stays
    assert [float(row["value"]) for row in table] == pytest.approx(expected.tolist(), abs=1e-6)
    assert len(set(expected.tolist())) == 4


def test_a_table_that_is_kept_and_one_for_each_alignment(root, trained, tmp_path):
    folder, _ = trained("classes")
    (tmp_path / "tables").mkdir()
    for name in ("f0", "f1"):
        query = read_alignment(root / "alignments" / f"{name}.a3m").query
        text = f"id\tv\n7\t{query[3]}14W\n8\t{query[0]}11*\n"
        (tmp_path / "tables" / f"{name}.tsv").write_text(text)
    files = [root / "alignments" / f"{name}.a3m" for name in ("f0", "f1")]
    options = ("--variants", tmp_path / "tables", "--variant-column", "v", "--offset", 10)
    output = msa(folder, *files, "-o", tmp_path / "out", *options)
    assert re.search(
        r"f0.tsv: f0/0, 1 of 2 variants, .*; 1 variant has no prediction: .*f0.tsv, line 3 \(.11\*\): a stop", output
    )
    for name in ("f0", "f1"):
        first, second = read(tmp_path / "out" / f"{name}.tsv")
        assert list(first) == ["id", "v", "label", "p_soluble", "p_membrane", "reason"]
        assert (first["id"], second["id"], second["label"], second["p_soluble"]) == ("7", "8", "", "")
        assert float(first["p_soluble"]) + float(first["p_membrane"]) == pytest.approx(1, abs=2e-6)
    table = tmp_path / "tables" / "f1.tsv"
    table.write_text(table.read_text().replace("8\t", "9\t"))
    assert "made again, because the table has changed: f1" in msa(folder, *files, "-o", tmp_path / "out", *options)
    (tmp_path / "tables" / "f1.tsv").unlink()
    output = msa(folder, *files, "-o", tmp_path / "out", *options, code=1)
    assert "there is no table f1.csv or .tsv" in output


MISTAKES = {  # arguments, and what is said
    "no head": ("base gapped.a3m -o o.tsv", r"base has no trained head .* msa contacts, msa score and msa embed"),
    "embedded": ("msa-tiny gapped.a3m -o o.tsv", r"msa-tiny has no trained head"),
    "no model": ("nowhere gapped.a3m -o o.tsv", "nowhere: no such folder"),
    "swapped": ("gapped.a3m token -o o.tsv", "gapped.a3m is a file, not the folder of a model"),
    "no file": ("token nowhere.a3m -o o.tsv", r"nowhere.a3m: there is no such file"),
    "ending": ("token gapped.a3m -o o.docx", r"unknown output format '.docx'; use .tsv, .csv or .npz"),
    "a table as alignment": ("classes gapped.a3m gapped.csv -o o.tsv", r"gapped.csv is a table, .* with --variants"),
    "no table": ("classes gapped.a3m --variants no.csv -o o.tsv", "no.csv: no such file"),
    "variants of residues": ("token gapped.a3m --variants gapped.csv -o o.tsv", "this one predicts classes of"),
    "variants of contacts": ("contacts gapped.a3m --variants gapped.csv -o o.tsv", "this one predicts contacts"),
    "plot of classes": ("classes gapped.a3m -o o.tsv --plot o.png", r"--plot draws classes of residues, or contacts"),
    "no column": ("variants gapped.a3m --variants gapped.csv --variant-column v -o o.tsv", "there is no column 'v'"),
    "column there": ("variants gapped.a3m --variants taken.csv -o o.tsv", r"taken.csv: the table already has"),
    "wild type": ("variants gapped.a3m --variants wrong.csv -o o.tsv", r"wrong.csv: 1 of 1 variants do not fit"),
    "the table itself": ("variants gapped.a3m --variants gapped.csv -o gapped.csv", "gapped.csv is an input"),
    "too long": ("token long.a3m -o o.tsv", "the query has 70 aligned residues, but the model reads at most 63"),
    "several into npz": ("classes alignments -o o.npz", "several alignments require a folder"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "words"), MISTAKES.values(), ids=MISTAKES)
def test_errors_in_words_before_work(line, words, root, trained, tmp_path, monkeypatch):
    for name in ("token", "classes", "contacts", "variants"):
        if name in line.split():
            (tmp_path / name).symlink_to(trained(name)[0])
    for name in ("gapped.a3m", "gapped.csv", "base", "alignments"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "taken.csv").write_text("mutant,value\nV3I,1\n")
    (tmp_path / "wrong.csv").write_text("mutant\nA3I\n")
    (tmp_path / "long.a3m").write_text(f">q\n{'M' * 70}\n")
    monkeypatch.chdir(tmp_path)
    before = sorted(Path().iterdir())
    output = msa(*line.split(), code=1)
    assert re.search(words, " ".join(output.split()))
    assert sorted(Path().iterdir()) == before


def test_a_head_on_the_hub(root, trained, tmp_path, monkeypatch):
    folder, _ = trained("token")
    with hub_server.running() as hub:
        hub.here(monkeypatch, tmp_path / "home", hub_server.WRITE)
        hub.seed("me/head", folder)
        hub.seed("me/base", root / "base")
        msa("me/head", root / "gapped.a3m", "-o", tmp_path / "hub.tsv")
        assert "me/base has no trained head" in msa("me/base", root / "gapped.a3m", "-o", tmp_path / "o.tsv", code=1)
    hub_server.huggingface_hub.utils.close_session()
    msa(folder, root / "gapped.a3m", "-o", tmp_path / "here.tsv")
    assert (tmp_path / "hub.tsv").read_text() == (tmp_path / "here.tsv").read_text()


def test_a_lora_run_without_its_base(root, trained, tmp_path):
    folder = Path(shutil.copytree(trained("token", True)[0], tmp_path / "a" / "b" / "run"))
    saved = json.loads((folder / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = str(tmp_path / "gone")
    (folder / "adapter_config.json").write_text(json.dumps(saved))
    output = msa(folder, root / "gapped.a3m", "-o", tmp_path / "o.tsv", code=1)
    assert "the model that they belong to is missing" in output
    assert not (tmp_path / "o.tsv").exists()
