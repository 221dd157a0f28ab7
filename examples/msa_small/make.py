"""Make the checkpoint msa-small of trained weights: fit its contact regression, and write its card.

    python examples/msa_small/make.py WEIGHTS OUTPUT_DIR --fit FAMILIES
    python examples/msa_small/make.py OUTPUT_DIR OUTPUT_DIR --table benchmarks/results/real_families.md \
        --assay blat_ecolx.a2m blat_ecolx_singles.csv 23 --assay gb1.a2m gb1_four_site.csv 0

WEIGHTS is the output of `msa train msa-small`. FAMILIES is a folder of alignments (.a3m) and structures (.pdb) of the
same names, on which the regression is fitted: each at several depths, with diverse and with random rows, so that it
holds for all of them. The weights are written as float16, and loaded as float32. The second call keeps them, and
writes the card, with the tables of benchmarks/real_families.py and with Spearman's correlation on assays: alignment,
table with single substitutions, and by how much its numbers are ahead of the query's.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaTokenizer,
    fit_contact_regression,
    load_model,
    read_alignment,
    score_variants,
    select_rows,
    spearman,
    structure_contacts,
)
from modeling_msa.alignments.variants import parse_variants, read_variants
from modeling_msa.hub.card import write_model_card
from modeling_msa.hub.loading import quiet_loading
from modeling_msa.hub.reports import Result, TrainingReport

DEPTHS, SELECTIONS = (32, 64, 128, 256), ("diverse", "random")
NAMES = {"blat_ecolx": "TEM-1 beta-lactamase", "gb1": "GB1"}
PROFILE_WEIGHT = 0.5  # see README.md here
NOTE = (
    "msa-small comes with the package `modeling-msa`, without code of its own: load it with "
    "`modeling_msa.load_model()`. `save_pretrained` and `push_to_hub` of the loaded model add the code."
)
DATA = """From scratch, by masked language modelling, for 400 seconds on one H100: 196 million tokens in 2,591 steps,
55 % of them of real families, the others simulated (`modeling_msa.training.simulation`). The weights are a moving
average. `configuration/training/msa-small.yaml` is a recipe for such a model.

The real families are 205 alignments (245,041 rows, 41 million residues and gaps) from public repositories: 131 under
the MIT licence, 49 under CC0, 19 under Apache-2.0, 5 under BSD licences and one under CC BY 4.0. Among them are
alignments of snakeMSA (62), balifam (49) and Kortemme-Lab/covariation (19). Homologs of the domains in the tables
below were removed (MMseqs2, e < 0.01). An alignment of TEM-1 beta-lactamase, whose variants are scored below,
was among them; no measurement was.

The contact regression was fitted on 20 other Pfam domains with crystal structures, each with 32, 64, 128 and 256 rows,
diverse and random: logistic regression with an L1 penalty, C = 0.15. Scores of substitutions are mixed with the
family's frequencies with the weight 0.5 (`profile_weight`), which is about the one that maximises the likelihood of
the queries of ten Pfam domains; `examples/msa_small` of the package's repository has a log."""
LIMITS = (
    "It is a small model that has seen few proteins: the tables below say what it reaches, and beside what.",
    "Of few rows, contacts with a probability above 0.5 are right less often than that says; see the second table.",
)


def examples(folder: Path) -> Iterator[tuple[Alignment, np.ndarray]]:
    """Families with their contacts, at each depth."""
    for path in sorted(folder.glob("*.a3m")):
        whole = read_alignment(path)
        known = structure_contacts(path.with_suffix(".pdb"), whole)
        for select, depth in itertools.product(SELECTIONS, DEPTHS):
            yield select_rows(whole, depth, select), known


def save(model: MsaForMaskedLM, folder: Path) -> None:
    """Save float16 weights without copies of the code and the auto_map that names them."""
    model.config.profile_weight = PROFILE_WEIGHT
    model.half().save_pretrained(folder)
    MsaTokenizer.for_config(model.config).save_pretrained(folder)
    for path in (*folder.glob("*.py"), folder / "LICENSE", folder / "weights.sha256.json"):  # the package has them
        path.unlink()
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        for key in ("auto_map", "custom_pipelines"):
            values.pop(key, None)
        if "dtype" in values:
            values["dtype"] = "float32"  # what they are loaded as
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def assay(model: MsaForMaskedLM, alignment: str, table: str, offset: str) -> Result:
    """Spearman's correlation of scores and measurements of single substitutions, and the profile's."""
    family, rows = read_alignment(alignment), read_variants(table)
    parsed = parse_variants([name for name, _, _ in rows], family, int(offset), table)
    singles = [row for row, each in zip(rows, parsed, strict=True) if len(each) == 1]
    names, measured = [name for name, _, _ in singles], np.array([value for _, value, _ in singles])
    chosen = {"mode": "fast", "offset": int(offset)}
    scores = {
        weight: score_variants(family, names, model, profile_weight=weight, **chosen).score for weight in (None, 0, 1)
    }
    found = {weight: spearman(each, measured) for weight, each in scores.items()}
    name = NAMES.get(Path(alignment).stem, Path(alignment).stem)
    what = f"{len(singles):,} single substitutions of {name}, 128 diverse rows, fast mode"
    note = f"without the family's frequencies {found[0]:.3f}, these alone {found[1]:.3f}"
    return Result("spearman", found[None], what, split="test", note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--fit", type=Path, metavar="FAMILIES", help="fit the regression, and write the weights")
    parser.add_argument("--table", type=Path, help="tables for the card")
    parser.add_argument("--assay", nargs=3, action="append", default=[], metavar=("ALIGNMENT", "TABLE", "OFFSET"))
    arguments = parser.parse_args()
    quiet_loading()
    model = load_model(arguments.weights, "cpu", "float32", cls=MsaForMaskedLM)
    if arguments.fit is not None:
        print(fit_contact_regression(model, examples(arguments.fit)))
        save(model, arguments.output_dir)
        model.float()
    results = tuple(assay(model, *each) for each in arguments.assay)
    for each in results:
        print(f"{each.dataset}: {each.value:.3f}; {each.note}")
    table = "" if arguments.table is None else "\n\n" + arguments.table.read_text().partition("\n")[2].strip()
    report = TrainingReport(DATA + table, results=results, limits=LIMITS)
    write_model_card(
        arguments.output_dir, "msa-small", "msa-small", model.config, license="apache-2.0", note=NOTE, training=report
    )


if __name__ == "__main__":
    main()
