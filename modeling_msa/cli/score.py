"""The command ``msa score``."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from .._ranges import parse_ranges
from ..alignments.listing import name_of
from ..alignments.reading import read_alignment
from ..alignments.variants import Table, read_table
from ..hub.finding import EMBEDDED
from ..modeling_msa_transformer import MsaForMaskedLM
from ..tasks.context import Mode
from ..tasks.plotting import plot_substitutions
from ..tasks.scoring import (
    DECIMALS,
    PROTOCOLS,
    check_scores,
    check_strategy,
    fit_variants,
    score_all_singles,
    score_columns,
    score_variants,
    spearman,
    write_scores,
)
from .options import (
    Device,
    DType,
    FilterCoverage,
    FilterIdentity,
    InputFormat,
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
from .runs import Run

_TABLES = (".csv", ".tsv")


def score_command(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="ALIGNMENT... [VARIANTS]",
            help="A3M, A2M, FASTA or Stockholm, .gz and .xz too: files, folders, 'patterns*' or a list (.txt); "
            "a .csv or .tsv is the table of variants.",
            show_default=False,
        ),
    ],
    output: Output,
    variants: Annotated[
        Path | None,
        typer.Option(
            help="The table of variants, or a folder of tables that are named as the alignments.", show_default=False
        ),
    ] = None,
    all_singles: Annotated[
        bool, typer.Option("--all-singles", help="Score every substitution of every residue; no table.")
    ] = False,
    plot: Plot = None,
    variant_column: Annotated[str, typer.Option(help="The table's column of variants.")] = "mutant",
    measured_column: Annotated[
        str | None,
        typer.Option(help="Column of measured values: print Spearman's correlation with them.", show_default=False),
    ] = None,
    score_column: Annotated[str, typer.Option(help="What to call the new column.")] = "score",
    offset: Annotated[
        int, typer.Option(help="How far the numbers are ahead of the query's: 100 if its first residue is called 101.")
    ] = 0,
    skip_mismatches: Annotated[
        bool, typer.Option("--skip-mismatches", help="Keep variants with another wild type, without a score.")
    ] = False,
    strategy: Annotated[
        Literal["masked-marginals", "wt-marginals", "pseudo-log-likelihood"],
        typer.Option(
            help="One pass of the model for each mutated residue; one for all; or one for each residue and variant."
        ),
    ] = "masked-marginals",
    mode: Annotated[
        Mode,
        typer.Option(
            help="fast runs the homologues once, then the query alone for each masked residue; they do not see the "
            "query's residues then. exact runs the whole alignment each time."
        ),
    ] = "exact",
    protocol: Annotated[
        Literal["proteingym"] | None,
        typer.Option(
            help="A benchmark's recipe; options that you give win. proteingym: --filter-coverage 75 "
            "--filter-identity 90 --rows 400 --select weighted --seeds 1-5.",
            show_default=False,
        ),
    ] = None,
    rows: Rows = 128,
    select: Select = "diverse",
    seed: Seed = 0,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Several, as 1,2,3 or 1-5: an ensemble over choices of rows (--select weighted or random), mean and "
            "standard deviation (of a sample).",
            show_default=False,
        ),
    ] = None,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most residues to see at a time, around each; default: all, or what the model reads.",
            show_default=False,
        ),
    ] = None,
    model: ModelName = EMBEDDED,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Masked copies in one pass; default: by size.", show_default=False)
    ] = None,
    device: Device = "auto",
    dtype: DType = "auto",
    input_format: InputFormat = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
) -> None:
    """Score variants of the query (the first row): how well the model tolerates them.

    Variants are written like A42V, several substitutions like A42V:G7D, with residue numbers of the whole query. The
    table comes back with the columns score (natural-log ratio of mutant to wild type; higher is better tolerated),
    score_std for an ensemble, and reason, for rows that cannot be scored.

    Example: msa score fn3 --all-singles -o scores.csv --plot scores.png
    """
    with errors_in_words():
        options: dict[str, Any] = {
            "strategy": strategy,
            "mode": mode,
            "rows": rows,
            "select": select,
            "seed": parse_seeds(seeds) if seeds is not None else seed,
            "coverage": filter_coverage,
            "identity": filter_identity,
            "window": window,
        }
        if seeds is not None and _is_given(context, "seed"):
            raise ValueError("--seed and --seeds are two ways to say the same: give one.")
        if protocol is not None:
            options |= _without_given(PROTOCOLS[protocol], context)
        check_strategy(options["strategy"], mode)
        alignments, tables = _split(inputs, variants, all_singles)
        if not all_singles and plot is not None:
            raise ValueError("--plot draws all substitutions: say --all-singles.")
        if all_singles and measured_column is not None:
            raise ValueError("--measured-column belongs to a table of variants, not to --all-singles.")
        suffix = output.suffix if output.suffix in _TABLES else ".csv"
        run = Run(
            alignments,
            output,
            suffix,
            command="score",
            settings=settings_of(
                model=model,
                dtype=dtype,
                offset=offset,
                columns=[variant_column, score_column],
                skip_mismatches=skip_mismatches,
                plot=plot,
                input_format=input_format,
                **options,
            ),
            strict=strict,
            overwrite=overwrite,
            depends=lambda path: [table] if tables is not None and (table := _find_table(path, tables)) else [],
        )
        if run.is_single:
            check_scores(output)
        picture = pictures(plot, run) if plot is not None else None
        loaded = functools.cache(lambda: load(run, model, device, dtype, MsaForMaskedLM))
        if run.pending and not run.is_single:  # a single alignment and its table are looked at first
            loaded()
        options["batch_size"] = batch_size

        def work_singles(path: Path, target: Path) -> str:
            family = read_alignment(path, input_format)
            result = score_all_singles(family, loaded(), offset=offset, **options)
            if picture is not None:
                plot_substitutions(result, picture(target))
            write_scores(result, target, score_column=score_column)
            return f"{target}: {result.name}, {len(result.residues)} residues, {result.depth} of {family.depth} rows"

        def work_table(path: Path, target: Path) -> str:
            family = read_alignment(path, input_format)
            source = _table_of(path, tables)
            table = read_table(source)
            _check_table(table, source, variant_column, measured_column, score_column)
            cells = table.cells(variant_column)
            fit_variants(family, cells, offset, skip_mismatches, str(source))
            result = score_variants(
                family, cells, loaded(), offset=offset, skip_mismatches=skip_mismatches, source=str(source), **options
            )
            write_scores(result, target, table, score_column)
            scored = f"{int(np.isfinite(result.score).sum())} of {len(cells)} variants"
            line = f"{target}: {result.name}, {scored}, {result.depth} of {family.depth} rows"
            return line if measured_column is None else line + _agreement(result.score, table.cells(measured_column))

        run(work_singles if all_singles else work_table)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Read several seeds.

    Examples
    --------
    >>> parse_seeds("1-3, 7")
    (1, 2, 3, 7)
    """
    return tuple(parse_ranges(text, "--seeds"))


