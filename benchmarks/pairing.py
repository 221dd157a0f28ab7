"""Share of right pairs by method where the pairing is known: halves of one domain, the second one's rows shuffled.

    python benchmarks/pairing.py FAMILY [FAMILY ...] [--model MODEL] [--output benchmarks/results/pairing.md]

Of each family only rows with 80 % coverage, less than 90 % identical, are used. Species are those of the headers, if
at least half of the rows have one; otherwise each --group rows that follow each other in random order are called a
species. Halves of one protein share their history completely, so that they are easier to pair than two proteins.
"""

import argparse
import sys
import time
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import torch

from modeling_msa import Alignment, MsaForMaskedLM, filter_rows, load_model, pair_alignments, read_alignment
from modeling_msa.alignments.species import shared_species
from modeling_msa.hub.loading import quiet_loading

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
import diffpalm  # noqa: E402

METHODS = {
    "rank": {"method": "rank"},
    "model, 1 round": {"method": "model", "rounds": 1},
    "model, 5 rounds": {"method": "model", "rounds": 5},
}


def species_of(family: Alignment, group: int, random: np.random.Generator) -> tuple[list[str | None], str]:
    """Species of each row but the query's, and where they are from."""
    try:
        found = shared_species(family, family).of_rows[0]
    except ValueError:
        found = []
    if sum(each is not None for each in found) > family.depth / 2:
        return [None, *found[1:]], "headers"
    dealt = random.permutation(family.depth - 1) // group
    return [None, *map(str, dealt)], f"groups of {group}"


def halves(
    family: Alignment, group: int, most: int, singles: int, seed: int
) -> tuple[Alignment, Alignment, dict[str, str], str]:
    """The two halves of at most `most` rows of species with several, and `singles` of those with one; the species."""
    random = np.random.default_rng(seed)
    species, kind = species_of(family, group, random)
    counts, chosen, number = Counter(species), [0], Counter()
    order = [int(row) for row in 1 + random.permutation(family.depth - 1) if species[row] is not None]
    for name in dict.fromkeys(species[row] for row in order):
        rows = [row for row in order if species[row] == name]
        is_single = counts[name] == 1
        if number[is_single] + len(rows) <= (singles if is_single else most):
            chosen += rows
            number[is_single] += len(rows)
    shuffled = [0, *random.permutation(chosen[1:]).tolist()]
    cut = family.length // 2
    names = [f"row{row}" for row in range(family.depth)]
    a = Alignment.from_sequences([family.sequences[k][:cut] for k in chosen], [names[k] for k in chosen])
    b = Alignment.from_sequences([family.sequences[k][cut:] for k in shuffled], [names[k] for k in shuffled])
    return a, b, {names[row]: str(species[row]) for row in chosen[1:]}, kind


def by_diffpalm(model: MsaForMaskedLM, a: Alignment, b: Alignment, species: dict[str, str], steps: int) -> float:
    """Share of right pairs of the example's gradient descent, among rows of species with several."""
    groups = shared_species(a, b, species).groups.values()
    known = [(0, 0), *((x[0], y[0]) for x, y in groups if len(x) == 1)][:64]
    several = [(x, y) for x, y in groups if len(x) > 1]
    tokens = [diffpalm.MsaTokenizer()(each, return_tensors="pt", verbose=False)["input_ids"][0] for each in (a, b)]
    rows = [[row for group in several for row in group[k]] for k in (0, 1)]
    context = torch.stack([torch.cat([tokens[0][i], tokens[1][j, 1:]]) for i, j in known])
    inputs = [each[own, 1:] for each, own in zip(tokens, rows, strict=True)]
    partners, _ = diffpalm.optimise(model, *inputs, [len(x) for x, _ in several], context, steps)
    return float(np.mean([a.names[rows[0][k]] == b.names[row] for k, row in zip(partners, rows[1], strict=True)]))


