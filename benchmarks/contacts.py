"""Time and peak memory of contact prediction beside fair-esm's, the same full-size random weights and input.

    python benchmarks/contacts.py [--rows 128] [--columns 256] [--repeats 3]

The two alternate in one process for the time; each runs in a process of its own for the memory, which is the peak
resident set above what it was with the weights loaded.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import esm
import torch

from modeling_msa import MsaConfig, MsaForMaskedLM
from modeling_msa.conversion import fair_esm_args, to_fair_esm


def contact_functions(names: tuple[str, ...]) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The contact prediction of each implementation, with the same weights."""
    torch.manual_seed(0)
    config = MsaConfig()
    ours = MsaForMaskedLM(config).eval()
    ours.msa.contact_head.regression.weight.data.normal_()
    functions = {"ours": ours.predict_contacts}
    if "fair-esm" in names:
        alphabet = esm.data.Alphabet.from_architecture("msa_transformer")
        theirs = esm.MSATransformer(fair_esm_args(config), alphabet).eval()
        theirs.load_state_dict(to_fair_esm(ours)[1])
        functions["fair-esm"] = theirs.predict_contacts
        if "ours" not in names:
            del ours, functions["ours"]
    return functions


def random_msa(rows: int, columns: int) -> torch.Tensor:
    tokens = torch.randint(4, 24, (1, rows, columns + 1), generator=torch.Generator().manual_seed(0))
    tokens[:, :, 0] = 0
    return tokens


def peak_above_weights(name: str, tokens: torch.Tensor) -> float:
    """GB of resident memory that one prediction adds to the model's."""
    function = contact_functions((name,))[name]
    with torch.no_grad():
        function(tokens[:, :2, :8])
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # forget the peak so far
        before = _status("VmRSS")
        function(tokens)
    return (_status("VmHWM") - before) / 2**20


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-of", choices=("ours", "fair-esm"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    tokens = random_msa(options.rows, options.columns)
    if options.memory_of:
        print(peak_above_weights(options.memory_of, tokens))
        return

    memory = {}
    for name in ("ours", "fair-esm"):
        command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
        memory[name] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    functions = contact_functions(("ours", "fair-esm"))
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    results = {}
    with torch.no_grad():
        for _ in range(options.repeats):
            for name, function in functions.items():
                start = time.perf_counter()
                results[name] = function(tokens)
                seconds[name].append(time.perf_counter() - start)
    ratios = [ours / theirs for ours, theirs in zip(seconds["ours"], seconds["fair-esm"], strict=True)]
    difference = (results["ours"] - results["fair-esm"]).abs().max().item()
    print(f"contacts, {options.rows} rows x {options.columns} columns, float32, {torch.get_num_threads()} threads")
    for name in functions:
        print(f"{name:<10} {statistics.median(seconds[name]):7.1f} s   {memory[name]:6.2f} GB above the weights")
    print(f"ours / fair-esm: time {statistics.median(ratios):.2f} (median of {len(ratios)} pairs, "
          f"{min(ratios):.2f} to {max(ratios):.2f}), memory {memory['ours'] / memory['fair-esm']:.3f}; "
          f"largest difference of a probability {difference:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
