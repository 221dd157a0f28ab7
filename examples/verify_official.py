"""Verify the published checkpoints: what `make verify-official` runs. It requires network access.

Both checkpoints are downloaded, converted, and compared with fair-esm on three families; ESM-MSA-1b must reach the
long-range precisions of fair-esm's contact notebook. The table of expected against measured is printed, and written
to OUTPUT-DIR as report.md and report.json. The exit status is 0 if all checks were made and passed, otherwise 1.

If it is interrupted, run it again: nothing is downloaded twice. Checkpoints are kept in torch's cache, where fair-esm
looks for them too, alignments and structures in OUTPUT-DIR/downloads; you can also put them there yourself. Checksums
are recorded in OUTPUT-DIR/checksums.json, and the next run compares.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.utils import get_session

from modeling_msa import Alignment, MsaForMaskedLM, load_model, read_alignment
from modeling_msa._files import file_sha256, whole_file
from modeling_msa.alignments.structure import structure_contacts
from modeling_msa.hub import conversion, downloads
from modeling_msa.hub.errors import ChecksumError, ConversionError
from modeling_msa.hub.loading import quiet_loading
from modeling_msa.hub.reports import ConversionReport
from modeling_msa.tasks.contact_precision import precision
from modeling_msa.tasks.contacts import predict_contacts
from modeling_msa.tasks.inputs import model_inputs

ALIGNMENTS_URL = "https://raw.githubusercontent.com/facebookresearch/esm/main/examples/data"
STRUCTURES_URL = "https://files.rcsb.org/download"
CHECKPOINTS = {"msa-1b": "esm_msa1b_t12_100M_UR50S", "msa-1": "esm_msa1_t12_100M_UR50S"}
# PDB entry, of which chain A is meant, and long-range P@L in fair-esm's examples/contact_prediction.ipynb
FIGURES = {"1a3a": 0.724, "5ahw": 0.896, "1xcr": 0.770}
FIGURES_OF = "msa-1b"
STEPS = ("conversion", "fair-esm", "figures")
ROWS = 128
LONG_RANGE = 24
TOLERANCE = 1e-5  # beside fair-esm, in float64; in float32 in units of the largest output where that is over 1
CONVERSION_TOLERANCE = 1e-4  # of the short comparison that goes with a conversion; absolute


@dataclass
class Line:
    """One check; its result is pass, FAIL, recorded (a checksum with none to compare with) or not run."""

    check: str
    expected: str
    measured: str = ""
    result: str = "not run"
    note: str = ""
    values: dict[str, Any] = field(default_factory=dict)  # in full, for report.json


class UnusableError(Exception):
    """Something that a check needs could not be obtained, or is `wrong`; the line of `check` reports it."""

    def __init__(self, check: str, message: str, wrong: bool):
        super().__init__(message)
        self.check, self.wrong = check, wrong


def once(method: Callable) -> Callable:
    """Remember a method's result or error for each argument: a download that failed is not tried again."""

    @functools.wraps(method)
    def remembering(self: Run, name: str) -> Any:
        key = method.__name__, name
        if key not in self.known:
            try:
                self.known[key] = method(self, name)
            except UnusableError as error:
                self.known[key] = error
        if isinstance(self.known[key], UnusableError):
            raise self.known[key]
        return self.known[key]

    return remembering


@contextlib.contextmanager
def telling(check: str, kinds: tuple[type[Exception], ...] = (ValueError, OSError), wrong: bool = True) -> Iterator:
    """Report an error in the line of `check`."""
    try:
        yield
    except kinds as error:
        raise UnusableError(check, " ".join(str(error).split()), wrong) from error


