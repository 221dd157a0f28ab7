"""The command ``msa export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..hub.loading import load_model, saved_class
from ..modeling_msa_transformer import MsaModel
from .options import errors_in_words


def export_command(
    model: Annotated[
        str, typer.Argument(help="Folder or Hub id of a model; msa-tiny, a small one, comes with the package.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write: NAME.onnx.", show_default=False)],
    task: Annotated[
        Literal["contacts", "logits", "embeddings"],
        typer.Option(help="Contact probabilities, what the model's own head gives, or the last hidden state."),
    ] = "contacts",
    external_data: Annotated[
        bool, typer.Option("--external-data", help="Write the weights to NAME.onnx.data, beside the file.")
    ] = False,
) -> None:
    """Write a model as an ONNX file, for MSAs of any size and programs without Python.

    The file is compared with the model before it appears. Takes the packages of the extra `export`: pip install
    'modeling-msa[export]'.

    Example: msa export msa-tiny -o contacts.onnx
    """
    with errors_in_words():
        from ..hub.exporting import check_export, export_onnx

        check_export(output)
        cls = saved_class(model) if task == "logits" else MsaModel
        report = export_onnx(load_model(model, "cpu", "float32", cls=cls), output, task, external_data=external_data)
        typer.echo(report)
