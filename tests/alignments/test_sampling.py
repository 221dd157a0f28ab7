"""Contract of `modeling_msa.alignments.sampling`.

- Rows come sorted, the query first, and never twice.
- `diverse` is the greedy rule of fair-esm's notebook, with ties by the order of the file; weights are EVcouplings';
  filtering is hhfilter's rule, with ties by the order of the file.
"""

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from made_up import SEED
from notebook import notebook_order

from modeling_msa.alignments.alignment import Alignment
from modeling_msa.alignments.reading import read_alignment
from modeling_msa.alignments.sampling import (
    choose_rows,
    diverse_rows,
    filter_rows,
    first_rows,
    neff,
    random_rows,
    select_rows,
    sequence_weights,
    weighted_rows,
)
from modeling_msa.alignments.writing import write_alignment

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "msa"
REAL = [SEED, *(DATA / f"{name}.a3m" for name in ("1a3a_1_A", "6e6r", "6exz"))]
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
real_families = pytest.mark.parametrize("path", [path for path in REAL if path.is_file()], ids=lambda path: path.stem)


def array_of(*rows: str) -> np.ndarray:
    return Alignment.from_sequences(rows).array


def random_array(depth: int, length: int, seed: int = 0) -> np.ndarray:
    """Some groups of related rows with gaps and X."""
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(f"{AMINO_ACIDS}-X".encode(), dtype=np.uint8)
    parents = rng.integers(0, 20, (8, length))
    rows = parents[rng.integers(0, 8, depth)]
    change = rng.random(rows.shape) < rng.choice([0.05, 0.2, 0.5], depth)[:, None]
    return letters[np.where(change, rng.integers(0, 22, rows.shape), rows)]


def greedy_order(array: np.ndarray, depth: int) -> list[int]:
    """Rows in the order of choice: each greedy choice includes the one before."""
    rows = [0]
    for size in range(2, depth + 1):
        (new,) = set(diverse_rows(array, size).tolist()) - set(rows)
        rows.append(new)
    return rows


def summed_distances(array: np.ndarray, rows: list[int]) -> list[int]:
    """Sums from each row to those before it."""
    return [int((array[rows[:k]] != array[row]).sum()) for k, row in enumerate(rows)]


@real_families
def test_diverse_is_the_notebooks_rule(path):
    """Each row has the largest sum of all rows left, the first such row; the notebook's differ by equal sums alone."""
    array = read_alignment(path).array
    order, theirs = greedy_order(array, 40), notebook_order(array, 40)
    distance = (array[order][:, None] != array).sum(axis=2)
    for k in range(1, 40):
        sums = distance[:k].sum(axis=0)
        sums[order[:k]] = -1
        assert order[k] == np.flatnonzero(sums == sums.max())[0]
    same = next((k for k in range(40) if order[k] != theirs[k]), 39)
    assert summed_distances(array, order)[: same + 1] == summed_distances(array, theirs)[: same + 1]


def test_diverse_by_hand():
    # Differences from the query: 1, 4, 4, 2. The tie goes to row 2; then the sums over {0, 2} are 4, -, 5, 6.
    array = array_of("AAAA", "AAAC", "CCCC", "CCCD", "AADD")
    assert diverse_rows(array, 2).tolist() == [0, 2]
    assert diverse_rows(array, 3).tolist() == [0, 2, 4]


def plain_weights(array: np.ndarray, theta: float) -> list[float]:
    rows = [row.tobytes().decode() for row in array]
    weights = []
    for row in rows:
        places = [k for k, c in enumerate(row) if c in AMINO_ACIDS]
        near = sum(round(1e9 * (1 - theta)) * len(places) <= 10**9 * sum(r[k] == row[k] for k in places) for r in rows)
        weights.append(1 / near if places else 0.0)
    return weights


@pytest.mark.parametrize("theta", [0.0, 0.2, 0.5])
def test_weights_by_counting(theta, monkeypatch):
    monkeypatch.setattr("modeling_msa.alignments.sampling._BLOCK_BYTES", 80 * 40 * 16)  # blocks of 16 rows
    array = random_array(70, 40)
    array[5] = ord("-")
    weights = sequence_weights(array, theta)
    assert weights == pytest.approx(plain_weights(array, theta))
    assert weights[5] == 0
    assert neff(array, theta) == pytest.approx(sum(plain_weights(array, theta)))


