"""Pushing a folder: it goes up whole, in one commit, or is refused with what to do before anything is sent.

Nothing that has arrived is sent again; a pinned revision keeps its weights and code. huggingface_hub's client runs
against a stand-in on loopback (hub_server.py).
"""

import hashlib
import json
import re
import shutil

import hub_server
import pytest
from fresh import run_fresh
from hub_server import READ, WRITE
from safetensors.torch import load_file, save_file
from small import small_model
from typer.testing import CliRunner

from modeling_msa import MsaConfig, MsaForMaskedLM, MsaTokenizer, complete_folder
from modeling_msa.hub.errors import HubError
from modeling_msa.hub.pushing import plan_upload, push_folder, require_login
from modeling_msa.sharing_msa_transformer import CODE_FILES

pytestmark = pytest.mark.usefixtures("one_thread")

CARD = """---
license: mit
---
Weights of `model`, see "model".

tokenizer = AutoTokenizer.from_pretrained("model", trust_remote_code=True)
fill = pipeline("fill-mask", model="model", trust_remote_code=True)
base = AutoModel.from_pretrained("them/base", trust_remote_code=True)
"""
CODE = set(CODE_FILES)
WEIGHTS = {"model.safetensors", "weights.sha256.json"}
OTHERS = {"LICENSE", "README.md", "config.json", "tokenizer.json", "tokenizer_config.json"} | WEIGHTS


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
    from modeling_msa.cli import app

    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_dry_run_shows_all_and_sends_nothing(folder, hub, login):
    login(None)
    left = (
        "checkpoint-2/model.safetensors",
        ".cache/x",
        "training_args.bin",
        "optimizer.pt",
        "model-1-of-2.safetensors",
    )
    for name in (*left, "runs/figure.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"1234")
    result = run("push", folder, "me/thing", "--dry-run", "--include", "runs/*.png")
    assert result.exit_code == 0, result.output
    files, left_out, card = re.split(r"\nLeft out \(.*\n|\n(?=---\nlicense)", result.stdout)
    rows = dict(re.findall(r"^(\S+) +([\d.]+ k?B)$", files, flags=re.MULTILINE))
    assert rows.keys() == CODE | OTHERS | {"runs/figure.png"}
    assert rows["runs/figure.png"] == "4 B"
    weights = (folder / "model.safetensors").stat().st_size
    assert rows["model.safetensors"] == f"{weights / 1000:.1f} kB"
    assert "14 files" in files
    assert re.findall(r"^(\S+) ", left_out, flags=re.MULTILINE) == [
        ".cache/", "checkpoint-2/", "model-1-of-2.safetensors", "optimizer.pt", "training_args.bin"
    ]  # fmt: skip
    # what its code loads by the folder's name goes by the repository's; the rest stays
    expected = CARD.replace('("model"', '("me/thing"').replace('model="model"', 'model="me/thing"')
    assert card.strip() == expected.strip()
    assert (folder / "README.md").read_text() == CARD
    assert hub.log == []


def test_what_is_missing_is_named_and_can_be_completed(folder):
    """The printed lines of Python complete the folder."""
    names = ["tokenizer_config.json", "README.md", "LICENSE", "sharing_msa_transformer.py"]
    for name in names:
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    del config["auto_map"]["AutoModel"]
    config["auto_map"]["AutoConfig"] = "them/base--configuration_msa_transformer.MsaConfig"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="is not a complete repository, so nothing was sent") as info:
        plan_upload(folder, "me/thing")
    for name in names:
        assert f"{name} is missing." in str(info.value)
    assert "lacks AutoConfig, AutoModel, AutoTokenizer." in str(info.value)
    (lines,) = re.findall(r"in Python: (.*)", str(info.value))
    exec(lines, {})
    assert plan_upload(folder, "me/thing").files.keys() == CODE | OTHERS
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"The weights are missing: model.safetensors"):
        plan_upload(folder, "me/thing")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle is not read")
    with pytest.raises(ValueError, match=r"The weights are missing: model.safetensors"):
        plan_upload(folder, "me/thing")
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json is missing"):
        plan_upload(folder, "me/thing")


def test_weights_of_quantized_models_are_whole_files(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {}}))
    assert "model.safetensors" in plan_upload(folder, "me/thing").files
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is missing or damaged"):
        plan_upload(folder, "me/thing")


