"""A fair-esm checkpoint becomes a Hub folder and comes back, the same to the last bit and in every output.

Or nothing is written, and the error says why and what to do. fair-esm itself reads the fixtures, so a mistake in the
swap of rows and columns (their weights have the same shapes) shows as another output.
"""

import errno
import re
import shutil
import stat
import zipfile
from pathlib import Path

import hub_server
import huggingface_hub
import pytest
import torch
from fair_esm import REGRESSION, listing, load, random_model, read_published, refused, write_published
from fresh import run_fresh
from huggingface_hub import ModelCard
from safetensors import SafetensorError
from safetensors.torch import load_file
from typer.testing import CliRunner

import modeling_msa
from modeling_msa import MsaForMaskedLM, MsaForTokenClassification, MsaModel, MsaTokenizer, _files
from modeling_msa.hub import conversion, repository
from modeling_msa.hub import fair_esm as fair_esm_format
from modeling_msa.hub.card import is_published
from modeling_msa.hub.conversion import convert_checkpoint, revert_checkpoint
from modeling_msa.hub.finding import resolve_model

# layers, width, heads, feed-forward, width of the row embedding
SIZES = {"wide": (2, 16, 4, 24, 16), "as-msa-1": (2, 16, 4, 24, 1), "no-rows": (2, 16, 4, 24, None)}


def tokens():
    ids = torch.randint(4, 31, (2, 5, 12), generator=torch.Generator().manual_seed(1))
    ids[..., 0] = 0
    return ids


@torch.no_grad()
def fair_esm_outputs(model):
    out = model(tokens(), repr_layers=range(3), return_contacts=True)
    maps = zip(("row", "column"), (out["row_attentions"], out["col_attentions"]), strict=True)
    return {
        "logits": out["logits"],
        "contacts": out["contacts"],
        **{f"hidden {layer}": states for layer, states in out["representations"].items()},
        **{f"{name} {layer}": tensor[:, layer] for name, tensor in maps for layer in range(2)},
    }


@torch.no_grad()
def our_outputs(folder):
    model = MsaForMaskedLM.from_pretrained(folder)
    out = model(tokens(), output_hidden_states=True, output_attentions=True, output_column_attentions=True)
    return {
        "logits": out.logits,
        "contacts": model.predict_contacts(tokens()),
        **{f"hidden {layer}": states for layer, states in enumerate(out.hidden_states)},
        **{f"row {layer}": maps for layer, maps in enumerate(out.attentions)},
        **{f"column {layer}": maps for layer, maps in enumerate(out.column_attentions)},
    }


