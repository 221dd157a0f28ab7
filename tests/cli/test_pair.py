"""`msa pair`: what it writes and says, and what it refuses before any work."""

import csv
from pathlib import Path

import pytest
from families import make_folder, make_model
from made_up import SEED
from typer.testing import CliRunner

from modeling_msa import Alignment, read_alignment, write_alignment
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")


def msa(line, code=0):
    result = CliRunner().invoke(app, line.split())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.a3m").write_text(">q\nMKVL\n>1_ECOLI\nMRVL\n>2_YEAST\t0.9\nMKIL\n>3_HUMAN\nMaKWL\n>4_HUMAN\nMRWL\n")
    Path("b.sto").write_text("# STOCKHOLM 1.0\nq WYC\n5_HUMAN WYS\n6_HUMAN AYC\n7_YEAST WFC\n8_ECOLI WF.\n//\n")
    make_model("model")


def partners(name):
    with open(f"{name}.partners.tsv", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_by_the_model(here):
    said = msa("pair a.a3m b.sto -o ab.a3m --model model")
    assert "ab.a3m, ab.partners.tsv: 5 pairs (1 query, 2 single, 2 model); 3 species in both by entry name" in said
    assert "without a partner: 0 rows of a, 0 rows of b" in said
    assert Path("ab.a3m").read_text().startswith("#4,3\t1,1\n>q\tq\nMKVLWYC\n>1_ECOLI\t8_ECOLI\nMRVLWF-\n")
    rows = partners("ab")
    assert [(row["name_a"], row["row_b"], row["by"]) for row in rows[:3]] == [
        ("q", "1", "query"),
        ("1_ECOLI", "5", "single"),
        ("2_YEAST 0.9", "4", "single"),
    ]
    assert {row["row_b"] for row in rows[3:]} == {"2", "3"}
    assert all(float(row["loss"]) > 0 and float(row["margin"]) >= 0 for row in rows[3:])
    # the table is one of known pairs
    said = msa("pair a.a3m b.sto -o again.fasta --pairs ab.partners.tsv --method species")
    assert "5 pairs (1 query, 4 known)" in said
    assert read_alignment("again.fasta").sequences == read_alignment("ab.a3m").sequences


def test_other_methods_need_no_model(here):
    for method, number in (("species", 3), ("rank", 4)):
        said = msa(f"pair a.a3m b.sto -o {method}.a3m --method {method} --model nowhere --keep-unpaired")
        assert f": {number} pairs (1 query, 2 single" in said
        assert read_alignment(f"{method}.a3m").depth == 10 - number


def test_a_table_of_species_and_a_family_of_pfam(here):
    Path("species.csv").write_text("name,species\n1_ECOLI,coli\n5_HUMAN,coli\n3_HUMAN,man\n")
    said = msa("pair a.a3m b.sto -o ab.a3m --species species.csv --method species")
    assert "2 pairs (1 query, 1 single); 1 species in both by table" in said
    assert "entry name (_ECOLI)" in msa(f"pair {SEED} b.sto -o fn3.a3m --method rank")
    assert [tuple(chain) for chain in read_alignment("fn3.a3m").chains] == [("A", 86), ("B", 3)]


def test_folders_are_paired_by_name(here):
    for folder, seed in (("one", 0), ("two", 5)):
        for name, family in make_folder(Path(folder), 2, seed).items():
            rows = [f"{folder.upper()}{k}_SPEC{k}" for k in range(family.depth)]
            write_alignment(Alignment.from_sequences(family.sequences, rows), Path(folder, f"{name}.a3m"))
    said = msa("pair one two -o out --method species")
    assert "out: 2 alignments" in said
    assert {path.name for path in Path("out").glob("*.a3m")} == {"f0.a3m", "f1.a3m"}
    assert "2 of them finished before" in msa("pair one two -o out --method species")
    Path("two", "f1.a3m").unlink()
    Path("two", "f2.a3m").write_bytes(Path("two", "f0.a3m").read_bytes())
    assert "one/f1.a3m: there is no alignment named f1 in two" in msa("pair one two -o new", code=1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.a3m a.a3m", "a.a3m is the first and the second alignment: pass those of two different proteins"),
        ("a.a3m copy.a3m --method rank", "a.a3m and copy.a3m are the same alignment"),
        ("a.a3m bare.a3m", "bare.a3m: no header names a species; read are TaxID="),
        ("a.a3m b.sto --species twice.csv", "twice.csv: lines 2 and 3 both list '1_ECOLI' as name"),
        ("a.a3m b.sto --species nowhere.csv", "nowhere.csv: no such file"),
        ("a.a3m b.sto --species few.csv", "b.sto: no row is in the table of species"),
        ("a.a3m b.sto --pairs pairs.csv", "pairs.csv, line 2: no row is named 'nobody' in b.sto"),
        ("a.a3m b.sto --pairs few.csv", "few.csv: there is no column 'name_a'; line 1 must name the columns name_a"),
        (
            "a.a3m complex.a3m",
            "complex.a3m: each alignment to pair is for one protein, but this is a complex of A:2,B:2",
        ),
        (
            "a.a3m long.a3m --model model",
            "have 4 and 61 aligned residues, 65 together, but the model reads at most 63",
        ),
        ("a.a3m b.sto --method best", "Invalid value for '--method'"),
    ],
)
def test_what_is_refused(line, words, here):
    Path("copy.a3m").write_bytes(Path("a.a3m").read_bytes())
    Path("bare.a3m").write_text(">q\nMKV\n>row 2\nMKV\n")
    Path("twice.csv").write_text("name,species\n1_ECOLI,a\n1_ECOLI,b\n")
    Path("few.csv").write_text("name,species\n1_ECOLI,a\n")
    Path("pairs.csv").write_text("name_a,name_b\n1_ECOLI,nobody\n")
    Path("complex.a3m").write_text("#2,2\t1,1\n>q\nMKVL\n>X_ECOLI\nMKVL\n")
    Path("long.a3m").write_text(f">q\n{'MKV' * 20}A\n>X_ECOLI\n{'MKV' * 20}A\n")
    before = sorted(Path().iterdir())
    code = 2 if "Invalid" in words else 1
    assert words in msa(f"pair {line} -o out.a3m", code=code).replace("│ ", "")
    assert sorted(Path().iterdir()) == before


def test_outputs_are_no_inputs(here):
    assert "b.sto is an input" in msa("pair a.a3m b.sto -o b.sto", code=1)
    assert "unknown output format '.docx'" in msa("pair a.a3m b.sto -o ab.docx", code=1)
