"""What would take all memory, time or disk ends soon and in words, and leaves the other results."""

import errno
import gzip
import lzma
import os
import signal
import sys
import time

import numpy as np
import pytest
from families import make_folder, make_model
from safetensors import SafetensorError
from typer.testing import CliRunner

from modeling_msa import AlignmentError, read_alignment, structure_contacts
from modeling_msa._main import main
from modeling_msa.alignments.known_contacts import load_contacts
from modeling_msa.alignments.listing import list_alignments, peek
from modeling_msa.cli import app
from modeling_msa.tasks import embedding_files

pytestmark = pytest.mark.usefixtures("one_thread")
ROW = b">q\n" + b"MKVLA" * 20 + b"\n"


@pytest.fixture(autouse=True)
def at_most_a_minute():
    """Nothing here may hang."""
    signal.alarm(60)
    yield
    signal.alarm(0)


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, (result.output, result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "small")


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_compressed_file_that_holds_too_much(compress, tmp_path, monkeypatch):
    """At most one byte more than the limit is decompressed."""
    path = tmp_path / "bomb.a3m.gz"
    path.write_bytes(compress(ROW * 40_000))  # 4.2 MB in 20 kB
    assert path.stat().st_size < 25_000
    assert read_alignment(path).depth == 40_000
    for how in ({"max_megabytes": 2}, {}):
        with pytest.raises(AlignmentError, match=r"more than 2 MB of text.*msa --max-megabytes N"):
            read_alignment(path, **how)
        monkeypatch.setenv("MSA_MAX_MEGABYTES", "2")
    assert "more than 2 MB" in msa("contacts", path, "-o", tmp_path / "c.tsv", code=1)
    assert peek(path).length == 100  # from its beginning
    monkeypatch.delenv("MSA_MAX_MEGABYTES")
    assert "more than 3 MB" in msa("--max-megabytes", "3", "contacts", path, "-o", tmp_path / "c.tsv", code=1)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_the_default_limit_holds_for_any_file(tmp_path):
    path = tmp_path / "large.a3m"
    with open(path, "wb") as file:
        file.write(ROW)
        file.truncate(250_000_001)
    begin = time.monotonic()
    with pytest.raises(AlignmentError, match="more than 250 MB of text"):
        read_alignment(path)
    assert time.monotonic() - begin < 10
    (tmp_path / "many.a3m").write_bytes(b">q\nM\n" * 10_002)
    with pytest.raises(AlignmentError, match="more than 10,000 rows"):
        read_alignment(tmp_path / "many.a3m", max_megabytes=1)


def test_compressed_structures_and_maps(tmp_path):
    atom = b"ATOM      1  CA  GLY A  41       3.800   0.000   0.000  1.00  0.00           C  \n"
    with gzip.open(tmp_path / "x.pdb.gz", "wb", compresslevel=1) as file:
        for _ in range(320):
            file.write(atom * 10_000)  # 259 MB in all
    with pytest.raises(ValueError, match=r"x.pdb.gz has more than 250 MB of text"):
        structure_contacts(tmp_path / "x.pdb.gz", "GGGG")
    np.savez_compressed(tmp_path / "x.npz", contacts=np.zeros((16_000, 16_000), dtype=np.int8))
    with pytest.raises(ValueError, match=r"x.npz: has more than 250 MB"):
        load_contacts(tmp_path / "x.npz", read_alignment(">q\nMKVL\n"))


def test_a_pipe_in_a_folder_is_one_failure(model, tmp_path):
    """Opening it would wait for ever for somebody to write."""
    make_folder(tmp_path / "families", 2)
    os.mkfifo(tmp_path / "families" / "pipe.a3m")
    output = msa("embed", tmp_path / "families", "-o", tmp_path / "out", "--model", model, "--rows", 4, code=1)
    assert "pipe.a3m: is not a regular file, but a pipe or a device" in output
    assert {path.name for path in (tmp_path / "out").glob("f*")} == {"f0.safetensors", "f1.safetensors"}
    os.mkfifo(tmp_path / "list.txt")
    os.mkfifo(tmp_path / "table.csv")
    for arguments in (
        ("score", "--all-singles", tmp_path / "families" / "pipe.a3m"),
        ("score", "--all-singles", tmp_path / "list.txt"),
        ("score", "fn3", tmp_path / "table.csv"),
        ("contacts", "fn3", "--format", "tsv", "--structure", tmp_path / "table.csv"),
    ):
        assert "is not a regular file" in msa(
            *arguments, "-o", tmp_path / ("x.tsv" if arguments[0] == "contacts" else "x.csv"), code=1
        )


def test_a_pipe_of_the_shell_is_read(model, tmp_path):
    """As in ``msa contacts <(zcat family.a3m.gz)``."""
    reading, writing = os.pipe()
    os.write(writing, b">q\nMKVLAMKVLA\n>r\nMKVLAMKVL-\n")
    os.close(writing)
    assert read_alignment(f"/dev/fd/{reading}").depth == 2
    os.close(reading)


def test_loops_of_links_end(tmp_path):
    """Each folder is listed once, also if links lead to it from each other."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.a3m").write_bytes(ROW)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "over").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a")
    assert sorted(path.name for path in list_alignments(tmp_path)) == ["a.a3m", "b.a3m"]
    (tmp_path / "self.a3m").symlink_to(tmp_path / "self.a3m")
    with pytest.raises(OSError, match=r"self\.a3m"):
        read_alignment(tmp_path / "self.a3m")


def test_a_header_of_megabytes_is_not_printed_whole(model, tmp_path):
    name = "n" * 10_000_000
    for rows, code in ((f">{name}\nMKVLAMKVLA\n>r\nMKVLAMKVL-\n", 0), (f">q\nMKVLA\n>{name}\nMK\n", 1)):
        (tmp_path / "x.a3m").write_text(rows)
        for output in ("c.tsv", "folder"):
            shown = msa("contacts", tmp_path / "x.a3m", "-o", tmp_path / output, "--model", model, code=code)
            assert len(shown) < 5_000
            assert "nnn ... " in shown
    (tmp_path / "x.a3m").write_text(f">{name}\nMKJLAMKVLA\n")  # a warning
    assert len(msa("contacts", tmp_path / "x.a3m", "-o", tmp_path / "c.tsv", "--model", model)) < 5_000


class Interrupted:
    """A module whose loading is interrupted."""

    def __getattr__(self, name):
        raise KeyboardInterrupt


def test_an_interruption_while_loading_is_no_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "modeling_msa.cli", Interrupted())
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_ends_the_run_in_words(error, model, tmp_path, monkeypatch):
    """Also where a library says so only in words; what was finished stays, and nothing half-written."""
    make_folder(tmp_path / "families", 3)
    save, calls = embedding_files.save_file, []

    def full(arrays, path, metadata):
        calls.append(path)
        save(arrays, path, metadata)
        if len(calls) == 2:
            os.truncate(path, 10)
            raise error

    monkeypatch.setattr(embedding_files, "save_file", full)
    command = ("embed", tmp_path / "families", "-o", tmp_path / "out", "--model", model)
    output = msa(*command, code=1)
    assert "error: the disk is full, so " in output
    assert "f1.safetensors was not written" in output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".msa-embed.jsonl", "f0.safetensors"]
    assert "1 of them finished before" in msa(*command)
