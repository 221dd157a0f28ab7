"""Weights that are damaged, of another model, or do not fit their config are refused by `load_model` and the commands.

The error names the tensors; ``from_pretrained`` follows transformers' convention.
What goes wrong on the way from the Hub is said in the libraries' own words, with what to do. The Hub is a stand-in on
loopback (hub_server.py).
"""

import shutil
import socket

import hub_server
import pytest
import torch
import yaml
from families import make_folder
from fresh import run_fresh
from safetensors.torch import load_file, save_file
from small import small_model
from transformers import AutoModelForMaskedLM
from typer.testing import CliRunner

from modeling_msa import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForTokenClassification,
    MsaModel,
    MsaTokenizer,
    load_model,
)
from modeling_msa.hub import errors
from modeling_msa.hub.errors import HubError
from modeling_msa.hub.finding import find_distance_weights
from modeling_msa.hub.loading import load_checkpoint, saved_class
from modeling_msa.sharing_msa_transformer import DIGESTS

pytestmark = pytest.mark.usefixtures("one_thread")
AGAIN = "Download, copy or convert it again"


def run(arguments):
    from modeling_msa.cli import app

    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    small_model(MsaForMaskedLM).save_pretrained(folder)
    MsaTokenizer(model_max_length=32, model_max_depth=16).save_pretrained(folder)
    return folder


def with_tensors(change):
    def damage(folder):
        tensors = change(load_file(folder / "model.safetensors"))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / DIGESTS).unlink(missing_ok=True)

    return damage


def with_bytes(change):
    def damage(folder):
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))
        (folder / DIGESTS).unlink(missing_ok=True)

    return damage


def without(pattern):
    return with_tensors(lambda tensors: {name: tensor for name, tensor in tensors.items() if pattern not in name})


def shards(change):
    def damage(folder):
        model = MsaForMaskedLM.from_pretrained(folder)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size="10KB")
        change(folder)

    return damage


def third_layer(tensors):
    return tensors | {k.replace("layers.1", "layers.2"): t.clone() for k, t in tensors.items() if ".layers.1." in k}


