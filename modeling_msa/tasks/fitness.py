"""A regression on measured variants of one query: fit it, check it by folds, write it and apply it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from .._files import check_ending, file_sha256, whole_file
from .._version import __version__
from .._words import counted
from ..alignments.alignment import Alignment
from ..alignments.chains import check_offset
from ..alignments.variants import AMINO_ACIDS, Substitution, places_of, variant_name
from ..modeling_msa_transformer import MsaForMaskedLM, MsaPreTrainedModel
from .embeddings import model_name, resolve_layers
from .fitness_evaluation import (
    METRICS,
    SCHEMES,
    FitnessEvaluation,
    check_few,
    evaluate_few,
    evaluate_folds,
    fold_numbers,
)
from .fitness_features import FEATURES, fitness_pipeline
from .fitness_regression import KERNELS, FitnessRegressor
from .inputs import ROWS, prepare_for
from .scoring import SubstitutionScores, VariantScores, fit_variants
from .strategies import Mode
from .variant_embeddings import Which

ENDING = ".safetensors"
_KIND = "fitness regression of modeling-msa"
_ARRAYS = ("center_", "scale_", "coef_", "support_", "dual_coef_")
_NUMBERS = {"kernel": str, "plain": int, "covariates": int, "alpha_": float, "length_": float, "intercept_": float}
_OPTIONS = ("which", "mode", "select", "seed", "layers", "coverage", "identity", "rows")
_TOLERANCE = 1e-3  # of the features of a variant of the fit: of their largest magnitude
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class FitnessLabels:
    """Measured variants that a regression can be fitted on, each once.

    Attributes
    ----------
    variants : tuple of str
        The N variants, as they were given.
    parsed : tuple of tuple of Substitution
        Numbered on the query.
    values : ndarray, shape=(N,), dtype=float64
        Measured values.
    left_out : tuple of str
        Why other variants with a value are left out, with their places.
    """

    variants: tuple[str, ...]
    parsed: tuple[tuple[Substitution, ...], ...]
    values: np.ndarray
    left_out: tuple[str, ...]


def check_labels(
    alignment: Alignment,
    variants: Sequence[str],
    values: Sequence[float] | np.ndarray,
    *,
    offset: int = 0,
    skip_mismatches: bool = False,
    source: str = "variants",
    lines: Sequence[int] | None = None,
) -> FitnessLabels:
    """Find the variants that a regression can be fitted on, before a model is loaded.

    Variants without a value (NaN) are left out, as are those without a substitution that the alignment covers. A
    variant that is there twice with one value is used once.

    Raises
    ------
    ValueError
        If variants do not fit the query, a value is infinite, a variant has two values, fewer than two variants are
        left, or all values are alike.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(variants):
        raise ValueError(f"There are {len(variants)} variants, but {len(values)} values: pass one for each.")
    parsed, reasons = fit_variants(alignment, variants, offset, skip_mismatches, source, lines)
    places = places_of(variants, lines)
    if (infinite := np.flatnonzero(np.isinf(values))).size:
        raise ValueError(f"{source}: {places[infinite[0]]}: the value is infinite; remove it, or write a number.")
    first: dict[tuple[Substitution, ...], int] = {}
    left_out, twice = [], []
    for k, some in enumerate(parsed):
        changed = tuple(sorted(each for each in some if each.mutant != each.wild_type))
        if np.isnan(values[k]):
            continue
        if reasons[k] or not changed:
            left_out.append(f"{places[k]}: {reasons[k] or 'there is no substitution.'}")
        elif values[(other := first.setdefault(changed, k))] != values[k]:
            twice.append(f"{places[k]} is {values[k]:g}, but {places[other]} is {values[other]:g}.")
    if twice:
        more = f" ... and {len(twice) - _SHOWN} more." if len(twice) > _SHOWN else ""
        raise ValueError(
            f"{source}: {counted(len(twice), 'variant')} with several values: {' '.join(twice[:_SHOWN])}{more} Keep "
            "one value for each variant, such as their mean."
        )
    used = list(first.values())
    if len(used) < 2:
        why = f" Not used: {' '.join(left_out[:_SHOWN])}" if left_out else ""
        raise ValueError(
            f"{source}: fitting requires at least 2 variants with a value, but {len(used)} can be used.{why}"
        )
    if np.ptp(values[used]) == 0:
        raise ValueError(
            f"{source}: all {len(used)} variants have the same value, {values[used[0]]:g}: there is nothing to fit; "
            "pass another column, or measure other variants."
        )
    return FitnessLabels(tuple(variants[k] for k in used), tuple(first), values[used], tuple(left_out))


