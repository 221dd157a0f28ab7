"""The command ``msa score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from .._files import check_ending
from .._ranges import parse_ranges
from ..alignments.listing import name_of
from ..alignments.reading import read_alignment
from ..alignments.variants import read_table
from ..hub.finding import EMBEDDED
from ..tasks.strategies import PROTOCOLS, Mode, Strategy, check_strategy
from .errors import errors_in_words
from .inputs import require
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
)
from .pictures import pictures
from .runs import Run
from .session import model_of, rows_of, settings_of
from .variant_tables import ENDINGS, agreement, check_columns, find_table, split_inputs

_TABLE, _SCORES = "Table of variants", "Scores"


def score_command(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="ALIGNMENT... [VARIANTS]",
            help="A3M, A2M, aligned FASTA or Stockholm files, also .gz and .xz; folders of them; quoted patterns; or a "
            "list with one path per line (.txt). A .csv or .tsv file is the table of variants.",
            show_default=False,
        ),
    ],
    output: Output,
    all_singles: Annotated[
        bool,
        typer.Option("--all-singles", help="Score all single substitutions of all residues, instead of a table."),
    ] = False,
    plot: Plot = None,
    variants: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Table of variants, or a folder of tables with the file names of the alignments.",
            show_default=False,
            rich_help_panel=_TABLE,
        ),
    ] = None,
    variant_column: Annotated[
        str, typer.Option(metavar="NAME", help="Column with the variants.", rich_help_panel=_TABLE)
    ] = "mutant",
    measured_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Column with measured values; their Spearman correlation with the scores is printed.",
            show_default=False,
            rich_help_panel=_TABLE,
        ),
    ] = None,
    score_column: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the new column.", rich_help_panel=_TABLE)
    ] = "score",
    offset: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Difference between the residue numbers of the variants and of the query: 100 if the first residue "
            "of the query has the number 101.",
            rich_help_panel=_TABLE,
        ),
    ] = 0,
    skip_mismatches: Annotated[
        bool,
        typer.Option(
            "--skip-mismatches",
            help="Keep variants whose wild type is not the query's, without a score, instead of stopping.",
            rich_help_panel=_TABLE,
        ),
    ] = False,
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="One pass of the model per mutated residue (masked-marginals), one for all variants (wt-marginals), "
            "or one per residue and variant (pseudo-log-likelihood).",
            rich_help_panel=_SCORES,
        ),
    ] = "masked-marginals",
    mode: Annotated[
        Mode,
        typer.Option(
            help="exact runs the whole alignment in each pass. fast runs the homologs once, which then do not see the "
            "query's residues, and only the query in each pass.",
            rich_help_panel=_SCORES,
        ),
    ] = "exact",
    protocol: Annotated[
        Literal["proteingym"] | None,
        typer.Option(
            help="Settings of a benchmark; options that you pass override them. proteingym: --filter-coverage 75 "
            "--filter-identity 90 --rows 400 --select weighted --seeds 1-5.",
            show_default=False,
            rich_help_panel=_SCORES,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="SEEDS",
            help="Several random seeds, as 1,2,3 or 1-5: mean and sample standard deviation over choices of rows "
            "(--select weighted or random).",
            show_default=False,
            rich_help_panel=_SCORES,
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Maximum number of residues around each mutation that the model sees. Default: all, or as many as "
            "the model can read.",
            show_default=False,
            rich_help_panel=_SCORES,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of masked copies in one pass. Default: by size.",
            show_default=False,
            rich_help_panel=_SCORES,
        ),
    ] = None,
    rows: Rows = 128,
    select: Select = "diverse",
    seed: Seed = 0,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    model: ModelName = EMBEDDED,
    device: Device = "auto",
    dtype: DType = "auto",
    input_format: InputFormat = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
) -> None:
    """Score variants of the query (the first row): how well the model tolerates them.

    Variants have the form A42V, or A42V:G7D for several substitutions, with residue numbers of the whole query. The
    output is the table with new columns: score (natural logarithm of the ratio of mutant to wild type; higher is
    better tolerated), score_std if there are several seeds, and reason, for rows that cannot be scored.

    Example: msa score fn3 --all-singles -o scores.csv --plot scores.png
    """
    with errors_in_words():
        options = rows_of(context) | {"strategy": strategy, "mode": mode, "window": window}
        if seeds is not None:
            if _is_given(context, "seed"):
                raise ValueError("--seed and --seeds cannot be used together: pass one of them.")
            options["seed"] = tuple(parse_ranges(seeds, "--seeds"))
        if protocol is not None:
            options |= _without_given(PROTOCOLS[protocol], context)
        check_strategy(options["strategy"], mode)
        alignments, tables = split_inputs(inputs, variants, all_singles)
        require(tables)
        if not all_singles and plot is not None:
            raise ValueError("--plot draws all single substitutions: pass --all-singles too.")
        if all_singles and measured_column is not None:
            raise ValueError("--measured-column is a column of a table of variants; it has no use with --all-singles.")
        settings = settings_of(
            context,
            offset=offset,
            columns=[variant_column, score_column],
            skip_mismatches=skip_mismatches,
            plot=plot,
            **options,
        )
        run = Run(
            alignments,
            output,
            output.suffix if output.suffix in ENDINGS else ".csv",
            command="score",
            settings=settings,
            strict=strict,
            overwrite=overwrite,
            depends=lambda path: [table] if (table := find_table(path, tables)) is not None else [],
        )
        if run.is_single:
            check_ending(output, ENDINGS)
        picture = pictures(plot, run)
        network = model_of(run, context, "MsaForMaskedLM")
        options |= {"batch_size": batch_size, "offset": offset}

        def work_singles(path: Path, target: Path) -> str:
            family = read_alignment(path, input_format)
            model = network()
            from ..tasks.plotting import plot_substitutions
            from ..tasks.scoring import score_all_singles, write_scores

            result = score_all_singles(family, model, **options)
            if picture is not None:
                plot_substitutions(result, picture(target))
            write_scores(result, target, score_column=score_column)
            return f"{target}: {result.name}, {len(result.residues)} residues, {result.depth} of {family.depth} rows"

        def work_table(path: Path, target: Path) -> str:
            family = read_alignment(path, input_format)
            source = find_table(path, tables)
            if source is None:
                raise FileNotFoundError(f"{path}: there is no table {name_of(path)}.csv or .tsv in {tables}.")
            table = read_table(source)
            check_columns(table, source, variant_column, measured_column)
            from ..tasks.scoring import check_table, score_variants, write_scores

            cells = table.cells(variant_column)
            check_table(family, table, cells, ...)
            result = score_variants(
                family, cells, network(), skip_mismatches=skip_mismatches, source=str(source), **options
            )
            write_scores(result, target, table, score_column)
            scored = f"{int(np.isfinite(result.score).sum())} of {len(cells)} variants"
            line = f"{target}: {result.name}, {scored}, {result.depth} of {family.depth} rows"
            return line if measured_column is None else line + agreement(result.score, table.cells(measured_column))

        run(work_singles if all_singles else work_table)


def _without_given(recipe: dict[str, object], context: typer.Context) -> dict[str, object]:
    """Return the settings of a recipe that the command line does not override."""
    names = {"coverage": ("filter_coverage",), "identity": ("filter_identity",), "seed": ("seed", "seeds")}
    return {
        key: value
        for key, value in recipe.items()
        if not any(_is_given(context, parameter) for parameter in names.get(key, (key,)))
    }


def _is_given(context: typer.Context, parameter: str) -> bool:
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"
