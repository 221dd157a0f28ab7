"""The contract of embeddings: fair-esm's representations, without <cls>, of the rows that were chosen."""

import fair_esm
import numpy as np
import pytest
import torch
from families import family, make_model

from modeling_msa import Alignment, MsaForMaskedLM, embed, load_model, select_rows

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)


def test_equals_fair_esm(converted):
    """Layer 0, one between and the last, of the query, all rows and the mean, to 1e-5 of fair-esm's values."""
    theirs, folder = converted("msa-tiny")
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


def test_wrong_input(model):
    for arguments, message in (
        ({"layers": (3,)}, "unknown layer 3: this model has layers 0 .* to 2"),
        ({"layers": (-4,)}, "layer -4"),
        ({"layers": ()}, "no layer"),
        ({"which": "all"}, "query, mean, rows"),
        ({"dtype": "int8"}, "float32 or float16"),
    ):
        with pytest.raises(ValueError, match=message):
            embed(family("f", 3, 9, 0), model, **arguments)
