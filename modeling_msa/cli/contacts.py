"""``msa contacts``, ``msa evaluate-contacts`` and ``msa fit-contacts``."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer

from .._processes import is_main_process
from ..alignments.known_contacts import KnownFamily, contact_files, list_families, load_contacts
from ..alignments.listing import name_of
from ..alignments.reading import read_alignment
from ..hub.contact_fitting import fit_contacts
from ..hub.finding import EMBEDDED
from ..tasks.contact_evaluation import (
    evaluate_contacts,
    read_evaluation,
    write_evaluation,
    write_means,
)
from ..tasks.contact_files import check_contacts, write_contacts
from ..tasks.contact_precision import precision_table, precisions, write_precisions
from ..tasks.contacts import predict_contacts
from ..tasks.plotting import plot_contacts
from .options import (
    Device,
    DType,
    FilterCoverage,
    FilterIdentity,
    InputFormat,
    Inputs,
    ModelName,
    Output,
    Overwrite,
    Plot,
    Rows,
    Seed,
    Select,
    Strict,
    errors_in_words,
    load,
    pictures,
    settings_of,
)
from .runs import Run

_FORMATS = (".tsv", ".npz", ".rr")

Families = Annotated[
    Path,
    typer.Argument(
        metavar="LIST",
        help="Table with a line for each family: alignment, TAB, structure and, if need be, TAB, chain; paths count "
        "from its folder. With --structures: a folder or list of alignments.",
        show_default=False,
    ),
]
Structures = Annotated[
    Path | None,
    typer.Option(help="Folder of structures that are called as the alignments are.", show_default=False),
]


def contacts(
    alignments: Inputs,
    output: Output,
    model: ModelName = EMBEDDED,
    structure: Annotated[
        Path | None,
        typer.Option(
            help="PDB or mmCIF file, .gz too, to compare with: P@L is shown, and written beside the output "
            "(.precision.tsv). For several alignments a folder of files that are called as they are.",
            show_default=False,
        ),
    ] = None,
    chain: Annotated[
        str | None, typer.Option(help="Of the structure; default: the one that fits the query.", show_default=False)
    ] = None,
    plot: Plot = None,
    format: Annotated[
        Literal["tsv", "npz", "rr"] | None,
        typer.Option(
            help="tsv: i, j, probability; npz: the whole map for NumPy; rr: CASP's. Default: by the output's ending, "
            "tsv in a folder.",
            show_default=False,
        ),
    ] = None,
    rows: Rows = 128,
    select: Select = "diverse",
    seed: Seed = 0,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    device: Device = "auto",
    dtype: DType = "auto",
    input_format: InputFormat = None,
    strict: Strict = False,
    overwrite: Overwrite = False,
) -> None:
    """Predict which residues of the query (the first row) touch.

    Pairs are query residue numbers from 1, at least 6 apart, the most probable first. A structure's residues are
    matched by aligning the sequences, whatever their numbers: C-beta atoms within 8 Angstrom are a contact.

    Example: msa contacts fn3 -o contacts.tsv --plot contacts.png
    """
    with errors_in_words():
        chosen = (filter_coverage, filter_identity)
        settings = settings_of(
            model=model,
            dtype=dtype,
            rows=rows,
            select=select,
            seed=seed,
            filter_coverage=filter_coverage,
            filter_identity=filter_identity,
            input_format=input_format,
            structure=structure,
            chain=chain,
            plot=plot,
        )
        ending = output.suffix.lower()
        suffix = f".{format}" if format else ending if ending in _FORMATS else _FORMATS[0]
        files = _structures(structure)
        run = Run(
            alignments,
            output,
            suffix,
            command="contacts",
            settings=settings,
            strict=strict,
            overwrite=overwrite,
            depends=lambda path: [file for name, file in files.items() if name in ("", name_of(path))],
        )
        if files and not any(name_of(path) in files or "" in files for path in run.paths):
            raise ValueError(
                f"{structure} has no structure that is called as an alignment is, such as {run.paths[0]}."
            )
        if run.is_single:
            check_contacts(output)
            if ending != suffix:
                raise ValueError(f"{output} does not end with {suffix}, the format: leave out one of the two.")
        picture = pictures(plot, run) if plot is not None else None
        network = load(run, model, device, dtype)

        def work(path: Path, target: Path) -> str:
            family = read_alignment(path, input_format)
            file = files.get(name_of(path), files.get(""))
            known = None if file is None else load_contacts(file, family, chain)
            assert network is not None
            result = predict_contacts(family, network, rows, select, seed, *chosen)
            if picture is not None:
                plot_contacts(result, picture(target), known=known)
            line = f"{result.name}, {len(result.residues)} residues, {result.depth} of {family.depth} rows"
            line += _judged(precisions(result, known), target, run.is_single) if known is not None else ""
            write_contacts(result, target)
            lacking = f"; no structure in {structure}" if files and known is None else ""
            return f"{target}: {line}{lacking}"

        run(work)


def _structures(structure: Path | None) -> dict[str, Path]:
    """Structures by the name of their alignment; under "" that of all."""
    if structure is None:
        return {}
    if structure.is_dir():
        return contact_files(structure)
    if not structure.is_file():
        raise FileNotFoundError(f"{structure}: there is no such structure, or folder of structures.")
    return {"": structure}


def _judged(values: dict[str, float], target: Path, whole: bool) -> str:
    """Write a family's precisions beside its target; return them, all or the most important."""
    write_precisions(values, target.with_suffix(".precision.tsv"))
    if whole:
        return "\n" + precision_table({name: _shown(value) for name, value in values.items()})
    return "".join(f", {name} {_shown(values[name])}" for name in ("P@L", "long P@L", "long P@L/2", "long P@L/5"))


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"


