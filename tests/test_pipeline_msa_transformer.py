"""transformers' pipelines give what the model gives, MSA by MSA.

What is an MSA and what a batch is the tokenizer's rule, and a result does not depend on the batch. With the package
imported, and from a saved folder in a process that cannot import it, `pipeline(task, folder)` takes our classes;
pipelines of other models stay transformers' own. Bad input stops before the model runs, and a task of transformers
that would read rows as texts is refused.
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
from transformers.pipelines import PIPELINE_REGISTRY, SUPPORTED_TASKS
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
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    MsaTextClassificationPipeline,
    MsaTokenClassificationPipeline,
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
    "text-classification": {
        "impl": "pipeline_msa_transformer.MsaTextClassificationPipeline",
        "pt": ["AutoModelForSequenceClassification"],
    },
    "token-classification": {
        "impl": "pipeline_msa_transformer.MsaTokenClassificationPipeline",
        "pt": ["AutoModelForTokenClassification"],
    },
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


# Heads


HEADS = {
    "text-classification": (MsaForSequenceClassification, MsaTextClassificationPipeline),
    "token-classification": (MsaForTokenClassification, MsaTokenClassificationPipeline),
}
NAMES = {"id2label": {0: "helix", 1: "strand", 2: "coil"}, "label2id": {"helix": 0, "strand": 1, "coil": 2}}
ROWS = ["MK-AYIAKQ", "MKSAFIAKQ", "-KTAFIA-Q"]  # the query has a gap in column 2
WITHOUT_MASKS = [ROWS, ["MKVLA"], ["MKVLAW", "MRVLAW"]]

# Runs the head's task under its names, with the folder and with the model in memory, and prints it as JSON.
CHILD_OF_HEADS = """
import json, sys
import transformers
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer
transformers.utils.logging.disable_progress_bar()
msas, found = json.loads(sys.argv[1]), {}
for folder, task, alias, auto in (
    (sys.argv[2], "text-classification", "sentiment-analysis", AutoModelForSequenceClassification),
    (sys.argv[3], "token-classification", "ner", AutoModelForTokenClassification),
):
    options = {"device": "cpu", "trust_remote_code": True}
    pipe = transformers.pipeline(task, folder, **options)
    assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    loaded = {"model": auto.from_pretrained(folder, trust_remote_code=True),
              "tokenizer": AutoTokenizer.from_pretrained(folder, trust_remote_code=True), "device": "cpu"}
    found[task] = [pipe(msas, batch_size=2), transformers.pipeline(alias, folder, **options)(msas),
                   transformers.pipeline(task, **loaded)(msas)]
    try:
        transformers.pipeline("zero-shot-classification", **loaded)
    except ValueError as error:
        found[task].append(str(error))
    pipe.save_pretrained(f"saved-{task}")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """For each task, the folder of a model with a head for it."""
    folders = {}
    for task, (cls, _) in HEADS.items():
        model = small_model(cls, **NAMES)
        folders[task] = tmp_path_factory.mktemp("heads") / task
        model.save_pretrained(folders[task])
        MsaTokenizer.for_config(model.config).save_pretrained(folders[task])
    return folders


def expected_classes(folder, cls, msa):
    """Probabilities of the classes by the model alone, without a batch: (K,), or (C, K) of each token."""
    with torch.no_grad():
        logits = cls.from_pretrained(folder).eval()(**MsaTokenizer()(msa, return_tensors="pt")).logits[0]
    powers = np.exp(logits.double().numpy())
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_text_classification(heads, batch_size):
    folder, names = heads["text-classification"], list(NAMES["label2id"])
    pipe = pipeline("text-classification", str(folder), device="cpu")
    assert type(pipe) is MsaTextClassificationPipeline
    results = pipe(WITHOUT_MASKS, batch_size=batch_size)
    ranked = pipe(WITHOUT_MASKS, batch_size=batch_size, top_k=None)
    for found, all_classes, msa in zip(results, ranked, WITHOUT_MASKS, strict=True):
        expected = expected_classes(folder, MsaForSequenceClassification, msa)
        order = np.argsort(-expected)
        assert [each["label"] for each in all_classes] == [names[k] for k in order]
        assert [each["score"] for each in all_classes] == pytest.approx(expected[order].tolist(), abs=1e-6)
        assert found == pytest.approx(all_classes[0], abs=1e-6)
    alone = [expected_classes(folder, MsaForSequenceClassification, [row]) for row in ROWS]
    assert abs(alone[0] - expected_classes(folder, MsaForSequenceClassification, ROWS)).max() > 1e-3
    assert [each["label"] for each in pipe(ROWS, top_k=2)] == [each["label"] for each in ranked[0][:2]]


