"""The command ``msa contacts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from .._files import check_ending
from .._words import counted
from ..alignments.known_contacts import load_contacts
from ..alignments.listing import name_of
from ..tasks.contact_files import FORMATS, write_contacts
from .inputs import list_structures
from .options import Inputs, Output, Plot, choice, option
from .session import Session, command


@command()
def contacts_command(
    alignments: Inputs,
    output: Output,
    session: Session,
    structure: Annotated[
        Path | None,
        option(
            "PATH",
            "Structure (PDB, mmCIF) to compare with; for several alignments, a folder of files with the same names. "
            "Requires the extra structure: pip install 'modeling-msa[structure]'.",
        ),
    ] = None,
    chain: Annotated[
        str | None, option("CHAIN", "Chain of the structure. Default: the one closest to the query.")
    ] = None,
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

    Example: msa contacts fn3 -o contacts.tsv --plot contacts.png
    """
    ending = output.suffix.lower()
    suffix = f".{format}" if format else ending if ending in FORMATS else FORMATS[0]
    files = list_structures(structure)

    def structure_of(path: Path) -> dict[str, Path]:
        file = files.get("", files.get(name_of(path)))
        return {} if file is None else {"structure": file}

    run = session.run(
        alignments,
        output,
        suffix,
        "contacts",
        settings=session.settings(chain=chain),
        depends=structure_of,
        plot=plot,
        beside=lambda path, target: [_precision_file(target)] if structure_of(path) else [],
    )
    if files and not any(map(structure_of, run.paths)):
        raise ValueError(f"{structure} has no structure named like an alignment, such as {run.paths[0]}.")
    if run.is_single:
        check_ending(output, FORMATS)
        if ending != suffix:
            raise ValueError(f"{output} does not end with {suffix}: change it, or leave out --format.")
    model = session.model_of(run)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        file = structure_of(path).get("structure")
        known = None if file is None else load_contacts(file, family, chain)
        network = model()
        from ..tasks.contact_precision import precisions
        from ..tasks.contacts import predict_contacts
        from ..tasks.plotting import plot_contacts

        result = predict_contacts(family, network, **session.row_options())
        if run.picture is not None:
            plot_contacts(result, run.picture(target), known=known)
        residues, rows = counted(len(result.residues), "residue"), counted(family.depth, "row")
        line = f"{result.name}, {residues}, {result.depth} of {rows}"
        if known is not None:
            line += _judged(precisions(result, known), target, run.is_single)
        write_contacts(result, target)
        lacking = f"; no structure in {structure}" if files and known is None else ""
        return f"{target}: {line}{lacking}"

    run(work)


def _precision_file(target: Path) -> Path:
    return target.with_suffix(".precision.tsv")


def _judged(values: dict[str, float], target: Path, whole: bool) -> str:
    """Write a family's precisions beside its target; return them, all or the most important."""
    from ..tasks.contact_precision import precision_table, write_precisions

    write_precisions(values, _precision_file(target))
    if whole:
        return "\n" + precision_table({name: shown(value) for name, value in values.items()})
    return "".join(f", {name} {shown(values[name])}" for name in ("P@L", "long P@L", "long P@L/2", "long P@L/5"))


def shown(value: float) -> str:
    """Format a precision for the screen; NaN is a dash."""
    return "-" if np.isnan(value) else f"{value:.2f}"