def _without_given(recipe: dict[str, object], context: typer.Context) -> dict[str, object]:
    """What a recipe says and the command line does not."""
    names = {"coverage": ("filter_coverage",), "identity": ("filter_identity",), "seed": ("seed", "seeds")}

    return {
        key: value
        for key, value in recipe.items()
        if not any(_is_given(context, parameter) for parameter in names.get(key, (key,)))
    }


def _is_given(context: typer.Context, parameter: str) -> bool:
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _split(inputs: Sequence[str], variants: Path | None, all_singles: bool) -> tuple[list[str], Path | None]:
    """Tell the alignments from the table of variants."""
    tables = [Path(each) for each in inputs if each.lower().endswith(_TABLES)]
    tables += [variants] if variants is not None else []
    if len(tables) > 1:
        raise ValueError("Give one table of variants; for several alignments a folder of tables, with --variants.")
    if all_singles and tables:
        raise ValueError(f"--all-singles goes without a table of variants ({tables[0]}).")
    if not all_singles and not tables:
        raise ValueError("Give a table of variants (.csv, .tsv) after the alignment, or say --all-singles.")
    alignments = [each for each in inputs if not each.lower().endswith(_TABLES)]
    if not alignments:
        raise ValueError(f"Give an alignment beside the table {tables[0]}.")
    return alignments, tables[0] if tables else None


def _find_table(path: Path, tables: Path) -> Path | None:
    if not tables.is_dir():
        return tables
    candidates = (tables / f"{name_of(path)}{suffix}" for suffix in _TABLES)
    return next((table for table in candidates if table.is_file()), None)


def _table_of(path: Path, tables: Path | None) -> Path:
    assert tables is not None
    table = _find_table(path, tables)
    if table is None:
        raise FileNotFoundError(f"{path}: there is no table {name_of(path)}.csv or .tsv in {tables}.")
    return table


def _check_table(table: Table, source: Path, variant_column: str, measured_column: str | None, name: str) -> None:
    for option, column in (("--variant-column", variant_column), ("--measured-column", measured_column)):
        if column is not None and column not in table.columns:
            raise ValueError(
                f"{source}: {option} is {column!r}, but the columns are {', '.join(table.columns)}; name one."
            )
    try:
        score_columns(table, name)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _agreement(scores: np.ndarray, cells: Sequence[str]) -> str:
    """Spearman's correlation of the rows that have both numbers, of the scores as the table has them."""

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return math.nan

    measured = np.array([number(text) for text in cells])
    scores = np.round(scores, DECIMALS)  # else equal ones there have ranks here
    both = np.isfinite(measured) & np.isfinite(scores)
    return f", Spearman {spearman(scores[both], measured[both]):.4f} ({both.sum()} variants)"
