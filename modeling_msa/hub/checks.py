"""What is checked of a folder or repository before its model is built, and of the numbers after it is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import safe_open
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from ..configuration_msa_transformer import MsaConfig
from ..sharing_msa_transformer import DIGESTS, INDEX, WEIGHTS, file_sha256
from ..tokenization_msa_transformer import MsaTokenizer
from .errors import some_of
from .fair_esm import unpickle

# what transformers loads, in its order
_PLACES = (WEIGHTS, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
_TYPES = ("float32", "float64", "float16", "bfloat16")
# tensors of our classes; a head of somebody's own may hold anything
_OURS = r"(msa\.)?(embeddings|layers|layer_norm|contact_head|lm_head|classifier)\."
_TABLES = {
    "vocab_size": ("embeddings.word_embeddings.weight", 0),
    "hidden_size": ("embeddings.word_embeddings.weight", 1),
    "max_position_embeddings": ("embeddings.position_embeddings.weight", 0),
    "max_row_position_embeddings": ("embeddings.row_position_embeddings.weight", 0),
    "intermediate_size": ("layers.0.feed_forward.fc1.weight", 0),
}
_MANY = 10_000  # more classes than any model has
# what transformers does not validate
_KINDS: dict[type, tuple[str, ...]] = {
    bool: ("output_attentions", "output_hidden_states", "return_dict"),
    dict: ("auto_map", "id2label", "label2id", "quantization_config"),
    list: ("architectures",),
    str: ("attn_implementation", "_attn_implementation", "experts_implementation", "transformers_weights"),
}

Header = dict[str, tuple[str, tuple[int, ...], int]]  # type, shape and bytes of tensors, by name


def read_config(name: str, local_files_only: bool = False, revision: str = "main") -> dict[str, Any]:
    """Read the config.json of a folder or Hub id; ValueError, which names file and key, if no model can be of it."""
    path = Path(cast(str, cached_file(name, "config.json", local_files_only=local_files_only, revision=revision)))
    try:
        saved = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged: it is not JSON ({error}). Download, copy or convert the model again."
        ) from None
    if not isinstance(saved, dict):
        raise ValueError(f"{path} is not the config of a model: it holds {saved!r:.40}, not settings by name.")
    if (kind := saved.get("model_type")) != MsaConfig.model_type:
        raise ValueError(f"{name} holds a model of the type {kind!r}, not {MsaConfig.model_type!r} (by {path}).")
    if problem := _problem_of(saved):
        raise ValueError(f"{path}: {problem} Download, copy or convert the model again, with its own config.json.")
    return saved


def _problem_of(saved: dict[str, Any]) -> str:
    """Say what is wrong with a config; "" if nothing."""
    for name in ("dtype", "torch_dtype"):
        if saved.get(name) not in (None, *_TYPES, *(f"torch.{each}" for each in _TYPES)):
            return f"{name} must be one of {', '.join(_TYPES)}, got {saved[name]!r:.40}."
    for kind, names in _KINDS.items():
        for name in names:
            if saved.get(name) is not None and type(saved[name]) is not kind:
                return f"Field '{name}' expected {kind.__name__}, got {type(saved[name]).__name__}."
    count = saved.get("num_labels", 2)
    if type(count) is not int or not 0 <= count <= _MANY:  # a name is made for each
        return f"num_labels must be an integer from 0 to {_MANY}, got {count!r:.40}."
    try:
        config = MsaConfig.from_dict(dict(saved))
    except StrictDataclassError as error:
        words = str(error.__cause__ or error)
        return words[:300].split(" Errors: ")[0].rstrip(".") + "."
    except Exception as error:  # transformers converts what it does not validate
        return f"it is not the config of a model ({type(error).__name__}: {error!s:.200})."
    return _wrong_tokens(config)


def _wrong_tokens(config: MsaConfig) -> str:
    tokenizer = MsaTokenizer()
    if config.vocab_size < len(tokenizer):
        return f"vocab_size is {config.vocab_size}, but the tokenizer has {len(tokenizer)} tokens."
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "eos", "mask")}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "gap_token_id": tokenizer.convert_tokens_to_ids("-")}
    for name, own in ids.items():
        if (value := getattr(config, name)) not in (own, [own]) and (value is not None or name == "gap_token_id"):
            return f"{name} is {value}, but the tokenizer's is {own}."
    return ""


def find_weights(name: str, saved: dict[str, Any], **hub: Any) -> list[Path]:
    """Find the files of weights that transformers loads, downloading those of a Hub id; none if there are none.

    Raises OSError if shards cannot be downloaded, KeyError or JSONDecodeError for a damaged index.
    """
    places = _PLACES if hub.pop("use_safetensors", None) is None else _PLACES[:2]
    explicit = saved.get("transformers_weights")
    options = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_gated_repo": True}
    for place in (explicit,) if isinstance(explicit, str) else places:
        path: Any = cached_file(name, place, **hub, **options)
        if path is None:
            continue
        if not place.endswith(".index.json"):
            return [Path(path)]
        index = json.loads(Path(path).read_bytes())
        shards = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise KeyError("weight_map")
        return [Path(shard) for shard in get_checkpoint_shard_files(name, path, **hub)[0]]
    return []


def check_weights(name: str, saved: dict[str, Any], **hub: Any) -> None:
    """Raise ValueError if files of weights are damaged, do not hold numbers, or are far from what the config says.

    All this is known without building a model: from digests, and from the names, types and shapes of tensors.
    """
    files = find_weights(name, saved, **hub)
    for file in files:
        check_digest(file)
    header: Header = {}
    for file in files:
        header |= _read_header(file)
    quantized = saved.get("quantization_config") is not None
    wrong = [f"{key} ({kind})" for key, (kind, *_) in header.items() if re.match(_OURS, key) and not _is_float(kind)]
    if wrong and not quantized:
        raise ValueError(
            f"The weights of {name} are not floating-point numbers: {some_of(wrong)}. Save the model again in one of "
            f"the types {', '.join(_TYPES)}."
        )
    if files and (problem := _absurd_size(MsaConfig.from_dict(dict(saved)), header, quantized)):
        raise ValueError(
            f"The weights of {name} do not fit config.json: {problem}. Download, copy or convert the model again, "
            "whole and with its own config.json."
        )


def check_digest(path: Path) -> None:
    """Raise ValueError if a file's SHA-256 is not the recorded one: that of the Hub in its cache, else the folder's.

    In the Hub's cache, a file in LFS is a link to one whose name is its SHA-256.
    """
    recorded = path.parent / DIGESTS
    if re.fullmatch(r"[0-9a-f]{64}", blob := path.resolve().name):
        expected, remedy = blob, f"Remove {path.resolve()}, and it will be downloaded again."
    elif recorded.is_file():
        try:
            digests = json.loads(recorded.read_bytes())
            expected = digests.get(path.name, "")
        except (ValueError, AttributeError):
            raise ValueError(f"{recorded} is damaged: it is not JSON. Copy it again, or remove it.") from None
        remedy = f"Download, copy or convert it again. If you changed the weights yourself, remove {recorded}."
    else:
        return
    if expected and path.is_file() and (found := file_sha256(path)) != expected:
        raise ValueError(f"{path} is damaged: its SHA-256 is {found}, but {expected} was recorded. {remedy}")


def _is_float(kind: str) -> bool:
    return kind.startswith(("F", "BF"))


def _read_header(path: Path) -> Header:
    """Types and shapes of a file's tensors, without the numbers."""
    if path.suffix == ".safetensors":
        header = {}
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (it is not a dictionary)
                part = file.get_slice(name)
                kind, shape = part.get_dtype(), tuple(part.get_shape())
                bits = re.search(r"\d+", kind)  # BOOL has none
                header[name] = kind, shape, prod(shape) * int(bits[0] if bits else 8) // 8
        return header
    content = unpickle(path, "meta")
    tensors = {name: each for name, each in dict(content).items() if isinstance(each, torch.Tensor)}
    return {
        name: ("F" if each.is_floating_point() else str(each.dtype), tuple(each.shape), each.nbytes)
        for name, each in tensors.items()
    }


