"""The contract of `modeling_msa.tasks.context`: what is read of one row is what the whole model gives.

`query_states` is the model, to 1e-5. `row_states` is the model too where nothing is approximated: without other rows,
and for a version that is masked as a whole, since that is how the others see it. For any other version it is what the
module says is approximated, written out below in plain sums over an MSA with both rows, the version and its masked
copy. Blocks, order and memory change nothing.
"""

import math

import pytest
import torch
from small import difference, random_tokens, small_model

from modeling_msa import MsaForMaskedLM, MsaModel
from modeling_msa.tasks import context
from modeling_msa.tasks.context import context_layers, query_states, row_states

pytestmark = pytest.mark.usefixtures("one_thread")
MASK = 32
ROW_EMBEDDINGS = (16, 1, None)
per_row_embedding = pytest.mark.parametrize("width", ROW_EMBEDDINGS)


def versions_of(tokens, row, count, seed=0):
    """Versions of a row of tokens (1, R, C), each with some residues replaced or masked; and a column of each."""
    random = torch.Generator().manual_seed(seed)
    columns = tokens.shape[2]
    versions = tokens[0, row].repeat(count, 1)
    changed = torch.rand(versions.shape, generator=random) < 0.3
    versions[changed] = torch.randint(4, 33, (int(changed.sum()),), generator=random)
    versions[:, 0] = 0
    return versions, torch.randint(0, columns, (count,), generator=random)


def written_out(model, tokens, version, row):
    """Last hidden states (C, D) of a version (C,) of one row: an MSA of R + 1 rows in which not all see all."""
    weights = {name: value.double() for name, value in model.state_dict().items()}
    heads, layers = model.config.num_attention_heads, model.config.num_hidden_layers
    masked = tokens[0].clone()
    masked[row, 1:] = MASK
    rows, columns = masked.shape
    depth = rows  # not rows + 1: version and copy are the same row
    msa = torch.cat([masked, version[None]])
    # who sees whom: the copy and the others see each other, the version itself and the others
    sees = torch.ones(rows + 1, rows + 1, dtype=torch.bool)
    sees[:rows, rows] = False
    sees[rows, row] = False

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def split(x):
        return x.view(rows + 1, columns, heads, -1)

    x = weights["embeddings.word_embeddings.weight"][msa]
    x = x + weights["embeddings.position_embeddings.weight"][torch.arange(columns) + 2]
    if model.config.row_position_embedding_size is not None:
        table = weights["embeddings.row_position_embeddings.weight"]
        x = x + table[torch.tensor([*range(rows), row])][:, None]
    x = norm(x, "embeddings.layer_norm")
    for k in range(layers):
        name = f"layers.{k}.row_attention"
        normed = norm(x, f"{name}.layer_norm")
        q, key, v = (split(linear(normed, f"{name}.{part}_proj")) for part in "qkv")
        shares = torch.einsum("rihk,rjhk->rhij", q, key) / math.sqrt(q.shape[-1] * depth)
        updates = []
        for r in range(rows + 1):
            maps = shares[sees[r]].sum(0).softmax(-1)
            updates.append(torch.einsum("hij,jhk->ihk", maps, v[r]).flatten(1))
        x = x + linear(torch.stack(updates), f"{name}.out_proj")
        name = f"layers.{k}.column_attention"
        normed = norm(x, f"{name}.layer_norm")
        q, key, v = (split(linear(normed, f"{name}.{part}_proj")) for part in "qkv")
        logits = torch.einsum("rchk,schk->chrs", q, key) / math.sqrt(q.shape[-1])
        maps = logits.masked_fill(~sees, -math.inf).softmax(-1)
        x = x + linear(torch.einsum("chrs,schk->rchk", maps, v).flatten(2), f"{name}.out_proj")
        name = f"layers.{k}.feed_forward"
        inner = linear(norm(x, f"{name}.layer_norm"), f"{name}.fc1")
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        x = x + linear(inner, f"{name}.fc2")
    return norm(x, "layer_norm")[rows]


