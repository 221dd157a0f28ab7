"""Build a protein's alignment from a FASTA database: jackhmmer's search, through pyhmmer.

The first round searches with the query alone, later rounds with a profile of the sequences found so far (Johnson, Eddy
& Portugaly, BMC Bioinformatics 2010). As in jackhmmer, the profile's match states are the query's residues in every
round, so the query's residues are the columns of the result.
"""

from __future__ import annotations

import gzip
import io
import itertools
import lzma
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from tqdm import tqdm

from .._words import counted
from .alignment import Alignment
from .reading import parse_fasta, read_bytes
from .sampling import filter_rows

if TYPE_CHECKING:
    from pyhmmer.easel import DigitalSequenceBlock
    from pyhmmer.plan7 import HMM, Domain, Hit, TopHits

BLOCK_RESIDUES = 50_000_000  # residues of the database in a block; a smaller database is read only once
_LONGEST = 100_000  # residues of a sequence, HMMER's limit
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NO_GAPS = str.maketrans("", "", "-._~")
_NUCLEOTIDES = frozenset("ACGTUN")
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"\xfd7": lzma.open}


def search_homologues(
    query: str | os.PathLike[str],
    database: str | os.PathLike[str],
    *,
    query_name: str | None = None,
    iterations: int = 3,
    evalue: float = 1e-3,
    domain_evalue: float | None = None,
    bit_score: float | None = None,
    coverage: float | None = None,
    identity: float | None = None,
    cpus: int = 0,
) -> Alignment:
    r"""Search a database for homologs of a protein and align them to it.

    Rows are sorted by E-value and named ``NAME/FROM-TO``, followed by the description. All hits (domains) in one
    sequence form one row: starting with the best hit, others are added if they lie on the same side of it in the
    sequence and in the query. If two cover the same columns, the better one keeps them, and a hit that loses more than
    half of its residues this way is left out, as with repeats. Residues outside the hits, also those between two, are
    not in the row. Copies of the query are left out.

    Parameters
    ----------
    query : path or str
        FASTA file of the protein, or its text if it contains a line break. Upper and lower case are the same; gaps
        and a stop at the end are removed.
    database : path
        FASTA file of unaligned proteins, plain or compressed by gzip or xz. A large one is read again in each round,
        with at most 100 million residues in memory.
    query_name : str, optional
        First word of the query's header, if the file contains several sequences.
    iterations : int, default: 3
        Maximum number of rounds; the search ends earlier if one finds nothing new. 1 is phmmer's search.
    evalue : float, default: 0.001
        Maximum E-value of a sequence to include, in the next round's profile and in the result.
    domain_evalue : float, optional
        Maximum conditional E-value of a domain in such a sequence. Default: `evalue`.
    bit_score : float, optional
        Minimum bit score of sequences and domains, instead of the E-values.
    coverage, identity : float, optional
        Percentages by which the result is filtered, see `modeling_msa.filter_rows`.
    cpus : int, default: 0
        Number of threads; 0 uses all physical cores. The result does not depend on it.

    Returns
    -------
    Alignment
        Row 0 is the whole query; each of its residues is a column.

    Raises
    ------
    OSError, ValueError
        If a file does not exist, is damaged or is not FASTA, a sequence is DNA or RNA, the query is one of several
        sequences, or the database is empty.
    ImportError
        If pyhmmer is not installed.

    Warns
    -----
    UserWarning
        If nothing is found, which leaves the query alone, or if sequences of the database are too long.

    Examples
    --------
    >>> import tempfile
    >>> from modeling_msa import bundled_family, read_alignment
    >>> family = read_alignment(bundled_family())
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     database = Path(folder, "fn3.fasta")
    ...     text = "".join(f">{name}\n{row.replace('-', '')}\n" for name, row in family)
    ...     _ = database.write_text(text)
    ...     found = search_homologues(">LAR\n" + family.query, database, cpus=1)
    >>> found.sequences[0] == family.query, found.depth > 60
    (True, True)
    """
    _pyhmmer()
    if iterations < 1:
        raise ValueError(f"iterations is {iterations}, but must be at least 1.")
    name, sequence = read_query(query, query_name)
    # E and domE limit what is reported at all, on which HMMER's conditional E-values depend, as in jackhmmer
    options: dict[str, Any] = {"incE": evalue, "incdomE": evalue if domain_evalue is None else domain_evalue}
    options |= {"E": max(10.0, options["incE"]), "domE": max(10.0, options["incdomE"])}
    if bit_score is not None:
        options |= {"incT": bit_score, "incdomT": bit_score, "T": bit_score, "domT": bit_score}
    hits = _iterate(name, sequence, _Database(Path(database)), iterations, cpus, options)
    rows = [(name, sequence)]
    found = (_row(hit, len(sequence)) for hit in hits if hit.included)
    rows += [row for row in found if row is not None and row[1] != sequence]
    if len(rows) == 1:
        best = f"; the best of the others has {hits[0].evalue:.2g} ({hits[0].name})" if len(hits) else ""
        limit = f"an E-value of at most {evalue:g}" if bit_score is None else f"at least {bit_score:g} bits"
        own = " but the query itself" if any(hit.included for hit in hits) else ""
        best = "" if own or bit_score is not None else best
        warnings.warn(
            f"{database}: no sequence{own} has {limit}{best}. The alignment is the query alone.", stacklevel=2
        )
    names, sequences = zip(*rows, strict=True)
    alignment = Alignment.from_sequences(sequences, names)
    return alignment.take(filter_rows(alignment.array, coverage, identity))


