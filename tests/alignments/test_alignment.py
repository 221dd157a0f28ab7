"""Contract of `modeling_msa.alignments.alignment`.

- Each format is read into the same three things: match columns, query, map of residues to columns.
- What was written is read back unchanged, and a failed write leaves nothing behind.
- Whatever is not an alignment is refused before use, with file, row, column and advice in the message.
"""

import gzip
import lzma
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_up import SEED

from modeling_msa import MsaTokenizer, _files
from modeling_msa.alignments.alignment import Alignment, AlignmentError
from modeling_msa.alignments.bundled import bundled_family, bundled_structure
from modeling_msa.alignments.listing import peek
from modeling_msa.alignments.reading import read_alignment
from modeling_msa.alignments.writing import write_alignment

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "msa"
NAMED = [path for path in (DATA / "1a3a_1_A.a3m", DATA / "6exz.a3m", DATA / "gb1.a2m") if path.is_file()]

# Query MKVLA: M and A are insertions, V is column 1; column 2 is a gap of the query.
A3M = """#5\t1
>query of mine
mKV-
La
>same name
RV
gg-L

>same name
-.VGl-
"""


def same(a: Alignment, b: Alignment) -> bool:
    return (
        a.names == b.names
        and np.array_equal(a.array, b.array)
        and a.query == b.query
        and np.array_equal(a.residue_columns, b.residue_columns)
        and a.raw_rows == b.raw_rows
    )


def plain_rows(path: Path) -> tuple[list[str], list[str]]:
    """Plain-Python reader of A3M, to check against."""
    names, rows = [], []
    for line in path.read_text().splitlines():
        if line.startswith(">"):
            names.append(line[1:].strip())
            rows.append("")
        else:
            rows[-1] += line
    return names, ["".join(c for c in row if c.isupper() or c == "-") for row in rows]


def test_a3m_by_hand():
    family = read_alignment(A3M)
    assert family.names == ("query of mine", "same name", "same name")
    assert family.sequences == ["KV-L", "RV-L", "-VG-"]
    assert family.array.dtype == np.uint8
    assert family.array.flags.c_contiguous
    assert family.array[1].tolist() == [ord(c) for c in "RV-L"]
    assert family.query == "MKVLA"
    assert family.residue_columns.tolist() == [-1, 0, 1, 3, -1]
    assert family.column_residues.tolist() == [2, 3, 0, 4]
    assert (family.depth, family.length, len(family)) == (3, 4, 3)
    assert family[2] == ("same name", "-VG-")
    assert list(family)[1] == ("same name", "RV-L")
    assert family.source is None


def test_residues_and_columns():
    family = read_alignment(A3M)
    assert [family.column_of(n) for n in (2, 3, 4)] == [0, 1, 3]
    assert [family.residue_of(c) for c in (0, 1, 3)] == [2, 3, 4]
    for residue, message in [(0, "residues 1 to 5"), (6, "no residue 6"), (1, r"residue 1 \(M\).*from 2 to 4")]:
        with pytest.raises(AlignmentError, match=message):
            family.column_of(residue)
    for column, message in [(-1, "0 to 3"), (4, "no column 4"), (2, "gap in column 2")]:
        with pytest.raises(AlignmentError, match=message):
            family.residue_of(column)


def test_drop_query_gaps():
    dropped = read_alignment(A3M).drop_query_gaps()
    assert dropped.sequences == ["KVL", "RVL", "-V-"]
    assert dropped.raw_rows == (b"mKVLa", b"RVggL", b"-Vgl-")
    assert dropped.residue_columns.tolist() == [-1, 0, 1, 2, -1]
    assert dropped.query == "MKVLA"
    assert dropped.drop_query_gaps() is dropped


def test_take():
    family = read_alignment(A3M)
    few = family.take([0, 2])
    assert few.names == ("query of mine", "same name")
    assert few.sequences == ["KV-L", "-VG-"]
    assert few.raw_rows == (b"mKV-La", b"-VGl-")
    assert same(family.take(np.array([True, False, True])), few)
    with pytest.raises(AlignmentError, match="row 0 is the query"):
        family.take([1, 2])
    with pytest.raises(IndexError):
        family.take([0, 3])


def test_array_is_read_only_and_callers_array_is_not():
    family = read_alignment(A3M)
    with pytest.raises(ValueError, match="read-only"):
        family.array[0, 0] = 0


