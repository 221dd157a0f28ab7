"""The contract of the scripts in examples/: they write what training reads."""

import sys
from pathlib import Path

import numpy as np
import pytest

from modeling_msa import MsaTokenizer, load_alignments, read_alignment

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
ROWS = [["MKV-L", "M-VAL"], ["ACDEFGH", "-CDXFGB", "ACDEF--"]]


@pytest.fixture
def archive(tmp_path):
    """Two families as token ids, and the table of their sources."""
    vocabulary = MsaTokenizer().get_vocab()
    ids = [vocabulary[letter] for rows in ROWS for row in rows for letter in row]
    shapes = [(len(rows), len(rows[0])) for rows in ROWS]
    np.savez(tmp_path / "training.npz", tokens=np.array(ids, np.uint8), shapes=shapes, weights=[1.0, 2.0])
    lines = ["source\tfile\tlicence\trows\tcolumns\tweight", "a/b\tsome file (1).sto\tMIT\t2\t5\t1.0"]
    lines.append("c/d\tPF1.a3m\tMIT\t3\t7\t2.0")
    (tmp_path / "training.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path / "training.npz"


def convert(monkeypatch, *arguments):
    import training_families

    monkeypatch.setattr(sys, "argv", ["training_families.py", *map(str, arguments)])
    training_families.main()


def test_families_of_an_archive(archive, tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    convert(monkeypatch, archive, tmp_path / "made", "--families-per-shard", "1")
    files = sorted((tmp_path / "made" / "alignments").iterdir())
    assert [file.name for file in files] == ["000_some_file_1_.a3m", "001_PF1.a3m"]
    assert [read_alignment(file).sequences for file in files] == ROWS
    assert len(list((tmp_path / "made" / "shards").glob("*.parquet"))) == 2
    rows = load_alignments(tmp_path / "made" / "shards", streaming=True)
    assert [row["sequences"] for row in rows] == ROWS
    assert (tmp_path / "made" / "training.tsv").read_text().count("MIT") == 2


def test_an_archive_that_is_cut_off(archive, tmp_path, monkeypatch):
    content = dict(np.load(archive))
    np.savez(archive, **content | {"tokens": content["tokens"][:-1]})
    with pytest.raises(SystemExit, match="do not belong together, or are cut off"):
        convert(monkeypatch, archive, tmp_path / "made")
    np.savez(archive, **content | {"tokens": np.full_like(content["tokens"], 1)})  # <pad>
    with pytest.raises(SystemExit, match="tokens that are not letters"):
        convert(monkeypatch, archive, tmp_path / "made")
    assert not (tmp_path / "made").exists()
