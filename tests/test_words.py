"""What is printed has its nouns in the right number."""

import re

import pytest
from families import family
from typer.testing import CliRunner

from modeling_msa import write_alignment
from modeling_msa.cli import app

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize(
    "command",
    [
        "contacts -o out.tsv",
        "score --all-singles -o out.csv",
        "embed -o out.npz",
        "generate -o out.a3m --iterations 1",
    ],
)
def test_one_row_of_one_residue(command, depth, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_alignment(family("f", depth, 1, 0), "f.a3m")
    name, *options = command.split()
    result = CliRunner().invoke(app, [name, "f.a3m", *options])
    assert result.exit_code == 0, result.output
    assert not re.search(r"\b1 \w*s\b", result.output), result.output
    assert f"{depth} of {depth} row{'s' * (depth > 1)}" in result.output or name == "generate"
