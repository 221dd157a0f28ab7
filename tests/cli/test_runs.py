"""The contract of a run over many alignments.

A result that exists is whole and is not made again; an interrupted run continues and leaves what an uninterrupted one
leaves; one bad alignment is named and does not end the run.
"""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_up import write_folder

from modeling_msa import read_alignment
from modeling_msa._files import whole_file
from modeling_msa.cli.runs import Run, RunError

ROOT = Path(__file__).resolve().parents[2]
# A task that leaves a trace of each call in a file, one line each, before and after its work.
PROGRAM = """
import signal, sys, time
from pathlib import Path

from modeling_msa import read_alignment
from modeling_msa._files import whole_file
from modeling_msa.cli.runs import Run

folder, output, stop_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
begun = []
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored

def note(text):
    with open(folder / "trace", "a") as file:
        file.write(text + "\\n")

def work(path, target):
    note(f"begin {path.stem}")
    begun.append(path)
    with whole_file(target) as temporary:
        temporary.write_text("half")
        if len(begun) == stop_at:  # until it is interrupted
            time.sleep(100)
        temporary.write_text("\\n".join(read_alignment(path).sequences))
    note(f"end {path.stem}")

Run([folder / "msas"], folder / output, ".txt", command="copy", settings={"rows": 3})(work)
"""


