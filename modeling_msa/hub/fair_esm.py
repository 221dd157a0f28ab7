"""fair-esm's format: its names of tensors and arguments, translated both ways by one table, and its files.

A published fair-esm checkpoint is ``{"args": argparse.Namespace, "model": {name: tensor}}``. Its names carry an
``encoder.`` or ``encoder.sentence_encoder.`` prefix and have the words *row* and *column* swapped (fair-esm swaps
them back when it loads). The contact regression is a second file, ``<stem>-contact-regression.pt``.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError

from ..configuration_msa_transformer import MsaConfig
from ..modeling_msa_transformer import MsaForMaskedLM
from .errors import ConversionError, describe_misfit, some_of

FAIR_ESM_ROWS = 1024  # fair-esm's row position table has this depth, always
FAIR_ESM_TOKENS = 33

# fair-esm's name (after its own upgrade) and ours; {} stands for any layer number, * for the rest of the name.
NAMES = (
    ("embed_tokens.weight", "msa.embeddings.word_embeddings.weight"),
    ("embed_positions.weight", "msa.embeddings.position_embeddings.weight"),
    ("msa_position_embedding", "msa.embeddings.row_position_embeddings.weight"),
    ("emb_layer_norm_before.*", "msa.embeddings.layer_norm.*"),
    ("emb_layer_norm_after.*", "msa.layer_norm.*"),
    ("layers.{}.row_self_attention.layer_norm.*", "msa.layers.{}.row_attention.layer_norm.*"),
    ("layers.{}.row_self_attention.layer.*", "msa.layers.{}.row_attention.*"),
    ("layers.{}.column_self_attention.layer_norm.*", "msa.layers.{}.column_attention.layer_norm.*"),
    ("layers.{}.column_self_attention.layer.*", "msa.layers.{}.column_attention.*"),
    ("layers.{}.feed_forward_layer.layer_norm.*", "msa.layers.{}.feed_forward.layer_norm.*"),
    ("layers.{}.feed_forward_layer.layer.*", "msa.layers.{}.feed_forward.*"),
    ("contact_head.regression.*", "msa.contact_head.regression.*"),
    ("lm_head.weight", "lm_head.decoder.weight"),
    ("lm_head.bias", "lm_head.decoder.bias"),
    ("lm_head.dense.*", "lm_head.dense.*"),
    ("lm_head.layer_norm.*", "lm_head.layer_norm.*"),
)
CONTACT_NAMES = ("contact_head.regression.weight", "contact_head.regression.bias")
# axes of the tensors that the sizes are read off
_AXES = {
    "embed_tokens.weight": 2,
    "embed_positions.weight": 2,
    "layers.0.feed_forward_layer.layer.fc1.weight": 2,
    "msa_position_embedding": 4,
    CONTACT_NAMES[0]: 2,
}
_OPTIONAL = ("msa_position_embedding", CONTACT_NAMES[0])


def translate(name: str, to_ours: bool) -> str:
    """Translate one tensor's name by `NAMES`; KeyError if the table does not know it.

    Examples
    --------
    >>> translate("layers.3.row_self_attention.layer.q_proj.weight", to_ours=True)
    'msa.layers.3.row_attention.q_proj.weight'
    """
    for pair in NAMES:
        source, target = pair if to_ours else pair[::-1]
        pattern = re.escape(source).replace(r"\{\}", r"(\d+)").replace(r"\*", r"(.+)")
        if match := re.fullmatch(pattern, name):
            return target.replace("*", "{}").format(*match.groups())
    raise KeyError(name)


def swap_row_and_column(name: str) -> str:
    """Swap the words in a name, as fair-esm does between its file and its module."""
    return name.replace("row", "column") if "row" in name else name.replace("column", "row")


def published_name(name: str) -> str:
    """Name of a tensor in the file, from its name after fair-esm's upgrade."""
    prefix = "encoder." if name.startswith("lm_head.") else "encoder.sentence_encoder."
    return prefix + swap_row_and_column(name)


