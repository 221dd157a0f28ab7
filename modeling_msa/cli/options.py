"""Options that the commands share, declared once."""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer

from .._files import check_output
from .._processes import is_main_process
from ..hub.finding import EMBEDDED, EMBEDDED_NOTE, resolve_model
from ..hub.loading import load_model, quiet_loading
from ..modeling_msa_transformer import MsaModel, MsaPreTrainedModel
from ..tasks.plotting import check_picture
from .runs import Run, is_of_the_input

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="ALIGNMENT",
        help="A3M, A2M, aligned FASTA or Stockholm, .gz and .xz too: files, folders, 'patterns*' or a list (.txt); "
        "fn3 is a family that comes with the package.",
        show_default=False,
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="File to write; a folder for several alignments.", show_default=False)
]
ModelName = Annotated[
    str, typer.Option("--model", help="Folder or Hub id of a model; msa-tiny, a small one, comes with the package.")
]
Rows = Annotated[int, typer.Option(min=1, help="Most rows of the alignment that the model sees.")]
Select = Annotated[Literal["first", "random", "diverse", "weighted"], typer.Option(help="Which rows.")]
Seed = Annotated[int, typer.Option(help="Of whatever is drawn at random.")]
FilterCoverage = Annotated[
    float | None,
    typer.Option(min=0, max=100, help="Leave out rows that cover less of the query, in percent.", show_default=False),
]
FilterIdentity = Annotated[
    float | None,
    typer.Option(min=0, max=100, help="Leave out rows more alike than this, in percent.", show_default=False),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
DType = Annotated[str, typer.Option(help="auto (as saved), float32, bfloat16 or float16.")]
InputFormat = Annotated[
    Literal["a3m", "a2m", "fasta", "stockholm"] | None,
    typer.Option("--input-format", help="Default: by the file's ending, or else its content.", show_default=False),
]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first alignment that fails.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Make again what an earlier run has made, with other settings perhaps.")
]
Plot = Annotated[
    str | None,
    typer.Option(
        metavar="PICTURE",
        help="Draw it as well: a file (.png, .pdf, .svg), for several alignments a folder; or only png, pdf or svg "
        "for a picture beside each output.",
        show_default=False,
    ),
]
_KINDS = ("png", "pdf", "svg")


def pictures(plot: str, run: Run) -> Callable[[Path], Path]:
    """Check what ``--plot`` says before work starts, and return the function from target to picture.

    Raises
    ------
    ImportError
        Without matplotlib.
    ValueError
        If no picture can be drawn there.
    """
    kind = plot.removeprefix(".")
    if kind in _KINDS:
        check_picture(f"x.{kind}")
        name = "" if run.is_single else f".{run.command}"  # other tasks' pictures may lie there too
        return lambda target: target.with_suffix(f"{name}.{kind}")
    path = Path(plot)
    if run.is_single:
        check_picture(path)
    elif path.suffix or path.is_file():
        raise ValueError(f"{plot} is one picture: name a folder, or say --plot png for one beside each output.")
    check_output(path)
    if run.is_single:
        return lambda target: path
    check_picture("x.png")

    def in_folder(target: Path) -> Path:
        path.mkdir(exist_ok=True)
        return path / f"{target.stem}.{run.command}.png"

    return in_folder


def settings_of(*, model: str, **settings: Any) -> dict[str, Any]:
    """Collect what a run's results depend on: all options, and the state of the model's files if it is a folder."""
    folder = Path(resolve_model(model))
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        settings["matmul_precision"] = precision
    return settings | {"model": model, "weights": f"{zlib.crc32(repr(states).encode()):08x}" if states else None}


def load(run: Run, model: str, device: str, dtype: str, cls: type[MsaPreTrainedModel] = MsaModel) -> Any:
    """Load a run's model, with a note on the embedded one; None if nothing is left to do."""
    if not run.pending:
        return None
    loaded = load_model(model, device, dtype, cls=cls)
    if model == EMBEDDED and is_main_process():
        typer.secho(f"note: {EMBEDDED_NOTE}", err=True, dim=True)
    return loaded


@contextmanager
def errors_in_words() -> Iterator[None]:
    """End with the error's words and exit code 1 where the user can mend it; a traceback means a bug."""
    quiet_loading()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: typer.secho(f"warning: {message}", err=True, fg="yellow")
            yield
    except (ValueError, OSError, ImportError, MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | RuntimeError) and not is_of_the_input(error):
            raise
        words = re.sub(r"say format='(\w+)'", r"say --input-format \1", str(error))
        typer.secho(f"error: {words}", err=True, fg="red")
        raise typer.Exit(1) from None
