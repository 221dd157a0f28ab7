"""ProteinGym's zero-shot benchmark of substitutions: scores of an assay, and the averages over assays.

The protocol is that of ProteinGym's ``compute_fitness.py`` for the MSA Transformer, the averages are those of its
``performance_DMS_benchmarks.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..alignments.alignment import Alignment
from ..alignments.sampling import redrawn_rows, select_rows, sequence_weights
from ..alignments.tables import Table, read_table
from ..alignments.variants import AMINO_ACIDS
from ..modeling_msa_transformer import MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .inputs import row_limit
from .proteingym_files import PER_ASSAY, SUMMARY, Assay, check_draws, check_scored, write_rows
from .proteingym_metrics import benchmark_metrics
from .scoring import VariantScores, fit_variants, mix_with_profile, resolve_profile_weight, score_variants
from .strategies import Mode

_MOST_GAPS = 0.5  # of a row, in MSA_processing
_RESAMPLED = 10_000


def choose_benchmark_rows(
    alignment: Alignment,
    rows: int,
    seeds: Sequence[int],
    *,
    theta: float,
    select: str = "weighted",
    coverage: float | None = 75.0,
    identity: float | None = 90.0,
    replacement: bool = False,
) -> list[Alignment]:
    """Choose rows as ProteinGym's script does, once with each seed.

    Rows are filtered by coverage and identity; then rows with more than half of gaps, or with a letter that is not
    one of the 20 amino acids, are left out; the rest is drawn by its weights.

    Parameters
    ----------
    alignment : Alignment
        Query first; columns in which it has a gap are dropped.
    rows : int
        Number of rows, query included.
    seeds : sequence of int
        Random seeds.
    theta : float
        See `modeling_msa.select_rows`.
    select, coverage, identity
        See `modeling_msa.select_rows`.
    replacement : bool, default False
        Draw weighted rows with replacement: the script's own rows, in its order (`redrawn_rows`), always `rows` of
        them. By default a row is drawn once, and all rows are kept if there are no more than `rows`.

    Returns
    -------
    list of Alignment
        One per seed.

    Raises
    ------
    ValueError
        If rows are to be drawn with replacement, but not by weight, or several seeds would choose the same.
    """
    check_draws(select, seeds, replacement)
    kept = select_rows(alignment.drop_query_gaps(), alignment.depth, "first", coverage=coverage, identity=identity)
    gaps = kept.array == ord("-")
    usual = (gaps | np.isin(kept.array, np.frombuffer(AMINO_ACIDS.encode(), np.uint8))).all(axis=1)
    usual &= gaps.mean(axis=1) <= _MOST_GAPS
    usual[0] = True
    kept = kept.take(usual)
    is_drawn = select == "weighted" and (replacement or rows < kept.depth)
    weights = sequence_weights(kept.array, theta) if is_drawn else None
    if weights is not None and replacement:
        return [kept.take(redrawn_rows(weights, rows, seed)) for seed in seeds]
    return [select_rows(kept, rows, select, seed, weights=weights) for seed in seeds]


def score_assay(
    assay: Assay,
    alignment: Alignment,
    table: Table,
    model: MsaPreTrainedModel,
    *,
    rows: int = 400,
    select: str = "weighted",
    seed: Sequence[int] = (1, 2, 3, 4, 5),
    coverage: float | None = 75.0,
    identity: float | None = 90.0,
    replacement: bool = False,
    mode: Mode = "exact",
    window: int | None = None,
    batch_size: int | None = None,
) -> VariantScores:
    """Score the variants of an assay by masked marginals.

    As by `modeling_msa.score_variants`, scores are mixed with the frequencies of the whole alignment if the model's
    config has a ``profile_weight``.

    Parameters
    ----------
    assay : Assay
        From `read_reference`.
    alignment : Alignment
        Read as FASTA, so that lower-case letters of the query have a column, as in ProteinGym's script.
    table : Table
        From `read_assay`.
    model : MsaForMaskedLM
        ``load_model(name, cls=MsaForMaskedLM)``.
    rows, select, coverage, identity, replacement
        See `choose_benchmark_rows`; no more rows than the model reads.
    seed : sequence of int
        Seeds of the row choices.
    mode, window, batch_size
        See `modeling_msa.score_variants`. Without `window`, 1,023 residues and ``<cls>``: the script's 1,024 tokens.

    Returns
    -------
    VariantScores
        In the order of the table; every variant has a score.

    Raises
    ------
    ValueError
        Before the model runs: if the alignment's query is not the assay's, a variant does not fit it, or an argument
        is wrong.
    """
    assay.check_query(alignment)
    variants, seeds = table.cells("mutant"), tuple(seed)
    where: dict[str, Any] = {"offset": assay.start - 1, "source": str(assay.table), "lines": table.lines}
    parsed, unscored = fit_variants(alignment, variants, **where)
    check_scored(assay, table, unscored)
    weight = resolve_profile_weight(None, model)
    depth = row_limit(alignment, rows, MsaTokenizer.for_config(model.config).model_max_depth)
    chosen = choose_benchmark_rows(
        alignment,
        depth,
        seeds,
        theta=assay.theta,
        select=select,
        coverage=coverage,
        identity=identity,
        replacement=replacement,
    )
    scores: list[np.ndarray] = []
    for k, seen in enumerate(chosen):
        same = next((j for j in range(k) if np.array_equal(chosen[j].array, seen.array)), None)
        more: dict[str, Any] = {"mode": mode, "window": window, "batch_size": batch_size, "profile_weight": 0, **where}
        scores.append(score_variants(seen, variants, model, **more).score if same is None else scores[same])
    per_seed = mix_with_profile(np.array(scores), alignment, parsed, weight)
    std = per_seed.std(axis=0, ddof=1) if len(seeds) > 1 else None
    reasons = ("",) * len(variants)
    mean, depth = per_seed.mean(axis=0), chosen[0].depth
    return VariantScores(assay.name, tuple(variants), mean, std, reasons, per_seed, seeds, depth, weight)


@dataclass(frozen=True, eq=False)
class AssayAverage:
    """The average of one metric over assays.

    Attributes
    ----------
    value : float
        Mean over the functions, each the mean over proteins, each the mean over its assays of this function.
    standard_error : float
        Standard deviation of `value` when the proteins of each function are drawn anew, with replacement; NaN if a
        function has a single protein, whose spread is not known.
    assays : int
        Number of assays that have the metric.
    functions : dict of str to float
        Means of the functions.
    """

    value: float
    standard_error: float
    assays: int
    functions: dict[str, float]


def average_assays(values: Sequence[float] | np.ndarray, assays: Sequence[Assay]) -> AssayAverage:
    """Average a metric as ProteinGym does: within proteins (UniProt_ID), then within functions, then over functions.

    A protein that is measured for two functions counts in both. Values that are NaN are left out.

    Parameters
    ----------
    values : array_like, shape=(N,)
        The metric of each assay.
    assays : sequence of Assay
        Of the same order.

    Returns
    -------
    AssayAverage
        The bootstrap has 10,000 samples and a fixed seed. ProteinGym's own standard error is that of the difference
        to the best model of its table; here it is that of the average itself.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    for value, assay in zip(values, assays, strict=True):
        if not np.isnan(value):
            groups.setdefault(assay.function, {}).setdefault(assay.protein, []).append(float(value))
    means = {name: np.array([np.mean(each) for each in groups[name].values()]) for name in sorted(groups)}
    functions = {name: float(each.mean()) for name, each in means.items()}
    if not means:
        return AssayAverage(float("nan"), float("nan"), 0, {})
    random = np.random.default_rng(0)
    samples = [each[random.integers(len(each), size=(_RESAMPLED, len(each)))].mean(axis=1) for each in means.values()]
    error = float(np.mean(samples, axis=0).std(ddof=1)) if min(map(len, means.values())) > 1 else float("nan")
    count = int(np.isfinite(np.asarray(values, dtype=float)).sum())
    return AssayAverage(float(np.mean(list(functions.values()))), error, count, functions)


