"""The command ``msa generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..alignments.reading import SUFFIXES, format_of, read_alignment
from ..hub.finding import EMBEDDED
from ..tasks.strategies import Mode
from . import options
from .errors import errors_in_words
from .runs import Run
from .session import model_of, rows_of, settings_of

_SAMPLING, _CHANGES = "Sampling", "What may change"


def generate_command(
    context: typer.Context,
    inputs: options.Inputs,
    output: options.Output,
    iterations: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of rounds of masking.", rich_help_panel=_SAMPLING)
    ] = 200,
    mask_probability: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="Probability that a residue or gap is masked in a round.",
            rich_help_panel=_SAMPLING,
        ),
    ] = 0.1,
    sampling: Annotated[
        Literal["greedy", "sample"],
        typer.Option(
            help="Fill a mask with the most probable letter, or with a random one.", rich_help_panel=_SAMPLING
        ),
    ] = "greedy",
    temperature: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="T",
            help="Temperature of --sampling sample: below 1 favors probable letters, above 1 rare ones.",
            rich_help_panel=_SAMPLING,
        ),
    ] = 1.0,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="P",
            help="For --sampling sample: use only the most probable letters that together have this probability.",
            show_default=False,
            rich_help_panel=_SAMPLING,
        ),
    ] = None,
    mode: Annotated[
        Mode,
        typer.Option(
            help="exact runs the whole alignment in each round. fast is for a single row that changes (--only-rows, "
            "--count 1): it runs the other rows once, which then do not see that row's residues.",
            rich_help_panel=_SAMPLING,
        ),
    ] = "exact",
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Maximum number of sequences to generate. Above --rows, further rows of the family follow; below, the "
            "other rows stay the same. Default: one from each row given to the model.",
            show_default=False,
            rich_help_panel=_CHANGES,
        ),
    ] = None,
    only_rows: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROW",
            help="Change only this row: a name, a number (1 is the query) or a range of numbers. Repeatable.",
            show_default=False,
            rich_help_panel=_CHANGES,
        ),
    ] = None,
    only_residues: Annotated[
        str | None,
        typer.Option(
            metavar="RESIDUES",
            help="Change only the columns of these residues of the query, such as 3,10-12.",
            show_default=False,
            rich_help_panel=_CHANGES,
        ),
    ] = None,
    fix: Annotated[
        str | None,
        typer.Option(
            metavar="RESIDUES",
            help="Do not change the columns of these residues of the query, such as 3,10-12.",
            show_default=False,
            rich_help_panel=_CHANGES,
        ),
    ] = None,
    keep_query: Annotated[
        bool, typer.Option("--keep-query", help="Do not change the query.", rich_help_panel=_CHANGES)
    ] = False,
    no_new_gaps: Annotated[
        bool, typer.Option("--no-new-gaps", help="Never turn a residue into a gap.", rich_help_panel=_CHANGES)
    ] = False,
    keep_gaps: Annotated[
        bool,
        typer.Option(
            "--keep-gaps", help="Do not change gaps. Without it, msa-tiny fills them all.", rich_help_panel=_CHANGES
        ),
    ] = False,
    rows: options.Rows = 600,
    select: options.Select = "random",
    seed: options.Seed = 0,
    filter_coverage: options.FilterCoverage = None,
    filter_identity: options.FilterIdentity = None,
    model: options.ModelName = EMBEDDED,
    device: options.Device = "auto",
    dtype: options.DType = "auto",
    input_format: options.InputFormat = None,
    strict: options.Strict = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Generate new sequences of a family by iterative masking (Sgarbossa et al. 2023).

    Each row gives one new sequence, with the columns of the query's residues. NAME.generated.tsv, beside the output,
    has for each sequence its identity to its parent and to the nearest natural row, the mean log-probability per
    residue of both, and the fraction of gaps. The defaults are the paper's; on a CPU, fewer --rows are faster.

    Example: msa generate fn3 -o new.a3m --rows 32 --iterations 20
    """
    with errors_in_words():
        arguments: dict[str, Any] = rows_of(context) | {
            "iterations": iterations,
            "mask_probability": mask_probability,
            "sampling": sampling,
            "temperature": temperature,
            "top_p": top_p,
            "count": count,
            "only_rows": only_rows or None,
            "only_residues": only_residues,
            "fixed_residues": fix,
            "keep_query": keep_query,
            "new_gaps": not no_new_gaps,
            "keep_gaps": keep_gaps,
            "mode": mode,
        }
        settings = settings_of(context, **arguments)
        run = Run(inputs, output, ".a3m", command="generate", settings=settings, strict=strict, overwrite=overwrite)
        if run.is_single and format_of(output.name) is None:
            raise ValueError(
                f"{output}: unknown output format {output.suffix!r}; use {', '.join(SUFFIXES)}, optionally with .gz "
                "or .xz."
            )
        from ..tasks.generation import check_arguments, generate, write_generated

        check_arguments(sampling, temperature, top_p, only_residues, fix, mode)
        network = model_of(run, context, "MsaForMaskedLM")

        def work(path: Path, target: Path) -> str:
            family = read_alignment(path, input_format)
            generated = generate(family, network(), progress=run.is_single, **arguments)
            table = write_generated(generated, target)
            mean = generated.nearest_identity.mean()
            return (
                f"{target}, {table.name}: {len(generated.names)} sequences, on average {100 * mean:.0f} % identical "
                "to the nearest natural row"
            )

        run(work)
