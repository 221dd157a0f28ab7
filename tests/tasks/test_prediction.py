"""The contract of `predict`: the model called by hand, for every head, at the residues and variants that it names.

By hand means: the tokenizer on the rows as they stand in the file, the model's forward pass, and the softmax written
out in double precision. The pipelines for these heads give the same numbers.
"""

import warnings

import numpy as np
import pytest
import torch
from families import family
from small import small_model
from transformers import pipeline

from modeling_msa import (
    Alignment,
    ContactMap,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    MsaTokenizer,
    predict,
    predict_contacts,
    select_rows,
)
from modeling_msa.alignments.sampling import diverse_rows
from modeling_msa.tasks import prediction
from modeling_msa.tasks.inputs import encode

pytestmark = pytest.mark.usefixtures("one_thread")
CLASSES = {"id2label": {0: "helix", 1: "strand", 2: "coil"}, "label2id": {"helix": 0, "strand": 1, "coil": 2}}
# residues 1, 2 and 6 of the query have no column, and columns 3 and 5 no residue of it
FAMILY = Alignment.from_sequences(["mkVL-A-cWY", "VIGASWY", "-LGAFFA", "VL-A-WC"], source="f.a3m")
ROWS = ["VL-A-WY", "VIGASWY", "-LGAFFA", "VL-A-WC"]


def logits_of(model, rows):
    with torch.no_grad():
        return model(**MsaTokenizer()(rows, return_tensors="pt")).logits[0].double().numpy()


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(-1, keepdims=True)


def test_classes_of_residues():
    model = small_model(MsaForTokenClassification, **CLASSES)
    result = predict(FAMILY, model)
    expected = softmax(logits_of(model, ROWS))[[1, 2, 4, 6, 7]]  # <cls>, and columns where the query has a residue
    assert result.scores == pytest.approx(expected, abs=1e-6)
    assert result.residues.tolist() == [3, 4, 5, 7, 8]
    assert "".join(result.query[number - 1] for number in result.residues) == "VLAWY"
    assert (result.query, result.of, result.kind) == ("MKVLACWY", "residues", "classes")
    assert result.labels == ("helix", "strand", "coil")
    assert result.best == tuple(result.labels[k] for k in expected.argmax(1))
    assert (result.variants, result.reasons, result.depth) == ((), (), 4)


@pytest.mark.parametrize(
    ("problem", "labels", "kind"),
    [
        (None, 3, "classes"),
        ("single_label_classification", 2, "classes"),
        ("multi_label_classification", 3, "labels"),
        (None, 1, "values"),
        ("regression", 1, "values"),
        ("regression", 3, "values"),
    ],
)
def test_one_answer_for_an_alignment(problem, labels, kind):
    model = small_model(MsaForSequenceClassification, num_labels=labels, problem_type=problem)
    result = predict(FAMILY, model)
    logits = logits_of(model, ROWS)
    by_kind = {"classes": softmax(logits), "labels": 1 / (1 + np.exp(-logits)), "values": logits}
    assert result.scores == pytest.approx(by_kind[kind][None], abs=1e-6)
    assert (result.of, result.kind) == ("alignment", kind)
    assert result.labels == tuple(f"LABEL_{k}" for k in range(labels))
    if kind == "classes":
        assert result.best == (f"LABEL_{logits.argmax()}",)
    else:
        with pytest.raises(ValueError, match=f"predicts {kind}, not one of several classes"):
            _ = result.best


