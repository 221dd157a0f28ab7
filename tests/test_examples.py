"""The examples compute what they say."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import small_model

from modeling_msa import Alignment, MsaForMaskedLM, bundled_family, read_alignment, write_alignment

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def diffpalm(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import diffpalm

    return diffpalm


def rows(count, columns, seed):
    return torch.randint(4, 24, (count, columns), generator=torch.Generator().manual_seed(seed))


def test_a_permutations_loss_is_that_of_the_tokens_themselves(diffpalm):
    """The model on token ids, the dense computation, gives the loss of embeddings mixed by a permutation."""
    model = small_model(MsaForMaskedLM).requires_grad_(False)
    a, b, known = rows(4, 5, 0), rows(4, 6, 1), rows(2, 12, 2)
    known[:, 0] = 0
    order = [2, 0, 3, 1]
    masked = torch.rand(4, 5, generator=torch.Generator().manual_seed(3)) < 0.7
    loss = diffpalm.pairing_loss(model, a, b, torch.eye(4)[order], masked, known)
    tokens = torch.cat([torch.zeros(4, 1, dtype=torch.int64), a[order].masked_fill(masked, 32), b], dim=1)
    logits = model(torch.cat([known, tokens])[None]).logits[0, 2:, 1:6]
    labels = a[order].masked_fill(~masked, -100)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_gradients_reach_the_scores_as_finite_differences_say(diffpalm):
    model = small_model(MsaForMaskedLM, scale=0.5).double().requires_grad_(False)
    a, b, masked = rows(3, 5, 0), rows(3, 6, 1), torch.arange(15).view(3, 5) % 3 > 0
    scores = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def loss(scores):
        return diffpalm.pairing_loss(model, a, b, diffpalm.sinkhorn(scores), masked)

    assert torch.autograd.gradcheck(loss, scores, eps=1e-5, atol=1e-5)


def test_soft_permutations(diffpalm):
    scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    soft = diffpalm.sinkhorn(scores, 100)
    assert torch.allclose(soft.sum(0), torch.ones(5), atol=1e-4)
    assert torch.allclose(soft.sum(1), torch.ones(5), atol=1e-4)
    assert torch.equal(diffpalm.sinkhorn(100 * scores, 500).round(), diffpalm.permutation(scores))


def test_diffpalm_writes_pairs_within_species(diffpalm, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    family = read_alignment(bundled_family()).drop_query_gaps().take(range(12))
    names = [f"R{k}_SPEC{k // 4}" for k in range(12)]  # SPEC0 has the query and does not count
    names[11] = "R11_ALONE"
    for name, order, cut in (("a", range(12), slice(0, 43)), ("b", [0, *range(11, 0, -1)], slice(43, None))):
        chain = Alignment.from_sequences([family.sequences[k][cut] for k in order], [names[k] for k in order])
        write_alignment(chain, f"{name}.a3m")
    monkeypatch.setattr(sys, "argv", ["diffpalm.py", "a.a3m", "b.a3m", "-o", "pairs.tsv", "--steps", "2"])
    diffpalm.main()
    assert "pairs.tsv: 7 pairs by the model, 2 known, loss" in capsys.readouterr().out
    with open("pairs.tsv", newline="") as file:
        pairs = list(csv.DictReader(file, delimiter="\t"))
    assert [tuple(each.values()) for each in pairs[:2]] == [("R0_SPEC0", "R0_SPEC0"), ("R11_ALONE", "R11_ALONE")]
    assert all(each["name_a"].split("_")[1] == each["name_b"].split("_")[1] for each in pairs)
    assert all(len(np.unique([each[key] for each in pairs])) == 9 for key in ("name_a", "name_b"))
