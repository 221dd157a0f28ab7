"""What test_sharding.py starts in several processes: each case is run whole and split by rows, and compared.

The largest differences over all processes go to a JSON file, by case: ``accelerate launch ... sharded.py OUT.json``,
or ``python sharded.py OUT.json 4`` for four forks.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
import traceback

import pytest
import torch
import torch.distributed as dist
from accelerate import PartialState
from made_up import SEED
from small import CLASSES, batched, difference, labels_for, random_tokens
from small import small_model as seeded_model
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_msa import (
    MsaForMaskedLM,
    MsaForTokenClassification,
    MsaModel,
    inference_msa_transformer,
    load_model,
    predict_contacts,
    read_alignment,
    split_rows,
)
from modeling_msa._processes import leave_processes
from modeling_msa.tasks import sharding

INPUTS = {
    "5 rows": random_tokens(5, 10, 1),
    "7 rows": random_tokens(7, 11, 2),
    "3 rows": random_tokens(3, 9, 3),  # fewer than four processes
    "3 columns": random_tokens(6, 3, 4),
    "two MSAs": batched([random_tokens(7, 9, 5), random_tokens(4, 14, 6)]),
    "holes": batched([random_tokens(7, 9, 7), random_tokens(6, 8, 8)]),
}
INPUTS["holes"][torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.2] = 1
INPUTS["holes"][0, 0] = INPUTS["holes"][1, :, 3] = 1  # no query in row 0; an empty column
FLAGS = {"output_hidden_states": True, "output_attentions": True}
DROPOUT = ("hidden_dropout", "attention_dropout", "activation_dropout", "classifier_dropout")
ROWS = ("last_hidden_state", "hidden_states")  # outputs of a process's own rows


def small_model(cls, **config):
    """The same in every process and at every call; without dropout unless `config` says otherwise."""
    torch.manual_seed(0)
    return seeded_model(cls, **dict.fromkeys(DROPOUT, 0.0) | config)


def whole_outputs(model, tokens, **options):
    """Outputs by name, those of rows of all rows; a loss of them, and of the row maps."""
    return outputs_of(model, tokens, slice(0, tokens.shape[1]), **options)


def outputs_of(model, tokens, rows, **options):
    labels = {} if type(model) is MsaModel else {"labels": labels_for(type(model), tokens)}
    output = model(tokens, **labels, **FLAGS, **options)
    loss = sum(row_maps.square().sum() for row_maps in output.attentions) * 0.1
    if type(model) is MsaModel:  # a user's loss of rows: the sum over processes counts
        weights = torch.linspace(-1, 1, 16, dtype=output[0].dtype)
        real = tokens[:, rows] != model.config.pad_token_id
        loss = loss + ((output.last_hidden_state * weights).sum(-1) * real).tanh().sum()
    else:
        loss = loss + output.loss
    return output, loss


def gradients_of(model):
    return {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def compare(model, tokens, split, rows, output, expected):
    """Largest differences of any output, and of the loss."""
    rows_of = (*ROWS, "logits") if type(model) is MsaForMaskedLM else ROWS
    worst, loss = 0.0, 0.0
    assert output.keys() == expected.keys()
    for name in expected:
        if name == "loss":
            loss = difference(output.loss, expected.loss)
            continue
        pairs = [(output[name], expected[name])]
        if isinstance(expected[name], tuple):
            pairs = list(zip(output[name], expected[name], strict=True))
        for found, wanted in pairs:
            if name in rows_of:
                worst = max(worst, difference(split.gather(found, tokens.shape[1]), wanted))
                wanted = wanted[:, rows]
            worst = max(worst, difference(found, wanted))
    return {"outputs": worst, "loss": loss}


def training_case(cls, tokens, attention="sdpa", checkpointing=False, dtype=torch.float32, group=None, **config):
    """Differences of outputs and of gradients between a whole and a split step."""
    model = small_model(cls, **config).to(dtype)
    model.set_attn_implementation(attention)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    expected, loss = whole_outputs(model, tokens)
    loss.backward()
    wanted = gradients_of(model)
    model.zero_grad()
    with split_rows(model, group) as split:
        rows = split.rows(tokens.shape[1])
        output, split_loss = outputs_of(model, tokens, rows)
        split_loss.backward()
        found = gradients_of(model)
        assert found.keys() == wanted.keys()
        with torch.no_grad():
            figures = compare(model, tokens, split, rows, output, expected)
    return figures | {"gradients": max(difference(found[name], wanted[name]) for name in wanted)}


def inputs_for(cls):
    """All inputs for the masked language model, fewer for the others, which have the same backbone."""
    return (
        INPUTS if cls is MsaForMaskedLM else {name: INPUTS[name] for name in ("7 rows", "3 rows", "two MSAs", "holes")}
    )


def training():
    """Every class, with both attentions in turn, checkpointed and not."""
    for cls in CLASSES:
        for number, (name, tokens) in enumerate(inputs_for(cls).items()):
            attention, checkpointing = [("sdpa", False), ("eager", True), ("eager", False), ("sdpa", True)][number % 4]
            kind = f"{attention}{' checkpointed' * checkpointing}"
            yield f"{cls.__name__}, {name}, {kind}", training_case(cls, tokens, attention, checkpointing)
    no_rows = training_case(MsaForMaskedLM, INPUTS["7 rows"], row_position_embedding_size=None)
    yield "MsaForMaskedLM, no row embedding", no_rows
    if dist.get_world_size() == 4:
        pairs = [dist.new_group(pair) for pair in ([0, 1], [2, 3])]
        group, tokens = pairs[dist.get_rank() // 2], random_tokens(5, 10, dist.get_rank() // 2)
        yield "MsaForMaskedLM, an MSA for each pair", training_case(MsaForMaskedLM, tokens, group=group)


def exact():
    """In float64, where a gradient that is small cannot hide a wrong one."""
    for cls in CLASSES:
        yield f"{cls.__name__}, two MSAs", training_case(cls, INPUTS["two MSAs"], dtype=torch.float64)
    checkpointed = training_case(MsaForMaskedLM, INPUTS["3 rows"], "sdpa", True, torch.float64)
    yield "MsaForMaskedLM, 3 rows, checkpointed", checkpointed
    yield "gathered rows in a loss", gathered_loss()


def flash_like(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    """A stand-in that takes a mask (B*C, R), as flash attention does."""
    assert attention_mask is None or attention_mask.dim() == 2
    mask = None if attention_mask is None else attention_mask[:, None, None].bool()
    context = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=scaling)
    return context.transpose(1, 2), None


@contextlib.contextmanager
def small_pieces():
    before = sharding.PIECE_BYTES, inference_msa_transformer.tokens_per_block
    sharding.PIECE_BYTES, inference_msa_transformer.tokens_per_block = 100, lambda *_: 8
    try:
        yield
    finally:
        sharding.PIECE_BYTES, inference_msa_transformer.tokens_per_block = before


@torch.no_grad()
def inference():
    ALL_ATTENTION_FUNCTIONS.register("flash_like", flash_like)
    for cls in CLASSES:
        for name, tokens in inputs_for(cls).items():
            everything = cls is MsaForMaskedLM and name in ("7 rows", "two MSAs")
            for attention in ("eager", "sdpa", "flash_like") if everything else ("sdpa",):
                model = small_model(cls)
                model.config._attn_implementation = attention
                expected = whole_outputs(model, tokens)[0]
                contacts = model.predict_contacts(tokens)
                with split_rows(model) as split, small_pieces():
                    rows = split.rows(tokens.shape[1])
                    output = outputs_of(model, tokens, rows)[0]
                    found = model.predict_contacts(tokens)
                    figures = compare(model, tokens, split, rows, output, expected)
                figures["contacts"] = difference(found, contacts)
                yield f"{cls.__name__}, {name}, {attention}", figures


@torch.no_grad()
def half_precision():
    """bfloat16: the exchange gives the very bits; contacts of a real family stay where float32's are."""
    tensor = torch.randn(2, 7, 9, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    split = sharding.RowSplit(dist.group.WORLD)
    mine, columns = split.rows(7), split.rows(9)
    moved = split._to_columns(tensor[:, mine], 7)
    assert torch.equal(moved, tensor[:, :, columns])
    assert torch.equal(split._to_rows(moved, mine.stop - mine.start, 9), tensor[:, mine])
    assert torch.equal(split.gather(tensor[:, mine], 7), tensor)
    family = read_alignment(SEED).take(range(19))
    model = load_model("msa-tiny")
    probabilities = [predict_contacts(family, model).probabilities]
    for dtype in (torch.float32, torch.bfloat16):
        model.to(dtype)
        with split_rows(model):
            probabilities.append(predict_contacts(family, model).probabilities)
    whole, single, half = (torch.as_tensor(each) for each in probabilities)
    yield "contacts of the package", {"float32": difference(single, whole)}
    yield "bfloat16 against float32", {"half": difference(half, single)}


def in_step(model):
    """Whether parameters have the same bits in all processes."""
    flat = torch.cat([each.detach().flatten() for each in model.parameters()])
    largest = torch.stack([flat, -flat])
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return torch.equal(largest[0], -largest[1])


def steps(model, batches, context, **options):
    """Two steps of plain SGD, each of two passes."""
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.01)
    losses = []
    with context:
        for _ in range(2):
            optimizer.zero_grad()
            for tokens in batches:
                loss = model(tokens, labels=labels_for(type(model), tokens), **options).loss
                loss.backward()
                losses.append(loss.item())
            optimizer.step()
    return torch.tensor(losses), torch.cat([each.detach().flatten() for each in model.parameters()])