def read_fair_esm(
    path: str | os.PathLike, contact_regression: str | os.PathLike | None = None
) -> tuple[argparse.Namespace | None, dict[str, torch.Tensor]]:
    """Read fair-esm's file(s) without running anything in them.

    Returns
    -------
    args : argparse.Namespace or None
        Sizes, with fair-esm's ``encoder_`` prefixes removed; None for a bare state dict.
    state : dict of str to torch.Tensor
        By fair-esm's names after its upgrade.

    Raises
    ------
    ConversionError
        If it is not such a file.
    """
    content = unpickle(path)
    if not isinstance(content, dict):
        raise ConversionError(f"{path} holds a {type(content).__name__}, not a fair-esm checkpoint.")
    args = content.get("args")
    if args is not None:
        if not isinstance(args, argparse.Namespace):
            raise ConversionError(f"{path}: 'args' is a {type(args).__name__}, not an argparse.Namespace.")
        arch = getattr(args, "arch", None)
        if arch != "msa_transformer":
            raise ConversionError(f"{path} is a checkpoint of the architecture {arch!r}, not 'msa_transformer'.")
        args = argparse.Namespace(**{name.removeprefix("encoder_"): value for name, value in vars(args).items()})
    state = content.get("model", content)
    if not _is_state(state):
        raise ConversionError(
            f"{path} holds neither fair-esm's {{'args', 'model'}} nor a state dict (its keys: {some_of(content)})."
        )
    if args is not None or any(name.startswith("encoder.") for name in state):
        state = {
            swap_row_and_column(name).removeprefix("encoder.").removeprefix("sentence_encoder."): tensor
            for name, tensor in state.items()
        }
    return args, state if contact_regression is None else state | _read_regression(contact_regression)


def _read_regression(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    content = unpickle(path)
    state = content.get("model", content) if isinstance(content, dict) else content
    if not _is_state(state) or set(state) != set(CONTACT_NAMES) or not all(each.ndim for each in state.values()):
        held = state if isinstance(state, dict) else [type(state).__name__]
        raise ConversionError(
            f"{path} is not a contact regression: it holds {some_of(held)} instead of the tensors "
            f"{', '.join(CONTACT_NAMES)}."
        )
    return state


def _is_state(content: Any) -> bool:
    """Whether something unpickled is tensors by name."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in content.items())
    )


def unpickle(path: str | os.PathLike, map_location: str = "cpu") -> Any:
    """Unpickle tensors, containers and argparse.Namespace, and refuse everything else before it runs.

    The CRC of each part is compared, which PyTorch does not do. `map_location` "meta" gives shapes without numbers.

    Raises
    ------
    ConversionError
        If the file holds anything else, or is not a whole PyTorch checkpoint.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if part := archive.testzip():
                    raise zipfile.BadZipFile(f"the CRC of {part} does not match")
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location=map_location, weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # a damaged file fails anywhere in the unpickler: IndexError, struct.error, OSError ...
        if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise ConversionError(
                f"{path} was refused: unpickling it would run {found[1]}. A checkpoint needs only tensors and "
                "argparse.Namespace; do not load this file unless you know where it comes from."
            ) from None
        raise ConversionError(
            f"{path} is not a PyTorch checkpoint, or it is truncated or damaged ({error!s:.200}): remove it, and copy "
            "or download it again."
        ) from error


def config_from_fair_esm(
    args: argparse.Namespace | None, state: dict[str, torch.Tensor], attention_heads: int | None = None
) -> MsaConfig:
    """Read the sizes off the tensors, and what tensors do not tell off `args`."""
    for name, axes in _AXES.items():
        if name not in state and name not in _OPTIONAL:
            raise ConversionError(
                f"This is not an MSA Transformer checkpoint, or it is truncated: {name} is missing. It holds "
                f"{some_of(state)}."
            )
        if name in state and state[name].ndim != axes:
            raise ConversionError(f"{name} must have {axes} axes; its shape is {tuple(state[name].shape)}.")
    held = 1 + max(int(match[1]) for name in state if (match := re.match(r"layers\.(\d+)\.", name)))
    layers = getattr(args, "layers", held)
    if isinstance(layers, int) and layers > 2 * held + 100:  # would take long to build
        raise ConversionError(f"This checkpoint's arguments tell of {layers} layers, but it holds {held}.")
    contacts = state.get(CONTACT_NAMES[0])
    heads = getattr(args, "attention_heads", attention_heads)
    if heads is None and contacts is not None:
        heads = contacts.shape[1] // layers
    if heads is None:
        raise ConversionError(
            "A bare state dict without contact regression does not tell the number of attention heads: pass "
            "--attention-heads, or the regression with --contact-regression."
        )
    vocab_size, hidden_size = state["embed_tokens.weight"].shape
    rows = state.get("msa_position_embedding")
    try:
        return MsaConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=state["layers.0.feed_forward_layer.layer.fc1.weight"].shape[0],
            # fair-esm drops attention maps at args.dropout, not at args.attention_dropout
            hidden_dropout=getattr(args, "dropout", 0.1),
            attention_dropout=getattr(args, "dropout", 0.1),
            activation_dropout=getattr(args, "activation_dropout", 0.1),
            max_position_embeddings=state["embed_positions.weight"].shape[0] - 2,
            max_row_position_embeddings=FAIR_ESM_ROWS if rows is None else rows.shape[1],
            row_position_embedding_size=None if rows is None else rows.shape[-1],
        )
    except StrictDataclassError as error:
        raise ConversionError(
            "The sizes in this checkpoint, or its contact regression, do not make an MSA Transformer: "
            f"{error.__cause__ or error}"
        ) from error


