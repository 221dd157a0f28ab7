"""The files that a command line names: each once, in its order; what does not exist is named."""

import sys
from pathlib import Path

import pytest
from made_up import write_folder

from modeling_msa import bundled_family
from modeling_msa.cli.inputs import list_inputs, list_known, list_structures, require


@pytest.fixture
def msas(tmp_path):
    return write_folder(tmp_path / "msas")


def test_inputs_are_files_folders_patterns_and_lists(msas, tmp_path, monkeypatch):
    (tmp_path / "list.txt").write_text("# some\nmsas/f4.a3m\nmsas/f0.a3m\n")
    names = [path.stem for path in list_inputs([msas / "f5.a3m", f"{msas}/f[12].a3m", tmp_path / "list.txt", msas])]
    assert names == ["f5", "f1", "f2", "f4", "f0", "f3"]
    monkeypatch.chdir(tmp_path)
    assert len(list_inputs(["**/*.a3m"])) == 6
    assert [path.name for path in list_inputs(["fn3"])] == ["fn3.a3m"]
    with pytest.raises(FileNotFoundError, match=r"msas/g\*.a3m: no file matches"):
        list_inputs(["msas/g*.a3m"])
    with pytest.raises(FileNotFoundError, match=r"nowhere.a3m"):
        list_inputs(["nowhere.a3m"])
    (msas / "f0.sto").write_text("# STOCKHOLM 1.0\nq MK\n//\n")
    with pytest.raises(ValueError, match=r"f0.a3m and .*f0.sto are both named f0"):
        list_inputs([msas])


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: write_folder(path, count=2)])
def test_a_bundled_name_is_the_bundled_family(make, tmp_path, monkeypatch):
    """`msa train --output_dir fn3` makes a folder fn3; it is ./fn3."""
    monkeypatch.chdir(tmp_path)
    make(Path("fn3"))
    with pytest.warns(UserWarning, match=r"fn3 is the family that comes with the package; pass \./fn3 for the f"):
        assert list_inputs(["fn3"]) == [bundled_family()]
    own = [Path("fn3/f0.a3m"), Path("fn3/f1.a3m")] if Path("fn3").is_dir() else [Path("fn3")]
    for path in ("./fn3", "f*3", tmp_path / "fn3", Path("fn3").resolve()):
        assert [each.resolve() for each in list_inputs([path])] == [each.resolve() for each in own]


def test_results_below_the_folder_of_inputs_are_not_inputs(msas):
    write_folder(msas / "new", count=2)
    assert len(list_inputs([msas], leave_out=msas / "new")) == 6


def test_structures_of_one_or_by_name(tmp_path):
    (tmp_path / "f1.pdb").touch()
    assert list_structures(None) == {}
    assert list_structures(tmp_path / "f1.pdb") == {"": tmp_path / "f1.pdb"}
    assert list_structures(tmp_path) == {"f1": tmp_path / "f1.pdb"}
    with pytest.raises(FileNotFoundError, match=r"f2.pdb: no such file"):
        list_structures(tmp_path / "f2.pdb")
    require(None, tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        require(Path("nowhere"))


def test_structures_require_their_extra(msas, tmp_path, monkeypatch):
    """The error comes before work starts, and not for contact maps, which NumPy reads."""
    monkeypatch.setitem(sys.modules, "gemmi", None)
    (tmp_path / "f1.pdb.gz").touch()
    for read in (lambda: list_structures(tmp_path / "f1.pdb.gz"), lambda: list_known(msas, tmp_path)):
        with pytest.raises(ImportError, match=r"gemmi: pip install 'modeling-msa\[structure\]'"):
            read()
    (tmp_path / "f1.pdb.gz").unlink()
    (tmp_path / "f1.npy").touch()
    assert list_structures(tmp_path / "f1.npy") == {"": tmp_path / "f1.npy"}
    assert len(list_known(msas, tmp_path)) == 1


def test_alignments_without_a_structure_are_noted(msas, tmp_path, capsys):
    (tmp_path / "f1.pdb").touch()
    assert [family.alignment.stem for family in list_known(msas, tmp_path)] == ["f1"]
    assert "note: 5 of 6 alignments have no structure" in capsys.readouterr().err
