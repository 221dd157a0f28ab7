"""Shared by the benchmarks: both implementations with the same weights, alternating times, peak memory."""

import ctypes
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import esm
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from modeling_msa import MsaConfig, MsaForMaskedLM
from modeling_msa.hub.fair_esm import fair_esm_args, to_fair_esm

Work = Callable[[], object]


def make_ours(config: MsaConfig, device: str = "cpu") -> MsaForMaskedLM:
    """Random weights, the contact regression included; the same at each call."""
    torch.manual_seed(0)
    model = MsaForMaskedLM._from_config(config, attn_implementation="sdpa").eval()
    model.msa.contact_head.regression.weight.data.normal_()
    return model.to(device)


def make_fair_esm(config: MsaConfig, device: str = "cpu") -> esm.MSATransformer:
    """fair-esm's model with the weights of `make_ours`."""
    alphabet = esm.data.Alphabet.from_architecture("msa_transformer")
    model = esm.MSATransformer(fair_esm_args(config), alphabet).eval()
    model.load_state_dict(to_fair_esm(make_ours(config))[1])
    return model.to(device)


def random_msa(rows: int, columns: int, device: str = "cpu") -> torch.Tensor:
    """Tokens of `columns` residues and ``<cls>``, ``(1, R, C)``."""
    tokens = torch.randint(4, 24, (1, rows, columns + 1), generator=torch.Generator().manual_seed(0))
    tokens[:, :, 0] = 0
    return tokens.to(device)


def alternate(functions: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call of alternating functions, after one warm-up call each."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(above: Iterable[float], below: Iterable[float]) -> float:
    """Median of the ratios of consecutive calls."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def square_product(dtype: torch.dtype, device: str, size: int) -> tuple[Work, int]:
    """A matrix product to time, and its number of operations."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: left @ right, 2 * size**3


def count_flops(config: MsaConfig, rows: int, columns: int, contacts: bool = False) -> int:
    """Multiplications and additions in the matrix products of one forward pass, without gradients."""
    with torch.device("meta"):
        model = MsaForMaskedLM._from_config(config, attn_implementation="eager").eval()
        tokens = torch.zeros(1, rows, columns + 1, dtype=torch.int64)
    # newer versions of torch do not count a product of a matrix and a vector
    counted = {torch.ops.aten.mv: lambda matrix, vector, **_: 2 * matrix[0] * matrix[1]}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=counted) as counter:
        if contacts:
            model.msa.contact_logits(tokens)
        else:
            model(tokens)
    return counter.get_total_flops()


def peak_allocated(work: Work, device: str = "cpu") -> int:
    """Peak bytes allocated by torch while `work` runs, above those allocated before."""
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


def peak_resident(work: Work) -> int:
    """Peak bytes that `work` adds to this process's resident set; Linux only."""
    ctypes.CDLL(None).malloc_trim(0)  # else `work` could reuse freed memory that is still resident
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = resident("VmRSS")
    work()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def in_own_process(script: str, arguments: Iterable[object], environment: dict[str, str] | None = None) -> str:
    """Run a script in a process of its own and return the last line it prints."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout.splitlines()[-1]
