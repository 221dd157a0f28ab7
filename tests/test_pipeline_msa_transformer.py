"""transformers' pipelines give what the model gives, MSA by MSA.

What is an MSA and what a batch is the tokenizer's rule, and a result does not depend on the batch. With the package
imported, and from a saved folder in a process that cannot import it, `pipeline(task, folder)` takes our classes;
pipelines of other models stay transformers' own. Bad input stops before the model runs.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import family, make_model
from fresh import run_fresh, without_remarks
from small import CLASSES, no_warnings, per_class, small_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    FeatureExtractionPipeline,
    FillMaskPipeline,
    PreTrainedTokenizerFast,
    pipeline,
)
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import PipelineException
from transformers.pipelines.pt_utils import KeyDataset

import modeling_msa
from modeling_msa import (
    Alignment,
    MsaConfig,
    MsaContactPredictionPipeline,
    MsaDataset,
    MsaFeatureExtractionPipeline,
    MsaFillMaskPipeline,
    MsaForMaskedLM,
    MsaModel,
    MsaTokenizer,
    pipeline_msa_transformer,
    predict_contacts,
    read_alignment,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS = {
    "fill-mask": MsaFillMaskPipeline,
    "feature-extraction": MsaFeatureExtractionPipeline,
    "msa-contact-prediction": MsaContactPredictionPipeline,
}
CUSTOM_PIPELINES = {
    "fill-mask": {"impl": "pipeline_msa_transformer.MsaFillMaskPipeline", "pt": ["AutoModelForMaskedLM"]},
    "feature-extraction": {"impl": "pipeline_msa_transformer.MsaFeatureExtractionPipeline", "pt": ["AutoModel"]},
    "msa-contact-prediction": {"impl": "pipeline_msa_transformer.MsaContactPredictionPipeline", "pt": ["AutoModel"]},
}
# The query has gaps in columns 2 and 9; the first mask is in it.
MASKED = ["MK-AYI<mask>KQ-RQISFVK", "MKS<mask>FIAKQ-QLSYVR-", "-RTAYVSRQRQITFAK<mask>"]
PLACES = [(0, 6, 6), (1, 3, 3), (2, 16, 15)]  # row, column, residue of the query
OTHERS = [["MKTAYIAKQRQISFVKAAGQLS<mask>", "MKSAFIAKQ-QLSYVRGADQ---"], ["M<mask>VLA"], ["MKVLAW<mask>"] * 7]
MSAS = [MASKED, *OTHERS]

# Runs every task on the folder, saves each pipeline, runs every task on what was saved, and prints it all as JSON.
CHILD = """
import json, sys
from pathlib import Path
import transformers
transformers.utils.logging.disable_progress_bar()
TASKS = ("fill-mask", "feature-extraction", "msa-contact-prediction")
folder, out, msas, results = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), {}
try:
    transformers.pipeline("fill-mask", folder, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code=True" in str(error), error
else:
    raise SystemExit("ran the folder's code unasked")

def run(folder, task):
    pipe = transformers.pipeline(task, str(folder), trust_remote_code=True, device="cpu")
    assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    found = pipe(msas, batch_size=3)
    if task == TASKS[2]:
        found = [{name: getattr(part, "tolist", lambda: part)() for name, part in each.items()} for each in found]
    results[f"{Path(folder).name} {task}"] = found
    return pipe

for task in TASKS:
    run(folder, task).save_pretrained(out / f"by-{task}")
for saved_by in TASKS:
    for task in TASKS[1:] if saved_by != "fill-mask" else TASKS:  # the others save no masked-LM head
        run(out / f"by-{saved_by}", task)
run(out / "by-fill-mask", "fill-mask").save_pretrained(out / "twice")
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("pipelines") / "model")


@pytest.fixture(scope="module")
def pipes(folder):
    return {task: pipeline(task, str(folder), device="cpu") for task in TASKS}


@pytest.fixture(scope="module")
def model(folder):
    return MsaForMaskedLM.from_pretrained(folder).eval()


