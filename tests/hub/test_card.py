"""The contract of model cards.

A folder's card is filled from its config, its weights, and a conversion's or a run's report: what is known is there,
and what is not known is absent, headings too. Its code blocks run, as printed, against the very folder in a process
without this package, and tensors have the shapes that the comments say. Its metadata are YAML that huggingface_hub
reads back to the same figures and names; the task is one of the Hub's.
"""

import json
import math
import re
import shutil
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from families import SIZES, make_folder, make_labels, make_model
from fresh import run_fresh
from huggingface_hub import ModelCard
from small import CLASSES, small_config

from modeling_msa import (
    MsaConfig,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    convert_checkpoint,
    fit_contacts,
    load_model,
    revert_checkpoint,
)
from modeling_msa.hub.card import (
    METRICS,
    PIPELINE_TAGS,
    card_template,
    find_source,
    has_fitted_contacts,
    write_model_card,
)
from modeling_msa.hub.reports import ConversionReport, Result, Source, TrainingReport
from modeling_msa.hub.repository import complete_folder
from modeling_msa.training.run_report import report_of_run
from modeling_msa.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "modeling_msa" / "checkpoints" / "msa-tiny"

# Runs all blocks of each card, each in names of its own, and checks what its comments say of shapes.
CHILD = r"""
import json, re
from pathlib import Path
import transformers

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
ran = {}
for folder in sys.argv[1:]:
    ran[folder] = []
    text = Path(folder, "README.md").read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        names = {}
        exec(compile(code, folder, "exec"), names)
        kept = []
        for name, comment in re.findall(r"^ *(\w+) = .*?  # (.*)$", code, flags=re.MULTILINE):
            value = names[name]
            if shape := re.match(r"\([\d, ]+\)", comment):
                assert tuple(value.shape) == eval(shape[0]), (folder, name, tuple(value.shape), comment)
            elif count := re.match(r"(\d+) of them", comment):
                assert len(value) == int(count[1]) and all(isinstance(each, str) for each in value), (name, value)
            else:  # a dictionary's keys, and the shapes of some
                for key, shape in re.findall(r"(\w+)( \(\d[\d, ]+\))?(?=[,:. ]|$)", comment):
                    if shape:
                        assert value[key].shape == eval(shape), (folder, key, value[key].shape)
            kept.append(name)
        if "best" in names and not isinstance(names["best"], dict):
            assert isinstance(names["best"], str), names["best"]
        if isinstance(names.get("best"), dict):
            assert {"token_str", "score", "row", "column"} <= names["best"].keys()
        if "found" in names:
            found = names["found"]
            keys = {"entity", "residue"} if isinstance(found, list) else {"label", "score"}
            assert all(keys <= each.keys() for each in (found if isinstance(found, list) else [found]))
            assert not isinstance(found, list) or len(found) == 16
        if "contacts" in names:
            assert 0 <= names["contacts"].min() and names["contacts"].max() <= 1
        ran[folder].append(kept)
assert not any(name.partition(".")[0] == "modeling_msa" for name in sys.modules)
print(json.dumps(ran))
"""

# of each folder: the task, and what each block ends with
CONTACTS, RESIDUES, STATES = ["contacts"], ["logits"], ["states", "residues"]
EXPECTED = {
    "converted": ("fill-mask", [CONTACTS, RESIDUES, STATES, ["best", "result"]]),
    "unfitted": ("fill-mask", [RESIDUES, STATES, ["best"]]),
    "msa-tiny": ("fill-mask", [CONTACTS, RESIDUES, STATES, ["best", "result"]]),
    "bare": ("feature-extraction", [STATES, ["features"]]),
    "fitted": ("fill-mask", [CONTACTS, RESIDUES, STATES, ["best", "result"]]),
    "mlm": ("fill-mask", [CONTACTS, RESIDUES, STATES, ["best", "result"]]),
    "scratch": ("fill-mask", [RESIDUES, STATES, ["best"]]),
    "token": ("token-classification", [["logits", "classes"], STATES, ["found"]]),
    "kinds": ("text-classification", [["logits"], STATES, ["found"]]),
    "variants": ("text-classification", [["values"], STATES, ["found"]]),
    "contacts": ("feature-extraction", [CONTACTS, ["result"]]),
    "lora": ("token-classification", [["logits"]]),
    "lora/merged": ("token-classification", [["logits", "classes"], STATES, ["found"]]),
}
RUN = ("converted", "bare", "token", "kinds", "variants", "contacts", "lora")
HEADINGS = ("Use", "Limits", "Training", "Results", "How faithful the conversion is", "Differences from fair-esm")


