"""Reading alignments: A3M, A2M, aligned FASTA and Stockholm."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import string
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from .._files import read_plain, require_file
from .alignment import OF_ROWS, Alignment, AlignmentError, build_alignment, check_format, refuse_character, row_width
from .chains import Chain, format_chains
from .complex_files import announces_complex, read_chains

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
_LOWER = string.ascii_lowercase.encode()
_WHITESPACE = string.whitespace.encode()
# Rows that HH-suite writes above the query and that are not proteins.
_ANNOTATION_ROW = re.compile(r"(ss|sa|aa)_(pred|conf|dssp)\b")
_CONSENSUS = re.compile(r"\S+_consensus\b")
# Rows without headers: only in a file of this name, since they could also be the lines of one sequence
_BARE_FILE = re.compile(r"\.aln(\.gz|\.xz)?$", re.IGNORECASE)
_BARE_ROW = re.compile(rb"[A-Z.*~-]+")
COMMENTS = (b"#", b";")
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


# Megabytes of text, unless this variable says otherwise. 250 take 1.5 GB of memory, and fit into 250 kB compressed
LIMIT_VARIABLE, _LIMIT = "MSA_MAX_MEGABYTES", "250"
_ROWS_PER_MEGABYTE = 10_000  # also rows of few residues take memory


def read_alignment(
    path_or_text: str | os.PathLike[str],
    format: str | None = None,
    *,
    max_megabytes: float | None = None,
    chains: str | Iterable[int | Chain] | None = None,
) -> Alignment:
    r"""Read an alignment from a file or from text.

    A3M and A2M: upper-case letters and ``-`` are match columns, lower-case letters are insertions, which have no
    column, and ``.`` is padding. Aligned FASTA and Stockholm: every column is kept, ``.``, ``~`` and ``_`` are gaps,
    letters are converted to upper case. Rows without headers, one a line (PSICOV, CCMpred), are read in files called
    ``.aln``. In all formats a stop ``*`` at the end of a row is dropped, or becomes a gap if it has a column of its
    own; comments (lines that begin with ``#`` or ``;``), NUL bytes between blocks of one query, and the rows of
    predicted structure and the consensus that HH-suite writes above the query (``>ss_pred``, ``>NAME_consensus``) are
    skipped.

    Chains of a complex stand side by side; their lengths come from ColabFold's first line (``#120,95<TAB>1,1``), a
    line ``#chains A:120,B:95``, or `chains`. In ColabFold's files of homo-oligomers (``#120<TAB>2``), which hold each
    kind of chain once, rows with several kinds of chain are repeated side by side for each copy; rows with one kind
    become a row for each copy, with gaps in the other chains, as in ColabFold's own input of the model.

    Parameters
    ----------
    path_or_text : str or path-like
        File, plain or compressed by gzip or xz; or the text itself, if it is a str with a line break.
    format : {"a3m", "a2m", "fasta", "stockholm"}, optional
        By default the one of the file's suffix (``.a3m .a2m .fasta .fa .afa .aln .sto .stk .stockholm``, with or
        without ``.gz`` or ``.xz``), otherwise guessed from the content.
    max_megabytes : float, optional
        Maximum size of a file's text, decompressed; and, times 10,000, of its number of rows. Reading takes about six
        times as much memory. Default: the environment variable MSA_MAX_MEGABYTES, or 250.
    chains : str or iterable of int or Chain, optional
        Residues of the query in each chain, such as ``"120,95"`` or ``"A:120,B:95"``; see `Alignment.with_chains`. If
        the file announces chains, the lengths must be the same.

    Returns
    -------
    alignment : Alignment
        Rows in the order of the file; the first is the query.

    Raises
    ------
    AlignmentError
        If the content is not an alignment: rows of unequal length, no sequence, an unknown format, a damaged file,
        digits or other characters in a row, chains of a complex that are not side by side, more than `max_megabytes`.
    FileNotFoundError
        If the file does not exist.

    Warns
    -----
    UserWarning
        If the format was guessed, and residues of the query have no column under the guess; if a consensus was left
        out; if there are letters that the model does not know.

    Examples
    --------
    >>> from modeling_msa import bundled_family
    >>> family = read_alignment(bundled_family("fn3"))
    >>> print(family.depth, family.length, family.query[:10])
    1826 80 DAPSQIEVKD
    >>> family = read_alignment(">query\nMKV-L\n>other\nMRVsGI\n")
    >>> print(family[1])
    ('other', 'MRVGI')
    """
    if format is not None:
        check_format(format)
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        data, source, where = path_or_text.encode(), None, "alignment text"
    else:
        source = where = os.fspath(path_or_text)
        data = read_bytes(Path(source), max_megabytes)
        format = format or format_of(source)
    data = _join_blocks(data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n"), where)
    if not data.strip():
        raise AlignmentError(f"{where}: is empty; give a file with at least one sequence")
    if format == "stockholm" or data.lstrip().startswith(b"# STOCKHOLM"):
        names, rows = _parse_stockholm(data, where)
        format = "stockholm"
    else:
        names, rows = parse_fasta(data, where)
        if format is None:
            format = guess_format(rows)
            if format != "fasta":
                _warn_of_soft_masking(rows, where)
    names, rows, announced = read_chains(data, names, rows, format, where, 1e6 * _megabytes(max_megabytes))
    alignment = build_alignment(names, rows, format, source, where).with_chains(announced)
    _warn_of_unknown(names, rows, format, where)
    return alignment if chains is None else _with_other_names(alignment, chains)


def _with_other_names(alignment: Alignment, chains: str | Iterable[int | Chain]) -> Alignment:
    """Set the chains that the caller passes, which must have the lengths that the file says, if it says any."""
    announced = alignment.chains
    renamed = alignment.with_chains(chains)
    if announced and [each.length for each in announced] != [each.length for each in renamed.chains]:
        raise AlignmentError(
            f"{alignment.source or 'alignment text'}: the file announces the chains {format_chains(announced)}, not "
            f"{format_chains(renamed.chains) or 'one'}; correct one of the two"
        )
    return renamed


def _join_blocks(data: bytes, where: str) -> bytes:
    """Take out the NUL bytes that MMseqs2 and ColabFold put behind each block, if all blocks have one query.

    Those of one complex, paired rows and then those of each chain, begin with different ones.
    """
    if b"\x00" not in data:
        return data
    blocks = [block for block in data.split(b"\x00") if block.strip()]
    if not blocks:
        return b""
    if not all(block.lstrip().startswith((b">", *COMMENTS)) for block in blocks):
        raise AlignmentError(f"{where}: is a binary file; give the alignment as A3M, A2M, FASTA or Stockholm text")
    of_complex = announces_complex(blocks[0]) and not any(block.lstrip().startswith(b"#") for block in blocks[1:])
    if not of_complex and len({parse_fasta(block, where)[1][0] for block in blocks}) > 1:
        raise AlignmentError(
            f"{where}: is a database of several alignments, separated by NUL bytes; write each to a file of its own, "
            "for example with 'mmseqs unpackdb'"
        )
    return b"\n".join(blocks)


def format_of(name: str) -> str | None:
    """Format of a file name's suffix; None if it is not a suffix of alignments."""
    path = Path(name)
    if path.suffix.lower() in (".gz", ".xz"):
        path = path.with_suffix("")
    return SUFFIXES.get(path.suffix.lower())