@pytest.mark.parametrize(
    ("text", "format", "sequences"),
    [
        (">q\nmKV.L\n>r\n.RVaL\n", "a2m", ["KVL", "RVL"]),
        (">q\nmKV.L\n>r\n.RVaL\n", "fasta", ["MKV-L", "-RVAL"]),
        (">q\nMK~L\n>r\nMR.i\n", None, ["MK-L", "MR-I"]),
        ("\ufeff>q\nMK-L\n", None, ["MK-L"]),
        (">q\r\nMK-L\r\n\r\n>r\r\nMR\r\nVI\r\n\x00", None, ["MK-L", "MRVI"]),
        (">q\nMKL\n>r\nMRaI\n", None, ["MKL", "MRI"]),
        (">q\nmkl\n>r\nmri\n", None, ["MKL", "MRI"]),
        (">q\naMKL\n>r\nMRaI\n", None, ["MKL", "MRI"]),
        (">q\nMKV.L\n>r\n.RVaL\n", None, ["MKV-L", "-RVAL"]),
        (">q\nMK VL\n>r\nM?J?\n", None, ["MKVL", "M?J?"]),
        (">ss_pred\nCHHC\n>ss_conf\n9889\n>q\nMKVL\n", "a3m", ["MKVL"]),
        (">q\nMKVL\n", None, ["MKVL"]),
        # stops: at the end of whole proteins, with a column of their own, and inside (kept)
        (">q\nMKL*\n>r\nMRI\n", "fasta", ["MKL", "MRI"]),
        (">q\nMKL*--\n>r\nMRIGGG\n", "fasta", ["MKL---", "MRIGGG"]),
        (">q\nMKL*\n>r\nMRIG\n", "fasta", ["MKL-", "MRIG"]),
        (">q\nM*KL\n>r\nMRIG\n", "fasta", ["M*KL", "MRIG"]),
    ],
)
def test_meaning_of_letters(text, format, sequences):
    assert read_alignment(text, format).sequences == sequences


def test_stockholm_blocks_and_double_names():
    text = (
        "# STOCKHOLM 1.0\n#=GF ID x\n#=GS b DE some\n\na/1-4  MK.\nb      mR~\n#=GR b SS HHH\nb      -GG\n"
        "#=GC RF xxx\n\na/1-4  L\nb      i\nb      L\n//\n"
    )
    family = read_alignment(text)
    assert family.names == ("a/1-4", "b", "b")
    assert family.sequences == ["MK-L", "MR-I", "-GGL"]
    assert family.query == "MKL"
    assert family.residue_columns.tolist() == [0, 1, 3]


def test_bundled_family():
    """The query's residues and the structure's, by number; the rows are those that the header of the README counts."""
    family = read_alignment(bundled_family())
    assert (family.depth, family.length, family.query[:20]) == (1826, 80, "DAPSQIEVKDVTDTTALITW")
    assert "HETATM" not in bundled_structure().read_text()
    for find in (bundled_family, bundled_structure):
        with pytest.raises(ValueError, match="use one of fn3"):
            find("kinase")


def test_seed_in_stockholm():
    path = SEED
    family = read_alignment(path)
    rows = [line.split() for line in path.read_text().splitlines() if line[:1] not in ("", "#", "/")]
    assert list(family.names) == [name for name, _ in rows]
    assert family.sequences == [row.replace(".", "-") for _, row in rows]
    assert family.query == rows[0][1].replace(".", "")
    assert (family.depth, family.length) == (98, 117)


def test_from_sequences():
    family = Alignment.from_sequences(["MK-L", "MRaVI"])
    assert family.names == ("query", "row 2")
    assert family.sequences == ["MK-L", "MRVI"]
    assert Alignment.from_sequences("MKVL").sequences == ["MKVL"]
    assert Alignment.from_sequences(["Mk.L"], format="fasta").query == "MKL"
    with pytest.raises(AlignmentError, match=r"row 2 .* has 2 match columns"):
        Alignment.from_sequences(["MKL", "MK", "M"])
    with pytest.raises(AlignmentError, match="1 name for 2"):
        Alignment.from_sequences(["M", "M"], ["one"])
    with pytest.raises(AlignmentError, match="line break"):
        Alignment.from_sequences(["M"], ["a\n>b"])
    with pytest.raises(AlignmentError, match="contains no sequence"):
        Alignment.from_sequences([])


@pytest.mark.parametrize("ending", [".a3m", ".a2m", ".a3m.gz", ".a2m.xz"])
def test_insertions_survive_writing(tmp_path, ending):
    family = read_alignment(A3M)
    write_alignment(family, tmp_path / f"family{ending}")
    again = read_alignment(tmp_path / f"family{ending}")
    assert same(again, family)
    assert again.source == str(tmp_path / f"family{ending}")