@dataclass(frozen=True, eq=False)
class FitnessModel:
    """A regression from variants of one query to measured fitness.

    Attributes
    ----------
    regressor : FitnessRegressor
        Fitted.
    features : tuple of str
        What it sees, see `fitness_pipeline`.
    options : dict
        How the features are made: ``which``, ``layers``, ``mode``, ``rows``, ``select``, ``seed``, ``coverage``,
        ``identity``.
    query : str
        The query's residues, insertions included.
    model : str
        Name of the model that the features come from.
    variants : int
        Number of variants of the fit.
    reference : str
        One of them, numbered on the query.
    reference_features : ndarray, shape=(F,), dtype=float64
        Its features, by which another model, or other rows, are noticed.
    evaluations : tuple of FitnessEvaluation
        By folds, and with few labels.
    """

    regressor: FitnessRegressor
    features: tuple[str, ...]
    options: dict[str, Any]
    query: str
    model: str
    variants: int
    reference: str
    reference_features: np.ndarray
    evaluations: tuple[FitnessEvaluation, ...] = field(default=())

    @property
    def model_class(self) -> str:
        """Class of the model that the features require."""
        return "MsaForMaskedLM" if "zero-shot" in self.features else "MsaModel"

    def predict(
        self,
        alignment: Alignment,
        variants: Sequence[str],
        model: MsaPreTrainedModel,
        *,
        offset: int = 0,
        skip_mismatches: bool = False,
        batch_size: int | None = None,
        source: str = "variants",
        lines: Sequence[int] | None = None,
    ) -> VariantScores:
        """Predict the fitness of variants.

        Parameters
        ----------
        alignment : Alignment
            The family that the regression was fitted with.
        variants, offset, skip_mismatches, batch_size, source, lines
            As for `modeling_msa.score_variants`.
        model : MsaForMaskedLM, or MsaModel without zero-shot scores among the features
            The model that it was fitted with.

        Returns
        -------
        VariantScores
            Its scores are predicted values, in the unit of the measured ones.

        Raises
        ------
        ValueError
            Before predicting: if the query is another one, the model or the rows give other features than in the fit,
            or variants do not fit the query.
        """
        self.check(alignment)
        parsed, reasons = fit_variants(alignment, variants, offset, skip_mismatches, source, lines)
        seen = prepare_for(model, alignment, **_rows_of(self.options))
        changes = [[each for each in some if each.mutant != each.wild_type] for some in parsed]
        texts = [variant_name(some, alignment.chains) for some in changes]
        if "embedding" in self.features and self.options["which"] != "mean":
            lacks = "there is no substitution, and this regression reads the embeddings of mutated residues."
            reasons = tuple(why or ("" if text else lacks) for text, why in zip(texts, reasons, strict=True))
        used = [k for k, why in enumerate(reasons) if not why]
        pipeline = _pipeline(self.features, self.options, alignment, model, batch_size)
        matrix = pipeline[0].fit_transform([self.reference, *(texts[k] or "WT" for k in used)])
        self._check_features(matrix[:1])
        score = np.full(len(variants), np.nan)
        if used:
            score[used] = self.regressor.predict(matrix[1:])
        seed = (self.options["seed"],)
        return VariantScores(
            alignment.names[0], tuple(variants), score, None, tuple(reasons), score[None], seed, seen.depth
        )

    def predict_all_singles(
        self, alignment: Alignment, model: MsaPreTrainedModel, *, offset: int = 0, batch_size: int | None = None
    ) -> SubstitutionScores:
        """Predict every substitution of every residue that the alignment covers; NaN for the wild type.

        The parameters are those of `predict`.
        """
        check_offset(alignment.chains, offset, alignment.source or alignment.names[0])
        residues = np.flatnonzero(alignment.residue_columns >= 0) + 1
        wild = "".join(alignment.query[number - 1] for number in residues)
        place = {
            variant_name([Substitution(letter, number, mutant)], alignment.chains): (k, j)
            for k, (letter, number) in enumerate(zip(wild, residues.tolist(), strict=True))
            for j, mutant in enumerate(AMINO_ACIDS)
            if letter in AMINO_ACIDS and mutant != letter
        }
        found = self.predict(alignment, list(place), model, batch_size=batch_size)
        score = np.full((len(residues), len(AMINO_ACIDS)), np.nan)
        score[tuple(np.array(list(place.values())).T)] = found.score
        where = (found.name, wild, residues + offset, AMINO_ACIDS)
        return SubstitutionScores(*where, score, None, found.seeds, found.depth, alignment.chains)

    def check(self, alignment: Alignment) -> None:
        """Raise ValueError if the query is not the one of the fit."""
        query, known = alignment.query, self.query
        if query != known:
            where = f"{len(query)} residues instead of {len(known)}"
            if len(query) == len(known):
                k = next(k for k, letter in enumerate(query) if letter != known[k])
                where = f"{query[k]} instead of {known[k]} at residue {alignment.residue_name(k + 1)}"
            raise ValueError(
                f"{alignment.source or alignment.names[0]}: the query is not the one that the regression was fitted "
                f"with: it has {where}. Pass that family, or fit again with msa fit-fitness."
            )

    def _check_features(self, row: Any) -> None:
        found = row.toarray()[0] if hasattr(row, "toarray") else row[0]
        known = self.reference_features
        limit = _TOLERANCE * max(1.0, float(np.abs(known).max()))
        if found.shape != known.shape or np.abs(found - known).max() > limit:
            raise ValueError(
                f"The regression was fitted with another model or other rows: {self.reference} had other features. "
                f"Pass the model ({self.model}) and the alignment of the fit, or fit again with msa fit-fitness."
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the arrays, ``.safetensors``, and beside them, in ``.json``, all the rest; nothing is pickled."""
        path = Path(path)
        check_ending(path, (ENDING,))
        arrays = {name.strip("_"): np.ascontiguousarray(getattr(self.regressor, name)) for name in _ARRAYS}
        with whole_file(path) as temporary:
            save_file(arrays | {"reference": self.reference_features}, temporary, {"kind": _KIND})
        described = {
            "kind": _KIND,
            "version": __version__,
            "sha256": file_sha256(path),
            "features": list(self.features),
            "options": self.options | {"layers": list(self.options["layers"])},
            "regression": {name.strip("_"): _plain(getattr(self.regressor, name)) for name in _NUMBERS},
            "query": self.query,
            "model": self.model,
            "variants": self.variants,
            "reference": self.reference,
            "evaluation": [
                {"scheme": each.scheme, "metrics": list(map(_defined, each.metrics)), "pooled": _defined(each.pooled)}
                for each in self.evaluations
            ],
        }
        with whole_file(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FitnessModel:
        """Read what `save` wrote.

        Raises
        ------
        OSError, ValueError, ImportError
            If one of the two files does not exist or is something else, or they do not belong together; without
            scikit-learn.
        """
        path = Path(path)
        if path.suffix.lower() != ENDING:
            raise ValueError(f"{path}: not a regression of msa fit-fitness; pass its {ENDING} file.")
        for file in (path, path.with_suffix(".json")):
            if not file.is_file():
                raise FileNotFoundError(f"{file}: no such file; msa fit-fitness writes {path.name} and its .json.")
        regressor = FitnessRegressor()
        try:
            described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if described["kind"] != _KIND:
                raise ValueError(f"the kind is {described['kind']!r}")
            if described["sha256"] != file_sha256(path):
                raise ValueError("the two files are not of one fit")
            arrays = load_file(path)
            for name, kind in _NUMBERS.items():
                value = described["regression"][name.strip("_")]
                setattr(regressor, name, kind("nan" if value is None else value))
            for name in _ARRAYS:
                setattr(regressor, name, arrays[name.strip("_")])
            regressor.n_features_in_ = len(regressor.coef_)
            shapes = {arrays[name].shape for name in ("center", "scale", "coef", "reference")}
            wide = regressor.n_features_in_ - regressor.covariates
            if len(shapes) > 1 or arrays["support"].shape != (len(arrays["dual_coef"]), wide):
                raise ValueError("the arrays do not fit together")
            options = {name: described["options"][name] for name in _OPTIONS}
            options["layers"] = tuple(map(int, options["layers"]))
            if regressor.kernel not in KERNELS or not set(FEATURES).issuperset(described["features"]):
                raise ValueError("the kernel or the features are unknown")
            evaluations = tuple(
                FitnessEvaluation(
                    each["scheme"], tuple(map(_whole, each["metrics"])), each["pooled"] and _whole(each["pooled"])
                )
                for each in described["evaluation"]
            )
            return cls(
                regressor,
                tuple(described["features"]),
                options,
                str(described["query"]),
                str(described["model"]),
                int(described["variants"]),
                str(described["reference"]),
                arrays["reference"],
                evaluations,
            )
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise ValueError(f"{path}: not a regression that msa fit-fitness has written ({error}).") from None


def fit_fitness(
    alignment: Alignment,
    variants: Sequence[str],
    values: Sequence[float] | np.ndarray,
    model: MsaPreTrainedModel,
    *,
    features: Sequence[str] = ("embedding", "zero-shot"),
    kernel: str = "ridge",
    which: Which = "both",
    layers: Sequence[int] = (-1,),
    mode: Mode = "fast",
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    offset: int = 0,
    skip_mismatches: bool = False,
    batch_size: int | None = None,
    folds: Sequence[str] | None = None,
    labels: Sequence[int] = (),
    source: str = "variants",
    lines: Sequence[int] | None = None,
) -> FitnessModel:
    """Fit a regression to measured variants of one query, and evaluate it by folds.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    variants : sequence of str
        Such as ``A42V`` or ``A42V:G7D``; see `modeling_msa.score_variants`.
    values : sequence of float
        Measured values, higher is fitter; NaN where there is none.
    model : MsaForMaskedLM, or MsaModel without zero-shot scores among the features
    features, kernel, which, layers, mode, rows, select, seed, coverage, identity, offset, batch_size
        As for `fitness_pipeline`; `seed` is also that of the folds.
    skip_mismatches, source, lines
        As for `modeling_msa.score_variants`.
    folds : sequence of {"random", "modulo", "contiguous"}, optional
        Folds to evaluate by, five of each; none: (). Default: all three for single substitutions, otherwise random.
    labels : sequence of int, default ()
        Numbers of labels to evaluate with, ten draws each (`evaluate_few`).

    Returns
    -------
    FitnessModel
        Fitted on all variants with a value that the features can describe.

    Raises
    ------
    ValueError
        Before the model runs, as `check_labels`, `fold_numbers` and `fitness_pipeline`.
    TypeError
        If zero-shot scores require a language model head.

    Examples
    --------
    >>> from modeling_msa import MsaForMaskedLM, bundled_family, load_model, read_alignment
    >>> family = read_alignment(bundled_family())
    >>> measured = {"W20A": -3.0, "L17I": 0.5, "P3K": -0.5, "P3R": -0.25, "E31G": -1.0}
    >>> network = load_model(cls=MsaForMaskedLM)
    >>> fitted = fit_fitness(family, list(measured), list(measured.values()), network, rows=8, folds=())
    >>> fitted.predict(family, ["W20G", "L17V"], network).score.shape
    (2,)
    """
    known = check_labels(
        alignment,
        variants,
        values,
        offset=offset,
        skip_mismatches=skip_mismatches,
        source=source,
        lines=lines,
    )
    assigned = assign_folds(known, folds, labels, seed, source)
    if "zero-shot" in features and not isinstance(model, MsaForMaskedLM):
        raise TypeError(
            f"Zero-shot scores require a model with a language model head, not {type(model).__name__}: "
            "load_model(name, cls=MsaForMaskedLM)."
        )
    options: dict[str, Any] = {"which": which, "mode": mode, "select": select, "seed": seed}
    options |= {"layers": resolve_layers(layers, model.config.num_hidden_layers), "coverage": coverage}
    limit = alignment.depth if rows is None and alignment.is_selected else rows or ROWS
    options |= {"identity": identity, "rows": limit}
    texts = [variant_name(each, alignment.chains) for each in known.parsed]
    pipeline = _pipeline(features, options, alignment, model, batch_size, kernel)
    matrix = pipeline[0].fit_transform(texts)
    first = matrix[:1].toarray()[0] if hasattr(matrix, "toarray") else matrix[0]
    evaluations = [evaluate_folds(pipeline[1], matrix, known.values, each, name) for name, each in assigned.items()]
    evaluations += [evaluate_few(pipeline[1], matrix, known.values, count, seed=seed) for count in labels]
    return FitnessModel(
        pipeline[1].fit(matrix, known.values),
        tuple(features),
        options,
        alignment.query,
        model_name(model),
        len(texts),
        texts[0],
        np.asarray(first, dtype=np.float64),
        tuple(evaluations),
    )


def assign_folds(
    known: FitnessLabels,
    folds: Sequence[str] | None,
    labels: Sequence[int] = (),
    seed: int = 0,
    source: str = "variants",
) -> dict[str, np.ndarray]:
    """Number the folds of an evaluation by scheme.

    The parameters are those of `fit_fitness`; ValueError, which names `source`, if there are too few variants.
    """
    if folds is None:
        folds = SCHEMES if all(len(each) == 1 for each in known.parsed) else SCHEMES[:1]
    try:
        for count in labels:
            check_few(count, len(known.values))
        return {each: fold_numbers(known.parsed, each, seed) for each in folds}  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _rows_of(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in ("rows", "select", "seed", "coverage", "identity")}


def _pipeline(
    features: Sequence[str],
    options: dict[str, Any],
    alignment: Alignment,
    model: MsaPreTrainedModel,
    batch_size: int | None,
    kernel: str = "ridge",
) -> Any:
    """Make a pipeline by the query's own numbers; of all rows, as zero-shot scores may count them all."""
    chosen = {name: options[name] for name in ("which", "layers", "mode")} | _rows_of(options)
    return fitness_pipeline(alignment, model, features=features, kernel=kernel, batch_size=batch_size, **chosen)


def _plain(value: Any) -> Any:
    return (
        None
        if isinstance(value, float) and np.isnan(value)
        else value
        if isinstance(value, str | int)
        else float(value)
    )


def _defined(metrics: dict[str, float] | None) -> dict[str, float | None] | None:
    """JSON has no NaN."""
    return None if metrics is None else {name: _plain(value) for name, value in metrics.items()}


def _whole(metrics: dict[str, float | None]) -> dict[str, float]:
    return {name: float("nan") if metrics[name] is None else metrics[name] for name in METRICS}  # type: ignore[misc]
