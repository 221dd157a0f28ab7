"""The contract of recipes: values have their keys' types, the command line's replace the file's, and all problems are
listed at once, before anything is loaded.
"""

import pytest
import yaml
from typer.testing import CliRunner

from modeling_msa.cli import app
from modeling_msa.training.help import help_text
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.shipped import find_recipe


def test_values_are_of_their_keys_types_and_the_command_line_beats_the_file(recipe, tmp_path):
    path = recipe(max_steps=7)
    path.write_text(path.read_text() + "weight_decay: 1e-4\nbf16: no\nrandom_positions: yes\n")
    assert yaml.safe_load(path.read_text())["weight_decay"] == "1e-4"  # a word to YAML
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


def test_all_that_is_wrong_is_said_at_once(recipe):
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "key: value"),
        ("a: [", "not a YAML"),
        ("config: nonesuch\ntrain_data: [.]", "nonesuch"),
        ("config: msa-tiny\ntrain_data: [.]\nconfig_overrides: {hiden_size: 8}", "did you mean hidden_size"),
        ("config: msa-tiny\ntrain_data: [.]\nstreaming: true", "requires max_steps"),
        ("config: msa-tiny\ntrain_data: [.]\nlora_r: 4", "requires model"),
        ("config: msa-tiny\ntrain_data: [.]\nload_best_model_at_end: true", "eval"),
        ("config: msa-tiny\ntrain_data: [.]\nlabels: .", "has no labels"),
        ("config: msa-tiny\ntrain_data: [.]\naverage_checkpoints: -1", "at least 0, not -1"),
        ("config: msa-tiny\ntrain_data: [.]\naverage_checkpoints: 5", "is 5, but save_total_limit keeps 3"),
        ("config: msa-tiny\ntrain_data: [.]\naverage_checkpoints: 2\nsave_strategy: 'no'", "requires checkpoints"),
        (
            "config: msa-tiny\ntrain_data: [.]\naverage_checkpoints: 2\nload_best_model_at_end: true\n"
            "eval_fraction: 0.5\neval_strategy: steps",
            "either average_checkpoints or",
        ),
        ("model: msa-tiny\ntrain_data: [.]\naverage_checkpoints: 2\nlora_r: 4", "mean of adapters"),
        ("model: msa-tiny\ntrain_data: [.]\nmuon: true\nlora_r: 4", "muon and lora_r exclude"),
    ],
)
def test_a_bad_recipe_is_refused(text, message, tmp_path):
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
