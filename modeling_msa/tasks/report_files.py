"""Write a report as one page of HTML, which asks for nothing from outside of itself."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._files import check_ending, whole_file
from .._words import counted
from ..alignments.alignment import shortened
from ..alignments.chains import chain_indices, chain_starts
from ..alignments.variants import Substitution, variant_name
from .contacts import MIN_SEPARATION
from .plotting import BY_CHEMISTRY
from .report import Report

FORMATS = (".html",)
_FOLDER = Path(__file__).parent
_FIGURES = ("P@L", "P@L/2", "P@L/5", "long P@L", "long P@L/2", "long P@L/5")
_BETWEEN = ("between P@L", "between P@L/5", "between P@10")  # of a complex too
_CONSERVED = 10
_LISTED = 15  # pairs of two chains
_LONGEST = 300  # letters of a name


def write_report(
    report: Report,
    path: str | os.PathLike[str],
    *,
    file: str = "",
    model: str = "",
    structure: str = "",
    commands: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
) -> None:
    """Write a report as a page of HTML; it appears whole or not at all.

    The page has its styles, script and numbers inside, and its policy (Content-Security-Policy) forbids every request
    and every other script. Numbers of pictures are rounded: contact scores to 1/254 of their range, scores of
    substitutions and profiles to 1/65,534.

    Parameters
    ----------
    report : Report
        See `modeling_msa.make_report`.
    path : path
        Page to write (.html).
    file, model, structure : str, optional
        What the alignment, the model and the structure are called.
    commands, versions : mapping of str to str, optional
        Commands that make the parts again, by title, and what the report was made with.
    warnings : sequence of str, optional
        What else to watch out for; comes before the warnings of the report's statistics.

    Raises
    ------
    ValueError
        If the ending is not .html.
    """
    check_ending(path, FORMATS)
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # takes 30 ms to import

    style, script = ((_FOLDER / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    maps = report.maps
    measures = {"probability": "Probability"}
    most = {name: _most(report, name) for name in maps}
    page = environment.get_template("report.html").render(
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        name=shortened(report.statistics.name, _LONGEST),
        file=shortened(file, _LONGEST) if file else "",
        model=shortened(model, _LONGEST) if model else "",
        structure=shortened(structure, _LONGEST) if structure else "",
        seen=report.contacts.depth,
        profile_weight=f"{report.scores.profile_weight:g}",
        depth=f"{counted(report.statistics.depth, 'row')}",
        warnings=[*warnings, *report.statistics.warnings],
        facts=[tuple(cell.replace(" %", "\u00a0%") for cell in each) for each in _facts(report)],
        histogram=_histogram(report),
        maps=[
            {"name": name, "measure": measures.get(each.measure, "Score"), "most": f"{most[name]:.3g}"}
            for name, each in maps.items()
        ],
        count=counted(len(report.contacts.residues), "pair").split()[0],
        separation=MIN_SEPARATION,
        is_complex=bool(report.contacts.chains),
        matched=report.matched,
        uncovered=f"{len(report.contacts.uncovered()):,}",
        same_pair=report.same_pair is not None and report.same_pair.any(),
        judged=_judged(report),
        pairs=_pairs(report, len(report.contacts.residues)),
        between=_pairs(report, _LISTED, between_chains=True) if report.contacts.chains else [],
        pair_columns=_pair_columns(report),
        between_columns=_pair_columns(report, between_chains=True),
        conserved=_conserved(report),
        score_most=f"{_most_score(report):.1f}",
        commands=list((commands or {}).items()),
        versions=list((versions or {}).items()),
        data=_data(report, most),
    )
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # names of files may be no text


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def pack(values: np.ndarray, low: float, high: float, wide: bool = False) -> dict[str, Any]:
    """Round numbers to steps of ``(high - low) / 254``, or 65,534 if `wide`, as base64; NaN is the number above these.

    Examples
    --------
    >>> packed = pack(np.array([0.0, 0.5, 1.0, np.nan]), 0, 1)
    >>> list(base64.b64decode(packed["text"]))
    [0, 127, 254, 255]
    """
    steps, kind = (65534, "<u2") if wide else (254, "u1")
    span = high - low or 1.0
    numbers = np.rint(np.clip((values - low) / span, 0, 1) * steps)
    numbers = np.where(np.isnan(values), steps + 1, numbers).astype(kind)
    return {"low": low, "high": low + span, "wide": wide, "text": base64.b64encode(numbers.tobytes()).decode()}


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def _most(report: Report, name: str) -> float:
    """Return the number of the darkest colour: the probability 1, or the score of the strongest tenth of L pairs."""
    each = report.maps[name]
    pairs = each.top(len(each.residues))
    if each.measure == "probability" or not len(pairs):
        return 1.0
    return max(1e-30, float(np.quantile(each.values[pairs[:, 0], pairs[:, 1]], 0.9)))


def _most_score(report: Report) -> float:
    """Return the score of the strongest colour: a few extreme scores must not make all others pale."""
    finite = np.abs(report.scores.score[np.isfinite(report.scores.score)])
    return max(0.1, float(np.quantile(finite, 0.99))) if len(finite) else 1.0


def _data(report: Report, most: Mapping[str, float]) -> dict[str, Any]:
    """Collect what the page's script draws."""
    profile, scores, statistics = report.profile, report.scores, report.statistics
    upper = np.triu_indices(len(profile.residues), 1)
    order = [scores.amino_acids.index(letter) for letter in BY_CHEMISTRY]
    known = None
    if report.known is not None:
        states = np.where(report.known < 0, np.nan, report.known)
        if report.same_pair is not None:
            states[report.same_pair & (report.known == 0)] = 0.5
        known = pack(states[upper], 0, 1)
    chains, of_chain = report.contacts.chains, chain_indices(report.contacts.chains, profile.residues)
    starts = np.array(chain_starts(chains))
    return {
        "residues": (profile.residues - starts[of_chain]).tolist(),
        "names": report.residue_names,
        "chains": [each.name for each in chains],
        "chainOf": of_chain.tolist(),
        "sequence": profile.wild_type,
        "aminoAcids": profile.amino_acids,
        "separation": MIN_SEPARATION,
        "alignment": {
            "coverage": pack(statistics.coverage, 0, 1),
            "identity": pack(statistics.identity, 0, 1),
            "occupancy": pack(report.bands, 0, 1),
            "rowIdentity": report.band_identity.round(3).tolist(),
        },
        "maps": [
            {
                "name": name,
                "most": most[name],
                "values": pack(
                    each.values[upper], *((0, 1) if each.measure == "probability" else _range(each.values[upper]))
                ),
                "top": each.top(len(each.residues)).tolist(),
            }
            for name, each in report.maps.items()
        ],
        "known": known,
        "profile": {
            "model": pack(profile.probabilities, 0, 1, wide=True),
            "family": pack(profile.frequencies, 0, 1, wide=True),
            "entropy": _numbers(profile.entropy),
            "familyEntropy": _numbers(profile.family_entropy),
        },
        "scores": {
            "values": pack(scores.score[:, order], *_range(scores.score), wide=True),
            "order": BY_CHEMISTRY,
            "most": _most_score(report),
        },
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(value, 3) for value in values.tolist()]


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """List what the alignment is: label, number, and a note."""
    found = report.statistics
    percent = [f"{100 * value:.0f} %" for value in found.quartiles("row_identity")]
    has_others = not np.isnan(found.quartiles("row_identity")).any()
    odd = ", ".join(f"{letter} {count:,}" for letter, count in found.odd_letters.items())
    aligned = f"{len(found.residues):,} of them in columns" if len(found.residues) < len(found.query) else ""
    count = len(report.windows)
    in_windows = f", in {count} windows of {report.windows.width:,} columns" if count > 1 else ""
    chains = ", ".join(f"{each.name} {each.length:,}" for each in found.chains)
    paired = f"residues; {counted(found.paired, 'row')} with residues in every chain"
    return [
        ("Query", counted(len(found.query), "residue"), aligned),
        ("Rows", f"{found.depth:,}", f"{found.passing:,} pass the filters" if found.passing < found.depth else ""),
        *([("Chains", chains, paired)] if chains else []),
        ("Read by the model", counted(report.contacts.depth, "row"), f"Neff {found.neff_seen:.1f}{in_windows}"),
        ("Neff", f"{found.neff:.1f}", f"effective number of rows, theta {found.theta:g}"),
        ("Coverage of columns", f"{100 * found.coverage.mean():.0f} %", f"lowest {100 * found.coverage.min():.0f} %"),
        (
            "Identity to the query",
            percent[1] if has_others else "-",
            f"median; middle half {percent[0]} to {percent[2]}" if has_others else "",
        ),
        ("Gaps", f"{100 * found.gaps:.0f} %", "of the columns' letters"),
        ("Insertions", counted(found.insertions, "letter"), f"in {counted(found.rows_with_insertions, 'row')}"),
        ("Odd letters", odd or "none", "other than the 20 amino acids" if odd else ""),
        ("Duplicates", counted(found.duplicates, "row"), "that repeat an earlier one" if found.duplicates else ""),
    ]


