"""The command ``msa fit-contacts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._files import require_new_folder
from .._processes import is_main_process
from .._words import counted
from ..hub.finding import find_model
from .inputs import list_known
from .options import Families, Structures, option, output_option
from .session import Session, command, start_torch


@command("dtype", "input_format", "chains", "strict", "overwrite")
def fit_contacts_command(
    families: Families,
    output_dir: Annotated[Path, output_option("FOLDER", "Folder of the new model; new or empty.")],
    session: Session,
    structures: Structures = None,
    regularization: Annotated[float, option("C", "Inverse of the strength of the L1 penalty.", min=0)] = 0.15,
) -> None:
    """Fit a model's contact regression on families of known structure, and save a new folder.

    All other weights stay the same. This is the L1-regularized logistic regression of the paper, which used 20
    families. Precision on the families of the fit is too optimistic: measure it on others. Complexes are not read,
    and a query that is longer than the model reads is refused.

    Example: msa fit-contacts families.tsv --model msa-small -o msa-refitted
    """
    listed = list_known(families, structures)
    require_new_folder(output_dir)
    find_model(session.model)
    if not is_main_process():
        return
    start_torch()
    from ..hub.contact_fitting import fit_contacts

    choice = session.row_options()
    report = fit_contacts(
        listed, session.model, output_dir, regularization=regularization, device=session.device, **choice
    )
    typer.echo(
        f"{output_dir}: {counted(report.examples, 'family')}, {report.pairs:,} pairs, {report.positives:,} contacts; "
        f"{report.nonzero} of {report.weights} maps count; P@L on these same families {report.precision:.3f}"
    )
