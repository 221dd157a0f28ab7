"""An exponential moving average of the weights, kept in the optimizer's state, hence in each checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer
from transformers import TrainerCallback

_KEY = "average"


class AverageCallback(TrainerCallback):
    """Update the average after each step.

    Its decay is ``min(decay, (1 + step) / (10 + step))``, so that the random weights of the start are soon forgotten.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def on_step_end(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Update it."""
        step = state.global_step
        update_average(optimizer, min(self.decay, (1 + step) / (10 + step)))


@torch.no_grad()
def update_average(optimizer: Optimizer, decay: float) -> None:
    """Move the average of each trained weight towards it; the first time it is a copy."""
    weights = _trained(optimizer)
    for weight in weights:
        if _KEY not in optimizer.state[weight]:
            optimizer.state[weight][_KEY] = weight.detach().clone()
    torch._foreach_lerp_([optimizer.state[weight][_KEY] for weight in weights], weights, 1 - decay)


@torch.no_grad()
def load_average(optimizer: Optimizer) -> None:
    """Set the weights to their average."""
    for weight in _trained(optimizer):
        weight.copy_(optimizer.state[weight].get(_KEY, weight))


@contextmanager
def average_loaded(optimizer: Optimizer | None) -> Iterator[None]:
    """Use the average in the place of the weights for a while; without optimizer or average, the weights."""
    found = [] if optimizer is None else [weight for weight in _trained(optimizer) if _KEY in optimizer.state[weight]]
    kept = [weight.data for weight in found]
    try:
        for weight in found:
            assert optimizer is not None
            weight.data = optimizer.state[weight][_KEY]
        yield
    finally:
        for weight, data in zip(found, kept, strict=True):
            weight.data = data


def _trained(optimizer: Optimizer) -> list[torch.Tensor]:
    """Weights that have a state: optimizers make one in the first step, and must not find one before."""
    return [weight for group in optimizer.param_groups for weight in group["params"] if optimizer.state.get(weight)]
