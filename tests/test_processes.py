"""Processes that accelerate started: which one this is, and leaving the others without an abort."""

import subprocess
import sys
from pathlib import Path

import pytest

from modeling_msa._processes import gather_dict, is_main_process, rank_and_size

LEAVE = """
import torch
from pathlib import Path
from torch.distributed import HashStore, all_gather_object, init_process_group
from torch.nn.parallel import DistributedDataParallel
from modeling_msa._processes import leave_processes

def threads():
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

init_process_group("gloo", rank=0, world_size=1, store=HashStore())
model = DistributedDataParallel(torch.nn.Linear(2, 2))
model(torch.ones(1, 2)).sum().backward()
model.itself = model
all_gather_object([None], "x")
assert any("gloo" in name for name in threads())
del model
leave_processes()
print(threads())
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads have names in Linux' /proc")
def test_no_thread_of_the_group_is_left_to_abort_the_process():
    result = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "gloo" not in result.stdout


def test_which_process_this_is(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert rank_and_size() == (0, 1)
    assert is_main_process()
    assert gather_dict({Path("a"): "b"}) == {Path("a"): "b"}
    monkeypatch.setenv("RANK", "1")
    assert rank_and_size() == (0, 1)  # set by a cluster; nothing says that there are others
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert rank_and_size() == (1, 2)
    assert not is_main_process()
