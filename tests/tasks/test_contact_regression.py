"""The contract of fitting the contact regression.

It is fair-esm's: an L1 logistic regression by liblinear on its own `apc(symmetrize(maps))`, pairs at least 6 apart,
each once, unknown ones left out; what the model predicts afterwards is what scikit-learn predicts. Nothing else of the
model changes, and errors come before it runs.
"""

import sys

import esm
import fair_esm
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from small import no_warnings

from modeling_msa import (
    Alignment,
    MsaConfig,
    MsaForMaskedLM,
    MsaModel,
    fit_contact_regression,
    precision,
    predict_contacts,
)
from modeling_msa.tasks.contact_regression import contact_features

pytestmark = pytest.mark.usefixtures("one_thread")

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
    fit = fit_contact_regression(model, [(inserted, known), other])
    assert fit.pairs == plain.pairs + 4 + 5  # 4 apart across the insertion: i = 6..9; 5 apart: i = 5..9
    across = np.full_like(known, -100)
    for i, j in [(i, i + 4) for i in range(6, 10)] + [(i, i + 5) for i in range(5, 10)]:
        across[i, j] = across[j, i] = 1
    fit = fit_contact_regression(model, [(inserted, across), other], regularization=2)
    assert fit.precision == pytest.approx(np.mean([9 / 30, precision(predict_contacts(families[1], model), other[1])]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda msa, known: (msa, known[:5, :5]), r"shape \(30, 30\).*but have \(5, 5\)"),
        (lambda msa, known: (msa, known * 1.5), "at .* is 1.5; convert distances to contacts"),
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


def test_fitting_requires_sklearn(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ImportError, match="requires scikit-learn"):
        fit_contact_regression(MsaModel.from_pretrained(tiny), [])


def test_useless_maps_leave_the_model_as_it_was(fitting, tiny):
    families, _, _, contacts = fitting
    model = MsaModel.from_pretrained(tiny)
    before = model.contact_head.regression.weight.clone()
    with pytest.raises(ValueError, match="No row map tells"):
        fit_contact_regression(model, [(families[0], contacts[0])], regularization=1e-6)
    assert torch.equal(model.contact_head.regression.weight, before)


def test_attention_that_goes_to_cls_alone_gives_finite_features():
    """The average product correction divides by the residues' attention, which may be none."""
    model = MsaModel(MsaConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).eval()
    attention = model.layers[0].row_attention
    original = attention.maps
    attention.maps = lambda *args: torch.zeros_like(original(*args)).index_fill(3, torch.tensor([0]), 1.0)
    tokens = torch.tensor([[[0, 5, 6, 7], [0, 5, 6, 8]]])
    features = contact_features(model, tokens, np.array([0, 0]), np.array([1, 2]))
    assert (features == 0).all()
    assert not model.contact_head._forward_pre_hooks
