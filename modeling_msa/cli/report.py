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
from .windows import Overlap, Window, WindowOptions, uncovered_note

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
    window: Window = None,
    overlap: Overlap = None,
) -> None:
    """Show a family on one page: its alignment, contacts, profile and substitutions, to be opened in a browser.

    The page (.html) has all in itself and opens without a network. It says what the alignment is (see msa info), and
    shows the contact map, with a structure also which pairs are right and P@L, classical methods beside it, sequence
    logos, a heat map of all substitutions, the strongest pairs, and the commands that make each part again. All are
    computed from the same rows, the profile and the substitutions in fast mode (see msa score).

    In a complex (--chains) residues are numbered by chain, and P@L is also that of pairs between chains. A pair that
    no window covers is grey in the map.

    Example: msa report fn3 -o fn3.html
    """
    wanted = [] if baseline == "none" else parse_baselines(baseline)
    known, windows = Known(structure, chain), WindowOptions(window, overlap)
    run = session.run(
        alignments,
        output,
        ".html",
        "report",
        settings=session.settings(chain=chain, baseline=baseline and wanted, **windows.of()),
        depends=known.of,
    )
    known.check(run.paths)
    if run.is_single:
        check_ending(output, (".html",))
    model = session.model_of(run, "MsaForMaskedLM", check=windows.check)

    def work(path: Path, target: Path) -> str:
        family = session.read(path)
        true = known.contacts(path, family)
        methods = wanted
        if baseline is None:
            methods = ["mi", "dca"] if (family.residue_columns >= 0).sum() <= _LONGEST_FOR_DCA else ["mi"]
        check_baselines(methods, family)
        network, options = model(), session.row_options() | windows.of()
        from ..tasks.report import make_report
        from ..tasks.report_files import write_report

        result = make_report(family, network, known=true, baselines=methods, **options)  # type: ignore[arg-type]
        file = known.of(path).get("structure")
        write_report(
            result,
            target,
            file=argument_of(path),
            model=session.model,
            structure="" if file is None else argument_of(file),
            commands=report_commands(session, path, file, chain, methods, windows.of()),
            versions=_versions(session, path, file),
            warnings=[EMBEDDED_NOTES[session.model]] if session.model in EMBEDDED_NOTES else [],
        )
        contacts, precision = result.contacts, ""
        residues, rows = counted(len(contacts.residues), "residue"), counted(family.depth, "row")
        if true is not None:
            figures = result.judged()[contacts.method]
            names = ["P@L", *(["between P@L"] if contacts.chains else [])]
            precision = "".join(f", {name} {shown(figures[name])}" for name in names)
        note = windows.note(network, len(contacts.residues)) + uncovered_note(contacts)
        return f"{target}: {contacts.name}, {residues}, {contacts.depth} of {rows}{note}{precision}"

    run(work)


def report_commands(
    session: Session,
    path: Path,
    structure: Path | None,
    chain: str | None,
    methods: list[str],
    windows: dict[str, int | None],
) -> dict[str, str]:
    """Write the commands that make the parts of a report again, quoted for a shell, by title."""
    default = Session()
    rows = {name: getattr(session, name) for name in ("rows", "select", "seed")}
    optional = ("filter_coverage", "filter_identity", "input_format")
    rows |= {name: getattr(session, name) for name in optional if getattr(session, name) is not None}
    if (chains := session.chains_of(path)) is not None:  # of this alignment, if a table has those of several
        rows["chains"] = chains
    placed = {name: value for name, value in windows.items() if value is not None}
    around = {name: value for name, value in placed.items() if name == "window"}
    model = {"model": session.model} | {
        name: getattr(session, name)
        for name in ("device", "dtype")
        if getattr(session, name) != getattr(default, name)
    }
    known = {} if structure is None else {"structure": argument_of(structure)}
    known |= {} if chain is None else {"chain": chain}  # never without a structure
    compared: dict[str, Any] = {"baseline": ",".join(methods)} if methods else {}
    precision = [] if TORCH.matmul_precision == "highest" else ["--matmul-precision", TORCH.matmul_precision]
    limit = ["--max-megabytes", os.environ[LIMIT_VARIABLE]] if LIMIT_VARIABLE in os.environ else []

    def line(name: str, output: str, *words: str, **options: Any) -> str:
        own = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        before = [*limit, *(precision if "model" in options else [])]
        return shlex.join(["msa", *before, name, argument_of(path), *words, "-o", output, *own])

    return {
        "This report": line(
            "report", "report.html", **known, baseline=compared.get("baseline", "none"), **placed, **rows, **model
        ),
        "The alignment's numbers": line("info", "info.json", **rows),
        "Contacts": line("contacts", "contacts.tsv", **known, **compared, **placed, **rows, **model),
        "Profile": line("profile", "profile.tsv", "--mode", "fast", **around, **rows, **model),
        "Substitutions": line("score", "scores.csv", "--all-singles", "--mode", "fast", **around, **rows, **model),
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
