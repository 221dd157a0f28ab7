"""Chains side by side: their lengths and names, residue numbers by chain, and ColabFold's files."""

import numpy as np
import pytest

from modeling_msa import (
    Alignment,
    AlignmentError,
    Chain,
    prepare_alignment,
    read_alignment,
    select_rows,
    write_alignment,
)
from modeling_msa.alignments.chains import as_chains, chain_indices, residue_names, residue_number
from modeling_msa.alignments.listing import peek

MERGED = "#3,4\t1,1\n>101\t102\nMKVLAWW\n>r\ts\nMaRVL-WW\n>101\nMKV----\n>102\n---LAWW\n"


def chains_of(*pairs):
    return tuple(Chain(*pair) for pair in pairs)


def test_colabfold_files():
    family = read_alignment(MERGED, "a3m")
    assert family.chains == chains_of(("A", 3), ("B", 4))
    assert family.sequences == ["MKVLAWW", "MRVL-WW", "MKV----", "---LAWW"]
    assert [family.residue_name(k) for k in (1, 3, 4, 7)] == ["A:1", "A:3", "B:1", "B:4"]
    homo = read_alignment("#3\t2\n>101\nMKV\n>r\nMaRV\n>s\nM-Vcc\n", "a3m")  # rows as ColabFold's pad_sequences
    assert homo.chains == chains_of(("A", 3), ("B", 3))
    assert homo.query == "MKVMKV"
    assert list(homo)[1:] == [("r", "MRV---"), ("s", "M-V---"), ("r", "---MRV"), ("s", "---M-V")]
    assert homo.raw_rows == (b"MKVMKV", b"MaRV---", b"M-Vcc---", b"---MaRV", b"---M-Vcc")
    two = read_alignment("#3,2\t2,1\n>101\t102\nMKVLA\n>r\tt\nMRVL-\n>s\nM-V--\n>u\n---LK\n", "a3m")
    assert [each.length for each in two.chains] == [3, 3, 2]
    assert two.sequences == ["MKVMKVLA", "MRVMRVL-", "M-V-----", "---M-V--", "------LK"]
    unpaired = read_alignment("#3,2\t1,1\n>101\nMKV--\n>r\nMR---\n>102\n---LA\n", "a3m")
    assert unpaired.query == "MKVLA"
    assert unpaired.sequences == ["MKVLA", "MKV--", "MR---", "---LA"]
    blocks = MERGED.replace(">101\nMKV", "\0>101\nMKV").replace(">102\n---", "\0>102\n---") + "\0"
    assert read_alignment(blocks, "a3m").sequences == family.sequences
    assert read_alignment("#4\t1\n>101\nMKVL\n").chains == ()


def test_the_size_of_a_complex(tmp_path):
    (tmp_path / "homo.a3m").write_text("#3\t2\n>101\nMKV\n>r\nMaRV\n")
    (tmp_path / "merged.a3m").write_text(MERGED)
    assert [tuple(peek(tmp_path / name)) for name in ("homo.a3m", "merged.a3m")] == [(3, 6, 6), (4, 7, 7)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#3,4\t1\n>q\nMKVLAWW\n", "line 1 .*does not give each chain a length and a number of copies"),
        ("#3,4\t1,0\n>q\nMKVLAWW\n", "line 1 .*does not give each chain"),
        ("#3\t2\n>q\nMKVL\n", "copies of a chain of 3 residues, but row 1 has 4 columns"),
        ("#3,4\t1,1\n>q\nMKVLAW\n", "7 columns together, but row 1 has 6; correct or remove line 1"),
        ("#3,4\t1,1\n>101\nMKV----\n>x\nMKV----\n", "has no residue of chain 2, and there is no row 102 with chain 2"),
        ("#3,4\t1,1\n>q\nMKV----\n>102\n---LAWW\n", "there is no row 101 with chain 1 alone"),
        ("#chains H:3,L:3\n>q\nMKVLAWW\n", "chains of 3 and 3 residues have 6 together, but the query has 7"),
        ("#chains H:3,H:4\n>q\nMKVLAWW\n", "line 1: two chains are named H"),
        ("#3,4\t1,1\n>101\nMKV\n\0>102\nLAWW\n\0", "row 1 has 3: the chains are one below the other"),
        ("#3\t2\n>q\nMKV\n\0#3\t2\n>r\nMRV\n\0", "a database of several alignments"),
        ("#3\t9999\n>q\nMKV\n" + ">r\nMRV\n" * 9, "announces 9,999 chains; the most are 702"),
    ],
)
def test_wrong_chains_are_refused(text, message):
    with pytest.raises(AlignmentError, match=message):
        read_alignment(text, "a3m")


