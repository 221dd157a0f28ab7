"""What ProteinGym costs: `msa proteingym` over the assays of a reference file, on eight cores and on one GPU.

    python benchmarks/proteingym_cost.py DMS_substitutions.csv [--output benchmarks/results/proteingym_cost.md]

The reference file is ProteinGym's own (reference_files/ of OATML-Markslab/ProteinGym); it says how long each alignment
is (MSA_start, MSA_end), which residues are mutated (region_mutated) and how many rows the alignment has. Work is
counted in multiplications and additions: in exact mode, for each seed, one pass of 400 rows for each mutated residue,
of at most 1,023 residues; in fast mode, for each window, one pass of the other rows, and for each mutated residue one
row with the keys and values of all. A few scores in the published size, with random weights, are timed here on one
thread; the slowest rate of each mode stands for all sizes, and for each of eight cores with a process of its own. The
GPU's time is that of the cost model of `gpu.py --count`, by which nothing is measured.
"""

import argparse
import csv
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from gpu import Count, as_on_a_gpu
from side_by_side import count_flops, make_ours

from modeling_msa import Alignment, MsaConfig, MsaForMaskedLM, filter_rows, score_variants, sequence_weights
from modeling_msa.tasks.strategies import PROTOCOLS

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "static" / "proteingym_cost.png"
LETTERS = list("ACDEFGHIKLMNPQRSTVWY")
ROWS, SEEDS, WINDOW, STEPS, CORES = 400, 5, 1023, 8, 8
assert PROTOCOLS["proteingym"]["rows"] == ROWS
BINS = (0, 100, 200, 300, 500, 1023, 10**6)
TIMED = (31, 63, 127)  # residues
GRID = (32, 64, 128, 256, 512, 1023)  # residues whose pass is counted; between them by interpolation
KEPT = 1.4  # rows that pass the filter of 90 % for each effective sequence (TEM-1: 3,341 and 2,520)


