"""The contract of `msa embed`: one file for all alignments, or a folder with a file each; the arrays are Python's."""

import json

import numpy as np
import pytest
from families import make_folder, make_model
from made_up import SHARED, real_data
from safetensors import safe_open
from safetensors.numpy import load_file
from typer import Typer
from typer.testing import CliRunner

from modeling_msa import bundled_family, embed, load_model, read_alignment
from modeling_msa.cli.embed import embed_command

pytestmark = pytest.mark.usefixtures("one_thread")

ENDINGS = (".safetensors", ".npz", ".parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def run(*arguments):
    app = Typer()
    app.command()(embed_command)
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("ending", ENDINGS)
def test_command_gathers_and_fills_folders(folder, model, tmp_path, ending):
    """One file for all alignments, or a file each in a folder; the arrays are Python's."""
    families = make_folder(tmp_path / "families", 3)
    options = ("--model", folder, "--layers", "1,-1", "--rows", 4)
    result = run(tmp_path / "families", "-o", tmp_path / f"all{ending}", *options)
    assert result.exit_code == 0, result.output
    result = run(tmp_path / "families", "-o", tmp_path / "each", "--format", ending[1:], *options)
    assert result.exit_code == 0, result.output
    arrays, settings, described = read(tmp_path / f"all{ending}")
    assert list(described) == list(families)
    assert settings["model"] == str(folder)
    for name, alignment in families.items():
        expected = embed(alignment, model, layers=(1, 2), rows=4)
        single = read(tmp_path / "each" / f"{name}{ending}")[0]
        for layer in (1, 2):
            key = f"{name}/layer_{layer}"
            assert np.array_equal(arrays[key], expected.arrays[layer])
            assert np.array_equal(single[key], expected.arrays[layer])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["families", "each", f"all{ending}"])


def test_command_on_the_embedded_model(tmp_path):
    result = run(bundled_family(), "-o", tmp_path / "fn3.npz", "--which", "mean", "--layers", "all", "--rows", 8)
    assert result.exit_code == 0, result.output
    arrays, settings, _ = read(tmp_path / "fn3.npz")
    assert sorted(arrays) == [f"fn3/layer_{layer}" for layer in range(5)]
    assert settings["model"] == "msa-tiny"
    expected = embed(read_alignment(bundled_family()), load_model(), which="mean", layers=(3,), rows=8)
    assert np.array_equal(arrays["fn3/layer_3"], expected.array)


@real_data
def test_command_on_real_files(tmp_path):
    """Every shared alignment, by the embedded model; a query too long for it would be named."""
    result = run(SHARED / "msa", "-o", tmp_path / "all.safetensors", "--rows", 2, "--which", "mean")
    assert result.exit_code == 0, result.output
    paths = [path for path in (SHARED / "msa").rglob("*") if path.is_file() and ".a" in path.name]
    assert len(load_file(tmp_path / "all.safetensors")) == len(paths) > 0


def test_command_says_what_is_wrong(folder, tmp_path):
    make_folder(tmp_path / "families", 1)
    for options, message in (
        (("-o", tmp_path / "f.h5"), ".safetensors, .npz, .parquet"),
        (("-o", tmp_path / "f.npz", "--layers", "x"), "0,6,-1, or all"),
        (("-o", tmp_path / "f.npz", "--layers", "9"), "layer 9 is not there"),
        (("-o", tmp_path / "none" / "f.npz"), "no folder"),
    ):
        result = run(tmp_path / "families", "--model", folder, *options)
        assert result.exit_code == 1
        assert result.output.startswith("error: "), result.output
        assert message in result.output
        assert "Traceback" not in result.output