def test_chains_of_the_caller():
    assert read_alignment(">q\nMKVLAWW\n", chains="3,4").chains == chains_of(("A", 3), ("B", 4))
    assert read_alignment(MERGED, "a3m", chains="H:3,L:4").chains == chains_of(("H", 3), ("L", 4))
    with pytest.raises(AlignmentError, match="announces the chains A:3,B:4, not A:4,B:3"):
        read_alignment(MERGED, "a3m", chains="4,3")
    with pytest.raises(AlignmentError, match="announces the chains A:3,B:4, not one"):
        read_alignment(MERGED, "a3m", chains="7")
    for text, message in {
        "3,x": "'x' is not a length",
        "3,0": "chain B has 0 residues",
        "a b:3,4": "'a b' is not a name",
        "A42V:3,4": "'A42V' is not a name",
    }.items():
        with pytest.raises(ValueError, match=message):
            as_chains(text)
    assert as_chains([120, 95]) == as_chains("A:120,B:95")
    assert as_chains("120") == ()


@pytest.mark.parametrize("ending", ["a3m", "a2m", "fasta", "sto", "a3m.gz"])
@pytest.mark.parametrize("rows", [["MKVLAWW", "MR-L-WW"], ["mMK-VLAWW", "MRaVAL-WW"]])
@pytest.mark.parametrize("chains", ["3,4", "H:3,L:4"])
def test_chains_survive_a_file(ending, rows, chains, tmp_path):
    if rows[0][0] == "m":
        chains = chains.replace("3", "4", 1)  # the insertion is a residue of the query
    family = Alignment.from_sequences(rows, ["q", "r"], chains=chains)
    query = "MKVLAWW" if ending in ("fasta", "sto") else family.query  # no insertion is written there
    write_alignment(family, tmp_path / f"x.{ending}")
    read = read_alignment(tmp_path / f"x.{ending}")
    assert read.chains == chains_of(("AH"[":" in chains], len(query) - 4), ("BL"[":" in chains], 4))
    assert (read.sequences, read.query) == (family.sequences, query)


def test_colabfold_reads_what_is_written(tmp_path):
    write_alignment(read_alignment(MERGED, "a3m"), tmp_path / "x.a3m")
    assert (tmp_path / "x.a3m").read_text() == MERGED
    write_alignment(read_alignment(">q\nMKV\n"), tmp_path / "one.a3m")
    assert (tmp_path / "one.a3m").read_text() == ">q\nMKV\n"


def test_chains_survive_the_choice_of_rows_and_columns():
    family = Alignment.from_sequences(["mK-VLA", "K-VLA", "RGVLA"], chains="2,3")
    for each in (family.take([0, 2]), family.drop_query_gaps(), select_rows(family, 2), prepare_alignment(family)):
        assert each.chains == family.chains
    seen = family.drop_query_gaps()
    assert residue_names(seen.chains, seen.column_residues) == ["A:2", "B:1", "B:2", "B:3"]
    assert seen.column_of("B:1") == 1
    with pytest.raises(AlignmentError, match=r"residue A:1 \(M\) is in lower case .*from A:2 to B:3"):
        seen.column_of("A:1")


def test_numbers_by_chain():
    chains = as_chains("H:3,L:4")
    assert chain_indices(chains, np.arange(1, 8)).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert [residue_number(chains, name) for name in residue_names(chains, range(1, 8))] == list(range(1, 8))
    for text, message in {
        "L:5": "chain L has residues 1 to 4; there is no residue L:5",
        "X:1": "there is no chain 'X'; the chains are H, L",
        "3": "3 names no chain; write it like H:3",
        "H:x": "'H:x' is not a residue",
    }.items():
        with pytest.raises(ValueError, match=message):
            residue_number(chains, text)
    with pytest.raises(ValueError, match="names a chain, but the alignment has one protein"):
        residue_number((), "A:3")
