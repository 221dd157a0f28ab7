"""The contract of peeking: the size of an alignment from the beginning of its file."""

import gzip
import lzma

import pytest
from made_up import SEED, a3m, random_array, real_alignments

from modeling_msa import AlignmentError, read_alignment
from modeling_msa.alignments.listing import list_alignments, peek


def test_size_from_the_beginning_of_a_file(tmp_path):
    # 5,000 rows of 200 letters: far more than is read; the estimate is right to some percent, compressed or not
    rows = [row.tobytes().decode() for row in random_array(5000, 200)]
    text = a3m(["mk" + rows[0], *rows[1:]])
    (tmp_path / "a.a3m").write_text(text)
    (tmp_path / "b.a3m.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.a3m.xz").write_bytes(lzma.compress(text.encode(), preset=0))
    for name in ("a.a3m", "b.a3m.gz", "c.a3m.xz"):
        size = peek(tmp_path / name)
        assert (size.length, size.residues) == (200, 2 + 200 - rows[0].count("-"))
        assert size.depth == pytest.approx(5000, rel=0.05)
    long = "A" * 50_000
    (tmp_path / "long.fasta").write_text(f">q\n{long}\n>r\n{long}\n")
    assert peek(tmp_path / "long.fasta") == (2, 50_000, 50_000)
    assert peek(SEED) == (98, 117, 86)  # as the whole file says


def test_size_of_real_files():
    for path in real_alignments():
        family, size = read_alignment(path), peek(path)
        assert (size.length, size.residues) == (family.length, len(family.query))
        assert size.depth == pytest.approx(family.depth, rel=0.15)


def test_size_without_estimating(tmp_path):
    family = read_alignment(SEED)
    assert peek(family) == (98, 117, 86)
    (tmp_path / "family.txt").write_bytes(SEED.read_bytes())  # Stockholm, as the content shows
    assert peek(tmp_path / "family.txt") == (98, 117, 86)
    (tmp_path / "cut.a3m.gz").write_bytes(gzip.compress(b">q\nMKV\n")[:12] + b"xxxxxxxx")
    with pytest.raises(AlignmentError, match=r"cut\.a3m\.gz: the compressed file is damaged"):
        peek(tmp_path / "cut.a3m.gz")
    (tmp_path / "none.a3m").write_text("# nothing\n")
    with pytest.raises(AlignmentError, match="contains no sequence"):
        peek(tmp_path / "none.a3m")


def test_an_alignment_called_like_a_list_is_one(tmp_path):
    """GitHub, for one, takes files called .txt but not .a3m."""
    path = tmp_path / "family.txt"
    for text in (
        ">q\nMKVL\n>r\nMRVL\n",
        "#4\t1\n>q\nMKVL\n",
        "; by hand\n\n>q\nMKVL\n",
        "# STOCKHOLM 1.0\nq MKVL\n//\n",
    ):
        path.write_text(text)
        assert list_alignments(path) == [path]
        assert read_alignment(path).query == "MKVL"
    (tmp_path / "a.a3m").write_text(">q\nMKVL\n")
    path.write_text("# a list\na.a3m\n")
    assert list_alignments(path) == [tmp_path / "a.a3m"]
