"""The contract of scores of whole sequences.

Each is what fair-esm gives on the alignment with the columns of the sequence, written out by hand here. Substitutions
have the scores that `score_variants` gives, and so have insertions and deletions in a table. What does not fit is an
error before the model runs.
"""

import copy
import csv
import sys

import fair_esm
import numpy as np
import pytest
import torch
from made_up import SHARED, real_data
from small import small_model

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaModel,
    read_alignment,
    score_sequences,
    score_variants,
    write_sequence_scores,
)
from modeling_msa.tasks.sequence_files import write_residues

pytestmark = pytest.mark.usefixtures("one_thread")
ALPHABET = fair_esm.ALPHABET
#        residues 1 to 24; 1, 2 and 13 have no column
ROWS = [
    "mkVLAW-YCDEFgHIKLMNPQRSTV",
    "VIAWGYCDEFaHIKLM-PQRSTV",
    "-LGFAFCDEYHLKLMNPQRATI",
    "VLAW-YC---HIRLMNPKRSSV",
]
QUERY = "MKVLAWYCDEFGHIKLMNPQRSTV"
PLL = {"strategy": "pseudo-log-likelihood"}


@pytest.fixture(scope="module")
def pair(converted):
    theirs, folder = converted("msa-tiny")
    return theirs, MsaForMaskedLM.from_pretrained(folder).eval()


@pytest.fixture
def family():
    return Alignment.from_sequences(ROWS)


def likelihood(model, rows):
    """Log-probabilities of the first row's residues, each masked alone, by fair-esm."""
    tokens = fair_esm.tokens([[(str(k), row) for k, row in enumerate(rows)]])
    logs = []
    for k in range(1, tokens.shape[2]):
        masked = tokens.clone()
        masked[0, 0, k] = ALPHABET.mask_idx
        with torch.no_grad():
            logs.append(torch.log_softmax(model(masked)["logits"], dim=-1)[0, 0, k, tokens[0, 0, k]].item())
    return np.array(logs)


