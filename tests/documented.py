"""Code blocks of documentation in Markdown, found and run as they are printed."""

import contextlib
import io
import re
from typing import Any, NamedTuple

_BLOCK = re.compile(r"(?:^% not run: ([^\n]*)\n)?^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, its text, its line, and why it is not run (``% not run: ...`` above it)."""

    language: str
    code: str
    line: int
    not_run: str | None


def code_blocks(text: str) -> list[Block]:
    """All fenced blocks of a language, in order; MyST's directives (```{name}) are none."""
    return [
        Block(match[2], match[3], text.count("\n", 0, match.start(2)) + 1, match[1]) for match in _BLOCK.finditer(text)
    ]


def run_python(code: str, source: str, names: dict[str, Any] | None = None) -> str:
    """Run a block; give what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, source, "exec"), {} if names is None else names)
    return printed.getvalue()


def promised(code: str) -> list[str]:
    """What a block says that it prints: the comment in the line after a print; every print has one, or none has."""
    lines = re.findall(r"^print\(.*\n# (.*)$", code, flags=re.MULTILINE)
    assert len(lines) in (0, len(re.findall(r"^print\(", code, flags=re.MULTILINE))), code
    return lines
