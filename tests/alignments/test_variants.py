"""Contract of `modeling_msa.alignments.variants`.

- Variants are numbered on the query's residues from 1, and checked all at once before any is used.
- The query's row changes, nothing else.
"""

import re

import pytest

from modeling_msa import Alignment
from modeling_msa.alignments.variants import check_variants, mutate, parse_variants, read_variants, variant_name


def test_variants_by_hand():
    family = Alignment.from_sequences(["mKV-L", "RVAL"])
    assert parse_variants(["K102R:L104I", "WT"], family, offset=100) == [(("K", 2, "R"), ("L", 4, "I")), ()]
    mutant = mutate(family, parse_variants(["K2R:L4I"], family)[0])
    assert (mutant.query, mutant.sequences, mutant.raw_rows) == ("MRVI", ["RV-I", "RVAL"], (b"mRV-I", b"RVAL"))
    assert family.sequences == ["KV-L", "RVAL"]
    for variants, message in (
        (["K2"], "a substitution is written like A42V"),
        (["K2*"], "a substitution is written like A42V"),
        (["K2X"], "X is not one of the 20 amino acids"),
        (["K2R:K2A"], "one residue is replaced twice"),
        (["L5A"], "there is no residue 5; the query has 1 to 4"),
        (["M1A"], "residue 1 .M. is in lower case in the query, so no column of the alignment covers it"),
        (["K2R", "A2R", "A3R", "A4R"], r"3 substitutions do not fit the query: A2R: residue 2 of the query is K"),
        (["K12R", "L14A"], r"2 substitutions .* All wild types fit with offset=10\."),
    ):
        with pytest.raises(ValueError, match=message):
            parse_variants(variants, family)


def test_tables_of_variants(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("mutant,score,other\nK2R,0.5,1\n")
    assert read_variants(table, score_column="score") == [("K2R", 0.5, 2)]
    with pytest.raises(ValueError, match="score_column is None, but the columns are mutant, score, other"):
        read_variants(table)
    with pytest.raises(ValueError, match="variant_column is 'variant'"):
        read_variants(table, "variant", "score")
    table.write_text("mutant,score\nK2R,0.5\nK2A,\nK2C,n/a\n")
    with pytest.raises(ValueError, match=r"2 scores in score are not numbers; .* line 3 \(K2A\): ''. line 4"):
        read_variants(table)
    table.write_text("mutant,score\n")
    with pytest.raises(ValueError, match="the table has no row"):
        read_variants(table)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NP_000537.3:p.Lys2Arg", "K2R"),
        ("TP53:p.K2R", "K2R"),
        ("p.(Lys2Arg)", "K2R"),
        ("p.[(Lys2Arg);(Leu4Ile)]", "K2R:L4I"),
        ("ENSP1.2:p.[Lys2Arg;Leu4=]", "K2R:L4L"),
        ("p.Met1_Val3=", "M1M:V3V"),
    ],
)
def test_other_forms_of_hgvs(text, expected):
    family = Alignment.from_sequences(["MKVL"])
    assert parse_variants([text], family) == parse_variants([expected], family)


@pytest.mark.parametrize("text", ["p.[Lys2Arg];[Leu4Ile]", "p.[Lys2Arg] ; [Leu4=]", "p.(Lys2Arg)(;)(Leu4Ile)"])
def test_changes_of_two_alleles_are_not_one_protein(text):
    complexed = Alignment.from_sequences(["MKVLA"], chains="4,1")
    for of, family in (("", Alignment.from_sequences(["MKVL"])), ("A:", complexed)):
        _, misfits = check_variants([of + text], family)
        assert [each.kind for each in misfits[0]] == ["notation"]
        assert misfits[0][0].words.startswith("two alleles, or changes that may be of two")


def test_residues_in_lower_case_have_a_remedy():
    family = Alignment.from_sequences(["mkvL", "A"])
    with pytest.raises(ValueError, match=r"2 substitutions do not fit .* pass format='fasta'"):
        parse_variants(["M1A", "K2R"], family)
    with pytest.raises(ValueError, match=r"variant|1 of the query"):
        parse_variants(["M1A", "K3R"], family)


def test_variants_of_a_complex():
    """Each chain is numbered on its own: of A are the residues 1 to 3 of the query, of B 4 to 7."""
    family = Alignment.from_sequences(["MKVLAWY"], chains="3,4")
    texts = ["A:K2R", "B:W3Y", "A:K2R:V3I:B:L1M", "B:L1M:A:K2R", "B:p.Trp3Tyr", "A:p.[Lys2Arg;Val3Ile]", "WT"]
    parsed = parse_variants(texts, family)
    alone = parse_variants(["K2R", "W6Y", "K2R:V3I:L4M", "K2R:L4M", "W6Y", "K2R:V3I", "WT"], family.with_chains(()))
    assert parsed == alone
    assert [variant_name(each, family.chains) for each in parsed[:3]] == ["A:K2R", "B:W3Y", "A:K2R:A:V3I:B:L1M"]
    assert parse_variants([variant_name(parsed[2], family.chains)], family) == parsed[2:3]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("K2R", "notation", "'K2R' has no chain; in a complex a substitution is written like A:A42V"),
        ("C:K2R", "notation", "'C' has no chain; .* the chains are A, B"),
        ("A:L4M", "range", "there is no residue A:4; chain A has 1 to 3"),
        ("B:K2R", "wild type", "residue B:2 of the query is A, not K"),
        ("A:K2del", "notation", "an insertion, deletion or frameshift; in a complex only substitutions"),
        ("A:K2R:K2V", "notation", "one residue is replaced twice"),
        ("A:", "notation", "empty"),
        ("A", "notation", "no substitution; in a complex one is written like A:A42V"),
        ("A:K2*", "notation", "a stop"),
    ],
)
def test_misfits_of_a_complex(text, kind, words):
    family = Alignment.from_sequences(["MKVLAWY"], chains="3,4")
    _, misfits = check_variants([text], family, indels=True)
    assert [each.kind for each in misfits[0]] == [kind]
    assert re.search(words, misfits[0][0].words)


def test_a_complex_has_no_offset():
    family = Alignment.from_sequences(["MKVLAWY"], chains="3,4")
    with pytest.raises(ValueError, match=r"an offset of residue numbers .10. is for one protein"):
        check_variants(["A:K12R"], family, offset=10)
