"""Contract of `modeling_msa.training.collators`.

- Rows and columns keep to a budget, and are drawn anew at each visit; padding is right and below.
- A batch follows from seed, epoch and example alone.
- Of the positions 15 % are targets: 80 % masked, 10 % random, 10 % kept; never <cls> or padding; a batch has a target.
- Labels are numbered on the query's residues, and padded with -100 along the right axes.
"""

import math

import numpy as np
import pytest
import torch
from made_up import AMINO_ACIDS, CLS, GAP, MASK, PAD, TOKENIZER, batches_equal, features, random_array
from small import small_model

from modeling_msa import (
    Alignment,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaTokenizer,
)
from modeling_msa.training.collators import (
    MsaDataCollator,
    MsaDataCollatorForContactPrediction,
    MsaDataCollatorForMaskedLM,
    MsaDataCollatorForSequenceClassification,
    MsaDataCollatorForTokenClassification,
)

# --- features


COLLATORS = (
    MsaDataCollator,
    MsaDataCollatorForContactPrediction,
    MsaDataCollatorForMaskedLM,
    MsaDataCollatorForSequenceClassification,
    MsaDataCollatorForTokenClassification,
)
ROWS = ["MK-VL", "MRTVL", "-KTV-"]


@pytest.mark.parametrize("cls", COLLATORS)
def test_a_feature_is_an_alignment_or_a_list_of_rows(cls):
    """As the pipelines do; by the tokenizer's rule, a list of strings is one alignment."""

    def batch_of(given):
        torch.manual_seed(0)  # the draws of features without a visit
        return cls(TOKENIZER)(given)

    family = Alignment.from_sequences(ROWS)
    expected = batch_of([{"alignment": family}])
    if cls is not MsaDataCollatorForMaskedLM:
        assert torch.equal(expected["input_ids"], TOKENIZER([ROWS], return_tensors="pt")["input_ids"])
    for one in (family, family.array, ROWS, tuple(ROWS), list(family), {"sequences": ROWS}):
        for given in (one, [one]):
            assert batches_equal(batch_of(given), expected)
    several = [family, ["MKV"], {"sequences": ["MRV", "MKV"]}]
    mappings = [{"alignment": family}, {"sequences": ["MKV"]}, {"sequences": ["MRV", "MKV"]}]
    assert batches_equal(batch_of(several), batch_of(mappings))
    assert batch_of(several)["input_ids"].shape == (3, 3, 6)


@pytest.mark.parametrize("cls", COLLATORS)
def test_what_is_not_a_feature(cls):
    collator = cls(TOKENIZER)
    for given, message in (
        (3, "Feature 0 of the batch is of type int"),
        ([ROWS, 3], "Feature 1 of the batch is of type int"),
        ([], "Feature 0 of the batch is of type list"),
        ([ROWS, "MKV"], "Feature 1 of the batch is a single row: put it into a list"),
        ("MKV", "Feature 0 of the batch is a single row: put it into a list"),
        ([[ROWS]], "Feature 0 of the batch is of type list. A feature is an Alignment, a list of rows"),
    ):
        with pytest.raises(TypeError, match=message):
            collator(given)
    with pytest.raises(ValueError, match=r"row 2 .* has 2 columns"):
        collator(["MKV", "MK"])
    with pytest.raises(ValueError, match="an alignment must be an Alignment or a uint8 array"):
        collator(np.zeros((2, 3)))


# --- rows and columns


def test_rows_follow_from_the_budget():
    # 2^14 tokens: 16,384 // 101 = 162 rows of 100 columns; 16,384 // 11 would be more than 1,024
    collator = MsaDataCollator(TOKENIZER)
    assert collator(features((300, 100)))["input_ids"].shape == (1, 162, 101)
    assert collator(features((1500, 10)))["input_ids"].shape == (1, 1024, 11)
    assert collator(features((3, 100)))["input_ids"].shape == (1, 3, 101)
    assert collator(features((40, 1500)))["input_ids"].shape == (1, 16, 1024)
    assert MsaDataCollator(TOKENIZER, max_tokens=20)(features((40, 50)))["input_ids"].shape == (1, 1, 20)
    small = MsaTokenizer(model_max_length=32, model_max_depth=4)
    assert MsaDataCollator(small)(features((40, 50)))["input_ids"].shape == (1, 4, 32)
    assert [collator.size(*shape) for shape in ((300, 100), (40, 1500))] == [(162, 101), (16, 1024)]


