"""Every way of saving and pushing leaves the same complete repository, and wrong weights are refused.

A push by the model, by the tokenizer and then the model (or the other way round), by saving with ``push_to_hub=True``,
by Trainer, by ``msa train``, by ``msa convert --push-to-hub`` and by a process without this package that loaded the
model from the Hub: the same files with the same contents, but for the card and for what a run adds. Each loads by its
name in a process without this package, with the tensors that were pushed. A card that a repository has stays.

Weights that are damaged, of another model, or do not fit the config raise an error that names where they are, some of
the tensors, and the mend; a new head is still allowed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hub_server
import pytest
import torch
import yaml
from families import SIZES, make_folder, make_labels
from fresh import PRELUDE, run_fresh
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

import modeling_msa
from modeling_msa import (
    MsaConfig,
    MsaForMaskedLM,
    MsaForTokenClassification,
    MsaModel,
    MsaTokenizer,
    fit_contacts,
    load_model,
    revert_checkpoint,
)
from modeling_msa.training.training import train

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
CODE = [f"{name}_msa.py" for name in ("configuration", "modeling", "pipeline", "sharing", "tokenization")]
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]
COMPLETE = sorted(["LICENSE", "README.md", "config.json", "model.safetensors", *CODE, *TOKENIZER])

# Ways to push, in one process that has the package; a table of repositories and what a run adds to them.
PUSH = """
import sys
from transformers import Trainer, TrainingArguments
from typer.testing import CliRunner
from modeling_msa import MsaForMaskedLM, MsaTokenizer
from modeling_msa.cli import app
from modeling_msa.hub.pushing import push_folder
from modeling_msa.training.training import train

root = sys.argv[1]
model = MsaForMaskedLM.from_pretrained(f"{root}/made")
tokenizer = MsaTokenizer.for_config(model.config)
model.push_to_hub("me/model")
tokenizer.push_to_hub("me/tokenizer-alone")
tokenizer.push_to_hub("me/tokenizer-first")
MsaForMaskedLM.from_pretrained(f"{root}/made").push_to_hub("me/tokenizer-first", tags=["mine"])
model.push_to_hub("me/tokenizer-last")
MsaTokenizer(model_max_length=9).push_to_hub("me/tokenizer-last", revision="other")
tokenizer.push_to_hub("me/tokenizer-last")
model.save_pretrained("saved", push_to_hub=True, repo_id="me/saved")
model.push_to_hub("me/carded", revision="side")
model.push_to_hub("me/carded")
tokenizer.push_to_hub("me/carded")