@pytest.fixture
def idle(pipes, monkeypatch):
    """Models that must not run."""

    def fail(*args, **kwargs):
        raise AssertionError("the model ran")

    for pipe in pipes.values():
        monkeypatch.setattr(pipe.model.base_model, "forward", fail)
        monkeypatch.setattr(pipe.model.base_model, "contact_logits", fail)


def run(model, msa):
    """Token ids (R, C) and the model's output."""
    inputs = MsaTokenizer()(msa, return_tensors="pt")
    with torch.no_grad():
        return inputs["input_ids"][0], model(**inputs, output_hidden_states=True)


def expected_fills(model, msa):
    """For each mask: its place, and the probability of each token."""
    ids, output = run(model, msa)
    places = [(row, column) for row, tokens in enumerate(ids.tolist()) for column, t in enumerate(tokens) if t == 32]
    powers = [np.exp(output.logits[0, row, column].double().numpy()) for row, column in places]
    return places, [power / power.sum() for power in powers]


def assert_fills(result, model, msa, top_k=5):
    places, probabilities = expected_fills(model, msa)
    result = [result] if len(places) == 1 else result
    assert len(result) == len(places)
    vocab = {token_id: token for token, token_id in MsaTokenizer().get_vocab().items()}
    rows = [msa] if isinstance(msa, str) else msa
    for found, (row, column), expected in zip(result, places, probabilities, strict=True):
        assert [each["token"] for each in found] == np.argsort(-expected)[:top_k].tolist()
        for each in found:
            assert (each["row"], each["column"]) == (row, column - 1)
            assert each["score"] == pytest.approx(expected[each["token"]], abs=1e-6)
            assert each["token_str"] == vocab[each["token"]]
            letters = MsaTokenizer().tokenize(rows[row])
            assert letters[column - 1] == "<mask>"
            letters[column - 1] = vocab[each["token"]] if each["token"] > 3 else ""
            if each["token"] == 3:  # <unk> is no mark of structure
                letters[column - 1] = "<unk>"
            assert each["sequence"] == "".join(letters)


def flat(result, name):
    """The numbers of a result, for comparisons."""
    if name == "fill-mask":
        masks = [result] if isinstance(result[0], dict) else result
        return torch.tensor([each["score"] for found in masks for each in found])
    return torch.as_tensor(result["probabilities"] if isinstance(result, dict) else result)


# Numbers


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_fill_mask(pipes, model, batch_size):
    results = pipes["fill-mask"](MSAS, batch_size=batch_size)
    for result, msa in zip(results, MSAS, strict=True):
        assert_fills(result, model, msa)


def test_fill_mask_names_places(pipes):
    results = pipes["fill-mask"](MASKED)
    places = [(found[0]["row"], found[0]["column"], found[0]["residue"]) for found in results]
    assert places == PLACES
    assert pipes["fill-mask"](["M-V", "MK<mask>", "M<mask>V"], top_k=1)[1][0]["residue"] is None
    query = Alignment.from_sequences(["mkV-A", "VKA"], format="a3m")  # its insertions are counted
    assert query.column_residues.tolist() == [3, 0, 4]


def test_targets_and_top_k(pipes, model):
    _, probabilities = expected_fills(model, MASKED)
    results = pipes["fill-mask"](MASKED, targets=["K", "W", "K", "-"])
    assert {each["token_str"] for each in results[0]} == {"K", "W", "-"}
    for found, expected in zip(results, probabilities, strict=True):
        scores = [each["score"] for each in found]
        assert scores == sorted(scores, reverse=True)
        assert scores == pytest.approx([expected[each["token"]] for each in found], abs=1e-6)
    assert [len(found) for found in pipes["fill-mask"](MASKED, top_k=2)] == [2, 2, 2]
    assert len(pipes["fill-mask"]("M<mask>", top_k=100)) == 33
    assert [each["token_str"] for each in pipes["fill-mask"]("M<mask>", targets="W")] == ["W"]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_feature_extraction(pipes, model, batch_size):
    tensors = pipes["feature-extraction"](MSAS, batch_size=batch_size, return_tensors=True)
    for tensor, msa in zip(tensors, MSAS, strict=True):
        ids, output = run(model, msa)
        assert tensor.shape == (1, *ids.shape, 16)  # <cls> included
        torch.testing.assert_close(tensor, output.hidden_states[-1], atol=1e-5, rtol=0)
    assert pipes["feature-extraction"](MSAS, batch_size=batch_size)[0] == tensors[0].tolist()


