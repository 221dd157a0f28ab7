"""A folder that any class saved, by whatever means, is a complete repository.

It has all code files with their licence and the whole auto_map, and a fresh process in which this package cannot be
imported loads it through every Auto class: the same tensors, and nothing on stderr unless the target has a head that
the folder has not.
"""

import filecmp
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from fresh import run_fresh, without_remarks
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)

import modeling_msa
from modeling_msa import (
    MsaConfig,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    MsaTokenizer,
)

PACKAGE = Path(modeling_msa.__file__).parent
CODE_FILES = tuple(f"{name}_msa.py" for name in ("configuration", "modeling", "pipeline", "sharing", "tokenization"))
AUTO_MAP = {
    "AutoConfig": "configuration_msa_transformer.MsaConfig",
    "AutoModel": "modeling_msa_transformer.MsaModel",
    "AutoModelForContactPrediction": "modeling_msa_transformer.MsaForContactPrediction",
    "AutoModelForMaskedLM": "modeling_msa_transformer.MsaForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_msa_transformer.MsaForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_msa_transformer.MsaForTokenClassification",
}
CLASSES = {
    "model": MsaModel,
    "masked-lm": MsaForMaskedLM,
    "contacts": MsaForContactPrediction,
    "tokens": MsaForTokenClassification,
    "sequence": MsaForSequenceClassification,
}
AUTO = {
    "AutoModel": MsaModel,
    "AutoModelForMaskedLM": MsaForMaskedLM,
    "AutoModelForTokenClassification": MsaForTokenClassification,
    "AutoModelForSequenceClassification": MsaForSequenceClassification,
}
SAVED = {**CLASSES, "trainer": MsaForMaskedLM, "trainer/checkpoint-1": MsaForMaskedLM}
WITH_TOKENIZER = ("masked-lm", "trainer", "trainer/checkpoint-1")
# what a class has beside the backbone
HEADS = {MsaModel: (), MsaForContactPrediction: (), MsaForMaskedLM: ("lm_head",)}
HEADS |= dict.fromkeys((MsaForTokenClassification, MsaForSequenceClassification), ("classifier",))

# Loads every folder through every Auto class; a line on stderr before each, so that the parent can tell whose it is.
CHILD = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
import transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module

transformers.utils.logging.disable_progress_bar()
root, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir()

def load(label, name, make):
    print(f"== {label} {name}", file=sys.stderr, flush=True)
    model = make()
    print("== end", file=sys.stderr, flush=True)
    assert not model.training
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    save_file(tensors, out / f"{label.replace('/', '-')} {name}.safetensors")
    return model

