"""Time and memory on a GPU beside fair-esm, with goals; without a GPU, kernels are counted and their time predicted.

    python benchmarks/gpu.py [--only logits contacts ...] [--output FILE.md]
    python benchmarks/gpu.py --count
    python benchmarks/gpu.py --trial

Weights are random, in the published size, bfloat16 unless said otherwise; times are medians, in alternating calls with
fair-esm. "Share" is of the rate of a product of two 8,192 x 8,192 matrices, timed in the same run. Everything takes
about three minutes on an H100 and requires no network.

`--count` runs the same code on tensors without data (the meta device), as a GPU of 80 GB would run it, and lists each
operation. A cost model turns them into time: products at nine tenths of the rate, other operations at the bandwidth
that a profile of an H100 showed for their kind, and the processor's time for a launch; the larger of the sums counts.
Predicted is not measured. `--trial` runs the whole script with tiny sizes on the CPU, to see that it works.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import Line, table
from side_by_side import alternate, count_flops, make_fair_esm, make_ours, peak_allocated, random_msa, square_product
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_msa import (
    MsaConfig,
    MsaForMaskedLM,
    inference_msa_transformer,
    read_alignment,
    score_all_singles,
)

RESULTS = Path(__file__).parent / "results"
SIZES = {(64, 128): "", (128, 256): "", (256, 512): ">= 0.47", (1024, 1023): ">= 0.5"}
SMALL = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 8, "row_position_embedding_size": None}
# What an H100 did, by a profile of a forward pass of 256 x 512: products in operations a second, others in bytes a
# second by kind, seconds of the processor for a launch
RATE = 0.9 * 762e12
BANDWIDTH = {"layer_norm": 1.2e12, "copy": 1.6e12, "other": 3.0e12}
LAUNCH = 24e-6

Work = Callable[[], object]


@dataclass
class Settings:
    """What to run: the model, its device, and by what sizes are divided."""

    config: MsaConfig
    device: str = "cuda"
    smaller: int = 1

    def msa(self, rows: int, columns: int) -> torch.Tensor:
        """Random tokens."""
        return random_msa(max(2, rows // self.smaller), max(4, columns // self.smaller), self.device)


# ------------------------------------------------------------------------------------------------------------ measured


def median_ms(functions: dict[str, Work], repeats: int = 5) -> dict[str, float]:
    """Median milliseconds of alternating calls."""
    return {name: 1e3 * statistics.median(seconds) for name, seconds in alternate(functions, repeats).items()}


def product_rate(settings: Settings) -> float:
    """Operations a second of a large product."""
    product, operations = square_product(torch.bfloat16, settings.device, 8192 // settings.smaller)
    return operations / median_ms({"": product}, 9)[""] * 1e3


@torch.no_grad()
def parity(settings: Settings) -> Iterator[Line]:
    """Largest differences from fair-esm in float32, relative to the tensor's magnitude."""
    ours, theirs = make_ours(settings.config, settings.device), make_fair_esm(settings.config, settings.device)
    tokens = settings.msa(32, 64)
    expected = theirs(tokens)["logits"]
    for name, found, wanted in (
        ("logits", ours(tokens).logits, expected),
        ("contacts", ours.predict_contacts(tokens), theirs.predict_contacts(tokens)),
    ):
        away = ((found - wanted).abs().max() / wanted.abs().max().clamp(min=1)).item()
        yield Line(f"{name} 32 x 64, fp32 without TF32, difference from fair-esm", "", "", away, "<= 1e-5")
    padded = torch.nn.functional.pad(tokens, (0, 16, 0, 8), value=1)
    found = ours(padded).logits[:, : tokens.shape[1], : tokens.shape[2]]
    away = ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
    yield Line("logits of the same, padded to 40 x 80", "", "", away, "<= 1e-5")


