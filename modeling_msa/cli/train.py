"""The command ``msa train``."""

from __future__ import annotations

import os

import typer

from .._processes import leave_processes
from .options import errors_in_words


def train_command(context: typer.Context) -> None:
    """Train by a recipe; `modeling_msa.training.recipes.help_text` is its help."""
    from ..training.recipes import help_text  # the Trainer takes seconds to import

    if not context.args or "--help" in context.args:
        typer.echo(help_text())
        return
    with errors_in_words():
        from ..training.training import train as train_by_recipe

        report = train_by_recipe(context.args[0], context.args[1:])
        leave_processes()
        if os.environ.get("RANK", "0") == "0":
            typer.echo(report)
