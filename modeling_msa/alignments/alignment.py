"""The alignment: its rows, residues and columns, and the checks that every alignment passes.

An `Alignment` keeps the match columns of all rows as one array of ASCII codes and maps the query's residue numbers,
which users see, to these columns. What A3M and A2M files say about insertions (lower-case letters, which have no
column) is kept as well, so that it can be written again.
"""

from __future__ import annotations

import operator
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._words import counted
from .chains import Chain, Chains, as_chains, check_chains, residue_names, residue_number

FORMATS = ("a3m", "a2m", "fasta", "stockholm")
_GAP = ord("-")
_LOWER = string.ascii_lowercase.encode()
_WHITESPACE = string.whitespace.encode()
_GAPS_TO_DASH = bytes.maketrans(b".~_", b"---")
_STOP = re.compile(rb"\*+[-.~_]*$")
# letters, gaps of any format, stops, and the ? of an unknown residue
OF_ROWS = string.ascii_letters.encode() + b"-.~_*?"
_ALLOWED = frozenset(OF_ROWS.decode())


class AlignmentError(ValueError):
    """An alignment that cannot be used as it is; the message names file, row and column, and says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def shortened(text: str, limit: int = 1000) -> str:
    """Leave out the middle of a long text, such as a name of megabytes.

    >>> shortened("row 1 (nameeeeeee) is bad", 16)
    'row 1 (n ... ) is bad'
    """
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """A family of aligned proteins; row 0 is the query.

    Read one with `read_alignment` or build one with `Alignment.from_sequences`; both check it. Iteration and indexing
    give ``(name, sequence)`` pairs.

    Parameters
    ----------
    names : tuple of str
        R whole header lines, without ``>`` and surrounding white space; they need not be unique.
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes of the match columns: upper-case residues and ``-``. Read-only.
    query : str
        The query's N residues, without gaps, in upper case, insertions included.
    residue_columns : ndarray, shape=(N,), dtype=int64
        Match column (0-based) of each query residue; -1 for an insertion, which has no column.
    raw_rows : tuple of bytes, optional
        R rows in A3M notation (insertions in lower case), if any row has insertions.
    source : str, optional
        File name, for messages.
    is_selected : bool, default: False
        Whether `modeling_msa.select_rows` has chosen the rows, here or in the alignment that these were taken from:
        then tasks give all of them to the model, unless they are told a number.
    chains : tuple of Chain, default: ()
        Of a complex, the chains that stand side by side: names, and how many of the query's N residues each has. Empty
        for one protein. `with_chains` sets them.

    Examples
    --------
    >>> family = Alignment.from_sequences(["mkVL-A", "VIGA", "-LcG-"])
    >>> print(family.sequences)
    ['VL-A', 'VIGA', '-LG-']
    >>> print(family.query, family.residue_columns)
    MKVLA [-1 -1  0  1  3]
    """

    names: tuple[str, ...]
    array: np.ndarray
    query: str
    residue_columns: np.ndarray
    raw_rows: tuple[bytes, ...] | None = None
    source: str | None = None
    is_selected: bool = False
    chains: Chains = ()

    def __post_init__(self) -> None:
        for field in ("array", "residue_columns"):
            view = getattr(self, field).view()
            view.setflags(write=False)
            object.__setattr__(self, field, view)

    @classmethod
    def from_sequences(
        cls,
        sequences: Iterable[str],
        names: Iterable[str] | None = None,
        *,
        format: str = "a3m",
        source: str | None = None,
        chains: str | Iterable[int | Chain] = (),
    ) -> Alignment:
        """Build an alignment from strings, with the same checks as for a file.

        Parameters
        ----------
        sequences : iterable of str
            Aligned rows, query first; one string is an alignment of depth 1.
        names : iterable of str, optional
            One per row; by default ``query``, ``row 2``, ``row 3``, ...
        format : {"a3m", "a2m", "fasta", "stockholm"}, default: "a3m"
            Decides what lower-case letters and dots mean, see `read_alignment`.
        source : str, optional
            Where the rows come from, for messages.
        chains : str or iterable of int or Chain, optional
            See `with_chains`.

        Raises
        ------
        AlignmentError
            If the rows are not an alignment.
        """
        if isinstance(sequences, str):
            sequences = [sequences]
        rows = [sequence.encode().translate(None, _WHITESPACE) for sequence in sequences]
        labels = [f"row {k}" if k > 1 else "query" for k in range(1, len(rows) + 1)] if names is None else list(names)
        where = source or "alignment"
        if len(labels) != len(rows):
            numbers = f"{counted(len(labels), 'name')} for {counted(len(rows), 'sequence')}"
            raise AlignmentError(f"{where}: {numbers}; give one name per sequence")
        for k, label in enumerate(labels):
            if "\n" in label or "\r" in label:
                raise AlignmentError(f"{where}: the name of row {k + 1} ({label!r}) has a line break; remove it")
        check_format(format)
        return build_alignment(labels, rows, format, source, where).with_chains(chains)

    def with_chains(self, chains: str | Iterable[int | Chain]) -> Alignment:
        """Say which chains of a complex stand side by side in the rows.

        Parameters
        ----------
        chains : str or iterable of int or Chain
            Residues of the query in each chain, in order, such as ``"120,95"`` or ``"A:120,B:95"``. Without names they
            are called A, B, C, ... One chain, or none, is one protein.

        Raises
        ------
        AlignmentError
            If the lengths do not sum up to the query's residues, or cannot be read.

        Examples
        --------
        >>> pair = Alignment.from_sequences(["MKVLAW", "MRV---"]).with_chains("2,4")
        >>> pair.chains, pair.residue_name(3), pair.column_of("B:1")
        ((Chain(name='A', length=2), Chain(name='B', length=4)), 'B:1', 2)
        """
        try:
            found = as_chains(chains, self._where)
            check_chains(found, len(self.query), self._where)
        except ValueError as error:
            raise AlignmentError(str(error)) from None
        return self if found == self.chains else replace(self, chains=found)

    def residue_name(self, number: int) -> str:
        """Name a residue of the query, numbered from 1, as users see it: ``42``, or ``A:42`` by its chain."""
        return residue_names(self.chains, [number])[0]

    @property
    def depth(self) -> int:
        """Number of rows, R."""
        return self.array.shape[0]

    @property
    def length(self) -> int:
        """Number of match columns, L."""
        return self.array.shape[1]

    @property
    def sequences(self) -> list[str]:
        """The R rows of `array` as strings of length L."""
        text = self.array.tobytes().decode("ascii")
        return [text[start : start + self.length] for start in range(0, len(text), self.length)]

    @property
    def column_residues(self) -> np.ndarray:
        """Residue number (1-based) of each column, 0 where the query has a gap; shape=(L,), dtype=int64."""
        numbers = np.zeros(self.length, dtype=np.int64)
        covered = self.residue_columns >= 0
        numbers[self.residue_columns[covered]] = np.flatnonzero(covered) + 1
        return numbers

    def __len__(self) -> int:
        return self.depth

    def __getitem__(self, row: int) -> tuple[str, str]:
        row = operator.index(row)
        return self.names[row], self.array[row].tobytes().decode("ascii")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(zip(self.names, self.sequences, strict=True))

    def __repr__(self) -> str:
        return f"Alignment({self.names[0]!r}, depth={self.depth}, length={self.length}, source={self.source!r})"

    def column_of(self, residue: int | str) -> int:
        """Match column, from 0, of a residue of the query, numbered from 1; of a complex also by chain, ``"B:42"``.

        Raises
        ------
        AlignmentError
            If the query has no such residue, or the residue is an insertion and has no column.
        """
        try:
            number = residue_number(self.chains, residue, self._where) if isinstance(residue, str) else residue
        except ValueError as error:
            raise AlignmentError(str(error)) from None
        number = operator.index(number)
        count = len(self.query)
        if not 1 <= number <= count:
            raise AlignmentError(f"{self._where}: the query has residues 1 to {count}; there is no residue {number}")
        column = int(self.residue_columns[number - 1])
        if column < 0:
            covered = np.flatnonzero(self.residue_columns >= 0) + 1
            raise AlignmentError(
                f"{self._where}: residue {self.residue_name(number)} ({self.query[number - 1]}) is in lower case in "
                f"the query, so no column covers it; {len(covered)} of {count} residues are covered, from "
                f"{self.residue_name(covered[0])} to {self.residue_name(covered[-1])}"
            )
        return column

    def residue_of(self, column: int) -> int:
        """Residue of the query, numbered from 1, in a match column, numbered from 0.

        Raises
        ------
        AlignmentError
            If the column does not exist, or the query has a gap in it.
        """
        column = operator.index(column)
        if not 0 <= column < self.length:
            raise AlignmentError(f"{self._where}: columns go from 0 to {self.length - 1}; there is no column {column}")
        number = int(self.column_residues[column])
        if number == 0:
            raise AlignmentError(
                f"{self._where}: the query has a gap in column {column}, so it has no residue there; "
                "drop_query_gaps() removes such columns"
            )
        return number

    def take(self, rows: Sequence[int] | np.ndarray) -> Alignment:
        """Keep some rows, in the given order.

        Parameters
        ----------
        rows : sequence of int or ndarray, dtype=int or bool
            Row indices, 0 (the query) first, or a mask of shape (R,).

        Raises
        ------
        AlignmentError, IndexError
            If the first row is not row 0, or a row does not exist.
        """
        index = np.asarray(rows)
        index = np.arange(self.depth)[index] if index.dtype == bool else index.astype(np.int64)
        if index.ndim != 1 or len(index) == 0 or index[0] != 0:
            raise AlignmentError(f"{self._where}: row 0 is the query and must be the first row taken; put 0 first")
        raw_rows = None if self.raw_rows is None else tuple(self.raw_rows[k] for k in index)
        names = tuple(self.names[k] for k in index)
        return replace(self, names=names, array=self.array[index], raw_rows=raw_rows)

    def drop_query_gaps(self) -> Alignment:
        """Remove the columns in which the query has a gap; letters that other rows have there become insertions.

        Every column of the result has a residue of the query. Residue numbers do not change.

        Examples
        --------
        >>> family = Alignment.from_sequences(["V-LA", "VGIA"]).drop_query_gaps()
        >>> print(family.sequences, family.raw_rows)
        ['VLA', 'VIA'] (b'VLA', b'VgIA')
        """
        gaps = self.array[0] == _GAP
        if not gaps.any():
            return self
        raw_rows = self.raw_rows if self.raw_rows is not None else tuple(map(bytes, self.array))
        shifted = np.cumsum(~gaps) - 1
        return replace(
            self,
            array=np.ascontiguousarray(self.array[:, ~gaps]),
            residue_columns=np.where(self.residue_columns >= 0, shifted[self.residue_columns], -1),
            raw_rows=tuple(_columns_to_insertions(row, gaps) for row in raw_rows),
        )

    @property
    def _where(self) -> str:
        return self.source or "alignment"


def check_format(format: str) -> None:
    """Raise AlignmentError for an unknown format."""
    if format not in FORMATS:
        raise AlignmentError(f"unknown alignment format {format!r}; the formats are {', '.join(FORMATS)}")


def build_alignment(names: list[str], rows: list[bytes], format: str, source: str | None, where: str) -> Alignment:
    """Check rows as they stand in a file of this format, and build the alignment."""
    if not rows:
        raise AlignmentError(f"{where}: contains no sequence; give at least one")
    for k, (name, row) in enumerate(zip(names, rows, strict=True)):
        if not row:
            raise AlignmentError(
                f"{where}: row {k + 1} ({name}) has a header but no sequence; complete or remove it, or "
                "download the file again if it is cut off"
            )
    _check_characters(names, rows, where)
    rows = _without_stops(rows, format)
    _check_widths(names, rows, format, where)
    if format == "a2m":
        _check_widths(names, rows, "a3m", where)
    if format in ("a3m", "a2m"):
        rows = [row.translate(None, b".") for row in rows]
        matches = [row.translate(None, _LOWER) for row in rows]
    else:
        matches = rows = [row.upper().translate(_GAPS_TO_DASH) for row in rows]
    array = np.frombuffer(b"".join(matches), dtype=np.uint8).reshape(len(rows), -1)
    if not (array[0] != _GAP).any():
        raise AlignmentError(
            f"{where}: row 1 ({names[0]}), the query, has no residue in any column; put the query first, with its "
            "residues in upper case"
        )
    codes = np.frombuffer(rows[0], dtype=np.uint8)
    inserted = _is_lower(codes)
    columns = np.where(inserted, -1, np.cumsum(~inserted) - 1)
    residue = codes != _GAP
    return Alignment(
        names=tuple(names),
        array=array,
        query=rows[0].replace(b"-", b"").upper().decode("ascii"),
        residue_columns=columns[residue].astype(np.int64),
        raw_rows=tuple(rows) if any(map(operator.ne, rows, matches)) else None,
        source=source,
    )


def _check_characters(names: list[str], rows: list[bytes], where: str) -> None:
    if b"".join(rows).translate(None, OF_ROWS):
        k = next(k for k, row in enumerate(rows) if row.translate(None, OF_ROWS))
        refuse_character(rows[k], f"{where}: row {k + 1} ({names[k]})")


def refuse_character(line: bytes, where: str) -> None:
    """Raise AlignmentError for the first character of a line that is neither a residue nor a gap."""
    text = line.decode("utf-8", "replace")
    column = next(k for k, each in enumerate(text) if not each.isspace() and each not in _ALLOWED)
    advice = "replace it with a residue, 'X' or '-'"
    if text[column].isdigit():
        advice = "remove numbers of positions from the rows, and spaces from the names of Stockholm rows"
    raise AlignmentError(f"{where}, column {column + 1}, is {text[column]!r}, which is not a residue; {advice}")


def _without_stops(rows: list[bytes], format: str) -> list[bytes]:
    """Drop the ``*`` that end sequences, or turn them into gaps where other rows have a column there."""
    if not any(b"*" in row for row in rows):
        return rows
    shorter = [row.removesuffix(b"*") for row in rows]
    if len({row_width(row, format) for row in shorter}) == 1:
        rows = shorter
    return [_STOP.sub(lambda stop: stop[0].replace(b"*", b"-"), row) for row in rows]


def row_width(row: bytes, format: str) -> int:
    """Count a row's columns; in A3M these are the match columns."""
    return len(row.translate(None, _LOWER + b".")) if format == "a3m" else len(row)


