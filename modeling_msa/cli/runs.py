"""One task over many alignments: results as they come, a second run goes on where the first was cut.

Each alignment has its own target file, which appears whole or not at all: what is there is done. Under
``accelerate launch`` the processes share the alignments between them.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from .._files import check_output, whole_file
from .._processes import gather_dict, is_main_process, rank_and_size, wait_for_everyone
from ..alignments.bundled import bundled_family
from ..alignments.listing import list_alignments, name_of

_NO_USE_GOING_ON = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the next alignment would fail alike


class RunError(ValueError):
    """Some alignments of a run failed; the message names them. The others' results are there."""

    def __init__(self, total: int, failed: Mapping[Path, str]) -> None:
        self.failed = dict(failed)
        lines = "".join(f"\n  {path}: {_without(path, message)}" for path, message in failed.items())
        done = ", the others are done" if len(failed) < total else ""
        super().__init__(f"{len(failed)} of {total} alignments failed{done}:{lines}")


def list_inputs(
    inputs: Iterable[str | os.PathLike[str]], leave_out: str | os.PathLike[str] | None = None
) -> list[Path]:
    """List the alignment files that a command line names: files, folders, patterns, list files.

    Parameters
    ----------
    inputs : iterable of path
        Each a file, a folder or a list file as in `modeling_msa.alignments.listing.list_alignments`, or a pattern
        with ``*``, ``?``
        or ``[...]``; ``**`` is any depth of folders. A family that comes with the package goes by its name, ``fn3``.
    leave_out : path, optional
        A folder of results: what a folder above it has there is no input.

    Returns
    -------
    list of Path
        In the given order, each file once; none is opened.

    Raises
    ------
    FileNotFoundError
        If something is not there, or a pattern fits nothing.
    ValueError
        If a folder or list holds no alignment, or two files have the same name but for folder and ending: results go
        by that name.
    """
    results = None if leave_out is None else Path(leave_out).resolve()
    bundled = {path.stem: os.fspath(path) for path in bundled_family().parent.glob("*.sto")}
    paths: dict[Path, Path] = {}
    for each in [os.fspath(path) for path in inputs]:
        found = [each]
        if not os.path.exists(each):
            if each in bundled:
                found = [bundled[each]]
            elif glob.has_magic(each):
                found = sorted(glob.glob(each, recursive=True))
                if not found:
                    raise FileNotFoundError(f"{each}: no file fits this pattern.")
        for source in found:
            listed = {path.resolve(): path for path in list_alignments(source)}
            if os.path.isdir(source):
                without = {real: path for real, path in listed.items() if results not in real.parents}
                listed = without or listed  # into the very folder of the inputs: an error, later
            paths |= {real: path for real, path in listed.items() if real not in paths}
    by_name: dict[str, Path] = {}
    for path in paths.values():
        if (other := by_name.setdefault(name_of(path), path)) != path:
            raise ValueError(
                f"{other} and {path} are both called {name_of(path)}, and results go by that name: rename one, or "
                "make two runs."
            )
    return list(paths.values())


