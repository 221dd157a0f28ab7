"""Tables of scores of whole sequences: one row for each sequence, and on request one for each residue."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._files import check_ending
from ..alignments.tables import Table
from .score_tables import FORMATS, cells, score_columns, write_rows

if TYPE_CHECKING:
    from .sequence_scoring import SequenceScores

MORE = ("sum", "mean", "difference", "residues", "variant")  # endings of columns behind the score


def write_sequence_scores(
    scores: SequenceScores, path: str | os.PathLike[str], table: Table | None = None, score_column: str = "score"
) -> None:
    """Write scores of whole sequences as a table, ``.csv`` or ``.tsv``; the file appears whole or not at all.

    The columns are ``name`` (or those of the table), the score, its ``_std`` if there were several seeds, ``_sum``,
    ``_mean`` and ``_difference`` (see `modeling_msa.SequenceScores`), ``_residues``, how many residues were scored,
    ``_variant``, how the sequence differs from the query, and ``reason``, why it has no score.

    Parameters
    ----------
    scores : SequenceScores
        Result of `modeling_msa.score_sequences`.
    path : path
        The file to write.
    table : Table, optional
        The table that the sequences come from: its columns come first, unchanged.
    score_column : str, default "score"
        Name of the column of scores, with which the names of the others begin.

    Raises
    ------
    ValueError
        For another ending, or if the table already has such a column.
    """
    check_ending(path, FORMATS)
    score, std, *more, reason = score_columns(table, score_column, MORE)
    columns = {score: cells(scores.score)}
    if scores.score_std is not None:
        columns[std] = cells(scores.score_std)
    counts = ["" if each is None else str(len(each.letters)) for each in scores.residues]
    numbers = map(cells, (scores.sum, scores.mean, scores.difference))
    columns |= zip(more, [*numbers, counts, list(scores.variants)], strict=True)
    columns[reason] = list(scores.reason)
    table = table or Table(["name"], [[name] for name in scores.names], [])
    added = zip(*columns.values(), strict=True)
    rows = [[*row, *new] for row, new in zip(table.rows, added, strict=True)]
    write_rows(path, [[*table.columns, *columns], *rows])


def write_residues(scores: SequenceScores, path: str | os.PathLike[str]) -> None:
    """Write a row for each residue of each sequence that has a score.

    The columns are ``name``, ``residue`` (its number in the sequence), ``amino_acid``, ``query_residue`` and
    ``query_amino_acid`` (those of the query in the same column, empty for inserted ones), ``log_probability`` (natural
    logarithm, the residue masked alone) and ``query_log_probability``, that of the query's own residue.

    Parameters
    ----------
    scores : SequenceScores
        Result of `modeling_msa.score_sequences`.
    path : path
        A ``.csv`` or ``.tsv`` file.

    Raises
    ------
    ValueError
        For another ending.
    """
    check_ending(path, FORMATS)
    header = ["name", "residue", "amino_acid", "query_residue", "query_amino_acid", "log_probability"]
    rows: list[list[object]] = [[*header, "query_log_probability"]]
    own = scores.query_residues
    values = zip(map(str, own.numbers + scores.offset), own.letters, cells(own.log_probability), strict=True)
    aligned = dict(zip(own.numbers.tolist(), values, strict=True)) | {0: ("", "", "")}
    for name, each in zip(scores.names, scores.residues, strict=True):
        if each is not None:
            found = [aligned[number] for number in each.numbers.tolist()]
            parts = zip(each.places.tolist(), each.letters, found, cells(each.log_probability), strict=True)
            rows += [[name, place, letter, *query[:2], value, query[2]] for place, letter, query, value in parts]
    write_rows(path, rows)
