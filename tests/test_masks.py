"""What a mask means: any tokens may be masked, and then they are as if they were not there.

A dense reimplementation in NumPy's float64, written from the paper and the contract, takes one MSA at a time and loops
over its rows and columns; the model must agree in batches, by every path.
"""

import numpy as np
import pytest
import torch
from small import CLASSES, PAD, TOLERANCE, difference, gradients, per_class, random_tokens, small_model
from torch.nn import functional as F

from modeling_msa import MsaForContactPrediction, MsaForMaskedLM, MsaForTokenClassification, MsaModel

pytestmark = pytest.mark.usefixtures("one_thread")


def holes(rows, columns, seed, share=0.3):
    """A random mask (1, R, C) that leaves at least one token."""
    mask = torch.rand(1, rows, columns, generator=torch.Generator().manual_seed(seed)) > share
    mask[0, rows // 2, columns // 2] = True
    return mask


def without(rows=(), columns=(), shape=(6, 10)):
    mask = torch.ones(1, *shape, dtype=torch.bool)
    mask[:, list(rows)] = False
    mask[:, :, list(columns)] = False
    return mask


MASKS = {
    "holes": holes(6, 10, 0),
    "more holes than tokens": holes(6, 10, 1, share=0.7),
    "right and below": without(rows=(4, 5), columns=(8, 9)),
    "left": without(columns=(0, 1, 2)),
    "above, so no query in row 0": without(rows=(0, 1)),
    "left and above": without(rows=(0,), columns=(0, 1)),
    "a row and a column within": without(rows=(3,), columns=(5,)),
    "left with holes": without(columns=(0, 1)) & holes(6, 10, 2),
    "one token": torch.zeros(1, 6, 10, dtype=torch.bool).index_put(
        (*map(torch.tensor, (0, 2, 4)),), torch.tensor(True)
    ),
    "nothing": torch.ones(1, 6, 10, dtype=torch.bool),
}
TOKENS = torch.cat([random_tokens(6, 10, seed) for seed in range(len(MASKS))])
MASK = torch.cat(list(MASKS.values()))


# ------------------------------------------------------------------------------------------------- the dense reference


def linear(weights, name, states):
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(weights, name, states, eps=1e-5):
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(states):
    return states * 0.5 * (1 + torch.erf(torch.from_numpy(states) / 2**0.5).numpy())


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def dense(model, tokens, mask):
    """Last hidden states (R, C, D), row maps by layer (H, C, C) and contact logits (L, L) of one MSA (R, C)."""
    config = model.config
    weights = {name.removeprefix("msa."): value.double().numpy() for name, value in model.state_dict().items()}
    tokens, mask = tokens.numpy(), mask.numpy()
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    states = weights["embeddings.word_embeddings.weight"][tokens]
    states = states + weights["embeddings.position_embeddings.weight"][np.arange(tokens.shape[1]) + 2]
    for number, row in enumerate(rows):  # the first row that is there is row 0
        states[row] += weights["embeddings.row_position_embeddings.weight"][number]
    states = norm(weights, "embeddings.layer_norm", states)
    all_maps = []
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}.row_attention"
        normed = norm(weights, f"{name}.layer_norm", states)
        q, k, v = (linear(weights, f"{name}.{kind}_proj", normed).reshape(*mask.shape, heads, size) for kind in "qkv")
        logits = np.full((heads, len(columns), len(columns)), 0.0)
        for row in rows:
            for a, i in enumerate(columns):
                for b, j in enumerate(columns):
                    if mask[row, i] and mask[row, j]:
                        logits[:, a, b] += (q[row, i] * k[row, j]).sum(-1) / np.sqrt(size * len(rows))
        maps = softmax(logits)
        full = np.zeros((heads, mask.shape[1], mask.shape[1]))
        full[:, columns[:, None], columns] = maps
        all_maps.append(full)
        update = np.zeros_like(v)
        for row in rows:
            for j in columns[mask[row, columns]]:
                update[row] += full[:, :, j].T[..., None] * v[row, j]
        states = states + linear(weights, f"{name}.out_proj", update.reshape(states.shape))
        name = f"layers.{layer}.column_attention"
        normed = norm(weights, f"{name}.layer_norm", states)
        q, k, v = (linear(weights, f"{name}.{kind}_proj", normed).reshape(*mask.shape, heads, size) for kind in "qkv")
        update = np.zeros_like(v)
        for column in columns:
            keys = np.flatnonzero(mask[:, column])
            weight = softmax(np.einsum("rhk,shk->hrs", q[:, column], k[keys, column]) / np.sqrt(size))
            update[:, column] = np.einsum("hrs,shk->rhk", weight, v[keys, column])
        states = states + linear(weights, f"{name}.out_proj", update.reshape(states.shape))
        name = f"layers.{layer}.feed_forward"
        normed = norm(weights, f"{name}.layer_norm", states)
        states = states + linear(weights, f"{name}.fc2", gelu(linear(weights, f"{name}.fc1", normed)))
    residues = columns[1:]  # the first is <cls>
    contacts = np.zeros((len(residues), len(residues))) + weights["contact_head.regression.bias"]
    coefficients = weights["contact_head.regression.weight"].reshape(config.num_hidden_layers, heads)
    for maps, of_layer in zip(all_maps, coefficients, strict=True):
        for each, coefficient in zip(maps[:, residues[:, None], residues], of_layer, strict=True):
            both = each + each.T
            if len(residues):
                contacts += coefficient * (both - np.outer(both.sum(1), both.sum(0)) / both.sum())
    return norm(weights, "layer_norm", states), all_maps, contacts, residues - 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("way", ["eager", "sdpa", "blocks", "gradients", "compiled", "GPU", "GPU in blocks"])
