"""Contract of `modeling_msa.alignments.search`.

The query is row 0 and whole, its residues are the columns. Each residue of a relative lands in the column of the
residue it comes from, insertions and deletions where they were made. The rows are jackhmmer's. Hits of one sequence
are one row, in the order of the sequence. What cannot be searched is refused in words.
"""

import gzip
import lzma
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from made_up import SEED

from modeling_msa import filter_rows, read_alignment

pytest.importorskip("pyhmmer")
import modeling_msa.alignments.search as search_module
from modeling_msa.alignments.search import _row, read_query, search_homologues

LETTERS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
# no letter comes twice within three, so that no gap can be moved without a mismatch
QUERY = "MKVLAWYCDEFGHIKLNPQRSTVWMACDHGFEKIYLRPNTQSVWAMDCGKEFIHPLYRNQTVSMWDAGCKFEPIHYLNRQSTVADW"
HMMER = shutil.which("jackhmmer")


def relative(rng, keep=()):
    """A mutant of the query as a list of letters; a fifth of the residues differ, none at the ends or in `keep`."""
    row = np.array(list(QUERY))
    changed = rng.random(len(row)) < 0.2
    changed[:8] = changed[-8:] = False
    for place in keep:
        changed[max(0, place - 8) : place + 8] = False
    row[changed] = rng.choice(LETTERS, changed.sum())
    return list(row)


def planted(seed=0, count=12):
    """Relatives with deletions and insertions at known places, by name, as A3M rows."""
    rng = np.random.default_rng(seed)
    rows = {}
    for k in range(count):
        deleted, inserted = 20 + k, 55 + k
        row = relative(rng, keep=(deleted, deleted + 3, inserted))
        row[deleted : deleted + 3] = "---"
        letter = "h" if "P" in QUERY[inserted : inserted + 2] else "p"  # no neighbour's, or it could stand elsewhere
        row[inserted] += letter * (1 + k % 3)
        rows[f"relative{k}"] = "".join(row)
    return rows


def fasta(rows):
    return "".join(f">{name} about {name}\n{row.replace('-', '').upper()}\n" for name, row in rows.items())


def unrelated(count=60, seed=1):
    rng = np.random.default_rng(seed)
    return {f"other{k}": "".join(rng.choice(LETTERS, 120)) for k in range(count)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "query.fasta").write_text(f">Q1 the query\n{QUERY}\n")
    (folder / "db.fasta").write_text(fasta(unrelated() | planted()))
    family = read_alignment(SEED)
    (folder / "fn3.fasta").write_text(fasta(dict(family)))
    (folder / "lar.fasta").write_text(f">LAR\n{family.query}\n")
    return folder


@pytest.mark.parametrize("iterations", [1, 3])
def test_planted_relatives_land_in_their_columns(folder, iterations):
    """Every residue, deletion and insertion is where it was made; unrelated flanks are not in the row."""
    rng = np.random.default_rng(2)
    flanked = {name: ("".join(rng.choice(LETTERS, 30)), row) for name, row in planted(seed=3).items()}
    database = folder / f"flanked{iterations}.fasta"
    database.write_text(
        fasta(unrelated()) + "".join(f">{name}\n{left}{fasta({name: row}).splitlines()[1]}\n"
                                     for name, (left, row) in flanked.items())
    )  # fmt: skip
    found = search_homologues(folder / "query.fasta", database, iterations=iterations, cpus=1)
    assert found.names[0] == "Q1 the query"
    assert found.sequences[0] == found.query == QUERY
    assert np.array_equal(found.residue_columns, np.arange(len(QUERY)))
    rows = {name.split("/")[0]: row.decode() for name, row in zip(found.names[1:], found.raw_rows[1:], strict=True)}
    assert rows.keys() == flanked.keys()
    wrong = {name for name, (_, row) in flanked.items() if rows[name] != row}
    assert not wrong
    k = next(k for k, name in enumerate(found.names) if name.startswith("relative3/"))
    assert found.names[k] == f"relative3/31-{30 + len(flanked['relative3'][1].replace('-', ''))}"