def _listed(families: Path, structures: Path | None) -> list[KnownFamily]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        listed = list_families(families, structures)
    for warning in said:
        typer.echo(f"note: {warning.message}", err=True)
    return listed


def evaluate(
    families: Families,
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write (.tsv).", show_default=False)],
    structures: Structures = None,
    model: ModelName = EMBEDDED,
    rows: Rows = 128,
    select: Select = "diverse",
    seed: Seed = 0,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    device: Device = "auto",
    dtype: DType = "auto",
    strict: Strict = False,
    overwrite: Overwrite = False,
) -> None:
    """Count how many predicted contacts are right, in families of known structure.

    OUTPUT has a row for each family: P@L, P@L/2 and P@L/5 of all contacts, short, medium and long range. The means
    and their 95 % bootstrap intervals over families are shown, and written beside it (.means.tsv).

    With the published checkpoint (msa convert), trRosetta's families and --rows 256 this is the experiment of
    the paper's Table 1 (Rao et al. 2021); the families that its contact regression was fitted on must not
    be among them.

    Example: msa evaluate-contacts families.tsv -o precision.tsv
    """
    with errors_in_words():
        listed = _listed(families, structures)
        known = {family.alignment.resolve(): family for family in listed}
        chosen = (filter_coverage, filter_identity)
        settings = settings_of(
            model=model,
            dtype=dtype,
            rows=rows,
            select=select,
            seed=seed,
            filter_coverage=filter_coverage,
            filter_identity=filter_identity,
            families=f"{families} ({zlib.crc32(repr(listed).encode()):08x})",
        )
        means = output.with_suffix(".means.tsv")

        def gather(parts: list[Path], whole: Path) -> None:
            evaluation = read_evaluation(*parts)
            write_means(evaluation, means)
            write_evaluation(evaluation, whole)
            typer.echo(evaluation)

        run = Run(
            [family.alignment for family in listed],
            output,
            ".tsv",
            command="evaluate-contacts",
            settings=settings,
            strict=strict,
            overwrite=overwrite,
            gather=gather,
            depends=lambda path: [known[path.resolve()].structure],
            also_read=[families],
        )
        network = load(run, model, device, dtype)

        def work(path: Path, target: Path) -> str:
            family: KnownFamily = known[path.resolve()]
            assert network is not None
            evaluation = evaluate_contacts([family], network, rows, select, seed, *chosen)
            write_evaluation(evaluation, target)
            shown = {name: _shown(values[0]) for name, values in evaluation.precisions.items()}
            sizes = f"{evaluation.lengths[0]} residues, {evaluation.depths[0]} rows"
            return f"{evaluation.names[0]}: {sizes}, P@L {shown['P@L']}, long P@L {shown['long P@L']}"

        run(work)


def fit(
    families: Families,
    output_dir: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to make; it must be empty or new.", show_default=False)
    ],
    structures: Structures = None,
    model: ModelName = EMBEDDED,
    regularization: Annotated[
        float, typer.Option(min=0, help="C, the inverse of the L1 penalty's strength; the paper's is 0.15.")
    ] = 0.15,
    rows: Rows = 128,
    select: Select = "diverse",
    seed: Seed = 0,
    filter_coverage: FilterCoverage = None,
    filter_identity: FilterIdentity = None,
    device: Device = "auto",
) -> None:
    """Fit a model's contact regression on families of known structure, and save a new folder.

    All other weights stay as they are. It is the paper's L1 logistic regression, on 20 families there; precision on
    the same families flatters.

    Example: msa fit-contacts families.tsv --model msa-tiny -o msa-refitted
    """
    with errors_in_words():
        if not is_main_process():
            return
        report = fit_contacts(
            _listed(families, structures),
            model,
            output_dir,
            rows=rows,
            select=select,
            seed=seed,
            coverage=filter_coverage,
            identity=filter_identity,
            regularization=regularization,
            device=device,
        )
        typer.echo(
            f"{output_dir}: {report.examples} families, {report.pairs:,} pairs, {report.positives:,} contacts; "
            f"{report.nonzero} of {report.weights} maps count; P@L on these same families {report.precision:.3f}"
        )
