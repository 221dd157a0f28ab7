"""Rows are paired as each method says, and the model's losses and pairs are those of a plain computation."""

import itertools

import numpy as np
import pytest
import torch
from made_up import SEED
from small import small_model

from modeling_msa import (
    Alignment,
    MsaForMaskedLM,
    MsaModel,
    MsaTokenizer,
    load_model,
    pair_alignments,
    read_alignment,
    write_pairing,
)
from modeling_msa.tasks import pairing
from modeling_msa.tasks.context import context_layers, row_states
from modeling_msa.tasks.pairing_files import read_pairs

pytestmark = pytest.mark.usefixtures("one_thread")
MASK = 32
A = Alignment.from_sequences(
    ["MKVL", "MRVL", "MKIL", "MaKWL", "MRWL", "A-CD", "----"],
    ["query", "A1_ECOLI kinase", "A2_YEAST", "A3_HUMAN", "A4_HUMAN", "A5_MOUSE", "A6_WHEAT"],
    source="a.a3m",
)
B = Alignment.from_sequences(
    ["WYCDE", "WFCDE", "WYSDE", "WYCDEkk", "AACDE", "WYC-E", "WYCDD", "WYCDE"],
    ["query", "B1_YEAST", "B2_ECOLI\t0.9", "B3_HUMAN", "B4_HUMAN", "B5_HUMAN", "B6_PIG", "B7_WHEAT"],
    source="b.a3m",
)


def pairs_of(result):
    return {(a + 1, b + 1): by for (a, b), by in zip(result.rows.tolist(), result.by, strict=True)}


def test_species_with_one_row_in_each():
    result = pair_alignments(A, B, method="species")
    # WHEAT's row of A has no residue
    assert pairs_of(result) == {(1, 1): "query", (2, 3): "single", (3, 2): "single"}
    assert result.alignment.sequences == ["MKVLWYCDE", "MRVLWYSDE", "MKILWFCDE"]
    assert result.alignment.names == ("query\tquery", "A1_ECOLI kinase\tB2_ECOLI 0.9", "A2_YEAST\tB1_YEAST")
    assert [tuple(chain) for chain in result.alignment.chains] == [("A", 4), ("B", 5)]
    assert (result.species, result.unpaired, result.shared) == (("", "ECOLI", "YEAST"), (4, 5), 4)
    assert np.isnan(result.loss).all()


def test_the_most_similar_row_of_each_species():
    """Of HUMAN, rows 4 and 5 of A share three and two residues with the query, rows 4, 5 and 6 of B 5, 3 and 4."""
    result = pair_alignments(A, B, method="rank")
    assert pairs_of(result) == {(1, 1): "query", (2, 3): "single", (3, 2): "single", (4, 4): "rank"}
    assert result.alignment.raw_rows[3] == b"MaKWLWYCDEkk"  # insertions are kept
    known = pair_alignments(A, B, method="rank", pairs=[("A3_HUMAN", "B6_PIG")])
    assert pairs_of(known) == {(1, 1): "query", (2, 3): "single", (3, 2): "single", (4, 7): "known"}


def test_a_querys_species_has_its_pair_already():
    a = Alignment.from_sequences(["MKVL", "MKVI"], ["Q_ECOLI", "X_ECOLI"])
    b = Alignment.from_sequences(["WYC", "WYS"], ["Q_ECOLI", "Y_ECOLI"])
    assert pairs_of(pair_alignments(a, b, method="rank")) == {(1, 1): "query"}
    assert pairs_of(pair_alignments(a, b, method="species")) == {(1, 1): "query"}
    assert pair_alignments(a, b, method="rank").species == ("ECOLI",)


def test_unpaired_rows_stay_with_gaps_in_the_other_chain():
    result = pair_alignments(A, B, method="species", keep_unpaired=True)
    rows = dict(zip(result.alignment.names, result.alignment.raw_rows, strict=True))
    assert len(rows) == 3 + 4 + 5
    assert list(rows)[3:5] == ["A3_HUMAN", "A4_HUMAN"]
    assert list(rows)[-1] == "B7_WHEAT"
    assert rows["A3_HUMAN"] == b"MaKWL-----"
    assert rows["B3_HUMAN"] == b"----WYCDEkk"


def test_columns_in_which_a_query_has_a_gap_become_insertions():
    a = Alignment.from_sequences(["M-KV", "MWKV"], ["Q", "X_ECOLI"], format="fasta")
    b = Alignment.from_sequences(["WY", "WF"], ["Q", "Y_ECOLI"])
    assert pair_alignments(a, b, method="rank").alignment.raw_rows == (b"MKVWY", b"MwKVWF")


@pytest.fixture(scope="module")
def model():
    return small_model(MsaForMaskedLM, scale=0.5)


