"""Published checkpoints are downloaded once, to where fair-esm looks, and a download that was cut is resumed."""

import hashlib
import os
import re
import subprocess
import sys
from contextlib import contextmanager

import esm
import pytest
import torch
from fair_esm import OFFICIAL, listing, load
from file_server import serving
from safetensors.torch import load_file

from modeling_msa import ConversionError, convert_checkpoint
from modeling_msa.hub import downloads

MODEL, CONTACTS = f"/models/{OFFICIAL}.pt", f"/regression/{OFFICIAL}-contact-regression.pt"


@pytest.fixture
def server(published, tmp_path, monkeypatch):
    """The published place, with a small checkpoint under an official name, and an empty cache."""
    suffixes = {MODEL: "", CONTACTS: "-contact-regression"}
    files = {path: (published / f"wide{suffix}.pt").read_bytes() for path, suffix in suffixes.items()}
    with serving(files, monkeypatch, tmp_path / "torch") as server:
        monkeypatch.setattr(downloads, "DOWNLOAD_URL", server.url)
        monkeypatch.setenv("TQDM_POSITION", "-1")  # huggingface_hub then shows bars where stderr is no terminal
        yield server


def test_download_by_official_name(server, published, tmp_path, capsys):
    convert_checkpoint(OFFICIAL, tmp_path / "out")
    assert re.search(rf"{OFFICIAL}\.pt: 100%", capsys.readouterr().err)
    convert_checkpoint(published / "wide.pt", tmp_path / "expected")
    expected = load_file(tmp_path / "expected" / "model.safetensors")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
    # where fair-esm itself looks, and nothing else
    assert listing(tmp_path / "torch" / "hub" / "checkpoints") == [
        f"{OFFICIAL}-contact-regression.pt",
        f"{OFFICIAL}.pt",
    ]
    assert [entry for entry in server.log if entry[0] == "GET"] == [("GET", MODEL, 0), ("GET", CONTACTS, 0)]

    server.log.clear()
    convert_checkpoint(OFFICIAL, tmp_path / "again")
    assert server.log == []
    model, _ = esm.pretrained.load_model_and_alphabet_core(
        OFFICIAL, *(load(path) for path in sorted((tmp_path / "torch").rglob("*.pt"), reverse=True))
    )
    assert torch.equal(model.embed_tokens.weight, expected["msa.embeddings.word_embeddings.weight"])


@pytest.mark.parametrize("ignores_range", [False, True])
def test_cut_download_goes_on(server, tmp_path, ignores_range):
    data = server.files[MODEL]
    server.cut_at = len(data) // 2
    with refused_but_for_the_cache(tmp_path, MODEL, "Run the command again"):
        convert_checkpoint(OFFICIAL, tmp_path / "out")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    part, _ = sorted(folder.iterdir())
    have = part.stat().st_size
    assert part.suffix == ".part"
    assert 0 < len(data) // 2 - have < 1000 or have == len(data) // 2

    server.log.clear()
    server.cut_at, server.broken, server.ignores_range = None, False, ignores_range
    convert_checkpoint(OFFICIAL, tmp_path / "out")
    assert [entry for entry in server.log if entry[:2] == ("GET", MODEL)] == [("GET", MODEL, have)]
    assert (folder / f"{OFFICIAL}.pt").read_bytes() == data
    assert sorted(path.suffix for path in folder.iterdir()) == [".pt", ".pt"]


def cut(server, tmp_path, url):
    """Half of a download, as a lost connection leaves it."""
    server.cut_at = len(server.files[MODEL]) // 2
    with pytest.raises(ConversionError, match="Run the command again"):
        downloads.download(url)
    server.cut_at, server.broken = None, False
    server.log.clear()


@pytest.mark.parametrize("header", ["ETag", "Last-Modified"])
def test_another_version_is_not_appended_to_half_of_the_first(server, tmp_path, header):
    url = server.url + MODEL
    server.headers[MODEL] = {header: '"one"'}
    cut(server, tmp_path, url)
    server.files[MODEL] = bytes(reversed(server.files[MODEL]))
    server.headers[MODEL] = {header: '"two"'}
    assert downloads.download(url).read_bytes() == server.files[MODEL]
    assert ("GET", MODEL, 0) in server.log


def test_md5_of_the_server(server, tmp_path):
    url, data = server.url + MODEL, server.files[MODEL]
    server.headers[MODEL] = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
    cut(server, tmp_path, url)
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    (part,) = folder.glob("*.part")
    part.write_bytes(b"?" + part.read_bytes()[1:])  # a disk has flipped a bit meanwhile
    with pytest.raises(ConversionError, match=f"its MD5 is .*, not {hashlib.md5(data).hexdigest()}"):
        downloads.download(url)
    assert not list(folder.glob("*.p*t"))
    assert downloads.download(url).read_bytes() == data
    # what is no MD5: of an upload in parts, of encrypted storage
    for number, etag in enumerate([f'"{"0" * 32}-8"', f'"{"0" * 32}"']):
        path = f"/models/other{number}.pt"
        server.files[path], server.headers[path] = data, {"ETag": etag}
        server.headers[path] |= {"x-amz-server-side-encryption": "aws:kms"} if number else {}
        assert downloads.download(server.url + path).read_bytes() == data


def test_length_at_the_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "http_get", lambda url, file, **_: file.write(server.files[MODEL] * 2))
    with pytest.raises(ConversionError, match=f"it has {2 * len(server.files[MODEL])} bytes, not"):
        downloads.download(server.url + MODEL)
    assert not list((tmp_path / "torch" / "hub" / "checkpoints").glob("*.pt*[!g]"))


def test_two_downloads_at_once(server, tmp_path):
    server.delay = 0.3
    code = "import sys, threading; from modeling_msa.hub import downloads; print(downloads.download(sys.argv[1]))"
    env = {"TORCH_HOME": str(tmp_path / "torch"), "NO_PROXY": "127.0.0.1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", code, server.url + MODEL]
    processes = [subprocess.Popen(command, env=os.environ | env, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    path = tmp_path / "torch" / "hub" / "checkpoints" / f"{OFFICIAL}.pt"
    assert path.read_bytes() == server.files[MODEL]
    assert [entry for entry in server.log if entry[0] == "GET"] == [("GET", MODEL, 0)]


@contextmanager
def refused_but_for_the_cache(folder, *words):
    with pytest.raises(ConversionError) as info:
        yield
    for word in words:
        assert word in str(info.value)
    assert listing(folder)[0] == "torch"
    assert all(path.startswith("torch") for path in listing(folder))


@pytest.mark.parametrize("absent", [MODEL, CONTACTS])
def test_download_not_found(server, tmp_path, absent):
    del server.files[absent]
    with refused_but_for_the_cache(tmp_path, absent, "404", "by other means"):
        convert_checkpoint(OFFICIAL, tmp_path / "out")


def test_no_network(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "DOWNLOAD_URL", "http://127.0.0.1:9")  # nobody listens there
    with refused_but_for_the_cache(tmp_path, "could not be downloaded", "pass its path"):
        convert_checkpoint(OFFICIAL, tmp_path / "out")
