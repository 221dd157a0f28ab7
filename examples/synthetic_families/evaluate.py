"""Fit the contact regression of a trained model on synthetic families, and judge it on others that it never saw.

    python examples/synthetic_families/evaluate.py CHECKPOINT TRAINING HELD_OUT OUTPUT_DIR

CHECKPOINT is a run's folder; TRAINING and HELD_OUT are folders of simulate.py. The regression is fitted as in the
paper on the first 20 training families (L1 penalty, C = 0.15, pairs at least 6 apart). P@L is the share of contacts
among the L most probable pairs at least 6 apart; mutual information with average product correction sees the same
rows. OUTPUT_DIR gets config, tokenizer and weights, and ``evaluation.json`` with the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modeling_msa import Alignment, MsaForMaskedLM, read_alignment, select_rows
from modeling_msa.contacts import fit_contact_regression, precision, predict_contacts
from modeling_msa.hub import quiet_loading, tokenizer_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from coevolution import mutual_information

FITTED = 20


def families(folder: Path, count: int | None, rows: int) -> Iterator[tuple[Alignment, np.ndarray]]:
    """Alignments with at most `rows` rows, drawn at random, and their contacts (L, L)."""
    files = sorted((folder / "alignments").glob("*.a3m"), key=lambda path: int(path.stem.rpartition("_")[2]))
    for path in files[:count]:
        yield select_rows(read_alignment(path), rows, "random"), np.load(folder / "contacts" / f"{path.stem}.npy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--rows", type=int, default=1024)
    arguments = parser.parse_args()
    quiet_loading()
    model = MsaForMaskedLM.from_pretrained(arguments.checkpoint).eval()
    report = fit_contact_regression(model, families(arguments.training, FITTED, arguments.rows))
    print(report)

    figures = []
    for family, contacts in tqdm(list(families(arguments.held_out, None, arguments.rows)), unit="family", leave=False):
        of_model = predict_contacts(family, model, rows=arguments.rows).probabilities
        figures.append([precision(scores, contacts) for scores in (of_model, mutual_information(family.array))])
    ours, theirs = np.mean(figures, axis=0)
    spread = np.std(figures, axis=0, ddof=1) / len(figures) ** 0.5
    print(f"{len(figures)} held-out families, P@L: model {ours:.3f} ± {spread[0]:.3f} (standard error)")
    print(f"mutual information with APC {theirs:.3f} ± {spread[1]:.3f}; ratio {ours / theirs:.2f}")

    model.save_pretrained(arguments.output_dir)
    tokenizer_for(model.config).save_pretrained(arguments.output_dir)
    measured = {"families": len(figures), "rows": arguments.rows, "p_at_l": ours, "mutual_information": theirs}
    (arguments.output_dir / "evaluation.json").write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    main()
