"""The contract of row maps: the model's own attentions without <cls>, by chain, with what they are in the file."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from small import small_model

from modeling_msa import Alignment, MsaForMaskedLM, MsaModel, MsaTokenizer, row_maps, write_row_maps

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = ["MKVLAWYCDE", "MRVLGWYC-E", "MKILAWFCDE", "MRI-GWYCNE"]


def attentions(model, alignment, **more):
    """Layers and heads from 0, (layers, H, L, L) float16."""
    inputs = MsaTokenizer.for_config(model.config)(alignment, return_tensors="pt")
    with torch.no_grad():
        output = model.eval()(**inputs, output_attentions=True, **more)
    assert all(torch.allclose(maps.sum(-1), torch.ones(())) for maps in output.attentions)  # of a residue's row
    return torch.cat(output.attentions)[:, :, 1:, 1:].half().numpy()


@pytest.mark.parametrize("cls", [MsaModel, MsaForMaskedLM])
def test_they_are_the_models_attentions(cls):
    model, family = small_model(cls), Alignment.from_sequences(ROWS)
    expected = attentions(model, family)
    found = row_maps(family, model)
    layers, heads = expected.shape[:2]
    assert found.maps.dtype == np.float16
    assert np.array_equal(found.maps, expected)
    assert (found.layers, found.heads) == (tuple(range(1, layers + 1)), tuple(range(1, heads + 1)))
    assert np.abs(expected[0] - expected[0].transpose(0, 2, 1)).max() > 1e-3  # not symmetrised
    some = row_maps(family, model, layers=[layers, 1], heads=[2])
    assert np.array_equal(some.maps, expected[[layers - 1, 0]][:, [1]])
    assert np.array_equal(row_maps(family, model, layers=[1]).maps, expected[:1])


def test_rows_and_columns_are_those_of_the_other_tasks():
    """Columns in which the query has a gap are left out; residues keep their numbers."""
    family = Alignment.from_sequences(["mK-VLAW", "RMVLGW", "KAILAW"])
    model = small_model(MsaModel)
    found = row_maps(family, model, rows=2, select="first")
    seen = Alignment.from_sequences(["KVLAW", "RVLGW"])
    assert np.array_equal(found.maps, attentions(model, seen))
    assert (found.residues.tolist(), found.depth) == ([2, 3, 4, 5, 6], 2)


def test_layers_above_do_not_run(monkeypatch):
    model = small_model(MsaModel)
    ran = []
    forward = type(model.layers[0]).forward

    def counted(layer, *args, **kwargs):
        ran.append(layer)
        return forward(layer, *args, **kwargs)

    monkeypatch.setattr(type(model.layers[0]), "forward", counted)
    row_maps(Alignment.from_sequences(ROWS), model, layers=[1])
    assert len(ran) == 1


@pytest.mark.parametrize("name", ["m.npz", "m.NPZ", "m.safetensors"])
def test_files_say_what_they_hold(name, tmp_path):
    model = small_model(MsaModel)
    made = row_maps(Alignment.from_sequences(ROWS, ["q/1", "b", "c", "d"]), model, layers=[2], rows=3, seed=5)
    write_row_maps(made, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    if name.endswith("safetensors"):
        with safe_open(tmp_path / name, "np") as file:
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            described = json.loads(file.metadata()["row_maps"])
    else:
        with np.load(tmp_path / name, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
            described = json.loads(str(arrays.pop("__metadata__")))
    assert arrays.keys() == {"maps"}
    assert arrays["maps"].dtype == np.float16
    assert np.array_equal(arrays["maps"], made.maps)
    assert (described["query"], described["name"], described["residues"]) == (ROWS[0], "q/1", "1-10")
    assert (described["layers"], described["heads"]) == ([2], list(made.heads))
    assert (described["depth"], described["rows"], described["seed"], described["select"]) == (3, 3, 5, "diverse")
    assert described["symmetrised"] is described["corrected"] is False
    assert {"model", "version", "chains"} <= described.keys()
    with pytest.raises(ValueError, match=r"use \.npz or \.safetensors"):
        write_row_maps(made, tmp_path / "m.npy")


def test_blocks_of_a_complex(tmp_path):
    """A:B is how residues of A attend to those of B; the four blocks make up the whole; a gap moves positions."""
    model = small_model(MsaModel)
    pair = Alignment.from_sequences(ROWS, chains="A:6,B:4")
    made = row_maps(pair, model)
    whole = attentions(model, Alignment.from_sequences(ROWS))
    blocks = made.blocks()
    assert {name: block.shape[2:] for name, block in blocks.items()} == {
        "A:A": (6, 6),
        "A:B": (6, 4),
        "B:A": (4, 6),
        "B:B": (4, 4),
    }
    assert np.array_equal(blocks["A:B"], whole[:, :, :6, 6:])
    assert np.array_equal(blocks["B:A"], whole[:, :, 6:, :6])
    write_row_maps(made, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        assert np.array_equal(file["B:B"], whole[:, :, 6:, 6:])
        described = json.loads(str(file["__metadata__"]))
    assert (described["chains"], described["residues"]) == ("A:6,B:4", "A:1-6,B:1-4")
    gapped = row_maps(pair, model, chain_gap=3).maps
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13]])
    assert np.array_equal(gapped, attentions(model, Alignment.from_sequences(ROWS), position_ids=positions))
    assert not np.array_equal(gapped, made.maps)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"layers": [0]}, "there is no layer 0; this model has layers 1 to"),
        ({"heads": [99]}, "there is no head 99; this model has heads 1 to"),
        ({"layers": []}, "no layer was given"),
    ],
)
def test_what_does_not_exist_is_refused(how, words):
    with pytest.raises(ValueError, match=words):
        row_maps(Alignment.from_sequences(ROWS), small_model(MsaModel), **how)


def test_one_layer_is_in_memory_at_a_time(monkeypatch):
    """Float32 maps of layers that were visited are gone when the next layer has made its own."""
    import gc
    import weakref

    model = small_model(MsaModel)
    alive = []
    run = MsaModel.run_layers

    def watched(self, inputs, visit, **more):
        def look(index, states, maps):
            gc.collect()
            assert not any(each() is not None for each in alive)
            alive.append(weakref.ref(maps))
            visit(index, states, maps)

        return run(self, inputs, look, **more)

    monkeypatch.setattr(MsaModel, "run_layers", watched)
    row_maps(Alignment.from_sequences(ROWS), model)
    assert len(alive) == model.config.num_hidden_layers
