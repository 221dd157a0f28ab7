"""The contract of MsaTrainer: new draws at each visit in training, the same in evaluation; usable without recipes.

transformers' own Trainer evaluates and predicts on families of different size.
"""

import numpy as np
import pytest
import torch
from families import family
from small import small_model
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from modeling_msa import (
    MsaDataCollatorForContactPrediction,
    MsaDataCollatorForMaskedLM,
    MsaDataset,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaTokenizer,
    metric_for,
    precision,
)
from modeling_msa.training.building import make_trainer
from modeling_msa.training.metrics import Tokens
from modeling_msa.training.recipes import parse_recipe
from modeling_msa.training.trainer import MsaTrainer

pytestmark = pytest.mark.usefixtures("one_thread")


def test_each_visit_draws_anew_in_training_and_not_in_evaluation(recipe):
    trainer = make_trainer(parse_recipe(recipe(eval_fraction=0.25)))
    seen = []
    for epoch in (0, 0, 1):
        loader = trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        trainer.train_sampler.set_epoch(epoch)
        seen.append(torch.cat([batch["labels"].flatten() for batch in loader]))
    assert torch.equal(seen[0], seen[1])
    assert len(seen[0]) != len(seen[2]) or not torch.equal(seen[0], seen[2])
    fixed = []
    for epoch in (0, 3):
        loader = trainer.get_eval_dataloader()
        loader.set_epoch(epoch)
        fixed.append(torch.cat([batch["labels"].flatten() for batch in loader]))
    assert torch.equal(*fixed)


def test_training_passes_through_epochs(recipe):
    trainer = make_trainer(parse_recipe(recipe(max_steps=10)))  # of 4 steps an epoch
    collator, seen = trainer.data_collator, []
    trainer.data_collator = lambda features: seen.extend(each["visit"] for each in features) or collator(features)
    trainer.group_by_size = False  # it asks the collator for sizes
    trainer.train()
    assert sorted(seen[:16]) == [(epoch, k) for epoch in (0, 1) for k in range(8)]
    assert {epoch for epoch, _ in seen[16:]} == {2}


def test_evaluation_has_a_collator_of_its_own(recipe):
    """It sees all rows, where training draws how many."""
    trainer = make_trainer(parse_recipe(recipe(eval_fraction=0.25, depth="log_uniform", max_tokens=2048)))
    depths = [trainer.eval_dataset[k]["alignment"].depth for k in range(2)]
    assert [sorted(batch["attention_mask"][:, :, 0].sum(1).tolist()) for batch in trainer.get_eval_dataloader()] == [
        sorted(depths)
    ]


def test_trainer_serves_a_user_without_recipes(data, tmp_path):
    """The classes are usable by themselves, as transformers' Trainer."""
    arguments = TrainingArguments(
        tmp_path, max_steps=2, use_cpu=True, report_to=[], remove_unused_columns=False, disable_tqdm=True
    )
    trainer = MsaTrainer(
        MsaForMaskedLM.from_pretrained(data[3]),
        arguments,
        train_dataset=MsaDataset(data[0] / "alignments"),
        data_collator=MsaDataCollatorForMaskedLM(
            MsaTokenizer(model_max_length=64, model_max_depth=32), max_tokens=256
        ),
        metric=Tokens(),
    )
    assert trainer.train().global_step == 2


def plain_trainer(objective, folder, batch_size, **options):
    """transformers' Trainer for families of 3 to 7 rows and 20 to 30 columns."""
    families = [family(f"f{k}", 3 + k, 20 + (7 * k) % 11, k) for k in range(5)]
    data = [{"alignment": each, "visit": (0, k)} for k, each in enumerate(families)]
    if objective == "contacts":
        random = np.random.default_rng(0)
        for each in data:
            contacts = random.random((each["alignment"].length,) * 2) < 0.2
            each["labels"] = (contacts | contacts.T).astype(np.int8)
    cls = {"mlm": MsaForMaskedLM, "contacts": MsaForContactPrediction}[objective]
    collators = {"mlm": MsaDataCollatorForMaskedLM, "contacts": MsaDataCollatorForContactPrediction}
    collator = collators[objective](MsaTokenizer(model_max_length=32, model_max_depth=16))
    arguments = TrainingArguments(
        folder,
        per_device_eval_batch_size=batch_size,
        remove_unused_columns=False,
        eval_do_concat_batches=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(small_model(cls), arguments, data_collator=collator, eval_dataset=data, **options)
    return trainer, data, collator


def dense(trainer, data, collator):
    """Logits and labels of each family by the model alone, without a batch."""
    pairs = []
    for each in data:
        batch = collator([each])
        with torch.no_grad():
            logits = trainer.model.eval()(batch["input_ids"]).logits[0]
        pairs.append((logits, batch["labels"][0]))
    return pairs


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("objective", ["mlm", "contacts"])
def test_plain_trainer_on_families_of_different_size(objective, batch_size, tmp_path):
    metric = metric_for(objective)
    options = {"preprocess_logits_for_metrics": metric.reduce, "compute_metrics": metric.compute}
    trainer, data, collator = plain_trainer(objective, tmp_path, batch_size, **options)
    figures = trainer.evaluate()
    predicted = trainer.predict(data)
    pairs = dense(trainer, data, collator)
    logits = torch.cat([each.flatten(0, 1) if objective == "mlm" else each.flatten() for each, _ in pairs])
    labels = torch.cat([each.flatten() for _, each in pairs])
    logits, labels = logits[labels != -100], labels[labels != -100]
    if objective == "mlm":
        loss = F.cross_entropy(logits, labels).item()
        expected = {"loss": loss, "perplexity": np.exp(loss)}
        expected["accuracy"] = (logits.argmax(-1) == labels).double().mean().item()
    else:
        loss = F.binary_cross_entropy_with_logits(logits, labels.float()).item()
        expected = {"loss": loss}
        for name, least in (("p_at_l", 6), ("long_p_at_l", 24)):
            found = [precision(*(each.numpy() for each in pair), min_separation=least) for pair in pairs]
            assert np.isnan(found).any() == (least == 24)  # some families are too short
            expected[name] = np.nanmean(found)
    for name, value in expected.items():
        assert figures[f"eval_{name}"] == pytest.approx(value, rel=1e-4), name
        assert predicted.metrics[f"test_{name}"] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("objective", ["mlm", "contacts"])
def test_plain_trainer_predicts_batch_by_batch(objective, tmp_path):
    trainer, data, collator = plain_trainer(objective, tmp_path, 1)
    predicted = trainer.predict(data)
    assert len({each.shape for each in predicted.predictions}) > 1
    for found, labels, (logits, known) in zip(
        predicted.predictions, predicted.label_ids, dense(trainer, data, collator), strict=True
    ):
        np.testing.assert_allclose(found[0], logits.numpy(), atol=1e-5)
        np.testing.assert_array_equal(labels[0], known.numpy())
