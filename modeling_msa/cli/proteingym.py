"""The command ``msa proteingym``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._processes import is_main_process
from .._ranges import parse_ranges
from .._words import counted
from ..alignments.chains import refuse_chains
from ..tasks.proteingym_files import PER_ASSAY, SUMMARY, Assay, check_draws, read_assay, read_reference, write_assay
from ..tasks.strategies import PROTOCOLS, Mode
from .inputs import require
from .options import choice, flag, option, output_option
from .runs import RunError
from .session import Session, command
from .variant_tables import mixed_words

if TYPE_CHECKING:  # it imports torch
    from ..tasks.proteingym import AssayAverage

_BENCHMARK, _SCORES = "Benchmark", "Scores"
_PROTOCOL: dict[str, Any] = PROTOCOLS["proteingym"]


@command(
    "seed",
    "chains",
    rows=_PROTOCOL["rows"],
    select=_PROTOCOL["select"],
    filter_coverage=_PROTOCOL["coverage"],
    filter_identity=_PROTOCOL["identity"],
    input_format="fasta",
)
def proteingym_command(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="ProteinGym's reference file, DMS_substitutions.csv.")
    ],
    msas: Annotated[Path, option("FOLDER", "Folder of the alignments (MSA_filename).", _BENCHMARK)],
    assays: Annotated[Path, option("FOLDER", "Folder of the assays (DMS_filename).", _BENCHMARK)],
    output: Annotated[Path, output_option("FOLDER", "Folder of the results.")],
    session: Session,
    seeds: Annotated[str, option("SEEDS", "Seeds of the row choices, as 1,2,3 or 1-5.", _SCORES)] = "1-5",
    replacement: Annotated[
        bool, flag("--replacement", "Draw rows with replacement: the rows of ProteinGym's script.", _SCORES)
    ] = False,
    mode: Annotated[
        Mode,
        choice(
            "exact: run all rows in each pass. fast: run the homologs once, which then see the query masked.", _SCORES
        ),
    ] = "exact",
    window: Annotated[
        int | None,
        option("N", "Maximum residues around a mutation. Default: all the model can read, 1,023.", _SCORES, min=1),
    ] = None,
    batch_size: Annotated[
        int | None, option("N", "Number of masked copies in one pass. Default: by their size.", _SCORES, min=1)
    ] = None,
    score_column: Annotated[
        str, option("NAME", "First part of the names of the new columns.", _SCORES)
    ] = "MSA_Transformer",
) -> None:
    """Run ProteinGym's zero-shot benchmark of substitutions.

    Each assay becomes DMS_id.csv in the output folder: its table with a column of scores for each seed (NAME_seed1)
    and their mean (NAME_ensemble). proteingym_assays.csv has the metrics of each assay, proteingym_summary.csv their
    averages: within proteins, then within functions, then over functions. The same command continues a run that was
    interrupted.

    The defaults are the benchmark's protocol. theta of the weights is MSA_theta of the reference file, 0.01 for most
    viral proteins and 0.2 otherwise. Complexes are not read.

    Example: msa proteingym DMS_substitutions.csv --msas msas --assays assays -o scores --mode fast
    """
    require(reference, msas, assays)
    if output.suffix and not output.is_dir():
        raise ValueError(f"{output} looks like a file, but there is one file per assay: pass a folder with -o.")
    numbers = tuple(parse_ranges(seeds, "--seeds"))
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"--seeds {seeds}: a seed is there twice; write each once.")
    check_draws(session.select, numbers, replacement)
    listed = {assay.table: assay for assay in read_reference(reference, msas, assays)}
    options = session.row_options() | {"seed": numbers, "replacement": replacement, "mode": mode, "window": window}
    run = session.run(
        list(listed),
        output,
        ".csv",
        "proteingym",
        settings=session.settings(**options, score_column=score_column),
        depends=lambda path: _sources(listed[path]),
        also_read=[reference],
        name=lambda path: listed[path].name,
        noun="assay",
    )
    model = session.model_of(run, "MsaForMaskedLM")
    if run.pending and is_main_process():
        for name in (SUMMARY, PER_ASSAY):  # of the results that are made again
            (output / name).unlink(missing_ok=True)

    def work(path: Path, target: Path) -> str:
        from ..tasks.proteingym import score_assay

        assay = listed[path]
        table = read_assay(assay, score_column)
        family = session.read(assay.alignment)
        refuse_chains(family.chains, str(assay.alignment), "ProteinGym's benchmark")
        result = score_assay(assay, family, table, model(), **options, batch_size=batch_size)
        write_assay(table, result.per_seed, numbers, score_column, target)
        line = f"{target}: {counted(len(table.rows), 'variant')}, {result.depth} of {counted(family.depth, 'row')}"
        return f"{line}, theta {assay.theta:g}{mixed_words(result.profile_weight)}"

    def summarise(failed: Collection[Path] = ()) -> None:
        from ..tasks.proteingym import write_summary

        done = [assay for path, assay in listed.items() if path not in failed]
        if done and is_main_process():
            averages = write_summary(done, output, numbers, score_column)
            shown = ", ".join(f"{key} {_with_error(each)}" for key, each in averages.items())
            typer.echo(f"{output / SUMMARY}: {len(done)} of {counted(len(listed), 'assay')}: {shown}")

    try:
        run(work)
    except RunError as error:
        summarise(error.failed)
        raise
    summarise()


def _with_error(average: AssayAverage) -> str:
    known = average.standard_error == average.standard_error
    return f"{average.value:.3f}" + (f" ± {average.standard_error:.3f}" if known else "")


def _sources(assay: Assay) -> dict[str, Path | str]:
    """What else than the options an assay's scores are made from."""
    words = {"target_seq": assay.target, "MSA_start": str(assay.start), "MSA_end": str(assay.end)}
    words |= {"theta": f"{assay.theta:g}", "cutoff": str(assay.cutoff)}
    return {"alignment": assay.alignment, "table": assay.table, **words}
