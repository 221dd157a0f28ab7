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
