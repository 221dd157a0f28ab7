"""The command ``msa export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .._files import check_ending
from ..hub.finding import find_model
from .errors import errors_in_words
from .options import ModelArgument, flag, option, output_option
from .session import start_torch


@errors_in_words()
def export_command(
    model: ModelArgument,
    output: Annotated[Path, output_option("FILE", "Output file (.onnx).")],
    task: Annotated[
        Literal["contacts", "logits", "embeddings"],
        option(None, "Contact probabilities, output of the model's own head, or last hidden state."),
    ] = "contacts",
    external_data: Annotated[
        bool, flag("--external-data", "Write the weights to a file of their own, NAME.onnx.data.")
    ] = False,
) -> None:
    """Write a model as an ONNX file, for programs without Python and alignments of any size.

    The file's results are compared with the model's before it appears. Requires the packages of the extra export: pip
    install 'modeling-msa[export]'.

    Example: msa export msa-small -o contacts.onnx
    """
    check_ending(output, (".onnx",))
    find_model(model)
    start_torch()
    from ..hub.exporting import check_export, export_onnx
    from ..hub.loading import load_model, saved_class
    from ..modeling_msa_transformer import MsaModel

    check_export(output)
    cls = saved_class(model) if task == "logits" else MsaModel
    typer.echo(export_onnx(load_model(model, "cpu", "float32", cls=cls), output, task, external_data=external_data))