def test_written_text(tmp_path):
    family = read_alignment(A3M)

    def written(format, **kwargs):
        write_alignment(family, tmp_path / "x", format, **kwargs)
        return (tmp_path / "x").read_text().splitlines()

    assert written("a3m")[1::2] == ["mKV-La", "RVgg-L", "-VGl-"]
    assert written("a2m")[1::2] == ["mKV..-.La", ".RVgg-.L.", ".-V..Gl-."]
    for format, kwargs in [("fasta", {}), ("a3m", {"insertions": False}), ("a2m", {"insertions": False})]:
        assert written(format, **kwargs)[1::2] == ["KV-L", "RV-L", "-VG-"]
    assert written("stockholm") == [
        *("# STOCKHOLM 1.0", "#=GS query DE of mine", "#=GS same DE name", "#=GS same DE name"),
        *("query KV-L", "same  RV-L", "same  -VG-", "//"),
    ]
    assert read_alignment(tmp_path / "x").sequences == family.sequences


def test_the_first_word_of_a_name_in_stockholm_ends_at_a_tab(tmp_path):
    write_alignment(Alignment.from_sequences(["MKV"], ["X_HUMAN/1-3\tUniRef100_B n=1"]), tmp_path / "x.sto")
    assert "#=GS X_HUMAN/1-3 DE UniRef100_B n=1\nX_HUMAN/1-3 MKV\n" in (tmp_path / "x.sto").read_text()


def test_failed_write_leaves_nothing(tmp_path, monkeypatch):
    target = tmp_path / "family.a3m"
    target.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(_files.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_alignment(read_alignment(A3M), target)
    assert [path.name for path in tmp_path.iterdir()] == ["family.a3m"]
    assert target.read_text() == "old"
    with pytest.raises(AlignmentError, match="suffix is not that of an alignment format"):
        write_alignment(read_alignment(A3M), tmp_path / "family.txt")


def test_compression_is_told_from_content(tmp_path):
    (tmp_path / "a.a3m").write_bytes(gzip.compress(A3M.encode()))
    (tmp_path / "b.a3m.gz").write_bytes(lzma.compress(A3M.encode()))
    (tmp_path / "c.A3M.gz").write_text(A3M)
    assert all(same(read_alignment(path), read_alignment(A3M)) for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "format", "message"),
    [
        (" \n", None, "is empty"),
        ("#A3M#\n", None, "contains no sequence"),
        (">ss_pred\nHHH\n", "a3m", "contains no sequence"),
        ("MKVL\n>q\nMKVL\n", None, r"line 1 \('MKVL'\).*header line"),
        ("HEADER    HYDROLASE\nATOM   1\n", None, "a PDB file"),
        ("CLUSTAL W\n\nq MKVL\n", None, "a Clustal alignment"),
        (">q\nMKVL\n>r\n", None, r"row 2 \(r\) has a header but no sequence"),
        (">q\n>r\nMKVL\n", None, r"row 1 \(q\) has a header but no sequence"),
        (">q\n----\n>r\nMKVL\n", "fasta", "the query, has no residue"),
        (">q\nmkvl\n>r\nmkvl\n", "a3m", "the query, has no residue"),
        (">q\nMKVL\n>r\nMKéL\n", None, r"row 2 \(r\), line 4, column 3, is 'é'"),
        (">q\n MK\n12 VL\n>r\nMKVL\n", None, r"row 1 \(q\), line 3, column 1, is '1', .*numbers of positions"),
        ("# STOCKHOLM 1.0\nseq 0\tMKV\nseq 1\tMKV\n//\n", None, r"row 1 \(seq\), line 2, column 5, is '0'.*names"),
        (">q\nMK@L\n", None, r"line 2, column 3, is '@', which is not a residue"),
        ("#3,4\t1,1\n>101\nMKV\n>r\nMRV\n", "a3m", "chains of 3 and 4 residues, 7 columns .* row 1 has 3.*each chain"),
        ("\x00\n", None, "is empty"),
        (">q\nMK\n\x00>r\nMR\n\x00", None, "several alignments"),
        (">q\nMKVL\n>r\nMKaVL\n", "fasta", "row 2 .r. has 5 columns, but row 1 .q. has 4; .*format='a3m'"),
        (">q\nMKVL\n>r\nMKaVL\n", "a2m", "looks like A3M"),
        (">q\nMKVL\n>r\nMKvL\n", "a3m", r"row 2 \(r\) has 3 match columns .*format='fasta'"),
        (">q\nMKVL\n>r\nMKvL\n", "a2m", "looks like FASTA"),
        (">q\nMKVL\n>r\nMK\n>s\nM\n", None, r"row 2 \(r\) has 2 columns.*MAFFT"),
        (">q\nMKVL\n>r\nMKVL\n>s\nMKV\n", "a3m", r"row 3 \(s\) has 3 .*cut off"),
        (">q\nMKV\n>r\nMKVL\n>s\nMKVL\n", "a3m", "row 1 may be cut off"),
        (">q\nMK\x00L\n>r\nMK\n", None, "is a binary file"),
        ("# STOCKHOLM 1.0\na MK\nb MK\n", None, "closing '//' line is missing"),
        ("# STOCKHOLM 1.0\na MK\n//\n# STOCKHOLM 1.0\na MK\n//\n", None, "more than one alignment.*line 3"),
        ("# STOCKHOLM 1.0\na\n//\n", None, "line 2 .a. has a name but no sequence"),
        ("# STOCKHOLM 1.0\n//\n", None, "contains no sequence"),
        (">q\nMK\n", "stockholm", "does not begin with '# STOCKHOLM"),
        ("# STOCKHOLM 1.0\na MK\nb MK\n\na VL\n//\n", None, "row 2 .b. has 2 columns.*missing from a block"),
        (">q\nMK\n", "clustal", "unknown alignment format 'clustal'.*a3m, a2m, fasta, stockholm"),
    ],
)
def test_refused(text, format, message):
    with pytest.raises(AlignmentError, match=message):
        read_alignment(text, format)


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        (">q\nMK\n>r\nMR\n\x00", ["q", "r"], ["MK", "MR"]),
        (">q\nMK\n>r\nMR\n\x00\n", ["q", "r"], ["MK", "MR"]),
        (">q\nMK\n>r\nMR\n\x00>q\nMK\n>s\nMT\n\x00", ["q", "r", "q", "s"], ["MK", "MR", "MK", "MT"]),  # ColabFold
        ("; a comment\n>q\nMK\n; another\nVL\n>r\nMKVL\n", ["q", "r"], ["MKVL", "MKVL"]),
        (">ss_pred\nHHHH\n>ss_conf\n9999\n>ss_dssp\nHHHH\n>q\nMKVL\n", ["q"], ["MKVL"]),
        ("#4\t1\n>101\nMKVL\n", ["101"], ["MKVL"]),  # one chain
    ],
)
def test_what_other_programs_write(text, names, rows):
    family = read_alignment(text)
    assert (list(family.names), family.sequences) == (names, rows)


