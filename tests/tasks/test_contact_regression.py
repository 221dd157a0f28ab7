"""The contract of fitting and judging contact maps.

The regression is fair-esm's: an L1 logistic regression by liblinear on its own `apc(symmetrize(maps))`, pairs at least
6 apart, each once, unknown ones left out; what the model predicts afterwards is what scikit-learn predicts. Nothing
else of the model changes, and errors come before it runs. P@L is fair-esm's: L/k pairs, missing ones wrong. The
baselines to compare with are what their names say.
"""

import subprocess
import sys
from pathlib import Path

import esm
import fair_esm
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from small import no_warnings

from modeling_msa import Alignment, MsaForMaskedLM, MsaModel
from modeling_msa.tasks.contacts import ContactMap, contact_features, fit_contact_regression, precision, precisions

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
LETTERS = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY", dtype=np.uint8)


def random_family(rows, columns, seed):
    """An alignment of unrelated letters with gaps, none of them in the query."""
    random = np.random.default_rng(seed)
    array = random.choice(LETTERS, (rows, columns))
    array[1:][random.random((rows - 1, columns)) < 0.1] = ord("-")
    return Alignment.from_sequences([row.tobytes().decode() for row in array])


@torch.no_grad()
def reference_features(model, tokens):
    """fair-esm's features, (L, L, layers * heads) float64, by its own functions."""
    maps = model(tokens, need_head_weights=True)["row_attentions"][0].flatten(0, 1)[:, 1:, 1:]  # (F, L, L)
    return esm.modules.apc(esm.modules.symmetrize(maps)).permute(1, 2, 0).double().numpy()


@pytest.fixture(scope="module")
def fitting(converted):
    """fair-esm's model, families and contacts that three of its maps give away, with some pairs unknown."""
    theirs = converted("msa-tiny")[0]
    families = [random_family(7, 30, 1), random_family(4, 41, 2), random_family(9, 25, 3)]
    tokens = [fair_esm.tokens([list(family)]) for family in families]
    features = [reference_features(theirs, ids) for ids in tokens]
    contacts = []
    random = np.random.default_rng(0)
    for values in features:
        score = values[..., 0] + values[..., 6] - values[..., 11]
        noise = random.normal(size=score.shape) * score.std() / 2
        touch = (score + noise + noise.T > np.quantile(score, 0.9)).astype(np.int8)
        unknown = random.random(touch.shape) < 0.05
        contacts.append(np.where(unknown | unknown.T, -100, touch).astype(np.int8))
    return families, tokens, features, contacts


@pytest.mark.parametrize(("options", "least"), [({}, 1), ({"regularization": 2, "seed": 3}, 4)])
def test_regression_is_that_of_fair_esm_and_sklearn(options, least, fitting, tiny):
    families, tokens, features, contacts = fitting
    rows, touch = [], []
    for values, known in zip(features, contacts, strict=True):
        for i in range(len(known)):
            for j in range(i + 6, len(known)):
                if known[i, j] != -100:
                    rows.append(values[i, j])
                    touch.append(int(known[i, j]))
    inverse, seed = options.get("regularization", 0.15), options.get("seed", 0)
    expected = LogisticRegression(C=inverse, l1_ratio=1, solver="liblinear", random_state=seed, max_iter=1000)
    expected.fit(np.array(rows), np.array(touch))

    model = MsaForMaskedLM.from_pretrained(tiny).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with no_warnings():
        report = fit_contact_regression(model, zip(families, contacts, strict=True), **options)
    assert model.training
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.msa.contact_head.parameters())
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["msa.contact_head.regression.weight", "msa.contact_head.regression.bias"]

    assert (report.examples, report.pairs, report.positives) == (3, len(rows), sum(touch))
    assert (report.weights, report.nonzero) == (16, np.count_nonzero(expected.coef_))
    assert least <= report.nonzero < 16
    lengths, hits = [30, 41, 25], []
    for ids, values, known in zip(tokens, features, contacts, strict=True):
        probabilities = expected.predict_proba(values.reshape(-1, 16))[:, 1].reshape(known.shape)
        predicted = model.predict_contacts(ids)[0].numpy()
        assert np.abs(predicted - probabilities).max() < 1e-5
        assert np.ptp(predicted) > 0.3
        pairs = [(i, j) for i in range(len(known)) for j in range(i + 6, len(known)) if known[i, j] != -100]
        best = sorted(pairs, key=lambda pair: -probabilities[pair])[: len(known)]
        hits.append(sum(known[pair] for pair in best))
    assert report.precision == pytest.approx(np.mean(np.array(hits) / lengths))


def test_features_are_fair_esms(fitting, tiny):
    _, tokens, features, _ = fitting
    i, j = np.array([3, 0, 24]), np.array([9, 24, 1])
    ours = contact_features(MsaModel.from_pretrained(tiny), tokens[0], i, j)
    assert np.abs(ours - features[0][i, j]).max() < 1e-6
    assert np.abs(ours).max() > 0.01