def test_columns_are_padded_to_a_multiple():
    collator = MsaDataCollatorForMaskedLM(TOKENIZER, pad_to_multiple_of=8, random_positions=True)
    batch = collator(features((3, 16), (2, 9)))  # 17 and 10 columns with <cls>
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 3, 24)
    assert batch["attention_mask"].sum().item() == 3 * 17 + 2 * 10
    assert (batch["input_ids"][:, :, 17:] == PAD).all()
    assert (batch["labels"][:, :, 17:] == -100).all()
    assert batch["position_ids"].shape == (2, 24)
    assert collator(features((3, 15)))["input_ids"].shape == (1, 3, 16)
    small = MsaTokenizer(model_max_length=12)  # a model that has no 16 columns
    assert MsaDataCollator(small, pad_to_multiple_of=8)(features((3, 10)))["input_ids"].shape == (1, 3, 11)
    with pytest.raises(ValueError, match="pad_to_multiple_of must be at least 1, not 0"):
        MsaDataCollator(TOKENIZER, pad_to_multiple_of=0)


@pytest.mark.parametrize("select", ["random", "diverse", "weighted", "first"])
def test_rows_are_rows_of_the_alignment(select):
    array = random_array(60, 20, gaps=0)
    batch = MsaDataCollator(TOKENIZER, max_rows=7, select=select)([{"alignment": array, "visit": (0, 0)}])
    ids = TOKENIZER([array], return_tensors="np")["input_ids"][0].tolist()
    places = [ids.index(row) for row in batch["input_ids"][0].tolist()]
    assert places[0] == 0
    assert places == sorted(set(places))
    assert len(places) == 7
    if select == "first":
        assert places == list(range(7))


def test_every_row_has_its_turn():
    # row 0 always, each of 9 others in 3 of 9 visits: 1/3 of 600, standard deviation 11.5
    array = random_array(10, 20, gaps=0)
    ids = TOKENIZER([array], return_tensors="np")["input_ids"][0].tolist()
    collator = MsaDataCollator(TOKENIZER, max_rows=4)
    counts = np.zeros(10)
    for visit in range(600):
        rows = collator([{"alignment": array, "visit": (visit, 0)}])["input_ids"][0].tolist()
        counts[[ids.index(row) for row in rows]] += 1
    assert counts[0] == 600
    assert np.abs(counts[1:] - 200).max() < 60


def test_crop_takes_a_stretch_of_columns():
    # Columns differ by their letter; row 2 is a fragment of the end, and dropped where it has only gaps.
    array = np.stack([AMINO_ACIDS[:12]] * 4)
    array[2, :9] = ord("-")
    letters = TOKENIZER([array[:1]], return_tensors="np")["input_ids"][0, 0, 1:].tolist()
    starts = set()
    for visit in range(60):
        batch = MsaDataCollator(TOKENIZER, max_columns=6)([{"alignment": array, "visit": (visit, 0)}])
        row = batch["input_ids"][0, 0].tolist()
        start = letters.index(row[1])
        starts.add(start)
        assert row == [CLS, *letters[start : start + 5]]
        assert batch["input_ids"].shape[1] == (4 if start + 5 > 9 else 3)
    assert starts == set(range(8))
    first = MsaDataCollator(TOKENIZER, max_columns=6, crop="first")([{"alignment": array, "visit": (9, 9)}])
    assert first["input_ids"][0, 0].tolist() == [CLS, *letters[:5]]


