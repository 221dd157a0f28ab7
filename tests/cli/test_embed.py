"""The contract of `msa embed`: one file for all alignments, or a folder with a file each; the arrays are Python's."""

import json

import numpy as np
import pytest
from families import make_folder, make_model
from made_up import SHARED, real_data
from safetensors.numpy import load_file
from typer import Typer
from typer.testing import CliRunner

from modeling_msa import bundled_family, embed, embed_variants, load_model, read_alignment
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
    assert sorted(arrays) == [f"fn3/layer_{layer}" for layer in range(9)]
    assert settings["model"] == "msa-small"
    expected = embed(read_alignment(bundled_family()), load_model(), which="mean", layers=(3,), rows=8)
    assert np.array_equal(arrays["fn3/layer_3"], expected.array)


@real_data
def test_command_on_real_files(tmp_path):
    paths = [SHARED / "msa" / name for name in ("1a3a_1_A.a3m", "gb1.a2m")]
    result = run(*paths, "-o", tmp_path / "all.safetensors", "--rows", 2, "--which", "mean", "--model", "msa-tiny")
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


def test_variants_are_named_as_in_the_table(folder, tmp_path):
    """One file of one alignment, a folder of several; what does not fit is left out, or refused with its line."""
    families = make_folder(tmp_path / "families", 2)
    (tmp_path / "tables").mkdir()
    names = {}
    for name, each in families.items():
        query = each.query
        names[name] = [f"{query[1]}2W", f"{query[1]}2A:{query[4]}5D", f"{query[2]}3*"]
        (tmp_path / "tables" / f"{name}.csv").write_text("id,variant\n" + "".join(f"1,{v}\n" for v in names[name]))
    options = ("--model", folder, "--rows", 4, "--variant-column", "variant", "--which", "both", "--layers", "1,-1")
    one, table = tmp_path / "families" / "f0.a3m", tmp_path / "tables" / "f0.csv"
    result = run(one, "--variants", table, "-o", tmp_path / "one.npz", "--mode", "fast", *options)
    assert result.exit_code == 0, result.output
    assert "2 of 3 variants, 4 of" in result.output
    assert "1 variant has no embedding" in result.output
    whole = read(tmp_path / "one.npz")
    described = json.loads(whole.pop("__metadata__").item())
    assert described["settings"]["mode"] == "fast"
    model = load_model(folder)
    expected = embed_variants(families["f0"], names["f0"], model, which="both", layers=(1, 2), mode="fast", rows=4)
    assert sorted(whole) == sorted(f"{name}/layer_{layer}" for name in names["f0"][:2] for layer in (1, 2))
    for k, name in enumerate(names["f0"][:2]):
        for layer in (1, 2):
            assert np.array_equal(whole[f"{name}/layer_{layer}"], expected.arrays[layer][k])
    result = run(tmp_path / "families", "--variants", tmp_path / "tables", "-o", tmp_path / "each", *options)
    assert result.exit_code == 0, result.output
    exact = embed_variants(families["f1"], names["f1"], model, which="both", layers=(1, 2), rows=4)
    second = load_file(tmp_path / "each" / "f1.safetensors")
    assert np.array_equal(second[f"{names['f1'][1]}/layer_2"], exact.arrays[2][1])
    for arguments, words in (
        ((one, "--variants", table, "-o", tmp_path / "x.npz", "--which", "rows"), "--which rows is not for variants"),
        ((one, "-o", tmp_path / "x.npz", "--which", "mutated"), "--which mutated is for variants"),
        ((one, table, "-o", tmp_path / "x.npz"), "is a table, not an alignment: pass a table of variants with"),
        ((one, "--variants", tmp_path / "none.csv", "-o", tmp_path / "x.npz"), "none.csv: no such file"),
        (
            (tmp_path / "families", "--variants", tmp_path / "tables", "-o", tmp_path / "x.npz"),
            "variants of several alignments have the same names; pass a folder",
        ),
        ((one, "--variants", table, "-o", tmp_path / "x.npz"), "there is no column 'mutant'"),
    ):
        result = run(*arguments, "--model", folder)
        assert result.exit_code == 1, result.output
        assert words in " ".join(result.output.split())
    table.write_text(f"mutant\n{names['f0'][0]}\n{'A' if families['f0'].query[1] != 'A' else 'C'}2W\n")
    result = run(one, "--variants", table, "-o", tmp_path / "x.npz", "--model", folder)
    assert result.exit_code == 1
    assert "f0.csv: " in result.output
    assert "line 3" in result.output
    assert not (tmp_path / "x.npz").exists()