def _pyhmmer(what: str = "Searching") -> None:
    try:
        import pyhmmer  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{what} requires pyhmmer: pip install 'modeling-msa[search]'.") from error


def read_query(query: str | os.PathLike[str], name: str | None = None) -> tuple[str, str]:
    r"""Read one protein from a FASTA file, or from text with a line break.

    Returns its whole header line (``query`` if it is empty), and its sequence in upper case, without gaps or a stop at
    the end. `name` is the first word of the header, if there are several sequences.

    Raises
    ------
    OSError, ValueError
        If the file or name does not exist, one of several sequences is not named, the text is not FASTA, or the
        sequence is not a protein.

    Examples
    --------
    >>> read_query(">P1 a protein\nmkv-LAWY\nCD*\n")
    ('P1 a protein', 'MKVLAWYCD')
    """
    if isinstance(query, str) and "\n" in query:
        data, where = query.encode(), "query"
    else:
        if not Path(query).is_file():
            raise FileNotFoundError(f"{query}: no such file; the query is a FASTA file.")
        data, where = read_bytes(Path(query)), os.fspath(query)
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.strip():
        raise ValueError(f"{where}: is empty; give the query as FASTA: '>name', and the sequence below it.")
    names, rows = parse_fasta(data, where)
    words = [(each.split() or [""])[0] for each in names]
    chosen = [k for k, word in enumerate(words) if name in (None, word, names[k])]
    if len(chosen) != 1:
        shown = ", ".join(words[:5]) + (", ..." if len(words) > 5 else "")
        what = counted(len(chosen), "sequence") + ("" if name is None else f" named {name} among {len(rows)}")
        raise ValueError(f"{where}: contains {what} ({shown}); name the query with query_name (--query-name).")
    header = names[chosen[0]] or "query"
    return header, read_protein(rows[chosen[0]].decode("ascii", "replace"), where, header)


def read_protein(text: str, where: str, name: str) -> str:
    """Return a protein's residues in upper case, without gaps, white space and a stop at the end.

    Raises
    ------
    ValueError
        If there is none, one is not a letter, or they look like DNA or RNA.

    Examples
    --------
    >>> read_protein("mkv-LAW*", "query.fasta", "P1")
    'MKVLAW'
    """
    sequence = "".join(text.split()).translate(_NO_GAPS).upper().removesuffix("*")
    if not sequence:
        raise ValueError(f"{where}: {name} has no sequence.")
    for number, letter in enumerate(sequence, 1):
        if letter not in _LETTERS:
            raise ValueError(f"{where}: residue {number} of {name} is {letter!r}, not an amino acid; use X.")
    if _is_nucleotide(sequence):
        raise ValueError(f"{where}: {name} looks like DNA or RNA; give the protein's sequence.")
    return sequence


