"""Write what a trained head predicts: tables with labels and probabilities, and NumPy arrays."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .._files import check_ending, whole_file
from ..alignments.chains import array_fields, residue_names
from ..alignments.tables import Table, delimiter_of

if TYPE_CHECKING:  # so that the formats are known without torch
    from .contacts import ContactMap
    from .prediction import Prediction

FORMATS = (".tsv", ".csv", ".npz")


def write_prediction(
    prediction: Prediction | ContactMap,
    path: str | os.PathLike[str],
    table: Table | None = None,
    name: str | None = None,
) -> None:
    r"""Write a prediction, in the format given by the ending; the file appears whole or not at all.

    ``.tsv`` (tabs) and ``.csv`` (commas) are tables with a row for each residue (its number, letter and most probable
    class), for the alignment or for each variant. Each class has a column with its probability, ``p_`` and its name;
    values are in columns of their names. Contacts are written as by `modeling_msa.write_contacts`. ``.npz`` holds the
    attributes of `Prediction` or `ContactMap`, for `numpy.load`, and no pickled object.

    Parameters
    ----------
    prediction : Prediction or ContactMap
        See `modeling_msa.predict`.
    path : path
        The file to write.
    table : Table, optional
        The table that variants come from: its columns come first, unchanged. Default: one column, ``mutant``.
    name : str, optional
        Name of the alignment in its row; default: the query's.

    Raises
    ------
    ValueError
        For another ending, or if `table` already has a column that is to be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from modeling_msa import Prediction
    >>> scores = np.array([[0.75, 0.25], [0.125, 0.875]], dtype=np.float32)
    >>> result = Prediction("q", "mKV", "residues", "classes", ("H", "C"), scores, np.array([2, 3]), (), (), 1)
    >>> path = Path(tempfile.mkdtemp(), "labels.csv")
    >>> write_prediction(result, path)
    >>> print(path.read_text())
    residue,amino_acid,label,p_H,p_C
    2,K,H,0.750000,0.250000
    3,V,C,0.125000,0.875000
    """
    suffix = check_ending(path, FORMATS)
    if suffix != ".npz":
        rows = _rows_of(prediction, table, name)
    with whole_file(path) as temporary:
        if suffix == ".npz":
            with temporary.open("wb") as file:  # given a name, NumPy appends .npz to .NPZ
                np.savez_compressed(file, **array_fields(vars(prediction)))
        else:
            with open(temporary, "w", encoding="utf-8", newline="") as text:
                csv.writer(text, delimiter=delimiter_of(path), lineterminator="\n").writerows(rows)


def gather_tables(parts: Sequence[Path], path: Path) -> list[Path]:
    """Make one table of several with the same columns, in their order; return the file in a list."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        for number, part in enumerate(parts):
            with open(part, "rb") as lines:
                header = lines.readline()
                file.write(header if number == 0 else b"")
                file.writelines(lines)
    return [path]


def check_table(table: Table, kind: str, labels: tuple[str, ...]) -> None:
    """Raise ValueError if a table of variants already has a column that is to be written."""
    added = [*_score_columns(kind, labels), "reason"]
    if present := [column for column in added if column in table.columns]:
        raise ValueError(
            f"the table already has a column {' and '.join(present)}, which the prediction adds: rename it, or remove "
            "it."
        )


def _score_columns(kind: str, labels: tuple[str, ...]) -> list[str]:
    if kind == "values":
        return list(labels)
    return [*(["label"] if kind == "classes" else []), *(f"p_{label}" for label in labels)]


def _rows_of(prediction: Prediction | ContactMap, table: Table | None, name: str | None) -> list[list[str]]:
    from .contacts import ContactMap

    if isinstance(prediction, ContactMap):
        pairs = prediction.top()
        numbers = np.array(residue_names(prediction.chains, prediction.residues))[pairs].tolist()
        values = prediction.probabilities[pairs[:, 0], pairs[:, 1]].tolist()
        return [["i", "j", "probability"], *([i, j, f"{p:.6f}"] for (i, j), p in zip(numbers, values, strict=True))]
    columns = _score_columns(prediction.kind, prediction.labels)
    form = "{:.7g}" if prediction.kind == "values" else "{:.6f}"
    cells = [["" if np.isnan(each) else form.format(each) for each in row] for row in prediction.scores.tolist()]
    if prediction.kind == "classes":
        cells = [[best, *row] for best, row in zip(prediction.best, cells, strict=True)]
    if prediction.of == "residues":
        labels = residue_names(prediction.chains, prediction.residues)
        letters = (prediction.query[number - 1] for number in prediction.residues.tolist())
        first = [list(pair) for pair in zip(labels, letters, strict=True)]
        return [["residue", "amino_acid", *columns], *_joined(first, cells)]
    if prediction.of == "alignment":
        if "name" in columns:
            raise ValueError(
                "id2label of the model's config names a value 'name', the column of the alignments: rename it."
            )
        return [["name", *columns], [name or prediction.name, *cells[0]]]
    table = table or Table(["mutant"], [[text] for text in prediction.variants], [])
    check_table(table, prediction.kind, prediction.labels)
    reasons = [[reason] for reason in prediction.reasons]
    return [[*table.columns, *columns, "reason"], *_joined(table.rows, cells, reasons)]


def _joined(*parts: list[list[str]]) -> list[list[str]]:
    return [[cell for part in row for cell in part] for row in zip(*parts, strict=True)]
