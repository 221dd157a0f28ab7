"""A complex is the same rows given as one alignment, bit for bit, with residues numbered by chain.

What is counted and drawn of its contacts is told apart: pairs within a chain, which are at least six residues apart,
and pairs between chains.
"""

import numpy as np
import pytest
import torch
from made_up import SEED, SHARED, real_data
from small import small_model
from straight_chains import cut_calmodulin

from modeling_msa import (
    Alignment,
    Chain,
    ContactMap,
    MsaForMaskedLM,
    MsaForTokenClassification,
    categorical_jacobian,
    complex_contacts,
    embed,
    embed_variants,
    fit_distances,
    generate,
    load_model,
    plot_contacts,
    plot_prediction,
    plot_profile,
    plot_substitutions,
    precision,
    precisions,
    predict,
    predict_contacts,
    predict_distances,
    predict_profile,
    read_alignment,
    score_all_singles,
    score_sequences,
    score_variants,
    structure_contacts,
    write_contacts,
    write_embeddings,
    write_prediction,
    write_profile,
    write_scores,
)
from modeling_msa.tasks.contact_precision import best_assignment, precision_table, same_pair_contacts, write_precisions

pytestmark = pytest.mark.usefixtures("one_thread")
CHAINS = (Chain("H", 40), Chain("L", 46))


@pytest.fixture(scope="module")
def one():
    return read_alignment(SEED).drop_query_gaps().take(range(8))


@pytest.fixture(scope="module")
def two(one):
    return one.with_chains(CHAINS)


@pytest.fixture(scope="module")
def tiny():
    return load_model("msa-tiny", cls=MsaForMaskedLM).eval()


def by_chain(text):
    """Number a residue of the whole query by chain, in the second way."""
    number = int(text)
    return f"H:{number}" if number <= 40 else f"L:{number - 40}"


def lines_of(path, separator="\t"):
    return [line.split(separator) for line in path.read_text().splitlines()]


def test_contacts(one, two, tmp_path):
    model = load_model("msa-tiny").eval()
    alone, both = predict_contacts(one, model), predict_contacts(two, model)
    assert np.array_equal(alone.probabilities, both.probabilities)
    write_contacts(alone, tmp_path / "one.tsv", min_separation=1)
    write_contacts(both, tmp_path / "two.tsv", min_separation=6)
    probability = {(by_chain(i), by_chain(j)): p for i, j, p in lines_of(tmp_path / "one.tsv")[1:]}
    numbers = {by_chain(k): k for k in range(1, 87)}
    rows = lines_of(tmp_path / "two.tsv")[1:]
    assert all(probability[i, j] == p for i, j, p in rows)
    # six apart within a chain, any distance between chains: 34 * 35 / 2 + 40 * 41 / 2 + 40 * 46 pairs
    assert len(rows) == 595 + 820 + 1840
    assert {numbers[j] - numbers[i] for i, j, _ in rows if i[0] == j[0]} >= {6}
    assert ["H:40", "L:1"] in [row[:2] for row in rows]
    write_contacts(both, tmp_path / "between.tsv", between_chains=True)
    between = lines_of(tmp_path / "between.tsv")[1:]
    assert between == [row for row in rows if row[0][0] != row[1][0]]
    write_contacts(both, tmp_path / "two.rr", between_chains=True)
    rr = (tmp_path / "two.rr").read_text().splitlines()
    assert rr[3].startswith("REMARK chains H:40,L:46")
    assert rr[5:7] == [one.query[:40], one.query[40:]]
    assert rr[7].split() == [*between[0][:2], "0", "8", between[0][2]]
    write_contacts(both, tmp_path / "two.npz")
    with np.load(tmp_path / "two.npz", allow_pickle=False) as arrays:
        assert arrays["chain_names"].tolist() == ["H", "L"]
        assert arrays["chain_lengths"].tolist() == [40, 46]
        assert np.array_equal(arrays["residues"], alone.residues)


def test_a_gap_between_chains(two, tmp_path):
    """A gap is the model's own `position_ids`; 0 changes nothing, and the positions must exist."""
    model = load_model("msa-tiny").eval()
    with torch.inference_mode():
        from modeling_msa.tasks.inputs import encode

        inputs = encode(two, model)
        positions = torch.tensor([[*range(41), *range(61, 107)]])
        expected = model.predict_contacts(**inputs, position_ids=positions)[0].numpy()
    found = predict_contacts(two, model, chain_gap=20).probabilities
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, predict_contacts(two, model).probabilities)
    assert np.array_equal(
        predict_contacts(two, model, chain_gap=0).probabilities, predict_contacts(two, model).probabilities
    )
    limit = model.config.max_position_embeddings
    with pytest.raises(ValueError, match=f"with a gap of {limit} between chains the positions go up to {86 + limit}"):
        predict_contacts(two, model, chain_gap=limit)
    with pytest.raises(ValueError, match="a gap between chains requires the chains of a complex"):
        predict_contacts(two.with_chains(()), model, chain_gap=5)