def align_to_query(query: str, sequences: Sequence[str], evalue: float = 1e-3) -> list[list[tuple[int, int]]]:
    """Align sequences to a query one by one, by phmmer's model of the query.

    The parts of a sequence that HMMER leaves out, often the ends, have no pairs. Domains of one sequence are joined as
    in `search_homologues`.

    Parameters
    ----------
    query : str
        Its residues.
    sequences : sequence of str
        Their residues, without gaps.
    evalue : float, default: 0.001
        Maximum E-value, as if each sequence were a database of its own.

    Returns
    -------
    list of list of (int, int)
        For each sequence the aligned residues of the query and of the sequence, from 0, in order; none if it is not
        related.

    Raises
    ------
    ImportError
        If pyhmmer is not installed.

    Examples
    --------
    >>> align_to_query("MKVLAWYCDEFGHIKLMNPQ", ["MKVLAWYCDEGHIKLMNPQ", "GGGGG"])[0][9:11]
    [(9, 9), (11, 10)]
    """
    _pyhmmer("Aligning sequences to the query")
    from pyhmmer.easel import Alphabet, DigitalSequenceBlock, TextSequence
    from pyhmmer.plan7 import Background, Builder, Pipeline

    alphabet = Alphabet.amino()

    def digital(name: str, sequence: str) -> Any:
        return TextSequence(name=name.encode(), sequence=sequence).digitize(alphabet)

    background = Background(alphabet)
    profile = Builder(alphabet, architecture="hand").build(digital("query", query), background)[0]
    limits: Any = {"E": evalue, "domE": evalue, "incE": evalue, "incdomE": evalue, "Z": 1, "domZ": 1}
    # no filters, which are for databases: a few sequences must not be missed
    pipeline = Pipeline(alphabet, background=background, bias_filter=False, F1=1.0, F2=1.0, F3=1.0, **limits)
    block = DigitalSequenceBlock(alphabet, (digital(str(k), each) for k, each in enumerate(sequences)))
    pairs: list[list[tuple[int, int]]] = [[] for _ in sequences]
    for hit in pipeline.search_hmm(profile, block):
        pairs[int(hit.name)] = [pair for segment in _segments(hit) for pair in segment.pairs()]
    return pairs


def _is_nucleotide(sequence: str) -> bool:
    return len(sequence) >= 15 and sum(map(sequence.count, _NUCLEOTIDES)) >= 0.95 * len(sequence)


