"""A report's numbers are those of the tasks with the same rows, and what it adds to them is right by hand."""

import dataclasses

import numpy as np
import pytest
from families import family
from small import small_model

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    alignment_statistics,
    coevolution,
    make_report,
    predict_contacts,
    predict_profile,
    prepare_alignment,
    score_all_singles,
)

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = {"rows": 6, "select": "random", "seed": 3, "coverage": 60.0}


def make_family():
    """14 rows; the query has two residues in lower case, a gap and an X."""
    rows = family("f", 14, 20, seed=1).sequences
    rows = [row[:9] + "A" + row[10:] for row in rows]
    rows[0] = "mk" + rows[0][:5] + "X" + rows[0][6:9] + "-" + rows[0][10:]
    rows[7] = "-" * 15 + rows[7][15:]  # does not pass the filter
    return Alignment.from_sequences(rows)


@pytest.fixture(scope="module")
def model():
    return small_model(MsaForMaskedLM)


@pytest.fixture(scope="module")
def report(model):
    return make_report(make_family(), model, **ROWS, baselines=["dca", "mi"])


def test_the_same_numbers_as_each_task(report, model):
    alignment = make_family()
    contacts = predict_contacts(alignment, model, **ROWS)
    assert np.array_equal(report.contacts.probabilities, contacts.probabilities)
    assert np.array_equal(report.contacts.residues, contacts.residues)
    assert (report.contacts.residues[0], report.contacts.residues[-1]) == (3, 21)
    profile = predict_profile(alignment, model, mode="fast", **ROWS)
    for field in dataclasses.fields(profile):
        np.testing.assert_array_equal(getattr(report.profile, field.name), getattr(profile, field.name))
    scores = score_all_singles(alignment, model, mode="fast", **ROWS)
    for field in dataclasses.fields(scores):
        found, expected = getattr(report.scores, field.name), getattr(scores, field.name)
        if field.name == "score":
            np.testing.assert_allclose(found, expected, atol=1e-12)
            assert np.isnan(found[scores.wild_type.index("X")]).all()
        else:
            np.testing.assert_array_equal(found, expected)
    assert list(report.maps) == ["MSA Transformer", "DCA", "mutual information"]
    for method, each in zip(("dca", "mi"), report.baselines.values(), strict=True):
        assert np.array_equal(each.scores, coevolution(alignment, method, **ROWS).scores)


def test_one_choice_of_rows(report):
    chosen = prepare_alignment(make_family(), **ROWS)
    names = [make_family().names[row] for row in report.statistics.rows]
    assert tuple(names) == chosen.names
    assert {each.depth for each in (report.contacts, report.profile, report.scores, *report.baselines.values())} == {6}
    assert report.statistics.passing == 13
    assert report.statistics.neff == alignment_statistics(make_family()).neff


def test_the_model_reads_no_more_rows_than_it_can(model):
    rows = family("f", 40, 12, seed=1)
    assert make_report(rows, model).contacts.depth == model.config.max_row_position_embeddings == 16


def test_precisions_and_chance(model):
    """Residues 8 apart at most: of 20 columns only pairs that are at least 6 apart, known by hand."""
    alignment = make_family()
    known = np.zeros((21, 21), dtype=np.int8)  # of the whole query
    contacts = predict_contacts(alignment, model, **ROWS)
    first, second = contacts.residues[contacts.top(1)[0]]
    known[first - 1, second - 1] = known[second - 1, first - 1] = 1
    known[20] = known[:, 20] = -100
    judged = make_report(alignment, model, known=known, **ROWS).judged()
    assert list(judged) == ["MSA Transformer", "chance"]
    length = len(contacts.residues)
    assert length == 19
    if second < 21:
        assert judged["MSA Transformer"]["P@L"] == pytest.approx(1 / 19)
    # residue numbers 3 to 20 have a known state; 18 - k pairs are k apart
    pairs = sum(18 - k for k in range(6, 18))
    assert judged["chance"]["P@L"] == judged["chance"]["P@L/5"] == pytest.approx((second < 21) / pairs)
    assert np.isnan(judged["chance"]["long P@L"])


def same_scores(report, alignment, model, **options):
    """The report's scores are those of `score_all_singles`, whose other attributes are equal."""
    scores = score_all_singles(alignment, model, mode="fast", **options)
    for field in dataclasses.fields(scores):
        found, expected = getattr(report.scores, field.name), getattr(scores, field.name)
        if field.name == "score":
            np.testing.assert_allclose(found, expected, atol=1e-12)
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("chains", [(), "8,13"])
def test_scores_that_are_mixed_with_the_family(chains, monkeypatch):
    """As the model's config says, of one protein and of a complex, whole and in windows."""
    model = small_model(MsaForMaskedLM)
    monkeypatch.setattr(model.config, "profile_weight", 0.5)
    alignment = make_family().with_chains(chains)
    for window in (None, 9):
        report = make_report(alignment, model, **ROWS, window=window)
        same_scores(report, alignment, model, **ROWS, window=window)
        assert report.scores.profile_weight == 0.5
        assert len(report.windows) == (1 if window is None else 4)
    # half of one, and half of the other
    alone = score_all_singles(alignment, model, mode="fast", **ROWS, profile_weight=0.0)
    family = score_all_singles(alignment, model, mode="fast", **ROWS, profile_weight=1.0)
    report = make_report(alignment, model, **ROWS)
    np.testing.assert_allclose(report.scores.score, (alone.score + family.score) / 2, atol=1e-12)