def test_scores(one, two, tiny, tmp_path):
    variants = ["H:S1A", "L:S46Y:H:A2V", "WT"]
    alone = score_variants(one, ["S1A", "A2V:S86Y", "WT"], tiny, strategy="wt-marginals")
    both = score_variants(two, variants, tiny, strategy="wt-marginals")
    assert np.array_equal(alone.score, both.score)
    assert alone.score[2] == 0
    for each, name in ((one, "one.csv"), (two, "two.csv")):
        write_scores(score_all_singles(each, tiny, strategy="wt-marginals"), tmp_path / name)
    renamed = [
        [f"{'H' if int(name[1:-1]) <= 40 else 'L'}:{name[0]}{by_chain(name[1:-1])[2:]}{name[-1]}", score]
        for name, score in lines_of(tmp_path / "one.csv", ",")[1:]
    ]
    assert lines_of(tmp_path / "two.csv", ",")[1:] == renamed
    with pytest.raises(ValueError, match=r"an offset of residue numbers .9. is for one protein"):
        score_all_singles(two, tiny, offset=9)
    with pytest.raises(ValueError, match="scoring of whole sequences is for one protein"):
        score_sequences(two, [two.query], tiny)


def test_profile(one, two, tiny, tmp_path):
    alone, both = (predict_profile(each, tiny, mode="fast") for each in (one, two))
    assert np.array_equal(alone.probabilities, both.probabilities)
    write_profile(alone, tmp_path / "one.tsv")
    write_profile(both, tmp_path / "two.tsv")
    for left, right in zip(lines_of(tmp_path / "one.tsv")[1:], lines_of(tmp_path / "two.tsv")[1:], strict=True):
        assert right == [by_chain(left[0]), *left[1:]]


def test_jacobian(tmp_path):
    model = small_model(MsaForMaskedLM)
    rows = ["MKVLAWYCDE", "MRVL-WYCDE", "MKIIAWFCDD"]
    alone = categorical_jacobian(Alignment.from_sequences(rows), model, pairs=3, min_separation=1)
    both = categorical_jacobian(Alignment.from_sequences(rows, chains="4,6"), model, pairs=3, min_separation=1)
    assert np.array_equal(alone.scores, both.scores)
    for left, right in zip(alone.pairs, both.pairs, strict=True):
        numbers = [int(part[1:-1]) for part in left.split(":")]
        words = [
            f"{'AB'[n > 4]}:{part[0]}{n - 4 * (n > 4)}{part[-1]}"
            for n, part in zip(numbers, left.split(":"), strict=True)
        ]
        assert right == ":".join(words)
    near = categorical_jacobian(Alignment.from_sequences(rows, chains="4,6"), model, pairs=500)
    found = {tuple(part for part in name.split(":") if len(part) == 1) for name in near.pairs}
    assert found == {("A", "B")}  # no chain has two residues six apart


@pytest.mark.parametrize("which", ["query", "rows", "mean"])
def test_embeddings_are_split_by_chain(which, one, two, tmp_path):
    from safetensors.numpy import load_file

    model = load_model("msa-tiny").eval()
    whole = embed(one, model, which="rows" if which == "rows" else "query").array
    write_embeddings({"pair": embed(two, model, which=which)}, tmp_path / "e.safetensors")
    arrays = load_file(tmp_path / "e.safetensors")
    assert set(arrays) == {"pair/H", "pair/L"}
    for name, part in (("pair/H", whole[..., :40, :]), ("pair/L", whole[..., 40:, :])):
        if which == "mean":
            assert np.abs(arrays[name] - part.astype(np.float64).mean(axis=0)).max() < 1e-6
        else:
            assert np.array_equal(arrays[name], part)
    chain = embed(two, model).by_chain()["L"]
    assert (chain.query, chain.residues.tolist()) == (one.query[40:], list(range(1, 47)))


def test_embeddings_of_variants(one, two):
    model = load_model("msa-tiny").eval()
    alone = embed_variants(one, ["S1A", "S86Y"], model, which="mutated")
    both = embed_variants(two, ["H:S1A", "L:S46Y"], model, which="mutated")
    assert np.array_equal(alone.features, both.features)


