"""Files of alignments: which ones a folder or list contains, their names and sizes."""

from __future__ import annotations

import lzma
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .._files import require_file
from .._words import counted
from .alignment import Alignment, AlignmentError, build_alignment
from .bundled import find_bundled
from .complex_files import announces_complex
from .reading import COMMENTS, format_of, guess_format, parse_fasta, read_alignment, read_bytes

_LIST_SUFFIXES = (".txt", ".list", ".lst")
_PEEK_BYTES = 32_768


def list_alignments(source: str | os.PathLike[str]) -> list[Path]:
    """List the alignment files of a folder or a list, or the single file itself, without opening them.

    Parameters
    ----------
    source : path
        A folder (searched with its subfolders for ``.a3m .a2m .fasta .fa .afa .aln .sto .stk .stockholm``, with or
        without ``.gz`` or ``.xz``), a list (``.txt .list .lst``: one path per line, relative to the list's folder;
        ``#`` begins a comment), one alignment file, which may be called ``.txt`` too, or the name of a family that
        comes with the package (``fn3``).

    Returns
    -------
    paths : list of Path
        Sorted, or in the order of the list.

    Raises
    ------
    FileNotFoundError
        If `source`, or a file that a list names, does not exist.
    ValueError
        If the folder or list contains no alignment.
    """
    if (bundled := find_bundled(source)) is not None:
        return [bundled]
    source = Path(source)
    if source.is_dir():
        paths = sorted(
            Path(folder, name)
            for folder, names in _walk(source)
            for name in names
            if format_of(name) and not name.startswith(".")
        )
        if not paths:
            raise ValueError(f"{source}: the folder has no alignment (.a3m, .a2m, .fasta, .sto ..., .gz, .xz).")
        return paths
    if not source.exists():
        raise FileNotFoundError(f"{source}: there is no such file or folder of alignments.")
    if source.suffix.lower() not in _LIST_SUFFIXES or _is_alignment(source):
        return [source]
    lines = [line.strip() for line in source.read_text().splitlines()]
    paths = [source.parent / line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise ValueError(f"{source}: the list names no alignment; write one path per line.")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{source}: {len(missing)} of {counted(len(paths), 'file')} do not exist, the first is {missing[0]}; "
            "paths are relative to the list's folder."
        )
    return paths


def _walk(top: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and the names of their files; links are followed, each folder once, so that loops end."""
    seen = set()
    for folder, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield folder, names


def _is_alignment(path: Path) -> bool:
    """Whether a file that is called like a list holds an alignment: services that refuse ``.a3m`` take ``.txt``."""
    require_file(path)
    with open(path, "rb") as file:
        beginning = file.read(_PEEK_BYTES).removeprefix(b"\xef\xbb\xbf")
    lines = [line for line in beginning.splitlines() if line.strip()]
    first = next((line for line in lines if not line.startswith(COMMENTS)), b"")
    return first.startswith(b">") or (bool(lines) and lines[0].startswith(b"# STOCKHOLM"))


def name_of(path: str | os.PathLike[str]) -> str:
    """Name of an alignment file, without the suffixes of format and compression.

    Examples
    --------
    >>> name_of("families/1abc_A.a3m.gz")
    '1abc_A'
    """
    path = Path(path)
    path = path.with_suffix("") if path.suffix.lower() in (".gz", ".xz") else path
    return path.stem if format_of(path.name) else path.name


class Peek(NamedTuple):
    """Size of an alignment, estimated from the beginning of its file."""

    depth: int  # rows; estimated from the size of the file if that is large
    length: int  # match columns
    residues: int  # of the query, insertions included


def peek(item: str | os.PathLike[str] | Alignment, format: str | None = None) -> Peek:
    """Estimate the size of an alignment from the first 32 kB of its file; Stockholm files are read completely.

    `item` is a file, plain or compressed, or an alignment, whose size is then exact; `format` is as in
    `read_alignment`.

    Raises
    ------
    OSError, AlignmentError
        If the file does not exist, or its first row cannot be read.

    Examples
    --------
    >>> from modeling_msa import Alignment
    >>> peek(Alignment.from_sequences(["mKV-L", "RVAL"]))
    Peek(depth=2, length=4, residues=4)
    """
    if isinstance(item, Alignment):
        return Peek(item.depth, item.length, len(item.query))
    where = os.fspath(item)
    format = format or format_of(where)
    if format == "stockholm":
        return peek(read_alignment(item, format))
    require_file(where)
    for whole in (False, True):
        size, read, data = _whole(where) if whole else _beginning(where)
        if data.lstrip().startswith(b"# STOCKHOLM"):
            return peek(read_alignment(item))
        if read < size:
            data = data[: data.rfind(b"\n>") + 1]
        names, rows = parse_fasta(data.replace(b"\r\n", b"\n"), where) if data.strip() else ([], [])
        if rows or read == size:
            break
    if not rows:
        raise AlignmentError(f"{where}: contains no sequence; give at least one")
    if announces_complex(data):
        return peek(read_alignment(item, format))
    query = build_alignment(names[:1], rows[:1], format or guess_format(rows), where, where)
    return Peek(max(1, round(len(rows) * size / read)) if read < size else len(rows), query.length, len(query.query))


def _whole(path: str) -> tuple[int, int, bytes]:
    size = os.stat(path).st_size
    return size, size, read_bytes(Path(path))


def _beginning(path: str) -> tuple[int, int, bytes]:
    """Size of a file, how many of its bytes were read, and their decompressed content."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(_PEEK_BYTES)
    read = len(data)
    try:
        if data.startswith(b"\x1f\x8b"):
            data = zlib.decompressobj(31).decompress(data)
        elif data.startswith(b"\xfd7zXZ\x00"):
            data = lzma.LZMADecompressor().decompress(data)
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise AlignmentError(f"{path}: the compressed file is damaged ({error}); download it again") from None
    return size, read, data
