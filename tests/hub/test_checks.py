"""Configs and weights that no model can be made of are refused in words, before one is built and within seconds.

Each key of a config is damaged in each way: the folder then loads to the same outputs, or the error names the file
and the key. Digests tell a flipped bit from weights that were saved anew.
"""

import hashlib
import json
import resource
import shutil
import time

import hub_server
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import random_tokens, small_model
from torch.testing._internal.two_tensor import TwoTensor
from transformers import Trainer, TrainingArguments
from typer.testing import CliRunner

from modeling_msa import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaModel,
    MsaTokenizer,
    load_model,
)
from modeling_msa.hub.checks import check_numbers
from modeling_msa.hub.loading import saved_class

pytestmark = pytest.mark.usefixtures("one_thread")
DIGESTS = "weights.sha256.json"
TOKENS = random_tokens(3, 9)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    small_model(MsaForMaskedLM).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(whole, tmp_path / "model")


def run(*arguments):
    from modeling_msa.cli import app

    return CliRunner().invoke(app, [str(each) for each in arguments])


def logits(folder):
    return load_model(folder, "cpu", cls=MsaForMaskedLM)(TOKENS).logits


def resave(folder, change):
    """Change the tensors of a folder as another program would, and its digests with them."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    (folder / DIGESTS).write_text(json.dumps({path.name: hashlib.sha256(path.read_bytes()).hexdigest()}))


# Configs

MISSING = object()
DAMAGE = [MISSING, None, "text", [], [1], {}, -1, 0, 10**6, 10**9, 10**30, 1.5, True, float("nan"), float("inf")]
FURTHER = (
    "num_labels", "id2label", "label2id", "quantization_config", "torch_dtype", "_attn_implementation",
    "attn_implementation", "transformers_weights", "output_hidden_states", "return_dict", "experts_implementation",
    "auto_map", "problem_type",
)  # fmt: skip
KEYS = [*json.loads(small_model(MsaForMaskedLM).config.to_json_string(use_diff=False)), *FURTHER]
# what is right, or changes nothing in evaluation, so that the folder loads; any other value is refused in every key
HARMLESS = {
    "activation_dropout", "attention_dropout", "classifier_dropout", "hidden_dropout", "architectures",
    "transformers_version", "problem_type", "custom_pipelines", "initializer_range",
}  # fmt: skip
SIZES = {
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings",
    "max_row_position_embeddings", "row_position_embedding_size", "vocab_size",
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(set(KEYS)))
def test_each_key_damaged_in_each_way(folder, key):
    """Some 600 configs in all: each requires a fraction of a second, and hardly any memory."""
    config, expected = json.loads((folder / "config.json").read_text()), logits(folder)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for value in DAMAGE:
        damaged = {name: each for name, each in config.items() if name != key}
        damaged |= {} if value is MISSING else {key: value}
        (folder / "config.json").write_text(json.dumps(damaged))
        start, words = time.perf_counter(), ""
        try:
            result = logits(folder)
        except (ValueError, OSError) as error:
            words = str(error)
        if words:
            assert key not in HARMLESS or value is not MISSING
            assert str(folder) in words
            assert key.removeprefix("_") in words or "config.json" in words
        else:
            torch.testing.assert_close(result, expected, atol=1e-5, rtol=0, msg=lambda text, v=value: f"{v}: {text}")
            assert key not in SIZES or damaged.get(key) == config[key] or value is MISSING
        assert time.perf_counter() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 500_000  # kB


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_hidden_layers", 10**6, "num_hidden_layers is 1000000, and 2 in the weights"),
        ("intermediate_size", 10**9, "intermediate_size is 1000000000, and 32 in the weights"),
        ("max_position_embeddings", 10**9, "do not fit config.json: max_position_embeddings is 1000000000, and 32 in"),
        ("num_attention_heads", 3, r"hidden_size \(16\) must be a multiple of num_attention_heads \(3\)"),
        ("num_labels", 10**9, "num_labels must be an integer from 0 to 10000"),
        ("pad_token_id", 3, "pad_token_id is 3, but the tokenizer's is 1"),
        ("bos_token_id", 33, "bos_token_id is 33, but the tokenizer's is 0"),
        ("mask_token_id", 1000, "mask_token_id is 1000, but the tokenizer's is 32"),
        ("gap_token_id", None, "gap_token_id is None, but the tokenizer's is 30"),
        ("vocab_size", 20, "vocab_size is 20, but the tokenizer has 33 tokens|mask_token_id"),
        ("dtype", "int8", "dtype must be one of float32, float64, float16, bfloat16, got 'int8'"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps must be between 0 and 0.1, got nan"),
    ],
)
def test_words_name_key_and_value(folder, key, value, words):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError, match=words):
        load_model(folder, "cpu")


@pytest.mark.parametrize("format", ["safetensors", "shards", "bin", "bin of old torch"])
def test_absurd_depth_is_seen_in_every_format(folder, format):
    tensors = load_file(folder / "model.safetensors")
    if format == "shards":
        small_model(MsaForMaskedLM).save_pretrained(folder, max_shard_size="10KB")
    elif format.startswith("bin"):
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=format == "bin")
    if format != "safetensors":
        (folder / "model.safetensors").unlink()
    load_model(folder, "cpu")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 10**6}))
    start = time.perf_counter()
    with pytest.raises(ValueError, match="num_hidden_layers is 1000000, and 2 in the weights"):
        load_model(folder, "cpu")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "text",
    ["[]", "null", '"text"', "3", "", "{", '{"model_type":', "\xff", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"],
)
def test_config_that_is_not_one(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    for load in (load_model, saved_class):
        with pytest.raises(ValueError, match=r"config\.json is (damaged|not the config)"):
            load(folder)
    result = run("embed", "fn3", "--model", folder, "-o", folder / "out.npz")
    assert result.exit_code == 1
    assert "config.json is" in result.stderr


# Numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(folder, value):
    def spoil(tensors):
        tensors["msa.layers.1.feed_forward.fc1.bias"][3:5] = value
        tensors["msa.contact_head.regression.bias"][0] = value
        return tensors

    resave(folder, spoil)
    words = r"layers\.1\.feed_forward\.fc1\.bias \(2 of 32 values\).*|contact_head\.regression\.bias \(1 of 1 values\)"
    for cls in (MsaModel, MsaForMaskedLM, MsaForContactPrediction):
        with pytest.raises(ValueError, match=words):
            load_model(folder, "cpu", cls=cls)
    result = run("contacts", "fn3", "--model", folder, "-o", folder / "out.tsv")
    assert result.exit_code == 1
    assert "NaN or infinity" in result.stderr
    assert not (folder / "out.tsv").exists()


def test_values_too_large_for_the_type(folder):
    resave(folder, lambda tensors: tensors | {"msa.layer_norm.bias": torch.full((16,), 1e6)})
    load_model(folder, "cpu")
    with pytest.raises(ValueError, match=r"\(float16\).*layer_norm\.bias \(16 of 16 values\)"):
        load_model(folder, "cpu", "float16")


def test_finite_values_of_any_size_are_taken(whole):
    model = load_model(whole, "cpu")
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        model.to(dtype).layer_norm.weight.data.fill_(torch.finfo(dtype).max)  # their sum is infinite
        check_numbers(model, "model")


def test_check_of_numbers_is_fast():
    model = torch.nn.Linear(10_000, 3000)  # 120 MB, a quarter of ESM-MSA-1b
    check_numbers(model, "model")
    start = time.perf_counter()
    check_numbers(model, "model")
    assert time.perf_counter() - start < 0.12


def test_quantized_values(folder):
    torchao = pytest.importorskip("torchao.quantization")
    model = small_model(MsaModel, hidden_size=64, intermediate_size=128)
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    check_numbers(model, "model")
    weight = model.layers[0].feed_forward.fc1.weight
    getattr(weight, next(name for name in weight.__tensor_flatten__()[0] if "scale" in name)).data[1] = float("nan")
    with pytest.raises(ValueError, match=r"layers\.0\.feed_forward\.fc1\.weight \(1 of 128 values\)"):
        check_numbers(model, "model")


def test_values_inside_a_tensor_of_tensors():
    """As quantized ones are: of numbers and of scales."""
    model = torch.nn.Linear(4, 2)
    scales = torch.ones(2, 4)
    model.weight = torch.nn.Parameter(TwoTensor(torch.ones(2, 4), scales), requires_grad=False)
    check_numbers(model, "model")
    scales[1, 2] = float("inf")
    with pytest.raises(ValueError, match=r"weight \(1 of 8 values\)"):
        check_numbers(model, "model")


def test_integers(folder):
    name = "msa.layers.0.feed_forward.fc1.weight"
    resave(folder, lambda tensors: tensors | {name: tensors[name].to(torch.int8)})
    with pytest.raises(ValueError, match=r"not floating-point numbers: msa\.layers\.0\.feed_forward\.fc1\.weight"):
        load_model(folder, "cpu")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"fc1\.weight \(torch\.int8\)"):
        load_model(folder, "cpu")


def test_integers_of_a_head_of_somebodys_own(folder):
    resave(folder, lambda tensors: tensors | {"norm.num_batches_tracked": torch.tensor(3)})
    load_model(folder, "cpu")


# Digests


def flip(path, at=-100):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_flipped_bit(folder):
    recorded = json.loads((folder / DIGESTS).read_text())
    assert recorded == {"model.safetensors": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()}
    flip(folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: its SHA-256 is .* but .* was recorded"):
        load_model(folder, "cpu")
    result = run("contacts", "fn3", "--model", folder, "-o", folder / "out.tsv")
    assert result.exit_code == 1
    assert f"If you changed the weights yourself, remove {folder / DIGESTS}" in result.stderr
    (folder / DIGESTS).unlink()
    load_model(folder, "cpu")
    (folder / DIGESTS).write_text("{")
    with pytest.raises(ValueError, match=r"weights\.sha256\.json is damaged"):
        load_model(folder, "cpu")


def test_flipped_bit_in_a_shard(tmp_path):
    small_model(MsaForMaskedLM).save_pretrained(tmp_path, max_shard_size="10KB")
    files = sorted(tmp_path.glob("*.safetensors"))
    assert sorted(json.loads((tmp_path / DIGESTS).read_text())) == [file.name for file in files]
    flip(files[2])
    with pytest.raises(ValueError, match=f"{files[2].name} is damaged"):
        load_model(tmp_path, "cpu")


def test_flipped_bit_in_a_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    load_model(folder, "cpu")
    path = folder / "pytorch_model.bin"
    flip(path, path.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is not a PyTorch checkpoint, or .*CRC"):
        load_model(folder, "cpu")


def test_flipped_bit_in_the_cache_of_the_hub(whole, tmp_path, monkeypatch):
    """There the Hub's own digests are known, whoever has pushed."""
    try:
        with hub_server.running() as hub:
            hub.seed("me/model", whole)
            hub.repos["me/model"].commits[hub.repos["me/model"].branches["main"]].pop(DIGESTS)
            hub.here(monkeypatch, tmp_path / "home")
            load_model("me/model", "cpu")
            (blob,) = [path for path in (tmp_path / "home").rglob("blobs/*") if len(path.name) == 64]
            flip(blob)
            with pytest.raises(ValueError, match=f"is damaged.*Remove {blob}"):
                load_model("me/model", "cpu")
            blob.unlink()
            load_model("me/model", "cpu")
    finally:
        hub_server.huggingface_hub.utils.close_session()


