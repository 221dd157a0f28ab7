"""The contract of ``msa train``: every recipe in configuration/training runs, losses and metrics do not depend on
batches, and a run's folder loads through the auto classes.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fresh import run_fresh
from safetensors.torch import load_file
from transformers import TrainerCallback
from typer.testing import CliRunner

from modeling_msa import MsaForSequenceClassification, MsaTokenizer
from modeling_msa.cli import app
from modeling_msa.training.building import make_trainer
from modeling_msa.training.checkpoints import find_broken
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
    assert re.search(r"^Waited \d+\.\d s for batches, \d+\.\d% of the training\.$", ran.output, re.M)


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
    if content.get("shares"):
        given |= {"eval_data": folder / "alignments", "train_data": [folder / "alignments", "simulated"]}
        given |= {"config_overrides": '{"row_position_embedding_size": null}', "dataloader_prefetch_factor": 2}
        given |= {"dataloader_num_workers": 1}
    if content.get("streaming"):
        shards = folder / "shards"
        pack_alignments(folder / "alignments", shards, rows_per_shard=4, progress=False)
        given |= {"train_data": shards, "eval_data": folder / "alignments"}
    if content.get("eval_strategy") == "epoch":
        given["max_steps"] = -1
    arguments: list[str] = []
    for key, value in given.items():
        arguments += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    return arguments


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
        "msa-small": "eval_perplexity",
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


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "The training loss is nan at step 2"),
        ({"logging_steps": 100}, "word_embeddings.weight has NaN, infinite or huge values at step 3"),
        ({"max_steps": 1}, "word_embeddings.weight has NaN, infinite or huge values at step 1"),
        ({"logging_steps": 100, "save_strategy": "steps", "save_steps": 2}, "huge values at step 2"),
        ({"logging_steps": 100, "eval_fraction": 0.25, "eval_strategy": "steps", "eval_steps": 2}, "values at step 2"),
        ({"logging_nan_inf_filter": True}, "huge values at step 3"),
        ({"model": True, "lora_r": 2}, "The training loss is nan at step 2"),
        # adapters that are finite, and their product is not
        (
            {"model": True, "lora_r": 2, "lora_alpha": 10**6, "max_steps": 1, "learning_rate": 1e16},
            "q_proj.weight has NaN, infinite or huge values",
        ),
    ],
    ids=str,
)
def test_training_that_diverges_saves_no_model(recipe, data, tmp_path, keys, words):
    if "model" in keys:
        keys = keys | {"config": None, "model": str(data[3])}
    path = recipe(**{"max_steps": 3, "learning_rate": 1e20} | keys)
    result = CliRunner().invoke(app, ["train", str(path)])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1
    assert words in result.stderr
    assert f"lower learning rate (it is {keys.get('learning_rate', 1e20):g})" in result.stderr
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_checkpoints_from_before_it_diverged_stay(recipe, tmp_path, monkeypatch):
    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            if state.global_step == 4:
                model.msa.layers[1].feed_forward.fc1.bias.data[2] = float("inf")

    def poisoned(recipe):
        trainer = make_trainer(recipe)
        trainer.add_callback(Poison())
        return trainer

    monkeypatch.setattr("modeling_msa.training.train.make_trainer", poisoned)
    with pytest.raises(ValueError, match=r"msa\.layers\.1\.feed_forward\.fc1\.bias has NaN, .* at step 4"):
        train(recipe(save_strategy="steps", save_steps=2, logging_steps=9))
    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} == {"recipe.yaml", "checkpoint-2"}
    assert find_broken(run / "checkpoint-2") is None


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


def constant_labels(folder, families, objective):
    """The same label everywhere."""
    folder.mkdir()
    query = families["f0"].query
    content = {
        "mlm": None,
        "token": ("residues.fasta", "".join(f">{name}\n{'H' * len(f.query)}\n" for name, f in families.items())),
        "classes": ("classes.csv", "name,label\n" + "".join(f"{name},1\n" for name in families)),
        "values": ("values.csv", "name,label\n" + "".join(f"{name},0.5\n" for name in families)),
        "variants": ("variants.csv", "mutant,score\n" + "".join(f"{query[k]}{k + 1}A,2\n" for k in range(1, 9))),
    }
    if objective == "contacts":
        for name, each in families.items():
            np.save(folder / f"{name}.npy", np.zeros((len(each.query),) * 2, dtype=np.int8))
        return str(folder)
    if content[objective] is None:
        return None
    (folder / content[objective][0]).write_text(content[objective][1])
    return str(folder / content[objective][0])


@pytest.mark.parametrize(
    ("kind", "metric", "undefined"),
    [
        ("mlm", "perplexity", False),
        ("mlm", "accuracy", False),
        ("token", "macro_f1", False),
        ("classes", "accuracy", False),
        ("values", "spearman", True),
        ("variants", "spearman", True),
        ("contacts", "p_at_l", False),
        ("contacts", "long_p_at_l", True),
    ],
)
def test_the_best_checkpoint_of_constants(kind, metric, undefined, recipe, data, tmp_path):
    """A metric that is not defined is NaN in the log, never the best, and not in the card; the run ends well."""
    families = {name: each for name, each in data[1].items() if kind != "contacts" or each.length <= 24}
    folder = tmp_path / "few"
    folder.mkdir()
    for name in families:
        shutil.copy(data[0] / "alignments" / f"{name}.a3m", folder)
    classes = {"token": {"class_names": ["H", "E"]}, "classes": {"num_labels": 2}}.get(kind, {})
    objective = {"classes": "sequence", "values": "sequence"}.get(kind, kind)
    alignments = [str(folder / "f0.a3m")] if kind == "variants" else [str(folder)]
    labels = constant_labels(tmp_path / "labels", families, kind)
    options = {"eval_fraction": 0.5, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    options |= {"save_steps": 1, "load_best_model_at_end": True, "metric_for_best_model": metric, "max_steps": 2}
    report = train(recipe(objective=objective, train_data=alignments, labels=labels, **options, **classes))
    assert report.steps == 2
    state = json.loads((report.folder / "trainer_state.json").read_text())
    found = [entry[f"eval_{metric}"] for entry in state["log_history"] if "eval_loss" in entry]
    assert len(found) == 2
    assert np.isnan(found).all() == undefined
    if undefined:
        assert state["best_model_checkpoint"] is None
        assert "nan" not in (report.folder / "README.md").read_text()
    else:
        best = min(found) if metric == "perplexity" else max(found)
        assert state["best_metric"] == best
        assert state["best_global_step"] == 1 + found.index(best)
    if kind == "contacts":  # no pair is a contact
        assert report.figures["eval_p_at_l"] == 0
