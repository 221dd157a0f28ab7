"""Muon for the layers' matrices, AdamW for all other weights: torch's two optimizers as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer


class MuonWithAdamW(Optimizer):
    """Two optimizers that Trainer, its scheduler and its checkpoints treat as one.

    Muon makes the update of a matrix orthogonal (Jordan et al., 2024). It is meant for the matrices between hidden
    states; embeddings, norms, biases and all weights outside the layers keep AdamW. Its updates are scaled to the
    size of AdamW's (Liu et al., 2025), so that one learning rate suits both.

    Parameters
    ----------
    model : nn.Module
        Model to train.
    decayed : set of str
        Names of the parameters with weight decay.
    learning_rate, weight_decay, betas, epsilon
        As in AdamW; only AdamW uses the betas and epsilon.
    """

    def __init__(
        self,
        model: nn.Module,
        decayed: set[str],
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
        epsilon: float,
    ):
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        matrices = [name for name, parameter in trained.items() if parameter.ndim == 2 and ".layers." in f".{name}"]
        if not matrices:
            raise ValueError("muon trains the matrices of the layers, but here they are all frozen: turn muon off.")
        others = trained.keys() - matrices
        groups = [
            {"params": [trained[name] for name in trained if name in names], "weight_decay": decay}
            for names, decay in ((others & decayed, weight_decay), (others - decayed, 0.0))
        ]
        self.muon = Muon(
            [trained[name] for name in matrices],
            lr=learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self.adamw = AdamW(groups, lr=learning_rate, betas=betas, eps=epsilon)
        super().__init__([*self.muon.param_groups, *self.adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        # the two optimizers work on this one's groups and states
        self.muon.param_groups, self.adamw.param_groups = self.param_groups[:1], self.param_groups[1:]
        self.muon.state = self.adamw.state = self.state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state, of which torch makes new groups."""
        super().load_state_dict(dict(state_dict))
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step with both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adamw.step()
        return loss
