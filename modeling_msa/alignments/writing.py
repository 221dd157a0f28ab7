"""Writing alignments: A3M, A2M, aligned FASTA and Stockholm."""

from __future__ import annotations

import gzip
import lzma
import os
import re
from pathlib import Path

import numpy as np

from .._files import whole_file
from .alignment import Alignment, AlignmentError, check_format
from .complex_files import header_of
from .reading import SUFFIXES, format_of


def write_alignment(
    alignment: Alignment, path: str | os.PathLike[str], format: str | None = None, *, insertions: bool = True
) -> None:
    """Write an alignment to a file.

    The file appears complete or not at all. Reading A3M and A2M back gives the same alignment; FASTA and Stockholm
    contain only the match columns, and Stockholm the first words of the names, with the rest as ``#=GS ... DE`` lines.
    Chains of a complex are in the first line: ColabFold's ``#120,95<TAB>1,1``, or ``#chains H:120,L:95`` if they have
    names or the query has gaps or insertions; in Stockholm ``#=GF chains H:120,L:95``.

    Parameters
    ----------
    alignment : Alignment
        Alignment to write.
    path : str or path-like
        File to write or replace; compressed if the suffix is ``.gz`` or ``.xz``.
    format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        By default the one of the file's suffix, see `read_alignment`.
    insertions : bool, default: True
        Whether A3M and A2M files include the insertions.

    Raises
    ------
    AlignmentError
        If the format is unknown.
    """
    path = Path(path)
    format = format or format_of(path.name)
    if format is None:
        raise AlignmentError(
            f"{path}: the suffix is not that of an alignment format; use one of {' '.join(SUFFIXES)}, or pass format="
        )
    check_format(format)
    if format == "stockholm":
        data = _stockholm_bytes(alignment)
    else:
        rows = list(map(bytes, alignment.array))
        if insertions and alignment.raw_rows is not None and format in ("a3m", "a2m"):
            rows = list(alignment.raw_rows) if format == "a3m" else _padded_rows(alignment)
        data = header_of(alignment, format, insertions)
        data += b"".join(b">%b\n%b\n" % (name.encode(), row) for name, row in zip(alignment.names, rows, strict=True))
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".xz":
        data = lzma.compress(data)
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def check_alignment_ending(path: str | os.PathLike[str]) -> None:
    """Raise ValueError, before work starts, if `write_alignment` knows no format with the ending of `path`."""
    path = Path(path)
    if format_of(path.name) is None:
        raise ValueError(
            f"{path}: unknown output format {path.suffix!r}; use {', '.join(SUFFIXES)}, optionally with .gz or .xz."
        )


def _padded_rows(alignment: Alignment) -> list[bytes]:
    """A2M rows: each insertion is padded with dots to the longest one of any row at its position."""
    assert alignment.raw_rows is not None
    found: list[tuple[int, int, bytes]] = []  # row, number of match columns before it, letters
    widest = np.zeros(alignment.length + 1, dtype=np.int64)
    for k, row in enumerate(alignment.raw_rows):
        inserted = 0
        for match in re.finditer(rb"[a-z]+", row):
            place = match.start() - inserted
            inserted += len(match[0])
            found.append((k, place, match[0]))
            widest[place] = max(widest[place], len(match[0]))
    starts = np.cumsum(widest) - widest + np.arange(alignment.length + 1)
    padded = np.full((alignment.depth, alignment.length + int(widest.sum())), ord("."), dtype=np.uint8)
    padded[:, (starts + widest)[:-1]] = alignment.array
    for k, place, letters in found:
        padded[k, starts[place] : starts[place] + len(letters)] = np.frombuffer(letters, dtype=np.uint8)
    return list(map(bytes, padded))


def _stockholm_bytes(alignment: Alignment) -> bytes:
    labels, descriptions = [], []
    for k, name in enumerate(alignment.names):
        label, rest = (*name.split(maxsplit=1), "", "")[:2]
        label = label or f"row_{k + 1}"
        labels.append(f"_{label}" if label.startswith(("#", "//")) else label)
        if rest.strip():
            descriptions.append(f"#=GS {labels[-1]} DE {rest.strip()}")
    width = max(map(len, labels))
    rows = [f"{label:<{width}} {row}" for label, row in zip(labels, alignment.sequences, strict=True)]
    chains = [header_of(alignment, "stockholm").decode()] if alignment.chains else []
    return "\n".join(["# STOCKHOLM 1.0", *chains, *descriptions, *rows, "//", ""]).encode()
