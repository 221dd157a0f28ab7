"""The ``msa`` command: arguments in, task functions called."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import typer

from . import contacts as cli_contacts
from .convert import convert_command
from .distances import distances_command, fit_distances_command
from .embed import embed_command
from .export import export_command
from .generate import generate_command
from .pack import pack_command
from .push import push_command
from .score import score_command
from .search import search_command
from .train import train_command

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


app.command("convert")(convert_command)
app.command("pack")(pack_command)
app.command(
    "train",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    short_help="Train by a recipe: pretraining or fine-tuning.",
)(train_command)
