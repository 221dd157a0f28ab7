"""fair-esm's files are read without running anything in them, or refused: the error says why and what to do.

Whatever is wrong with a file, nothing is written.
"""

import argparse
import os
import pickle
import shutil

import pytest
import torch
from fair_esm import OFFICIAL, REGRESSION, load, random_model, read_published, refused, write_published

from modeling_msa import convert_checkpoint


@pytest.fixture
def raw(published, tmp_path):
    """A copy of the checkpoint to spoil, alone in its folder."""
    for name in ("wide.pt", "wide-contact-regression.pt"):
        shutil.copy(published / name, tmp_path)
    return tmp_path / "wide.pt"


class Evil:
    """Unpickling it runs a command that leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def evil_contents(mark):
    namespace = argparse.Namespace(arch="msa_transformer", layers=Evil(mark))
    return {"bare": Evil(mark), "args": {"args": namespace, "model": {}}, "model": {"model": {"a": Evil(mark)}}}


@pytest.mark.parametrize(
    ("where", "zipped"), [("bare", True), ("args", False), ("model", True), ("regression", False)]
)
def test_code_in_a_pickle_does_not_run(raw, tmp_path, where, zipped):
    mark = tmp_path.parent / f"{tmp_path.name}-ran"
    spoilt = tmp_path / "wide-contact-regression.pt" if where == "regression" else raw
    content = evil_contents(mark)["bare" if where == "regression" else where]
    torch.save(content, spoilt, _use_new_zipfile_serialization=zipped)
    with refused(tmp_path, str(spoilt), "refused", "system", "do not load this file"):
        convert_checkpoint(raw, tmp_path / "out")
    assert not mark.exists()
    torch.load(spoilt, weights_only=False)  # it is live
    assert mark.exists()


def test_foreign_objects_are_refused_by_name(raw, tmp_path):
    torch.save(torch.nn.Linear(2, 2), raw)
    with refused(tmp_path, "torch.nn.modules.linear.Linear"):
        convert_checkpoint(raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("which", "zipped", "left"),
    [
        ("wide.pt", True, 0),
        ("wide.pt", True, 0.5),
        ("wide.pt", True, -1),
        ("wide.pt", False, 3),
        ("wide.pt", False, 0.9),
        ("wide-contact-regression.pt", True, 100),
    ],
)
def test_truncated_file(raw, tmp_path, which, zipped, left):
    path = tmp_path / which
    torch.save(load(path), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if isinstance(left, float) else left])
    with refused(tmp_path, str(path), "truncated", "download it again"):
        convert_checkpoint(raw, tmp_path / "out")


@pytest.mark.parametrize(
    "data",
    [
        b"hello world\n" * 100,
        b">query\nMKV\n",
        b"<!DOCTYPE html><html><body>Not found</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n",
        b"PK\x03\x04" + b"rubbish" * 100,
        pickle.dumps({"a": 1}, protocol=2),
    ],
    ids=["text", "fasta", "html", "git-lfs", "zip", "pickle"],
)
def test_other_file(raw, tmp_path, data):
    raw.write_bytes(data)
    with refused(tmp_path, str(raw)):
        convert_checkpoint(raw, tmp_path / "out")


def test_missing_files(raw, tmp_path):
    with refused(tmp_path, "no file", "nowhere.pt", OFFICIAL, error=FileNotFoundError):
        convert_checkpoint(tmp_path / "nowhere.pt", tmp_path / "out")
    with refused(tmp_path, "regression", "nowhere.pt", error=FileNotFoundError):
        convert_checkpoint(raw, tmp_path / "out", tmp_path / "nowhere.pt")
    with refused(tmp_path, "no file", error=FileNotFoundError):
        convert_checkpoint(tmp_path, tmp_path / "out")


def without(content, *names):
    for name in names:
        del content["model"][f"encoder.sentence_encoder.{name}"]


def replaced(content, name, change):
    content["model"][f"encoder.sentence_encoder.{name}"] = change(content["model"][f"encoder.sentence_encoder.{name}"])


def args_with(content, **changes):
    vars(content["args"]).update(changes)


# how to spoil the content, and what the error must say
SPOILT = {
    "architecture": (lambda c: args_with(c, arch="roberta_large"), ["'roberta_large'", "'msa_transformer'"]),
    "no architecture": (lambda c: vars(c["args"]).pop("arch"), ["None", "'msa_transformer'"]),
    "esm-2": (
        lambda c: [c.pop("args"), c.update(cfg={"model": argparse.Namespace()}), without(c, "embed_positions.weight")],
        ["not an MSA Transformer", "embed_positions.weight"],
    ),
    "args": (lambda c: c.update(args={"arch": "msa_transformer"}), ["'args' is a dict"]),
    "no tensors": (lambda c: c.update(model={}), ["neither", "args, model"]),
    "no model": (lambda c: c.update(model=None), ["neither", "args, model"]),
    "not tensors": (lambda c: c.update(model={"a": 1}), ["neither", "args, model"]),
    "not names": (lambda c: c.update(model={1: torch.zeros(1)}), ["neither", "args, model"]),
    "missing": (
        lambda c: without(c, "emb_layer_norm_before.bias", "layers.1.row_self_attention.layer.q_proj.weight"),
        ["2 tensors are missing", "emb_layer_norm_before.bias", "layers.1.column_self_attention.layer.q_proj.weight"],
    ),
    "embedding missing": (lambda c: without(c, "embed_tokens.weight"), ["embed_tokens.weight is missing"]),
    "unexpected": (
        lambda c: c["model"].update({"encoder.sentence_encoder.extra.weight": torch.zeros(1)}),
        ["1 tensor is unexpected: extra.weight"],
    ),
    "shape": (
        lambda c: replaced(c, "layers.0.feed_forward_layer.layer.fc2.weight", lambda t: t[:, 1:]),
        ["layers.0.feed_forward_layer.layer.fc2.weight has the shape (16, 23), not (16, 24)"],
    ),
    "axes": (lambda c: replaced(c, "embed_tokens.weight", lambda t: t[0]), ["embed_tokens.weight must have 2 axes"]),
    "row axes": (lambda c: replaced(c, "msa_position_embedding", lambda t: t[0, 0]), ["must have 4 axes"]),
    "type": (
        lambda c: replaced(c, "layers.0.feed_forward_layer.layer.fc2.weight", lambda t: t.to(torch.int8)),
        ["fc2.weight is of the type torch.int8"],
    ),
    "layers": (lambda c: args_with(c, encoder_layers=3), ["missing", "layers.2.", "3 layers"]),
    "fewer layers": (lambda c: args_with(c, encoder_layers=1), ["unexpected", "layers.1.", "1 layers"]),
    "heads": (lambda c: args_with(c, encoder_attention_heads=5), ["sizes", "multiple of num_attention_heads"]),
    "heads' type": (lambda c: args_with(c, encoder_attention_heads="4"), ["sizes", "num_attention_heads"]),
    "dropout": (lambda c: args_with(c, dropout=1.5), ["sizes", "hidden_dropout"]),
    "untied": (
        lambda c: c["model"].update({"encoder.lm_head.weight": c["model"]["encoder.lm_head.weight"] + 1}),
        ["lm_head.weight and embed_tokens.weight differ"],
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_content(raw, tmp_path, what):
    spoil, words = SPOILT[what]
    content = load(raw)
    spoil(content)
    torch.save(content, raw)
    with refused(tmp_path, *words):
        convert_checkpoint(raw, tmp_path / "out")


@pytest.mark.parametrize("bare", [True, False])
def test_regression_of_another_model(published, raw, tmp_path, bare):
    write_published(random_model(2, 24, 6, 8, 24), tmp_path / "other.pt")
    if bare:  # the number of heads is then the regression's to tell
        state = read_published(raw).state_dict()
        torch.save({name: tensor for name, tensor in state.items() if name not in REGRESSION}, raw)
    with refused(tmp_path, "regression"):
        convert_checkpoint(raw, tmp_path / "out", tmp_path / "other-contact-regression.pt")


@pytest.mark.parametrize(
    "content", [[1], {"model": [1]}, {"model": dict.fromkeys(REGRESSION, 0)}, {"weight": torch.zeros(1)}], ids=str
)
def test_no_regression(raw, tmp_path, content):
    torch.save(content, tmp_path / "wide-contact-regression.pt")
    with refused(tmp_path, "wide-contact-regression.pt is not a contact regression", *REGRESSION):
        convert_checkpoint(raw, tmp_path / "out")
