"""The command ``msa search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._files import check_output
from .._processes import is_main_process
from ..alignments.reading import format_of
from ..alignments.search import search_homologues
from ..alignments.writing import write_alignment
from .options import FilterCoverage, FilterIdentity, errors_in_words


def search_command(
    query: Annotated[Path, typer.Argument(help="FASTA file of one protein.", show_default=False)],
    database: Annotated[
        Path, typer.Argument(help="FASTA file of unaligned proteins, .gz and .xz too.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Alignment to write: .a3m, .a2m, .fasta or .sto.", show_default=False),
    ],
    iterations: Annotated[int, typer.Option(min=1, help="Most rounds; fewer if one finds nothing new.")] = 3,
    evalue: Annotated[float, typer.Option(min=0, help="Largest E-value of a sequence that is included.")] = 1e-3,
    domain_evalue: Annotated[
        float | None, typer.Option(min=0, help="The same of a domain in it. Default: --evalue.", show_default=False)
    ] = None,
    bit_score: Annotated[
        float | None, typer.Option(help="Least bit score, instead of the E-values.", show_default=False)
    ] = None,
    query_name: Annotated[
        str | None, typer.Option(help="Which sequence of QUERY, if there are several.", show_default=False)
    ] = None,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    cpus: Annotated[int, typer.Option(min=0, help="Threads; 0 takes all physical cores.")] = 0,
) -> None:
    """Make an alignment of a single protein: search a database for its family, as jackhmmer does.

    Each residue of the query is a column, each sequence found is one row, the best first. Insertions are in lower
    case in .a3m and .a2m, and left out of other formats. Takes pyhmmer: pip install 'modeling-msa[search]'.

    Example: msa search query.fasta database.fasta -o family.a3m --filter-coverage 50
    """
    with errors_in_words():
        if format_of(output.name) is None:
            raise ValueError(f"{output}: an alignment is written as .a3m, .a2m, .fasta or .sto; end the name so.")
        check_output(output, [query, database])
        if not is_main_process():
            return
        family = search_homologues(
            query,
            database,
            query_name=query_name,
            iterations=iterations,
            evalue=evalue,
            domain_evalue=domain_evalue,
            bit_score=bit_score,
            coverage=filter_coverage,
            identity=filter_identity,
            cpus=cpus,
        )
        write_alignment(family, output)
        typer.echo(f"{output}: {family.names[0]}, {family.length} residues, {family.depth} rows")
