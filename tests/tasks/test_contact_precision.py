"""The contract of precision: P@L is fair-esm's, L/k pairs of known state, missing ones wrong."""

import numpy as np
import pytest
from made_up import contact_map

from modeling_msa import Chain, CoevolutionMap, ContactMap, precision, precisions
from modeling_msa.tasks.contact_precision import chance, compared, compared_table, covered_contacts


def contacts_at(length, *pairs):
    known = np.zeros((length, length), dtype=np.int8)
    for i, j in pairs:
        known[i, j] = known[j, i] = 1
    return known


def test_precision_by_hand():
    """Ten residues; pairs 6 apart or more, best first: (0,9) (0,8) (1,9) (0,7) (1,8) (2,9) (0,6) (1,7) (2,8) (3,9)."""
    scores = np.subtract.outer(np.arange(10), np.arange(10)).astype(float)
    scores = np.abs(scores) - np.add.outer(np.arange(10), np.arange(10)) / 100
    known = contacts_at(10, (0, 9), (1, 9), (3, 9), (0, 3))
    assert precision(scores, known) == 0.3  # all 10 pairs there are
    assert precision(scores, known, top="L/2") == pytest.approx(2 / 5)
    assert precision(scores, known, top="L/5") == pytest.approx(1 / 2)
    assert precision(scores, known == 1, top=1) == 1
    assert precision(scores, known, top="L/20") == 1  # at least one pair
    assert precision(scores, known, top=20) == pytest.approx(3 / 20)  # 10 pairs are missing: wrong
    assert precision(scores, known, min_separation=6, max_separation=6) == pytest.approx(1 / 10)  # 4 pairs in it
    assert precision(scores, known, top=4, max_separation=6) == pytest.approx(1 / 4)
    known[0, 8] = known[8, 0] = -100  # then the best three are (0,9) (1,9) (0,7)
    assert precision(scores, known, top=3) == pytest.approx(2 / 3)
    assert precision(scores, known, top=2) == 1
    assert np.isnan(precision(scores, known, min_separation=24))


def test_precisions_by_hand():
    """50 residues: 25 contacts in the long range, of which the highest scores hit 10, and none in the others."""
    known = contacts_at(50, *((i, i + 25) for i in range(25)))
    scores = contacts_at(50, *((i, i + 25) for i in range(10)), *((i, i + 24) for i in range(20))) / 2
    values = precisions(scores + contacts_at(50, *((i, i + 25) for i in range(5))), known)
    # the order: 5 contacts, then by position, (0, 24) (1, 25) ... and contacts (5, 30) ... (9, 34) among them
    assert values["P@L/5"] == pytest.approx(5 / 10)
    assert values["P@L/2"] == pytest.approx(10 / 25)
    assert values["P@L"] == values["long P@L"]
    assert values["long P@L/2"] == values["P@L/2"]
    assert values["short P@L"] == values["medium P@L/2"] == 0
    assert list(values)[:4] == ["P@L", "P@L/2", "P@L/5", "short P@L"]
    assert len(values) == 12


def test_precision_of_a_contact_map():
    """Residue 2 has no column; contacts over the whole query or over the map; separations by residue number."""
    probabilities = contacts_at(7, (0, 5)) * 0.9 + contacts_at(7, (1, 6)) * 0.8
    residues = np.array([1, 3, 4, 5, 6, 7, 8])
    prediction = ContactMap("q", "MKVLAWYC", residues, probabilities.astype(np.float32), depth=1)
    known = contacts_at(8, (0, 6), (1, 7))
    assert precision(prediction, known, top=1) == 1  # residues 1 and 7; 3 and 8 are too close
    assert precision(prediction, known[np.ix_(residues - 1, residues - 1)], top=1) == 1
    assert precision(prediction, known, top=2) == 0.5
    numbered = precision(probabilities, known[np.ix_(residues - 1, residues - 1)], top=2, residues=residues)
    assert numbered == 0.5
    with pytest.raises(ValueError, match=r"\(7, 7\).*\(8, 8\).*\(6, 6\)"):
        precision(prediction, known[:6, :6])


