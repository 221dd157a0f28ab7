"""The contract of the commands that run a model over alignments.

Each reads what it should, says what is wrong with bad input and leaves nothing behind; two processes leave the files
of one.
"""

import csv
import gzip
import json
import lzma
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from families import make_folder, make_model
from made_up import LAUNCH, SHARED, real_data
from typer.testing import CliRunner

from modeling_msa import MsaForTokenClassification, bundled_family, read_alignment, write_alignment
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
# options of each command, before and after the name of its output
PER_ALIGNMENT = {
    "contacts": "-o {}.tsv --rows 4",
    "score": "-o {}.csv --rows 4 --all-singles --strategy wt-marginals",
    "report": "-o {}.html --rows 4 --baseline none",
    "profile": "-o {}.tsv --rows 4 --mode fast",
    "jacobian": "-o {}.tsv --rows 4",
    "embed": "-o {}.npz --rows 4",
    "generate": "-o {}.a3m --rows 4 --iterations 1",
    "distances": "-o {}.phy --rows 12",
    "predict": "-o {}.tsv --rows 4",
    "pair": "-o {}.a3m --rows 4 --rounds 1",
}
MODEL_ARGUMENT = {}  # of the commands whose first argument is a model
PARTNER = {}  # of the commands whose second argument is a second alignment
MORE = {}  # options with files
COMMANDS = pytest.mark.parametrize("name", PER_ALIGNMENT)


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module", autouse=True)
def _model_with_a_head(tmp_path_factory):
    """For `msa predict`, which has no use for the embedded model."""
    folder = tmp_path_factory.mktemp("head")
    PARTNER["pair"] = folder / "partner.a3m"
    fn3 = read_alignment(bundled_family())
    write_alignment(fn3.take([0, *range(20, 0, -1)]), PARTNER["pair"])
    with open(folder / "species.csv", "w", newline="") as file:
        names = [(name, f"s{k // 2}") for k, name in enumerate(fn3.names[1:21])]
        csv.writer(file).writerows([("name", "species"), *names])
    MORE["pair"] = ["--species", str(folder / "species.csv")]
    MODEL_ARGUMENT["predict"] = make_model(folder, MsaForTokenClassification, max_position_embeddings=512)


def command(name, *alignments, output, more=()):
    model = [MODEL_ARGUMENT[name]] if name in MODEL_ARGUMENT else []
    if model and "--model" in more:
        model, more = more[-1:], ()
    alignments = (*alignments[:1], PARTNER[name]) if name in PARTNER else alignments
    if not model and "--model" not in more:
        more = ("--model", "msa-tiny", *more)
    return [name, *model, *alignments, *PER_ALIGNMENT[name].format(output).split(), *MORE.get(name, ()), *more]


