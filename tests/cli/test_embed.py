"""The contract of `msa embed`: one file for all alignments, or a folder with a file each; the arrays are Python's."""

import json

import numpy as np
import pytest
from families import make_folder, make_model
from made_up import SHARED, real_data
from safetensors.numpy import load_file
from typer import Typer
from typer.testing import CliRunner

from modeling_msa import bundled_family, embed, load_model, read_alignment
from modeling_msa.cli.embed import embed_command

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "small")


def read(path):
    with np.load(path) as arrays:
        return dict(arrays)


def run(*arguments):
    app = Typer()
    app.command()(embed_command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_one_file_or_a_folder(folder, tmp_path):
    families = make_folder(tmp_path / "families", 3)
    options = ("--model", folder, "--layers", "1,-1", "--rows", 4)
    result = run(tmp_path / "families", "-o", tmp_path / "all.npz", *options)
    assert result.exit_code == 0, result.output
    result = run(tmp_path / "families", "-o", tmp_path / "each", "--format", "npz", *options)
    assert result.exit_code == 0, result.output
    whole = read(tmp_path / "all.npz")
    described = json.loads(whole.pop("__metadata__").item())
    assert list(described["families"]) == list(families)
    assert described["settings"]["model"] == str(folder)
    model = load_model(folder)
    for name, alignment in families.items():
        expected = embed(alignment, model, layers=(1, 2), rows=4)
        single = read(tmp_path / "each" / f"{name}.npz")
        for layer in (1, 2):
            key = f"{name}/layer_{layer}"
            assert np.array_equal(whole[key], expected.arrays[layer])
            assert np.array_equal(single[key], expected.arrays[layer])
    assert len(whole) == 6
    record = ".all.npz.msa-embed.jsonl"
    assert sorted(path.name for path in tmp_path.iterdir()) == [record, "all.npz", "each", "families"]


def test_command_on_the_embedded_model(tmp_path):
    result = run(bundled_family(), "-o", tmp_path / "fn3.npz", "--which", "mean", "--layers", "all", "--rows", 8)
    assert result.exit_code == 0, result.output
    arrays = read(tmp_path / "fn3.npz")
    settings = json.loads(arrays.pop("__metadata__").item())["settings"]
    assert sorted(arrays) == [f"fn3/layer_{layer}" for layer in range(5)]
    assert settings["model"] == "msa-tiny"
    expected = embed(read_alignment(bundled_family()), load_model(), which="mean", layers=(3,), rows=8)
    assert np.array_equal(arrays["fn3/layer_3"], expected.array)


@real_data
def test_command_on_real_files(tmp_path):
    paths = [SHARED / "msa" / name for name in ("1a3a_1_A.a3m", "gb1.a2m")]
    result = run(*paths, "-o", tmp_path / "all.safetensors", "--rows", 2, "--which", "mean")
    assert result.exit_code == 0, result.output
    arrays = load_file(tmp_path / "all.safetensors")
    assert {name: array.shape for name, array in arrays.items()} == {"1a3a_1_A": (64,), "gb1": (64,)}


def test_command_says_what_is_wrong(folder, tmp_path):
    make_folder(tmp_path / "families", 1)
    for options, message in (
        (("-o", tmp_path / "f.h5"), "use .safetensors, .npz or .parquet"),
        (("-o", tmp_path / "f.npz", "--layers", "x"), "0,6,-1, or all"),
        (("-o", tmp_path / "f.npz", "--layers", "9"), "unknown layer 9"),
        (("-o", tmp_path / "none" / "f.npz"), "does not exist"),
    ):
        result = run(tmp_path / "families", "--model", folder, *options)
        assert result.exit_code == 1
        assert result.output.startswith("error: "), result.output
        assert message in result.output
        assert "Traceback" not in result.output
