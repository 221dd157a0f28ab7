"""A made-up benchmark in ProteinGym's layout: assays of two proteins, their alignments, the reference file."""

import numpy as np
from families import family

COLUMNS = (
    "DMS_id,DMS_filename,UniProt_ID,taxon,target_seq,seq_len,DMS_binarization_cutoff,MSA_filename,MSA_start,MSA_end,"
    "MSA_theta,coarse_selection_type"
)
ARGUMENTS = "reference.csv --msas msas --assays assays -o out"
# DMS_id: protein, alignment, function, theta, number of the alignment's first residue
ASSAYS = {
    "one_a": ("ONE", "one", "Activity", "0.2", 1),
    "one_b": ("ONE", "one", "Binding", "0.2", 1),
    "two": ("TWO", "two", "Activity", "0.01", 4),
}


def make_benchmark(folder, depth=12, length=14):
    """Write reference.csv, msas/ and assays/; of `two`, three residues before and two after lie outside."""
    random = np.random.default_rng(0)
    for name in ("msas", "assays"):
        (folder / name).mkdir(parents=True)
    families = {name: family(name, depth, length, seed) for seed, name in enumerate(("one", "two"))}
    for name, alignment in families.items():
        rows = [alignment.sequences[0].swapcase(), *alignment.sequences[1:]]  # lower case marks residues, as in a2m
        text = "".join(f">{name}/{k}\n{row}\n" for k, row in enumerate(rows))
        (folder / "msas" / f"{name}.a2m").write_text(text)
    lines = [COLUMNS]
    for name, (protein, msa, function, theta, start) in ASSAYS.items():
        query = families[msa].query
        singles = [f"{query[k]}{k + start}{letter}" for k in range(length) for letter in "AWY" if letter != query[k]]
        several = [f"{singles[k]}:{singles[-1 - k]}" for k in range(4)]
        rows = [
            f"{mutant},MKV,{random.normal():.4f},{int(random.random() < 0.5)}\n" for mutant in [*singles, *several]
        ]
        (folder / "assays" / f"{name}.csv").write_text(
            "mutant,mutated_sequence,DMS_score,DMS_score_bin\n" + "".join(rows)
        )
        target = f"MKV{query}LL" if start == 4 else query
        cells = [name, f"{name}.csv", protein, "Virus", target, len(target), 0.1, f"{msa}.a2m", start]
        cells += [start + length - 1, theta, function]
        lines.append(",".join(map(str, cells)))
    (folder / "reference.csv").write_text("\n".join(lines) + "\n")
    return families
