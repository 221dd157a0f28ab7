"""Write the families of an archive as alignments and, with `msa pack`'s code, as shards to train on.

    python examples/training_families.py training.npz OUTPUT_DIR

TRAINING.npz holds `tokens`, the uint8 token ids of all families one after the other, and `shapes`, rows and columns of
each; the table of the same name that ends in .tsv names source, file and licence of each. OUTPUT_DIR receives
``alignments/NUMBER_FILE.a3m``, ``shards/`` and a copy of the table.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modeling_msa import Alignment, MsaTokenizer, pack_alignments, write_alignment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--families-per-shard", type=int, default=32)
    arguments = parser.parse_args()
    table = arguments.archive.with_suffix(".tsv")
    with table.open(encoding="utf-8", newline="") as file:
        files = [row["file"] for row in csv.DictReader(file, delimiter="\t")]
    with np.load(arguments.archive) as archive:
        tokens, shapes = archive["tokens"], archive["shapes"]
    ends = np.prod(shapes, axis=1).cumsum()
    if len(files) != len(shapes) or ends[-1] != len(tokens):
        raise SystemExit(f"{arguments.archive} and {table} do not belong together, or are cut off.")
    letters = np.zeros(256, dtype=np.uint8)
    for token, number in MsaTokenizer().get_vocab().items():
        if len(token) == 1:
            letters[number] = ord(token)
    if not letters[np.unique(tokens)].all():
        raise SystemExit(f"{arguments.archive} has tokens that are not letters.")
    folder = arguments.output_dir / "alignments"
    folder.mkdir(parents=True, exist_ok=True)
    parts = np.split(tokens, ends[:-1])
    for k, (name, ids, shape) in enumerate(zip(tqdm(files, unit="family"), parts, shapes, strict=True)):
        rows = [bytes(row).decode() for row in letters[ids].reshape(shape)]
        stem = re.sub(r"[^A-Za-z0-9-]+", "_", Path(name).stem)
        family = Alignment.from_sequences(rows, [f"row_{row}" for row in range(1, len(rows) + 1)])
        write_alignment(family, folder / f"{k:03}_{stem}.a3m")
    shutil.copy(table, arguments.output_dir)
    pack_alignments(folder, arguments.output_dir / "shards", rows_per_shard=arguments.families_per_shard)


if __name__ == "__main__":
    main()