def without_gaps(msa):
    """Rows without the columns in which the query has a gap."""
    rows = [MsaTokenizer().tokenize(row) for row in ([msa] if isinstance(msa, str) else msa)]
    kept = [column for column, letter in enumerate(rows[0]) if letter != "-"]
    return ["".join(row[column] for column in kept) for row in rows]


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_contacts(pipes, model, batch_size):
    results = pipes["msa-contact-prediction"](MSAS, batch_size=batch_size)
    for result, msa in zip(results, MSAS, strict=True):
        rows = without_gaps(msa)
        expected = model.predict_contacts(**MsaTokenizer()(rows, return_tensors="pt"))[0].numpy()
        length = len(expected)
        assert result["probabilities"].dtype == np.float32
        np.testing.assert_allclose(result["probabilities"], expected, atol=1e-5)
        assert result["residues"].tolist() == list(range(1, length + 1))
        pairs = [(i, j) for i in range(1, length + 1) for j in range(i + 6, length + 1)]
        pairs.sort(key=lambda pair: -result["probabilities"][pair[0] - 1, pair[1] - 1])
        assert [(each["i"], each["j"]) for each in result["contacts"]] == pairs[:length]
        for each in result["contacts"]:
            assert each["score"] == result["probabilities"][each["i"] - 1, each["j"] - 1]


def test_contacts_options(pipes):
    result = pipes["msa-contact-prediction"](MASKED, top_k=3, min_separation=12)
    assert len(result["contacts"]) == 3
    assert min(each["j"] - each["i"] for each in result["contacts"]) >= 12
    assert len(pipes["msa-contact-prediction"](MASKED, top_k=1000, min_separation=1)["contacts"]) == 15 * 14 / 2
    assert pipes["msa-contact-prediction"]("MKVLA")["contacts"] == []  # no pair is six apart


def test_contacts_of_an_alignment(pipes, model, tmp_path):
    """As `modeling_msa.predict_contacts`: the query's insertions are counted, its gaps left out."""
    (tmp_path / "x.a3m").write_text(">q\nmkMK-AYIAKqQ-RQISFVK\n>a\nMKSAFIAKQ-QLSYVR-\n>b\n-RTAYVSRQRQITFAKW\n")
    alignment = read_alignment(tmp_path / "x.a3m")
    expected = predict_contacts(alignment, model)
    result = pipes["msa-contact-prediction"]([alignment, MSAS[1]], batch_size=2)[0]
    assert result["residues"].tolist() == expected.residues.tolist()
    assert result["residues"].tolist() == [*range(3, 10), *range(11, 19)]
    np.testing.assert_allclose(result["probabilities"], expected.probabilities, atol=1e-5)
    numbers = expected.residues[expected.top(15)].tolist()
    assert [[each["i"], each["j"]] for each in result["contacts"]] == numbers


# Inputs