def test_only_weights_that_are_loaded_go_up(shards, tmp_path):
    copy = shutil.copytree(shards, tmp_path / "shards")
    (copy / "other").mkdir()
    for name in ("model-00009-of-00009.safetensors", "other/model.safetensors"):
        (copy / name).write_bytes(b"1234")
    planned = plan_upload(copy, "me/thing")
    assert planned.left_out == {
        "model-00009-of-00009.safetensors": "not loaded, as there are other weights",
        "other/": "not part of a model",
    }
    assert {"model.safetensors.index.json", "weights.sha256.json"} <= planned.files.keys()


PRIVATE = (
    "token.txt", "kaggle.json", "id_ed25519", ".env.txt", ".env", "hf_token", "credentials.json", "my_secret.yaml",
    "server.pem", "weights.pkl", ".git/config",
)  # fmt: skip
OWN = ("private.a3m", "families/one.a3m", "notes.md", "figures/map.png", "all_results.json")


def spoil(folder):
    for name in (*PRIVATE, *OWN):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("private")


def test_only_the_files_of_a_model_go_up(folder, hub, login):
    spoil(folder)
    for name in ("recipe.yaml", "distances.json"):
        (folder / name).write_text("{}")
    assert run("push", folder, "me/thing").exit_code == 0
    assert hub.files("me/thing").keys() == CODE | OTHERS | {"recipe.yaml", "distances.json"}
    left_out = plan_upload(folder, "me/thing").left_out
    assert {name: left_out[name] for name in ("private.a3m", "figures/", "token.txt", ".git/", "weights.pkl")} == {
        "private.a3m": "not part of a model",
        "figures/": "not part of a model",
        "token.txt": "a secret",
        ".git/": "hidden",
        "weights.pkl": "a pickle",
    }


def test_include(folder, hub, login):
    spoil(folder)
    (folder / "figures" / "token.txt").write_text("private")
    done = run("push", folder, "me/thing", "--include", "figures", "--include", "*.a3m", "--include", "*")
    assert done.exit_code == 0, done.output
    assert hub.files("me/thing").keys() == CODE | OTHERS | set(OWN)
    planned = plan_upload(folder, "me/thing", include=["weights.pkl", "not*.md"])
    assert planned.files.keys() == CODE | OTHERS | {"weights.pkl", "notes.md"}
    with pytest.raises(ValueError, match=r"has no file other/\*, which is to be included"):
        plan_upload(folder, "me/thing", include=["other/*"])


