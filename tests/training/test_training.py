"""The contract of ``msa train``.

A recipe's values are of their keys' types, the command line's beat them, and all that is wrong is said at once, before
anything is loaded. Losses and metrics are over all targets, however they are batched; evaluation draws the same masks
each time. A run that is killed, even while it writes a checkpoint, and resumed ends with the weights of one that was
not, bit for bit. A run's folder loads through the auto classes. Every recipe in configuration/training runs.
"""

import copy
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from families import make_config, make_folder, make_labels, make_model
from fresh import run_fresh
from safetensors.torch import load_file
from torch.nn import functional as F
from typer.testing import CliRunner

from modeling_msa import MsaForMaskedLM, MsaForSequenceClassification, MsaTokenizer, read_alignment
from modeling_msa.cli import app
from modeling_msa.training.metrics import Classes, Contacts, Tokens, Values
from modeling_msa.training.recipes import help_text, parse_recipe
from modeling_msa.training.shipped import find_recipe
from modeling_msa.training.packing import pack_alignments
from modeling_msa.training.building import make_trainer
from modeling_msa.training.checkpoints import find_broken, find_checkpoint
from modeling_msa.training.train import train
from modeling_msa.training.trainer import MsaTrainer

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "configuration" / "training").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Families, labels, a config and weights, in one folder."""
    folder = tmp_path_factory.mktemp("training")
    families = make_folder(folder / "alignments")
    make_config(folder / "config")
    return folder, families, make_labels(folder / "labels", families), make_model(folder / "model")


@pytest.fixture
def recipe(data, tmp_path):
    """`recipe(**keys)`: a recipe of masked language modelling, from scratch, with these keys changed."""

    def write(**keys):
        content = {
            "config": str(data[0] / "config"),
            "train_data": [str(data[0] / "alignments")],
            "output_dir": str(tmp_path / "run"),
            "max_tokens": 256,
            "max_steps": 4,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "disable_tqdm": True,
            "logging_steps": 1,
            "save_strategy": "no",
        } | keys
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    return write


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """Datasets waits for five seconds at the end of each pass over Parquet files."""
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0.1)


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


# recipes


def test_values_are_of_their_keys_types_and_the_command_line_beats_the_file(recipe, tmp_path):
    path = recipe(max_steps=7)
    path.write_text(path.read_text() + "weight_decay: 1e-4\nbf16: no\nrandom_positions: yes\n")
    assert yaml.safe_load(path.read_text())["weight_decay"] == "1e-4"  # a word to YAML
    read = parse_recipe(path, ["--max-steps", "9", "--no_mask_gaps", "--train_data", str(tmp_path), str(path)])
    assert read.training.weight_decay == 1e-4
    assert read.training.bf16 is False
    assert read.data.random_positions is True
    assert read.data.mask_gaps is False
    assert read.training.max_steps == read.given["max_steps"] == 9
    assert read.data.train_data == [str(tmp_path), str(path)]
    assert read.given["mask_gaps"] is False
    assert "select" not in read.given  # nobody set it
    assert read.training.remove_unused_columns is False


def test_all_that_is_wrong_is_said_at_once(recipe):
    path = recipe(learning_rte=1e-3, max_tokens="many", model="somewhere")
    with pytest.raises(ValueError, match="5 problems") as error:
        parse_recipe(path, ["--depth", "deep", "--mlm-probabilty", "0.2", "--seed", "1", "2"])
    message = str(error.value)
    assert str(path) in message
    assert "learning_rte: there is no such key; did you mean learning_rate?" in message
    assert "mlm_probabilty: there is no such key; did you mean mlm_probability?" in message
    assert "max_tokens: 'many' is not a whole number" in message
    assert "depth: 'deep' is not one of full, log_uniform" in message
    assert "seed: only one value is allowed, not 1 2" in message
    path = recipe(train_data=["nowhere"], objective="token", eval_strategy="epoch", mlm_probability=2, model="x")
    with pytest.raises(ValueError, match="5 problems") as error:
        parse_recipe(path)
    message = str(error.value)
    for part in ("either model", "nowhere does not exist", "requires labels", "requires eval_data", "between 0 and 1"):
        assert part in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "key: value"),
        ("a: [", "not a YAML"),
        ("config: nonesuch\ntrain_data: [.]", "nonesuch"),
        ("config: msa-tiny\ntrain_data: [.]\nconfig_overrides: {hiden_size: 8}", "did you mean hidden_size"),
        ("config: msa-tiny\ntrain_data: [.]\nstreaming: true", "requires max_steps"),
        ("config: msa-tiny\ntrain_data: [.]\nlora_r: 4", "requires model"),
        ("config: msa-tiny\ntrain_data: [.]\nload_best_model_at_end: true", "eval"),
        ("config: msa-tiny\ntrain_data: [.]\nlabels: .", "has no labels"),
        ("config: msa-tiny\ntrain_data: [.]\naverage_checkpoints: -1", "at least 0, not -1"),
        ("config: msa-tiny\ntrain_data: [.]\naverage_checkpoints: 5", "is 5, but save_total_limit keeps 3"),
        ("config: msa-tiny\ntrain_data: [.]\naverage_checkpoints: 2\nsave_strategy: 'no'", "requires checkpoints"),
        (
            "config: msa-tiny\ntrain_data: [.]\naverage_checkpoints: 2\nload_best_model_at_end: true\n"
            "eval_fraction: 0.5\neval_strategy: steps",
            "either average_checkpoints or",
        ),
        ("model: msa-tiny\ntrain_data: [.]\naverage_checkpoints: 2\nlora_r: 4", "mean of adapters"),
        ("model: msa-tiny\ntrain_data: [.]\nmuon: true\nlora_r: 4", "muon and lora_r exclude"),
    ],
)
def test_a_bad_recipe_is_refused(text, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        parse_recipe(tmp_path / "bad.yaml")


def test_command_line(recipe, tmp_path):
    shown = CliRunner().invoke(app, ["train", "--help"])
    assert shown.exit_code == 0
    assert shown.output.strip() == help_text().strip()
    example = next(line for line in help_text().splitlines() if line.startswith("Example: msa train "))
    assert find_recipe(example.split()[3]) in RECIPES
    assert max(map(len, help_text().splitlines())) < 130
    missing = CliRunner().invoke(app, ["train", str(tmp_path / "none.yaml"), "--max_steps", "1"])
    assert missing.exit_code == 1
    assert "There is no recipe" in missing.output
    ran = CliRunner().invoke(app, ["train", str(recipe()), "--max_steps", "1"])
    assert ran.exit_code == 0, ran.output
    assert "run: 1 steps, train_loss" in ran.output


def test_pack(data, tmp_path):
    ran = CliRunner().invoke(app, ["pack", str(data[0] / "alignments"), "-o", str(tmp_path), "--rows-per-shard", "3"])
    assert ran.exit_code == 0, ran.output
    assert "8 alignments in 3 shards" in ran.output
    assert len(list(tmp_path.glob("*.parquet"))) == 3


# what is measured


def test_classes_agree_with_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = torch.Generator().manual_seed(0)
    metric, numbers, logits, labels = Classes(), [], [], []
    for batch, columns in ((2, 7), (3, 4)):  # ragged
        logits.append(torch.randn(batch, columns, 4, generator=random))
        labels.append(torch.randint(-1, 3, (batch, columns), generator=random))  # class 3 is only ever predicted
        labels[-1][labels[-1] < 0] = -100
        numbers.append(metric.per_example(logits[-1], labels[-1]))
        assert numbers[-1].shape == (batch, 3 + 3 * 4)
    found = metric.summarise(torch.cat(numbers).numpy())
    flat = torch.cat([each.flatten(0, 1) for each in logits]), torch.cat([each.flatten() for each in labels])
    known = flat[1] != -100
    truth, guess = flat[1][known], flat[0][known].argmax(-1)
    assert found["loss"] == pytest.approx(F.cross_entropy(*flat).item(), abs=1e-6)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, guess, average="macro"))


def test_tokens_and_values():
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, 33, generator=random), torch.randint(0, 33, (2, 3, 5), generator=random)
    labels[0, 1:] = -100
    found = Tokens().summarise(Tokens().per_example(logits, labels).numpy())
    loss = F.cross_entropy(logits.flatten(0, 2), labels.flatten())
    assert found["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert found["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-6)
    right, targets = Tokens().count_right(logits, labels)
    assert found["accuracy"] == pytest.approx(right.item() / targets.item())
    assert targets == 20
    guesses, scores = torch.tensor([[0.1], [0.2], [0.9], [0.3]]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    found = Values().summarise(Values().per_example(guesses, scores).numpy())
    # ranks 1 2 4 3 against 1 3 2 4: 1 - 6 (0 + 1 + 4 + 1) / (4 * 15)
    assert found["spearman"] == pytest.approx(0.4)
    assert found["loss"] == pytest.approx(np.mean([0.9**2, 2.8**2, 1.1**2, 3.7**2]), rel=1e-6)
    assert "spearman" not in Values().summarise(np.ones((3, 2)))  # no ranks


def test_contact_precision():
    logits = torch.full((1, 40, 40), -5.0)
    labels = torch.zeros(1, 40, 40, dtype=torch.long)
    numbers = torch.arange(40)
    labels[0][(numbers[:, None] - numbers).abs() < 6] = -100
    for i, j in ((0, 10), (0, 30), (5, 35), (2, 9)):
        labels[0, i, j] = labels[0, j, i] = 1
    for i, j in ((0, 10), (0, 30), (1, 28)):
        logits[0, i, j] = logits[0, j, i] = 5.0
    padded = F.pad(logits, (0, 3, 0, 3), value=torch.finfo(torch.float32).min), F.pad(labels, (0, 3, 0, 3), value=-100)
    found = Contacts().summarise(Contacts().per_example(*padded).numpy())
    # Of the 40 best pairs two are contacts by their scores; the other 37 tie, and the first of these count: (0, 6) to
    # (0, 39) without the two above, then (1, 7) to (1, 11), none of them a contact.
    assert found["p_at_l"] == pytest.approx(2 / 40)
    # at least 24 apart: (0, 30), (1, 28), then (0, 24) to (0, 39), (1, 25) to (1, 39) and (2, 26) ...: one contact
    assert found["long_p_at_l"] == pytest.approx(1 / 40)
    known = labels != -100
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known].float())
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-6)


# runs


def test_masked_language_modelling(recipe, data, tmp_path):
    path = recipe(
        max_steps=12, eval_fraction=0.25, eval_strategy="steps", eval_steps=6, save_strategy="steps", save_steps=6
    )
    report = train(path)
    assert report.steps == 12
    folder = tmp_path / "run"
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    losses = [entry for entry in history if "loss" in entry]
    assert len(losses) == 12
    for entry in losses:
        assert {"loss", "learning_rate", "accuracy", "perplexity", "tokens_per_second", "grad_norm"} <= entry.keys()
        assert entry["perplexity"] == pytest.approx(np.exp(entry["loss"]))
        assert 0 <= entry["accuracy"] <= 1
        assert entry["tokens_per_second"] > 0
    assert np.mean([entry["loss"] for entry in losses[-3:]]) < losses[0]["loss"]
    evaluations = [entry for entry in history if "eval_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [6, 12]
    assert report.figures["eval_loss"] == evaluations[-1]["eval_loss"]

    again = parse_recipe(folder / "recipe.yaml", ["--output_dir", str(tmp_path / "again")])
    assert again.training.max_steps == 12
    trainer = make_trainer(again)
    trainer.model.load_state_dict(weights(folder), strict=False)
    figures = trainer.evaluate()
    assert figures["eval_loss"] == pytest.approx(report.figures["eval_loss"], abs=1e-6)  # the same masks
    trainer.args.per_device_eval_batch_size = 1
    assert trainer.evaluate()["eval_loss"] == pytest.approx(figures["eval_loss"], abs=1e-6)
    assert trainer.train_dataset.names != trainer.eval_dataset.names
    assert len(trainer.eval_dataset) == 2

    # checkpoints and the run's folder load without this package
    code = """
