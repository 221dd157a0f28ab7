"""The command ``msa embed``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from .._words import counted
from ..alignments.listing import name_of
from ..tasks.embedding_files import check_embeddings, gather_embeddings, write_embeddings
from .options import Inputs, choice, option, output_option
from .session import Session, command


@command()
def embed_command(
    alignments: Inputs,
    output: Annotated[Path, output_option("PATH", "File for all (.safetensors, .npz, .parquet), or folder.")],
    session: Session,
    which: Annotated[
        Literal["query", "mean", "rows"],
        choice("One vector for each residue of the query, their mean, or one for each residue of all rows."),
    ] = "query",
    layers: Annotated[str, option("LAYERS", "0 (embedding layer) to the last, -1; several as 0,6,12; or all.")] = "-1",
    output_dtype: Annotated[Literal["float32", "float16"], choice("Number type of the output.")] = "float32",
    format: Annotated[
        Literal["safetensors", "npz", "parquet"], choice("Format of the files in a folder.")
    ] = "safetensors",
) -> None:
    """Write hidden states of alignments, as features of residues or families for other models.

    Arrays are named after the alignment's file, without its ending; with several layers NAME/layer_6. Residues for
    which the alignment has no column are left out; the metadata of the file say which residues it has, and from which
    model, rows and layers.

    Example: msa embed fn3 -o embeddings.safetensors
    """
    chosen = parse_layers(layers)
    in_one_file = not output.is_dir() and output.suffix != ""
    suffix = check_embeddings(output if in_one_file else f"x.{format}")

    def gather(parts: list[Path], whole: Path) -> list[Path]:
        gather_embeddings(parts, whole)
        return [whole]

    run = session.run(
        alignments,
        output if in_one_file else f"{output}/",
        suffix,
        "embed",
        settings=session.settings(which=which, layers=layers, output_dtype=output_dtype),
        gather=gather if in_one_file else None,
    )
    model = session.model_of(run, check=lambda loaded: _numbers(loaded, chosen))

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        network = model()
        from ..tasks.embeddings import embed

        numbers = _numbers(network, chosen)
        result = embed(family, network, which=which, layers=numbers, dtype=output_dtype, **session.row_options())
        write_embeddings({name_of(path): result}, target)
        residues, rows = counted(len(result.residues), "residue"), counted(family.depth, "row")
        return f"{name_of(path)}: {residues}, {result.depth} of {rows}"

    run(work)


def _numbers(model: Any, chosen: list[int] | None) -> tuple[int, ...]:
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