def test_prediction(tmp_path):
    model = small_model(MsaForTokenClassification, num_labels=3)
    rows = ["MKVLAWYCDE", "MRVL-WYCDE"]
    alone, both = (predict(Alignment.from_sequences(rows, chains=chains), model) for chains in ((), "4,6"))
    assert np.array_equal(alone.scores, both.scores)
    write_prediction(both, tmp_path / "p.csv")
    assert [row[0] for row in lines_of(tmp_path / "p.csv", ",")[1:]] == [
        *(f"A:{k}" for k in range(1, 5)),
        *(f"B:{k}" for k in range(1, 7)),
    ]
    plot_prediction(both, tmp_path / "p.png")


def test_distances(one, two):
    model = load_model("msa-tiny").eval()
    fitted = fit_distances([one], model)
    alone, both = (predict_distances(each, model, fitted) for each in (one, two))
    assert np.array_equal(alone.predicted, both.predicted)


def test_one_chain_is_generated_and_the_other_stays(one, two, tiny):
    made = generate(two, tiny, iterations=3, rows=8, only_residues="L", mask_probability=0.5)
    same = generate(one, tiny, iterations=3, rows=8, only_residues="41-86", mask_probability=0.5)
    assert made.alignment.sequences == same.alignment.sequences
    assert [row[:40] for row in made.alignment.sequences] == [row[:40] for row in two.sequences]
    assert made.alignment.sequences[1][40:] != two.sequences[1][40:]
    assert [each.name for each in made.alignment.chains] == ["H", "L"]
    assert sum(each.length for each in made.alignment.chains) == len(made.alignment.query)
    fixed = generate(two, tiny, iterations=2, rows=8, fixed_residues="H,L:1-40", mask_probability=0.5)
    assert [row[:80] for row in fixed.alignment.sequences] == [row[:80] for row in two.sequences]
    for text, words in {
        "X": "'X' names no chain",
        "L:47": "chain L has residues 1 to 46",
        "41-86": "names no chain",
    }.items():
        with pytest.raises(ValueError, match=words):
            generate(two, tiny, iterations=1, only_residues=text)


def complex_map(pairs, sizes=(8, 8), query="MKVLAWDC" * 2):
    """A map of two chains; the pairs, numbered from 1 on the whole query, are the most probable, in this order."""
    length = sum(sizes)
    values = np.zeros((length, length), dtype=np.float32)
    for rank, (i, j) in enumerate(pairs):
        values[i - 1, j - 1] = values[j - 1, i - 1] = 1 - rank / 100
    chains = tuple(Chain(name, size) for name, size in zip("AB", sizes, strict=True))
    return ContactMap("pair", query, np.arange(1, length + 1), values, 1, chains)


def known_of(outer, length=8):
    """Neighbours within each chain, and these pairs of places between them."""
    inner = (np.abs(np.arange(length)[:, None] - np.arange(length)) <= 1).astype(int)
    between = np.zeros((length, length), dtype=int)
    for i, j in outer:
        between[i - 1, j - 1] = 1
    return np.block([[inner, between], [between.T, inner]])


def test_precision_between_chains_by_hand(tmp_path):
    """L is 16. Of the pairs between chains, (1, 9), (2, 10) and (8, 16) are contacts; one of them is predicted third.

    Within a chain no pair six apart is a contact, and (1, 7) is predicted first.
    """
    contacts = complex_map([(1, 7), (4, 12), (5, 9), (1, 9), (2, 11), (2, 10)], query="MKVLAWDCGWKDLMVA")
    known = known_of([(1, 1), (2, 2), (8, 8)])
    values = precisions(contacts, known)
    # between: (4,12) wrong, (5,9) wrong, (1,9) right, (2,11) wrong, (2,10) right, then zeros from (1,10) on
    assert values["between P@L/5"] == pytest.approx(1 / 3)  # the first 3
    assert values["between P@L/2"] == pytest.approx(2 / 8)
    assert values["between P@10"] == pytest.approx(2 / 10)
    assert values["between P@50"] == pytest.approx(2 / 50)  # (8, 16) is the last of the 64 pairs
    assert values["between P@50"] == precision(contacts, known, top=50, min_separation=10**6)
    assert values["P@L/5"] == 0  # (1,7), (4,12), (5,9)
    assert values["short P@L"] == 0
    assert np.isnan(values["medium P@L"])
    write_precisions(values, tmp_path / "p.tsv")
    table = lines_of(tmp_path / "p.tsv")
    assert table[0] == ["contacts", "P@L", "P@L/2", "P@L/5", "P@50", "P@10"]
    assert table[5] == ["between", "0.125000", "0.250000", "0.333333", "0.040000", "0.200000"]
    shown = precision_table({name: f"{value:.2f}" for name, value in values.items()}).splitlines()
    assert [line.split()[:2] for line in shown[3:5]] == [["medium", "12-23"], ["long", ">=24"]]
    assert shown[5].split() == ["between", "0.12", "0.25", "0.33", "0.04", "0.20"]


