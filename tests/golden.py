"""Write tests/data/golden_msa_tiny.json: what fair-esm gives for msa-tiny's weights on the seed of Pfam PF00041.

Run it in the repository's root after a new msa-tiny: ``python tests/golden.py``. Everything but the translation of the
weights into fair-esm's file is fair-esm's or written out here, in float64: the alignment is read, the residues are
masked and the probabilities compared without this package.
"""

import json
import tempfile
from pathlib import Path

import torch
from fair_esm import ALPHABET, read_published, tokens

from modeling_msa import revert_checkpoint

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).resolve().parent / "data" / "golden_msa_tiny.json"
RESIDUES = (1, 20, 43, 86)
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
VARIANTS = ("P3K", "V17I", "G32D", "Y70F", "V17I:W20A")
TOP = 10
MIN_SEPARATION = 6


def read_family(path: Path) -> list[tuple[str, str]]:
    """All rows of a Stockholm file, without the columns in which the first row has a gap."""
    rows: dict[str, str] = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in "#/":
            name, part = line.split()
            rows[name] = rows.get(name, "") + part.upper().replace(".", "-")
    kept = [column for column, letter in enumerate(next(iter(rows.values()))) if letter != "-"]
    return [(name, "".join(row[column] for column in kept)) for name, row in rows.items()]


@torch.no_grad()
def main() -> None:
    """Compute the numbers and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        revert_checkpoint(ROOT / "modeling_msa" / "checkpoints" / "msa-tiny", Path(folder) / "msa-tiny.pt")
        model = read_published(Path(folder) / "msa-tiny.pt").double()
    family = read_family(GOLDEN.with_name("fn3_seed.sto"))
    query = family[0][1]
    ids = tokens([family])
    letters = [ALPHABET.get_idx(letter) for letter in AMINO_ACIDS]
    results = model(ids, return_contacts=True)

    logits = {str(residue): results["logits"][0, 0, residue, letters].tolist() for residue in RESIDUES}

    contacts = results["contacts"][0]
    pairs = [(i, j) for i in range(len(query)) for j in range(i + MIN_SEPARATION, len(query))]
    best = sorted(pairs, key=lambda pair: -contacts[pair].item())[:TOP]

    def effect(substitution: str) -> float:
        wild, residue, mutant = substitution[0], int(substitution[1:-1]), substitution[-1]
        assert query[residue - 1] == wild, substitution
        masked = ids.clone()
        masked[0, 0, residue] = ALPHABET.mask_idx
        log_p = model(masked)["logits"][0, 0, residue].log_softmax(-1)
        return (log_p[ALPHABET.get_idx(mutant)] - log_p[ALPHABET.get_idx(wild)]).item()

    scores = {variant: sum(effect(each) for each in variant.split(":")) for variant in VARIANTS}
    golden = {
        "made by": "tests/golden.py: fair-esm, float64; 98 rows, 86 residues",
        "amino_acids": AMINO_ACIDS,
        "query_logits": {residue: [round(value, 7) for value in row] for residue, row in logits.items()},
        "top_contacts": [[i + 1, j + 1, round(contacts[i, j].item(), 7)] for i, j in best],
        "masked_marginals": {variant: round(score, 7) for variant, score in scores.items()},
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
