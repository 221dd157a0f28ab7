"""Contact precision on families of known structure: mutual information, DCA and models, all in one run.

    python benchmarks/real_families.py ALIGNMENTS STRUCTURES --model FOLDER [--model FOLDER ...] [--dca]

ALIGNMENTS and STRUCTURES are folders whose files have the same names up to the extension (1prw.a3m, 1prw.pdb). All
methods see the same rows, and only columns with a residue of the query. The baselines use the defaults of
the package; --theta and --gaps change those of mutual information.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from modeling_msa import (
    Alignment,
    ContactMap,
    direct_coupling_analysis,
    load_model,
    mutual_information,
    neff,
    precision,
    predict_contacts,
    prepare_alignment,
    read_alignment,
    structure_contacts,
)
from modeling_msa.hub.loading import quiet_loading

FIGURES = {  # short heads of columns, under the method's name
    "L/2": {"top": "L/2"},
    "L": {"top": "L"},
    "long L/2": {"top": "L/2", "min_separation": 24},
    "long L": {"top": "L", "min_separation": 24},
}
STRUCTURES = (".pdb", ".ent", ".cif", ".pdb.gz", ".ent.gz", ".cif.gz")


def pairs_of_files(alignments: Path, structures: Path) -> dict[str, tuple[Path, Path]]:
    """Alignment and structure of each family that has both, by name."""
    known = {path.name.split(".")[0]: path for path in sorted(structures.iterdir()) if path.name.endswith(STRUCTURES)}
    families = {path.name.split(".")[0]: path for path in sorted(alignments.iterdir()) if path.is_file()}
    return {name: (path, known[name]) for name, path in families.items() if name in known}


def of_scores(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Alignment], ContactMap]:
    """Make a method of a function from an alignment's array to scores."""

    def method(family: Alignment) -> ContactMap:
        scores = function(family.array)
        return ContactMap(family.names[0], family.query, family.column_residues, scores, family.depth)

    return method


def methods(options: argparse.Namespace) -> dict[str, Callable[[Alignment], ContactMap]]:
    """The methods to compare; each is called with the family, cut to the rows to use."""
    made = {"MI": of_scores(lambda array: mutual_information(array, gaps=options.gaps, theta=options.theta))}
    if options.dca:
        made["DCA"] = of_scores(direct_coupling_analysis)
    for folder in options.model:
        model = load_model(folder, options.device)
        made[Path(folder).name] = lambda family, model=model: predict_contacts(family, model, rows=family.depth)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("alignments", type=Path)
    parser.add_argument("structures", type=Path)
    parser.add_argument("--model", action="append", default=[], help="folder or Hub id; repeatable")
    parser.add_argument("--rows", type=int, default=1024, help="maximum number of rows (default: 1024)")
    parser.add_argument("--select", choices=("first", "diverse", "random", "weighted"), default="first")
    parser.add_argument("--dca", action="store_true", help="also run pseudo-likelihood DCA, which takes minutes")
    parser.add_argument("--gaps", action="store_true", help="mutual information with the gap as a 21st state")
    parser.add_argument("--theta", type=float, help="mutual information with sequence weights")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    files = pairs_of_files(options.alignments, options.structures)
    if not files:
        parser.error(f"no alignment in {options.alignments} has a structure of the same name in {options.structures}")
    quiet_loading()
    compared = methods(options)
    widths = [max(len(figure), 5) + 2 for figure in FIGURES]
    print(f"precision of contacts, |i-j| >= 6 (long: >= 24); {options.select} {options.rows} rows at most")
    print(" " * 32 + "".join(f"| {name[: sum(widths) - 2]:<{sum(widths) - 1}}" for name in compared))
    heads = "".join(f"{figure:>{width}}" for figure, width in zip(FIGURES, widths, strict=True))
    print(f"{'family':<12}{'rows':>6}{'length':>7}{'Neff':>6} " + f"|{heads}" * len(compared))
    table = []
    seconds = dict.fromkeys(compared, 0.0)
    for name, (alignment, structure) in files.items():
        whole = read_alignment(alignment)
        contacts = structure_contacts(structure, whole)
        family = prepare_alignment(whole, options.rows, options.select)
        row = []
        for label, method in compared.items():
            start = time.perf_counter()
            scores = method(family)
            seconds[label] += time.perf_counter() - start
            row.append([precision(scores, contacts, **how) for how in FIGURES.values()])
        table.append(row)
        sizes = f"{name[:11]:<12}{family.depth:>6}{family.length:>7}{neff(family.array):>6.0f} "
        print(sizes + _cells(row, widths), flush=True)
    print(f"{'mean':<32}" + _cells(np.nanmean(np.array(table), axis=0), widths))
    print("seconds: " + ", ".join(f"{label} {value:.1f}" for label, value in seconds.items()))


def _cells(row: list[list[float]] | np.ndarray, widths: list[int]) -> str:
    return "".join(
        "|" + "".join(f"{value:>{width}.3f}" for value, width in zip(values, widths, strict=True)) for values in row
    )


if __name__ == "__main__":
    main()