def test_rows_without_headers(tmp_path):
    (tmp_path / "psicov.aln").write_text("MKVL-\nMRVLA\n-KVLA\n")
    family = read_alignment(tmp_path / "psicov.aln")
    assert list(family.names) == ["query", "row 2", "row 3"]
    assert family.sequences == ["MKVL-", "MRVLA", "-KVLA"]
    assert peek(tmp_path / "psicov.aln") == (3, 5, 4)
    (tmp_path / "psicov.aln").write_text("MKVL-\nMRVLA\n-KVL\n")
    with pytest.raises(AlignmentError, match=r"row 3 \(row 3\) has 4 columns"):
        read_alignment(tmp_path / "psicov.aln")


def test_the_consensus_of_hh_suite_is_not_the_query():
    text = ">ss_pred\nHHHH\n>fam_consensus\nMKVL\n>member 1\n-KiVL\n>other\nMRVL\n"
    with pytest.warns(UserWarning, match=r"row 1 \(fam_consensus\).*left out; the query is member 1"):
        family = read_alignment(text, "a3m")
    assert family.query == "KIVL"
    assert family.sequences == ["-KVL", "MRVL"]
    assert read_alignment(">fam_consensus\nMKVL\n").query == "MKVL"  # there is no other


CASES = DATA.parents[1] / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
def test_files_that_people_have():
    for name, message in {
        "1/smurf.sto": r"smurf\.sto: row 1 \(seq\), line 3, column 5, is '0'",
        "1/genbank.fasta": r"genbank\.fasta: row 1 \(q\), line 2, column 9, is '1'",
        "3/equal.a3m": "24 columns together, but row 1 has 12",
        "3/unequal.a3m": "Write one file for each chain|one file for each",
    }.items():
        with pytest.raises(AlignmentError, match=message):
            read_alignment(CASES / name)
    with pytest.warns(UserWarning, match="the query is FAM_MEMBER first"):
        consensus = read_alignment(CASES / "2" / "cons.a3m")
    assert consensus.query == "VLLAAGNTSVWRE"
    assert (consensus.residue_columns >= 0).sum() == 12
    assert read_alignment(CASES / "8" / "end.a3m").depth == 2
    assert read_alignment(CASES / "8" / "twice.a3m").depth == 4
    assert read_alignment(CASES / "7" / "psicov.aln").depth > 1