def test_any_mask_is_the_dense_reference(blocks, as_on_a_gpu, way, dtype):
    model = small_model(MsaModel, attn_implementation="eager" if way == "eager" else "sdpa").to(dtype)
    if "blocks" in way:
        blocks(12)
    if "GPU" in way:
        as_on_a_gpu()
    run, contact_logits = model, model.contact_logits
    if way == "compiled":
        torch._dynamo.reset()
        run, contact_logits = (torch.compile(each, backend="eager", fullgraph=True) for each in (run, contact_logits))
    tolerance = 1e-10 if dtype == torch.float64 else TOLERANCE
    with torch.set_grad_enabled(way == "gradients"):
        states = run(TOKENS, attention_mask=MASK).last_hidden_state
        maps = None if way == "compiled" else model(TOKENS, attention_mask=MASK, output_attentions=True).attentions
        contacts = contact_logits(TOKENS, MASK).logits
    assert states.isfinite().all()
    for index, (name, mask) in enumerate(MASKS.items()):
        expected, all_maps, logits, residues = dense(model, TOKENS[index], mask[0])
        part = torch.from_numpy(expected)[mask[0]].to(dtype)
        assert difference(states[index][mask[0]], part) <= tolerance, name
        columns = mask[0].any(0)
        for layer, wanted in enumerate(all_maps if maps else ()):
            found = maps[layer][index][:, columns]  # masked columns get nothing
            assert difference(found, torch.from_numpy(wanted)[:, columns].to(found.dtype)) <= max(tolerance, 1e-7), (
                name
            )
        pairs = torch.zeros(9, 9, dtype=torch.bool)
        pairs[residues[:, None], residues] = True
        found = contacts[index][pairs]
        assert difference(found, torch.from_numpy(logits).flatten().to(found.dtype)) <= tolerance, name
        assert (contacts[index][~pairs].sigmoid() == 0).all()


def test_masked_tokens_are_masked_by_default():
    model = small_model(MsaForMaskedLM)
    with torch.no_grad():
        expected = model(TOKENS, attention_mask=MASK).logits[MASK]
        assert torch.equal(model(TOKENS.masked_fill(~MASK, PAD)).logits[MASK], expected)


@per_class
@pytest.mark.parametrize("in_blocks", [False, True])
def test_what_a_masked_token_is_changes_no_other_output_by_a_bit(blocks, cls, in_blocks):
    model = small_model(cls, num_labels=2)
    if in_blocks:
        blocks(12)
    other = torch.where(MASK, TOKENS, torch.randint(2, 33, TOKENS.shape, generator=torch.Generator().manual_seed(1)))
    first = MASK.any(2).int().argmax(1)
    with torch.no_grad():
        outputs = [model(tokens, attention_mask=MASK)[0] for tokens in (TOKENS, other)]
        contacts = [model.predict_contacts(tokens, MASK) for tokens in (TOKENS, other)]
    if cls in (MsaModel, MsaForMaskedLM):
        outputs = [output[MASK] for output in outputs]
    elif cls is MsaForTokenClassification:
        outputs = [output[MASK[torch.arange(len(MASK)), first]] for output in outputs]
    assert torch.equal(*outputs)
    assert torch.equal(*contacts)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(("left", "right", "above", "below"), [(3, 0, 0, 0), (0, 0, 2, 0), (2, 1, 1, 3), (0, 4, 0, 2)])
