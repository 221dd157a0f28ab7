"""What `alignment_statistics` counts, by hand, and what it warns of."""

import json
import re

import numpy as np
import pytest
from made_up import SEED

from modeling_msa import Alignment, alignment_statistics, read_alignment, write_statistics
from modeling_msa.alignments.statistics import describe

# the query has residue 1 in lower case and a gap in column 3; columns of the query: K V L A
SMALL = Alignment.from_sequences(
    ["mKV-LA", "KVGLA", "KIaGL-", "KV-LA", "-X--B", "-----"], ["the query", "b", "c", "d", "e", "f"]
)


def test_every_number_by_hand():
    found = alignment_statistics(SMALL)
    assert (found.name, found.query, found.residues.tolist(), found.query_gaps) == (
        "the query",
        "MKVLA",
        [2, 3, 4, 5],
        1,
    )
    assert (found.depth, found.passing, found.rows.tolist()) == (6, 6, [0, 1, 2, 3, 4, 5])
    # KVLA three times; KIL- (alone: one of its three residues differs from theirs); XB and nothing
    np.testing.assert_allclose(found.weights, [1 / 3, 1 / 3, 1, 1 / 3, 1, 0])
    assert found.neff == found.neff_seen == pytest.approx(3)
    np.testing.assert_allclose(found.coverage, [4 / 6, 4 / 6, 4 / 6, 4 / 6])  # X is no residue, B is one (D)
    np.testing.assert_allclose(found.identity, [3 / 3, 2 / 3, 3 / 3, 2 / 3])
    np.testing.assert_allclose(found.row_coverage, [1, 1, 3 / 4, 1, 1 / 4, 0])
    np.testing.assert_allclose(found.row_identity, [1, 1, 2 / 3, 1, 0, np.nan])
    np.testing.assert_allclose(found.quartiles("row_identity"), [0.5, 5 / 6, 1])
    assert found.gaps == pytest.approx(7 / 24)
    # G of rows 2 and 3 in the column of the query's gap, and a of row 3
    assert (found.insertions, found.rows_with_insertions) == (3, 2)
    assert found.odd_letters == {"B": 1, "X": 1}
    assert found.duplicates == 2


def test_rows_that_pass_the_filters_and_rows_that_are_seen():
    found = alignment_statistics(SMALL, rows=2, select="first", coverage=75)
    assert (found.depth, found.passing, found.rows.tolist()) == (6, 4, [0, 1])
    assert found.neff_seen == pytest.approx(1)  # KVLA twice
    assert found.neff == pytest.approx(3)  # of all rows


def test_a_single_row():
    found = alignment_statistics(Alignment.from_sequences(["MKV"]))
    assert found.neff == 1
    assert np.isnan(found.identity).all()
    assert np.isnan(found.quartiles("row_identity")).all()
    assert "to the query: -" in describe(found)
    assert found.warnings == ("There is a single row; the model relies on homologs, so expect little of the results.",)


RNG = np.random.default_rng(0)
DIVERSE = ["".join(RNG.choice(list("ACDEFGHIKLMNPQRSTVWY"), 40)) for _ in range(40)]


def close(query, changes=20):
    """Rows that are about half identical to the query."""
    places = [RNG.permutation(len(query))[:changes] for _ in range(40)]
    return [
        query,
        *(
            "".join("ACDEFGHIKLMNPQRSTVWY"[RNG.integers(20)] if k in p else c for k, c in enumerate(query))
            for p in places
        ),
    ]


