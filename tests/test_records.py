"""The contract of records: files are told apart by content, and a record that was cut costs work, not trust."""

import os
import time

import pytest

from modeling_msa import _records
from modeling_msa._records import Record, difference, is_same, state_of


def settled(path, text):
    """Write a file that was not touched for a while."""
    path.write_text(text)
    os.utime(path, ns=(time.time_ns() - 10**10,) * 2)
    return path


def test_a_file_is_what_its_content_is(tmp_path, monkeypatch):
    path = settled(tmp_path / "a", "abcd")
    state = state_of(path)
    # by `printf abcd | sha256sum`
    assert state["sha256"] == "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"
    assert is_same(settled(tmp_path / "b", "abcd"), state)
    assert not is_same(settled(tmp_path / "c", "abce"), state)
    assert not is_same(tmp_path / "none", state)
    monkeypatch.setattr(_records, "file_sha256", pytest.fail)
    assert is_same(path, state)  # is not read
    assert not is_same(settled(tmp_path / "d", "abc"), state)


def test_a_file_that_was_written_just_now_is_read_again(tmp_path):
    """The clock of files is coarse: two writes may have one date."""
    path = tmp_path / "a"
    path.write_text("abcd")
    found = path.stat()
    state = state_of(path)
    path.write_text("abce")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert not is_same(path, state)


def test_a_cut_line_is_left_out(tmp_path):
    record = Record(tmp_path / "record")
    assert record.read() == {}
    record.write([{"result": "a", "files": {}}, {"result": "b", "files": {}}])
    record.add({"result": "a", "files": {"a": 1}})
    with open(record.path, "a") as file:
        file.write('{"result": "c", "fil')
    assert record.read() == {"a": {"result": "a", "files": {"a": 1}}, "b": {"result": "b", "files": {}}}
    for line in ("[]", "null", "1", "{}"):
        record.path.write_text(f"{line}\n")
        assert record.read() == {}


def test_differences_in_words(tmp_path):
    one, other = (settled(tmp_path / name, name) for name in ("one", "other"))
    entry = {"settings": {"rows": 3, "mode": "fast"}, "sources": {"alignment": state_of(one), "chain": "A"}}
    same = {"rows": 3, "mode": "fast"}, {"alignment": one, "chain": "A"}
    assert difference(entry, *same) == ""
    assert difference(entry, {"rows": 4, "seed": 1}, same[1]) == (
        "mode was fast, is now none, rows was 3, is now 4, seed was none, is now 1"
    )
    changed = {"alignment": other, "chain": "B", "structure": one}
    assert difference(entry, same[0], changed) == (
        "the alignment has changed, chain was A, is now B, the structure is new"
    )
    assert difference(entry, same[0], {"chain": "A"}) == "the alignment is left out"
