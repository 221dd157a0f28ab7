"""The contract of `msa embed`: features are fair-esm's representations, without <cls>, of the rows that were chosen.

Each file holds them under the family's name and says how they were made; several files gather into one.
"""

import json
import zipfile

import fair_esm
import numpy as np
import pyarrow.parquet
import pytest
import torch
from families import family, make_folder, make_model
from made_up import SHARED, real_data
from safetensors import safe_open
from safetensors.numpy import load_file
from typer import Typer
from typer.testing import CliRunner

from modeling_msa import Alignment, MsaForMaskedLM, bundled_family, load_model, read_alignment, select_rows
from modeling_msa.cli.embed import embed_command
from modeling_msa.tasks.embeddings import embed, gather_embeddings, write_embeddings

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


def read(path):
    """Arrays by key, and the two JSON objects, by the formats' own libraries."""
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            metadata = file.metadata()
        return load_file(path), *(json.loads(metadata[key]) for key in ("settings", "families"))
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        metadata = json.loads(arrays.pop("__metadata__").item())
        return arrays, metadata["settings"], metadata["families"]
    table = pyarrow.parquet.read_table(path)
    metadata = table.schema.metadata
    settings, families = (json.loads(metadata[key]) for key in (b"settings", b"families"))
    names = np.array(table["name"].to_pylist())
    layers = [name for name in table.column_names if name.startswith("layer_")]
    arrays = {}
    for name in dict.fromkeys(names):
        for layer in layers:
            array = np.array(table[layer].to_pylist(), dtype=settings["dtype"])[names == name]
            if settings["which"] == "rows":
                array = array.reshape(families[name]["depth"], -1, array.shape[1])
                row = np.array(table["row"])[names == name].reshape(array.shape[:2])
                assert (row == np.arange(len(array))[:, None]).all()
            if settings["which"] == "mean":
                array = array[0]
            else:
                numbers = np.array(table["residue"])[names == name].reshape(array.shape[:-1])
                first, last = families[name]["residues"].split("-")[0], families[name]["residues"].split("-")[-1]
                assert (numbers[..., 0] == int(first)).all()
                assert (numbers[..., -1] == int(last)).all()
            arrays[name if len(layers) == 1 else f"{name}/{layer}"] = array
    return arrays, settings, families


@pytest.mark.parametrize("size", ["msa-tiny"])
def test_equals_fair_esm(converted, size):
    """Layer 0, one between and the last, of the query, all rows and the mean, to 1e-5 of fair-esm's values."""
    theirs, folder = converted(size)
    alignment = family("f", 9, 40, 1)
    tokens = fair_esm.tokens([list(alignment)])
    with torch.no_grad():
        states = theirs(tokens, repr_layers=[0, 2, 4])["representations"]
    model = load_model(folder, cls=MsaForMaskedLM)
    rows = embed(alignment, model, which="rows", layers=(0, 2, -1))
    query = embed(alignment, model, layers=(4, 2, 0))
    mean = embed(alignment, model, which="mean", layers=(-1, -3, -5))
    assert rows.layers == (0, 2, 4)
    assert query.layers == mean.layers == (4, 2, 0)
    for layer in (0, 2, 4):
        expected = states[layer][0, :, 1:].numpy()
        scale = max(1, np.abs(expected).max())
        assert rows.arrays[layer].shape == (9, 40, 64)
        for found, right in (
            (rows, expected),
            (query, expected[0]),
            (mean, expected[0].mean(0)),
        ):
            assert found.arrays[layer].dtype == np.float32
            assert np.abs(found.arrays[layer] - right).max() / scale < 1e-5


def test_is_what_the_model_returns(model):
    """All layers at once equal `hidden_states`; modes of its modules stay as they were."""
    alignment = family("f", 6, 20, 2)
    found = embed(alignment, model, which="rows", layers=range(3))
    tokens = fair_esm.tokens([list(alignment)])
    with torch.no_grad():
        states = model(tokens, output_hidden_states=True).hidden_states
    for layer, expected in enumerate(states):
        assert np.array_equal(found.arrays[layer], expected[0, :, 1:].numpy())
    alone = embed(alignment, model, which="rows", layers=(1,))
    assert np.array_equal(alone.array, found.arrays[1])
    with pytest.raises(ValueError, match="3 layers"):
        found.array  # noqa: B018
    training = [module.training for module in model.modules()]
    model.layers[0].train()
    assert np.array_equal(embed(alignment, model).array, found.arrays[2][0])
    assert model.layers[0].training
    model.eval()
    assert [module.training for module in model.modules()] == training


def test_layers_above_do_not_run(model):
    class Ran(Exception):
        pass

    def stop(*_):
        raise Ran

    hook = model.layers[1].register_forward_hook(stop)
    try:
        embed(family("f", 3, 9, 0), model, layers=(0, 1))
        with pytest.raises(Ran):
            embed(family("f", 3, 9, 0), model, layers=(2,))
    finally:
        hook.remove()