def test_homo_dimers_by_the_better_assignment():
    """(1, 13) is A:1 with B:5: right only if the chains are exchanged. (3, 12) is A:3 with B:4: neighbours."""
    contacts = complex_map([(1, 13), (3, 12), (2, 16)])
    as_they_are = known_of([(5, 1)])
    exchanged = known_of([(1, 5)])
    assert best_assignment(contacts, {"A:A,B:B": as_they_are, "A:B,B:A": exchanged}, top=3) == "A:B,B:A"
    assert best_assignment(contacts, {"A:A,B:B": as_they_are, "A:B,B:A": as_they_are}) == "A:A,B:B"
    marked = same_pair_contacts(exchanged, contacts.query, contacts.chains)
    assert [bool(marked[i - 1, j - 1]) for i, j in ((1, 13), (3, 12), (2, 16), (3, 4))] == [False, True, False, False]
    other = complex_map([], query="MKVLAWDCGWKDLMVA")
    assert not same_pair_contacts(exchanged, other.query, other.chains).any()


def drawn(monkeypatch):
    """Collect the figures that are drawn."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **more: (figures.append(self), save(self, *args, **more))
    )
    return figures


def test_pictures_are_numbered_by_chain(two, tiny, tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    contacts = complex_map([(1, 13), (3, 12), (2, 16), (1, 7)])
    known = known_of([(1, 5)])
    plot_contacts(contacts, tmp_path / "c.png", known=known)
    plot_contacts(contacts, tmp_path / "b.png", known=known, between_chains=True)
    plot_profile(predict_profile(two, tiny, mode="fast"), tmp_path / "p.png")
    plot_substitutions(score_all_singles(two, tiny, strategy="wt-marginals"), tmp_path / "s.png")
    for figure in figures[:2]:
        axes = figure.axes[0]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["A:1", "A:5", "B:1", "B:5"]
        assert axes.get_xticks().tolist() == [1, 5, 9, 13]
        assert sorted(line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1) == [8.5]
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        # L = 16 pairs: those above, then (1, 9), (1, 10), ... in order, of which five more are neighbours
        assert "in contact within a chain instead (6)" in labels
        assert any(label.startswith("true positives") and label.endswith("(1)") for label in labels)
    whole, between = (np.ma.filled(figure.axes[0].images[0].get_array(), np.nan) for figure in figures[:2])
    assert np.isfinite(between).sum() == 64
    assert np.isfinite(whole).sum() == 64 + 3 + 3  # (1,7), (1,8), (2,8) of each chain
    for figure in figures[2:]:
        labels = {label.get_text() for axes in figure.axes for label in axes.get_xticklabels()}
        assert {"H:1", "L:1", "L:20"} <= labels


@real_data
def test_a_protein_of_two_domains_cut_in_two(tmp_path):
    """Calmodulin's two domains as chains: contacts are those of the whole protein, and so are the probabilities."""
    family = read_alignment(SHARED / "msa" / "1prw.a3m").take(range(12))
    cut = 77
    pair = family.with_chains([cut, len(family.query) - cut])
    cut_calmodulin(SHARED / "structure" / "1prw.pdb", tmp_path / "two.cif", "LH")
    found = complex_contacts(tmp_path / "two.cif", pair)
    assert list(found) == ["A:L,B:H"]
    known = structure_contacts(SHARED / "structure" / "1prw.pdb", family)
    assert np.array_equal(found["A:L,B:H"], known)

    model = load_model("msa-tiny").eval()
    alone, both = (predict_contacts(each, model) for each in (family, pair))
    assert np.array_equal(alone.probabilities, both.probabilities)
    block, truth = both.probabilities[:cut, cut:], known[:cut, cut:]
    order = np.argsort(-block, axis=None, kind="stable")
    order = order[truth.ravel()[order] >= 0][:50]
    assert precisions(both, known)["between P@50"] == pytest.approx((truth.ravel()[order] == 1).sum() / 50)
