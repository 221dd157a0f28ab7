"""The command ``msa contacts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from .._files import check_ending
from .._words import counted
from ..alignments.chains import require_chains
from ..tasks.contact_files import FORMATS, write_contacts
from .baselines import Baseline, baselines, check_baselines, parse_baselines
from .contact_outputs import EnrichmentFile, MapHeads, MapLayers, Outputs, RowMapsFile, Viewer
from .options import Inputs, Output, Plot, choice
from .session import Session, command
from .structures import BetweenChains, Chain, ChainGap, Known, Structure
from .windows import Overlap, Window, WindowOptions, uncovered_note


@command()
def contacts_command(
    alignments: Inputs,
    output: Output,
    session: Session,
    structure: Structure = None,
    chain: Chain = None,
    between_chains: BetweenChains = False,
    chain_gap: ChainGap = 0,
    baseline: Baseline = None,
    viewer: Viewer = None,
    enrichment: EnrichmentFile = None,
    window: Window = None,
    overlap: Overlap = None,
    plot: Plot = None,
    format: Annotated[
        Literal["tsv", "npz", "rr"] | None,
        choice("tsv: i, j, probability; npz: map for NumPy; rr: CASP's. Default: by the output's ending, or tsv."),
    ] = None,
    row_maps: RowMapsFile = None,
    map_layers: MapLayers = "all",
    map_heads: MapHeads = "all",
) -> None:
    """Predict which residues of the query (the first row) are in contact.

    Pairs are numbered by the residues of the query, from 1; they are at least 6 apart, the most probable first.
    Residues of a structure are matched by aligning its sequence with the query, whatever their numbers; residues whose
    C-beta atoms are within 8 Angstrom are in contact. P@L is printed, and written beside the output (.precision.tsv).
    --baseline adds scores without a model from the same rows: columns of the table, panels of the picture, and P@L.
    --viewer draws the pairs on the structure.

    In a complex (--chains) residues are numbered by chain, as A:42, and pairs of two chains are never too close.

    A pair that no window covers has no probability: it is empty in the table and grey in the picture.

    Example: msa contacts fn3 -o contacts.tsv --plot contacts.png
    """
    ending = output.suffix.lower()
    suffix = f".{format}" if format else ending if ending in FORMATS else FORMATS[0]
    if baseline and suffix == ".rr":
        raise ValueError("RR has one number for each pair: with --baseline, pass --format tsv or npz.")
    methods, windows = parse_baselines(baseline), WindowOptions(window, overlap)
    if row_maps is not None and windows != WindowOptions():
        raise ValueError("Row maps are not read in windows: leave out --window and --overlap, or --row-maps.")
    known = Known(structure, chain)
    outputs = Outputs("contacts", known, viewer, enrichment, row_maps, map_layers, map_heads, between_chains)
    run = session.run(
        alignments,
        output,
        suffix,
        "contacts",
        settings=session.settings(
            chain=chain,
            between_chains=between_chains,
            chain_gap=chain_gap,
            baseline=methods,
            **windows.of(),
            **outputs.settings(),
        ),
        depends=known.of,
        plot=plot,
        beside=outputs.beside,
    )
    known.check(run.paths)
    outputs.check(run)
    if run.is_single:
        check_ending(output, FORMATS)
        if ending != suffix:
            raise ValueError(f"{output} does not end with {suffix}: change it, or leave out --format.")

    def check(loaded: Any) -> None:
        windows.check(loaded)
        outputs.check_model(loaded)

    model = session.model_of(run, check=check)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        if chain_gap:
            require_chains(family.chains, str(path), "--chain-gap")
        if between_chains:
            require_chains(family.chains, str(path), "--between-chains")
        assignments = known.contacts(path, family)
        check_baselines(methods, family)
        outputs.check_structure(path, target, family, assignments or ())
        network = model()
        outputs.check_row_maps(family, network)
        from ..tasks.contacts import predict_contacts
        from ..tasks.plotting import plot_contacts

        rows = session.row_options() | {"chain_gap": chain_gap}
        result = predict_contacts(family, network, **rows, **windows.of())
        beside = baselines(methods, family, session.row_options() | {"rows": result.depth})
        true = known.closest(result, assignments)
        if run.picture is not None:
            plot_contacts(result, run.picture(target), known=true, between_chains=between_chains, beside=beside)
        judged = known.judged(result, true, target, run.is_single, beside)
        outputs.write_features(target, family, network, rows)
        drawn = outputs.write(path, target, result)
        write_contacts(result, target, between_chains=between_chains, beside=beside)
        residues, depth = counted(len(result.residues), "residue"), counted(family.depth, "row")
        note = windows.note(network, len(result.residues)) + uncovered_note(result)
        words = f"{target}: {result.name}, {residues}, {result.depth} of {depth}{note}{judged}"
        return words + (drawn if run.is_single else "")

    run(work)