def test_inputs_of_text_classification(heads):
    pipe = pipeline("text-classification", str(heads["text-classification"]), device="cpu")
    family = Alignment.from_sequences(ROWS)
    expected = pipe(ROWS)
    for same in (family, family.array, {"text": ROWS}, {"sequences": ROWS}, list(family)):
        assert pipe(same) == expected
    assert pipe([{"text": ROWS}, family]) == [expected, expected]
    assert list(pipe(iter([ROWS]))) == [expected]
    with pytest.raises(ValueError, match="no pairs of alignments"):
        pipe({"text": ROWS, "text_pair": ROWS})
    with pytest.raises(ValueError, match="MSA 1: the query has no residues"):
        pipe([ROWS, ["---", "MKV"]])
    with pytest.raises(ValueError, match="top_k must be a whole number"):
        pipe(ROWS, top_k=0)
    with pytest.raises(ValueError, match=r"MSA 0 has 17 rows, but the model accepts at most 16"):
        pipe(["MKV"] * 17)
    assert pipe(["MKV"] * 17, tokenizer_kwargs={"truncation": True}) == pipe(["MKV"] * 16)


@pytest.mark.parametrize(("labels", "problem"), [(1, None), (1, "regression"), (3, "regression")])
def test_text_classification_of_values(labels, problem):
    """Values are the logits themselves (transformers' pipeline would give a lone one's sigmoid), in their order."""
    model = small_model(MsaForSequenceClassification, num_labels=labels, problem_type=problem)
    pipe = pipeline("text-classification", model=model, tokenizer=MsaTokenizer(), device="cpu")
    with torch.no_grad():
        expected = model(**MsaTokenizer()(ROWS, return_tensors="pt")).logits[0].tolist()
    found = pipe(ROWS)
    assert isinstance(found, list) == (labels > 1)
    found = found if labels > 1 else [found]
    assert [each["label"] for each in found] == [f"LABEL_{k}" for k in range(labels)]
    assert [each["score"] for each in found] == pytest.approx(expected, abs=1e-6)


