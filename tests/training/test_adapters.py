"""A LoRA run's folder loads as its `merged` folder does: by `load_model`, the commands, PEFT and transformers."""

import json
import shutil
import sys
from pathlib import Path

import hub_server
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import CLASSES, difference, no_warnings
from transformers import AutoModelForMaskedLM
from typer.testing import CliRunner

from modeling_msa import (
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    MsaTokenizer,
    load_model,
)
from modeling_msa.cli import app
from modeling_msa.hub.finding import find_distance_weights, model_files
from modeling_msa.hub.loading import saved_class
from modeling_msa.training.train import train

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.usefixtures("one_thread")
TOKENS = MsaTokenizer()(["MKVLAW", "MRVLAY", "MK-LAW"], return_tensors="pt")


@pytest.fixture
def lora(recipe, data):
    """`lora(objective, model)`: the folder of a LoRA run."""

    def run(objective="mlm", model=data[3], **keys):
        labels = None if objective == "mlm" else str(data[2][objective])
        if objective == "variants":
            keys["train_data"] = [str(data[0] / "alignments" / "f0.a3m")]
        keys = {"config": None, "model": str(model), "objective": objective, "labels": labels, "lora_r": 2} | keys
        return train(recipe(max_steps=2, **keys)).folder

    return run


def outputs(folder, cls):
    """The outputs of a class, or why it does not load."""
    try:
        loaded = load_model(folder, "cpu", cls=cls)
    except ValueError as error:
        return str(error).partition(" do not fit ")[2]
    with torch.no_grad():
        return loaded(**TOKENS)[0]


@pytest.mark.parametrize("objective", ["mlm", "token", "sequence", "contacts", "variants"])
def test_a_run_loads_as_its_merged_folder(lora, data, objective):
    folder = lora(objective)
    loaded = 0
    for cls in CLASSES:
        merged, found = outputs(folder / "merged", cls), outputs(folder, cls)
        if isinstance(merged, str):
            assert found == merged
        else:
            assert difference(found, merged) <= 1e-5
            loaded += 1
    own = saved_class(folder)
    assert own is saved_class(folder / "merged")
    # backbone and contacts; beside them the own head, and of classifiers the other one, which has the same names
    assert loaded == {"mlm": 3, "contacts": 2}.get(objective, 4)
    model, merged = (load_model(each, "cpu", cls=own) for each in (folder, folder / "merged"))
    assert type(model) is own
    assert not model.training
    assert model.config.to_dict() | {"_name_or_path": ""} == merged.config.to_dict() | {"_name_or_path": ""}
    base = load_model(data[3], "cpu")
    assert difference(base(**TOKENS)[0], load_model(folder, "cpu")(**TOKENS)[0]) > 1e-4
    assert load_model(folder, "cpu", "bfloat16").dtype == torch.bfloat16


def test_names_of_classes_come_with_the_adapters(lora, data):
    folder = lora("token", class_names=["H", "E", "C"])
    shutil.rmtree(folder / "merged")
    model = load_model(folder, "cpu", cls=MsaForTokenClassification)
    assert model.config.id2label == {0: "H", 1: "E", 2: "C"}
    head = load_file(folder / "adapter_model.safetensors")["base_model.model.classifier.weight"]
    assert torch.equal(model.classifier.weight, head)


def test_no_table_says_that_a_head_is_new(lora):
    folder = lora("token")
    with no_warnings():
        load_model(folder, cls=MsaForTokenClassification)


def test_checkpoints_load_and_adapters_on_adapters(lora, recipe, tmp_path):
    folder = lora(save_strategy="steps", save_steps=2)
    expected = outputs(folder / "merged", MsaForMaskedLM)
    assert difference(outputs(folder / "checkpoint-2", MsaForMaskedLM), expected) <= 1e-5
    second = lora(model=folder, output_dir=str(tmp_path / "second"))
    assert model_files(second).keys() >= {"base/adapter_config.json", "base/base/config.json"}
    found = outputs(second, MsaForMaskedLM)
    assert difference(found, outputs(second / "merged", MsaForMaskedLM)) <= 1e-5
    assert difference(found, expected) > 1e-4


def test_run_and_base_move_together_and_peft_loads_them_where_they_lie(lora, data, tmp_path, monkeypatch):
    base = Path(shutil.copytree(data[3], tmp_path / "base"))
    monkeypatch.chdir(tmp_path)
    folder = lora(model="base")
    expected = outputs(folder / "merged", MsaForMaskedLM)
    shutil.rmtree(folder / "merged")
    monkeypatch.chdir("/")
    for load in (
        lambda path: AutoModelForMaskedLM.from_pretrained(path),
        lambda path: peft.AutoPeftModel.from_pretrained(path, import_allowlist=["modeling_msa"]),
        lambda path: peft.PeftModel.from_pretrained(MsaForMaskedLM.from_pretrained(base), path),
    ):
        with torch.no_grad():
            assert difference(load(folder).eval()(**TOKENS).logits, expected) <= 1e-5
    moved = tmp_path / "elsewhere" / "deep"
    moved.mkdir(parents=True)
    folder, base = folder.rename(moved / "run"), base.rename(moved / "base")
    assert difference(outputs(folder, MsaForMaskedLM), expected) <= 1e-5
    assert difference(outputs(folder, MsaModel), load_model(folder, "cpu")(**TOKENS)[0]) == 0
    tensors = load_file(base / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="trained on other weights"):
        load_model(folder)
    shutil.rmtree(base)
    with pytest.raises(FileNotFoundError, match=r"the model that they belong to is missing: .*base"):
        load_model(folder)