def optimising():
    batches = [INPUTS["two MSAs"], INPUTS["5 rows"]]
    for cls, options in ((MsaForMaskedLM, {"num_items_in_batch": 200}), (MsaForTokenClassification, {})):
        wanted = steps(small_model(cls).train(), batches, contextlib.nullcontext(), **options)
        model = small_model(cls).train()
        found = steps(model, batches, split_rows(model), **options)
        assert in_step(model)
        values = [difference(*pair) for pair in zip(found, wanted, strict=True)]
        yield f"{cls.__name__}, accumulated", {"losses": values[0], "parameters": values[1]}
    model = small_model(MsaForMaskedLM, **dict.fromkeys(DROPOUT, 0.1)).train()  # which every process draws for itself
    model.gradient_checkpointing_enable()
    torch.manual_seed(dist.get_rank())
    steps(model, batches, split_rows(model))
    assert in_step(model)
    yield "two forwards, one backward", two_forwards()


def two_forwards():
    """MSAs of two depths in one backward pass, which runs the checkpointed layers again."""
    model = small_model(MsaForMaskedLM).train()
    model.gradient_checkpointing_enable()
    results = []
    for context in (contextlib.nullcontext(), split_rows(model)):
        model.zero_grad()
        with context:
            both = [model(each, labels=labels_for(MsaForMaskedLM, each)).loss for each in list(INPUTS.values())[:2]]
            (both[0] * both[1]).backward()
        results.append(gradients_of(model))
    return {"gradients": max(difference(results[1][name], results[0][name]) for name in results[0])}


