"""The command ``msa predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .._files import check_ending
from .._words import counted
from ..alignments.chains import format_residues
from ..alignments.listing import name_of
from ..alignments.tables import Table, read_table
from ..hub.finding import find_model
from ..tasks.prediction_files import FORMATS, check_table, gather_tables, write_prediction
from ..tasks.score_tables import FORMATS as TABLES
from .inputs import list_inputs, require
from .options import Inputs, Output, Plot, choice, flag, option
from .session import Session, command, start_torch
from .variant_tables import check_columns, find_table, without_score
from .windows import uncovered_note

if TYPE_CHECKING:
    from ..tasks.contacts import ContactMap
    from ..tasks.prediction import Prediction

_TABLE = "Table of variants"


@command("model")
def predict_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Model with a trained head: folder of msa train, also of a LoRA run, or Hub id (OWNER/NAME).",
        ),
    ],
    alignments: Inputs,
    output: Output,
    session: Session,
    variants: Annotated[
        Path | None,
        option(
            "PATH",
            "Predict for the variants in a table (.csv, .tsv) instead of the query; for several alignments, a folder "
            "of files with the same names.",
            _TABLE,
        ),
    ] = None,
    variant_column: Annotated[str, option("NAME", "Column with the variants.", _TABLE)] = "mutant",
    offset: Annotated[
        int, option("N", "Difference to the query's residue numbers: 100 if its residue 1 is 101.", _TABLE)
    ] = 0,
    skip_mismatches: Annotated[
        bool, flag("--skip-mismatches", "Keep variants with a wrong wild type, without a prediction.", _TABLE)
    ] = False,
    plot: Plot = None,
    format: Annotated[Literal["tsv", "csv", "npz"], choice("Format of the files in a folder.")] = "tsv",
) -> None:
    """Apply a head that msa train has trained: to alignments, or to variants of a query.

    What is predicted follows from the model: a class for each residue of the query, a class or values for each
    alignment or variant, or contacts. Classes have a name and a column for the probability of each. Residues are
    numbered on the whole query, from 1; those in lower case have no column and are left out. A model with one answer
    for each alignment also writes many alignments into one table. --plot draws classes of residues, and contacts.

    Contacts of a query that is longer than the model reads are predicted in windows, and pairs in none have no
    probability. By other heads it is refused.

    Pass --rows and --select as in the recipe that the model was trained with (max_rows, select).

    Example: msa predict runs/secondary-structure fn3 -o structure.tsv --plot structure.png
    """
    session.model = model
    _check_inputs(model, alignments, variants, output)
    start_torch()
    from ..tasks.prediction import ALIGNMENT, outputs_of, predict
    from ..tasks.scoring import fit_variants

    head = _head_of(model, variants, plot)
    is_file = bool(output.suffix) and not output.is_dir()
    in_one_table = is_file and head == ALIGNMENT and variants is None and output.suffix.lower() != ".npz"
    own = {"variant_column": variant_column, "offset": offset, "skip_mismatches": skip_mismatches}

    def table_of(path: Path) -> dict[str, Path]:
        return {"table": table} if (table := find_table(path, variants)) is not None else {}

    run = session.run(
        alignments,
        output,
        output.suffix if is_file else f".{format}",
        "predict",
        settings=session.settings(**own),
        depends=table_of,
        plot=plot,
        gather=gather_tables if in_one_table else None,
    )
    load = session.model_of(run, head)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        if variants is None:
            result = predict(family, load(), **session.row_options())
            if run.picture is not None:
                _draw(result, run.picture(target))
            write_prediction(result, target, name=name_of(path))
            return f"{name_of(path) if in_one_table else target}: {_line(result, family.depth)}"
        source, table = _read_variants(path, variants, variant_column)
        cells = table.cells(variant_column)
        more: dict[str, Any] = {"source": str(source), "lines": table.lines}
        fit_variants(family, cells, offset, skip_mismatches, **more)  # before the model is loaded
        network = load()
        try:
            check_table(table, *outputs_of(network))
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        more |= {"offset": offset, "skip_mismatches": skip_mismatches}
        of_variants: Any = predict(family, network, cells, **more, **session.row_options())
        write_prediction(of_variants, target, table)
        lacking = without_score(of_variants.reasons, cells, source, table.lines, "prediction")
        return f"{target}: {_line(of_variants, family.depth)}{lacking}"

    run(work)


def _check_inputs(model: str, alignments: list[str], variants: Path | None, output: Path) -> None:
    """Raise what is wrong with the names on the command line, before torch is loaded."""
    find_model(model)
    if tables := [each for each in alignments if each.lower().endswith(TABLES)]:
        raise ValueError(f"{tables[0]} is a table, not an alignment: pass a table of variants with --variants.")
    require(variants)
    list_inputs(alignments, leave_out=output)
    if output.suffix and not output.is_dir():
        check_ending(output, FORMATS)


def _head_of(model: str, variants: Path | None, plot: str | None) -> str:
    """Return the class of a model's head; ValueError if it has none, or none for what is asked."""
    from ..hub.loading import saved_class
    from ..tasks.prediction import ALIGNMENT, HEADS, check_variants_of, without_head

    head = saved_class(model).__name__
    if head not in HEADS:
        raise ValueError(without_head(model))
    if variants is not None:
        check_variants_of(head)
    if plot is not None and head == ALIGNMENT:
        raise ValueError(
            f"--plot draws classes of residues, or contacts, but {model} has one answer for each alignment: leave it "
            "out."
        )
    return head


def _read_variants(path: Path, variants: Path, column: str) -> tuple[Path, Table]:
    """Read the table of an alignment's variants."""
    if (source := find_table(path, variants)) is None:
        raise FileNotFoundError(f"{path}: there is no table {name_of(path)}.csv or .tsv in {variants}.")
    table = read_table(source)
    check_columns(table, source, column)
    return source, table


def _draw(result: Prediction | ContactMap, picture: Path) -> None:
    from ..tasks.contacts import ContactMap
    from ..tasks.plotting import plot_contacts
    from ..tasks.prediction_plotting import plot_prediction

    if isinstance(result, ContactMap):
        plot_contacts(result, picture)
    else:
        plot_prediction(result, picture)


def _line(result: Any, depth: int) -> str:
    """Say what was predicted, and which residues of the query were left out."""
    of = getattr(result, "of", "residues")
    if of == "alignment":
        pairs = list(zip(result.labels, result.scores[0].tolist(), strict=True))
        if result.kind == "classes":
            pairs = [max(pairs, key=lambda pair: pair[1])]
        found = ", ".join(f"{label} {score:.4g}" for label, score in pairs[:5]) + " ..." * (len(pairs) > 5)
    elif of == "variants":
        found = f"{result.reasons.count(''):,} of {counted(len(result.reasons), 'variant')}"
    else:
        found = counted(len(result.residues), "residue")
    line = f"{result.name}, {found}, {result.depth} of {counted(depth, 'row')}"
    left_out = sorted(set(range(1, len(result.query) + 1)).difference(result.residues.tolist()))
    if hasattr(result, "uncovered"):  # a contact map
        line += uncovered_note(result)
    if left_out:
        line += f"; residues of the query without a column, left out: {format_residues(result.chains, left_out)}"
    return line
