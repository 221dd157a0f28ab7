"""Long alignments in overlapping windows beside the same alignments read whole; time and memory of 3,000 residues.

    python benchmarks/windows.py FOLDER [FOLDER ...] [--model msa-tiny] [--output benchmarks/results/windows.md]
    python benchmarks/windows.py --cost

Each FOLDER has alignments (.a3m), with or without structures (.pdb) of the same names. Their families are shorter than
600 residues: the rows of several are put side by side. Pairs of two families, and those without a structure, do not
count in P@L. Such alignments have no contacts across families; simulated families of 600 residues
(examples/synthetic_families) have contacts at all distances.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling_msa import (
    Alignment,
    ContactMap,
    MsaForMaskedLM,
    embed,
    load_model,
    precision,
    predict_contacts,
    predict_distances,
    predict_profile,
    prepare_alignment,
    read_alignment,
    spearman,
    structure_contacts,
    write_alignment,
)
from modeling_msa.hub.loading import quiet_loading

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples" / "synthetic_families"))
import simulate  # noqa: E402

LENGTH, WINDOW, ROWS = 600, 300, 128
OVERLAPS = (0, 150, 225)
LONG, LONG_ROWS = (1000, 3000), 64
TASKS = {  # the command and its output
    "contacts": ("contacts", "c.tsv"),
    "contacts, with picture": ("contacts", "c.tsv", "--plot", "c.png"),
    "embeddings, all rows": ("embed", "e.safetensors", "--which", "rows"),
    "distances": ("distances", "d.tsv"),
}


def side_by_side(families: list[Alignment], name: str) -> Alignment:
    """Put the rows of families beside each other, as many as the shallowest has."""
    depth = min(family.depth for family in families)
    rows = ["".join(family.sequences[row] for family in families) for row in range(depth)]
    return Alignment.from_sequences(rows, [name, *(f"{name}_{row}" for row in range(2, depth + 1))])


def joined(folders: list[Path], rows: int) -> Iterator[tuple[Alignment, np.ndarray]]:
    """Alignments of about `LENGTH` columns, of the families of the folders in turn, and their known contacts."""
    families: list[Alignment] = []
    known: list[np.ndarray] = []
    for path in (path for folder in folders for path in sorted(folder.glob("*.a3m"))):
        family = prepare_alignment(read_alignment(path), rows)
        contacts = np.full((len(family.query),) * 2, -100, dtype=np.int8)
        if path.with_suffix(".pdb").is_file():
            contacts = structure_contacts(path.with_suffix(".pdb"), family)
        index = family.column_residues - 1
        families.append(family)
        known.append(contacts[np.ix_(index, index)])
        if sum(family.length for family in families) >= LENGTH:
            whole = side_by_side(families, f"{len(families)} real families, {families[0].names[0].split()[0]} ...")
            table = np.full((whole.length,) * 2, -100, dtype=np.int8)
            end = 0
            for part in known:
                table[end : end + len(part), end : end + len(part)] = part
                end += len(part)
            yield whole, table
            families, known = [], []


def simulated(count: int) -> Iterator[tuple[Alignment, np.ndarray]]:
    """Simulated families of `LENGTH` columns and their contacts."""
    usual = simulate.KINDS["varied"]
    simulate.KINDS["long"] = dataclasses.replace(usual, length=(LENGTH, LENGTH), depth=(1024, 1024), fragments=(0, 0))
    for index in range(count):
        family, contacts = simulate.make_family(9, index, "long")
        rows = [f"simulated {index + 1}", *family.names[1:]]
        yield Alignment.from_sequences(family.sequences, rows), contacts


def compare(whole: ContactMap, parts: ContactMap, known: np.ndarray) -> list[str]:
    """Cells of a line: share of pairs that windows cover, agreement on these, and P@L of both."""
    i, j = np.triu_indices(len(whole.residues), 6)
    both = ~np.isnan(parts.values[i, j])
    i, j = i[both], j[both]
    one, other = whole.values[i, j], parts.values[i, j]
    far = j - i >= 24
    count = len(whole.residues)
    same = {tuple(pair) for pair in whole.top(count).tolist()} & {tuple(pair) for pair in parts.top(count).tolist()}
    covered = dataclasses.replace(whole, probabilities=np.where(np.isnan(parts.values), np.nan, whole.values))
    return [
        f"{both.mean():.3f}",
        f"{np.corrcoef(one, other)[0, 1]:.3f}",
        text_of(np.corrcoef(one[far], other[far])[0, 1] if far.sum() > 1 else np.nan),
        f"{spearman(one, other):.3f}",
        f"{len(same) / count:.2f}",
        *(text_of(precision(each, known)) for each in (whole, covered, parts)),
    ]


def text_of(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3f}"


def other_tasks(family: Alignment, model: MsaForMaskedLM, rows: int) -> list[str]:
    """Cells of a line: agreement of the windows' embeddings, profile and distances with the whole's."""
    options: dict[str, Any] = {"rows": rows}
    one, other = (embed(family, model, **options, **more).array for more in ({}, {"window": WINDOW}))
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    logs = [
        np.log(predict_profile(family, model, mode="fast", **options, **more).probabilities).ravel()
        for more in ({}, {"window": WINDOW})
    ]
    near, far = (predict_distances(family, model, **options, **more) for more in ({}, {"window": WINDOW}))
    i, j = near.judged_pairs()
    return [
        f"{cosine.mean():.3f}",
        f"{cosine.min():.3f}",
        f"{np.corrcoef(*logs)[0, 1]:.3f}",
        f"{np.corrcoef(near.predicted[i, j], far.predicted[i, j])[0, 1]:.3f}",
        f"{near.r2:.2f}",
        f"{far.r2:.2f}",
    ]


def peak(arguments: list[str], folder: str) -> tuple[float, float]:
    """Seconds and peak memory in MiB of the command ``msa`` with one thread, in a process of its own."""
    start = time.perf_counter()
    # not ru_maxrss, in which Linux counts what this process has had
    program = (
        "import sys\nfrom pathlib import Path\nfrom modeling_msa.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "Path('peak').write_text(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", program, "--threads", "1", *arguments]
    subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True)
    return time.perf_counter() - start, int(Path(folder, "peak").read_text()) / 1024


def measure_cost(model: str, output: Path) -> None:
    """Write the table of time and memory, of random letters; what is done is kept."""
    lines = []
    for length in LONG:
        letters = np.random.default_rng(0).choice(list(simulate.AMINO_ACIDS), (LONG_ROWS, length))
        family = Alignment.from_sequences(["".join(row) for row in letters])
        with tempfile.TemporaryDirectory() as folder:
            write_alignment(family, Path(folder, "long.a3m"))
            for what, (command, target, *more) in TASKS.items():
                options = ["--rows", str(LONG_ROWS), "--model", model, *more]
                seconds, mebibytes = peak([command, "long.a3m", "-o", target, *options], folder)
                lines.append(row([f"{length:,}", what, f"{seconds:.0f}", f"{mebibytes:.0f}"]))
                print(lines[-1], flush=True)
                text = f"""# Time and memory of long alignments

