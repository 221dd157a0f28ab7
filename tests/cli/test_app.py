"""The command as a whole: what it costs to start, its global options, its help, and choices that tasks share."""

import re
import subprocess
import sys
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from assays import make_benchmark
from families import make_folder, make_model
from made_up import SEED
from typer.main import get_command
from typer.testing import CliRunner

import modeling_msa
from modeling_msa import (
    MsaForTokenClassification,
    bundled_family,
    load_model,
    predict_contacts,
    read_alignment,
    write_alignment,
)
from modeling_msa.alignments.reading import SUFFIXES
from modeling_msa.alignments.sampling import select_rows
from modeling_msa.cli import app, session
from modeling_msa.hub import exporting
from modeling_msa.tasks import contact_files, distance_files, embedding_files, prediction_files
from modeling_msa.tasks.strategies import PROTOCOLS

pytestmark = pytest.mark.usefixtures("one_thread")
COMMANDS = get_command(app).commands
APP_COMMANDS = {each.name: each.callback for each in app.registered_commands}
HEAVY = ("torch", "transformers", "huggingface_hub", "matplotlib", "datasets", "pyhmmer", "scipy", "sklearn")


def msa(*arguments, code=0):
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], "evaluate-contacts"),
        (["contacts", "--help"], "msa contacts fn3"),
        (["train", "--help"], "--mlm_probability"),
        (["info", "fn3"], "1TEN_A, 80 residues"),
        (["contacts", "nowhere.a3m", "-o", "x.tsv"], "error: nowhere.a3m"),
        (["report", "nowhere.a3m", "-o", "x.html"], "error: nowhere.a3m"),
        (["score", "fn3", "nowhere.csv", "-o", "x.csv"], "error: nowhere.csv"),
        (["embed", "fn3", "-o", "x.npz", "--model", "nowhere"], "error: nowhere"),
        (["pair", "fn3", "nowhere.a3m", "-o", "x.a3m"], "error: nowhere.a3m"),
        (["predict", "nowhere", "fn3", "-o", "x.tsv"], "error: nowhere"),
        (["predict", "msa-tiny", "nowhere.a3m", "-o", "x.tsv"], "error: nowhere.a3m"),
        (["proteingym", "nowhere.csv", "--msas", ".", "--assays", ".", "-o", "x"], "error: nowhere.csv"),
    ],
)
def test_help_and_mistyped_paths_do_without_torch(arguments, words, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "modeling_msa.cli", *arguments]
    root = str(bundled_family().parents[2])
    result = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": root, "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert words in result.stdout + result.stderr
    imported = set(re.findall(r"\| +(\w+)$", result.stderr, re.M))
    assert {"typer", "numpy"} <= imported
    assert not imported.intersection(HEAVY)


def test_only_the_command_does_not_register_the_auto_classes(monkeypatch):
    def is_command(*arguments, interpreter=("python",)):
        monkeypatch.setattr(sys, "argv", list(arguments))
        monkeypatch.setattr(sys, "orig_argv", [*interpreter, *arguments[1:]])
        return modeling_msa._is_command()

    assert is_command("/usr/bin/msa", "contacts")
    assert is_command("C:\\Scripts\\msa.exe".replace("\\", "/"), "contacts")
    module = ("python", "-u", "-X", "importtime", "-m", "modeling_msa.cli")
    assert is_command("-m", "contacts", "fn3", interpreter=module)
    assert is_command("-m", interpreter=module)
    assert not is_command("-m", "modeling_msa.cli", interpreter=("python", "-m", "other"))
    assert not is_command("-c", interpreter=("python", "-c", "import modeling_msa"))
    assert not is_command("convert_checkpoint.py", "x")
    assert not is_command("")


def test_version():
    assert msa("--version") == f"modeling-msa {modeling_msa.__version__}\n"


