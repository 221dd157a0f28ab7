"""The command ``msa info``."""

import csv
import json

import pytest
from typer.testing import CliRunner

from modeling_msa.cli import app


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def families(tmp_path):
    folder = tmp_path / "families"
    folder.mkdir()
    (folder / "a.a3m").write_text(">a query\nMKVLA\n>b\nMKVLA\n>c\nMK--A\n")
    (folder / "b.a3m").write_text(">b query\nMKVL\n")
    return folder


def test_one_family_on_the_screen(families):
    output = msa("info", families / "a.a3m", "--filter-coverage", 80)
    assert "a query, 5 residues, 5 of them in columns\n" in output
    assert "rows        3; 2 pass the filters; the model would see 2\n" in output
    assert "Neff        1.3, of the rows seen 1.0 (theta 0.2)" in output  # MK--A is a neighbour of none, and has two
    assert "gaps        13 % of the columns' letters\n" in output
    assert "duplicates  1 row\n" in output
    assert "warning     There are few different homologs" in output


def test_tables_of_several(families, tmp_path):
    output = msa("info", families, "-o", tmp_path / "all.tsv", "--rows", 2)
    assert output.count("  query ") == 2
    with open(tmp_path / "all.tsv", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    assert [(line["query"], line["rows"], line["rows_seen"]) for line in table] == [
        ("a query", "3", "2"),
        ("b query", "1", "1"),
    ]
    msa("info", "fn3", "-o", tmp_path / "fn3.json")
    (found,) = json.loads((tmp_path / "fn3.json").read_text())
    assert (found["alignment"], found["rows"], len(found["coverage"])) == ("fn3", 1826, 80)


def test_a_complex(tmp_path):
    """Rows with residues in each chain, and residues by chain; from the file or the option."""
    rows = [("query", "MKVLAw-C"), ("both", "MKVLAWYC"), ("first", "MKV-----"), ("second", "----AWYC")]
    text = "".join(f">{name}\n{row}\n" for name, row in rows)
    (tmp_path / "c.fasta").write_text(text.replace("w", "W"))
    output = msa("info", tmp_path / "c.fasta", "--chains", "3,4", "--filter-coverage", 10, "-o", tmp_path / "c.json")
    assert "chains      A 3 residues, 3 rows; B 4 residues, 3 rows; residues in every chain: 2 rows\n" in output
    (found,) = json.loads((tmp_path / "c.json").read_text())
    assert found["residues"] == ["A:1", "A:2", "A:3", "B:1", "B:2", "B:3", "B:4"]
    assert (found["chains"], found["rows_in_all_chains"]) == ("A:3,B:4", 2)
    assert "chains of 3 and 5 residues have 8 together" in " ".join(
        msa("info", tmp_path / "c.fasta", "--chains", "3,5", code=1).split()
    )
    assert "  chains  " not in msa("info", tmp_path / "c.fasta")


def test_one_that_cannot_be_read_does_not_stop_the_others(families, tmp_path):
    (families / "aa.a3m").write_text(">q\nMK\n>r\nMKL\n")
    output = msa("info", families, "-o", tmp_path / "all.tsv", code=1)
    assert "1 of 3 alignments failed" in output
    assert "row 2 (r) has 3" in output.replace("\n", " ")
    assert len((tmp_path / "all.tsv").read_text().splitlines()) == 3
    output = msa("info", families, "-o", tmp_path / "other.tsv", "--strict", code=1)
    assert not (tmp_path / "other.tsv").exists()


def test_wrong_outputs(families, tmp_path):
    assert "unknown output format '.csv'" in msa("info", families, "-o", tmp_path / "all.csv", code=1)
    single = families / "a.a3m"
    text = single.read_text()
    (tmp_path / "x.tsv").write_text(text)
    assert "is an input" in msa("info", tmp_path / "x.tsv", "-o", tmp_path / "x.tsv", code=1)
    assert (tmp_path / "x.tsv").read_text() == text
    assert "--model" not in msa("info", "--help")