@pytest.mark.parametrize("task", TASKS)
def test_inputs_are_the_tokenizers(pipes, task):
    pipe, msa = pipes[task], ["MK<mask>AYIAKQ", "MKSAFIAKQ"]
    expected = flat(pipe(msa), task)
    named = [(f"row {number}", row) for number, row in enumerate(msa)]
    for same in (named, tuple(named), [named[0], msa[1]]):
        assert torch.equal(flat(pipe(same), task), expected)
    batch = pipe([msa])
    assert isinstance(batch, list)
    assert len(batch) == 1
    assert torch.equal(flat(batch[0], task), expected)
    single = flat(pipe("MK<mask>AYIAKQ"), task)
    assert torch.equal(flat(pipe(["MK<mask>AYIAKQ"]), task), single)
    if task != "fill-mask":  # no letter stands for a mask
        rows = ["MKTAYIAKQ", "MKSAFIAKQ"]
        expected = flat(pipe(rows), task)
        alignment = Alignment.from_sequences(rows)
        assert torch.equal(flat(pipe(alignment), task), expected)
        assert torch.equal(flat(pipe(alignment.array), task), expected)
        for batch in ([alignment, rows], np.stack([alignment.array] * 2), (alignment, alignment)):
            assert all(torch.equal(flat(each, task), expected) for each in pipe(batch))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_streams(pipes, task, batch_size):
    expected = [flat(result, task) for result in pipes[task](MSAS)]
    for stream in ((msa for msa in MSAS), iter(MSAS), KeyDataset([{"rows": msa} for msa in MSAS], "rows")):
        results = list(pipes[task](stream, batch_size=batch_size))
        for result, other in zip(results, expected, strict=True):
            torch.testing.assert_close(flat(result, task), other, atol=1e-5, rtol=0)


