"""The contract of the categorical Jacobian.

It is what calls of the model on each substituted alignment give, and its scores are those of the authors' code
(zzhangzzhang/pLMs-interpretability), written out below. Blocks and batches change nothing, and the whole tensor is not
in memory unless it was requested.
"""

import itertools
import shutil
import tracemalloc
from collections import namedtuple

import numpy as np
import pytest
import torch
from families import family
from made_up import SEED
from small import small_model

from modeling_msa import (
    Alignment,
    CategoricalJacobian,
    MsaForMaskedLM,
    MsaModel,
    MsaTokenizer,
    categorical_jacobian,
    epistasis_of,
    load_model,
    precision,
    read_alignment,
    spearman,
)
from modeling_msa.tasks import jacobian
from modeling_msa.tasks.jacobian import average_product_corrected

pytestmark = pytest.mark.usefixtures("one_thread")
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


@pytest.fixture(scope="module")
def model():
    return small_model(MsaForMaskedLM)


def written_out(model, alignment):
    """J[i, a, j, b] (float64) by a call of the model for each substitution."""
    tokens = MsaTokenizer()(alignment, return_tensors="pt")["input_ids"]
    letters = MsaTokenizer()(LETTERS, return_tensors="pt")["input_ids"][0, 0, 1:]

    def logits(tokens):
        with torch.no_grad():
            return model(tokens).logits[0, 0, 1:][:, letters].double().numpy()

    reference = logits(tokens)
    length = alignment.length
    result = np.zeros((length, 20, length, 20))
    for i, (a, letter) in itertools.product(range(length), enumerate(letters)):
        changed = tokens.clone()
        changed[0, 0, 1 + i] = letter
        result[i, a] = logits(changed) - reference
    return result


def authors_contacts(x):
    """02_get_jac_batch.py and utils.py: centre, symmetrise, centre, norm, APC."""
    x = x.copy()
    for axis in range(4):
        x -= x.mean(axis, keepdims=True)
    x = (x + x.transpose(2, 3, 0, 1)) / 2
    for axis in range(4):
        x -= x.mean(axis, keepdims=True)
    norms = np.sqrt(np.square(x).sum((1, 3)))
    np.fill_diagonal(norms, 0)
    corrected = norms - norms.sum(0, keepdims=True) * norms.sum(1, keepdims=True) / norms.sum()
    np.fill_diagonal(corrected, 0)
    return (corrected + corrected.T) / 2


def pairs_by_hand(x, query, min_separation):
    """All pairs of substitutions, strongest first: the change of the log ratio mutant / wild type, both ways."""
    found = []
    for i, j in itertools.combinations(range(len(query)), 2):
        if j - i < min_separation:
            continue
        w, v = LETTERS.index(query[i]), LETTERS.index(query[j])
        for a, b in itertools.product(range(20), range(20)):
            if a != w and b != v:
                there = x[i, a, j, b] - x[i, a, j, v]
                back = x[j, b, i, a] - x[j, b, i, w]
                name = f"{query[i]}{i + 1}{LETTERS[a]}:{query[j]}{j + 1}{LETTERS[b]}"
                found.append((name, (there + back) / 2))
    return sorted(found, key=lambda pair: -abs(pair[1]))


def test_exact_mode_is_the_model_called_by_hand(model):
    alignment = family("f", 5, 9, 0)
    expected = written_out(model, alignment)
    result = categorical_jacobian(alignment, model, mode="exact", full=True, pairs=12, min_separation=3)
    assert np.abs(result.jacobian - expected).max() <= 1e-5
    assert result.jacobian.dtype == np.float32
    assert np.abs(result.scores - authors_contacts(expected)).max() <= 1e-5
    assert (result.depth, result.residues.tolist(), result.query) == (5, list(range(1, 10)), alignment.query)
    strongest = pairs_by_hand(expected, alignment.query, 3)
    assert result.pairs == tuple(name for name, _ in strongest[:12])
    assert result.epistasis == pytest.approx([value for _, value in strongest[:12]], abs=1e-5)
    everything = epistasis_of(result.jacobian, alignment.query)
    assert np.abs(everything - everything.transpose(2, 3, 0, 1)).max() <= 1e-6
    for name, value in strongest[:200]:
        (i, a), (j, b) = ((int(part[1:-1]) - 1, LETTERS.index(part[-1])) for part in name.split(":"))
        assert everything[i, a, j, b] == pytest.approx(value, abs=1e-5)


