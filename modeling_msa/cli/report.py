"""The command ``msa report``."""

from __future__ import annotations

import os
import platform
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from .._files import check_ending, file_sha256
from .._version import __version__
from .._words import counted
from ..alignments.reading import LIMIT_VARIABLE
from ..hub.finding import EMBEDDED_NOTES
from .baselines import check_baselines, parse_baselines
from .inputs import argument_of
from .options import Inputs, Output, option
from .session import TORCH, Session, command
from .structures import Chain, Known, Structure, shown

_LONGEST_FOR_DCA = 150  # residues


@command()
def report_command(
    alignments: Inputs,
    output: Output,
    session: Session,
    structure: Structure = None,
    chain: Chain = None,
    baseline: Annotated[
        str | None,
        option(
            "METHODS",
            "Classical methods to compare with, from the same rows: mi (mutual information), dca (direct coupling "
            "analysis), mi,dca, or none. Default: mi,dca; of a query with more than 150 residues mi, since dca takes "
            "minutes and much memory.",
        ),
    ] = None,
) -> None:
    """Show a family on one page: its alignment, contacts, profile and substitutions, to be opened in a browser.

    The page (.html) has all in itself and opens without a network. It says what the alignment is (see msa info), and
    shows the contact map, with a structure also which pairs are right and P@L, classical methods beside it, sequence
    logos, a heat map of all substitutions, the strongest pairs, and the commands that make each part again. All are
    computed from the same rows, the profile and the substitutions in fast mode (see msa score).

    Example: msa report fn3 -o fn3.html
    """
    wanted = [] if baseline == "none" else parse_baselines(baseline)
    known = Known(structure, chain)
    run = session.run(
        alignments,
        output,
        ".html",
        "report",
        settings=session.settings(chain=chain, baseline=baseline and wanted),
        depends=known.of,
    )
    known.check(run.paths)
    if run.is_single:
        check_ending(output, (".html",))
    model = session.model_of(run, "MsaForMaskedLM")

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        true = known.contacts(path, family)
        methods = wanted
        if baseline is None:
            methods = ["mi", "dca"] if (family.residue_columns >= 0).sum() <= _LONGEST_FOR_DCA else ["mi"]
        check_baselines(methods, family)
        network, options = model(), session.row_options()
        from ..tasks.report import make_report
        from ..tasks.report_files import write_report

        result = make_report(family, network, known=true, baselines=methods, **options)  # type: ignore[arg-type]
        file = known.of(path).get("structure")
        write_report(
            result,
            target,
            file=argument_of(path),
            model=session.model,
            structure="" if file is None else str(file),
            commands=report_commands(session, path, file, chain, methods),
            versions=_versions(session, path, file),
            warnings=[EMBEDDED_NOTES[session.model]] if session.model in EMBEDDED_NOTES else [],
        )
        residues, rows = counted(len(result.contacts.residues), "residue"), counted(family.depth, "row")
        precision = f", P@L {shown(result.judged()[result.contacts.method]['P@L'])}" if true is not None else ""
        return f"{target}: {result.contacts.name}, {residues}, {result.contacts.depth} of {rows}{precision}"

    run(work)


def report_commands(
    session: Session, path: Path, structure: Path | None, chain: str | None, methods: list[str]
) -> dict[str, str]:
    """Write the commands that make the parts of a report again, quoted for a shell, by title."""
    default = Session()
    rows = {name: getattr(session, name) for name in ("rows", "select", "seed")}
    optional = ("filter_coverage", "filter_identity", "input_format")
    rows |= {name: getattr(session, name) for name in optional if getattr(session, name) is not None}
    model = {"model": session.model} | {
        name: getattr(session, name)
        for name in ("device", "dtype")
        if getattr(session, name) != getattr(default, name)
    }
    known = {} if structure is None else {"structure": structure} | ({} if chain is None else {"chain": chain})
    compared: dict[str, Any] = {"baseline": ",".join(methods)} if methods else {}
    precision = [] if TORCH.matmul_precision == "highest" else ["--matmul-precision", TORCH.matmul_precision]
    limit = ["--max-megabytes", os.environ[LIMIT_VARIABLE]] if LIMIT_VARIABLE in os.environ else []

    def line(name: str, output: str, *words: str, **options: Any) -> str:
        own = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        before = [*limit, *(precision if "model" in options else [])]
        return shlex.join(["msa", *before, name, argument_of(path), *words, "-o", output, *own])

    return {
        "This report": line(
            "report", "report.html", **known, baseline=compared.get("baseline", "none"), **rows, **model
        ),
        "The alignment's numbers": line("info", "info.json", **rows),
        "Contacts": line("contacts", "contacts.tsv", **known, **compared, **rows, **model),
        "Profile": line("profile", "profile.tsv", "--mode", "fast", **rows, **model),
        "Substitutions": line("score", "scores.csv", "--all-singles", "--mode", "fast", **rows, **model),
    }


def _versions(session: Session, path: Path, structure: Path | None) -> dict[str, str]:
    """Say what a report is made with: programs, and the content of files."""
    found = {"modeling-msa": __version__, "Python": platform.python_version()}
    found |= {name: version(name) for name in ("torch", "transformers", "numpy")}
    files = {f"alignment, {path.name}": path}
    if structure is not None:
        files[f"structure, {structure.name}"] = structure
    weights = session.model_files().items()
    if session.revision != "main":
        found[f"revision of {session.model}"] = session.revision
    files |= {f"model {session.model}, {name}": file for name, file in weights if file.suffix != ".json"}
    return found | {f"SHA-256 of the {name}": file_sha256(file) for name, file in files.items()}
