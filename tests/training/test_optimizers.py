"""The contract of Muon with AdamW: the same steps as torch's two optimizers apart."""

import copy
import re
from pathlib import Path

import pytest
import torch

from modeling_msa.training.building import make_trainer
from modeling_msa.training.recipes import parse_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


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
        assert optimizer.step(lambda: 3.0) == 3.0
        muon.step()
        adamw.step()
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
    with pytest.raises(ValueError, match="they are all frozen"):
        trainer.create_optimizer()
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    with pytest.raises(ValueError, match="FSDP and DeepSpeed split them: train with DDP"):
        trainer.create_optimizer()