def test_dataset_of_alignments(pipes):
    families = [family(f"f{k}", 4 + k, 14 + k, k) for k in range(3)]
    dataset = KeyDataset(MsaDataset(families), "alignment")
    results = list(pipes["msa-contact-prediction"](dataset, batch_size=2, num_workers=1))
    for result, alignment in zip(results, families, strict=True):
        alone = pipes["msa-contact-prediction"](alignment)
        np.testing.assert_allclose(result["probabilities"], alone["probabilities"], atol=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_rows_of_a_dataset(pipes, task):
    """Of `load_alignments`, say: one, a list, a slice, an iterator, and the dataset itself."""
    datasets = pytest.importorskip("datasets")
    rows = [{"name": "x", "sequences": [msa] if isinstance(msa, str) else msa, "query": "?"} for msa in MSAS]
    expected = [flat(result, task) for result in pipes[task](MSAS)]
    assert torch.equal(flat(pipes[task](rows[0]), task), expected[0])
    dataset = datasets.Dataset.from_list(rows)
    for source in (rows, dataset[:], iter(rows), dataset, dataset.to_iterable_dataset()):
        results = list(pipes[task](source))
        for result, other in zip(results, expected, strict=True):
            assert torch.equal(flat(result, task), other)


@pytest.mark.parametrize("task", TASKS)
def test_half_precision(folder, pipes, task):
    pipe = pipeline(task, str(folder), device="cpu", dtype=torch.bfloat16, batch_size=2)
    assert pipe.dtype == torch.bfloat16
    half = MsaForMaskedLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    results = pipe(MSAS)
    if task == "fill-mask":
        alone = pipe(MASKED)  # in half precision, the batch shows in the last bits
        for found, expected in zip(alone, expected_fills(half, MASKED)[1], strict=True):  # equal scores are common
            assert found[0]["score"] == pytest.approx(expected.max(), abs=1e-6)
            assert [each["score"] for each in found] == pytest.approx(
                [expected[each["token"]] for each in found], abs=1e-6
            )
    elif task == "feature-extraction":
        assert pipe(MSAS, return_tensors=True)[0].dtype == torch.bfloat16
    else:
        assert results[0]["probabilities"].dtype == np.float32
    for result, exact in zip(results, pipes[task](MSAS), strict=True):
        assert flat(result, task).shape == flat(exact, task).shape


def test_truncation(pipes, model):
    long = ["MKVLAW<mask>" * 12, "MKVLAWA" * 12]  # 84 columns; the model accepts 64 with <cls>
    rows = [row.replace("<mask>", "A")[:63] for row in long]
    _, output = run(model, rows)
    pipe = pipes["feature-extraction"]
    for options in ({"truncation": True}, {"tokenize_kwargs": {"truncation": True}}):
        for _ in range(2):  # options are not written to
            result = pipe([row.replace("<mask>", "A") for row in long], return_tensors=True, **options)
            torch.testing.assert_close(result, output.hidden_states[-1], atol=1e-5, rtol=0)
    options = {"tokenizer_kwargs": {"truncation": True}}
    assert len(pipes["fill-mask"](long, **options)) == 9
    assert len(pipes["msa-contact-prediction"](long, **options)["residues"]) == 63


def test_padding_asked_of_the_tokenizer_changes_nothing(pipes):
    options = {"padding": "max_length", "max_length": 30, "max_depth": 9}
    padded = pipes["msa-contact-prediction"](MASKED, tokenizer_kwargs=options)
    assert padded["probabilities"].shape == (15, 15)
    tensor = pipes["feature-extraction"](MASKED, tokenize_kwargs=options, return_tensors=True)
    assert tensor.shape == (1, 3, 18, 16)


# Errors


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.usefixtures("idle")
def test_bad_msas_stop_before_the_model_runs(pipes, task):
    pipe, good = pipes[task], "M<mask>V"
    with pytest.raises(ValueError, match=r"MSA 2, row 2 has 3 columns and the first row has 2"):
        pipe([[good], [good], ["M<mask>", "MKV"]], batch_size=2)
    with pytest.raises(ValueError, match=r"MSA 1 has 33 rows, but the model accepts at most 32"):
        pipe([[good], [good] * 33])
    with pytest.raises(ValueError, match=r"MSA 0 has 65 columns with <cls>, but the model accepts at most 64"):
        pipe("<mask>" * 64)
    with pytest.raises(ValueError, match=r"MSA 1, row 1, column 2: 'k'; lowercase"):
        pipe([[good], ["Mk<mask>"]])
    with pytest.raises(ValueError, match="MSA 0 has no rows"):
        pipe([])
    with pytest.raises(TypeError, match=r"MSA 0 of the batch is of type int"):
        pipe(3)
    with pytest.raises(TypeError, match="MSA 1 of the batch is a single row: put it into a list"):
        pipe([[good], good])
    with pytest.raises(TypeError, match="The MSA, row 1 is list, not a string"):
        list(pipe([[good], [good]] for _ in range(1)))


@pytest.mark.usefixtures("idle")
def test_bad_options_stop_before_the_model_runs(pipes):
    fill, contacts = pipes["fill-mask"], pipes["msa-contact-prediction"]
    with pytest.raises(PipelineException, match=r"No mask_token \(<mask>\) found on the input \(MSA 1\)"):
        fill([["M<mask>"], ["MK"]])
    with pytest.raises(ValueError, match=r"targets must be tokens of the alphabet \(<cls> .* L A G .*\), not 'AK'"):
        fill("M<mask>", targets=["A", "AK"])
    with pytest.raises(ValueError, match="targets is empty"):
        fill("M<mask>", targets=[])
    for pipe in (fill, contacts):
        for number in (0, 2.5, "3", True):
            with pytest.raises(ValueError, match=f"top_k must be a whole number of at least 1, not {number!r}"):
                pipe("M<mask>", top_k=number)
        with pytest.raises(TypeError, match="topk"):
            pipe("M<mask>", topk=2)
        with pytest.raises(ValueError, match="leave add_special_tokens on"):
            pipe("M<mask>", tokenizer_kwargs={"add_special_tokens": False})
    with pytest.raises(ValueError, match="min_separation must be a whole number of at least 1, not 0"):
        contacts("MKV", min_separation=0)
    with pytest.raises(ValueError, match="MSA 0: the query has no residues"):
        contacts(["---", "MKV"])


@pytest.mark.usefixtures("idle")
def test_options_of_feature_extraction(pipes):
    pipe, cut = pipes["feature-extraction"], {"add_special_tokens": False}
    for name in ("tokenize_kwargs", "tokenizer_kwargs"):
        with pytest.raises(ValueError, match="leave add_special_tokens on"):
            pipe("MKV", **{name: cut})
    with pytest.raises(ValueError, match="mean the same: pass one"):
        pipe("MKV", tokenize_kwargs=cut, tokenizer_kwargs=cut)
    with pytest.raises(TypeError, match="feature-extraction has no option 'return_tensor', only truncation, "):
        pipe("MKV", return_tensor=True)


def test_truncation_on_the_left_is_refused(folder):
    tokenizer = MsaTokenizer.from_pretrained(folder, truncation_side="left")
    pipe = pipeline("msa-contact-prediction", str(folder), tokenizer=tokenizer, device="cpu")
    with pytest.raises(ValueError, match="truncation_side"):
        pipe("MKVLA", tokenizer_kwargs={"truncation": True, "max_length": 3})


def test_models_that_lack_what_the_task_needs():
    with pytest.raises(ValueError, match="contact regression was never fitted"):
        pipeline("msa-contact-prediction", model=MsaModel(small_model(MsaModel).config), tokenizer=MsaTokenizer())
    with pytest.raises(ValueError, match="fill-mask requires an MsaForMaskedLM; MsaModel has no such head"):
        pipeline("fill-mask", model=small_model(MsaModel), tokenizer=MsaTokenizer())


def test_a_folder_without_the_head(pipes, model, tmp_path):
    """Of it, transformers would make a random one and only warn; a head trained since then is taken."""
    for task in ("feature-extraction", "msa-contact-prediction"):
        folder = tmp_path / task
        pipes[task].save_pretrained(folder)
        with pytest.raises(ValueError, match=r"contains weights of MsaModel, which has no head for fill-mask"):
            pipeline("fill-mask", str(folder), device="cpu")
    trained = MsaForMaskedLM.from_pretrained(folder)
    trained.load_state_dict(model.state_dict())
    assert_fills(pipeline("fill-mask", model=trained, tokenizer=MsaTokenizer(), device="cpu")(MASKED), model, MASKED)
    new = MsaForMaskedLM(MsaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32))
    pipeline("fill-mask", model=new, tokenizer=MsaTokenizer(), device="cpu")
    new.save_pretrained(tmp_path / "new")
    MsaTokenizer().save_pretrained(tmp_path / "new")
    pipeline("fill-mask", str(tmp_path / "new"), device="cpu")