def test_padding_is_right_and_below():
    shapes = [(5, 8), (2, 12), (1, 1)]
    batch = MsaDataCollator(TOKENIZER)(features(*shapes))
    assert batch["input_ids"].shape == (3, 5, 13)
    for k, (rows, columns) in enumerate(shapes):
        expected = TOKENIZER([random_array(rows, columns, seed=k)], return_tensors="pt")["input_ids"][0]
        assert torch.equal(batch["input_ids"][k, :rows, : columns + 1], expected)
        inside = torch.zeros(5, 13, dtype=torch.int64)
        inside[:rows, : columns + 1] = 1
        assert torch.equal(batch["attention_mask"][k], inside)
        assert (batch["input_ids"][k][inside == 0] == PAD).all()


def test_log_uniform_depth():
    # Uniform in the logarithm from 4 to 256 rows: as many of 200 visits in each of 6 octaves, 33 +- 5.3
    feature = features((300, 10))[0]
    collator = MsaDataCollator(TOKENIZER, max_rows=256, min_rows=4, depth="log_uniform")
    depths = [collator([{**feature, "visit": (v, 0)}])["input_ids"].shape[1] for v in range(200)]
    assert min(depths) >= 4
    assert max(depths) <= 256
    counts = np.histogram(np.log2(depths), bins=np.arange(2, 9))[0]
    assert counts.min() > 12
    # one quantile for a batch: the same alignment has the same depth everywhere in it
    for epoch in range(5):
        batch = collator([{**feature, "visit": (epoch, k)} for k in range(4)])
        assert batch["attention_mask"].all()
    assert MsaDataCollator(TOKENIZER, min_rows=9, depth="log_uniform")(features((2, 9)))["input_ids"].shape[1] == 2


def test_random_positions_train_the_whole_table():
    tokenizer = MsaTokenizer(model_max_length=40)
    collator = MsaDataCollator(tokenizer, random_positions=True)
    starts = set()
    for visit in range(300):
        feature, longer = features((3, 9), (2, 39), epoch=visit)
        positions = collator([feature, longer])["position_ids"]
        assert positions.shape == (2, 40)
        assert (positions[:, 0] == 0).all()
        start = int(positions[0, 1])
        assert positions[0, 1:10].tolist() == list(range(start, start + 9))
        assert positions.max() < 40  # padding does not leave the table
        assert positions[1].tolist() == list(range(40))  # an MSA that fills the table has one place
        starts.add(start)
    assert starts == set(range(1, 32))


def test_all_kinds_of_features_are_one():
    family = Alignment.from_sequences(["MK-V", "MRAL"])
    batches = [
        MsaDataCollatorForMaskedLM(TOKENIZER)([{**feature, "visit": (0, 0)}])
        for feature in ({"alignment": family}, {"alignment": family.array}, {"sequences": family.sequences})
    ]
    assert batches_equal(batches[0], batches[1])
    assert batches_equal(batches[0], batches[2])


def test_invalid_features():
    collator = MsaDataCollator(TOKENIZER)
    for feature, message in (
        ({"visit": (0, 0)}, "remove_unused_columns=False"),
        (
            {"name": "f1", "alignment": np.zeros((2, 2))},
            r"f1: an alignment must be .* a uint8 array \(R, L\)",
        ),
        ({"name": "f1", "sequences": ["MKV", "MK"]}, "f1: row 2 .* has 2 columns"),
        ({"name": "f1", "sequences": []}, "f1: contains no sequence"),
        ({"sequences": ["MkV", "MRV"]}, "lowercase letters are insertions"),
    ):
        with pytest.raises(ValueError, match=message):
            collator([feature])
    with pytest.warns(UserWarning, match="not in the alphabet"):
        ids = collator([{"sequences": ["MK5", "MRV"]}])["input_ids"]
    assert ids[0, 0].tolist() == TOKENIZER(["MK<unk>"])["input_ids"][0][0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"select": "best"}, "select must be one of"),
        ({"depth": "deep"}, "depth must be one of"),
        ({"max_rows": 0}, "max_rows must be at least 1"),
        ({"mlm_probability": 0}, "mlm_probability must be above 0"),
        ({"mask_columns": 1.5}, "mask_columns must be from 0 to 1"),
        ({"mask_replace_prob": 0.9, "random_replace_prob": 0.2}, "must not exceed 1"),
    ],
)
def test_invalid_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        MsaDataCollatorForMaskedLM(TOKENIZER, **setting)


# --- visits