@dataclass(frozen=True)
class Work:
    """What an assay requires."""

    name: str
    residues: int  # of the alignment
    mutated: int
    variants: int
    rows: int
    effective: float

    @property
    def width(self) -> int:
        """Residues of a pass."""
        return min(self.residues, WINDOW)

    @property
    def windows(self) -> int:
        """Windows of fast mode, as `modeling_msa.tasks.scorer` places them, if all residues were mutated."""
        step = max(1, self.width // STEPS)
        starts = {
            min(round(max(column - self.width // 2, 0) / step) * step, self.residues - self.width)
            for column in range(self.residues)
        }
        return len(starts)


def read(path: Path) -> list[Work]:
    """The assays of a reference file; without a readable region all residues of the alignment count as mutated."""
    works = []
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            residues = int(row["MSA_end"]) - int(row["MSA_start"]) + 1
            first, dash, last = row["region_mutated"].partition("-")
            mutated = int(last) - int(first) + 1 if dash and first.isdigit() and last.isdigit() else residues
            sizes = int(row["DMS_total_number_mutants"]), int(row["MSA_num_seqs"]), float(row["MSA_N_eff"])
            works.append(Work(row["DMS_id"], residues, min(mutated, residues), *sizes))
    return works


@functools.cache
def pass_flops(width: int) -> int:
    """Operations of one pass of all rows."""
    return count_flops(MsaConfig(), ROWS, width)


@functools.cache
def version_flops(width: int, rows: int = ROWS) -> int:
    """Operations of one version of the query's row, which reads the keys and values of all rows in its columns."""
    alone = count_flops(MsaConfig(), 1, width)
    config = MsaConfig()
    return alone + config.num_hidden_layers * 4 * (rows - 1) * (width + 1) * config.hidden_size


def flops(work: Work, mode: str) -> float:
    """Operations of an assay with all seeds."""
    if mode == "exact":
        return SEEDS * work.mutated * pass_flops(work.width)
    return SEEDS * (work.windows * pass_flops(work.width) + work.mutated * version_flops(work.width))


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure() -> list[tuple[str, int, float, float]]:
    """Mode, residues, seconds and operations a second, on this machine."""
    random, lines = np.random.default_rng(0), []
    model = make_ours(MsaConfig())
    for length in TIMED:
        family = Alignment.from_sequences(["".join(random.choice(LETTERS, length)) for _ in range(ROWS)])
        variants = [f"{letter}{k}{'A' if letter != 'A' else 'C'}" for k, letter in enumerate(family.query, start=1)]
        for mode in ("exact", "fast"):
            some = variants[:1] if mode == "exact" else variants
            work = functools.partial(score_variants, family, some, model, mode=mode, rows=ROWS, select="first")
            taken = seconds(work)
            done = Work("", length, len(some), 0, ROWS, 0.0)
            lines.append((mode, length, taken, flops(done, mode) / SEEDS / taken))
            print(*lines[-1], flush=True)
    return lines


def slowest(timed: list[tuple[str, int, float, float]]) -> dict[str, float]:
    """Operations a second by mode."""
    return {mode: min(rate for kind, _, _, rate in timed if kind == mode) for mode in ("exact", "fast")}


def measure_rows(depth: int = 4000, length: int = 250) -> tuple[float, float]:
    """Seconds of the filter for each (row, row kept, residue), and of the weights for each pair; best of three."""
    random = np.random.default_rng(0)
    array = random.choice(np.frombuffer("".join(LETTERS).encode(), np.uint8), (depth, length))
    near = array[random.integers(depth // 3, size=depth)]  # three rows of a kind; one of them is kept
    kept = filter_rows(near, 75, 90)
    first = min(seconds(lambda: filter_rows(near, 75, 90)) for _ in range(3))
    second = min(seconds(lambda: sequence_weights(array)) for _ in range(3))
    return first / (depth * len(kept) * length), second / (depth**2 * length)


def rows_seconds(work: Work, rates: tuple[float, float]) -> float:
    """Choosing the rows of an assay; how many pass the filter is estimated from the effective number."""
    kept = min(work.rows, KEPT * work.effective)
    return work.residues * (rates[0] * work.rows * kept + rates[1] * kept**2)


def predict() -> Callable[[int], float]:
    """Seconds of one pass of all rows on a GPU by the cost model, as a function of its residues."""
    with torch.device("meta"):
        model = MsaForMaskedLM._from_config(MsaConfig(), attn_implementation="sdpa").eval().bfloat16()
    found = []
    for width in GRID:
        tokens = torch.zeros(1, ROWS, width + 1, dtype=torch.int64, device="meta")
        counter = Count()
        with torch.no_grad(), as_on_a_gpu(counter), counter:
            model(tokens, is_padded=False)
        found.append(counter.seconds)
    return lambda width: float(np.interp(width, GRID, found))


def gpu_seconds(work: Work, mode: str, one_pass: Callable[[int], float]) -> float:
    """An assay with all seeds; a version of the query's row costs as much of a pass as it has of its operations."""
    a_pass = one_pass(work.width)
    if mode == "exact":
        return SEEDS * work.mutated * a_pass
    version = a_pass * version_flops(work.width) / pass_flops(work.width)
    return SEEDS * (work.windows * a_pass + work.mutated * version)


def table(works: list[Work], rates: dict[str, float], choice: tuple[float, float]) -> str:
    """Costs by length of the alignment, and of all assays."""
    one_pass = predict()
    lines = [
        "| residues of the alignment | assays | residues mutated | PFLOP, exact | PFLOP, fast "
        "| 8 cores, exact, h | 8 cores, fast, h | choosing rows, 8 cores, h | one GPU, exact, h | one GPU, fast, h |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups = [
        (f"{low + 1:,} to {high:,}" if high < 10**6 else f"more than {low:,}", low, high)
        for low, high in itertools.pairwise(BINS)
    ]
    for name, low, high in [*groups, ("all", 0, 10**6)]:
        some = [work for work in works if low < work.residues <= high]
        cells = [name, f"{len(some)}", f"{sum(work.mutated for work in some):,}"]
        operations = [sum(flops(work, mode) for work in some) for mode in ("exact", "fast")]
        cells += [f"{each / 1e15:,.0f}" for each in operations]
        cells += [_hours(each / rates[mode] / CORES) for mode, each in zip(("exact", "fast"), operations, strict=True)]
        cells.append(_hours(sum(rows_seconds(work, choice) for work in some) / CORES))
        cells += [_hours(sum(gpu_seconds(work, mode, one_pass) for work in some)) for mode in ("exact", "fast")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _hours(value: float) -> str:
    return f"{value / 3600:,.0f}" if value >= 36_000 else f"{value / 3600:.2g}"


def page(works: list[Work], timed: list[tuple[str, int, float, float]], choice: tuple[float, float]) -> str:
    """The page of results."""
    rates = slowest(timed)
    lines = [
        "# What ProteinGym costs",
        "",
        f"Written by `benchmarks/proteingym_cost.py` on {date.today()}: torch {torch.__version__}, float32, the",
        f"published size with random weights, {torch.get_num_threads()} CPU thread of a machine that others used too "
        f"(load {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores), so an idle core is faster.",
        "",
        f"**Timed here**, {ROWS} rows:",
        "",
        "| mode | residues | scored | seconds | GFLOP/s |",
        "|---|---|---|---|---|",
    ]
    for mode, length, taken, rate in timed:
        scored = "one residue" if mode == "exact" else "all residues"
        lines.append(f"| {mode} | {length} | {scored}, one seed | {taken:.1f} | {rate / 1e9:.0f} |")
    largest = max(works, key=lambda work: rows_seconds(work, choice))
    lines += [
        "",
        f"Choosing rows: the filter takes {choice[0] * 1e9:.2f} ns for each row, row kept and residue, the weights "
        f"{choice[1] * 1e9:.2f} ns for each pair of rows kept and residue.",
        "",
        f"**Extrapolated** to the {len(works)} assays ({sum(work.variants for work in works):,} variants) with "
        f"{SEEDS} seeds, by counted operations: on 8 cores at the slowest rate above for each of 8 processes; on one "
        "GPU of 80 GB in bfloat16 by the cost model of `benchmarks/gpu.py --count`. Nothing of the GPU's columns was "
        "measured: they are lower bounds, and fast mode's, whose many small operations the model leaves out, will be "
        "exceeded several times. The number of variants hardly matters: a residue costs the same however many of its "
        "substitutions were measured.",
        "",
        table(works, rates, choice),
        "",
        "Residues mutated are those of `region_mutated`, all of the region: an upper bound where an assay skips some. "
        f"How many rows pass the filter is not in the reference file; {KEPT} for each effective sequence are assumed, "
        f"so that column is a rough estimate. Most of it is {largest.name} "
        f"({_hours(rows_seconds(largest, choice))} h on one core), whose alignment has {largest.rows:,} rows. Rows "
        "are chosen anew for each assay.",
        "",
    ]
    return "\n".join(lines)


def draw(works: list[Work], rates: dict[str, float], path: Path) -> None:
    """Draw the hours of each assay on eight cores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    for mode, color in (("exact", "tab:orange"), ("fast", "tab:blue")):
        hours = [flops(work, mode) / rates[mode] / CORES / 3600 for work in works]
        axes.scatter([work.residues for work in works], hours, s=14, color=color, alpha=0.6, linewidths=0, label=mode)
    axes.set(xscale="log", yscale="log", xlabel="residues of the alignment", ylabel="hours on 8 cores, extrapolated")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks([50, 100, 200, 500, 1000, 2000], minor=False)
    axes.minorticks_off()
    axes.legend(title="mode, 400 rows, 5 seeds", frameon=False)
    axes.spines[["right", "top"]].set_visible(False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path, help="DMS_substitutions.csv of ProteinGym")
    parser.add_argument("--output", type=Path, default=RESULTS / "proteingym_cost.md")
    arguments = parser.parse_args()
    works = read(arguments.reference)
    torch.set_num_threads(1)
    timed = measure()
    text = page(works, timed, measure_rows())
    arguments.output.write_text(text)
    draw(works, slowest(timed), PICTURE)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
