"""msa-tiny's numbers on the seed of Pfam PF00041 are those that fair-esm computed in float64 (`golden.py` wrote them).

The tolerance, 1e-4, has to cover float32 on every supported version of torch and transformers and on every processor.
Where it was set, float32 was off by 2e-6 at most, a fiftieth of it. A fault is far larger: leaving out the last of the
98 rows alone moves one of the ten contacts by 0.06.
"""

import json
from pathlib import Path

import pytest
import torch
from made_up import SEED

from modeling_msa import (
    MsaForMaskedLM,
    MsaTokenizer,
    load_model,
    predict_contacts,
    read_alignment,
    score_variants,
)

GOLDEN = json.loads((Path(__file__).resolve().parent / "data" / "golden_msa_tiny.json").read_text())
TOLERANCE = 1e-4
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def family():
    return read_alignment(SEED)


@pytest.fixture(scope="module")
def model():
    return load_model("msa-tiny", cls=MsaForMaskedLM)


def test_logits_of_the_query(family, model):
    tokenizer = MsaTokenizer()
    inputs = tokenizer(family.drop_query_gaps().sequences, return_tensors="pt")
    letters = tokenizer.convert_tokens_to_ids(list(GOLDEN["amino_acids"]))
    with torch.no_grad():
        logits = model(**inputs).logits[0, 0]
    for residue, expected in GOLDEN["query_logits"].items():
        assert logits[int(residue), letters].tolist() == pytest.approx(expected, abs=TOLERANCE), residue


def test_the_ten_most_probable_contacts(family, model):
    contacts = predict_contacts(family, model)
    best = contacts.top(10)
    expected = GOLDEN["top_contacts"]
    assert contacts.residues[best].tolist() == [pair[:2] for pair in expected]
    assert contacts.probabilities[tuple(best.T)].tolist() == pytest.approx(
        [pair[2] for pair in expected], abs=TOLERANCE
    )


def test_scores_of_variants(family, model):
    scores = score_variants(family, list(GOLDEN["masked_marginals"]), model)
    assert scores.score.tolist() == pytest.approx(list(GOLDEN["masked_marginals"].values()), abs=TOLERANCE)