def test_residues_columns_and_tokens_are_one(fitting, tiny):
    """A query with an insertion and a gap: its residues, its columns and bare tokens give the same regression."""
    families, tokens, _, contacts = fitting
    first, second = contacts[0], contacts[1]
    sequences = families[0].sequences
    gapped = Alignment.from_sequences(
        [
            sequences[0][:10] + "kk" + sequences[0][10:20] + "-" + sequences[0][20:],
            *(row[:20] + "A" + row[20:] for row in sequences[1:]),
        ]
    )
    residues = np.full((32, 32), -100, dtype=np.int8)  # 1 to 10, insertions 11 and 12, 13 to 32
    kept = np.r_[0:10, 12:32]
    columns = np.ones((31, 31), dtype=np.int8)
    kept_columns = np.r_[0:20, 21:31]
    # pairs across the insertion are two residues further apart: those 4 and 5 columns apart count too
    close = np.abs(np.subtract.outer(np.arange(30), np.arange(30))) < 6
    residues[np.ix_(kept, kept)] = np.where(close, -100, first)
    columns[np.ix_(kept_columns, kept_columns)] = np.where(close, -100, first)
    model = MsaModel.from_pretrained(tiny)
    results = []
    for msa, known in ((tokens[0], first), (families[0], first), (gapped, residues), (gapped, columns)):
        fit_contact_regression(model, [(msa, known), (tokens[1][0], second)])
        results.append(torch.cat([model.contact_head.regression.weight[0], model.contact_head.regression.bias]))
    for result in results[1:]:
        assert torch.allclose(result, results[0], atol=1e-5)


def test_separation_goes_by_residue_number(fitting, tiny):
    """With an insertion of two between columns 9 and 10, pairs 4 columns apart across it are 6 residues apart."""
    families, _, _, contacts = fitting
    sequences = families[0].sequences
    inserted = Alignment.from_sequences([sequences[0][:10] + "kk" + sequences[0][10:], *sequences[1:]])
    known = np.where(contacts[0] == -100, 0, contacts[0])
    model, other = MsaModel.from_pretrained(tiny), (families[1], contacts[1])
    plain = fit_contact_regression(model, [(families[0], known), other])
    # 4 apart across the insertion: i = 6..9; 5 apart: i = 5..9
    assert fit_contact_regression(model, [(inserted, known), other]).pairs == plain.pairs + 4 + 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda msa, known: (msa, known[:5, :5]), r"shape \(30, 30\).*but have \(5, 5\)"),
        (lambda msa, known: (msa, known * 1.5), "at .* stands .*make contacts of distances"),
        (lambda msa, known: (msa, np.triu(known)), "symmetric"),
        (lambda msa, known: (msa, np.zeros_like(known)), "0 contacts among 300 pairs"),
        (lambda msa, known: (msa, np.full_like(known, -100)), "0 contacts among 0 pairs"),
        (lambda msa, known: (np.ones((2, 31), dtype=int), known), "begins with <cls>"),
        (lambda msa, known: (np.zeros((1, 1, 2, 31), dtype=int), known), "begins with <cls>"),
        (lambda msa, known: (np.zeros((1025, 31), dtype=int), known), "choose fewer rows"),
    ],
)
def test_errors_come_before_the_model_runs(change, words, fitting, tiny, monkeypatch):
    families, _, _, contacts = fitting
    model = MsaModel.from_pretrained(tiny)
    before = model.contact_head.regression.weight.clone()
    monkeypatch.setattr(MsaModel, "contact_logits", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=words):
        fit_contact_regression(model, [change(families[0], contacts[0])])
    with pytest.raises(ValueError, match="0 examples"):
        fit_contact_regression(model, [])
    assert torch.equal(model.contact_head.regression.weight, before)


def test_useless_maps_leave_the_model_as_it_was(fitting, tiny):
    families, _, _, contacts = fitting
    model = MsaModel.from_pretrained(tiny)
    before = model.contact_head.regression.weight.clone()
    with pytest.raises(ValueError, match="No row map tells"):
        fit_contact_regression(model, [(families[0], contacts[0])], regularization=1e-6)
    assert torch.equal(model.contact_head.regression.weight, before)


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
        (np.zeros((8, 8)), np.full((8, 8), 7.5), {}, "make contacts of distances"),
        (np.full((8, 8), np.nan), np.zeros((8, 8)), {}, "NaN"),
        (np.zeros((8, 8)), np.zeros((8, 8)), {"top": "N/2"}, "top is L"),
        (np.zeros((8, 8)), np.zeros((8, 8)), {"top": 0}, "1 or more"),
    ],
)
def test_precision_says_what_is_wrong(scores, known, options, words):
    with pytest.raises(ValueError, match=words):
        precision(scores, known, **options)


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


def test_table_of_real_families(tiny, tmp_path):
    """Mutual information of these four, with 20 states and a pseudo-count of one; every method has its columns."""
    if not DATA.is_dir():
        pytest.skip("the shared data are not here")
    command = [sys.executable, ROOT / "benchmarks" / "real_families.py", DATA / "msa", DATA / "structure"]
    options = ["--rows", "32", "--model", tiny, "--device", "cpu"]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    lines = result.stdout.splitlines()
    assert [line.split()[:3] for line in lines[3:7]] == [
        ["1prw", "32", "147"],
        ["5trv", "32", "118"],
        ["6e6r", "32", "56"],
        ["6exz", "32", "69"],
    ]
    cells = [line.split("|", 1)[1].replace("|", " ").split() for line in lines[3:8]]
    values = np.array(cells, dtype=float)
    assert values.shape == (5, 8)
    assert np.abs(values[:4].mean(0) - values[4]).max() < 1e-3