from transformers import AutoModelForMaskedLM, AutoTokenizer
for folder in sys.argv[1:]:
    model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    print(type(model).__name__, tuple(model(**tokenizer(["MKV", "MRV"], return_tensors="pt")).logits.shape))
"""
    result = run_fresh(code, tmp_path, folder / "checkpoint-6", folder)
    assert result.stdout.splitlines() == ["MsaForMaskedLM (1, 2, 4, 33)"] * 2, result.stderr
    assert (folder / "README.md").read_text().count("recipe.yaml") == 1


def made_for(path, data):
    """Arguments that point a shipped recipe at made-up data and a small model."""
    folder, _, labels, model = data
    content = yaml.safe_load(path.read_text())
    objective = content["objective"]
    given = {"max_steps": 1, "num_train_epochs": 1, "use_cpu": True, "bf16": False, "disable_tqdm": True, "seed": 0}
    given |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1, "max_tokens": 256, "max_rows": 16}
    given |= {"max_columns": 64, "min_rows": 1, "warmup_steps": 0, "dataloader_num_workers": 0}
    given["train_data"] = folder / "alignments"
    if "config" in content:
        given["config"] = folder / "config"
    else:
        given["model"] = model
    if objective != "mlm":
        given["labels"] = labels[objective]
    if content.get("eval_fraction"):
        given["eval_fraction"] = 0.25
    if path.stem in ("continue-family", "fitness"):
        given["train_data"] = folder / "alignments" / "f0.a3m"
    if content.get("streaming"):
        shards = folder / "shards"
        pack_alignments(folder / "alignments", shards, rows_per_shard=4, progress=False)
        given |= {"train_data": shards, "eval_data": folder / "alignments"}
    if content.get("eval_strategy") == "epoch":
        given["max_steps"] = -1
    return [f"--{key}={value}" for key, value in given.items()]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_runs(path, data, tmp_path):
    report = train(path, [*made_for(path, data), f"--output_dir={tmp_path}"])
    assert report.steps >= 1
    assert np.isfinite(report.figures["train_loss"])
    figure = {
        "continue-family": "eval_perplexity",
        "secondary-structure": "eval_macro_f1",
        "contacts": "eval_p_at_l",
        "pretrain": "eval_perplexity",
    }.get(path.stem)
    if figure:
        assert np.isfinite(report.figures[figure])


def test_classes_of_alignments(recipe, data):
    options = {"objective": "sequence", "num_labels": 2, "eval_fraction": 0.5}
    report = train(recipe(**options, labels=str(data[2]["classes"]), max_steps=1))
    assert {"eval_loss", "eval_accuracy", "eval_macro_f1"} <= report.figures.keys()
    model = MsaForSequenceClassification.from_pretrained(report.folder)
    assert model.config.problem_type == "single_label_classification"
    assert model.config.num_labels == 2


def test_adapters_train_and_merge(recipe, data):
    path = recipe(
        config=None,
        model=str(data[3]),
        objective="sequence",
        labels=str(data[2]["sequence"]),
        lora_r=2,
        lora_dropout=0,
    )
    read = parse_recipe(path)
    trainer = make_trainer(read)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert all(".lora_" in name or "classifier" in name for name in trained)
    report = train(path)
    adapters = load_file(report.folder / "adapter_model.safetensors")
    # 4 projections of 2 attentions in 2 layers, an A and a B each
    moved = [name for name, tensor in adapters.items() if "lora_B" in name and tensor.any()]
    assert len(moved) == 4 * 2 * 2
    merged = MsaForSequenceClassification.from_pretrained(report.folder / "merged")
    peft = pytest.importorskip("peft")
    base = MsaForSequenceClassification.from_pretrained(data[3], num_labels=1)
    adapted = peft.PeftModel.from_pretrained(base, report.folder).eval()
    tokens = MsaTokenizer()(["MKVLAW", "MRVLAY"], return_tensors="pt")
    assert torch.allclose(adapted(**tokens).logits, merged.eval()(**tokens).logits, atol=1e-6)


def test_adapters_of_contacts_leave_out_what_the_logits_do_not_depend_on(recipe, data):
    path = recipe(config=None, model=str(data[3]), objective="contacts", labels=str(data[2]["contacts"]), lora_r=2)
    trainer = make_trainer(parse_recipe(path))
    names = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    # of the last layer's two attentions only the row map's two projections
    assert len({name for name in names if "layers.1" in name}) == 2 * 2
    assert len({name for name in names if "layers.0" in name}) == 8 * 2
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    trainer.model(**batch).loss.backward()
    assert all(p.grad is not None for p in trainer.model.parameters() if p.requires_grad)


def test_one_family_holds_out_rows(recipe, data):
    folder, families = data[:2]
    path = recipe(train_data=[str(folder / "alignments" / "f0.a3m")], eval_fraction=0.4, repeats=3)
    trainer = make_trainer(parse_recipe(path))
    assert len(trainer.train_dataset) == 3
    training, held_out = trainer.train_dataset[0]["alignment"], trainer.eval_dataset[0]["alignment"]
    family = families["f0"]
    assert training.query == held_out.query == family.query
    assert sorted(training.names[1:] + held_out.names[1:]) == sorted(family.names[1:])
    assert len(held_out.names) - 1 == round(0.4 * (family.depth - 1))


def test_variants_are_split(recipe, data):
    family = str(data[0] / "alignments" / "f0.a3m")
    options = {"objective": "variants", "train_data": [family], "labels": str(data[2]["variants"])}
    trainer = make_trainer(parse_recipe(recipe(**options, eval_fraction=0.25)))
    names = data[2]["variants"].read_text().split()[1:]
    assert sorted([*trainer.train_dataset.names, *trainer.eval_dataset.names]) == sorted(
        n.split(",")[0] for n in names
    )
    example = trainer.eval_dataset[0]
    position = int(example["name"][1:-1])
    assert example["alignment"].query[position - 1] == example["name"][-1]
    figures = trainer.evaluate()
    assert {"eval_loss", "eval_spearman"} <= figures.keys()


# bad data


def test_unreadable_files_are_named_skipped_or_fatal_and_counted(recipe, data, tmp_path):
    shutil.copytree(data[0] / "alignments", tmp_path / "mixed")
    (tmp_path / "mixed" / "ragged.a3m").write_text(">a\nMKV\n>b\nMK\n")
    (tmp_path / "mixed" / "torn.a3m.gz").write_bytes(b"\x1f\x8b torn")
    path = recipe(train_data=[str(tmp_path / "mixed")], max_steps=5)
    with pytest.raises(ValueError, match=r"ragged|torn"):
        train(path)
    report = train(path, ["--on_error", "skip"])
    assert "2 of 10 alignments could not be read" in report.skipped
    assert "ragged.a3m" in str(report)
    assert "torn.a3m.gz" in str(report)


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("token", ">f0\nHHH\n", "f0.*3 .*residues"),
        ("token", ">f0\nHHX\n", "X.* is not a class"),
        ("token", ">nobody\nHHE\n", "nobody"),
        ("token", "", "no label"),
    ],
)
def test_labels_that_do_not_fit(kind, text, message, recipe, tmp_path):
    (tmp_path / "labels.fasta").write_text(text)
    path = recipe(objective=kind, labels=str(tmp_path / "labels.fasta"), class_names=["H", "E", "C"])
    with pytest.raises(ValueError, match=message):
        train(path)
    assert not (tmp_path / "run").exists()


def test_class_ids_out_of_range_and_empty_data(recipe, tmp_path):
    (tmp_path / "labels.csv").write_text("name,label\nf0,0\nf1,3\n")
    with pytest.raises(ValueError, match=r"line 3.*3 is not a class.*0 to 1"):
        train(recipe(objective="sequence", labels=str(tmp_path / "labels.csv"), num_labels=2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no alignment"):
        train(recipe(train_data=[str(tmp_path / "empty")]))
    with pytest.raises(ValueError, match="max_rows is 99, but the model can read at most 32"):
        train(recipe(), ["--max_rows", "99"])


# resuming

KILLED = """
import os, signal, sys
from modeling_msa.training.train import train
from modeling_msa.training.trainer import MsaTrainer

