"""The contract of recipes: values have their keys' types, the command line's replace the file's, and all problems are
listed at once, before anything is loaded.
"""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from modeling_msa.cli import app
from modeling_msa.training.help import help_text
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.shipped import find_config, find_recipe


def test_values_have_their_keys_types_and_the_command_line_replaces_the_file(recipe, tmp_path):
    path = recipe(max_steps=7)
    path.write_text(path.read_text() + "weight_decay: 1e-4\nbf16: no\nrandom_positions: yes\n")
    assert yaml.safe_load(path.read_text())["weight_decay"] == "1e-4"  # YAML reads a word
    read = parse_recipe(path, ["--max-steps", "9", "--no_mask_gaps", "--train_data", str(tmp_path), str(path)])
    assert read.training.weight_decay == 1e-4
    assert read.training.bf16 is False
    assert read.data.random_positions is True
    assert read.data.mask_gaps is False
    assert read.training.max_steps == read.given["max_steps"] == 9
    assert read.data.train_data == [str(tmp_path), str(path)]
    assert read.given["mask_gaps"] is False
    assert "select" not in read.given  # nobody set it
    assert read.training.remove_unused_columns is False


def test_all_problems_are_listed_at_once(recipe):
    path = recipe(learning_rte=1e-3, max_tokens="many", model="somewhere")
    with pytest.raises(ValueError, match="5 problems") as error:
        parse_recipe(path, ["--depth", "deep", "--mlm-probabilty", "0.2", "--seed", "1", "2"])
    message = str(error.value)
    assert str(path) in message
    assert "learning_rte: there is no such key; did you mean learning_rate?" in message
    assert "mlm_probabilty: there is no such key; did you mean mlm_probability?" in message
    assert "max_tokens: 'many' is not a whole number" in message
    assert "depth: 'deep' is not one of full, log_uniform" in message
    assert "seed: only one value is allowed, not 1 2" in message
    path = recipe(train_data=["nowhere"], objective="token", eval_strategy="epoch", mlm_probability=2, model="x")
    with pytest.raises(ValueError, match="5 problems") as error:
        parse_recipe(path)
    message = str(error.value)
    for part in ("either model", "nowhere does not exist", "requires labels", "requires eval_data", "between 0 and 1"):
        assert part in message


def test_shipped_names_are_shipped_files(recipe, tmp_path, monkeypatch):
    """Beside files and folders of these names, which are ./contacts and ./msa-tiny."""
    monkeypatch.chdir(tmp_path)
    shipped = find_recipe("contacts"), find_config("msa-tiny")
    Path("contacts").touch()
    Path("msa-tiny").mkdir()
    Path("msa-tiny/config.json").touch()
    Path("fn3").mkdir()
    with pytest.warns(UserWarning, match="pass ./contacts for the file of this name"):
        assert (find_recipe("contacts"), find_config("msa-tiny")) == shipped
    assert find_recipe("./contacts") == Path("contacts")
    assert find_config("./msa-tiny") == Path("msa-tiny/config.json")
    Path("fn3").rmdir()
    assert parse_recipe(recipe(train_data=["fn3"])).data.train_data == ["fn3"]


