"""Contract of the model where it is stored, cast, compiled and spread out.

- One checkpoint serves every class, there and back, in its own dtype, without a warning.
- Half precision stays within its rounding of full precision; nothing overflows.
- Compiled (as one graph), exported, with a flash kernel, offloaded to disk or sharded over processes, the model gives
  what it gives in one piece.
"""

import contextlib
import copy
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from fresh import without_remarks
from small import (
    CLASSES,
    MSAS,
    PAD,
    TOLERANCE,
    batched,
    difference,
    gradients,
    labels_for,
    loss_of,
    no_warnings,
    per_attention,
    per_class,
    random_tokens,
    small_config,
    small_model,
    tiny_model,
)
from torch.nn import functional as F
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_msa import (
    MsaConfig,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    modeling_msa_transformer,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# --------------------------------------------------------------------------------- embeddings, checkpoints, precision


def test_resized_vocabulary(tiny):
    model = tiny_model(MsaForMaskedLM, tiny)
    with torch.no_grad():
        expected = model(MSAS[0]).logits
        model.resize_token_embeddings(40, mean_resizing=False)
        assert model.config.vocab_size == 40
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert model.lm_head.decoder.bias.shape == (40,)
        result = model(MSAS[0]).logits
        assert result.shape[-1] == 40
        assert difference(result[..., :33], expected) <= TOLERANCE
    loss_of(model, MSAS[0].clone().fill_(39)).backward()


def test_tied_and_untied(tiny, tmp_path):
    model = tiny_model(MsaForMaskedLM, tiny)
    assert model.get_input_embeddings() is model.msa.embeddings.word_embeddings
    assert model.get_output_embeddings() is model.lm_head.decoder
    assert model.lm_head.decoder.weight is model.msa.embeddings.word_embeddings.weight
    untied = MsaForMaskedLM(small_config(tie_word_embeddings=False))
    assert untied.lm_head.decoder.weight is not untied.get_input_embeddings().weight
    untied.save_pretrained(tmp_path)
    again = MsaForMaskedLM.from_pretrained(tmp_path)
    for name, tensor in untied.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    new = torch.nn.Embedding(33, 64)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new
    model.tie_weights()
    assert model.lm_head.decoder.weight is new.weight


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not MsaForMaskedLM])
def test_a_checkpoint_serves_every_class_there_and_back(tiny, tmp_path, cls):
    source = MsaForMaskedLM.from_pretrained(tiny)
    new_weights = cls in (MsaForTokenClassification, MsaForSequenceClassification)  # transformers tells of those
    with contextlib.nullcontext() if new_weights else no_warnings():
        model = cls.from_pretrained(tiny)
    expected = source.msa.state_dict()
    backbone = model.base_model.state_dict()
    assert backbone.keys() == expected.keys()
    assert all(torch.equal(backbone[name], tensor) for name, tensor in expected.items())
    model.save_pretrained(tmp_path)
    back = MsaForMaskedLM.from_pretrained(tmp_path).msa.state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in expected.items())


def test_loading_is_silent(tiny):
    """In a fresh process: transformers warns once per process, and not through pytest's handlers."""
    code = f"""
        from modeling_msa import MsaModel, MsaForMaskedLM, MsaForContactPrediction
        for cls in (MsaModel, MsaForMaskedLM, MsaForContactPrediction):
            cls.from_pretrained({str(tiny)!r})
    """
    environment = os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "warn" not in done.stderr.lower()
    assert "LOAD REPORT" not in done.stderr
    lines = without_remarks(done.stderr).splitlines()
    assert not [line for line in lines if line.strip() and "Loading weights" not in line]


def test_new_weights_are_initialised():
    torch.manual_seed(0)
    model = MsaForMaskedLM(MsaConfig(num_hidden_layers=1))
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.15)
            assert (module.bias == 0).all()
        elif isinstance(module, torch.nn.LayerNorm):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    assert (model.get_input_embeddings().weight[PAD] == 0).all()
    assert not model.msa.contact_head.regression.weight.any()


@per_class
def test_checkpoints_keep_their_dtype(tiny, tmp_path, cls):
    cls.from_pretrained(tiny, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in cls.from_pretrained(tmp_path).parameters()} == {torch.bfloat16}
    assert {p.dtype for p in cls.from_pretrained(tmp_path, dtype=torch.float32).parameters()} == {torch.float32}
    assert {p.dtype for p in cls.from_pretrained(tiny).parameters()} == {torch.float32}