class Run:
    """What the checks share: files, alignments, known contacts and models; each is made once, when first needed."""

    def __init__(self, folder: Path, expected: dict[str, str]):
        self.folder = folder
        self.record = folder / "checksums.json"
        self.earlier = read_checksums(self.record) if self.record.exists() else {}
        self.expected = self.earlier | expected
        self.proved: dict[str, str] = {}
        self.known: dict[tuple[str, str], Any] = {}

    @once
    def text(self, url: str) -> Path:
        """Fetch an alignment or a structure."""
        path = self.folder / "downloads" / name_of(url)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with telling(f"file {path.name}", (Exception,), wrong=False):
                answer = get_session().get(url, follow_redirects=True, timeout=60).raise_for_status()
                with whole_file(path) as temporary:
                    temporary.write_bytes(answer.content)
        if path.name in self.expected:
            with telling(f"file {path.name}"):
                downloads.check_sha256(path, self.expected[path.name])
        return path

    @once
    def checkpoint_file(self, url: str) -> Path:
        """Fetch a file of a checkpoint; one with another checksum than recorded is refused, and never unpickled."""
        check = f"file {name_of(url)}"
        with telling(check, (ConversionError,), wrong=False), telling(check, (ChecksumError,)):
            return downloads.download(url, self.expected.get(name_of(url)))

    def prove(self, path: Path) -> None:
        """Record the checksum of a file that could be read, which an error page in its place could not."""
        self.proved[path.name] = file_sha256(path)
        with whole_file(self.record) as temporary:
            temporary.write_text(json.dumps(self.earlier | self.proved, indent=2, sort_keys=True) + "\n")

    @once
    def alignment(self, family: str) -> Alignment:
        """Fetch and read a family."""
        path = self.text(alignment_url(family))
        with telling(f"file {path.name}"):
            alignment = read_alignment(path)
        self.prove(path)
        return alignment

    @once
    def contacts(self, family: str) -> np.ndarray:
        """Find which residues of chain A are in contact, as the notebook does: imputed C-beta atoms, 8 Angstrom."""
        alignment, path = self.alignment(family), self.text(structure_url(family))
        with telling(f"file {path.name}"):
            contacts = structure_contacts(path, alignment, chain="A", impute_beta=True)
        self.prove(path)
        return contacts

    @once
    def converted(self, checkpoint: str) -> ConversionReport:
        """Convert a checkpoint again, with the present code."""
        paths = [self.checkpoint_file(url) for url in checkpoint_urls(checkpoint)]
        folder = self.folder / "converted" / CHECKPOINTS[checkpoint]
        if folder.exists():
            shutil.rmtree(folder)
        with telling(f"{checkpoint} conversion"):
            report = conversion.convert_checkpoint(paths[0], folder, paths[1])
        for path in paths:
            self.prove(path)
        return report

    @once
    def model(self, checkpoint: str) -> MsaForMaskedLM:
        """Load a converted checkpoint."""
        return load_model(self.converted(checkpoint).output, "cpu", cls=MsaForMaskedLM)

    @once
    def fair_esm(self, checkpoint: str) -> tuple[torch.nn.Module, Any]:
        """Read a checkpoint with fair-esm; also return its alphabet."""
        import esm

        self.converted(checkpoint)
        path = self.checkpoint_file(checkpoint_urls(checkpoint)[0])
        with torch.serialization.safe_globals([argparse.Namespace]):
            model, alphabet = esm.pretrained.load_model_and_alphabet_local(path)
        for layer in model.layers:  # its column maps, which nothing here needs, would take gigabytes
            layer.register_forward_hook(
                lambda module, inputs, outputs: (outputs[0], outputs[1].new_zeros(1, 1, 1, 1, 1), outputs[2])
            )
        return model.eval(), alphabet


def name_of(url: str) -> str:
    return url.rsplit("/", 1)[1]


def alignment_url(family: str) -> str:
    return f"{ALIGNMENTS_URL}/{family}_1_A.a3m"


def structure_url(family: str) -> str:
    return f"{STRUCTURES_URL}/{family}.cif"


def checkpoint_urls(checkpoint: str) -> tuple[str, str]:
    """Where a checkpoint and its contact regression are."""
    base, name = downloads.DOWNLOAD_URL, CHECKPOINTS[checkpoint]
    return f"{base}/models/{name}.pt", f"{base}/regression/{name}-contact-regression.pt"


def read_checksums(path: Path) -> dict[str, str]:
    """Read a JSON object of file names and SHA-256 sums; ValueError for anything else."""
    try:
        content = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): fix or remove it.") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise ValueError(f"{path} is not an object of file names and checksums: fix or remove it.")
    return content


def verify(run: Run, only: list[str]) -> Iterator[Line]:
    """Run the checks that `only` asks for; all if it is empty."""
    checkpoints, families, steps = (
        [word for word in axis if word in only] or list(axis) for axis in (CHECKPOINTS, FIGURES, STEPS)
    )
    figures = "figures" in steps and FIGURES_OF in checkpoints
    for family in families if figures or "fair-esm" in steps else ():
        yield file_line(run, alignment_url(family), functools.partial(run.alignment, family))
        if figures:
            yield file_line(run, structure_url(family), functools.partial(run.contacts, family))
    for checkpoint in checkpoints:
        yield conversion_line(run, checkpoint)
        for url in checkpoint_urls(checkpoint):
            yield file_line(run, url, functools.partial(run.converted, checkpoint))
        for family in families if "fair-esm" in steps else ():
            yield fair_esm_line(run, checkpoint, family)
        for family in families if figures and checkpoint == FIGURES_OF else ():
            yield figure_line(run, checkpoint, family)