def test_precision_is_fair_esms():
    """Beside a plain transcription of what its contact notebook computes: padded cumulative counts."""
    random = np.random.default_rng(0)
    for length in (8, 13, 40, 90):
        scores = random.random((length, length))
        known = np.triu(random.random((length, length)) < 0.1, 1)
        known = (known | known.T).astype(np.int8)
        for least, most in ((6, None), (6, 11), (12, 23), (24, None)):
            pairs = [
                (-scores[i, j], known[i, j])
                for i in range(length)
                for j in range(i + least, length)
                if most is None or j - i <= most
            ]
            hits = [hit for _, hit in sorted(pairs)] + [0] * length
            for name, count in (("L", length), ("L/2", length // 2), ("L/5", max(1, length // 5))):
                found = precision(scores, known, top=name, min_separation=least, max_separation=most)
                expected = sum(hits[:count]) / count if pairs else np.nan
                assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("scores", "known", "options", "words"),
    [
        (np.zeros((4, 5)), np.zeros((4, 4)), {}, "square"),
        (np.zeros((8, 8)), np.zeros((7, 7)), {}, r"\(8, 8\)"),
        (np.zeros((8, 8)), np.full((8, 8), 7.5), {}, "convert distances to contacts"),
        (np.full((8, 8), np.nan), np.zeros((8, 8)), {}, "NaN"),
        (np.zeros((8, 8)), np.zeros((8, 8)), {"top": "N/2"}, "top must be L"),
        (np.zeros((8, 8)), np.zeros((8, 8)), {"top": 0}, "1 or more"),
    ],
)
def test_precision_says_what_is_wrong(scores, known, options, words):
    with pytest.raises(ValueError, match=words):
        precision(scores, known, **options)


def test_methods_are_compared_beside_chance():
    """Of a complex also between chains: 2 of its 7 known pairs are contacts, and the 8 best hold them all."""
    known = np.zeros((8, 8), dtype=np.int8)
    known[[0, 3], [6, 5]] = known[[6, 5], [0, 3]] = 1
    known[2, 4:] = known[4:, 2] = -100
    known[1, 4:] = known[4:, 1] = -100
    known[0, 4] = known[4, 0] = -100
    made = contact_map(8, p0_6=0.9, p0_7=0.8)
    chains = (Chain("A", 4), Chain("B", 4))
    pair = ContactMap("pair", "MKVLAWYC", made.residues, made.probabilities, 7, chains)
    other = contact_map(8, p3_4=0.9).probabilities
    baseline = CoevolutionMap("pair", "MKVLAWYC", made.residues, other, 7, "dca", "DCA", chains)
    figures = compared([pair, baseline], known)
    assert list(figures) == ["MSA Transformer", "DCA", "chance"]
    assert figures["chance"]["between"] == pytest.approx(2 / 7)
    assert figures["MSA Transformer"]["between"] == 2 / 8  # of the 8 best, all 7 that are known
    assert np.isnan(figures["chance"]["long"])
    assert compared_table(figures).splitlines()[-1].split() == ["chance", "0.29", "-", "-", "-", "0.29"]
    alone = ContactMap("one", "MKVLAWYC", made.residues, made.probabilities, 7)
    assert chance(alone, known)["short"] == chance(alone, known)["all"] == 1 / 2  # of 1-7, 1-8; 2-8 is not known
    assert precision(alone, known, top=1) == 1


def test_methods_are_compared_on_the_pairs_that_windows_cover():
    """Of 9 residues, 6 pairs are 6 apart; 0-8 and 1-8 are in no window, 2-8 is not known: 0-6, 0-7, 1-7 are left."""
    known = np.zeros((9, 9), dtype=np.int8)
    for i, j in ((0, 6), (0, 8)):
        known[i, j] = known[j, i] = 1
    known[2, 8] = known[8, 2] = -100
    made = contact_map(9, p0_6=0.1, p0_7=0.9, p1_7=0.8)
    for i in (0, 1):
        made.probabilities[i, 8] = made.probabilities[8, i] = np.nan
    scores = contact_map(9, p0_8=0.9, p0_6=0.8, p0_7=0.1).probabilities
    baseline = CoevolutionMap("q", made.query, made.residues, scores, 7, "dca", "DCA")
    # L is 9, and a range with fewer pairs counts the missing ones as wrong
    expected = {"MSA Transformer": 1 / 9, "DCA": 1 / 9, "chance": 1 / 3}
    for contacts in (known, np.pad(known, (0, len(made.query) - 9))):
        figures = compared([made, baseline], contacts)
        assert {name: each["all"] for name, each in figures.items()} == pytest.approx(expected)
    covered = covered_contacts([made, baseline], known)
    assert precision(baseline, covered, top=1) == 1  # 0-6, as 0-8 does not count
    assert precision(made, known, top=1) == precision(made, covered, top=1) == 0
    assert chance(made, known)["all"] == pytest.approx(1 / 3)
    assert (covered == -100).sum() == 6
    assert covered[0, 6] == 1
    with pytest.raises(ValueError, match="contacts must have the shape"):
        compared([made, baseline], np.zeros((5, 5)))
