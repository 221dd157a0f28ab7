"""The docs site's contract: every block of its pages runs and prints what it says, and what a page shows is made.

`make docs`, which CI runs, runs the pages and builds the site; these tests hold that it fails where a page is broken.
Blocks that are not run say why (``% not run: ...`` above them).
"""

import re
import shutil
import sys
from pathlib import Path

import pytest
from documented import code_blocks, run_lines
from made_up import SHARED, real_data
from straight_chains import cut_calmodulin
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


def write_page(folder, text):
    page = folder / "page.md"
    page.write_text(text)
    return page


BROKEN = {
    "a print that differs": "```python\nprint(1 + 1)\n# 3\n```\n",
    "Python that fails": "```python\nassert False\n```\n",
    "a command that fails": "```bash\nmsa contacts missing.a3m -o contacts.tsv\n```\n",
    "a shell line that fails": "```bash\nhead missing.tsv\n```\n",
    "a file that nothing makes": ":::{image} made/contacts.png\n:::\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_page_ends_the_build(text, tmp_path):
    with pytest.raises(AssertionError):
        figures.run_page(write_page(tmp_path, text), tmp_path)


def test_a_page_runs_from_top_to_bottom(tmp_path):
    """Python keeps its names, shell lines join at a backslash, and a page finds what its blocks print and write."""
    text = (
        "```python\nopen('made.txt', 'w').write('x')\nnumber = 2\n```\n"
        "```python\nprint(number)\n# 2\n```\n"
        "```bash\npip install nothing\necho one \\\n    two\n```\n"
        "% not run: network\n```bash\nfalse\n```\n"
        ":::{literalinclude} made/page-3.txt\n:::\n:::{image} made/made.txt\n:::\n"
    )
    figures.run_page(write_page(tmp_path, text), tmp_path)
    assert [(tmp_path / f"page-{number}.txt").read_text() for number in (1, 2, 3)] == ["", "2\n", "one two\n"]
    assert not (tmp_path / "page-4.txt").exists()


@pytest.mark.parametrize("page", PAGES, ids=TEXTS)
def test_what_a_page_shows_is_of_the_block_above(page):
    places = [block.line for _, block in figures.run_blocks(page)]
    for line, text in enumerate(TEXTS[page.stem].splitlines(), start=1):
        if shown := re.search(rf"made/{page.stem}-(\d+)\.txt", text):
            assert int(shown[1]) == sum(place < line for place in places), f"{page.name}, line {line}"


def test_what_is_not_run():
    """Only what needs a network, files that the package has not, other programs or processes; and old code."""
    reasons = {"network", "structure", "a long alignment", "published checkpoint", "another program", "torchao"}
    reasons |= {"starts processes"}
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
    (tmp_path / "AB.a3m").write_text("#77,70\t1,1\n" + (tmp_path / "1prw.a3m").read_text())
    cut_calmodulin(tmp_path / "1prw.pdb", tmp_path / "AB.cif")
    lines = [line for _, block in NOT_RUN if block.not_run == "structure" for line in block.code.splitlines()]
    run_lines(lines, tmp_path, "structure", figures.LEFT_OUT)
    assert (tmp_path / "6exz.png").is_file()
    assert "distance msa_wrong" in (tmp_path / "6exz.pml").read_text()
    assert (tmp_path / "AB.png").is_file()
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
