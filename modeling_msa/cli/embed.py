"""The command ``msa embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..alignments.listing import name_of
from ..alignments.reading import read_alignment
from ..hub.finding import EMBEDDED
from ..tasks.embeddings import _version, check_embeddings, embed, gather_embeddings, resolve_layers, write_embeddings
from .options import (
    Device,
    DType,
    FilterCoverage,
    FilterIdentity,
    InputFormat,
    Inputs,
    ModelName,
    Overwrite,
    Rows,
    Seed,
    Select,
    Strict,
    errors_in_words,
    load,
    settings_of,
)
from .runs import Run


def embed_command(
    alignments: Inputs,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="One file for all: NAME.safetensors, .npz or .parquet. Or a folder for a file each.",
            show_default=False,
        ),
    ],
    model: ModelName = EMBEDDED,
    which: Annotated[
        Literal["query", "mean", "rows"],
        typer.Option(help="The query's residues (L, D), their mean (D), or all rows (R, L, D)."),
    ] = "query",
    layers: Annotated[
        str, typer.Option(help="0 (the embedding layer) to the last, -1; several as 0,6,12; or all.")
    ] = "-1",
    output_dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Of what is written.")] = "float32",
    format: Annotated[
        Literal["safetensors", "npz", "parquet"], typer.Option(help="Of the files in a folder.")
    ] = "safetensors",
    rows: Rows = 128,
    select: Select = "diverse",
    seed: Seed = 0,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    device: Device = "auto",
    dtype: DType = "auto",
    input_format: InputFormat = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
) -> None:
    """Write hidden states of alignments: features of residues or families for other models.

    An array is found under its alignment's file name without ending; with several layers as NAME/layer_6. Residues
    that the alignment has no column for are left out; the file's metadata say which are there, and which model, rows
    and layers it is.

    Example: msa embed fn3 -o embeddings.safetensors
    """
    with errors_in_words():
        chosen = parse_layers(layers)
        in_one_file = not output.is_dir() and output.suffix != ""
        suffix = check_embeddings(output) if in_one_file else check_embeddings(f"x.{format}")
        settings = settings_of(
            model=model,
            dtype=dtype,
            which=which,
            layers=layers,
            output_dtype=output_dtype,
            rows=rows,
            select=select,
            seed=seed,
            filter_coverage=filter_coverage,
            filter_identity=filter_identity,
            input_format=input_format,
            version=_version(),  # stands in the files, which are one set
        )
        run = Run(
            alignments,
            output if in_one_file else f"{output}/",
            suffix,
            command="embed",
            settings=settings,
            strict=strict,
            overwrite=overwrite,
            gather=gather_embeddings if in_one_file else None,
        )
        loaded = load(run, model, device, dtype)
        if loaded is not None and chosen is not None:  # once, not for each alignment
            resolve_layers(chosen, loaded.config.num_hidden_layers)

        def work(path: Path, target: Path) -> str:
            assert loaded is not None
            family = read_alignment(path, input_format)
            result = embed(
                family,
                loaded,
                which=which,
                layers=range(loaded.config.num_hidden_layers + 1) if chosen is None else chosen,
                rows=rows,
                select=select,
                seed=seed,
                coverage=filter_coverage,
                identity=filter_identity,
                dtype=output_dtype,
            )
            write_embeddings({name_of(path): result}, target)
            return f"{name_of(path)}: {len(result.residues)} residues, {result.depth} of {family.depth} rows"

        run(work)


def parse_layers(text: str) -> list[int] | None:
    """Read a list of layers; None means all.

    Examples
    --------
    >>> parse_layers("0, 6,-1"), parse_layers("all")
    ([0, 6, -1], None)
    """
    if text.strip() == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--layers is {text!r}; write numbers such as 0,6,-1, or all.") from None
