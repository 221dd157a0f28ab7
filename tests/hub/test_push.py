"""Sharing's contract: what is pushed loads by name anywhere, and what goes wrong is said in words, before or after.

huggingface_hub's client runs against a server on loopback (hub_server.py). A folder goes up whole or is refused with
the mend; one push is one commit; nothing that has arrived is sent again; a pinned revision keeps its weights and code.
"""

import hashlib
import json
import re
import shutil

import hub_server
import pytest
import torch
from fresh import run_fresh
from hub_server import OTHER, READ, WRITE
from safetensors.torch import load_file, save_file
from small import small_model
from typer.testing import CliRunner

from modeling_msa import MsaForMaskedLM, MsaTokenizer, load_model
from modeling_msa.cli import app
from modeling_msa.hub.pushing import WEIGHTS, HubError, plan_upload, push_folder, require_login

pytestmark = pytest.mark.usefixtures("one_thread")

CARD = """---
license: mit
---
Weights of `model`, see "model".

tokenizer = AutoTokenizer.from_pretrained("model", trust_remote_code=True)
fill = pipeline("fill-mask", model="model", trust_remote_code=True)
base = AutoModel.from_pretrained("them/base", trust_remote_code=True)
"""
CODE = {
    "configuration_msa_transformer.py",
    "modeling_msa_transformer.py",
    "pipeline_msa_transformer.py",
    "sharing_msa_transformer.py",
    "tokenization_msa_transformer.py",
}
OTHERS = {"LICENSE", "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def make(folder, seed=0, **options):
    small_model(MsaForMaskedLM, seed=seed).save_pretrained(folder, **options)
    MsaTokenizer(model_max_length=32, model_max_depth=16).save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("shards") / "model", seed=1, max_shard_size="15kB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(whole, tmp_path / "model")


@pytest.fixture
def hub():
    with hub_server.running() as server:
        yield server


@pytest.fixture
def login(hub, tmp_path, monkeypatch):
    """`login(token)` makes this process a client of the server, with an empty cache."""

    def as_client(token=WRITE):
        hub.here(monkeypatch, tmp_path / "home", token)

    as_client()
    yield as_client
    monkeypatch.undo()
    hub_server.huggingface_hub.utils.close_session()


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def digest(state):
    """Of tensors by name."""
    content = b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in sorted(state.items()))
    return hashlib.sha256(content).hexdigest()


# What a repository is


