"""Contract of int8 weights through torchao and transformers' own `from_pretrained`.

- Every linear layer of attention and feed-forward is quantized, and the language model head's dense layer; each weight
  is off by at most half a step of its row. Embeddings, layer norms, the contact regression and the tied decoder are
  bit for bit what they were.
- The model then gives what a plain model with these rounded weights gives, in blocks and with gradients.
- It is saved and loaded with only the code in the folder; with this package it serves every task.

The tests run in fresh processes, since importing torchao prints warnings. `make test` installs it in a folder next to
the environment's packages; an ordinary installation is found too.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from fresh import run_fresh

from modeling_msa import MsaForMaskedLM, MsaTokenizer
from modeling_msa.hub.finding import resolve_model

BESIDE = Path(sys.prefix, "torchao")
FOUND = importlib.util.find_spec("torchao")
pytestmark = pytest.mark.skipif(not (BESIDE.is_dir() or FOUND), reason="torchao is not installed")
LAYERS, ATTENTION = 4, ("q_proj", "k_proj", "v_proj", "out_proj")

START = """
import json, sys
from pathlib import Path
sys.path[:0] = [path for path in sys.argv[1].split(":") if path]
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, TorchAoConfig
from transformers.utils import logging
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig
logging.disable_progress_bar()
torch.set_num_threads(1)
source, output = sys.argv[2:4]

def difference(one, other):
    return (one - other).abs().max().item()
"""

WITHOUT_PACKAGE = """
def load(folder, **how):
    return AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True, **how).eval()

tokens = AutoTokenizer.from_pretrained(source, trust_remote_code=True)
rows = [["MKTAYIAKQRQISFVKAAGQ", "MKSAFIAKQ-QLSYVRGADQ", "-RTAYVSRQRQITFAKGA-Q"], ["MKTAYIAKQRQ", "MKSAFIAKQ-Q"]]
inputs = tokens(rows, padding=True, return_tensors="pt")
model, plain = load(source, quantization_config=TorchAoConfig(Int8WeightOnlyConfig())), load(source)
found, changed, steps = [], [], []
for (name, weight), (_, full) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
    if type(weight.data) is torch.Tensor:
        if weight.dtype != torch.float32 or not torch.equal(weight, full):
            changed.append(name)
        continue
    found.append(name)
    assert weight.qdata.dtype == torch.int8
    step = full.detach().abs().amax(1, keepdim=True) / 127
    steps.append(((weight.dequantize() - full).abs() / step).max().item())
    full.data = weight.dequantize().clone()
with torch.no_grad():
    logits, expected = model(**inputs).logits, plain(**inputs).logits
contacts = model.predict_contacts(**inputs)
figures = {
    "quantized": found,
    "changed": changed,
    "tied": model.lm_head.decoder.weight is model.msa.embeddings.word_embeddings.weight,
    "steps": max(steps),
    "logits": difference(logits, expected),
    "contacts": difference(contacts, plain.predict_contacts(**inputs)),
    "alone": difference(model.predict_contacts(**tokens(rows[1], return_tensors="pt"))[0], contacts[1, :11, :11]),
    "with gradients": difference(model(**inputs).logits, logits),
}
model.save_pretrained(output)
tokens.save_pretrained(output)
again = load(output)
figures |= {
    "again": difference(again.predict_contacts(**inputs), contacts),
    "again quantized": sum(type(weight.data) is not torch.Tensor for weight in again.parameters()),
    "bytes": Path(output, "model.safetensors").stat().st_size / Path(source, "model.safetensors").stat().st_size,
}
dynamic = load(source, quantization_config=TorchAoConfig(Int8DynamicActivationInt8WeightConfig()))
figures["dynamic"] = difference(dynamic.predict_contacts(**inputs), contacts)
half = load(source, dtype=torch.bfloat16, quantization_config=TorchAoConfig(Int8WeightOnlyConfig()))
figures["bfloat16"] = difference(half.predict_contacts(**inputs), contacts)
print(json.dumps(figures))
"""

WITH_PACKAGE = """
from modeling_msa import (
    MsaForMaskedLM, bundled_family, embed, generate, load_model, predict_contacts, predict_distances, read_alignment,
    revert_checkpoint, score_variants,
)
family = read_alignment(bundled_family()).drop_query_gaps().take(range(12))
full, model = load_model("msa-tiny", cls=MsaForMaskedLM), load_model(output, cls=MsaForMaskedLM)
bare = load_model(output)
try:
    reverted = str(revert_checkpoint(output, output + "-reverted"))
except ValueError as error:
    reverted = str(error)
scores = {}
for mode in ("exact", "fast"):
    one, other = (score_variants(family, ["P3K", "P3R:Q5D"], each, mode=mode).score for each in (full, model))
    scores[mode] = abs(one - other).max()
probabilities = [predict_contacts(family, each).probabilities for each in (bare, model)]
print(json.dumps({
    "bare": type(bare).__name__,
    "trainable": bare.contact_head.regression.weight.requires_grad,
    "contacts": float(abs(probabilities[0] - probabilities[1]).max()),
    "scores": scores,
    "embeddings": len(embed(family, bare).residues),
    "distances": list(predict_distances(family, bare).predicted.shape),
    "generated": generate(family, model, rows=1, iterations=1, mode="fast").alignment.depth,
    "reverted": reverted,
}))
"""


def run(code, folder, *args, **kwargs):
    cwd = folder / "cwd"
    cwd.mkdir(exist_ok=True)
    done = run_fresh(START + code, cwd, BESIDE if BESIDE.is_dir() else "", *args, **kwargs)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("int8")


@pytest.fixture(scope="module")
def figures(folder):
    MsaForMaskedLM.from_pretrained(resolve_model("msa-tiny")).save_pretrained(folder / "source")
    MsaTokenizer().save_pretrained(folder / "source")
    return run(WITHOUT_PACKAGE, folder, folder / "source", folder / "int8")


def test_what_is_quantized(figures):
    attention = [f"{kind}_attention.{name}.weight" for kind in ("row", "column") for name in ATTENTION]
    inner = [*attention, "feed_forward.fc1.weight", "feed_forward.fc2.weight"]
    expected = [f"msa.layers.{k}.{name}" for k in range(LAYERS) for name in inner] + ["lm_head.dense.weight"]
    assert sorted(figures["quantized"]) == sorted(expected)
    assert figures["changed"] == []
    assert figures["tied"]
    assert 0.4 < figures["steps"] < 0.51


def test_it_computes_with_the_rounded_weights(figures):
    assert figures["logits"] < 1e-4
    assert figures["contacts"] < 1e-5
    assert figures["alone"] < 1e-5  # an alignment's result does not depend on the batch
    assert figures["with gradients"] < 1e-4


def test_saved_and_loaded_without_the_package(figures):
    assert figures["again"] == 0
    assert figures["again quantized"] == len(figures["quantized"])
    assert figures["bytes"] < 0.5  # the rest is embeddings
    assert 0 < figures["dynamic"] < 0.1
    assert 0 < figures["bfloat16"] < 0.1


def test_the_package_uses_it(folder, figures):
    found = run(WITH_PACKAGE, folder, folder / "source", folder / "int8", packaged=True)
    assert found["bare"] == "MsaModel"  # though torchao's tensors have the names of another class
    assert not found["trainable"]
    assert found["contacts"] < 1e-6
    assert 0 < found["scores"]["exact"] < 0.1
    assert 0 < found["scores"]["fast"] < 0.1
    assert (found["embeddings"], found["distances"]) == (80, [12, 12])
    assert found["generated"] == 1
    assert "is quantized, which fair-esm's file cannot be" in found["reverted"]
