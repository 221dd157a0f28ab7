"""The command ``msa score``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import typer

from .._files import check_ending
from .._ranges import parse_ranges
from .._words import counted
from ..alignments.tables import read_table
from ..alignments.variants import AMINO_ACIDS, Substitution, variant_name
from ..tasks.score_tables import FORMATS, write_scores
from ..tasks.strategies import PROTOCOLS, Mode, Strategy, check_strategy
from .inputs import require
from .options import ALIGNMENTS, Output, Plot, choice, flag, option
from .session import Session, command
from .variant_tables import (
    agreement,
    check_columns,
    find_table,
    measured_values,
    mixed_words,
    read_whole_sequences,
    require_table,
    split_inputs,
    without_score,
)

_TABLE, _SCORES, _WHOLE = "Table of variants", "Scores", "Whole sequences"
_ROWS = ("rows", "select", "seed", "filter_coverage", "filter_identity")
_SEQUENCE_FILES = (".fasta", ".fa", ".faa", *FORMATS)


@command()
def score_command(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="ALIGNMENT [VARIANTS]",
            help=f"{ALIGNMENTS} A .csv or .tsv file is the table of variants.",
        ),
    ],
    output: Output,
    session: Session,
    all_singles: Annotated[bool, flag("--all-singles", "Score all single substitutions, without a table.")] = False,
    plot: Plot = None,
    variants: Annotated[
        Path | None,
        option("PATH", "Table of variants; for several alignments, a folder of files with the same names.", _TABLE),
    ] = None,
    variant_column: Annotated[str, option("NAME", "Column with the variants.", _TABLE)] = "mutant",
    measured_column: Annotated[
        str | None,
        option(
            "NAME",
            "Column with measured values: prints Spearman's correlation with them, and draws them with --plot.",
            _TABLE,
        ),
    ] = None,
    score_column: Annotated[str, option("NAME", "Name of the new column.", _TABLE)] = "score",
    offset: Annotated[
        int, option("N", "Difference to the query's residue numbers: 100 if its residue 1 is 101.", _TABLE)
    ] = 0,
    skip_mismatches: Annotated[
        bool, flag("--skip-mismatches", "Keep variants and sequences that do not fit, without a score.", _TABLE)
    ] = False,
    sequences: Annotated[
        Path | None,
        option(
            "PATH",
            "Proteins of any length, related to the query: a FASTA file, or a table with them in --variant-column; "
            "for several alignments, a folder. Requires the extra search: pip install 'modeling-msa[search]'.",
            _WHOLE,
        ),
    ] = None,
    per_residue: Annotated[
        bool, flag("--per-residue", "Also write a row for each residue, beside the output (.residues.csv).", _WHOLE)
    ] = False,
    strategy: Annotated[
        Strategy | None,
        option(
            "STRATEGY",
            "masked-marginals (default): one pass per mutated residue; wt-marginals: one in all; "
            "pseudo-log-likelihood: one per residue and variant, also with insertions and deletions, and the only one "
            "for --sequences.",
            _SCORES,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        choice(
            "exact: run all rows in each pass. fast: run the homologs once, which then see the query masked. Default: "
            "exact; fast for --sequences.",
            _SCORES,
        ),
    ] = None,
    protocol: Annotated[
        Literal["proteingym"] | None, choice("Settings of a benchmark, which other options override.", _SCORES)
    ] = None,
    seeds: Annotated[
        str | None, option("SEEDS", "Seeds to average over, as 1,2,3 or 1-5; for random or weighted rows.", _SCORES)
    ] = None,
    profile_weight: Annotated[
        float | None,
        option(
            "W",
            "Share of the family's frequencies in the scores, from 0, the model alone, to 1. Default: what is fitted "
            "for the model, 0 for published ones.",
            _SCORES,
            min=0,
            max=1,
        ),
    ] = None,
    window: Annotated[
        int | None, option("N", "Maximum residues around a mutation. Default: all the model can read.", _SCORES, min=1)
    ] = None,
    batch_size: Annotated[
        int | None, option("N", "Number of masked copies in one pass. Default: by their size.", _SCORES, min=1)
    ] = None,
    fitness: Annotated[
        Path | None,
        option("FILE", "Predict measured values by a regression of msa fit-fitness (.safetensors) instead.", _SCORES),
    ] = None,
) -> None:
    """Score variants of the query (the first row): how well the model tolerates them.

    Variants have the form A42V, or A42V:G7D for several substitutions, with residue numbers of the whole query. The
    output is the table with new columns: score (natural logarithm of the ratio of mutant to wild type; higher is
    better tolerated), score_std (standard deviation of several --seeds) and reason, for rows that cannot be scored.
    Insertions and deletions, such as A42del or L13_K14insGG, require --strategy pseudo-log-likelihood.

    With --sequences, whole proteins are aligned to the query and scored by their pseudo-log-likelihood, corrected for
    length.

    With --fitness the score is a value as it was measured, predicted by what msa fit-fitness has learned.

    The protocol proteingym is --filter-coverage 75 --filter-identity 90 --rows 400 --select weighted --seeds 1-5.

    Example: msa score fn3 --all-singles -o scores.csv --plot scores.png
    """
    files = _fitness_files(fitness, context)
    options = session.row_options() | {"strategy": strategy or "masked-marginals", "mode": mode or "exact"}
    options |= {"window": window, "profile_weight": profile_weight}
    if seeds is not None:
        if _is_given(context, "seed"):
            raise ValueError("--seed and --seeds cannot be used together: pass one of them.")
        options["seed"] = tuple(parse_ranges(seeds, "--seeds"))
    if protocol is not None:
        options |= _without_given(PROTOCOLS[protocol], context)
    if sequences is not None:
        if strategy not in (None, "pseudo-log-likelihood"):
            raise ValueError(
                f"--sequences requires the strategy pseudo-log-likelihood: leave out --strategy {strategy}."
            )
        if profile_weight is not None:
            raise ValueError("--profile-weight cannot be used with --sequences: leave it out.")
        options |= {"strategy": "pseudo-log-likelihood", "mode": mode or "fast"}
    elif per_residue:
        raise ValueError("--per-residue requires --sequences.")
    check_strategy(options["strategy"], options["mode"])
    alignments, tables = split_inputs(inputs, variants, all_singles, sequences)
    require(tables)
    endings = FORMATS if sequences is None else _SEQUENCE_FILES
    if not all_singles and plot is not None and measured_column is None:
        raise ValueError(
            "--plot draws the scores of a table against measured values: pass their column with --measured-column. It "
            "draws all single substitutions with --all-singles."
        )
    if all_singles and measured_column is not None:
        raise ValueError("--measured-column is a column of a table of variants; leave it out with --all-singles.")
    own = {"offset": offset, "columns": [variant_column, score_column], "skip_mismatches": skip_mismatches}
    if plot is not None and measured_column is not None:
        own["measured_column"] = measured_column  # in the picture
    if per_residue:
        own["per_residue"] = True
    settings = session.settings(**own, **options)
    suffix = output.suffix if output.suffix in FORMATS else ".csv"

    def table_of(path: Path) -> dict[str, Path]:
        what = "table" if sequences is None else "file of sequences"
        return files | ({what: table} if (table := find_table(path, tables, endings)) is not None else {})

    def residues_of(target: Path) -> Path:
        return target.with_suffix(f".residues{suffix}")

    run = session.run(
        alignments,
        output,
        suffix,
        "score",
        settings=settings,
        depends=table_of,
        plot=plot,
        beside=lambda path, target: [residues_of(target)] if per_residue else [],
    )
    if run.is_single:
        check_ending(output, FORMATS)
    fitted = _load_fitness(fitness)
    model = session.model_of(run, "MsaForMaskedLM" if fitted is None else fitted.model_class)
    options |= {"batch_size": batch_size, "offset": offset}
    if fitted is not None:
        options = {"batch_size": batch_size, "offset": offset}

    def work_singles(path: Path, target: Path) -> str:
        family = session.read(path)
        if fitted is not None:
            fitted.check(family)
        network = model()
        from ..tasks.plotting import plot_substitutions
        from ..tasks.scoring import score_all_singles

        score = score_all_singles if fitted is None else fitted.predict_all_singles
        result = score(family, network, **options)
        if run.picture is not None:
            plot_substitutions(result, run.picture(target))
        write_scores(result, target, score_column=score_column)
        pairs = list(zip(result.wild_type, result.residues.tolist(), strict=True))
        others = [
            variant_name([Substitution(letter, number, "")], result.chains)
            for letter, number in pairs
            if letter not in AMINO_ACIDS
        ]
        scored = counted(len(pairs) - len(others), "residue")
        if others:
            scored += f" (not {', '.join(others[:5])}{' ...' * (len(others) > 5)}: not one of the 20 amino acids)"
        rows = f"{result.depth} of {counted(family.depth, 'row')}"
        return f"{target}: {result.name}, {scored}, {rows}{mixed_words(result.profile_weight)}"

    def work_table(path: Path, target: Path) -> str:
        family = session.read(path)
        source = require_table(path, cast(Path, tables))
        table = read_table(source)
        check_columns(table, source, variant_column, measured_column, score_column)
        cells = table.cells(variant_column)
        more: dict[str, Any] = {"skip_mismatches": skip_mismatches, "source": str(source), "lines": table.lines}
        from ..tasks.plotting import plot_variants
        from ..tasks.scoring import fit_changes, score_variants

        fit_changes(family, cells, offset, **more, indels=options.get("strategy") == "pseudo-log-likelihood")
        if fitted is not None:  # all before the model is loaded
            fitted.check(family)
        score = score_variants if fitted is None else fitted.predict
        result = score(family, cells, model(), **options, **more)
        measured = None if measured_column is None else measured_values(table, measured_column)
        if run.picture is not None and measured is not None:
            plot_variants(result, measured, run.picture(target), label=f"measured: {measured_column}")
        write_scores(result, target, table, score_column)
        scored = f"{np.isfinite(result.score).sum():,} of {counted(len(cells), 'variant')}"
        line = f"{target}: {result.name}, {scored}, {result.depth} of {counted(family.depth, 'row')}"
        line += mixed_words(result.profile_weight)
        line += "" if measured is None else agreement(result.score, measured)
        return line + without_score(result.reason, cells, source, table.lines)

    def work_sequences(path: Path, target: Path) -> str:
        family = session.read(path)
        source = require_table(path, cast(Path, tables), endings)
        table, names, proteins = read_whole_sequences(source, variant_column, measured_column, score_column)
        from ..tasks.plotting import plot_variants
        from ..tasks.sequence_files import write_residues, write_sequence_scores
        from ..tasks.sequence_scoring import fit_sequences, score_sequences

        more: dict[str, Any] = {"skip_mismatches": skip_mismatches, "source": str(source)}
        more["fitted"] = fit_sequences(family, proteins, names, offset, **more)  # before the model is loaded
        chosen = {name: value for name, value in options.items() if name not in ("strategy", "profile_weight")}
        result = score_sequences(family, proteins, model(), names=names, **chosen, **more)
        measured = None if measured_column is None or table is None else measured_values(table, measured_column)
        if run.picture is not None and measured is not None:
            plot_variants(result, measured, run.picture(target), label=f"measured: {measured_column}")
        if per_residue:
            write_residues(result, residues_of(target))
        write_sequence_scores(result, target, table, score_column)
        scored = f"{np.isfinite(result.score).sum():,} of {counted(len(names), 'sequence')}"
        own = result.query_residues.log_probability
        line = f"{target}: {result.name}, {scored}, {result.depth} of {counted(family.depth, 'row')}"
        line += f", the query's sum {own.sum():.4f}, mean {own.mean():.4f}"
        line += "" if measured is None else agreement(result.score, measured)
        return line + without_score(result.reason, names, source, noun="sequence")

    run(work_singles if all_singles else work_table if sequences is None else work_sequences)


def _fitness_files(fitness: Path | None, context: typer.Context) -> dict[str, Path]:
    """Return the files of a regression, by what they are; ValueError for options that it decides."""
    if fitness is None:
        return {}
    if _is_given(context, "sequences"):
        raise ValueError("--sequences cannot be used with --fitness, as a regression predicts substitutions only.")
    decided = ("strategy", "mode", "protocol", "seeds", "window", "profile_weight", *_ROWS)
    if given := [name for name in decided if _is_given(context, name)]:
        shown = given[0].replace("_", "-")
        raise ValueError(f"--{shown} is decided by the regression {fitness}: leave it out, or fit again with it.")
    if _is_given(context, "plot"):
        raise ValueError("--plot draws zero-shot scores: leave it out with --fitness.")
    files = {"regression": fitness, "regression's description": fitness.with_suffix(".json")}
    require(*files.values())
    return files


def _load_fitness(fitness: Path | None) -> Any:
    if fitness is None:
        return None
    from ..tasks.fitness import FitnessModel

    return FitnessModel.load(fitness)


def _without_given(recipe: dict[str, object], context: typer.Context) -> dict[str, object]:
    """Return the settings of a recipe that the command line does not override."""
    names = {"coverage": ["filter_coverage"], "identity": ["filter_identity"], "seed": ["seed", "seeds"]}
    given = {key for key in recipe if any(_is_given(context, name) for name in names.get(key, [key]))}
    return {key: value for key, value in recipe.items() if key not in given}


def _is_given(context: typer.Context, parameter: str) -> bool:
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"