def test_saving_again_is_no_damage(folder, tmp_path):
    for cls in (MsaForMaskedLM, MsaForSequenceClassification):
        model = cls.from_pretrained(folder)
        with torch.no_grad():
            model.msa.layer_norm.bias += 1
        model.save_pretrained(folder)
        assert torch.equal(load_model(folder, "cpu").layer_norm.bias, model.msa.layer_norm.bias)
    model.config.save_pretrained(folder)  # config and tokenizer leave them
    MsaTokenizer.for_config(model.config).save_pretrained(folder)
    load_model(folder, "cpu")
    trainer = Trainer(model, TrainingArguments(str(folder), use_cpu=True, report_to=[]))
    with torch.no_grad():
        model.msa.layer_norm.bias += 1
    trainer.save_model()
    assert torch.equal(load_model(folder, "cpu").layer_norm.bias, model.msa.layer_norm.bias)


def test_saving_that_fails_leaves_no_digest_of_other_weights(folder, monkeypatch):
    import transformers.modeling_utils

    def fail(tensors, path, **_):
        with open(path, "wb") as file:
            file.write(b"half")
        raise OSError("the power has failed")

    model = MsaForMaskedLM.from_pretrained(folder)
    monkeypatch.setattr(transformers.modeling_utils, "safe_save_file", fail)
    with pytest.raises(OSError, match="power"):
        model.save_pretrained(folder)
    assert not (folder / DIGESTS).exists()
