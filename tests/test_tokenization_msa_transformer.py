"""Contract of MsaTokenizer.

Ids are those of fair-esm's batch converter; axes are always (B, R, C); padding is right and below; `<cls>` stands
before each row. The alphabet, counted by hand: <cls> 0, <pad> 1, <eos> 2, <unk> 3, then L 4, A 5, G 6, V 7, S 8, E 9,
R 10, T 11, I 12, D 13, P 14, K 15, Q 16, N 17, F 18, Y 19, M 20, H 21, W 22, C 23, X 24, B 25, U 26, Z 27, O 28, . 29,
- 30, <null_1> 31, <mask> 32.
"""

import copy
import json
import pickle
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fresh import run_fresh, without_remarks
from transformers import DataCollatorForLanguageModeling, DataCollatorWithPadding

from modeling_msa.sharing_msa_transformer import CODE_FILES
from modeling_msa.tokenization_msa_transformer import ALPHABET, MsaTokenizer

MSA_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "msa"
A3M_FILES = sorted(MSA_FOLDER.glob("*.a3m"))
needs_data = pytest.mark.skipif(not A3M_FILES, reason="no shared alignments here")


@pytest.fixture
def tokenizer():
    return MsaTokenizer()


@pytest.fixture
def batch_converter():
    esm = pytest.importorskip("esm")
    return esm.data.Alphabet.from_architecture("msa_transformer").get_batch_converter()


class Aligned:
    """Stands for modeling_msa.Alignment, which Hub code cannot import."""

    def __init__(self, rows, names=None):
        self.array = np.array([list(row.encode()) for row in rows], dtype=np.uint8)
        self.names = names


def read_a3m(path, most_rows):
    """(name, sequence) pairs without insertions."""
    pairs = []
    for entry in path.read_text().split(">")[1 : most_rows + 1]:
        name, *lines = entry.splitlines()
        pairs.append((name, "".join(c for c in "".join(lines) if not c.islower() and c != ".")))
    return pairs


# ------------------------------------------------------------------------------------------------------- alphabet


def test_alphabet_is_fair_esms(tokenizer):
    esm = pytest.importorskip("esm")
    alphabet = esm.data.Alphabet.from_architecture("msa_transformer")
    assert list(ALPHABET) == alphabet.all_toks
    assert tokenizer.get_vocab() == alphabet.to_dict()


def test_special_ids(tokenizer):
    assert (tokenizer.cls_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert (tokenizer.unk_token_id, tokenizer.mask_token_id) == (3, 32)
    assert tokenizer.bos_token is None
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 32]
    assert tokenizer.vocab_size == len(tokenizer) == 33
    assert tokenizer.model_max_length == tokenizer.model_max_depth == 1024


def test_a_row_as_elsewhere_in_transformers(tokenizer):
    assert tokenizer.tokenize("MK<mask>-.<null_1>") == ["M", "K", "<mask>", "-", ".", "<null_1>"]
    assert tokenizer.encode("MKV") == [0, 20, 15, 7]
    assert tokenizer.encode("MKV", add_special_tokens=False) == [20, 15, 7]
    assert tokenizer.convert_tokens_to_ids(["M", "-", "J"]) == [20, 30, 3]
    assert tokenizer.convert_ids_to_tokens([0, 20, 32]) == ["<cls>", "M", "<mask>"]
    assert tokenizer.convert_tokens_to_string(["M", "K"]) == "MK"
    assert tokenizer.num_special_tokens_to_add() == 1


# ----------------------------------------------------------------------------------------------- equal to fair-esm


@needs_data
@pytest.mark.parametrize("path", A3M_FILES, ids=lambda path: path.stem)
def test_real_alignment_equals_fair_esm(tokenizer, batch_converter, path):
    msa = read_a3m(path, 64)
    ours = tokenizer(msa, return_tensors="pt")
    assert torch.equal(ours["input_ids"], batch_converter(msa)[2])
    assert ours["attention_mask"].eq(1).all()