def test_text_classification_with_several_labels_at_once():
    model = small_model(MsaForSequenceClassification, num_labels=3, problem_type="multi_label_classification")
    pipe = pipeline("text-classification", model=model, tokenizer=MsaTokenizer(), device="cpu")
    with torch.no_grad():
        logits = model(**MsaTokenizer()(ROWS, return_tensors="pt")).logits[0].double().numpy()
    expected = 1 / (1 + np.exp(-logits))
    assert {each["label"]: each["score"] for each in pipe(ROWS, top_k=None)} == pytest.approx(
        {f"LABEL_{k}": score for k, score in enumerate(expected)}, abs=1e-6
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_token_classification(heads, batch_size):
    folder, names = heads["token-classification"], list(NAMES["label2id"])
    pipe = pipeline("token-classification", str(folder), device="cpu")
    assert type(pipe) is MsaTokenClassificationPipeline
    for found, msa in zip(pipe(WITHOUT_MASKS, batch_size=batch_size), WITHOUT_MASKS, strict=True):
        expected = expected_classes(folder, MsaForTokenClassification, msa)
        columns = [column for column, letter in enumerate(msa[0]) if letter != "-"]
        assert [each["column"] for each in found] == columns
        assert [each["word"] for each in found] == [msa[0][column] for column in columns]
        assert [each["residue"] for each in found] == list(range(1, len(columns) + 1))
        for each in found:
            classes = expected[each["column"] + 1]  # <cls> first
            assert each["entity"] == names[classes.argmax()]
            assert each["score"] == pytest.approx(classes.max(), abs=1e-6)
    family = Alignment.from_sequences(["mkMK-AYIAKqQ", *ROWS[1:]])  # insertions are counted
    assert [each["residue"] for each in pipe(family)] == [*range(3, 10), 11]
    assert [each["entity"] for each in pipe(family)] == [each["entity"] for each in pipe(ROWS)]
    with pytest.raises(ValueError, match="MSA 0: the query has no residues"):
        pipe(["---", "MKV"])


def test_heads_in_a_fresh_process(heads, tmp_path):
    """Without the package: by every name of the task, from the folder and in memory."""

    def lines(results):
        found = [each for result in results for each in (result if isinstance(result, list) else [result])]
        return [{**each, "score": 0} for each in found], [each["score"] for each in found]

    process = run_fresh(CHILD_OF_HEADS, tmp_path, json.dumps(WITHOUT_MASKS), *heads.values())
    assert process.returncode == 0, process.stderr
    assert without_remarks(process.stderr) == ""
    for task, (*results, refusal) in json.loads(process.stdout.splitlines()[-1]).items():
        pipe = pipeline(task, str(heads[task]), device="cpu")
        saved = pipeline(task, str(tmp_path / f"saved-{task}"), device="cpu")
        assert_complete(tmp_path / f"saved-{task}")
        names, scores = lines(pipe(WITHOUT_MASKS))
        assert len(results) == 3
        for found in (*results, saved(WITHOUT_MASKS)):
            assert lines(found)[0] == names
            assert lines(found)[1] == pytest.approx(scores, abs=1e-5)
        assert f"Use {task}, feature-extraction or msa-contact-prediction" in refusal


@pytest.mark.parametrize("task", HEADS)
def test_heads_that_were_not_trained_for_the_task(task, heads, folder):
    other = next(name for name in HEADS if name != task)
    needed, theirs = HEADS[task][0], HEADS[other][0]
    with pytest.raises(ValueError, match=f"contains weights of {theirs.__name__}.*made for another task"):
        pipeline(task, str(heads[other]), device="cpu")
    with pytest.raises(ValueError, match=r"contains weights of MsaForMaskedLM.*the head would be random"):
        pipeline(task, str(folder), device="cpu")
    trained = needed.from_pretrained(folder)
    with torch.no_grad():
        trained.classifier.bias += 1
    pipeline(task, model=trained, tokenizer=MsaTokenizer(), device="cpu")
    needed(small_model(needed).config).save_pretrained(folder.parent / "new")  # as it was made, on purpose
    MsaTokenizer().save_pretrained(folder.parent / "new")
    pipeline(task, str(folder.parent / "new"), device="cpu")


@per_class
def test_tasks_that_read_rows_as_texts_are_refused(cls):
    """Each of transformers' tasks for texts is right for the class (here it can be made), or refused with what is."""
    model = small_model(cls)
    own = {"MsaForMaskedLM": ["fill-mask"]} | {head.__name__: [task] for task, (head, _) in HEADS.items()}
    usable = [*own.get(cls.__name__, []), "feature-extraction", "msa-contact-prediction"]
    tasks = {task for task, info in SUPPORTED_TASKS.items() if info.get("type") in ("text", "multimodal")}
    assert {"text-generation", "table-question-answering", "zero-shot-classification", "fill-mask", *HEADS} <= tasks
    for task in {*tasks, "sentiment-analysis", "ner"}:
        name = {"sentiment-analysis": "text-classification", "ner": "token-classification"}.get(task, task)
        options = {"model": model, "tokenizer": MsaTokenizer(), "device": "cpu"}
        if name in usable:
            assert type(pipeline(task, **options)).__name__.startswith("Msa")
        elif not any(word in task for word in ("image", "video", "object", "audio", "speech", "any", "mask")):
            right = rf"{name} .*{cls.__name__}.* Use .*feature-extraction or msa-contact-prediction"
            with pytest.raises(ValueError, match=right):
                pipeline(task, **options)


@pytest.mark.parametrize("task", HEADS)
def test_wrapped_models(task):
    """Those of torch.compile and of PEFT count as what is in them."""
    peft = pytest.importorskip("peft")
    model = small_model(HEADS[task][0])
    options = {"tokenizer": MsaTokenizer(), "device": "cpu"}
    expected = pipeline(task, model=model, **options)(ROWS)
    states = pipeline("feature-extraction", model=model, **options)(ROWS)
    compiled = torch.compile(model, backend="eager")
    assert pipeline(task, model=compiled, **options)(ROWS) == expected
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"]))  # new adapters change nothing
    assert pipeline(task, model=adapted, **options)(ROWS) == expected
    assert pipeline("feature-extraction", model=adapted, **options)(ROWS) == states
    other = next(name for name in HEADS if name != task)
    with pytest.raises(ValueError, match=rf"has no such head\. Use {task}, feature-extraction or msa-contact"):
        pipeline(other, model=adapted, **options)


def test_zero_shot_on_a_folder_is_refused(heads):
    with pytest.raises(
        ValueError, match=r"zero-shot-classification would read each row as a text of its own.*Use text"
    ):
        pipeline("zero-shot-classification", str(heads["text-classification"]), device="cpu")


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
        assert list(tasks) == ["fill-mask", "feature-extraction", "msa-contact-prediction"]
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
