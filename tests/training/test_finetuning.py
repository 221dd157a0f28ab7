"""Contract of fine-tuning.

- Every head memorises random labels, all of them.
- Gradient checkpointing, reentrant or not, changes no gradient, under any attention, with the same dropout.
- LoRA adapters get the gradients that follow from a plain model's by the chain rule, with checkpointing too; only
  adapters and `modules_to_save` change; saved, reloaded and merged they predict the same, and a merged model is plain.
- With checkpointing a step holds at most 40 % of the memory that fair-esm's modules hold for it.
"""

import copy
import importlib.util
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from small import (
    CLASSES,
    MSAS,
    batched,
    difference,
    gradients,
    labels_for,
    no_warnings,
    per_attention,
    per_class,
    random_tokens,
    small_config,
    small_model,
)
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from modeling_msa import (
    Alignment,
    MsaConfig,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaTokenizer,
    read_alignment,
)
from modeling_msa.training.collators import MsaDataCollatorForTokenClassification

pytestmark = pytest.mark.usefixtures("one_thread")

NO_DROPOUT = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "classifier_dropout"), 0.0)
MANY_MAPS = {"num_hidden_layers": 4, "num_attention_heads": 16, "initializer_range": 0.1}  # contacts are made of them
TASKS = {  # class, changes to its config, and the loss of an untrained model
    "masked": (MsaForMaskedLM, {}, math.log(33)),
    "contacts": (MsaForContactPrediction, MANY_MAPS, math.log(2)),
    "tokens": (MsaForTokenClassification, {"num_labels": 3}, math.log(3)),
    "classes": (MsaForSequenceClassification, {"num_labels": 2}, math.log(2)),
    "values": (MsaForSequenceClassification, {"num_labels": 1}, (2.25 + 0.04 + 0.81 + 4) / 4),
}
VALUES = (-1.5, 0.2, 0.9, 2.0)
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MSA_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "msa"
per_task = pytest.mark.parametrize("task", TASKS)


def new_model(task, **options):
    torch.manual_seed(0)
    cls, particular, _ = TASKS[task]
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    return cls(small_config(**sizes | NO_DROPOUT | particular | options))


def examples(task, seed=0):
    """Four MSAs of different sizes, with random labels, which can only be memorised."""
    random = torch.Generator().manual_seed(seed)
    features = []
    for k, (rows, columns) in enumerate([(5, 17), (3, 13), (1, 9), (8, 12)]):
        ids = random_tokens(rows, columns, seed + k)[0]
        if task == "masked":
            masked = torch.rand(ids.shape, generator=random) < 0.3
            masked[:, 0] = False
            labels = torch.randint(4, 24, ids.shape, generator=random).masked_fill(~masked, -100)
            ids = ids.masked_fill(masked, 32)
        elif task == "contacts":
            upper = torch.triu(torch.rand(columns - 1, columns - 1, generator=random) < 0.15, 2)
            near = torch.ones_like(upper).triu(-1).tril(1)
            labels = (upper | upper.T).long().masked_fill(near, -100)
        elif task == "tokens":
            labels = torch.randint(0, 3, (columns,), generator=random)
            labels[0] = -100
        else:
            labels = torch.tensor(k % 2 if task == "classes" else VALUES[k])
        features.append({"input_ids": ids.numpy(), "labels": labels.numpy() if labels.ndim else labels.item()})
    return features


def trainer(model, folder, data, collator=None, **options):
    options = {"per_device_train_batch_size": 4, "report_to": [], "use_cpu": True, "disable_tqdm": True} | options
    arguments = TrainingArguments(folder, save_strategy="no", **options)
    collator = collator or DataCollatorWithPadding(MsaTokenizer())
    return Trainer(model, arguments, train_dataset=data, eval_dataset=data, data_collator=collator)


# ------------------------------------------------------------------------------------------------------ overfitting


def wrong_answers(task, model, features):
    """How many labels the model, given one MSA at a time, does not return (a value: to 0.1)."""
    wrong = 0
    for feature in features:
        with torch.no_grad():
            logits = model.eval()(torch.as_tensor(feature["input_ids"])[None]).logits[0]
        labels = torch.as_tensor(feature["labels"])
        if task == "values":
            wrong += int((logits[0] - labels).abs() > 0.1)
        else:
            answers = (logits > 0).long() if task == "contacts" else logits.argmax(-1)
            wrong += int(((answers != labels) & (labels != -100)).sum())
    return wrong


