"""Cost model of one MSA over several ranks (`modeling_msa.split_rows`): what is sent and computed, and when it pays.

    python benchmarks/row_sharding.py [--bandwidth 25 --rate 400 --bytes 2]
    python benchmarks/row_sharding.py --measure 4

The model is arithmetic. An MSA has R rows and C columns (with <cls>); the network has width D, feed-forward width I, H
heads and b bytes per number. Each of W ranks has r of the rows, and c of the columns during column attention. A
layer's forward pass

    computes   r C (8 D^2 + 4 D I + 4 C D)  +  R c (8 D^2 + 4 R D)  operations (two for each product): row attention
               and feed-forward on rows, column attention on columns
    sends      r (C - c) D b  to columns,  (R - r) c D b  back,  2 (W - 1) / W x 4 H C^2  to add up the row logits
               (float32, in a ring)

A backward pass moves the same amount again and computes twice as much; gradient checkpointing runs the forward pass
twice. A training step also sums the gradients, 2 (W - 1) / W times the parameters.

The time of one rank is that of its operations at `--rate`; that of several is the time of their operations plus the
time of what they send at `--bandwidth`, one after the other, as in split_rows. Ignoring the maps, whose share falls
with the depth, and with I = 4 D, several ranks are faster where

    D + (R + C) / 8  >  b x rate / (16 W bandwidth)

The latency of each collective is left out; for small alignments it dominates.

The default rate and bandwidth are assumptions for an example, not measurements: pass your own. `--measure` runs a
small model in gloo processes on this machine, counts the bytes through the collectives and the peak of torch's
allocator, and prints both next to the cost model.
"""

import argparse
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from side_by_side import peak_allocated

from modeling_msa import MsaConfig, MsaForMaskedLM, split_rows
from modeling_msa._processes import leave_processes
from modeling_msa.tasks import sharding

LARGE = (16384, 1024)  # rows and columns of the example
LENGTHS = (128, 256, 512, 1024)
DEPTHS = (128, 512, 1024, 4096, 16384)
PASSES = {"forward": 1, "forward + backward": 2, "the same, checkpointed": 3}  # times that a layer's tensors move


@dataclass(frozen=True)
class Split:
    """An MSA (a batch of one) on several ranks, and the sizes of the model (default: the published ones)."""

    rows: int
    columns: int
    ranks: int
    number_bytes: int = 2
    layers: int = 12
    hidden: int = 768
    inner: int = 3072
    heads: int = 12

    def share(self, rank: int) -> tuple[int, int]:
        """Numbers of rows and of columns of a rank."""
        each = sharding.RowSplit()
        parts = [each.rows(length, rank, self.ranks) for length in (self.rows, self.columns)]
        return parts[0].stop - parts[0].start, parts[1].stop - parts[1].start

    def operations(self, rank: int = 0) -> int:
        """Operations of one layer's forward pass; rank 0 has most."""
        rows, columns = self.share(rank)
        on_rows = 8 * self.hidden**2 + 4 * self.hidden * self.inner + 4 * self.columns * self.hidden
        on_columns = 8 * self.hidden**2 + 4 * self.rows * self.hidden
        return rows * self.columns * on_rows + self.rows * columns * on_columns

    def exchanged(self, rank: int = 0) -> int:
        """Bytes of hidden states that a rank sends to the others in one layer, there and back."""
        rows, columns = self.share(rank)
        entries = rows * (self.columns - columns) + (self.rows - rows) * columns
        return entries * self.hidden * self.number_bytes

    def summed(self) -> int:
        """Bytes of one layer's row logits, which are summed over the ranks; 0 for one rank."""
        return 4 * self.heads * self.columns**2 if self.ranks > 1 else 0

    def sent(self) -> float:
        """Bytes that a rank sends in one layer's forward pass, with a ring for the sum."""
        return self.exchanged() + 2 * (self.ranks - 1) / self.ranks * self.summed()

    def seconds(self, rate: float, bandwidth: float) -> float:
        """Seconds of a forward pass, at so many operations and bytes per second."""
        return self.layers * (self.operations() / rate + self.sent() / bandwidth)

    def states(self) -> int:
        """Bytes of a rank's hidden states."""
        return self.share(0)[0] * self.columns * self.hidden * self.number_bytes

    def peak(self) -> float:
        """Peak bytes of inference above the weights: 2.5 times the hidden states, and one layer's maps."""
        return 2.5 * self.states() + 4 * self.heads * self.columns**2


