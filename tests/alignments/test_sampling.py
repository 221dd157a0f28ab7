"""Contract of `modeling_msa.alignments.sampling`.

- Rows come sorted, the query first, and never twice.
- `diverse` takes the rows of fair-esm's notebook; weights are those of EVcouplings; filtering keeps hhfilter's rows.
"""

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from modeling_msa.alignments.alignment import Alignment
from modeling_msa.alignments.bundled import bundled_family
from modeling_msa.alignments.reading import read_alignment
from modeling_msa.alignments.sampling import (
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
FILES = [bundled_family(), *(sorted(DATA.glob("*.a?m")) if DATA.is_dir() else [])]
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
every_family = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


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


def notebook_rows(array: np.ndarray, depth: int) -> list[int]:
    """``greedy_select`` of fair-esm's contact notebook (MIT licence), on the array."""
    cdist = pytest.importorskip("scipy.spatial.distance").cdist
    all_indices = np.arange(len(array))
    indices = [0]
    pairwise_distances = np.zeros((0, len(array)))
    for _ in range(depth - 1):
        dist = cdist(array[indices[-1:]], array, "hamming")
        pairwise_distances = np.concatenate([pairwise_distances, dist])
        shifted_distance = np.delete(pairwise_distances, indices, axis=1).mean(0)
        indices.append(np.delete(all_indices, indices)[np.argmax(shifted_distance)])
    return sorted(indices)


@every_family
@pytest.mark.parametrize("depth", [2, 16, 64, 97])
def test_diverse_takes_the_notebooks_rows(path, depth):
    array = read_alignment(path).array
    assert diverse_rows(array, depth).tolist() == notebook_rows(array, depth)


def test_diverse_by_hand():
    # Differences from the query: 1, 4, 4, 2. The tie goes to row 2; then the sums over {0, 2} are 4, -, 5, 6.
    array = array_of("AAAA", "AAAC", "CCCC", "CCCD", "AADD")
    assert diverse_rows(array, 2).tolist() == [0, 2]
    assert diverse_rows(array, 3).tolist() == [0, 2, 4]


def test_diverse_takes_the_largest_sum():
    array = random_array(60, 600)
    distance = (array[:, None] != array[None]).sum(axis=2)
    taken = [0]
    for depth in range(2, 13):  # each greedy choice holds the one before
        (new,) = set(diverse_rows(array, depth).tolist()) - set(taken)
        sums = distance[:, taken].sum(axis=1)
        assert sums[new] == np.delete(sums, taken).max()
        taken.append(new)


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
        "-----WWWWX",  # X is no residue: covers 40 %
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


def test_filter_over_several_blocks(monkeypatch):
    array = random_array(150, 40)
    whole = filter_rows(array, 20, 80)
    assert 10 < len(whole) < 150
    monkeypatch.setattr("modeling_msa.alignments.sampling._BLOCK_BYTES", 80 * 40 * 16)
    assert filter_rows(array, 20, 80).tolist() == whole.tolist()


@pytest.mark.skipif(shutil.which("hhfilter") is None, reason="hhfilter (hhsuite) is not installed")
@every_family
@pytest.mark.parametrize("options", [(75, 100), (None, 90), (75, 90), (50, 62)], ids=str)
def test_filter_keeps_hhfilters_rows(path, options, tmp_path):
    coverage, identity = options
    family = read_alignment(path).drop_query_gaps()  # hhfilter takes coverage over all columns
    family = Alignment.from_sequences(family.sequences, [str(k) for k in range(family.depth)])
    write_alignment(family, tmp_path / "in.a3m")
    arguments = ["-i", tmp_path / "in.a3m", "-o", tmp_path / "out.a3m", "-id", str(identity)]
    subprocess.run(["hhfilter", "-v", "0", *arguments, "-cov", str(coverage or 0)], check=True)
    kept = sorted(int(name.split()[0]) for name in read_alignment(tmp_path / "out.a3m").names)
    assert filter_rows(family.array, coverage, identity).tolist() == kept


def test_select_rows():
    family = read_alignment(bundled_family())
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
    assert select_rows(family, 5, coverage=60, identity=40).names == tuple(family.names[k] for k in rows[inner])


def test_select_rows_refuses():
    family = read_alignment(bundled_family())
    with pytest.raises(ValueError, match="'best'; the ways are: diverse, first, random, weighted"):
        select_rows(family, 5, "best")
    with pytest.raises(ValueError, match=r"depth .* is 0"):
        select_rows(family, 0)
    with pytest.raises(TypeError):
        select_rows(family, 2.5)
    for percent in (-1, 100.5, float("nan")):
        with pytest.raises(ValueError, match="coverage is a percentage"):
            select_rows(family, 5, coverage=percent)
        with pytest.raises(ValueError, match="identity is a percentage"):
            filter_rows(family.array, identity=percent)


def test_diverse_is_fast():
    letters = np.frombuffer(f"{AMINO_ACIDS}-".encode(), dtype=np.uint8)
    array = letters[np.random.default_rng(0).integers(0, 21, (20_000, 300))]
    start = time.perf_counter()
    diverse_rows(array, 256)
    assert time.perf_counter() - start < 10  # 0.5 s on two cores
