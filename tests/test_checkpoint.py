"""The checkpoint that comes with the package, and the simulation it was trained on.

It is a folder of a few files without code, the default of every command, loads by name and by the auto classes, and
predicts the contacts of families it never saw better than mutual information does. A family depends on its seed only;
its sequences come from the Potts model whose couplings lie on the contacts.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from modeling_msa import (
    MsaForMaskedLM,
    MsaTokenizer,
    bundled_family,
    bundled_structure,
    coevolution,
    load_model,
    mutual_information,
    precision,
    predict_contacts,
    read_alignment,
    structure_contacts,
)
from modeling_msa.hub.finding import resolve_model
from modeling_msa.training import simulation as simulate

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "modeling_msa" / "checkpoints" / "msa-tiny"

pytestmark = pytest.mark.usefixtures("one_thread")


def test_files():
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 4e6
    for name in ("config.json", "tokenizer_config.json"):  # no code here, so no map that points to it
        assert "auto_map" not in json.loads((FOLDER / name).read_text())
    card = (FOLDER / "README.md").read_text()
    assert "synthetic families" in card
    assert "held-out synthetic families" in card


def test_loads_by_name_and_by_the_auto_classes(tmp_path):
    assert resolve_model("msa-tiny") == str(FOLDER)
    by_name = load_model("msa-tiny")
    model = AutoModelForMaskedLM.from_pretrained(FOLDER)
    assert type(model) is MsaForMaskedLM
    assert isinstance(AutoTokenizer.from_pretrained(FOLDER), MsaTokenizer)
    assert all(torch.equal(tensor, by_name.state_dict()[name]) for name, tensor in model.msa.state_dict().items())
    model.save_pretrained(tmp_path / "msa-tiny")
    assert "AutoModel" in json.loads((tmp_path / "msa-tiny" / "config.json").read_text())["auto_map"]
    assert (tmp_path / "msa-tiny" / "modeling_msa_transformer.py").is_file()


def test_contacts_of_families_it_never_saw():
    model = load_model("msa-tiny")
    figures = []
    for index in range(100, 103):  # neither trained on nor in the published evaluation
        family, contacts = simulate.make_family(1, index)
        scores = (
            predict_contacts(family, model, rows=1024).probabilities,
            mutual_information(family.array),
        )
        figures.append([precision(values, contacts) for values in scores])
    ours, theirs = np.mean(figures, axis=0)
    assert ours > 1.3 * theirs > 0.2


def test_the_default_checkpoint():
    """msa-small: float16 on disk, float32 in memory, and the structure of the bundled family, which it never saw."""
    folder = FOLDER.with_name("msa-small")
    assert resolve_model("msa-small") == str(folder)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 11e6
    model = load_model()
    assert (model.dtype, model.config.profile_weight) == (torch.float32, 0.5)
    raw = AutoModelForMaskedLM.from_pretrained(folder)
    assert raw.dtype == torch.float32
    assert all(torch.equal(tensor, raw.msa.state_dict()[name]) for name, tensor in model.state_dict().items())
    family = read_alignment(bundled_family())
    contacts = structure_contacts(bundled_structure(), family)
    found = predict_contacts(family, model, rows=256)
    classical = coevolution(family, "mi", rows=256)
    figures = [precision(each, contacts, top=top) for each in (found, classical) for top in ("L", "L/2")]
    assert figures == pytest.approx([0.40, 0.60, 0.34, 0.45], abs=0.02)  # as docs and README say
    card = (folder / "README.md").read_text()
    assert "131 under" in card
    assert "| 1,024 | msa-small |" in card


def test_a_family_follows_from_its_seed():
    family, contacts = simulate.make_family(3, 5)
    again, _ = simulate.make_family(3, 5)
    other, _ = simulate.make_family(3, 6)
    assert family.sequences == again.sequences != other.sequences
    assert len(contacts) == family.length == len(family.query)
    assert (contacts == contacts.T).all()
    assert not np.diagonal(contacts).any()


def test_sampling_gives_the_distribution_of_the_model():
    """Two coupled columns: frequencies of pairs against the Boltzmann weights, which are summed up by hand."""
    rng = np.random.default_rng(0)
    weights = np.zeros((3, 3), dtype=np.float32)
    weights[0, 2] = weights[2, 0] = 1
    potts = simulate.random_potts(rng, simulate.Topology(np.full(3, "-"), weights), strength=1.0, conservation=0.3)
    states = rng.integers(0, 20, (40_000, 3)).astype(np.int8)
    for _ in range(20):
        simulate.gibbs(rng, potts, states, np.ones((1, 3), dtype=np.float32))
    coupling = potts.couplings[0, list(potts.neighbours[0]).index(2)].T  # [state of column 0, state of column 2]
    expected = np.exp(potts.fields[0][:, None] + potts.fields[2][None] + coupling)
    expected /= expected.sum()
    seen = np.zeros((20, 20))
    np.add.at(seen, (states[:, 0], states[:, 2]), 1 / len(states))
    error = np.sqrt(expected * (1 - expected) / len(states))  # of a frequency among independent draws
    assert (np.abs(seen - expected) < 5 * error + 1e-4).all()
    assert np.abs(seen - expected).sum() < 0.1 < np.abs(expected - np.outer(expected.sum(1), expected.sum(0))).sum()


def test_noise_is_alike_for_amino_acids_that_are_alike():
    """Pairs that BLOSUM62 scores 0 to 3, against pairs that it scores -3 or -4."""
    similarity = simulate.SIMILAR @ simulate.SIMILAR.T
    where = simulate.AMINO_ACIDS.index
    like = [similarity[where(a), where(b)] for a, b in ["IV", "IL", "DE", "KR", "FY", "ST", "NQ"]]
    unlike = [similarity[where(a), where(b)] for a, b in ["DL", "KF", "CE", "DF", "EI", "PW"]]
    assert min(like) > max(unlike) + 0.3
    assert np.diagonal(similarity) == pytest.approx(1)


def test_couplings_lie_on_the_contacts():
    rng = np.random.default_rng(1)
    topology = simulate.random_topology(rng, 80)
    potts = simulate.random_potts(rng, topology, strength=1.0, conservation=0.3)
    coupled = np.zeros((80, 80), dtype=bool)
    for column, neighbours in enumerate(potts.neighbours):
        coupled[column, neighbours[np.abs(potts.couplings[column]).max((1, 2)) > 0]] = True
    assert (coupled == (topology.weights > 0)).all()
    for columns in potts.colours:  # sampled at once, so not coupled
        assert not coupled[np.ix_(columns, columns)].any()
