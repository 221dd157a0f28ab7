"""Options and arguments that several commands share, each declared once, and short forms of typer's declarations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

# titles of the groups of options in a command's help
ROWS, MODEL, FILES = "Rows of the alignment", "Model", "Input and output"


def option(metavar: str | None, help: str, panel: str | None = None, *names: str, **more: Any) -> Any:
    """Declare an option with a value."""
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=panel, **more)


def choice(help: str, panel: str | None = None) -> Any:
    """Declare an option with choices, which its help shows."""
    return option(None, help, panel)


def flag(name: str, help: str, panel: str | None = None) -> Any:
    """Declare an option without a value."""
    return typer.Option(name, help=help, rich_help_panel=panel)


def output_option(metavar: str, help: str) -> Any:
    """Declare the --output of a command."""
    return typer.Option("--output", "-o", metavar=metavar, help=help)


ALIGNMENTS = (
    "A3M, A2M, aligned FASTA or Stockholm files, also .gz and .xz; folders of them; quoted patterns with wildcards; "
    "or a list with one path per line (.txt). fn3 is a family that comes with the package."
)
_MODEL_HELP = (
    "Folder (of msa convert or msa train) or Hub id (OWNER/NAME) of the model. msa-small, a small one, comes with "
    "the package."
)
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="ALIGNMENT",
        help=ALIGNMENTS,
    ),
]
Output = Annotated[Path, output_option("PATH", "Output file; for several alignments, a folder.")]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL_HELP)]
Plot = Annotated[
    str | None,
    option(
        "PICTURE",
        "Also draw a picture: a file (.png, .pdf or .svg); for several alignments, a folder. The word png, pdf or svg "
        "alone: a picture beside each output.",
    ),
]
Rows = Annotated[int, option("N", "Maximum number of alignment rows given to the model.", ROWS, min=1)]
Select = Annotated[
    Literal["first", "random", "diverse", "weighted"],
    option(
        "CHOICE",
        "Choice of these rows: first, random, diverse (the most different ones), or weighted (random, by sequence "
        "weight). The query is always among them.",
        ROWS,
    ),
]
Seed = Annotated[int, option("N", "Random seed.", ROWS)]
FilterCoverage = Annotated[
    float | None, option("PERCENT", "Minimum coverage of the query by a row.", ROWS, min=0, max=100)
]
FilterIdentity = Annotated[
    float | None, option("PERCENT", "Maximum identity of two rows; only one is kept.", ROWS, min=0, max=100)
]
ModelName = Annotated[str, option("MODEL", _MODEL_HELP, MODEL, "--model")]
Device = Annotated[str, option("DEVICE", "auto (a GPU if there is one), cpu, cuda, cuda:1, mps.", MODEL)]
DType = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    option("TYPE", "Number type: auto (as saved), float32, bfloat16 or float16.", MODEL),
]
InputFormat = Annotated[
    Literal["a3m", "a2m", "fasta", "stockholm"] | None,
    option("FORMAT", "a3m, a2m, fasta or stockholm. Default: by the file ending, otherwise by the content.", FILES),
]
Chains = Annotated[
    str | None,
    option(
        "CHAINS",
        "Of a complex, residues of the query in each chain, side by side: 120,95 or A:120,B:95; or a table with the "
        "name of each alignment, TAB, its chains. Default: those in the file (ColabFold), or one protein.",
        FILES,
    ),
]
Strict = Annotated[bool, flag("--strict", "Stop at the first alignment that fails.", FILES)]
Overwrite = Annotated[bool, flag("--overwrite", "Make all results again; replace files that no run made.", FILES)]
Families = Annotated[
    Path,
    typer.Argument(
        metavar="LIST",
        help="Table with one line per family: alignment, TAB, structure and, optionally, TAB, chain. Paths are "
        "relative to the folder of the table. With --structures: a folder or list of alignments.",
    ),
]
Structures = Annotated[
    Path | None,
    option(
        "FOLDER",
        "Folder of structures (PDB or mmCIF, also .gz) named like the alignments. Requires the extra structure: pip "
        "install 'modeling-msa[structure]'.",
    ),
]
