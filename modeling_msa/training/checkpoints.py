"""Checkpoints of a run: their digests, which one is whole, which one to resume from, and the mean of their weights."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers import PreTrainedModel

from .._files import file_sha256, whole_file

logger = logging.getLogger(__name__)
DIGESTS = "digests.json"


def write_digests(checkpoint: str | os.PathLike) -> None:
    """Write the SHA-256 of each file of a checkpoint folder, and of its folders, into its ``digests.json``."""
    folder = Path(checkpoint)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / DIGESTS)
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    with whole_file(folder / DIGESTS) as temporary:
        temporary.write_text(json.dumps(digests), encoding="utf-8")


def find_changed(checkpoint: str | os.PathLike) -> str | None:
    """Describe what is not as it was when a checkpoint's ``digests.json`` was written; None if all is, or it has none.

    All files are read.
    """
    folder = Path(checkpoint)
    if not (folder / DIGESTS).is_file():
        return None
    try:
        digests = dict(json.loads((folder / DIGESTS).read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        return f"{DIGESTS} is damaged"
    for name, digest in digests.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if file_sha256(folder / name) != digest:
            return f"{name} is damaged: its SHA-256 is another than when it was saved"
    return None


def find_diverged(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """Name of the first tensor whose norm is NaN or infinite in float32; None if there is none.

    Values over 1e19, whose squares are infinite, do not come from training that works. Waits for the device once.
    """
    named = [(name, getattr(tensor, "to_local", lambda tensor=tensor: tensor)()) for name, tensor in tensors]
    flags = [torch.linalg.vector_norm(tensor.detach().float()).isfinite() for _, tensor in named]
    finite = torch.stack(flags).tolist() if flags else []
    return next((name for (name, _), flag in zip(named, finite, strict=True) if not flag), None)


def find_broken(checkpoint: str | os.PathLike) -> str | None:
    """Describe what a checkpoint folder lacks for resuming from it; None if it is whole.

    A killed run leaves folders in which files are missing or cut off, and disks damage files. Weights, optimizer,
    scheduler and random states are checked without being loaded; `find_changed` tells the rest. Of a folder without
    digests, which a plain Trainer or an earlier version wrote, the checksums inside the archives are checked.
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
    has_digests = (folder / DIGESTS).is_file()
    for file in folder.iterdir():
        if file.suffix in (".pt", ".pth", ".bin"):
            try:
                with ZipFile(file) as archive:
                    if not has_digests and archive.testzip() is not None:
                        return f"{file.name} is damaged"
            except (BadZipFile, OSError):
                return f"{file.name} is cut off"
    return find_changed(folder)


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
        return _accepted(Path(resume))
    if whole := last_whole(output_dir, 1, find_broken):
        if whole[0] != found[-1]:
            logger.warning("The run continues from %s.", whole[0])
        return _accepted(whole[0])
    if found:
        raise ValueError(f"None of the checkpoints in {output_dir} is whole: start again with another --output_dir.")
    logger.warning("%s has no checkpoint to resume from: the run starts at the beginning.", output_dir)
    return None


def _accepted(checkpoint: Path) -> Path:
    if not (checkpoint / DIGESTS).is_file():
        logger.warning("%s has no %s: damage inside its weights would not be noticed.", checkpoint, DIGESTS)
    return checkpoint


def last_whole(output_dir: str | os.PathLike, count: int, fault: Callable[[Path], str | None]) -> list[Path]:
    """List the last `count` checkpoints of a run in which `fault` finds none, the oldest first; warn of the others."""
    kept: list[Path] = []
    for checkpoint in reversed(list_checkpoints(output_dir)):
        if len(kept) == count:
            break
        if reason := fault(checkpoint):
            logger.warning("%s is not a whole checkpoint (%s): skipped.", checkpoint, reason)
        else:
            kept.insert(0, checkpoint)
    return kept


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