def run_of(root, name, **keys):
    """A run of two steps, from `root`/base, in `root`/`name`."""
    content = {
        "model": str(root / "base"),
        "train_data": [str(root / "alignments")],
        "eval_fraction": 0.25,
        "output_dir": name,
        "max_tokens": 256,
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 3,
        "learning_rate": 2e-3,
        "weight_decay": 0.01,
        "seed": 7,
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_strategy": "no",
    } | keys
    path = root / f"{name}-recipe.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return train(path)


@pytest.fixture(scope="module")
def reports():
    """Of the runs that `root` makes, by name."""
    return {}


@pytest.fixture(scope="module")
def root(tmp_path_factory, reports):
    """A folder of each kind, by the names of EXPECTED, and the reports of the runs."""
    root = tmp_path_factory.mktemp("cards")
    patch = pytest.MonkeyPatch()
    patch.chdir(root)  # the cards name folders by relative paths, and the child runs here
    families = make_folder(root / "alignments")
    labels = make_labels(root / "labels", families)
    make_model(root / "base")
    (root / "base" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# base\n")
    model = MsaForMaskedLM(MsaConfig(**SIZES | {"max_row_position_embeddings": 1024}))  # as fair-esm's
    model.msa.save_pretrained("bare")
    complete_folder("bare", model.msa.config, "bare")
    for name in ("unfitted", "converted"):
        model.save_pretrained("ours")
        revert_checkpoint("ours", f"{name}.pt")
        convert_checkpoint(f"{name}.pt", name)
        torch.nn.init.normal_(model.msa.contact_head.regression.weight)
    load_model(cls=MsaForMaskedLM).save_pretrained("msa-tiny")  # as its card says
    tokenizer = ("tokenizer.json", "tokenizer_config.json")
    shutil.copy(TINY / "README.md", "msa-tiny")
    for name in tokenizer:
        shutil.copy(root / "converted" / name, "msa-tiny")
    pairs = [(root / "alignments" / f"{name}.a3m", root / "labels" / "maps" / f"{name}.npy") for name in families]
    reports["fitted"] = fit_contacts(pairs, "base", "fitted", rows=5, regularization=1e4)
    reports["mlm"] = run_of(root, "mlm", objective="mlm")
    config = {"model": None, "config": str(root / "base"), "eval_fraction": None}
    reports["scratch"] = run_of(root, "scratch", objective="mlm", **config)
    token = {"objective": "token", "labels": str(labels["token"]), "class_names": ["H", "E", "C"]}
    reports["token"] = run_of(root, "token", **token)
    reports["lora"] = run_of(root, "lora", **token, lora_r=2)
    reports["kinds"] = run_of(root, "kinds", objective="sequence", num_labels=2, labels=str(labels["classes"]))
    one = {"train_data": [str(root / "alignments" / "f0.a3m")], "labels": str(labels["variants"])}
    reports["variants"] = run_of(root, "variants", objective="variants", **one)
    reports["contacts"] = run_of(root, "contacts", objective="contacts", labels=str(labels["contacts"]))
    yield root
    patch.undo()


@pytest.fixture(scope="module")
def cards(root):
    return {name: ModelCard.load(root / name / "README.md") for name in EXPECTED}


def headings(card):
    return re.findall(r"^## (.*)$", card.text, flags=re.MULTILINE)


def section(card, title):
    return card.text.split(f"## {title}\n")[1].split("\n## ")[0]


def figures(card):
    """Of the model-index: value by dataset and metric."""
    return {(result.dataset_name, result.metric_name): result.metric_value for result in card.data.eval_results or []}


def assert_clean(text):
    """Nothing of the template, of Python or of a part that has no content shows."""
    assert not re.search(r"\{%|%\}|\{#|#\}|\{\{ ", text)
    prose = re.sub(r"```.*?```", "x", text, flags=re.DOTALL)
    assert not re.search(r"\bNone\b|\bnan\b|\bTrue\b|\bFalse\b", re.sub(r"`.*?`", "", prose))
    assert "None" not in text
    assert "\n\n\n" not in text
    assert not re.search(r"^(#+) .*\n\s*(\1 |\Z)", prose, flags=re.MULTILINE), "a heading of nothing"
    assert not re.search(r"^#+ *$", text, flags=re.MULTILINE)
    assert not re.search(r"\S\n#+ ", prose), "a heading without blank line"
    assert not re.search(r"[ \t]+$", text, flags=re.MULTILINE)
    assert not re.search(r"^[^|\n].*\n\|", text, flags=re.MULTILINE), "a table without blank line"


def test_blocks_run_against_the_very_folder(root, cards):
    process = run_fresh(CHILD, root, *RUN)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == {name: EXPECTED[name][1] for name in RUN}


@pytest.mark.parametrize("name", EXPECTED)
def test_text_is_clean(cards, name):
    assert_clean(cards[name].text)
    has_head = name in ("token", "kinds", "variants", "contacts", "lora", "lora/merged")
    assert (f'msa predict "{name}" alignments/ -o predictions/' in cards[name].text) == has_head
    blocks = re.findall(r"```python\n(.*?)```", cards[name].text, flags=re.DOTALL)
    assert [re.findall(r"^ *(\w+) = .*?  # .*$", code, flags=re.MULTILINE) for code in blocks] == EXPECTED[name][1]
    shown = headings(cards[name])
    assert shown[:2] == ["Use", "Limits"]
    assert shown[-1] == "Citation"
    assert set(shown) <= {*HEADINGS, "Licence", "Citation"}
    trained = name not in ("converted", "unfitted", "bare")
    assert ("Training" in shown) == trained
    assert ("Results" in shown) == (trained and name != "scratch")
    assert ("How faithful the conversion is" in shown) == (name in ("converted", "unfitted"))


@pytest.mark.parametrize("name", EXPECTED)
def test_metadata_come_back(cards, root, name):
    text = (root / name / "README.md").read_text(encoding="utf-8")
    data = yaml.safe_load(text.split("---\n")[1])
    json.dumps(data, allow_nan=False)
    card = cards[name]
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict() == data
    assert data["pipeline_tag"] == EXPECTED[name][0]
    assert data["library_name"] == ("peft" if name == "lora" else "transformers")
    assert {"biology", "protein", "msa", "msa-transformer"} <= set(data["tags"])
    assert data["inference"] is False
    assert ("model-index" in data) == bool(card.data.eval_results)
    for entry in data.get("model-index", []):
        assert entry["name"]
        for result in entry["results"]:  # what the Hub asks for
            assert result["task"]["type"]
            assert re.fullmatch(r"[\w-]+", result["dataset"]["type"])
            assert result["dataset"]["name"]
            assert all(metric["type"] and isinstance(metric["value"], float) for metric in result["metrics"])


def test_of_a_conversion_nothing_is_invented(cards, root):
    converted, unfitted = cards["converted"], cards["unfitted"]
    for card in (converted, unfitted):
        data = card.data.to_dict()
        assert not {"license", "base_model", "base_model_relation", "model-index", "datasets"} & data.keys()
        assert "Licence" not in headings(card)
    faithful = section(converted, "How faithful the conversion is")
    assert len(re.findall(r"largest absolute difference from fair-esm \d\.\de-\d+, on 8 random rows", faithful)) == 2
    assert "contacts:" not in section(unfitted, "How faithful the conversion is")
    assert "| contact regression | included |" in converted.text
    assert "never fitted" in unfitted.text
    for words in ("predict_contacts(", "msa-contact-prediction", "Contacts are"):
        assert words in converted.text
        assert words not in unfitted.text
    assert "| layers, width, heads | 2, 16, 2 |" in converted.text
    assert "| columns, `<cls>` included | at most 64 |" in converted.text


def test_without_fair_esm_no_difference_is_named(tmp_path):
    report = ConversionReport(tmp_path, small_config(), 12, 34567, True)
    write_model_card(tmp_path, "a", "a", report.config, report)
    card = ModelCard.load(tmp_path / "README.md")
    assert section(card, "How faithful the conversion is").strip() == (
        "- 12 tensors (34,567 numbers) were read back from this folder and equal the source bit for bit."
    )
    assert_clean(card.text)


def test_only_a_conversion_names_the_published_weights(tmp_path):
    name, config = "esm_msa1b_t12_100M_UR50S", MsaConfig()
    write_model_card(tmp_path, name, name, config, ConversionReport(tmp_path, config, 1, 1, True), license="mit")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "mit"
    assert "ESM-MSA-1b, trained on 26 million MSAs" in card.text
    assert "The weights: MIT, as published by fair-esm." in card.text
    assert_clean(card.text)
    folder = tmp_path / "here"
    shutil.copytree(tmp_path, folder, ignore=shutil.ignore_patterns("here"))
    assert find_source(folder, config) == Source(name, name, "mit")  # for those that start from it
    assert find_source(folder, small_config()).model_id is None  # a small one that bears the name is not it
    write_model_card(tmp_path, name, "me/copy", config)  # pushed, by a name that proves nothing
    assert "published" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("cls", CLASSES)
def test_of_a_model_alone(tmp_path, cls):
    """What ``push_to_hub`` knows: config and weights."""
    model = cls(small_config(num_labels=4))
    model.save_pretrained(tmp_path)
    write_model_card(tmp_path, "thing", "someone/thing", model.config)
    card = ModelCard.load(tmp_path / "README.md")
    assert_clean(card.text)
    assert headings(card) == ["Use", "Limits", "Differences from fair-esm", "Citation"]
    assert card.data.to_dict().keys() == {"library_name", "pipeline_tag", "tags", "inference"}
    assert card.data.pipeline_tag == PIPELINE_TAGS[cls.__name__]
    assert "predict_contacts(" not in card.text  # zeros: never fitted
    assert '"someone/thing", trust_remote_code=True' in card.text
    assert ("(1, 4)" in card.text) == (cls is MsaForSequenceClassification)
    assert "classes |" not in card.text  # LABEL_0 is no name
    write_model_card(tmp_path / "..", "thing", "someone/thing", MsaConfig())  # neither weights nor class
    card = ModelCard.load(tmp_path.parent / "README.md")
    assert card.data.pipeline_tag is None
    assert "contact regression" not in card.text
    assert_clean(card.text)


def test_the_folder_tells_whether_contacts_were_fitted(tmp_path, root):
    assert has_fitted_contacts(root / "converted")
    assert has_fitted_contacts(root / "unfitted") is False
    assert has_fitted_contacts(root / "lora") is None
    assert has_fitted_contacts(tmp_path) is None
    MsaForMaskedLM.from_pretrained(root / "converted").save_pretrained(tmp_path, max_shard_size="5KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert has_fitted_contacts(tmp_path)


def test_labels_decide_what_a_head_says(tmp_path):
    def card_of(**options):
        config = small_config(**options)
        config.architectures = ["MsaForSequenceClassification"]
        write_model_card(tmp_path, "a", "a", config)
        text = (tmp_path / "README.md").read_text()
        assert_clean(text)
        return text

    assert "predicts a value for the query" in (text := card_of(num_labels=1))
    assert "values = model(" in text
    assert "predicts 3 values for the query" in card_of(num_labels=3, problem_type="regression")
    assert "id2label[" in (text := card_of(id2label={0: "a|b", 1: "<c>"}, problem_type="single_label_classification"))
    assert r"| classes | a\|b, &lt;c> |" in text
    many = {k: f"kind{k}" for k in range(23)}
    assert "kind19 and 3 more |" in card_of(id2label=many)


def test_what_a_run_says(cards, reports):
    token, report = cards["token"], reports["token"]
    assert token.data.license == "cc-by-4.0"  # of the weights it started from
    assert "cc-by-4.0, inherited from the weights that training started from." in section(token, "Licence")
    assert "base_model" not in token.data.to_dict()  # a folder that nobody else has
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", section(token, "Training"), flags=re.MULTILINE))
    assert rows["recipe"] == "token-recipe; `recipe.yaml` has every key that was set"
    assert rows["objective"] == "classes of the query's residues"
    assert rows["started from"] == "base"
    assert rows["data"] == "alignments; 6 alignments"
    assert rows["maximum size of an alignment"].startswith("256 tokens, 32 rows, 64 columns")
    assert rows["steps"].startswith("2, ")
    assert rows["alignments per step"] == "6 (2 per batch, 3 accumulated)"
    assert rows["learning rate"] == "0.002, linear"
    assert rows["optimizer"].endswith("betas 0.9 and 0.999, weight decay 0.01")
    assert (rows["precision"], rows["seed"]) == ("float32", "7")
    assert f"torch {version('torch')}" in rows["versions"]
    assert float(rows["last logged training loss"]) > 0
    held_out = "alignments: 2 alignments held out (0.25 of all)"
    names = {METRICS[key][1]: report.figures[f"eval_{key}"] for key in ("loss", "accuracy", "macro_f1")}
    assert figures(token) == {(held_out, name): pytest.approx(value, rel=1e-5) for name, value in names.items()}
    for name, value in names.items():
        assert f"| {held_out} | {name} | {value:.3f} |" in section(token, "Results")
    assert "contact regression is that of base" in section(token, "Limits")
    assert "contact regression is that of" not in cards["contacts"].text  # it was trained
    assert "| classes | H, E, C |" in token.text
    text = str(cards["token"]) + str(cards["lora"])
    assert "/alignments" not in text  # not where things lie on somebody's machine


def test_what_differs_between_runs(cards, reports):
    scratch = cards["scratch"]
    assert "| started from | random weights, with the configuration base |" in scratch.text
    assert "license" not in scratch.data.to_dict()
    assert scratch.data.eval_results is None
    assert "contact regression is that of" not in scratch.text
    assert figures(cards["mlm"]).keys() == {
        ("alignments: 2 alignments held out (0.25 of all)", name) for name in ("loss", "perplexity", "accuracy")
    }
    assert "the variant replaces the query" in cards["variants"].text
    assert next(iter(figures(cards["variants"])))[0].startswith("f0.a3m: 3 variants held out (0.25 of all)")
    assert ("| LoRA adapters | rank 2, alpha 4, dropout 0 |") in cards["lora"].text
    assert "peft 0." in cards["lora"].text
    assert "The folder `merged` has both" in cards["lora"].text
    assert figures(cards["lora"]) == figures(cards["lora/merged"])
    contacts = {name: value for (_, name), value in figures(cards["contacts"]).items()}
    assert contacts["P@L"] == pytest.approx(reports["contacts"].figures["eval_p_at_l"], rel=1e-5)
    fitted, fit = cards["fitted"], reports["fitted"]
    assert figures(fitted) == {("8 families of known structure", "P@L"): pytest.approx(fit.precision, rel=1e-5)}
    assert fitted.data.eval_results[0].dataset_split == "train"
    assert f"| 8 families of known structure, which it was fitted on | P@L | {fit.precision:.3f} |" in fitted.text
    assert fitted.data.license == "cc-by-4.0"


def test_base_model_is_named_where_others_find_it(tmp_path, monkeypatch):
    config = small_config()
    config.architectures = ["MsaForMaskedLM"]

    def data_of(**options):
        write_model_card(tmp_path, "mine", "me/mine", config, **options)
        return ModelCard.load(tmp_path / "README.md").data.to_dict()

    hub = Source("them/theirs", "them/theirs", "mit")
    data = data_of(training=TrainingReport("x", source=hub, relation="finetune", datasets=("them/msas",)))
    assert (data["base_model"], data["base_model_relation"]) == ("them/theirs", "finetune")
    assert (data["license"], data["datasets"]) == ("mit", ["them/msas"])
    local = data_of(training=TrainingReport("x", source=Source("folder"), relation="finetune"))
    assert not {"base_model", "base_model_relation", "license"} & local.keys()
    (tmp_path / "adapter_config.json").write_text("{}")
    data = data_of(training=TrainingReport("x", source=hub, relation="finetune"))
    assert (data["base_model_relation"], data["library_name"]) == ("adapter", "peft")
    assert "PeftModel.from_pretrained" in (tmp_path / "README.md").read_text()
    data_of()  # of adapters alone: on what, nobody knows
    assert "```python" not in (tmp_path / "README.md").read_text()
    config.architectures = ["MsaForContactPrediction"]  # there is no auto class to load the base with
    data_of(training=TrainingReport("x", source=hub))
    assert "```python" not in (tmp_path / "README.md").read_text()
    assert_clean((tmp_path / "README.md").read_text())
    config.architectures = ["MsaForMaskedLM"]
    (tmp_path / "adapter_config.json").unlink()

    # known from the config alone: only what the cache proves to have come from the Hub
    config.name_or_path = "them/theirs"
    assert "base_model" not in data_of()
    cache = tmp_path / "cache" / "models--them--theirs"
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc")
    (cache / "snapshots" / "abc" / "config.json").write_text("{}")
    (cache / "snapshots" / "abc" / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n# x\n")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("modeling_msa.hub.card.try_to_load_from_cache", cached_under(tmp_path / "cache"))
    data = data_of()
    assert data["base_model"] == "them/theirs"
    assert "base_model_relation" not in data
    config.quantization_config = {"quant_method": "torchao"}
    assert data_of()["base_model_relation"] == "quantized"
    config.name_or_path = "me/mine"  # pushed again to where it came from
    assert "base_model" not in data_of()


def cached_under(folder):
    from huggingface_hub import try_to_load_from_cache

    return lambda name, file: try_to_load_from_cache(name, file, cache_dir=folder)


def test_data_on_the_hub_is_named():
    """A recipe's addresses of data sets are in the metadata; local ones are not."""
    data = SimpleNamespace(train_data=["hf://datasets/them/msas/data/*.parquet", "/home/me/shards"], repeats=1)
    state = SimpleNamespace(global_step=3, epoch=0.1, log_history=[])
    arguments = SimpleNamespace(
        train_batch_size=1,
        gradient_accumulation_steps=1,
        world_size=1,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        learning_rate=1e-4,
        weight_decay=0,
        optim="sgd",
        bf16=True,
        fp16=False,
        seed=0,
        load_best_model_at_end=False,
    )
    trainer = SimpleNamespace(state=state, args=arguments, train_dataset=None, data_collator=None, model=None)
    recipe = SimpleNamespace(
        name="r", data=data, model=SimpleNamespace(model=None, config="msa-tiny", objective="mlm", lora_r=None)
    )
    report = report_of_run(trainer, recipe)
    assert report.datasets == ("them/msas",)
    settings = dict(report.settings)
    assert settings["data"] == "hf://datasets/them/msas/data/*.parquet, shards"
    assert (settings["optimizer"], settings["precision"]) == ("sgd", "bfloat16, mixed")
    assert settings["learning rate"] == "0.0001, cosine after 5 of warm-up"
    assert settings["alignments per step"] == "1"
    assert settings["steps"] == "3"  # a stream has no epochs
    assert not {"last logged training loss", "maximum size of an alignment"} & settings.keys()
    # of the best weights, if these are kept, the figures are theirs
    state.log_history += [{"step": 1, "eval_loss": 1.0}, {"step": 3, "eval_loss": 2.0}]
    recipe.data.eval_data, recipe.data.eval_fraction, trainer.eval_dataset = ["/home/me/held"], None, range(9)
    assert report_of_run(trainer, recipe).results == (
        Result("loss", 2.0, "held: 9 alignments held out", split="validation"),
    )
    arguments.load_best_model_at_end, state.best_global_step = True, 1
    assert [result.value for result in report_of_run(trainer, recipe).results] == [1.0]
    state.global_step = 0  # not trained yet: nothing to say
    assert report_of_run(trainer, recipe) == TrainingReport()


@pytest.mark.parametrize(
    "name",
    [
        'the "best": model',
        "a | b # c: [y {{ safe }} \\n",
        "two\nlines",
    ],
)
def test_any_name(tmp_path, name):
    result = Result("p_at_l", 0.123456, f"data of {name}", error=0.01, note=f"x: {name}")
    report = TrainingReport("Trained.", (("what", name),), (result,))
    config = small_config(id2label={0: name, 1: "other"})
    config.architectures = ["MsaForTokenClassification"]
    write_model_card(tmp_path, name, name, config, note=name, training=report)
    card = ModelCard.load(tmp_path / "README.md")
    line = " ".join(name.split())
    assert card.text.splitlines()[1] == f"# {line}"
    assert f"\n> {line}\n" in card.text
    entry = yaml.safe_load(str(card).split("---\n")[1])["model-index"][0]
    assert entry["name"] == line
    assert entry["results"][0]["dataset"]["name"] == f"data of {line}"
    assert figures(card) == {(f"data of {line}", "P@L"): 0.123456}
    code = re.search(r"```python\n(.*?)```", card.text, flags=re.DOTALL)[1]
    loads = []
    namespace = {"from_pretrained": lambda each, **options: loads.append(each)}
    exec("\n".join(re.findall(r"= \w+\.(from_pretrained.*)", code)), namespace)
    assert loads == [name, name]
    rows = [line for line in card.text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3, 5}  # the tables of two and of four columns


def test_figures_that_are_no_numbers_stay_out_of_the_index(tmp_path):
    results = (Result("perplexity", math.inf, "a"), Result("loss", 12.3456, "a"), Result("accuracy", 0.5, "b"))
    write_model_card(tmp_path, "x", "x", small_config(), training=TrainingReport(results=results))
    card = ModelCard.load(tmp_path / "README.md")
    assert figures(card) == {("a", "loss"): 12.3456, ("b", "accuracy"): 0.5}
    assert "| a | perplexity | inf |" in card.text
    assert "| a | loss | 12.3 |" in card.text
    write_model_card(tmp_path, "x", "x", small_config(), training=TrainingReport(results=results[:1]))
    assert "model-index" not in (tmp_path / "README.md").read_text()


def test_card_of_the_shipped_checkpoint_is_what_the_code_writes(tmp_path, monkeypatch):
    """Its figures stand in the table and in the index; all else follows from the template."""
    for folder in (ROOT / "examples" / "synthetic_families", ROOT / "benchmarks"):
        monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop("evaluate", None)
    import evaluate

    card = ModelCard.load(TINY / "README.md")
    measured = card.data.eval_results
    assert [result.metric_name for result in measured] == ["P@L"] + 6 * ["P@L/2"]
    assert measured[0].dataset_name == "100 held-out synthetic families"
    lines = section(card, "Results").strip().splitlines()
    for result, line in zip(measured, lines[2:], strict=True):
        assert line.startswith(f"| {result.dataset_name} | {result.metric_name} | {result.metric_value:.3f}")
    mean = sum(result.metric_value for result in measured[1:5]) / 4
    assert measured[5].metric_value == pytest.approx(mean, abs=1e-5)
    assert card.data.license == "apache-2.0"
    by_name = {name: key for key, (_, name) in METRICS.items()}
    results = tuple(
        Result(by_name[each.metric_name], each.metric_value, each.dataset_name, split=each.dataset_split)
        for each in measured
    )
    report = TrainingReport(evaluate.DATA, results=results, limits=evaluate.LIMITS)
    shutil.copy(TINY / "model.safetensors", tmp_path)
    evaluate.write_card(tmp_path, MsaConfig.from_pretrained(TINY), report)
    written = ModelCard.load(tmp_path / "README.md")
    assert written.data.to_dict() == card.data.to_dict()
    results = section(written, "Results")
    assert written.text.replace(results, "") == card.text.replace(section(card, "Results"), "")


def test_template_of_the_installed_package_is_the_repositorys():
    """The wheel's file is compared in the tests of packaging; here, that it goes where `card_template` looks first."""
    assert card_template() == (ROOT / "hub_card.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]["hub_card.md"] == (
        "modeling_msa/hub_card.md"
    )


def test_tasks_are_the_hubs():
    assert PIPELINE_TAGS.keys() == {cls.__name__ for cls in CLASSES}
    # of https://huggingface.co/tasks, those that could fit
    assert set(PIPELINE_TAGS.values()) <= {
        "fill-mask",
        "feature-extraction",
        "token-classification",
        "text-classification",
    }
    assert PIPELINE_TAGS[MsaForContactPrediction.__name__] == "feature-extraction"
