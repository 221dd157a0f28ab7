"""The command ``msa info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._files import check_ending, check_output
from .._processes import is_main_process
from ..alignments.alignment import shortened
from ..alignments.reading import read_alignment
from ..alignments.statistics import FORMATS, AlignmentStatistics, alignment_statistics, describe, write_statistics
from .errors import is_of_the_input
from .inputs import argument_of, list_inputs
from .options import Inputs, output_option
from .runs import RunError
from .session import Session, command


@command("model", "device", "dtype", "overwrite")
def info_command(
    alignments: Inputs,
    session: Session,
    output: Annotated[
        Path | None,
        output_option("FILE", "Also write a table (.tsv) or JSON, which has numbers by column too (.json)."),
    ] = None,
) -> None:
    """Describe alignments: depth, Neff, coverage, identity to the query, gaps, and what to watch out for.

    No model is run. Everything is counted in the columns in which the query has a residue. Rows that are 80 % alike
    share one vote in Neff, the effective number of sequences; it takes minutes for tens of thousands of rows. Coverage
    and identity are those of the other rows to the query. Odd letters are other than the 20 amino acids and the gap.
    Pass the options of the command that you will run, to see how many rows it gives to the model. In a complex, rows
    with residues in every chain are counted, and residues are numbered by chain.

    Example: msa info fn3 --filter-coverage 50
    """
    paths = list_inputs(alignments, leave_out=output)
    if output is not None:
        check_ending(output, FORMATS)
        check_output(output, paths)
    session.check_chains(paths)
    if not is_main_process():
        return
    found: dict[str, AlignmentStatistics] = {}
    failed: dict[Path, str] = {}
    for path in paths:
        try:
            name = argument_of(path)
            family = read_alignment(path, session.input_format, chains=session.chains_of(path))
            found[name] = alignment_statistics(family, **session.row_options())
        except (ValueError, OSError, MemoryError) as error:
            if session.strict or len(paths) == 1 or not is_of_the_input(error):
                raise
            failed[path] = str(error)
        else:
            typer.echo("\n".join(map(shortened, f"{name}:\n{describe(found[name])}".split("\n"))))
    if output is not None and found:
        write_statistics(output, found)
        typer.echo(f"written {output}")
    if failed:
        raise RunError(len(paths), failed)
