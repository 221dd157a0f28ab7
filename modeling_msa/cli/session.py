"""What the commands that run a model share: their common options, the settings of a run, and the model.

torch and transformers take seconds to import: `start_torch` does it, where a model is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

import typer

from .._processes import is_main_process
from ..alignments.alignment import Alignment
from ..alignments.bundled import find_bundled
from ..alignments.chains import as_chains
from ..alignments.listing import name_of
from ..alignments.reading import read_alignment
from ..hub.finding import EMBEDDED, EMBEDDED_NOTES, fetch_model, find_model, model_files
from . import options
from .errors import errors_in_words
from .runs import Run

_ROWS = ("rows", "select", "seed", "filter_coverage", "filter_identity")


@dataclasses.dataclass
class Torch:
    """How torch is to work in this process; None leaves the number of threads to torch."""

    threads: int | None = None
    matmul_precision: str = "highest"


TORCH = Torch()


def limit_threads(threads: int) -> None:
    """Limit the threads of libraries that are loaded later (OpenMP, MKL) and, with threadpoolctl, of NumPy's BLAS."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    with suppress(ImportError):  # comes with scikit-learn
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)


def start_torch() -> None:
    """Import torch and transformers, and set them up as the command line asks."""
    import torch

    from ..hub.loading import quiet_loading
    from ..hub.registration import register

    if TORCH.threads is not None:
        torch.set_num_threads(TORCH.threads)
    torch.set_float32_matmul_precision(TORCH.matmul_precision)
    quiet_loading()
    register()


@dataclasses.dataclass
class Session:
    """The common options of a command, and what follows from them."""

    rows: options.Rows = 128
    select: options.Select = "diverse"
    seed: options.Seed = 0
    filter_coverage: options.FilterCoverage = None
    filter_identity: options.FilterIdentity = None
    model: options.ModelName = EMBEDDED
    device: options.Device = "auto"
    dtype: options.DType = "auto"
    input_format: options.InputFormat = None
    chains: options.Chains = None
    strict: options.Strict = False
    overwrite: options.Overwrite = False

    revision = "main"  # not an option: the commit of a repository on the Hub, once `model_files` has fetched it

    def row_options(self) -> dict[str, Any]:
        """Return the options that choose rows, as arguments of the tasks."""
        return {name.removeprefix("filter_"): getattr(self, name) for name in _ROWS}

    def read(self, path: Path) -> Alignment:
        """Read an alignment with the format and chains that were asked for; says so if it has one row."""
        alignment = read_alignment(path, self.input_format, chains=self.chains_of(path))
        if alignment.depth == 1:
            words = "has a single row; the model relies on homologs, so expect little of the result"
            typer.secho(f"note: {path}: {words}", err=True, dim=True)
        return alignment

    @functools.cached_property
    def _chains(self) -> dict[str, str]:
        """Chains by the name of an alignment; those of all stand under ``""``."""
        if self.chains is None:
            return {}
        path = Path(self.chains)
        if not path.is_file():
            as_chains(self.chains, "--chains")
            return {"": self.chains}
        found = {}
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
            if line.strip() and not line.startswith("#"):
                name, _, chains = (each.strip() for each in line.partition("\t"))
                if not chains or name in found:
                    raise ValueError(f"{path}, line {number}: write the name of each alignment once, TAB, its chains.")
                as_chains(chains, f"{path}, line {number}")
                found[name] = chains
        return found

    def chains_of(self, path: Path) -> str | None:
        """Return what --chains says of an alignment; a table may name it with or without its endings."""
        return next((self._chains[name] for name in ("", name_of(path), path.name) if name in self._chains), None)

    def check_chains(self, paths: Iterable[Path]) -> None:
        """Raise ValueError if --chains is a table that has none of these alignments."""
        paths = list(paths)
        if self.chains is not None and all(self.chains_of(path) is None for path in paths):
            raise ValueError(
                f"{self.chains}: the table of chains has no alignment named {name_of(paths[0])}; correct the names, "
                "or leave out --chains."
            )

    def run(self, inputs: Any, output: Path | str, suffix: str, command: str, **more: Any) -> Run:
        """Set up the run of a command; for `more` see `Run`."""
        inputs = [find_bundled(each) or each for each in inputs]  # a folder fn3 must not make several of one
        files, depends = more.pop("made_from", {}), more.pop("depends", lambda path: {})
        if self.chains is not None:
            more["depends"] = lambda path: {**depends(path), "chains": self.chains_of(path) or "those of the file"}
        else:
            more["depends"] = depends
        more["made_from"] = lambda: files | {f"model's {name}": path for name, path in self.model_files().items()}
        run = Run(inputs, output, suffix, command=command, strict=self.strict, overwrite=self.overwrite, **more)
        self.check_chains(run.paths)
        return run

    def settings(self, **others: Any) -> dict[str, Any]:
        """Collect the options that results depend on.

        `others` are settings of the command; if ``rows`` is among them, so are all options that choose rows.
        """
        shared = ("dtype", "input_format") if "rows" in others else ("dtype", "input_format", *_ROWS)
        settings = {name: getattr(self, name) for name in shared} | others
        if TORCH.matmul_precision != "highest":
            settings["matmul_precision"] = TORCH.matmul_precision
        return settings

    def model_files(self) -> dict[str, Path]:
        """Return the files that decide what the model computes; those of a repository on the Hub are fetched."""
        name = find_model(self.model)
        if os.path.isdir(name):
            return model_files(name)
        folder = fetch_model(name)
        self.revision = folder.name
        return model_files(folder)

    def load(self, cls: str = "MsaModel") -> Any:
        """Load the model as this class, with a note on the embedded one."""
        start_torch()
        from .. import modeling_msa_transformer
        from ..hub.loading import load_model

        model_class = getattr(modeling_msa_transformer, cls)
        loaded = load_model(self.model, self.device, self.dtype, cls=model_class, revision=self.revision)
        if (note := EMBEDDED_NOTES.get(self.model)) and is_main_process():
            typer.secho(f"note: {note}", err=True, dim=True)
        return loaded

    def model_of(
        self, run: Run, cls: str = "MsaModel", check: Callable[[Any], object] = lambda model: None
    ) -> Callable[[], Any]:
        """Return a function that gives a run's model, loaded once and passed by `check`.

        A single alignment is read first; before several are, the model is loaded.
        """

        @functools.cache
        def model() -> Any:
            loaded = self.load(cls)
            check(loaded)
            return loaded

        if run.pending and not run.is_single:
            model()
        return model


def command(*without: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function: its parameter ``session`` becomes the options of `Session`, its errors words.

    Options in `without` are left out; `defaults` replace those of `Session`.
    """
    hints = get_type_hints(Session, include_extras=True)
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(each.name, kind, default=defaults.get(each.name, each.default), annotation=hints[each.name])
        for each in dataclasses.fields(Session)
        if each.name not in without
    ]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters.values()
        parameters = [*(each for each in own if each.name != "session"), *shared]

        @functools.wraps(function)
        @errors_in_words()
        def wrapper(**values: Any) -> None:
            session = Session(**{each.name: values.pop(each.name) for each in shared})
            function(session=session, **values)

        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        return wrapper

    return decorate
