"""A hook sees what it sees in any transformers model, and what runs in other threads changes nothing.

Without gradients a large MSA runs in blocks and in place; nothing of that may show. Each test compares with a run with
gradients, which does neither.
"""

import functools
import threading
import types

import pytest
import torch
from small import CLASSES, TOLERANCE, batched, difference, labels_for, random_tokens, small_model

from modeling_msa import MsaForMaskedLM
from modeling_msa.inference_msa_transformer import evaluation_copy

pytestmark = pytest.mark.usefixtures("one_thread")

TOKENS = batched([random_tokens(7, 9, 1), random_tokens(5, 12, 2)])
NAMES = [name for name, _ in small_model(MsaForMaskedLM).named_modules() if "contact_head" not in name]


def tensors(value):
    """Tensors of a module's arguments or output, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return (
        [tensor for each in value for tensor in tensors(each)]
        if isinstance(value, (tuple, list, type({}.values())))
        else []
    )


def seen_by_hook(model, name, grad):
    """What a hook on one module keeps, without a copy, over a whole pass."""
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda _, inputs, output: seen.append((inputs, output)))
    with torch.set_grad_enabled(grad):
        logits = model(TOKENS).logits
    handle.remove()
    return [[each.detach() for each in tensors(call)] for call in seen], logits


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_hook_on_any_module_sees_its_true_input_and_output(blocks, attention):
    model = small_model(MsaForMaskedLM, attn_implementation=attention)
    expected = {name: seen_by_hook(model, name, grad=True) for name in NAMES}
    blocks(12)
    called = set()
    for name, (calls, logits) in expected.items():
        found, result = seen_by_hook(model, name, grad=False)
        assert len(found) == len(calls), name
        called |= {name} if calls else set()
        for one, other in zip(found, calls, strict=True):
            assert len(one) == len(other), name
            assert all(difference(a.double(), b.double()) <= TOLERANCE for a, b in zip(one, other, strict=True)), name
        assert difference(result, logits) <= TOLERANCE, name
    containers = {name for name in NAMES if name.endswith("layers")}
    assert set(NAMES) - called == containers  # activations too


def test_a_pre_hook_and_a_global_hook_see_it_too(blocks):
    model = small_model(MsaForMaskedLM)
    shapes = {}
    for grad in (True, False):
        blocks(12)
        seen = shapes[grad] = []
        fc1 = model.msa.layers[0].feed_forward.fc1
        handles = [
            fc1.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(("fc1", inputs[0].shape))),
            torch.nn.modules.module.register_module_forward_hook(
                lambda module, _, output, seen=seen: seen.append((type(module).__name__, tensors(output)[0].shape))
            ),
        ]
        with torch.set_grad_enabled(grad):
            model(TOKENS)
        for handle in handles:
            handle.remove()
    assert shapes[True] == shapes[False]
    assert len(shapes[True]) > 40


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("name", ["row_attention", "column_attention", "feed_forward", "row_attention.v_proj",
                                  "column_attention.layer_norm", "feed_forward.activation"])  # fmt: skip
def test_activation_patching(blocks, name, grad):
    """A hook that returns a tensor saved from another run: it acts, twice the same, and is not written over."""
    model = small_model(MsaForMaskedLM)
    name = f"msa.layers.0.{name}"
    other = torch.where(TOKENS == 5, 6, TOKENS)
    calls = []
    handle = model.get_submodule(name).register_forward_hook(lambda *call: calls.append(call[2]))
    model(other)
    handle.remove()
    saved = calls[0]
    before = [tensor.clone() for tensor in tensors(saved)]
    blocks(12)
    handle = model.get_submodule(name).register_forward_hook(lambda *_: saved)
    with torch.set_grad_enabled(grad):
        first, second = model(TOKENS).logits, model(TOKENS).logits
        contacts = model.predict_contacts(TOKENS)
    handle.remove()
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(tensors(saved), before, strict=True))
    with torch.no_grad():
        plain = model(TOKENS).logits
        assert difference(first, plain) > 1e-3
        assert difference(contacts, model.predict_contacts(TOKENS)) > 1e-4
        # the same patch in a run with gradients
        handle = model.get_submodule(name).register_forward_hook(lambda *_: saved)
        with torch.enable_grad():
            assert difference(model(TOKENS).logits, first) <= TOLERANCE
        handle.remove()


def test_patched_maps_of_the_last_layer_reach_the_contacts():
    model = small_model(MsaForMaskedLM)
    expected = model.predict_contacts(TOKENS)
    handle = model.msa.layers[-1].row_attention.register_forward_hook(
        lambda _, __, output: (output[0], output[1] ** 2)
    )
    assert difference(model.predict_contacts(TOKENS), expected) > 1e-4
    handle.remove()
    assert torch.equal(model.predict_contacts(TOKENS), expected)


def test_the_users_tensors_are_left_alone(blocks):
    model = small_model(MsaForMaskedLM)
    blocks(12)
    embeds = torch.randn(16, 12, 7, 2).permute(3, 2, 1, 0)  # not contiguous
    before = embeds.clone()
    with torch.no_grad():
        one, other = model(inputs_embeds=embeds).logits, model(inputs_embeds=embeds.contiguous()).logits
    assert torch.equal(embeds, before)
    assert difference(one, other) <= TOLERANCE


def test_eight_threads_on_one_model():
    """Seven predict with one that trains, dropout and all: each gives what it gives alone."""
    torch.manual_seed(0)
    dropout = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout"), 0.5)
    model = small_model(MsaForMaskedLM, **dropout).train()
    inputs = [random_tokens(3 + k, 6 + k, k) for k in range(7)]
    labels = labels_for(MsaForMaskedLM, TOKENS)

    def train(steps=8):
        losses = []
        for _ in range(steps):
            loss = model(TOKENS, labels=labels).loss
            loss.backward()
            losses.append(loss.item())
        return losses

    def predict(tokens):
        results = []
        for _ in range(8):
            with torch.no_grad():
                states = evaluation_copy(model)(tokens, output_hidden_states=True).hidden_states
            results.append((model.predict_contacts(tokens), *states))
        return results

    torch.manual_seed(0)
    expected = [train(), *map(predict, inputs)]
    gradients = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    results = [None] * 8
    start = threading.Barrier(8)

    def work(index, function, *arguments):
        start.wait()
        results[index] = function(*arguments)

    torch.manual_seed(0)
    jobs = [(0, train), *((1 + k, predict, tokens) for k, tokens in enumerate(inputs))]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == expected[0]  # only the thread that trains draws random numbers
    assert len(set(expected[0])) > 1  # dropout was on
    for result, wanted in zip(results[1:], expected[1:], strict=True):
        for some, others in zip(result, wanted, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(some, others, strict=True))
    assert all(torch.equal(each.grad, gradients[name]) for name, each in model.named_parameters() if name in gradients)
    assert all(module.training for module in model.modules())


RATES = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "classifier_dropout"), 0.5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("cls", CLASSES)
def test_a_copy_in_evaluation_mode(cls, attention):
    """It equals the model in eval mode, with modules of others, hooks that ask and methods that were replaced."""
    tokens = random_tokens(7, 9, 1)
    model = small_model(cls, attn_implementation=attention, **RATES)
    first = model.base_model.layers[0]
    first.feed_forward.fc1 = torch.nn.Sequential(torch.nn.AlphaDropout(0.5), first.feed_forward.fc1)
    model.base_model.embeddings.register_forward_hook(lambda module, _, output: output + module.training)  # as NEFTune
    first.forward = functools.partial(type(first).forward, first)  # as accelerate does
    model.base_model.layers[1].forward = types.MethodType(type(first).forward, model.base_model.layers[1])
    model.base_model.layers[1].column_attention.compile(backend="eager")
    model.eval()
    with torch.no_grad():
        expected, contacts = model(tokens)[0], model.predict_contacts(tokens)
        model.train()
        assert difference(model(tokens)[0], expected) > 1e-3
        assert torch.equal(model.predict_contacts(tokens), contacts)
        copy = evaluation_copy(model)
        assert torch.equal(copy(tokens)[0], expected)
        assert difference(model(tokens)[0], expected) > 1e-3
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in copy.modules())
    assert all(a is b for a, b in zip(model.parameters(), copy.parameters(), strict=True))


def test_a_model_that_begins_to_train_meanwhile():
    model, tokens = small_model(MsaForMaskedLM, **RATES), random_tokens(7, 9, 1)
    expected = model.predict_contacts(tokens)
    handle = model.msa.embeddings.register_forward_hook(lambda *_: model.train() and None)
    assert torch.equal(model.predict_contacts(tokens), expected)
    assert model.msa.layers[-1].training
    handle.remove()


def test_backward_hooks_on_a_gpus_paths(as_on_a_gpu):
    model = small_model(MsaForMaskedLM)
    as_on_a_gpu()
    seen = []
    attention = model.msa.layers[0].row_attention
    attention.q_proj.register_full_backward_hook(lambda *_: seen.append("full"))
    attention.k_proj.register_full_backward_pre_hook(lambda *_: seen.append("pre"))
    model(TOKENS).logits.sum().backward()
    assert sorted(seen) == ["full", "pre"]
    attention.q_proj = torch.nn.Linear(16, 16, bias=False)
    assert model(TOKENS).logits.isfinite().all()


def test_copies_leave_no_hooks_behind():
    model, tokens = small_model(MsaForMaskedLM), random_tokens(3, 5)
    for _ in range(3):
        with torch.no_grad():
            assert len(evaluation_copy(model)(tokens, output_hidden_states=True).hidden_states) == 3
    assert not any(layer._forward_hooks for layer in model.msa.layers)
    assert len(model(tokens, output_hidden_states=True).hidden_states) == 3
    assert len(evaluation_copy(model)(tokens, output_hidden_states=True).hidden_states) == 3
