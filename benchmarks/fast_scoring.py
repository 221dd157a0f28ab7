"""How well the fast mode of scoring agrees with the exact mode, and how much time it saves.

    python benchmarks/fast_scoring.py [ALIGNMENT ...] [--families 20] [--output benchmarks/results/fast_scoring.md]

Uses the embedded model, synthetic families that it was not trained on (examples/synthetic_families, seed 1, generated
in the run) and the given alignments. Exact scores of whole families would take hours, so each is sampled, with fixed
seeds:

- single substitutions: all of some residues, masked marginals;
- several substitutions: doubles and triples, half each, among those residues, masked marginals. They add up, so no
  further pass is needed;
- pseudo-log-likelihoods: similar doubles and triples, of an alignment that is cut to a window of the query, since each
  variant requires as many passes as there are residues.

Spearman's correlation compares exact and fast scores of a family's variants. The two modes alternate in order from
family to family. The exact time grows with the number of residues; the fast time includes one pass of the homologues,
which all residues share. So the ratio of times is that of whole families: the exact time per residue times the number
of residues, and the fast mode's run over all residues.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch

from modeling_msa import Alignment, MsaForMaskedLM, load_model, read_alignment, score_variants, select_rows, spearman
from modeling_msa.alignments.variants import AMINO_ACIDS
from modeling_msa.training import simulation

ROOT = Path(__file__).resolve().parents[1]

DEPTHS = (16, 64, 128, 256, 512)
# residues sampled, by depth: exact time grows with the rows
RESIDUES = {16: 24, 64: 16, 128: 12, 256: 8, 512: 6}
# columns and, by depth, variants of a pseudo-log-likelihood
WINDOW, LIKELIHOODS = 12, {16: 16, 64: 16, 128: 16, 256: 16, 512: 8}
SEVERAL = 100
KINDS = ("singles", "doubles and triples", "pseudo-log-likelihood")


def synthetic(count: int) -> list[Alignment]:
    """Held-out families, of the kinds "varied" and "natural" in turn."""
    return [simulation.make_family(1, k, ("varied", "natural")[k % 2])[0] for k in range(count)]


def singles(query: str, places: np.ndarray) -> list[str]:
    return [f"{query[k]}{k + 1}{letter}" for k in places for letter in AMINO_ACIDS if letter != query[k]]


def several(random: np.random.Generator, query: str, places: np.ndarray, count: int) -> list[str]:
    """Doubles and triples in turn."""
    made = []
    for k in range(count):
        some = sorted(random.choice(places, 2 + k % 2, replace=False))
        letters = [random.choice([letter for letter in AMINO_ACIDS if letter != query[place]]) for place in some]
        made.append(
            ":".join(f"{query[place]}{place + 1}{letter}" for place, letter in zip(some, letters, strict=True))
        )
    return made


def seconds(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def compare(family: Alignment, model: MsaForMaskedLM, number: int) -> dict[str, tuple[float, float]]:
    """Spearman and time, fast / exact, by kind of variant."""
    random = np.random.default_rng(number)
    query, depth = family.query, family.depth
    known = np.array([k for k, letter in enumerate(query) if letter in AMINO_ACIDS])
    step = next(RESIDUES[each] for each in DEPTHS if depth <= each)
    places = np.sort(random.choice(known, min(step, len(known)), replace=False))
    single, more = singles(query, places), several(random, query, places, SEVERAL)

    def score(variants: list[str], mode: str, **options: str) -> np.ndarray:
        return score_variants(family, variants, model, rows=depth, select="first", mode=mode, **options).score

    runs = {
        "exact": lambda: seconds(lambda: score(single + more, "exact")),
        "fast": lambda: seconds(lambda: score(singles(query, known) + more, "fast")),
    }
    order = ("exact", "fast") if number % 2 else ("fast", "exact")
    (scores, taken) = zip(*(runs[mode]() for mode in order), strict=True)
    found, times = dict(zip(order, scores, strict=True)), dict(zip(order, taken, strict=True))
    ratio = times["fast"] / (times["exact"] * len(known) / len(places))
    names = singles(query, known)
    fast_single = found["fast"][[names.index(name) for name in single]]
    result = {
        KINDS[0]: (spearman(found["exact"][: len(single)], fast_single), ratio),
        KINDS[1]: (spearman(found["exact"][len(single) :], found["fast"][len(names) :]), ratio),
    }
    start = int(random.integers(0, max(1, family.length - WINDOW)))
    family = Alignment.from_sequences([row[start : start + WINDOW] for row in family.sequences])
    query = family.query
    inside = np.array([k for k, letter in enumerate(query) if letter in AMINO_ACIDS])
    variants = several(random, query, inside, next(LIKELIHOODS[each] for each in DEPTHS if depth <= each))
    both = {mode: seconds(lambda m=mode: score(variants, m, strategy="pseudo-log-likelihood")) for mode in order}
    ratio = both["fast"][1] / both["exact"][1]
    return result | {KINDS[2]: (spearman(both["exact"][0], both["fast"][0]), ratio)}


def table(
    results: dict[tuple[str, int], list[dict[str, tuple[float, float]]]], shallow: dict[tuple[str, int], int]
) -> str:
    """One line per set of families and depth: Spearman's median (lowest), and the median time, fast / exact."""
    heads = ["rows", "families", *KINDS, "time, fast / exact", "of likelihoods"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for (name, depth), families in results.items():
        less = shallow[name, depth]
        cells = [f"{depth}", f"{len(families)} {name}" + (f", {less} of them less deep" if less else "")]
        for kind in KINDS:
            values = [each[kind][0] for each in families]
            cells.append(f"{statistics.median(values):.4f} ({min(values):.4f})")
        times = [statistics.median(each[kind][1] for each in families) for kind in (KINDS[0], KINDS[2])]
        cells += [f"{ratio:.3f}" for ratio in times]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _one_swap(count: int) -> float:
    """How much Spearman's correlation of `count` values falls when two neighbours in rank change places."""
    return 12 / (count * (count**2 - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("alignments", nargs="*", type=Path)
    parser.add_argument("--families", type=int, default=20, help="number of synthetic families")
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "fast_scoring.md")
    arguments = parser.parse_args()
    model = load_model(cls=MsaForMaskedLM)
    started = time.perf_counter()
    sets = {
        "synthetic": synthetic(arguments.families),
        "real": [read_alignment(path).drop_query_gaps() for path in arguments.alignments],
    }
    # chosen once for both modes: the most diverse, as by `msa score`
    results: dict[tuple[str, int], list[dict[str, tuple[float, float]]]] = {}
    shallow: dict[tuple[str, int], int] = {}
    for name, families in sets.items():
        for number, family in enumerate(families):
            family = Alignment.from_sequences(family.sequences)
            for depth in arguments.depths:
                seen = select_rows(family, depth, "diverse")
                shallow[name, depth] = shallow.get((name, depth), 0) + (seen.depth < depth)
                results.setdefault((name, depth), []).append(compare(seen, model, number))
            print(f"{name} {number + 1} of {len(families)}: {time.perf_counter() - started:.0f} s", flush=True)
    sizes = {name: [family.length for family in families] for name, families in sets.items() if families}
    lengths = [
        f"{name} {min(each)} to {max(each)}, median {statistics.median(each):g}" for name, each in sizes.items()
    ]
    text = f"""# Fast and exact scores

Written by `benchmarks/fast_scoring.py` on {date.today()}, in {time.perf_counter() - started:.0f} seconds: msa-tiny,
float32, torch {torch.__version__}, {torch.get_num_threads()} CPU thread(s).

Spearman's correlation is that of fast and exact scores of one family's variants; the table has the median over the
families and, in brackets, the lowest. Singles are all substitutions at {min(RESIDUES.values())} to
{max(RESIDUES.values())} residues of the query, the deeper the fewer. {SEVERAL} doubles and triples are made of these
residues; masked marginals add up. By pseudo-log-likelihood {LIKELIHOODS[16]} of them ({LIKELIHOODS[512]} with 512
rows) are scored in an alignment cut to {WINDOW} columns. So few that two neighbours in rank that change places take
{_one_swap(LIKELIHOODS[16]):.3f} ({_one_swap(LIKELIHOODS[512]):.3f}) off. Rows are the most diverse ones.

Times are those of singles at all residues, of the exact mode scaled up from the residues sampled; for likelihoods
those of the variants at hand. The other rows are run once for all residues, so that the ratio falls with the query's
length. Residues of the families: {"; ".join(lengths)}.

{table(results, shallow)}
"""
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
