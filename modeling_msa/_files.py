"""Files and folders that appear whole or not at all, and names of those that come with the package."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import lzma
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open}


def require_file(path: str | os.PathLike[str]) -> None:
    """Raise ValueError for what would never end or wait for ever: a pipe or a device that lies in a folder.

    Pipes that a shell makes (``/dev/stdin``, ``/dev/fd/63``) pass.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir() and path.absolute().parts[:2] != ("/", "dev"):
        raise ValueError(f"{path}: is not a regular file, but a pipe or a device; remove it, or leave it out.")


def read_plain(raw: IO[bytes], limit: int) -> bytes | None:
    """Read a file, decompressed if it was compressed by gzip or xz; None if it is longer than `limit` bytes.

    Raises
    ------
    EOFError, OSError, zlib.error, lzma.LZMAError
        If the compressed file is cut off or damaged.
    """
    buffered: Any = raw if hasattr(raw, "peek") else io.BufferedReader(raw)  # type: ignore[type-var]
    beginning = buffered.peek(6)
    opener = next((each for magic, each in _OPENERS.items() if beginning.startswith(magic)), None)
    data = (opener(buffered) if opener else buffered).read(limit + 1)
    return data if len(data) <= limit else None


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    require_file(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary sibling of `path` with the same ending; it replaces `path`, or is removed on an error.

    It has the mode of any new file, also where a library keeps its files to their owner, as safetensors does. A full
    disk is an OSError that names `path`, whatever a library makes of it.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        os.replace(temporary, path)
    except Exception as error:
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, "The disk is full, so this file was not written", os.fspath(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def stands_for(name: str | os.PathLike[str], shipped: Path, what: str) -> bool:
    """Whether a name stands for `shipped`, a file or folder that comes with the package.

    A plain name does, also where a file or folder of the user's is called so, with a warning; a path such as
    ``./fn3`` never does, and a `Path` only if it does not exist.
    """
    if os.path.basename(name) != os.fspath(name) or not shipped.exists():
        return False
    hidden = os.path.lexists(name)
    if hidden and isinstance(name, str):
        here = "folder" if os.path.isdir(name) else "file"
        words = f"{name} is the {what} that comes with the package; pass ./{name} for the {here} of this name"
        warnings.warn(words, stacklevel=2)
    return isinstance(name, str) or not hidden


def write_table(header: Iterable[str], rows: Iterable[Iterable[str]], path: str | os.PathLike[str]) -> None:
    """Write a tab-separated table, whole or not at all; a cell that begins with a double quote is quoted."""
    lines = ["\t".join(map(_quoted, row)) + "\n" for row in [header, *rows]]
    with whole_file(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _quoted(cell: str) -> str:
    doubled = cell.replace('"', '""')
    return f'"{doubled}"' if cell.startswith('"') else cell


def check_ending(path: str | os.PathLike[str], endings: Sequence[str]) -> str:
    """Return the ending of an output, in lower case; ValueError, which names them all, if it is not in `endings`."""
    suffix = Path(path).suffix.lower()
    if suffix not in endings:
        *some, last = endings
        known = f"{', '.join(some)} or {last}" if some else last
        raise ValueError(f"{path}: unknown output format {suffix!r}; use {known}.")
    return suffix


def require_new_folder(path: str | os.PathLike[str], error: type[Exception] = ValueError) -> None:
    """Raise `error` if `path` cannot become a new folder: it is a file, or a folder that is not empty or is in use."""
    path = Path(path)
    if path.is_file():
        raise error(f"{path} is a file: pass a folder that does not exist yet.")
    if path.is_dir() and any(path.iterdir()):
        raise error(f"{path} is not empty: pass a folder that does not exist yet, or empty this one.")
    if path.exists() and (path.is_mount() or path.samefile(Path.cwd())):
        raise error(f"{path} is in use: pass a folder inside it that does not exist yet.")


_LOCK = "lock"


@contextmanager
def temporary_sibling(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a hidden temporary folder beside `path`; at the end it is removed, with parents that were made in vain.

    One that a killed process has left for the same path is removed first: nobody holds its lock. A full disk is an
    OSError that says so, whatever library was writing.
    """
    from filelock import FileLock, Timeout  # takes 50 ms to import

    parent = Path(path).absolute().parent
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{Path(path).name}-"
    for left in parent.glob(f"{escape(prefix)}*/{_LOCK}"):
        with suppress(Timeout, OSError), FileLock(left, timeout=0):
            shutil.rmtree(left.parent, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with FileLock(temporary / _LOCK):
            yield temporary
    except Exception as error:
        if not is_disk_full(error):
            raise
        full = OSError(f"{path} cannot be written: the disk is full. Free some space, or choose another place.")
        full.errno = errno.ENOSPC
        raise full from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # not empty: not in vain
            for folder in made:
                folder.rmdir()


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of writing means a full disk, or an exhausted quota: Python's, safetensors' or PyTorch's."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL_DISK
    # the writer of torch.save only notices that its file is too short
    signs = ("No space left on device", "Disk quota exceeded", "unexpected pos", "PytorchStreamWriter failed")
    return any(words in str(error) for words in signs)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder to fill, which becomes `path` at the end, or is removed on an error."""
    with temporary_sibling(path) as parent:
        temporary = parent / "folder"
        temporary.mkdir()
        yield temporary
        os.replace(temporary, path)


def check_output(output: str | os.PathLike[str], read: Iterable[str | os.PathLike[str] | None] = ()) -> None:
    """Raise ValueError if a file cannot be written because of its folder, or would replace one that is read."""
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{output} cannot be written: the folder {Path(output).parent} does not exist.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{output} cannot be written: the folder {folder} is not writable.")
    real = Path(output).resolve()
    if any(path is not None and Path(path).resolve() == real for path in read):
        raise ValueError(f"{output} is an input, and would be replaced: pass another output with -o.")
