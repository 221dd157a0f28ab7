"""The contract of profiles.

The probabilities are the model's where a residue is masked, called by hand, and their log ratios are the scores of
masked marginals, in both modes. Frequencies are those of all rows, by weight, and nothing is added to them.
"""

import numpy as np
import pytest
import torch
from families import family
from small import small_model

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaModel,
    MsaTokenizer,
    predict_profile,
    score_all_singles,
    select_rows,
    write_profile,
)

pytestmark = pytest.mark.usefixtures("one_thread")
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def test_probabilities_by_hand():
    """Each residue masked, one call of the model on the whole alignment; the 20 add up to 1."""
    model, alignment = small_model(MsaForMaskedLM), family("f", 5, 11, 0)
    profile = predict_profile(alignment, model)
    tokens = MsaTokenizer()(alignment, return_tensors="pt")["input_ids"]
    letters = MsaTokenizer()(LETTERS)["input_ids"][0][0][1:]
    for k in range(11):
        masked = tokens.clone()
        masked[0, 0, 1 + k] = 32
        with torch.no_grad():
            everything = model(masked).logits[0, 0, 1 + k].double().softmax(-1)
        known = everything[letters]
        assert profile.probabilities[k] == pytest.approx((known / known.sum()).numpy(), abs=1e-6)
        assert profile.other[k] == pytest.approx(1 - known.sum().item(), abs=1e-6)
        p = (known / known.sum()).numpy()
        assert profile.entropy[k] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
    assert np.allclose(profile.probabilities.sum(1), 1, rtol=0, atol=1e-12)
    assert (profile.wild_type, profile.residues.tolist(), profile.depth) == (alignment.query, list(range(1, 12)), 5)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_log_ratios_are_the_scores_of_masked_marginals(mode):
    """Also in windows, of chosen rows, with numbers of another protein and residues without a column."""
    model = small_model(MsaForMaskedLM)
    rows = family("f", 12, 21, 1).sequences
    alignment = Alignment.from_sequences(["mk" + rows[0], *rows[1:]])
    options = {"mode": mode, "rows": 6, "window": 8, "offset": 100}
    profile = predict_profile(alignment, model, **options)
    scores = score_all_singles(alignment, model, strategy="masked-marginals", **options)
    logs = np.log(profile.probabilities)
    wild = [LETTERS.index(letter) for letter in profile.wild_type]
    assert np.abs(logs - logs[np.arange(21), wild][:, None] - scores.score).max() <= 1e-5
    assert np.array_equal(profile.residues, scores.residues)
    assert profile.residues[0] == 103
    assert profile.wild_type == scores.wild_type == rows[0]


def test_the_familys_frequencies_are_weighted_and_of_all_rows():
    """Rows 2 and 3 are alike, and count half each; the model sees the query and one other row."""
    alignment = Alignment.from_sequences(["MKVLA", "WWWWC", "WWWWC", "MKVL-"])
    profile = predict_profile(alignment, small_model(MsaForMaskedLM), rows=2, select="first")
    # the query and row 4 are neighbours: row 4 has 4 of 4 residues of the query, the query only 4 of its 5 (80 %)
    assert profile.neff == pytest.approx(2.0)
    assert profile.frequencies[0, [LETTERS.index("M"), LETTERS.index("W")]] == pytest.approx([0.5, 0.5])
    assert profile.frequencies[4, [LETTERS.index("A"), LETTERS.index("C")]] == pytest.approx([1 / 3, 2 / 3])
    assert profile.gaps == pytest.approx([0, 0, 0, 0, 0.25])
    assert profile.family_entropy[:4] == pytest.approx(np.log(2))
    assert profile.depth == 2
    seen = predict_profile(alignment, small_model(MsaForMaskedLM), rows=2, select="first", frequencies="seen")
    assert seen.neff == 2
    assert seen.frequencies[4, [LETTERS.index("A"), LETTERS.index("C")]].tolist() == [0.5, 0.5]
    chosen = predict_profile(select_rows(alignment, 2, "first"), small_model(MsaForMaskedLM))
    assert np.array_equal(chosen.frequencies, seen.frequencies)


def test_columns_of_the_query_and_odd_letters():
    """A column without a residue of the query is left out; X is masked like any residue, and is not counted."""
    alignment = Alignment.from_sequences(["M-XV", "MAXV", "MA-V"])
    profile = predict_profile(alignment, small_model(MsaForMaskedLM))
    assert (profile.wild_type, profile.residues.tolist()) == ("MXV", [1, 2, 3])
    assert np.isfinite(profile.probabilities).all()
    assert np.isnan(profile.frequencies[1]).all()
    assert np.isnan(profile.family_entropy[1])


def test_errors_before_the_model_runs(monkeypatch):
    model, alignment = small_model(MsaForMaskedLM), family("f", 5, 11, 0)
    monkeypatch.setattr(MsaModel, "prepare", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match="unknown choice of rows to count 'some'; use all or seen"):
        predict_profile(alignment, model, frequencies="some")
    with pytest.raises(ValueError, match="unknown mode 'quick'"):
        predict_profile(alignment, model, mode="quick")
    with pytest.raises(TypeError, match="requires a model with a language model head"):
        predict_profile(alignment, model.msa)


def test_files_hold_the_profile(tmp_path):
    """Log ratios of the table are those of the arrays to 1e-6."""
    profile = predict_profile(Alignment.from_sequences(["MKXVL", "MRXV-"]), small_model(MsaForMaskedLM), offset=9)
    write_profile(profile, tmp_path / "p.tsv")
    header, *lines = [line.split("\t") for line in (tmp_path / "p.tsv").read_text().splitlines()]
    assert header[:7] == ["residue", "wild_type", "entropy", "family_entropy", "other", "gaps", "p_A"]
    assert (header[-1], len(header), len(lines)) == ("f_Y", 46, 5)
    assert [line[:2] for line in lines] == [["10", "M"], ["11", "K"], ["12", "X"], ["13", "V"], ["14", "L"]]
    assert lines[2][26:] == [""] * 20  # no row has one of the 20 amino acids there
    assert lines[4][5] == "0.5"
    p = np.array([[float(cell) for cell in line[6:26]] for line in lines])
    assert np.abs(np.log(p) - np.log(profile.probabilities)).max() <= 1e-6
    write_profile(profile, tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(vars(profile)) - {"chains"}
        assert np.array_equal(arrays["probabilities"], profile.probabilities)
        assert str(arrays["wild_type"]) == "MKXVL"
    with pytest.raises(ValueError, match=r"unknown output format '.csv'; use .tsv or .npz"):
        write_profile(profile, tmp_path / "p.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.npz", "p.tsv"]