def contents(folder):
    """Files by name; of NumPy's archives the arrays, since a zip file knows when it was written, as does a record."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = {key: arrays[key].tobytes() for key in arrays}
        elif path.suffix == ".jsonl":
            found[path.name] = [json.loads(line)["result"] for line in path.read_text().splitlines()]
        elif path.is_file():
            found[path.name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def family():
    return read_alignment(bundled_family()).drop_query_gaps().take(range(16))


def test_every_format_gives_the_same_contacts(family, tmp_path):
    for kind, ending in (("a3m", "a3m"), ("a2m", "a2m"), ("fasta", "fasta"), ("stockholm", "sto")):
        write_alignment(family, tmp_path / f"{kind}.{ending}", kind)
    data = (tmp_path / "a3m.a3m").read_bytes()
    (tmp_path / "zipped.a3m.gz").write_bytes(gzip.compress(data))
    (tmp_path / "packed.a3m.xz").write_bytes(lzma.compress(data))
    (tmp_path / "named.dat").write_bytes(data)
    inputs = sorted(tmp_path.iterdir())
    inputs.remove(tmp_path / "named.dat")
    more = ["--rows", 4, "--model", "msa-tiny"]
    msa("contacts", *inputs, "-o", tmp_path / "maps", *more)
    msa("contacts", tmp_path / "named.dat", "-o", tmp_path / "maps" / "named.tsv", *more, "--input-format", "a3m")
    maps = {path.stem: path.read_text() for path in (tmp_path / "maps").glob("*.tsv")}
    assert set(maps) == {"a3m", "a2m", "fasta", "stockholm", "zipped", "packed", "named"}
    assert len(set(maps.values())) == 1


@COMMANDS
def test_every_command_reads_the_bundled_family(name, tmp_path):
    msa(*command(name, "fn3", output=tmp_path / "out"))
    assert [path for path in tmp_path.iterdir() if path.stem == "out"]


@COMMANDS
def test_bundled_names_beside_folders_of_these_names(name, tmp_path, monkeypatch):
    """One alignment goes into one file, by an embedded model, and each warning is shown once."""
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b/fn3", "b/msa-tiny"):
        Path(folder).mkdir(parents=True)
    for folder in ("a", "b"):
        monkeypatch.chdir(tmp_path / folder)
        output = msa(*command(name, "fn3", output="out"))
    assert output.count("pass ./fn3 for the folder") == 1
    assert output.count("pass ./msa-tiny for the folder") == (name not in MODEL_ARGUMENT)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@real_data
@COMMANDS
def test_every_command_reads_real_alignments(name, tmp_path):
    if name in PARTNER:
        pytest.skip("reads two alignments; see test_pair.py")
    files = [SHARED / "msa" / file for file in ("1a3a_1_A.a3m", "6exz.a3m", "gb1.a2m")]
    arguments = command(name, *files, output="x")
    arguments[arguments.index("-o") + 1] = tmp_path / ("all.npz" if name == "embed" else "results")
    msa(*arguments)
    if name == "embed":
        with np.load(tmp_path / "all.npz") as arrays:
            assert len(arrays) == 4  # the metadata too
    else:
        results = [path for path in (tmp_path / "results").iterdir() if not path.name.startswith(".")]
        assert {path.name.split(".")[0] for path in results} == {"1a3a_1_A", "6exz", "gb1"}


@COMMANDS
def test_bad_input_ends_in_words(name, tmp_path):
    (tmp_path / "ragged.a3m").write_text(">query\nMKVL\n>other\nMKVLA\n")
    output = msa(*command(name, tmp_path / "ragged.a3m", output=tmp_path / "out"), code=1)
    assert re.search(r"ragged.a3m: row 2 \(other\) has 5", output.replace("\n", " "))
    assert "none.a3m" in msa(*command(name, tmp_path / "none.a3m", output=tmp_path / "out"), code=1)
    assert "nowhere" in msa(*command(name, bundled_family(), output=tmp_path / "nowhere" / "out"), code=1)
    more = ["--model", str(tmp_path)]
    assert "config.json" in msa(*command(name, bundled_family(), output=tmp_path / "out", more=more), code=1)
    if name != "generate":
        output = msa(*command(name, bundled_family(), output=tmp_path / "out", more=["-o", "out.docx"]), code=1)
        assert "unknown output format '.docx'" in output
    assert [path.name for path in tmp_path.iterdir()] == ["ragged.a3m"]


def test_two_processes_leave_the_files_of_one(tmp_path):
    make_folder(tmp_path / "families", count=6)
    (tmp_path / "families" / "f6.a3m").write_text("")
    arguments = ["embed", str(tmp_path / "families"), "--rows", "8", "--model", "msa-tiny", "-o"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    program = [sys.executable, *LAUNCH, "-m", "modeling_msa.cli", *arguments, str(tmp_path / "two" / "all.npz")]
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    result = subprocess.run(
        program,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert result.stderr.count("1 of 7 alignments failed, the others are finished") == 1
    assert all(f"f{k}: " in result.stdout for k in range(6))
    assert len(re.findall(r"^f\d: .* residues", result.stdout, re.M)) == 6  # none was made twice
    msa(*arguments, tmp_path / "one" / "all.npz", code=1)
    for part in ("", ".all.npz.parts"):
        assert contents(tmp_path / "two" / part) == contents(tmp_path / "one" / part)
