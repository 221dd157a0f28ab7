"""The contract of MsaTrainer: new draws at each visit in training, the same in evaluation; usable without recipes."""

import pytest
import torch
from transformers import TrainingArguments

from modeling_msa import MsaDataCollatorForMaskedLM, MsaDataset, MsaForMaskedLM, MsaTokenizer
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
