"""The contract of checkpoints: a killed run continues from its last whole one and ends with the same weights."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from modeling_msa.training.building import make_trainer
from modeling_msa.training.checkpoints import DIGESTS, find_broken, find_checkpoint, write_digests
from modeling_msa.training.packing import pack_alignments
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


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
    assert find_checkpoint(run, str(run / "checkpoint-1")) == run / "checkpoint-1"
    (run / "checkpoint-1" / "optimizer.pt").unlink()
    (run / "checkpoint-2" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="None of the checkpoints"):
        find_checkpoint(run, "true")
    with pytest.raises(ValueError, match="There is no checkpoint"):
        find_checkpoint(run, str(run / "checkpoint-9"))
    assert find_checkpoint(tmp_path / "new", "true") is None
    assert "no checkpoint to resume from" in caplog.text


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [truncated, flipped, Path.unlink])
def test_damage_in_any_file_is_found(recipe, data, tmp_path, caplog, damage):
    train(recipe(max_steps=2, save_strategy="steps", save_steps=1, config=None, model=str(data[3]), lora_r=2))
    run = tmp_path / "run"
    last, files = run / "checkpoint-2", sorted((run / "checkpoint-2").iterdir())
    assert {"adapter_model.safetensors", "optimizer.pt", "rng_state.pth", DIGESTS} <= {path.name for path in files}
    assert json.loads((last / DIGESTS).read_text()) == {
        path.name: sha256(path.read_bytes()).hexdigest() for path in files if path.name != DIGESTS
    }
    for file in files:
        content = file.read_bytes()
        damage(file)
        caplog.clear()
        if file.name == DIGESTS and damage is Path.unlink:  # as an earlier version, or a plain Trainer, wrote it
            assert find_checkpoint(run, "true") == find_checkpoint(run, str(last)) == last
            assert "checkpoint-2 has no digests.json" in caplog.text
        else:
            assert find_checkpoint(run, "true") == run / "checkpoint-1"
            # a byte of the digests is that of another file's name or digest
            name = "" if file.name == DIGESTS and damage is flipped else re.escape(file.stem)
            if damage is Path.unlink:  # weights, and one of several files, are not named one by one
                name = "missing"
            assert re.search(rf"checkpoint-2 is not a whole checkpoint \(.*{name}.*\): skipped", caplog.text)
            assert "The run continues from" in caplog.text
            with pytest.raises(ValueError, match=rf"checkpoint-2 is not a whole checkpoint: .*{name}"):
                find_checkpoint(run, str(last))
        file.write_bytes(content)
    caplog.clear()
    assert find_checkpoint(run, "true") == last
    assert not caplog.text


def test_damage_in_folders_of_shards_is_found(tmp_path):
    """What FSDP with sharded states, and DeepSpeed, write."""
    folder = tmp_path / "checkpoint-1"
    names = ["pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata", "optimizer_0/__1_0.distcp"]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(range(9)))
    (folder / "trainer_state.json").write_text("{}")
    for name in ("scheduler.pt", "rng_state_0.pth"):
        torch.save({}, folder / name)
    write_digests(folder)
    assert find_broken(folder) is None
    for name in names:
        for damage in (truncated, flipped, Path.unlink):
            damage(folder / name)
            assert find_broken(folder).startswith(name)
            (folder / name).write_bytes(bytes(range(9)))
    assert find_broken(folder) is None


def test_without_digests_the_archives_are_checked(recipe, tmp_path):
    train(recipe(max_steps=1, save_strategy="steps", save_steps=1))
    last = tmp_path / "run" / "checkpoint-1"
    (last / DIGESTS).unlink()
    with zipfile.ZipFile(last / "optimizer.pt") as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray((last / "optimizer.pt").read_bytes())
    content[largest.header_offset + largest.file_size // 2 + 200] ^= 1
    (last / "optimizer.pt").write_bytes(content)
    assert find_broken(last) == "optimizer.pt is damaged"


def test_damaged_checkpoints_are_neither_averaged_nor_the_best(recipe, tmp_path, caplog):
    keys = {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "average_checkpoints": 2}
    path, run = recipe(**keys), tmp_path / "run"
    train(path)
    flipped(run / "checkpoint-3" / "model.safetensors")
    train(path, ["--resume_from_checkpoint", "true"])
    assert "checkpoint-3 is not a whole checkpoint (model.safetensors is damaged" in caplog.text
    first, last = weights(run / "checkpoint-2"), weights(run / "checkpoint-4")
    for name, tensor in weights(run).items():
        mean = (first[name].double() + last[name].double()) / 2
        assert torch.equal(tensor, mean.float())
    trainer = make_trainer(parse_recipe(path))
    trainer.state.best_model_checkpoint = str(run / "checkpoint-3")
    with pytest.raises(ValueError, match=r"checkpoint-3, the best checkpoint, .*model\.safetensors is damaged"):
        trainer._load_best_model()


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
    # the report is about the weights that are saved
    trainer = make_trainer(parse_recipe(path))
    trainer.model.load_state_dict(weights(run), strict=False)
    assert report.figures["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"], abs=1e-6)
    assert "mean of the last 3 checkpoints" in (run / "README.md").read_text()
    # killed after training, it ends the same
    expected = weights(run)
    (run / "model.safetensors").unlink()
    train(path, ["--resume_from_checkpoint", "true"])
    assert equal(weights(run), expected)


def test_the_card_names_as_many_checkpoints_as_were_averaged(recipe, tmp_path):
    keys = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    train(recipe(**keys, average_checkpoints=5, save_total_limit=5))
    assert "mean of the last 2 checkpoints" in (tmp_path / "run" / "README.md").read_text()
