"""What training with transformers' Trainer relies on.

The gradient of an optimizer step does not depend on how its examples are cut into accumulation steps; the stock
collator serves every head on alignments of different size; checkpointing draws the same dropout twice; a trained
model saves, reloads and predicts as any other.
"""

import numpy as np
import pytest
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from modeling_msa import (
    MsaConfig,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaTokenizer,
)
from modeling_msa.inference_msa_transformer import tokens_per_block

CLASSES = (MsaForMaskedLM, MsaForContactPrediction, MsaForTokenClassification, MsaForSequenceClassification)


def small(cls, dropout=0.0, **options):
    torch.manual_seed(0)
    config = MsaConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=160,
        max_row_position_embeddings=80,
        hidden_dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        classifier_dropout=dropout,
        **options,
    )
    model = cls(config)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model


def examples(cls, sizes, seed=0):
    """One feature for each (rows, residues), with labels of the class's form."""
    rng = np.random.default_rng(seed)
    features = []
    for rows, length in sizes:
        ids = rng.integers(4, 24, (rows, length + 1))
        ids[:, 0] = 0
        pairs = rng.integers(0, 2, (length, length))
        labels = {
            MsaForMaskedLM: np.where(rng.random(ids.shape) < 0.3, ids, -100),
            MsaForContactPrediction: pairs | pairs.T,
            MsaForTokenClassification: np.r_[-100, rng.integers(0, 2, length)],
            MsaForSequenceClassification: int(rng.integers(0, 2)),
        }[cls]
        features.append({"input_ids": ids, "labels": labels})
    return features


def trainer(model, folder, data, **options):
    arguments = TrainingArguments(
        folder, report_to=[], use_cpu=True, max_grad_norm=0, disable_tqdm=True, save_strategy="no", **options
    )
    return Trainer(model, arguments, train_dataset=data, data_collator=DataCollatorWithPadding(MsaTokenizer()))


@pytest.mark.parametrize("cls", CLASSES)
def test_accumulation_gives_the_gradient_of_the_whole_batch(cls, tmp_path):
    sizes = [(3, 7)] * 8 if cls is MsaForSequenceClassification else [(2 + k % 3, 5 + k) for k in range(8)]
    steps = {}
    for size, accumulate in ((8, 1), (2, 4)):
        model = small(cls)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        run = trainer(
            model,
            tmp_path,
            examples(cls, sizes),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulate,
            max_steps=1,
            optim="sgd",
            learning_rate=1.0,
            lr_scheduler_type="constant",
            seed=1,
        )
        run.train()
        steps[accumulate] = torch.cat([(p - before[name]).flatten() for name, p in model.named_parameters()])
    assert steps[1].abs().max() > 0
    torch.testing.assert_close(steps[4], steps[1], atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("cls", CLASSES)
def test_trains_saves_and_reloads(cls, tmp_path):
    model = small(cls)
    data = examples(cls, [(3, 8), (2, 6)])
    run = trainer(
        model, tmp_path, data, per_device_train_batch_size=2, max_steps=60, learning_rate=2e-2, logging_steps=1
    )
    run.train()
    losses = [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    run.save_model(tmp_path / "saved")
    reloaded = cls.from_pretrained(tmp_path / "saved")
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in reloaded.named_parameters())
    # Trainer leaves the model in training mode
    batch = MsaTokenizer()(["MKVLAWTE", "MRVLAWSE"], return_tensors="pt")
    model.msa.contact_head.regression.weight.data.normal_()
    reloaded.msa.contact_head.load_state_dict(model.msa.contact_head.state_dict())
    assert model.training
    assert torch.equal(model.predict_contacts(**batch), reloaded.predict_contacts(**batch))
    assert model.training


def test_predicting_in_training_mode_drops_nothing():
    model = small(MsaForMaskedLM, dropout=0.5).train()
    ids = torch.randint(4, 24, (1, 4, 12))
    first = model.predict_contacts(ids)
    assert torch.equal(first, model.predict_contacts(ids))
    assert all(module.training for module in model.modules())
    with pytest.raises(ValueError, match="batch of MSAs"):
        model.predict_contacts(ids[0])
    assert model.training


def test_reentrant_checkpointing_draws_the_same_dropout():
    rows, columns = 64, 129
    assert rows * columns > tokens_per_block(torch.empty(1, rows, columns, 1))  # more than one block in inference
    ids = torch.randint(4, 24, (1, rows, columns), generator=torch.Generator().manual_seed(0))
    gradients = []
    for checkpointing in (None, {"use_reentrant": True}, {"use_reentrant": False}):
        model = small(MsaForMaskedLM, dropout=0.3).train()
        if checkpointing is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
        torch.manual_seed(0)
        embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
        model(inputs_embeds=embeds, labels=ids).loss.backward()
        gradients.append(embeds.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-7, rtol=1e-4)
    torch.testing.assert_close(gradients[2], gradients[0], atol=1e-7, rtol=1e-4)


def test_contact_labels():
    model = small(MsaForContactPrediction).eval()
    ids = torch.randint(4, 24, (2, 3, 7))
    ids[1, :, 5:] = 1  # MSA 1 has four residues
    labels = torch.randint(0, 2, (2, 6, 6), generator=torch.Generator().manual_seed(0)).float()
    logits = model(ids).logits
    real = torch.cat([logits[0].flatten(), logits[1, :4, :4].flatten()])
    truth = torch.cat([labels[0].flatten(), labels[1, :4, :4].flatten()])
    by_hand = -(truth * real.sigmoid().log() + (1 - truth) * (1 - real.sigmoid()).log()).mean()
    # whatever stands in the labels of padding
    assert torch.allclose(model(ids, labels=labels).loss, by_hand, atol=1e-6)
    for wrong in (8.0, float("nan")):
        labels[0, 2, 3] = wrong
        with pytest.raises(ValueError, match="0, 1 or -100"):
            model(ids, labels=labels)


def test_contact_head_keeps_float32_under_autocast():
    model = small(MsaForContactPrediction).eval()
    maps = torch.rand(1, 2, 40, 40, generator=torch.Generator().manual_seed(0)).softmax(-1)
    plain = model.msa.contact_head(maps, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.msa.contact_head(maps, 0), plain)
        assert model(torch.randint(4, 24, (1, 3, 9))).logits.dtype == torch.float32


def test_a_contact_regression_that_was_never_fitted_is_refused_offloaded_too(tmp_path):
    model = small(MsaForMaskedLM)
    for parameter in model.msa.contact_head.parameters():
        parameter.data.zero_()
    model.save_pretrained(tmp_path / "model")
    ids = torch.randint(4, 24, (1, 3, 9))
    for device_map in (None, {"msa.embeddings": "cpu", "msa.layers": "cpu", "msa.layer_norm": "cpu"}):
        if device_map is not None:
            device_map |= {"lm_head": "cpu", "msa.contact_head": "disk"}
        loaded = MsaForMaskedLM.from_pretrained(
            tmp_path / "model", device_map=device_map, offload_folder=str(tmp_path / "offload")
        )
        with pytest.raises(ValueError, match="never fitted"):
            loaded.predict_contacts(ids)