GOOD = close(DIVERSE[0])
WARNINGS = {
    "few homologs": (GOOD[:3] * 10, {}, r"few different homologs \(Neff 3.0, less than 16\)"),
    "filter": (GOOD, {"identity": 20}, "The filters leave .* of 41: relax them"),
    "lower case": (
        [GOOD[0][:3].lower() + GOOD[0][3:], *(row[3:] for row in GOOD[1:])],
        {},
        r"3 of the query's 40 residues.*: 1-3\.$",
    ),
    "fragments": ([GOOD[0], *(row[:15] + "-" * 25 for row in GOOD[1:])], {}, "100 % of the rows cover less than 50 %"),
    "thin columns": ([GOOD[0], *("-" * 4 + row[4:] for row in GOOD[1:])], {}, r"in 4 columns, .*: residues 1-4\.$"),
    "gaps": ([GOOD[0], *(row[:20] + "-" * 20 for row in GOOD[1:])], {}, "49 % of the alignment are gaps"),
    "unrelated": (DIVERSE, {}, "less than 20 % identical to the query"),
    "duplicates": ([*GOOD, *GOOD[1:11]], {}, "10 rows of 51 repeat an earlier one"),
    "odd letters": ([GOOD[0], *(row[:38] + "XX" for row in GOOD[1:])], {}, r"4.9 % of the alignment are .* \(X\)"),
    "long": (close("ACDEFGHIKL" * 103, 500), {}, "1,030 aligned residues; the published models read 1,023"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warnings(name):
    rows, options, words = WARNINGS[name]
    warnings = alignment_statistics(Alignment.from_sequences(rows), **options).warnings
    assert any(re.search(words, each) for each in warnings), warnings


def test_a_good_alignment_has_no_warning():
    assert alignment_statistics(Alignment.from_sequences(GOOD)).warnings == ()


def test_files(tmp_path):
    single = Alignment.from_sequences(["MKV"], ["a\tname"])
    found = {"small.a3m": alignment_statistics(SMALL), "single.a3m": alignment_statistics(single)}
    write_statistics(tmp_path / "all.tsv", found)
    header, *lines = [line.split("\t") for line in (tmp_path / "all.tsv").read_text().splitlines()]
    table = [dict(zip(header, line, strict=True)) for line in lines]
    assert [line["alignment"] for line in table] == ["small.a3m", "single.a3m"]
    assert (table[0]["rows"], table[0]["neff"], table[0]["gaps"]) == ("6", "3", "0.291667")
    assert (table[0]["identity_q1"], table[0]["odd_letters"]) == ("0.5", "B:1,X:1")
    assert (table[1]["query"], table[1]["identity_q1"]) == ("a name", "")
    write_statistics(tmp_path / "all.json", found)
    first, second = json.loads((tmp_path / "all.json").read_text())
    assert first["coverage"] == [0.666667] * 4
    assert first["residues"] == [2, 3, 4, 5]
    assert first["warnings"] == list(found["small.a3m"].warnings)
    assert (second["identity"], second["identity_median"]) == ([None] * 3, None)
    with pytest.raises(ValueError, match=r"unknown output format '.txt'"):
        write_statistics(tmp_path / "all.txt", found)
    assert len(list(tmp_path.iterdir())) == 2


def test_warnings_of_a_complex_are_by_chain():
    """Residues without a column, thin columns, and chains that no row has together."""
    query = "mKVLAWYC" + "DEFGHIkL"
    others = ["-" * 7 + "DEFGHIL", "KVLAWYC" + "-" * 7, "KVLAWYC" + "-" * 7, "KVLAWYC" + "-" * 7]
    found = alignment_statistics(Alignment.from_sequences([query, *others], chains="8,8"))
    assert (found.rows_by_chain.tolist(), found.paired) == ([4, 2], 1)
    text = " ".join(found.warnings)
    assert (
        "2 of the query's 16 residues are in lower case and have no column, so no result covers them: A:1,B:7." in text
    )
    assert "No row but the query has residues in more than one chain" in text
    rows = ["MKVLAW", "MKVL--", "MK--AW"]
    found = alignment_statistics(Alignment.from_sequences(rows, chains=[2, 2, 2]))
    assert found.paired == 1
    assert [each for each in found.warnings if each.startswith("No row")] == [
        "No row but the query has residues in both chains of B-C, so there is nothing to learn of pairs between these "
        "chains."
    ]
    rows = [query, *["-" * 14] * 5, "KVLAWYCDE-----"]
    found = alignment_statistics(Alignment.from_sequences(rows, chains="8,8"))
    assert "in 14 columns, so results there rest on few sequences: residues A:2-8,B:1-6,B:8." in " ".join(
        found.warnings
    )


def test_a_family_of_pfam():
    """By other means: the columns of its query, and its letters."""
    family = read_alignment(SEED)
    found = alignment_statistics(family, rows=16)
    columns = [k for k, letter in enumerate(family.sequences[0]) if letter != "-"]
    rows = ["".join(row[k] for k in columns) for row in family.sequences]
    assert found.query_gaps == family.length - len(columns)
    assert found.gaps == pytest.approx("".join(rows).count("-") / (98 * 86))
    inside = sum(len(row.replace("-", "")) for row in family.sequences[1:])
    assert found.insertions == inside - sum(len(row.replace("-", "")) for row in rows[1:])
    assert len(found.rows) == 16
