"""The command ``msa profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from .._files import check_ending
from .._words import counted
from ..tasks.profile_files import FORMATS, Frequencies, write_profile
from ..tasks.strategies import Mode
from .options import Inputs, Output, Plot, choice, option
from .session import Session, command
from .windows import WindowOptions


@command()
def profile_command(
    alignments: Inputs,
    output: Output,
    session: Session,
    mode: Annotated[
        Mode,
        choice("exact: one pass of all rows per residue. fast: run the homologs once; they see the query masked."),
    ] = "exact",
    frequencies: Annotated[
        Frequencies, choice("Rows whose residues are counted: all of the file, or those that the model has seen.")
    ] = "all",
    offset: Annotated[int, option("N", "Difference to the query's residue numbers: 100 if its residue 1 is 101.")] = 0,
    window: Annotated[
        int | None, option("N", "Maximum residues around the masked one. Default: all the model can read.", min=2)
    ] = None,
    batch_size: Annotated[
        int | None, option("N", "Number of masked copies in one pass. Default: by their size.", min=1)
    ] = None,
    plot: Plot = None,
    format: Annotated[
        Literal["tsv", "npz"] | None,
        choice("tsv: a line per residue; npz: arrays for NumPy. Default: by the output's ending, or tsv."),
    ] = None,
) -> None:
    """Predict the amino acids at each residue of the query (the first row), beside those of its family.

    Each residue is masked in turn. The table has a line for each: entropy of the model's probabilities in nats (0: one
    amino acid is certain; 3.00: all are equally likely), the same for the family (family_entropy), the probability of
    signs other than the 20 amino acids (other), the share of gaps in the column, then the model's probabilities (p_A
    to p_Y) and the family's frequencies (f_A to f_Y). These are counted by sequence weight (rows that are 80 % alike
    share one vote), without pseudocounts. --plot draws both as sequence logos.

    Example: msa profile fn3 -o profile.tsv --plot profile.png
    """
    ending = output.suffix.lower()
    suffix = f".{format}" if format else ending if ending in FORMATS else FORMATS[0]
    own: dict[str, Any] = {"mode": mode, "frequencies": frequencies, "offset": offset, "window": window}
    run = session.run(alignments, output, suffix, "profile", settings=session.settings(**own), plot=plot)
    if run.is_single:
        check_ending(output, FORMATS)
        if ending != suffix:
            raise ValueError(f"{output} does not end with {suffix}: change it, or leave out --format.")
    model = session.model_of(run, "MsaForMaskedLM", check=WindowOptions(window).check)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        network = model()
        from ..tasks.logos import plot_profile
        from ..tasks.profiles import predict_profile

        result = predict_profile(family, network, **own, batch_size=batch_size, **session.row_options())
        if run.picture is not None:
            plot_profile(result, run.picture(target))
        write_profile(result, target)
        residues, rows = counted(len(result.residues), "residue"), counted(family.depth, "row")
        means = f"mean entropy {result.entropy.mean():.2f} nats, of the family {np.nanmean(result.family_entropy):.2f}"
        return f"{target}: {result.name}, {residues}, {result.depth} of {rows}, {means}"

    run(work)