def test_visits_and_seeds_draw_differently():
    feature = features((50, 30))[0]

    def batch(epoch=0, index=0, seed=0):
        return MsaDataCollatorForMaskedLM(TOKENIZER, max_rows=9, seed=seed)([{**feature, "visit": (epoch, index)}])

    assert batches_equal(batch(), batch())
    for other in (batch(epoch=1), batch(index=1), batch(seed=1)):
        assert not torch.equal(batch()["labels"], other["labels"])
        assert not torch.equal(batch()["input_ids"], other["input_ids"])


def test_without_visit_torch_draws():
    feature = {"alignment": random_array(50, 30)}
    collator = MsaDataCollatorForMaskedLM(TOKENIZER)
    torch.manual_seed(3)
    first, second = collator([feature]), collator([feature])
    assert not batches_equal(first, second)
    torch.manual_seed(3)
    assert batches_equal(first, collator([feature]))


# --- masked language modeling


def masked_and_plain(shape=(200, 300), gaps=0.1, visit=(0, 0), **kwargs):
    feature = {"alignment": random_array(*shape, gaps=gaps), "visit": visit}
    sizes = {"max_tokens": 2**17}
    masked = MsaDataCollatorForMaskedLM(TOKENIZER, **sizes, **kwargs)([feature])
    plain = MsaDataCollator(TOKENIZER, **sizes)([feature])
    return masked["input_ids"][0], masked["labels"][0], plain["input_ids"][0]


def test_masking_is_the_papers():
    ids, labels, plain = masked_and_plain()
    targets = labels != -100
    assert not targets[:, 0].any()
    assert torch.equal(labels[targets], plain[targets])
    assert torch.equal(ids[~targets], plain[~targets])
    # 60,000 positions, 9,000 targets: standard deviations of 0.15 %, 0.42 % and 0.32 %
    count = int(targets.sum())
    assert count / 60_000 == pytest.approx(0.15, abs=0.006)
    masked = ids[targets] == MASK
    assert masked.float().mean() == pytest.approx(0.8, abs=0.017)
    # 10 % become one of 21 letters, of which one in 21 is what stood there
    changed = (ids[targets] != labels[targets]) & ~masked
    assert changed.sum() / count == pytest.approx(0.1 * 20 / 21, abs=0.013)
    letters = set(TOKENIZER(["ACDEFGHIKLMNPQRSTVWY-"])["input_ids"][0][0][1:])
    assert set(ids[targets][changed].tolist()) == letters
    # uniformly over rows and columns: 45 +- 6.2 in a row, 30 +- 5 in a column
    assert (targets.sum(1) - 45).abs().max() < 6 * 6.2
    assert (targets[:, 1:].sum(0) - 30).abs().max() < 6 * 5
    gaps = plain[:, 1:] == GAP
    assert targets[:, 1:][gaps].float().mean() == pytest.approx(0.15, abs=0.025)


def test_rates_are_options():
    ids, labels, _ = masked_and_plain(mlm_probability=0.4, mask_replace_prob=0.5, random_replace_prob=0.5)
    targets = labels != -100
    assert targets.sum() / 60_000 == pytest.approx(0.4, abs=0.01)
    assert (ids[targets] == MASK).float().mean() == pytest.approx(0.5, abs=0.02)
    assert (ids[targets] == labels[targets]).float().mean() == pytest.approx(0.5 / 21, abs=0.01)
    ids, labels, _ = masked_and_plain(mlm_probability=1.0, mask_replace_prob=1.0, random_replace_prob=0.0)
    assert (ids[:, 1:] == MASK).all()
    assert (labels[:, 1:] != -100).all()