def finished(line: Line, work: Callable[[Line], bool]) -> Line:
    """Fill in a line with `work`, which returns whether the check passed, or with the error."""
    try:
        line.result = "pass" if work(line) else "FAIL"
    except UnusableError as error:
        if error.check == line.check:
            line.result, line.note = "FAIL" if error.wrong else "not run", str(error)
        else:
            line.note = f"needs: {error.check}"
    except (RuntimeError, ValueError, OSError) as error:  # out of memory, for one: the other checks are made yet
        line.result, line.note = "FAIL", " ".join(f"{type(error).__name__}: {error}".split())
    return line


def file_line(run: Run, url: str, use: Callable) -> Line:
    """Compare a file's checksum, once it has been used."""
    name = name_of(url)
    expected = run.expected.get(name, "")

    def work(line: Line) -> bool:
        use()
        line.values = {"expected": expected, "measured": run.proved[name]}
        line.measured = f"{run.proved[name][:16]}..."
        return True

    line = finished(Line(f"file {name}", f"{expected[:16]}..." if expected else "no checksum yet"), work)
    if line.result == "pass" and not expected:
        line.result, line.note = "recorded", "the next run compares"
    return line


def conversion_line(run: Run, checkpoint: str) -> Line:
    """Every tensor must be in the folder, bit for bit, and give fair-esm's outputs on a few random rows."""

    def work(line: Line) -> bool:
        report = run.converted(checkpoint)
        line.values = {"tensors": report.tensors, "parameters": report.parameters, **report.differences}
        worst = max(report.differences.values())
        line.measured = f"{report.tensors} equal, {worst:.1e} from fair-esm"
        line.note = f"{report.parameters:,} parameters; {report.compared_on}"
        return report.has_contacts and worst <= CONVERSION_TOLERANCE

    return finished(Line(f"{checkpoint} conversion", f"tensors equal, outputs to {CONVERSION_TOLERANCE:g}"), work)


@torch.no_grad()
def outputs(model: MsaForMaskedLM, reference: torch.nn.Module, tokens: torch.Tensor) -> tuple[dict, dict]:
    """Logits, row maps and contacts, ours and fair-esm's."""
    theirs = reference(tokens, return_contacts=True)
    ours = model(tokens, output_attentions=True)
    return (
        {
            "logits": ours.logits,
            "row maps": torch.stack(ours.attentions, 1),
            "contacts": model.predict_contacts(tokens),
        },
        {"logits": theirs["logits"], "row maps": theirs["row_attentions"], "contacts": theirs["contacts"]},
    )


def apart(left: dict, right: dict) -> dict[str, float]:
    return {name: (left[name] - right[name]).abs().max().item() for name in right}


def fair_esm_line(run: Run, checkpoint: str, family: str) -> Line:
    """Outputs on a real family must be fair-esm's: in float64, and in float32 as exact as fair-esm's own.

    In float32 fair-esm sums over many rows in another order than we do, and is itself off by more than 1e-5 at times.
    """

    def work(line: Line) -> bool:
        alignment, model = run.alignment(family), run.model(checkpoint)
        reference, alphabet = run.fair_esm(checkpoint)
        seen, inputs = model_inputs(alignment, model, ROWS)
        tokens, stored = inputs["input_ids"], model.dtype
        if not torch.equal(tokens, alphabet.get_batch_converter()([list(seen)])[2]):
            line.measured, line.note = "other tokens", "tokenizer and fair-esm's alphabet differ"
            return False
        try:
            ours, exact = outputs(model.double(), reference.double(), tokens)
        finally:
            model.to(stored)
            reference.float()
        away = apart(ours, exact)
        ours, theirs = outputs(model, reference, tokens)
        rounding, own = apart(ours, exact), apart(theirs, exact)
        largest = {name: max(1.0, right.abs().max().item()) for name, right in exact.items()}
        line.values = {"float64": away, "float32": apart(ours, theirs), "float32 from float64": rounding}
        line.values |= {"fair-esm's float32 from float64": own, "rows": seen.depth, "residues": seen.length}
        line.measured = ", ".join(f"{name} {value:.1e}" for name, value in away.items())
        line.note = f"{seen.depth} rows, {seen.length} residues; float32 is off by {max(rounding.values()):.1e}, "
        line.note += f"fair-esm's by {max(own.values()):.1e}"
        return all(
            away[name] <= TOLERANCE and rounding[name] <= max(TOLERANCE * largest[name], 2 * own[name])
            for name in exact
        )

    return finished(Line(f"{checkpoint} {family} beside fair-esm", f"differences to {TOLERANCE:g}"), work)


