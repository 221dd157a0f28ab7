"""The command ``msa pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import errors_in_words


def pack_command(
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
        from ..training.streaming import pack_alignments  # takes an extra

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