def test_dry_run_shows_all_and_sends_nothing(folder, hub, login):
    login(None)
    for name in ("checkpoint-2/model.safetensors", ".cache/x", "training_args.bin", "optimizer.pt", "runs/figure.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"1234")
    result = run("push", folder, "me/thing", "--dry-run")
    assert result.exit_code == 0, result.output
    files, left_out, card = re.split(r"\nLeft out:\n|\n(?=---\nlicense)", result.stdout)
    rows = dict(re.findall(r"^(\S+) +([\d.]+ k?B)$", files, flags=re.MULTILINE))
    assert rows.keys() == CODE | OTHERS | {"runs/figure.png"}
    assert rows["runs/figure.png"] == "4 B"
    weights = (folder / "model.safetensors").stat().st_size
    assert rows["model.safetensors"] == f"{weights / 1000:.1f} kB"
    assert "12 files" in files
    assert re.findall(r"^(\S+) ", left_out, flags=re.MULTILINE) == [
        ".cache/", "checkpoint-2/", "optimizer.pt", "training_args.bin"
    ]  # fmt: skip
    # what its code loads by the folder's name goes by the repository's; the rest stays
    expected = CARD.replace('("model"', '("me/thing"').replace('model="model"', 'model="me/thing"')
    assert card.strip() == expected.strip()
    assert (folder / "README.md").read_text() == CARD
    assert hub.log == []


SPOILT = {
    "config.json": ["config.json is missing", "save_pretrained"],
    "tokenizer_config.json": ["tokenizer_config.json is missing", "tokenizer"],
    "README.md": ["README.md is missing", "complete_folder"],
    "LICENSE": ["LICENSE is missing", "MsaConfig.from_pretrained("],
    "tokenization_msa_transformer.py": [
        "code is missing: tokenization_msa_transformer.py",
        "MsaConfig.from_pretrained(",
    ],
    "sharing_msa_transformer.py": ["code is missing: sharing_msa_transformer.py"],  # no map names it: others import it
    "model.safetensors": ["weights are missing", "index.json"],
}


@pytest.mark.parametrize("name", SPOILT)
def test_missing_file_is_named_with_its_mend(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match="no complete repository, and nothing was sent") as info:
        plan_upload(folder, "me/thing")
    for words in SPOILT[name]:
        assert words in str(info.value)


def test_mend_of_the_map_mends_it(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]["AutoModel"]
    config["auto_map"]["AutoConfig"] = "them/base--configuration_msa_transformer.MsaConfig"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pipeline_msa_transformer.py").unlink()
    with pytest.raises(ValueError, match=r"auto_map of config.json lacks AutoConfig, AutoModel\n") as info:
        plan_upload(folder, "me/thing")
    (mend,) = set(re.findall(r"modeling_msa: (MsaConfig.*)$", str(info.value), flags=re.MULTILINE))
    from modeling_msa import MsaConfig

    eval(mend, {"MsaConfig": MsaConfig})
    assert plan_upload(folder, "me/thing").files.keys() == CODE | OTHERS


def test_damaged_and_foreign_folders(folder, whole, shards, tmp_path):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        plan_upload(folder, "me/thing")
    copy = shutil.copytree(shards, tmp_path / "shards")
    first, second = sorted(copy.glob("model-*.safetensors"))[:2]
    held = load_file(first)
    lost = sorted(held)[0]
    del held[lost]
    save_file(held, first)
    second.unlink()
    with pytest.raises(ValueError, match=rf"{second.name} is missing, which (.|\n)*{first.name} lacks {lost}"):
        plan_upload(copy, "me/thing")
    for wrong in ({"bert.x": torch.ones(1)}, load_file(whole / WEIGHTS) | {"msa.layer_norm.weight": torch.ones(3)}):
        other = shutil.copytree(whole, tmp_path / str(len(wrong)))
        save_file(wrong, other / WEIGHTS)
        with pytest.raises(ValueError, match=r"do not fit MsaForMaskedLM and config.json: (lacking|of another shape)"):
            plan_upload(other, "me/thing")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="adapters"):
        plan_upload(folder, "me/thing")
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "esm"}')
    with pytest.raises(ValueError, match="'esm', not 'msa_transformer'"):
        plan_upload(folder, "me/thing")
    with pytest.raises(FileNotFoundError, match="no folder"):
        plan_upload(tmp_path / "none", "me/thing")
    with pytest.raises(ValueError, match="OWNER/NAME"):
        plan_upload(shards, "a/b/c")


def test_server_names_contents_as_git_does(hub, tmp_path):
    """`git hash-object` gives this name to a file that holds hello and a line feed."""
    (tmp_path / "a.txt").write_text("hello\n")
    hub.seed("me/thing", tmp_path)
    tree = hub.repos["me/thing"].commits[hub.repos["me/thing"].branches["main"]]
    assert tree["a.txt"].etag == "ce013625030ba8dba906f756967f9e9ca394464a"


# From end to end: processes of their own

PUSH = """
import os
from modeling_msa.cli import app
for arguments in (["model", "me/thing"], ["model", "me/thing", "--revision", "first"], ["second/model", "me/thing"]):
    app(["push", *arguments], standalone_mode=False)
"""
LOAD = """
import hashlib
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1000  # what is lost of a cut download is less than that
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

for revision in sys.argv[2:]:
    model = AutoModelForMaskedLM.from_pretrained(sys.argv[1], revision=revision, trust_remote_code=True)
    base = AutoModel.from_pretrained(sys.argv[1], revision=revision, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], revision=revision, trust_remote_code=True)
    content = b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in sorted(model.state_dict().items()))
    assert all((model.state_dict()["msa." + name] == tensor).all() for name, tensor in base.state_dict().items())
    shape = tuple(tokenizer(["MKT", "M-T"], return_tensors="pt")["input_ids"].shape)
    code = getattr(sys.modules[type(model).__module__], "VERSION", 1)
    print(hashlib.sha256(content).hexdigest(), code, shape, flush=True)
"""


