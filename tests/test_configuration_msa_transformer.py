"""Contract of MsaConfig.

Defaults are ESM-MSA-1b's; wrong types and impossible sizes raise when the configuration is made; every field goes to
config.json and back; config.json names every class, whichever was saved.
"""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from modeling_msa import MsaConfig, MsaForMaskedLM, MsaModel

MODELS = Path(__file__).resolve().parents[1] / "configuration" / "models"


def test_defaults_are_those_of_msa_1b():
    """From the paper (section 4) and the published checkpoint's shapes."""
    config = MsaConfig()
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (12, 768, 12)
    assert config.intermediate_size == 3072
    assert (config.max_position_embeddings, config.max_row_position_embeddings) == (1024, 1024)
    assert config.row_position_embedding_size == 768
    assert (config.hidden_act, config.layer_norm_eps) == ("gelu", 1e-5)
    assert (config.hidden_dropout, config.attention_dropout, config.activation_dropout) == (0.1, 0.1, 0.1)
    assert config.vocab_size == 33
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert (config.gap_token_id, config.mask_token_id) == (30, 32)
    assert config.tie_word_embeddings
    assert config.model_type == "msa_transformer"


def test_msa_1b_has_its_number_of_parameters():
    """By hand: embeddings, 12 layers of 2 attentions and a feed-forward, head; the 144 + 1 of the contacts."""
    d, f = 768, 3072
    attention = 4 * (d * d + d) + 2 * d
    layer = 2 * attention + (d * f + f) + (f * d + d) + 2 * d
    embeddings = 33 * d + (1024 + 2) * d + 1024 * d + 2 * d
    head = (d * d + d) + 2 * d + 33  # its matrix is the embeddings'
    with torch.device("meta"):
        model = MsaForMaskedLM(MsaConfig())
    assert model.num_parameters() == embeddings + 12 * layer + 2 * d + head + 145


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("msa-1b", (12, 768, 12, 3072, 768)),
        ("msa-1", (12, 768, 12, 3072, 1)),
        ("msa-tiny", (4, 64, 4, 256, None)),
    ],
)
def test_configurations_of_the_repository(name, sizes):
    file = MODELS / name / "config.json"
    if not file.is_file():
        pytest.skip(f"{name} is not here")
    for config in (MsaConfig.from_pretrained(file.parent), AutoConfig.from_pretrained(file.parent)):
        assert isinstance(config, MsaConfig)
        assert sizes == (
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            config.row_position_embedding_size,
        )
        assert (config.max_position_embeddings, config.max_row_position_embeddings) == (1024, 1024)
        assert config.vocab_size == 33
    # nothing in the file is a field that the class does not know
    assert set(json.loads(file.read_text())) <= set(MsaConfig().to_dict()) | {"architectures"}
    with torch.device("meta"):
        MsaModel(config)


WRONG = {
    "vocab_size": ["33", 0],
    "hidden_size": [768.0, 770],  # 12 heads do not divide 770
    "num_hidden_layers": [0],
    "num_attention_heads": [-12, None],
    "intermediate_size": [0],
    "max_position_embeddings": [-5, "1024"],
    "max_row_position_embeddings": [0],
    "row_position_embedding_size": [2, "hidden", 1.5],
    "hidden_dropout": [-0.1, "0.1"],
    "attention_dropout": [2],
    "activation_dropout": [1.01],
    "classifier_dropout": [-0.5],
    "hidden_act": ["no-such-activation", 3],
    "layer_norm_eps": [0.0],
    "initializer_range": [-0.02],
    "pad_token_id": [33, None],
    "output_column_attentions": ["yes"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_impossible_values_are_refused(name, value):
    with pytest.raises(StrictDataclassError, match=name):
        MsaConfig(**{name: value})


@pytest.mark.parametrize("width", [1, None, 64, "hidden_size"])
def test_round_trip(tmp_path, width):
    config = MsaConfig(
        vocab_size=40,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=8,
        intermediate_size=100,
        hidden_act="relu",
        hidden_dropout=0.2,
        attention_dropout=0.3,
        activation_dropout=0,
        classifier_dropout=1,
        max_position_embeddings=77,
        max_row_position_embeddings=66,
        row_position_embedding_size=width,
        layer_norm_eps=1e-12,
        initializer_range=0.01,
        pad_token_id=3,
        gap_token_id=4,
        tie_word_embeddings=False,
        num_labels=5,
        output_column_attentions=True,
    )
    assert config.row_position_embedding_size == (64 if width == "hidden_size" else width)
    config.save_pretrained(tmp_path)
    for again in (MsaConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert again.to_dict() | {"_name_or_path": ""} == config.to_dict()
        assert again.row_position_embedding_size == config.row_position_embedding_size


def test_saved_configuration_names_every_class(tmp_path):
    MsaConfig().save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map["AutoConfig"] == "configuration_msa_transformer.MsaConfig"
    assert auto_map["AutoModel"] == "modeling_msa_transformer.MsaModel"
    for task in ("MaskedLM", "TokenClassification", "SequenceClassification"):
        assert auto_map[f"AutoModelFor{task}"] == f"modeling_msa_transformer.MsaFor{task}"


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_row_maps_go_with_every_attention(attention):
    """transformers' base class refuses output_attentions with sdpa; row maps exist all the same."""
    config = MsaConfig(output_attentions=True, attn_implementation=attention)
    assert config.output_attentions
    assert MsaConfig.from_dict(config.to_dict()).output_attentions