def pays_from(split: Split, rate: float, bandwidth: float, most: int = 2**20) -> int | None:
    """Smallest depth from which the ranks are faster than one; None if there is none up to `most`.

    More rows never make it worse: column attention computes more per byte, and more rows share the maps.
    """
    low, high = 1, most // split.ranks  # in multiples of the number of ranks

    def faster(multiple: int) -> bool:
        there = replace(split, rows=multiple * split.ranks)
        return there.seconds(rate, bandwidth) < replace(there, ranks=1).seconds(rate, bandwidth)

    if not faster(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if faster(middle) else (middle + 1, high)
    return low * split.ranks


def report(options: argparse.Namespace) -> None:
    rate, bandwidth = options.rate * 1e12, options.bandwidth * 1e9
    print(f"assumed: {options.rate:g} TFLOP/s a rank, {options.bandwidth:g} GB/s out of a rank, "
          f"{options.bytes} bytes a number; 12 layers of width 768; columns count <cls>\n")  # fmt: skip
    print("a layer's forward pass, on the rank with most: operations, bytes sent, and how much faster than one rank")
    for columns, rows in itertools.product(LENGTHS, DEPTHS):
        cells = []
        for ranks in options.ranks:
            split = Split(rows, columns, ranks, options.bytes)
            gain = replace(split, ranks=1).seconds(rate, bandwidth) / split.seconds(rate, bandwidth)
            cells.append(f"{split.operations() / 1e12:8.3f} T {split.sent() / 2**20:8.1f} MiB {gain:5.2f} x")
        print(f"  {rows:>6} rows x {columns:>4}  " + "  |".join(cells))
    print("  ranks: " + ", ".join(map(str, options.ranks)))
    print("\nit pays from so many rows on; formula: D + (R + C) / 8 > b x rate / (16 W bandwidth), and the maps")
    for ranks in (each for each in options.ranks if each > 1):
        found = [pays_from(Split(1, columns, ranks, options.bytes), rate, bandwidth) for columns in LENGTHS]
        bound = options.bytes * rate / (16 * ranks * bandwidth)
        texts = [f"{columns} columns: {depth or 'never'}" for columns, depth in zip(LENGTHS, found, strict=True)]
        print(f"  {ranks} ranks, right side {bound:.0f}: " + ", ".join(texts))
    rows, columns = LARGE
    print(f"\n{rows} rows x {columns} columns, inference, bfloat16; GiB on each rank above the weights")
    print("  (the row table of the published models ends at 1,024 rows: a deeper MSA takes a model without it,")
    print("  row_position_embedding_size=None, or with a larger one)")
    for ranks in (1, 2, 4, 8):
        split = Split(rows, columns, ranks)
        parts = {"hidden states": split.states(), "a layer's maps": 4 * split.heads * columns**2,
                 "token ids and mask": 9 * rows * columns, "peak": split.peak() + 9 * rows * columns}  # fmt: skip
        print(f"  {ranks} ranks: " + ", ".join(f"{name} {size / 2**30:.2f}" for name, size in parts.items())
              + f"; sent in a forward pass {split.layers * split.sent() / 2**30:.1f}, "
              f"operations {split.layers * split.operations() / 1e15:.2f} x 10^15")  # fmt: skip


# ------------------------------------------------------------------------------------------------------- measurement


@contextmanager
def counted(counts: Counter) -> Iterator[None]:
    """Count the bytes that go into collectives: sent to others in exchanges, in floating-point sums, and other."""
    originals = {name: getattr(dist, name) for name in ("all_reduce", "all_to_all_single")}

    def all_reduce(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        kind = "summed" if tensor.dim() == 4 else "other"
        counts[kind] += tensor.numel() * tensor.element_size()
        return originals["all_reduce"](tensor, *args, **kwargs)

    def all_to_all_single(
        received: torch.Tensor, sent: torch.Tensor, into: list[int], out_of: list[int], **kwargs: Any
    ) -> Any:
        counts["exchanged"] += (sent.numel() - out_of[dist.get_rank()]) * sent.element_size()
        return originals["all_to_all_single"](received, sent, into, out_of, **kwargs)

    dist.all_reduce, dist.all_to_all_single = all_reduce, all_to_all_single  # type: ignore[assignment]
    try:
        yield
    finally:
        dist.all_reduce, dist.all_to_all_single = originals["all_reduce"], originals["all_to_all_single"]


def measure_moved(rows: int, columns: int) -> dict[str, dict[str, tuple[int, int]]]:
    """Bytes that this rank moves in passes through a small model, and those of the cost model."""
    rank, model, split = dist.get_rank(), *small_model(rows, columns)
    tokens = torch.randint(4, 24, (1, rows, columns), generator=torch.Generator().manual_seed(0))
    results = {}
    for name, passes in PASSES.items():
        model.train(passes > 1)
        if passes == 3:
            model.gradient_checkpointing_enable()
        counts: Counter = Counter()
        with split_rows(model), counted(counts), torch.set_grad_enabled(passes > 1):
            output = model(tokens, labels=tokens)
            if passes > 1:
                output.loss.backward()
        expected = {"exchanged": split.exchanged(rank), "summed": split.summed()}
        results[name] = {kind: (counts[kind], passes * split.layers * size) for kind, size in expected.items()}
    return results


def measure_peak(rows: int, columns: int) -> tuple[int, float]:
    """Peak bytes of this rank's forward pass, in as many pieces as for a large MSA, and those of the cost model."""
    model, split = small_model(rows, columns)
    tokens = torch.randint(4, 24, (1, rows, columns), generator=torch.Generator().manual_seed(0))
    sharding.PIECE_BYTES = split.states() // sharding.MOST_PIECES
    with split_rows(model), torch.no_grad():
        model.msa(tokens)
        return peak_allocated(lambda: model.msa(tokens)), split.peak()


def small_model(rows: int, columns: int) -> tuple[MsaForMaskedLM, Split]:
    torch.manual_seed(0)  # the same weights in each rank
    sizes: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 192,
    }
    model = MsaForMaskedLM(MsaConfig(**sizes, row_position_embedding_size=None)).eval()
    return model, Split(rows, columns, dist.get_world_size(), 4, layers=2, hidden=48, inner=192, heads=4)


def measure_rank(rank: int, ranks: int, folder: str, rows: int, columns: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    results: dict[str, Any] = measure_moved(rows, columns)
    results["peak, twice the rows and columns"] = {"allocated": measure_peak(2 * rows, 2 * columns)}
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    leave_processes()


def measure(ranks: int, rows: int, columns: int) -> list[dict[str, Any]]:
    """For each rank the bytes counted and those of the cost model, by pass and kind."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(measure_rank, (ranks, folder, rows, columns), ranks)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=400, help="10^12 operations per second of a rank (default: 400)")
    parser.add_argument(
        "--bandwidth", type=float, default=25, help="10^9 bytes per second sent by a rank (default: 25)"
    )
    parser.add_argument("--bytes", type=int, default=2, help="bytes per number (default: 2, bfloat16)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--measure", type=int, metavar="RANKS", help="count in gloo processes on this machine")
    parser.add_argument(
        "--shape", default="509x127", metavar="ROWSxCOLUMNS", help="MSA of --measure (default: 509x127)"
    )
    options = parser.parse_args()
    if not options.measure:
        report(options)
        return
    rows, columns = map(int, options.shape.split("x"))
    print(f"{rows} rows x {columns} columns, two layers of width 48, float32; bytes counted / by the model")
    for rank, results in enumerate(measure(options.measure, rows, columns)):
        for name, kinds in results.items():
            cells = ", ".join(f"{kind} {found} / {model:.0f}" for kind, (found, model) in kinds.items())
            print(f"  rank {rank}, {name}: {cells}")


if __name__ == "__main__":
    main()