def test_push_load_pin_and_go_offline(whole, hub, tmp_path):
    """Two pushes; then, without the package, main, a hash and a branch; a cut download goes on; then offline."""
    shutil.copytree(whole, tmp_path / "model")
    second = make(tmp_path / "second" / "model", seed=2)
    with open(second / "modeling_msa_transformer.py", "a") as file:
        file.write("\nVERSION = 2\n")
    done = run_fresh(PUSH, tmp_path, packaged=True, env=hub.env(tmp_path / "pusher", WRITE))
    assert done.returncode == 0, done.stderr
    repo = hub.repos["me/thing"]
    (_, (first, _, _), (last, branch, _)) = repo.history  # a branch with nothing new is no commit
    assert branch == "main"
    assert repo.branches == {"main": last, "first": first}
    assert f"uploaded   {hub.url}/me/thing/commit/{last}" in done.stdout
    for commit, source in ((first, tmp_path / "model"), (last, second)):
        files = hub.files("me/thing", commit)
        assert files.keys() == CODE | OTHERS
        assert all(data == (source / name).read_bytes() for name, data in files.items() if name != "README.md")
    assert len(hub.uploads()) == len(set(hub.uploads())) == 2

    models = [MsaForMaskedLM.from_pretrained(path).state_dict() for path in (whole, second)]
    lines = [f"{digest(state)} {code} (1, 2, 4)" for code, state in enumerate(models, start=1)]
    expected = [lines[1], lines[0], lines[0]]
    (tmp_path / "reader").mkdir()
    env = hub.env(tmp_path / "reader" / ".hf")
    hub.cut("GET", r"resolve/.*model\.safetensors", after=20_500)
    done = run_fresh(LOAD, tmp_path / "reader", "me/thing", "main", first, "first", env=env)
    assert done.stdout.splitlines() == expected, done.stderr
    got = [entry for entry in hub.log if entry.method == "GET" and entry.path.endswith("model.safetensors")]
    size = (second / "model.safetensors").stat().st_size
    assert [(entry.status, entry.range, entry.sent) for entry in got] == [
        (0, None, 20_500),
        (206, "bytes=20000-", size - 20_000),
        (200, None, size),  # of the first commit, once for a hash and a branch
    ]

    hub.log.clear()
    env = hub.env(tmp_path / "reader" / ".hf", offline=True)
    done = run_fresh(LOAD, tmp_path / "reader", "me/thing", "main", first, "first", env=env)
    assert done.stdout.splitlines() == expected, done.stderr
    assert hub.log == []


# Pushing, and what can go wrong


def test_nothing_is_sent_twice(shards, hub, login):
    """An upload that is refused, one that is cut, a commit that is cut: each call sends what the server has not."""
    oids = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(shards.glob("model-*.safetensors"))]
    hub.fail("PUT", oids[1], 403)
    with pytest.raises(HubError, match="may not write"):
        push_folder(shards, "me/thing")
    assert set(hub.uploads()) == set(oids) - {oids[1]}
    hub.cut("PUT", oids[1], after=500)  # huggingface_hub tries again
    hub.cut("POST", "/commit/", after=500)  # but not this
    with pytest.raises(HubError, match=r"could not be made, or was cut.*Run it again"):
        push_folder(shards, "me/thing")
    assert hub.count("PUT", oids[1], status=0) == 1
    assert sorted(hub.uploads()) == sorted(oids)
    assert len(hub.repos["me/thing"].history) == 1
    push_folder(shards, "me/thing")
    assert sorted(hub.uploads()) == sorted(oids)
    assert len(hub.repos["me/thing"].history) == 2
    push_folder(shards, "me/thing")  # nothing new
    assert sorted(hub.uploads()) == sorted(oids)
    assert len(hub.repos["me/thing"].history) == 2


def test_weights_of_an_earlier_push_go(whole, shards, hub, login):
    """transformers would load the single file beside shards."""
    push_folder(whole, "me/thing", revision="other")
    assert set(hub.files("me/thing")) == set()
    push_folder(shards, "me/thing", revision="other")
    files = set(hub.files("me/thing", "other"))
    assert files == {path.name for path in shards.iterdir()}
    push_folder(whole, "me/thing", revision="other")
    assert set(hub.files("me/thing", "other")) == CODE | OTHERS
    assert len(hub.repos["me/thing"].history) == 4


def test_private_and_own_names(whole, hub, login):
    assert push_folder(whole, "mine", private=True).startswith(f"{hub.url}/me/mine/commit/")
    assert hub.repos["me/mine"].private
    run("push", whole, "me/hidden", "--private")
    assert hub.repos["me/hidden"].private
    assert b'from_pretrained("me/mine"' in hub.files("me/mine")["README.md"]
    push_folder(whole, "me/mine", private=True)  # 409, and fine
    assert hub.count("POST", "/api/repos/create", status=409) == 1
    hub.create("me/open")
    with pytest.raises(HubError, match="me/open exists already and is public, so nothing was sent"):
        push_folder(whole, "me/open", private=True)
    assert hub.files("me/open") == {}