save = MsaTrainer._save_rng_state

def killed(self, folder):
    if folder.endswith("checkpoint-6"):
        os.kill(os.getpid(), signal.SIGKILL)  # weights, optimizer and scheduler are written
    save(self, folder)

MsaTrainer._save_rng_state = killed
train(sys.argv[1], sys.argv[2:])
"""


def test_a_killed_run_resumes_to_the_same_weights(recipe, tmp_path, caplog):
    # 4 steps an epoch: checkpoint-3 is in the middle of the first, and the run ends in the third
    keys = {
        "max_steps": 9,
        "save_strategy": "steps",
        "save_steps": 3,
        "random_positions": True,
        "depth": "log_uniform",
    }
    path = recipe(**keys)
    whole = train(path, ["--output_dir", str(tmp_path / "whole")])
    run = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(path), "--output_dir", str(run)]
    result = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=False)
    assert result.returncode == -9, result.stderr
    assert (run / "checkpoint-6" / "optimizer.pt").is_file()
    assert find_broken(run / "checkpoint-3") is None
    with pytest.raises(ValueError, match=r"checkpoint-6.*--resume_from_checkpoint true"):
        train(path)
    with pytest.raises(ValueError, match=r"checkpoint-6 is not a whole checkpoint: trainer_state.json is missing"):
        train(path, ["--resume_from_checkpoint", str(run / "checkpoint-6")])
    with caplog.at_level(logging.WARNING):
        resumed = train(path, ["--resume_from_checkpoint", "true"])
    assert "checkpoint-6 is not a whole checkpoint (trainer_state.json is missing): skipped" in caplog.text
    assert resumed.steps == 9
    assert equal(weights(run), weights(tmp_path / "whole"))
    histories = [json.loads((each / "trainer_state.json").read_text())["log_history"] for each in (run, whole.folder)]
    losses = [[entry["loss"] for entry in history if "loss" in entry] for history in histories]
    assert losses[0] == losses[1]


def test_a_run_may_end_with_the_mean_of_its_last_checkpoints(recipe, tmp_path):
    keys = {"max_steps": 12, "save_strategy": "steps", "save_steps": 1, "average_checkpoints": 3}
    keys |= {"save_total_limit": 4, "eval_fraction": 0.25, "eval_strategy": "steps", "eval_steps": 6}
    path = recipe(**keys)
    report = train(path)
    run = tmp_path / "run"
    last = [weights(run / f"checkpoint-{step}") for step in (10, 11, 12)]  # as numbers: 10 comes after 9
    assert {path.name for path in run.glob("checkpoint-*")} == {f"checkpoint-{step}" for step in (9, 10, 11, 12)}
    for name, tensor in weights(run).items():
        mean = np.mean([each[name].numpy().astype(np.float64) for each in last], axis=0)
        np.testing.assert_array_equal(tensor.numpy(), mean.astype(np.float32))
    assert not equal(weights(run), last[-1])
    # what is reported is of the weights that are kept
    trainer = make_trainer(parse_recipe(path))
    trainer.model.load_state_dict(weights(run), strict=False)
    assert report.figures["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"], abs=1e-6)
    assert "mean of the last 3 checkpoints" in (run / "README.md").read_text()
    # cut off after training, it ends the same
    expected = weights(run)
    (run / "model.safetensors").unlink()
    train(path, ["--resume_from_checkpoint", "true"])
    assert equal(weights(run), expected)


def test_the_card_names_as_many_checkpoints_as_were_averaged(recipe, tmp_path):
    keys = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    train(recipe(**keys, average_checkpoints=5, save_total_limit=5))
    assert "mean of the last 2 checkpoints" in (tmp_path / "run" / "README.md").read_text()


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest(recipe):
    """Three steps, taken again by torch's two optimizers apart."""
    path = recipe(muon=True, weight_decay=0.1, adam_beta2=0.98)
    trainer = make_trainer(parse_recipe(path))
    model, twin = trainer.model, copy.deepcopy(trainer.model)
    optimizer = trainer.create_optimizer()
    matrices, decayed, rest = [], [], []
    for name, parameter in twin.named_parameters():
        if "contact_head" in name:
            continue  # no part of the loss: it is not trained
        if re.search(r"\.layers\.\d\..*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)\.weight$", name):
            matrices.append(parameter)
        else:
            (rest if name.endswith("bias") or "layer_norm" in name else decayed).append(parameter)
    assert len(matrices) == 2 * (4 + 4 + 2)
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.98))
    for _ in range(3):
        for left, right in zip(model.parameters(), twin.parameters(), strict=True):
            left.grad = torch.randn_like(left)
            right.grad = left.grad.clone()
        for each in (optimizer, muon, adamw):
            each.step()
    for (name, left), right in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(left, right), name
    # the schedule moves all rates, those of the two optimizers inside too
    trainer = make_trainer(parse_recipe(path))
    trainer.train()
    inner = trainer.optimizer.optimizer
    rates = {group["lr"] for each in (inner, inner.muon, inner.adamw) for group in each.param_groups}
    assert rates == {0.0}  # linear, at its end
    trainer.create_model_card()
    assert "Muon for the layers' matrices" in (Path(trainer.args.output_dir) / "README.md").read_text()