@torch.no_grad()
def logits(settings: Settings) -> Iterator[Line]:
    """Logits and contacts over sizes, beside fair-esm where it fits."""
    rate = product_rate(settings)
    ours = make_ours(settings.config, settings.device).bfloat16()
    theirs = make_fair_esm(settings.config, settings.device).bfloat16()
    for (rows, columns), goal in SIZES.items():
        tokens = settings.msa(rows, columns)
        work: dict[str, Work] = {
            "ours": lambda tokens=tokens: ours(tokens),
            "contacts": lambda tokens=tokens: ours.predict_contacts(tokens),
        }
        if rows * columns <= 256 * 512:
            work["fair-esm"] = lambda tokens=tokens: theirs(tokens)
        taken = median_ms(work, 3 if rows > 256 else 7)
        share = count_flops(settings.config, tokens.shape[1], tokens.shape[2] - 1) / taken["ours"] * 1e3 / rate
        peak = peak_allocated(work["ours"], settings.device)
        what = f"{rows} x {columns}"
        detail = f"{peak / 1e9:.2f} GB above the weights; product {rate / 1e12:.0f} TFLOP/s"
        yield Line(f"logits {what}, share of the product's rate", f"{taken['ours']:.2f} ms", "", share, goal, detail)
        if rows == 1024:
            yield Line(f"logits {what}, GB above the weights", "", "", peak / 1e9, "<= 8")
        if "fair-esm" in taken:
            theirs_ms = f"{taken['fair-esm']:.2f} ms"
            ratio, bound = taken["ours"] / taken["fair-esm"], "<= 0.65" if rows == 64 else ""
            yield Line(f"logits {what}, time / fair-esm", f"{taken['ours']:.2f} ms", theirs_ms, ratio, bound)
        ratio = taken["contacts"] / taken["ours"]
        yield Line(f"contacts {what}, time / logits", f"{taken['contacts']:.2f} ms", "", ratio, "<= 1.0")
    tokens = settings.msa(32, 96).repeat(16, 1, 1)
    taken = median_ms({"ours": lambda: ours(tokens), "fair-esm": lambda: theirs(tokens)}, 7)
    both = (f"{taken['ours']:.2f} ms", f"{taken['fair-esm']:.2f} ms")
    yield Line("16 MSAs of 32 x 96, time / fair-esm", *both, taken["ours"] / taken["fair-esm"], "<= 0.65")


@torch.no_grad()
def compiled(settings: Settings) -> Iterator[Line]:
    """Logits of 256 x 512 by torch.compile."""
    rate, tokens = product_rate(settings), settings.msa(256, 512)
    model = make_ours(settings.config, settings.device).bfloat16()
    forward = torch.compile(model, fullgraph=True)
    begin = time.perf_counter()
    forward(tokens, is_padded=False)
    detail = f"compiled in {time.perf_counter() - begin:.0f} s"
    taken = median_ms({"": lambda: forward(tokens, is_padded=False)}, 7)[""]
    share = count_flops(settings.config, tokens.shape[1], tokens.shape[2] - 1) / taken * 1e3 / rate
    yield Line("logits 256 x 512, torch.compile, share", f"{taken:.2f} ms", "", share, ">= 0.58", detail)


def step_of(model: torch.nn.Module, tokens: torch.Tensor, **options: Any) -> Work:
    """Forward and backward in bfloat16 autocast."""
    model.train()

    def step() -> None:
        with torch.autocast(tokens.device.type, torch.bfloat16):
            output = model(tokens, **options)
        output["logits"].float().square().mean().backward()
        model.zero_grad(set_to_none=True)

    return step


