"""Make a checkpoint whose contact regression is fitted on families of known structure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import starmap
from pathlib import Path

import numpy as np

from .._files import require_new_folder, whole_folder
from ..alignments.alignment import Alignment
from ..alignments.known_contacts import read_known
from ..tasks.contact_regression import ContactFit, fit_contact_regression
from ..tasks.inputs import prepare_alignment, row_limit
from ..tokenization_msa_transformer import MsaTokenizer
from .card import find_source
from .loading import load_model, saved_class
from .reports import Result, TrainingReport
from .repository import complete_folder


def fit_contacts(
    families: Iterable[tuple],
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    regularization: float = 0.15,
    device: str = "auto",
) -> ContactFit:
    """Fit a checkpoint's contact regression on families of known structure, and save a new folder.

    See `modeling_msa.fit_contact_regression`. All other weights, their type and the head stay as in the source. The
    folder is complete: weights, config, tokenizer, the model's code and a card.

    Parameters
    ----------
    families : iterable
        As for `evaluate_contacts`. The paper uses 20, none of which are predicted later.
    source : path or str
        Folder or Hub id of the model.
    output : path
        Folder to create; it must not exist, or be empty. It appears whole or not at all.
    rows, select, seed, coverage, identity
        Which rows are given to the model; see `modeling_msa.prepare_alignment`. Without `rows`, all
        that `modeling_msa.select_rows` has chosen, of other alignments at most 128. `seed` is
        also that of the solver.
    regularization, device
        See `modeling_msa.fit_contact_regression` and `modeling_msa.load_model`.

    Raises
    ------
    OSError, ValueError, ImportError
        If the output is not empty, a file cannot be read, a structure is not the query's, no map tells contacts from
        other pairs, or scikit-learn or gemmi are missing. Then no folder is left.
    """
    output, families = Path(output), list(families)
    require_new_folder(output)
    model = load_model(source, device, cls=saved_class(source))
    most, limits = MsaTokenizer.for_config(model.config).model_max_depth, [0]

    def examples() -> Iterator[tuple[Alignment, np.ndarray]]:
        for alignment, known in starmap(read_known, families):
            limit = row_limit(alignment, rows, most)
            limits.append(limit)
            yield prepare_alignment(alignment, limit, select, seed, coverage, identity), known

    fit = fit_contact_regression(model, examples(), regularization=regularization, seed=seed)
    result = Result("p_at_l", fit.precision, f"{fit.examples} families of known structure", split="train")
    known = find_source(source, model.config)
    with whole_folder(output) as folder:
        model.save_pretrained(folder)
        complete_folder(
            folder,
            model.config,
            output.name,
            note=f"{known.name} with a contact regression of its own; all other weights are those of {known.name}.",
            training=TrainingReport(
                f"The contact regression was fitted on the structures of {fit.examples} families, at most "
                f"{max(limits)} rows ({select}) of each: {fit.pairs:,} pairs of residues, {fit.positives:,} of them "
                f"contacts; logistic regression with an L1 penalty, C = {regularization}. {fit.nonzero} of its "
                f"{fit.weights} weights are not zero. All else was trained as the card of {known.name} says.",
                results=(result,),
                source=known,
                relation="finetune",
            ),
        )
    return fit
