"""Processes that ``accelerate launch`` started: which one this is, waiting for the others, and leaving them."""

from __future__ import annotations

import atexit
import functools
import gc
import os
from datetime import timedelta
from pathlib import Path
from typing import Any


def is_main_process() -> bool:
    """Whether this is the only process, or the first of several."""
    return rank_and_size()[0] == 0


def rank_and_size() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many there are."""
    if "WORLD_SIZE" not in os.environ:  # a RANK alone, which some clusters set, says nothing
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ["WORLD_SIZE"])


def wait_for_everyone() -> None:
    """Wait until all processes have reached this call."""
    if rank_and_size()[1] > 1:
        _state().wait_for_everyone()


@functools.cache
def _state() -> Any:
    from accelerate import PartialState

    atexit.register(leave_processes)
    # one process may have to wait long for another's last alignment; gloo is enough for names of files
    return PartialState(cpu=True, timeout=timedelta(days=30))


def leave_processes() -> None:
    """Leave the group of processes, if there is one.

    gloo's threads free tensors, for which they need the interpreter's lock; a process that ends while a thread waits
    for the lock is aborted. The threads end with the last reference to the group, which reference cycles (a trainer,
    DDP) may hold. DDP is collected before the group: otherwise its reducer would free the group without releasing the
    lock, and wait forever for a thread that needs it.
    """
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()
        gc.collect()


def gather_dict(mine: dict[Path, str]) -> dict[Path, str]:
    """Merge the entries of all processes; each gets the same."""
    if rank_and_size()[1] == 1:
        return mine
    from accelerate.utils import gather_object

    _state()
    return dict(gather_object(list(mine.items())))
