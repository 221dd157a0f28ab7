"""The command ``msa``: global options, and one module per subcommand."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer

from .._version import __version__
from ..alignments.reading import LIMIT_VARIABLE
from .contacts import contacts_command
from .convert import convert_command
from .distances import distances_command
from .embed import embed_command
from .evaluate_contacts import evaluate_contacts_command
from .export import export_command
from .fit_contacts import fit_contacts_command
from .fit_distances import fit_distances_command
from .fit_fitness import fit_fitness_command
from .generate import generate_command
from .info import info_command
from .jacobian import jacobian_command
from .options import option
from .pack import pack_command
from .pair import pair_command
from .predict import predict_command
from .profile import profile_command
from .proteingym import proteingym_command
from .push import push_command
from .report import report_command
from .score import score_command
from .search import search_command
from .session import TORCH, limit_threads
from .train import train_command

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
    rich_markup_mode="markdown",  # paragraphs are wrapped anew, and [extra] is not markup
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"modeling-msa {__version__}")
        raise typer.Exit


@app.callback()
def main(
    threads: Annotated[
        int | None,
        option("N", "Number of CPU threads. Default: all cores. 1 is often the fastest on a busy machine.", min=1),
    ] = None,
    matmul_precision: Annotated[
        Literal["highest", "high", "medium"],
        option(
            None,
            "Precision of float32 matrix products, as in torch.set_float32_matmul_precision: lower is faster "
            "on some hardware, such as GPUs with TF32, or AMD CPUs with AVX-512 (medium).",
        ),
    ] = "highest",
    max_megabytes: Annotated[
        float | None,
        option("N", "Maximum size of an alignment: text, decompressed. Default: 250, which take 1.5 GB.", min=0),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """MSA Transformer: a protein language model that reads whole alignments.

    These options go before the command: msa --threads 1 contacts fn3 -o contacts.tsv
    """
    TORCH.threads, TORCH.matmul_precision = threads, matmul_precision
    if max_megabytes is not None:
        os.environ[LIMIT_VARIABLE] = str(max_megabytes)  # also for processes that this one starts
    if threads is not None:
        limit_threads(threads)


app.command("info")(info_command)
app.command("report")(report_command)
app.command("contacts")(contacts_command)
app.command("evaluate-contacts")(evaluate_contacts_command)
app.command("fit-contacts")(fit_contacts_command)
app.command("score")(score_command)
app.command("fit-fitness")(fit_fitness_command)
app.command("profile")(profile_command)
app.command("jacobian")(jacobian_command)
app.command("proteingym")(proteingym_command)
app.command("embed")(embed_command)
app.command("generate")(generate_command)
app.command("distances")(distances_command)
app.command("fit-distances")(fit_distances_command)
app.command("predict")(predict_command)
app.command("search")(search_command)
app.command("pair")(pair_command)
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
