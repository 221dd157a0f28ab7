"""The command ``msa contacts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from .._files import check_ending
from .._words import counted
from ..tasks.contact_files import FORMATS, write_contacts
from .options import Inputs, Output, Plot, choice
from .session import Session, command
from .structures import Chain, Known, Structure
from .windows import Overlap, Window, WindowOptions, uncovered_note


@command()
def contacts_command(
    alignments: Inputs,
    output: Output,
    session: Session,
    structure: Structure = None,
    chain: Chain = None,
    window: Window = None,
    overlap: Overlap = None,
    plot: Plot = None,
    format: Annotated[
        Literal["tsv", "npz", "rr"] | None,
        choice("tsv: i, j, probability; npz: map for NumPy; rr: CASP's. Default: by the output's ending, or tsv."),
    ] = None,
) -> None:
    """Predict which residues of the query (the first row) are in contact.

    Pairs are numbered by the residues of the query, from 1; they are at least 6 apart, the most probable first.
    Residues of a structure are matched by aligning its sequence with the query, whatever their numbers; residues whose
    C-beta atoms are within 8 Angstrom are in contact. P@L is printed, and written beside the output (.precision.tsv).

    A pair that no window covers has no probability: it is empty in the table and grey in the picture.

    Example: msa contacts fn3 -o contacts.tsv --plot contacts.png
    """
    ending = output.suffix.lower()
    suffix = f".{format}" if format else ending if ending in FORMATS else FORMATS[0]
    known, windows = Known(structure, chain), WindowOptions(window, overlap)
    run = session.run(
        alignments,
        output,
        suffix,
        "contacts",
        settings=session.settings(chain=chain, **windows.of()),
        depends=known.of,
        plot=plot,
        beside=known.beside,
    )
    known.check(run.paths)
    if run.is_single:
        check_ending(output, FORMATS)
        if ending != suffix:
            raise ValueError(f"{output} does not end with {suffix}: change it, or leave out --format.")
    model = session.model_of(run, check=windows.check)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        true = known.contacts(path, family)
        network = model()
        from ..tasks.contacts import predict_contacts
        from ..tasks.plotting import plot_contacts

        result = predict_contacts(family, network, **session.row_options(), **windows.of())
        if run.picture is not None:
            plot_contacts(result, run.picture(target), known=true)
        residues, rows = counted(len(result.residues), "residue"), counted(family.depth, "row")
        judged = known.judged(result, true, target, run.is_single)
        write_contacts(result, target)
        note = windows.note(network, len(result.residues)) + uncovered_note(result)
        return f"{target}: {result.name}, {residues}, {result.depth} of {rows}{note}{judged}"

    run(work)