@needs_data
def test_padded_batch_equals_fair_esm(tokenizer, batch_converter):
    batch = [read_a3m(path, depth) for path, depth in zip(A3M_FILES, (5, 40, 1, 17), strict=False)]
    ours = tokenizer(batch, padding=True, return_tensors="pt")
    theirs = batch_converter(batch)[2]
    assert torch.equal(ours["input_ids"], theirs)
    assert torch.equal(ours["attention_mask"], theirs.ne(1).long())
    assert ours["input_ids"].dtype == ours["attention_mask"].dtype == torch.int64


def test_every_letter_equals_fair_esm(tokenizer, batch_converter):
    row = "LAGVSERTIDPKQNFYMHWCXBUZO.-"
    theirs = batch_converter([("a", row), ("b", row[::-1])])[2]
    assert torch.equal(tokenizer([row, row[::-1]], return_tensors="pt")["input_ids"], theirs)


# -------------------------------------------------------------------------------------------------------- input


ONE = [[[0, 20, 15, 7], [0, 20, 30, 7]]]


@pytest.mark.parametrize(
    "msa",
    [
        ["MKV", "M-V"],
        [("query", "MKV"), ("x", "M-V")],
        [("query", "MKV"), "M-V"],
        [["MKV", "M-V"]],
        Aligned(["MKV", "M-V"]),
        [Aligned(["MKV", "M-V"])],
        Aligned(["MKV", "M-V"]).array,
        Aligned(["MKV", "M-V"]).array[None],
        np.array([list("MKV"), list("M-V")], dtype="S1"),
        np.array(["MKV", "M-V"]),
        np.asfortranarray(np.array([list("MKV"), list("M-V")], dtype="S1")),
    ],
)
def test_one_alignment(tokenizer, msa):
    assert tokenizer(msa)["input_ids"] == ONE
    for kind in ("np", "pt"):
        out = tokenizer(msa, return_tensors=kind)
        assert out["input_ids"].tolist() == ONE
        assert out["attention_mask"].tolist() == [[[1] * 4] * 2]


def test_a_string_or_a_pair_is_one_row(tokenizer):
    assert tokenizer("MKV")["input_ids"] == [[[0, 20, 15, 7]]]
    assert tokenizer(("name", "MKV"))["input_ids"] == [[[0, 20, 15, 7]]]
    assert tokenizer(("MKV", "MRV", "MMV"))["input_ids"][0][1] == [0, 20, 10, 7]


def test_mixed_batch(tokenizer):
    out = tokenizer([Aligned(["MK"]), ["VV"], [("n", "KM")], np.array([list("LL")], "S1")], return_tensors="np")
    assert out["input_ids"].tolist() == [[[0, 20, 15]], [[0, 7, 7]], [[0, 15, 20]], [[0, 4, 4]]]


def test_written_tokens_are_one_column(tokenizer):
    out = tokenizer(["MK<mask>V", "<unk>-L<null_1>"])
    assert out["input_ids"] == [[[0, 20, 15, 32, 7], [0, 3, 30, 4, 31]]]
    with pytest.raises(ValueError, match=r"MSA 0, row 2, column 3: <pad> is written.*add_special_tokens=False"):
        tokenizer(["MKV", "MK<pad>"])
    out = tokenizer(["<cls>MK", "<cls>M<pad>"], add_special_tokens=False)
    assert out["input_ids"] == [[[0, 20, 15], [0, 20, 1]]]
    assert out["attention_mask"] == [[[1, 1, 1], [1, 1, 0]]]


def test_added_letters_join_the_table(tokenizer):
    tokenizer(["MK"])
    assert tokenizer.add_tokens(["J", "k", "β", "<new>"]) == 4
    assert len(tokenizer) == 37
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokenizer(["MJkβ<new>"])["input_ids"] == [[[0, 20, 33, 34, 35, 36]]]


# ------------------------------------------------------------------------------------- padding, truncation, tensors


def test_padding(tokenizer):
    batch = [["MK", "VV"], ["LLL"]]
    assert tokenizer(batch)["input_ids"] == [[[0, 20, 15], [0, 7, 7]], [[0, 4, 4, 4]]]
    padded = [[[0, 20, 15, 1], [0, 7, 7, 1]], [[0, 4, 4, 4], [1, 1, 1, 1]]]
    mask = [[[1, 1, 1, 0], [1, 1, 1, 0]], [[1, 1, 1, 1], [0, 0, 0, 0]]]
    for padding in (True, "longest"):
        out = tokenizer(batch, padding=padding)
        assert list(out) == ["input_ids", "attention_mask"]
        assert (out["input_ids"], out["attention_mask"]) == (padded, mask)
    assert "attention_mask" not in tokenizer(batch, return_attention_mask=False)


