"""Damaged files: the right answer or an error in words, soon and in little memory.

Two thousand seeded mutations of real alignments go through one `msa contacts`; what is read must be what a parser of a
few lines, written here, reads. Two hundred of a converted folder go through `load_model`; where it loads, and its
config is whole, it gives what the whole folder gives.
"""

import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from families import make_model
from made_up import real_alignments

from modeling_msa import AlignmentError, MsaForMaskedLM, load_model, read_alignment
from modeling_msa.hub.repository import complete_folder
from modeling_msa.sharing_msa_transformer import DIGESTS

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[1]
SECONDS, MEGABYTES = 10, 2_000
# `msa`, which says its peak memory at the end: ru_maxrss of a child counts what its parent, and others before it, had
PROGRAM = """
import sys
from pathlib import Path
from modeling_msa.cli import app
try:
    app()
finally:
    print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


def flip(data, rng):
    at = rng.integers(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.integers(8)]) + data[at + 1 :]


def insert(data, rng):
    at = rng.integers(len(data))
    return data[:at] + rng.bytes(rng.integers(1, 5)) + data[at:]


def remove(data, rng):
    at = rng.integers(len(data))
    return data[:at] + data[at + rng.integers(1, 20) :]


def cut(data, rng):
    return data[: rng.integers(len(data))]


def repeat(data, rng):
    start, end = sorted(rng.integers(len(data), size=2))
    return data[:end] + data[start:]


def letters(data, rng):
    """Characters that mean something in some format."""
    data = bytearray(data)
    for at in rng.integers(len(data), size=rng.integers(1, 4)):
        data[at] = rng.choice(list(b">#;.-~_*?/\n\r\t\0 0aAjJxXBZUO{<"))
    return bytes(data)


def lines(data, rng):
    """A line is lost, doubled, moved, joined to the next, or very long."""
    parts = data.split(b"\n")
    at, other = rng.integers(len(parts), size=2)
    change = rng.integers(5)
    if change == 4:
        parts[at] *= 1000
    elif change == 3:
        parts[at : at + 2] = [b"".join(parts[at : at + 2])]
    else:
        line = parts.pop(at)
        parts[other:other] = [line] * change
    return b"\n".join(parts)


def endings(data, rng):
    return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b" \n", b"\n\0"]))


def run(*command, seconds):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, env=environment)


MUTATIONS = (flip, insert, remove, cut, repeat, letters, lines, endings)


def mutated(data, rng):
    for _ in range(rng.integers(1, 4)):
        data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng) or b"\0"
    return data


def by_hand(data):
    """Match columns of the rows of an A3M file: upper-case letters and gaps, of all lines below a header."""
    rows = []
    for line in re.split(rb"\r\n|\r|\n|\0", data.removeprefix(b"\xef\xbb\xbf")):
        if line.startswith(b">"):
            rows.append([])
        elif rows and line[:1] not in (b"#", b";"):
            rows[-1] += [letter for letter in line.decode("latin1") if not letter.isspace()]
    if any("*" in row for row in rows):
        return None  # of stops that are dropped or become gaps there are tests of their own
    return ["".join(letter for letter in row if not letter.islower() and letter != ".") for row in rows]


def read(path):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_alignment(path)
    except AlignmentError as error:
        return error


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A complete folder, as a conversion leaves it."""
    folder = make_model(tmp_path_factory.mktemp("model") / "small", max_position_embeddings=512)
    complete_folder(folder, load_model(folder, cls=MsaForMaskedLM).config, "small")
    return folder


def test_mutated_alignments(model, tmp_path):
    rng = np.random.default_rng(0)
    sources = [b"\n>".join(path.read_bytes().split(b"\n>")[:8]) + b"\n" for path in real_alignments()]
    folder, readable = tmp_path / "in", {}
    folder.mkdir()
    for k in range(2_000):
        data = mutated(sources[k % len(sources)], rng)
        path = folder / f"f{k}.a3m"
        if k % 20 == 0:  # compressed, and damaged once more
            path, data = folder / f"f{k}.a3m.gz", gzip.compress(data)
            path.write_bytes(flip(data, rng) if k % 40 else data)
        else:
            path.write_bytes(data)
        alignment = read(path)
        if isinstance(alignment, AlignmentError):
            assert str(path) in str(alignment)
            assert len(str(alignment)) < 1_100
        else:
            readable[f"f{k}"] = alignment
            expected = by_hand(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else data)
            assert expected in (None, alignment.sequences), path.read_bytes()
    assert 400 < len(readable) < 1_600
    command = [sys.executable, "-c", PROGRAM, "contacts", folder, "-o", tmp_path / "out", "--model", model]
    done = run(*command, "--rows", "4", "--format", "npz", seconds=300)
    assert int(done.stderr.split()[-1]) / 1024 < MEGABYTES
    assert "Traceback" not in done.stderr
    refused = set(re.findall(r"^failed: \S+/(f\d+)\.a3m\S*: \S", done.stderr, re.MULTILINE))
    made = {path.stem for path in (tmp_path / "out").glob("*.npz")}
    assert made | refused == {f"f{k}" for k in range(2_000)}
    assert made <= set(readable)
    for name in made:  # others are too long for the model, or too short for a pair
        with np.load(tmp_path / "out" / f"{name}.npz") as arrays:
            assert arrays["residues"].tolist() == [k + 1 for k in np.flatnonzero(readable[name].residue_columns >= 0)]
    assert len(set(readable) - made) < 20


VALUES = (None, [], {}, "", "x", True, -1, 0, 1, 33, 10**6, 10**12, 1e300, float("nan"), [1], {"a": 1}, "NaN")


def other_value(text, rng):
    """JSON in which one value is another, or is missing."""
    content = json.loads(text)
    key = sorted(content)[rng.integers(len(content))]
    choice = rng.integers(len(VALUES) + 1)
    if choice == len(VALUES):
        del content[key]
    else:
        content[key] = VALUES[choice]
    return json.dumps(content)


def test_mutated_folders(model, tmp_path):
    """The files of a model, or none; its documents and code are not read."""
    rng = np.random.default_rng(0)
    tokens = torch.randint(4, 24, (1, 4, 12), generator=torch.Generator().manual_seed(0))
    expected = load_model(model, cls=MsaForMaskedLM)(tokens).logits
    names = ["config.json"] * 4 + ["model.safetensors"] * 4 + [DIGESTS, "tokenizer_config.json", "README.md"]
    counts, memory = {"loaded": 0, "refused": 0}, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(200):
        folder = Path(shutil.copytree(model, tmp_path / str(k)))
        path = folder / names[rng.integers(len(names))]
        if k % 20 == 0:
            path.unlink()
        elif path.name == "config.json" and k % 2:
            path.write_text(other_value(path.read_text(), rng))
        else:
            path.write_bytes(mutated(path.read_bytes(), rng))
        is_whole = (folder / "config.json").exists() and (
            (folder / "config.json").read_bytes() == (model / "config.json").read_bytes()
        )
        begin = time.monotonic()
        loaded = load(folder)
        assert time.monotonic() - begin < SECONDS
        if isinstance(loaded, Exception):
            counts["refused"] += 1
            assert str(folder) in str(loaded), loaded
            assert len(str(loaded)) < 2_000
        else:
            counts["loaded"] += 1
            assert not is_whole or torch.equal(loaded(tokens).logits, expected), path
        shutil.rmtree(folder)
    assert min(counts.values()) > 40, counts
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024 < MEGABYTES


def load(folder):
    try:
        return load_model(folder, cls=MsaForMaskedLM)
    except (ValueError, OSError) as error:
        return error
