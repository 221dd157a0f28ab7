"""Labels for training, by the name of their alignment: classes or values, and classes of residues."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..alignments.tables import read_table

_UNKNOWN = "?"  # in a string of residue classes: no label
_IGNORE = -100


class Labels(NamedTuple):
    """Labels read from a file."""

    by_name: dict[str, Any]  # int, float, or int64 (N,), by the name of the alignment
    classes: tuple[str, ...] | None  # names of the classes, if labels are names


def read_labels(
    path: str | os.PathLike[str], classes: Sequence[str] | None = None, num_labels: int | None = None
) -> Labels:
    r"""Read a table of labels.

    A column `label` has one label per alignment: a class (its name, or its number from 0) or a value. A column
    `labels` has one label per residue of the query, insertions included: a string of letters (``?`` for unknown), or
    in JSON a list of names or numbers (null or -100 for unknown).

    Parameters
    ----------
    path : str or path-like
        ``.csv`` or ``.tsv`` with a header that has ``name`` and ``label`` or ``labels``; JSON Lines (``.jsonl``) of
        objects with these keys; or FASTA (``.fasta``, ``.fa``) with residue classes in place of sequences.
    classes : sequence of str, optional
        Names of the classes, in the order of their numbers; by default those of the file, sorted.
    num_labels : int, optional
        Number of classes, against which labels that are numbers are checked.

    Returns
    -------
    labels : Labels
        ``by_name`` is for `MsaDataset`.

    Raises
    ------
    OSError, ValueError
        If the file does not exist or cannot be read, or has a name twice or a label that is not a class; the message
        names the line.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "structure.jsonl")
    >>> _ = path.write_text('{"name": "1abc", "labels": "HH?C"}\n')
    >>> labels = read_labels(path)
    >>> labels.by_name["1abc"].tolist(), labels.classes
    ([1, 1, -100, 0], ('C', 'H'))
    """
    path = Path(path)
    by_name: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for line, name, label in _records(path):
        if name in by_name:
            raise ValueError(f"{path}, line {line}: {name!r} is already in line {lines[name]}; keep one.")
        by_name[name], lines[name] = label, line
    if not by_name:
        raise ValueError(f"{path}: contains no label.")
    symbols = {name: label if isinstance(label, list) else [label] for name, label in by_name.items()}
    found = {symbol for each in symbols.values() for symbol in each if symbol not in (None, _UNKNOWN, _IGNORE)}
    if classes is None and any(isinstance(symbol, str) for symbol in found):
        classes = sorted(map(str, found))
    codes: dict[Any, Any] = {name: number for number, name in enumerate(classes or ())}
    codes |= dict.fromkeys((None, _UNKNOWN, _IGNORE), _IGNORE)
    for name, each in symbols.items():
        where = f"{path}, line {lines[name]} ({name})"
        numbers = [codes.get(symbol, symbol) for symbol in each]
        _check(numbers, where, classes, len(classes) if classes else num_labels)
        by_name[name] = np.array(numbers, dtype=np.int64) if isinstance(by_name[name], list) else numbers[0]
    return Labels(by_name, tuple(classes) if classes else None)


def _check(numbers: list[Any], where: str, classes: Sequence[str] | None, count: int | None) -> None:
    for number in numbers:
        if isinstance(number, str) or (classes and isinstance(number, float)):
            raise ValueError(f"{where}: {number!r} is not a class; the classes are {', '.join(classes or ())}.")
        if isinstance(number, float) and not np.isfinite(number):
            raise ValueError(f"{where}: the label is {number}; remove the line.")
        if count and isinstance(number, int) and number != _IGNORE and not 0 <= number < count:
            raise ValueError(f"{where}: {number} is not a class; the classes are 0 to {count - 1}.")


def _records(path: Path) -> Iterator[tuple[int, str, Any]]:
    """Line, name and label of each record; labels of residues are a list."""
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        yield from _json_records(path)
    elif suffix in (".fasta", ".fa"):
        line = 1
        for record in ("\n" + path.read_text(encoding="utf-8-sig")).split("\n>")[1:]:
            header, _, body = record.partition("\n")
            yield line, (header.split() or [""])[0], list("".join(body.split()))
            line += record.count("\n") + 1
    elif suffix in (".csv", ".tsv", ".tab"):
        yield from _table_records(path)
    else:
        raise ValueError(f"{path}: unknown format of labels; use .csv, .tsv, .jsonl or .fasta.")


def _json_records(path: Path) -> Iterator[tuple[int, str, Any]]:
    for line, row in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not row.strip():
            continue
        try:
            entry = json.loads(row)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {line}: is not JSON ({error}); each line is one object.") from None
        if not isinstance(entry, dict) or "name" not in entry or not {"label", "labels"} & entry.keys():
            raise ValueError(
                f'{path}, line {line}: lacks a key; each line is an object with "name" and "label" or "labels".'
            )
        label = list(entry["labels"]) if "labels" in entry else entry["label"]
        yield line, str(entry["name"]), label


def _table_records(path: Path) -> Iterator[tuple[int, str, Any]]:
    table = read_table(path)
    key = next((column for column in ("label", "labels") if column in table.columns), None)
    if key is None or "name" not in table.columns:
        raise ValueError(f"{path}: the columns are {', '.join(table.columns)}, but name and label are required.")
    rows = list(zip(table.lines, table.cells("name"), table.cells(key), strict=True))
    for line, name, label in rows:
        if not name or not label:
            raise ValueError(f"{path}, line {line}: the name or the label is missing; complete or remove the line.")
    convert: Any = list
    if key == "label":
        convert = next(kind for kind in (int, float, str) if all(_is(kind, label) for *_, label in rows))
    yield from ((line, name, convert(label)) for line, name, label in rows)


def _is(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