def training(settings: Settings) -> Iterator[Line]:
    """A training step of 128 x 511 in autocast, and one of a small model."""
    tokens = settings.msa(128, 511)
    ours, theirs = make_ours(settings.config, settings.device), make_fair_esm(settings.config, settings.device)
    work = {"ours": step_of(ours, tokens), "fair-esm": step_of(theirs, tokens)}
    work["compiled"] = step_of(torch.compile(ours.train(), fullgraph=True), tokens, is_padded=False)
    taken = median_ms(work, 5)
    for name, goal in (("ours", "<= 0.5"), ("compiled", "<= 0.4")):
        both = (f"{taken[name]:.1f} ms", f"{taken['fair-esm']:.1f} ms")
        ratio = taken[name] / taken["fair-esm"]
        yield Line(f"training step 128 x 511, autocast{', torch.compile' * (name != 'ours')}", *both, ratio, goal)
    del ours, theirs, work
    tokens = settings.msa(256, 95).repeat(4, 1, 1)  # 98,304 tokens
    small = MsaForMaskedLM(MsaConfig(**SMALL)).to(settings.device)
    taken = median_ms({"eager": step_of(small, tokens)}, 7)
    speed = tokens.numel() / taken["eager"] / 1e3
    yield Line("small model, training, million tokens a second", f"{taken['eager']:.1f} ms", "", speed, ">= 1.41")