def gathered_loss():
    """A loss of all rows, which every process has; and embeddings for input."""
    tokens, results = INPUTS["5 rows"], []
    model = small_model(MsaModel).double()
    for context in (contextlib.nullcontext(), split_rows(model)):
        model.zero_grad()
        with context as split:
            embeds = model.get_input_embeddings()(tokens)
            embeds.retain_grad()
            states = model(inputs_embeds=embeds).last_hidden_state
            states = states if split is None else split.gather(states, 5)
            states.std(dim=1).log().sum().backward()
            if split is not None:  # each process has the gradient of its own rows
                dist.all_reduce(embeds.grad)
        results.append(gradients_of(model) | {"inputs": embeds.grad})
    return {"gradients": max(difference(results[1][name], results[0][name]) for name in results[0])}


def refused(call, words):
    with pytest.raises((ValueError, RuntimeError)) as error:
        call()
    assert words in str(error.value)


def errors():
    """Every process refuses in the same words, none waits for another; then the model is as before."""
    rank, size, tokens = dist.get_rank(), dist.get_world_size(), INPUTS["5 rows"]
    model = small_model(MsaForMaskedLM)
    expected = model(tokens, output_attentions=True).logits  # transformers' own hooks stay once they are there
    modules = [dict(vars(module)) for module in model.modules()]
    other = tokens.clone()
    other[0, -1, -1] = 4 + rank
    with split_rows(model) as split:
        refused(lambda: model(other), "different inputs")
        refused(lambda: model(tokens[:, : 5 - (rank == 1)]), "different inputs")
        refused(
            lambda: model(random_tokens(17, 5)), "The MSA has 17 rows, but the model's table of row positions ends"
        )
        refused(lambda: model(random_tokens(2, 40)), "columns")
        refused(lambda: model(tokens[0]), "(B, R, C)")
        refused(lambda: model(tokens, output_column_attentions=True), "Column attention maps are not available")
        refused(lambda: model(tokens, labels=tokens[:, :4]), "labels must cover all 5 rows")
        refused(lambda: split.gather(expected, 5), "pass what the model returned")
        refused(lambda: split_rows(model).__enter__(), "already split")
        assert difference(split.gather(model(tokens).logits, 5), expected) < 1e-5  # all that left nothing behind
        assert len(model(tokens, return_dict=False)) == 1
        loss = model(tokens, labels=labels_for(MsaForMaskedLM, tokens)).loss
    refused(loss.backward, "inside `with split_rows")
    with contextlib.suppress(KeyError), split_rows(model):
        raise KeyError
    assert [dict(vars(module)) for module in model.modules()] == modules
    assert not any(each._backward_hooks for each in model.parameters())
    assert torch.equal(model(tokens).logits, expected)
    unlike = small_model(MsaForMaskedLM)
    with torch.no_grad():
        next(unlike.parameters())[-1, -1] += 1e-3 * rank
    refused(lambda: split_rows(unlike).__enter__(), "different weights")
    refused(lambda: split_rows(DistributedDataParallel(model)).__enter__(), "do not wrap it")
    alone = dist.new_group([0])
    if rank:
        refused(lambda: split_rows(model, alone).__enter__(), "not in the group")
    else:
        with split_rows(model, alone) as split:  # one process: the plain model
            assert torch.equal(model(tokens).logits, expected)
            assert split.rows(5) == slice(0, 5)
    yield "refused", {"processes": size}