def test_the_embedded_base_goes_by_its_name(lora):
    folder = lora(model="msa-tiny")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "msa-tiny"
    assert difference(outputs(folder, MsaForMaskedLM), outputs(folder / "merged", MsaForMaskedLM)) <= 1e-5


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result.output


def test_commands_write_what_they_write_with_the_merged_folder(lora, data, tmp_path):
    folder, family = lora(), data[0] / "alignments" / "f0.a3m"
    assert find_distance_weights(folder) is None
    wanted = {
        "contacts": "-o {}.tsv",
        "score": "-o {}.csv --all-singles",
        "embed": "-o {}.safetensors",
        "generate": "-o {}.a3m --iterations 1",
        "fit-distances": "-o {}.json",
    }
    for name, options in wanted.items():
        outputs = []
        for model in (folder, folder / "merged"):
            output = tmp_path / f"{name}-{model.name}"
            msa(name, family, *options.format(output).split(), "--model", model)
            written = output.with_suffix(Path(options.split()[1]).suffix)
            if written.suffix == ".safetensors":  # whose header names the model
                outputs.append({key: tensor.tolist() for key, tensor in load_file(written).items()})
            else:
                outputs.append(written.read_text().replace(model.name, "MODEL"))
        assert outputs[0] == outputs[1]
    assert "holds adapters instead of a model" in msa("push", folder, "me/run", "--dry-run", code=1)
    shutil.rmtree(folder / "merged")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert "damaged" in msa("contacts", family, "-o", tmp_path / "x.tsv", "--model", folder, code=1)
    assert not (tmp_path / "x.tsv").exists()


def test_adapters_and_base_on_the_hub(lora, data, tmp_path, monkeypatch):
    """The adapters name the commit of their base, so that a later one does not change what they compute."""
    with hub_server.running() as hub:
        hub.here(monkeypatch, tmp_path / "home", hub_server.WRITE)
        commit = hub.seed("me/base", data[3])
        folder = lora("token", model="me/base")
        expected = outputs(folder / "merged", MsaForTokenClassification)
        saved = json.loads((folder / "adapter_config.json").read_text())
        assert (saved["base_model_name_or_path"], saved["revision"]) == ("me/base", commit)
        hub.seed("me/run", folder)
        tensors = {name: tensor + 1 for name, tensor in load_file(data[3] / "model.safetensors").items()}
        changed = shutil.copytree(data[3], tmp_path / "changed")
        save_file(tensors, changed / "model.safetensors", {"format": "pt"})
        hub.seed("me/base", changed)
        for place in (folder, "me/run"):
            assert difference(outputs(place, MsaForTokenClassification), expected) <= 1e-5
        assert saved_class("me/run") is MsaForTokenClassification
    hub_server.huggingface_hub.utils.close_session()


def test_adapters_of_peft_alone_know_their_head_by_its_size(data, tmp_path):
    torch.manual_seed(0)
    base = MsaForSequenceClassification.from_pretrained(data[3], num_labels=5)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"], init_lora_weights=False)
    adapted = peft.get_peft_model(base, config).eval()
    adapted.save_pretrained(tmp_path)
    with torch.no_grad():
        assert difference(outputs(tmp_path, MsaForSequenceClassification), adapted(**TOKENS).logits) <= 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: {k: t for k, t in tensors.items() if "lora_B" not in k}, "16 tensors are missing"),
        (lambda tensors: tensors | {"base_model.model.other": torch.ones(1)}, "1 tensor is unexpected"),
        (lambda tensors: {k: t[:1] for k, t in tensors.items()}, r"has the shape \(1, 16\), not \(2, 16\)"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_adapters_that_do_not_fit(lora, change, words):
    folder = lora()
    path = folder / "adapter_model.safetensors"
    save_file({name: t.contiguous() for name, t in change(load_file(path)).items()}, path)
    with pytest.raises(ValueError, match=f"The adapters of .*do not fit MsaForMaskedLM: .*{words}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"peft_type": "IA3"}, "only LORA"), ({"r": 3}, "do not fit"), ({"target_modules": ["x"]}, "do not fit")],
    ids=str,
)
def test_another_adapter_config(lora, changes, words):
    folder = lora()
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=words):
        load_model(folder)


def test_without_peft(lora, recipe, data, monkeypatch):
    folder = lora()
    monkeypatch.setitem(sys.modules, "peft", None)
    words = r"require PEFT: pip install 'modeling-msa\[train\]'"
    with pytest.raises(ImportError, match=words):
        load_model(folder)
    with pytest.raises(ImportError, match=words):
        train(recipe(config=None, model=str(data[3]), lora_r=2, output_dir=str(folder / "again")))
    assert not (folder / "again").exists()
    output = msa("contacts", "fn3", "-o", folder / "map.tsv", "--model", folder, code=1)
    assert "pip install 'modeling-msa[train]'" in output


def test_adapters_need_a_head_that_is_there(data, lora, tmp_path):
    """A new masked-LM head would stay as random as it is, outside the adapters."""
    load_model(data[3]).save_pretrained(tmp_path / "backbone")
    with pytest.raises(ValueError, match=r"missing: lm_head"):
        lora(model=tmp_path / "backbone")


def test_pickled_adapters_are_not_read(lora):
    folder = lora()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(FileNotFoundError, match=r"has no adapter_model\.safetensors"):
        load_model(folder)
