"""The command ``msa fit-fitness``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .._files import check_ending, check_output
from .._processes import is_main_process
from .._ranges import parse_ranges
from .._words import counted
from ..alignments.listing import name_of
from ..alignments.tables import Table, read_table
from ..hub.finding import find_model
from ..tasks.strategies import Mode
from .embed import numbers_of, parse_layers
from .inputs import list_inputs, require
from .options import ALIGNMENTS, choice, flag, option, output_option
from .session import Session, command
from .variant_tables import check_columns, measured_values

if TYPE_CHECKING:
    from ..tasks.fitness_evaluation import FitnessEvaluation

_TABLE, _FIT, _CHECK = "Table of variants", "Regression", "Evaluation"
_FEATURES = ("one-hot", "embedding", "zero-shot")
_SCHEMES = ("random", "modulo", "contiguous")


@command("strict", "overwrite")
def fit_fitness_command(
    alignment: Annotated[str, typer.Argument(metavar="ALIGNMENT", help=ALIGNMENTS.partition(";")[0] + ", or fn3.")],
    table: Annotated[Path, typer.Argument(metavar="VARIANTS", help="Table of measured variants (.csv, .tsv).")],
    output: Annotated[
        Path, output_option("FILE", "Output file (.safetensors); a .json of the same name goes with it.")
    ],
    session: Session,
    measured_column: Annotated[
        str | None,
        option("NAME", "Column with measured values. Default: the only other column.", _TABLE),
    ] = None,
    variant_column: Annotated[str, option("NAME", "Column with the variants.", _TABLE)] = "mutant",
    offset: Annotated[
        int, option("N", "Difference to the query's residue numbers: 100 if its residue 1 is 101.", _TABLE)
    ] = 0,
    skip_mismatches: Annotated[
        bool, flag("--skip-mismatches", "Leave out variants with a wrong wild type.", _TABLE)
    ] = False,
    features: Annotated[
        str, option("FEATURES", "One or several of one-hot,embedding,zero-shot.", _FIT)
    ] = "embedding,zero-shot",
    kernel: Annotated[
        Literal["ridge", "gp"], choice("Ridge regression, or a Gaussian process with an RBF kernel.", _FIT)
    ] = "ridge",
    which: Annotated[
        Literal["mean", "mutated", "both"],
        choice("Embeddings averaged over all residues, over the mutated ones, or both side by side.", _FIT),
    ] = "both",
    layers: Annotated[str, option("LAYERS", "Layers of the embeddings, as of msa embed.", _FIT)] = "-1",
    mode: Annotated[
        Mode,
        choice(
            "fast: run the homologs once, which then see the query masked. exact: run all rows for each variant.", _FIT
        ),
    ] = "fast",
    folds: Annotated[
        str | None,
        option(
            "FOLDS",
            "Evaluate by five folds: random, modulo, contiguous, or several of them; or none. Default: all three for "
            "single substitutions, otherwise random.",
            _CHECK,
        ),
    ] = None,
    labels: Annotated[
        str | None, option("NUMBERS", "Evaluate with few labels too, such as 24,48,96,192; ten draws each.", _CHECK)
    ] = None,
    report: Annotated[Path | None, option("FILE", "Also write the metrics of all folds (.csv, .tsv).", _CHECK)] = None,
) -> None:
    """Fit a regression on measured variants, which msa score --fitness applies to others.

    It reads the model's embeddings of the variants and, as a covariate, their zero-shot scores. Noise and length scale
    are chosen by inner folds. What is printed is measured on folds that were left out, as in ProteinGym: variants at
    random, or residues that were not mutated in the others (modulo, contiguous), each with half of a 95 % interval.
    Embeddings of a query that is longer than the model reads are refused.

    Example: msa fit-fitness fn3 measured.csv -o fitness.safetensors --rows 16
    """
    chosen = _list_of(features, _FEATURES, "--features")
    schemes = None if folds is None else [] if folds == "none" else _list_of(folds, _SCHEMES, "--folds")
    few = [] if labels is None else parse_ranges(labels, "--labels")
    numbers = parse_layers(layers)
    path = _check_files(alignment, table, output, report)
    session.check_chains([path])
    find_model(session.model)
    if not is_main_process():
        return
    family, cells = session.read(path), read_table(table)
    measured = _measured_column(cells, table, variant_column, measured_column)
    from ..tasks.fitness import assign_folds, check_labels, fit_fitness
    from ..tasks.fitness_evaluation import write_evaluations
    from ..tasks.fitness_features import fitness_pipeline

    fitness_pipeline(family, features=["one-hot"])  # ImportError without scikit-learn
    variants, values = cells.cells(variant_column), measured_values(cells, measured)
    more: dict[str, Any] = {"offset": offset, "skip_mismatches": skip_mismatches}
    more |= {"source": str(table), "lines": cells.lines}
    known = check_labels(family, variants, values, **more)
    assign_folds(known, schemes, few, session.seed, str(table))
    model = session.load("MsaForMaskedLM" if "zero-shot" in chosen else "MsaModel")
    more |= {"features": chosen, "kernel": kernel, "which": which, "layers": numbers_of(model, numbers), "mode": mode}
    more |= {"folds": schemes, "labels": few}
    fitted = fit_fitness(family, variants, values, model, **more, **session.row_options())
    if report is not None:
        write_evaluations(fitted.evaluations, report)
    fitted.save(output)
    for each in fitted.evaluations:
        typer.echo(_line(each))
    left_out = (
        f"; {counted(len(known.left_out), 'variant')} left out, such as {known.left_out[0]}" if known.left_out else ""
    )
    typer.echo(
        f"{output}: {kernel} on {', '.join(chosen)}, fitted on {counted(fitted.variants, 'variant')} of "
        f"{name_of(path)} ({measured}){left_out}"
    )


def _list_of(text: str, known: tuple[str, ...], what: str) -> list[str]:
    """Read a list of words, separated by commas."""
    words = [word.strip() for word in text.split(",")]
    if wrong := [word for word in words if word not in known or words.count(word) > 1]:
        more = ", or none" if what == "--folds" else ""
        raise ValueError(f"{what} {text}: {wrong[0]!r} is not one of {', '.join(known)}{more}, each once.")
    return words


def _check_files(alignment: str, table: Path, output: Path, report: Path | None) -> Path:
    """Return the alignment's file; raise what is wrong with the names on the command line."""
    if table.suffix.lower() not in (".csv", ".tsv"):
        raise ValueError(f"{table} is not a table of variants: pass the alignment first, then a .csv or .tsv file.")
    paths = list_inputs([alignment])
    if len(paths) != 1:
        raise ValueError(f"{alignment}: a regression is fitted on one family; pass one alignment.")
    require(table)
    check_ending(output, (".safetensors",))
    described = output.with_suffix(".json")
    for file in (output, described, *([report] if report is not None else [])):
        check_output(file, [*paths, table])
    if report is not None:
        check_ending(report, (".csv", ".tsv"))
    return paths[0]


def _measured_column(cells: Table, table: Path, variant_column: str, measured_column: str | None) -> str:
    check_columns(cells, table, variant_column)
    others = [name for name in cells.columns if name != variant_column]
    if measured_column is None and len(others) != 1:
        raise ValueError(
            f"{table}: pass the column with the measured values with --measured-column; the columns are "
            f"{', '.join(cells.columns)}."
        )
    measured = measured_column or others[0]
    check_columns(cells, table, variant_column, measured)
    return measured


def _line(evaluation: FitnessEvaluation) -> str:
    """Say what an evaluation found."""
    cells = []
    for name in ("Spearman", "NDCG", "MSE", "AUC", "MCC", "Top_recall"):
        mean, half = evaluation.mean(name), evaluation.half_width(name)
        interval = "" if math.isnan(half) else f" ± {half:.3f}"  # none of a single fold
        cells.append(f"{name} not defined" if math.isnan(mean) else f"{name} {mean:.3f}{interval}")
    return f"{evaluation.scheme}: {', '.join(cells)}"
