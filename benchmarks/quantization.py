"""Size, time and contacts of a model with int8 weights in its linear layers (torchao), float32 and bfloat16.

    python benchmarks/quantization.py [--alignments FOLDER] [--structures FOLDER] [--output FILE]

Size and time are those of a random model of the published size, loaded from a folder as a user loads it. Contacts are
those of msa-tiny on the first 128 rows of each alignment; structures have the names of the alignments. Requires the
extras test and quantization.
"""

import argparse
import datetime
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchao
import transformers
from side_by_side import make_ours, random_msa
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig
from transformers import AutoModelForMaskedLM, TorchAoConfig

from modeling_msa import MsaConfig, precision, predict_contacts, read_alignment, structure_contacts
from modeling_msa.hub.finding import resolve_model
from modeling_msa.hub.loading import quiet_loading

ROWS, COLUMNS, SEEN = 64, 128, 128
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "int8 weights": {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig())},
    "int8 weights, bfloat16": {
        "dtype": torch.bfloat16,
        "quantization_config": TorchAoConfig(Int8WeightOnlyConfig()),
    },
    "int8 weights and activations": {"quantization_config": TorchAoConfig(Int8DynamicActivationInt8WeightConfig())},
}


def load_all(folder: str | Path) -> dict[str, Any]:
    return {name: AutoModelForMaskedLM.from_pretrained(folder, **how).eval() for name, how in VARIANTS.items()}


def bytes_of(model: torch.nn.Module) -> int:
    """Bytes of all weights; a quantized weight is several plain tensors."""

    def plain(tensor: torch.Tensor) -> Iterable[torch.Tensor]:
        if not hasattr(tensor, "__tensor_flatten__"):
            return [tensor]
        return [part for name in tensor.__tensor_flatten__()[0] for part in plain(getattr(tensor, name))]

    return sum(part.nbytes for weight in model.parameters() for part in plain(weight.data))


def take_turns(models: dict[str, Any], repeats: int) -> dict[str, np.ndarray]:
    """Seconds and processor seconds of each call, (repeats, 2), after one warm-up call each.

    On a busy machine processor time on one thread is more reliable: several threads spin while they wait.
    """
    tokens = random_msa(ROWS, COLUMNS)
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for _ in range(repeats + 1):
        for name, model in models.items():
            start = time.perf_counter(), time.process_time()
            with torch.no_grad():
                model(tokens)
            clocks[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return {name: np.array(seconds[1:]) for name, seconds in clocks.items()}


def of_random_weights(layers: int, repeats: int) -> list[str]:
    """Table of sizes and times, with random weights."""
    with tempfile.TemporaryDirectory() as folder:
        make_ours(MsaConfig(num_hidden_layers=layers)).save_pretrained(folder)
        models = load_all(folder)
        disk = {}
        for name, model in models.items():
            with tempfile.TemporaryDirectory() as saved:
                model.save_pretrained(saved)
                disk[name] = sum(path.stat().st_size for path in Path(saved).glob("*.safetensors"))
    seconds = take_turns(models, repeats)
    lines = [
        "| | on disk | weights in memory | time | / float32 | range | processor time | / float32 | range |",
        f"|{'---|' * 9}",
    ]
    for name, model in models.items():
        cells = [name, f"{disk[name] / 1e6:.0f} MB", f"{bytes_of(model) / 1e6:.0f} MB"]
        for own, full in zip(seconds[name].T, seconds["float32"].T, strict=True):
            ratios = own / full
            cells += [
                f"{np.median(own):.1f} s",
                f"{np.median(ratios):.2f}",
                f"{ratios.min():.2f} to {ratios.max():.2f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def of_contacts(alignments: Path, structures: Path | None) -> list[str]:
    """Table of the differences in msa-tiny's contact maps."""
    models = load_all(resolve_model("msa-tiny"))
    names = [name for name in models if name != "float32"]
    lines = [
        f"| {SEEN} rows of | L | {' | '.join(names)} | P@L/2 of {' / '.join(models)} |",
        f"|---|---|{'---|' * len(names)}---|",
    ]
    for path in sorted(alignments.iterdir()):
        family = read_alignment(path)
        maps = {name: predict_contacts(family, model, rows=SEEN, select="first") for name, model in models.items()}
        differences = {name: np.abs(maps[name].probabilities - maps["float32"].probabilities) for name in names}
        cells = [f"{difference.max():.3f}, {difference.mean():.5f}" for difference in differences.values()]
        known = "no structure"
        structure = structures / f"{path.stem}.pdb" if structures else None
        if structure is not None and structure.is_file():
            contacts = structure_contacts(structure, family)
            known = " / ".join(f"{precision(each, contacts, top='L/2'):.3f}" for each in maps.values())
        lines.append(f"| {path.stem} | {len(maps['float32'].residues)} | {' | '.join(cells)} | {known} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alignments", type=Path)
    parser.add_argument("--structures", type=Path)
    parser.add_argument("--layers", type=int, default=MsaConfig().num_hidden_layers)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "quantization.md")
    options = parser.parse_args()
    quiet_loading()
    versions = f"torch {torch.__version__}, torchao {torchao.__version__}, transformers {transformers.__version__}"
    text = [
        f"# int8 weights\n\nthreads {torch.get_num_threads()}, {versions}, {datetime.date.today()}.\n",
        f"## Size and time\n\nRandom weights, {options.layers} layers, width 768; logits of {ROWS} rows and "
        f"{COLUMNS} columns.\nMedians of {options.repeats} calls, all taking turns; ratios of calls of one turn.\n",
        *of_random_weights(options.layers, options.repeats),
    ]
    if options.alignments:
        text += [
            "\n## Contacts\n\nmsa-tiny; largest and mean absolute difference of probabilities from float32's.\n",
            *of_contacts(options.alignments, options.structures),
        ]
    options.output.write_text("\n".join([*text, ""]), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