@per_row_embedding
@pytest.mark.parametrize("row", [0, 2, 5])
def test_versions_are_what_is_written_out(width, row):
    model = small_model(MsaModel, num_hidden_layers=3, row_position_embedding_size=width).double()
    tokens = random_tokens(6, 13)
    versions, places = versions_of(tokens, row, 9)
    expected = torch.stack([written_out(model, tokens, version, row) for version in versions])
    result = row_states(model, context_layers(model, tokens, row), versions, row=row)
    assert result.dtype == torch.float64
    assert (result - expected).abs().max() < 1e-10
    read = row_states(model, context_layers(model, tokens, row), versions, places, row)
    assert (read - expected[torch.arange(9), places]).abs().max() < 1e-10
    # and that is not the model, which is near
    msa = tokens.clone()
    msa[0, row] = versions[0]
    with torch.no_grad():
        assert (model(msa).last_hidden_state[0, row] - expected[0]).abs().max() > 1e-3


@per_row_embedding
def test_nothing_is_approximated_without_other_rows(width):
    model = small_model(MsaModel, row_position_embedding_size=width)
    versions, places = versions_of(random_tokens(1, 20), 0, 7)
    with torch.no_grad():
        expected = model(versions[:, None]).last_hidden_state[:, 0]
    layers = [layer.kept() for layer in context_layers(model, versions[None, :1])]
    assert difference(row_states(model, layers, versions), expected) <= 1e-5
    read = row_states(model, layers, versions, places)
    assert difference(read, expected[torch.arange(7), places]) <= 1e-5


@pytest.mark.parametrize("row", [0, 3])
def test_nothing_is_approximated_for_a_masked_row(converted, row):
    """fair-esm's logits of the MSA whose row is masked."""
    theirs, folder = converted("msa-tiny")
    ours = MsaForMaskedLM.from_pretrained(folder).eval()
    tokens = random_tokens(5, 17)
    masked = tokens.clone()
    masked[0, row, 1:] = MASK
    with torch.no_grad():
        expected = theirs(masked)["logits"][0, row]
        states = row_states(ours.msa, context_layers(ours.msa, tokens, row), masked[0, row, None], row=row)
        assert difference(ours.lm_head(states[None])[0, 0], expected) <= 1e-5


def test_what_the_row_was_does_not_matter():
    """Nothing of it leaks, and the tokens given stay as they are."""
    model = small_model(MsaModel)
    tokens = random_tokens(4, 15)
    versions, _ = versions_of(tokens, 1, 3)
    expected = row_states(model, context_layers(model, tokens, 1), versions, row=1)
    other = tokens.clone()
    other[0, 1, 1:] = 7
    before = other.clone()
    assert row_states(model, context_layers(model, other, 1), versions, row=1).equal(expected)
    assert other.equal(before)
    other[0, 2, 3] = 9 if other[0, 2, 3] == 8 else 8
    assert not row_states(model, context_layers(model, other, 1), versions, row=1).allclose(expected)


@pytest.mark.parametrize("size", [1, 60, 500])
def test_blocks_and_batches_change_nothing(size, blocks, monkeypatch):
    model = small_model(MsaModel)
    tokens = random_tokens(7, 18)
    versions, places = versions_of(tokens, 0, 30)
    expected = row_states(model, context_layers(model, tokens), versions)
    read = expected[torch.arange(30), places]
    layers = [layer.kept() for layer in context_layers(model, tokens)]
    for _ in range(2):  # kept layers can be used again
        assert difference(row_states(model, layers, versions), expected) <= 1e-6
    one = row_states(model, layers, versions[3:4], places[3:4])
    assert difference(one, read[3:4]) <= 1e-5
    blocks(size)
    monkeypatch.setattr(context, "_NUMBERS_PER_BLOCK", {"cpu": size})
    assert difference(row_states(model, context_layers(model, tokens), versions), expected) <= 1e-5
    assert difference(row_states(model, context_layers(model, tokens), versions, places), read) <= 1e-5
    whole = tokens.repeat(3, 1, 1)
    with torch.no_grad():
        expected = model(whole).last_hidden_state[torch.arange(3), 0, places[:3]]
    assert difference(query_states(model, whole, places[:3]), expected) <= 1e-5