def test_padding_on_any_side_is_the_smaller_msa(cls, left, right, above, below):
    model = small_model(cls, num_labels=3)
    alone = random_tokens(4, 8, 3)
    padded = F.pad(alone, (left, right, above, below), value=PAD)
    positions = (torch.arange(padded.shape[2]) - left).clamp(min=0)[None]
    inside = (slice(None), slice(above, above + 4), slice(left, left + 8))
    with torch.no_grad():
        expected = model(alone)[0]
        result = model(padded, position_ids=positions)[0]
        probabilities = model.predict_contacts(padded, position_ids=positions)
    if cls in (MsaModel, MsaForMaskedLM):
        result = result[inside]
    elif cls is MsaForTokenClassification:
        result = result[:, left : left + 8]
    elif cls is MsaForContactPrediction:
        result = result[:, left : left + 7, left : left + 7]
    assert difference(result, expected) <= TOLERANCE
    assert difference(probabilities[:, left : left + 7, left : left + 7], model.predict_contacts(alone)) <= TOLERANCE
    assert difference(probabilities.sum(), model.predict_contacts(alone).sum()) <= TOLERANCE


def test_an_msa_that_is_all_masked_is_finite_and_leaves_the_others_alone():
    model = small_model(MsaForMaskedLM)
    mask = torch.ones(2, 6, 10, dtype=torch.bool)
    mask[1] = False
    with torch.no_grad():
        logits = model(TOKENS[:2], attention_mask=mask).logits
        assert logits.isfinite().all()
        assert difference(logits[:1], model(TOKENS[:1]).logits) <= TOLERANCE
        assert (model.predict_contacts(TOKENS[:2], mask)[1] == 0).all()


def test_neither_nan_nor_positions_of_masked_tokens_matter():
    model = small_model(MsaForMaskedLM)
    embeds = model.get_input_embeddings()(TOKENS).detach()
    with torch.no_grad():
        expected = model(TOKENS, attention_mask=MASK).logits[MASK]
        spoilt = embeds.masked_fill(~MASK.unsqueeze(3), float("nan"))
        assert difference(model(inputs_embeds=spoilt, attention_mask=MASK).logits[MASK], expected) <= TOLERANCE
        mask = MASKS["left"]
        positions = torch.arange(10)[None] - 3  # -1 and below where no token is
        shifted = model(TOKENS[:1], attention_mask=mask, position_ids=positions).logits[mask]
        alone = model(TOKENS[:1, :, 3:]).logits.flatten(0, 2)
        assert difference(shifted, alone) <= TOLERANCE


def test_is_padded_false_is_a_promise():
    """For those who compile: no mask is looked for, so the graph has none."""
    model = small_model(MsaForMaskedLM)
    padded = TOKENS[:1].masked_fill(~MASKS["left"], PAD)
    with torch.no_grad():
        assert difference(model(TOKENS, is_padded=False).logits, model(TOKENS).logits) <= TOLERANCE
        everything = torch.ones_like(padded)
        assert torch.equal(model(padded, is_padded=False).logits, model(padded, attention_mask=everything).logits)
        sizes = []
        for is_padded in (None, False):
            torch._dynamo.reset()
            graphs = []

            def backend(graph, _, graphs=graphs):
                graphs.append(graph)
                return graph

            compiled = torch.compile(model, fullgraph=True, backend=backend)
            assert difference(compiled(TOKENS, is_padded=is_padded).logits, model(TOKENS).logits) <= TOLERANCE
            text = graphs[0].print_readable(print_output=False)
            sizes.append(text.count("masked_fill"))
    assert sizes[0] > 0
    assert sizes[1] == 0


@pytest.mark.parametrize("cls", CLASSES)
def test_a_gpus_paths_give_the_same_gradients(as_on_a_gpu, cls):
    """Query, key and value in one product, and padded columns: nothing that a parameter or a hook could tell."""
    model, tokens = small_model(cls).double(), TOKENS.masked_fill(~MASK, PAD)[:4]
    expected = gradients(model, tokens)
    as_on_a_gpu()
    found = gradients(model, tokens)
    for name, gradient in expected.items():
        assert (found[name] is None) == (gradient is None), name
        assert gradient is None or difference(found[name], gradient) <= 1e-10, name
    seen = []
    handle = model.base_model.layers[0].row_attention.k_proj.register_forward_hook(lambda *call: seen.append(call[2]))
    assert difference(model(tokens)[0], model(tokens)[0]) == 0
    assert len(seen) == 2
    handle.remove()
