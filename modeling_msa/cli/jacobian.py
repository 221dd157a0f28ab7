"""The command ``msa jacobian``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from .._files import check_ending
from .._words import counted
from ..alignments.chains import require_chains
from ..tasks.contact_files import FORMATS, write_contacts, write_pairs
from ..tasks.strategies import Mode
from .contact_outputs import Outputs, Viewer
from .options import Inputs, Output, Plot, choice, flag, option
from .session import Session, command
from .structures import BetweenChains, Chain, Known, Structure


@command()
def jacobian_command(
    alignments: Inputs,
    output: Output,
    session: Session,
    mode: Annotated[
        Mode,
        choice("fast: run the homologs once; they see the query masked. exact: 20 passes of all rows per residue."),
    ] = "fast",
    pairs: Annotated[
        int, option("N", "Also write the N pairs of substitutions with the strongest epistasis.", min=0)
    ] = 0,
    full: Annotated[
        bool, flag("--full", "Also write the whole Jacobian (L x 20 x L x 20, float16); for .npz only.")
    ] = False,
    structure: Structure = None,
    chain: Chain = None,
    between_chains: BetweenChains = False,
    batch_size: Annotated[
        int | None, option("N", "Number of versions of the query in one pass. Default: by their size.", min=1)
    ] = None,
    viewer: Viewer = None,
    plot: Plot = None,
    format: Annotated[
        Literal["tsv", "npz", "rr"] | None,
        choice("tsv: i, j, score; npz: arrays for NumPy; rr: CASP's. Default: by the output's ending, or tsv."),
    ] = None,
) -> None:
    """Find contacts and epistasis by the categorical Jacobian: how each substitution changes what the model expects.

    Each residue of the query (the first row) is replaced by each of the 20 amino acids, and the changes of the logits
    at all other residues are summed up to one score for each pair of residues (Frobenius norm, APC; Zhang et al.
    2024). No contact regression is used. The output is that of msa contacts, with scores instead of probabilities:
    pairs at least 6 apart, the strongest first. --structure compares it with a structure.

    --pairs writes pairs such as A42V:G57D beside the output (.pairs.tsv). Their epistasis, in nats, is positive if the
    two substitutions are better tolerated together than each alone suggests.

    A query that is longer than the model reads is refused, since a Jacobian cannot be put together from windows.

    Example: msa jacobian fn3 -o jacobian.tsv --pairs 20 --plot jacobian.png
    """
    ending = output.suffix.lower()
    suffix = f".{format}" if format else ending if ending in FORMATS else ".npz" if full else FORMATS[0]
    if full and suffix != ".npz":
        raise ValueError(f"--full requires NumPy's format, not {suffix}: pass --format npz, or an output .npz.")
    known = Known(structure, chain)
    outputs = Outputs("jacobian", known, viewer, between_chains=between_chains)
    run = session.run(
        alignments,
        output,
        suffix,
        "jacobian",
        settings=session.settings(mode=mode, pairs=pairs, full=full, chain=chain, between_chains=between_chains),
        depends=known.of,
        plot=plot,
        beside=lambda path, target: [*outputs.beside(path, target), *([_pairs_file(target)] if pairs else [])],
    )
    known.check(run.paths)
    outputs.check(run)
    if run.is_single:
        check_ending(output, FORMATS)
        if ending != suffix:
            raise ValueError(f"{output} does not end with {suffix}: change it, or leave out --format.")
    model = session.model_of(run, "MsaForMaskedLM")
    options: dict[str, Any] = {"mode": mode, "pairs": pairs, "full": full, "batch_size": batch_size}

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        if between_chains:
            require_chains(family.chains, str(path), "--between-chains")
        assignments = known.contacts(path, family)
        outputs.check_structure(path, target, family, assignments or ())
        network = model()
        from ..tasks.jacobian import categorical_jacobian
        from ..tasks.plotting import plot_contacts

        result = categorical_jacobian(family, network, **options, **session.row_options())
        true = known.closest(result, assignments)
        if run.picture is not None:
            plot_contacts(result, run.picture(target), known=true, between_chains=between_chains)
        if pairs:
            write_pairs(result, _pairs_file(target))
        residues, rows = counted(len(result.residues), "residue"), counted(family.depth, "row")
        judged = known.judged(result, true, target, run.is_single)
        drawn = outputs.write(path, target, result)
        write_contacts(result, target, between_chains=between_chains)
        words = f"{target}: {result.name}, {residues}, {result.depth} of {rows}{judged}"
        return words + (drawn if run.is_single else "")

    run(work)


def _pairs_file(target: Path) -> Path:
    return target.with_suffix(".pairs.tsv")
