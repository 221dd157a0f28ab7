"""fair-esm's own MSA Transformer with random weights, and its published file format, written without our code."""

import argparse
from contextlib import contextmanager
from pathlib import Path

import esm
import pytest
import torch
from torch import nn

from modeling_msa import ConversionError, MsaForMaskedLM, convert_checkpoint

ALPHABET = esm.data.Alphabet.from_architecture("msa_transformer")
SIZES = {  # layers, width, heads, feed-forward, width of the row embedding
    "msa-1b": (12, 768, 12, 3072, 768),
    "msa-1": (12, 768, 12, 3072, 1),
    "msa-tiny": (4, 64, 4, 256, 64),
}

REGRESSION = ("contact_head.regression.weight", "contact_head.regression.bias")
OFFICIAL = "esm_msa1b_t12_100M_UR50S"


@torch.no_grad()
def random_model(layers: int, width: int, heads: int, ffn: int, row_width: int | None, seed: int = 0):
    """An `esm.MSATransformer` in eval mode in which every weight and bias acts on the result.

    Rows of padding_idx are zero, as in a trained one. The contact regression's weights are large, because
    APC-corrected maps are small: probabilities then spread over (0, 1).
    """
    args = argparse.Namespace(
        arch="msa_transformer",
        layers=layers,
        embed_dim=width,
        ffn_embed_dim=ffn,
        attention_heads=heads,
        dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.1,
        max_positions=1024,
        max_tokens=2**14,
        max_tokens_per_msa=2**14,
        logit_bias=True,
        embed_positions_msa=row_width is not None,
        embed_positions_msa_dim=row_width,
    )
    with torch.device("meta"):
        model = esm.MSATransformer(args, ALPHABET)
    model.to_empty(device="cpu")
    model.lm_head.weight = model.embed_tokens.weight
    random = torch.Generator().manual_seed(seed)

    def normal(parameter: nn.Parameter, mean: float, std: float) -> None:
        parameter.copy_(torch.randn(parameter.shape, generator=random) * std + mean)

    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            normal(parameter, 1.0 if name.endswith("weight") else 0.0, 0.2)
        elif "embed_" in name or "embedding" in name:
            normal(parameter, 0.0, 0.3)
        elif name.endswith("bias"):
            normal(parameter, 0.0, 0.1)
        elif name.startswith("contact_head"):
            normal(parameter, 0.0, 40 / (layers * heads) ** 0.5)
        else:
            scale = 1.0 if "q_proj" in name or "k_proj" in name else 0.7
            normal(parameter, 0.0, scale / parameter.shape[1] ** 0.5)
    model.embed_tokens.weight[ALPHABET.padding_idx] = 0
    model.embed_positions.weight[ALPHABET.padding_idx] = 0
    return model.eval()


def published_name(name: str) -> str:
    """The name in the published file: prefixed, and the words row and column swapped."""
    swapped = name.replace("row", "\0").replace("column", "row").replace("\0", "column")
    return ("encoder." if name.startswith("lm_head.") else "encoder.sentence_encoder.") + swapped


def write_published(model: nn.Module, path: str | Path) -> Path:
    """Write `model` in fair-esm's published format: the checkpoint, and its contact regression beside it."""
    path = Path(path)
    state = model.state_dict()
    contacts = {name: tensor for name, tensor in state.items() if name.startswith("contact_head.")}
    rest = {published_name(name): tensor for name, tensor in state.items() if name not in contacts}
    # as published: sizes of the encoder have its prefix, and the row embedding's width is not among them
    encoder = ("layers", "embed_dim", "ffn_embed_dim", "attention_heads")
    args = {f"encoder_{name}" if name in encoder else name: value for name, value in vars(model.args).items()}
    del args["embed_positions_msa_dim"]
    torch.save({"args": argparse.Namespace(**args), "model": rest}, path)
    torch.save({"model": contacts}, path.with_name(f"{path.stem}-contact-regression.pt"))
    return path


def read_published(path: str | Path) -> nn.Module:
    """Read a file back by fair-esm itself, the authority on its format."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return esm.pretrained.load_model_and_alphabet_local(str(path))[0].eval()


def convert(model: nn.Module, folder: str | Path) -> Path:
    """Write `model` in the published format and convert that into `folder`/hub; returns that."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = write_published(model, folder / "model.pt")
    convert_checkpoint(path, folder / "hub")
    path.unlink()
    return folder / "hub"


def ours(model: nn.Module, folder: str | Path) -> MsaForMaskedLM:
    """Our model with the weights of `model`, by way of the file and the converted folder."""
    return MsaForMaskedLM.from_pretrained(convert(model, folder))


def read_a3m(path: str | Path, rows: int) -> list[tuple[str, str]]:
    """The first `rows` rows of an A3M file without their insertions: (name, sequence) pairs."""
    pairs = []
    for entry in Path(path).read_text().split(">")[1 : rows + 1]:
        name, *lines = entry.splitlines()
        pairs.append((name, "".join(letter for letter in "".join(lines) if not letter.islower())))
    return pairs


def read_stockholm(path: str | Path, rows: int) -> list[tuple[str, str]]:
    """The first `rows` rows of a Stockholm file in the columns of the query's residues: (name, sequence) pairs."""
    aligned: dict[str, str] = {}
    for line in Path(path).read_text().splitlines():
        if line and not line.startswith(("#", "//")):
            name, sequence = line.split()
            aligned[name] = aligned.get(name, "") + sequence.replace(".", "-").upper()
    query = next(iter(aligned.values()))
    columns = [k for k, letter in enumerate(query) if letter != "-"]
    return [(name, "".join(row[k] for k in columns)) for name, row in list(aligned.items())[:rows]]


def tokens(msas: list[list[tuple[str, str]]]) -> torch.Tensor:
    """fair-esm's ids of a batch of MSAs, (B, R, C)."""
    return ALPHABET.get_batch_converter()(msas)[2]


def load(path):
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, weights_only=True)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def refused(folder, *words, error=ConversionError):
    """The block raises `error`, whose message has `words`, and leaves `folder` as it was."""
    before = listing(folder)
    with pytest.raises(error) as info:
        yield
    for word in words:
        assert word in str(info.value)
    assert listing(folder) == before
