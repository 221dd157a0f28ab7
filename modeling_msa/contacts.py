"""Predict which residues of a query touch, from its alignment."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from .alignment import Alignment
from .files import whole_file
from .hub import tokenizer_for
from .modeling_msa import MsaPreTrainedModel
from .sampling import select_rows

MIN_SEPARATION = 6  # pairs closer in sequence are not counted as contacts (CASP's convention)


@dataclass(frozen=True, eq=False)
class ContactMap:
    """Contact probabilities of a query's residues.

    Attributes
    ----------
    name : str
        The query's name.
    query : str
        Its N residues, insertions included.
    residues : ndarray, shape=(L,), dtype=int64
        Residue number, from 1, of each row and column of the map. Residues that the alignment has no column for are
        left out.
    probabilities : ndarray, shape=(L, L), dtype=float32
        Probability that two residues are in contact: C-beta atoms within 8 Angstrom.
    depth : int
        Rows of the alignment that the model saw.
    """

    name: str
    query: str
    residues: np.ndarray
    probabilities: np.ndarray
    depth: int

    def top(self, count: int | None = None, min_separation: int = MIN_SEPARATION) -> np.ndarray:
        """Pairs of map indices i < j, most probable first.

        Parameters
        ----------
        count : int, optional
            How many; default: all.
        min_separation : int, default 6
            Least difference of residue numbers.

        Returns
        -------
        ndarray, shape=(pairs, 2), dtype=int64
            Indices from 0 into `probabilities` and `residues`.

        Examples
        --------
        >>> import numpy as np
        >>> from modeling_msa.contacts import ContactMap
        >>> probabilities = np.array([[0, 0.2, 0.9], [0.2, 0, 0.4], [0.9, 0.4, 0]], dtype=np.float32)
        >>> contacts = ContactMap("tripeptide", "MKV", np.array([1, 2, 3]), probabilities, depth=1)
        >>> contacts.top(min_separation=1).tolist()
        [[0, 2], [1, 2], [0, 1]]
        """
        i, j = np.triu_indices(len(self.residues), 1)
        far = self.residues[j] - self.residues[i] >= min_separation
        i, j = i[far], j[far]
        order = np.argsort(-self.probabilities[i, j], kind="stable")[:count]
        return np.stack([i[order], j[order]], axis=1)


def prepare_alignment(
    alignment: Alignment,
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> Alignment:
    """Make the alignment that the model sees: columns with a query residue, and at most `rows` rows.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    rows, select, seed, coverage, identity
        As `modeling_msa.select_rows`; fair-esm's examples use the 128 most diverse rows.

    Returns
    -------
    Alignment
        With its residue numbers still those of the whole query.
    """
    return select_rows(alignment.drop_query_gaps(), rows, select, seed, coverage=coverage, identity=identity)


def predict_contacts(
    alignment: Alignment,
    model: MsaPreTrainedModel,
    rows: int = 128,
    select: str = "diverse",
    seed: int = 0,
    coverage: float | None = None,
    identity: float | None = None,
) -> ContactMap:
    """Predict the contacts of an alignment's query.

    Parameters
    ----------
    alignment : Alignment
        Query first; see `modeling_msa.read_alignment`.
    model : MsaModel, or a class with a head
        With a fitted contact regression, in evaluation mode.
    rows, select, seed, coverage, identity
        Which rows the model sees; see `prepare_alignment`.

    Returns
    -------
    ContactMap

    Raises
    ------
    ValueError
        If the query is longer than the model's table, or its contact regression was never fitted.
    """
    tokenizer = tokenizer_for(model.config)
    seen = prepare_alignment(alignment, min(rows, tokenizer.model_max_depth), select, seed, coverage, identity)
    if seen.length >= tokenizer.model_max_length:
        raise ValueError(
            f"{alignment.source or alignment.names[0]}: the query has {seen.length} aligned residues, the model reads "
            f"{tokenizer.model_max_length - 1}: cut the alignment into domains."
        )
    inputs = tokenizer(seen, return_tensors="pt").to(model.device)
    probabilities = model.predict_contacts(**inputs)[0].cpu().numpy()
    return ContactMap(seen.names[0], seen.query, seen.column_residues, probabilities, seen.depth)


def write_contacts(contacts: ContactMap, path: str | os.PathLike, min_separation: int = MIN_SEPARATION) -> None:
    """Write a tab-separated table i, j, probability: query residue numbers from 1, most probable pair first.

    The file appears whole or not at all.
    """
    pairs = contacts.top(min_separation=min_separation)
    numbers = contacts.residues[pairs].tolist()
    values = contacts.probabilities[pairs[:, 0], pairs[:, 1]].tolist()
    lines = [f"{i}\t{j}\t{value:.6f}\n" for (i, j), value in zip(numbers, values, strict=True)]
    with whole_file(path) as temporary:
        temporary.write_text("i\tj\tprobability\n" + "".join(lines))