def test_a_complex(model):
    """Numbers are those of the same rows as one alignment; residues are named by chain, and P@L is a complex's."""
    one = make_family()
    pair = one.with_chains("8,13")
    known = np.zeros((21, 21), dtype=np.int8)
    known[3, 15] = known[15, 3] = 1
    whole = make_report(one, model, **ROWS, baselines=["mi"], known=known)
    report = make_report(pair, model, **ROWS, baselines=["mi"], known=known)
    assert np.array_equal(report.contacts.probabilities, whole.contacts.probabilities)
    assert np.array_equal(report.profile.probabilities, whole.profile.probabilities)
    assert report.residue_names[:7] == ["A:3", "A:4", "A:5", "A:6", "A:7", "A:8", "B:1"]
    same_scores(report, pair, model, **ROWS)
    judged = report.judged()
    assert list(judged) == ["MSA Transformer", "mutual information", "chance"]
    assert set(judged["chance"]) == set(judged["MSA Transformer"])
    # by hand: columns are residues 3 to 21, and A ends with residue 8
    assert len(report.contacts.residues) == 19
    assert judged["chance"]["between P@10"] == pytest.approx(1 / (6 * 13))
    values = report.contacts.probabilities[:6, 6:]
    rank = (values > report.contacts.probabilities[1, 13]).sum()
    assert judged["MSA Transformer"]["between P@10"] == pytest.approx((rank < 10) / 10)


def test_chains_are_matched_as_the_contacts_say(model):
    """Of two ways that a structure fits, the one that has the strongest pairs of two chains."""
    alignment = family("f", 10, 16, seed=2).with_chains("8,8")
    contacts = predict_contacts(alignment, model)
    i, j = contacts.top(1, between_chains=True)[0]
    ways = {name: np.zeros((16, 16), dtype=np.int8) for name in ("A:X,B:Y", "A:Y,B:X")}
    k, m = contacts.top(16, between_chains=True)[-1]
    ways["A:X,B:Y"][k, m] = ways["A:X,B:Y"][m, k] = 1
    for a, b in ((i, j), (k, m)):
        ways["A:Y,B:X"][a, b] = ways["A:Y,B:X"][b, a] = 1
    report = make_report(alignment, model, known=ways)
    assert report.matched == "A:Y,B:X"
    assert np.array_equal(report.known, ways["A:Y,B:X"])
    with pytest.raises(ValueError, match="known: contacts must have the shape"):
        make_report(alignment, model, known=ways | {"third": np.zeros((5, 5))})


def test_pairs_of_a_homodimer_that_are_in_contact_within_a_chain(model):
    query = "MKVLAWYCDE"
    alignment = Alignment.from_sequences([query * 2, query[::-1] * 2], chains="10,10")
    known = np.zeros((20, 20), dtype=np.int8)
    known[0, 8] = known[8, 0] = 1  # A:1 and A:9
    report = make_report(alignment, model, known=known)
    assert np.argwhere(report.same_pair).tolist() == [[0, 18], [8, 10], [10, 8], [18, 0]]


def test_a_query_in_windows(model):
    """Of 24 columns in windows of 10, every method is judged on the pairs that the model has read."""
    alignment = family("f", 12, 24, seed=4)
    known = np.zeros((24, 24), dtype=np.int8)
    for i, j in ((0, 20), (2, 8), (4, 11)):
        known[i, j] = known[j, i] = 1
    report = make_report(alignment, model, window=10, overlap=4, known=known, baselines=["mi"])
    expected = predict_contacts(alignment, model, window=10, overlap=4)
    assert np.array_equal(report.contacts.probabilities, expected.probabilities, equal_nan=True)
    # windows begin at 0, 4, 9 and 14: pairs at least 6 apart in these
    assert report.windows.starts == (0, 4, 9, 14)
    pairs = {(i, j) for s in report.windows.starts for i in range(s, s + 10) for j in range(i + 6, s + 10)}
    judged = report.judged()
    assert judged["chance"]["P@L"] == pytest.approx(2 / len(pairs))
    scores = report.baselines["mutual information"].scores
    ranked = sorted(pairs, key=lambda pair: -scores[pair])[:24]
    right = sum(pair in ((2, 8), (4, 11)) for pair in ranked)
    assert judged["mutual information"]["P@L"] == pytest.approx(right / 24)
    profile = predict_profile(alignment, model, mode="fast", window=10)
    assert np.array_equal(report.profile.probabilities, profile.probabilities)
    same_scores(report, alignment, model, window=10)


def test_bands_of_the_picture(model):
    alignment = Alignment.from_sequences(["MKVL", "MA--", "MKV-", "----"])
    report = make_report(alignment, model)
    assert report.bands.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert report.band_identity.tolist() == [1, 1, 0.5, 0]
    deep = make_report(family("f", 250, 12, seed=1), model, rows=4)
    assert deep.bands.shape == (120, 12)
    assert (np.diff(deep.band_identity) <= 1e-12).all()


def test_what_is_wrong_is_said_before_the_model_runs(model, monkeypatch):
    monkeypatch.setattr(type(model), "predict_contacts", None)
    with pytest.raises(ValueError, match="known: contacts must have the shape"):
        make_report(make_family(), model, known=np.zeros((5, 5)))
    with pytest.raises(ValueError, match="method must be mi"):
        make_report(make_family(), model, baselines=["plm"])