Written by `benchmarks/windows.py --cost` on {date.today()}: {model}, {LONG_ROWS} rows of random letters, torch
{torch.__version__}, one CPU thread of a machine that other programs used too. The peak is that of the command's
process, with PyTorch and the model. Alignments of more than 1,023 residues are read in windows of 1,023 that overlap
by at least 512.

{table(["residues", "task", "seconds", "peak MiB"], lines)}
"""
                output.write_text(text, encoding="utf-8")


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(head: list[str], lines: list[str]) -> str:
    return "\n".join([row(head), "|---" * len(head) + "|", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--model", default="msa-tiny", help="folder or Hub id (default: msa-tiny)")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"maximum number of rows (default: {ROWS})")
    parser.add_argument("--simulated", type=int, default=2, help="number of simulated families (default: 2)")
    parser.add_argument(
        "--cost", action="store_true", help="measure time and memory of 1,000 and 3,000 residues instead"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "windows.md")
    arguments = parser.parse_args()
    if arguments.cost:
        measure_cost(arguments.model, arguments.output.with_stem(f"{arguments.output.stem}_cost"))
        return
    quiet_loading()
    model = load_model(arguments.model, cls=MsaForMaskedLM)
    lines, others = [], []
    for family, known in [*joined(arguments.folders, arguments.rows), *simulated(arguments.simulated)]:
        whole = predict_contacts(family, model, arguments.rows)
        start = [family.names[0], str(family.length)]
        for overlap in OVERLAPS:
            parts = predict_contacts(family, model, arguments.rows, window=WINDOW, overlap=overlap)
            lines.append(row([*start, str(overlap), *compare(whole, parts, known)]))
            print(lines[-1], flush=True)
        others.append(row([*start, *other_tasks(family, model, arguments.rows)]))
        print(others[-1], flush=True)
        write(arguments, lines, others)  # after each part, so that an interrupted run keeps what it has measured


def write(arguments: argparse.Namespace, lines: list[str], others: list[str]) -> None:
    contacts = [
        "family",
        "residues",
        "overlap",
        "pairs covered",
        "Pearson",
        "Pearson, 24 or more apart",
        "Spearman",
        "shared of the top L",
        "P@L, whole",
        "P@L, whole, covered pairs",
        "P@L, windows",
    ]
    rest = [
        "family",
        "residues",
        "embeddings: mean cosine",
        "lowest cosine",
        "profile: Pearson of log p",
        "distances: Pearson",
        "R2, whole",
        "R2, windows",
    ]
    text = f"""# Windows beside whole alignments

Written by `benchmarks/windows.py` on {date.today()}: {arguments.model}, at most {arguments.rows} diverse rows,
torch {torch.__version__}, {torch.get_num_threads()} CPU thread(s) of a machine that other programs used too.

Contact probabilities of windows of {WINDOW} columns against those of the same alignment read at once, over pairs at
least 6 apart that some window covers. No real family of this length was at hand: "real families" are the rows of
several side by side, which have no contacts with each other (P@L is of pairs within a family of known structure);
simulated families have contacts at all distances.

{table(contacts, lines)}

The other tasks, in windows of {WINDOW} with an overlap of {WINDOW // 2}. Embeddings are the last layer's of the
query's residues; the profile is in fast mode; distances are of rows that the weights were not fitted on.

{table(rest, others)}
"""
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
