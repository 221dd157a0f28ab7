"""Write simulated protein families with known contacts; `modeling_msa.training.simulation` makes them.

    python examples/synthetic_families/simulate.py OUTPUT_DIR --families 3000 --seed 0 --processes 2

OUTPUT_DIR receives ``alignments/NAME.a3m`` and ``contacts/NAME.npy``, (L, L) int8: 1 where two columns touch.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modeling_msa import write_alignment
from modeling_msa.training.simulation import KINDS, make_family


def _write(job: tuple[Path, int, int, str]) -> None:
    folder, seed, index, kind = job
    alignment, contacts = make_family(seed, index, kind)
    name = alignment.names[0]
    np.save(folder / "contacts" / f"{name}.npy", contacts)
    write_alignment(alignment, folder / "alignments" / f"{name}.a3m")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--families", type=int, default=3000, help="number of families (default: 3000)")
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed: 0 for training, 1 for held-out families (default: 0)"
    )
    parser.add_argument("--kind", choices=list(KINDS), default="varied")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    for name in ("alignments", "contacts"):
        (arguments.output_dir / name).mkdir(parents=True, exist_ok=True)
    jobs = [(arguments.output_dir, arguments.seed, k, arguments.kind) for k in range(arguments.families)]
    with multiprocessing.Pool(arguments.processes) as pool:
        for _ in tqdm(pool.imap_unordered(_write, jobs, chunksize=4), total=len(jobs), unit="family"):
            pass


if __name__ == "__main__":
    main()