class _Reader(io.RawIOBase):
    """A file for HMMER, which mistakes an error while reading for the end of the file; the error is kept here."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return self._file.readinto(buffer)  # type: ignore[attr-defined]
        except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
            self.error = error
            return 0


class _Database:
    """A FASTA file of proteins, read in blocks; a file that fits into one block stays in memory."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; the database is a FASTA file of proteins.")
        with open(path, "rb") as file:
            self._open = _OPENERS.get(file.read(2), open)
        self.path, self.size = path, path.stat().st_size
        self._block: DigitalSequenceBlock | None = None

    def blocks(self, bar: tqdm) -> Iterator[DigitalSequenceBlock]:
        """Yield the blocks, and show in the bar how much of the file has been read."""
        if self._block is not None:
            yield self._block
            bar.update(self.size)
            return
        with open(self.path, "rb") as raw:
            file = _Reader(raw if self._open is open else self._open(raw))
            pairs = itertools.pairwise(itertools.chain(self._read(file), [None]))
            for number, (block, following) in enumerate(pairs):
                if number == 0:
                    self._check(block)
                block = self._without_giants(block)
                if number == 0 and following is None:
                    self._block = block
                yield block
                bar.update(raw.tell() - bar.n)

    def _read(self, file: _Reader) -> Iterator[Any]:
        from pyhmmer.easel import Alphabet, SequenceFile

        sequences: Any = None
        while True:
            try:
                if sequences is None:
                    sequences = SequenceFile(cast(BinaryIO, file), "fasta", digital=True, alphabet=Alphabet.amino())
                block = sequences.read_block(residues=BLOCK_RESIDUES)
            except (EOFError, ValueError) as error:
                raise self._in_words(file.error or error) from None
            if file.error is not None:
                raise self._in_words(file.error)
            if not len(block):
                return
            yield block

    def _in_words(self, error: Exception) -> Exception:
        if isinstance(error, EOFError):
            empty = "is empty; the database is a FASTA file of proteins" if "empty" in str(error) else "is cut off"
            return ValueError(f"{self.path}: {empty}.")
        if isinstance(error, OSError | lzma.LZMAError | zlib.error):
            return ValueError(
                f"{self.path}: cannot be read to the end and may be damaged ({error}); download it again."
            )
        what = str(error).removeprefix("Could not parse file: ")
        advice = "remove gaps" if "character -" in what or "character ." in what else "check that it is complete"
        return ValueError(
            f"{self.path}: cannot be read as FASTA ({what}); the database is a file of unaligned proteins; {advice}."
        )

    def _check(self, block: DigitalSequenceBlock) -> None:
        letters = "".join(each.textize().sequence for each in block[:1000]).upper()
        if not letters.strip("*"):
            raise ValueError(f"{self.path}: the database contains no residue.")
        if _is_nucleotide(letters):
            raise ValueError(f"{self.path}: looks like DNA or RNA; the database must contain proteins.")

    def _without_giants(self, block: Any) -> Any:  # pyhmmer's type stubs lack the block's alphabet
        giants = [each.name for each in block if len(each) > _LONGEST]
        if not giants:
            return block
        warnings.warn(
            f"{self.path}: left out {counted(len(giants), 'sequence')} of over {_LONGEST} residues ({giants[0]}).",
            stacklevel=2,
        )
        return type(block)(block.alphabet, (each for each in block if len(each) <= _LONGEST))


def _iterate(
    name: str, sequence: str, database: _Database, iterations: int, cpus: int, options: dict[str, Any]
) -> TopHits:
    """Search round by round, as jackhmmer. pyhmmer's own loop needs the database in memory and uses one thread."""
    from pyhmmer.easel import Alphabet, KeyHash, TextSequence
    from pyhmmer.plan7 import Background, Builder, Trace

    alphabet = Alphabet.amino()
    query = TextSequence(name=(name.split() or ["query"])[0].encode(), sequence=sequence).digitize(alphabet)
    background = Background(alphabet)
    # "hand", jackhmmer's default: match states are the columns that the alignment marks, the query's residues.
    # pyhmmer's default is the columns in which most rows have a residue.
    builder = Builder(alphabet, architecture="hand")
    profile = builder.build(query, background)[0]
    ranking, rows_before = KeyHash(), 1
    for round in range(1, iterations + 1):
        hits = _search_blocks(profile, database, cpus, options, f"round {round} of at most {iterations}")
        assert len(sequence) == profile.M
        new = hits.compare_ranking(ranking)
        found: Any = hits.to_msa(
            alphabet,
            sequences=[query],
            traces=[Trace.from_sequence(query)],
            all_consensus_cols=True,
            digitize=True,
        )
        if round == iterations or (new == 0 and len(found.sequences) <= rows_before):
            break
        rows_before = len(found.sequences)
        found.name = f"{query.name}-i{round}"
        profile = builder.build_msa(found, background)[0]
    return hits


