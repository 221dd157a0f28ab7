"""Checkpoints of a run: which one is whole, which one to resume from, and the mean of their weights."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


def find_broken(checkpoint: str | os.PathLike) -> str | None:
    """Describe what a checkpoint folder lacks for resuming from it; None if it is whole.

    A killed run leaves folders in which files are missing or cut off. Weights, optimizer, scheduler and random states
    are checked without being loaded; ``trainer_state.json`` is written last.
    """
    folder = Path(checkpoint)
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except OSError:
        return "trainer_state.json is missing"
    except ValueError:
        return "trainer_state.json is cut off"
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model_fsdp*"), *folder.glob("global_step*")]
    if not weights:
        return "the weights are missing"
    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError):
            return f"{file.name} is cut off"
    if not any(folder.glob("global_step*")):  # DeepSpeed's own folder holds all of these
        for name in ("optimizer*", "scheduler.pt", "rng_state*.pth"):
            if not any(folder.glob(name)):
                return f"{name} is missing"
    cut = [file.name for file in folder.iterdir() if file.suffix in (".pt", ".pth", ".bin") and not is_zipfile(file)]
    return f"{cut[0]} is cut off" if cut else None


def find_checkpoint(output_dir: str | os.PathLike, resume: str | None) -> Path | None:
    """Find the checkpoint that a run starts from.

    Parameters
    ----------
    output_dir : path
        The run's folder.
    resume : str or None
        Value of ``resume_from_checkpoint``: a folder, or "true" for the last whole one in `output_dir`.

    Returns
    -------
    Path or None
        None if the run starts at its beginning.

    Raises
    ------
    ValueError
        If the named checkpoint is not whole, if none is, or if `output_dir` has checkpoints and `resume` is not set.
    """
    output_dir = Path(output_dir)
    found = list_checkpoints(output_dir)
    if resume is None or resume.lower() in ("false", "no", ""):
        if found:
            raise ValueError(
                f"{output_dir} already contains a run ({found[-1].name}): pass --resume_from_checkpoint true to "
                "continue it, or another --output_dir."
            )
        return None
    if resume.lower() not in ("true", "yes"):
        if not Path(resume).is_dir():
            raise ValueError(f"There is no checkpoint {resume} to resume from.")
        if reason := find_broken(resume):
            raise ValueError(
                f"{resume} is not a whole checkpoint: {reason}. Pass an earlier one, or true for the last whole one."
            )
        return Path(resume)
    for checkpoint in reversed(found):
        if not (reason := find_broken(checkpoint)):
            return checkpoint
        logger.warning("%s is not a whole checkpoint (%s): skipped.", checkpoint, reason)
    if found:
        raise ValueError(f"None of the checkpoints in {output_dir} is whole: start again with another --output_dir.")
    logger.warning("%s has no checkpoint to resume from: the run starts at the beginning.", output_dir)
    return None


def list_checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """List a run's checkpoints, the oldest first."""
    return sorted(Path(output_dir).glob("checkpoint-*"), key=lambda path: path.name.rpartition("-")[2].zfill(20))


def load_mean(model: PreTrainedModel, checkpoints: Sequence[Path]) -> None:
    """Set a model's weights to the mean of those of its checkpoints, summed in float64.

    At a constant learning rate the weights move around a point that is better than any of them (Izmailov et al., UAI
    2018; Vaswani et al., NeurIPS 2017, average their last 5 to 20 checkpoints). The model has no statistics of
    activations that would have to be computed again. `checkpoints` are folders with
    ``.safetensors`` files, as Trainer saves them.
    """
    sums: dict[str, torch.Tensor] = {}
    for checkpoint in checkpoints:
        for file in checkpoint.glob("*.safetensors"):
            for name, tensor in load_file(file).items():
                sums[name] = sums[name].add_(tensor) if name in sums else tensor.double()
    weights = model.state_dict()  # shares the parameters' memory; the files have tied weights only once
    with torch.no_grad():
        for name, total in sums.items():
            weights[name].copy_(total / len(checkpoints))