@per_task
def test_learns_random_labels(task, tmp_path):
    model, data = new_model(task), examples(task)
    steps = 150 if task == "contacts" else 80  # its regression starts at zero
    run = trainer(model, tmp_path, data, max_steps=steps, learning_rate=1e-2, lr_scheduler_type="constant")
    assert run.evaluate()["eval_loss"] == pytest.approx(TASKS[task][2], rel=0.02)
    assert wrong_answers(task, model, data) > 0
    run.train()
    # at most 1/35 of the loss at the start; an answer that is given less than one half costs 0.69
    assert run.evaluate()["eval_loss"] < 0.02
    assert wrong_answers(task, model, data) == 0


def families():
    """Three alignments with gaps and insertions in the query, and a class for each of its residues."""
    random = np.random.default_rng(0)
    for length in (14, 19, 11):
        rows = ["".join(random.choice(list("ACDEFGHIKLMNPQRSTVWY-"), length)) for _ in range(30)]
        query = "M" + rows[0][1:5] + "-" + rows[0][6:]  # a gap somewhere, if there was none
        rows[0] = query[:3] + "ga" + query[3:]  # two residues without a column
        family = Alignment.from_sequences(rows)
        yield rows[0], family, random.integers(0, 3, len(rows[0].replace("-", "")))


def test_learns_labels_of_residues_from_alignments(tmp_path):
    """Rows are drawn anew at each visit; the labels are numbered on the query's residues, the model's on columns."""
    model = new_model("tokens")
    data = [{"alignment": family, "labels": labels} for _, family, labels in families()]
    collator = MsaDataCollatorForTokenClassification(MsaTokenizer(), max_tokens=160, num_labels=3)
    # a rate that falls, so that rounding does not decide where the last steps lead
    options = {"max_steps": 100, "learning_rate": 1e-2, "lr_scheduler_type": "linear"}
    run = trainer(model, tmp_path, data, collator, remove_unused_columns=False, **options)
    run.train()
    assert run.evaluate()["eval_loss"] < 0.02
    for query, family, labels in families():
        ids = MsaTokenizer()(family.take(range(8)), return_tensors="pt")["input_ids"]
        assert (ids[0, 0] == 30).any()
        answers = model.eval()(ids).logits[0].argmax(-1)
        has_column = np.array([letter.isupper() for letter in query if letter != "-"])
        assert has_column.sum() == len(labels) - 2
        assert answers[1:][ids[0, 0, 1:] != 30].tolist() == labels[has_column].tolist()


def test_attention_that_goes_to_cls_alone():
    """The average product correction divides by the residues' attention, however small it is."""
    head = small_model(MsaForContactPrediction).msa.contact_head
    logits = torch.zeros(1, 2, 9, 9)
    logits[..., 0] = 70.0  # the others get exp(-70), 4e-31, whose square is below the smallest float
    logits.requires_grad_()
    result = head(logits.softmax(-1), 0)
    assert difference(result, head.regression.bias.expand(1, 8, 8)) <= 1e-6
    result.square().sum().backward()
    assert logits.grad.isfinite().all()
    assert head.regression.weight.grad.isfinite().all()


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_a_model_that_has_diverged_says_so_by_its_loss(cls):
    model = small_model(cls)
    tokens = batched(MSAS)
    assert model(tokens, labels=labels_for(cls, tokens)).loss.isfinite()
    model.msa.layers[0].row_attention.q_proj.weight.data[0, 0] = math.nan
    assert model(tokens, labels=labels_for(cls, tokens)).loss.isnan()


# --------------------------------------------------------------------------------------------------- checkpointing


@per_class
@per_attention
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_in_double_precision(cls, attention, dropout):
    rates = dict.fromkeys(NO_DROPOUT, dropout)
    model = small_model(cls, attn_implementation=attention, **rates).double().train()
    tokens = batched(MSAS)
    expected = gradients(model, tokens)
    assert any(gradient is not None and gradient.any() for gradient in expected.values())
    for use_reentrant in (True, False):
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        result = gradients(model, tokens)
        for name, gradient in expected.items():
            assert (gradient is None) == (result[name] is None), name
            assert gradient is None or difference(result[name], gradient) <= 1e-10, name