def read_bytes(path: Path, max_megabytes: float | None = None) -> bytes:
    """Content of a file, decompressed if it was compressed by gzip or xz."""
    try:
        require_file(path)
        with open(path, "rb") as file:
            return decompress(file, os.fspath(path), max_megabytes)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: no such alignment file (text instead of a file must contain a line break)"
        ) from None


def _megabytes(limit: float | None) -> float:
    return float(os.environ.get(LIMIT_VARIABLE, _LIMIT)) if limit is None else limit


def decompress(content: IO[bytes] | bytes, where: str, max_megabytes: float | None = None) -> bytes:
    """Text of an alignment's file, or of the bytes in one; AlignmentError if it is damaged or too large."""
    limit = _megabytes(max_megabytes)
    try:
        data = read_plain(io.BytesIO(content) if isinstance(content, bytes) else content, int(limit * 1e6))
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise AlignmentError(
            f"{where}: the compressed file is cut off or damaged ({error}); download it again"
        ) from None
    if data is None or data.count(b"\n>") > limit * _ROWS_PER_MEGABYTE:
        what = f"{limit:g} MB of text" if data is None else f"{limit * _ROWS_PER_MEGABYTE:,.0f} rows"
        raise AlignmentError(
            f"{where}: has more than {what}, which take much memory; keep fewer rows, or pass max_megabytes=N (msa "
            "--max-megabytes N)"
        )
    return data


