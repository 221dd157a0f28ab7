"""The command ``msa push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import errors_in_words
from .inputs import require
from .options import flag, option
from .session import start_torch


@errors_in_words()
def push_command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Model that was converted, trained, or saved with its tokenizer.")
    ],
    repo_id: Annotated[
        str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME on the Hub; created if it does not exist.")
    ],
    private: Annotated[bool, flag("--private", "Create a private repository.")] = False,
    revision: Annotated[str | None, option("BRANCH", "Branch; created if it does not exist. Default: main.")] = None,
    include: Annotated[
        list[str] | None,
        option(
            "PATTERN",
            "Further files to upload: a path, or a pattern such as 'figures/*.png'; repeatable.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, flag("--dry-run", "Show the files, their sizes and the model card; upload nothing.")
    ] = False,
) -> None:
    """Upload a folder to the Hub in one commit, after checking that it is complete.

    The folder must have code, weights, tokenizer, card and licence. Only these are uploaded; other files are listed,
    and --include uploads them. Secrets, pickles and hidden files must be named exactly. After a failure, the same
    command uploads only what has not arrived.

    Example: msa push msa1b me/msa1b --private
    """
    require(folder)
    from ..hub.errors import check_repo_id  # imports huggingface_hub

    check_repo_id(repo_id)
    start_torch()
    from ..hub.pushing import plan_upload, send

    upload = plan_upload(folder, repo_id, include or ())
    typer.echo(upload)
    if dry_run:
        typer.echo(f"\n{upload.card}")
        return
    typer.echo(f"\nuploaded   {send(upload, private=private or None, revision=revision)}")
