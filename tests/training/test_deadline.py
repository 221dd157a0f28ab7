"""The contract of `max_time`: the learning rate falls to zero and the run stops and saves in time."""

import json
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from modeling_msa import MsaForMaskedLM
from modeling_msa.training.building import make_trainer
from modeling_msa.training.deadline import Deadline
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def make_scheduler(deadline):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=4.0)
    return deadline.timed(torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5))


def run(deadline, scheduler, monkeypatch, times, should_evaluate=False, world_size=1):
    """Learning rates after steps that end at these times and last a second each, and at which of them it stopped."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("modeling_msa.training.deadline.time.monotonic", lambda: clock.now)
    arguments = SimpleNamespace(world_size=world_size, save_strategy="steps", device="cpu")
    deadline.on_train_begin(arguments, None, None, lr_scheduler=scheduler)
    rates, stopped = [], []
    for now in times:
        control = SimpleNamespace(should_training_stop=False, should_save=False, should_evaluate=should_evaluate)
        clock.now = now - 1
        deadline.on_step_begin(arguments, None, control)
        clock.now = now
        deadline.on_step_end(arguments, None, control)
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
        if control.should_training_stop:
            assert control.should_save
            stopped.append(now)
    return rates, stopped


def test_the_rate_by_hand(monkeypatch):
    """100 s, of which 2 are kept for saving; 4 * 0.5 until 40 s are left at 58 s, then linearly to 0 at 98 s."""
    deadline = Deadline(100 / 60, 0.4, 0.0)
    scheduler = make_scheduler(deadline)
    times = [10, 58, 68, 78, 96.5, 97.5, 200]
    rates, stopped = run(deadline, scheduler, monkeypatch, times)
    assert rates == pytest.approx([2, 2, 1.5, 1, 2 * 1.5 / 40, 2 * 0.5 / 40, 0])
    assert stopped == [97.5, 200]  # another second would be too much
    assert set(scheduler.state_dict()["lr_lambdas"][0]) == {"factor"}


def test_a_resumed_run_continues_the_fall(monkeypatch):
    first = Deadline(100 / 60, 0.4, 0.0)
    scheduler = make_scheduler(first)
    run(first, scheduler, monkeypatch, [78])  # half of the rate
    second = Deadline(50 / 60, 0.4, 0.0)
    again = make_scheduler(second)
    again.load_state_dict(scheduler.state_dict())
    rates, _ = run(second, again, monkeypatch, [9, 29])  # 40 and 20 of 50 s are left, after 1 for saving
    assert rates == pytest.approx([1 * 40 / 50, 1 * 20 / 50])


def test_an_evaluation_has_its_time(monkeypatch):
    deadline = Deadline(100 / 60, 0.4, 0.0)
    deadline.evaluation_seconds = 8.0
    assert run(deadline, make_scheduler(deadline), monkeypatch, [88, 89.5])[1] == [89.5]
    # one is due now, and lasts until 88 + 8: it is the last
    assert run(deadline, make_scheduler(deadline), monkeypatch, [80, 88], should_evaluate=True)[1] == [88]


def test_all_processes_follow_the_first(monkeypatch):
    def broadcast(tensor, source):
        assert source == 0
        tensor.copy_(torch.tensor([20.0, 30.0]))  # left, and what a step needs

    monkeypatch.setattr("torch.distributed.broadcast", broadcast)
    deadline = Deadline(100 / 60, 0.4, 0.0)
    rates, stopped = run(deadline, make_scheduler(deadline), monkeypatch, [10], world_size=2)
    assert (rates, stopped) == ([pytest.approx(1)], [10])


class Slow(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(0.05)


def test_a_run_ends_in_time(recipe, monkeypatch):
    """Three seconds, in which 10,000 steps do not fit."""

    trainers = []

    def slow(recipe):
        trainers.append(time.monotonic())
        trainer = make_trainer(recipe)
        trainers.append(trainer)
        trainer.add_callback(Slow())
        return trainer

    monkeypatch.setattr("modeling_msa.training.train.make_trainer", slow)
    keys = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 5000}}
    path = recipe(
        **keys, max_steps=10_000, max_time=0.05, save_strategy="steps", save_steps=10_000, eval_fraction=0.25
    )
    start = time.monotonic()
    report = train(path, ["--eval_on_start", "true", "--eval_strategy", "steps", "--eval_steps", "10000"])
    assert 1.5 < time.monotonic() - start < 10  # 3 on an idle machine; 10,000 steps are 500
    assert start <= trainers[1].deadline.start < trainers[0]  # reading the data counts
    assert 5 < report.steps < 60
    MsaForMaskedLM.from_pretrained(report.folder)
    history = json.loads((report.folder / "trainer_state.json").read_text())["log_history"]
    rates = [entry["learning_rate"] for entry in history if "loss" in entry]
    assert rates[0] == 0.01
    assert rates[-1] < 0.002
    assert rates == sorted(rates, reverse=True)
    assert (report.folder / f"checkpoint-{report.steps}" / "optimizer.pt").is_file()
    assert "eval_loss" in report.figures
    card = (report.folder / "README.md").read_text()
    assert "0.01, warmup stable decay, falling to zero in the last 50% of 0.05 minutes" in card


def test_a_schedule_without_steps_is_refused(recipe):
    keys = {"max_time": 1, "eval_fraction": 0.25, "eval_strategy": "steps", "eval_steps": 1}
    trainer = make_trainer(parse_recipe(recipe(**keys, lr_scheduler_type="reduce_lr_on_plateau")))
    with pytest.raises(ValueError, match="max_time requires another lr_scheduler_type"):
        trainer.create_optimizer_and_scheduler(4)
