"""Processes that ``accelerate launch`` started: which one this is, waiting for the others, leaving them."""

from __future__ import annotations

import atexit
import functools
import gc
import os
from datetime import timedelta
from pathlib import Path
from typing import Any


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that ``accelerate launch`` started."""
    return rank_and_size()[0] == 0


def rank_and_size() -> tuple[int, int]:
    """Return this process's number, from 0, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_everyone() -> None:
    """Wait until all processes have come here."""
    if rank_and_size()[1] > 1:
        _state().wait_for_everyone()


@functools.cache
def _state() -> Any:
    from accelerate import PartialState

    atexit.register(leave_processes)
    # one process may have to wait for another's last alignment for long
    return PartialState(cpu=True, timeout=timedelta(days=30))  # gloo is enough for names of files


def leave_processes() -> None:
    """Leave the group of processes, if there is one.

    gloo's threads drop tensors, for which they need the interpreter's lock; a process that ends while one waits for it
    is aborted. The threads end with the last reference to the group, which cycles (a trainer, DDP) may hold. DDP goes
    before the group: its reducer would take the group along without giving up the interpreter's lock, and wait forever
    for a thread that needs it.
    """
    import torch  # slow to import

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()
        gc.collect()


def gather_dict(mine: dict[Path, str]) -> dict[Path, str]:
    """Merge the processes' entries, the same in each."""
    if rank_and_size()[1] == 1:
        return mine
    from accelerate.utils import gather_object

    _state()
    return dict(gather_object(list(mine.items())))
