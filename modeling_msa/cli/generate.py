"""The command ``msa generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from .._words import counted
from ..alignments.chains import chain_of_name, require_chains
from ..alignments.writing import check_alignment_ending
from ..tasks.generation_files import table_beside, write_generated
from ..tasks.strategies import Mode
from .options import Inputs, Output, choice, flag, option
from .session import Session, command

_SAMPLING, _CHANGES = "Sampling", "What may change"


@command(rows=600, select="random")
def generate_command(
    inputs: Inputs,
    output: Output,
    session: Session,
    iterations: Annotated[int, option("N", "Number of rounds of masking.", _SAMPLING, min=1)] = 200,
    mask_probability: Annotated[
        float, option("P", "Probability that a residue or gap is masked in a round.", _SAMPLING, min=0, max=1)
    ] = 0.1,
    sampling: Annotated[
        Literal["greedy", "sample"], choice("Fill a mask with the most probable letter, or sample one.", _SAMPLING)
    ] = "greedy",
    temperature: Annotated[
        float,
        option("T", "For --sampling sample: below 1 favors likely letters, above 1 rare ones.", _SAMPLING, min=0),
    ] = 1.0,
    top_p: Annotated[
        float | None,
        option("P", "For --sampling sample: the most probable letters up to this sum.", _SAMPLING, min=0, max=1),
    ] = None,
    mode: Annotated[
        Mode, choice("In each round, run all rows (exact), or one row on others run once (fast).", _SAMPLING)
    ] = "exact",
    count: Annotated[
        int | None,
        option(
            "N",
            "Maximum number of sequences to generate. Above --rows, further rows of the family follow; below, the "
            "other rows stay the same. Default: one from each row given to the model.",
            _CHANGES,
            min=1,
        ),
    ] = None,
    only_rows: Annotated[
        list[str] | None,
        option("ROW", "Change only this row: a name, number (1: query) or range; repeatable.", _CHANGES),
    ] = None,
    only_residues: Annotated[
        str | None,
        option(
            "RESIDUES", "Change only these residues of the query, such as 3,10-12; of a complex A:3,B:10-12.", _CHANGES
        ),
    ] = None,
    chain: Annotated[
        str | None, option("CHAIN", "Of a complex, change only this chain; the others stay as they are.", _CHANGES)
    ] = None,
    fix: Annotated[str | None, option("RESIDUES", "Do not change these residues of the query.", _CHANGES)] = None,
    keep_query: Annotated[bool, flag("--keep-query", "Do not change the query.", _CHANGES)] = False,
    no_new_gaps: Annotated[bool, flag("--no-new-gaps", "Never turn a residue into a gap.", _CHANGES)] = False,
    keep_gaps: Annotated[bool, flag("--keep-gaps", "Do not change gaps; msa-small fills them all.", _CHANGES)] = False,
) -> None:
    """Generate new sequences of a family by iterative masking (Sgarbossa et al. 2023).

    Each row gives one new sequence, with the columns of the query's residues; options that name residues apply to
    their columns in all rows. NAME.generated.tsv, beside the output, has for each sequence its identity to its parent
    and to the nearest natural row, the mean log-probability per residue of both, and the fraction of gaps. The
    defaults are the paper's; on a CPU, fewer --rows are faster. The mode fast is for a single row that changes
    (--only-rows, --count 1), whose residues the other rows then do not see. A query that is longer than the model
    reads is refused.

    Example: msa generate fn3 -o new.a3m --rows 32 --iterations 20
    """
    if chain is not None:
        if only_residues is not None:
            raise ValueError("--chain and --only-residues cannot be used together: pass --only-residues alone.")
        only_residues = chain
    arguments: dict[str, Any] = session.row_options() | {
        "iterations": iterations,
        "mask_probability": mask_probability,
        "sampling": sampling,
        "temperature": temperature,
        "top_p": top_p,
        "count": count,
        "only_rows": only_rows or None,
        "only_residues": only_residues,
        "fixed_residues": fix,
        "keep_query": keep_query,
        "new_gaps": not no_new_gaps,
        "keep_gaps": keep_gaps,
        "mode": mode,
    }
    run = session.run(
        inputs,
        output,
        ".a3m",
        "generate",
        settings=session.settings(**arguments),
        beside=lambda path, target: [table_beside(target)],
    )
    if run.is_single:
        check_alignment_ending(output)
    from ..tasks.generation import check_arguments, generate

    check_arguments(sampling, temperature, top_p, only_residues, fix, mode)
    model = session.model_of(run, "MsaForMaskedLM")

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        if chain is not None:
            require_chains(family.chains, str(path), "--chain")
            chain_of_name(family.chains, chain, f"{path}: --chain")
        generated = generate(family, model(), progress=run.is_single, **arguments)
        table = write_generated(generated, target)
        mean = generated.nearest_identity.mean()
        return (
            f"{target}, {table.name}: {counted(len(generated.names), 'sequence')}, on average {100 * mean:.0f} % "
            "identical to the nearest natural row"
        )

    run(work)
