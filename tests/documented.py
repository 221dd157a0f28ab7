"""Code blocks of documentation in Markdown: find them and run them as they are printed."""

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from typer.testing import CliRunner

from modeling_msa.cli import app

_BLOCK = re.compile(r"(?:^% not run: ([^\n]*)\n)?^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, its text, its line, and why it is not run (``% not run: ...`` above it)."""

    language: str
    code: str
    line: int
    not_run: str | None


def code_blocks(text: str) -> list[Block]:
    """List all fenced blocks that name a language, in order; MyST's directives (```{name}) are not among them."""
    return [
        Block(match[2], match[3], text.count("\n", 0, match.start(2)) + 1, match[1]) for match in _BLOCK.finditer(text)
    ]


def run_python(code: str, source: str, names: dict[str, Any] | None = None) -> str:
    """Run a block; give what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, source, "exec"), {} if names is None else names)
    return printed.getvalue()


def run_lines(lines: list[str], folder: Path, where: str, left_out: tuple[str, ...]) -> str:
    """Run lines of shell in `folder`, but those that begin with a word of `left_out`; give what they print.

    msa and Python programs run in this process: importing torch takes seconds.
    """
    printed = []
    for line in lines:
        if line.startswith(left_out):
            continue
        if line.startswith("msa "):
            with contextlib.chdir(folder):
                result = CliRunner().invoke(app, shlex.split(line)[1:], prog_name="msa")
            assert result.exit_code == 0, f"{where}: {line}\n{result.output}\n{result.exception!r}"
            printed.append(result.stdout)
        elif line.startswith("python "):
            printed.append(run_program(shlex.split(line)[1:], folder, f"{where}: {line}"))
        else:
            run = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True)
            assert run.returncode == 0, f"{where}: {line}\n{run.stderr}"
            printed.append(run.stdout)
    return "".join(printed)


def run_program(arguments: list[str], folder: Path, where: str) -> str:
    """Run a Python file with its arguments in `folder`; give what it prints."""
    printed, status = io.StringIO(), None
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed), mock.patch.object(sys, "argv", arguments):
        try:
            runpy.run_path(arguments[0], run_name="__main__")
        except SystemExit as end:
            status = end.code
    assert not status, f"{where}\n{status}"
    return printed.getvalue()


def promised(code: str) -> list[str]:
    """List what a block says that it prints, the comments in the lines after prints; all prints have one, or none."""
    lines = re.findall(r"^print\(.*\n# (.*)$", code, flags=re.MULTILINE)
    assert len(lines) in (0, len(re.findall(r"^print\(", code, flags=re.MULTILINE))), code
    return lines
