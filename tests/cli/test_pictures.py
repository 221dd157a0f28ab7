"""Where --plot puts pictures: one file, a folder, or beside each output."""

from pathlib import Path

import pytest

from modeling_msa.cli.pictures import pictures


def test_pictures_of_one_and_of_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, several = ("contacts", True), ("contacts", False)
    assert pictures(None, *one) is None
    assert pictures("map.svg", *one)(Path("one.tsv")) == Path("map.svg")
    assert pictures("png", *one)(Path("one.tsv")) == Path("one.png")
    assert pictures(".pdf", *several)(Path("out/f1.tsv")) == Path("out/f1.contacts.pdf")
    assert pictures("drawn", *several)(Path("out/f1.tsv")) == Path("drawn/f1.contacts.png")
    assert not Path("drawn").exists()  # before there is a result
    with pytest.raises(ValueError, match=r"map.png is one file: pass a folder"):
        pictures("map.png", *several)
    with pytest.raises(ValueError, match=r"unknown picture format '.docx'"):
        pictures("map.docx", *one)
    with pytest.raises(ValueError, match="nowhere"):
        pictures("nowhere/map.png", *one)