def parse_fasta(data: bytes, where: str, annotated: bool = True) -> tuple[list[str], list[bytes]]:
    """Names and rows, without white space, of text with ``>`` headers; leaves out comments.

    If it is `annotated`, it leaves out the rows that HH-suite writes above a query, too.
    """
    preamble, *records = (b"\n" + data).split(b"\n>")
    above = [(number, line) for number, line in enumerate(preamble.split(b"\n")) if line.strip()]
    above = [(number, line) for number, line in above if not line.startswith(COMMENTS)]
    bare = [line.strip() for _, line in above]
    if not records and bare and _BARE_FILE.search(where) and all(map(_BARE_ROW.fullmatch, bare)):
        return [f"row {k}" if k > 1 else "query" for k in range(1, len(bare) + 1)], bare
    for number, line in above:
        raise AlignmentError(f"{where}: line {number} {_not_a_header(line)}")
    if not records:
        raise AlignmentError(f"{where}: contains no sequence; each needs a header line that begins with '>'")
    names: list[str] = []
    rows: list[bytes] = []
    at = preamble.count(b"\n") + 1  # line of the record's header
    for record in records:
        header, _, body = record.partition(b"\n")
        name = header.decode("utf-8", "replace").strip()
        if not (annotated and _ANNOTATION_ROW.match(name)):
            if b"#" in body or b";" in body:
                body = b"\n".join(b"" if each.startswith(COMMENTS) else each for each in body.split(b"\n"))
            if body.translate(None, OF_ROWS + _WHITESPACE):
                _refuse_characters(body, at + 1, len(names) + 1, name, where)
            names.append(name)
            rows.append(body.translate(None, _WHITESPACE))
        at += record.count(b"\n") + 1
    if annotated and len(names) > 1 and _CONSENSUS.match(names[0]):
        words = "the consensus of HH-suite, is left out"
        warnings.warn(f"{where}: row 1 ({names[0]}), {words}; the query is {names[1]}", stacklevel=3)
        del names[0], rows[0]
    return names, rows


def _refuse_characters(body: bytes, first_line: int, row: int, name: str, where: str) -> None:
    """Raise AlignmentError for the first character of a row's lines that is neither a residue nor a gap."""
    for number, line in enumerate(body.split(b"\n"), start=first_line):
        if line.translate(None, OF_ROWS + _WHITESPACE):
            refuse_character(line, f"{where}: row {row} ({name}), line {number}")


