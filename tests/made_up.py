"""Made-up alignments for the tests of data: arrays, features and folders of files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_msa import ContactMap, MsaTokenizer, bundled_family

SEED = Path(__file__).parent / "data" / "fn3_seed.sto"  # of Pfam PF00041: 98 rows with gaps in the query
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
TOKENIZER = MsaTokenizer()
CLS, PAD, GAP, MASK = 0, 1, 30, 32
AMINO_ACIDS = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)
# two processes on CPUs (accelerate starts no more than one with --cpu, unlike with this file for DDP)
LAUNCH = ("-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2", "--main_process_port", "0")
LAUNCH += ("--config_file", str(Path(__file__).resolve().parents[1] / "configuration" / "accelerate" / "ddp.yaml"))
LAUNCH += ("--mixed_precision", "no")
REAL = ("1a3a_1_A.a3m", "1prw.a3m", "1xcr_1_A.a3m", "5ahw_1_A.a3m", "5trv.a3m", "6e6r.a3m", "6exz.a3m", "gb1.a2m")
real_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared alignments are not here")


def random_array(rows, columns, seed=0, gaps=0.1):
    rng = np.random.default_rng(seed)
    array = rng.choice(AMINO_ACIDS, (rows, columns))
    array[rng.random(array.shape) < gaps] = ord("-")
    array[0, 0] = ord("M")
    return array


def real_alignments():
    """Shared alignments by name, or the bundled family without them."""
    return [SHARED / "msa" / name for name in REAL] if SHARED.is_dir() else [bundled_family()]


def features(*shapes, epoch=0, **kwargs):
    return [
        {"alignment": random_array(*shape, seed=k, **kwargs), "visit": (epoch, k)} for k, shape in enumerate(shapes)
    ]


def a3m(rows):
    return "".join(f">{'query' if k == 0 else k}\n{row}\n" for k, row in enumerate(rows))


def write_folder(folder, count=6):
    folder.mkdir(exist_ok=True)
    for k in range(count):
        rows = [row.tobytes().decode() for row in random_array(3 + k, 10 + k, seed=k)]
        (folder / f"f{k}.a3m").write_text(a3m(rows))
    return folder


def interrupt_reading(monkeypatch, module, call):
    """Interrupt a module's `read_alignment` once, at this call; returns the list of names that were asked for."""
    read, seen = module.read_alignment, []

    def counted(path, *args):
        seen.append(path.stem)
        if len(seen) == call:
            raise KeyboardInterrupt
        return read(path, *args)

    monkeypatch.setattr(module, "read_alignment", counted)
    return seen


def batches_equal(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def contact_map(length=9, residues=None, **pairs):
    """A map of a made-up query; `p0_6=0.5` is the pair of residues at indices 0 and 6."""
    probabilities = np.zeros((length, length), dtype=np.float32)
    for name, value in pairs.items():
        i, j = map(int, name[1:].split("_"))
        probabilities[i, j] = probabilities[j, i] = value
    residues = np.arange(1, length + 1) if residues is None else np.array(residues)
    return ContactMap("1abc_A chain A", "MKVLAWYCDE" * 6 + "FG", residues, probabilities, depth=7)
