"""Folders saved when the code files were configuration_msa.py, modeling_msa.py and so on load as before.

``data/old_names.zip`` is one: a masked language model of 2 layers and width 8 with its tokenizer. Without the package
its own code runs; with it the installed code does, and saving leaves the new names. The reason for these: Python that
runs in a saved folder finds no module there that has the package's name.
"""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from fresh import run_fresh
from transformers import AutoModelForMaskedLM, AutoTokenizer

from modeling_msa import MsaForMaskedLM, MsaTokenizer, load_model
from modeling_msa.hub.pushing import plan_upload
from modeling_msa.sharing_msa_transformer import CODE_FILES, OLD_CODE_FILES

ROWS = ["MKV", "-KV"]
# what the code that saved it gave for these rows: logits of the query's M for the tokens 4 to 7, and contacts of M
LOGITS = [0.4704321026802063, 0.19857749342918396, -0.9587534666061401, 0.6471660733222961]
CONTACTS = [0.5544538497924805, 0.55442214012146, 0.5546171069145203]
CHILD = """
import json
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
inputs = tokenizer(["MKV", "-KV"], return_tensors="pt")
model = AutoModelForMaskedLM.from_pretrained(sys.argv[1], trust_remote_code=True)
backbone = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
print(json.dumps([model(**inputs).logits[0, 0, 1, 4:8].tolist(), backbone.predict_contacts(**inputs)[0, 0].tolist()]))
print(type(model).__module__, type(tokenizer).__module__)
"""


@pytest.fixture
def old(tmp_path):
    with zipfile.ZipFile(Path(__file__).parents[1] / "data" / "old_names.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "old_names"


def maps(folder):
    return [json.loads((folder / name).read_text())["auto_map"] for name in ("config.json", "tokenizer_config.json")]


def test_loads_without_the_package(old, tmp_path):
    process = run_fresh(CHILD, tmp_path, old)
    assert process.returncode == 0, process.stderr
    figures, modules = process.stdout.splitlines()
    logits, contacts = json.loads(figures)
    assert logits == pytest.approx(LOGITS, abs=1e-5)
    assert contacts == pytest.approx(CONTACTS, abs=1e-5)
    for module, name in zip(modules.split(), ("modeling_msa", "tokenization_msa"), strict=True):
        assert module.startswith("transformers_modules.")
        assert module.endswith(f".{name}")


def test_loads_with_the_package(old):
    tokenizer = AutoTokenizer.from_pretrained(old)
    assert type(tokenizer) is MsaTokenizer
    inputs = tokenizer(ROWS, return_tensors="pt")
    for model in (AutoModelForMaskedLM.from_pretrained(old), load_model(old, cls=MsaForMaskedLM)):
        assert type(model) is MsaForMaskedLM
        with torch.no_grad():
            assert model(**inputs).logits[0, 0, 1, 4:8].tolist() == pytest.approx(LOGITS, abs=1e-5)
        assert model.predict_contacts(**inputs)[0, 0].tolist() == pytest.approx(CONTACTS, abs=1e-5)


def test_saving_again_leaves_the_new_names(old, tmp_path):
    model, tokenizer = MsaForMaskedLM.from_pretrained(old), MsaTokenizer.from_pretrained(old)
    (old / "modeling_own.py").write_text("")
    for folder in (tmp_path / "new", old):
        model.save_pretrained(folder)
        # the old tokenizer's code is still named, and stays
        assert all((folder / name).is_file() for name in OLD_CODE_FILES) == (folder == old)
        tokenizer.save_pretrained(folder)
        assert {path.name for path in folder.glob("*.py")} - {"modeling_own.py"} == set(CODE_FILES)
        of_config, of_tokenizer = maps(folder)
        assert of_config["AutoModelForMaskedLM"] == "modeling_msa_transformer.MsaForMaskedLM"
        assert of_tokenizer == {"AutoTokenizer": ["tokenization_msa_transformer.MsaTokenizer", None]}
    assert (old / "modeling_own.py").is_file()


def test_is_pushed_as_it_is(old):
    (old / "README.md").write_text("---\nlicense: mit\n---\n# Ours\n")
    assert set(OLD_CODE_FILES) < set(plan_upload(old, "me/thing").files)
    (old / "sharing_msa.py").unlink()
    with pytest.raises(ValueError, match=r"sharing_msa.py is missing"):
        plan_upload(old, "me/thing")


def test_python_in_a_saved_folder_imports_the_package(old):
    """In a folder with the old names it was the file beside it; where the package is not installed, nothing."""
    MsaForMaskedLM.from_pretrained(old).save_pretrained(old.parent / "new")
    code = "sys.path.insert(0, ''); import modeling_msa; print(modeling_msa.MsaConfig.__module__)"
    packaged = run_fresh(code, old.parent / "new", packaged=True)
    assert packaged.stdout.strip() == "modeling_msa.configuration_msa_transformer", packaged.stderr
    assert not (old.parent / "new" / "modeling_msa.py").exists()
