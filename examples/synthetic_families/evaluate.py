"""Fit the contact regression of a trained model on synthetic families, and evaluate it on held-out families.

    python examples/synthetic_families/evaluate.py CHECKPOINT TRAINING HELD_OUT OUTPUT_DIR [--real MSAS STRUCTURES]
    python examples/synthetic_families/evaluate.py CHECKPOINT - HELD_OUT CHECKPOINT [--real MSAS STRUCTURES]

CHECKPOINT is a run's output; TRAINING and HELD_OUT are folders written by simulate.py. The regression is fitted as
in the paper on the first 20 training families (L1 penalty, C = 0.15, pairs at least 6 apart). P@L is the share of
contacts among the L most probable pairs at least 6 apart. Mutual information with average product correction sees
the same rows. With --real, two folders whose files have the same names, P@L/2 on families with structures is
added. OUTPUT_DIR receives config, tokenizer, weights and a card, but no copy of the code, as a checkpoint inside
the package. With - for TRAINING the checkpoint keeps its regression, and only its card is written.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modeling_msa import (
    Alignment,
    MsaConfig,
    MsaForMaskedLM,
    MsaTokenizer,
    fit_contact_regression,
    mutual_information,
    precision,
    predict_contacts,
    prepare_alignment,
    read_alignment,
    select_rows,
    structure_contacts,
)
from modeling_msa.hub.card import write_model_card
from modeling_msa.hub.loading import quiet_loading
from modeling_msa.hub.reports import Result, TrainingReport

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from real_families import of_scores, pairs_of_files

FITTED = 20
ROWS = 1024
INFORMATION = "mutual information with APC: {}"
DATA = """From scratch, by masked language modelling, on 3,000 synthetic families: sequences sampled along random trees
from Potts models whose couplings sit on known contacts (`examples/synthetic_families` of the package's repository); on
800 families of closer relatives with more fragments; and, for about every eleventh family, on one of three real
alignments (1a3a, 5ahw and 1xcr, from fair-esm's examples). The recipe is `configuration/training/synthetic.yaml`: 51
minutes on two cores of a CPU. The weights are the mean of its last 24 checkpoints. The contact regression was fitted
on 20 of those 800 families."""
LIMITS = (
    "It is a small model for demonstrations, tests and a first look. It has learned about proteins only from "
    "simulations and three real families: for results, use ESM-MSA-1b.",
)


def families(folder: Path, count: int | None = None) -> Iterator[tuple[Alignment, np.ndarray]]:
    """Alignments, of at most 1,024 rows drawn at random, and their contacts (L, L)."""
    files = sorted((folder / "alignments").glob("*.a3m"), key=lambda path: int(path.stem.rpartition("_")[2]))
    for path in files[:count]:
        yield select_rows(read_alignment(path), ROWS, "random"), np.load(folder / "contacts" / f"{path.stem}.npy")


def synthetic_figures(model: MsaForMaskedLM, held_out: Path) -> list[Result]:
    """P@L on held-out families."""
    pairs = []
    for family, contacts in tqdm(list(families(held_out)), unit="family", leave=False, disable=None):
        of_model = predict_contacts(family, model, rows=ROWS).probabilities
        pairs.append([precision(scores, contacts) for scores in (of_model, mutual_information(family.array))])
    (ours, theirs), errors = np.mean(pairs, axis=0), np.std(pairs, axis=0, ddof=1) / len(pairs) ** 0.5
    note = INFORMATION.format(f"{theirs:.3f} ± {errors[1]:.3f}")
    return [Result("p_at_l", ours, f"{len(pairs)} held-out synthetic families", errors[0], "test", note)]


def real_figures(model: MsaForMaskedLM, alignments: Path, structures: Path) -> list[Result]:
    """P@L/2 on families of known structure: the model and mutual information on the first 1,024 rows."""
    of_information = of_scores(mutual_information)
    figures: list[tuple[str, list[float]]] = []
    few = []
    for name, (alignment, structure) in pairs_of_files(alignments, structures).items():
        whole = read_alignment(alignment)
        contacts = structure_contacts(structure, whole)
        family = prepare_alignment(whole, ROWS, "first")
        maps = (predict_contacts(family, model, rows=ROWS), of_information(family))
        figures.append((name, [precision(scores, contacts, top="L/2") for scores in maps]))
        few.append(precision(predict_contacts(whole, model), contacts, top="L/2"))
    figures.append(("mean", np.mean([pair for _, pair in figures], axis=0).tolist()))
    what = "real family {}, its first 1,024 rows"
    shown = [
        Result("p_at_l2", ours, what.format(name), split="test", note=INFORMATION.format(f"{theirs:.3f}"))
        for name, (ours, theirs) in figures
    ]
    mean = f"mean of the {len(few)} real families, "
    shown[-1] = replace(shown[-1], dataset=f"{mean}their first 1,024 rows")
    return [*shown, Result("p_at_l2", np.mean(few), f"{mean}128 diverse rows, the commands' default", split="test")]


def write_checkpoint(model: MsaForMaskedLM, folder: Path, report: TrainingReport) -> None:
    """Save without copies of the code and the auto_map that names them."""
    model.save_pretrained(folder)
    MsaTokenizer.for_config(model.config).save_pretrained(folder)
    for path in (*folder.glob("*.py"), folder / "LICENSE"):  # the package has it too
        path.unlink()
    for name in ("config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text(encoding="utf-8"))
        for key in ("auto_map", "custom_pipelines"):
            values.pop(key, None)
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    write_card(folder, model.config, report)


def write_card(folder: Path, config: MsaConfig, report: TrainingReport) -> None:
    note = (
        "msa-tiny comes with the package `modeling-msa`, without code of its own: load it with "
        "`modeling_msa.load_model()`. `save_pretrained` and `push_to_hub` of the loaded model add the code."
    )
    write_model_card(folder, "msa-tiny", "msa-tiny", config, license="apache-2.0", note=note, training=report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--real", type=Path, nargs=2, metavar=("ALIGNMENTS", "STRUCTURES"))
    arguments = parser.parse_args()
    quiet_loading()
    model = MsaForMaskedLM.from_pretrained(arguments.checkpoint).eval()
    if arguments.training != Path("-"):
        print(fit_contact_regression(model, families(arguments.training, FITTED)))
    figures = synthetic_figures(model, arguments.held_out)
    if arguments.real:
        figures += real_figures(model, *arguments.real)
    for result in figures:
        print(f"{result.dataset}: {result.metric} {result.value:.3f}; {result.note}")
    report = TrainingReport(DATA, results=tuple(figures), limits=LIMITS)
    if arguments.training == Path("-"):
        write_card(arguments.output_dir, model.config, report)
    else:
        write_checkpoint(model, arguments.output_dir, report)


if __name__ == "__main__":
    main()