def test_padding_to_max_length(tokenizer):
    out = tokenizer([["MK"], ["LLL"]], padding="max_length", max_length=5, max_depth=2)
    assert out["input_ids"] == [[[0, 20, 15, 1, 1], [1] * 5], [[0, 4, 4, 4, 1], [1] * 5]]
    assert tokenizer("MK", padding="max_length", max_length=4)["input_ids"] == [[[0, 20, 15, 1]]]
    out = tokenizer("MK", padding="max_length", return_tensors="np")
    assert out["input_ids"].shape == (1, 1, 1024)
    assert out["attention_mask"].sum() == 3


def test_pad_to_multiple_of(tokenizer):
    out = tokenizer(["MKV", "LLL"], padding=True, pad_to_multiple_of=8)
    assert out["input_ids"] == [[[0, 20, 15, 7, 1, 1, 1, 1], [0, 4, 4, 4, 1, 1, 1, 1]]]
    assert len(tokenizer("MKV", padding=True, pad_to_multiple_of=4)["input_ids"][0][0]) == 4
    assert len(tokenizer("MKV", pad_to_multiple_of=8)["input_ids"][0][0]) == 4
    with pytest.raises(ValueError, match="max_length=6 must be a multiple"):
        tokenizer("MKV", padding=True, truncation=True, max_length=6, pad_to_multiple_of=4)


def test_truncation(tokenizer):
    msa = ["MKV", "LAG", "SER"]
    out = tokenizer(msa, truncation=True, max_length=3, max_depth=2)
    assert out["input_ids"] == [[[0, 20, 15], [0, 4, 5]]]
    assert tokenizer(msa, truncation=True, max_depth=1)["input_ids"] == [[[0, 20, 15, 7]]]
    assert tokenizer("MKV", truncation="longest_first", max_length=2)["input_ids"] == [[[0, 20]]]
    assert tokenizer("MKV", truncation=True, max_length=1)["input_ids"] == [[[0]]]
    assert tokenizer("MKV", truncation=True, max_length=2, add_special_tokens=False)["input_ids"] == [[[20, 15]]]
    assert tokenizer("M<mask>V", truncation=True, max_length=3)["input_ids"] == [[[0, 20, 32]]]
    small = MsaTokenizer(model_max_length=3, model_max_depth=2)
    assert small(msa, truncation=True)["input_ids"] == [[[0, 20, 15], [0, 4, 5]]]


def test_truncation_side_left_keeps_the_last_columns():
    left = MsaTokenizer(truncation_side="left")
    for length, ids in ((1, [0]), (2, [0, 7]), (3, [0, 15, 7]), (4, [0, 20, 15, 7]), (9, [0, 20, 15, 7])):
        assert left("MKV", truncation=True, max_length=length)["input_ids"] == [[ids]]


def test_too_large(tokenizer):
    with pytest.raises(ValueError, match=r"MSA 1 has 3 rows, more than the limit of 2: pass truncation=True"):
        tokenizer([["MK"], ["MK", "MK", "MK"]], max_depth=2)
    with pytest.raises(ValueError, match="MSA 0 has 4 token columns, more than the limit of 3"):
        tokenizer("MKV", max_length=3)
    with pytest.raises(ValueError, match="max_length must be at least 1"):
        tokenizer("MKV", truncation=True, max_length=0)
    small = MsaTokenizer(model_max_length=3, model_max_depth=1)
    with pytest.warns(UserWarning, match="the model will refuse it") as caught:
        out = small(["MKV", "LAG"])
    assert out["input_ids"] == [[[0, 20, 15, 7], [0, 4, 5, 6]]]
    assert [str(w.message).split(":")[0] for w in caught] == [
        "MSA 0 has 2 rows, more than model_max_depth=1",
        "MSA 0 has 4 token columns, more than model_max_length=3",
    ]
    assert {w.filename for w in caught} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small(["MKV", "LAG"], verbose=False)