def _search_blocks(profile: HMM, database: _Database, cpus: int, options: dict[str, Any], what: str) -> TopHits:
    from pyhmmer import hmmsearch

    parts: list[Any] = []
    with tqdm(total=database.size, desc=what, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        for block in database.blocks(bar):
            parts += hmmsearch(profile, block, cpus=cpus, parallel="targets", **options)
            if len(parts) > 1:  # E-values refer to the number of sequences in all blocks
                parts = [parts[0].merge(*parts[1:])]
            bar.set_postfix(hits=len(parts[0].included))
    if not parts:
        raise ValueError(f"{database.path}: is empty; the database is a FASTA file of proteins.")
    parts[0].sort(by="key")
    return parts[0]


@dataclass(frozen=True)
class _Segment:
    """Part of a sequence, along consecutive columns."""

    column: int  # first column, from 0
    cells: tuple[str, ...]  # of each column: the residue or "-", then the insertions after it in lower case
    places: tuple[
        int, ...
    ]  # of each column: the position of its residue in the sequence, or of the last one before a "-"

    @property
    def end(self) -> int:
        """Column after the last."""
        return self.column + len(self.cells)

    @property
    def residues(self) -> int:
        return sum(cell[0] != "-" for cell in self.cells)

    def part(self, keep: list[bool]) -> _Segment | None:
        """Keep the wanted columns, which are consecutive, from the first residue to the last."""
        kept = [k for k, (wanted, cell) in enumerate(zip(keep, self.cells, strict=True)) if wanted and cell[0] != "-"]
        if not kept:
            return None
        first, last = kept[0], kept[-1]
        cells = (*self.cells[first:last], self.cells[last][0])  # insertions after it would lie between two columns
        return _Segment(self.column + first, cells, self.places[first : last + 1])

    def beside(self, better: _Segment) -> _Segment | None:
        """Keep what lies on the same side of a better segment in the sequence and in the query."""
        if self.column + self.end < better.column + better.end:
            limits = better.column, better.places[0]
            keep = [column < limits[0] and place < limits[1] for column, place in self._located()]
        else:
            limits = better.end, better.places[-1]
            keep = [column >= limits[0] and place > limits[1] for column, place in self._located()]
        return self.part(keep)

    def pairs(self) -> list[tuple[int, int]]:
        """Columns and the sequence's residues in them, from 0."""
        located = zip(self._located(), self.cells, strict=True)
        return [(column, place - 1) for (column, place), cell in located if cell[0] != "-"]

    def _located(self) -> Iterator[tuple[int, int]]:
        return zip(range(self.column, self.end), self.places, strict=True)


def _segment(domain: Domain) -> _Segment:
    alignment = domain.alignment
    cells: list[str] = []
    places: list[int] = []
    place = alignment.target_from - 1
    for state, letter in zip(alignment.hmm_sequence, alignment.target_sequence, strict=True):
        place += letter != "-"
        if state == ".":
            cells[-1] += letter.lower()
        else:
            cells.append(letter.upper())
            places.append(place)
    return _Segment(alignment.hmm_from - 1, tuple(cells), tuple(places))


def _segments(hit: Hit) -> list[_Segment]:
    """List a sequence's included domains by column; where they conflict, the better one wins."""
    domains = sorted((each for each in hit.domains if each.included), key=lambda each: -each.score)
    taken: list[_Segment] = []
    for domain in domains:
        whole = _segment(domain)
        rest: _Segment | None = whole.part([True] * len(whole.cells))
        for better in taken:
            rest = rest and rest.beside(better)
        if rest is not None and 2 * rest.residues >= whole.residues:
            taken.append(rest)
    return sorted(taken, key=lambda segment: segment.column)


def _row(hit: Hit, length: int) -> tuple[str, str] | None:
    """Name and A3M row of a sequence's included domains."""
    if not (taken := _segments(hit)):
        return None
    row = ["-"] * length
    for segment in taken:
        row[segment.column : segment.end] = segment.cells
    name = f"{hit.name}/{taken[0].places[0]}-{taken[-1].places[-1]}"
    return " ".join(filter(None, (name, hit.description))), "".join(row)