@pytest.mark.parametrize("cls", CLASSES[1:])
def test_checkpointing_by_trainer(cls, tmp_path):
    """One step of plain descent, rate 1: what the weights move by is the gradient."""
    tokens = batched(MSAS)
    data = [{"input_ids": ids, "labels": labels} for ids, labels in zip(tokens, labels_for(cls, tokens), strict=True)]
    moves = []
    for use_reentrant in (None, True, False):
        torch.manual_seed(0)
        model = small_model(cls, **dict.fromkeys(NO_DROPOUT, 0.3))
        before = copy.deepcopy(model.state_dict())
        calls = []
        model.msa.layers[0].row_attention.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        options = {}
        if use_reentrant is not None:
            options = {"gradient_checkpointing": True}
            options["gradient_checkpointing_kwargs"] = {"use_reentrant": use_reentrant}
        run = trainer(model, tmp_path, data, max_steps=1, optim="sgd", learning_rate=1.0, max_grad_norm=0, **options)
        run.train()
        assert len(calls) == (1 if use_reentrant is None else 2)  # checkpointing runs each layer again
        moves.append({name: tensor - before[name] for name, tensor in model.state_dict().items()})
    assert any(move.any() for move in moves[0].values())
    for name, move in moves[0].items():
        assert difference(moves[1][name], move) <= 1e-6, name
        assert difference(moves[2][name], move) <= 1e-6, name


# ------------------------------------------------------------------------------------------------------------- LoRA


def adapted(task, model, **options):
    """`model` with LoRA adapters on every linear layer that its loss depends on; a new head trains whole."""
    head = {MsaForMaskedLM: None, MsaForContactPrediction: ["contact_head"]}.get(type(model), ["classifier"])
    last = model.config.num_hidden_layers - 1
    unused = rf".*\.{last}\.(row_attention\.[vo]|column_attention|feed_forward).*"
    exclude = unused if task == "contacts" else None
    config = LoraConfig(
        r=3, lora_alpha=6, target_modules="all-linear", exclude_modules=exclude, modules_to_save=head, **options
    )
    return get_peft_model(model, config)


