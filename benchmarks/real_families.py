"""Contact precision on families of known structure: mutual information, DCA and models, on the same rows.

    python benchmarks/real_families.py FOLDER [STRUCTURES] --model msa-small [--model ...] [--rows 16,64,128] [--dca]

FOLDER has alignments, and structures of the same names up to the extension (1prw.a3m, 1prw.pdb) lie there too or in
STRUCTURES. All methods see the same rows, and only columns with a residue of the query. Prints two tables in Markdown,
or writes them (--output): precision with 95 % bootstrap intervals over families, and how often pairs touch that a
model gives a probability of 0.5 or more.
"""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
from scipy.stats import bootstrap

from modeling_msa import (
    Alignment,
    ContactMap,
    direct_coupling_analysis,
    load_model,
    mutual_information,
    precision,
    predict_contacts,
    read_alignment,
    select_rows,
    structure_contacts,
)
from modeling_msa._ranges import parse_ranges
from modeling_msa.hub.loading import quiet_loading

FIGURES = {"P@L/2": {"top": "L/2"}, "P@L": {"top": "L"}, "long P@L": {"top": "L", "min_separation": 24}}
STRUCTURES = (".pdb", ".ent", ".cif", ".pdb.gz", ".ent.gz", ".cif.gz")
ALIGNMENTS = (".a3m", ".a2m", ".fasta", ".sto")
Method = Callable[[Alignment], ContactMap]


def pairs_of_files(alignments: Path, structures: Path) -> dict[str, tuple[Path, Path]]:
    """Alignment and structure of each family that has both, by name."""
    known = {path.name.split(".")[0]: path for path in sorted(structures.iterdir()) if path.name.endswith(STRUCTURES)}
    families = {path.name.split(".")[0]: path for path in sorted(alignments.iterdir()) if path.suffix in ALIGNMENTS}
    return {name: (path, known[name]) for name, path in families.items() if name in known}


def of_scores(function: Callable[[np.ndarray], np.ndarray]) -> Method:
    """Make a method of a function from an alignment's array to scores."""

    def method(family: Alignment) -> ContactMap:
        scores = function(family.array)
        return ContactMap(family.names[0], family.query, family.column_residues, scores, family.depth)

    return method


def methods(models: list[str], dca: bool, device: str) -> dict[str, Method]:
    """The methods to compare, each of a family that is cut to the rows to use."""
    made = {"mutual information": of_scores(mutual_information)}
    if dca:
        made["pseudo-likelihood DCA"] = of_scores(direct_coupling_analysis)
    for folder in models:
        model = load_model(folder, device)
        made[Path(folder).name] = lambda family, model=model: predict_contacts(family, model, rows=family.depth)
    return made


def calibration(found: ContactMap, contacts: np.ndarray) -> np.ndarray:
    """Number, sum of probabilities and number in contact of a map's probable pairs of known state."""
    index = found.residues - 1
    pairs = found.top()
    known = contacts[np.ix_(index, index)][pairs[:, 0], pairs[:, 1]]
    values = found.values[pairs[:, 0], pairs[:, 1]].astype(np.float64)
    sure = (values >= 0.5) & (known >= 0)
    return np.array([sure.sum(), values[sure].sum(), known[sure].sum()])


def interval(values: np.ndarray) -> str:
    """Mean of the families and its 95 % percentile bootstrap interval."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return f"{values.mean():.3f}"
    low, high = bootstrap((values,), np.mean, method="percentile", rng=0).confidence_interval
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("alignments", type=Path)
    parser.add_argument("structures", type=Path, nargs="?")
    parser.add_argument("--model", action="append", default=[], help="folder or Hub id; repeatable")
    parser.add_argument("--rows", default="128", help="numbers of rows, such as 16,64,128 (default: 128)")
    parser.add_argument("--select", choices=("first", "diverse", "random", "weighted"), default="diverse")
    parser.add_argument("--dca", action="store_true", help="also run pseudo-likelihood DCA, which takes minutes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, help="write the tables here instead of printing them")
    options = parser.parse_args()
    structures = options.structures or options.alignments
    files = pairs_of_files(options.alignments, structures)
    if not files:
        parser.error(f"no alignment in {options.alignments} has a structure of the same name in {structures}")
    quiet_loading()
    compared = methods(options.model, options.dca, options.device)
    numbers = parse_ranges(options.rows, "--rows")
    figures = {(rows, name): np.full((len(files), len(FIGURES)), np.nan) for rows in numbers for name in compared}
    sure = {key: np.zeros(3) for key in figures}
    for k, (name, (alignment, structure)) in enumerate(files.items()):
        whole = read_alignment(alignment)
        contacts = structure_contacts(structure, whole)
        for rows in numbers:
            family, cells = select_rows(whole, rows, options.select), []
            for label, method in compared.items():
                start = time.perf_counter()
                found = method(family)
                figures[rows, label][k] = [precision(found, contacts, **how) for how in FIGURES.values()]
                sure[rows, label] += calibration(found, contacts)
                cells.append(f"{label} {figures[rows, label][k, 0]:.3f} ({time.perf_counter() - start:.0f} s)")
            print(f"{name}, {family.depth} of {whole.depth} rows: {', '.join(cells)}", file=sys.stderr, flush=True)
    page = table(figures, sure, list(compared), len(files), options)
    if options.output is None:
        print(page)
    else:
        options.output.write_text(page + "\n")


def table(figures: dict, sure: dict, labels: list[str], count: int, options: argparse.Namespace) -> str:
    """The two tables."""
    command = f"python benchmarks/real_families.py {options.alignments.name}"
    lines = ["# Contacts of real families", ""]
    lines += [
        f"`{command}`, {date.today()}: {count} families, {options.select} rows, pairs 6 apart or more. Means and",
        "95 % bootstrap intervals over families.",
        "",
    ]
    lines += [f"| rows | method | {' | '.join(FIGURES)} |", f"|---|---|{'---|' * len(FIGURES)}"]
    for (rows, label), values in figures.items():
        lines.append(f"| {rows:,} | {label} | {' | '.join(map(interval, values.T))} |")
    lines += [
        "",
        "Pairs with a probability of at least 0.5:",
        "",
        "| rows | model | pairs | mean probability | in contact |",
    ]
    lines += ["|---|---|---|---|---|"]
    for (rows, label), (pairs, total, true) in sure.items():
        if label in labels[labels.index("mutual information") + 1 + options.dca :]:
            shares = f"{total / pairs:.2f} | {true / pairs:.2f}" if pairs else " | "
            lines.append(f"| {rows:,} | {label} | {pairs:.0f} | {shares} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