def test_links_that_point_out_are_not_followed(folder, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "private").write_text("private")
    (folder / "notes.md").symlink_to(tmp_path / "home" / "private")
    (folder / "home").symlink_to(tmp_path / "home")
    (folder / "inside.md").symlink_to("README.md")
    planned = plan_upload(folder, "me/thing", include=["*", "notes.md", "inside.md"])
    assert planned.files.keys() == CODE | OTHERS | {"inside.md"}
    assert planned.left_out["notes.md"] == "a link to a file outside"
    for name in ("LICENSE", "generation_config.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "home" / "private")
        if name == "LICENSE":
            with pytest.raises(ValueError, match="LICENSE is a link to a file outside, which is not followed"):
                plan_upload(folder, "me/thing")
            (folder / name).unlink()
            (folder / name).write_text("Apache")
    assert plan_upload(folder, "me/thing").left_out["generation_config.json"] == "a link to a file outside"


def test_models_do_not_push_what_links_point_to(folder, hub, login, tmp_path):
    (tmp_path / "private").write_text("private")
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(tmp_path / "private")
    MsaForMaskedLM.from_pretrained(folder).push_to_hub("me/thing")
    MsaForMaskedLM.from_pretrained(folder).save_pretrained(folder, push_to_hub=True, repo_id="me/other")
    for repo_id in ("me/thing", "me/other"):
        assert b"private" not in hub.files(repo_id)["README.md"]


def test_digests_go_up(folder, hub, login):
    """Of the weights as they are, also where an earlier version saved them without."""
    (folder / "weights.sha256.json").unlink()
    push_folder(folder, "me/thing")
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert json.loads(hub.files("me/thing")["weights.sha256.json"]) == {"model.safetensors": digest}
    small_model(MsaForMaskedLM, seed=5).push_to_hub("me/thing")
    files = hub.files("me/thing")
    digest = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert json.loads(files["weights.sha256.json"]) == {"model.safetensors": digest}


def test_damaged_and_foreign_folders(folder, shards, tmp_path):
    weights = folder / "model.safetensors"
    (folder / "weights.sha256.json").unlink()
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        plan_upload(folder, "me/thing")
    save_file({name: tensor for name, tensor in tensors.items() if "fc1.bias" not in name}, weights)
    with pytest.raises(ValueError, match=r"2 tensors are missing: msa\.layers\.0\.feed_forward\.fc1\.bias"):
        plan_upload(folder, "me/thing")
    copy = shutil.copytree(shards, tmp_path / "shards")
    first = min(copy.glob("model-*.safetensors"))
    first.unlink()
    with pytest.raises(ValueError, match=first.name):
        plan_upload(copy, "me/thing")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="adapters"):
        plan_upload(folder, "me/thing")
    (folder / "adapter_config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "esm"}')
    with pytest.raises(ValueError, match="'esm', not 'msa_transformer'"):
        plan_upload(folder, "me/thing")
    with pytest.raises(FileNotFoundError, match="no folder"):
        plan_upload(tmp_path / "none", "me/thing")
    with pytest.raises(ValueError, match="a/b/c"):
        plan_upload(shards, "a/b/c")


def test_server_names_contents_as_git_does(hub, tmp_path):
    """`git hash-object` gives this name to a file that holds hello and a line feed."""
    (tmp_path / "a.txt").write_text("hello\n")
    hub.seed("me/thing", tmp_path)
    tree = hub.repos["me/thing"].commits[hub.repos["me/thing"].branches["main"]]
    assert tree["a.txt"].etag == "ce013625030ba8dba906f756967f9e9ca394464a"


LOAD = """
import hashlib
import huggingface_hub.constants
huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 1000  # what is lost of a cut download is less than that
from transformers import AutoModelForMaskedLM, AutoTokenizer

for offline in (False, True):  # once more from the cache
    huggingface_hub.constants.HF_HUB_OFFLINE = offline
    for revision in sys.argv[2:]:
        model = AutoModelForMaskedLM.from_pretrained(sys.argv[1], revision=revision, trust_remote_code=True)
        tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], revision=revision, trust_remote_code=True)
        content = b"".join(name.encode() + each.numpy().tobytes() for name, each in sorted(model.state_dict().items()))
        shape = tuple(tokenizer(["MKT", "M-T"], return_tensors="pt")["input_ids"].shape)
        code = getattr(sys.modules[type(model).__module__], "VERSION", 1)
        print(hashlib.sha256(content).hexdigest(), code, shape, flush=True)
    print(flush=True)
    sys.stdin.readline()
"""


def test_push_load_pin_and_go_offline(whole, hub, login, tmp_path):
    """Two pushes; then, in a process without the package, main, a hash and a branch; a cut download resumes."""
    second = make(tmp_path / "second" / "model", seed=2)
    with open(second / "modeling_msa_transformer.py", "a") as file:
        file.write("\nVERSION = 2\n")
    assert run("push", whole, "me/thing").exit_code == 0
    assert run("push", whole, "me/thing", "--revision", "first").exit_code == 0
    done = run("push", second, "me/thing")
    repo = hub.repos["me/thing"]
    (_, (first, _, _), (last, branch, _)) = repo.history  # a branch with nothing new is no commit
    assert branch == "main"
    assert repo.branches == {"main": last, "first": first}
    assert f"uploaded   {hub.url}/me/thing/commit/{last}" in done.stdout
    for commit, source in ((first, whole), (last, second)):
        files = hub.files("me/thing", commit)
        assert files.keys() == CODE | OTHERS
        assert all(data == (source / name).read_bytes() for name, data in files.items() if name != "README.md")
    assert len(hub.uploads()) == len(set(hub.uploads())) == 2

    expected = []
    for code, folder in enumerate((whole, second), start=1):
        state = sorted(MsaForMaskedLM.from_pretrained(folder).state_dict().items())
        content = b"".join(name.encode() + tensor.numpy().tobytes() for name, tensor in state)
        expected.append(f"{hashlib.sha256(content).hexdigest()} {code} (1, 2, 4)")
    (tmp_path / "reader").mkdir()
    hub.cut("GET", r"resolve/.*model\.safetensors", after=20_500)
    env = hub.env(tmp_path / "reader" / ".hf")
    done = run_fresh(LOAD, tmp_path / "reader", "me/thing", "main", first, "first", env=env)
    assert done.stdout.split("\n\n")[:2] == ["\n".join([expected[1], expected[0], expected[0]])] * 2, done.stderr
    got = [entry for entry in hub.log if entry.method == "GET" and entry.path.endswith("model.safetensors")]
    size = (second / "model.safetensors").stat().st_size
    assert [(entry.status, entry.range, entry.sent) for entry in got] == [
        (0, None, 20_500),
        (206, "bytes=20000-", size - 20_000),
        (200, None, size),  # of the first commit, once for a hash and a branch; none offline
    ]


def test_nothing_is_sent_twice(shards, hub, login):
    """An upload that is refused, one that is cut, a commit that is cut: each call sends what the server lacks."""
    oids = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(shards.glob("model-*.safetensors"))]
    hub.fail("PUT", oids[1], 403)
    with pytest.raises(HubError, match=r"403.*me/thing.*your token"):
        push_folder(shards, "me/thing")
    assert set(hub.uploads()) == set(oids) - {oids[1]}
    hub.cut("PUT", oids[1], after=500)  # huggingface_hub tries again
    hub.cut("POST", "/commit/", after=500)  # but not this
    with pytest.raises(HubError, match=r"me/thing.*The connection to .* failed. Run the command again"):
        push_folder(shards, "me/thing")
    assert hub.count("PUT", oids[1], status=0) == 1
    assert len(hub.repos["me/thing"].history) == 1
    for _ in range(2):  # the second has nothing new
        push_folder(shards, "me/thing")
        assert sorted(hub.uploads()) == sorted(oids)
        assert len(hub.repos["me/thing"].history) == 2


