"""One task over many alignments: results appear as they are made, and an interrupted run continues where it stopped.

Each alignment has its own target file, which appears whole or not at all, so a file that exists is finished. Under
``accelerate launch`` the processes share the alignments between them.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from .._files import check_output, whole_file
from .._processes import gather_dict, is_main_process, rank_and_size, wait_for_everyone
from .._words import counted
from ..alignments.listing import name_of
from .errors import is_of_the_input
from .inputs import list_inputs


class RunError(ValueError):
    """Some alignments of a run failed; the message names them. The results of the others are finished."""

    def __init__(self, total: int, failed: Mapping[Path, str]) -> None:
        self.failed = dict(failed)
        lines = "".join(f"\n  {path}: {_without(path, message)}" for path, message in failed.items())
        done = ", the others are finished" if len(failed) < total else ""
        super().__init__(f"{len(failed)} of {counted(total, 'alignment')} failed{done}:{lines}")


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
        What the results depend on besides the alignments, to be written as JSON. A folder keeps the settings of its
        results; a run with other settings is refused, as is one that finds files of no run under its targets' names.
    strict, overwrite : bool
        Let the first error end the run; make all results again.
    gather : callable, optional
        ``gather(parts, output)`` makes one file of all targets, in the order of `inputs`. Until all are finished, the
        targets are in a hidden folder beside it.
    depends : callable, optional
        ``depends(path)`` lists other files that an alignment's result is made of, such as its structure. A target
        that is older than one of them is made again.
    also_read : iterable of path
        Files that all results are made of; like the others they must not be replaced.

    Attributes
    ----------
    paths, pending : list of Path
        All alignments, and those without a result, of all processes.
    is_single : bool
        Whether the run turns one alignment into one file.

    Raises
    ------
    OSError, ValueError
        Before any work: see `list_inputs`; also if the output's folder does not exist, several alignments are to go
        into one file, results would replace alignments, or results of other settings exist.
    """

    def __init__(
        self,
        inputs: Iterable[str | os.PathLike[str]],
        output: str | os.PathLike[str],
        suffix: str,
        *,
        command: str = "run",
        settings: Mapping[str, Any] | None = None,
        strict: bool = False,
        overwrite: bool = False,
        gather: Callable[[list[Path], Path], object] | None = None,
        depends: Callable[[Path], Iterable[Path]] = lambda path: (),
        also_read: Iterable[str | os.PathLike[str] | None] = (),
    ) -> None:
        inputs, text = list(inputs), os.fspath(output)
        self.output = Path(output)
        self.paths = list_inputs(inputs, leave_out=self.output)
        self.command, self.suffix, self.strict, self.gather = command, suffix, strict, gather
        self._overwrite = overwrite
        self._settings = json.loads(json.dumps({"suffix": suffix, **(settings or {})}, default=str, sort_keys=True))
        named = len(inputs) == 1 and (self.paths == [Path(inputs[0])] or not os.path.lexists(inputs[0]))
        named &= len(self.paths) == 1 and not glob.has_magic(os.fspath(inputs[0]))
        is_folder = self.output.is_dir() or not self.output.suffix
        self.is_single = named and not is_folder and gather is None
        self._sources = {path: [path, *depends(path)] for path in self.paths}
        read = [*also_read, *(source for sources in self._sources.values() for source in sources)]
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
        self._record = self.folder / f".msa-{command}.json"
        self.pending = self._find_pending()

    def target(self, path: Path) -> Path:
        """Return the file of an alignment's result."""
        return self.output if self.is_single else self.folder / f"{name_of(path)}{self.suffix}"

    def _find_pending(self) -> list[Path]:
        """List the alignments that are left to do; nothing is changed yet."""
        if self.is_single:
            return list(self.paths)
        for other in self.folder.glob(".msa-*.json"):
            if other != self._record and json.loads(other.read_text())["suffix"] == self.suffix:
                raise ValueError(
                    f"{self.output} has results of another command with the same file names: pass another output with "
                    "-o."
                )
        old = self._recorded()
        existing = [path for path in self.paths if self.target(path).exists()]
        if self._overwrite:
            return list(self.paths)
        if old is None and existing:
            raise ValueError(
                f"{self.target(existing[0])} exists, but no run of msa {self.command} over a folder has made it: pass "
                "another output with -o, or --overwrite to replace it."
            )
        if old not in (None, self._settings):
            other_keys = sorted(key for key in old | self._settings if old.get(key) != self._settings.get(key))
            shown = ", ".join(f"{key} {old.get(key)}, now {self._settings.get(key)}" for key in other_keys)
            raise ValueError(
                f"{self.output} has results of other settings ({shown}): pass another output with -o, or --overwrite "
                "to replace them."
            )
        return [path for path in self.paths if not self._is_made(path)]

    def _recorded(self) -> dict[str, Any] | None:
        """Return the settings of earlier results; None if no run has made any."""
        return json.loads(self._record.read_text()) if self._record.is_file() else None

    def _is_made(self, path: Path) -> bool:
        """Whether the target is newer than what it is made of, and than the record of the settings."""
        older = [*self._sources[path], self._record]
        target = self.target(path)
        return target.exists() and target.stat().st_mtime_ns >= max(each.stat().st_mtime_ns for each in older)

    def _make_ready(self) -> None:
        wait_for_everyone()  # until all processes have listed what is pending, the same in each
        if is_main_process():
            self.folder.mkdir(exist_ok=True)
            if self._overwrite:  # if this run is interrupted, the next one must not take them for its own
                for path in self.pending:
                    self.target(path).unlink(missing_ok=True)
            _remove_remains(self.folder, [name_of(path) for path in self.pending])
            if self._recorded() != self._settings:
                with whole_file(self._record) as temporary:
                    temporary.write_text(json.dumps(self._settings, indent=1, sort_keys=True) + "\n")
        wait_for_everyone()

    def __call__(self, work: Callable[[Path, Path], str | None]) -> None:
        """Make the pending results.

        Parameters
        ----------
        work : callable
            ``work(path, target)`` makes the target, whole, and returns a line to print, or None. It is not called for
            alignments that have a result; load the model only ``if run.pending``.

        Raises
        ------
        RunError
            At the end, in the main process, if alignments failed.
        """
        if self.is_single:
            if is_main_process() and (line := work(self.paths[0], self.output)):
                print(line)
            self.pending = []
            return
        self._make_ready()
        rank, processes = rank_and_size()
        # the largest first, so that no process is left alone with one at the end
        share = self.pending if processes == 1 else sorted(self.pending, key=_size, reverse=True)[rank::processes]
        who = f"process {rank + 1} of {processes}" if processes > 1 else None
        failed: dict[Path, str] = {}
        with tqdm(share, desc=who, unit="MSA", disable=None, leave=False) as bar:
            for path in bar:
                try:
                    line = work(path, self.target(path))
                except (ValueError, OSError, RuntimeError, MemoryError) as error:
                    if self.strict or not is_of_the_input(error):
                        raise
                    failed[path] = str(error).partition("\n")[0] or type(error).__name__
                    _write_line(bar, f"failed: {path}: {_without(path, failed[path])}", sys.stderr)
                except KeyboardInterrupt:
                    done = sum(map(self._is_made, self.paths))
                    _write_line(
                        bar, f"stopped: {done} of {len(self.paths)} finished; the same command continues", sys.stderr
                    )
                    raise
                else:
                    if line:
                        _write_line(bar, line, sys.stdout)
        failures = gather_dict(failed)
        self._end({path: failures[path] for path in self.paths if path in failures})

    def _end(self, failed: dict[Path, str]) -> None:
        before = len(self.paths) - len(self.pending)
        self.pending = list(failed)
        if not is_main_process():
            return
        if self.gather is not None:
            parts = [self.target(path) for path in self.paths if path not in failed]
            if parts:
                self.gather(parts, self.output)
            if not failed or not parts:  # else the next run needs them
                shutil.rmtree(self.folder)
        if failed:
            raise RunError(len(self.paths), failed)
        note = f", {before} of them finished before" if before else ""
        print(f"{self.output}: {counted(len(self.paths), 'alignment')}{note}")


def _write_line(bar: tqdm, line: str, file: IO[str]) -> None:
    """In one write: where output is not buffered, another process's line would fall between a line and its end."""
    bar.write(f"{line}\n", file=file, end="")


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
