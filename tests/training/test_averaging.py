"""The contract of the moving average: its recursion, and that a run evaluates it, ends with it and continues it."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from modeling_msa.training.averaging import average_loaded, load_average, update_average
from modeling_msa.training.building import make_trainer
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_recursion_by_hand():
    weight, frozen = torch.nn.Parameter(torch.tensor([2.0])), torch.nn.Parameter(torch.tensor([5.0]))
    optimizer = torch.optim.SGD([weight, frozen], lr=1.0, momentum=0.9)
    weight.grad = torch.tensor([1.0])
    optimizer.step()  # 2 - 1; `frozen` has no gradient, hence no state
    update_average(optimizer, 0.5)
    weight.data.fill_(4.0)
    update_average(optimizer, 0.75)  # 0.75 * 1 + 0.25 * 4
    assert optimizer.state[weight]["average"].item() == 1.75
    with average_loaded(optimizer):
        assert (weight.item(), frozen.item()) == (1.75, 5.0)
    assert weight.item() == 4.0
    with pytest.raises(KeyError), average_loaded(optimizer):
        raise KeyError
    assert weight.item() == 4.0
    again = torch.optim.SGD([weight, frozen], lr=1.0, momentum=0.9)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    load_average(again)
    assert (weight.item(), frozen.item()) == (1.75, 5.0)
    with average_loaded(None):
        pass


class Recorder(TrainerCallback):
    """The weights after each step."""

    def __init__(self):
        self.weights = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append({name: weight.detach().clone() for name, weight in model.named_parameters()})


@pytest.mark.parametrize("muon", [True, False])
def test_a_run_evaluates_and_ends_with_the_average(recipe, monkeypatch, muon):
    keys = {"average_decay": 0.4, "muon": muon, "eval_fraction": 0.25, "eval_strategy": "steps", "eval_steps": 2}
    path = recipe(**keys, max_steps=5, save_strategy="steps", save_steps=5)
    recorder = Recorder()

    def recorded(recipe):
        trainer = make_trainer(recipe)
        trainer.add_callback(recorder)
        return trainer

    monkeypatch.setattr("modeling_msa.training.train.make_trainer", recorded)
    report = train(path)
    name = "msa.layers.1.feed_forward.fc1.weight"
    # decays min(0.4, (1 + step) / (10 + step)): 2/11, 3/12, 4/13, 5/14, 0.4
    average = recorder.weights[0][name].double()
    for step, weights in enumerate(recorder.weights[1:], start=2):
        decay = min(0.4, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights[name]
    saved = load_file(report.folder / "model.safetensors")
    torch.testing.assert_close(saved[name].double(), average, atol=1e-6, rtol=0)
    assert not torch.equal(saved[name], recorder.weights[-1][name])
    last = load_file(report.folder / "checkpoint-5" / "model.safetensors")
    assert torch.equal(last[name], recorder.weights[-1][name])
    # the figures at the end are of the weights that are kept
    trainer = make_trainer(parse_recipe(path, ["--output_dir", str(report.folder / "again")]))
    trainer.model.load_state_dict(saved, strict=False)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(report.figures["eval_loss"], abs=1e-6)
    history = json.loads((report.folder / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "eval_loss" in entry] == [2, 4, 5]


def test_evaluations_on_the_way_see_the_average(recipe, monkeypatch):
    path = recipe(average_decay=0.4, eval_fraction=0.25, max_steps=3)
    trainer = make_trainer(parse_recipe(path))
    trainer.train()
    raw = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    found = trainer.evaluate()["eval_loss"]
    assert all(torch.equal(weight, raw[name]) for name, weight in trainer.model.named_parameters())
    load_average(trainer.optimizer)
    assert trainer.evaluate()["eval_loss"] == found
    trainer.model.load_state_dict(raw, strict=False)
    trainer.average_decay = 0
    assert trainer.evaluate()["eval_loss"] != found


def test_it_needs_whole_weights(recipe, monkeypatch):
    trainer = make_trainer(parse_recipe(recipe(average_decay=0.9)))
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    with pytest.raises(ValueError, match="average_decay requires whole weights"):
        trainer.create_optimizer()