def test_threads_are_torchs_and_the_environments(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    seen = []
    monkeypatch.setattr(
        session.Session, "load", lambda *_: (session.start_torch(), seen.append(torch.get_num_threads()))
    )
    arguments = ["contacts", str(make_folder(tmp_path / "in", 1) and tmp_path / "in"), "-o", str(tmp_path / "out")]
    try:
        CliRunner().invoke(app, ["--threads", "2", *arguments])
        assert seen == [2]
        assert session.os.environ["OMP_NUM_THREADS"] == "2"
        assert "Invalid value" in msa("--threads", 0, "contacts", code=2)
    finally:
        session.TORCH.threads = None
        session.limit_threads(1)
        torch.set_num_threads(1)


def test_matmul_precision_is_pytorchs_and_a_setting_of_the_results(tmp_path, monkeypatch):
    make_folder(tmp_path / "families", count=2)
    arguments = ("contacts", tmp_path / "families", "-o", tmp_path / "maps", "--rows", 4)
    seen, load = [], session.Session.load

    def watched(self, cls):
        loaded = load(self, cls)
        seen.append(torch.get_float32_matmul_precision())
        return loaded

    monkeypatch.setattr(session.Session, "load", watched)
    try:
        msa("--matmul-precision", "medium", *arguments)
        assert "matmul_precision was medium, is now none" in msa(*arguments)
        assert seen == ["medium", "highest"]
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory):
    """What the examples of the help texts name."""
    folder = tmp_path_factory.mktemp("examples")
    rows = read_alignment(bundled_family())
    family = rows.drop_query_gaps().take(range(16))
    write_alignment(family, folder / "family.a3m")
    make_folder(folder / "families", count=3)
    (folder / "runs").mkdir()
    make_model(folder / "runs" / "secondary-structure", MsaForTokenClassification, max_position_embeddings=128)
    make_benchmark(folder)
    (folder / "reference.csv").rename(folder / "DMS_substitutions.csv")
    changes = [f"{old}{k}{new}" for k, old in enumerate(family.query[:30], start=1) for new in "AW" if old != new]
    lines = [f"{name},{k % 7}\n" for k, name in enumerate(changes)]
    (folder / "measured.csv").write_text("mutant,fitness\n" + "".join(lines))
    seed = read_alignment(SEED).drop_query_gaps().take(range(16))  # its names have species
    write_alignment(seed, folder / "A.a3m")
    write_alignment(seed.take([0, *range(15, 0, -1)]), folder / "B.a3m")
    (folder / "query.fasta").write_text(f">LAR\n{family.query}\n")
    probable = predict_contacts(family, load_model())  # contacts that some weight of the regression explains
    known = np.zeros(probable.probabilities.shape, dtype=np.int8)
    known[tuple(probable.top(len(known)).T)] = 1
    np.save(folder / "family.npy", known | known.T)
    (folder / "families.tsv").write_text("family.a3m\tfamily.npy\n")
    (folder / "database.fasta").write_text("".join(f">{name}\n{row.replace('-', '')}\n" for name, row in rows))
    return folder


def examples():
    """Each command's example, except for those that require the network or take minutes."""
    found = {name: re.findall(r"^\s*Example: msa (.*)$", each.help or "", re.M) for name, each in COMMANDS.items()}
    assert not [name for name, lines in found.items() if name != "train" and not lines]
    left_out = ("train", "convert", "push", "export")
    return [(name, line) for name, lines in found.items() for line in lines if name not in left_out]


@pytest.mark.parametrize(("name", "line"), examples())
def test_examples_of_the_help_texts_work(name, line, example_folder, monkeypatch):
    monkeypatch.chdir(example_folder)
    extra = ["--rows", "8"] if name in ("score", "generate") else ["--model", "msa-tiny"] if name == "jacobian" else []
    msa(*line.split(), *extra)


def test_help_texts_are_sentences():
    for name, each in COMMANDS.items():
        for parameter in each.params:
            text = getattr(parameter, "help", None) or "."
            assert text.endswith("."), (name, parameter.name, text)


def choices(command, option):
    """Choices of an option whose type is a Literal, or one of these and None."""
    annotation = get_type_hints(APP_COMMANDS[command])[option]
    return list(get_args(next(iter(each for each in get_args(annotation) if get_args(each)), annotation)))


def test_choices_are_those_of_the_tasks():
    formats = {"contacts": contact_files, "distances": distance_files, "embed": embedding_files}
    formats["predict"] = prediction_files
    for name, module in formats.items():
        assert [f".{each}" for each in choices(name, "format")] == list(module.FORMATS)
    assert set(choices("contacts", "input_format")) == set(SUFFIXES.values())
    assert choices("export", "task") == list(exporting.TASKS)
    assert choices("score", "protocol") == list(PROTOCOLS)
    family = read_alignment(bundled_family())
    for name in choices("contacts", "select"):
        assert len(select_rows(family, 3, name)) == 3
