"""The command ``msa push``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..hub.pushing import plan_upload, send
from .options import errors_in_words


def push_command(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A model: converted, trained, or saved with its tokenizer.")
    ],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME on the Hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
    revision: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="Branch; made if it is not there. Default: main.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the files, their sizes and the card, and send nothing.")
    ] = False,
) -> None:
    """Upload a folder to the Hub, in one commit, after checking that nothing is missing.

    Code, weights, tokenizer, card and licence must be there. Checkpoints, states of training and pickles are left
    out. Pushing again after a failure sends only what has not arrived.

    Example: msa push msa1b me/msa1b --private
    """
    with errors_in_words():
        upload = plan_upload(folder, repo_id)
        typer.echo(upload)
        if dry_run:
            typer.echo(f"\n{upload.card}")
            return
        typer.echo(f"\nuploaded   {send(upload, private=private or None, revision=revision)}")