# the family's columns, those with a residue of the query in upper case: 21 columns, by hand
WILD = ["VLAWYCDEFHIKLMNPQRSTV", "VIAWYCDEFHIKLM-PQRSTV", "-LGFFCDEYHLKLMNPQRATI", "VLAWYC---HIRLMNPKRSSV"]
CASES = {
    # after W6 two columns in which the homologs have gaps
    "W6_Y7insGG": (
        "MKVLAWGGYCDEFGHIKLMNPQRSTV",
        ["VLAWGGYCDEFHIKLMNPQRSTV", "VIAW--YCDEFHIKLM-PQRSTV", "-LGF--FCDEYHLKLMNPQRATI", "VLAW--YC---HIRLMNPKRSSV"],
    ),
    # the columns of D9 and E10 are gone, of the homologs too
    "D9_E10del": (
        "MKVLAWYCFGHIKLMNPQRSTV",
        ["VLAWYCFHIKLMNPQRSTV", "VIAWYCFHIKLM-PQRSTV", "-LGFFCYHLKLMNPQRATI", "VLAWYC-HIRLMNPKRSSV"],
    ),
    "L4I:D9del:V24_insH": (
        "MKVIAWYCEFGHIKLMNPQRSTVH",
        ["VIAWYCEFHIKLMNPQRSTVH", "VIAWYCEFHIKLM-PQRSTV-", "-LGFFCEYHLKLMNPQRATI-", "VLAWYC--HIRLMNPKRSSV-"],
    ),
    "D9delinsPGS": (
        "MKVLAWYCPGSEFGHIKLMNPQRSTV",
        ["VLAWYCPGSEFHIKLMNPQRSTV", "VIAWYCD--EFHIKLM-PQRSTV", "-LGFFCD--EYHLKLMNPQRATI", "VLAWYC-----HIRLMNPKRSSV"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("variant", CASES)
def test_by_hand(pair, family, variant):
    """In float32 each logarithm to 1e-5; in float64 also the sums, as a sequence and as a variant of a table."""
    sequence, rows = CASES[variant]
    theirs, ours = pair
    assert len({len(row) for row in rows}) == 1
    expected, own = likelihood(theirs, rows), likelihood(theirs, WILD)
    result = score_sequences(family, [sequence], ours, mode="exact")
    assert result.residues[0].letters == rows[0]
    assert np.abs(result.residues[0].log_probability - expected).max() <= 1e-5
    assert np.abs(result.query_residues.log_probability - own).max() <= 1e-5
    theirs, ours = (copy.deepcopy(model).double() for model in pair)
    expected, own = likelihood(theirs, rows), likelihood(theirs, WILD)
    result = score_sequences(family, [sequence], ours, mode="exact")
    assert result.sum[0] == pytest.approx(expected.sum(), abs=1e-9)
    assert result.mean[0] == pytest.approx(expected.mean(), abs=1e-9)
    assert result.difference[0] == pytest.approx(expected.sum() - own.sum(), abs=1e-9)
    corrected = len(own) * (expected.mean() - own.mean())
    assert result.score[0] == pytest.approx(corrected, abs=1e-9)
    assert score_variants(family, [variant], ours, **PLL).score[0] == pytest.approx(corrected, abs=1e-9)
    assert abs(corrected) > 0.1


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_substitutions_are_those_of_a_table(pair, family, mode):
    _, ours = pair
    variants = ["L4I", "V3A:W6F:V24L", "A5C:W6C:Y7C", "WT"]
    sequences = ["MKVIAWYCDEFGHIKLMNPQRSTV", "MKALAFYCDEFGHIKLMNPQRSTL", "MKVLCCCCDEFGHIKLMNPQRSTV", QUERY.lower()]
    expected = score_variants(family, variants, ours, mode=mode, **PLL)
    result = score_sequences(family, sequences, ours, mode=mode, offset=0)
    assert result.variants == tuple(variants)
    assert np.abs(result.score - expected.score).max() <= 1e-6
    assert np.abs(result.difference - expected.score).max() <= 1e-6
    assert result.score[3] == 0
    assert np.abs(expected.score[:3]).min() > 0.1


def test_indels_of_a_table_are_those_of_sequences(pair, family):
    """In every notation; and where residues repeat the same protein has the same score, however it is written."""
    _, ours = pair
    notations = {
        "p.Ala5del": "MKVLWYCDEFGHIKLMNPQRSTV",
        "p.(Asp9_Phe11del)": "MKVLAWYCGHIKLMNPQRSTV",
        "NP_1.2:p.Ala5_Trp6insGlyGly": "MKVLAGGWYCDEFGHIKLMNPQRSTV",
        "A5delinsGG": "MKVLGGWYCDEFGHIKLMNPQRSTV",
        "p.Asp9_Phe11delinsGly": "MKVLAWYCGGHIKLMNPQRSTV",
        "A5_W6dup": "MKVLAWAWYCDEFGHIKLMNPQRSTV",
        "L4_A5insAW:Y7F": "MKVLAWAWFCDEFGHIKLMNPQRSTV",
        "p.[Ala5del;Ser22Thr]": "MKVLWYCDEFGHIKLMNPQRTTV",
        "V24_insGS": QUERY + "GS",
    }
    for mode in ("exact", "fast"):
        expected = score_variants(family, list(notations), ours, mode=mode, **PLL).score
        result = score_sequences(family, list(notations.values()), ours, mode=mode)
        assert np.abs(result.score - expected).max() <= 1e-5
        assert len(set(expected)) == len(expected)
        assert score_variants(family, result.variants, ours, mode=mode, **PLL).score == pytest.approx(
            expected, abs=1e-5
        )
    same = ["A5_W6dup", "W6_Y7insAW", "L4_A5insAW", "A5_W6insWA"]
    scores = score_variants(family, same, ours, **PLL).score
    assert len(set(scores)) == 1


def test_tables_of_variants_do_not_need_pyhmmer(pair, family, monkeypatch):
    _, ours = pair
    monkeypatch.setitem(sys.modules, "pyhmmer", None)
    assert np.isfinite(score_variants(family, ["p.Ala5del"], ours, **PLL).score).all()
    with pytest.raises(ImportError, match=r"modeling-msa\[search\]"):
        score_sequences(family, [QUERY], ours)


def test_fast_is_exact_without_homologs():
    model = small_model(MsaForMaskedLM)
    family = Alignment.from_sequences([QUERY])
    sequences = [QUERY[:5] + QUERY[6:], QUERY[:9] + "GGS" + QUERY[9:], "A" + QUERY[1:]]
    exact, fast = (score_sequences(family, sequences, model, mode=mode) for mode in ("exact", "fast"))
    assert np.abs(exact.score).max() > 1
    assert np.abs(fast.score - exact.score).max() <= 1e-4  # sums of 24 logarithms
    assert score_sequences(family, sequences, model).score == pytest.approx(fast.score, abs=1e-6)  # the default


def test_length_is_corrected_for():
    """A model that finds every token as probable as any other: the sums differ, the scores do not."""
    model = small_model(MsaForMaskedLM)
    with torch.no_grad():
        for parameter in model.lm_head.parameters():
            parameter.zero_()
    sequences = [QUERY[:5] + QUERY[8:], QUERY[:9] + "GGS" + QUERY[9:], QUERY]
    result = score_sequences(Alignment.from_sequences([QUERY]), sequences, model)
    each = -np.log(model.config.vocab_size)
    assert result.sum == pytest.approx([21 * each, 27 * each, 24 * each])
    assert result.mean == pytest.approx([each] * 3)
    assert result.difference == pytest.approx([-3 * each, 3 * each, 0])
    assert np.abs(result.score).max() < 1e-9


def test_ensembles(pair, family):
    _, ours = pair
    sequences = [QUERY[:5] + QUERY[6:], "MKALAWYCDEFGHIKLMNPQRSTV"]
    options = {"rows": 2, "select": "random"}
    singles = [score_sequences(family, sequences, ours, seed=seed, **options) for seed in (1, 2, 3, 4)]
    result = score_sequences(family, sequences, ours, seed=range(1, 5), **options)
    assert result.per_seed == pytest.approx(np.array([each.score for each in singles]))
    assert result.score == pytest.approx(np.mean([each.score for each in singles], 0))
    assert result.score_std == pytest.approx(np.std([each.score for each in singles], 0, ddof=1))
    assert (result.score_std > 0).all()
    for name in ("sum", "mean", "difference"):
        assert getattr(result, name) == pytest.approx(np.mean([getattr(each, name) for each in singles], 0))
    logs = np.mean([each.residues[0].log_probability for each in singles], 0)
    assert result.residues[0].log_probability == pytest.approx(logs)
    assert (result.seeds, result.depth) == ((1, 2, 3, 4), 2)


def test_windows_of_a_long_sequence():
    """A model of 31 residues and a query of 40: as for substitutions, in windows around each residue."""
    model = small_model(MsaForMaskedLM)
    random = np.random.default_rng(0)
    query = "".join(random.choice(list("ACDEFHIKLMNPQRSTVWY"), 40))  # without G
    rows = [query, "".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY-"), 40))]
    longer = query[:20] + "GGSGG" + query[20:]
    substituted = "A" + query[1:] if query[0] != "A" else "C" + query[1:]
    family = Alignment.from_sequences(rows)
    result = score_sequences(family, [longer, substituted], model, mode="exact")
    expected = score_variants(family, [result.variants[1]], model, **PLL)
    assert result.score[1] == pytest.approx(expected.score[0], abs=1e-6)
    recolumned = Alignment.from_sequences([longer, rows[1][:20] + "-----" + rows[1][20:]])
    whole = score_sequences(recolumned, [longer], model, mode="exact")
    assert result.sum[0] == pytest.approx(whole.sum[0], abs=1e-5)
    assert len(result.residues[0].letters) == 45


def test_what_does_not_fit_is_named_before_the_model_runs(pair, family):
    _, ours = pair
    bad = [QUERY, "GGGGGGGGGGGG", QUERY[:3], QUERY[2:], QUERY[:12] + "U" + QUERY[12:]]
    names = ["fine", "unrelated", "short", "cut", "odd"]
    with pytest.raises(
        ValueError, match=r"v.fasta: 4 sequences do not fit the query: unrelated: it does not"
    ) as error:
        score_sequences(family, bad, None, names=names, source="v.fasta")
    for words in ("short: ", "cut: residue 1 (M) is in lower case", "odd: near residue 12, U is not one"):
        assert words in str(error.value)
    kept = score_sequences(family, bad, ours, names=names, skip_mismatches=True)
    assert [bool(reason) for reason in kept.reason] == [False, True, True, True, True]
    assert np.isfinite(kept.score).tolist() == [True, False, False, False, False]
    assert kept.variants == ("WT", "", "", "", "")
    assert kept.residues[1] is None
    with pytest.raises(ValueError, match=r"t.csv: line 7 \(x\): it does not align"):
        score_sequences(family, bad[1:2], ours, names=["x"], source="t.csv", lines=[7], skip_mismatches=True)
    with pytest.raises(TypeError, match="not MsaModel"):
        score_sequences(family, [QUERY], small_model(MsaModel))
    assert score_sequences(family, [], ours).score.shape == (0,)


def test_variants_that_cannot_be_scored(pair, family):
    _, ours = pair
    cases = {
        "M1del": "residue 1 (M) is in lower case",
        "E10_H13del": "residue 12 (G) is in lower case",
        "M1_K2insA": "residue 2 (K) is in lower case",
        "V3_F11del:H13_I14del": "it has residues in 10 of the query's 21 columns",
        "L4_W6insG": "its residues are 4 and 6, but an insertion lies between two neighbours",
        "W6_L4del": "its residues are 6 and 4, but the first residue comes first",
        "L4_A5ins5": "an insertion, deletion or frameshift that cannot be read",
        "L4_A5ins": "an insertion or deletion that cannot be read",
        "L4insG": "an insertion or deletion that cannot be read",
        "L4_insG": "an insertion has two neighbours",
        "L4_A5del3": "an insertion, deletion or frameshift that cannot be read",
        "L4delA": "an insertion or deletion that cannot be read",
        "L4_A5insGX": "X is not one of the 20 amino acids",
        "p.Leu4_Ala5insGlyTer": "an insertion, deletion or frameshift",
        "p.Leu4fs": "an insertion, deletion or frameshift",
        "L4del:L4A": "two of its changes overlap",
        "L4_W6del:A5_W6insG": "two of its changes overlap",
        "L30del": "there is no residue 30; the query has 1 to 24",
        "L4*": "a stop",
    }
    result = score_variants(family, ["A5del", *cases], ours, **PLL)
    assert np.isfinite(result.score[0])
    for reason, words in zip(result.reason[1:], cases.values(), strict=True):
        assert reason.startswith(words), (reason, words)
    with pytest.raises(ValueError, match="All wild types fit with the offset 100"):
        score_variants(family, ["A105del", "L104_A105insG"], ours, **PLL)
    with pytest.raises(ValueError, match=r"1 of 1 variants .* Mismatches: L5 \(A\)"):
        score_variants(family, ["L5del"], ours, **PLL)
    # with the others: words, and the line
    with pytest.raises(ValueError, match=r"t.csv: line 3 \(A5del\): an insertion.*pseudo-log-likelihood scores ins"):
        score_variants(family, ["A5del"], ours, source="t.csv", lines=[3])


def test_tables(pair, family, tmp_path):
    """A row for each sequence; and for each residue, with that of the query beside it."""
    _, ours = pair
    sequences = ["MKVLAWGYCDEFGHIKLMNPQRSTV", "MKVIWYCDEFGHIKLMNPQRSTV", "WWWWWWW"]
    names = ["in", "out, twice", "bad"]
    result = score_sequences(family, sequences, ours, names=names, offset=-5, skip_mismatches=True)
    write_sequence_scores(result, tmp_path / "s.csv")
    write_residues(result, tmp_path / "r.tsv")
    with open(tmp_path / "s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    added = ["score", "score_sum", "score_mean", "score_difference", "score_residues", "score_variant", "reason"]
    assert list(rows[0]) == ["name", *added]
    assert [row["name"] for row in rows] == names
    assert [row["score_variant"] for row in rows] == ["W1_Y2insG", "L-1I:A0del", ""]
    assert [row["score_residues"] for row in rows] == ["22", "20", ""]
    for name, values in (("score", result.score), ("score_sum", result.sum), ("score_mean", result.mean)):
        assert [float(row[name]) for row in rows[:2]] == pytest.approx(values[:2], abs=1e-6)
    assert rows[2]["score"] == ""
    assert rows[2]["reason"].startswith("it does not align")
    with open(tmp_path / "r.tsv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 42
    assert [rows[k]["name"] for k in (0, 21, 22, 41)] == ["in", "in", "out, twice", "out, twice"]
    fourth, inserted = rows[3], rows[4]
    assert list(fourth.values())[:5] == ["in", "6", "W", "1", "W"]
    assert list(inserted.values())[:5] == ["in", "7", "G", "", ""]
    assert inserted["query_log_probability"] == ""
    own = result.query_residues.log_probability
    assert float(fourth["query_log_probability"]) == pytest.approx(own[3], abs=1e-6)
    assert float(rows[4]["log_probability"]) == pytest.approx(result.residues[0].log_probability[4], abs=1e-6)
    assert [list(rows[k].values())[1:5] for k in (22, 23, 24)] == [
        ["3", "V", "-2", "V"],
        ["4", "I", "-1", "L"],
        ["5", "W", "1", "W"],
    ]


@real_data
def test_indels_of_tem1(pair):
    """Residues 1 to 23 are in lower case: a whole protein lacks residue 100, another one has two more."""
    _, ours = pair
    family = read_alignment(SHARED / "fitness" / "blat_ecolx.a2m")
    query = family.query
    sequences = [query[:99] + query[100:], query[:150] + "GG" + query[150:], query[:59] + "A" + query[60:]]
    result = score_sequences(family, sequences, ours, rows=4, select="first", window=40)
    expected = score_variants(family, result.variants, ours, rows=4, select="first", window=40, mode="fast", **PLL)
    assert result.score == pytest.approx(expected.score, abs=1e-4)
    assert np.isfinite(result.score).all()
