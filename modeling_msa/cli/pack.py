"""The command ``msa pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..alignments.bundled import find_bundled
from .errors import errors_in_words
from .inputs import require
from .options import InputFormat, option
from .session import start_torch


@errors_in_words()
def pack_command(
    source: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Folder of alignments, list with one path per line (.txt), or files."),
    ],
    output_dir: Annotated[Path, option("FOLDER", "Folder of the shards.", None, "--output-dir", "-o")],
    format: Annotated[Literal["parquet", "webdataset"], option(None, "Format of the shards.")] = "parquet",
    rows_per_shard: Annotated[int, option("N", "Number of alignments per shard.", min=1)] = 500,
    input_format: InputFormat = None,
    on_error: Annotated[
        Literal["raise", "skip"], option(None, "At a file that cannot be read, stop or leave it out.")
    ] = "raise",
    workers: Annotated[int, option("N", "Number of processes that read alignments.", min=0)] = 0,
) -> None:
    """Pack a folder of alignments into shards, which training reads as a stream.

    After an interruption, the same command continues where it stopped. For training, make at least as many shards as
    there are processes times data-loading workers. Training reads the chains of a complex side by side, as one
    protein.

    Example: msa pack families/ -o shards/
    """
    sources = [find_bundled(each) or Path(each) for each in source]
    require(*sources)
    start_torch()
    from ..training.packing import pack_alignments

    report = pack_alignments(
        sources[0] if len(sources) == 1 else sources,
        output_dir,
        format,
        rows_per_shard=rows_per_shard,
        input_format=input_format,
        on_error=on_error,
        workers=workers,
    )
    typer.echo(report)