@pytest.mark.parametrize("labels", [1, 3])
def test_variants_take_the_querys_place(labels):
    """Each one alone, by hand, in a batch of any size; equal ones and the wild type too."""
    model = small_model(MsaForSequenceClassification, num_labels=labels)
    variants = ["V3I", "WT", "A5G:Y8F", "V3I", "C6A", "L4*"]
    result = predict(FAMILY, model, variants)
    queries = ["IL-A-WY", "VL-A-WY", "VL-G-WF", "IL-A-WY"]
    logits = np.array([logits_of(model, [query, *ROWS[1:]]) for query in queries])
    assert result.scores[:4] == pytest.approx(logits if labels == 1 else softmax(logits), abs=1e-6)
    assert abs(logits[0] - logits[1]).max() > 1e-3
    assert np.isnan(result.scores[4:]).all()
    assert result.variants == tuple(variants)
    assert [reason[:9] for reason in result.reasons] == ["", "", "", "", "residue 6", "a stop; a"]
    assert (result.of, result.kind) == ("variants", "values" if labels == 1 else "classes")
    if labels > 1:
        assert result.best == (*(result.labels[k] for k in logits.argmax(1)), "", "")
    offset = predict(FAMILY, model, ["V13I"], offset=10)
    assert offset.scores == pytest.approx(result.scores[:1], abs=1e-6)


def test_many_variants(monkeypatch):
    """In several passes; the alignment is encoded once, and a tokenizer's limit on rows is not for variants."""
    model = small_model(MsaForSequenceClassification, num_labels=2)
    letters = "ACDEFGHIKLMNPQRSTVWY"
    variants = [f"V3{a}:L4{b}:A5{c}" for a in letters for b in letters for c in letters[:3]]  # 1,200
    some = [0, 7, 511, 512, 1199]
    alone = [predict(FAMILY, model, [variants[k]]).scores[0] for k in some]
    encoded = []
    monkeypatch.setattr(prediction, "encode", lambda *given: encoded.append(1) or encode(*given))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = predict(FAMILY, model, variants).scores
    assert len(encoded) == 1
    assert whole[some] == pytest.approx(np.array(alone), abs=1e-6)


def test_contacts_are_those_of_the_head():
    """Columns in which the query has a gap are left out first, as in every contact map."""
    model = small_model(MsaForContactPrediction)
    result = predict(FAMILY, model)
    assert isinstance(result, ContactMap)
    logits = logits_of(model, ["VLAWY", "VIAWY", "-LAFA", "VLAWC"])
    assert result.probabilities == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    assert np.array_equal(result.probabilities, predict_contacts(FAMILY, model).probabilities)


@pytest.mark.parametrize("task", ["token-classification", "text-classification"])
def test_pipelines_give_the_same_numbers(task):
    cls = MsaForTokenClassification if task == "token-classification" else MsaForSequenceClassification
    model = small_model(cls, **CLASSES)
    pipe = pipeline(task, model=model, tokenizer=MsaTokenizer(), device="cpu")
    families = [FAMILY, family("x", 6, 12, 0), family("y", 1, 5, 1)]
    for each, found in zip(families, pipe(families, batch_size=3), strict=True):
        result = predict(each, model)
        found = found if isinstance(found, list) else [found]
        assert [one.get("entity", one.get("label")) for one in found] == list(result.best)
        assert [one["score"] for one in found] == pytest.approx(result.scores.max(1).tolist(), abs=1e-6)
        if task == "token-classification":
            assert [one["residue"] for one in found] == result.residues.tolist()


def test_rows_and_columns_are_those_of_training():
    """Chosen on the columns as they are, of the wild type, and the same for all variants."""
    deep = family("deep", 14, 10, 3)
    gapped = Alignment.from_sequences(
        [f"{row[:4]}-W{row[4:]}" if k == 0 else f"{row[:4]}KK{row[4:]}" for k, row in enumerate(deep.sequences)]
    )
    model = small_model(MsaForSequenceClassification, num_labels=2)
    chosen = diverse_rows(gapped.array, 5)
    rows = [gapped.sequences[k] for k in chosen]
    assert predict(gapped, model, rows=5).scores == pytest.approx(softmax(logits_of(model, rows))[None], abs=1e-6)
    result = predict(gapped, model, ["W5A"], rows=5)
    mutated = [rows[0].replace("-W", "-A", 1), *rows[1:]]
    assert result.scores == pytest.approx(softmax(logits_of(model, mutated))[None], abs=1e-6)
    assert result.depth == 5
    assert predict(select_rows(gapped, 3, "first"), model).depth == 3
    assert predict(gapped, model, rows=4, select="first").scores == pytest.approx(
        softmax(logits_of(model, gapped.sequences[:4]))[None], abs=1e-6
    )