def _histogram(report: Report) -> list[tuple[int, int, float]]:
    """Bars of ten percent of identity: lower end, rows, height of 74."""
    values = report.statistics.row_identity[1:]
    values = values[~np.isnan(values)]
    if not len(values):
        return []
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    return [(10 * k, int(count), round(74 * count / counts.max(), 1)) for k, count in enumerate(counts)]


def _judged(report: Report) -> dict[str, Any] | None:
    columns = (*_FIGURES, *_BETWEEN) if report.contacts.chains else _FIGURES
    rows = [
        (method, ["-" if np.isnan(values[name]) else f"{values[name]:.2f}" for name in columns])
        for method, values in report.judged().items()
    ]
    return {"columns": columns, "rows": rows} if rows else None


def _pair_columns(report: Report, between_chains: bool = False) -> list[str]:
    columns = ["rank", "i", "j", *([] if between_chains else ["|i\u2212j|"]), "probability"]
    columns += [f"rank, {name}" for name in report.baselines]
    return [*columns, "in contact"] if report.known is not None else columns


def _residue(report: Report, k: int) -> str:
    """Name the residue of a column with its amino acid, as variants do: K42, of a complex A:K42."""
    number = int(report.contacts.residues[k])
    return variant_name([Substitution(report.profile.wild_type[k], number, "")], report.contacts.chains)