def _absurd_size(config: MsaConfig, header: Header, quantized: bool) -> str:
    """Say where a config is of a far larger model than its weights, which would take long and much memory to build.

    What differs by less is left to loading, which names the tensors.
    """
    width, layers = config.hidden_size, config.num_hidden_layers
    numbers = (config.vocab_size + config.max_position_embeddings) * width
    numbers += config.max_row_position_embeddings * int(config.row_position_embedding_size or 0)
    numbers += layers * (8 * width**2 + 2 * width * config.intermediate_size + config.num_attention_heads)
    # a byte holds two numbers of four bits
    held = sum(2 * size if quantized else prod(shape) for _, shape, size in header.values())
    found = {name.removeprefix("msa."): shape for name, (_, shape, _) in header.items()}
    depth = len({match[1] for name in found if (match := re.match(r"layers\.(\d+)\.", name))})
    if numbers <= 2 * held + 2**24 and layers <= 2 * depth + 100:
        return ""
    sizes = {name: found[table][axis] for name, (table, axis) in _TABLES.items() if len(found.get(table, ())) > axis}
    sizes["num_hidden_layers"] = depth
    if "max_position_embeddings" in sizes:  # the first rows of its table are of padding
        sizes["max_position_embeddings"] -= cast(int, config.pad_token_id) + 1
    told = {key: getattr(config, key) for key in sizes}
    differ = [f"{key} is {told[key]}, and {size} in the weights" for key, size in sizes.items() if told[key] != size]
    return "; ".join(differ) or f"it is of a model of {numbers} parameters, and the weights are {held} numbers"


def check_numbers(model: torch.nn.Module, name: str) -> None:
    """Raise ValueError if a parameter or buffer has a value that is not a number, or is infinite; names them."""
    named = [*model.named_parameters(), *model.named_buffers()]
    parts = [(key, part) for key, tensor in named for part in _plain(tensor.detach()) if part.is_floating_point()]
    wrong = [
        f"{key} ({int((~part.isfinite()).sum())} of {part.numel()} values)"
        for key, part in parts
        if part.numel() and not _is_finite(part)
    ]
    if wrong:
        kind = str(getattr(model, "dtype", "")).removeprefix("torch.")
        raise ValueError(
            f"The weights of {name} are not all finite numbers ({kind}): NaN or infinity in {some_of(wrong)}. "
            "Training has diverged, a file is damaged, or a value is too large for this type: use an earlier "
            "checkpoint, or copy it again."
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values are; 20 to 50 times as fast as ``isfinite``, since nothing is written."""
    if tensor.dtype.itemsize == 1:  # float8 has no order
        tensor = tensor.float()
    return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())


def _plain(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """The tensor; or those inside a quantized one, such as its scales."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    else:
        yield tensor