def plain_losses(model, context, a, b):
    """Mean losses of each row of A and of B, masked, beside each row of the other, one pass at a time; and alone."""
    tokenizer = MsaTokenizer()
    rows = tokenizer([x + y for x, y in context], return_tensors="pt")["input_ids"]
    layers = [each.kept() for each in context_layers(model.msa, torch.cat([rows, rows[:, :1]], 1), row=len(context))]

    def loss(seen, hidden, first):
        text = "".join(x if x in "ACDEFGHIKLMNPQRSTVWY" else "-" for x in hidden)
        tokens = tokenizer([seen + text if first else text + seen], return_tensors="pt")["input_ids"][0]
        columns = slice(1 + len(seen), None) if first else slice(1, 1 + len(hidden))
        truth = tokens[0, columns].clone()
        tokens[0, columns] = MASK
        if seen.startswith("X"):
            tokens[0, 1:] = MASK
        logits = model.lm_head(row_states(model.msa, layers, tokens, row=len(context))[:, None])[0, 0, columns]
        losses = torch.nn.functional.cross_entropy(logits, truth, reduction="none")
        return losses[truth != 30].mean().item()

    with torch.inference_mode():
        of_b = np.array([[loss(x, y, True) for y in b] for x in a])
        of_a = np.array([[loss(y, x, False) for y in b] for x in a])
        alone_a = np.array([loss("X" * len(b[0]), x, False) for x in a])
        alone_b = np.array([loss("X" * len(a[0]), y, True) for y in b])
    return of_a, of_b, alone_a, alone_b


def test_the_model_pairs_as_a_plain_computation_over_all_pairings(model):
    result = pair_alignments(A, B, model, rounds=1)
    a, b = (["MKWL", "MRWL"], ["WYCDE", "AACDE", "WYC-E"])
    context = [("MKVL", "WYCDE"), ("MRVL", "WYSDE"), ("MKIL", "WFCDE")]
    of_a, of_b, alone_a, alone_b = plain_losses(model, context, a, b)
    cost = (of_a + of_b) / 2 - (alone_a[:, None] + alone_b) / 2
    totals = {(i, j): cost[0, i] + cost[1, j] for i, j in itertools.permutations(range(3), 2)}
    best = min(totals, key=totals.get)
    found = {pair: k for k, pair in enumerate(map(tuple, result.rows.tolist())) if result.by[k] == "model"}
    assert set(found) == {(3, 3 + best[0]), (4, 3 + best[1])}
    assert result.depth == 3
    for row, column in enumerate(best):
        place = found[3 + row, 3 + column]
        assert result.loss[place] == pytest.approx((of_a + of_b)[row, column] / 2, abs=1e-5)
        second = min(value for pairing, value in totals.items() if pairing[row] != column)
        assert result.margin[place] == pytest.approx(second - totals[best], abs=1e-5)


def test_a_row_without_a_partner_is_the_models_own_masked_row(model):
    """Where nothing of the row is seen, the fast mode is exact: the loss is that of a plain pass of all rows."""
    scorer = pairing._Scorer(A, B, model)
    rows = MsaTokenizer()(["MKVLWYCDE", "MRVLWYSDE"], return_tensors="pt")["input_ids"]
    whole = torch.cat([rows, rows[:, :1]], dim=1)
    layers = pairing.kept_layers(model.msa, whole, row=2)
    (loss,) = scorer._losses(layers, 2, 0, [-1], [[3]])
    whole[0, 2, 1:] = MASK
    with torch.no_grad():
        logs = model(whole).logits[0, 2, 5:].log_softmax(-1)
    expected = -logs[range(5), MsaTokenizer()(["WYCDE"])["input_ids"][0][0][1:]].mean()
    assert loss == pytest.approx([expected.item()], abs=1e-5)


def test_later_rounds_learn_from_other_species_only(model, monkeypatch):
    names = [f"{chain}{row}_SPEC{row % 4}" for chain in "XY" for row in range(8)]
    letters = np.random.default_rng(0).choice(list("ACDEFGHIKLMNPQRSTVWY"), (16, 5))
    rows = ["".join(each) for each in letters]
    a = Alignment.from_sequences(["MKVLA", *rows[:8]], ["query", *names[:8]])
    b = Alignment.from_sequences(["WYCDE", *rows[8:]], ["query", *names[8:]])
    seen, pair_all = [], pairing._Scorer._pair_all
    monkeypatch.setattr(pairing._Scorer, "_pair_all", lambda self, *them: seen.append(them) or pair_all(self, *them))
    result = pair_alignments(a, b, model, rounds=3, seed=1)
    assert [len(groups) for groups, _ in seen] == [4, 2, 2, 2, 2]
    assert [len(context) for _, context in seen] == [1, 3, 3, 5, 5]  # half of four pairs, then all
    assert (result.depth, len(result.rows), set(result.by)) == (5, 9, {"query", "model"})
    tokens = MsaTokenizer()(a, return_tensors="pt")["input_ids"][0]
    for groups, context in seen:
        own = tokens[[row for rows_a, _ in groups for row in rows_a]][:, 1:]
        assert not any((row[1:6] == each).all() for row in context[1:] for each in own)
    again = pair_alignments(a, b, model, rounds=3, seed=1)
    assert np.array_equal(again.rows, result.rows)
    few = pair_alignments(a, b, model, rounds=3, rows=2, seed=1)
    assert few.depth == 2


