"""The command ``msa train``."""

from __future__ import annotations

import typer

from .._processes import is_main_process, leave_processes
from ..training.shipped import find_recipe
from .errors import errors_in_words
from .session import start_torch


def train_command(context: typer.Context) -> None:
    """Train by a recipe; `modeling_msa.training.help.help_text` is its help."""
    if not context.args or {"--help", "-h"} & set(context.args):
        from ..training.help import help_text

        typer.echo(help_text())
        return
    with errors_in_words():
        recipe = find_recipe(context.args[0])
        start_torch()
        from ..training.train import train

        report = train(recipe, context.args[1:])
        leave_processes()
        if is_main_process():
            typer.echo(report)
