"""The baselines that contact maps are compared with are what their names say."""

import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import SHARED, real_data
from sklearn.metrics import mutual_info_score

from modeling_msa import load_model, precision, predict_contacts, read_alignment, structure_contacts

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).resolve().parents[1]


LETTERS = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)


@pytest.fixture
def coevolution(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return pytest.importorskip("coevolution")


def chained_family(rows, seed=0):
    """Eight columns; 1 follows 0 and 2 follows 1 four times out of five, the others are independent."""
    random = np.random.default_rng(seed)
    array = random.choice(LETTERS[:5], (rows, 8))
    for column in (1, 2):
        copied = random.random(rows) < 0.8
        array[copied, column] = array[copied, column - 1]
    array[random.random(array.shape) < 0.1] = ord("-")
    return array


def test_mutual_information(coevolution):
    array = chained_family(300)
    plain = coevolution.mutual_information(array, gaps=True, pseudocount=0, correct=False)
    with_rows = coevolution.mutual_information(array, gaps=False, pseudocount=0, correct=False)
    counted = coevolution.mutual_information(array, gaps=False, pseudocount=0.5, correct=False)
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
    found = coevolution.mutual_information(array, gaps=True, pseudocount=0)
    assert np.abs(found - corrected).max() < 1e-6
    # two copies of every row weigh one half each
    twice = np.concatenate([array, array])
    weighted = coevolution.mutual_information(twice, theta=0.0)
    once = coevolution.mutual_information(array, theta=0.0)
    assert np.abs(weighted - once).max() < 1e-5


def test_direct_couplings_stand_out(coevolution):
    """Columns 0 and 2 agree by way of 1: mutual information sees three pairs, DCA two."""
    array = chained_family(600)
    information = coevolution.mutual_information(array)
    couplings = coevolution.pseudo_likelihood(array, theta=None)
    assert np.allclose(couplings, couplings.T)
    i, j = np.triu_indices(8, 1)
    ranked = [[(i[k], j[k]) for k in np.argsort(-scores[i, j])] for scores in (information, couplings)]
    assert set(ranked[0][:2]) == set(ranked[1][:2]) == {(0, 1), (1, 2)}
    assert ranked[0][2] == (0, 2) != ranked[1][2]
    assert information[0, 2] > 0.3 * information[0, 1]
    assert couplings[0, 2] < 0.15 * couplings[0, 1]


@real_data
def test_table_of_real_families(coevolution, tiny, tmp_path, monkeypatch, capsys):
    """Every method has its columns; the last line is their mean."""
    import real_families

    for folder, ending in (("msa", "a3m"), ("structure", "pdb")):
        (tmp_path / folder).mkdir()
        for name in ("6e6r", "6exz"):
            (tmp_path / folder / f"{name}.{ending}").symlink_to(SHARED / folder / f"{name}.{ending}")
    options = ["--rows", "32", "--model", str(tiny), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "msa"), str(tmp_path / "structure"), *options])
    real_families.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[3:5]] == [["6e6r", "32", "56"], ["6exz", "32", "69"]]
    cells = [line.split("|", 1)[1].replace("|", " ").split() for line in lines[3:6]]
    values = np.array(cells, dtype=float)
    assert values.shape == (3, 8)
    assert np.abs(values[:2].mean(0) - values[2]).max() < 1e-3


@real_data
def test_table_of_jacobians(coevolution, tiny, tmp_path, monkeypatch):
    """Two figures of each method, and their means; the regression's are those of the package."""
    import jacobian

    for folder, ending in (("msa", "a3m"), ("structure", "pdb")):
        (tmp_path / f"6e6r.{ending}").symlink_to(SHARED / folder / f"6e6r.{ending}")
    options = ["--rows", "4", "--exact", "0", "--model", str(tiny), "--output", str(tmp_path / "table.md")]
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), *options])
    jacobian.main()
    lines = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:3] for row in cells] == [["6e6r", "4", "56"], [f"mean of 1 ({tmp_path.name})", "", ""]]
    values = np.array([row[3:] for row in cells], dtype=float)
    assert values.shape == (2, 6)
    assert np.abs(values[0] - values[1]).max() <= 0.006
    family = read_alignment(tmp_path / "6e6r.a3m")
    found = predict_contacts(family, load_model(tiny), rows=4)
    expected = precision(found, structure_contacts(tmp_path / "6e6r.pdb", family))
    assert values[0, 0] == pytest.approx(expected, abs=0.005)
