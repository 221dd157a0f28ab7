"""A run within a given time: the learning rate falls to zero, and training stops, so that the model is saved by then.

Accelerators are rented by the minute, and how many steps fit into an hour is known only when they run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

_RESERVE = 0.02  # of the time, for saving the model and its card


class Deadline(TrainerCallback):
    """Stop a run in time, and scale its learning rate.

    The factor of the learning rate is 1, and in the last `share` of the time falls linearly to 0. A run that is
    resumed while it falls continues from there, over the whole of its new time. All processes follow the clock of the
    first.

    Parameters
    ----------
    minutes : float
        Time in all.
    share : float
        Share of the time in which the learning rate falls.
    start : float
        When it began, by ``time.monotonic()``.

    Attributes
    ----------
    evaluation_seconds : float
        Time of the last evaluation, which is kept for another at the end.
    """

    def __init__(self, minutes: float, share: float, start: float) -> None:
        self.seconds = minutes * 60
        self.share = share
        self.start = start
        self.factor = 1.0
        self.evaluation_seconds = 0.0
        self._reached = 1.0
        self._step_start = start

    def timed(self, scheduler: Any) -> Any:
        """Scale the rates of a scheduler, in place."""
        if not hasattr(scheduler, "lr_lambdas"):
            raise ValueError("max_time requires another lr_scheduler_type: this one does not follow steps.")
        if not any(isinstance(each, _TimedRate) for each in scheduler.lr_lambdas):
            scheduler.lr_lambdas = [_TimedRate(each, self) for each in scheduler.lr_lambdas]
        return scheduler

    def on_train_begin(self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any) -> None:
        """Take over the factor of a checkpoint."""
        self._reached = self.factor = lr_scheduler.lr_lambdas[0].factor

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note when a step begins."""
        self._step_start = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Set the factor for the next steps, and stop if another one would not end in time."""
        now = time.monotonic()
        left = self.seconds * (1 - _RESERVE) - self.evaluation_seconds - (now - self.start)
        # an evaluation that is due now is the last one if training stops
        following = now - self._step_start + (self.evaluation_seconds if control.should_evaluate else 0)
        clock = torch.tensor([left, following], dtype=torch.float64)
        if args.world_size > 1:
            clock = clock.float().to(args.device)  # some devices have no float64
            torch.distributed.broadcast(clock, 0)
        left, following = clock.tolist()
        span = self.seconds * (self.share if self._reached == 1 else 1)
        self.factor = self._reached * min(max(left / span, 0.0), 1.0)
        if left < following:
            control.should_training_stop = True
            control.should_save = str(getattr(args.save_strategy, "value", args.save_strategy)) != "no"
        return control


class _TimedRate:
    """A schedule times the deadline's factor. The scheduler saves `factor`, but none of the slots."""

    __slots__ = ("__dict__", "deadline", "schedule")

    def __init__(self, schedule: Callable[[int], float], deadline: Deadline) -> None:
        self.schedule = schedule
        self.deadline = deadline
        self.factor = 1.0

    def __call__(self, step: int) -> float:
        self.factor = self.deadline.factor
        return self.schedule(step) * self.factor
