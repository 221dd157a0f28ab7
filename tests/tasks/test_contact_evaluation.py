"""The contract of evaluating families of known structure: means have bootstrap intervals over families."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from modeling_msa import ContactEvaluation, ContactMap, evaluate_contacts
from modeling_msa.tasks import contact_evaluation as evaluation


def test_a_set_by_hand(monkeypatch):
    """Two families of 8 residues, one pair 6 apart or more right of 3; a third of 5 residues has no such pair."""

    def predicted(alignment, *_, **__):
        length = len(alignment.query)
        values = np.zeros((length, length), dtype=np.float32)
        values[0, -1] = values[-1, 0] = 0.9
        return ContactMap("q", alignment.query, np.arange(1, length + 1), values, depth=4)

    monkeypatch.setattr(evaluation, "predict_contacts", predicted)
    known = np.zeros((8, 8), dtype=np.int8)
    known[0, 7] = known[7, 0] = 1
    family = evaluation.Alignment.from_sequences
    families = [
        (family(["MKVLAWYC"], ["a"]), known),
        (family(["MKVLAWYC"], ["b"]), np.zeros((8, 8), dtype=np.int8)),
        (family(["MKVLA"], ["c"]), np.zeros((5, 5), dtype=np.int8)),
    ]
    result = evaluate_contacts(families, None)
    assert (result.names, result.lengths.tolist(), result.depths.tolist()) == (("a", "b", "c"), [8, 8, 5], [4, 4, 4])
    assert result.precisions["P@L"][:2].tolist() == [1 / 8, 0]
    assert result.precisions["P@L/5"][:2].tolist() == [1, 0]
    assert result.precisions["short P@L/2"][:2].tolist() == [1 / 4, 0]
    assert all(np.isnan(values[2]) for values in result.precisions.values())
    assert np.isnan(result.precisions["long P@L"]).all()
    assert result.means()["P@L/5"].tolist() == [0.5, 0, 1]
    assert result.means(level=0.4)["P@L/5"].tolist() == [0.5, 0.5, 0.5]  # of two draws each, half are 0 and 1
    lines = str(result).splitlines()
    assert lines[1].split() == ["all", ">=6", "0.06", "0.00-0.12", "0.12", "0.00-0.25", "0.50", "0.00-1.00"]
    assert lines[4].split() == ["long", ">=24", "-", "-", "-"]
    with pytest.raises(ValueError, match="no families"):
        evaluate_contacts([], None)


def test_intervals_are_scipys():
    """Both ends within 0.001, which is 4 times the error that 100,000 resamples leave."""
    values = np.random.default_rng(1).beta(2, 3, 60)
    result = ContactEvaluation(("f",) * 60, values, values, {"P@L": np.append(values, np.nan)}).means(0.9, 100_000)
    expected = bootstrap((values,), np.mean, confidence_level=0.9, n_resamples=100_000, method="percentile", rng=2)
    assert result["P@L"][0] == pytest.approx(values.mean())
    assert np.abs(result["P@L"][1:] - np.array(expected.confidence_interval)).max() < 0.001
