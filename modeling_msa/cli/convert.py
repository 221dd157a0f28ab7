"""The command ``msa convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..hub.finding import check_checkpoint, find_model
from .errors import errors_in_words
from .inputs import require
from .options import flag, option
from .session import start_torch


@errors_in_words()
def convert_command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="fair-esm file (.pt), or the name of a published checkpoint to download: esm_msa1b_t12_100M_UR50S or "
            "esm_msa1_t12_100M_UR50S. With --reverse: folder or Hub id of a model.",
        ),
    ],
    output_dir: Annotated[
        Path,
        typer.Argument(
            metavar="OUTPUT",
            help="Output folder, new or empty. With --reverse: output file (.pt), or a folder for it.",
        ),
    ],
    contact_regression: Annotated[
        Path | None, option("FILE", "Contact regression. Default: NAME-contact-regression.pt beside the checkpoint.")
    ] = None,
    attention_heads: Annotated[
        int | None, option("N", "Attention heads; only for a bare state dict without contact regression.", min=1)
    ] = None,
    license: Annotated[
        str | None, option("LICENCE", "Licence for the model card. Default: mit for published checkpoints.")
    ] = None,
    push_to_hub: Annotated[str | None, option("REPO_ID", "Also upload the folder to the Hub.")] = None,
    reverse: Annotated[bool, flag("--reverse", "Convert a model back, into files that fair-esm loads.")] = False,
) -> None:
    """Convert a fair-esm checkpoint of the MSA Transformer into a Hugging Face folder, or back.

    The folder has config, tokenizer, weights, the model's code and a model card: AutoModel.from_pretrained(folder,
    trust_remote_code=True) requires nothing else. The weights are read back and compared before the folder appears.

    Example: msa convert esm_msa1b_t12_100M_UR50S msa1b
    """
    if reverse and (push_to_hub or contact_regression):
        raise ValueError("--push-to-hub and --contact-regression cannot be used with --reverse.")
    if reverse:
        find_model(checkpoint)
    elif Path(checkpoint).is_dir():
        raise ValueError(f"{checkpoint} is a folder. To convert a model into fair-esm's files, pass --reverse.")
    else:
        check_checkpoint(checkpoint)
    require(contact_regression)
    start_torch()
    from ..hub.conversion import convert_checkpoint, revert_checkpoint
    from ..hub.pushing import push_folder, require_login

    if reverse:
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