BERT = {"bert.embeddings.word_embeddings.weight": torch.ones(33, 16), "bert.pooler.dense.bias": torch.ones(16)}
# what is done to the folder, the error's type, words of the error
WRONG = {
    "a layer is missing": (without(".layers.1."), ValueError, ["26 tensors are missing", "layers.1.column_attention"]),
    "a bias is missing": (without("0.feed_forward.fc1.bias"), ValueError, ["1 tensor is missing", "fc1.bias"]),
    "another shape": (
        with_tensors(lambda tensors: tensors | {"msa.layer_norm.weight": torch.ones(5)}),
        ValueError,
        ["layer_norm.weight has the shape (5,), not (16,)"],
    ),
    "another model": (with_tensors(lambda tensors: BERT), ValueError, ["missing", "bert.embeddings.word_embeddings"]),
    "a layer too many": (with_tensors(third_layer), ValueError, ["26 tensors are unexpected", "layers.2."]),
    "cut off": (with_bytes(lambda data: data[: len(data) // 2]), ValueError, ["damaged"]),
    "header": (with_bytes(lambda data: data[:30] + bytes([data[30] ^ 255]) + data[31:]), ValueError, ["damaged"]),
    "empty": (with_bytes(lambda data: b""), ValueError, ["damaged"]),
    "a shard is missing": (
        shards(lambda folder: next(folder.glob("model-00002*")).unlink()),
        FileNotFoundError,
        ["not complete", "model-00002-of"],
    ),
    "an index cut off": (
        shards(lambda folder: (folder / "model.safetensors.index.json").write_text('{"metadata":')),
        ValueError,
        ["damaged", "index"],
    ),
    "an index of nothing": (
        shards(lambda folder: (folder / "model.safetensors.index.json").write_text("{}")),
        ValueError,
        ["damaged", "index"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_weights(whole, tmp_path, name):
    damage, error, words = WRONG[name]
    folder = shutil.copytree(whole, tmp_path / "model")
    damage(folder)
    for cls in (MsaModel, MsaForMaskedLM):
        with pytest.raises(error) as caught:
            load_model(folder, cls=cls)
        for word in (str(folder), AGAIN, *words):
            assert word in str(caught.value)


def test_commands_refuse_them(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "model")
    WRONG["a bias is missing"][0](folder)
    result = run(["contacts", "fn3", "--model", str(folder), "-o", str(tmp_path / "map.tsv")])
    assert result.exit_code == 1
    assert "layers.0.feed_forward.fc1.bias" in result.stderr
    assert not (tmp_path / "map.tsv").exists()
    make_folder(tmp_path / "alignments", count=1)
    recipe = {"model": str(folder), "train_data": [str(tmp_path / "alignments")], "output_dir": str(tmp_path / "run")}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(recipe | {"max_tokens": 64, "max_steps": 1, "use_cpu": True}))
    result = run(["train", str(tmp_path / "run.yaml")])
    assert result.exit_code == 1
    assert "layers.0.feed_forward.fc1.bias" in result.stderr
    assert not (tmp_path / "run").exists()


def test_from_pretrained_follows_transformers(whole, tmp_path, caplog):
    """What is missing is initialised, and named in a table; other shapes are refused unless that is asked for."""
    folder = shutil.copytree(whole, tmp_path / "model")
    without(".layers.1.")(folder)
    for load in (MsaForMaskedLM.from_pretrained, AutoModelForMaskedLM.from_pretrained):
        model, info = load(folder, output_loading_info=True)
        assert isinstance(model, MsaForMaskedLM)
        assert len(info["missing_keys"]) == 26
    WRONG["another shape"][0](folder)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        MsaForMaskedLM.from_pretrained(folder)
    model = MsaForMaskedLM.from_pretrained(folder, ignore_mismatched_sizes=True)
    assert not model.msa.contact_head.regression.weight.requires_grad


def test_heads(whole, tmp_path):
    """`load_model` makes none new; training does, but only whole ones, and not where the folder should have one."""
    with pytest.raises(ValueError, match=r"2 tensors are missing: classifier\.bias, classifier\.weight"):
        load_model(whole, cls=MsaForTokenClassification)
    model = load_checkpoint(MsaForTokenClassification, whole, new_head=True, num_labels=3)
    assert model.classifier.bias.shape == (3,)
    model.save_pretrained(tmp_path / "three")
    with pytest.raises(ValueError, match=r"classifier\.bias has the shape \(3,\), not \(5,\)"):
        load_checkpoint(MsaForTokenClassification, tmp_path / "three", num_labels=5)
    five = load_checkpoint(MsaForTokenClassification, tmp_path / "three", num_labels=5, new_head=True)
    assert five.classifier.bias.shape == (5,)
    folder = shutil.copytree(whole, tmp_path / "half")
    without("lm_head.dense.bias")(folder)
    for new_head in (False, True):
        with pytest.raises(ValueError, match=r"1 tensor is missing: lm_head\.dense\.bias"):
            load_checkpoint(MsaForMaskedLM, folder, new_head=new_head)
    load_model(folder)  # the backbone has no head to fill
    without("lm_head.")(folder)
    with pytest.raises(ValueError, match=r"missing: lm_head\."):  # its config says that it was saved with its head
        load_checkpoint(MsaForMaskedLM, folder, new_head=True)
    with_tensors(lambda tensors: tensors | {"projection.weight": torch.ones(2)})(folder)  # somebody's own head
    assert isinstance(load_model(folder), MsaModel)


def test_other_kinds_of_folders(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match="OWNER/NAME"):
        load_model(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "esm"}')
    with pytest.raises(ValueError, match="'esm', not 'msa_transformer'"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="no device 'abacus'"):
        load_model(whole, "abacus")
    small_model(MsaForContactPrediction).save_pretrained(tmp_path)
    assert saved_class(tmp_path) is MsaForContactPrediction
    assert find_distance_weights(tmp_path) is None


# From the Hub

# token, repository, (method, path, status) of what fails, words of the error
REFUSALS = {
    "private, no token": (None, "me/secret", None, ["me/secret", "private", "authenticated"]),
    "private, others": (hub_server.OTHER, "me/secret", None, ["me/secret", "private", "authenticated"]),
    "none": (hub_server.WRITE, "me/none", None, ["me/none", "private"]),
    "no permission": (hub_server.OTHER, "me/secret", ("HEAD", "config.json", 403), ["me/secret", "token"]),
    "limit": (hub_server.WRITE, "me/secret", ("HEAD", "config.json", 429), ["Wait", "Run the command again"]),
    "server": (hub_server.WRITE, "me/secret", ("HEAD", "config.json", 503), ["Wait", "Run the command again"]),
    "cut": (hub_server.WRITE, "me/secret", ("GET", "safetensors", None), ["connection", "Run the command again"]),
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with hub_server.running() as server:
        yield server
    hub_server.huggingface_hub.utils.close_session()


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_in_words(whole, hub, tmp_path, monkeypatch, name):
    token, repo_id, failure, words = REFUSALS[name]
    hub.seed("me/secret", whole, private=True)
    hub.here(monkeypatch, tmp_path / "home", token)
    if failure and failure[2]:
        hub.fail(*failure, times=99)
    elif failure:
        hub.cut(*failure[:2], after=1000, times=99)
    with pytest.raises(HubError) as caught:
        load_model(repo_id)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_command_says_so(whole, hub, tmp_path, monkeypatch):
    hub.here(monkeypatch, tmp_path / "home")
    result = run(["contacts", "fn3", "--model", "me/none", "-o", str(tmp_path / "map.tsv")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "me/none" in result.stderr
    assert not (tmp_path / "map.tsv").exists()


def test_private_and_offline(whole, hub, tmp_path, monkeypatch):
    hub.seed("me/secret", whole, private=True)
    hub.here(monkeypatch, tmp_path / "home", hub_server.WRITE)
    constants = hub_server.huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"me/secret.*HF_HUB_OFFLINE"):
        load_model("me/secret", cls=MsaForMaskedLM)
    assert hub.log == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    expected = MsaForMaskedLM.from_pretrained(whole).state_dict()
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        hub.log.clear()
        state = load_model("me/secret", cls=MsaForMaskedLM).state_dict()
        assert all(torch.equal(state[name], expected[name]) for name in expected)
        assert bool(hub.log) != offline


UNREACHABLE = """
import time
from modeling_msa.hub.finding import find_distance_weights
from modeling_msa.hub.loading import load_model, saved_class
from modeling_msa.hub.pushing import require_login

for call in (lambda: load_model("me/secret"), lambda: saved_class("me/secret"), require_login,
             lambda: find_distance_weights("me/secret")):
    start = time.perf_counter()
    try:
        print(call().__class__.__name__, end=" ")
    except OSError as error:
        print(type(error).__name__, "failed" in str(error) and "127.0.0.1:9" in str(error), end=" ")
    print(time.perf_counter() - start < 5)
"""


def test_unreachable_hub_is_said_at_once(whole, hub, tmp_path):
    """Not after half a minute; from the cache, models load as they do offline."""
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}  # nobody listens there
    hub.seed("me/secret", whole, private=True)
    env = hub.env(tmp_path / "home", hub_server.WRITE)
    done = run_fresh(UNREACHABLE, tmp_path, packaged=True, env=env | closed)
    assert done.stdout.splitlines() == ["HubError True True"] * 4, done.stderr
    run_fresh("from modeling_msa import load_model; load_model('me/secret')", tmp_path, packaged=True, env=env)
    done = run_fresh(UNREACHABLE, tmp_path, packaged=True, env=env | closed)
    expected = ["MsaModel True", "type True", "HubError True True", "NoneType True"]
    assert done.stdout.splitlines() == expected, done.stderr


def test_slow_hub(monkeypatch):
    """One that takes the connection and does not answer is given up after seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        constants = hub_server.huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(errors, "PATIENCE", 0.3)
        hub_server.huggingface_hub.utils.close_session()
        with pytest.raises(HubError, match="and the model is not in the cache"):
            load_model("me/secret")