class Run:
    """A task's run over alignments.

    Parameters
    ----------
    inputs : iterable of path
        See `list_inputs`.
    output : path
        A file for a single file named in `inputs`; a folder, made if it is not there, if it has no ending, for
        ``NAME`` + `suffix` of each alignment; a file for all, if there is `gather`.
    suffix : str
        Ending of the targets, such as ``".tsv"``.
    command : str
        The task; runs of several tasks may share a folder.
    settings : mapping
        What the results depend on besides the alignments, to JSON. A folder keeps the settings of its results, and a
        run with others is refused, as is one that finds files of no run under its targets' names.
    strict : bool
        Let the first error end the run.
    overwrite : bool
        Forget earlier results.
    gather : callable, optional
        ``gather(parts, output)`` makes one file of all targets, whose order is that of `inputs`. They lie in a hidden
        folder beside it until all are done.
    depends : callable, optional
        ``depends(path)`` lists the other files that an alignment's result is made of, such as its structure: a target
        that is older is made again.
    also_read : iterable of path
        Files that all results are made of; like the others they must not be replaced.

    Attributes
    ----------
    paths : list of Path
        All alignments.
    pending : list of Path
        Those without a result, in all processes.
    is_single : bool
        Whether it is one alignment into one file.

    Raises
    ------
    OSError, ValueError
        Before any work: see `list_inputs`; if there is no folder for the output, several alignments have a file for
        output, results would replace the alignments, or results of other settings are there.

    Examples
    --------
    >>> import tempfile
    >>> from modeling_msa import bundled_family, read_alignment
    >>> def depth(path, target):
    ...     with whole_file(target) as temporary:
    ...         _ = temporary.write_text(str(read_alignment(path).depth))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = Run([bundled_family()], Path(folder, "depth.txt"), ".txt", command="depth")
    ...     run(depth)
    ...     print(Path(folder, "depth.txt").read_text(), run.pending)
    98 []
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
                raise ValueError(f"{text} is a folder, but the results go into one file: name it, like all{suffix}.")
            self.folder = self.output.with_name(f".{self.output.name}.parts")
        elif self.is_single:
            self.folder = self.output.parent
        else:
            if not is_folder or self.output.is_file():
                raise ValueError(
                    f"{text} looks like a file, but several alignments take a folder: name one with -o, without an "
                    "ending if it is new."
                )
            self.folder = self.output
        real = {Path(path).resolve() for path in read if path is not None}
        if any(self.target(path).resolve() in real for path in self.paths):
            raise ValueError(f"{text} has files that are read, and would be replaced: name another place with -o.")
        self._record = self.folder / f".msa-{command}.json"
        self.pending = self._find_pending()

    def target(self, path: Path) -> Path:
        """File of an alignment's result."""
        return self.output if self.is_single else self.folder / f"{name_of(path)}{self.suffix}"

    def _find_pending(self) -> list[Path]:
        """What is left to do; nothing is changed yet."""
        if self.is_single:
            return list(self.paths)
        for other in self.folder.glob(".msa-*.json"):
            if other != self._record and json.loads(other.read_text())["suffix"] == self.suffix:
                raise ValueError(
                    f"{self.output} has results of another command, by the same names: name another place."
                )
        old = self._recorded()
        there = [path for path in self.paths if self.target(path).exists()]
        if self._overwrite:
            return list(self.paths)
        if old is None and there:
            raise ValueError(
                f"{self.target(there[0])} is there, and no run of msa {self.command} over a folder has made it: name "
                "another place, or say --overwrite."
            )
        if old not in (None, self._settings):
            other_keys = sorted(key for key in old | self._settings if old.get(key) != self._settings.get(key))
            shown = ", ".join(f"{key} {old.get(key)}, now {self._settings.get(key)}" for key in other_keys)
            raise ValueError(
                f"{self.output} has results of other settings ({shown}): name another place, or say --overwrite."
            )
        return [path for path in self.paths if not self._is_made(path)]

    def _recorded(self) -> dict[str, Any] | None:
        """Settings of the results that are there; None if no run has made any."""
        return json.loads(self._record.read_text()) if self._record.is_file() else None

    def _is_made(self, path: Path) -> bool:
        """Whether the target is younger than what it is made of, and than the record of the settings."""
        older = [*self._sources[path], self._record]
        target = self.target(path)
        return target.exists() and target.stat().st_mtime_ns >= max(each.stat().st_mtime_ns for each in older)

    def _make_ready(self) -> None:
        wait_for_everyone()  # all processes have seen what is pending, the same in each
        if is_main_process():
            self.folder.mkdir(exist_ok=True)
            if self._overwrite:  # if this run is cut, the next one must not take them for its own
                for path in self.pending:
                    self.target(path).unlink(missing_ok=True)
            _remove_remains(self.folder, [name_of(path) for path in self.pending])
            if self._recorded() != self._settings:
                with whole_file(self._record) as temporary:
                    temporary.write_text(json.dumps(self._settings, indent=1, sort_keys=True) + "\n")
        wait_for_everyone()

    def __call__(self, work: Callable[[Path, Path], str | None]) -> None:
        """Do what is pending.

        Parameters
        ----------
        work : callable
            ``work(path, target)`` makes the target, whole, and returns a line to show, or None. It is not called for
            what is done; load the model only ``if run.pending``.

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
                    bar.write(f"failed: {path}: {_without(path, failed[path])}", file=sys.stderr)
                except KeyboardInterrupt:
                    done = sum(map(self._is_made, self.paths))
                    bar.write(f"stopped: {done} of {len(self.paths)} done, the same command goes on", file=sys.stderr)
                    raise
                else:
                    if line:
                        bar.write(line)
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
        note = f", {before} of them before" if before else ""
        print(f"{self.output}: {len(self.paths)} alignment{'s' * (len(self.paths) > 1)}{note}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def is_of_the_input(error: Exception) -> bool:
    """Whether the user can mend it by another input, or a smaller one; otherwise it is a bug, or the disk is full."""
    if isinstance(error, OSError):
        return error.errno not in _NO_USE_GOING_ON
    if type(error) is RuntimeError:  # torch's CPU allocator raises it; another one is a bug
        return "memory" in str(error)
    return isinstance(error, ValueError | MemoryError | torch.OutOfMemoryError)


def _without(path: Path, message: str) -> str:
    """Leave out the file's name where a message begins with it."""
    return message.removeprefix(f"{path}").lstrip(":, ") if message.startswith(f"{path}") else message


def _remove_remains(folder: Path, names: Sequence[str]) -> None:
    """Remove what a killed process was writing (`whole_file`) of these alignments."""
    for path in folder.iterdir():
        match = re.fullmatch(r"\.(\d+)\.(.+)", path.name)
        if match and any(match[2].startswith(f"{name}.") for name in names):
            try:
                os.kill(int(match[1]), 0)
            except ProcessLookupError:
                path.unlink(missing_ok=True)
            except OSError:
                pass  # alive, and another's
