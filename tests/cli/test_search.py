"""`msa search` writes what `search_homologues` returns, and says beforehand what it could not write."""

import numpy as np
import pytest
from made_up import SEED
from typer import Typer
from typer.testing import CliRunner

from modeling_msa import read_alignment, search_homologues
from modeling_msa.cli.search import search_command

pytest.importorskip("pyhmmer")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    family = read_alignment(SEED)
    (folder / "query.fasta").write_text(f">LAR the query\n{family.query}\n")
    rows = [f">{name}\n{row.replace('-', '')}\n" for name, row in family]
    (folder / "db.fasta").write_text("".join(rows[1:40]))
    return folder / "query.fasta", folder / "db.fasta"


def run(*arguments):
    app = Typer()
    app.command()(search_command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_every_format(inputs, tmp_path):
    found = search_homologues(*inputs, cpus=1, iterations=1)
    assert found.depth > 10
    for name in ("f.a3m", "f.a2m", "f.fasta", "f.sto", "f.a3m.gz"):
        result = run(*inputs, "-o", tmp_path / name, "--cpus", 1, "--iterations", 1)
        assert result.exit_code == 0, result.output
        assert np.array_equal(read_alignment(tmp_path / name).array, found.array)
    assert read_alignment(tmp_path / "f.a3m").raw_rows == found.raw_rows
    assert f"LAR the query, 86 residues, {found.depth} rows" in result.output


def test_refused(inputs, tmp_path):
    for name, message in (("f.txt", ".a3m, .a2m"), ("none/f.a3m", "does not exist")):
        result = run(*inputs, "-o", tmp_path / name)
        assert result.exit_code == 1
        assert message in result.output
    (tmp_path / "db.fasta").write_text(">a\nMK-VL\n")
    result = run(inputs[0], tmp_path / "db.fasta", "-o", tmp_path / "f.a3m", "--cpus", 1)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["db.fasta"]


def test_nothing_found(inputs, tmp_path):
    result = run(*inputs, "-o", tmp_path / "f.a3m", "--evalue", 1e-99, "--cpus", 1)
    assert result.exit_code == 0
    assert "warning: " in result.output
    assert read_alignment(tmp_path / "f.a3m").depth == 1