def test_forms_of_values(recipe, tmp_path):
    path = recipe(lora_r=None, report_to=["none"], lr_scheduler_kwargs={"num_cycles": 2}, resume_from_checkpoint=True)
    path.write_text(path.read_text() + "eval_data: null\n")
    overrides = ["--learning_rate=1e-5", "--random_positions", "--config_overrides", '{"hidden_dropout": 0.5}']
    read = parse_recipe(path, [*overrides, "--max-rows", "7", "--bf16", "no", "--label_names", "labels"])
    assert read.data.eval_data is None
    assert read.data.random_positions is True
    assert read.data.max_rows == 7
    assert read.model.config_overrides == {"hidden_dropout": 0.5}
    assert read.training.learning_rate == 1e-5
    assert read.training.bf16 is False
    assert read.training.lr_scheduler_kwargs == {"num_cycles": 2}
    assert read.training.resume_from_checkpoint == "true"
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(read.given))
    assert parse_recipe(tmp_path / "again.yaml").given == read.given
    with pytest.raises(ValueError, match="100: values must follow a key"):
        parse_recipe(path, ["100"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "key: value"),
        ("a: [", "is not a recipe"),
        ("config: nonesuch", "nonesuch"),
        ("config: msa-tiny\nno_mask_gaps: 1.5", "this key has no value"),
        ("config: msa-tiny\nseed: []", "a value is missing"),
        ("config: msa-tiny\nseed: {a: 1}", "a mapping is not allowed"),
        ("config: msa-tiny\nbf16: perhaps", "'perhaps' is not true or false"),
        ("config: msa-tiny\ntrain_data: null", "train_data is missing"),
        ("config: msa-tiny\nconfig_overrides: {hiden_size: 8}", "did you mean hidden_size"),
        ("config: msa-tiny\nconfig_overrides: '{'", "not valid JSON"),
        ("config: msa-tiny\nconfig_overrides: '[1]'", "must be a mapping"),
        ("config: msa-tiny\nstreaming: true\neval_fraction: 0.1", r"(?s)cannot be split.*requires max_steps"),
        ("config: msa-tiny\nobjective: variants\nlabels: .\nstreaming: true", "cannot be combined with the objective"),
        ("config: msa-tiny\nlora_r: 4", "requires model"),
        ("config: msa-tiny\nobjective: token\nlabels: .\nnum_labels: 2\nclass_names: [H, E, C]", "has 3 names"),
        ("config: msa-tiny\nobjective: token\nlabels: .\nclass_names: [H, E, H]", "class_names has a name twice"),
        ("config: msa-tiny\nload_best_model_at_end: true", "eval"),
        ("config: msa-tiny\nlabels: .", "has no labels"),
        ("config: msa-tiny\neval_data: [.]\neval_fraction: 2", r"(?s)either eval_data or.*between 0 and 1, not 2"),
        ("config: msa-tiny\nrepeats: 0", "at least 1, not 0"),
        ("config: msa-tiny\nrepeats: 2\nstreaming: true", "repeats cannot be combined"),
        ("config: msa-tiny\naverage_checkpoints: -1", "at least 0, not -1"),
        ("config: msa-tiny\naverage_checkpoints: 5", "is 5, but save_total_limit keeps 3"),
        ("config: msa-tiny\naverage_checkpoints: 2\nsave_strategy: 'no'", "requires checkpoints"),
        (
            "config: msa-tiny\naverage_checkpoints: 2\nload_best_model_at_end: true\n"
            "eval_fraction: 0.5\neval_strategy: steps",
            "either average_checkpoints or",
        ),
        ("model: msa-tiny\naverage_checkpoints: 2\nlora_r: 4", "mean of adapters"),
        ("model: msa-tiny\nmuon: true\nlora_r: 4", "muon and lora_r exclude"),
        ("model: msa-tiny\naverage_decay: 0.9\nlora_r: 4", "mean of adapters"),
        ("config: msa-tiny\naverage_decay: 1", "at least 0 and below 1, not 1"),
        ("config: msa-tiny\naverage_decay: 0.9\naverage_checkpoints: 2", "only one of average_decay"),
        ("config: msa-tiny\nmax_time: 0", "a number of minutes above 0, not 0"),
        ("config: msa-tiny\ntrain_data: [simulated]", "simulated families require shares"),
        ("config: msa-tiny\nshares: [1, 2]", r"(?s)there are 2 for 1.*max_steps.*depth log_uniform"),
        ("config: msa-tiny\nshares: [0]", "must be positive"),
        ("config: msa-tiny\nshares: [.nan]", "must be positive"),
        ("config: msa-tiny\nshares: [1]\nmax_steps: 2\ndepth: log_uniform\nselect: diverse", "select random"),
        ("config: msa-tiny\nshares: [1]\nmax_steps: 2\ndepth: log_uniform\nstreaming: true", "with streaming"),
        ("config: msa-tiny\nshares: [1]\nobjective: sequence\nlabels: .", "requires the objective mlm"),
    ],
)
def test_a_bad_recipe_is_refused(text, message, tmp_path):
    text = text if "train_data" in text or text[:6] not in ("config", "model:") else f"train_data: [.]\n{text}"
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        parse_recipe(tmp_path / "bad.yaml")


def test_help():
    shown = CliRunner().invoke(app, ["train", "--help"])
    assert shown.exit_code == 0
    assert shown.output.strip() == help_text().strip()
    example = next(line for line in help_text().splitlines() if line.startswith("Example: msa train "))
    assert find_recipe(example.split()[3]).parent.parts[-2:] == ("configuration", "training")
    assert max(map(len, help_text().splitlines())) < 130