# With the package


@pytest.mark.parametrize("task", TASKS)
def test_registered_classes_are_taken(folder, model, task):
    assert type(pipeline(task, model=model, tokenizer=MsaTokenizer(), device="cpu")) is TASKS[task]
    for options in ({}, {"trust_remote_code": True}):
        pipe = pipeline(task, str(folder), device="cpu", **options)
        assert type(pipe) is TASKS[task]
        assert type(pipe.model).__module__ == "modeling_msa.modeling_msa_transformer"
    assert type(pipeline(task, str(folder), device="cpu").tokenizer) is MsaTokenizer


def test_dropout_is_off(model):
    trained = MsaForMaskedLM(model.config)
    trained.load_state_dict(model.state_dict())
    assert trained.train().config.hidden_dropout == 0.1
    assert_fills(pipeline("fill-mask", model=trained, tokenizer=MsaTokenizer(), device="cpu")(MASKED), model, MASKED)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "short", "of", "words"]
    backend = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    backend.pre_tokenizer = Whitespace()
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **marks).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


def test_other_models_keep_their_pipelines(bert):
    model = BertForMaskedLM.from_pretrained(bert)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bert)
    texts = ["a short [MASK] of words", "[MASK] words", "of [MASK] [MASK]"]
    for task, cls in (("fill-mask", FillMaskPipeline), ("feature-extraction", FeatureExtractionPipeline)):
        expected = cls(model, tokenizer=tokenizer, task=task, device="cpu")(texts)
        by_object = pipeline(task, model=model, tokenizer=tokenizer, device="cpu")
        by_name = pipeline(task, str(bert), device="cpu")
        for pipe in (by_object, by_name):
            assert type(pipe) is cls
            assert pipe.task == task
        assert by_object(texts) == expected
        if task == "fill-mask":
            assert by_name(texts, batch_size=1) == expected