@pytest.mark.skipif(HMMER is None, reason="jackhmmer (package hmmer) is not installed")
@pytest.mark.parametrize(("query", "database"), [("query.fasta", "db.fasta"), ("lar.fasta", "fn3.fasta")])
@pytest.mark.parametrize("iterations", [1, 3])
def test_rows_are_jackhmmers(folder, tmp_path, query, database, iterations):
    """Sequences, order and rows are those of jackhmmer's alignment, where each sequence has one hit."""
    subprocess.run(
        [HMMER, "-N", str(iterations), "--cpu", "1", "-A", tmp_path / "a.sto", folder / query, folder / database],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    parts, marks = {}, ""
    for line in (tmp_path / "a.sto").read_text().splitlines():
        if line.startswith("#=GC RF"):
            marks += line.split()[2]
        elif line and line[0] not in "#/":
            name, row = line.split()
            parts[name] = parts.get(name, "") + row
    theirs = {
        name: "".join(
            letter.upper() if mark != "." else letter.lower()
            for letter, mark in zip(row, marks, strict=True)
            if mark != "." or letter.isalpha()
        ).replace(".", "-")
        for name, row in parts.items()
    }
    found = search_homologues(folder / query, folder / database, iterations=iterations, cpus=1)
    rows = [found.raw_rows[k].decode() if found.raw_rows else found[k][1] for k in range(found.depth)]
    ours = dict(zip((name.split()[0] for name in found.names), rows, strict=True))
    first, *others = theirs
    assert theirs[first] == found.query
    others = [name for name in others if theirs[name] != found.query]  # its copy in the database
    assert len({name.rpartition("/")[0] for name in others}) == len(others) > 10
    assert set(others) == set(ours) - {found.names[0].split()[0]}
    assert {name: theirs[name] for name in others} == {name: ours[name] for name in others}


def test_blocks_compression_and_threads_do_not_matter(folder, tmp_path, monkeypatch):
    data = (folder / "fn3.fasta").read_bytes()
    (tmp_path / "db.fasta.gz").write_bytes(gzip.compress(data))
    (tmp_path / "db.fa.xz").write_bytes(lzma.compress(data))
    whole = search_homologues(folder / "lar.fasta", folder / "fn3.fasta", cpus=1)
    monkeypatch.setattr(search_module, "BLOCK_RESIDUES", 1500)
    for database, cpus in ((folder / "fn3.fasta", 1), (tmp_path / "db.fasta.gz", 2), (tmp_path / "db.fa.xz", 1)):
        same = search_homologues(folder / "lar.fasta", database, cpus=cpus)
        assert same.names == whole.names
        assert same.raw_rows == whole.raw_rows


def test_rows_are_sorted_and_filtered(folder):
    """By E-value; coverage and identity are `filter_rows` on the whole result; the bits are of HMMER."""
    whole = search_homologues(folder / "lar.fasta", folder / "fn3.fasta", cpus=1)
    kept = search_homologues(folder / "lar.fasta", folder / "fn3.fasta", cpus=1, coverage=80, identity=60)
    index = filter_rows(whole.array, 80, 60)
    assert 1 < len(index) < whole.depth
    assert kept.names == tuple(whole.names[k] for k in index)
    few = search_homologues(folder / "lar.fasta", folder / "fn3.fasta", cpus=1, iterations=1, bit_score=25)
    more = search_homologues(folder / "lar.fasta", folder / "fn3.fasta", cpus=1, iterations=1, bit_score=15)
    assert 1 < few.depth < more.depth
    assert more.names[: few.depth] == few.names


def domain(score, columns, places, letters=None, states=None):
    """A hit from the given column and place (both from 1), as pyhmmer describes it."""
    count = columns[1] - columns[0] + 1
    letters = letters or "".join("ACDEFGHIKL"[(places + k) % 10] for k in range(count))
    alignment = SimpleNamespace(
        hmm_from=columns[0], hmm_sequence=states or "x" * count, target_sequence=letters, target_from=places
    )
    return SimpleNamespace(score=score, included=True, alignment=alignment)


def merged(*domains, length=20):
    return _row(SimpleNamespace(name="t", description=None, domains=domains), length)


def test_hits_of_one_sequence_are_one_row():
    """By hand: two hits in order; a conflict of columns; a repeat; two hits in the other order."""
    left = domain(9, (2, 6), 11, "MKaV-L", "xx.xxx")
    right = domain(8, (8, 12), 40, "CDEFG")
    assert merged(right, left) == ("t/11-44", "-MKaV-L-CDEFG" + "-" * 8)
    # columns 5 and 6 are the better hit's, and the insertion before them goes
    later = domain(8, (5, 12), 40, "WWCDiEFGH", "xxxx.xxxx")
    assert merged(left, later) == ("t/11-48", "-MKaV-LCDiEFGH" + "-" * 8)
    assert merged(domain(9, (5, 12), 40, "WWCDiEFGH", "xxxx.xxxx"), domain(8, (2, 6), 11, "MKVaTL", "xxx.xx")) == (
        "t/11-48",
        "-MKVWWCDiEFGH" + "-" * 8,
    )
    # residues 14 and 15 of the sequence are the better hit's
    assert merged(left, domain(8, (8, 12), 14, "CDEFG")) == ("t/11-18", "-MKaV-L" + "---EFG" + "-" * 8)
    repeat = domain(8, (2, 7), 40)
    assert merged(left, repeat) == ("t/11-15", "-MKaV-L" + "-" * 14)
    swapped = domain(8, (8, 12), 1)
    assert merged(left, swapped) == ("t/11-15", "-MKaV-L" + "-" * 14)
    assert merged(SimpleNamespace(included=False, score=9)) is None


def test_two_parts_of_a_real_hit(folder, tmp_path):
    """A sequence of the query's two halves with 60 other residues between them is one row."""
    rng = np.random.default_rng(5)
    linker = "".join(rng.choice(LETTERS, 60))
    halves = QUERY[:40] + linker + QUERY[45:]
    (tmp_path / "db.fasta").write_text(fasta(unrelated() | {"halves": halves, "twice": QUERY + QUERY}))
    found = search_homologues(folder / "query.fasta", tmp_path / "db.fasta", cpus=1, iterations=1)
    by_name = {name.split("/")[0]: k for k, name in enumerate(found.names)}
    row = found.sequences[by_name["halves"]]
    agree = sum(a == b for a, b in zip(row, QUERY, strict=True))
    assert agree >= 78  # of 80; ends of hits may miss a residue
    assert len(row) == len(QUERY)
    assert "twice" not in by_name or found.sequences[by_name["twice"]].count("-") == 0


def test_query(tmp_path):
    assert read_query(">P1\n mkvl..-LA\nWY*\n") == ("P1", "MKVLLAWY")
    assert read_query(">\nMKVL\n") == ("query", "MKVL")
    assert read_query(">a x\nMKVL\n>b y\nMRVL\n", "b") == ("b y", "MRVL")
    for text, message in (
        (">a\nMKVL\n>b\nMRVL\n", "2 sequences .a, b.; name the query with .*--query-name"),
        (">a\nMK*VL\n", r"residue 3 of a is '\*'"),
        (">a\n" + "ACGT" * 10 + "\n", "DNA or RNA"),
        (">a\n\n", "no sequence"),
        ("MKVL\nMKVL\n", "header line"),
        ("\n", "is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            read_query(text)
    with pytest.raises(ValueError, match="0 sequences named c among 2"):
        read_query(">a\nMKVL\n>b\nMRVL\n", "c")
    with pytest.raises(OSError, match="no such file"):
        read_query(tmp_path / "none.fasta")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello\n", "cannot be read as FASTA"),
        (b">a\nMK-VL\n", "remove gaps"),
        (b">a\nMK1VL\n", "cannot be read"),
        (b">a\n>b\n", "no residue"),
        (b">a\n" + b"ACGT" * 20 + b"\n", "DNA or RNA"),
        (gzip.compress(b">a\nMKVLAWY\n" * 9999)[:60], "cut off"),
        (gzip.compress(b">a\nMKVLAWY\n")[:12] + b"xxxxxxxxxxxxxxxxxxxx", "damaged"),
    ],
    ids=range(8),
)
def test_databases_that_are_none(folder, tmp_path, data, message):
    (tmp_path / "db.fasta").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        search_homologues(folder / "query.fasta", tmp_path / "db.fasta", cpus=1)


def test_refused_before_searching(folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="iterations is 0"):
        search_homologues(folder / "query.fasta", folder / "db.fasta", iterations=0)
    with pytest.raises(FileNotFoundError, match=r"none\.fasta: no such file; the database"):
        search_homologues(folder / "query.fasta", tmp_path / "none.fasta")
    monkeypatch.setitem(sys.modules, "pyhmmer", None)
    with pytest.raises(ImportError, match=r"pip install 'modeling-msa\[search\]'"):
        search_homologues(folder / "query.fasta", folder / "db.fasta")


def test_damage_far_inside_is_no_end(folder, tmp_path):
    """HMMER mistakes an error while reading for the end of the file, and would search half a database."""
    data = bytearray(gzip.compress(fasta(unrelated(20_000)).encode()))
    data[len(data) // 2 :] = data[len(data) // 2 : len(data) * 3 // 4]
    (tmp_path / "db.fasta.gz").write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged|cut off"):
        search_homologues(folder / "query.fasta", tmp_path / "db.fasta.gz", cpus=1)


def test_nothing_found(folder, tmp_path):
    (tmp_path / "db.fasta").write_text(fasta(unrelated()))
    with pytest.warns(UserWarning, match="no sequence has an E-value of at most 1e-09"):
        found = search_homologues(folder / "query.fasta", tmp_path / "db.fasta", cpus=1, evalue=1e-9)
    assert found.sequences == [QUERY]
    (tmp_path / "own.fasta").write_text(fasta(unrelated() | {"same": QUERY.lower()}))
    with pytest.warns(UserWarning, match="no sequence but the query itself"):
        found = search_homologues(folder / "query.fasta", tmp_path / "own.fasta", cpus=1, evalue=1e-9)
    assert found.sequences == [QUERY]


def test_long_sequences_are_passed_over(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "_LONGEST", 200)
    (tmp_path / "db.fasta").write_text(fasta(planted() | {"giant": QUERY * 3}))
    with pytest.warns(UserWarning, match="left out 1 sequence of over 200 residues .giant"):
        assert search_homologues(folder / "query.fasta", tmp_path / "db.fasta", cpus=1).depth == 13