def _pairs(report: Report, count: int, between_chains: bool = False) -> list[list[str]]:
    """List the strongest pairs of the model: rank, residues, probability, rank by the baselines, the structure."""
    contacts = report.contacts
    of_chain = chain_indices(contacts.chains, contacts.residues)
    tops = [each.top(between_chains=between_chains) for each in report.baselines.values()]
    ranks = [{pair: str(rank) for rank, pair in enumerate(map(tuple, top.tolist()), start=1)} for top in tops]
    states = {1: "yes", 0: "no"}
    rows = []
    for rank, (i, j) in enumerate(contacts.top(count, between_chains=between_chains).tolist(), start=1):
        row = [str(rank), _residue(report, i), _residue(report, j)]
        if not between_chains:
            row.append(str(contacts.residues[j] - contacts.residues[i]) if of_chain[i] == of_chain[j] else "-")
        row += [f"{contacts.probabilities[i, j]:.3f}", *(each.get((i, j), "-") for each in ranks)]
        if report.known is not None:
            is_same = report.same_pair is not None and report.known[i, j] == 0 and report.same_pair[i, j]
            row.append("within a chain" if is_same else states.get(int(report.known[i, j]), "unresolved"))
        rows.append(row)
    return rows


def _conserved(report: Report) -> list[tuple[str, str, str, str]]:
    """List the most conserved residues by the model: residue, entropies, and the most probable amino acids."""
    profile, rows = report.profile, []
    for k in np.argsort(profile.entropy, kind="stable")[:_CONSERVED]:
        best = np.argsort(-profile.probabilities[k], kind="stable")[:3]
        expected = ", ".join(f"{profile.amino_acids[a]} {profile.probabilities[k, a]:.2f}" for a in best)
        family = "-" if np.isnan(profile.family_entropy[k]) else f"{profile.family_entropy[k]:.2f}"
        rows.append((_residue(report, k), f"{profile.entropy[k]:.2f}", family, expected))
    return rows
