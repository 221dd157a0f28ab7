"""Chains in the first lines of alignment files: ColabFold's header, and rows that hold each kind of chain once."""

from __future__ import annotations

import re
from itertools import repeat
from typing import NamedTuple

import numpy as np

from .._words import counted
from .alignment import Alignment, AlignmentError, row_width
from .chains import MOST, Chain, Chains, as_chains, chain_indices, chain_names, format_chains

# ColabFold's first line: lengths of the kinds of chain, and copies of each
_COLABFOLD = re.compile(rb"#(\d+(?:,\d+)*)\s+(\d+(?:,\d+)*)\s*")
# this package's: residues of the query, with names; in Stockholm a line of its kind
_NAMED = re.compile(rb"#(?:=GF\s+)?chains\s+(\S+)\s*")
_GAPS = b"-.~_*"


class Rows(NamedTuple):
    """Rows with their chains side by side."""

    names: list[str]
    rows: list[bytes]
    chains: Chains


def read_chains(data: bytes, names: list[str], rows: list[bytes], format: str, where: str, limit: float) -> Rows:
    """Find the chains that the first lines of a file announce, and bring its rows into the form of a complex.

    ColabFold writes each kind of chain once. Here, as in ColabFold's own input of the model, a row with residues of
    several kinds (paired) has each copy side by side; a row with residues of one kind becomes a row for each copy,
    with gaps in the other chains. If no row is paired, the queries of the chains are joined to one.

    Parameters
    ----------
    data : bytes
        The file's text.
    names, rows, format
        What was read from it.
    where : str
        Begins the message of an error.
    limit : float
        Bytes of text that copies may make of the file.

    Raises
    ------
    AlignmentError
        If the rows do not have the columns that are announced, the query lacks a chain, or the rows are too large.
    """
    first, _, rest = data.lstrip().partition(b"\n")
    if format == "stockholm":
        first = next((line for line in rest.split(b"\n", 20)[:20] if _NAMED.fullmatch(line)), b"")
    if (named := _NAMED.fullmatch(first)) is not None:
        try:
            return Rows(names, rows, as_chains(named[1].decode("utf-8", "replace"), f"{where}: line 1"))
        except ValueError as error:
            raise AlignmentError(str(error)) from None
    header = _COLABFOLD.fullmatch(first)
    if header is None or not rows:
        return Rows(names, rows, ())
    lengths, copies = ([int(number) for number in part.split(b",")] for part in header.groups())
    if len(lengths) == 1 and copies == [1]:
        return Rows(names, rows, ())
    if len(lengths) != len(copies) or 0 in lengths or 0 in copies:
        raise AlignmentError(
            f"{where}: line 1 ({first.decode()!r}) does not give each chain a length and a number of copies, as in "
            "'#120,95<TAB>1,1'; fix it"
        )
    if sum(copies) > MOST:
        raise AlignmentError(f"{where}: line 1 announces {counted(sum(copies), 'chain')}; the most are {MOST}")
    _check_columns(lengths, row_width(rows[0], format), where)
    if any(row_width(row, format) != sum(lengths) for row in rows):
        return Rows(names, rows, ())  # which the checks of an alignment refuse, row by row
    return _side_by_side(names, rows, lengths, copies, where, limit)


def announces_complex(data: bytes) -> bool:
    r"""Whether the file's first line is ColabFold's of several chains, so that its rows are not used as they are.

    >>> announces_complex(b"#120,95\t1,1\n>q"), announces_complex(b"#120\t2\n>q"), announces_complex(b"#120\t1\n>q")
    (True, True, False)
    """
    header = _COLABFOLD.fullmatch(data.lstrip().partition(b"\n")[0])
    return header is not None and (b"," in header[1] or header[2] != b"1")


def _check_columns(lengths: list[int], columns: int, where: str) -> None:
    if sum(lengths) == columns:
        return
    if len(lengths) == 1:
        raise AlignmentError(
            f"{where}: line 1 announces copies of a chain of {lengths[0]} residues, but row 1 has {columns} columns; "
            "correct or remove line 1"
        )
    what = (
        f"{where}: line 1 announces chains of {' and '.join(map(str, lengths))} residues, {sum(lengths)} columns "
        f"together, but row 1 has {columns}"
    )
    if columns not in lengths:
        raise AlignmentError(f"{what}; correct or remove line 1")
    raise AlignmentError(
        f"{what}: the chains are one below the other. Write one file for each chain, or rows of {sum(lengths)} "
        "columns, with gaps in place of the chain that a row lacks"
    )


