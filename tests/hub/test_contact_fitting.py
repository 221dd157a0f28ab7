"""The contract of `fit_contacts` and `msa fit-contacts`: a complete folder that differs in its regression alone."""

import json

import pytest
import torch
import typer
from families import make_known
from safetensors.torch import load_file
from typer.testing import CliRunner

from modeling_msa import (
    MsaForMaskedLM,
    MsaForSequenceClassification,
    fit_contacts,
    list_families,
    read_alignment,
    select_rows,
)
from modeling_msa.cli.fit_contacts import fit_contacts_command

pytestmark = pytest.mark.usefixtures("one_thread")

REGRESSION = "msa.contact_head.regression"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A model, families f0 .. f7 and contact maps of them in maps/, listed in families.tsv."""
    return make_known(tmp_path_factory.mktemp("evaluation"))


def run(*arguments):
    app = typer.Typer()
    app.command()(fit_contacts_command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def tensors_of(folder):
    return load_file(folder / "model.safetensors")


def test_fit_command(places, tmp_path):
    """Nothing but the regression changes; the type stays; the folder is complete and names its source and licence."""
    source = tmp_path / "source"
    MsaForMaskedLM.from_pretrained(places / "model", dtype=torch.bfloat16).save_pretrained(source)
    (source / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# mine\n")
    arguments = (places / "families.tsv", "-o", tmp_path / "fitted", "--model", source, "--regularization", 1e4)
    result = run(*arguments, "--rows", 5)
    assert result.exit_code == 0, result.output
    assert "8 families" in result.output
    names = {path.name for path in (tmp_path / "fitted").iterdir()}
    code = {"configuration_msa_transformer.py", "modeling_msa_transformer.py", "tokenization_msa_transformer.py"}
    assert code | {"README.md", "config.json", "model.safetensors", "tokenizer_config.json"} <= names
    before, after = tensors_of(source), tensors_of(tmp_path / "fitted")
    assert before.keys() == after.keys()
    assert any(name.startswith("lm_head") for name in after)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {f"{REGRESSION}.weight", f"{REGRESSION}.bias"}
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    card = (tmp_path / "fitted" / "README.md").read_text()
    assert "license: cc-by-4.0" in card
    assert "# fitted\n" in card
    assert "those of source" in card
    assert "structures of 8 families, at most 5 rows" in card
    result = run(*arguments)
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fitted", "source"]


def test_fit_keeps_other_heads(places, tmp_path):
    model = MsaForSequenceClassification.from_pretrained(places / "model", num_labels=3)
    model.save_pretrained(tmp_path / "classifier")
    families = list_families(places / "families.tsv")
    fit_contacts(families, tmp_path / "classifier", tmp_path / "fitted", rows=5, regularization=1e4)
    before, after = tensors_of(tmp_path / "classifier"), tensors_of(tmp_path / "fitted")
    assert any(name.startswith("classifier") for name in after)
    assert {name for name in after if not torch.equal(before[name], after[name])} == {
        f"{REGRESSION}.weight",
        f"{REGRESSION}.bias",
    }
    config = json.loads((tmp_path / "fitted" / "config.json").read_text())
    assert config["architectures"] == ["MsaForSequenceClassification"]


def test_fit_leaves_nothing_behind(places, tmp_path):
    """Too strong a penalty; a contact map of another family."""
    families = list_families(places / "families.tsv")
    with pytest.raises(ValueError, match="No row map tells"):
        fit_contacts(families, places / "model", tmp_path / "new" / "fitted", regularization=1e-9)
    wrong = [families[0], (families[1].alignment, families[2].structure)]
    with pytest.raises(ValueError, match="but the query has"):
        fit_contacts(wrong, places / "model", tmp_path / "new" / "fitted")
    assert list(tmp_path.iterdir()) == []


def test_a_fit_on_selected_rows_uses_all_of_them(places, tmp_path):
    """The card says how many: 4 of a family of 5 rows or more, without the argument `rows`."""
    families = [
        (select_rows(read_alignment(family.alignment), 4), family.structure)
        for family in list_families(places / "families.tsv")
    ]
    fit_contacts(families, places / "model", tmp_path / "fitted", regularization=1e4)
    assert "at most 4 rows" in (tmp_path / "fitted" / "README.md").read_text()