def test_refused_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.a3m: no such alignment file"):
        read_alignment(tmp_path / "nowhere.a3m")
    for name, whole in [("cut.a3m.gz", gzip.compress(A3M.encode())), ("cut.a3m.xz", lzma.compress(A3M.encode()))]:
        (tmp_path / name).write_bytes(whole[:-12])
        with pytest.raises(AlignmentError, match=f"{name}: the compressed file is cut off"):
            read_alignment(tmp_path / name)
    (tmp_path / "bad.fasta").write_text(">q\nMKVL\n>r\nMKaVL\n")
    with pytest.raises(AlignmentError, match=r"bad\.fasta: row 2 \(r\)"):
        read_alignment(tmp_path / "bad.fasta")


@pytest.mark.parametrize("path", [SEED, bundled_family(), *NAMED], ids=lambda path: path.stem)
def test_real_files(path, tmp_path):
    """Also of a seed alignment, whose columns without a residue of the query become insertions."""
    family = read_alignment(path).drop_query_gaps()
    for ending in ("a3m", "a2m.gz"):
        write_alignment(family, tmp_path / f"again.{ending}")
        assert same(read_alignment(tmp_path / f"again.{ending}"), family)
    names, rows = plain_rows(tmp_path / "again.a3m" if path.suffix == ".sto" else path)
    assert list(family.names) == names
    assert family.sequences == rows
    assert same(read_alignment((tmp_path / "again.a3m").read_text()), family)  # the content shows the format too
    covered = np.flatnonzero(family.residue_columns >= 0)
    assert "".join(family.query[k] for k in covered) == rows[0].replace("-", "")


@pytest.mark.skipif(not (DATA / "gb1.a2m").is_file(), reason="the shared alignments are not here")
def test_gb1_begins_with_two_insertions():
    family = read_alignment(DATA / "gb1.a2m")
    assert family.query.startswith("MQYKLIL")
    assert family.residue_columns[:4].tolist() == [-1, -1, 0, 1]
    assert family.column_of(3) == 0
    with pytest.raises(AlignmentError, match=r"gb1\.a2m: residue 2 \(Q\)"):
        family.column_of(2)


def test_reading_is_fast(tmp_path):
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY-", dtype=np.uint8)
    rows = [row.tobytes() for row in letters[rng.integers(0, 21, (20_000, 300))]]
    text = b"".join(b">row %d\n%b%b%b\n" % (k, row[:90], b"acd"[: k % 4], row[90:]) for k, row in enumerate(rows))
    (tmp_path / "big.a3m").write_bytes(text)
    start = time.process_time()
    family = read_alignment(tmp_path / "big.a3m")
    assert time.process_time() - start < 1.0  # 0.1 s
    assert family.array.tobytes() == b"".join(rows)


def test_a_guess_that_drops_query_residues_is_said():
    soft_masked = ">q\nMKvlAWW\n>b\nMRvlAWW\n"
    with pytest.warns(UserWarning, match=r"2 lower-case residues of the query.*format='fasta'"):
        assert read_alignment(soft_masked).length == 5
    assert read_alignment(soft_masked, format="fasta").sequences == ["MKVLAWW", "MRVLAWW"]


def test_unknown_letters_are_named_once_by_their_place_in_the_file(tmp_path):
    (tmp_path / "a.a3m").write_text(">q\nMKV---LA\n>r\nMKVAAALJ\n>s\nMjKV?--LA\n")
    words = (
        r"a\.a3m: row 2 \(r\), column 8, is 'J', which the model reads as an unknown residue; the file has 2 in all"
    )
    with pytest.warns(UserWarning, match=words):
        family = read_alignment(tmp_path / "a.a3m").drop_query_gaps()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (MsaTokenizer()(family, return_tensors="np")["input_ids"] == 3).sum() == 1  # ? is in an insertion


def test_imports_are_light():
    """No module of alignments imports torch, or a library that only one function of it requires."""
    code = (
        "import sys, pkgutil, importlib; sys.argv = ['msa']\n"  # as the command, which registers no model
        "import modeling_msa.alignments as floor\n"
        "for each in pkgutil.iter_modules(floor.__path__, floor.__name__ + '.'): importlib.import_module(each.name)\n"
        "print({'torch', 'transformers', 'pyhmmer', 'gemmi', 'scipy', 'pandas'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
