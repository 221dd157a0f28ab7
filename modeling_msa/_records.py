"""What the results of a folder were made from, so that none is taken for another's: digests, options, and a lock."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ._files import file_sha256, whole_file

# a file's size, SHA-256, and the numbers that tell without reading it that it was not touched (None: do not)
State = dict[str, Any]
_SETTLED = 2e9  # nanoseconds; a file that was written just now may be written again within the clock's resolution


def state_of(path: Path, *, is_ours: bool = False) -> State:
    """Return the state of a file. One that is not `is_ours` and was written just now is read again by `is_same`."""
    found = os.stat(path)
    state: State = {"size": found.st_size, "sha256": _digest(path, *_seen(found)), "seen": _seen(found)}
    if not is_ours and time.time_ns() - found.st_mtime_ns < _SETTLED:
        state["seen"] = None
    return state


def is_same(path: Path, state: State) -> bool:
    """Whether a file exists with the content of `state`; it is read only if it was touched since."""
    try:
        found = os.stat(path)
        seen = _seen(found)
        return found.st_size == state["size"] and (seen == state["seen"] or _digest(path, *seen) == state["sha256"])
    except OSError:
        return False


def _seen(found: os.stat_result) -> list[int]:
    return [found.st_mtime_ns, found.st_ctime_ns, found.st_ino]  # nobody can set back the second


@functools.lru_cache(maxsize=64)
def _digest(path: Path, *seen: int) -> str:
    """Once for a file that many results are made from; `seen` tells a file from what it is later."""
    return file_sha256(path)


def difference(entry: Mapping[str, Any], settings: Mapping[str, Any], sources: Mapping[str, Path | str]) -> str:
    """Say in what a result's entry differs from what it would be made from now; "" if in nothing."""
    old, made_from = entry["settings"], entry["sources"]
    names = sorted(old.keys() | settings.keys()), sorted(made_from.keys() | sources.keys())
    words = [_change(name, old.get(name), settings.get(name)) for name in names[0]]
    words += [_change(name, made_from.get(name), sources.get(name)) for name in names[1]]
    return ", ".join(filter(None, words))


def _change(name: str, before: Any, now: Any) -> str:
    if isinstance(now, Path) and isinstance(before, dict):
        return "" if is_same(now, before) else f"the {name} has changed"
    if isinstance(now, Path) or isinstance(before, dict):
        return f"the {name} is new" if before is None else f"the {name} is left out"
    shown = ["none" if each is None else each for each in (before, now)]
    return "" if now == before else f"{name} was {shown[0]}, is now {shown[1]}"


class Record:
    """The hidden file beside results with one line of JSON for each: what it was made from, and its files.

    A line without ``settings`` is of a result that a run set out to make. Processes add lines at the same time; the
    last one of a result counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the entries by result; a line that was cut is left out, so that its result is made again."""
        entries: dict[str, dict[str, Any]] = {}
        with suppress(FileNotFoundError), open(self.path, encoding="utf-8", errors="replace") as file:
            for line in file:
                with suppress(ValueError, TypeError, KeyError):
                    entry = json.loads(line)
                    entries[entry["result"]] = entry
        return entries

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Replace all lines."""
        with whole_file(self.path) as temporary:
            temporary.write_text("".join(map(_line, entries)), encoding="utf-8")

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add a line, in one write."""
        with open(self.path, "ab", buffering=0) as file:
            file.write(_line(entry).encode())


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, sort_keys=True) + "\n"


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keep other runs away from an output; ValueError if one writes there already."""
    from filelock import FileLock, Timeout  # takes 50 ms to import

    path = output / ".msa.lock" if output.is_dir() else output.with_name(f".{output.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{output} is being written by another msa command: wait for it to end, or pass another output with -o."
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held
        lock.release()