def assert_same_outputs(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = max(1.0, tensor.abs().max().item())
        torch.testing.assert_close(
            actual[name], tensor, atol=1e-5 * scale, rtol=0, msg=lambda text, n=name: f"{n}: {text}"
        )


def assert_same_tensors(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype, name
        assert torch.equal(actual[name], tensor), name


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with <size>.pt and its contact regression for each of SIZES."""
    folder = tmp_path_factory.mktemp("published")
    for seed, (name, size) in enumerate(SIZES.items()):
        write_published(random_model(*size, seed=seed), folder / f"{name}.pt")
    return folder


@pytest.fixture(scope="module")
def hub(published, tmp_path_factory):
    """The same, converted."""
    folder = tmp_path_factory.mktemp("hub")
    for name in SIZES:
        convert_checkpoint(published / f"{name}.pt", folder / name)
    return folder


@pytest.fixture
def raw(published, tmp_path):
    """A copy of one published checkpoint to spoil, alone in its folder."""
    for name in ("wide.pt", "wide-contact-regression.pt"):
        shutil.copy(published / name, tmp_path)
    return tmp_path / "wide.pt"


# Conversion


@pytest.mark.parametrize("size", SIZES)
def test_outputs_are_fair_esms(published, hub, size):
    assert_same_outputs(our_outputs(hub / size), fair_esm_outputs(read_published(published / f"{size}.pt")))


def test_report_tells_sizes_and_comparison(published, tmp_path):
    report = convert_checkpoint(published / "as-msa-1.pt", tmp_path / "out")
    model = read_published(published / "as-msa-1.pt")
    assert report.tensors == len(model.state_dict())
    assert report.parameters == sum(tensor.numel() for tensor in model.state_dict().values())
    config = report.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 16, 4)
    assert (config.intermediate_size, config.max_position_embeddings) == (24, 1024)
    assert (config.row_position_embedding_size, config.max_row_position_embeddings) == (1, 1024)
    assert report.differences.keys() == {"logits", "contacts"}
    assert max(report.differences.values()) < 1e-4
    for text in ("2 layers, width 16, 4 heads", "width 1", "67 of 67 tensors equal bit for bit", "fair-esm 2"):
        assert text in str(report)


def test_comparison_goes_by_fair_esms_own_reading(published, tmp_path, monkeypatch):
    # with our reading of the names wrong, tensors still agree with themselves: only fair-esm can tell
    monkeypatch.setattr(fair_esm_format, "swap_row_and_column", lambda name: name)
    report = convert_checkpoint(published / "wide.pt", tmp_path / "out")
    assert report.differences["logits"] > 1e-2
    assert report.differences["contacts"] > 1e-2


def test_dropout_rates_are_those_that_fair_esm_applies(raw, tmp_path):
    content = load(raw)
    content["args"].dropout, content["args"].attention_dropout, content["args"].activation_dropout = 0.2, 0.3, 0.4
    torch.save(content, raw)
    config = convert_checkpoint(raw, tmp_path / "out").config
    layer = read_published(raw).layers[0]
    assert config.hidden_dropout == layer.row_self_attention.dropout_module.p == 0.2
    assert config.attention_dropout == layer.row_self_attention.layer.dropout_module.p == 0.2
    assert config.activation_dropout == layer.feed_forward_layer.layer.activation_dropout_module.p == 0.4


@pytest.mark.parametrize(("size", "wrapped"), [("wide", True), ("as-msa-1", False), ("no-rows", False)])
def test_upgraded_state_dict_gives_the_same_folder(published, hub, tmp_path, size, wrapped):
    state = read_published(published / f"{size}.pt").state_dict()
    torch.save({"model": state} if wrapped else state, tmp_path / "state.pt")
    report = convert_checkpoint(tmp_path / "state.pt", tmp_path / "out")
    assert report.config.num_attention_heads == 4  # from the regression's width
    assert report.differences["logits"] < 1e-4
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), load_file(hub / size / "model.safetensors"))


def test_without_contact_regression(published, hub, tmp_path):
    state = read_published(published / "wide.pt").state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name not in REGRESSION}, tmp_path / "state.pt")
    with refused(tmp_path, "number of attention heads", "--attention-heads", "--contact-regression"):
        convert_checkpoint(tmp_path / "state.pt", tmp_path / "out")
    report = convert_checkpoint(tmp_path / "state.pt", tmp_path / "out", attention_heads=4)
    assert not report.has_contacts
    assert report.differences.keys() == {"logits"}
    model = MsaForMaskedLM.from_pretrained(tmp_path / "out")
    with pytest.raises(ValueError, match="never fitted"):
        model.predict_contacts(tokens())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "never fitted" in card
    assert "model.predict_contacts(" not in card
    expected = load_file(hub / "wide" / "model.safetensors")
    expected |= {f"msa.{name}": torch.zeros_like(expected[f"msa.{name}"]) for name in REGRESSION}
    assert_same_tensors(load_file(tmp_path / "out" / "model.safetensors"), expected)


def test_contact_regression_elsewhere(raw, hub, tmp_path):
    (tmp_path / "wide-contact-regression.pt").rename(tmp_path / "elsewhere.pt")
    convert_checkpoint(raw, tmp_path / "out", tmp_path / "elsewhere.pt")
    assert_same_tensors(
        load_file(tmp_path / "out" / "model.safetensors"), load_file(hub / "wide" / "model.safetensors")
    )


def test_half_precision_stays(raw, tmp_path):
    dtype = torch.bfloat16
    content = load(raw)
    content["model"] = {name: tensor.to(dtype) for name, tensor in content["model"].items()}
    torch.save(content, raw)  # with the regression in float32, as published
    report = convert_checkpoint(raw, tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {dtype}
    assert {parameter.dtype for parameter in MsaModel.from_pretrained(tmp_path / "out").parameters()} == {dtype}
    assert report.config.dtype in (dtype, str(dtype).removeprefix("torch."))


def test_empty_folder_is_taken(published, tmp_path):
    (tmp_path / "out").mkdir()
    convert_checkpoint(published / "wide.pt", tmp_path / "out")
    assert "config.json" in listing(tmp_path / "out")


# The folder


def test_folder_is_a_complete_repository(hub):
    folder = hub / "wide"
    assert listing(folder) == [
        "LICENSE",
        "README.md",
        "config.json",
        "configuration_msa_transformer.py",
        "inference_msa_transformer.py",
        "model.safetensors",
        "modeling_msa_transformer.py",
        "pipeline_msa_transformer.py",
        "sharing_msa_transformer.py",
        "tokenization_msa_transformer.py",
        "tokenizer.json",
        "tokenizer_config.json",
        "weights.sha256.json",
    ]
    for path in folder.iterdir():
        # as any new file; safetensors keeps its own to the owner
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((folder / "config.json").stat().st_mode), path
        if path.suffix == ".py":
            assert path.read_bytes() == (Path(modeling_msa.__file__).parent / path.name).read_bytes()
    tokenizer = MsaTokenizer.from_pretrained(folder)
    assert (tokenizer.model_max_length, tokenizer.model_max_depth) == (1024, 1024)


def test_tokenizer_knows_the_model_takes_any_depth(hub):
    assert MsaTokenizer.from_pretrained(hub / "no-rows").model_max_depth > 10**6


def test_card(published, tmp_path):
    note = "These weights are untrained."
    convert_checkpoint(published / "wide.pt", tmp_path / "out", model_id="someone/thing", license="mit", note=note)
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.license, card.data.library_name) == ("mit", "transformers")
    assert card.data.pipeline_tag == "fill-mask"
    assert {"biology", "protein", "msa", "contact-prediction"} <= set(card.data.tags)
    text = card.text
    for words in (
        f"> {note}",
        "67 tensors",
        "contacts: largest absolute difference",
        'from_pretrained("someone/thing"',
    ):
        assert words in text
    assert "{%" not in text
    assert "\n\n\n" not in text
    assert not re.search(r"\n- .*\n\n- ", text)


def test_licence_is_named_where_it_is_known(published, tmp_path):
    """That of the published weights, known by name and sizes, is MIT; of others nobody has told."""
    report = convert_checkpoint(published / "wide.pt", tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license is None
    assert "Licence" not in card.text
    name = "esm_msa1_t12_100M_UR50S"
    assert is_published(name, modeling_msa.MsaConfig(row_position_embedding_size=1))
    assert not is_published("mine", modeling_msa.MsaConfig())
    assert not is_published(name, report.config)


# Back again


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(published, hub, tmp_path, size):
    report = revert_checkpoint(hub / size, tmp_path / "back" / "again.pt")
    assert listing(tmp_path) == ["back", "back/again-contact-regression.pt", "back/again.pt"]
    for suffix in ("", "-contact-regression"):
        back, source = load(tmp_path / "back" / f"again{suffix}.pt"), load(published / f"{size}{suffix}.pt")
        assert_same_tensors(back["model"], source["model"])
    assert report.tensors == len(load(published / f"{size}.pt")["model"]) + 2
    expected = fair_esm_outputs(read_published(published / f"{size}.pt"))
    actual = fair_esm_outputs(read_published(tmp_path / "back" / "again.pt"))
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


def test_back_into_a_folder_takes_the_name(hub, tmp_path):
    assert revert_checkpoint(hub / "wide", tmp_path).output == tmp_path / "wide.pt"
    assert listing(tmp_path) == ["wide-contact-regression.pt", "wide.pt"]


@pytest.mark.parametrize("cls", [MsaModel, MsaForTokenClassification])
def test_back_needs_the_masked_lm_head(hub, tmp_path, cls):
    cls.from_pretrained(hub / "wide").save_pretrained(tmp_path / "headless")
    with refused(tmp_path, "lm_head.dense.weight", "MsaForMaskedLM", error=ValueError):
        revert_checkpoint(tmp_path / "headless", tmp_path / "back.pt")


@pytest.mark.parametrize("name", ["esm2_mine", "my_esm1v", "not_esm_if"])
def test_back_refuses_names_that_fair_esm_misreads(hub, tmp_path, name):
    with refused(tmp_path, name, "choose another name"):
        revert_checkpoint(hub / "wide", tmp_path / f"{name}.pt")


@pytest.mark.parametrize("name", ["back.pt", "back-contact-regression.pt"])
def test_back_overwrites_nothing(hub, tmp_path, name):
    (tmp_path / name).write_text("precious")
    with refused(tmp_path, str(tmp_path / name), "remove it"):
        revert_checkpoint(hub / "wide", tmp_path / "back.pt")
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "relu"}, {"layer_norm_eps": 1e-6}, {"vocab_size": 40}, {"max_row_position_embeddings": 9}],
    ids=str,
)
def test_back_refuses_what_fair_esm_cannot_express(tmp_path, change):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 8}
    MsaForMaskedLM(modeling_msa.MsaConfig(**sizes | change)).save_pretrained(tmp_path / "other")
    with refused(tmp_path, "cannot express", next(iter(change))):
        revert_checkpoint(tmp_path / "other", tmp_path / "back.pt")


def test_back_from_no_model(tmp_path):
    with refused(tmp_path, "no such folder", error=FileNotFoundError):
        revert_checkpoint(tmp_path / "in", tmp_path / "back.pt")


@pytest.mark.parametrize(("error", "call"), [(OSError("disk full"), 0), (KeyboardInterrupt(), 1)], ids=repr)
def test_back_failing_in_the_middle(hub, tmp_path, monkeypatch, error, call):
    calls = []

    def save(content, path, save=torch.save):
        calls.append(path)
        Path(path).write_bytes(b"half")
        if len(calls) > call:
            raise error
        save(content, path)

    monkeypatch.setattr(torch, "save", save)
    with refused(tmp_path, error=type(error)):
        revert_checkpoint(hub / "wide", tmp_path / "new" / "back.pt")
    assert len(calls) == call + 1


# What is in the way, and what goes wrong


def test_output_in_the_way(raw, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("")
    (tmp_path / "file").write_text("precious")
    with refused(tmp_path, str(tmp_path / "full"), "not empty"):
        convert_checkpoint(raw, tmp_path / "full")
    with refused(tmp_path, str(tmp_path / "file"), "is a file"):
        convert_checkpoint(raw, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with refused(tmp_path, "in use"):
        convert_checkpoint(raw, ".")


@pytest.mark.parametrize(
    ("where", "output", "error"),
    [
        ("weights", "out", OSError("disk full")),
        ("comparison", "new/out", KeyboardInterrupt()),
        ("card", "empty", OSError("disk full")),
    ],
)
def test_failing_in_the_middle(raw, tmp_path, monkeypatch, error, where, output):
    def fail(*args, **kwargs):
        raise error

    owner, name = {
        "weights": (MsaForMaskedLM, "save_pretrained"),
        "comparison": (conversion, "compare_with_fair_esm"),
        "card": (repository, "write_model_card"),
    }[where]
    monkeypatch.setattr(owner, name, fail)
    (tmp_path / "empty").mkdir()
    with refused(tmp_path, error=type(error)):
        convert_checkpoint(raw, tmp_path / output)


def test_killed_in_the_middle(raw, tmp_path):
    code = """
import os, signal, sys
from modeling_msa import MsaTokenizer, convert_checkpoint
MsaTokenizer.save_pretrained = lambda self, folder: os.kill(os.getpid(), signal.SIGKILL)
convert_checkpoint(sys.argv[1], sys.argv[2])
"""
    (tmp_path / "cwd").mkdir()
    process = run_fresh(code, tmp_path / "cwd", raw, tmp_path / "out", packaged=True)
    assert process.returncode == -9, process.stderr
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out-")] != []
    with _files.temporary_sibling(tmp_path / "out") as of_a_living_one:
        convert_checkpoint(raw, tmp_path / "out")  # what is left is not in the way, and goes
        assert [path for path in tmp_path.iterdir() if path.name.startswith(".out-")] == [of_a_living_one]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out-")] == []


FULL = {
    "python": OSError(errno.ENOSPC, "No space left on device"),
    "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_full_disk(raw, hub, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch, "save", fail)
    monkeypatch.setattr(MsaTokenizer, "save_pretrained", fail)
    for convert, source, output in ((convert_checkpoint, raw, "out"), (revert_checkpoint, hub / "wide", "back.pt")):
        with refused(tmp_path, f"{output} cannot be written: the disk is full", error=OSError):
            convert(source, tmp_path / output)
    from modeling_msa.cli import app

    done = CliRunner().invoke(app, ["convert", str(raw), str(tmp_path / "out")])
    assert (done.exit_code, done.stderr.startswith("error: ")) == (1, True)


@pytest.mark.parametrize("where", ["checkpoint", "regression"])
def test_flipped_bit(raw, tmp_path, where):
    """PyTorch reads it without a word; the CRC in the file tells."""
    path = raw if where == "checkpoint" else raw.with_name("wide-contact-regression.pt")
    bad = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
        content = archive.read(entry)
    bad[bad.index(content, entry.header_offset)] ^= 1
    path.write_bytes(bad)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == entry.filename
    torch.load(path, weights_only=False)
    with refused(tmp_path, str(path), f"the CRC of {entry.filename} does not match"):
        convert_checkpoint(raw, tmp_path / "out")


def test_values_that_are_not_finite(raw, tmp_path):
    content = load(raw)
    name = next(name for name in content["model"] if name.endswith("fc1.bias"))
    content["model"][name][0] = float("nan")
    torch.save(content, raw)
    with refused(tmp_path, "NaN or infinity", error=ValueError):
        convert_checkpoint(raw, tmp_path / "out")


def test_embedded_checkpoint_back_without_a_network(tmp_path, monkeypatch):
    from modeling_msa.cli import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    done = CliRunner().invoke(app, ["convert", "msa-tiny", "back", "--reverse"])
    assert done.exit_code == 0, done.output
    assert listing(tmp_path / "back") == ["msa-tiny-contact-regression.pt", "msa-tiny.pt"]
    tokens = torch.randint(4, 24, (1, 3, 9), generator=torch.Generator().manual_seed(0))
    expected = MsaForMaskedLM.from_pretrained(resolve_model("msa-tiny"))(tokens).logits
    logits = read_published(tmp_path / "back" / "msa-tiny.pt")(tokens)["logits"]
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


# Upload


def test_push_uploads_the_folder(published, tmp_path, monkeypatch):
    from modeling_msa.cli import app

    monkeypatch.chdir(tmp_path)
    arguments = [str(published / "wide.pt"), "--push-to-hub", "me/thing"]
    with hub_server.running() as server:
        server.here(monkeypatch, tmp_path / "home", hub_server.WRITE)
        done = CliRunner().invoke(app, ["convert", *arguments, "out"])
        assert done.exit_code == 0, done.output
        files = server.files("me/thing")
        ((commit, _, _),) = server.repos["me/thing"].history[1:]
        assert f"uploaded   {server.url}/me/thing/commit/{commit}" in done.stdout
        assert sorted(files) == listing(tmp_path / "out")
        assert all(data == (tmp_path / "out" / name).read_bytes() for name, data in files.items())
        assert b'from_pretrained("me/thing"' in files["README.md"]

        server.log.clear()
        server.here(monkeypatch, tmp_path / "nobody")
        nobody = CliRunner().invoke(app, ["convert", *arguments, "new"])
        assert nobody.exit_code == 1
        assert "hf auth login" in nobody.stderr
        assert server.log == []
        assert not (tmp_path / "new").exists()  # said before the work
    huggingface_hub.utils.close_session()