def test_fast_mode_is_exact_without_homologs_and_near_with_them(model):
    alone = Alignment.from_sequences([family("f", 5, 9, 0).query])
    fast = categorical_jacobian(alone, model, full=True)
    assert np.abs(fast.jacobian - written_out(model, alone)).max() <= 1e-5
    assert fast.mode == "fast"
    rows = read_alignment(SEED).drop_query_gaps().sequences[:8]
    real = Alignment.from_sequences(row[12:27] for row in rows)
    tiny = load_model("msa-tiny", cls=MsaForMaskedLM)
    fast, exact = (categorical_jacobian(real, tiny, mode=mode).scores for mode in ("fast", "exact"))
    assert not np.allclose(fast, exact, atol=1e-3)
    pairs = np.triu_indices(15, 3)
    assert spearman(fast[pairs], exact[pairs]) > 0.7


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_blocks_and_batches_change_nothing(mode, monkeypatch):
    """In double precision, in which products do not depend on how many there are at once."""
    model, alignment = small_model(MsaForMaskedLM).double(), family("f", 4, 11, 2)
    expected = categorical_jacobian(alignment, model, mode=mode, full=True, pairs=30, min_separation=2)
    for block, size in ((1, 1), (4, 7), (5, 50), (64, 10_000)):
        monkeypatch.setattr(jacobian, "_BLOCK", block)
        result = categorical_jacobian(
            alignment, model, mode=mode, full=True, pairs=30, min_separation=2, batch_size=size
        )
        assert np.abs(result.jacobian - expected.jacobian).max() <= 1e-5
        assert np.abs(result.scores - expected.scores).max() <= 1e-5
        assert result.pairs == expected.pairs
        assert result.epistasis == pytest.approx(expected.epistasis, abs=1e-5)


def test_average_product_correction_by_hand():
    """Sums 3, 4, 5 of 12: 1 - 3 * 4 / 12, 2 - 3 * 5 / 12, 3 - 4 * 5 / 12."""
    corrected = average_product_corrected(np.array([[9.0, 1, 2], [1, 9, 3], [2, 3, 9]]))
    assert corrected == pytest.approx(np.array([[0, 0, 0.75], [0, 0, 4 / 3], [0.75, 4 / 3, 0]]), abs=1e-12)
    assert average_product_corrected(np.zeros((1, 1))).tolist() == [[0]]


def test_residue_numbers_and_odd_letters(model):
    """Lower case has no column; X has no wild type, so no epistasis, but contacts; columns of the query alone."""
    alignment = Alignment.from_sequences(["mkV-XLAWYCDE", "KCVLAWYCDE", "R-VLGWF-DE"])
    result = categorical_jacobian(alignment, model, pairs=10_000, min_separation=2, full=True)
    assert result.residues.tolist() == list(range(3, 12))
    assert np.isfinite(result.scores).all()
    assert result.scores[1, 4] != 0
    assert len(result.pairs) == 19 * 19 * (28 - 6)  # of 8 residues but X, without the 6 that are neighbours
    assert len(set(result.pairs)) == len(result.pairs)
    assert not [name for name in result.pairs if "X4" in name]
    assert {name[:2] for name in result.pairs} <= {"V3", "L5", "A6", "W7", "Y8", "C9"}
    assert np.isnan(epistasis_of(result.jacobian, "VXLAWYCDE")[1]).all()
    single = categorical_jacobian(Alignment.from_sequences(["M"]), model, pairs=5)
    assert (single.scores.tolist(), single.pairs) == ([[0]], ())


def test_the_whole_tensor_is_not_in_memory(monkeypatch):
    """It would have 13 MB; of arrays there are less than 5 at a time."""
    monkeypatch.setattr(jacobian, "_BLOCK", 16)
    long = small_model(MsaForMaskedLM, max_position_embeddings=128)
    alignment = family("f", 2, 90, 0)
    tracemalloc.start()
    categorical_jacobian(alignment, long, pairs=50, batch_size=40)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6
    assert 4 * (90 * 20) ** 2 > 12e6


def test_errors_before_the_model_runs(model, monkeypatch):
    alignment = family("f", 3, 9, 0)
    monkeypatch.setattr(MsaModel, "prepare", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(TypeError, match="requires a model with a language model head, not MsaModel"):
        categorical_jacobian(alignment, model.msa)
    with pytest.raises(ValueError, match="unknown mode 'quick'; use exact or fast"):
        categorical_jacobian(alignment, model, mode="quick")
    for name, value in (("pairs", -1), ("min_separation", 0), ("batch_size", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at least"):
            categorical_jacobian(alignment, model, **{name: value})
    with pytest.raises(ValueError, match="the query has 40 aligned residues, but the model reads at most 31"):
        categorical_jacobian(family("f", 3, 40, 0), model)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100_000))
    with pytest.raises(ValueError, match=r"requires a temporary file of 0 MiB, but .* set TMPDIR to a folder"):
        categorical_jacobian(alignment, model)


def test_precision_is_that_of_the_scores():
    scores = np.zeros((8, 8), dtype=np.float32)
    scores[0, 6] = scores[6, 0] = 3
    scores[1, 7] = scores[7, 1] = 2
    result = CategoricalJacobian("q", "M" * 12, np.arange(3, 11), scores, 1, "fast")
    known = np.zeros((12, 12), dtype=int)
    known[2, 8] = known[8, 2] = 1  # residues 3 and 9: indices 0 and 6
    assert precision(result, known, top=1) == 1
    assert precision(result, known, top=2) == 0.5
    assert result.top(2).tolist() == [[0, 6], [1, 7]]
