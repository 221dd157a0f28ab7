"""The documentation's contract: every code block of README.md runs as printed and prints what it says.

Blocks run in an empty folder, as in the clone. The published checkpoint, which they download, is there as if it had
been downloaded before: msa-tiny's weights in fair-esm's files.
"""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
from documented import code_blocks, promised, run_lines, run_python
from typer.main import get_command

from modeling_msa import convert_checkpoint, resolve_model, revert_checkpoint
from modeling_msa.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [(block.language, block.code) for block in code_blocks(README)]
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "bash"]
# make runs this test, or is run by .ci/run; what pip installs is there, in the environment that is active
LEFT_OUT = ("make ", "pip ", "source ")
PUBLISHED = "esm_msa1b_t12_100M_UR50S"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working folder of a reader of the README, after the shell blocks."""
    folder = tmp_path_factory.mktemp("readme")
    torch_home = tmp_path_factory.mktemp("torch")
    downloads = torch_home / "hub" / "checkpoints"  # where fair-esm puts them
    downloads.mkdir(parents=True)
    revert_checkpoint(resolve_model("msa-tiny"), downloads / f"{PUBLISHED}.pt")
    shutil.copy(ROOT / "convert_checkpoint.py", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(torch_home))
        for block in SHELL:
            run_lines(block.splitlines(), folder, "README.md", LEFT_OUT)
    return folder


def test_all_blocks_are_of_a_kind_that_is_checked():
    assert {language for language, _ in BLOCKS} == {"python", "bash", "text", "bibtex"}
    assert len(PYTHON) >= 4
    targets = re.findall(r"^make (\w+)", "".join(SHELL), flags=re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)
    # after make demo, its environment has what the commands require: pictures, structures, fits
    extras = re.search(r"^demo: (.*)$", makefile, flags=re.MULTILINE)[1].split()
    assert extras == [f"$(VENV)/.{extra}" for extra in ("plot", "structure", "train")]
    assert 'pip install ".[plot,structure,train]"' in README


def test_shell_blocks(folder):
    table = (folder / "contacts.tsv").read_text().splitlines()
    assert table[0] == "i\tj\tprobability"
    values = [float(line.split("\t")[2]) for line in table[1:]]
    assert len(values) == sum(range(1, 80 - 5))  # pairs of 80 residues, at least 6 apart
    assert values == sorted(values, reverse=True)
    assert (folder / "contacts.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "msa1b" / "model.safetensors").is_file()
    assert (folder / "fair-esm-files" / "msa1b-converted.pt").is_file()
    trained = {path.name for path in (folder / "fn3-model").iterdir()}
    assert {"model.safetensors", "modeling_msa_transformer.py", "recipe.yaml"} <= trained


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_block(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    printed = run_python(code, "README.md").splitlines()
    # what a print prints stands in the next line, as a comment
    expected = promised(code)
    assert len(expected) == len(re.findall(r"^print\(", code, flags=re.MULTILINE))
    assert printed == expected


def test_what_the_demo_prints(tmp_path):
    """The text block shows the demo's lines, but for paths."""
    shown = next(code for language, code in BLOCKS if language == "text")
    names = [line.split()[0] for line in shown.splitlines()]
    assert names == 2 * ["written", "model", "contacts", "read"] + [
        "loaded",
        "family",
        *3 * ["written"],
        *3 * ["next"],
    ]
    written = revert_checkpoint(resolve_model("msa-small"), tmp_path / "msa-small.pt")
    converted = convert_checkpoint(tmp_path / "msa-small.pt", tmp_path / "model")
    for report in (written, converted):
        assert re.search(r"^read back .*$", str(report), flags=re.MULTILINE)[0] in shown


def test_what_the_demo_says_to_try_next():
    """The README shows the demo's commands, and each is one that msa accepts."""
    commands = runpy.run_path(str(ROOT / "examples" / "demo.py"))["NEXT"]
    assert re.findall(r"^next       \.venv/bin/msa (.*)$", README, flags=re.MULTILINE) == list(commands)
    for line in commands:
        name, *words = shlex.split(line)
        get_command(app).commands[name].make_context(name, words)  # raises UsageError
