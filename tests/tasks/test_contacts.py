"""The contract of contact maps: pairs are residue numbers of the query, whatever the alignment looks like.

`msa contacts` and `convert_checkpoint.py` say what is wrong before the model runs, in words, and leave nothing.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from modeling_msa import Alignment, MsaConfig, MsaModel, bundled_family, read_alignment
from modeling_msa.cli import app
from modeling_msa.hub.loading import load_model
from modeling_msa.tasks.contacts import ContactMap, predict_contacts, write_contacts
from modeling_msa.tasks.plotting import plot_contacts

ROOT = Path(__file__).resolve().parents[2]
REAL = sorted((ROOT.parent / "shared" / "data" / "msa").glob("*.a[23]m"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    config = MsaConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    model = MsaModel(config).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    model.save_pretrained(folder)
    return folder


def run(*arguments):
    return CliRunner().invoke(app, ["contacts", *map(str, arguments)])


def test_pairs_are_query_residue_numbers(folder):
    """Residues 1 and 2 are insertions, column 2 is a gap of the query: neither is in the map."""
    family = Alignment.from_sequences(["mkVL-AWY", "VIGAWY", "-LGAFF"])
    contacts = predict_contacts(family, load_model(folder))
    assert contacts.query == "MKVLAWY"
    assert contacts.residues.tolist() == [3, 4, 5, 6, 7]
    assert contacts.probabilities.shape == (5, 5)
    # the model saw the other columns
    same = predict_contacts(Alignment.from_sequences(["VLAWY", "VIAWY", "-LAFF"]), load_model(folder))
    assert np.array_equal(same.probabilities, contacts.probabilities)


def test_table_by_hand(tmp_path):
    probabilities = np.zeros((8, 8), dtype=np.float32)
    probabilities[0, 6] = probabilities[6, 0] = 0.25
    probabilities[1, 7] = probabilities[7, 1] = 0.5
    probabilities[0, 1] = probabilities[1, 0] = 0.9  # too close in sequence
    contacts = ContactMap("q", "MKVLAWYC", np.array([1, 2, 3, 4, 5, 6, 7, 9]), probabilities, depth=1)
    write_contacts(contacts, tmp_path / "c.tsv")
    lines = (tmp_path / "c.tsv").read_text().splitlines()
    assert lines == ["i\tj\tprobability", "2\t9\t0.500000", "1\t7\t0.250000", "1\t9\t0.000000", "3\t9\t0.000000"]


def test_plot(tmp_path, folder):
    contacts = predict_contacts(read_alignment(bundled_family()), load_model(folder), rows=4)
    for name in ("map.png", "map.pdf", "map.svg"):
        plot_contacts(contacts, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(ValueError, match="no kind of picture"):
        plot_contacts(contacts, tmp_path / "map.docx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.pdf", "map.png", "map.svg"]


@pytest.mark.parametrize("path", [bundled_family(), *REAL], ids=lambda path: path.name)
def test_command_on_real_files(path, folder, tmp_path):
    result = run(path, "--model", folder, "-o", tmp_path / "c.tsv", "--rows", 4)
    assert result.exit_code == 0, result.output
    assert not are_progress_bars_disabled()  # downloads show theirs
    family = read_alignment(path)
    table = np.loadtxt(tmp_path / "c.tsv", skiprows=1)
    covered = np.flatnonzero(family.residue_columns >= 0) + 1
    assert set(table[:, :2].ravel()) == set(covered)
    assert (table[:, 1] - table[:, 0] >= 6).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.a3m"], "no such file"),
        (["FAMILY", "-o", "nowhere/c.tsv"], "no folder nowhere"),
        (["FAMILY", "--plot", "map.docx"], "no kind of picture"),
        (["FAMILY", "--device", "xyz"], "no device 'xyz'"),
        (["FAMILY", "--model", "BERT"], "'bert', not 'msa_transformer'"),
        (["FAMILY", "--model", "PARTIAL"], "lacks 26 tensors"),
        (["FAMILY", "--model", "CUT"], "damaged"),
        (["FAMILY", "--input-format", "fasta"], "--input-format a3m"),
    ],
)
def test_errors_in_words_before_work(arguments, words, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("family.a3m").write_text(">q\nMKVLA\n>r\nMKcVLA\n")
    Path("bert").mkdir()
    Path("bert/config.json").write_text('{"model_type": "bert"}')
    tensors = load_file(folder / "model.safetensors")
    partial = {name: tensor for name, tensor in tensors.items() if not name.startswith("layers.1.")}
    for name in ("partial", "cut"):
        Path(name).mkdir()
        Path(name, "config.json").write_text((folder / "config.json").read_text())
    save_file(partial, "partial/model.safetensors", metadata={"format": "pt"})
    Path("cut/model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    names = {"FAMILY": "family.a3m", "BERT": "bert", "PARTIAL": "partial", "CUT": "cut"}
    given = [names.get(argument, argument) for argument in arguments]
    defaults = {"--model": str(folder), "-o": "c.tsv"}
    result = run(*given, *[x for option, value in defaults.items() if option not in given for x in (option, value)])
    assert result.exit_code == 1
    assert words in result.output
    assert "Traceback" not in result.output
    assert not Path("c.tsv").exists()


def test_filters_reach_the_rows(folder, tmp_path):
    family = tmp_path / "family.a3m"
    family.write_text(">q\nMKVLAWYC\n>copy\nMKVLAWYC\n>short\nMK------\n>other\nMRILGFYC\n")
    options = ("--model", folder, "-o", tmp_path / "c.tsv")
    assert "4 of 4 rows" in run(family, *options).output
    assert "2 of 4 rows" in run(family, *options, "--filter-coverage", 75, "--filter-identity", 90).output


def test_convert_command_says_errors_in_words(tmp_path):
    command = [sys.executable, ROOT / "convert_checkpoint.py", "nowhere.pt", "out"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1
    assert "error: There is no file nowhere.pt" in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []
