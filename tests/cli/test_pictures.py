"""Where --plot puts pictures: one file, a folder, or beside each output."""

from pathlib import Path

import pytest
from made_up import write_folder

from modeling_msa.cli.pictures import pictures
from modeling_msa.cli.runs import Run


def test_pictures_of_one_and_of_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    msas = write_folder(Path("msas"))
    one = Run([msas / "f1.a3m"], "one.tsv", ".tsv", command="contacts")
    assert pictures(None, one) is None
    assert pictures("map.svg", one)(Path("one.tsv")) == Path("map.svg")
    assert pictures("png", one)(Path("one.tsv")) == Path("one.png")
    several = Run([msas], "out", ".tsv", command="contacts")
    assert pictures(".pdf", several)(Path("out/f1.tsv")) == Path("out/f1.contacts.pdf")
    in_folder = pictures("drawn", several)
    assert not Path("drawn").exists()  # before there is a result
    assert in_folder(Path("out/f1.tsv")) == Path("drawn/f1.contacts.png")
    assert Path("drawn").is_dir()
    with pytest.raises(ValueError, match=r"map.png is one file: pass a folder"):
        pictures("map.png", several)
    with pytest.raises(ValueError, match=r"unknown picture format '.docx'"):
        pictures("map.docx", one)
    with pytest.raises(ValueError, match="nowhere"):
        pictures("nowhere/map.png", one)
