"""The command ``msa convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..hub.conversion import convert_checkpoint, revert_checkpoint
from ..hub.pushing import push_folder, require_login
from .options import errors_in_words


def convert_command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="fair-esm file (.pt), or a published name, which is downloaded: esm_msa1b_t12_100M_UR50S, "
            "esm_msa1_t12_100M_UR50S. With --reverse: a folder or Hub id."
        ),
    ],
    output_dir: Annotated[
        Path, typer.Argument(help="Folder to make; it must be empty or new. With --reverse: NAME.pt, or a folder.")
    ],
    contact_regression: Annotated[
        Path | None, typer.Option(help="Default: <stem>-contact-regression.pt beside the checkpoint.")
    ] = None,
    attention_heads: Annotated[
        int | None, typer.Option(min=1, help="Only for a bare state dict without contact regression.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Licence of the weights, for the card. Default: mit for the published ones.")
    ] = None,
    push_to_hub: Annotated[str | None, typer.Option(metavar="REPO_ID", help="Upload the folder too.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", help="Write files that fair-esm loads.")] = False,
) -> None:
    """Convert a fair-esm checkpoint of the MSA Transformer into a Hugging Face folder, or back.

    The folder holds config, tokenizer, weights, the model's code and a card: AutoModel.from_pretrained(folder,
    trust_remote_code=True) needs nothing else. The weights are read back and compared before the folder appears.

    Example: python convert_checkpoint.py esm_msa1b_t12_100M_UR50S msa1b
    """
    with errors_in_words():
        if reverse:
            if push_to_hub or contact_regression:
                raise ValueError("--reverse goes with neither --push-to-hub nor --contact-regression.")
            typer.echo(revert_checkpoint(checkpoint, output_dir))
            return
        if push_to_hub:
            require_login()
        report = convert_checkpoint(
            checkpoint, output_dir, contact_regression, attention_heads, model_id=push_to_hub, license=license
        )
        typer.echo(report)
        if push_to_hub:
            typer.echo(f"uploaded   {push_folder(output_dir, push_to_hub)}")
