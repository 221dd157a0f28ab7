"""The command ``msa evaluate-contacts``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._words import counted
from .inputs import list_known
from .options import Families, Structures, output_option
from .session import Session, command
from .structures import shown
from .windows import Overlap, Window, WindowOptions


@command("input_format", "chains")
def evaluate_contacts_command(
    families: Families,
    output: Annotated[Path, output_option("FILE", "Output table (.tsv).")],
    session: Session,
    structures: Structures = None,
    window: Window = None,
    overlap: Overlap = None,
) -> None:
    """Measure the precision of predicted contacts in families of known structure.

    The output has one row per family: P@L, P@L/2 and P@L/5 of all, short-, medium- and long-range contacts. The means
    with their 95 % bootstrap intervals over families are printed, and written beside it (.means.tsv). Complexes are
    not read; see msa contacts --chains.

    With the published checkpoint (see msa convert), trRosetta's families and --rows 256, this is the experiment of
    Table 1 in Rao et al. (2021). Leave out the families that the contact regression was fitted on.

    Example: msa evaluate-contacts families.tsv -o precision.tsv
    """
    windows = WindowOptions(window, overlap)
    listed = list_known(families, structures)
    known = {family.alignment.resolve(): family for family in listed}

    def gather(parts: list[Path], whole: Path) -> list[Path]:
        from ..tasks.contact_evaluation import read_evaluation, write_evaluation, write_means

        evaluation = read_evaluation(*parts)
        means = whole.with_suffix(".means.tsv")
        write_means(evaluation, means)
        write_evaluation(evaluation, whole)
        typer.echo(evaluation)
        return [whole, means]

    def structure_of(path: Path) -> dict[str, Path | str]:
        family = known[path.resolve()]
        return {"structure": family.structure, "chain": family.chain or "the closest"}

    run = session.run(
        [family.alignment for family in listed],
        output,
        ".tsv",
        "evaluate-contacts",
        settings=session.settings(**windows.of()),
        gather=gather,
        depends=structure_of,
        also_read=[families],
    )
    model = session.model_of(run, check=windows.check)

    def work(path: Path, target: Path) -> str:
        from ..tasks.contact_evaluation import evaluate_contacts, write_evaluation

        more = session.row_options() | windows.of()
        evaluation = evaluate_contacts([known[path.resolve()]], model(), **more)
        write_evaluation(evaluation, target)
        precision = {name: shown(values[0]) for name, values in evaluation.precisions.items()}
        sizes = f"{counted(evaluation.lengths[0], 'residue')}, {counted(evaluation.depths[0], 'row')}"
        if note := windows.note(model(), int(evaluation.lengths[0])):
            sizes += f"{note}; P@L of the pairs that they cover"
        return f"{evaluation.names[0]}: {sizes}, P@L {precision['P@L']}, long P@L {precision['long P@L']}"

    run(work)