def measure(model: MsaForMaskedLM, family: Alignment, arguments: argparse.Namespace, singles: int, seed: int) -> dict:
    a, b, species, kind = halves(family, arguments.group, arguments.rows, singles, seed)
    sizes = Counter(species.values())
    several = sum(size for size in sizes.values() if size > 1)
    found = {"kind": kind, "several": several, "known": len(species) - several}
    found["chance"] = sum(size > 1 for size in sizes.values()) / several
    for name, options in METHODS.items():
        start = time.perf_counter()
        result = pair_alignments(a, b, model, species=species, seed=seed, **options)
        asked = [k for k, (x, _) in enumerate(result.names) if sizes[species.get(x, "")] > 1]
        right = np.array([x == y for x, y in (result.names[k] for k in asked)])
        found[name], found[f"{name}, pairs"] = float(right.mean()), len(asked)
        found[f"{name}, seconds"] = time.perf_counter() - start
        if options["method"] == "model":
            sure = np.argsort(-np.nan_to_num(result.margin[asked]), kind="stable")[: max(1, len(asked) // 4)]
            found[f"{name}, sure"] = float(right[sure].mean())
    if arguments.diffpalm and seed == 0:
        start = time.perf_counter()
        found["DiffPALM"] = by_diffpalm(model, a, b, species, arguments.diffpalm)
        found["DiffPALM, seconds"] = time.perf_counter() - start
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="+", type=Path)
    parser.add_argument("--model", default="msa-tiny", help="folder or Hub id (default: msa-tiny)")
    parser.add_argument("--rows", type=int, default=120, help="rows of species with several (default: 120)")
    parser.add_argument("--singles", type=int, default=100, help="species with one row, if known (default: 100)")
    parser.add_argument("--group", type=int, default=4, help="rows of an artificial species (default: 4)")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default: 3)")
    parser.add_argument(
        "--diffpalm", type=int, default=0, help="steps of examples/diffpalm.py, seed 0 (default: none)"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "pairing.md")
    arguments = parser.parse_args()
    quiet_loading()
    model = load_model(arguments.model, cls=MsaForMaskedLM).eval().requires_grad_(False)
    results = []
    for path in arguments.families:
        family = read_alignment(path).drop_query_gaps()
        family = family.take(filter_rows(family.array, coverage=80, identity=90))
        of_headers = species_of(family, arguments.group, np.random.default_rng(0))[1] == "headers"
        for singles in (0, arguments.singles) if of_headers else (0,):
            runs = [measure(model, family, arguments, singles, seed) for seed in range(arguments.seeds)]
            results.append((path.stem, family.length, runs))
            print(path.stem, runs, flush=True)
    write(arguments, results)


def write(arguments: argparse.Namespace, results: list) -> None:
    def cell(runs: list[dict], key: str) -> str:
        values = [run[key] for run in runs if key in run]
        if not values:
            return ""
        spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 and key != "chance" else ""
        return f"{np.mean(values):.2f}{spread}"

    keys = ["chance", *METHODS, "model, 5 rounds, sure", *(["DiffPALM"] if arguments.diffpalm else [])]
    heads = ["family", "columns", "species", "rows to pair", "known pairs", *keys]
    heads = [head.replace("5 rounds, sure", "5 rounds: quarter with the largest margins") for head in heads]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, length, runs in results:
        cells = [
            name,
            str(length),
            runs[0]["kind"],
            *(f"{np.mean([r[k] for r in runs]):.0f}" for k in ("several", "known")),
        ]
        lines.append("| " + " | ".join([*cells, *(cell(runs, key) for key in keys)]) + " |")
    times = [
        f"{key} {np.mean([run[f'{key}, seconds'] for *_, runs in results for run in runs if key in run]):.1f}"
        for key in [*METHODS, "DiffPALM"][: None if arguments.diffpalm else -1]
    ]
    steps = (
        f"DiffPALM is `examples/diffpalm.py`, {arguments.diffpalm} steps, one run, seed 0 only. "
        if arguments.diffpalm
        else ""
    )
    text = f"""# Share of right pairs

Written by `benchmarks/pairing.py` on {date.today()}: {arguments.model}, {arguments.seeds} seeds, torch
{torch.__version__}, {torch.get_num_threads()} CPU thread(s) of a machine that other programs used too.

Two halves of one domain, the rows of the second half shuffled. Shares are of rows in species with several rows: the
mean over seeds, which choose rows, artificial species and the shuffling, and the range. Chance is the expected share
of random pairings within species. rank pairs one row of each species, so that its share is of fewer pairs. Species are
those of the headers, or artificial groups of rows; known pairs are species with one row in each half.

{steps}Mean seconds: {"; ".join(times)}.

{chr(10).join(lines)}
"""
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
