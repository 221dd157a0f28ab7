"""The contract of coevolution: the scores are what their names say, defined for any alignment, from a model's rows."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from modeling_msa import (
    Alignment,
    coevolution,
    direct_coupling_analysis,
    mutual_information,
    prepare_alignment,
    read_alignment,
)
from modeling_msa.alignments.bundled import bundled_family

pytestmark = pytest.mark.usefixtures("one_thread")

LETTERS = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)


def chained_family(rows, seed=0):
    """Eight columns; 1 follows 0 and 2 follows 1 four times out of five, the others are independent."""
    random = np.random.default_rng(seed)
    array = random.choice(LETTERS[:5], (rows, 8))
    for column in (1, 2):
        copied = random.random(rows) < 0.8
        array[copied, column] = array[copied, column - 1]
    array[random.random(array.shape) < 0.1] = ord("-")
    return array


def test_mutual_information():
    array = chained_family(300)
    plain = mutual_information(array, gaps=True, pseudocount=0, correct=False)
    with_rows = mutual_information(array, gaps=False, pseudocount=0, correct=False)
    counted = mutual_information(array, gaps=False, pseudocount=0.5, correct=False)
    for i in range(8):
        for j in range(8):
            if i == j:
                assert plain[i, j] == with_rows[i, j] == 0
                continue
            assert plain[i, j] == pytest.approx(mutual_info_score(array[:, i], array[:, j]), abs=1e-5)
            both = (array[:, [i, j]] != ord("-")).all(1)
            expected = mutual_info_score(array[both, i], array[both, j])
            assert with_rows[i, j] == pytest.approx(expected, abs=1e-5)
            table = np.full((20, 20), 0.5)
            letters = LETTERS.tolist()
            for left, right in array[both][:, [i, j]].tolist():
                table[letters.index(left), letters.index(right)] += 1
            table /= table.sum()
            expected = (table * np.log(table / np.outer(table.sum(1), table.sum(0)))).sum()
            assert counted[i, j] == pytest.approx(expected, abs=1e-5)
    # average product, by hand, of the off-diagonal means
    means = plain.sum(0) / 7
    corrected = plain - np.outer(means, means) / (plain.sum() / 56)
    np.fill_diagonal(corrected, 0)
    found = mutual_information(array, gaps=True, pseudocount=0)
    assert np.abs(found - corrected).max() < 1e-6
    # two copies of every row weigh one half each
    twice = np.concatenate([array, array])
    weighted = mutual_information(twice, theta=0.0)
    once = mutual_information(array, theta=0.0)
    assert np.abs(weighted - once).max() < 1e-5


def test_direct_couplings_stand_out():
    """Columns 0 and 2 agree by way of 1: mutual information sees three pairs, DCA two."""
    array = chained_family(600)
    information = mutual_information(array)
    couplings = direct_coupling_analysis(array, theta=None)
    assert np.allclose(couplings, couplings.T)
    i, j = np.triu_indices(8, 1)
    ranked = [[(i[k], j[k]) for k in np.argsort(-scores[i, j])] for scores in (information, couplings)]
    assert set(ranked[0][:2]) == set(ranked[1][:2]) == {(0, 1), (1, 2)}
    assert ranked[0][2] == (0, 2) != ranked[1][2]
    assert information[0, 2] > 0.3 * information[0, 1]
    assert couplings[0, 2] < 0.15 * couplings[0, 1]


def odd_alignments():
    array = chained_family(40)
    gaps, unknown, copies = array.copy(), array.copy(), np.repeat(array[:1], 20, axis=0)
    gaps[:, 3] = ord("-")
    unknown[:, 3] = ord("X")
    disjoint = array[:2].copy()  # no row has a residue in both halves
    disjoint[0, :4] = disjoint[1, 4:] = ord("-")
    return {
        "one row": array[:1],
        "two rows": array[:2],
        "one column": array[:, :1],
        "copies": copies,
        "gaps": gaps,
        "unknown": unknown,
        "disjoint": disjoint,
        "nothing": np.full((3, 5), ord("-"), dtype=np.uint8),
    }


@pytest.mark.parametrize("name", odd_alignments())
def test_scores_are_defined_for_any_alignment(name):
    """Finite and symmetric; zero where nothing can be learned, not the noise of rounding."""
    array = odd_alignments()[name]
    for function, options in (
        (mutual_information, {}),
        (mutual_information, {"gaps": True, "pseudocount": 0}),
        (mutual_information, {"pseudocount": 0, "theta": 0.2}),
        (direct_coupling_analysis, {}),
    ):
        scores = function(array, **options)
        assert scores.shape == (array.shape[1],) * 2
        assert np.isfinite(scores).all()
        assert np.abs(scores - scores.T).max() < 1e-5
        assert not np.diagonal(scores).any()
        if name in ("gaps", "unknown"):
            assert not scores[3].any()
            assert scores[0, 1] > 0.01
        if name in ("one row", "one column", "nothing") or (name == "copies" and function is mutual_information):
            assert not scores.any()


def test_the_rows_are_those_of_a_model():
    """Columns with a residue of the query, as `prepare_alignment` chooses; numbered by the whole query."""
    family = read_alignment(bundled_family())
    seen = prepare_alignment(family, 20, "random", 3)
    found = coevolution(family, "mi", rows=20, select="random", seed=3)
    assert np.array_equal(found.scores, mutual_information(seen.array))
    assert np.array_equal(found.residues, seen.column_residues)
    assert (found.depth, found.query, found.measure) == (20, seen.query, "mutual_information")
    few = Alignment.from_sequences(["M-KVLA", "MARVLG", "MAK-LA", "MARVLG"])
    found = coevolution(few, "dca")
    assert found.residues.tolist() == [1, 2, 3, 4, 5]
    assert np.array_equal(found.scores, direct_coupling_analysis(few.array[:, [0, 2, 3, 4, 5]]))
    assert (found.measure, found.method) == ("dca", "DCA")


def test_what_cannot_be_computed_is_refused(monkeypatch):
    family = Alignment.from_sequences(["MKVLAWYC" * 5] * 2)
    with pytest.raises(ValueError, match=r"method must be mi .* or dca .*, not 'plm'"):
        coevolution(family, "plm")
    sizes = {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 56_000}
    monkeypatch.setattr("os.sysconf", sizes.get)
    with pytest.raises(ValueError, match=r"DCA of 40 residues requires about 0\.1 GB .* use mutual information"):
        coevolution(family, "dca")  # (21 * 40)^2 couplings of 80 bytes: 56.4 MB
    sizes["SC_PHYS_PAGES"] = 57_000
    assert coevolution(family, "dca").scores.shape == (40, 40)
