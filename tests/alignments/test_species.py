"""Species are read from headers as the databases write them, and never from names that stand for many organisms."""

import pytest

from modeling_msa import Alignment
from modeling_msa.alignments.species import read_species, rows_of_names, shared_species, species_in


def alignment(*names, source=None):
    return Alignment.from_sequences(["MKV"] * len(names), names, source=source)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            "UniRef100_A0A178 Protein n=1 Tax=Fonsecaea erecta TaxID=1367422 RepID=A0A178_9EURO",
            ("1367422", None, None),
        ),
        ("UniRef90_P0A7 n=5 Tax=Escherichia coli TaxID=562 RepID=RS1_ECOLI", ("562", None, "ECOLI")),
        ("sp|P62593|BLAT_ECOLX TEM OS=Escherichia coli OX=562 GN=bla PE=1", ("562", "Escherichia coli", "ECOLX")),
        (
            "tr|G3B3M1|G3B3M1_CANTC X OS=Candida tenuis (strain A / B)",
            (None, "Candida tenuis (strain A / B)", "CANTC"),
        ),
        ("BLAT_ECOLX/24-286", (None, None, "ECOLX")),
        ("up|A0A077REW6|A0A077REW6_WHEAT/30-249", (None, None, "WHEAT")),
        ("tr|E6M|E6M_9FIRM PTS OS=Dorea sp. 5-2 GN=mtlA", (None, "Dorea sp. 5-2", None)),
        # names of many organisms, also where there is a number
        ("UniRef90_A0A2E1 n=2 Tax=Gammaproteobacteria TaxID=1236 RepID=A0A2E1_9GAMM", (None, None, None)),
        ("UniRef90_A n=9 Tax=cellular organisms TaxID=131567 RepID=X1_HUMAN", (None, None, None)),
        ("tr|A|A_9BACT X OS=marine sediment metagenome OX=412755", (None, None, None)),
        ("tr|A|A_9BACT X OS=Gammaproteobacteria bacterium OX=1913989", (None, None, None)),
        ("tr|A|A_9BACT X OS=Pseudomonas sp. OX=306", (None, None, None)),
        ("UPI0001 uncharacterized OS=uncultured archaeon A114 OX=1", (None, None, None)),
        # no entry names
        ("1a3a_1_A", (None, None, None)),
        ("SEQ_1001", (None, None, None)),
        ("UniRef100_X Fer2_BFD domain", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_headers(header, found):
    assert species_in(header) == found


def test_all_rows_are_read_in_the_form_that_most_species_share():
    a = alignment("query", "X1_ECOLI OX=562", "X2_YEAST OX=4932", "X3_YEAST OX=4932", "X4_HUMAN")
    b = alignment("query", "Y1_YEAST", "Y2_HUMAN", "Y3_MOUSE", "Y4 OX=562")
    shared = shared_species(a, b)
    assert shared.form == "entry name (_ECOLI)"
    assert shared.groups == {"YEAST": ([2, 3], [1]), "HUMAN": ([4], [2])}
    assert shared.of_rows == ([None, "ECOLI", "YEAST", "YEAST", "HUMAN"], [None, "YEAST", "HUMAN", "MOUSE", None])


def test_a_table_replaces_the_headers():
    a, b = alignment("query", "one X_ECOLI", "two", "three"), alignment("query", "X_ECOLI", "other row")
    shared = shared_species(a, b, {"one": "yeast", "two": "yeast", "other row": "yeast", "nobody": "mouse"})
    assert (shared.form, shared.groups) == ("table", {"yeast": ([1, 2], [2])})


def test_what_is_lacking_is_said():
    named, bare = alignment("q", "X_ECOLI", source="a.a3m"), alignment("q", "row", source="b.a3m")
    with pytest.raises(ValueError, match=r"^b\.a3m: no header names a species; read are TaxID= .* \(--species\)\.$"):
        shared_species(named, bare)
    with pytest.raises(
        ValueError, match=r"^a\.a3m and c\.a3m share no species \(.*'ECOLI' and 'YEAST'\); pass a table"
    ):
        shared_species(named, alignment("q", "X_YEAST", source="c.a3m"))
    with pytest.raises(ValueError, match=r"^b\.a3m: no row is in the table of species; use the names of the rows\.$"):
        shared_species(named, bare, {"X_ECOLI": "coli"})


def test_names_find_one_row():
    family = alignment("query", "one first", "two second", "two third", source="a.a3m")
    assert rows_of_names(family, ["two third", "one", "one first"], ["p"] * 3) == [3, 1, 1]
    tabs = alignment("query", "one\t0.9\t12")
    assert rows_of_names(tabs, ["one 0.9 12", "one\t0.9\t12", "one"], ["p"] * 3) == [1, 1, 1]
    with pytest.raises(ValueError, match=r"^t\.tsv, line 4: rows 3 and 4 are both named 'two' in a\.a3m; give them"):
        rows_of_names(family, ["two"], ["t.tsv, line 4"])
    with pytest.raises(ValueError, match=r"^t\.tsv, line 2: no row is named 'six' in a\.a3m; use the name"):
        rows_of_names(family, ["six"], ["t.tsv, line 2"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,species\na,coli\nb,yeast\na,coli\n", r"lines 2 and 4 both list 'a' as name; remove one"),
        ("name,species\na,\n", r"line 2 has no species; fill in"),
        ("row,species\na,coli\n", r"no column 'name'; line 1 must name the columns name and species, but has row, sp"),
        ("name,species\n", "no row below the header"),
    ],
)
def test_bad_tables_of_species(text, words, tmp_path):
    (tmp_path / "species.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_species(tmp_path / "species.csv")


def test_a_table_of_species(tmp_path):
    (tmp_path / "species.tsv").write_text("name\tgroup\tspecies\na b\t1\tE. coli \nc\t2\tyeast\n")
    assert read_species(tmp_path / "species.tsv") == {"a b": "E. coli", "c": "yeast"}
