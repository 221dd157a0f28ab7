"""The contract of exports.

A program of torch.export and an ONNX file compute what the model does for every class and head, whatever the numbers
of MSAs, rows and columns, padded or not: the program to 1e-5, ONNX Runtime to 1e-4. What they should compute is each
MSA alone through the model, which then has no padding and works in blocks. The file describes itself and requires
nothing but ONNX Runtime; it appears whole, and only if it computes what the model does. Models that cannot be exported
are refused before work starts.
"""

import json

import numpy as np
import pytest
import torch
from fresh import run_fresh
from small import MSAS, PAD, batched, difference, no_warnings, random_tokens, small_model
from torch import nn
from typer import Typer
from typer.testing import CliRunner

from modeling_msa import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
    MsaTokenizer,
)

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
from modeling_msa.cli.export import export_command  # noqa: E402
from modeling_msa.hub import exporting  # noqa: E402
from modeling_msa.hub.exporting import ExportError, export_onnx, export_program  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")
ONE_LAYER = {"num_hidden_layers": 1}
MSA1 = ONE_LAYER | {"row_position_embedding_size": 1, "attn_implementation": "eager"}
WITHOUT_ROWS = ONE_LAYER | {"row_position_embedding_size": None}
FILES = {  # as ONNX too
    "contacts": (MsaForMaskedLM, "contacts", MSA1),
    "masked": (MsaForMaskedLM, "logits", {}),
    "embeddings": (MsaModel, "embeddings", WITHOUT_ROWS),
    "sequences": (MsaForSequenceClassification, "logits", ONE_LAYER),
}
PROGRAMS = {
    "backbone": (MsaModel, "contacts", ONE_LAYER),
    "contact-logits": (MsaForContactPrediction, "logits", ONE_LAYER),
    "tokens": (MsaForTokenClassification, "logits", ONE_LAYER),
}
# traced are 2 MSAs of at most 3 rows and 5 columns; the model's tables end at 16 and 32
BATCHES = {
    "padded": MSAS,
    "unpadded": [random_tokens(7, 11, seed) for seed in (7, 8, 9)],
    "one row": [random_tokens(1, 12, 5), random_tokens(1, 20, 6)],
    "small": [random_tokens(2, 4, 10)],
    "largest": [random_tokens(16, 32, 13)],
}


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """`export(name)`: a model of FILES, its task, its program, and the report on its file."""
    made = {}

    def make(name):
        cls, task, kwargs = FILES[name]
        model = small_model(cls, **kwargs).train()
        programs = []

        def recorded(*args):
            programs.append(export_program(*args))
            return programs[-1]

        with pytest.MonkeyPatch.context() as patch, no_warnings():
            patch.setattr(exporting, "export_program", recorded)
            report = export_onnx(model, tmp_path_factory.mktemp(name) / "model.onnx", task)
        assert all(module.training for module in model.modules())
        return model.eval(), task, programs[0], report

    def cached(name):
        if name not in made:
            made[name] = make(name)
        return made[name]

    return cached


@pytest.fixture(params=FILES)
def exported(request, export):
    return export(request.param)


@torch.no_grad()
def through(model, task, tokens):
    if task == "contacts":
        return model.predict_contacts(tokens)
    if task == "embeddings":
        return model.base_model(tokens).last_hidden_state
    return model(tokens).logits


def largest_difference(model, task, msas, results):
    """The largest difference of a batch's results, where they are no padding, from each MSA alone."""
    assert len(results) == len(msas)
    alone = [through(model, task, msa)[0] for msa in msas]
    return max(
        difference(result[tuple(map(slice, each.shape))], each) for result, each in zip(results, alone, strict=True)
    )


def run_file(path, tokens):
    session = onnxruntime.InferenceSession(path)
    (result,) = session.run(None, {"input_ids": tokens.numpy(), "attention_mask": tokens.ne(PAD).long().numpy()})
    return torch.from_numpy(result)


def run_program(program, tokens):
    with torch.no_grad():
        (result,) = program.module()(input_ids=tokens, attention_mask=tokens.ne(PAD).long()).values()
    return result