def _not_a_header(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    for beginning, what in _NOT_ALIGNMENTS.items():
        if text.startswith(beginning):
            advice = f"this looks like {what}; give the alignment as A3M, A2M, FASTA or Stockholm"
            break
    else:
        advice = "each sequence needs a header line that begins with '>'; is this an alignment?"
    return f"({text[:40]!r}) comes before the first '>' header: {advice}"


def _parse_stockholm(data: bytes, where: str) -> tuple[list[str], list[bytes]]:
    lines = data.split(b"\n")
    if not data.lstrip().startswith(b"# STOCKHOLM"):
        raise AlignmentError(
            f"{where}: does not begin with '# STOCKHOLM 1.0'; if it has '>' headers, pass format='a3m'"
        )
    parts: dict[tuple[bytes, int], list[bytes]] = {}
    seen: dict[bytes, int] = {}  # how often each name has occurred in this block: names need not be unique
    for number, line in enumerate(lines, start=1):
        if line.startswith(b"//"):
            if any(rest.strip() for rest in lines[number:]):
                raise AlignmentError(
                    f"{where}: contains more than one alignment; split it at the '//' in line {number}"
                )
            break
        if not line.strip():
            seen = {}
        elif not line.startswith(b"#"):
            name, *sequence = line.split(maxsplit=1)
            if not sequence:
                raise AlignmentError(
                    f"{where}: line {number} ({_show(name)}) has a name but no sequence; complete or remove it"
                )
            seen[name] = seen.get(name, 0) + 1
            if sequence[0].translate(None, OF_ROWS + _WHITESPACE):
                start = line.index(sequence[0], len(name))
                row = len(parts) + ((name, seen[name]) not in parts)
                _refuse_characters(b" " * start + line[start:], number, row, _show(name), where)
            parts.setdefault((name, seen[name]), []).append(sequence[0])
    else:
        raise AlignmentError(
            f"{where}: the closing '//' line is missing, so the file may be cut off; download it again or add the line"
        )
    names = [name.decode("utf-8", "replace") for name, _ in parts]
    return names, [b"".join(chunks).translate(None, _WHITESPACE) for chunks in parts.values()]


def guess_format(rows: list[bytes]) -> str:
    """Guess from the rows whether they are A3M, A2M or FASTA."""
    joined = b"".join(rows)
    if len({len(row) for row in rows}) > 1:
        return "a3m" if len({row_width(row, "a3m") for row in rows}) == 1 else "fasta"
    if joined == joined.upper() or not rows[0]:
        return "fasta"
    array = np.frombuffer(joined, dtype=np.uint8).reshape(len(rows), -1)
    insertion = np.isin(array, np.frombuffer(_LOWER + b".", dtype=np.uint8))
    if insertion.all():
        return "fasta"
    if (insertion == insertion[0]).all():
        return "a2m"
    return "a3m" if len(set(insertion.sum(axis=1).tolist())) == 1 else "fasta"


def _warn_of_soft_masking(rows: list[bytes], where: str) -> None:
    """Warn if rows that could also be FASTA were read as A3M or A2M, which leaves out residues of the query."""
    inserted = len(rows[0]) - len(rows[0].translate(None, _LOWER))
    if inserted and len({len(row) for row in rows}) == 1 and not any(b"." in row for row in rows):
        warnings.warn(
            f"{where}: read as A3M or A2M, so {inserted} lower-case residues of the query have no column; if the file "
            "is soft-masked FASTA, pass format='fasta'",
            stacklevel=3,
        )


def _warn_of_unknown(names: list[str], rows: list[bytes], format: str, where: str) -> None:
    """Warn of J and ?, the only ones of a row's characters that have no token, by their place in the file."""
    unknown = b"J?" if format in ("a3m", "a2m") else b"Jj?"
    counts = [len(row) - len(row.translate(None, unknown)) for row in rows]
    if not any(counts):
        return
    k = next(k for k, count in enumerate(counts) if count)
    column, letter = next((j, chr(code)) for j, code in enumerate(rows[k], start=1) if code in unknown)
    warnings.warn(
        f"{where}: row {k + 1} ({names[k]}), column {column}, is {letter!r}, which the model reads as an unknown "
        f"residue; the file has {sum(counts)} in all",
        stacklevel=3,
    )


def _show(text: bytes) -> str:
    return text.decode("utf-8", "replace")[:60]
