"""Supervised prediction of fitness: embeddings of the model against one-hot features and its own zero-shot scores.

    python benchmarks/supervised_fitness.py [--model msa-tiny] [--output benchmarks/results/supervised_fitness.md] \
        [--picture docs/static/fitness.png]

Any checkpoint can be given, such as a folder that `msa convert esm_msa1b_t12_100M_UR50S` wrote. The data are beside
the repository, in ../shared/data: all single variants of TEM-1 beta-lactamase (Stiffler et al. 2015), and variants of
four sites of GB1 (Wu et al. 2016). Three tables are written:

- folds as in ProteinGym (random, modulo, contiguous; of GB1, whose variants are mostly multiple, random ones alone),
- few labels: 24, 48, 96 and 192, ten draws each,
- fast against exact embeddings of a sample of TEM-1: cosines, and what is fitted on each.

Everything is seeded; a second run gives the same figures, apart from the times.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

from modeling_msa import (
    Alignment,
    FitnessEvaluation,
    MsaForMaskedLM,
    embed_variants,
    evaluate_few,
    evaluate_folds,
    fitness_pipeline,
    fold_numbers,
    load_model,
    read_alignment,
    spearman,
)
from modeling_msa.alignments.variants import parse_variants, read_variants
from modeling_msa.tasks.fitness_evaluation import METRICS

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
ROWS, LABELS, DRAWS = 128, (24, 48, 96, 192), 10
# name: features and regression; None is no regression
METHODS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "zero-shot": (("zero-shot",), None),
    "one-hot, ridge": (("one-hot",), "ridge"),
    "one-hot + zero-shot, ridge": (("one-hot", "zero-shot"), "ridge"),
    "embedding, ridge": (("embedding",), "ridge"),
    "embedding + zero-shot, ridge": (("embedding", "zero-shot"), "ridge"),
    "embedding, GP": (("embedding",), "gp"),
    "embedding + zero-shot, GP": (("embedding", "zero-shot"), "gp"),
    "all three, ridge": (("one-hot", "embedding", "zero-shot"), "ridge"),
    "all three, GP": (("one-hot", "embedding", "zero-shot"), "gp"),
}


@dataclass
class Data:
    """Variants of one protein with their values, and its family, of which the model sees `ROWS` diverse rows."""

    name: str
    family: Alignment
    variants: list[str]
    values: np.ndarray
    offset: int
    schemes: tuple[str, ...]


def read(name: str, alignment: str, table: str, column: str, offset: int, schemes: tuple[str, ...]) -> Data:
    family = read_alignment(DATA / alignment)
    rows = read_variants(DATA / table, score_column=column)
    covered = [row for row in rows if all(family.residue_columns[n - 1 - offset] >= 0 for n in numbers(row[0]))]
    values = np.array([value for _, value, _ in covered])
    return Data(name, family, [text for text, _, _ in covered], values, offset, schemes)


def numbers(variant: str) -> list[int]:
    return [int(each[1:-1]) for each in variant.split(":")]


class Blocks:
    """Features of all variants, computed once; any choice of them is a matrix."""

    def __init__(self, data: Data, model: MsaForMaskedLM) -> None:
        self.data, self.model, self.seconds, self.blocks = data, model, {}, {}
        for name in ("one-hot", "embedding", "zero-shot"):
            start = time.perf_counter()
            pipeline = self.pipeline((name,), "ridge")
            self.blocks[name] = pipeline[0].fit_transform(data.variants)
            self.seconds[name] = time.perf_counter() - start

    def pipeline(self, features: Sequence[str], kernel: str):
        """Make the pipeline of some features."""
        return fitness_pipeline(
            self.data.family, self.model, features=features, kernel=kernel, rows=ROWS, offset=self.data.offset
        )

    def matrix(self, features: Sequence[str]):
        """Put the blocks of some features side by side."""
        from scipy import sparse

        parts = [self.blocks[name] for name in ("one-hot", "embedding", "zero-shot") if name in features]
        return sparse.hstack(parts, format="csr") if "one-hot" in features else np.concatenate(parts, axis=1)


def evaluate(data: Data, blocks: Blocks) -> dict[str, list[FitnessEvaluation]]:
    parsed = parse_variants(data.variants, data.family, data.offset)
    results = {}
    for method, (features, kernel) in METHODS.items():
        matrix = blocks.matrix(features)
        regressor = None if kernel is None else blocks.pipeline(features, kernel)[1]
        start = time.perf_counter()
        results[method] = [
            *(
                evaluate_folds(regressor, matrix, data.values, fold_numbers(parsed, each), each)
                for each in data.schemes
            ),
            *(evaluate_few(regressor, matrix, data.values, count, DRAWS) for count in LABELS),
        ]
        shown = ", ".join(f"{each.scheme} {each.mean('Spearman'):.3f}" for each in results[method])
        print(f"{data.name}: {method}: {shown} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)
    return results


def cell(evaluation: FitnessEvaluation, metric: str) -> str:
    mean, half = evaluation.mean(metric), evaluation.half_width(metric)
    return "" if np.isnan(mean) else f"{mean:.3f} ± {half:.3f}"


def fold_table(data: Data, results: dict[str, list[FitnessEvaluation]]) -> list[str]:
    lines = [f"| folds | method | {' | '.join(METRICS)} | Spearman, pooled |", "|---" * (len(METRICS) + 3) + "|"]
    for number, scheme in enumerate(data.schemes):
        for method, found in results.items():
            each = found[number]
            cells = " | ".join(cell(each, metric) for metric in METRICS)
            lines.append(f"| {scheme} | {method} | {cells} | {each.pooled['Spearman']:.3f} |")
    return lines


def few_table(data: Data, results: dict[str, list[FitnessEvaluation]]) -> list[str]:
    lines = [f"| method | {' | '.join(f'{count} labels' for count in LABELS)} |", "|---" * (len(LABELS) + 1) + "|"]
    for method, found in results.items():
        lines.append(f"| {method} | {' | '.join(cell(each, 'Spearman') for each in found[len(data.schemes) :])} |")
    return lines


def compare_modes(data: Data, model: MsaForMaskedLM, count: int) -> list[str]:
    """Cosines of fast and exact embeddings, raw and about their mean, and what a ridge makes of each."""
    random = np.random.default_rng(0)
    some = np.sort(random.choice(len(data.variants), min(count, len(data.variants)), replace=False))
    variants, values = [data.variants[k] for k in some], data.values[some]
    layers = (0, model.config.num_hidden_layers // 2, model.config.num_hidden_layers)
    found, seconds = {}, {}
    for mode in ("exact", "fast"):
        start = time.perf_counter()
        options = {"which": "both", "layers": layers, "mode": mode, "rows": ROWS, "offset": data.offset}
        found[mode] = embed_variants(data.family, variants, model, **options).arrays
        seconds[mode] = time.perf_counter() - start
    folds = fold_numbers(parse_variants(variants, data.family, data.offset), "random")
    regressor = fitness_pipeline(data.family, model, features=["embedding"])[1]
    lines = [
        f"{len(variants)} variants; exact {seconds['exact']:.0f} s, fast {seconds['fast']:.1f} s.",
        "",
        "| layer | mean of | lowest cosine | cosine about the mean, median (lowest) | Spearman, exact | fast | "
        "between them |",
        "|---|---|---|---|---|---|---|",
    ]
    width = model.config.hidden_size
    for layer in layers:
        for part, what in ((slice(0, width), "all residues"), (slice(width, None), "mutated residues")):
            exact, fast = (found[mode][layer][:, part].astype(np.float64) for mode in ("exact", "fast"))
            raw = cosines(exact, fast).min()
            centred = cosines(exact - exact.mean(0), fast - fast.mean(0))
            about = f"{np.median(centred):.4f} ({centred.min():.4f})"
            fits = [evaluate_folds(regressor, each, values, folds, "random") for each in (exact, fast)]
            both = spearman(*(each.predictions for each in fits))
            shown = " | ".join(f"{each.pooled['Spearman']:.3f}" for each in fits)
            lines.append(f"| {layer} | {what} | {raw:.4f} | {about} | {shown} | {both:.3f} |")
    return lines


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def draw(path: Path, tables: list[tuple[Data, dict[str, list[FitnessEvaluation]]]], model: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 1 + len(tables), figsize=(5 + 4 * len(tables), 4), layout="constrained")
    data, results = tables[0]
    colours = pyplot.get_cmap("tab10").colors
    for k, (method, found) in enumerate(results.items()):
        places = np.arange(len(data.schemes)) + 0.09 * (k - (len(results) - 1) / 2)
        folds = found[: len(data.schemes)]
        heights, errors = ([value(each) for each in folds] for value in (_mean, _half))
        axes[0].bar(places, heights, 0.08, yerr=errors, color=colours[k], label=method, error_kw={"lw": 0.8})
    axes[0].set(xticks=range(len(data.schemes)), xticklabels=data.schemes, title=f"{data.name}: five folds")
    for axis, (data, results) in zip(axes[1:], tables, strict=True):
        for k, found in enumerate(results.values()):
            few = found[len(data.schemes) :]
            axis.errorbar(
                np.array(LABELS) * 1.02 ** (k - 4),
                list(map(_mean, few)),
                list(map(_half, few)),
                color=colours[k],
                lw=1,
            )
        axis.set(xscale="log", xticks=LABELS, xticklabels=LABELS, xlabel="labels", title=f"{data.name}: few labels")
        axis.minorticks_off()
    axes[0].set_ylabel(f"Spearman ({model})")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def _mean(evaluation: FitnessEvaluation) -> float:
    return evaluation.mean("Spearman")


def _half(evaluation: FitnessEvaluation) -> float:
    return evaluation.half_width("Spearman")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="msa-small")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "supervised_fitness.md")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--exact", type=int, default=300, help="variants to embed exactly")
    parser.add_argument("--most", type=int, help="leave out variants, at random, beyond this number")
    options = parser.parse_args()
    model = load_model(options.model, cls=MsaForMaskedLM)
    schemes = ("random", "modulo", "contiguous")
    tem = read("TEM-1", "fitness/blat_ecolx.a2m", "fitness/blat_ecolx_singles.csv", "log_fitness", 23, schemes)
    gb1 = read("GB1", "msa/gb1.a2m", "variants/gb1_four_site.csv", "fitness", 0, ("random",))
    name = Path(options.model).name
    lines = [
        "# Supervised fitness",
        "",
        f"`python benchmarks/supervised_fitness.py --model {name}`, {date.today().isoformat()}, "
        f"{torch.get_num_threads()} CPU thread(s) of a shared machine. {ROWS} rows (diverse), embeddings of "
        "the last layer (all residues and mutated ones), zero-shot scores by masked marginals, both in fast mode. "
        "Mean ± half of the 95 % interval over folds or draws (Student's t). A cell is empty where a metric is not "
        "defined: one-hot features say nothing about residues that were never mutated, so all predictions are equal.",
    ]
    tables = []
    for data in (tem, gb1):
        keep = np.random.default_rng(0).permutation(len(data.variants))[: options.most]
        data.variants, data.values = [data.variants[k] for k in np.sort(keep)], data.values[np.sort(keep)]
        blocks = Blocks(data, model)
        results = evaluate(data, blocks)
        tables.append((data, results))
        taken = f"embeddings {blocks.seconds['embedding']:.0f} s, zero-shot {blocks.seconds['zero-shot']:.0f} s"
        lines += ["", f"## {data.name}: {len(data.variants):,} variants ({taken})", "", *fold_table(data, results)]
        lines += ["", "Few labels, tested on a fifth of all variants, Spearman:", "", *few_table(data, results)]
    lines += ["", "## TEM-1: fast against exact embeddings", "", *compare_modes(tem, model, options.exact), ""]
    options.output.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    if options.picture is not None:
        draw(options.picture, tables, name)


if __name__ == "__main__":
    main()