def test_tensors_of_different_sizes_need_padding(tokenizer):
    for kind in ("pt", "np"):
        with pytest.raises(ValueError, match=r"\(1, 3\), \(1, 4\).*padding=True"):
            tokenizer([["MK"], ["LLL"]], return_tensors=kind)
    with pytest.raises(ValueError, match="return_tensors='tf'"):
        tokenizer("MK", return_tensors="tf")


def test_without_cls(tokenizer):
    assert tokenizer(["MKV", "L-L"], add_special_tokens=False)["input_ids"] == [[[20, 15, 7], [4, 30, 4]]]


def test_special_tokens_mask(tokenizer):
    out = tokenizer([["M<mask>", "--"], ["LLL"]], padding=True, return_special_tokens_mask=True)
    assert out["special_tokens_mask"] == [[[1, 0, 0, 1], [1, 0, 0, 1]], [[1, 0, 0, 0], [1, 1, 1, 1]]]


# ------------------------------------------------------------------------------------------- unknown letters, errors


def test_unknown_letters_are_counted_in_one_warning(tokenizer):
    batch = [["MKV", "MKV", "LJ?"], [("q", "JLβ")]]
    with pytest.warns(UserWarning, match="became <unk>") as caught:
        out = tokenizer(batch, padding=True)
    assert [str(w.message) for w in caught] == [
        "4 characters are not in the alphabet and became <unk>: 'J' (2), '?' (1), 'β' (1); first at MSA 0, row 3, "
        "column 2"
    ]
    assert caught[0].filename == __file__
    assert out["input_ids"][0][2] == [0, 4, 3, 3]
    assert out["input_ids"][1][0] == [0, 3, 4, 3]
    with pytest.warns(UserWarning, match=r"1 character is not.*'\*' \(1\); first at MSA 0, row 1, column 2"):
        assert tokenizer(np.array([list("M*")], "S1"))["input_ids"] == [[[0, 20, 3]]]