def test_registration_keeps_what_was_registered(monkeypatch, bert):
    class Theirs(FillMaskPipeline):
        pass

    tasks = {"fill-mask": {"impl": Theirs, "pt": (AutoModelForMaskedLM,)}}
    name = "transformers.pipelines.feature_extraction.FeatureExtractionPipeline"
    tasks["feature-extraction"] = {"impl": name, "pt": ()}
    monkeypatch.setattr(PIPELINE_REGISTRY, "supported_tasks", tasks)
    model, tokenizer = BertForMaskedLM.from_pretrained(bert), PreTrainedTokenizerFast.from_pretrained(bert)
    for _ in range(2):  # the second time changes nothing
        with no_warnings():
            pipeline_msa_transformer.register_pipelines()
        assert list(tasks) == list(TASKS)
        for task, cls in (("fill-mask", Theirs), ("feature-extraction", FeatureExtractionPipeline)):
            assert type(tasks[task]["impl"](model=model, tokenizer=tokenizer, task=task, device="cpu")) is cls
            assert tasks[task]["impl"].__name__ == TASKS[task].__name__
            assert tasks[task]["impl"]._load_tokenizer is True
            assert tasks[task]["impl"]._load_image_processor is False


# Folders


def assert_complete(folder):
    assert json.loads((folder / "config.json").read_text())["custom_pipelines"] == CUSTOM_PIPELINES
    code = Path(modeling_msa.__file__).with_name("pipeline_msa_transformer.py").read_bytes()
    assert (folder / "pipeline_msa_transformer.py").read_bytes() == code


@per_class
def test_every_class_saves_the_pipelines(cls, tmp_path):
    assert cls in CLASSES
    small_model(cls).save_pretrained(tmp_path / "model")
    assert_complete(tmp_path / "model")


def test_config_alone_and_again(tmp_path):
    config = MsaConfig()
    config.save_pretrained(tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    content = json.loads(path.read_text())
    for info in content["custom_pipelines"].values():  # as if it came from another repository
        info["impl"] = f"someone/repo--{info['impl']}"
    path.write_text(json.dumps(content))
    loaded = MsaConfig.from_pretrained(tmp_path / "a")
    assert loaded.custom_pipelines == {}  # pipeline() would ask for trust_remote_code
    loaded.save_pretrained(tmp_path / "b")
    assert_complete(tmp_path / "b")


@pytest.mark.parametrize("task", TASKS)
def test_pipeline_saves_a_folder(pipes, task, tmp_path):
    pipes[task].save_pretrained(tmp_path)
    assert_complete(tmp_path)
    again = pipeline(task, str(tmp_path), device="cpu")
    assert type(again) is TASKS[task]
    assert torch.equal(flat(again(MASKED), task), flat(pipes[task](MASKED), task))


@pytest.fixture(scope="module")
def child(folder, tmp_path_factory):
    """What a process without the package found, its stderr, and where it saved folders."""
    root = tmp_path_factory.mktemp("child")
    process = run_fresh(CHILD, root, folder, root / "saved", json.dumps(MSAS))
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1]), without_remarks(process.stderr), root / "saved"


@pytest.mark.parametrize("task", TASKS)
def test_fresh_process_gives_the_same(pipes, child, task):
    results = child[0]
    expected = pipes[task](MSAS)
    savers = ("fill-mask",) if task == "fill-mask" else TASKS
    for name in (f"model {task}", *(f"by-{saver} {task}" for saver in savers)):
        for result, other in zip(results[name], expected, strict=True):
            torch.testing.assert_close(flat(result, task), flat(other, task), atol=1e-5, rtol=0)
    if task == "fill-mask":
        found = [{**each, "score": None} for each in results["model fill-mask"][1]]
        assert found == [{**each, "score": None} for each in expected[1]]


def test_fresh_process_is_silent_and_saves_whole_folders(child):
    _, messages, saved = child
    assert messages == ""
    for name in (*(f"by-{task}" for task in TASKS), "twice"):
        assert_complete(saved / name)