def scoring(settings: Settings) -> Iterator[Line]:
    """All single substitutions of 300 residues against 400 rows."""
    random = np.random.default_rng(0)
    depth, length = 400 // settings.smaller, 300 // settings.smaller
    rows = ["".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)) for _ in range(depth)]
    family = read_alignment("".join(f">s{k}\n{row}\n" for k, row in enumerate(rows)), "fasta")
    model = make_ours(settings.config, settings.device).bfloat16()
    for mode, goal in (("fast", "<= 0.4"), ("exact", "<= 18")):
        score_all_singles(family.take(range(depth // 10)), model, mode=mode, rows=depth // 10, select="first")
        begin = time.perf_counter()
        score_all_singles(family, model, mode=mode, rows=depth, select="first")
        yield Line(f"all singles, 400 x 300, {mode}, seconds", "", "", time.perf_counter() - begin, goal)


CASES = {case.__name__: case for case in (parity, logits, compiled, training, scoring)}


# ------------------------------------------------------------------------------------------------------------- counted


@dataclass
class Count(TorchDispatchMode):
    """Operations that would be kernels, with their bytes and arithmetic."""

    kernels: Counter = field(default_factory=Counter)
    bytes_of: Counter = field(default_factory=Counter)
    device_s: Counter = field(default_factory=Counter)
    operations: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if func.is_view or name in ("empty", "new_empty", "empty_like", "detach", "_unsafe_view", "lift_fresh"):
            return output
        tensors = [each for each in torch.utils._pytree.tree_leaves((args, kwargs, output)) if _is_tensor(each)]
        moved = sum(min(each.numel() * each.element_size(), each.untyped_storage().nbytes()) for each in tensors)
        counts = flop_registry.get(func.overloadpacket)
        operations = counts(*args, **(kwargs or {}), out_val=output) if counts else 0
        self.add(name, moved, operations)
        if name == "constant_pad_nd":  # fills, then copies
            self.add("fill", output.numel() * output.element_size())
        return output

    def add(self, name: str, moved: int, operations: int = 0) -> None:
        """Count one kernel."""
        kind = "layer_norm" if "layer_norm" in name else "copy" if name in COPIES else "other"
        self.kernels[name] += 1
        self.bytes_of[name] += moved
        self.operations += operations
        self.device_s[name] += max(moved / BANDWIDTH[kind], operations / RATE)

    @property
    def seconds(self) -> float:
        """Predicted time: the device's, or the processor's if it is longer."""
        return max(sum(self.device_s.values()), LAUNCH * sum(self.kernels.values()))


COPIES = ("clone", "copy_", "_to_copy", "constant_pad_nd", "constant_pad_nd_backward", "stack", "cat")


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


@contextmanager
def as_on_a_gpu(counter: Count) -> Iterator[None]:
    """On the meta device, take the paths of a GPU of 80 GB; column attention is one kernel without copies."""

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **_: Any) -> tuple[torch.Tensor, None]:
        batch, heads, rows, size = query.shape
        moved = 4 * query.numel() * query.element_size()
        counter.add("attention", moved, 4 * batch * heads * rows * rows * size)
        with torch.utils._python_dispatch._disable_current_modes():
            return query.new_empty(batch, rows, heads, size), None

    machine = inference_msa_transformer
    before = ALL_ATTENTION_FUNCTIONS["sdpa"], machine.is_on_gpu, machine.total_memory
    gpu = attention, lambda _: True, lambda _: 80 * 10**9
    ALL_ATTENTION_FUNCTIONS["sdpa"], machine.is_on_gpu, machine.total_memory = gpu
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"], machine.is_on_gpu, machine.total_memory = before


def counted(config: MsaConfig) -> str:
    """Kernels, bytes and predicted times of forward passes in bfloat16, as a table."""
    lines = [
        "| logits | kernels | GB moved | TFLOP | predicted, not measured | share | largest parts |",
        "|---|---|---|---|---|---|---|",
    ]
    with torch.device("meta"):
        model = MsaForMaskedLM._from_config(config, attn_implementation="sdpa").eval().bfloat16()
    cases = [(1, *size) for size in SIZES] + [(16, 32, 96)]
    for batch, rows, columns in cases:
        tokens = torch.zeros(batch, rows, columns + 1, dtype=torch.int64, device="meta")
        counter = Count()
        with torch.no_grad(), as_on_a_gpu(counter), counter:
            model(tokens, is_padded=False)
        largest = ", ".join(f"{name} {1e3 * each:.1f} ms" for name, each in counter.device_s.most_common(6))
        share = counter.operations / counter.seconds / (RATE / 0.9)
        what = f"{rows} x {columns}" if batch == 1 else f"{batch} of {rows} x {columns}"
        lines.append(
            f"| {what} | {sum(counter.kernels.values())} | {sum(counter.bytes_of.values()) / 1e9:.1f} | "
            f"{counter.operations / 1e12:.2f} | {1e3 * counter.seconds:.1f} ms | {share:.2f} | {largest} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, help="cases to run (default: all)")
    parser.add_argument("--trial", action="store_true", help="run everything with tiny sizes on the CPU")
    parser.add_argument("--count", action="store_true", help="count and predict instead of measuring")
    parser.add_argument("--output", type=Path, help="file to write (default: benchmarks/results/DEVICE.md)")
    arguments = parser.parse_args()
    if arguments.count or not (arguments.trial or torch.cuda.is_available()):
        name = "gpu-counted"
        head = f"# Kernels and bytes of a forward pass\n\n`benchmarks/gpu.py --count`, torch {torch.__version__}."
        page = f"{head} Nothing here was measured.\n\n{counted(MsaConfig())}\n"
    else:
        torch.set_float32_matmul_precision("highest")
        settings = Settings(MsaConfig())
        if arguments.trial:
            tiny = MsaConfig(hidden_size=24, num_attention_heads=3, intermediate_size=96, num_hidden_layers=1)
            settings = Settings(tiny, "cpu", 20)
        lines: list[Line] = []
        for case in arguments.only or CASES:
            for line in CASES[case](settings):
                print(line.what, line.ours, line.other, line.ratio, line.goal, line.met, line.detail, flush=True)
                lines.append(line)
            torch.cuda.empty_cache()
            torch._dynamo.reset()
        device = "a trial" if arguments.trial else torch.cuda.get_device_name()
        page = table(lines, {"device": device, "torch": torch.__version__}, settings.config, 5).replace(
            "`make bench`", "`benchmarks/gpu.py`"
        )
        name = "".join(letter if letter.isalnum() else "-" for letter in device.lower())
    print(page)
    (arguments.output or RESULTS / f"{name}.md").write_text(page)


if __name__ == "__main__":
    sys.exit(main())