def test_no_warning_without_cause(tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer(["MKV", "X-."], return_tensors="pt")


@pytest.mark.parametrize(
    ("msa", "message"),
    [
        (["MKV", "MkV"], r"MSA 0, row 2, column 2: 'k'; .*read_alignment\(\)"),
        ([["MKV"], [("q", "MKV"), ("hit", "MKv")]], r"MSA 1, row 2 \(hit\), column 3: 'v'"),
        (Aligned(["MKV", "mKV"], ["q", "hit"]), r"MSA 0, row 2 \(hit\), column 1: 'm'"),
        (["MKV", "M V"], r"MSA 0, row 2, column 2: ' '; strip\(\)"),
        (["MKV\n", "MRV\n"], r"MSA 0, row 1 contains a line feed"),
        (["MKV", "MK"], r"MSA 0, row 2 has 2 columns and the first row has 3.*read_alignment\(\)"),
        ([["M"], [("q", "MKV"), ("b", "MKV"), ("c", "MKVV")]], r"MSA 1, row 3 \(c\) has 4 columns .* has 3"),
        (["<mask>KV", "MKVKVKVK"], r"row 2 has 8 columns and the first row has 3"),
        ([], "MSA 0 has no rows"),
        (np.empty((0, 2, 3), np.uint8), "nothing to tokenize"),
        ([["MKV"], []], "MSA 1 has no rows"),
        (np.empty((0, 3), np.uint8), "MSA 0 has no rows"),
        ("", "MSA 0, row 1 is empty"),
        (["", ""], "MSA 0, row 1 is empty"),
        (["", "MK"], "row 2 has 2 columns and the first row has 0"),
    ],
)
def test_errors_say_where_and_what_to_do(tokenizer, msa, message):
    with pytest.raises(ValueError, match=message):
        tokenizer(msa)


@pytest.mark.parametrize(
    ("msa", "message"),
    [
        (None, "NoneType"),
        ([1, 2], "MSA 0 of the batch is of type int"),
        (["MK", 3], "MSA 0, row 2 is int"),
        ([["MK"], "MK"], "MSA 1 of the batch is a single row: put it into a list"),
        (np.zeros((2, 2)), "MSA 0 is an array of float64"),
        (np.array([["M", "K"]]), "MSA 0 is an array of <U1"),
    ],
)
def test_wrong_types(tokenizer, msa, message):
    with pytest.raises(TypeError, match=message):
        tokenizer(msa)


def test_arguments_that_mean_nothing_here(tokenizer):
    with pytest.raises(ValueError, match="no pairs of alignments"):
        tokenizer("MK", "MK")
    with pytest.raises(TypeError, match="does not support nonsense"):
        tokenizer("MK", nonsense=False)
    with pytest.raises(TypeError, match="does not support return_offsets_mapping"):
        tokenizer("MK", return_offsets_mapping=True)
    assert tokenizer("MK", return_token_type_ids=False, stride=0)["input_ids"] == [[[0, 20, 15]]]
    with pytest.raises(ValueError, match="padding_side='right'"):
        tokenizer("MK", padding_side="left")
    with pytest.raises(ValueError, match="padding_side='right'"):
        MsaTokenizer(padding_side="left")("MK")


# -------------------------------------------------------------------------------------------------------- decoding


def test_decode(tokenizer):
    row = [0, 20, 32, 3, 31, 30, 2, 1]
    assert tokenizer.decode(row) == "<cls>M<mask><unk><null_1>-<eos><pad>"
    assert tokenizer.decode(row, skip_special_tokens=True) == "M<mask><unk><null_1>-"
    assert tokenizer.decode(20) == "M"
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([torch.tensor(20), torch.tensor(15)], skip_special_tokens=True) == "MK"
    msa = [[0, 20, 15, 1], [0, 30, 15, 1], [1, 1, 1, 1]]
    assert tokenizer.decode(msa) == ["<cls>MK<pad>", "<cls>-K<pad>", "<pad>" * 4]
    for ids in (msa, np.array(msa), torch.tensor(msa), list(torch.tensor(msa))):
        assert tokenizer.decode(ids, skip_special_tokens=True) == ["MK", "-K"]
        assert tokenizer.batch_decode(ids, skip_special_tokens=True) == ["MK", "-K"]
    assert tokenizer.batch_decode(row) == [tokenizer.decode(row)]
    with pytest.raises(ValueError, match="-100 is not a token id"):
        tokenizer.decode([0, -100])


@pytest.mark.parametrize("kind", [None, "np", "pt"])
def test_round_trip(tokenizer, kind):
    batch = [["MKV", "M-V"], ["<mask>LAG.", "X-BZ."], ["W"]]
    ids = tokenizer(batch, padding=True, return_tensors=kind)["input_ids"]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == batch
    assert tokenizer.batch_decode(tokenizer(batch)["input_ids"], skip_special_tokens=True) == batch


# ------------------------------------------------------------------------------------------------- pad and collators


FEATURES = [{"input_ids": [[0, 5, 23]], "labels": 1}, {"input_ids": [[0, 5], [0, 30]], "labels": 0}]
PADDED = [[[0, 5, 23], [1, 1, 1]], [[0, 5, 1], [0, 30, 1]]]
PADDED_MASK = [[[1, 1, 1], [0, 0, 0]], [[1, 1, 0], [1, 1, 0]]]


@pytest.mark.parametrize("cast", [lambda ids: ids, np.array, torch.tensor, lambda ids: torch.tensor([ids])])
def test_pad(tokenizer, cast):
    features = [dict(f, input_ids=cast(f["input_ids"])) for f in FEATURES]
    out = tokenizer.pad(features, return_tensors="pt")
    assert out["input_ids"].tolist() == PADDED
    assert out["attention_mask"].tolist() == PADDED_MASK
    assert out["labels"].tolist() == [1, 0]
    as_came = tokenizer.pad(features)["input_ids"]
    assert type(as_came) is type(cast([1]))
    assert (as_came if isinstance(as_came, list) else as_came.tolist()) == PADDED


def test_pad_a_mapping_and_what_call_returns(tokenizer):
    batch = [["AC"], ["A", "-"]]
    assert tokenizer.pad(tokenizer(batch))["input_ids"] == PADDED
    assert tokenizer.pad(tokenizer(batch))["attention_mask"] == PADDED_MASK
    single = [tokenizer(msa, return_special_tokens_mask=True) for msa in batch]
    out = tokenizer.pad(single, pad_to_multiple_of=4)
    assert out["input_ids"][1] == [[0, 5, 1, 1], [0, 30, 1, 1]]
    assert out["special_tokens_mask"][1] == [[1, 0, 1, 1], [1, 0, 1, 1]]
    assert tokenizer.pad({"input_ids": [[0, 5], [0, 30]], "labels": 2})["labels"] == [2]
    assert tokenizer.pad(tokenizer(batch, padding=True, return_tensors="pt"))["input_ids"].tolist() == PADDED
    assert tokenizer.pad([{"input_ids": tokenizer.encode(row)} for row in ("AC", "A")])["input_ids"] == [
        [[0, 5, 23]],
        [[0, 5, 1]],
    ]


def test_pad_more_columns_and_labels(tokenizer):
    features = [dict(f, labels=[[-100] + [7] * (len(row) - 1) for row in f["input_ids"]]) for f in FEATURES]
    out = tokenizer.pad(features, padding="max_length", max_length=4, max_depth=2, return_tensors="np")
    assert out["input_ids"].shape == (2, 2, 4)
    assert out["labels"].tolist() == [[[-100, 7, 7, -100], [-100] * 4], [[-100, 7, -100, -100]] * 2]
    assert "attention_mask" not in tokenizer.pad(FEATURES, return_attention_mask=False)
    with pytest.raises(ValueError, match="MSA 0 has 3 token columns"):
        tokenizer.pad(FEATURES, padding="max_length", max_length=2)
    with pytest.raises(ValueError, match="requires input_ids"):
        tokenizer.pad([{"labels": 1}])
    with pytest.raises(ValueError, match="requires input_ids"):
        tokenizer.pad([])
    with pytest.raises(ValueError, match=r"integers \(R, C\)"):
        tokenizer.pad([{"input_ids": np.zeros((2, 2, 2), int)}])


def test_padding_collator(tokenizer):
    out = DataCollatorWithPadding(tokenizer)(copy.deepcopy(FEATURES))
    assert out["input_ids"].tolist() == PADDED
    assert out["labels"].tolist() == [1, 0]
    floats = [dict(f, labels=0.5) for f in FEATURES]
    assert tokenizer.pad(floats, return_tensors="pt")["labels"].dtype == torch.float32


def test_masking_collator(tokenizer):
    collator = DataCollatorForLanguageModeling(
        tokenizer, mlm_probability=1.0, mask_replace_prob=1.0, random_replace_prob=0.0
    )
    out = collator([{"input_ids": f["input_ids"]} for f in FEATURES])
    assert out["input_ids"].tolist() == [[[0, 32, 32], [1, 1, 1]], [[0, 32, 1], [0, 32, 1]]]
    assert out["labels"].tolist() == [[[-100, 5, 23], [-100] * 3], [[-100, 5, -100], [-100, 30, -100]]]


# --------------------------------------------------------------------------------------------------- save and load


def behaviour(tokenizer):
    batch = [["MK<mask>", "M-."], ["LAGV"]]
    out = tokenizer(batch, padding=True, truncation=True)
    rows = tokenizer.tokenize("MK<null_1>-"), tokenizer.encode("MKJ"), tokenizer.decode([0, 5, 23])
    return out.data, rows, tokenizer.get_vocab(), tokenizer.model_max_length, tokenizer.model_max_depth


def test_copies_are_equal(tokenizer):
    tokenizer("MK")
    for other in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert behaviour(other) == behaviour(tokenizer)


def test_save_and_load(tmp_path):
    tokenizer = MsaTokenizer(model_max_length=4, model_max_depth=1)
    tokenizer.save_pretrained(tmp_path / "a")
    files = ("LICENSE", *CODE_FILES, "tokenizer.json", "tokenizer_config.json")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(files)
    config = json.loads((tmp_path / "a" / "tokenizer_config.json").read_text())
    assert config["auto_map"] == {"AutoTokenizer": ["tokenization_msa_transformer.MsaTokenizer", None]}
    assert (config["model_max_length"], config["model_max_depth"]) == (4, 1)
    loaded = MsaTokenizer.from_pretrained(tmp_path / "a")
    assert behaviour(loaded) == behaviour(tokenizer)
    loaded.save_pretrained(tmp_path / "b")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_text() == (tmp_path / "b" / name).read_text()
    assert MsaTokenizer.from_pretrained(tmp_path / "a", model_max_depth=9).model_max_depth == 9


def test_added_tokens_survive_saving(tokenizer, tmp_path):
    tokenizer.add_tokens(["J", "<new>"])
    tokenizer.save_pretrained(tmp_path)
    loaded = MsaTokenizer.from_pretrained(tmp_path)
    assert loaded(["MJ<new>"])["input_ids"] == [[[0, 20, 33, 34]]]


LOAD = """
import json, sys
from transformers import AutoTokenizer
results = []
for folder in sys.argv[1:]:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    tokenizer.save_pretrained(folder + "-again")
    out = tokenizer([["MK<mask>", "M-."], ["LAGV"]], padding=True, return_tensors="pt")
    results.append([type(tokenizer).__name__, out["input_ids"].tolist(), tokenizer.model_max_depth, len(tokenizer)])
print(json.dumps(results))
"""
CONFIG_CODE = """
from transformers import PretrainedConfig
class MsaConfig(PretrainedConfig):
    model_type = "msa_transformer"
"""


def test_auto_tokenizer_without_this_package(tmp_path):
    """From a folder with the tokenizer alone, and from one that has a config, with other code, too."""
    folders = [tmp_path / "alone", tmp_path / "with_config"]
    for folder in folders:
        MsaTokenizer(model_max_depth=7).save_pretrained(folder)
    auto_map = {"AutoConfig": "configuration_msa_transformer.MsaConfig"}
    (folders[1] / "config.json").write_text(json.dumps({"model_type": "msa_transformer", "auto_map": auto_map}))
    (folders[1] / "configuration_msa_transformer.py").write_text(CONFIG_CODE)
    done = run_fresh(LOAD, tmp_path, *folders)
    assert (done.returncode, without_remarks(done.stderr)) == (0, "")
    ids = [[[0, 20, 15, 32, 1], [0, 20, 30, 29, 1]], [[0, 4, 5, 6, 7], [1, 1, 1, 1, 1]]]
    assert json.loads(done.stdout) == [["MsaTokenizer", ids, 7, 33]] * 2
    for folder in folders:
        for name in ("tokenization_msa_transformer.py", "tokenizer.json", "tokenizer_config.json"):
            assert (folder / name).read_text() == (tmp_path / f"{folder.name}-again" / name).read_text()


# ----------------------------------------------------------------------------------------------------------- speed


def test_ten_thousand_rows_in_under_a_second(tokenizer, record_property):
    letters = np.frombuffer(b"ACDEFGHIKLMNPQRSTVWY-", np.uint8)
    array = np.random.default_rng(0).choice(letters, (10_000, 300))
    rows = [row.tobytes().decode() for row in array]
    masked = [row[:150] + "<mask>" + row[151:] for row in rows]
    for name, msa in (("rows", rows), ("array", array), ("masked", masked)):
        start = time.process_time()
        out = tokenizer(msa, return_tensors="pt", verbose=False)
        seconds = time.process_time() - start
        record_property(name, seconds)
        assert out["input_ids"].shape == (1, 10_000, 301)
        assert seconds < 1.0, f"{name}: {seconds:.2f} s"


def test_pad_pads_the_labels_of_every_head():
    """Labels of the query's tokens and of residue pairs are padded with -100 along their own axes; classes are not."""
    tokenizer = MsaTokenizer()
    short, long = tokenizer(["MKV", "MRV"])["input_ids"][0], tokenizer(["MKVLA"])["input_ids"][0]
    pairs = [np.ones((3, 3), int), np.zeros((5, 5), int)]
    for labels, shape in (([[-100, 1, 0, 1], [-100, 1, 1, 0, 0, 1]], (2, 6)), (pairs, (2, 5, 5)), ([2, 0], (2,))):
        features = [{"input_ids": i, "labels": y} for i, y in zip((short, long), labels, strict=True)]
        batch = tokenizer.pad(features, return_tensors="pt")
        assert batch["input_ids"].shape == (2, 2, 6)
        assert batch["labels"].shape == shape
        if len(shape) > 1:
            assert (batch["labels"][0] == -100).sum() == batch["labels"][0].numel() - np.size(labels[0]) + (
                np.asarray(labels[0]) == -100
            ).sum()
    assert batch["labels"].tolist() == [2, 0]
