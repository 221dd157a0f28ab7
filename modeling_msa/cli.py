"""The ``msa`` command: arguments in, task functions called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

from . import cli_contacts
from .cli_distances import distances_command, fit_distances_command
from .cli_embed import embed_command
from .cli_export import export_command
from .cli_generate import generate_command
from .cli_push import push_command
from .cli_score import score_command
from .cli_search import search_command
from .conversion import convert_checkpoint, revert_checkpoint
from .options import errors_in_words
from .runs import leave_processes
from .sharing import push_folder, require_login

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",  # paragraphs are wrapped anew, and [extra] is no mark-up
    pretty_exceptions_enable=False,
)


@app.callback()
def main(
    matmul_precision: Annotated[
        Literal["highest", "high", "medium"],
        typer.Option(
            help="Of float32 matrix products, as torch.set_float32_matmul_precision: the lower, the faster on some "
            "hardware; medium suits AMD's CPUs with AVX-512."
        ),
    ] = "highest",
) -> None:
    """MSA Transformer: a protein language model that reads whole alignments."""
    torch.set_float32_matmul_precision(matmul_precision)


app.command("contacts")(cli_contacts.contacts)
app.command("evaluate-contacts")(cli_contacts.evaluate)
app.command("fit-contacts")(cli_contacts.fit)
app.command("score")(score_command)
app.command("embed")(embed_command)
app.command("generate")(generate_command)
app.command("distances")(distances_command)
app.command("fit-distances")(fit_distances_command)
app.command("search")(search_command)
app.command("export")(export_command)
app.command("push")(push_command)


@app.command()
def convert(
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


@app.command()
def pack(
    source: Annotated[list[Path], typer.Argument(help="Folder of alignments, a list file, or files.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder of the shards.")],
    format: Annotated[Literal["parquet", "webdataset"], typer.Option(help="Of the shards.")] = "parquet",
    rows_per_shard: Annotated[int, typer.Option(min=1, help="Alignments in a shard.")] = 500,
    input_format: Annotated[
        Literal["a3m", "a2m", "fasta", "stockholm"] | None, typer.Option(help="Default: by the files' endings.")
    ] = None,
    on_error: Annotated[Literal["raise", "skip"], typer.Option(help="What an unreadable file does.")] = "raise",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read.")] = 0,
) -> None:
    """Pack a folder of alignments into shards, which training reads as a stream.

    A call that was interrupted is gone on with. Have at least as many shards as processes times workers.

    Example: msa pack families/ -o shards/
    """
    with errors_in_words():
        from .data import pack_alignments  # takes an extra

        paths = source[0] if len(source) == 1 else source
        report = pack_alignments(
            paths,
            output_dir,
            format,
            rows_per_shard=rows_per_shard,
            input_format=input_format,
            on_error=on_error,
            workers=workers,
        )
        typer.echo(report)


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    short_help="Train by a recipe: pretraining or fine-tuning.",
)
def train(context: typer.Context) -> None:
    """Train by a recipe; `modeling_msa.recipes.help_text` is its help."""
    from .recipes import help_text  # the Trainer takes seconds to import

    if not context.args or "--help" in context.args:
        typer.echo(help_text())
        return
    with errors_in_words():
        from .training import train as train_by_recipe

        report = train_by_recipe(context.args[0], context.args[1:])
        leave_processes()
        if os.environ.get("RANK", "0") == "0":
            typer.echo(report)


if __name__ == "__main__":
    app()
