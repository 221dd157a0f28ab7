"""Contacts by the categorical Jacobian beside the contact regression and mutual information, on real families.

    python benchmarks/jacobian.py FOLDER [FOLDER ...] [--exact 5] [--output benchmarks/results/jacobian.md]

Each FOLDER has alignments (.a3m) and structures (.pdb) of the same names. All methods see the same 128 diverse
rows, and only columns with a residue of the query. Mutual information is that of the package with its defaults. The
exact Jacobian requires 20 passes of all rows for each residue: it is computed for the families with the shortest
queries only.
"""

import argparse
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from real_families import of_scores

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    categorical_jacobian,
    load_model,
    mutual_information,
    precision,
    predict_contacts,
    prepare_alignment,
    read_alignment,
    spearman,
    structure_contacts,
)
from modeling_msa.hub.loading import quiet_loading
from modeling_msa.tasks.contacts import PairMap

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("regression", "Jacobian", "mutual information")
EXACT = "exact Jacobian"
FIGURES = ("L", "L/2")


def methods(model: MsaForMaskedLM) -> dict[str, Callable[[Alignment], PairMap]]:
    """The methods to compare; each is called with the family, cut to the rows to use."""
    return {
        METHODS[0]: lambda family: predict_contacts(family, model, rows=family.depth),
        METHODS[1]: lambda family: categorical_jacobian(family, model, rows=family.depth),
        METHODS[2]: of_scores(mutual_information),
        EXACT: lambda family: categorical_jacobian(family, model, rows=family.depth, mode="exact"),
    }


def interval(differences: np.ndarray, resamples: int = 10_000) -> str:
    """Mean and 95 % bootstrap interval over families."""
    drawn = np.random.default_rng(0).choice(differences, (resamples, len(differences))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", default="msa-tiny", help="folder or Hub id (default: msa-tiny)")
    parser.add_argument("--rows", type=int, default=128, help="maximum number of rows (default: 128)")
    parser.add_argument("--exact", type=int, default=5, help="number of families with the exact Jacobian (default: 5)")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "jacobian.md")
    arguments = parser.parse_args()
    files = {}
    for folder in arguments.folders:
        files |= {path.stem: (path, path.with_suffix(".pdb")) for path in sorted(folder.glob("*.a3m"))}
    quiet_loading()
    model = load_model(arguments.model, cls=MsaForMaskedLM)
    compared = methods(model)
    families = {
        name: (whole := read_alignment(alignment), prepare_alignment(whole, arguments.rows), structure)
        for name, (alignment, structure) in files.items()
    }
    shortest = sorted(families, key=lambda name: families[name][1].length)[: arguments.exact]
    values: dict[str, dict[str, list[float]]] = {}
    seconds = dict.fromkeys(compared, 0.0)
    agreement = {}
    for name, (whole, family, structure) in families.items():
        contacts = structure_contacts(structure, whole)
        maps = {}
        for method, run in compared.items():
            if method == EXACT and name not in shortest:
                continue
            start = time.perf_counter()
            maps[method] = run(family)
            seconds[method] += time.perf_counter() - start
        values[name] = {
            method: [precision(each, contacts, top=top) for top in FIGURES] for method, each in maps.items()
        }
        if name in shortest:
            pairs = np.triu_indices(family.length, 6)
            agreement[name] = spearman(maps["Jacobian"].values[pairs], maps[EXACT].values[pairs])
        print(name, family.depth, family.length, values[name], f"{sum(seconds.values()):.0f} s", flush=True)
    write(arguments, families, values, shortest, agreement, seconds)


def write(arguments, families, values, shortest, agreement, seconds) -> None:
    heads = [f"{method}, P@{top}" for method in METHODS for top in FIGURES]
    lines = [row(["family", "rows", "residues", *heads]), "|---" * (3 + len(heads)) + "|"]
    for name, (_, family, _) in families.items():
        cells = [f"{value:.2f}" for method in METHODS for value in values[name][method]]
        lines.append(row([name, str(family.depth), str(family.length), *cells]))
    folders = {name: structure.parent.name for name, (_, _, structure) in families.items()}
    of_each = {folder: [name for name in families if folders[name] == folder] for folder in folders.values()}
    for title, names in [*of_each.items(), ("all", list(families))] if len(of_each) > 1 else of_each.items():
        means = np.mean([[values[name][method] for method in METHODS] for name in names], axis=0)
        lines.append(row([f"mean of {len(names)} ({title})", "", "", *(f"**{value:.3f}**" for value in means.flat)]))
    table = {method: np.array([each[method] for each in values.values()]) for method in METHODS}
    differences = chr(10).join(
        f"- to {other}: P@L {interval((table['Jacobian'] - table[other])[:, 0])}, "
        f"P@L/2 {interval((table['Jacobian'] - table[other])[:, 1])}"
        for other in ("regression", "mutual information")
    )
    exact = [row(["family", "fast, P@L", "exact, P@L", "fast, P@L/2", "exact, P@L/2", "Spearman"]), "|---" * 6 + "|"]
    for name in shortest:
        fast, slow = values[name]["Jacobian"], values[name][EXACT]
        cells = [f"{value:.2f}" for pair in zip(fast, slow, strict=True) for value in pair]
        exact.append(row([name, *cells, f"{agreement[name]:.3f}"]))
    times = ", ".join(f"{method} {seconds[method]:.0f}" for method in METHODS)
    text = f"""# Contacts by the categorical Jacobian

Written by `benchmarks/jacobian.py` on {date.today()}: {arguments.model}, {arguments.rows} diverse rows at most,
torch {torch.__version__}, {torch.get_num_threads()} CPU thread(s) of a machine that other programs used too.

P@L and P@L/2 of pairs at least 6 apart, in Pfam domains of known structure. All methods see the same rows. The
regression is the checkpoint's. The Jacobian is in fast mode and uses no regression; mutual information is
APC-corrected and uses no model. Seconds for all families: {times}.

Difference of the Jacobian, mean over all families and 95 % bootstrap interval:

{differences}

{chr(10).join(lines)}
"""
    if shortest:
        text += f"""
Fast and exact Jacobians of the {len(shortest)} shortest families, and Spearman's correlation of their scores over
pairs at least 6 apart ({seconds[EXACT]:.0f} seconds for the exact ones):

{chr(10).join(exact)}
"""
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