tokens = tokenizer(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")["input_ids"][0]
options = {"max_steps": 1, "learning_rate": 0.0, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
options |= {"push_to_hub": True, "save_steps": 1}
for name, strategy in (("trainer", "end"), ("unfinished", "every_save")):
    arguments = TrainingArguments(name, hub_model_id=f"me/{name}", hub_strategy=strategy, **options)
    model = MsaForMaskedLM.from_pretrained(f"{root}/made")
    data = [{"input_ids": tokens, "labels": tokens}]
    trainer = Trainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    if name == "trainer":
        trainer.push_to_hub()
train(f"{root}/run.yaml")
train(f"{root}/run.yaml", ["--lora_r", "2", "--hub_model_id", "me/lora", "--output_dir", "lora"])
converted = CliRunner().invoke(app, ["convert", f"{root}/made.pt", "converted", "--push-to-hub", "me/converted"])
assert converted.exit_code == 0, converted.output
push_folder("converted", "me/pushed")
"""

# A process without the package: loads each repository by name, and pushes one again.
PULL = """
import sys
from safetensors.torch import save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
for repo_id in sys.argv[2:]:
    model = AutoModelForMaskedLM.from_pretrained(repo_id, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules."), type(model)
    save_file({k: t.clone() for k, t in model.state_dict().items()}, f"{sys.argv[1]}/{repo_id.replace('/', '-')}")
    tokenizer = AutoTokenizer.from_pretrained(repo_id, trust_remote_code=True)
    assert tokenizer(["MK", "-V"])["input_ids"] == [[[0, 20, 15], [0, 30, 7]]]
    if repo_id == "me/converted":
        model.push_to_hub("me/again")
        AutoModel.from_pretrained(repo_id, trust_remote_code=True).push_to_hub("me/headless")
"""
PLAIN = ["model", "tokenizer-first", "tokenizer-last", "saved", "carded", "converted", "pushed", "again"]
RUNS = ["trainer", "train"]  # they also leave what Trainer keeps of a run


def made(folder):
    """Save a small model without limit on rows, so that fair-esm's file can hold it; every weight matters."""
    torch.manual_seed(0)
    sizes = SIZES | {"row_position_embedding_size": None, "max_row_position_embeddings": 1024}
    model = MsaForMaskedLM(MsaConfig(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder


def run(hub, home, code, *args, packaged):
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    env = kept | {"HOME": str(home), "OMP_NUM_THREADS": "1"} | hub.env(home / "hf", token=hub_server.WRITE)
    if packaged:
        env["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", ("" if packaged else PRELUDE) + code, *map(str, args)]
    process = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("complete")
    made(root / "made")
    revert_checkpoint(root / "made", root / "made.pt")
    make_folder(root / "alignments")
    recipe = {"model": str(root / "made"), "train_data": [str(root / "alignments")], "output_dir": "train"}
    recipe |= {"max_tokens": 256, "max_steps": 1, "learning_rate": 0.0, "use_cpu": True, "disable_tqdm": True}
    recipe |= {"push_to_hub": True, "hub_model_id": "me/train", "save_strategy": "no"}
    (root / "run.yaml").write_text(yaml.safe_dump(recipe))
    return root


@pytest.fixture(scope="module")
def pushed(root):
    """The server after all pushes, and the folder with what was loaded from it."""
    (root / "theirs").mkdir()
    (root / "theirs" / "README.md").write_text(
        "---\nlicense: mit\ntags: [theirs]\n---\n\n# Theirs\n\nOur own words.\n"
    )
    (root / "loaded").mkdir()
    with hub_server.running() as hub:
        hub.seed("me/carded", root / "theirs")
        run(hub, root / "push", PUSH, root, packaged=True)
        whole = [f"me/{name}" for name in (*RUNS, "unfinished", *PLAIN)]
        run(hub, root / "pull", PULL, root / "loaded", *whole, packaged=False)
        yield hub, root / "loaded"


def card_of(hub, name, revision="main"):
    return ModelCard(hub.files(f"me/{name}", revision)["README.md"].decode())


@pytest.mark.parametrize("name", PLAIN)
def test_same_files(pushed, name):
    assert sorted(pushed[0].files(f"me/{name}")) == COMPLETE


@pytest.mark.parametrize("name", [*RUNS, "unfinished"])
def test_runs_add_to_the_same_files(pushed, name):
    files = set(pushed[0].files(f"me/{name}"))
    lacking = set(COMPLETE) - files
    assert lacking == ({"README.md"} if name == "unfinished" else set())  # Trainer writes its card at the end
    assert not [file for file in files if "checkpoint" in file or file.startswith("_")]


@pytest.mark.parametrize("name", [*PLAIN, *RUNS, "unfinished"])
def test_same_contents(pushed, root, name):
    files = pushed[0].files(f"me/{name}")
    expected = {path.name: path.read_bytes() for path in (root / "made").iterdir()}
    for code in CODE:
        assert files[code] == (Path(modeling_msa.__file__).parent / code).read_bytes()
    assert files["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    for file in (*CODE, "LICENSE", "model.safetensors"):
        assert files[file] == expected[file], file
    config, theirs = json.loads(files["config.json"]), json.loads(expected["config.json"])
    for each in (config, theirs):
        each.pop("use_cache", None)  # Trainer's
        each.pop("bos_token_id", None)  # older versions of it take the tokenizer's, which has none
    assert config == theirs
    reference = pushed[0].files("me/model")
    for file in TOKENIZER:
        assert json.loads(files[file]) == json.loads(reference[file])
    assert json.loads(files["tokenizer_config.json"])["model_max_length"] == SIZES["max_position_embeddings"]


@pytest.mark.parametrize("name", [*PLAIN, *RUNS, "unfinished"])
def test_loads_by_name_without_the_package(pushed, root, name):
    tensors = load_file(pushed[1] / f"me-{name}")
    expected = MsaForMaskedLM.from_pretrained(root / "made").state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], expected[key]) for key in expected)


def test_one_commit_each(pushed):
    titles = {name: [entry[2] for entry in repo.history] for name, repo in pushed[0].repos.items()}
    assert all(
        len(titles[f"me/{name}"]) == 2 for name in ("model", "saved", "converted", "pushed", "again", "trainer")
    )


def test_tokenizer_alone_leaves_the_card_to_the_model(pushed):
    files = sorted(pushed[0].files("me/tokenizer-alone"))
    assert files == sorted(["LICENSE", *CODE, *TOKENIZER])


@pytest.mark.parametrize("name", [*PLAIN, "train"])
def test_cards_are_ours(pushed, name):
    card = card_of(pushed[0], name)
    assert card.data.library_name == "transformers"
    assert {"protein", "msa-transformer"} <= set(card.data.tags)
    assert ("mine" in card.data.tags) == (name == "tokenizer-first")
    if name != "carded":
        assert "tied row" in card.text
        assert f'from_pretrained("me/{name}"' in card.text
    assert card.data.base_model == ("me/converted" if name == "again" else None)


def test_card_that_is_there_stays(pushed):
    for revision in ("main", "side"):
        card = card_of(pushed[0], "carded", revision)
        assert "Our own words." in card.text
        assert card.data.license == "mit"
        assert card.data.tags[0] == "theirs"


def test_card_of_other_weights_says_so(pushed):
    card = card_of(pushed[0], "headless")
    assert "> Made from me/converted, with other weights or another head" in card.text
    assert card.data.base_model == "me/converted"
    assert "> Made from" not in card_of(pushed[0], "again").text


def test_trainers_card_has_our_tags(pushed):
    card = card_of(pushed[0], "trainer")
    assert card.data.library_name == "transformers"
    assert {"protein", "msa-transformer", "generated_from_trainer"} <= set(card.data.tags)


def test_adapters_are_pushed_with_the_merged_model(pushed):
    files = set(pushed[0].files("me/lora"))
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md", *TOKENIZER, *CODE, "LICENSE"} <= files
    assert {f"merged/{name}" for name in COMPLETE} <= files
    (adapters := pushed[1] / "adapters").write_bytes(pushed[0].files("me/lora")["adapter_model.safetensors"])
    assert any("lora_A" in name for name in load_file(adapters))  # merging a copy has left them


def test_folders_are_complete(root, tmp_path):
    families = make_folder(tmp_path / "families", count=4)
    make_labels(tmp_path / "labels", families)
    pairs = [(tmp_path / f"families/{name}.a3m", tmp_path / f"labels/maps/{name}.npy") for name in families]
    fit_contacts(pairs, root / "made", tmp_path / "fitted", rows=5, regularization=1e4)
    assert sorted(path.name for path in (tmp_path / "fitted").iterdir()) == COMPLETE
    overrides = ["--push_to_hub", "false", "--lora_r", "2", "--output_dir", str(tmp_path / "run")]
    train(root / "run.yaml", overrides)
    assert sorted(path.name for path in (tmp_path / "run" / "merged").iterdir()) == COMPLETE


# Wrong weights


def with_tensors(change):
    def damage(folder):
        tensors = change(load_file(folder / "model.safetensors"))
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


def with_bytes(change):
    def damage(folder):
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

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
# name: (what is done to the folder, the error's type, words of the error)
WRONG = {
    "a layer is missing": (without(".layers.1."), ValueError, ["lacks 26 tensors", "layers.1.column_attention"]),
    "a bias is missing": (without("layers.0.feed_forward.fc1.bias"), ValueError, ["lacks 1 tensor", "fc1.bias"]),
    "another shape": (
        with_tensors(lambda tensors: tensors | {"msa.layer_norm.weight": torch.ones(5)}),
        ValueError,
        ["layer_norm.weight is (5,), not (16,)"],
    ),
    "another model": (with_tensors(lambda tensors: BERT), ValueError, ["lacks", "bert.embeddings.word_embeddings"]),
    "a layer too many": (with_tensors(third_layer), ValueError, ["no place for 26 tensors", "layers.2."]),
    "cut off": (with_bytes(lambda data: data[: len(data) // 2]), ValueError, ["damaged"]),
    "header": (with_bytes(lambda data: data[:30] + bytes([data[30] ^ 255]) + data[31:]), ValueError, ["damaged"]),
    "length": (with_bytes(lambda data: bytes([255] * 8) + data[8:]), ValueError, ["damaged"]),
    "empty": (with_bytes(lambda data: b""), ValueError, ["damaged"]),
    "a shard is missing": (
        shards(lambda folder: next(folder.glob("model-00002*")).unlink()),
        FileNotFoundError,
        ["not all there", "model-00002-of"],
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
MEND = "Download, copy or convert it again"
AUTO = """
import json, sys
from pathlib import Path
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM
for number, folder in enumerate(sorted(Path(sys.argv[1]).iterdir())):
    cls = (AutoModel, AutoModelForMaskedLM)[number % 2]
    try:
        model = cls.from_pretrained(folder, trust_remote_code=True)
    except (ValueError, OSError) as error:
        print(json.dumps([folder.name, type(error).__name__, str(error)]))
    else:
        print(json.dumps([folder.name, "loaded", type(model).__name__]))
AutoConfig.from_pretrained(folder, trust_remote_code=True).save_pretrained("again")
"""


@pytest.fixture(scope="module")
def wrong(root):
    """A folder for each entry of WRONG."""
    for name, (damage, _, _) in WRONG.items():
        damage(shutil.copytree(root / "made", root / "wrong" / name))
    return root / "wrong"


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("load", [MsaModel.from_pretrained, MsaForMaskedLM.from_pretrained, load_model])
def test_wrong_weights(wrong, name, load):
    _, error, words = WRONG[name]
    with pytest.raises(error) as caught:
        load(wrong / name)
    for word in (str(wrong / name), MEND, *words):
        assert word in str(caught.value)


def test_wrong_weights_through_auto_classes(wrong, tmp_path):
    process = run_fresh(AUTO, tmp_path, wrong)
    assert process.returncode == 0, process.stderr
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    assert sorted(line[0] for line in lines) == sorted(WRONG)
    for name, error, text in lines:
        assert error == WRONG[name][1].__name__, (name, text)
        assert all(word in text for word in (name, MEND, *WRONG[name][2]))
    # what was not imported there, and so is not beside the code, comes from the folder
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == sorted(["LICENSE", "config.json", *CODE])


def test_a_card_says_that_other_weights_were_made_of_a_source(root, tmp_path):
    for source, said in (("made", True), (None, False)):
        model = MsaForMaskedLM.from_pretrained(root / "made") if source else MsaForMaskedLM(MsaConfig(**SIZES))
        model.save_pretrained(tmp_path)
        model.write_card(tmp_path, "me/other")
        text = (tmp_path / "README.md").read_text()
        assert ("It was made from made, with other weights or another head" in text) == said
        assert "fair-esm published" not in text


def test_half_a_head(root, tmp_path):
    folder = shutil.copytree(root / "made", tmp_path / "half")
    without("lm_head.dense.bias")(folder)
    with pytest.raises(ValueError, match=r"lacks 1 tensor, lm_head\.dense\.bias"):
        MsaForMaskedLM.from_pretrained(folder)
    MsaModel.from_pretrained(folder)  # has no head to fill
    whole = shutil.copytree(root / "made", tmp_path / "none")
    without("lm_head.")(whole)  # though the config says that it was saved with its head
    with pytest.raises(ValueError, match=r"lacks \d tensors, lm_head\."):
        MsaForMaskedLM.from_pretrained(whole)


def test_state_dict(root):
    tensors, config = load_file(root / "made" / "model.safetensors"), MsaConfig.from_pretrained(root / "made")
    model = MsaForMaskedLM.from_pretrained(None, config=config, state_dict=dict(tensors))
    assert torch.equal(model.msa.layer_norm.weight, tensors["msa.layer_norm.weight"])
    del tensors["msa.layer_norm.weight"]
    with pytest.raises(ValueError, match=r"The given state_dict .* lacks 1 tensor, msa\.layer_norm\.weight"):
        MsaForMaskedLM.from_pretrained(None, config=config, state_dict=tensors)


def test_what_is_still_allowed(root, tmp_path):
    model, info = MsaForTokenClassification.from_pretrained(root / "made", num_labels=3, output_loading_info=True)
    assert info["missing_keys"] == {"classifier.weight", "classifier.bias"}
    model.save_pretrained(tmp_path / "three")
    with pytest.raises(ValueError, match=r"classifier\.bias is \(3,\), not \(5,\).*ignore_mismatched_sizes=True"):
        MsaForTokenClassification.from_pretrained(tmp_path / "three", num_labels=5)
    options = {"num_labels": 5, "ignore_mismatched_sizes": True}
    assert MsaForTokenClassification.from_pretrained(tmp_path / "three", **options).classifier.bias.shape == (5,)
    folder = shutil.copytree(root / "made", tmp_path / "more")
    with_tensors(lambda tensors: tensors | {"projection.weight": torch.ones(2)})(folder)  # somebody's own head
    assert isinstance(MsaModel.from_pretrained(folder), MsaModel)


def test_model_tags_are_a_models_own():
    model, other = (MsaModel(MsaConfig(**SIZES)) for _ in range(2))
    model.add_model_tags("mine")
    assert "mine" in model.model_tags
    assert "mine" not in other.model_tags


def test_tokenizer_fits_the_config():
    tokenizer = MsaTokenizer.for_config(MsaConfig(**SIZES))
    assert (tokenizer.model_max_length, tokenizer.model_max_depth) == (64, 32)