def test_weights_of_an_earlier_push_go(whole, shards, hub, login):
    """transformers would load the single file beside shards."""
    push_folder(whole, "me/thing", revision="other")
    assert set(hub.files("me/thing")) == set()
    for source in (shards, whole):
        push_folder(source, "me/thing", revision="other")
        assert set(hub.files("me/thing", "other")) == {path.name for path in source.iterdir()}


def test_private_and_own_names(whole, hub, login):
    assert push_folder(whole, "mine", private=True).startswith(f"{hub.url}/me/mine/commit/")
    assert hub.repos["me/mine"].private
    assert b'from_pretrained("me/mine"' in hub.files("me/mine")["README.md"]
    push_folder(whole, "me/mine", private=True)  # 409, and fine
    assert hub.count("POST", "/api/repos/create", status=409) == 1
    run("push", whole, "me/hidden", "--private")
    assert hub.repos["me/hidden"].private
    hub.create("me/open")
    with pytest.raises(HubError, match="me/open exists already and is public, so nothing was sent"):
        push_folder(whole, "me/open", private=True)
    assert hub.files("me/open") == {}


# token, repository, (method, path, status) of what fails, words of the error
REFUSALS = {
    "no token": (None, "me/thing", None, ["hf auth login"]),
    "wrong token": ("hf_wrong", "me/thing", None, ["Invalid", "hf auth login"]),
    "read token": (READ, "me/thing", None, ["me/thing", "Forbidden", "your token"]),
    "others' name": (WRITE, "you/thing", None, ["you/thing", "namespace", "your token"]),
    "limit": (WRITE, "me/thing", ("POST", "/preupload/", 429), ["429", "Wait", "Run the command again"]),
    "server": (WRITE, "me/thing", ("POST", "/commit/", 503), ["503", "Wait", "Run the command again"]),
    "conflict": (WRITE, "me/thing", ("POST", "/commit/", 412), ["412", "Run the command again"]),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_in_words(whole, hub, login, name):
    token, repo_id, failure, words = REFUSALS[name]
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


def test_push_offline(whole, hub, login, monkeypatch):
    monkeypatch.setattr(hub_server.huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for call in (require_login, lambda: push_folder(whole, "me/thing")):
        with pytest.raises(HubError, match="unset HF_HUB_OFFLINE"):
            call()
    assert hub.log == []


def test_complete_folder_adds_tokenizer_and_card(tmp_path):
    config = MsaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=64)
    complete_folder(tmp_path, config, "mine", license="mit")
    assert {path.name for path in tmp_path.iterdir()} == CODE | OTHERS - WEIGHTS - {"config.json"}
    assert MsaTokenizer.from_pretrained(tmp_path).model_max_length == 64
    assert "license: mit" in (tmp_path / "README.md").read_text()