@pytest.mark.parametrize(
    ("rows", "columns", "dtype", "expected"),
    [
        (8, 101, torch.float32, 648),  # 2**16 tokens, though that is more than 16 for each row
        (128, 264, torch.float32, 2048),  # 16 for each row
        (128, 1024, torch.float32, 682),  # 256 MiB of states
        (128, 1024, torch.bfloat16, 1365),
        (400, 1024, torch.float32, 1600),  # at least 4 for each row
    ],
)
def test_versions_per_batch(rows, columns, dtype, expected):
    model = small_model(MsaModel, hidden_size=96).to(dtype)
    assert context.versions_per_batch(model, rows, columns) == expected


def test_columns_that_are_not_read():
    """The context goes on to the next layer all the same."""
    model = small_model(MsaModel, num_hidden_layers=3)
    tokens = random_tokens(4, 15)
    logits = [layer.row_logits for layer in context_layers(model, tokens)]
    expected = [layer.kept().row_logits for layer in context_layers(model, tokens)]
    assert len(logits) == 3
    assert all(one.equal(other) for one, other in zip(logits, expected, strict=True))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("shape", [(1, 12), (5, 20), (16, 2)])
def test_query_states_are_those_of_the_model(shape, attention):
    model = small_model(MsaModel, num_hidden_layers=3, attn_implementation=attention)
    tokens = torch.cat([random_tokens(*shape, seed) for seed in range(4)])
    places = torch.tensor([0, 1, shape[1] - 1, 1])
    with torch.no_grad():
        expected = model(tokens).last_hidden_state[torch.arange(4), 0, places]
    assert difference(query_states(model, tokens, places), expected) <= 1e-5


def test_half_precision_costs_no_more_than_in_the_model():
    """Against float32, no more than twice the error of the model itself on the row that is masked."""
    model = small_model(MsaModel, scale=0.1)
    tokens = random_tokens(12, 25)
    tokens[:, 0, 1:] = MASK
    places = torch.arange(25)
    with torch.no_grad():
        expected = model(tokens).last_hidden_state[0, 0]
        model = model.bfloat16()
        error = (model(tokens).last_hidden_state[0, 0] - expected).abs().mean()
        fast = row_states(model, context_layers(model, tokens), tokens[0, :1].repeat(25, 1), places)
        exact = query_states(model, tokens.repeat(25, 1, 1), places)
    assert fast.dtype == exact.dtype == torch.bfloat16
    assert 0 < (fast - expected).abs().mean() <= 2 * error
    assert 0 < (exact - expected).abs().mean() <= 2 * error


def test_offloaded_models(tmp_path):
    """Exactly as ever; the fast mode, which calls parts of layers, says that it cannot."""
    model = small_model(MsaModel).double()  # rounding in float32 depends on where weights lie in memory
    tokens, places = random_tokens(3, 10), torch.tensor([4])
    expected = query_states(model, tokens, places)
    model.save_pretrained(tmp_path / "model")
    names = [name for name, _ in model.named_children()]
    places_of = {name: "cpu" for name in names if name != "layers"} | {"layers.0": "cpu", "layers.1": "disk"}
    options = {"device_map": places_of, "offload_folder": tmp_path / "disk", "dtype": torch.float64}
    offloaded = MsaModel.from_pretrained(tmp_path / "model", **options)
    assert difference(query_states(offloaded.eval(), tokens, places), expected) <= 1e-12
    with pytest.raises(ValueError, match="entirely on one device"):
        next(context_layers(offloaded, tokens))


def test_padding_is_refused():
    model = small_model(MsaModel)
    tokens = torch.nn.functional.pad(random_tokens(3, 10), (0, 2, 0, 1), value=1)
    with pytest.raises(ValueError, match="has padding"):
        next(context_layers(model, tokens))
