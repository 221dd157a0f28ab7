"""The contract of embedding files: arrays under the family's name, and how they were made; several merge into one.

They are read by the formats' own libraries.
"""

import json
import os
import resource
import sys
import zipfile

import numpy as np
import pyarrow.parquet
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from modeling_msa import Embeddings, write_embeddings
from modeling_msa.tasks.embedding_files import gather_embeddings

ENDINGS = (".safetensors", ".npz", ".parquet")


SETTINGS = {"model": "m", "select": "weighted", "dtype": "float32"}


def made_up(which, layers, name, query, residues, depth=3, dtype="float32"):
    """Embeddings of D = 8 numbers, all different."""
    shape = {"query": (len(residues), 8), "mean": (8,), "rows": (depth, len(residues), 8)}[which]
    random = np.random.default_rng(len(query))
    arrays = {layer: random.random(shape).astype(dtype) for layer in layers}
    settings = SETTINGS | {"which": which, "layers": list(layers), "dtype": dtype}
    return Embeddings(name, query, np.array(residues), tuple(f"{name} {k}" for k in range(depth)), arrays, settings)


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


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("which", "layers", "dtype"),
    [("query", (2,), "float32"), ("mean", (0, 2), "float16"), ("rows", (1, 2), "float32")],
)
def test_files(tmp_path, ending, which, layers, dtype):
    """What is read back is what was embedded, also after merging; metadata say how it was made."""
    results = {
        "P2.v1": made_up(which, layers, "q x", "MKVLAWY", [2, 3, 5, 6, 7], 2, dtype),
        "1abc_A": made_up(which, layers, "one", "MKVLAWYCDE", range(1, 11), 5, dtype),
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
        expected = {
            name if len(layers) == 1 else f"{name}/layer_{layer}": array
            for name, result in results.items()
            for layer, array in result.arrays.items()
        }
        assert arrays.keys() == expected.keys()
        for key, array in expected.items():
            assert arrays[key].dtype == dtype
            assert np.array_equal(arrays[key], array)
        assert settings == SETTINGS | {"which": which, "layers": list(layers), "dtype": dtype}
        assert list(families) == ["P2.v1", "1abc_A"]
        assert families["1abc_A"]["residues"] == "1-10"
        rest = {"row_names": ["q x 0", "q x 1"]} if which == "rows" else {}
        assert families["P2.v1"] == {"query": "q x", "length": 7, "residues": "2-3,5-7", "depth": 2} | rest
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in (*parts, whole, gathered))


def test_npz_is_numpys(tmp_path):
    """Nothing in it needs pickle, zip's own check passes, and names may end as its members do."""
    results = {name: made_up("query", (1,), "q", query, [1, 2]) for name, query in (("f", "MK"), ("f.npy", "MKV"))}
    for name, result in results.items():
        write_embeddings({name: result}, tmp_path / f"{name}.npz")
    gather_embeddings([tmp_path / f"{name}.npz" for name in results], tmp_path / "g.npz")
    with zipfile.ZipFile(tmp_path / "g.npz") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["f.npy", "f.npy.npy", "__metadata__.npy"]
        for name, result in results.items():
            with archive.open(f"{name}.npy") as entry:
                assert np.array_equal(np.lib.format.read_array(entry, allow_pickle=False), result.array)


def test_many_parts_need_few_open_files(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unused = os.open(os.devnull, os.O_RDONLY)
    os.close(unused)
    for ending in ENDINGS:
        parts = [tmp_path / f"f{k}{ending}" for k in range(40)]
        for part in parts:
            write_embeddings({part.stem: made_up("query", (1,), "q", "MK", [1, 2])}, part)
        resource.setrlimit(resource.RLIMIT_NOFILE, (unused + 20, hard))
        try:
            gather_embeddings(parts, tmp_path / f"all{ending}")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(read(tmp_path / f"all{ending}")[0]) == 40


def test_parquet_requires_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="requires pyarrow"):
        write_embeddings({"f": made_up("query", (1,), "q", "MK", [1, 2])}, tmp_path / "f.parquet")


def test_header_too_long_for_safetensors(tmp_path):
    result = made_up("query", (1,), "q", "MK", [1, 2])
    result.settings["model"] = "m" * 100_000_000  # the library's limit
    with pytest.raises(ValueError, match=r"cannot hold the names and settings .* write Parquet, or a folder of files"):
        write_embeddings({"f": result}, tmp_path / "f.safetensors")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_or_merged(tmp_path):
    result = made_up("query", (1,), "q", "MKV", [1, 2, 3])
    other = made_up("query", (1,), "q", "MKV", [1, 2, 3], dtype="float16")
    for families, name, message in (
        ({"f": result}, "f.h5", r"unknown output format '.h5'; use .safetensors, .npz or .parquet"),
        ({}, "f.npz", "no families"),
        ({"a/b": result}, "f.npz", "'a/b' cannot be a key"),
        ({"f": result, "g": other}, "f.npz", "g was embedded with other settings than f"),
    ):
        with pytest.raises(ValueError, match=message):
            write_embeddings(families, tmp_path / name)
    assert not list(tmp_path.iterdir())
    write_embeddings({"f": result}, tmp_path / "f.npz")
    write_embeddings({"g": other}, tmp_path / "g.npz")
    for parts, message in ((("f.npz", "g.npz"), "other settings"), (("f.npz", "f.npz"), "f is in an earlier file")):
        with pytest.raises(ValueError, match=message):
            gather_embeddings([tmp_path / part for part in parts], tmp_path / "all.npz")
    assert not (tmp_path / "all.npz").exists()
