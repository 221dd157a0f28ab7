"""The command ``msa search``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._files import check_output
from .._processes import is_main_process
from .._words import counted
from ..alignments.search import search_homologues
from ..alignments.writing import check_alignment_ending, write_alignment
from .errors import errors_in_words
from .inputs import require
from .options import FilterCoverage, FilterIdentity, option, output_option
from .session import TORCH


@errors_in_words()
def search_command(
    query: Annotated[Path, typer.Argument(metavar="QUERY", help="FASTA file of one protein.")],
    database: Annotated[
        Path, typer.Argument(metavar="DATABASE", help="FASTA file of unaligned proteins, also .gz and .xz.")
    ],
    output: Annotated[Path, output_option("FILE", "Output alignment (.a3m, .a2m, .fasta or .sto).")],
    iterations: Annotated[int, option("N", "Maximum number of rounds; one without new hits is the last.", min=1)] = 3,
    evalue: Annotated[float, option("E", "Maximum E-value of a sequence.", min=0)] = 1e-3,
    domain_evalue: Annotated[
        float | None, option("E", "Maximum E-value of a domain. Default: --evalue.", min=0)
    ] = None,
    bit_score: Annotated[float | None, option("BITS", "Minimum bit score, instead of the E-values.")] = None,
    query_name: Annotated[str | None, option("NAME", "Query, if its file has several sequences.")] = None,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    cpus: Annotated[
        int | None, option("N", "Number of threads. Default: those of msa --threads, or all cores.", min=0)
    ] = None,
) -> None:
    """Build the alignment of a single protein: search a database for its family, as jackhmmer does.

    Each residue of the query is a column, each sequence found is one row, the best first. Insertions are lowercase in
    .a3m and .a2m, and left out in other formats. Requires pyhmmer: pip install 'modeling-msa[search]'.

    Example: msa search query.fasta database.fasta -o family.a3m --filter-coverage 50
    """
    check_alignment_ending(output)
    require(query, database)
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
        cpus=cpus or TORCH.threads or 0,
    )
    write_alignment(family, output)
    typer.echo(f"{output}: {family.names[0]}, {counted(family.length, 'residue')}, {counted(family.depth, 'row')}")
