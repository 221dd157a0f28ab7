"""The package's face: its public names, what importing it registers, and the floors below.

Names are never dropped: code written for an earlier version imports what it imported then.
"""

import ast
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from fresh import run_fresh

import modeling_msa

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "modeling_msa"
# The public names of the last version with flat modules.
NAMES = """
Alignment AlignmentError ContactEvaluation ContactFit ContactMap ConversionError DistanceModel Distances Embeddings
Generated KnownFamily MsaConfig MsaContactPredictionPipeline MsaDataCollator MsaDataCollatorForContactPrediction
MsaDataCollatorForMaskedLM MsaDataCollatorForSequenceClassification MsaDataCollatorForTokenClassification
MsaDataset MsaFeatureExtractionPipeline MsaFillMaskPipeline MsaForContactPrediction MsaForMaskedLM
MsaForSequenceClassification MsaForTokenClassification MsaModel MsaPreTrainedModel MsaTokenizer SizeGroupedSampler
SubstitutionScores VariantDataset VariantScores bundled_family complete_folder convert_checkpoint embed
evaluate_contacts export_onnx export_program filter_rows fit_contact_regression fit_contacts fit_distances generate
list_families load_alignments load_model neff plot_contacts plot_distances plot_substitutions precision precisions
predict_contacts predict_distances prepare_alignment push_folder read_alignment read_labels revert_checkpoint
row_log_likelihoods score_all_singles score_variants search_homologues select_rows sequence_weights spearman
split_rows structure_contacts write_alignment write_contacts write_distances write_embeddings write_evaluation
write_generated write_scores
"""
EARLIER = NAMES.split()

REGISTERED = """
import modeling_msa
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer, pipelines
sizes = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
config = AutoConfig.for_model("msa_transformer", **sizes)
assert type(config) is modeling_msa.MsaConfig
assert type(AutoModel.from_config(config)) is modeling_msa.MsaModel
assert type(AutoModelForMaskedLM.from_config(config)) is modeling_msa.MsaForMaskedLM
config.save_pretrained("model")
assert type(AutoTokenizer.from_pretrained("model")) is modeling_msa.MsaTokenizer
assert "msa-contact-prediction" in pipelines.PIPELINE_REGISTRY.get_supported_tasks()

import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("datasets", "gemmi", "matplotlib", "peft", "pyarrow", "pyhmmer", "sklearn"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Blocker())
from modeling_msa import *  # no public name requires an extra before it is called
try:
    load_alignments(".")
except ImportError as error:
    assert "pip install 'modeling-msa[train]'" in str(error)
else:
    raise AssertionError
"""


def test_earlier_names_can_be_imported():
    assert len(EARLIER) == len(set(EARLIER)) == 76
    for name in EARLIER:
        assert getattr(modeling_msa, name) is not None
    assert set(EARLIER) <= set(modeling_msa.__all__)


def test_public_names_are_those_of_the_stub():
    """`__init__.pyi` is what type checkers read and what `__init__.py` imports from, name by name."""
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    found = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname: f"{node.module}.{alias.name}" for alias in node.names}
    assert sorted(found) == sorted(name for name in modeling_msa.__all__ if name != "__version__")
    assert set(found) <= set(dir(modeling_msa))
    for name, origin in found.items():
        assert origin.endswith(f".{name}")
        value = getattr(modeling_msa, name)
        assert value.__module__ == f"modeling_msa.{origin.removesuffix(f'.{name}')}", f"{name} is made elsewhere"


def test_importing_registers_the_auto_classes(tmp_path):
    done = run_fresh(REGISTERED, tmp_path, packaged=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(find_spec("importlinter") is None, reason="import-linter, of the extra dev, is not installed")
def test_an_import_that_climbs_is_found(tmp_path):
    """What `make lint` runs passes on the package as it is, and fails once a task imports from the commands."""
    ignored = shutil.ignore_patterns("__pycache__", "checkpoints", "families")
    shutil.copytree(PACKAGE, tmp_path / "modeling_msa", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", "pyproject.toml"]

    def lint():
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    as_it_is = lint()
    assert as_it_is.returncode == 0, as_it_is.stdout
    with open(tmp_path / "modeling_msa" / "tasks" / "contacts.py", "a") as file:
        file.write("\nfrom ..cli import runs\n")
    climbing = lint()
    assert climbing.returncode == 1
    assert "modeling_msa.tasks.contacts -> modeling_msa.cli" in climbing.stdout