def _check_widths(names: list[str], rows: list[bytes], format: str, where: str) -> None:
    widths = [row_width(row, format) for row in rows]
    odd = [k for k, width in enumerate(widths) if width != widths[0]]
    if not odd:
        return
    k = odd[0]
    if format == "a3m" and len({len(row) for row in rows}) == 1:
        advice = "counting lower-case letters, all rows are equally long: this looks like FASTA; pass format='fasta'"
    elif format != "a3m" and len({row_width(row, "a3m") for row in rows}) == 1:
        advice = "without lower-case letters, all rows are equally long: this looks like A3M; pass format='a3m'"
    elif len(odd) == 1 and len(rows) > 2:
        advice = "only this row differs, so it may be cut off; fix or remove it"
    elif len(set(widths[1:])) == 1 and len(rows) > 2:
        advice = "all other rows agree, so row 1 may be cut off; fix it"
    elif format == "stockholm":
        advice = "the row may be missing from a block; download the file again"
    else:
        advice = "these sequences do not seem to be aligned; align them first, for example with MAFFT"
    what = "match columns (upper-case letters and '-')" if format == "a3m" else "columns"
    raise AlignmentError(
        f"{where}: row {k + 1} ({names[k]}) has {widths[k]} {what}, but row 1 ({names[0]}) has {widths[0]}; {advice}"
    )


def _is_lower(codes: np.ndarray) -> np.ndarray:
    return (codes >= ord("a")) & (codes <= ord("z"))


def _columns_to_insertions(row: bytes, columns: np.ndarray) -> bytes:
    """Turn the letters of an A3M row in some match columns (mask of length L) to lower case, and drop the rest."""
    codes = np.frombuffer(row, dtype=np.uint8).copy()
    places = np.flatnonzero(~_is_lower(codes))[columns]
    letters = (codes[places] >= ord("A")) & (codes[places] <= ord("Z"))
    codes[places[letters]] += ord("a") - ord("A")
    return np.delete(codes, places[~letters]).tobytes()
