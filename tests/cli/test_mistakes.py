"""What a first user gets wrong: the error says what to do, comes before work starts, and leaves nothing."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ok.a3m").write_text(">q\nMKVLAWYC\n>r\nMRVLAWYC\n")
    Path("unaligned.fasta").write_text(">a\nMKVLAWY\n>b\nMKVL\n>c\nMKVLAWYCDEF\n")
    for name in ("1abc.pdb", "1abc.cif.gz"):
        Path(name).write_text("HEADER    X\n")
    Path("empty").mkdir()
    Path("msas").mkdir()
    for name in ("a", "b"):
        Path("msas", f"{name}.a3m").write_bytes(Path("ok.a3m").read_bytes())


def run(line, code=1):
    result = CliRunner().invoke(app, shlex.split(line), prog_name="msa")
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return " ".join(result.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "contacts ok.a3m 1abc.pdb -o o.tsv",
            "1abc.pdb is a structure, not an alignment: pass it to msa contacts with",
        ),
        ("embed 1abc.cif.gz -o o.npz", "1abc.cif.gz is a structure, not an alignment"),
        ("contacts ok.a3m -o o.tsv --model 1abc.pdb", "1abc.pdb is a file, not the folder of a model. Convert"),
        ("export ok.a3m -o o.onnx", "ok.a3m is a file, not the folder of a model. Convert a fair-esm checkpoint"),
        ("contacts empty -o o.tsv", "empty: the folder has no alignment"),
        ("embed unaligned.fasta -o o.npz", "1 of 1 alignment failed: unaligned.fasta: row 2 (b) has 4 columns"),
        ("contacts ok.a3m -o nowhere/o.tsv", "the folder nowhere does not exist"),
        ("evaluate-contacts msas -o o.tsv", "pass the folder of their structures too (structures, --structures)"),
        ("train ok.a3m", "ok.a3m is not a recipe, a YAML file of keys and values"),
        ("score 1abc.pdb t.csv -o o.csv", "t.csv: no such file"),
    ],
)
def test_wrong_files(line, words, here):
    before = sorted(os.listdir())
    assert words in run(line)
    assert sorted(os.listdir()) == before


def test_options(here):
    assert "'nonsense' is not one of 'auto', 'float32'" in run("contacts ok.a3m -o o.tsv --dtype nonsense", code=2)
    assert "--rows" in run("contacts ok.a3m -o o.tsv --row 3", code=2)
    for line in ("-h", "contacts -h", "train -h"):
        assert "Example: msa" in run(line, code=0) or line == "-h"
    assert "1 alignment in 1 shard" in run("pack fn3 -o shards", code=0)


@pytest.mark.parametrize(
    ("package", "line", "extra"),
    [
        ("matplotlib", "contacts msas -o out --plot png", "plot"),
        ("gemmi", "contacts msas -o out --structure 1abc.pdb", "structure"),
        ("sklearn", "distances msas -o out", "train"),
        ("pyarrow", "embed msas -o out.parquet", "train"),
        ("pyhmmer", "search ok.a3m unaligned.fasta -o out.a3m --query-name q", "search"),
        ("onnxruntime", "export msa-tiny -o out.onnx", "export"),
        ("peft", "train continue-family --lora_r 4 --max_steps 1 --output_dir out", "train"),
    ],
)
def test_missing_extras_are_named(package, line, extra, here, monkeypatch):
    for name in {package, *(name for name in sys.modules if name.startswith(f"{package}."))}:
        monkeypatch.setitem(sys.modules, name, None)
    before = sorted(os.listdir())
    assert f"pip install 'modeling-msa[{extra}]'" in run(line)
    assert sorted(os.listdir()) == before
