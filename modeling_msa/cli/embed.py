"""The command ``msa embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from .._words import counted
from ..alignments.alignment import Alignment
from ..alignments.listing import name_of
from ..alignments.tables import read_table
from ..tasks.embedding_files import check_embeddings, gather_embeddings, write_embeddings
from ..tasks.score_tables import FORMATS as TABLES
from ..tasks.strategies import Mode
from .inputs import require
from .options import Inputs, choice, flag, option, output_option
from .session import Session, command
from .variant_tables import check_columns, find_table, without_score
from .windows import Overlap, Window, WindowOptions

_TABLE = "Table of variants"


@command()
def embed_command(
    alignments: Inputs,
    output: Annotated[Path, output_option("PATH", "File for all (.safetensors, .npz, .parquet), or folder.")],
    session: Session,
    which: Annotated[
        Literal["query", "mean", "rows", "mutated", "both"] | None,
        choice(
            "One vector for each residue of the query (the default), their mean, or one for each residue of all rows. "
            "Of variants: the mean over all residues (the default), over the mutated ones, or both side by side."
        ),
    ] = None,
    layers: Annotated[str, option("LAYERS", "0 (embedding layer) to the last, -1; several as 0,6,12; or all.")] = "-1",
    output_dtype: Annotated[Literal["float32", "float16"], choice("Number type of the output.")] = "float32",
    window: Window = None,
    overlap: Overlap = None,
    format: Annotated[
        Literal["safetensors", "npz", "parquet"], choice("Format of the files in a folder.")
    ] = "safetensors",
    variants: Annotated[
        Path | None,
        option(
            "PATH",
            "Embed the variants in a table (.csv, .tsv) instead of the query; for several alignments, a folder of "
            "files with the same names.",
            _TABLE,
        ),
    ] = None,
    variant_column: Annotated[str, option("NAME", "Column with the variants.", _TABLE)] = "mutant",
    offset: Annotated[
        int, option("N", "Difference to the query's residue numbers: 100 if its residue 1 is 101.", _TABLE)
    ] = 0,
    skip_mismatches: Annotated[
        bool, flag("--skip-mismatches", "Leave out variants with a wrong wild type.", _TABLE)
    ] = False,
    mode: Annotated[
        Mode,
        choice(
            "exact: run all rows for each variant. fast: run the homologs once, which then see the query masked.",
            _TABLE,
        ),
    ] = "exact",
) -> None:
    """Write hidden states of alignments, as features of residues or families for other models.

    Arrays are named after the alignment's file, without its ending; with several layers NAME/layer_6. Residues for
    which the alignment has no column are left out; the metadata of the file say which residues it has, and from which
    model, rows and layers. A residue that several windows cover has the average of its states. With --variants,
    arrays are named after the variants, as they are written in the table; they are not embedded in windows.

    Example: msa embed fn3 -o embeddings.safetensors
    """
    chosen, windows = parse_layers(layers), WindowOptions(window, overlap)
    if variants is not None and windows != WindowOptions():
        raise ValueError("Variants are not embedded in windows: leave out --window and --overlap.")
    which = _checked(which, alignments, variants)
    in_one_file = not output.is_dir() and output.suffix != ""
    suffix = check_embeddings(output if in_one_file else f"x.{format}")

    def gather(parts: list[Path], whole: Path) -> list[Path]:
        gather_embeddings(parts, whole)
        return [whole]

    of_table: dict[str, Any] = {}
    if variants is not None:
        of_table = {"variant_column": variant_column, "offset": offset, "mode": mode}
        of_table["skip_mismatches"] = skip_mismatches

    def table_of(path: Path) -> dict[str, Path]:
        return {"table": table} if (table := find_table(path, variants)) is not None else {}

    run = session.run(
        alignments,
        output if in_one_file else f"{output}/",
        suffix,
        "embed",
        settings=session.settings(which=which, layers=layers, output_dtype=output_dtype, **windows.of(), **of_table),
        depends=table_of,
        gather=gather if in_one_file else None,
    )
    if variants is not None and in_one_file and len(run.paths) > 1:
        raise ValueError(f"{output}: variants of several alignments have the same names; pass a folder with -o.")

    def check(loaded: Any) -> None:
        numbers_of(loaded, chosen)
        windows.check(loaded)

    model = session.model_of(run, check=check)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        if variants is not None:
            return work_variants(path, family, target)
        network = model()
        from ..tasks.embeddings import embed

        numbers = numbers_of(network, chosen)
        more = session.row_options() | windows.of()
        result = embed(family, network, which=which, layers=numbers, dtype=output_dtype, **more)
        write_embeddings({name_of(path): result}, target)
        residues, rows = counted(len(result.residues), "residue"), counted(family.depth, "row")
        note = windows.note(network, len(result.residues))
        return f"{name_of(path)}: {residues}, {result.depth} of {rows}{note}"

    def work_variants(path: Path, family: Alignment, target: Path) -> str:
        if (source := find_table(path, variants)) is None:
            raise FileNotFoundError(f"{path}: there is no table {name_of(path)}.csv or .tsv in {variants}.")
        table = read_table(source)
        check_columns(table, source, variant_column)
        cells = table.cells(variant_column)
        more: dict[str, Any] = {"source": str(source), "lines": table.lines}
        from ..tasks.scoring import fit_variants
        from ..tasks.variant_embeddings import embed_variants

        fit_variants(family, cells, offset, skip_mismatches, **more)  # before the model is loaded
        network = model()
        more |= {"which": which, "layers": numbers_of(network, chosen), "dtype": output_dtype, "mode": mode}
        more |= {"offset": offset, "skip_mismatches": skip_mismatches}
        result = embed_variants(family, cells, network, **more, **session.row_options())
        write_embeddings(result.by_variant(), target)
        found = f"{result.reasons.count(''):,} of {counted(len(cells), 'variant')}"
        line = f"{name_of(path)}: {found}, {result.depth} of {counted(family.depth, 'row')}"
        return line + without_score(result.reasons, cells, source, table.lines, "embedding")

    run(work)


def _checked(which: str | None, alignments: list[str], variants: Path | None) -> Any:
    """Return what to embed; ValueError if it does not exist for variants, or without them."""
    if tables := [each for each in alignments if each.lower().endswith(TABLES)]:
        raise ValueError(f"{tables[0]} is a table, not an alignment: pass a table of variants with --variants.")
    require(variants)
    of_variants, of_alignments = ("mean", "mutated", "both"), ("query", "mean", "rows")
    if variants is not None and which not in (None, *of_variants):
        raise ValueError(f"--which {which} is not for variants: pass one of {', '.join(of_variants)}.")
    if variants is None and which not in (None, *of_alignments):
        raise ValueError(f"--which {which} is for variants: pass a table with --variants.")
    return which or ("query" if variants is None else "mean")


def numbers_of(model: Any, chosen: list[int] | None) -> tuple[int, ...]:
    """Number the chosen layers of a model from 0; None is all of them."""
    from ..tasks.embeddings import resolve_layers

    count = model.config.num_hidden_layers
    return resolve_layers(range(count + 1) if chosen is None else chosen, count)


def parse_layers(text: str) -> list[int] | None:
    """Read a list of layers; None means all.

    Examples
    --------
    >>> parse_layers("0, 6,-1"), parse_layers("all")
    ([0, 6, -1], None)
    """
    if text.strip() == "all":
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--layers {text}: pass numbers such as 0,6,-1, or all.") from None
