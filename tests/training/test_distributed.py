"""The contract of training in several processes.

Two processes, with the configuration files of configuration/accelerate, follow one process's loss curve: they split
the same batches, and losses are means over the targets of all processes, though these differ in number. They save a
run's folder like one process's, and resume from its checkpoint. DeepSpeed's file is only read.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from families import make_config, make_folder
from packaging.version import Version
from safetensors.torch import load_file

from modeling_msa import MsaForMaskedLM
from modeling_msa.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / "configuration" / "accelerate"
FIGURES = ("loss", "accuracy", "grad_norm", "learning_rate", "eval_loss", "eval_accuracy")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of five steps of four families, without dropout: each process draws its own."""
    folder = tmp_path_factory.mktemp("distributed")
    make_folder(folder / "alignments", count=12)
    config = make_config(folder, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
    content = {
        "config": str(config),
        "train_data": [str(folder / "alignments")],
        "eval_fraction": 0.34,  # 4 of 12
        "max_tokens": 256,
        "max_steps": 5,
        "per_device_train_batch_size": 2,
        "learning_rate": "1e-2",
        "logging_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 5,
        "save_strategy": "steps",
        "save_steps": 3,
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 1,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def one_process(recipe):
    folder = recipe.parent / "one"
    train(recipe, ["--per_device_train_batch_size", "4", "--output_dir", str(folder)])
    return folder


def launch(name, recipe, folder, *program, options=()):
    """Run a recipe in two processes under accelerate's launcher."""
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    command += [
        "--config_file",
        str(CONFIGURATION / f"{name}.yaml"),
        "--num_processes",
        "2",
        "--mixed_precision",
        "no",
    ]
    command += ["--main_process_port", "0", *program, "train", str(recipe), "--output_dir", str(folder), *options]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def curve(folder):
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [
        {key: entry[key] for key in FIGURES if key in entry} for entry in history if len(entry.keys() & set(FIGURES))
    ]


def same_curve(folder, expected):
    found, wanted = curve(folder), curve(expected)
    assert len(found) == len(wanted) == 6
    for left, right in zip(found, wanted, strict=True):
        assert left == pytest.approx(right, abs=1e-5)


def same_weights(folder, expected):
    left, right = (load_file(each / "model.safetensors") for each in (folder, expected))
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(tensor, right[name], atol=1e-5, rtol=1e-4)


def test_ddp_with_muon_follows_one_process_and_resumes(recipe):
    """At a lower rate: Muon rounds its updates to bfloat16, so they differ by more than the gradients do."""
    muon = ["--muon", "true", "--learning_rate", "1e-3"]
    one, folder, again = (recipe.parent / name for name in ("muon-one", "ddp", "ddp-again"))
    train(recipe, ["--per_device_train_batch_size", "4", "--output_dir", str(one), *muon])
    result = launch("ddp", recipe, folder, "-m", "modeling_msa.cli", options=muon)
    same_curve(folder, one)
    same_weights(folder, one)
    assert result.stdout.count("5 steps, train_loss") == 1  # one process reports
    if Version(transformers.__version__) < Version("5.23"):
        return  # 5.13 reads the optimizer of several processes to a device "cpu:0", which torch does not know
    again.mkdir()
    (folder / "checkpoint-3").rename(again / "checkpoint-3")
    launch("ddp", recipe, again, "-m", "modeling_msa.cli", options=[*muon, "--resume_from_checkpoint", "true"])
    same_curve(again, one)
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_mixture_is_split_between_processes(recipe):
    """Two processes make together the batches of one that accumulates two, and keep the same average."""
    mixture = ["--train_data", str(recipe.parent / "alignments"), "simulated", "--shares", "3", "1"]
    mixture += ["--eval_data", str(recipe.parent / "alignments"), "--depth", "log_uniform", "--max_rows", "8"]
    mixture += ["--per_device_train_batch_size", "1", "--average_decay", "0.5", "--max_time", "60"]
    content = yaml.safe_load(recipe.read_text())
    del content["eval_fraction"]
    path = recipe.parent / "mixture.yaml"
    path.write_text(yaml.safe_dump(content))
    one, folder = recipe.parent / "mixture-one", recipe.parent / "mixture-ddp"
    train(path, ["--gradient_accumulation_steps", "2", "--output_dir", str(one), *mixture])
    launch("ddp", path, folder, "-m", "modeling_msa.cli", options=[*mixture, "--dataloader_num_workers", "1"])
    same_curve(folder, one)
    same_weights(folder, one)


def test_fsdp2_follows_one_process(recipe, one_process):
    folder = recipe.parent / "fsdp"
    launch("fsdp", recipe, folder, str(ROOT / "tests" / "fsdp_on_cpu.py"))
    assert (folder / "checkpoint-3" / "pytorch_model_fsdp.bin").is_file()  # it was sharded
    same_curve(folder, one_process)
    same_weights(folder, one_process)
    names = [{file.name for file in each.iterdir() if "fsdp" not in file.name} for each in (folder, one_process)]
    assert names[0] == names[1]
    assert not list(folder.glob("*fsdp*"))
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["MsaForMaskedLM"]
    MsaForMaskedLM.from_pretrained(folder)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_accelerate_reads_each_configuration(name):
    path = CONFIGURATION / f"{name}.yaml"
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "script.py"])
    if name == "deepspeed":
        pytest.importorskip("accelerate.utils.deepspeed")
    arguments, config, _ = _validate_launch_command(arguments)
    content = yaml.safe_load(path.read_text())
    assert config.to_dict()["num_processes"] == arguments.num_processes == content["num_processes"]
    assert (arguments.multi_gpu, arguments.use_fsdp, arguments.use_deepspeed) == tuple(
        name == kind for kind in ("ddp", "fsdp", "deepspeed")
    )
    for section in ("fsdp_config", "deepspeed_config"):
        for key, value in content.get(section, {}).items():
            assert str(getattr(arguments, key)).lower() == str(value).lower(), key  # every key is one of accelerate's
