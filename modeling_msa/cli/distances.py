"""The commands ``msa distances`` and ``msa fit-distances``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .._files import check_output
from .._processes import is_main_process
from ..alignments.alignment import Alignment
from ..alignments.reading import read_alignment
from ..hub.loading import EMBEDDED, find_distance_weights, load_model
from ..tasks.distances import (
    DistanceModel,
    Distances,
    check_distances,
    fit_distances,
    predict_distances,
    write_distances,
)
from ..tasks.plotting import plot_distances
from .options import (
    Device,
    DType,
    FilterCoverage,
    FilterIdentity,
    InputFormat,
    Inputs,
    ModelName,
    Output,
    Overwrite,
    Plot,
    Rows,
    Seed,
    Select,
    Strict,
    errors_in_words,
    load,
    pictures,
    settings_of,
)
from .runs import Run, list_inputs


def distances_command(
    alignments: Inputs,
    output: Output,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights of the heads, from msa fit-distances. Default: distances.json in the model's folder; if "
            "there is none, they are fitted on 70% of the alignment's own rows.",
            show_default=False,
        ),
    ] = None,
    model: ModelName = EMBEDDED,
    format: Annotated[
        Literal["phy", "tsv", "npz"],
        typer.Option(
            help="Of the files in a folder: PHYLIP matrix, table of pairs with Hamming distances, or arrays."
        ),
    ] = "phy",
    names: Annotated[
        Literal["relaxed", "strict"], typer.Option(help="In PHYLIP files: whole first words, or 10 characters.")
    ] = "relaxed",
    plot: Plot = None,
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
    """Predict distances between the rows of alignments from column attention.

    OUT.phy is a matrix for tree builders, OUT.tsv a table of pairs with Hamming distances beside, OUT.npz all arrays;
    rows are in the order of the file. R2 and Pearson's r, to Hamming distances, are those of rows that the weights
    were not fitted on.

    Example: msa distances fn3 -o fn3.phy
    """
    with errors_in_words():
        found = weights or find_distance_weights(model)
        fitted = None if found is None else DistanceModel.load(found)
        settings = settings_of(
            model=model,
            dtype=dtype,
            heads=None if fitted is None else [str(found), fitted.intercept],
            names=names,
            rows=rows,
            select=select,
            seed=seed,
            filter_coverage=filter_coverage,
            filter_identity=filter_identity,
            input_format=input_format,
            plot=plot,
        )
        run = Run(
            alignments,
            output,
            f".{format}",
            command="distances",
            settings=settings,
            strict=strict,
            overwrite=overwrite,
            also_read=[weights],
        )
        if run.is_single:
            check_distances(output)
        picture = pictures(plot, run) if plot is not None else None
        loaded = load(run, model, device, dtype)
        if loaded is not None and fitted is not None:
            fitted.check(loaded)

        def work(path: Path, target: Path) -> str:
            assert loaded is not None
            family = read_alignment(path, input_format)
            result = predict_distances(family, loaded, fitted, rows, select, seed, filter_coverage, filter_identity)
            if picture is not None:
                plot_distances(result, picture(target))
            write_distances(result, target, names)
            return f"{target}: {len(result.names)} of {family.depth} rows, {summary(result)}"

        run(work)


def summary(result: Distances) -> str:
    """Say how the distances came about, and how good they are."""
    judged = int((~result.fitted).sum())
    how = f"fitted on {result.origin}; on the other {judged}" if result.fitted.any() else f"fitted on {result.origin}:"
    return (
        f"{how} R2 {result.r2:.2f} ({result.r2_with_diagonal:.2f} with the diagonal, as the paper counts), "
        f"Pearson {result.pearson:.2f}"
    )


def fit_distances_command(
    alignments: Inputs,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON file to write; see msa distances.", show_default=False)
    ],
    model: ModelName = EMBEDDED,
    diagonal: Annotated[
        bool, typer.Option("--diagonal", help="Fit each row's distance 0 to itself too, as the paper's authors do.")
    ] = False,
    rows: Rows = 128,
    select: Select = "diverse",
    seed: Seed = 0,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    device: Device = "auto",
    dtype: DType = "auto",
    input_format: InputFormat = None,
) -> None:
    """Fit the weights of msa distances, on the Hamming distances of some families.

    A logistic model with a weight for each head (Lupo, Sgarbossa and Bitbol, 2022). The authors take 12
    families. As distances.json in the model's folder it is found there.

    Example: msa fit-distances fn3 -o distances.json
    """
    with errors_in_words():
        paths = list_inputs(alignments)
        check_output(output, paths)
        if not is_main_process():
            return
        families = _read_all(paths, input_format)
        result = fit_distances(
            families,
            load_model(model, device, dtype),
            rows,
            select,
            seed,
            filter_coverage,
            filter_identity,
            name=Path(model).name if Path(model).exists() else model,
            diagonal=diagonal,
        )
        result.save(output)
        typer.echo(
            f"{output}: {result.weights.size} weights for {result.model}, fitted on {result.pairs} pairs of rows of "
            f"{len(families)} families; R2 on these {result.r2:.2f}"
        )


def _read_all(paths: list[Path], format: str | None) -> list[Alignment]:
    """Read the families of a fit; all that cannot be read are named at once."""
    families, wrong = [], []
    for path in paths:
        try:
            families.append(read_alignment(path, format))
        except (ValueError, OSError) as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(f"{len(wrong)} of {len(paths)} alignments cannot be read:\n  " + "\n  ".join(wrong))
    return families
