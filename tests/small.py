"""Small models, made-up MSAs and the measure of differences, for the tests of the model."""

import contextlib
import logging
import warnings

import pytest
import torch
from torch.nn import functional as F

from modeling_msa import (
    MsaConfig,
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaModel,
)

CLASSES = (
    MsaModel,
    MsaForMaskedLM,
    MsaForContactPrediction,
    MsaForTokenClassification,
    MsaForSequenceClassification,
)
PAD, GAP = 1, 30
TOLERANCE = 1e-5
per_class = pytest.mark.parametrize("cls", CLASSES)
FLAGS = {"output_hidden_states": True, "output_attentions": True, "output_column_attentions": True}
per_attention = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def difference(result, expected):
    """Largest absolute difference, in units of the largest magnitude where that is over 1."""
    assert result.shape == expected.shape
    if result.numel() == 0:
        return 0.0
    assert result.isfinite().all()
    return ((result - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def random_tokens(rows, columns, seed=0):
    """A made-up MSA (1, R, C) of amino acids with gaps and masks, after <cls>."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 24, (1, rows, columns), generator=random)
    tokens[torch.rand(tokens.shape, generator=random) < 0.15] = GAP
    tokens[torch.rand(tokens.shape, generator=random) < 0.05] = 32
    tokens[:, :, 0] = 0
    return tokens


def batched(msas):
    """MSAs (1, R, C) in one batch, padded right and below."""
    rows, columns = (max(msa.shape[axis] for msa in msas) for axis in (1, 2))
    return torch.cat([F.pad(msa, (0, columns - msa.shape[2], 0, rows - msa.shape[1]), value=PAD) for msa in msas])


MSAS = [random_tokens(5, 17, 1), random_tokens(3, 23, 2), random_tokens(1, 9, 3), random_tokens(8, 2, 4)]


def small_config(**kwargs):
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    tables = {"max_position_embeddings": 32, "max_row_position_embeddings": 16}
    return MsaConfig(**sizes | tables | kwargs)


def small_model(cls, seed=0, scale=0.3, **kwargs):
    """A small model in eval mode in which every parameter matters."""
    model = cls(small_config(**kwargs))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random) * scale)
    return model.eval()


def tiny_model(cls, folder, **kwargs):
    torch.manual_seed(0)  # for a new classifier
    return cls.from_pretrained(folder, **kwargs).eval()


@contextlib.contextmanager
def no_warnings():
    """Fail on any warning from Python or transformers."""
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logger.removeHandler(handler)
    assert not [record.getMessage() for record in records]


def labels_for(cls, tokens, seed=0):
    random = torch.Generator().manual_seed(seed)
    batch, _, columns = tokens.shape
    real = tokens != PAD
    if cls is MsaForMaskedLM:
        return tokens.masked_fill(~real | (torch.rand(tokens.shape, generator=random) < 0.5), -100)
    if cls is MsaForContactPrediction:
        pairs = real[:, 0, 1:, None] & real[:, 0, None, 1:]
        return torch.randint(0, 2, pairs.shape, generator=random).masked_fill(~pairs, -100)
    if cls is MsaForTokenClassification:
        return torch.randint(0, 2, (batch, columns), generator=random).masked_fill(~real[:, 0], -100)
    return torch.arange(batch) % 2


def loss_of(model, tokens, labels=None, **inputs):
    """The class's loss; for the bare model a weighted sum of the real tokens' states."""
    if type(model) is not MsaModel:
        return model(tokens, labels=labels_for(type(model), tokens) if labels is None else labels, **inputs).loss
    states = model(tokens, **inputs).last_hidden_state
    weights = torch.linspace(-1, 1, states.shape[-1], dtype=states.dtype)
    mask = torch.ones(states.shape[:3], dtype=torch.bool) if tokens is None else tokens != PAD
    return ((states * weights).sum(-1) * mask).tanh().sum()


def gradients(model, tokens):
    torch.manual_seed(0)
    model.zero_grad()
    loss_of(model, tokens).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}
