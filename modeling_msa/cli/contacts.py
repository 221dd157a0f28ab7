"""The command ``msa contacts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from .._files import check_ending
from .._words import counted
from ..tasks.contact_files import FORMATS, write_contacts
from .baselines import Baseline, baselines, check_baselines, parse_baselines
from .options import Inputs, Output, Plot, choice
from .session import Session, command
from .structures import Chain, Known, Structure


@command()
def contacts_command(
    alignments: Inputs,
    output: Output,
    session: Session,
    structure: Structure = None,
    chain: Chain = None,
    baseline: Baseline = None,
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
    --baseline adds scores without a model from the same rows: columns of the table, panels of the picture, and P@L.

    Example: msa contacts fn3 -o contacts.tsv --plot contacts.png
    """
    ending = output.suffix.lower()
    suffix = f".{format}" if format else ending if ending in FORMATS else FORMATS[0]
    if baseline and suffix == ".rr":
        raise ValueError("RR has one number for each pair: with --baseline, pass --format tsv or npz.")
    methods = parse_baselines(baseline)
    known = Known(structure, chain)
    run = session.run(
        alignments,
        output,
        suffix,
        "contacts",
        settings=session.settings(chain=chain, baseline=methods),
        depends=known.of,
        plot=plot,
        beside=known.beside,
    )
    known.check(run.paths)
    if run.is_single:
        check_ending(output, FORMATS)
        if ending != suffix:
            raise ValueError(f"{output} does not end with {suffix}: change it, or leave out --format.")
    model = session.model_of(run)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        true = known.contacts(path, family)
        check_baselines(methods, family)
        network = model()
        from ..tasks.contacts import predict_contacts
        from ..tasks.plotting import plot_contacts

        result = predict_contacts(family, network, **session.row_options())
        beside = baselines(methods, family, session.row_options() | {"rows": result.depth})
        if run.picture is not None:
            plot_contacts(result, run.picture(target), known=true, beside=beside)
        residues, rows = counted(len(result.residues), "residue"), counted(family.depth, "row")
        judged = known.judged(result, true, target, run.is_single, beside)
        write_contacts(result, target, beside=beside)
        return f"{target}: {result.name}, {residues}, {result.depth} of {rows}{judged}"

    run(work)
