"""``msa generate``: arguments in, `modeling_msa.tasks.generation` called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..alignments.reading import read_alignment
from ..cli import options
from ..hub.finding import EMBEDDED
from ..modeling_msa_transformer import MsaForMaskedLM
from ..tasks.context import Mode
from ..tasks.generation import check_arguments, check_generated, generate, write_generated
from .runs import Run


def generate_command(
    inputs: options.Inputs,
    output: options.Output,
    model: options.ModelName = EMBEDDED,
    iterations: Annotated[int, typer.Option(min=1, help="Rounds of masking.")] = 200,
    mask_probability: Annotated[float, typer.Option(min=0, max=1, help="Of each residue and gap, in a round.")] = 0.1,
    sampling: Annotated[
        Literal["greedy", "sample"], typer.Option(help="Take the most probable letter, or draw.")
    ] = "greedy",
    temperature: Annotated[float, typer.Option(min=0, help="For drawing: below 1 sharper, above 1 flatter.")] = 1.0,
    top_p: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="For drawing: only from the letters that make up this.", show_default=False),
    ] = None,
    rows: options.Rows = 600,
    select: options.Select = "random",
    seed: options.Seed = 0,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most sequences to generate: above --rows, the next rows of the family follow; below, the other rows "
            "stay. Default: all rows that the model sees at once.",
            show_default=False,
        ),
    ] = None,
    only_rows: Annotated[
        list[str] | None,
        typer.Option(
            help="Change only these rows: a name, a number (1 is the query) or a range. Several times for several.",
            show_default=False,
        ),
    ] = None,
    only_residues: Annotated[
        str | None,
        typer.Option(help="Change only these residues of the query, such as 3,10-12, in any row.", show_default=False),
    ] = None,
    fix: Annotated[
        str | None, typer.Option(help="Leave these residues, such as 3,10-12, in all rows.", show_default=False)
    ] = None,
    keep_query: Annotated[bool, typer.Option("--keep-query", help="Leave the query as it is.")] = False,
    no_new_gaps: Annotated[bool, typer.Option("--no-new-gaps", help="Never turn a residue into a gap.")] = False,
    keep_gaps: Annotated[
        bool, typer.Option("--keep-gaps", help="Leave gaps: msa-tiny, for one, would fill them all.")
    ] = False,
    mode: Annotated[
        Mode,
        typer.Option(
            help="fast, where a single row changes (--only-rows, --count 1): runs the other rows once, and that row "
            "alone in each round; they do not see its residues then. exact runs the whole alignment each time."
        ),
    ] = "exact",
    filter_coverage: options.FilterCoverage = None,
    filter_identity: options.FilterIdentity = None,
    device: options.Device = "auto",
    dtype: options.DType = "auto",
    input_format: options.InputFormat = None,
    strict: options.Strict = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Generate new sequences of a family by iterative masking (Sgarbossa et al. 2023).

    One new sequence from each row, in the columns of the query's residues. Beside NAME.a3m, NAME.generated.tsv says
    for each how alike it is to its parent and to the nearest natural row, how probable the model finds the parent and
    it (mean log p per residue), and how much of it is gaps. The defaults are the paper's; on a CPU, fewer --rows are
    faster.

    Example: msa generate fn3 -o new.a3m --rows 32 --iterations 20
    """
    with options.errors_in_words():
        arguments: dict[str, Any] = {
            "iterations": iterations,
            "mask_probability": mask_probability,
            "sampling": sampling,
            "temperature": temperature,
            "top_p": top_p,
            "rows": rows,
            "select": select,
            "seed": seed,
            "coverage": filter_coverage,
            "identity": filter_identity,
            "count": count,
            "only_rows": only_rows or None,
            "only_residues": only_residues,
            "fixed_residues": fix,
            "keep_query": keep_query,
            "new_gaps": not no_new_gaps,
            "keep_gaps": keep_gaps,
            "mode": mode,
        }
        check_arguments(sampling, temperature, top_p, only_residues, fix, mode)
        settings = options.settings_of(model=model, dtype=dtype, input_format=input_format, **arguments)
        run = Run(inputs, output, ".a3m", command="generate", settings=settings, strict=strict, overwrite=overwrite)
        if run.is_single:
            check_generated(output)
        network = options.load(run, model, device, dtype, MsaForMaskedLM)

        def work(path: Path, target: Path) -> str:
            assert network is not None
            family = read_alignment(path, input_format)
            generated = generate(family, network, progress=run.is_single, **arguments)
            table = write_generated(generated, target)
            mean = generated.nearest_identity.mean()
            return (
                f"{target}, {table.name}: {len(generated.names)} sequences, on average {100 * mean:.0f} % identical "
                "to the nearest natural row"
            )

        run(work)
