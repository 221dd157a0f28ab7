"""The command ``msa distances``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from .._files import check_ending
from .._words import counted
from ..hub.finding import find_distance_weights, find_model
from ..tasks.distance_files import FORMATS, write_distances
from ..tasks.distance_model import DistanceModel, require_sklearn
from .inputs import require
from .options import Inputs, Output, Plot, choice, option
from .session import Session, command
from .windows import Overlap, Window, WindowOptions

if TYPE_CHECKING:
    from ..tasks.distances import Distances


@command()
def distances_command(
    alignments: Inputs,
    output: Output,
    session: Session,
    weights: Annotated[
        Path | None,
        option(
            "FILE",
            "Weights of the attention heads, from msa fit-distances. Default: distances.json in the model's folder; "
            "without it, weights fitted on 70% of the rows of each alignment.",
        ),
    ] = None,
    window: Window = None,
    overlap: Overlap = None,
    plot: Plot = None,
    format: Annotated[
        Literal["phy", "tsv", "npz"], choice("Files in a folder: PHYLIP matrix, table of pairs, or NumPy arrays.")
    ] = "phy",
    names: Annotated[
        Literal["relaxed", "strict"], choice("Names in PHYLIP files: whole first words, or 10 characters.")
    ] = "relaxed",
) -> None:
    """Predict distances between the rows of alignments from column attention.

    Output ending in .phy is a matrix for programs that build trees, .tsv a table of pairs that has Hamming distances
    too, .npz all arrays. Rows are in the order of the alignment. R2 and Pearson's r compare the predictions with
    Hamming distances, on rows that the weights were not fitted on.

    Example: msa distances fn3 -o fn3.phy
    """
    windows = WindowOptions(window, overlap)
    require(weights)
    find_model(session.model)
    if output.suffix and not output.is_dir():
        check_ending(output, FORMATS)
    found = weights or find_distance_weights(session.model)
    fitted = None if found is None else DistanceModel.load(found)
    if fitted is None:
        require_sklearn()
    run = session.run(
        alignments,
        output,
        f".{format}",
        "distances",
        settings=session.settings(names=names, **windows.of()),
        made_from={} if found is None else {"file of weights": found},
        also_read=[weights],
        plot=plot,
    )

    def check(loaded: Any) -> None:
        windows.check(loaded)
        if fitted is not None:
            fitted.check(loaded)

    model = session.model_of(run, check=check)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        network = model()
        from ..tasks.distances import predict_distances
        from ..tasks.plotting import plot_distances

        result = predict_distances(family, network, fitted, **session.row_options(), **windows.of())
        if run.picture is not None:
            plot_distances(result, run.picture(target))
        write_distances(result, target, names)
        note = windows.note(network, family.drop_query_gaps().length)
        return f"{target}: {len(result.names)} of {counted(family.depth, 'row')}{note}, {summary(result)}"

    run(work)


def summary(result: Distances) -> str:
    """Say what the weights were fitted on, and how well the distances agree with Hamming distances."""
    judged = int((~result.fitted).sum())
    how = f"fitted on {result.origin}; on the other {judged}" if result.fitted.any() else f"fitted on {result.origin}:"
    return (
        f"{how} R2 {result.r2:.2f} ({result.r2_with_diagonal:.2f} with the diagonal, as the paper counts), "
        f"Pearson {result.pearson:.2f}"
    )