def test_residues_and_rows(model):
    """Insertions and columns without a query residue are absent; the rows are those of `select_rows`."""
    alignment = Alignment.from_sequences(["mkVL-AWY", "VIGAWY", "-LGAFF", "VLGAYY"], ["q x", "a", "b", "c"])
    found = embed(alignment, model, which="rows", rows=3)
    assert found.name == "q x"
    assert found.query == "MKVLAWY"
    assert found.residues.tolist() == [3, 4, 5, 6, 7]
    chosen = select_rows(alignment.drop_query_gaps(), 3)
    assert found.row_names == chosen.names
    assert found.depth == 3
    with torch.no_grad():
        expected = model(fair_esm.tokens([list(chosen)])).last_hidden_state[0, :, 1:].numpy()
    assert np.array_equal(found.array, expected)


def test_half_precision(folder):
    """A bfloat16 model gives float32 within bfloat16's precision; float16 is the rounded result."""
    alignment = family("f", 6, 20, 2)
    exact = embed(alignment, load_model(folder)).array
    rough = embed(alignment, load_model(folder, dtype="bfloat16")).array
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() / np.abs(exact).max() < 0.05
    half = embed(alignment, load_model(folder), dtype="float16").array
    assert np.array_equal(half, exact.astype(np.float16))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("which", "layers"), [("query", (-1,)), ("mean", (0, -1)), ("rows", (1, 2))])
def test_files(model, tmp_path, ending, which, layers):
    """What is read back is what was embedded, also after gathering; metadata say how it was made."""
    alignments = {"1abc_A": family("one", 5, 12, 1), "P2.v1": Alignment.from_sequences(["mKVl-AWY", "RVGAWY"])}
    results = {
        name: embed(each, model, which=which, layers=layers, select="weighted", seed=3)
        for name, each in alignments.items()
    }
    whole = tmp_path / f"whole{ending}"
    write_embeddings(results, whole)
    parts = [tmp_path / f"{name}{ending}" for name in results]
    for part, (name, result) in zip(parts, results.items(), strict=True):
        write_embeddings({name: result}, part)
    gathered = tmp_path / f"gathered{ending}"
    gather_embeddings(parts, gathered)
    for path in (whole, gathered):
        arrays, settings, families = read(path)
        expected = {}
        for name, result in results.items():
            for layer, array in result.arrays.items():
                expected[name if len(layers) == 1 else f"{name}/layer_{layer}"] = array
        assert arrays.keys() == expected.keys()
        for key, array in expected.items():
            assert arrays[key].dtype == np.float32
            assert np.array_equal(arrays[key], array)
        assert settings == results["1abc_A"].settings
        assert settings["select"] == "weighted"
        assert settings["layers"] == [layer % 3 for layer in layers]
        assert families["1abc_A"]["residues"] == "1-12"
        second = families["P2.v1"]
        rest = {"row_names": ["query", "row 2"]} if which == "rows" else {}
        assert second == {"query": "query", "length": 7, "residues": "2-3,5-7", "depth": 2} | rest
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*(path.name for path in parts), whole.name, gathered.name]
    )


def test_npz_is_numpys(model, tmp_path):
    """Nothing in it needs pickle, and zip's own check passes."""
    write_embeddings({"f": embed(family("f", 5, 12, 1), model)}, tmp_path / "f.npz")
    gather_embeddings([tmp_path / "f.npz"], tmp_path / "g.npz")
    with zipfile.ZipFile(tmp_path / "g.npz") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["f.npy", "__metadata__.npy"]


def test_wrong_input(model, tmp_path):
    alignment = family("f", 3, 9, 0)
    result = embed(alignment, model)
    for arguments, message in (
        ({"layers": (3,)}, "layer 3 is not there: this model has 0 .* to 2"),
        ({"layers": (-4,)}, "layer -4"),
        ({"layers": ()}, "no layer"),
        ({"which": "all"}, "query, mean, rows"),
        ({"dtype": "int8"}, "float32 or float16"),
    ):
        with pytest.raises(ValueError, match=message):
            embed(alignment, model, **arguments)
    for families, name, message in (
        ({"f": result}, "f.h5", ".safetensors, .npz, .parquet"),
        ({}, "f.npz", "no family"),
        ({"a/b": result}, "f.npz", "no name"),
        ({"f": result, "g": embed(alignment, model, rows=2)}, "f.npz", "g was embedded with other settings"),
    ):
        with pytest.raises(ValueError, match=message):
            write_embeddings(families, tmp_path / name)
    assert not list(tmp_path.iterdir())
    write_embeddings({"f": result}, tmp_path / "f.npz")
    write_embeddings({"g": embed(alignment, model, rows=2)}, tmp_path / "g.npz")
    for parts, message in ((("f.npz", "g.npz"), "other settings"), (("f.npz", "f.npz"), "f is in an earlier file")):
        with pytest.raises(ValueError, match=message):
            gather_embeddings([tmp_path / part for part in parts], tmp_path / "all.npz")
    assert not (tmp_path / "all.npz").exists()


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