@per_task
def test_adapters_get_the_gradients_of_the_chain_rule(task):
    """W + 2 B A in a plain model has a gradient G; that of B is 2 G A', that of A is 2 B' G (alpha / r is 2)."""
    model = new_model(task)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    plain = copy.deepcopy(model).double()
    model = adapted(task, model.double(), init_lora_weights=False).double()
    adapters = {
        name.removeprefix("base_model.model."): (module.lora_A["default"].weight, module.lora_B["default"].weight)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    # a contact model's last layer keeps query and key of row attention, a masked LM has one dense layer more
    layers = 10 * plain.config.num_hidden_layers
    assert len(adapters) == {"contacts": layers - 8, "masked": layers + 1}.get(task, layers)
    features = DataCollatorWithPadding(MsaTokenizer())(examples(task))
    for name, (a, b) in adapters.items():
        plain.get_submodule(name).weight.data += 2 * b.detach() @ a.detach()
    plain.train()(**features).loss.backward()
    for use_reentrant in (None, True, False):
        model.zero_grad()
        if use_reentrant is not None:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        model.train()(**features).loss.backward()
        for name, (a, b) in adapters.items():
            gradient = plain.get_submodule(name).weight.grad
            assert a.grad.any(), name
            assert b.grad.any(), name
            assert difference(b.grad, 2 * gradient @ a.T) <= 1e-10, name
            assert difference(a.grad, 2 * b.T @ gradient) <= 1e-10, name
        for name, parameter in model.named_parameters():
            trained = ".lora_" in name or ".modules_to_save." in name
            assert parameter.requires_grad == trained
            assert (parameter.grad is not None) == trained, name
            if ".modules_to_save." in name:
                name = name.removeprefix("base_model.model.").replace("modules_to_save.default.", "")
                assert difference(parameter.grad, plain.get_parameter(name).grad) <= 1e-10


def answers(model):
    """Logits of each of MSAS alone, without padding, in one row."""
    return torch.cat([model(input_ids=msa).logits.flatten() for msa in MSAS])


@pytest.mark.parametrize(("task", "use_reentrant"), list(zip(TASKS, itertools.cycle((False, True)), strict=False)))
def test_adapters_train_save_reload_and_merge(task, use_reentrant, tmp_path):
    cls = TASKS[task][0]
    base = new_model(task)
    with torch.no_grad():  # contacts can be predicted from the first
        base.msa.contact_head.regression.weight.add_(torch.randn(base.msa.contact_head.regression.weight.shape))
    base.save_pretrained(tmp_path / "base")
    model = adapted(task, cls.from_pretrained(tmp_path / "base"))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    data = examples(task)
    run = trainer(
        model,
        tmp_path / "run",
        data,
        max_steps=12,
        learning_rate=1e-2,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": use_reentrant},
    )
    at_first = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < at_first
    for name, parameter in model.named_parameters():
        trained = ".lora_" in name or ".modules_to_save." in name
        assert torch.equal(parameter, before[name]) != trained, name

    run.save_model(tmp_path / "adapters")
    assert not (tmp_path / "adapters" / "model.safetensors").exists()
    saved = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    assert len(saved) == sum(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        expected = answers(model.eval())
        contacts = model.predict_contacts(MSAS[0])
        reloaded = PeftModel.from_pretrained(cls.from_pretrained(tmp_path / "base"), tmp_path / "adapters").eval()
        assert difference(answers(reloaded), expected) <= 1e-6
        merged = reloaded.merge_and_unload()
        assert type(merged) is cls
        assert difference(answers(merged), expected) <= 1e-5
        assert difference(merged.predict_contacts(MSAS[0]), contacts) <= 1e-5
        merged.save_pretrained(tmp_path / "merged")
        with no_warnings():
            plain = cls.from_pretrained(tmp_path / "merged").eval()
        assert difference(answers(plain), answers(merged)) <= 1e-6
    assert plain.config.to_json_string() == base.config.to_json_string()
    weights = merged.state_dict()
    assert weights.keys() == base.state_dict().keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in plain.state_dict().items())
    if cls is MsaForMaskedLM:
        assert plain.lm_head.decoder.weight is plain.get_input_embeddings().weight


# ----------------------------------------------------------------------------------------------------------- memory


def benchmark(name):
    """A script of benchmarks/ as a module."""
    sys.path.insert(0, str(BENCHMARKS))  # scripts import each other
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_step_with_checkpointing_holds_a_fraction_of_fair_esms_memory():
    rows, columns = 16, 40
    script = benchmark("training_memory")
    config = MsaConfig(hidden_size=96, intermediate_size=384, num_attention_heads=6)
    peaks = {
        name: script.peak_allocated(script.training_step(name, config, rows, columns))
        for name in script.IMPLEMENTATIONS
    }
    # fair-esm keeps for each of 12 layers at least: input and normed input of three blocks, two times query, key,
    # value and context, the wide layer before and after GELU: 6 + 8 + 2 * 4 of the width
    assert peaks["fair-esm"] > 12 * 22 * rows * columns * 96 * 4
    assert peaks["plain"] <= 1.05 * peaks["fair-esm"]
    # and of ours 12 layers' inputs are kept, and what one layer needs
    assert peaks["checkpointed"] <= 0.4 * peaks["fair-esm"]


# ---------------------------------------------------------------------------------------------- continued pretraining


def test_continued_pretraining_lowers_the_perplexity_of_rows_held_out():
    path = MSA_FOLDER / "6e6r.a3m"
    if not path.is_file():
        pytest.skip("the shared alignments are not here")
    script = benchmark("continue_family")
    family = read_alignment(path).take(range(300))
    training, held_out = script.hold_out(family.array, 0.2, 0.8, seed=0)
    assert training[0] == 0
    assert not set(training) & set(held_out)
    assert len(training) == 240  # 60 of 300 are drawn
    assert 20 <= len(held_out) <= 60
    rows = family.sequences
    for one in held_out:
        for other in {*training, *held_out} - {one}:
            pairs = [(a, b) for a, b in zip(rows[one], rows[other], strict=True) if {a, b}.isdisjoint("-X")]
            assert sum(a == b for a, b in pairs) <= 0.8 * len(pairs)
    model = new_model("masked", max_position_embeddings=64, max_row_position_embeddings=64)
    options = {"steps": 60, "learning_rate": 1e-2, "max_tokens": 2048}
    result = script.continue_family(model, family, **options)
    assert result["residues"] == sum(len(rows[row].translate(str.maketrans("", "", "-X"))) for row in held_out)
    assert result["before"] == pytest.approx(20, rel=0.02)  # a new model knows none of the 20 amino acids
    assert result["after"] < 0.9 * result["before"]
    assert script.perplexity(model, family, training, held_out, 2048 // 57)[0] == pytest.approx(result["after"])
