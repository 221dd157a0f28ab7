"""Every way of saving and pushing leaves the same complete repository.

All code files with their licence, the whole auto_map, weights, tokenizer, and a card: a fresh process in which this
package cannot be imported loads it by its name through every Auto class, with the tensors that were pushed, and saves
and pushes it again. A card that a repository has stays. The Hub is a stand-in on loopback (hub_server.py).
"""

import filecmp
import json
import re
import shutil
from pathlib import Path

import hub_server
import pytest
import torch
import yaml
from families import SIZES, make_folder, make_labels
from fresh import run_fresh, without_remarks
from huggingface_hub import ModelCard
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
    fit_contacts,
)
from modeling_msa.sharing_msa_transformer import CODE_FILES, TAGS
from modeling_msa.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
PACKAGE = Path(modeling_msa.__file__).parent
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]
WEIGHTS = ["model.safetensors", "weights.sha256.json"]
COMPLETE = sorted(["LICENSE", "README.md", "config.json", *WEIGHTS, *CODE_FILES, *TOKENIZER])
AUTO_MAP = {
    "AutoConfig": "configuration_msa_transformer.MsaConfig",
    "AutoModel": "modeling_msa_transformer.MsaModel",
    "AutoModelForContactPrediction": "modeling_msa_transformer.MsaForContactPrediction",
    "AutoModelForMaskedLM": "modeling_msa_transformer.MsaForMaskedLM",
    "AutoModelForSequenceClassification": "modeling_msa_transformer.MsaForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_msa_transformer.MsaForTokenClassification",
}
AUTO = {
    AutoModel: MsaModel,
    AutoModelForMaskedLM: MsaForMaskedLM,
    AutoModelForTokenClassification: MsaForTokenClassification,
    AutoModelForSequenceClassification: MsaForSequenceClassification,
}
CLASSES = (*AUTO.values(), MsaForContactPrediction)
HEAD = ("lm_head.", "classifier.")


