"""Activation memory of a training step compared with fair-esm's modules, at full size and the same shape.

    python benchmarks/training_memory.py [--shapes 16x64 16x128 32x128] [--layers 12]
    python benchmarks/training_memory.py --shapes 128x128 --layers 1 2 --extrapolate 12

A step is the forward and backward pass of masked language modelling with dropout, into existing gradient buffers. Its
activation memory is measured in two ways, both above weights and gradients: the peak of torch's allocator, which is
exact, and the peak resident set, which includes the libraries' buffers. Every step runs in a process of its own.
Columns include <cls>.

Memory is linear in the number of layers: from two depths, `--extrapolate` computes that of a deeper model whose shape
does not fit into memory.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import esm
import torch
from side_by_side import in_own_process, peak_allocated, peak_resident
from torch.nn import functional as F

from modeling_msa import MsaConfig, MsaForMaskedLM
from modeling_msa.hub.fair_esm import fair_esm_args

IMPLEMENTATIONS = {
    "fair-esm": "fair-esm's modules",
    "plain": "ours, sdpa",
    "checkpointed": "ours, sdpa, gradient checkpointing",
}


def training_model(name: str, config: MsaConfig) -> torch.nn.Module:
    """A model to train, with random weights."""
    torch.manual_seed(0)
    if name == "fair-esm":
        alphabet = esm.data.Alphabet.from_architecture("msa_transformer")
        return esm.MSATransformer(fair_esm_args(config), alphabet).train()
    model = MsaForMaskedLM._from_config(config, attn_implementation="sdpa").train()
    if name == "checkpointed":
        model.gradient_checkpointing_enable()
    return model


def training_step(
    name: str, config: MsaConfig, rows: int, columns: int, model: torch.nn.Module | None = None
) -> Callable[[], None]:
    """A function that runs forward and backward on a random masked MSA, into existing gradients."""
    torch.manual_seed(0)
    tokens = torch.randint(4, 24, (1, rows, columns))
    labels = tokens.masked_fill(torch.rand(tokens.shape) >= 0.15, -100)
    tokens = tokens.masked_fill(labels != -100, config.mask_token_id)
    tokens[:, :, 0], labels[:, :, 0] = config.bos_token_id, -100
    model = model or training_model(name, config)
    device = next(model.parameters()).device
    tokens, labels = tokens.to(device), labels.to(device)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.0)

    def step() -> None:
        if name == "fair-esm":
            loss = F.cross_entropy(model(tokens)["logits"].flatten(0, 2), labels.flatten())
        else:
            loss = model(tokens, labels=labels).loss
        loss.backward()

    return step


def measure(name: str, layers: int, rows: int, columns: int) -> dict[str, float]:
    """Peak bytes above weights and gradients, by the allocator and resident, and the seconds of the step."""
    step = training_step(name, MsaConfig(num_hidden_layers=layers), rows, columns)
    training_step(name, MsaConfig(num_hidden_layers=1), 2, 8)()  # warms up torch
    result: dict[str, float] = {}

    def watched() -> None:
        start = time.perf_counter()
        result.update(resident=peak_resident(step), seconds=time.perf_counter() - start)

    return {"allocated": peak_allocated(watched), **result}


def measure_alone(name: str, layers: int, rows: int, columns: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    arguments = ("--measure", name, "--layers", layers, "--shapes", f"{rows}x{columns}")
    # return freed memory to the system at once, so that the resident set follows the memory in use
    environment = os.environ | {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    return json.loads(in_own_process(__file__, arguments, environment))


def report(title: str, results: dict[str, dict[str, float]]) -> None:
    """Print the results of one shape; extrapolated ones have no seconds."""
    print(title)
    reference = results["fair-esm"]
    for name, result in results.items():
        ratios = [result[kind] / reference[kind] for kind in ("allocated", "resident")]
        took = f"   {result['seconds']:6.1f} s" if "seconds" in result else ""
        print(f"  {IMPLEMENTATIONS[name]:<36} allocated {result['allocated'] / 2**30:6.2f} GiB ({ratios[0]:.3f})   "
              f"resident {result['resident'] / 2**30:6.2f} GiB ({ratios[1]:.3f}){took}", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=["16x64", "16x128", "32x128"], metavar="ROWSxCOLUMNS")
    parser.add_argument("--layers", nargs="+", type=int, default=[12])
    parser.add_argument(
        "--extrapolate", type=int, metavar="LAYERS", help="extrapolate from the first and last of --layers"
    )
    parser.add_argument("--implementations", nargs="+", default=["fair-esm", "checkpointed"], choices=IMPLEMENTATIONS)
    parser.add_argument("--measure", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes]
    if options.measure:
        print(json.dumps(measure(options.measure, options.layers[0], *shapes[0])))
        return
    if options.extrapolate and len(set(options.layers)) < 2:
        parser.error("--extrapolate requires two different numbers of --layers")
    print(f"activation memory of a training step, float32, width 768, {torch.get_num_threads()} threads; "
          "in brackets: relative to fair-esm")  # fmt: skip
    for rows, columns in shapes:
        shape = f"{rows} rows x {columns} columns = {rows * columns} tokens"
        by_depth = {}
        for layers in options.layers:
            by_depth[layers] = {name: measure_alone(name, layers, rows, columns) for name in options.implementations}
            report(f"{shape}, {layers} layers", by_depth[layers])
        if options.extrapolate:
            few, many = options.layers[0], options.layers[-1]
            reach = (options.extrapolate - few) / (many - few)
            line = {
                name: {
                    kind: by_depth[few][name][kind] + reach * (by_depth[many][name][kind] - by_depth[few][name][kind])
                    for kind in ("allocated", "resident")
                }
                for name in options.implementations
            }
            report(f"{shape}, {options.extrapolate} layers, extrapolated", line)


if __name__ == "__main__":
    main()