def test_gaps_need_not_be_targets():
    ids, labels, plain = masked_and_plain(gaps=0.5, mask_gaps=False)
    gaps = plain == GAP
    assert (labels[gaps] == -100).all()
    assert torch.equal(ids[gaps], plain[gaps])
    targets = labels != -100
    assert targets.sum() / (~gaps[:, 1:]).sum() == pytest.approx(0.15, abs=0.01)
    assert not (ids[targets] == GAP).any()


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_whole_columns(share):
    # 60 visits of 300 columns: 0.15 * share of them are whole, and treated alike in all rows
    whole = targets = 0
    for visit in range(60):
        ids, labels, plain = masked_and_plain((40, 300), visit=(visit, 0), mask_columns=share)
        ids, labels, plain = ids[:, 1:], labels[:, 1:], plain[:, 1:]
        columns = (labels != -100).all(0)
        whole += int(columns.sum())
        targets += int((labels != -100).sum())
        masked, kept = (ids == MASK)[:, columns], (ids == plain)[:, columns]
        # masked whole, kept whole, or replaced at random, where some letters stay by chance
        assert (masked.all(0) | (~masked.any(0) & (kept.all(0) | (kept.float().mean(0) < 0.5)))).all()
        if share == 1:
            assert ((labels != -100).any(0) == columns).all()
    expected = 0.15 * share
    assert whole / 18_000 == pytest.approx(expected, abs=5 * math.sqrt(expected / 18_000))
    assert targets / 720_000 == pytest.approx(0.15, abs=0.015)


def test_a_batch_always_has_a_target():
    for visit in range(50):  # two positions, 0.001 %: none by chance
        feature = {"sequences": ["MK"], "visit": (visit, 0)}
        batch = MsaDataCollatorForMaskedLM(TOKENIZER, mlm_probability=1e-5)([feature] * 2)
        targets = batch["labels"] != -100
        assert targets.sum() == 1
        assert not targets[:, :, 0].any()
        assert batch["input_ids"][targets].item() == MASK
    # gaps alone, from a crop: a gap is the target then, rather than none
    gaps = {"alignment": np.full((3, 4), ord("-"), dtype=np.uint8), "visit": (0, 0)}
    labels = MsaDataCollatorForMaskedLM(TOKENIZER, mask_gaps=False)([gaps])["labels"]
    assert labels[labels != -100].tolist() == [GAP]
    # a batch in which only padding is left to choose from
    batch = MsaDataCollatorForMaskedLM(TOKENIZER, mlm_probability=1e-6)(features((1, 1), (40, 30)))
    assert (batch["attention_mask"][batch["labels"] != -100] == 1).all()
    assert torch.isfinite(small_model(MsaForMaskedLM, max_row_position_embeddings=64)(**batch).loss)


@pytest.mark.filterwarnings("ignore:.*not in the alphabet")
def test_unknown_characters_are_not_targets():
    feature = {"sequences": ["1" * 30 + "M"], "visit": (0, 0)}
    labels = MsaDataCollatorForMaskedLM(TOKENIZER, mlm_probability=1)([feature])["labels"]
    assert (labels != -100).nonzero().tolist() == [[0, 0, 31]]
    with pytest.raises(ValueError, match="no letter of the alphabet"):
        MsaDataCollatorForMaskedLM(TOKENIZER)([{"sequences": ["123"], "visit": (0, 0)}])


# --- labels


FAMILY = Alignment.from_sequences(["mKV--Lc", "RVAGL", "R-AGI"], source="family.a3m")  # residues 1 and 5: no column


def test_labels_of_residues():
    collator = MsaDataCollatorForTokenClassification(TOKENIZER, num_labels=9)
    batch = collator(
        [
            {"alignment": FAMILY, "labels": [5, 6, 7, 8, 4]},
            {"alignment": random_array(2, 9, gaps=0), "labels": [1] * 9},
        ]
    )
    assert batch["labels"].tolist() == [[-100, 6, 7, -100, -100, 8, *[-100] * 4], [-100, *[1] * 9]]
    assert batch["labels"].dtype == torch.int64
    # columns 2 and 3 of 0 to 4 are left when cropped to 4 with <cls>: K and V of "KV--L" from the first
    cropped = MsaDataCollatorForTokenClassification(TOKENIZER, max_columns=3, crop="first")
    assert cropped([{"alignment": FAMILY, "labels": [5, 6, 7, 8, 4]}])["labels"].tolist() == [[-100, 6, 7]]
    loss = small_model(MsaForTokenClassification, num_labels=9)(**batch).loss
    assert torch.isfinite(loss)