def from_fair_esm(source: dict[str, torch.Tensor], config: MsaConfig, path: Path) -> dict[str, torch.Tensor]:
    """Rename and reshape `source` for a model of `config`; ConversionError names all that does not fit."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in MsaForMaskedLM(config).state_dict().items()}
    fair_names = {translate(name, to_ours=False): name for name in expected}
    state, shapes, types = {}, [], []
    for fair_name in sorted(set(fair_names) & set(source)):
        name, tensor = fair_names[fair_name], source[fair_name]
        if fair_name == "msa_position_embedding":  # (1, R, 1, width) there
            tensor = tensor.reshape(-1, tensor.shape[-1])
        if tensor.shape != expected[name]:
            shapes.append((fair_name, tensor.shape, expected[name]))
        if not tensor.is_floating_point():
            types.append(f"{fair_name} is of the type {tensor.dtype}, not a floating-point type")
        state[name] = tensor
    misfit = describe_misfit(set(fair_names) - set(source), set(source) - set(fair_names), shapes)
    if problems := "; ".join(filter(None, [misfit, *types])):
        raise ConversionError(
            f"{path} does not hold the tensors of an MSA Transformer of {config.num_hidden_layers} layers, width "
            f"{config.hidden_size} and {config.num_attention_heads} heads; it may be truncated or of another model: "
            f"{problems}."
        )
    if not torch.equal(source["lm_head.weight"], source["embed_tokens.weight"]):
        raise ConversionError(f"{path}: lm_head.weight and embed_tokens.weight differ, but fair-esm ties them.")
    return state


def check_expressible(config: MsaConfig) -> None:
    """Raise ConversionError if fair-esm has fixed in its code what this model has otherwise."""
    fixed = {"vocab_size": FAIR_ESM_TOKENS, "pad_token_id": 1, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
    if config.row_position_embedding_size is not None:
        fixed["max_row_position_embeddings"] = FAIR_ESM_ROWS
    for name, value in fixed.items():
        if getattr(config, name) != value:
            raise ConversionError(
                f"fair-esm cannot express this model: its {name} is always {value!r}, and this model's is "
                f"{getattr(config, name)!r}."
            )


def to_fair_esm(model: MsaForMaskedLM) -> tuple[argparse.Namespace, dict[str, torch.Tensor]]:
    """Arguments and tensors of `model` by fair-esm's upgraded names."""
    state = {}
    for name, tensor in model.state_dict().items():
        fair_name = translate(name, to_ours=False)
        state[fair_name] = tensor[None, :, None] if fair_name == "msa_position_embedding" else tensor
    return fair_esm_args(model.config), {name: tensor.contiguous().clone() for name, tensor in state.items()}


def fair_esm_args(config: MsaConfig) -> argparse.Namespace:
    """Build the arguments that fair-esm's module is made with."""
    args = argparse.Namespace(
        arch="msa_transformer",
        layers=config.num_hidden_layers,
        embed_dim=config.hidden_size,
        ffn_embed_dim=config.intermediate_size,
        attention_heads=config.num_attention_heads,
        max_positions=config.max_position_embeddings,
        dropout=config.hidden_dropout,
        attention_dropout=config.attention_dropout,
        activation_dropout=config.activation_dropout,
        max_tokens=2**14,
        max_tokens_per_msa=2**14,
        logit_bias=True,
        embed_positions_msa=config.row_position_embedding_size is not None,
    )
    if args.embed_positions_msa:
        args.embed_positions_msa_dim = config.row_position_embedding_size
    return args
