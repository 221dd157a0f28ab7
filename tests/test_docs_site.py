"""The docs site's contract: every block of its pages runs and prints what it says, and what a page shows is made.

Blocks that are not run say why (``% not run: ...`` above them). `make docs` builds the site, warnings being errors.
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
from documented import code_blocks
from made_up import SHARED, real_data
from typer.main import get_command

import modeling_msa
from modeling_msa.cli import app

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import figures  # noqa: E402

PAGES = figures.pages()
TEXTS = {page.stem: page.read_text(encoding="utf-8") for page in PAGES}
NOT_RUN = [(name, block) for name, text in TEXTS.items() for block in code_blocks(text) if block.not_run]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "made"
    figures.prepare(folder)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=TEXTS)
def test_page(page, folder):
    """The blocks run, in the order of the page, and leave every file that the page shows."""
    if page.stem == "searching":
        pytest.importorskip("pyhmmer")
    figures.run_page(page, folder)
    shown = re.findall(r"(?<!\S)made/(\S+\.\w+)", TEXTS[page.stem])
    assert [name for name in shown if not (folder / name).is_file()] == []


def test_what_is_not_run():
    """Only what needs a network, files that the package has not, other programs or processes; and old code."""
    reasons = {"network", "structure", "published checkpoint", "another program", "starts processes", "torchao"}
    others = {"fair-esm", "ProteinGym", "Iterative_masking", "DiffPALM"}
    assert {block.not_run for name, block in NOT_RUN if name != "coming-from"} == reasons
    assert {block.not_run for name, block in NOT_RUN if name == "coming-from"} == others
    languages = {block.language for text in TEXTS.values() for block in code_blocks(text)}
    assert languages == {"bash", "python"}


@real_data
def test_blocks_with_structures(tmp_path):
    """Where real structures are at hand, the blocks that need them run too."""
    names = ("1prw", "5trv", "6e6r", "6exz")
    for name in names:
        shutil.copy(SHARED / "msa" / f"{name}.a3m", tmp_path)
        shutil.copy(SHARED / "structure" / f"{name}.pdb", tmp_path)
    (tmp_path / "families.tsv").write_text("".join(f"{name}.a3m\t{name}.pdb\n" for name in names))
    lines = [line for _, block in NOT_RUN if block.not_run == "structure" for line in block.code.splitlines()]
    figures.run_lines(lines, tmp_path, "structure")
    assert (tmp_path / "6exz.png").is_file()
    assert len((tmp_path / "precision.tsv").read_text().splitlines()) == len(names) + 1
    assert (tmp_path / "msa-refitted" / "model.safetensors").is_file()


def test_code_is_no_wider_than_a_page():
    wide = [
        line
        for text in TEXTS.values()
        for block in code_blocks(text)
        for line in block.code.splitlines()
        if len(line) > 88
    ]
    assert wide == []


def test_reference_is_whole(tmp_path):
    """Every exported name stands once in the reference of Python, every command in that of commands."""
    figures.write_reference(tmp_path)
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    named = re.findall(r"^\.\. auto\w+:: modeling_msa\.(\w+)$", text, flags=re.MULTILINE)
    assert sorted(named) == sorted(modeling_msa.__all__)
    figures.write_commands(tmp_path / "commands.md")
    headings = re.findall(r"^## `msa (.*)`$", (tmp_path / "commands.md").read_text(), flags=re.MULTILINE)
    assert sorted(headings) == sorted(get_command(app).commands)