def _side_by_side(
    names: list[str], rows: list[bytes], lengths: list[int], copies: list[int], where: str, limit: float
) -> Rows:
    cut = [_cut(row, lengths) for row in rows]
    names, cut = _with_query(names, cut, where)
    kinds = [k for k, count in enumerate(copies) for _ in range(count)]  # the kind of each chain
    of_query = [len(cut[0][k].translate(None, _GAPS)) for k in kinds]
    chains = tuple(map(Chain, chain_names(len(kinds)), of_query))
    if len(kinds) == len(lengths):
        return Rows(names, [b"".join(parts) for parts in cut], chains)
    present = [[bool(part.translate(None, _GAPS)) for part in parts] for parts in cut]
    paired = [number == 0 or sum(some) != 1 for number, some in enumerate(present)]
    new_rows = sum(1 if whole else copies[some.index(True)] for whole, some in zip(paired, present, strict=True))
    if (size := new_rows * sum(lengths[k] for k in kinds)) > limit:
        raise AlignmentError(
            f"{where}: line 1 announces {len(kinds)} chains, which make {size / 1e6:.0f} MB of text of the rows; keep "
            "fewer rows or copies, or pass max_megabytes=N (msa --max-megabytes N)"
        )
    blank = [b"-" * lengths[k] for k in kinds]
    found = [
        (name, b"".join(parts[k] for k in kinds))
        for name, parts, whole in zip(names, cut, paired, strict=True)
        if whole
    ]
    for place, kind in enumerate(kinds):
        for name, parts, some, whole in zip(names, cut, present, paired, strict=True):
            if not whole and some[kind]:
                found.append((name, b"".join([*blank[:place], parts[kind], *blank[place + 1 :]])))
    return Rows([name for name, _ in found], [row for _, row in found], chains)


def _cut(row: bytes, lengths: list[int]) -> list[bytes]:
    """Cut a row between chains; insertions go with the residue before them."""
    codes = np.frombuffer(row, dtype=np.uint8)
    is_match = ((codes < ord("a")) | (codes > ord("z"))) & (codes != ord("."))
    matches = np.flatnonzero(is_match)
    ends = [int(matches[end]) for end in np.cumsum(lengths)[:-1]]
    return [row[start:end] for start, end in zip([0, *ends], [*ends, len(row)], strict=True)]


def _with_query(names: list[str], cut: list[list[bytes]], where: str) -> tuple[list[str], list[list[bytes]]]:
    """Join the queries of the chains, called 101, 102, ..., where the first row is the query of one chain alone."""

    def letters(part: bytes) -> bytes:
        return part.translate(None, _GAPS)

    lacking = [k for k, part in enumerate(cut[0]) if not letters(part)]
    if not lacking:
        return names, cut
    queries = [101 + k for k in range(len(cut[0]))]
    found = []
    for k, name in enumerate(map(str, queries)):
        whole = (
            each
            for label, each in zip(names, cut, strict=True)
            if label == name and [bool(letters(part)) for part in each] == [other == k for other in range(len(each))]
        )
        if (own := next(whole, None)) is None:
            raise AlignmentError(
                f"{where}: row 1 ({names[0]}), the query, has no residue of chain {lacking[0] + 1}, and there is no "
                f"row {name} with chain {k + 1} alone, as ColabFold writes it; put the whole complex into row 1"
            )
        found.append(own[k])
    return ["\t".join(map(str, queries)), *names], [found, *cut]


def header_of(alignment: Alignment, format: str, insertions: bool = True) -> bytes:
    """Write the line that announces an alignment's chains; empty without chains.

    It is ColabFold's where that says it all: usual names, and a query without gaps and insertions. Without
    `insertions` the lengths are those of the query as it is written.
    """
    chains, covered = alignment.chains, alignment.residue_columns >= 0
    if not chains:
        return b""
    if not insertions or format in ("fasta", "stockholm"):
        counts = np.bincount(chain_indices(chains, np.flatnonzero(covered) + 1), minlength=len(chains)).tolist()
        chains = tuple(chain._replace(length=count) for chain, count in zip(chains, counts, strict=True))
        if lacking := [chain.name for chain in chains if not chain.length]:
            raise AlignmentError(
                f"{alignment.source or 'alignment'}: no column covers a residue of chain {lacking[0]}, so that the "
                "file would not have it; write A3M or A2M with insertions"
            )
    if format == "stockholm":
        return f"#=GF chains {format_chains(chains)}".encode()
    usual = [each.name for each in chains] == chain_names(len(chains))
    if usual and len(alignment.query) == alignment.length and covered.all():
        lengths = ",".join(str(each.length) for each in chains)
        return f"#{lengths}\t{','.join(repeat('1', len(chains)))}\n".encode()
    return f"#chains {format_chains(chains)}\n".encode()
