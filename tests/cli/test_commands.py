"""The contract of all commands together.

Each reads every format, real alignments and the bundled family; its help shows an example that works as it stands; bad
input ends in words and leaves nothing. A run over 30 alignments that is killed and started again, and one that two
processes share, leave the files of an uncut run of one.
"""

import gzip
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from families import make_folder
from made_up import SHARED, real_data
from test_runs import LAUNCH
from typer.main import get_command
from typer.testing import CliRunner

from modeling_msa import bundled_family, load_model, predict_contacts, read_alignment, write_alignment
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
# what to say after `msa`, before and after the alignments
PER_ALIGNMENT = {
    "contacts": ("contacts", ["-o", "{}.tsv", "--rows", "4"]),
    "score": ("score", ["-o", "{}.csv", "--rows", "4", "--all-singles", "--strategy", "wt-marginals"]),
    "embed": ("embed", ["-o", "{}.npz", "--rows", "4"]),
    "generate": ("generate", ["-o", "{}.a3m", "--rows", "4", "--iterations", "1"]),
    "distances": ("distances", ["-o", "{}.phy", "--rows", "12"]),
}
COMMANDS = pytest.mark.parametrize("name", PER_ALIGNMENT)


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


def command(name, *alignments, output, more=()):
    name, options = PER_ALIGNMENT[name]
    return [name, *alignments, *(str(option).format(output) for option in options), *more]


def environment():
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def contents(folder):
    """Files by name; of NumPy's archives the arrays, since a zip file knows when it was written."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                found[path.name] = {key: arrays[key].tobytes() for key in arrays}
        else:
            found[path.name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def family():
    return read_alignment(bundled_family()).drop_query_gaps().take(range(16))


@COMMANDS
def test_every_command_reads_every_format(name, family, tmp_path):
    made = {}
    for kind, ending in (("a3m", "a3m"), ("a2m", "a2m"), ("fasta", "fasta"), ("stockholm", "sto")):
        write_alignment(family, tmp_path / f"{kind}.{ending}", kind)
        msa(*command(name, tmp_path / f"{kind}.{ending}", output=tmp_path / f"from_{kind}"))
        made[kind] = tmp_path / f"from_{kind}"
    data = (tmp_path / "a3m.a3m").read_bytes()
    (tmp_path / "zipped.a3m.gz").write_bytes(gzip.compress(data))
    (tmp_path / "packed.a3m.xz").write_bytes(lzma.compress(data))
    for file in ("zipped.a3m.gz", "packed.a3m.xz"):
        msa(*command(name, tmp_path / file, output=tmp_path / f"from_{file}"))
    msa(*command(name, bundled_family(), output=tmp_path / "from_bundled"))
    if name in ("contacts", "score", "distances"):  # the others' files carry the alignment's name
        ending = PER_ALIGNMENT[name][1][1].removeprefix("{}")
        sizes = {kind: len(Path(f"{path}{ending}").read_text().splitlines()) for kind, path in made.items()}
        assert len(set(sizes.values())) == 1
        numbers = {}
        for kind, path in made.items():
            numbers[kind] = [float(x) for x in re.findall(r"-?\d+\.\d{4,}", Path(f"{path}{ending}").read_text())]
            np.testing.assert_allclose(numbers[kind], numbers["a3m"], atol=2e-6)
        assert len(numbers["a3m"]) > 16


@real_data
@COMMANDS
def test_every_command_reads_real_alignments(name, tmp_path):
    folder = SHARED / "msa"
    count = len(list(folder.iterdir()))
    arguments = command(name, folder, output="x")
    arguments[arguments.index("-o") + 1] = tmp_path / ("all.npz" if name == "embed" else "results")
    msa(*arguments)
    if name == "embed":
        with np.load(tmp_path / "all.npz") as arrays:
            assert len(arrays) == count + 1  # and the metadata
    else:
        results = [path for path in (tmp_path / "results").iterdir() if not path.name.startswith(".")]
        assert len({path.name.split(".")[0] for path in results}) == count


@COMMANDS
def test_bad_input_ends_in_words(name, tmp_path):
    (tmp_path / "ragged.a3m").write_text(">query\nMKVL\n>other\nMKVLA\n")
    output = msa(*command(name, tmp_path / "ragged.a3m", output=tmp_path / "out"), code=1)
    assert re.search(r"ragged.a3m: row 2 \(other\) has 5", output.replace("\n", " "))
    assert [path.name for path in tmp_path.iterdir()] == ["ragged.a3m"]
    assert "no such file" in msa(*command(name, tmp_path / "none.a3m", output=tmp_path / "out"), code=1)
    output = msa(*command(name, bundled_family(), output=tmp_path / "nowhere" / "out"), code=1)
    assert "no folder" in output
    more = ["--model", str(tmp_path)]
    assert "error: " in msa(*command(name, bundled_family(), output=tmp_path / "out", more=more), code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["ragged.a3m"]


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory, family):
    """What the examples of the help texts name."""
    folder = tmp_path_factory.mktemp("examples")
    write_alignment(family, folder / "family.a3m")
    make_folder(folder / "families", count=3)
    (folder / "query.fasta").write_text(f">LAR\n{family.query}\n")
    probable = predict_contacts(family, load_model())  # contacts that some weight of the regression explains
    known = np.zeros(probable.probabilities.shape, dtype=np.int8)
    known[tuple(probable.top(len(known)).T)] = 1
    np.save(folder / "family.npy", known | known.T)
    (folder / "families.tsv").write_text("family.a3m\tfamily.npy\n")
    rows = read_alignment(bundled_family())
    (folder / "database.fasta").write_text("".join(f">{name}\n{row.replace('-', '')}\n" for name, row in rows))
    return folder


def examples():
    """Each command's example, but for those that need the network."""
    found = {name: re.findall(r"^\s*Example: msa (.*)$", each.help or "", re.M) for name, each in commands().items()}
    assert not [name for name, lines in found.items() if name not in ("train", "convert") and not lines]
    left_out = ("train", "convert", "push")
    return [(name, line) for name, lines in found.items() for line in lines if name not in left_out]


