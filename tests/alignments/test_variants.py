"""Contract of `modeling_msa.alignments.variants`.

- Variants are numbered on the query's residues from 1, and checked all at once before any is used.
- The query's row changes, nothing else.
"""

import pytest

from modeling_msa import Alignment
from modeling_msa.alignments.variants import mutate, parse_variants, read_variants


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


def test_residues_in_lower_case_have_a_remedy():
    family = Alignment.from_sequences(["mkvL", "A"])
    with pytest.raises(ValueError, match=r"2 substitutions do not fit .* pass format='fasta'"):
        parse_variants(["M1A", "K2R"], family)
    with pytest.raises(ValueError, match=r"variant|1 of the query"):
        parse_variants(["M1A", "K3R"], family)
