"""Multiple sequence alignments: read and write A3M, A2M, aligned FASTA and Stockholm.

An `Alignment` holds the match columns of all rows as one array of ASCII codes and maps the query's residue numbers,
which users see, to these columns. What A3M and A2M files say about insertions (lower-case letters, which have no
column) is kept beside it, so that it can be written again.
"""

from __future__ import annotations

import gzip
import lzma
import operator
import os
import re
import string
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._files import whole_file

FORMATS = ("a3m", "a2m", "fasta", "stockholm")

SUFFIXES = {
    ".a3m": "a3m",
    ".a2m": "a2m",
    ".fasta": "fasta",
    ".fa": "fasta",
    ".afa": "fasta",
    ".aln": "fasta",
    ".sto": "stockholm",
    ".stk": "stockholm",
    ".stockholm": "stockholm",
}
_GAP = ord("-")
_LOWER = string.ascii_lowercase.encode()
_WHITESPACE = string.whitespace.encode()
_GAPS_TO_DASH = bytes.maketrans(b".~_", b"---")
_STOP = re.compile(rb"\*+[-.~_]*$")
# Rows that HH-suite writes above the query and that are no proteins.
_ANNOTATION_ROW = re.compile(r"(ss|sa|aa)_(pred|conf|dssp)\b")
_NOT_ALIGNMENTS = {
    "HEADER": "a PDB file",
    "ATOM": "a PDB file",
    "REMARK": "a PDB file",
    "data_": "an mmCIF file",
    "CLUSTAL": "a Clustal alignment",
    "MUSCLE": "a Clustal alignment",
    "HMMER": "an HMM profile",
    "HH": "an HMM profile",
    "<": "a web page or XML file",
    "{": "a JSON file",
}