def test_file_and_program(exported):
    model, task, program, report = exported
    for name, msas in BATCHES.items():
        tokens = batched(msas)
        assert largest_difference(model, task, msas, run_program(program, tokens)) <= 1e-5, name
        results = run_file(report.output, tokens)
        assert largest_difference(model, task, msas, results) <= 1e-4, name
        if task == "contacts":
            for result, msa in zip(results, msas, strict=True):
                assert not result[msa.shape[2] - 1 :].any()
                assert not result[:, msa.shape[2] - 1 :].any()


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_the_other_classes(name):
    cls, task, kwargs = PROGRAMS[name]
    model = small_model(cls, **kwargs)
    program = export_program(model, task)
    for msas in BATCHES.values():
        assert largest_difference(model, task, msas, run_program(program, batched(msas))) <= 1e-5


def test_one_residue_in_onnx(exported):
    """The program refuses such an MSA alone, which torch.export would make a case of its own."""
    model, task, _, report = exported
    msas = [random_tokens(5, 2)]
    assert largest_difference(model, task, msas, run_file(report.output, msas[0])) <= 1e-4


def test_report_and_names(exported):
    model, task, _, report = exported
    session = onnxruntime.InferenceSession(report.output)
    axes = {each.name: each.shape for each in (*session.get_inputs(), *session.get_outputs())}
    assert list(axes) == ["input_ids", "attention_mask", task]
    assert axes["input_ids"] == axes["attention_mask"] == ["batch", "rows", "columns"]
    tokens = MSAS[0]
    expected = through(model, task, tokens)
    sizes = {"batch": 1, "rows": tokens.shape[1], "columns": tokens.shape[2], "columns - 1": tokens.shape[2] - 1}
    assert [sizes.get(axis, axis) for axis in axes[task]] == list(expected.shape)
    assert [each.type for each in (*session.get_inputs(), *session.get_outputs())] == [
        "tensor(int64)",
        "tensor(int64)",
        "tensor(float)",
    ]
    assert report.axes == axes
    assert report.task == task
    assert report.size == report.output.stat().st_size
    assert 0 < report.difference <= 1e-4
    assert f"max |difference| {report.difference:.1e}" in str(report)
    assert [path.name for path in report.output.parent.iterdir()] == ["model.onnx"]

    known = session.get_modelmeta().custom_metadata_map
    assert known["task"] == task
    assert known["model"] == type(model).__name__
    assert json.loads(known["axes"]) == axes
    assert json.loads(known["config"])["hidden_size"] == 16
    assert json.loads(known["max_columns"]) == 32
    assert json.loads(known["max_rows"]) == (16 if model.config.row_position_embedding_size else None)
    assert json.loads(known["alphabet"]) == MsaTokenizer().convert_ids_to_tokens(range(33))


def test_the_file_holds_no_places_of_this_machine(exported):
    """PyTorch notes with each node the lines of code that it comes from."""
    content = exported[3].output.read_bytes()
    assert b".py" not in content.replace(b"configuration_msa_transformer.py", b"")
    assert b"stack_trace" not in content


def test_beyond_the_tables(exported):
    """More columns or rows than a table has are refused; without row positions there is no end to rows."""
    model, task, program, report = exported
    too_large = [random_tokens(2, 33)]
    if model.config.row_position_embedding_size is None:
        msas = [random_tokens(40, 6, 1), random_tokens(23, 9, 2)]
        tokens = batched(msas)
        assert largest_difference(model, task, msas, run_file(report.output, tokens)) <= 1e-4
        assert largest_difference(model, task, msas, run_program(program, tokens)) <= 1e-5
    else:
        too_large.append(random_tokens(17, 9))
    for tokens in too_large:
        with pytest.raises(AssertionError, match="Guard failed"):
            run_program(program, tokens)
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            run_file(report.output, tokens)


def test_program_is_saved_and_loaded(export, tmp_path):
    program = export("contacts")[2]
    torch.export.save(program, tmp_path / "model.pt2")
    tokens = batched(MSAS)
    assert torch.equal(run_program(torch.export.load(tmp_path / "model.pt2"), tokens), run_program(program, tokens))


