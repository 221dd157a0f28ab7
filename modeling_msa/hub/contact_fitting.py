"""A checkpoint with a contact regression of its own, fitted on families of known structure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .._files import require_new_folder, whole_folder
from ..alignments.known_contacts import read_known
from ..tasks.contacts import ContactFit, fit_contact_regression
from ..tasks.inputs import prepare_alignment
from ..tokenization_msa_transformer import MsaTokenizer
from .card import Result, TrainingReport, find_source
from .loading import load_model, saved_class
from .repository import complete_folder


def fit_contacts(
    families: Iterable[tuple],
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    regularization: float = 0.15,
    device: str = "auto",
) -> ContactFit:
    """Fit a checkpoint's contact regression on families of known structure, and save a new folder.

    See `modeling_msa.fit_contact_regression`. All other weights, their type and the head are the source's. The folder
    is complete: weights, config, tokenizer, the model's code and a card.

    Parameters
    ----------
    families : iterable
        As `evaluate_contacts`. The paper takes 20, that are not those to be predicted.
    source : path or str
        Folder or Hub id of the model.
    output : path
        The folder to make; it must not exist, or be empty. It appears whole or not at all.
    rows, select, seed, coverage, identity
        Which rows the model sees; see `modeling_msa.prepare_alignment`. `seed` is the solver's, too.
    regularization : float, default 0.15
        scikit-learn's C, the inverse of the L1 penalty's strength.
    device : str, default "auto"
        See `modeling_msa.load_model`.

    Returns
    -------
    ContactFit

    Raises
    ------
    OSError, ValueError, ImportError
        If the output is not empty, a file cannot be read, a structure is not the query's, no map tells contacts from
        other pairs, or scikit-learn or gemmi are missing. Nothing is left then.
    """
    output, families = Path(output), list(families)
    require_new_folder(output)
    model = load_model(source, device, cls=saved_class(source))
    rows = min(rows, MsaTokenizer.for_config(model.config).model_max_depth)
    pairs = (read_known(*family) for family in families)
    examples = (
        (prepare_alignment(alignment, rows, select, seed, coverage, identity), known) for alignment, known in pairs
    )
    fit = fit_contact_regression(model, examples, regularization=regularization, seed=seed)
    known = find_source(source, model.config)
    with whole_folder(output) as folder:
        model.save_pretrained(folder)
        complete_folder(
            folder,
            model.config,
            output.name,
            note=f"{known.name} with a contact regression of its own; all other weights are those of {known.name}.",
            training=TrainingReport(
                f"The contact regression was fitted on the structures of {fit.examples} families, at most {rows} rows "
                f"({select}) of each: {fit.pairs:,} pairs of residues, {fit.positives:,} of them contacts; logistic "
                f"regression with an L1 penalty, C = {regularization}. {fit.nonzero} of its {fit.weights} weights are "
                f"not zero. All else was trained as the card of {known.name} says.",
                results=(
                    Result("p_at_l", fit.precision, f"{fit.examples} families of known structure", split="train"),
                ),
                source=known,
                relation="finetune",
            ),
        )
    return fit