class AlignmentError(ValueError):
    """An alignment that cannot be used as it is; the message names file, row and column, and says the mend."""


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """A family of aligned proteins; row 0 is the query.

    Read one with `read_alignment` or build one with `Alignment.from_sequences`; both check it. Iteration and indexing
    give ``(name, sequence)`` pairs.

    Parameters
    ----------
    names : tuple of str
        R header lines, whole but for ``>`` and white space at the ends; they need not be unique.
    array : ndarray, shape=(R, L), dtype=uint8
        ASCII codes of the match columns: upper-case residues and ``-``. Read-only.
    query : str
        The query's N residues, without gaps, in upper case, insertions included.
    residue_columns : ndarray, shape=(N,), dtype=int64
        Match column (0-based) of each query residue; -1 where the query has an insertion, hence no column.
    raw_rows : tuple of bytes, optional
        R rows in A3M notation (insertions in lower case), if any row has insertions.
    source : str, optional
        File name, for messages.

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
    ) -> Alignment:
        """Build an alignment from strings, with the checks of a file.

        Parameters
        ----------
        sequences : iterable of str
            Aligned rows, query first; one string is an alignment of depth 1.
        names : iterable of str, optional
            One per row; by default ``query``, ``row 2``, ``row 3``, ...
        format : {"a3m", "a2m", "fasta", "stockholm"}, default: "a3m"
            What lower-case letters and dots mean, see `read_alignment`.
        source : str, optional
            Where the rows come from, for messages.

        Returns
        -------
        alignment : Alignment
            The rows, in order.

        Raises
        ------
        AlignmentError
            If the rows are no alignment.
        """
        if isinstance(sequences, str):
            sequences = [sequences]
        rows = [sequence.encode().translate(None, _WHITESPACE) for sequence in sequences]
        labels = (
            ["query", *(f"row {k}" for k in range(2, len(rows) + 1))][: len(rows)] if names is None else list(names)
        )
        where = source or "alignment"
        if len(labels) != len(rows):
            raise AlignmentError(f"{where}: {len(labels)} names for {len(rows)} sequences; give one name per sequence")
        for k, label in enumerate(labels):
            if "\n" in label or "\r" in label:
                raise AlignmentError(f"{where}: the name of row {k + 1} ({label!r}) has a line break; remove it")
        _check_format(format)
        return build_alignment(labels, rows, format, source, where)

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

    def column_of(self, residue_number: int) -> int:
        """Column of a residue of the query.

        Parameters
        ----------
        residue_number : int
            1 for the first residue of the query.

        Returns
        -------
        column : int
            0-based match column.

        Raises
        ------
        AlignmentError
            If the query has no such residue, or the residue is an insertion and has no column.
        """
        number = operator.index(residue_number)
        count = len(self.query)
        if not 1 <= number <= count:
            raise AlignmentError(f"{self._where}: the query has residues 1 to {count}; there is no residue {number}")
        column = int(self.residue_columns[number - 1])
        if column < 0:
            covered = np.flatnonzero(self.residue_columns >= 0) + 1
            raise AlignmentError(
                f"{self._where}: residue {number} ({self.query[number - 1]}) is in lower case in the query, so no "
                f"column covers it; {len(covered)} of {count} residues are covered, from {covered[0]} to {covered[-1]}"
            )
        return column

    def residue_of(self, column: int) -> int:
        """Residue of the query in a column.

        Parameters
        ----------
        column : int
            0-based match column.

        Returns
        -------
        residue_number : int
            1 for the first residue of the query.

        Raises
        ------
        AlignmentError
            If there is no such column, or the query has a gap in it.
        """
        column = operator.index(column)
        if not 0 <= column < self.length:
            raise AlignmentError(f"{self._where}: columns go from 0 to {self.length - 1}; there is no column {column}")
        number = int(self.column_residues[column])
        if number == 0:
            raise AlignmentError(
                f"{self._where}: the query has a gap in column {column}, hence no residue; "
                "drop_query_gaps() removes such columns"
            )
        return number

    def take(self, rows: Sequence[int] | np.ndarray) -> Alignment:
        """Keep some rows.

        Parameters
        ----------
        rows : sequence of int or ndarray, dtype=int or bool
            Row indices, 0 (the query) first, or a mask of shape (R,).

        Returns
        -------
        alignment : Alignment
            These rows, in this order.

        Raises
        ------
        AlignmentError
            If the first row is not row 0.
        IndexError
            If there is no such row.
        """
        index = np.asarray(rows)
        index = np.arange(self.depth)[index] if index.dtype == bool else index.astype(np.int64)
        if index.ndim != 1 or len(index) == 0 or index[0] != 0:
            raise AlignmentError(f"{self._where}: row 0 is the query and must be the first row taken; put 0 first")
        return Alignment(
            names=tuple(self.names[k] for k in index),
            array=self.array[index],
            query=self.query,
            residue_columns=self.residue_columns,
            raw_rows=None if self.raw_rows is None else tuple(self.raw_rows[k] for k in index),
            source=self.source,
        )

    def drop_query_gaps(self) -> Alignment:
        """Remove the columns in which the query has a gap.

        In A3M terms the letters that other rows have there become insertions.

        Returns
        -------
        alignment : Alignment
            Every column holds a residue of the query; residue numbers are as before.

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
        return Alignment(
            names=self.names,
            array=np.ascontiguousarray(self.array[:, ~gaps]),
            query=self.query,
            residue_columns=np.where(self.residue_columns >= 0, shifted[self.residue_columns], -1),
            raw_rows=tuple(_columns_to_insertions(row, gaps) for row in raw_rows),
            source=self.source,
        )

    @property
    def _where(self) -> str:
        return self.source or "alignment"


def read_alignment(path_or_text: str | os.PathLike[str], format: str | None = None) -> Alignment:
    r"""Read an alignment from a file or from text.

    A3M and A2M: upper-case letters and ``-`` are match columns, lower-case letters are insertions, which have no
    column, and ``.`` is padding. Aligned FASTA and Stockholm: every column is kept, ``.``, ``~`` and ``_`` are gaps,
    letters are turned to upper case. Everywhere, a stop ``*`` at the end of a row is dropped, or becomes a gap where
    it has a column of its own; ``#`` lines above the first row, and the rows of predicted structure that HH-suite
    writes above the query (``>ss_pred`` and the like), are skipped. Other characters are kept as they are.

    Parameters
    ----------
    path_or_text : str or path-like
        File, plain or compressed by gzip or xz; or the text itself, if it is a str with a line break.
    format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        By default told from the file name's ending (``.a3m .a2m .fasta .fa .afa .aln .sto .stk .stockholm``, with or
        without ``.gz`` or ``.xz``), else from the content.

    Returns
    -------
    alignment : Alignment
        Rows in the order of the file; the first is the query.

    Raises
    ------
    AlignmentError
        If the content is no alignment: rows of unequal length, no sequence, an unknown format, a damaged file.
    FileNotFoundError
        If there is no such file.

    Warns
    -----
    UserWarning
        If the format had to be guessed, and the guess leaves residues of the query without a column.

    Examples
    --------
    >>> family = read_alignment(bundled_family("fn3"))
    >>> print(family.depth, family.length, family.query[:10])
    98 117 SAPRNVQVRT
    >>> family = read_alignment(">query\nMKV-L\n>other\nMRVsGI\n")
    >>> print(family[1])
    ('other', 'MRVGI')
    """
    if format is not None:
        _check_format(format)
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        data, source, where = path_or_text.encode(), None, "alignment text"
    else:
        source = where = os.fspath(path_or_text)
        data = read_bytes(Path(source))
        format = format or format_of(source)
    data = data.removeprefix(b"\xef\xbb\xbf").rstrip(b"\x00").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.strip():
        raise AlignmentError(f"{where}: is empty; give a file with at least one sequence")
    if b"\x00" in data:
        several = data.lstrip().startswith((b">", b"#")) and b"\x00>" in data.replace(b"\n", b"")
        what = "several alignments with NUL bytes between, as in a database" if several else "a binary file"
        raise AlignmentError(f"{where}: is {what}; give one alignment as A3M, A2M, FASTA or Stockholm text")
    if format == "stockholm" or data.lstrip().startswith(b"# STOCKHOLM"):
        names, rows = _parse_stockholm(data, where)
        format = "stockholm"
    else:
        names, rows = parse_fasta(data, where)
        if format is None:
            format = guess_format(rows)
            if format != "fasta":
                _warn_of_soft_masking(rows, where)
    return build_alignment(names, rows, format, source, where)