def make(cls, seed=0):
    """A model in which every weight, the contact regression's too, is random."""
    torch.manual_seed(seed)
    model = cls(MsaConfig(**SIZES, num_labels=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


def backbone(state):
    """Tensors of the backbone, by its own names."""
    return {name.removeprefix("msa."): tensor for name, tensor in state.items() if not name.startswith(HEAD)}


def assert_same(tensors, expected):
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def assert_complete(folder):
    for name in CODE_FILES:
        assert filecmp.cmp(folder / name, PACKAGE / name, shallow=False), name
    assert filecmp.cmp(folder / "LICENSE", PACKAGE.parent / "LICENSE", shallow=False)
    assert json.loads((folder / "config.json").read_text())["auto_map"] == AUTO_MAP


# Saved folders

# Loads each folder through every Auto class; a line on stderr before each, so that the parent can tell whose it is.
LOAD = """
from pathlib import Path
from safetensors.torch import save_file
import transformers
from transformers.dynamic_module_utils import get_class_from_dynamic_module

transformers.utils.logging.disable_progress_bar()
root, out, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split()

def load(label, name, make):
    print(f"== {label} {name}", file=sys.stderr, flush=True)
    model = make()
    print("== end", file=sys.stderr, flush=True)
    assert not model.training
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    save_file({key: tensor.clone() for key, tensor in model.state_dict().items()}, out / f"{label} {name}")
    return model

for label in sys.argv[4:]:
    folder = root / label
    for name in names:
        model = load(label, name, lambda: getattr(transformers, name).from_pretrained(folder, trust_remote_code=True))
        if type(model).__name__ == model.config.architectures[0]:
            model.save_pretrained(root / f"{label}-again")
    if label == "contacts":
        cls = get_class_from_dynamic_module("modeling_msa_transformer.MsaForContactPrediction", folder)
        contacts = load(label, "class", lambda: cls.from_pretrained(folder))
        assert contacts.msa.contact_head.regression.weight.requires_grad
    if (folder / "tokenizer_config.json").exists():
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
        assert type(tokenizer).__module__.startswith("transformers_modules.")
        assert tokenizer(["MK", "-V"])["input_ids"] == [[[0, 20, 15], [0, 30, 7]]]
        tokenizer.save_pretrained(root / f"{label}-again")
"""
SAVED = {"masked-lm": MsaForMaskedLM, "contacts": MsaForContactPrediction, "tokens": MsaForTokenClassification}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder for each entry of SAVED; the first has a tokenizer."""
    root = tmp_path_factory.mktemp("saved")
    for label, cls in SAVED.items():
        make(cls).save_pretrained(root / label)
    MsaTokenizer().save_pretrained(root / "masked-lm")
    return root


@pytest.fixture(scope="module")
def loaded(saved):
    """What a fresh process made of them: its stderr by (folder, auto class), and where its tensors are."""
    for name in ("cwd", "loaded"):
        (saved / name).mkdir()
    names = " ".join(auto.__name__ for auto in AUTO)
    process = run_fresh(LOAD, saved / "cwd", saved, saved / "loaded", names, *SAVED)
    assert process.returncode == 0, process.stderr
    section = re.compile(r"^== (\S+) (\S+)\n(.*?)^== end\n", flags=re.DOTALL | re.MULTILINE)
    stderr = without_remarks(process.stderr)
    assert section.sub("", stderr) == ""  # of tokenizers and of saving again
    return {(label, name): text for label, name, text in section.findall(stderr)}, saved / "loaded"


@pytest.mark.parametrize("cls", CLASSES)
def test_saved_folder_is_complete(tmp_path, cls):
    source = make(cls)
    source.save_pretrained(tmp_path)
    assert_complete(tmp_path)
    # the contact regression is trained by its own class alone, which leaves out what no contact depends on
    trained = {name for name, parameter in source.named_parameters() if parameter.requires_grad}
    assert len({name for name in trained if "contact_head" in name}) == 2 * (cls is MsaForContactPrediction)
    again = cls.from_pretrained(tmp_path)
    assert {name for name, parameter in again.named_parameters() if parameter.requires_grad} == trained


@pytest.mark.parametrize("label", SAVED)
def test_fresh_process_loads_every_tensor(loaded, label):
    messages, folder = loaded
    source = make(SAVED[label]).state_dict()
    for auto, cls in AUTO.items():
        tensors = load_file(folder / f"{label} {auto.__name__}")
        assert_same(backbone(tensors), backbone(source))
        new = {name for name in tensors if name.startswith(HEAD)} - set(source)
        if cls is SAVED[label]:
            assert_same(tensors, source)
        # transformers says which weights are new, and nothing else
        assert all(name in messages[label, auto.__name__] for name in new - {"lm_head.decoder.weight"})
        assert new or not messages[label, auto.__name__]


def test_contact_prediction_loads_by_its_class(loaded):
    assert loaded[0]["contacts", "class"] == ""
    assert_same(load_file(loaded[1] / "contacts class"), make(MsaForContactPrediction).state_dict())


def test_saved_again_without_the_package(saved, loaded):
    """What was not imported there, and so is not beside the code, comes from the folder."""
    for label in ("masked-lm", "tokens"):
        assert_complete(saved / f"{label}-again")
        assert_same(
            load_file(saved / f"{label}-again" / "model.safetensors"), load_file(saved / label / "model.safetensors")
        )
    assert filecmp.cmp(saved / "masked-lm" / "tokenizer.json", saved / "masked-lm-again" / "tokenizer.json")


def test_map_to_another_repository_becomes_local(saved, tmp_path):
    """transformers writes such a map when a model comes from the Hub."""
    shutil.copytree(saved / "masked-lm", tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    content = json.loads(path.read_text())
    content["auto_map"] = {name: f"someone/repo--{target}" for name, target in AUTO_MAP.items()}
    path.write_text(json.dumps(content))
    MsaForMaskedLM.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    assert_complete(tmp_path / "ours")


@pytest.mark.parametrize("with_map", [True, False])
def test_package_loads_a_folder_without_code(saved, tmp_path, with_map):
    folder = shutil.copytree(saved / "masked-lm", tmp_path / "bare", ignore=shutil.ignore_patterns("*.py"))
    for name in () if with_map else ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        del content["auto_map"]
        (folder / name).write_text(json.dumps(content))
    assert type(AutoConfig.from_pretrained(folder)) is MsaConfig
    assert type(AutoTokenizer.from_pretrained(folder)) is MsaTokenizer
    for auto, cls in AUTO.items():
        model = auto.from_pretrained(folder)
        assert type(model) is cls
        assert_same(backbone(model.state_dict()), backbone(make(MsaForMaskedLM).state_dict()))


def test_folders_of_fits_and_merged_adapters_are_complete(saved, tmp_path):
    families = make_folder(tmp_path / "families", count=4)
    make_labels(tmp_path / "labels", families)
    pairs = [(tmp_path / f"families/{name}.a3m", tmp_path / f"labels/maps/{name}.npy") for name in families]
    fit_contacts(pairs, saved / "masked-lm", tmp_path / "fitted", rows=5, regularization=1e4)
    assert sorted(path.name for path in (tmp_path / "fitted").iterdir()) == COMPLETE


# Pushes

# A process without the package: loads each repository by name, and pushes one again.
PULL = """
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
for repo_id in sys.argv[2:]:
    model = AutoModelForMaskedLM.from_pretrained(repo_id, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    save_file({k: t.clone() for k, t in model.state_dict().items()}, f"{sys.argv[1]}/{repo_id.partition('/')[2]}")
    tokenizer = AutoTokenizer.from_pretrained(repo_id, trust_remote_code=True)
    assert tokenizer(["MK", "-V"])["input_ids"] == [[[0, 20, 15], [0, 30, 7]]]
    if repo_id == "me/model":
        model.push_to_hub("me/again")
        AutoModel.from_pretrained(repo_id, trust_remote_code=True).push_to_hub("me/headless")
"""
PLAIN = ("model", "tokenizer-first", "tokenizer-last", "saved", "carded", "shards")
RUNS = ("trainer", "train")  # they also leave what Trainer keeps of a run


def push_all(folder, hub):
    """Push the model of `folder`/made in all ways, from a process that has the package."""
    model = MsaForMaskedLM.from_pretrained(folder / "made")
    tokenizer = MsaTokenizer.for_config(model.config)
    model.push_to_hub("me/model")
    model.push_to_hub("me/model")  # nothing new: no commit
    tokenizer.push_to_hub("me/tokenizer-alone")
    tokenizer.push_to_hub("me/tokenizer-first")
    model.push_to_hub("me/tokenizer-first", tags=["mine"], private=True, commit_message="Mine")
    model.push_to_hub("me/tokenizer-last")
    MsaTokenizer(model_max_length=9).push_to_hub("me/tokenizer-last", revision="other")
    tokenizer.push_to_hub("me/tokenizer-last")
    model.save_pretrained(folder / "saved", push_to_hub=True, repo_id="me/saved")
    (folder / "own").mkdir()
    for name in ("README.md", "LICENSE"):
        (folder / "own" / name).write_text(f"Own {name}\n")
    state = model.state_dict()
    state["msa.layer_norm.bias"] = torch.full_like(state["msa.layer_norm.bias"], 7)
    model.save_pretrained(folder / "own", True, state, push_to_hub=True, repo_id="me/own")
    model.push_to_hub("me/shards", max_shard_size="10KB")
    hub.shards = set(hub.files("me/shards"))
    model.push_to_hub("me/shards")  # which is loaded instead of the shards: these go
    model.push_to_hub("me/carded", revision="side", tags=["mine"])
    model.push_to_hub("me/carded")
    tokenizer.push_to_hub("me/carded")
    tokens = tokenizer(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")["input_ids"][0]
    options = {"max_steps": 1, "learning_rate": 0.0, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    options |= {"push_to_hub": True, "hub_model_id": "me/trainer", "hub_strategy": "end", "save_strategy": "no"}
    arguments = TrainingArguments(folder / "trainer", **options)
    data = [{"input_ids": tokens, "labels": tokens}]
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    trainer.push_to_hub()
    make_folder(folder / "alignments")
    recipe = {"model": str(folder / "made"), "train_data": [str(folder / "alignments")], "max_tokens": 256}
    recipe |= options | {"hub_model_id": "me/train", "output_dir": str(folder / "train"), "hub_strategy": "every_save"}
    (folder / "run.yaml").write_text(yaml.safe_dump(recipe))
    train(folder / "run.yaml")
    lora = ["--lora_r", "2", "--hub_model_id", "me/lora", "--output_dir", str(folder / "lora")]
    train(folder / "run.yaml", lora)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The server after all pushes, the tensors that were pushed, and the folder with what was loaded from it."""
    root = tmp_path_factory.mktemp("pushed")
    for name in ("loaded", "theirs", "cwd"):
        (root / name).mkdir()
    model = make(MsaForMaskedLM)
    model.save_pretrained(root / "made")
    (root / "theirs" / "README.md").write_text("---\nlicense: mit\ntags: [theirs]\n---\n\n# Theirs\n\nOwn words.\n")
    with hub_server.running() as hub, pytest.MonkeyPatch.context() as patch:
        hub.here(patch, root / "home", hub_server.WRITE)
        patch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # it remembers its Hub
        hub.seed("me/carded", root / "theirs")
        push_all(root, hub)
        env = hub.env(root / "reader", hub_server.WRITE)
        names = [f"me/{name}" for name in (*PLAIN, *RUNS)]
        process = run_fresh(PULL, root / "cwd", root / "loaded", *names, env=env)
        assert process.returncode == 0, process.stderr
        yield hub, model.state_dict(), root / "loaded"
    hub_server.huggingface_hub.utils.close_session()


def card_of(hub, name, revision="main"):
    return ModelCard(hub.files(f"me/{name}", revision)["README.md"].decode())


@pytest.mark.parametrize("name", [*PLAIN, "again", *RUNS])
def test_same_repository(pushed, name):
    hub, tensors, loaded = pushed
    files, reference = hub.files(f"me/{name}"), hub.files("me/model")
    if name in RUNS:
        assert set(COMPLETE) <= set(files)
        assert not [file for file in files if "checkpoint" in file or file.startswith("_")]
    else:
        assert sorted(files) == COMPLETE
    for file in CODE_FILES:
        assert files[file] == (PACKAGE / file).read_bytes()
    assert files["LICENSE"] == (PACKAGE.parent / "LICENSE").read_bytes()
    assert files["model.safetensors"] == reference["model.safetensors"]
    for file in ("config.json", *TOKENIZER):
        content, expected = json.loads(files[file]), json.loads(reference[file])
        for each in (content, expected):
            each.pop("use_cache", None)  # Trainer's
            each.pop("bos_token_id", None)  # older versions of it take the tokenizer's, which has none
        assert content == expected
    assert json.loads(files["tokenizer_config.json"])["model_max_length"] == SIZES["max_position_embeddings"]
    if name != "again":
        assert_same(load_file(loaded / name), tensors)


@pytest.mark.parametrize("name", [*PLAIN, "again", *RUNS])
def test_cards(pushed, name):
    card = card_of(pushed[0], name)
    assert ("mine" in card.data.tags) == (name == "tokenizer-first")
    assert card.data.base_model == ("me/model" if name == "again" else None)
    if name == "carded":
        assert str(card) == str(ModelCard("---\nlicense: mit\ntags: [theirs]\n---\n\n# Theirs\n\nOwn words.\n"))
        return
    assert card.data.library_name == "transformers"
    assert set(TAGS) <= set(card.data.tags)
    if name != "trainer":  # which writes its own
        assert "tied row" in card.text
        assert f'from_pretrained("me/{name}"' in card.text
        assert "> Made from" not in card.text


def test_what_the_options_of_a_push_do(pushed):
    hub = pushed[0]
    titles = {name: [entry[2] for entry in repo.history[1:]] for name, repo in hub.repos.items()}
    assert titles["me/model"] == ["Upload MsaForMaskedLM"]
    assert titles["me/tokenizer-first"] == ["Upload MsaTokenizer", "Mine"]
    assert [name for name, repo in hub.repos.items() if repo.private] == []  # it existed when private was said
    assert json.loads(hub.files("me/tokenizer-last", "other")["tokenizer_config.json"])["model_max_length"] == 9
    side = card_of(hub, "carded", "side")
    assert side.data.tags == ["theirs", "mine"]
    assert "Own words." in side.text
    assert "model.safetensors.index.json" in hub.shards
    assert "model.safetensors" not in hub.shards


def test_what_lies_in_the_folder_goes_up_with_what_is_saved(pushed, tmp_path):
    """The folder's card and licence, and the weights that were passed by position."""
    files = pushed[0].files("me/own")
    assert files["LICENSE"] == b"Own LICENSE\n"
    assert b"Own README.md" in files["README.md"]
    (tmp_path / "weights").write_bytes(files["model.safetensors"])
    assert load_file(tmp_path / "weights")["msa.layer_norm.bias"].eq(7).all()


def test_tokenizer_alone_leaves_the_card_to_the_model(pushed):
    assert sorted(pushed[0].files("me/tokenizer-alone")) == sorted(["LICENSE", *CODE_FILES, *TOKENIZER])


def test_card_of_other_weights_says_so(pushed):
    card = card_of(pushed[0], "headless")
    assert "> Made from me/model, with other weights or another head" in card.text
    assert card.data.base_model == "me/model"


def test_adapters_are_pushed_with_the_merged_model(pushed, tmp_path):
    files = pushed[0].files("me/lora")
    expected = {"adapter_model.safetensors", "adapter_config.json", "README.md", "LICENSE", *TOKENIZER, *CODE_FILES}
    assert expected | {f"merged/{name}" for name in COMPLETE} <= set(files)
    (tmp_path / "adapters").write_bytes(files["adapter_model.safetensors"])
    assert any("lora_A" in name for name in load_file(tmp_path / "adapters"))  # merging a copy has left them


@pytest.mark.parametrize("has_source", [True, False])
def test_new_card_names_the_source(saved, tmp_path, has_source):
    model = MsaForMaskedLM.from_pretrained(saved / "masked-lm") if has_source else make(MsaForMaskedLM)
    model.save_pretrained(tmp_path)
    model.write_card(tmp_path, "me/other")
    text = (tmp_path / "README.md").read_text()
    assert ("It was made from masked-lm, with other weights or another head" in text) == has_source
    assert "fair-esm published" not in text


def test_model_tags_are_a_models_own():
    model, other = (MsaModel(MsaConfig(**SIZES)) for _ in range(2))
    model.add_model_tags("mine")
    assert "mine" in model.model_tags
    assert "mine" not in other.model_tags