def test_halves_of_a_real_domain_find_each_other():
    """By the smallest model; half of the rows have species of their own, the others are in twos: chance is a half."""
    family = read_alignment(SEED).drop_query_gaps()
    order = [0, *(1 + np.random.default_rng(0).permutation(family.depth - 1))]
    groups = {name: str(k if k < 49 else 49 + k // 2) for k, name in enumerate(family.names[1:])}
    a = Alignment.from_sequences([row[:43] for row in family.sequences], family.names)
    b = Alignment.from_sequences([family.sequences[k][43:] for k in order], [family.names[k] for k in order])
    result = pair_alignments(a, b, load_model("msa-tiny", cls=MsaForMaskedLM), species=groups, rounds=1)
    right = np.array([x == y for x, y in result.names])
    by_model = np.array(result.by) == "model"
    assert right[~by_model].all()
    assert (by_model.sum(), result.depth) == (46, 52)
    assert right[by_model].mean() > 0.65


def test_names_with_quotes_come_back_from_the_table(tmp_path):
    names = ['"A" OX=1', 'a "b" OX=2', '"c OX=3', "'d OX=4"]
    a, b = (Alignment.from_sequences(["MKV", *rows], ["q", *names]) for rows in (["MRV"] * 4, ["MKI"] * 4))
    result = pair_alignments(a, b, method="species")
    known, _ = read_pairs(write_pairing(result, tmp_path / "ab.a3m"))
    assert known == [("q", "q"), *((name, name) for name in names)]


def test_files(tmp_path):
    result = pair_alignments(A, B, method="rank", keep_unpaired=True)
    table = write_pairing(result, tmp_path / "ab.a3m")
    assert table.name == "ab.partners.tsv"
    assert (
        (tmp_path / "ab.a3m")
        .read_text()
        .startswith("#4,5\t1,1\n>query\tquery\nMKVLWYCDE\n>A1_ECOLI kinase\tB2_ECOLI 0.9")
    )
    read = read_alignment(tmp_path / "ab.a3m")
    assert read.raw_rows == result.alignment.raw_rows
    assert read.chains == result.alignment.chains
    assert table.read_text().splitlines()[1:3] == [
        "query\tquery\t1\t1\t\tquery\t\t",
        "A1_ECOLI kinase\tB2_ECOLI 0.9\t2\t3\tECOLI\tsingle\t\t",
    ]
    (tmp_path / "known.csv").write_text("name_a,name_b,more\nA3_HUMAN,B5_HUMAN,x\n")
    known, lines = read_pairs(tmp_path / "known.csv")
    again = pair_alignments(A, B, method="species", pairs=known, lines=lines)
    assert pairs_of(again)[4, 6] == "known"


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("A9", "B3_HUMAN")], r"^t\.csv, line 2: no row is named 'A9' in a\.a3m"),
        ([("A3_HUMAN", "B9")], r"^t\.csv, line 2: no row is named 'B9' in b\.a3m"),
        (
            [("A3_HUMAN", "B3_HUMAN"), ("A3_HUMAN", "B4_HUMAN")],
            r"line 3: row 4 \(A3_HUMAN\) of a\.a3m has another partner in t\.csv, line 2; remove one",
        ),
        ([("query", "B3_HUMAN")], r"row 1 \(query\) of a\.a3m has another partner in the queries, which are a pair"),
    ],
)
def test_known_pairs_that_cannot_be(pairs, words):
    with pytest.raises(ValueError, match=words):
        pair_alignments(A, B, method="species", pairs=pairs, source="t.csv", lines=range(2, 2 + len(pairs)))


def test_the_queries_may_be_among_the_known_pairs():
    assert pairs_of(pair_alignments(A, B, method="species", pairs=[("query", "query")]))[1, 1] == "query"


def test_what_cannot_be_paired(model, monkeypatch):
    with pytest.raises(ValueError, match="are the same alignment: pass those of two different proteins"):
        pair_alignments(A, A, method="rank")
    both = pair_alignments(A, B, method="rank").alignment
    with pytest.raises(ValueError, match=r"is for one protein, but this is a complex of A:4,B:5"):
        pair_alignments(both, B, method="rank")
    with pytest.raises(ValueError, match="unknown method 'best'; use model, rank or species"):
        pair_alignments(A, B, method="best")
    with pytest.raises(ValueError, match="rounds must be at least 1, but is 0"):
        pair_alignments(A, B, model, rounds=0)
    for wrong in (None, small_model(MsaModel)):
        with pytest.raises(TypeError, match="requires one with a language model head"):
            pair_alignments(A, B, wrong)
    long = Alignment.from_sequences(["A" * 30, "C" * 30], ["q", "X_YEAST"], source="l.a3m")
    with pytest.raises(
        ValueError, match=r"a\.a3m and l\.a3m: .* 4 and 30 .*, 34 together, but the model reads at most 3"
    ):
        pair_alignments(A, long, model)
    assert pair_alignments(A, long, method="species").alignment.length == 34
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r"requires scipy: pip install 'modeling-msa\[train\]'"):
        pair_alignments(A, B, model)