def measure_assay(path: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Compute the metrics of a table of scores, for each of its columns `names`."""
    table = read_table(path)
    measured, fit = (np.array(table.cells(name), dtype=float) for name in ("DMS_score", "DMS_score_bin"))
    return {name: benchmark_metrics(measured, np.array(table.cells(name), dtype=float), fit) for name in names}


def write_summary(
    assays: Sequence[Assay], folder: Path, seeds: Sequence[int], score_column: str
) -> dict[str, AssayAverage]:
    """Write the metrics of each assay and their averages beside the tables of scores.

    Returns
    -------
    dict of str to AssayAverage
        The ensemble's, by metric.
    """
    names = [*(f"{score_column}_seed{seed}" for seed in seeds), f"{score_column}_ensemble"]
    found = [measure_assay(folder / f"{assay.name}.csv", names) for assay in assays]
    kinds = list(found[0][names[0]])
    rows = [["DMS_id", "UniProt_ID", "coarse_selection_type", "Model_name", *kinds]]
    for assay, metrics_of in zip(assays, found, strict=True):
        about = [assay.name, assay.protein, assay.function]
        rows += [[*about, name, *map(_cell, metrics_of[name].values())] for name in names]
    write_rows(folder / PER_ASSAY, rows)
    averages = {
        (name, kind): average_assays([each[name][kind] for each in found], assays) for name in names for kind in kinds
    }
    functions = sorted({assay.function for assay in assays})
    head = ["Model_name", "Metric", "Average", "Bootstrap_standard_error", "Number_of_assays"]
    rows = [[*head, *(f"Function_{function}" for function in functions)]]
    for key, each in averages.items():
        means = [_cell(each.functions.get(function, float("nan"))) for function in functions]
        rows.append([*key, _cell(each.value), _cell(each.standard_error), str(each.assays), *means])
    write_rows(folder / SUMMARY, rows)
    return {kind: averages[names[-1], kind] for kind in kinds}


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.4f}"