def write_alignment(
    alignment: Alignment, path: str | os.PathLike[str], format: str | None = None, *, insertions: bool = True
) -> None:
    """Write an alignment to a file.

    The file appears whole or not at all: it is written beside its place first. A3M and A2M are read back to the same
    alignment; FASTA and Stockholm hold the match columns alone, and Stockholm the first words of the names, with the
    rest as ``#=GS ... DE`` lines.

    Parameters
    ----------
    alignment : Alignment
        What to write.
    path : str or path-like
        File to write or replace; an ending ``.gz`` or ``.xz`` compresses it.
    format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        By default told from the file name's ending, see `read_alignment`.
    insertions : bool, default: True
        Whether A3M and A2M files get the insertions.

    Raises
    ------
    AlignmentError
        If the format is unknown.
    """
    path = Path(path)
    format = format or format_of(path.name)
    if format is None:
        raise AlignmentError(
            f"{path}: the ending tells no format; end the name with one of {' '.join(SUFFIXES)}, or say format="
        )
    _check_format(format)
    if format == "stockholm":
        data = _stockholm_bytes(alignment)
    else:
        rows = list(map(bytes, alignment.array))
        if insertions and alignment.raw_rows is not None and format in ("a3m", "a2m"):
            rows = list(alignment.raw_rows) if format == "a3m" else _padded_rows(alignment)
        data = b"".join(b">%b\n%b\n" % (name.encode(), row) for name, row in zip(alignment.names, rows, strict=True))
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    elif path.suffix == ".xz":
        data = lzma.compress(data)
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def bundled_family(name: str = "fn3") -> Path:
    """Path of an alignment that comes with the package, for examples and tests.

    Parameters
    ----------
    name : str, default: "fn3"
        ``fn3`` is the fibronectin type III domain, the seed alignment of Pfam PF00041: 98 rows, 117 columns.

    Returns
    -------
    path : Path
        A Stockholm file.

    Raises
    ------
    ValueError
        If no such family is bundled.
    """
    folder = Path(__file__).parents[1] / "families"
    known = sorted(path.stem for path in folder.glob("*.sto"))
    if name not in known:
        raise ValueError(f"no bundled family is called {name!r}; there are: {', '.join(known)}")
    return folder / f"{name}.sto"


def _check_format(format: str) -> None:
    if format not in FORMATS:
        raise AlignmentError(f"unknown alignment format {format!r}; the formats are {', '.join(FORMATS)}")


def format_of(name: str) -> str | None:
    path = Path(name)
    if path.suffix.lower() in (".gz", ".xz"):
        path = path.with_suffix("")
    return SUFFIXES.get(path.suffix.lower())


def read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: there is no such alignment file (text instead of a file must have a line break)"
        ) from None
    try:
        if data.startswith(b"\x1f\x8b"):
            return gzip.decompress(data)
        if data.startswith(b"\xfd7zXZ\x00"):
            return lzma.decompress(data)
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise AlignmentError(f"{path}: the compressed file is cut off or damaged ({error}); fetch it again") from None
    return data