REFUSALS = {
    "no token": (None, "me/thing", None, ["Nobody is logged in", "hf auth login", "HF_TOKEN"]),
    "wrong token": ("hf_wrong", "me/thing", None, ["does not know you", "log in again"]),
    "read token": (READ, "me/thing", None, ["may not write to me/thing", "write token"]),
    "read token, new": (READ, "me/new", None, ["may not write to me/new"]),
    "others' name": (WRITE, "you/thing", None, ["may not write to you/thing", "namespace"]),
    "limit": (WRITE, "me/thing", ("POST", "/api/repos/create", 429), ["429", "in 0 seconds", "Run it again"]),
    "limit that stays": (WRITE, "me/thing", ("POST", "/preupload/", 429), ["429", "Run it again"]),
    "server": (WRITE, "me/thing", ("POST", "/commit/", 503), ["has failed (503)", "Run it again"]),
    "conflict": (WRITE, "me/thing", ("POST", "/commit/", 412), ["Somebody else changed me/thing", "Run it again"]),
}


@pytest.mark.parametrize(("token", "repo_id", "failure", "words"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_in_words(whole, hub, login, token, repo_id, failure, words):
    hub.create("me/thing")
    login(token)
    if failure:
        hub.fail(*failure, times=99)
    result = run("push", whole, repo_id)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert re.search(r"^error: ", result.stderr, flags=re.MULTILINE)
    assert all(word in result.stderr for word in words), result.stderr
    assert hub.files("me/thing") == {}


def test_passing_failures_pass(whole, hub, login):
    """huggingface_hub itself tries again where the Hub is busy or fails for a moment."""
    hub.fail("POST", "/preupload/", 429)
    hub.fail("POST", "objects/batch", 500)
    hub.fail("PUT", "/lfs/", 502)
    push_folder(whole, "me/thing")
    assert set(hub.files("me/thing")) == CODE | OTHERS


def test_push_offline(whole, hub, login, monkeypatch):
    monkeypatch.setattr(hub_server.huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for call in (require_login, lambda: push_folder(whole, "me/thing")):
        with pytest.raises(HubError, match="Offline mode is on"):
            call()
    assert hub.log == []


# Loading, and what can go wrong

LOADS = {
    "private, no token": (None, "me/secret", None, ["no repository me/secret", "or it is private", "hf auth login"]),
    "private, others": (OTHER, "me/secret", None, ["no repository me/secret", "your token may not read it"]),
    "none": (WRITE, "me/none", None, ["no folder and no repository me/none"]),
    "wrong token": ("hf_wrong", "me/secret", None, ["does not know you", "log in again"]),
    "no permission": (OTHER, "me/secret", ("HEAD", "config.json", 403), ["may not read me/secret"]),
    "limit": (WRITE, "me/secret", ("HEAD", "config.json", 429), ["429", "Run it again"]),
    "server": (WRITE, "me/secret", ("HEAD", "config.json", 503), ["has failed (503)", "Run it again"]),
    "cut": (WRITE, "me/secret", ("GET", "safetensors", None), ["could not be made, or was cut", "Run it again"]),
}


@pytest.mark.parametrize(("token", "repo_id", "failure", "words"), LOADS.values(), ids=LOADS)
def test_loading_in_words(whole, hub, login, tmp_path, token, repo_id, failure, words):
    """By `load_model`, and the commands' --model, which write nothing then."""
    hub.seed("me/secret", whole, private=True)
    login(token)
    if failure and failure[2]:
        hub.fail(*failure, times=99)
    elif failure:
        hub.cut(*failure[:2], after=1000, times=99)
    with pytest.raises(HubError) as info:
        load_model(repo_id)
    assert all(word in str(info.value) for word in words), str(info.value)
    result = run("contacts", "fn3", "--model", repo_id, "-o", tmp_path / "map.tsv")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "map.tsv").exists()


def test_loading_private_and_offline(whole, hub, login, monkeypatch):
    hub.seed("me/secret", whole, private=True)
    constants = hub_server.huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"me/secret is no folder and not, or not whole, in the cache.*HF_HUB_OFFLINE"):
        load_model("me/secret", cls=MsaForMaskedLM)
    assert hub.log == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    expected = digest(MsaForMaskedLM.from_pretrained(whole).state_dict())
    assert digest(load_model("me/secret", cls=MsaForMaskedLM).state_dict()) == expected
    hub.log.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert digest(load_model("me/secret", cls=MsaForMaskedLM).state_dict()) == expected
    assert hub.log == []
