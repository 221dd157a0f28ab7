"""The contract of metrics: they are over all targets, whatever batches these came in, and agree with scikit-learn."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modeling_msa.training.metrics import Classes, Contacts, Tokens, Values


def test_classes_agree_with_sklearn():
    metrics = pytest.importorskip("sklearn.metrics")
    random = torch.Generator().manual_seed(0)
    metric, numbers, logits, labels = Classes(), [], [], []
    for batch, columns in ((2, 7), (3, 4)):  # ragged
        logits.append(torch.randn(batch, columns, 4, generator=random))
        labels.append(torch.randint(-1, 3, (batch, columns), generator=random))  # class 3 is only ever predicted
        labels[-1][labels[-1] < 0] = -100
        numbers.append(metric.per_example(logits[-1], labels[-1]))
        assert numbers[-1].shape == (batch, 3 + 3 * 4)
    found = metric.summarise(torch.cat(numbers).numpy())
    flat = torch.cat([each.flatten(0, 1) for each in logits]), torch.cat([each.flatten() for each in labels])
    known = flat[1] != -100
    truth, guess = flat[1][known], flat[0][known].argmax(-1)
    assert found["loss"] == pytest.approx(F.cross_entropy(*flat).item(), abs=1e-6)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, guess))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(truth, guess, average="macro"))


def test_tokens_and_values():
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, 33, generator=random), torch.randint(0, 33, (2, 3, 5), generator=random)
    labels[0, 1:] = -100
    found = Tokens().summarise(Tokens().per_example(logits, labels).numpy())
    loss = F.cross_entropy(logits.flatten(0, 2), labels.flatten())
    assert found["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert found["perplexity"] == pytest.approx(loss.exp().item(), rel=1e-6)
    right, targets = Tokens().count_right(logits, labels)
    assert found["accuracy"] == pytest.approx(right.item() / targets.item())
    assert targets == 20
    guesses, scores = torch.tensor([[0.1], [0.2], [0.9], [0.3]]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    found = Values().summarise(Values().per_example(guesses, scores).numpy())
    # ranks 1 2 4 3 against 1 3 2 4: 1 - 6 (0 + 1 + 4 + 1) / (4 * 15)
    assert found["spearman"] == pytest.approx(0.4)
    assert found["loss"] == pytest.approx(np.mean([0.9**2, 2.8**2, 1.1**2, 3.7**2]), rel=1e-6)


def test_what_is_not_defined_is_nan_and_never_best():
    """transformers takes what is greater (or less) than the best so far, from minus (or plus) infinity on."""

    def undefined(metric, numbers):
        figures = metric.summarise(np.asarray(numbers, dtype=np.float32))
        return {name for name, value in figures.items() if math.isnan(value)}

    assert undefined(Values(), np.ones((3, 2))) == {"spearman"}  # no ranks
    assert undefined(Values(), [[1, 0, 2, 3], [2, 0, 1, 4]]) == {"spearman"}  # the second value is constant
    assert undefined(Values(), [[0.5, 1]]) == {"spearman"}  # a single example
    assert undefined(Tokens(), np.zeros((2, 3))) == {"loss", "accuracy", "perplexity"}  # no targets
    assert undefined(Classes(), np.zeros((2, 3 + 3 * 2))) == {"loss", "accuracy", "macro_f1"}
    logits, labels = torch.zeros(1, 12, 12), torch.zeros(1, 12, 12, dtype=torch.long)
    assert undefined(Contacts(), Contacts().per_example(logits, labels)) == {"long_p_at_l"}  # 12 residues
    every = {"loss", "p_at_l", "long_p_at_l"}
    assert undefined(Contacts(), Contacts().per_example(logits, labels - 100)) == every


@pytest.mark.parametrize(
    ("metric", "shape"),
    [(Tokens(), (2, 3, 9, 33)), (Classes(), (2, 4)), (Values(), (2, 1)), (Contacts(), (2, 30, 30))],
)
def test_a_model_that_gives_nan_is_never_best(metric, shape):
    """One example suffices; the loss of contacts was 0, the best there is."""
    logits = torch.zeros(shape)
    labels = torch.zeros(shape if isinstance(metric, Values | Contacts) else shape[:-1], dtype=torch.long)
    assert math.isfinite(metric.summarise(metric.per_example(logits, labels).numpy())["loss"])
    logits[1] = math.nan
    figures = metric.summarise(metric.per_example(logits, labels).numpy())
    assert len(figures) >= 2
    assert all(math.isnan(value) for value in figures.values())


def test_contact_precision():
    logits = torch.full((1, 40, 40), -5.0)
    labels = torch.zeros(1, 40, 40, dtype=torch.long)
    numbers = torch.arange(40)
    labels[0][(numbers[:, None] - numbers).abs() < 6] = -100
    for i, j in ((0, 10), (0, 30), (5, 35), (2, 9)):
        labels[0, i, j] = labels[0, j, i] = 1
    for i, j in ((0, 10), (0, 30), (1, 28)):
        logits[0, i, j] = logits[0, j, i] = 5.0
    padded = F.pad(logits, (0, 3, 0, 3), value=torch.finfo(torch.float32).min), F.pad(labels, (0, 3, 0, 3), value=-100)
    found = Contacts().summarise(Contacts().per_example(*padded).numpy())
    # Of the 40 best pairs two are contacts by their scores; the other 37 tie, and the first of these count: (0, 6) to
    # (0, 39) without the two above, then (1, 7) to (1, 11), none of them a contact.
    assert found["p_at_l"] == pytest.approx(2 / 40)
    # at least 24 apart: (0, 30), (1, 28), then (0, 24) to (0, 39), (1, 25) to (1, 39) and (2, 26) ...: one contact
    assert found["long_p_at_l"] == pytest.approx(1 / 40)
    known = labels != -100
    expected = F.binary_cross_entropy_with_logits(logits[known], labels[known].float())
    assert found["loss"] == pytest.approx(expected.item(), rel=1e-6)
