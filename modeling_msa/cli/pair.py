"""The command ``msa pair``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .._words import counted
from ..alignments.listing import name_of
from ..alignments.species import read_species
from ..alignments.writing import check_alignment_ending
from ..tasks.pairing_files import read_pairs, table_beside, write_pairing
from .inputs import list_inputs, require
from .options import ALIGNMENTS, Output, choice, flag, option
from .session import Session, command

_FIRST = f"Alignments of the first chain: {ALIGNMENTS}"
_SECOND = "The same of the second chain; of several, those of the same names are paired."


@command("chains")
def pair_command(
    a: Annotated[str, typer.Argument(metavar="A", help=_FIRST)],
    b: Annotated[str, typer.Argument(metavar="B", help=_SECOND)],
    output: Output,
    session: Session,
    method: Annotated[
        Literal["model", "rank", "species"],
        choice(
            "model: pair the paralogs of each species by the model. rank: pair the row of each species that is most "
            "similar to the query, as ColabFold does. species: pair species that have one row in each alignment."
        ),
    ] = "model",
    species: Annotated[
        Path | None,
        option("TABLE", "Table (.csv, .tsv) with the columns name, of rows, and species. Default: read the headers."),
    ] = None,
    pairs: Annotated[
        Path | None, option("TABLE", "Table with the columns name_a and name_b: rows that are known to be pairs.")
    ] = None,
    keep_unpaired: Annotated[
        bool, flag("--keep-unpaired", "Keep rows without a partner, below the pairs, with gaps in the other chain.")
    ] = False,
    rounds: Annotated[
        int, option("N", "For the method model: most rounds, each with more pairs of the last one as context.", min=1)
    ] = 5,
) -> None:
    """Pair the rows of two alignments, chains of a complex, into one alignment with both side by side.

    Rows are paired within species, which headers name by TaxID= (UniRef), OX= or OS= (UniProt), or entry names such as
    BLAT_ECOLI; the queries, the first rows, are a pair. The model pairs paralogs so that rows are most probable beside
    each other. It reads them with known pairs as the context (--pairs, and species with one row in each), at most
    --rows, and then with pairs it is sure of. NAME.partners.tsv, beside the output, lists the pairs with their species
    and, of those by the model, loss (of the masked rows beside each other, nats per residue) and margin (by how much
    the losses would rise in the second best pairing). It can be passed as --pairs. The first line of the output tells
    other commands, and ColabFold, the lengths of the chains. Complexes are not read: each alignment has one chain.
    By the model, chains that are together longer than the model reads are refused.

    Example: msa pair A.a3m B.a3m -o AB.a3m
    """
    require(species, pairs)
    tables = {"table of species": species, "table of pairs": pairs}
    more = {name: path for name, path in tables.items() if path is not None}
    first, partners = list_inputs([a]), list_inputs([b])

    def partner(path: Path) -> Path:
        found = partners if len(first) == len(partners) == 1 else [p for p in partners if name_of(p) == name_of(path)]
        if not found:
            raise FileNotFoundError(f"{path}: there is no alignment named {name_of(path)} in {b}.")
        if found[0].resolve() == path.resolve():
            raise ValueError(f"{path} is the first and the second alignment: pass those of two different proteins.")
        return found[0]

    own: dict[str, Any] = {"method": method, "keep_unpaired": keep_unpaired, "rounds": rounds}
    run = session.run(
        [a],
        output,
        ".a3m",
        "pair",
        settings=session.settings(**own),
        depends=lambda path: {"second alignment": partner(path), **more},
        beside=lambda path, target: [table_beside(target)],
    )
    if run.is_single:
        check_alignment_ending(output)
    known, lines = ([], None) if pairs is None else read_pairs(pairs)
    own |= {"species": None if species is None else read_species(species), "pairs": known, "lines": lines}
    model = session.model_of(run, "MsaForMaskedLM") if method == "model" else lambda: None

    def work(path: Path, target: Path) -> str:
        left, right = session.read(path), session.read(partner(path))
        network = model()
        from ..tasks.pairing import pair_alignments

        paired = pair_alignments(
            left, right, network, **own, source=str(pairs), progress=run.is_single, **session.row_options()
        )
        table = write_pairing(paired, target)
        counts = ", ".join(f"{number} {by}" for by, number in Counter(paired.by).items())
        return (
            f"{target}, {table.name}: {counted(len(paired.rows), 'pair')} ({counts}); {paired.shared:,} species in "
            f"both by {paired.form}; without a partner: {counted(paired.unpaired[0], 'row')} of {name_of(path)}, "
            f"{counted(paired.unpaired[1], 'row')} of {name_of(partner(path))}"
        )

    run(work)
