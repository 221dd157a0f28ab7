"""Whole sequences as variants of a query: read from FASTA, and placed on the query residue by residue.

The model of the alignment is that of the query alone, phmmer's, not the family's profile: it puts the query itself on
its own residues, whatever is rare in the family, and the place of a variant does not depend on the rows of the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .alignment import Alignment
from .edits import Edit, apply_edits, edits_between, kept_residues
from .reading import parse_fasta, read_bytes
from .search import align_to_query, read_protein
from .variants import AMINO_ACIDS, Misfit, edit_misfits

_LONGEST = 100_000  # residues, HMMER's limit
_RESIDUES_PER_GAP = 3  # or substitutions side by side would become an insertion and a deletion where letters recur


def read_sequences(path: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    r"""Read proteins of any length from a FASTA file, plain or compressed by gzip or xz.

    Returns
    -------
    names : list of str
        Whole header lines, each once.
    sequences : list of str
        Their residues in upper case, without gaps and a stop at the end.

    Raises
    ------
    OSError, ValueError
        If the file does not exist, is empty or is not FASTA; if a sequence has no name, that of another, no residue or
        other characters, or looks like DNA or RNA.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "variants.fasta")
    >>> _ = path.write_text(">shorter\nMKV\nAW\n>longer\nMKVLLAW*\n")
    >>> read_sequences(path)
    (['shorter', 'longer'], ['MKVAW', 'MKVLLAW'])
    """
    where = os.fspath(path)
    data = read_bytes(Path(path)).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.strip():
        raise ValueError(f"{where}: is empty; give sequences as FASTA: '>name', and the sequence below it.")
    names, rows = parse_fasta(data, where, annotated=False)
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise ValueError(f"{where}: sequence {number} has no name; write one behind its '>'.")
        if (first := seen.setdefault(name, number)) != number:
            raise ValueError(f"{where}: sequences {first} and {number} have the same name ({name}); rename one.")
    texts = (row.decode("ascii", "replace") for row in rows)
    return names, [read_protein(text, where, name) for name, text in zip(names, texts, strict=True)]


def place_sequences(
    alignment: Alignment, sequences: Sequence[str], offset: int = 0
) -> tuple[list[tuple[Edit, ...]], list[list[Misfit]]]:
    """Find the edits of an alignment's query that make each of several sequences.

    A sequence is explained by substitutions and at most one insertion or deletion, unless HMMER's alignment leaves at
    least four more of the query's residues as they are for each further one. Between residues that HMMER has aligned,
    and at the ends, there is one insertion or deletion at most, where most residues stay as they are, and of equally
    good places at the last.

    Parameters
    ----------
    alignment : Alignment
        Query first.
    sequences : sequence of str
        Residues in upper case, without gaps.
    offset : int, default 0
        Difference between residue numbers in messages and the query's.

    Returns
    -------
    edits : list of tuple of Edit
        In normal form (`modeling_msa.alignments.edits`); none for the query itself, and for those that do not fit.
    misfits : list of list of Misfit
        Why a sequence does not fit: it is not related to the query (E-value above 0.001, as a database of its own), it
        has less than half of the query's residues that have a column, it changes some that have none, or new
        residues are not among the 20 amino acids.

    Raises
    ------
    ImportError
        If pyhmmer is not installed.

    Examples
    --------
    >>> family = Alignment.from_sequences(["MKVLAWYCDEFGHIK", "MRVLAFYCDEFGHLK"])
    >>> edits, misfits = place_sequences(family, ["MKVLAYCDEFGHIK", "PPPPGGGG"])
    >>> edits
    [(Edit(start=5, end=6, letters=''),), ()]
    >>> misfits[1][0].words
    "it does not align to the query (by HMMER's E-value, it is not related)."
    """
    query, covered = alignment.query, alignment.residue_columns >= 0
    short = [sequence if len(sequence) <= _LONGEST else "" for sequence in sequences]
    placed: list[tuple[Edit, ...]] = []
    misfits: list[list[Misfit]] = []
    for sequence, pairs in zip(sequences, align_to_query(query, short), strict=True):
        edits = edits_between(query, sequence, covered=covered)
        if pairs:
            aligned = edits_between(query, sequence, pairs, covered)
            edits = max((edits, aligned), key=lambda each: _worth(query, each))
        misfits.append(sequence_misfits(alignment, edits, offset) if pairs else [_unrelated(sequence)])
        placed.append(() if misfits[-1] else edits)
    return placed, misfits


def _worth(query: str, edits: Sequence[Edit]) -> int:
    return kept_residues(query, edits) - _RESIDUES_PER_GAP * sum(not each.is_substitution for each in edits)


def _unrelated(sequence: str) -> Misfit:
    if len(sequence) > _LONGEST:
        return Misfit("notation", f"it has {len(sequence):,} residues; HMMER aligns at most {_LONGEST:,}.")
    return Misfit("range", "it does not align to the query (by HMMER's E-value, it is not related).")


def sequence_misfits(alignment: Alignment, edits: Sequence[Edit], offset: int = 0) -> list[Misfit]:
    """Say why the sequence that edits in normal form make cannot be scored."""
    query, covered = alignment.query, alignment.residue_columns >= 0
    misfits = [misfit for each in edits for misfit in edit_misfits(each, alignment, offset)]
    for start, end, letters in edits:
        for whose, residues in (("the query's ", query[start:end]), ("", letters)):
            if odd := residues.strip(AMINO_ACIDS):
                words = f"near residue {max(end, 1) + offset}, {whose}{odd[0]} is not one of the 20 amino acids."
                misfits.append(Misfit("notation", words))
    _, numbers = apply_edits(query, edits)
    left, whole = covered[numbers[numbers > 0] - 1].sum(), covered.sum()
    if 2 * left < whole:
        words = f"it has residues in {left} of the query's {whole} columns; at least half must have one."
        misfits.append(Misfit("range", words))
    return misfits