def moved():
    """What the cost model says, less what was counted."""
    import row_sharding  # of benchmarks/, which only the test puts on the path

    for name, kinds in row_sharding.measure_moved(37, 19).items():
        assert all(count > 0 for count, _ in kinds.values())
        yield name, {kind: abs(model - count) for kind, (count, model) in kinds.items()}


def main():
    PartialState(cpu=True)
    torch.set_num_threads(1)
    results = {}
    for part in (training, exact, inference, half_precision, optimising, errors, moved):
        start = time.perf_counter()
        results[part.__name__] = cases = {}
        for name, values in part():
            worst = torch.tensor(list(values.values()), dtype=torch.float64)
            dist.all_reduce(worst, dist.ReduceOp.MAX)
            cases[name] = dict(zip(values, worst.tolist(), strict=True))
        if dist.get_rank() == 0:
            print(f"{part.__name__}: {len(cases)} cases, {time.perf_counter() - start:.1f} s", flush=True)
    if dist.get_rank() == 0:
        with open(sys.argv[1], "w") as file:
            json.dump(results, file)
    leave_processes()


def fork(size):
    """Run `main` in forks of this process, which has imported everything once for all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    children = []
    for rank in range(size):
        child = os.fork()
        if child == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            try:
                main()
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    for _ in children:
        _, status = os.wait()
        if status:
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            raise SystemExit(1)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        fork(int(sys.argv[2]))
    else:
        main()