CLIENT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "tokenizers", "onnx", "onnxscript", "modeling_msa"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())

import json
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
alphabet = json.loads(session.get_modelmeta().custom_metadata_map["alphabet"])
rows = sys.argv[2:]
tokens = np.array([[[0, *map(alphabet.index, row)] for row in rows]])
(contacts,) = session.run(["contacts"], {"input_ids": tokens, "attention_mask": np.ones_like(tokens)})
print(json.dumps(contacts.tolist()))
assert not {"torch", "transformers", "modeling_msa"} & set(sys.modules)
"""


def test_onnxruntime_and_numpy_alone(export, tmp_path):
    model, _, _, report = export("contacts")
    sequences = ["MKVLAWHC", "MRV-AWHC", "-KILAYH-"]
    result = run_fresh(CLIENT, tmp_path, report.output, *sequences)
    assert result.returncode == 0, result.stderr
    expected = model.predict_contacts(**MsaTokenizer()(sequences, return_tensors="pt"))
    assert np.abs(np.array(json.loads(result.stdout)) - expected.numpy()).max() <= 1e-4


def test_a_file_that_computes_something_else_does_not_appear(tmp_path, monkeypatch):
    """NaN is something else too."""
    import onnx_ir

    (tmp_path / "old.onnx").write_text("old")
    make, made = torch.onnx.export, []

    def broken(*args, **kwargs):
        if not made:
            program = make(*args, **kwargs)
            (name,) = [name for name in program.model.graph.initializers if name.endswith("word_embeddings.weight")]
            weight = program.model.graph.initializers[name]
            made.extend((program, weight, weight.const_value.numpy()))
        program, weight, values = made
        weight.const_value = onnx_ir.tensor(values * factor, name=weight.name)
        return program

    monkeypatch.setattr(torch.onnx, "export", broken)
    for factor in np.array([1.1, np.nan], dtype=np.float32):  # noqa: B007
        with pytest.raises(ExportError, match=r"differ from torch's by .*nothing was written"):
            export_onnx(small_model(MsaModel, **ONE_LAYER), tmp_path / "old.onnx")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.onnx", "old")]


def test_transformers_own_exporter_serves_too(tmp_path):
    exporters = pytest.importorskip("transformers.exporters")
    import onnx_ir

    model = small_model(MsaForMaskedLM, **ONE_LAYER)
    axes = {
        0: torch.export.Dim("batch"),
        1: torch.export.Dim("rows", max=16),
        2: torch.export.Dim("columns", min=3, max=32),
    }
    tokens = batched([random_tokens(3, 5), random_tokens(2, 4)])
    inputs = {"input_ids": tokens, "attention_mask": tokens.ne(PAD).long()}
    config = exporters.OnnxConfig(dynamic_shapes=dict.fromkeys(inputs, axes))
    result = exporters.OnnxExporter().export(model, inputs, config)
    program = getattr(result, "program", result)  # from release to release it returns something else
    onnx_ir.save(getattr(program, "model", program), tmp_path / "model.onnx")
    assert largest_difference(model, "logits", MSAS, run_file(tmp_path / "model.onnx", batched(MSAS))) <= 1e-4


def command(*arguments):
    app = Typer()
    app.command()(export_command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_command_and_weights_beside_the_file(tmp_path):
    folder = tmp_path / "model"
    small_model(MsaForMaskedLM, **ONE_LAYER).save_pretrained(folder)
    made = tmp_path / "made"
    made.mkdir()
    result = command(folder, "-o", made / "m.onnx", "--task", "logits", "--external-data")
    assert result.exit_code == 0, result.output
    assert "max |difference|" in result.output
    assert sorted(path.name for path in made.iterdir()) == ["m.onnx", "m.onnx.data"]
    size = sum(path.stat().st_size for path in made.iterdir())
    assert f"{size / 1e6:.1f} MB" in result.output
    moved = made.rename(tmp_path / "moved")
    model = MsaForMaskedLM.from_pretrained(folder).eval()
    assert largest_difference(model, "logits", MSAS, run_file(moved / "m.onnx", batched(MSAS))) <= 1e-4
    known = onnxruntime.InferenceSession(moved / "m.onnx").get_modelmeta().custom_metadata_map
    assert known["name"] == "model"
    assert str(tmp_path) not in str(known)

    export_onnx(model, moved / "m.onnx", "logits")  # the weights of the file that was replaced go
    assert [path.name for path in moved.iterdir()] == ["m.onnx"]


def test_command_refuses_in_words(tmp_path):
    folder = tmp_path / "model"
    small_model(MsaForMaskedLM, scale=0, **ONE_LAYER).save_pretrained(folder)
    for output, words in (
        (tmp_path / "x.pt", "unknown output format '.pt'; use .onnx"),
        (tmp_path / "none" / "x.onnx", "does not exist"),
        (tmp_path / "x.onnx", "never fitted"),
    ):
        result = command(folder, "-o", output)
        assert result.exit_code == 1
        assert words in result.output.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def half(model):
    return model.half()


def flash(model):
    model.config._attn_implementation = "flash_attention_2"
    return model


def quantized(model):
    class Quantized(nn.Parameter):
        pass

    linear = model.base_model.layers[0].feed_forward.fc1
    linear._parameters["weight"] = Quantized(linear.weight.data)
    return model


def never_fitted(model):
    nn.init.zeros_(model.base_model.contact_head.regression.weight)
    return model


def adapted(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(target_modules=["q_proj"]))


@pytest.mark.parametrize(
    ("change", "task", "words"),
    [
        (half, "contacts", r"float16.*pass model.float"),
        (flash, "contacts", r"attn_implementation='sdpa'"),
        (quantized, "contacts", "quantized or sharded"),
        (never_fitted, "contacts", "never fitted"),
        (lambda model: model.to("meta"), "embeddings", "offloaded"),
        (lambda model: model.base_model, "logits", "has no head"),
        (lambda model: model, "heads", "unknown task 'heads'; use contacts, logits or embeddings"),
        (lambda model: nn.Linear(1, 1), "contacts", "not an MSA Transformer"),
        (adapted, "contacts", r"merge_and_unload"),
    ],
)
def test_what_cannot_be_exported(change, task, words, tmp_path):
    if change is adapted:
        pytest.importorskip("peft")
    model = change(small_model(MsaForMaskedLM, **ONE_LAYER))
    with pytest.raises(ValueError, match=words):
        export_onnx(model, tmp_path / "model.onnx", task)
    if change is not half:
        with pytest.raises(ValueError, match=words):
            export_program(model, task)
    assert not list(tmp_path.iterdir())


def test_tables_that_are_too_small():
    for size in ({"max_row_position_embeddings": 1}, {"max_position_embeddings": 3}):
        with pytest.raises(ExportError, match="limited to MSAs of one row or one residue"):
            export_program(small_model(MsaModel, **ONE_LAYER, **size))
    assert export_program(small_model(MsaModel, **ONE_LAYER, max_row_position_embeddings=2, max_position_embeddings=4))


def test_half_precision_as_a_program():
    model = small_model(MsaModel, **ONE_LAYER).to(torch.bfloat16)
    assert difference(run_program(export_program(model), MSAS[0]), model.predict_contacts(MSAS[0])) <= 1e-5


def test_missing_packages(tmp_path, monkeypatch):
    find = exporting.importlib.util.find_spec
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if "onnx" in name else find(name))
    with pytest.raises(
        ImportError, match=r"requires onnx and onnxscript and onnxruntime: pip install 'modeling-msa\[export\]'"
    ):
        export_onnx(small_model(MsaModel), tmp_path / "model.onnx")
    result = command("msa-tiny", "-o", tmp_path / "model.onnx")
    assert result.exit_code == 1
    assert "pip install 'modeling-msa[export]'" in result.output.replace("\n", " ")


def test_unwritable_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ValueError, match="is not writable"):
        export_onnx(small_model(MsaModel), tmp_path / "model.onnx")
