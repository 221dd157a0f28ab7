"""Errors and warnings of the commands: a message for what the user can fix, a traceback for a bug."""

from __future__ import annotations

import errno
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from .._files import FULL_DISK
from ..alignments.alignment import shortened

_DISK = (*FULL_DISK, errno.EROFS)  # every further alignment would fail in the same way


def is_of_the_input(error: Exception) -> bool:
    """Whether another input, or a smaller one, would help; otherwise the error is a bug, or the disk is full."""
    if isinstance(error, OSError):
        return error.errno not in _DISK
    if isinstance(error, RuntimeError):  # torch runs out of memory with one of these two; any other is a bug
        return type(error).__name__ in ("RuntimeError", "OutOfMemoryError") and "memory" in str(error)
    return isinstance(error, ValueError | MemoryError)


@contextmanager
def errors_in_words() -> Iterator[None]:
    """Print an error that the user can fix as one message, with exit code 1; a traceback means a bug."""
    shown = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:  # loading torch makes Python forget what it has shown
            shown.add(str(message))
            typer.secho(f"warning: {shortened(str(message))}", err=True, fg="yellow")

    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | RuntimeError) and not is_of_the_input(error):
            raise
        words = re.sub(r"pass format='(\w+)'", r"pass --input-format \1", str(error))
        words = re.sub(r"on_error='(\w+)'", r"--on-error \1", words)
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            words = "the disk is full" + (f", so {error.filename} was not written." if error.filename else ".")
        typer.secho("error: " + "\n".join(map(shortened, words.split("\n"))), err=True, fg="red")
        raise typer.Exit(1) from None
