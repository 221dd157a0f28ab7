"""The contract of ``msa train``: every recipe in configuration/training runs, losses and metrics do not depend on
batches, and a run's folder loads through the auto classes.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fresh import run_fresh
from safetensors.torch import load_file
from typer.testing import CliRunner

from modeling_msa import MsaForSequenceClassification, MsaTokenizer
from modeling_msa.cli import app
from modeling_msa.training.building import make_trainer
from modeling_msa.training.packing import pack_alignments
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
RECIPES = sorted((Path(__file__).parents[2] / "configuration" / "training").glob("*.yaml"))


def test_command_line(recipe, tmp_path):
    missing = CliRunner().invoke(app, ["train", str(tmp_path / "none"), "--max_steps", "1"])
    assert missing.exit_code == 1
    assert "There is no recipe" in missing.output
    ran = CliRunner().invoke(app, ["train", str(recipe()), "--max_steps", "1"])
    assert ran.exit_code == 0, ran.output
    assert "run: 1 step, train_loss" in ran.output


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
    trainer.model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
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