def commands():
    return get_command(app).commands


@pytest.mark.parametrize(("name", "line"), examples())
def test_examples_of_the_help_texts_work(name, line, example_folder, monkeypatch):
    monkeypatch.chdir(example_folder)
    msa(*line.split())


def test_a_killed_command_is_gone_on_with(tmp_path):
    make_folder(tmp_path / "families", count=30)
    program = [sys.executable, "-m", "modeling_msa.cli", "contacts", str(tmp_path / "families"), "--rows", "8", "-o"]
    with subprocess.Popen([*program, str(tmp_path / "cut")], env=environment(), stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while len(list(tmp_path.glob("cut/f*.tsv"))) < 8:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("cut/f*.tsv")}
    assert 8 <= len(before) < 30
    again = subprocess.run([*program, str(tmp_path / "cut")], env=environment(), capture_output=True, check=True)
    assert f"30 alignments, {len(before)} of them before" in again.stdout.decode()
    assert {name: (tmp_path / "cut" / name).stat().st_mtime_ns for name in before} == before  # none made twice
    msa("contacts", tmp_path / "families", "--rows", "8", "-o", tmp_path / "uncut")
    assert contents(tmp_path / "cut") == contents(tmp_path / "uncut")


def test_two_processes_leave_the_files_of_one(tmp_path):
    make_folder(tmp_path / "families", count=7)
    program = tmp_path / "program.py"
    program.write_text("import os\nfrom modeling_msa.cli import app\nassert os.environ['WORLD_SIZE'] == '2'\napp()\n")
    launcher = [sys.executable, *LAUNCH, str(program)]
    for name, output in (("contacts", "maps"), ("embed", "all.npz")):
        for folder, start in (("one", None), ("two", launcher)):
            (tmp_path / folder).mkdir(exist_ok=True)
            arguments = [name, str(tmp_path / "families"), "--rows", "8", "-o", str(tmp_path / folder / output)]
            if start is None:
                msa(*arguments)
            else:
                subprocess.run([*start, *arguments], env=environment(), check=True, timeout=300)
    assert contents(tmp_path / "two" / "maps") == contents(tmp_path / "one" / "maps")
    shutil.rmtree(tmp_path / "one" / "maps")
    shutil.rmtree(tmp_path / "two" / "maps")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_matmul_precision_is_pytorchs_and_a_setting_of_the_results(tmp_path, monkeypatch):
    family = tmp_path / "family.a3m"
    write_alignment(read_alignment(bundled_family()).drop_query_gaps(), family)
    arguments = ("contacts", family, tmp_path / "families", "-o", tmp_path / "maps", "--rows", 4)
    make_folder(tmp_path / "families", count=1)
    seen = []
    monkeypatch.setattr("modeling_msa.cli.contacts.load", lambda *_: seen.append(torch.get_float32_matmul_precision()))
    try:
        CliRunner().invoke(app, list(map(str, ("--matmul-precision", "medium", *arguments))))
        assert seen == ["medium"]
        monkeypatch.undo()
        msa("--matmul-precision", "medium", *arguments)
        assert "settings" in msa(*arguments, code=1)
        assert torch.get_float32_matmul_precision() == "highest"  # without the option
    finally:
        torch.set_float32_matmul_precision("highest")
