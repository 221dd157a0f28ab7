"""What the name of a model stands for, which files decide what it computes, and where the base of adapters lies."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from fresh import run_fresh

from modeling_msa.hub import finding
from modeling_msa.hub.finding import find_base, find_model, model_files, resolve_model

TINY = Path(finding.__file__).parents[1] / "checkpoints" / "msa-tiny"


def adapters(folder, base, **noted):
    """A folder of adapters as PEFT saves it, with what `msa train` adds."""
    folder.mkdir(parents=True)
    saved = {"base_model_name_or_path": str(base), "auto_mapping": {"modeling_msa": noted} if noted else None}
    (folder / "adapter_config.json").write_text(json.dumps(saved))
    (folder / "adapter_model.safetensors").write_bytes(b"adapters")
    return folder


def model(folder, content=b"weights"):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(content)
    return folder


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_the_embedded_name_is_the_embedded_model(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(resolve_model("msa-tiny")) == Path(find_model("msa-tiny")) == TINY
    assert resolve_model(Path("msa-tiny")) == str(TINY)
    make(Path("msa-tiny"))
    with pytest.warns(UserWarning, match=r"msa-tiny is the model that comes with the package; pass \./msa-tiny for"):
        assert Path(resolve_model("msa-tiny")) == TINY
    for path in ("./msa-tiny", "msa-tiny/", str(tmp_path / "msa-tiny"), Path("msa-tiny")):
        assert resolve_model(path) == str(path)
    assert [resolve_model(name) for name in ("", ".", "..", "no")] == ["", ".", "..", "no"]


def test_the_files_of_a_model(tmp_path):
    folder = model(tmp_path / "model")
    for name in ("model.safetensors.index.json", "pytorch_model.bin", "training_args.bin", "README.md", "code.py"):
        (folder / name).touch()
    names = {"config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"}
    assert model_files(folder) == {name: folder / name for name in names}
    assert model_files("owner/name") == {}
    with pytest.raises(FileNotFoundError, match="no such folder"):
        model_files(tmp_path / "none")
    run = adapters(tmp_path / "run", folder)
    own = {"adapter_config.json", "adapter_model.safetensors"}
    assert model_files(run) == {name: run / name for name in own} | {f"base/{name}": folder / name for name in names}
    second = adapters(tmp_path / "second", run)  # adapters on adapters
    assert {f"base/{name}" for name in own} | {f"base/base/{name}" for name in names} < model_files(second).keys()
    online = adapters(tmp_path / "online", "owner/name")
    assert model_files(online).keys() == own
    assert find_base(online) == "owner/name"


def test_files_are_listed_without_torch(tmp_path):
    code = """
sys.argv = ["msa"]  # the command registers nothing with transformers at import
from modeling_msa.hub.finding import model_files
print(*model_files("msa-tiny"), "torch" in sys.modules)
"""
    result = run_fresh(code, tmp_path, packaged=True)
    assert result.stdout.split() == ["config.json", "model.safetensors", "False"], result.stderr


def test_the_base_is_found_where_it_was_and_beside_moved_adapters(tmp_path):
    base = model(tmp_path / "one" / "model")
    digests = {"model.safetensors": sha256(b"weights").hexdigest()}
    run = adapters(tmp_path / "one" / "run", base, base_folder="../model", base_sha256=digests)
    assert find_base(run) == str(base)
    alone = Path(shutil.copytree(run, tmp_path / "two" / "run"))
    model(tmp_path / "two" / "model", b"of another project")
    assert find_base(alone) == str(base)
    shutil.rmtree(base)
    with pytest.raises(ValueError, match=r"trained on other weights than those in .*two.model now"):
        find_base(alone)
    shutil.rmtree(tmp_path / "two" / "model")
    moved = model(tmp_path / "two" / "model")
    assert find_base(alone) == str(moved)
    model(base, b"trained again")
    assert find_base(alone) == str(moved)
    shutil.rmtree(base)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*one.model\. Copy it there\.$"):
        find_base(run)
    (run / "merged").mkdir()
    with pytest.raises(FileNotFoundError, match=r"merged, a whole model, loads without it"):
        find_base(run)


def test_the_embedded_base_is_not_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model(tmp_path / "msa-tiny")
    run = adapters(tmp_path / "run", "msa-tiny", base_folder=None)
    assert Path(find_base(run)).parent.name == "checkpoints"
    assert find_base(adapters(tmp_path / "by PEFT", "msa-tiny")) == "msa-tiny"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ("null", "damaged"),
        ('{"auto_mapping": 3}', "damaged"),
        ('{"auto_mapping": {"modeling_msa": []}}', "damaged"),
        ("{}", "does not name the model"),
        ('{"base_model_name_or_path": null}', "does not name the model"),
        ('{"base_model_name_or_path": "."}', "the model that they belong to is missing"),  # itself
    ],
)
def test_damaged_adapters(tmp_path, monkeypatch, content, words):
    run = adapters(tmp_path / "run", "me/base")
    monkeypatch.chdir(run)
    (run / "adapter_config.json").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        model_files(run)


def test_a_folder_of_a_model_and_adapters_is_refused(tmp_path):
    run = adapters(tmp_path / "run", "me/base")
    assert find_model(run) == str(run)
    (run / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"both a whole model \(config.json\) and adapters"):
        find_model(run)