def test_muon_needs_whole_matrices(recipe, monkeypatch):
    trainer = make_trainer(parse_recipe(recipe(muon=True)))
    for part in trainer.model.msa.layers.parameters():
        part.requires_grad_(False)
    with pytest.raises(ValueError, match="none of them is trained here"):
        trainer.create_optimizer()
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    with pytest.raises(ValueError, match="FSDP and DeepSpeed split them: train with DDP"):
        trainer.create_optimizer()


@pytest.mark.parametrize(
    "keys",
    [{"group_by_size": False, "dataloader_num_workers": 1}, {"streaming": True}, {"muon": True}],
    ids=str,
)
def test_resuming_from_the_second_epoch(keys, recipe, data, tmp_path):
    """The plain shuffle with a worker process; a stream, which is read again up to its place; two optimizers."""
    keys = keys | {"max_steps": 7, "save_strategy": "steps", "save_steps": 6, "gradient_accumulation_steps": 2}
    if "streaming" in keys:
        pack_alignments(data[0] / "alignments", tmp_path / "shards", rows_per_shard=3, progress=False)
        keys["train_data"] = [str(tmp_path / "shards")]
    path = recipe(**keys)
    train(path)
    expected = weights(tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "checkpoint-6", tmp_path / "again" / "checkpoint-6")
    train(path, ["--output_dir", str(tmp_path / "again"), "--resume_from_checkpoint"])
    assert equal(weights(tmp_path / "again"), expected)
    assert not equal(weights(tmp_path / "again" / "checkpoint-6"), expected)