def copy(path, target):
    with whole_file(target) as temporary:
        temporary.write_text("\n".join(read_alignment(path).sequences))
    return f"copied {path.stem}"


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def started(folder, output, stop_at):
    """Start the program, which waits in alignment `stop_at` (0: in none); called msa, it does without torch."""
    (folder / "msa").write_text(PROGRAM)
    command = [sys.executable, str(folder / "msa"), str(folder), output, str(stop_at)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def msas(tmp_path):
    return write_folder(tmp_path / "msas")


def test_one_file_into_one_file(msas, tmp_path, capsys):
    run = Run([msas / "f1.a3m"], tmp_path / "one.txt", ".txt")
    assert run.is_single
    run(copy)
    assert capsys.readouterr().out == "copied f1\n"
    assert (tmp_path / "one.txt").read_text().splitlines() == read_alignment(msas / "f1.a3m").sequences
    assert sorted(path.name for path in tmp_path.iterdir()) == ["msas", "one.txt"]
    folder = Run([msas / "f1.a3m"], tmp_path / "new", ".txt")  # no ending: a folder
    folder(copy)
    assert (tmp_path / "new" / "f1.txt").read_text() == (tmp_path / "one.txt").read_text()
    (msas / "f1.a3m").write_text(">q\nMK\n>r\nMKL\n")
    with pytest.raises(ValueError, match="row 2"):
        Run([msas / "f1.a3m"], tmp_path / "one.txt", ".txt")(copy)


def test_a_second_run_makes_what_is_missing_or_older_than_its_alignment(msas, tmp_path, capsys):
    output = tmp_path / "out"
    Run([msas], output, ".txt", command="copy", settings={"rows": 3})(copy)
    assert capsys.readouterr().out.splitlines()[-1] == f"{output}: 6 alignments"
    assert set(contents(output)) == {".msa-copy.jsonl"} | {f"f{k}.txt" for k in range(6)}
    (output / "f2.txt").unlink()
    (msas / "f4.a3m").write_text(">q\nMKVL\n")
    again = Run([msas], output, ".txt", command="copy", settings={"rows": 3})
    assert [path.stem for path in again.pending] == ["f2", "f4"]
    again(copy)
    shown = capsys.readouterr()
    assert shown.out.splitlines() == ["copied f2", "copied f4", f"{output}: 6 alignments, 4 of them finished before"]
    assert shown.err.splitlines() == [
        "made again, because NAME.txt is missing or was changed: f2",
        "made again, because the alignment has changed: f4",
    ]
    Run([msas], output, ".txt", command="copy", settings={"rows": 3})(pytest.fail)  # is not called


def test_results_of_other_settings_are_made_again(msas, tmp_path, capsys):
    output = tmp_path / "out"
    Run([msas], output, ".txt", command="copy", settings={"rows": 3, "model": "a"})(copy)
    with pytest.raises(ValueError, match=r"f0\.txt is a result of another command"):
        Run([msas], output, ".txt", command="other", settings={"rows": 4})
    Run([msas], output, ".csv", command="other", settings={"rows": 4})
    assert len(contents(output)) == 7  # nothing is changed before work begins
    run = Run([msas], output, ".txt", command="copy", settings={"rows": 4, "model": "a"})
    assert len(run.pending) == 6

    def stop(path, target):
        raise KeyError(path)

    with pytest.raises(KeyError):
        run(stop)
    assert "because rows was 3, is now 4: f0, f1, f2 and 3 more" in capsys.readouterr().err
    # cut so, the next run must not take the old results for its own, whichever settings it has
    for rows in (3, 4):
        assert len(Run([msas], output, ".txt", command="copy", settings={"rows": rows, "model": "a"}).pending) == 6
    assert not (output / "f0.txt").exists()


def test_settings_are_compared_for_each_result(msas, tmp_path):
    output = tmp_path / "out"
    Run([msas], output, ".txt", settings={"rows": 3})(copy)
    Run([msas / "f1.a3m"], output, ".txt", settings={"rows": 4})(copy)
    pending = {rows: Run([msas], output, ".txt", settings={"rows": rows}).pending for rows in (3, 4)}
    assert [path.stem for path in pending[3]] == ["f1"]
    assert [path.stem for path in pending[4]] == ["f0", "f2", "f3", "f4", "f5"]


def test_files_of_no_run_are_not_taken_for_results(msas, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "f3.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"f3.txt exists, but no run of msa copy .*--overwrite"):
        Run([msas], tmp_path / "out", ".txt", command="copy")
    assert len(Run([msas], tmp_path / "out", ".txt", command="copy", overwrite=True).pending) == 6
    assert (tmp_path / "out" / "f3.txt").read_text() == "mine"


def test_other_files_that_are_read_are_not_replaced(msas, tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "f2.csv").write_text("mutant\nA1V\n")
    with pytest.raises(ValueError, match="input files that would be replaced"):
        Run([msas], tables, ".csv", depends=lambda path: {"table": tables / "f2.csv"}, overwrite=True)
    with pytest.raises(ValueError, match="is an input, and would be replaced"):
        Run([msas / "f1.a3m"], tables / "f2.csv", ".csv", also_read=[None, tables / "f2.csv"])
    with pytest.raises(ValueError, match="is an input, and would be replaced"):
        Run([msas], tables / "f2.csv", ".csv", also_read=[tables / "f2.csv"], gather=print)


def test_an_input_that_changes_while_it_is_read_has_no_result(msas, tmp_path):
    def work(path, target):
        copy(path, target)
        if path.stem == "f2":
            path.write_text(">q\nMK\n")

    with pytest.raises(RunError, match=r"f2.a3m: the alignment was changed while it was read; run the command again"):
        Run([msas], tmp_path / "out", ".txt")(work)
    assert not (tmp_path / "out" / "f2.txt").exists()
    assert [path.stem for path in Run([msas], tmp_path / "out", ".txt").pending] == ["f2"]


def test_a_model_that_changes_while_it_is_loaded_is_not_used(msas, tmp_path):
    (tmp_path / "weights").write_text("1")
    run = Run([msas], tmp_path / "out", ".txt", made_from=lambda: {"weights": tmp_path / "weights"})
    (tmp_path / "weights").write_text("2")
    with pytest.raises(ValueError, match="weights was changed while this command started"):
        run(copy)


def test_one_run_at_a_time_writes_to_an_output(msas, tmp_path):
    """A second one is refused, whatever its options; when the first has ended, no trace of the lock is left."""
    for output, how in ((tmp_path / "out", {}), (tmp_path / "all.txt", {"gather": write_all})):
        refused = []

        def work(path, target, output=output, how=how, refused=refused):
            with pytest.raises(
                ValueError, match="is being written by another msa command: wait for it to end"
            ) as error:
                Run([msas], output, ".txt", settings={"rows": 9}, **how)(copy)
            refused.append(error)
            copy(path, target)

        Run([msas], output, ".txt", **how)(work)
        assert len(refused) == 6
    assert not list(tmp_path.rglob("*.lock"))


def write_all(parts, output):
    output.write_text(json.dumps([part.read_text() for part in parts]))
    return [output]


def test_results_within_the_folder_of_inputs_are_no_inputs(msas, capsys):
    def write(path, target):
        with whole_file(target) as temporary:
            temporary.write_bytes(path.read_bytes())

    Run([msas], msas / "new", ".a3m")(write)
    again = Run([msas], msas / "new", ".a3m")
    assert len(again.paths) == 6
    assert again.pending == []


def test_bad_alignments_are_named_and_counted(msas, tmp_path, capsys):
    (msas / "f1.a3m").write_text(">q\nMK\n>r\nMKL\n")
    (msas / "f3.a3m").write_text("")
    with pytest.raises(RunError, match="2 of 6 alignments failed") as error:
        Run([msas], tmp_path / "out", ".txt")(copy)
    assert [path.stem for path in error.value.failed] == ["f1", "f3"]
    assert "row 2 (r) has 3 match columns" in str(error.value)
    assert "failed: " in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*.txt"))) == 4
    with pytest.raises(ValueError, match=r"f1.a3m: row 2"):
        Run([msas], tmp_path / "out", ".txt", strict=True)(copy)


def test_lines_are_written_whole(msas, tmp_path, monkeypatch):
    """Processes share one unbuffered output: a line in two writes would be cut by another process's line."""
    writes = []
    monkeypatch.setattr(sys.stdout, "write", lambda text: writes.append(text) or len(text))
    Run([msas], tmp_path / "out", ".txt", command="copy", settings={})(copy)
    lines = [text for text in writes if text.startswith("copied")]
    assert len(lines) == 6
    assert all(line.endswith("\n") for line in lines)


def test_a_full_disk_or_a_bug_ends_the_run(msas, tmp_path):
    for error in (OSError(errno.ENOSPC, "no space"), RuntimeError("a bug")):

        def work(path, target, error=error):
            raise error

        with pytest.raises(type(error)):
            Run([msas], tmp_path / "out", ".txt")(work)


def test_too_little_memory_is_a_failure_of_one_alignment(msas, tmp_path):
    def work(path, target):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    with pytest.raises(RunError, match="6 of 6"):
        Run([msas], tmp_path / "out", ".txt")(work)


def test_gathering_into_one_file(msas, tmp_path):
    good = (msas / "f2.a3m").read_text()
    (msas / "f2.a3m").write_text("")
    with pytest.raises(RunError):
        Run([msas], tmp_path / "all.json", ".txt", gather=write_all)(copy)
    assert len(json.loads((tmp_path / "all.json").read_text())) == 5
    (msas / "f2.a3m").write_text(good)
    run = Run([msas], tmp_path / "all.json", ".txt", gather=write_all)
    assert [path.stem for path in run.pending] == ["f2"]
    run(copy)
    expected = ["\n".join(read_alignment(msas / f"f{k}.a3m").sequences) for k in range(6)]
    assert json.loads((tmp_path / "all.json").read_text()) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == [".all.json.msa-run.jsonl", "all.json", "msas"]
    again = Run([msas], tmp_path / "all.json", ".txt", gather=pytest.fail)
    assert again.pending == []
    again(pytest.fail)


def test_outputs_that_cannot_be(msas, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere does not exist"):
        Run([msas], tmp_path / "nowhere" / "out", ".txt")
    with pytest.raises(ValueError, match="several alignments require a folder"):
        Run([msas], tmp_path / "out.txt", ".txt")
    with pytest.raises(ValueError, match="one file: pass a file name"):
        Run([msas], msas, ".txt", gather=print)
    for inputs, output in (([msas], msas), ([msas / "f1.a3m"], msas / "f1.a3m")):
        with pytest.raises(ValueError, match="would be replaced"):
            Run(inputs, output, ".a3m", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["msas"]
    assert len(list(msas.iterdir())) == 6


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_continues(tmp_path, how):
    folder = tmp_path
    msas = write_folder(folder / "msas", count=20)
    process = started(folder, "out", 8)
    deadline = time.monotonic() + 120
    while not (folder / "trace").exists() or (folder / "trace").read_text().count("begin") < 8:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(how)
    messages = process.communicate()[1]
    done = {path.stem for path in (folder / "out").glob("*.txt") if not path.name.startswith(".")}
    assert len(done) == 7
    if how == signal.SIGINT:
        assert f"stopped: {len(done)} of 20 finished; the same command continues" in messages
    again = started(folder, "out", 0)
    shown, messages = again.communicate(timeout=120)
    assert again.returncode == 0, messages
    assert f"20 alignments, {len(done)} of them finished before" in shown
    Run([msas], folder / "uncut", ".txt", command="copy", settings={"rows": 3})(copy)
    made = {path.name: path.read_text() for path in (folder / "out").glob("f*.txt")}
    assert made == {path.name: path.read_text() for path in (folder / "uncut").glob("f*.txt")}
    assert sorted(path.name for path in (folder / "out").iterdir()) == [".msa-copy.jsonl", *sorted(made)]
    begun = [line.split()[1] for line in (folder / "trace").read_text().splitlines() if line.startswith("begin")]
    assert {name for name in begun if begun.count(name) > 1}.isdisjoint(done)