def test_crops_carry_their_labels():
    array, labels = random_array(2, 50, gaps=0), list(range(50))
    collator = MsaDataCollatorForTokenClassification(TOKENIZER, max_columns=11)
    ids = TOKENIZER([array], return_tensors="np")["input_ids"][0, 0, 1:]
    for visit in range(9):
        batch = collator([{"alignment": array, "labels": labels, "visit": (visit, 0)}])
        assert ids[batch["labels"][0, 1:]].tolist() == batch["input_ids"][0, 0, 1:].tolist()


def test_labels_of_pairs():
    pairs = np.arange(25).reshape(5, 5) % 2
    collator = MsaDataCollatorForContactPrediction(TOKENIZER, min_separation=0)
    batch = collator(
        [{"alignment": FAMILY, "labels": pairs}, features((2, 7), gaps=0)[0] | {"labels": np.zeros((7, 7), dtype=int)}]
    )
    expected = np.full((7, 7), -100)
    for i, column in ((1, 0), (2, 1), (3, 4)):  # residue (from 0) and its column
        for j, other in ((1, 0), (2, 1), (3, 4)):
            expected[column, other] = pairs[i, j]
    assert batch["labels"][0].tolist() == expected.tolist()
    assert (batch["labels"][1] == 0).all()
    near = MsaDataCollatorForContactPrediction(TOKENIZER, min_separation=2)([{"alignment": FAMILY, "labels": pairs}])
    # residues 2 and 4 alone are two apart
    assert (near["labels"][0] != -100).nonzero().tolist() == [[0, 4], [4, 0]]
    assert torch.isfinite(small_model(MsaForContactPrediction)(**batch).loss)


def test_labels_of_alignments():
    def labels(*values, **kwargs):
        collator = MsaDataCollatorForSequenceClassification(TOKENIZER, **kwargs)
        return collator([{"alignment": FAMILY, "labels": value} for value in values])["labels"]

    assert labels(1, np.int64(2)).tolist() == [1, 2]
    assert labels(1, 2).dtype == torch.int64
    assert labels(1, 2, num_labels=1).dtype == labels(1, 2.5).dtype == torch.float32
    assert labels([0.5, 1], [2, 3]).shape == (2, 2)
    batch = MsaDataCollatorForSequenceClassification(TOKENIZER)([{"alignment": FAMILY, "labels": 0.5}])
    model = small_model(MsaForSequenceClassification, num_labels=1, problem_type="regression")
    assert torch.isfinite(model(**batch).loss)
    assert "labels" not in MsaDataCollatorForSequenceClassification(TOKENIZER)([{"alignment": FAMILY}])


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("Token", [1, 2, 3], r"family.a3m: the labels are 3, but must be 5 for the residues of the query"),
        ("Token", [0, 1, 2, 3, 4], "family.a3m: label 3 is not a class; use 0 to 2"),
        ("Token", list("HHEEC"), "family.a3m: labels must be whole numbers"),
        ("Token", [0.0] * 5, "labels must be whole numbers"),
        ("Sequence", 3, "label 3 is not a class"),
        ("Sequence", -1, "label -1 is not a class"),
        ("Sequence", float("nan"), "family.a3m: a label is nan"),
        ("Contact", np.zeros((4, 4), dtype=int), "the labels are 4 x 4, but must be 5 x 5"),
        ("Contact", np.full((5, 5), 7), "label 7 is not a class"),
    ],
)
def test_wrong_labels_name_the_example(kind, labels, message):
    cls, options = {
        "Token": (MsaDataCollatorForTokenClassification, {"num_labels": 3}),
        "Sequence": (MsaDataCollatorForSequenceClassification, {"num_labels": 3}),
        "Contact": (MsaDataCollatorForContactPrediction, {}),
    }[kind]
    with pytest.raises(ValueError, match=message):
        cls(TOKENIZER, **options)([{"alignment": FAMILY, "labels": labels}])
    with pytest.raises(ValueError, match=r"family.a3m: has no labels, but other examples of the batch have"):
        cls(TOKENIZER)([{"alignment": FAMILY, "labels": 0}, {"alignment": FAMILY}])
