"""Run the code of the pages, so that the site shows its results; `make docs` does this before sphinx-build.

Everything goes to docs/made, which git ignores: the files that the blocks of the pages write; what they print, as
PAGE-N.txt, where N is the number of the block on its page; and the reference pages. The model is msa-small and the
family the bundled one, so the pictures are always those of the present checkpoint.
"""

import contextlib
import csv
import importlib
import inspect
import itertools
import pkgutil
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

from typer.main import get_command

import modeling_msa
from modeling_msa import bundled_family, read_alignment, resolve_model, revert_checkpoint, write_alignment
from modeling_msa.cli import app

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))
from documented import Block, code_blocks, promised, run_lines, run_python  # noqa: E402

MADE = DOCS / "made"
LEFT_OUT = ("pip ", "make ", "git ", "source ", "python ")  # what a reader has done before, or need not do here
# pages of the Python reference, one per folder of the package; "" is its top
_FLOORS = {
    "Alignments": "alignments",
    "Models": "",
    "Tasks": "tasks",
    "Checkpoints and the Hub": "hub",
    "Training": "training",
}


def pages() -> list[Path]:
    """List the pages, first the one whose files others use."""
    return sorted(DOCS.glob("*.md"), key=lambda path: (path.stem != "index", path.stem))


def run_blocks(page: Path) -> list[tuple[int, Block]]:
    """List the blocks of a page that are run, numbered from 1."""
    blocks = [each for each in code_blocks(page.read_text(encoding="utf-8")) if each.language in ("bash", "python")]
    return list(enumerate((each for each in blocks if each.not_run is None), start=1))


def prepare(folder: Path) -> None:
    """Write what a reader of the pages has: families, and a checkpoint in fair-esm's files (msa-tiny's weights)."""
    folder.mkdir(parents=True, exist_ok=True)
    family = read_alignment(bundled_family()).drop_query_gaps()
    write_alignment(family, folder / "family.a3m")
    (folder / "families").mkdir()
    for name, rows in (("odd", range(0, 98, 2)), ("even", [0, *range(1, 98, 2)])):
        write_alignment(family.take(list(rows)), folder / "families" / f"{name}.a3m")
    revert_checkpoint(resolve_model("msa-tiny"), folder / "esm_msa1b_t12_100M_UR50S.pt")


def run_page(page: Path, folder: Path) -> None:
    """Run a page's blocks in `folder`, in order, Python ones with the names of those before; keep what they print.

    Raises
    ------
    AssertionError
        If a block fails, if it prints something other than the comments below its prints say, or if the page shows a
        file that no block has written.
    """
    names: dict[str, object] = {}
    for number, block in run_blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.language == "python":
            with contextlib.chdir(folder):
                printed = run_python(block.code, where, names)
            if expected := promised(block.code):
                assert printed.splitlines() == expected, f"{where}: prints\n{printed}"
        else:
            printed = run_lines(block.code.replace("\\\n", " ").splitlines(), folder, where, LEFT_OUT)
        (folder / f"{page.stem}-{number}.txt").write_text(printed, encoding="utf-8")
    for name in re.findall(r"made/(\S+)\.head\.tsv", page.read_text(encoding="utf-8")):
        write_head(folder / f"{name}.tsv")
    shown = re.findall(r"(?<!\S)made/(\S+\.\w+)", page.read_text(encoding="utf-8"))
    lacking = [name for name in shown if not (folder / name).is_file()]
    assert not lacking, f"{page.name} shows what none of its blocks made: {', '.join(lacking)}"


def write_head(table: Path, rows: int = 5, left_out: tuple[str, ...] = ("name", "nearest")) -> None:
    """Write a table's first rows, its numbers short and without some columns, for a page to show: NAME.head.tsv."""
    with open(table, encoding="utf-8", newline="") as file:
        lines = list(itertools.islice(csv.reader(file, delimiter="\t"), rows + 1))
    shown = [place for place, name in enumerate(lines[0]) if name not in left_out]
    lines = [[line[place] for place in shown] for line in lines]
    with open(table.with_suffix(".head.tsv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([re.sub(r"^(-?\d+\.\d\d)\d+$", r"\1", cell) for cell in line] for line in lines)


def write_commands(path: Path) -> None:
    """Write the page of all commands: their --help, by typer's own generator."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.executable,
        "-m",
        "typer",
        "modeling_msa.cli",
        "utils",
        "docs",
        "--name",
        "msa",
        "--title",
        "Commands",
    ]
    text = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    head, *commands = text.split("\n## ")
    contents, parts = [], []
    for part in commands:
        heading, _, body = part.partition("\n")
        name = heading.strip("`")
        short = get_command(app).commands[name.removeprefix("msa ")].short_help  # type: ignore[attr-defined]
        summary = short or body.strip().partition("\n\n")[0].replace("\n", " ")
        contents.append(f"- [`{name}`](#{name.replace(' ', '-')}): {summary}")
        if name == "msa train":  # its options are the recipe's keys
            body = f"\n{summary}\n\n```text\n{run_lines(['msa train --help'], DOCS, 'msa train', ()).rstrip()}\n```\n"
        else:
            body = re.sub(r"^Example: (.*)$", r"**Example**:\n\n```console\n$ \1\n```", body, flags=re.MULTILINE)
        parts.append(f"## {heading}\n{body}")
    start = head[: head.index("**Usage**")]
    options = head[head.index("**Options**") : head.index("**Commands**")]  # of msa itself, before the command
    path.write_text("\n".join([start, *contents, "", options, *parts]), encoding="utf-8")


def write_reference(folder: Path) -> None:
    """Write a page for each folder of the package: what the package exports, a section per module."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (title, floor) in enumerate(_FLOORS.items(), start=1):
        parts = [f"# {title}\n"]
        for module in _modules(floor):
            exported = (key for key in vars(module) if key in modeling_msa.__all__)
            names = [key for key in exported if getattr(module, key).__module__ == module.__name__]
            if names:
                parts += [f"## `{module.__name__}`\n\n{inspect.getdoc(module)}\n", *map(_directive, names)]
        (folder / f"{number:02}-{floor or 'models'}.md").write_text("\n".join(parts), encoding="utf-8")


def _modules(floor: str) -> list[ModuleType]:
    """Give the modules in a folder of the package, by name."""
    package = importlib.import_module(f"modeling_msa.{floor}".rstrip("."))
    names = [each.name for each in pkgutil.iter_modules(package.__path__) if not each.ispkg]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names if not name.startswith("_")]


def _directive(key: str) -> str:
    name, is_class = f"modeling_msa.{key}", inspect.isclass(getattr(modeling_msa, key))
    body = f".. autoclass:: {name}\n   :members:\n" if is_class else f".. autofunction:: {name}\n"
    return f"```{{eval-rst}}\n{body}```\n"


def main() -> None:
    """Rebuild docs/made."""
    shutil.rmtree(MADE, ignore_errors=True)
    prepare(MADE)
    for page in pages():
        start = time.perf_counter()
        run_page(page, MADE)
        print(f"{page.name}: {len(run_blocks(page))} blocks, {time.perf_counter() - start:.1f} s", flush=True)
    write_commands(MADE / "reference" / "commands.md")
    write_reference(MADE / "reference" / "python")


if __name__ == "__main__":
    main()