# Rounding at the 3 blocks of each of 4 layers, and in the weights: of the order of sqrt(12) epsilon in states of
# magnitude 1 to 6; ten epsilon (2^-8 and 2^-11) relative to the largest is what that leaves at the tail.
@per_attention
@pytest.mark.parametrize(("dtype", "epsilon"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_half_precision(tiny, blocks, attention, dtype, epsilon):
    full = tiny_model(MsaForMaskedLM, tiny)
    half = tiny_model(MsaForMaskedLM, tiny, dtype=dtype, attn_implementation=attention)
    tokens = batched(MSAS)
    mask = tokens != PAD
    for in_blocks in (False, True):
        if in_blocks:
            blocks()
        with torch.no_grad():
            expected = full(tokens).logits
            outputs = half(tokens, output_attentions=True)
            assert outputs.logits.dtype == dtype
            assert outputs.attentions[0].dtype == torch.float32
            assert outputs.logits.isfinite().all()
            assert difference(outputs.logits[mask].float(), expected[mask]) <= 10 * epsilon
            contacts = half.predict_contacts(tokens)
            assert contacts.dtype == torch.float32
            assert contacts.isfinite().all()
    loss = loss_of(half, tokens)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in half.parameters())


@per_class
def test_autocast(tiny, cls):
    model = tiny_model(cls, tiny)
    tokens = batched(MSAS)
    mask = {MsaForContactPrediction: labels_for(MsaForContactPrediction, tokens) != -100}.get(cls)
    expected = model(tokens)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = model(tokens)[0]
        loss_of(model, tokens).backward()
        with torch.no_grad():
            model(tokens)
            assert model.predict_contacts(tokens).isfinite().all()
    assert result.isfinite().all()
    if mask is None and cls in (MsaModel, MsaForMaskedLM):
        mask = tokens != PAD
    if mask is not None and cls is not MsaForContactPrediction:
        assert difference(result[mask].float(), expected[mask]) <= 10 * 2**-8
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_shapes_on_the_meta_device(tiny, attention):
    """Operations are counted, and memory is planned, on a model without weights."""
    config = MsaConfig.from_pretrained(tiny, attn_implementation=attention)
    with torch.device("meta"):
        model = MsaForMaskedLM(config).eval()
        tokens = torch.zeros((2, 5, 9), dtype=torch.int64)
    mask = torch.ones_like(tokens)
    for given in (None, mask):
        assert model(tokens, attention_mask=given).logits.shape == (2, 5, 9, config.vocab_size)
        with torch.no_grad():
            assert model(tokens, attention_mask=given).logits.device.type == "meta"
            assert model.msa.contact_logits(tokens, given)[0].shape == (2, 8, 8)


# ------------------------------------------------------------------------------------------- compiling and exporting


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_compiled_as_one_graph(cls):
    """The masked language model without gradients, for a padded batch and for one MSA; the others with gradients."""
    torch._dynamo.reset()
    is_language_model = cls is MsaForMaskedLM
    model = small_model(cls, attn_implementation="sdpa" if is_language_model else "eager", num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    for tokens in [batched(MSAS), *([random_tokens(4, 9)] if is_language_model else [])]:
        real = labels_for(cls, tokens) != -100 if cls is MsaForContactPrediction else tokens != PAD
        if cls is MsaForTokenClassification:
            real = real[:, 0]
        with torch.set_grad_enabled(not is_language_model):
            result, expected = compiled(tokens)[0], model(tokens)[0]
        if cls is not MsaForSequenceClassification:
            result, expected = result[real], expected[real]
        assert difference(result, expected) <= TOLERANCE


def test_compiled_by_inductor():
    torch._dynamo.reset()
    model = small_model(MsaModel, num_hidden_layers=1)  # each kernel more is a run of the C++ compiler
    compiled = torch.compile(model, fullgraph=True)
    tokens = random_tokens(3, 5)
    with torch.no_grad():
        assert difference(compiled(tokens)[0], model(tokens)[0]) <= TOLERANCE


def test_compiled_contacts():
    torch._dynamo.reset()
    model = small_model(MsaModel)
    compiled = torch.compile(model.contact_logits, fullgraph=True, backend="eager")
    tokens = batched(MSAS)
    with torch.no_grad():
        assert difference(compiled(tokens)[0].sigmoid(), model.predict_contacts(tokens)) <= TOLERANCE


def test_compiled_by_a_gpus_paths(as_on_a_gpu):
    """In one graph, which asks the modules for hooks and adapters as it is made."""
    as_on_a_gpu()
    torch._dynamo.reset()
    model = small_model(MsaForMaskedLM, num_hidden_layers=1)
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
    for tokens in (random_tokens(4, 9), random_tokens(5, 12)):
        assert difference(compiled(tokens, is_padded=False).logits, model(tokens).logits) <= TOLERANCE


def test_exported_with_dynamic_shapes():
    model = small_model(MsaForMaskedLM)
    axes = dict.fromkeys(range(3), torch.export.Dim.AUTO)
    example = {"input_ids": batched(MSAS)}
    program = torch.export.export(model, (), example, dynamic_shapes={"input_ids": axes}, strict=False).module()
    for tokens in (example["input_ids"], random_tokens(5, 7).repeat(3, 1, 1), batched(MSAS[1:3])):
        real = tokens != PAD
        assert difference(program(input_ids=tokens).logits[real], model(tokens).logits[real]) <= TOLERANCE


# ------------------------------------------------------------------------- attention kernels, offloading, shards


def test_what_a_flash_kernel_is_given(tiny, blocks, monkeypatch):
    """No GPU here: a stand-in checks the shapes and the 2-D mask of transformers' flash interface, then computes."""
    calls = []

    def flash(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **kwargs):
        columns, heads, rows, head_dim = query.shape
        assert key.shape == value.shape == query.shape
        assert heads * head_dim == 64
        assert not module.is_causal
        assert dropout == 0.0
        assert not [name for name in kwargs if name.startswith("output_")]
        if attention_mask is not None:
            assert attention_mask.shape == (columns, rows)
            assert attention_mask.dtype == torch.bool
            assert (attention_mask.sum(1) > 0).all()
            attention_mask = attention_mask[:, None, None]
        calls.append(attention_mask is not None)
        context = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling)
        return context.transpose(1, 2), None

    blocks(2**16)  # one call for each layer
    tokens = batched(MSAS)
    real = tokens != PAD
    model = tiny_model(MsaForMaskedLM, tiny)
    with torch.no_grad():
        expected = model(tokens).logits[real], model(MSAS[0]).logits, model.predict_contacts(tokens)
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", flash)
        model.config._attn_implementation_internal = "flash_attention_2"
        result = model(tokens).logits[real], model(MSAS[0]).logits, model.predict_contacts(tokens)
    assert calls == [True] * 4 + [False] * 4 + [True] * 3
    for one, other in zip(result, expected, strict=True):
        assert difference(one, other) <= TOLERANCE


DEVICE_MAPS = {
    "embeddings and head": {"embeddings": "disk", "contact_head": "cpu", "layer_norm": "cpu", "head": "disk"},
    "contact head": {"embeddings": "cpu", "contact_head": "disk", "layer_norm": "disk", "head": "cpu"},
}


@pytest.mark.parametrize(
    ("cls", "split"),
    [*((cls, "auto") for cls in CLASSES)]
    + [(cls, split) for cls in (MsaForMaskedLM, MsaForContactPrediction) for split in DEVICE_MAPS],
)
def test_offloaded_to_disk(tiny, tmp_path, cls, split):
    whole = tiny_model(cls, tiny)
    whole.save_pretrained(tmp_path / "hub")  # with its classifier
    if split == "auto":
        kwargs = {"device_map": "auto", "max_memory": {"cpu": 1_500_000}}
    else:
        parts = DEVICE_MAPS[split] | {f"layers.{i}": "disk" if i % 2 else "cpu" for i in range(4)}
        head = {"lm_head": parts.pop("head")}
        places = {f"msa.{name}": place for name, place in parts.items()}
        kwargs = {"device_map": places | (head if cls is MsaForMaskedLM else {})}
    model = cls.from_pretrained(tmp_path / "hub", offload_folder=tmp_path / "offload", **kwargs).eval()
    assert set(model.hf_device_map.values()) == {"cpu", "disk"}
    tokens = batched(MSAS)
    with torch.no_grad():
        assert difference(model(tokens)[0], whole(tokens)[0]) <= TOLERANCE
    assert difference(model.predict_contacts(tokens), whole.predict_contacts(tokens)) <= TOLERANCE


@per_class
def test_sharding_plans_name_real_modules(cls):
    model = small_model(cls)
    names = {name.replace(".0", ".*").replace(".1", ".*") for name, _ in model.named_modules()}
    assert set(model.tp_plan) <= names
    assert set(model.fsdp_plan) <= names
    prefix = "" if cls is MsaModel else "msa."
    linear = {f"{prefix}{name}" for name in model.config.base_model_tp_plan}
    inside = {
        n.replace(".0", ".*").replace(".1", ".*") for n, m in model.named_modules() if type(m) is torch.nn.Linear
    }
    assert linear == {name for name in inside if ".layers." in f".{name}"}


SHARDED = """
import sys, torch, torch.distributed as dist
from transformers.distributed import DistributedConfig
from modeling_msa import MsaForContactPrediction, MsaForMaskedLM
folder, expected = sys.argv[1:]
expected = torch.load(expected)
tokens, real = expected["tokens"], expected["tokens"] != 1
plans = {"tp": DistributedConfig(tp_size=2, tp_plan="auto"), "fsdp": DistributedConfig(fsdp_size=2)}
for kind, cls in [(kind, cls) for kind in plans for cls in (MsaForMaskedLM, MsaForContactPrediction)]:
    model = cls.from_pretrained(folder, distributed_config=plans[kind]).eval()
    if kind == "fsdp":  # contacts do not go through forward
        torch.distributed.fsdp.register_fsdp_forward_method(model, "predict_contacts")
    result = {}
    with torch.no_grad():
        outputs = model(tokens, output_attentions=kind == "tp")
        if cls is MsaForMaskedLM:
            result["logits"] = outputs.logits[real]
        if kind == "tp":
            result["row maps"] = outputs.attentions[-1]
        result["contacts"] = model.predict_contacts(tokens)
    model(tokens, labels=expected["labels"][cls.__name__]).loss.backward()
    weights = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    weights = {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in weights.items()}
    assert weights.keys() == expected["gradients"][cls.__name__].keys()
    pairs = [(result[name], expected[name]) for name in result]
    pairs += [(weights[name], gradient) for name, gradient in expected["gradients"][cls.__name__].items()]
    for one, other in pairs:
        assert one.shape == other.shape
        assert ((one - other).abs().max() / other.abs().max().clamp(min=1)).item() <= 1e-5, (kind, cls)
    print("equal", kind, cls.__name__)
dist.barrier()
dist.destroy_process_group()
"""


def test_sharded_over_two_processes(tiny, tmp_path):
    """Tensor parallelism and FSDP by the plans in the configuration: outputs, contacts and gradients."""
    pytest.importorskip("transformers.distributed.fsdp", reason="this transformers has no sharded loading")
    tokens = batched(MSAS)
    expected = {"tokens": tokens, "labels": {}, "gradients": {}}
    for cls in (MsaForMaskedLM, MsaForContactPrediction):
        model = tiny_model(cls, tiny)
        expected["labels"][cls.__name__] = labels_for(cls, tokens)
        trained = gradients(model, tokens)
        expected["gradients"][cls.__name__] = {name: g for name, g in trained.items() if g is not None}
    with torch.no_grad():
        outputs = tiny_model(MsaForMaskedLM, tiny)(tokens, output_attentions=True)
        expected |= {"logits": outputs.logits[tokens != PAD], "row maps": outputs.attentions[-1]}
        expected["contacts"] = model.predict_contacts(tokens)
    torch.save(expected, tmp_path / "expected.pt")
    (tmp_path / "sharded.py").write_text(SHARDED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(tmp_path / "sharded.py"), str(tiny), str(tmp_path / "expected.pt")]
    root = str(Path(modeling_msa_transformer.__file__).resolve().parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("equal") == 8, done.stdout


def test_copies_and_pickles(tiny):
    model = tiny_model(MsaForMaskedLM, tiny)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        assert torch.equal(twin(MSAS[0]).logits, model(MSAS[0]).logits)
    assert twin.lm_head.decoder.weight is twin.get_input_embeddings().weight
