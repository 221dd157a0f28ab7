"""One task over many alignments: results appear as they are made, and an interrupted run continues where it stopped.

Each alignment has its own target file, which appears whole or not at all. A hidden file beside the targets says what
each was made from. Under ``accelerate launch`` the processes share the alignments between them.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from .._files import check_output
from .._processes import gather_dict, is_main_process, rank_and_size, wait_for_everyone
from .._records import Record, difference, is_same, locked, state_of
from .._version import __version__
from .._words import counted
from ..alignments.alignment import shortened
from ..alignments.listing import name_of
from .errors import is_of_the_input
from .inputs import list_inputs
from .pictures import pictures


class RunError(ValueError):
    """Some alignments of a run failed; the message names them. The results of the others are finished."""

    def __init__(self, total: int, failed: Mapping[Path, str], noun: str = "alignment") -> None:
        self.failed = dict(failed)
        lines = "".join(f"\n  {path}: {_without(path, message)}" for path, message in failed.items())
        done = ", the others are finished" if len(failed) < total else ""
        super().__init__(f"{len(failed)} of {counted(total, noun)} failed{done}:{lines}")


class Run:
    """A task's run over alignments.

    Parameters
    ----------
    inputs, output
        See `list_inputs`. The output is a file, if `inputs` names a single file; a folder for a file ``NAME`` +
        `suffix` of each alignment, which is created if it does not exist and has no ending; with `gather`, one file.
    suffix, command : str
        Ending of the targets, such as ``".tsv"``, and name of the task. Runs of several tasks may share a folder.
    settings : mapping
        The options that the results depend on, to be written as JSON.
    made_from : callable, optional
        ``made_from()`` returns the files that all results are made from, by what they are, such as the model's. It is
        called unless one alignment is turned into one file.
    depends : callable, optional
        ``depends(path)`` returns what else an alignment's result is made from, by what it is: files, such as its
        structure, or words.
    strict, overwrite : bool
        Let the first error end the run; make all results again.
    plot : str, optional
        The option of this name; `picture` then tells where the picture of a target goes.
    beside : callable, optional
        ``beside(path, target)`` lists the files, apart from a picture, that the task writes beside a target.
    gather : callable, optional
        ``gather(parts, output)`` makes one file of all targets, in the order of `inputs`, and returns the files that
        it wrote. Until all are finished, the targets are in a hidden folder beside it.
    also_read : iterable of path
        Further files that must not be replaced.
    name : callable, optional
        ``name(path)`` is the name of a result without `suffix`. Default: the alignment's.
    noun : str
        What an input is called, in the singular.

    Attributes
    ----------
    paths, pending : list of Path
        All alignments, and those without a result, of all processes. A result counts if its files are as they were
        written, and the settings and the content of all that it was made from are the same (`_records`).
    is_single : bool
        Whether the run turns one alignment into one file, which is always made.

    Raises
    ------
    OSError, ValueError
        Before any work: see `list_inputs`; also if the output's folder does not exist, several alignments are to go
        into one file, results would replace alignments, or files that no run has made.
    """

    def __init__(
        self,
        inputs: Iterable[str | os.PathLike[str]],
        output: str | os.PathLike[str],
        suffix: str,
        *,
        command: str = "run",
        settings: Mapping[str, Any] | None = None,
        made_from: Callable[[], Mapping[str, Path]] = dict,
        depends: Callable[[Path], Mapping[str, Path | str]] = lambda path: {},
        strict: bool = False,
        overwrite: bool = False,
        plot: str | None = None,
        beside: Callable[[Path, Path], Iterable[Path]] = lambda path, target: (),
        gather: Callable[[list[Path], Path], Iterable[Path]] | None = None,
        also_read: Iterable[str | os.PathLike[str] | None] = (),
        name: Callable[[Path], str] = name_of,
        noun: str = "alignment",
    ) -> None:
        inputs, text = list(inputs), os.fspath(output)
        self.output = Path(output)
        self.paths = list_inputs(inputs, leave_out=self.output)
        self.command, self.suffix, self.strict, self.gather = command, suffix, strict, gather
        self._overwrite, self._beside, self._name_of, self._noun = overwrite, beside, name, noun
        self._settings = json.loads(json.dumps({"version": __version__} | dict(settings or {}), default=str))
        named = len(inputs) == 1 and (self.paths == [Path(inputs[0])] or not os.path.lexists(inputs[0]))
        named &= len(self.paths) == 1 and not glob.has_magic(os.fspath(inputs[0]))
        is_folder = self.output.is_dir() or not self.output.suffix
        self.is_single = named and not is_folder and gather is None
        self._sources = {path: {"alignment": path, **depends(path)} for path in self.paths}
        of_results = [source for sources in self._sources.values() for source in sources.values()]
        read = [*also_read, *(source for source in of_results if isinstance(source, Path))]
        check_output(output, read)
        if gather is not None:
            if is_folder:
                raise ValueError(
                    f"{text} is a folder, but the results go into one file: pass a file name, such as all{suffix}."
                )
            self.folder = self.output.with_name(f".{self.output.name}.parts")
        elif self.is_single:
            self.folder = self.output.parent
        else:
            if not is_folder or self.output.is_file():
                raise ValueError(
                    f"{text} looks like a file, but several alignments require a folder: pass one with -o; the name "
                    "of a new folder has no ending."
                )
            self.folder = self.output
        real = {Path(path).resolve() for path in read if path is not None}
        if any(self.target(path).resolve() in real for path in self.paths):
            raise ValueError(f"{text} has input files that would be replaced: pass another output with -o.")
        self.picture = pictures(plot, self.command, self.is_single)
        self._made_from = {} if self.is_single else dict(made_from())
        self._record = Record(self.folder / f".msa-{command}.jsonl")
        self._whole = Record(self.output.with_name(f".{self.output.name}.msa-{command}.jsonl"))  # of a gathered file
        self._failed: dict[Path, str] = {}
        self.pending = self._find_pending()
        # taken before the model is loaded, so that they are of the one that is loaded
        self._states = {name: state_of(path) for name, path in self._made_from.items()} if self.pending else {}

    def target(self, path: Path) -> Path:
        """Return the file of an alignment's result."""
        return self.output if self.is_single else self.folder / f"{self._name_of(path)}{self.suffix}"

    def files(self, path: Path) -> list[Path]:
        """List the files of an alignment's result: target, picture, and what else the task writes."""
        target = self.target(path)
        return [target, *self._beside(path, target), *([self.picture(target)] if self.picture is not None else [])]

    def _find_pending(self) -> list[Path]:
        """List the alignments that are left to do, and why results are made again; nothing is changed yet."""
        self._reasons: dict[Path, str] = {}
        self._is_gathered = False
        if self.is_single or self._overwrite:
            return list(self.paths)
        if self.gather is not None:
            whole = self._whole.read()
            self._note_reasons(whole)
            self._is_gathered = list(whole) == [self.target(path).name for path in self.paths] and not self._reasons
            if self._is_gathered:
                return []
        entries = self._record.read()
        others = [other for other in self.folder.glob(".msa-*.jsonl") if other != self._record.path]
        taken = {name for other in others for entry in Record(other).read().values() for name in entry["files"]}
        for target in map(self.target, self.paths):
            if target.name in taken:
                raise ValueError(f"{target} is a result of another command: pass another output with -o.")
            if target.exists() and target.name not in entries:
                raise ValueError(
                    f"{target} exists, but no run of msa {self.command} over a folder has made it: pass another "
                    "output with -o, or --overwrite to replace it."
                )
        return self._note_reasons(entries)

    def _note_reasons(self, entries: Mapping[str, Mapping[str, Any]]) -> list[Path]:
        """List the alignments whose results are not to be kept; note why, if there is one already."""
        pending = []
        for path in self.paths:
            entry = entries.get(self.target(path).name)
            if entry is None or "settings" not in entry:
                pending.append(path)
            elif reason := self._outdated(path, entry):
                pending.append(path)
                self._reasons[path] = reason
        return pending

    def _outdated(self, path: Path, entry: Mapping[str, Any]) -> str:
        if words := difference(entry, self._settings, self._sources[path] | self._made_from):
            return words
        files = entry["files"]
        wanted = list(files) if self.gather is not None else [self._name(file) for file in self.files(path)]
        wrong = [name for name in wanted if name not in files or not is_same(self._file(name), files[name])]
        if not wrong:
            return ""
        name = self._file(wrong[0]).name.replace(name_of(path), "NAME", 1)  # one reason for all that lack such a file
        return f"{name} is missing or was changed"

    def _name(self, file: Path) -> str:
        return os.path.relpath(file, self.folder)

    def _file(self, name: str) -> Path:
        return Path(os.path.normpath(self.folder / name))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other runs away from the output."""
        if is_main_process():
            if not self.is_single and self.gather is None:
                self.folder.mkdir(exist_ok=True)
            with locked(self.output):
                yield
        else:
            yield

    def _make_ready(self) -> None:
        """List again what is pending, the same in each process, now that no other run writes; then note it down."""
        wait_for_everyone()
        self.pending = self._find_pending()
        self._old = self._record.read()
        if self.pending and not self._states:
            self._states = {name: state_of(path) for name, path in self._made_from.items()}
        if changed := [name for name, state in self._states.items() if not is_same(self._made_from[name], state)]:
            raise ValueError(f"The {changed[0]} was changed while this command started: run it again.")
        wait_for_everyone()
        if is_main_process() and self.pending:
            self.folder.mkdir(exist_ok=True)
            _remove_remains(self.folder, [self._name_of(path) for path in self.pending])
            names = [self.target(path).name for path in self.pending]
            unmade = {name: {"result": name, "files": self._old.get(name, {}).get("files", {})} for name in names}
            self._record.write((self._old | unmade).values())
            self._tell_reasons()
        wait_for_everyone()

    def _tell_reasons(self) -> None:
        by_reason: dict[str, list[str]] = {}
        for path, reason in self._reasons.items():
            by_reason.setdefault(reason, []).append(self._name_of(path))
        for reason, names in by_reason.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            print(f"made again, because {reason}: {', '.join(names[:3])}{more}", file=sys.stderr)

    def __call__(self, work: Callable[[Path, Path], str | None]) -> None:
        """Make the pending results.

        Parameters
        ----------
        work : callable
            ``work(path, target)`` makes the target and the other `files`, whole, and returns a line to print, or None.
            It is not called for alignments that have a result; load the model only ``if run.pending``.

        Raises
        ------
        RunError
            At the end, in the main process, if alignments failed.
        ValueError
            If another run writes to the same output.
        """
        if not self.pending and rank_and_size()[1] == 1 and (self.gather is None or self._is_gathered):
            return self._end({})
        with self._alone():
            if not self.is_single:
                self._make_ready()
                self._make_all(work)
            elif is_main_process():
                line = work(self.paths[0], self.output)
                if line:
                    print("\n".join(map(shortened, line.split("\n"))))
        self.pending = [path for path in self.pending if path in self._failed]

    def _make_all(self, work: Callable[[Path, Path], str | None]) -> None:
        rank, processes = rank_and_size()
        # the largest first, so that no process is left alone with one at the end
        share = self.pending if processes == 1 else sorted(self.pending, key=_size, reverse=True)[rank::processes]
        who = f"process {rank + 1} of {processes}" if processes > 1 else None
        failed: dict[Path, str] = {}
        with tqdm(share, desc=who, unit="MSA", disable=None, leave=False) as bar:
            for path in bar:
                try:
                    line = self._make(work, path)
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    if self.strict or not is_of_the_input(error):
                        raise
                    failed[path] = str(error).partition("\n")[0] or type(error).__name__
                    _write_line(bar, f"failed: {path}: {_without(path, failed[path])}", sys.stderr)
                except KeyboardInterrupt:
                    entries = self._record.read()
                    done = sum("settings" in entries.get(self.target(path).name, ()) for path in self.paths)
                    _write_line(
                        bar, f"stopped: {done} of {len(self.paths)} finished; the same command continues", sys.stderr
                    )
                    raise
                else:
                    if line:
                        _write_line(bar, line, sys.stdout)
        failures = gather_dict(failed)
        self._end({path: failures[path] for path in self.paths if path in failures})

    def _make(self, work: Callable[[Path, Path], str | None], path: Path) -> str | None:
        """Make one result, and note what it was made from; the files of an older one, also a picture, go first."""
        target, sources = self.target(path), self._sources[path]
        files = {name: each for name, each in sources.items() if isinstance(each, Path)}
        states = {name: state_of(file) for name, file in files.items()}
        old = self._old.get(target.name, {}).get("files", {})
        for file in [target, *(self._file(name) for name, state in old.items() if is_same(self._file(name), state))]:
            file.unlink(missing_ok=True)
        for file in self.files(path):
            file.parent.mkdir(exist_ok=True)
        line = work(path, target)
        for name, file in files.items():
            if not is_same(file, states[name]):
                target.unlink()
                raise ValueError(f"{path}: the {name} was changed while it was read; run the command again.")
        made_from = {**sources, **states, **self._states}
        made = {self._name(file): state_of(file, is_ours=True) for file in self.files(path)}
        entry = {"result": target.name, "settings": self._settings, "sources": made_from, "files": made}
        self._record.add(entry)
        return line

    def _end(self, failed: dict[Path, str]) -> None:
        before = len(self.paths) - len(self.pending)
        self._failed = failed
        if not is_main_process():
            return
        entries = self._record.read()
        if self.pending:
            self._record.write(entries[name] for name in sorted(entries))
        if self.gather is not None and not self._is_gathered:
            self._gather(self.gather, [path for path in self.paths if path not in failed], entries)
        if failed:
            raise RunError(len(self.paths), failed, self._noun)
        note = f", {before} of them finished before" if before else ""
        print(f"{self.output}: {counted(len(self.paths), self._noun)}{note}")

    def _gather(
        self,
        gather: Callable[[list[Path], Path], Iterable[Path]],
        paths: list[Path],
        entries: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Make one file of the parts; they are kept for the next run if some are missing."""
        parts = [self.target(path) for path in paths]
        self._whole.path.unlink(missing_ok=True)
        if parts:
            files = {self._name(file): state_of(file, is_ours=True) for file in gather(parts, self.output)}
        if len(parts) == len(self.paths):
            self._whole.write({**entries[part.name], "files": files} for part in parts)
        if len(parts) in (0, len(self.paths)):
            shutil.rmtree(self.folder)


def _write_line(bar: tqdm, line: str, file: IO[str]) -> None:
    """In one write: where output is not buffered, another process's line would fall between a line and its end."""
    bar.write(f"{shortened(line)}\n", file=file, end="")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _without(path: Path, message: str) -> str:
    """Leave out the file's name where a message begins with it."""
    return message.removeprefix(f"{path}").lstrip(":, ") if message.startswith(f"{path}") else message


def _remove_remains(folder: Path, names: Sequence[str]) -> None:
    """Remove what a killed process was writing (`whole_file`) for these alignments."""
    for path in folder.iterdir():
        match = re.fullmatch(r"\.(\d+)\.(.+)", path.name)
        if match and any(match[2].startswith(f"{name}.") for name in names):
            try:
                os.kill(int(match[1]), 0)
            except ProcessLookupError:
                path.unlink(missing_ok=True)
            except OSError:
                pass  # a running process of another user