def test_weights_by_hand():
    # Row 1 has 4 of the query's 5 residues: exactly 80 %, a neighbour. Row 2 is a fragment of the query: the query is
    # its neighbour, it is not the query's.
    array = array_of("ACDEF", "ACDEW", "ACD--", "WWWWW")
    assert sequence_weights(array).tolist() == [1 / 2, 1 / 2, 1 / 3, 1]
    with pytest.raises(ValueError, match="theta"):
        sequence_weights(array, 1.0)


def test_weighted_draws_follow_the_weights():
    # One crowd of 30 (weight 1/31 each, with the query) and 3 loners (weight 1): a loner is drawn first in
    # 3 / (3 + 30 / 31) of the cases.
    loners = ["CCCCC", "DDDDD", "EEEEE"]
    array = array_of("AAAAA", *["AAAAA"] * 30, *loners, "-----")
    drawn = [weighted_rows(array, 2, seed)[1] for seed in range(2000)]
    share = np.mean([row in (31, 32, 33) for row in drawn])
    assert share == pytest.approx(3 / (3 + 30 / 31), abs=0.04)  # four standard errors
    assert 34 not in drawn
    assert weighted_rows(array, 34, 0).tolist() == list(range(34))  # the row of weight 0 comes last


def test_random_draws_are_even_and_repeat():
    array = random_array(11, 5)
    counts = np.zeros(11)
    for seed in range(1000):
        rows = random_rows(array, 5, seed)
        assert rows[0] == 0
        assert (np.diff(rows) > 0).all()
        counts[rows] += 1
    assert counts[1:] == pytest.approx(400, abs=62)  # four standard deviations
    assert random_rows(array, 5, 3).tolist() == random_rows(array, 5, 3).tolist()


@pytest.mark.parametrize("rule", [first_rows, random_rows, diverse_rows, weighted_rows])
def test_depth(rule):
    array = random_array(9, 20)
    assert rule(array, 1).tolist() == [0]
    assert rule(array, 4).dtype == np.int64
    assert len(set(rule(array, 4).tolist())) == 4
    for depth in (9, 10, 10**9):
        assert rule(array, depth).tolist() == list(range(9))
    with pytest.raises(ValueError, match="depth"):
        rule(array, 0)


def test_filter_by_hand():
    array = array_of(
        "ACDEFGHIKL",
        "ACDEFGHIKW",  # 90 % identical: kept at 90, dropped at 89
        "ACDEF-----",  # covers 50 %; identical to the query where it has residues
        "-----WWWWX",  # X is not a residue: covers 40 %
        "WWWWW-----",  # no overlap with the row above
    )
    assert filter_rows(array).tolist() == [0, 1, 2, 3, 4]
    assert filter_rows(array, coverage=50).tolist() == [0, 1, 2, 4]
    assert filter_rows(array, coverage=51).tolist() == [0, 1]
    assert filter_rows(array, identity=90).tolist() == [0, 1, 3, 4]
    assert filter_rows(array, identity=89).tolist() == [0, 3, 4]
    assert filter_rows(array, identity=100).tolist() == [0, 1, 2, 3, 4]
    # Coverage counts residues of the query; the query stays whatever it covers.
    assert filter_rows(array_of("AC--", "--DE", "A-DE"), coverage=50).tolist() == [0, 2]
    assert filter_rows(array_of("XX", "AX", "AC"), coverage=100).tolist() == [0, 2]


def test_rows_with_most_residues_are_visited_first():
    # Row 3 is 75 % identical to row 2, which is 80 % identical to row 1, which has the most residues but the query.
    array = array_of("WWWWW-", "-CDEFG", "-CDEFW", "-CDE-W", "-CDEFY")
    assert filter_rows(array, identity=70).tolist() == [0, 1]
    assert filter_rows(array[[0, 3, 2, 1]], identity=70).tolist() == [0, 2]  # equal ones in their order
    assert filter_rows(array[[0, 3]], identity=0).tolist() == [0, 1]  # only the last column is shared, and differs
    # The query is visited first even with fewer residues. 3 of the 4 columns in which both have one are identical.
    array = array_of("ACDE--", "ACDWFG")
    assert filter_rows(array, identity=74).tolist() == [0]
    assert filter_rows(array, identity=75).tolist() == [0, 1]


