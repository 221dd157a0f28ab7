"""The command ``msa fit-distances``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .._files import check_output
from .._processes import is_main_process
from .._words import counted
from ..alignments.alignment import Alignment
from ..hub.finding import find_model
from .inputs import list_inputs
from .options import Inputs, flag, output_option
from .session import Session, command, start_torch
from .windows import Overlap, Window, WindowOptions


@command("strict", "overwrite")
def fit_distances_command(
    alignments: Inputs,
    output: Annotated[Path, output_option("FILE", "Output file (.json), for msa distances.")],
    session: Session,
    diagonal: Annotated[
        bool, flag("--diagonal", "Also fit the distance 0 of each row to itself, as the paper's authors do.")
    ] = False,
    window: Window = None,
    overlap: Overlap = None,
) -> None:
    """Fit the weights of msa distances to the Hamming distances of some families.

    The weights are a logistic model with one weight per attention head (Lupo, Sgarbossa and Bitbol 2022, with 12
    families). A file named distances.json in the model's folder is found by msa distances.

    Example: msa fit-distances fn3 -o distances.json
    """
    windows = WindowOptions(window, overlap)
    paths = list_inputs(alignments)
    check_output(output, paths)
    session.check_chains(paths)
    model = session.model
    find_model(model)
    if not is_main_process():
        return
    families = _read_all(paths, session)
    start_torch()
    from ..hub.loading import load_model
    from ..tasks.distances import fit_distances

    name = Path(model).name if Path(model).exists() else model
    loaded: Any = load_model(model, session.device, session.dtype)
    more = session.row_options() | windows.of()
    result = fit_distances(families, loaded, name=name, diagonal=diagonal, **more)
    result.save(output)
    typer.echo(
        f"{output}: {result.weights.size} weights for {result.model}, fitted on {result.pairs:,} pairs of rows of "
        f"{counted(len(families), 'family')}; R2 on these {result.r2:.2f}"
    )


def _read_all(paths: list[Path], session: Session) -> list[Alignment]:
    """Read the families of a fit; one error names all that cannot be read."""
    families, wrong = [], []
    for path in paths:
        try:
            families.append(session.read(path))
        except (ValueError, OSError) as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(
            f"{len(wrong)} of {counted(len(paths), 'alignment')} cannot be read:\n  " + "\n  ".join(wrong)
        )
    return families
