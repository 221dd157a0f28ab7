"""transformers' own common model tests, on this package's classes; `run.py` starts them.

The suite takes labels from tables of transformers' own classes and inputs of two axes, so both are given here.
"""

import copy
import unittest

import torch
from tests.test_modeling_common import ModelTesterMixin

import modeling_msa

HEADS = (
    modeling_msa.MsaForMaskedLM,
    modeling_msa.MsaForContactPrediction,
    modeling_msa.MsaForTokenClassification,
    modeling_msa.MsaForSequenceClassification,
)
BATCH, ROWS, COLUMNS = 2, 3, 7


class MsaModelTester:
    """What the suite asks of a model: a small configuration and its inputs."""

    batch_size, seq_length, is_training = BATCH, COLUMNS, True
    hidden_size, num_hidden_layers, num_attention_heads, num_labels = 32, 2, 4, 3

    def get_config(self):
        return modeling_msa.MsaConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=64,
            max_position_embeddings=64,
        )

    def prepare_config_and_inputs_for_common(self):
        tokens = torch.randint(4, 24, (BATCH, ROWS, COLUMNS))
        tokens[:, :, 0] = 0
        return self.get_config(), {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class MsaCommonTests(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (modeling_msa.MsaModel, *HEADS)
    pipeline_model_mapping = {}  # noqa: RUF012

    def setUp(self):
        self.model_tester = MsaModelTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if return_labels and model_class in HEADS:
            labels = (
                inputs["input_ids"].clone(),
                torch.zeros(BATCH, COLUMNS - 1, COLUMNS - 1),
                torch.zeros(BATCH, COLUMNS, dtype=torch.int64),
                torch.zeros(BATCH, dtype=torch.int64),
            )
            inputs["labels"] = labels[HEADS.index(model_class)]
        return inputs

    # The model without a head has no loss. transformers leaves its own such classes out by their names.

    def test_training(self):
        self.all_model_classes = HEADS
        super().test_training()

    def check_training_gradient_checkpointing(self, *args, **kwargs):
        self.all_model_classes = HEADS
        super().check_training_gradient_checkpointing(*args, **kwargs)