def parse_fasta(data: bytes, where: str) -> tuple[list[str], list[bytes]]:
    preamble, *records = (b"\n" + data).split(b"\n>")
    for number, line in enumerate(preamble.split(b"\n")):
        if line.strip() and not line.startswith(b"#"):
            raise AlignmentError(f"{where}: line {number} {_not_a_header(line)}")
    if not records:
        raise AlignmentError(f"{where}: there is no sequence; each needs a header line that begins with '>'")
    names, rows = [], []
    for record in records:
        header, _, body = record.partition(b"\n")
        name = header.decode("utf-8", "replace").strip()
        if _ANNOTATION_ROW.match(name):
            continue
        if b"#" in body:
            body = b"".join(line for line in body.split(b"\n") if not line.startswith(b"#"))
        names.append(name)
        rows.append(body.translate(None, _WHITESPACE))
    return names, rows


def _not_a_header(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    for beginning, what in _NOT_ALIGNMENTS.items():
        if text.startswith(beginning):
            advice = f"this looks like {what}; give the alignment as A3M, A2M, FASTA or Stockholm"
            break
    else:
        advice = "a sequence needs a header line that begins with '>' above it; if this is no alignment, give one"
    return f"({text[:40]!r}) comes before the first '>' header: {advice}"


def _parse_stockholm(data: bytes, where: str) -> tuple[list[str], list[bytes]]:
    lines = data.split(b"\n")
    if not data.lstrip().startswith(b"# STOCKHOLM"):
        raise AlignmentError(
            f"{where}: does not begin with '# STOCKHOLM 1.0'; if it has '>' headers, say format='a3m'"
        )
    parts: dict[tuple[bytes, int], list[bytes]] = {}
    seen: dict[bytes, int] = {}  # how often each name has come in this block: names may be given twice
    for number, line in enumerate(lines, start=1):
        if line.startswith(b"//"):
            if any(rest.strip() for rest in lines[number:]):
                raise AlignmentError(f"{where}: holds more than one alignment; split it at the '//' in line {number}")
            break
        if not line.strip():
            seen = {}
        elif not line.startswith(b"#"):
            name, *sequence = line.split(maxsplit=1)
            if not sequence:
                raise AlignmentError(
                    f"{where}: line {number} ({_show(name)}) has a name and no sequence; add or remove it"
                )
            seen[name] = seen.get(name, 0) + 1
            parts.setdefault((name, seen[name]), []).append(sequence[0])
    else:
        raise AlignmentError(
            f"{where}: the closing '//' line is missing, the file may be cut off; fetch it again or add it"
        )
    names = [name.decode("utf-8", "replace") for name, _ in parts]
    return names, [b"".join(chunks).translate(None, _WHITESPACE) for chunks in parts.values()]


def guess_format(rows: list[bytes]) -> str:
    """A3M, A2M or FASTA, told from the rows."""
    joined = b"".join(rows)
    if len({len(row) for row in rows}) > 1:
        return "a3m" if len({_width(row, "a3m") for row in rows}) == 1 else "fasta"
    if joined == joined.upper() or not rows[0]:
        return "fasta"
    array = np.frombuffer(joined, dtype=np.uint8).reshape(len(rows), -1)
    insertion = np.isin(array, np.frombuffer(_LOWER + b".", dtype=np.uint8))
    if insertion.all():
        return "fasta"
    if (insertion == insertion[0]).all():
        return "a2m"
    return "a3m" if len(set(insertion.sum(axis=1).tolist())) == 1 else "fasta"


def build_alignment(names: list[str], rows: list[bytes], format: str, source: str | None, where: str) -> Alignment:
    """Check the rows, which are as in a file of this format, and make the alignment of them."""
    if not rows:
        raise AlignmentError(f"{where}: there is no sequence; give at least one")
    for k, (name, row) in enumerate(zip(names, rows, strict=True)):
        if not row:
            raise AlignmentError(
                f"{where}: row {k + 1} ({name}) has a header and no sequence; complete or remove it, or "
                "fetch the file again if it is cut off"
            )
    _check_ascii(names, rows, where)
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


def _warn_of_soft_masking(rows: list[bytes], where: str) -> None:
    """Say that rows which could as well be FASTA were taken for A3M or A2M: residues of the query would go unseen."""
    inserted = len(rows[0]) - len(rows[0].translate(None, _LOWER))
    if inserted and len({len(row) for row in rows}) == 1 and not any(b"." in row for row in rows):
        warnings.warn(
            f"{where}: taken for A3M or A2M, so {inserted} lower-case residues of the query have no column; if they "
            "are soft-masked FASTA, say format='fasta'",
            stacklevel=3,
        )


def _check_ascii(names: list[str], rows: list[bytes], where: str) -> None:
    if b"".join(rows).isascii():
        return
    k = next(k for k, row in enumerate(rows) if not row.isascii())
    text = rows[k].decode("utf-8", "replace")
    column, character = next((j, c) for j, c in enumerate(text) if not c.isascii())
    raise AlignmentError(
        f"{where}: row {k + 1} ({names[k]}), column {column + 1}, is {character!r}, no letter for a residue; "
        "replace it by a residue, 'X' or '-'"
    )


def _without_stops(rows: list[bytes], format: str) -> list[bytes]:
    """Drop the ``*`` that end sequences; where other rows have a column there, make it a gap."""
    if not any(b"*" in row for row in rows):
        return rows
    shorter = [row.removesuffix(b"*") for row in rows]
    if len({_width(row, format) for row in shorter}) == 1:
        rows = shorter
    return [_STOP.sub(lambda stop: stop[0].replace(b"*", b"-"), row) for row in rows]


def _width(row: bytes, format: str) -> int:
    return len(row.translate(None, _LOWER + b".")) if format == "a3m" else len(row)


def _check_widths(names: list[str], rows: list[bytes], format: str, where: str) -> None:
    widths = [_width(row, format) for row in rows]
    odd = [k for k, width in enumerate(widths) if width != widths[0]]
    if not odd:
        return
    k = odd[0]
    if format == "a3m" and len({len(row) for row in rows}) == 1:
        mend = "with their lower-case letters all rows are equally long: this looks like FASTA, say format='fasta'"
    elif format != "a3m" and len({_width(row, "a3m") for row in rows}) == 1:
        mend = "without their lower-case letters all rows are equally long: this looks like A3M, say format='a3m'"
    elif len(odd) == 1 and len(rows) > 2:
        mend = "no other row differs, so this one may be cut off; correct or remove it"
    elif len(set(widths[1:])) == 1 and len(rows) > 2:
        mend = "all other rows agree, so row 1 may be cut off; correct it"
    elif format == "stockholm":
        mend = "a block may lack the row; fetch the file again"
    else:
        mend = "these sequences seem not to be aligned; align them first, for example with MAFFT"
    what = "match columns (upper-case letters and '-')" if format == "a3m" else "columns"
    raise AlignmentError(
        f"{where}: row {k + 1} ({names[k]}) has {widths[k]} {what}, but row 1 ({names[0]}) has {widths[0]}; {mend}"
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


def _padded_rows(alignment: Alignment) -> list[bytes]:
    """A2M rows: each insertion is padded with dots to the longest that any row has in its place."""
    assert alignment.raw_rows is not None
    found: list[tuple[int, int, bytes]] = []  # row, number of match columns before it, letters
    widest = np.zeros(alignment.length + 1, dtype=np.int64)
    for k, row in enumerate(alignment.raw_rows):
        inserted = 0
        for match in re.finditer(rb"[a-z]+", row):
            place = match.start() - inserted
            inserted += len(match[0])
            found.append((k, place, match[0]))
            widest[place] = max(widest[place], len(match[0]))
    starts = np.cumsum(widest) - widest + np.arange(alignment.length + 1)
    padded = np.full((alignment.depth, alignment.length + int(widest.sum())), ord("."), dtype=np.uint8)
    padded[:, (starts + widest)[:-1]] = alignment.array
    for k, place, letters in found:
        padded[k, starts[place] : starts[place] + len(letters)] = np.frombuffer(letters, dtype=np.uint8)
    return list(map(bytes, padded))


def _stockholm_bytes(alignment: Alignment) -> bytes:
    labels, descriptions = [], []
    for k, name in enumerate(alignment.names):
        label, _, rest = name.partition(" ")
        label = "".join(label.split()) or f"row_{k + 1}"
        labels.append(f"_{label}" if label.startswith(("#", "//")) else label)
        if rest.strip():
            descriptions.append(f"#=GS {labels[-1]} DE {rest.strip()}")
    width = max(map(len, labels))
    rows = [f"{label:<{width}} {row}" for label, row in zip(labels, alignment.sequences, strict=True)]
    return "\n".join(["# STOCKHOLM 1.0", *descriptions, *rows, "//", ""]).encode()


def _show(text: bytes) -> str:
    return text.decode("utf-8", "replace")[:60]