def test_checkpoints_that_are_not_whole(recipe, tmp_path, caplog):
    train(recipe(max_steps=2, save_strategy="steps", save_steps=1))
    run = tmp_path / "run"
    assert find_checkpoint(run, "true") == run / "checkpoint-2"
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        file = run / "checkpoint-2" / name
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
        assert find_broken(run / "checkpoint-2") == f"{name} is cut off"
        assert find_checkpoint(run, "true") == run / "checkpoint-1"
        file.unlink()
        assert "missing" in find_broken(run / "checkpoint-2")
        file.write_bytes(content)
    assert find_broken(run / "checkpoint-2") is None
    (run / "checkpoint-1" / "optimizer.pt").unlink()
    (run / "checkpoint-2" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="None of the checkpoints"):
        find_checkpoint(run, "true")
    with pytest.raises(ValueError, match="There is no checkpoint"):
        find_checkpoint(run, str(run / "checkpoint-9"))
    assert find_checkpoint(tmp_path / "new", "true") is None
    assert "no checkpoint to resume from" in caplog.text


def test_each_visit_draws_anew_in_training_and_not_in_evaluation(recipe):
    trainer = make_trainer(parse_recipe(recipe(eval_fraction=0.25)))
    seen = []
    for epoch in (0, 0, 1):
        loader = trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        trainer.train_sampler.set_epoch(epoch)
        seen.append(torch.cat([batch["labels"].flatten() for batch in loader]))
    assert torch.equal(seen[0], seen[1])
    assert len(seen[0]) != len(seen[2]) or not torch.equal(seen[0], seen[2])
    fixed = []
    for epoch in (0, 3):
        loader = trainer.get_eval_dataloader()
        loader.set_epoch(epoch)
        fixed.append(torch.cat([batch["labels"].flatten() for batch in loader]))
    assert torch.equal(*fixed)


def test_trainer_serves_a_user_without_recipes(data, tmp_path):
    """The classes are usable by themselves, as transformers' Trainer."""
    from transformers import TrainingArguments

    from modeling_msa.training.collators import MsaDataCollatorForMaskedLM
    from modeling_msa.training.datasets import MsaDataset

    arguments = TrainingArguments(
        tmp_path, max_steps=2, use_cpu=True, report_to=[], remove_unused_columns=False, disable_tqdm=True
    )
    trainer = MsaTrainer(
        MsaForMaskedLM.from_pretrained(data[3]),
        arguments,
        train_dataset=MsaDataset(data[0] / "alignments"),
        data_collator=MsaDataCollatorForMaskedLM(
            MsaTokenizer(model_max_length=64, model_max_depth=32), max_tokens=256
        ),
        metric=Tokens(),
    )
    assert trainer.train().global_step == 2
    assert read_alignment(data[0] / "alignments" / "f0.a3m").depth > 1