def test_dropout_is_off_and_the_model_is_left_as_it_was():
    model = small_model(MsaForTokenClassification, **CLASSES)
    expected = predict(FAMILY, model).scores
    model.train()
    assert np.array_equal(predict(FAMILY, model).scores, expected)
    assert all(module.training for module in model.modules())


def test_wrapped_models():
    peft = pytest.importorskip("peft")
    model = small_model(MsaForTokenClassification, **CLASSES)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, config).eval()
    expected = softmax(logits_of(adapted, ROWS))[[1, 2, 4, 6, 7]]
    assert predict(FAMILY, adapted).scores == pytest.approx(expected, abs=1e-6)
    compiled = torch.compile(adapted, backend="eager")
    assert predict(FAMILY, compiled).scores == pytest.approx(expected, abs=1e-6)


def test_models_that_cannot_answer(tmp_path):
    for cls in (MsaModel, MsaForMaskedLM):
        with pytest.raises(ValueError, match=rf"{cls.__name__} has no trained head .*msa train .*msa contacts, msa"):
            predict(FAMILY, small_model(cls))
    small_model(MsaForMaskedLM).save_pretrained(tmp_path / "mlm")
    with pytest.raises(ValueError, match="the head would be random"):
        predict(FAMILY, MsaForTokenClassification.from_pretrained(tmp_path / "mlm"))
    small_model(MsaForSequenceClassification).save_pretrained(tmp_path / "sequence")
    with pytest.raises(ValueError, match="made for another task"):
        predict(FAMILY, MsaForTokenClassification.from_pretrained(tmp_path / "sequence"))
    for cls, what in ((MsaForTokenClassification, "classes of residues"), (MsaForContactPrediction, "contacts")):
        with pytest.raises(ValueError, match=f"Variants require a head with one answer .* this one predicts {what}"):
            predict(FAMILY, small_model(cls), ["V3I"])


@pytest.mark.parametrize("cls", [MsaForTokenClassification, MsaForSequenceClassification])
@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({1: "helix", 2: "strand"}, "has no name for 0: number the names from 0, not 1, 2"),
        ({0: "helix", 1: "coil", 2: "coil"}, "has the name 'coil' twice: give each class its own"),
    ],
)
def test_names_that_do_not_tell_classes_apart(names, words, cls):
    """They would stand beside the probabilities of other classes."""
    model = small_model(cls, id2label=names)
    with pytest.raises(ValueError, match=words):
        predict(FAMILY, model)
    task = "token-classification" if cls is MsaForTokenClassification else "text-classification"
    with pytest.raises(ValueError, match=words):
        pipeline(task, model=model, tokenizer=MsaTokenizer(), device="cpu")(ROWS)


def test_bad_input_before_the_model_runs(monkeypatch):
    model = small_model(MsaForSequenceClassification)
    monkeypatch.setattr(MsaForSequenceClassification, "forward", None)
    with pytest.raises(
        ValueError, match=r"t.csv: line 3 \(A3I\)|1 of 2 variants do not fit the query, such as line 3"
    ):
        predict(FAMILY, model, ["V3I", "A3I"], source="t.csv", lines=[2, 3])
    with pytest.raises(ValueError, match="variants is empty"):
        predict(FAMILY, model, [])
    long = Alignment.from_sequences(["M" * 20 + "-" * 12], source="long.a3m")
    with pytest.raises(ValueError, match=r"long.a3m: the query has 32 columns, .* at most 31: remove those in which"):
        predict(long, model)