def test_filter_of_the_seed():
    """What hhfilter 3.3.0 leaves out with -id 40, and keeps with -id 35 -cov 90."""
    array = read_alignment(SEED).drop_query_gaps().array
    left_out = set(range(98)) - set(filter_rows(array, identity=40).tolist())
    assert left_out == {11, 21, 26, 37, 65, 67, 71, 73, 86, 95}
    kept = [0, *range(2, 11), 12, 14, 16, 18, 25, 28, 34, 35, 36, 43, *range(46, 51), *range(52, 62), 63, 64, 70]
    kept += [72, *range(75, 83), 84, 85, 87, 88, 89, 90, 92, 93, 94, 96, 97]
    assert filter_rows(array, 90, 35).tolist() == kept


def hhfilters_rows(family: Alignment, coverage: float, identity: float, folder: Path) -> list[int]:
    numbered = Alignment.from_sequences(family.sequences, map(str, range(family.depth)))
    write_alignment(numbered, folder / "in.a3m")
    arguments = ["-i", folder / "in.a3m", "-o", folder / "out.a3m", "-id", str(identity), "-cov", str(coverage)]
    subprocess.run(["hhfilter", "-v", "0", *arguments], check=True)
    return sorted(int(name.split()[0]) for name in read_alignment(folder / "out.a3m").names)


@pytest.mark.skipif(shutil.which("hhfilter") is None, reason="hhfilter (hhsuite) is not installed")
@real_families
def test_filter_beside_hhfilter(path, tmp_path):
    """The same rows where no two have equally many residues; with ties, nearly the same at its usual settings."""
    family = read_alignment(path).drop_query_gaps()  # hhfilter counts coverage over all columns
    for coverage, identity in [(75, 100), (0, 90), (75, 90), (50, 95)]:
        ours = set(filter_rows(family.array, coverage, identity).tolist())
        theirs = set(hhfilters_rows(family, coverage, identity, tmp_path))
        assert len(ours & theirs) >= 0.99 * len(ours | theirs)
    counts = np.isin(family.array, list(AMINO_ACIDS.encode())).sum(axis=1)
    untied = family.take(np.sort(np.unique(counts, return_index=True)[1]))
    for coverage, identity in [(0, 20), (50, 25)]:
        theirs = hhfilters_rows(untied, coverage, identity, tmp_path)
        assert 1 < len(theirs) < untied.depth
        assert filter_rows(untied.array, coverage, identity).tolist() == theirs


def test_select_rows():
    family = read_alignment(SEED)
    few = select_rows(family, 16)
    assert few.names == tuple(family.names[k] for k in diverse_rows(family.array, 16))
    assert few.query == family.query
    for method in ("first", "random", "weighted"):
        assert select_rows(family, 16, method, seed=2).names[0] == family.names[0]
    assert select_rows(family, 3, "first").sequences == family.sequences[:3]
    assert select_rows(family, 500).names == family.names

    rows = filter_rows(family.array, 60, 40)
    assert select_rows(family, 500, coverage=60, identity=40).names == tuple(family.names[k] for k in rows)
    inner = diverse_rows(family.array[rows], 5)
    assert choose_rows(family, 5, coverage=60, identity=40).tolist() == rows[inner].tolist()


def test_select_rows_refuses():
    family = read_alignment(SEED)
    with pytest.raises(ValueError, match="'best'; use one of diverse, first, random, weighted"):
        select_rows(family, 5, "best")
    with pytest.raises(ValueError, match=r"depth .* is 0"):
        select_rows(family, 0)
    with pytest.raises(TypeError):
        select_rows(family, 2.5)
    with pytest.raises(ValueError, match="cannot be combined with a filter"):
        select_rows(family, 5, "weighted", coverage=50, weights=np.ones(98))
    for percent in (-1, 100.5, float("nan")):
        with pytest.raises(ValueError, match="coverage is a percentage"):
            select_rows(family, 5, coverage=percent)
        with pytest.raises(ValueError, match="identity is a percentage"):
            filter_rows(family.array, identity=percent)


def test_diverse_is_fast():
    letters = np.frombuffer(f"{AMINO_ACIDS}-".encode(), dtype=np.uint8)
    array = letters[np.random.default_rng(0).integers(0, 21, (20_000, 300))]
    start = time.process_time()
    diverse_rows(array, 256)
    assert time.process_time() - start < 10  # 0.5 s
