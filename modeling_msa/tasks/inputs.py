"""From an alignment to the tokens that the model sees, the first step of every task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding, PreTrainedModel

from ..alignments.alignment import Alignment
from ..alignments.chains import chain_indices, require_chains
from ..alignments.sampling import select_rows
from ..modeling_msa_transformer import MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer
from .windows import Windows, check_windows

ROWS = 128  # at most, if neither the caller nor `select_rows` has chosen


def is_split(model: PreTrainedModel) -> bool:
    """Whether the model is inside `modeling_msa.split_rows`, which replaces methods of the instance."""
    return "prepare" in vars(model.base_model)


def check_whole(model: MsaPreTrainedModel) -> None:
    """Raise ValueError for a model inside `modeling_msa.split_rows`, whose processes do not hold all rows."""
    if is_split(model):
        raise ValueError(
            "The rows of this model's input are split over processes (split_rows), and this task needs all of them: "
            "call it outside of split_rows. Inside, call the model itself or predict_contacts."
        )


def row_limit(alignment: Alignment, rows: int | None, most: int | None = None, usual: int = ROWS) -> int:
    """How many rows of an alignment the model may see: `rows`, but no more than `most`, which it reads.

    Without `rows`, all that `select_rows` has chosen (`encode` refuses those that are too many), otherwise `usual`.
    """
    if rows is None and alignment.is_selected:
        return alignment.depth
    rows = usual if rows is None else rows
    return rows if most is None else min(rows, most)


def prepare_alignment(
    alignment: Alignment,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> Alignment:
    """Choose what the model sees: the columns with a residue of the query, and at most `rows` rows.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    rows : int, optional
        Maximum number of rows. Default: all rows of an alignment that `modeling_msa.select_rows` returned; of any
        other at most 128.
    select, seed, coverage, identity
        As `modeling_msa.select_rows`; fair-esm's examples use the 128 most diverse rows.

    Returns
    -------
    Alignment
        Its residue numbers are still those of the whole query.

    Examples
    --------
    >>> family = Alignment.from_sequences(["mKV-L", "RVAL", "RIAL"])
    >>> seen = prepare_alignment(family, rows=2, select="first")
    >>> seen.sequences, seen.column_residues.tolist()
    (['KVL', 'RVL'], [2, 3, 4])
    """
    rows = row_limit(alignment, rows)
    return select_rows(alignment.drop_query_gaps(), rows, select, seed, coverage=coverage, identity=identity)


def prepare_for(
    model: MsaPreTrainedModel, alignment: Alignment, rows: int | None = None, *how: Any, **more: Any
) -> Alignment:
    """Choose rows as `prepare_alignment` does, but no more than the model reads."""
    rows = row_limit(alignment, rows, MsaTokenizer.for_config(model.config).model_max_depth)
    return prepare_alignment(alignment, rows, *how, **more)


def check_depth(alignment: Alignment, tokenizer: MsaTokenizer) -> None:
    """Raise ValueError if an alignment has more rows than the model reads."""
    if alignment.depth > tokenizer.model_max_depth:
        raise ValueError(
            f"{alignment.source or alignment.names[0]}: there are {alignment.depth} rows, but the model reads at most "
            f"{tokenizer.model_max_depth}: choose fewer rows."
        )


def encode(alignment: Alignment, model: MsaPreTrainedModel, in_windows: bool = False) -> BatchEncoding:
    """Turn a prepared alignment into tokens on the model's device.

    Parameters
    ----------
    alignment : Alignment
        As the model sees it: all of its rows and columns.
    model : MsaModel, or a class with a head
        The model, which limits rows and columns.
    in_windows : bool, default False
        The caller cuts the columns into windows, so that there may be any number.

    Returns
    -------
    BatchEncoding
        ``input_ids`` and ``attention_mask``, ``(1, R, C)`` int64.

    Raises
    ------
    ValueError
        If it has more rows or columns than the model reads.
    """
    tokenizer = MsaTokenizer.for_config(model.config)
    where = alignment.source or alignment.names[0]
    if alignment.length >= tokenizer.model_max_length and not in_windows:
        what, remedy = "aligned residues", "cut the alignment into domains"
        if not alignment.column_residues.all():
            what, remedy = "columns", f"remove those in which the query has a gap, or {remedy}"
        raise ValueError(
            f"{where}: the query has {alignment.length} {what}, but the model reads at most "
            f"{tokenizer.model_max_length - 1}: {remedy}. (This task does not read in windows.)"
        )
    check_depth(alignment, tokenizer)
    return tokenizer(alignment, return_tensors="pt", verbose=not in_windows).to(model.device)


def gapped_positions(alignment: Alignment, model: MsaPreTrainedModel, gap: int) -> torch.Tensor:
    """Column positions ``(1, C)`` of a complex with `gap` unused ones between two chains; ValueError if too many."""
    where = alignment.source or alignment.names[0]
    require_chains(alignment.chains, where, "a gap between chains")
    # a column in which the query has a gap belongs to the chain of the residue before it
    chains = chain_indices(alignment.chains, np.maximum.accumulate(alignment.column_residues))
    positions = np.arange(1, alignment.length + 1) + gap * chains
    limit = MsaTokenizer.for_config(model.config).model_max_length
    if gap < 0 or positions[-1] >= limit:
        raise ValueError(
            f"{where}: with a gap of {gap} between chains the positions go up to {positions[-1]}; it must be at least "
            f"0, and the model has {limit - 1}."
        )
    return torch.from_numpy(np.append(0, positions)[None]).to(model.device)


def model_inputs(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> tuple[Alignment, BatchEncoding]:
    """Choose rows, no more than the model reads, and encode them: `prepare_alignment`, then `encode`.

    Returns
    -------
    seen : Alignment
        What the model sees.
    inputs : BatchEncoding
        Its tokens, ``(1, R, C)``.
    """
    seen = prepare_for(model, alignment, rows, select, seed, coverage, identity)
    return seen, encode(seen, model)


def windowed_inputs(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    rows: int | None = None,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
    window: int | None = None,
    overlap: int | None = None,
) -> tuple[Alignment, BatchEncoding, Windows]:
    """As `model_inputs`, of an alignment with any number of columns, and the windows to read it in.

    Rows are chosen once, on all columns. `window` and `overlap` are those of `Windows.place`.
    """
    most = model.config.max_position_embeddings - 1  # without <cls>
    check_windows(window, overlap, most)
    seen = prepare_for(model, alignment, rows, select, seed, coverage, identity)
    windows = Windows.place(seen.length, most, window, overlap)
    return seen, encode(seen, model, in_windows=True), windows