def notebook_rows(array: np.ndarray, depth: int) -> list[int]:
    """Choose rows as the notebook does: as ``select_rows``, but where rows are equal the rounding of means decides."""
    rows, fractions = [0], np.zeros((0, len(array)))
    while len(rows) < min(depth, len(array)):
        fractions = np.vstack([fractions, (array != array[rows[-1]]).mean(axis=1)])
        left = np.delete(np.arange(len(array)), rows)
        rows.append(int(left[np.delete(fractions, rows, axis=1).mean(axis=0).argmax()]))
    return sorted(rows)


def figure_line(run: Run, checkpoint: str, family: str) -> Line:
    """Work out the notebook's figure: of the L most probable pairs 24 or more apart, the part in contact."""

    def work(line: Line) -> bool:
        contacts = run.contacts(family)
        alignment = run.alignment(family)
        alignment = alignment.take(notebook_rows(alignment.array, ROWS))
        prediction = predict_contacts(alignment, run.model(checkpoint), rows=ROWS)
        resolved = int((np.diagonal(contacts) >= 0).sum())  # the notebook's L; there all residues are
        found = precision(prediction, contacts, top=resolved, min_separation=LONG_RANGE)
        line.measured, line.values = f"{found:.3f}", {"precision": found}
        line.note = f"{round(found * resolved)} of {resolved} pairs; {resolved} of {len(contacts)} residues resolved"
        return abs(found - FIGURES[family]) < 0.0005 + 1e-9

    return finished(Line(f"{checkpoint} {family} long-range P@L", f"{FIGURES[family]:.3f}"), work)


def table(lines: list[Line]) -> str:
    """Lay lines out in Markdown that also reads well as it is."""
    cells = [("check", "expected", "measured", "result", "note")]
    cells += [(line.check, line.expected, line.measured, line.result, line.note) for line in lines]
    widths = [max(len(row[column]) for row in cells) for column in range(4)] + [4]
    rows = [[f"{cell.replace('|', '/'):{width}}" for cell, width in zip(row, widths, strict=True)] for row in cells]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_report(lines: list[Line], folder: Path, interrupted: bool) -> str:
    """Write report.md and report.json; returns the former's text."""
    counts = Counter(line.result for line in lines)
    summary = ", ".join(f"{counts[result]} {result}" for result in ("pass", "FAIL", "recorded", "not run"))
    summary += "; interrupted before the end" if interrupted else ""
    packages = ("modeling-msa", "fair-esm", "torch", "transformers")
    versions = {name: importlib.metadata.version(name) for name in packages}
    versions |= {"Python": platform.python_version(), "machine": platform.platform()}
    text = f"{table(lines)}\n\n{summary}\n\n{', '.join(f'{name} {version}' for name, version in versions.items())}\n"
    content = {"summary": dict(counts), "interrupted": interrupted, "versions": versions}
    content["lines"] = [asdict(line) for line in lines]
    with whole_file(folder / "report.md") as temporary:
        temporary.write_text(text)
    with whole_file(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return text


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="verify_official.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words = (*CHECKPOINTS, *FIGURES, *STEPS)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=words,
        metavar="WORD",
        help=f"checkpoints ({', '.join(CHECKPOINTS)}), families ({', '.join(FIGURES)}) or steps ({', '.join(STEPS)}); "
        "of a kind without any of these words, everything is checked",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("verified"),
        metavar="FOLDER",
        help="folder for reports, checksums, downloads and converted checkpoints (default: %(default)s)",
    )
    parser.add_argument(
        "--checksums",
        type=Path,
        metavar="FILE",
        help="checksums.json of another run to compare with, in addition to the one in OUTPUT-DIR",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the checks and return the exit status."""
    options = parse(arguments)
    if missing := [name for name in ("esm", "gemmi") if importlib.util.find_spec(name) is None]:
        raise ValueError(f"{' and '.join(missing)} is not installed: pip install fair-esm gemmi.")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    run = Run(options.output_dir, read_checksums(options.checksums) if options.checksums else {})
    quiet_loading()
    lines: list[Line] = []
    interrupted = False
    try:
        for line in verify(run, options.only):
            print(f"{line.result:<8} {line.check}", file=sys.stderr, flush=True)
            lines.append(line)
    except KeyboardInterrupt:
        interrupted = True
    print(write_report(lines, options.output_dir, interrupted))
    if not run.earlier and any(line.result == "recorded" for line in lines):
        print(f"No checksums were known; those of this run are in {run.record}. Run it again to compare.")
    if interrupted:
        return 130
    return 0 if all(line.result in ("pass", "recorded") for line in lines) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
