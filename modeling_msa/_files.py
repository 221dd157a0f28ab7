"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary sibling of `path` to write, with the same ending; it takes its place, or goes on an error."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_ending(path: str | os.PathLike[str], endings: Sequence[str]) -> str:
    """Return the ending of an output, in lower case; ValueError, which names them all, if it is not in `endings`."""
    suffix = Path(path).suffix.lower()
    if suffix not in endings:
        *some, last = endings
        raise ValueError(f"{path}: unknown output format {suffix!r}; use {', '.join(some)} or {last}.")
    return suffix


def require_new_folder(path: str | os.PathLike[str], error: type[Exception] = ValueError) -> None:
    """Raise `error` if a folder cannot be made at `path`: there is a file, or a folder that is not empty or in use."""
    path = Path(path)
    if path.is_file():
        raise error(f"{path} is a file: name a folder that does not exist yet.")
    if path.is_dir() and any(path.iterdir()):
        raise error(f"{path} is not empty: name a folder that does not exist yet, or empty this one.")
    if path.exists() and (path.is_mount() or path.samefile(Path.cwd())):
        raise error(f"{path} is in use as a folder: name one inside it that does not exist yet.")


@contextmanager
def temporary_sibling(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a hidden temporary folder beside `path`; it goes away at the end, as do parents made in vain."""
    parent = Path(path).absolute().parent
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{Path(path).name}-", dir=parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # not empty: then it was not in vain
            for folder in made:
                folder.rmdir()


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder to fill, which takes the place of `path` at the end, or goes away on an error."""
    with temporary_sibling(path) as parent:
        temporary = parent / "folder"
        temporary.mkdir()
        yield temporary
        for file in temporary.iterdir():  # safetensors keeps its files to their owner
            shutil.copymode(temporary / "config.json", file)
        os.replace(temporary, path)


def check_output(output: str | os.PathLike[str], read: Iterable[str | os.PathLike[str] | None] = ()) -> None:
    """Raise ValueError if there is no folder for a file that is to be made, or it would replace one that is read."""
    if not Path(output).absolute().parent.is_dir():
        raise ValueError(f"{output} cannot be written: there is no folder {Path(output).parent}.")
    real = Path(output).resolve()
    if not os.access(Path(output).absolute().parent, os.W_OK):
        raise ValueError(f"{output} cannot be written: nothing may be written in {Path(output).absolute().parent}.")
    if any(path is not None and Path(path).resolve() == real for path in read):
        raise ValueError(f"{output} is read, and would be replaced: name another place with -o.")