for label in sys.argv[3:]:
    folder = root / label
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=True)
    assert config.hidden_size == 16, config
    for name in AUTO:
        cls = getattr(transformers, name)
        model = load(label, name, lambda: cls.from_pretrained(folder, trust_remote_code=True))
        if label in RESAVED and type(model).__name__ == config.architectures[0]:
            model.save_pretrained(root / f"{label}-again")
    if label == "contacts":
        cls = get_class_from_dynamic_module("modeling_msa_transformer.MsaForContactPrediction", folder)
        contacts = load(label, "class", lambda: cls.from_pretrained(folder))
        contacts.save_pretrained(root / f"{label}-again")
        tokens = torch.arange(4, 10).repeat(1, 3, 1)
        tokens[..., 0] = 0
        expected = torch.load(root / "expected.pt")
        for model in (contacts, transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)):
            torch.testing.assert_close(model.predict_contacts(tokens), expected)
        assert contacts.msa.contact_head.regression.weight.requires_grad
    if (folder / "tokenizer_config.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        assert type(tokenizer).__module__.startswith("transformers_modules.")
        assert tokenizer(["MK", "-V"])["input_ids"] == [[[0, 20, 15], [0, 30, 7]]]
        if label in RESAVED:
            tokenizer.save_pretrained(root / f"{label}-again")
"""
RESAVED = ("masked-lm",)
CHILD = f"AUTO, RESAVED = {list(AUTO)}, {RESAVED}\n" + CHILD


def config(**changes):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
    return MsaConfig(**sizes, max_position_embeddings=20, max_row_position_embeddings=8, **changes)


def make(cls, seed=0):
    """A model in which every weight, the contact regression's too, is random."""
    torch.manual_seed(seed)
    model = cls(config(num_labels=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


def backbone(state):
    """Tensors of the backbone, by its own names."""
    state = {name.removeprefix("msa."): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith(("lm_head.", "classifier."))}


def head(state):
    return {name: tensor for name, tensor in state.items() if name.startswith(("lm_head.", "classifier."))}


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


def assert_complete(folder):
    for name in CODE_FILES:
        assert filecmp.cmp(folder / name, PACKAGE / name, shallow=False), name
    assert filecmp.cmp(folder / "LICENSE", PACKAGE.parent / "LICENSE", shallow=False)
    assert json.loads((folder / "config.json").read_text())["auto_map"] == AUTO_MAP


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder for each entry of SAVED."""
    root = tmp_path_factory.mktemp("saved")
    for label, cls in CLASSES.items():
        make(cls).save_pretrained(root / label)
    MsaTokenizer().save_pretrained(root / "masked-lm")
    tokens = torch.arange(4, 10).repeat(1, 3, 1)
    tokens[..., 0] = 0
    torch.save(make(MsaForContactPrediction).predict_contacts(tokens), root / "expected.pt")
    arguments = TrainingArguments(
        root / "trainer",
        max_steps=1,
        save_steps=1,
        learning_rate=0.0,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    example = {"input_ids": tokens[0], "labels": tokens[0]}
    trainer = Trainer(make(MsaForMaskedLM), arguments, train_dataset=[example], processing_class=MsaTokenizer())
    trainer.train()
    trainer.save_model()
    return root


@pytest.fixture(scope="module")
def loaded(root):
    """What a fresh process made of them: its stderr by (folder, auto class), and where its tensors are."""
    (root / "cwd").mkdir()
    process = run_fresh(CHILD, root / "cwd", root, root / "loaded", *SAVED)
    assert process.returncode == 0, process.stderr
    section = re.compile(r"^== (\S+) (\S+)\n(.*?)^== end\n", flags=re.DOTALL | re.MULTILINE)
    stderr = without_remarks(process.stderr)
    parts = section.findall(stderr)
    assert section.sub("", stderr) == ""  # configs, tokenizers, saving again
    return {(label, name): text for label, name, text in parts}, root / "loaded"


@pytest.mark.parametrize("label", SAVED)
def test_saved_folder_is_complete(root, label):
    assert_complete(root / label)
    assert (root / label / "tokenizer_config.json").exists() == (label in WITH_TOKENIZER)
    assert [path.name for path in (root / label).glob("*.safetensors")] == ["model.safetensors"]


def test_config_alone_is_complete(tmp_path):
    config().save_pretrained(tmp_path)
    assert_complete(tmp_path)


@pytest.mark.parametrize("name", AUTO)
@pytest.mark.parametrize("label", SAVED)
def test_fresh_process_loads_every_tensor(root, loaded, label, name):
    messages, folder = loaded
    source = make(SAVED[label]).state_dict()
    tensors = load_file(folder / f"{label.replace('/', '-')} {name}.safetensors")
    assert_same(backbone(tensors), backbone(source))
    if HEADS[AUTO[name]] and HEADS[AUTO[name]] == HEADS[SAVED[label]]:
        assert_same(head(tensors), head(source))
    if set(HEADS[AUTO[name]]) <= set(HEADS[SAVED[label]]):
        assert messages[label, name] == ""
    else:  # transformers says which weights are new
        assert HEADS[AUTO[name]][0] in messages[label, name]


def test_contact_prediction_loads_by_its_class(loaded):
    messages, folder = loaded
    assert messages["contacts", "class"] == ""
    source = make(MsaForContactPrediction).state_dict()
    assert_same(load_file(folder / "contacts class.safetensors"), source)


def test_saved_again_without_the_package(root, loaded):
    again = ["masked-lm-again", "contacts-again"]
    for label in again:
        assert_complete(root / label)
    process = run_fresh(CHILD, root / "cwd", root, root / "loaded-again", *again)
    assert process.returncode == 0, process.stderr
    tensors = load_file(root / "loaded-again" / "masked-lm-again AutoModelForMaskedLM.safetensors")
    assert_same(tensors, make(MsaForMaskedLM).state_dict())
    tensors = load_file(root / "loaded-again" / "contacts-again AutoModel.safetensors")
    assert_same(tensors, backbone(make(MsaForContactPrediction).state_dict()))


def test_map_to_another_repository_becomes_local(root, tmp_path):
    # as transformers rewrites it when a model comes from the Hub
    shutil.copytree(root / "masked-lm", tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    content = json.loads(path.read_text())
    content["auto_map"] = {name: f"someone/repo--{target}" for name, target in AUTO_MAP.items()}
    path.write_text(json.dumps(content))
    MsaForMaskedLM.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    assert_complete(tmp_path / "ours")


@pytest.mark.parametrize("with_map", [True, False])
def test_package_loads_a_folder_without_code(root, tmp_path, with_map):
    folder = shutil.copytree(root / "masked-lm", tmp_path / "bare", ignore=shutil.ignore_patterns("*.py"))
    for name in () if with_map else ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        del content["auto_map"]
        (folder / name).write_text(json.dumps(content))
    assert type(AutoConfig.from_pretrained(folder)) is MsaConfig
    assert type(AutoTokenizer.from_pretrained(folder)) is MsaTokenizer
    for auto in (
        AutoModel,
        AutoModelForMaskedLM,
        AutoModelForTokenClassification,
        AutoModelForSequenceClassification,
    ):
        model = auto.from_pretrained(folder)
        assert type(model) is AUTO[auto.__name__]
        assert_same(backbone(model.state_dict()), backbone(make(MsaForMaskedLM).state_dict()))


@pytest.mark.parametrize("label", CLASSES)
def test_what_is_trained_survives_saving(root, label):
    source = make(CLASSES[label])
    trained = {name for name, parameter in source.named_parameters() if parameter.requires_grad}
    # the contact regression is trained by its own class alone, which leaves out what no contact depends on
    contact_head = {name for name in trained if "contact_head" in name}
    assert len(contact_head) == (2 if label == "contacts" else 0)
    if label != "contacts":
        assert len(trained) == len(list(source.parameters())) - 2
    loaded = CLASSES[label].from_pretrained(root / label)
    assert {name for name, parameter in loaded.named_parameters() if parameter.requires_grad} == trained
