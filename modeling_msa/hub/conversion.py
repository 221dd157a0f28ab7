"""Convert checkpoints between fair-esm's files and Hub folders, both ways, by one table of names.

A published fair-esm checkpoint is ``{"args": argparse.Namespace, "model": {name: tensor}}``. Its names carry an
``encoder.`` or ``encoder.sentence_encoder.`` prefix and have the words *row* and *column* swapped (fair-esm swaps
them back when it loads). The contact regression is a second file, ``<stem>-contact-regression.pt``.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import get_session

from .._files import require_new_folder, temporary_sibling, whole_folder
from ..configuration_msa_transformer import MsaConfig
from ..modeling_msa_transformer import MsaForMaskedLM
from .card import PUBLISHED, is_published
from .pushing import hub_errors
from .repository import complete_folder

OFFICIAL_CHECKPOINTS = tuple(PUBLISHED)
DOWNLOAD_URL = "https://dl.fbaipublicfiles.com/fair-esm"
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


class ConversionError(ValueError):
    """A checkpoint or folder that cannot be converted as it is; the message says the mend."""


class ChecksumError(ConversionError):
    """A file that is not the one whose checksum was recorded."""


@dataclass
class ConversionReport:
    """What a conversion wrote and what it compared.

    Attributes
    ----------
    output : Path
        The folder (or, in reverse, the file) that was written.
    config : MsaConfig
        The model's sizes.
    tensors, parameters : int
        Tensors compared with the source, all equal bit for bit, and the numbers in them.
    has_contacts : bool
        Whether a fitted contact regression is included.
    differences : dict of str to float
        Largest absolute difference from fair-esm's own outputs, by name; empty if fair-esm is not installed.
    compared_on : str
        The input of that comparison.
    """

    output: Path
    config: MsaConfig
    tensors: int
    parameters: int
    has_contacts: bool
    differences: dict[str, float] = field(default_factory=dict)
    compared_on: str = ""

    def __str__(self) -> str:
        config = self.config
        row_width = config.row_position_embedding_size
        lines = [
            ("written", str(self.output)),
            (
                "model",
                f"{config.num_hidden_layers} layers, width {config.hidden_size}, {config.num_attention_heads} heads, "
                f"{config.max_position_embeddings} columns, "
                f"row position embedding {'none' if row_width is None else f'of width {row_width}'}",
            ),
            (
                "contacts",
                "regression included" if self.has_contacts else "no regression: predict_contacts will refuse",
            ),
            ("read back", f"{self.tensors} of {self.tensors} tensors equal bit for bit ({self.parameters:,} numbers)"),
        ]
        if self.differences:
            figures = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
            lines.append(
                ("against", f"fair-esm {_fair_esm_version()}, {self.compared_on}: max |difference| {figures}")
            )
        return "\n".join(f"{name:<10} {text}" for name, text in lines)


def convert_checkpoint(
    checkpoint: str | os.PathLike,
    output: str | os.PathLike,
    contact_regression: str | os.PathLike | None = None,
    attention_heads: int | None = None,
    *,
    model_id: str | None = None,
    license: str | None = None,
    note: str | None = None,
) -> ConversionReport:
    """Convert a fair-esm checkpoint into a complete Hub folder.

    Parameters
    ----------
    checkpoint : path or str
        A file, or the name of a published checkpoint (`OFFICIAL_CHECKPOINTS`), which is downloaded.
    output : path
        The folder to make; it must not exist, or be empty. It appears whole or not at all.
    contact_regression : path, optional
        Default: ``<stem>-contact-regression.pt`` beside the checkpoint, if it is there.
    attention_heads : int, optional
        Needed only for a bare state dict without contact regression: nothing in it tells.
    model_id : str, optional
        What the model card tells its readers to load; default: the folder's name.
    license : str, optional
        Licence of the weights, for the card; default: MIT for the published ones, otherwise none is named.
    note : str, optional
        A sentence about these weights, for the card.

    Returns
    -------
    ConversionReport

    Raises
    ------
    ConversionError
        For a truncated or foreign file, one that would run code, missing or unexpected tensors, an output that is
        not empty.
    FileNotFoundError
        If there is no such file.
    """
    output = Path(output)
    require_new_folder(output, ConversionError)
    path, regression_path = find_checkpoint(checkpoint, contact_regression)
    args, source = read_fair_esm(path, regression_path)
    config = config_from_fair_esm(args, source, attention_heads)
    has_contacts = CONTACT_NAMES[0] in source and bool(source[CONTACT_NAMES[0]].any())
    if CONTACT_NAMES[0] not in source:
        source |= _empty_contacts(config, source["embed_tokens.weight"].dtype)
    state = _to_ours(source, config, path)
    with torch.device("meta"):
        model = MsaForMaskedLM(config)
    # one type for all, as transformers loads them: that of the checkpoint, whatever the regression's
    dtypes = {tensor.dtype for name, tensor in state.items() if "contact_head" not in name}
    dtype = functools.reduce(torch.promote_types, dtypes)
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()

    with whole_folder(output) as folder:
        model.eval().save_pretrained(folder)
        loaded = MsaForMaskedLM.from_pretrained(folder)
        report = ConversionReport(output, config, *_compare(state, loaded.state_dict()), has_contacts)
        if importlib.util.find_spec("esm") is not None:
            report.differences, report.compared_on = compare_with_fair_esm(loaded, path, regression_path)
        license = license or ("mit" if is_published(path.stem, config) else None)
        known: dict[str, Any] = {"report": report, "license": license, "note": note}
        complete_folder(folder, config, path.stem, model_id or output.name, **known)
    return report


def revert_checkpoint(folder: str | os.PathLike, output: str | os.PathLike) -> ConversionReport:
    """Write a Hub folder as files that fair-esm's ``load_model_and_alphabet_local`` loads to the same outputs.

    Parameters
    ----------
    folder : path or str
        A folder, or Hub id, of any MSA Transformer class.
    output : path
        ``NAME.pt``, or a folder, which gets ``<name of the input>.pt``. The contact regression goes into
        ``NAME-contact-regression.pt`` beside it. Neither file may exist.

    Returns
    -------
    ConversionReport

    Raises
    ------
    ConversionError
        If fair-esm cannot express the model (other sizes of its alphabet or row table), or a file is in the way.
    """
    output, regression = _reverse_files(folder, Path(output))
    try:
        with hub_errors(str(folder)):
            model, info = MsaForMaskedLM.from_pretrained(folder, output_loading_info=True)
    except OSError as error:
        raise ConversionError(
            f"{folder} could not be loaded: give a folder, or a Hub id, of an MSA Transformer ({error})."
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ConversionError(
            f"{folder} holds no whole masked language model, as fair-esm's file does; {len(missing)} tensors are "
            f"missing: {_some(missing)}. Give a folder that was converted, or saved from MsaForMaskedLM."
        )
    config = model.config
    if hasattr(config, "quantization_config"):
        raise ConversionError(f"{folder} is quantized, which fair-esm's file cannot be: give what it was made from.")
    _check_expressible(config)
    args, upgraded = to_fair_esm(model)
    published = {_published_name(name): tensor for name, tensor in upgraded.items() if name not in CONTACT_NAMES}
    contacts = {name: upgraded[name] for name in CONTACT_NAMES}
    with temporary_sibling(output) as temporary:
        torch.save({"args": args, "model": published}, temporary / output.name)
        torch.save({"model": contacts}, temporary / regression.name)
        _, written = read_fair_esm(temporary / output.name, temporary / regression.name)
        tensors, parameters = _compare(_to_ours(written, config, output), model.state_dict())
        report = ConversionReport(output, config, tensors, parameters, bool(contacts[CONTACT_NAMES[0]].any()))
        if importlib.util.find_spec("esm") is not None:
            report.differences, report.compared_on = compare_with_fair_esm(
                model, temporary / output.name, temporary / regression.name
            )
        # the regression first: the file that the user asked for appears last, when all is there
        os.replace(temporary / regression.name, regression)
        os.replace(temporary / output.name, output)
    return report


def find_checkpoint(
    checkpoint: str | os.PathLike, contact_regression: str | os.PathLike | None = None
) -> tuple[Path, Path | None]:
    """Locate a checkpoint and its contact regression (None if there is none), downloading a published one."""
    if str(checkpoint) in OFFICIAL_CHECKPOINTS and not Path(checkpoint).is_file():
        path = download(f"{DOWNLOAD_URL}/models/{checkpoint}.pt")
        if contact_regression is None:
            return path, download(f"{DOWNLOAD_URL}/regression/{checkpoint}-contact-regression.pt")
    else:
        path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no file {path}. Give a fair-esm checkpoint (.pt) or one of the published names: "
            f"{', '.join(OFFICIAL_CHECKPOINTS)}."
        )
    beside = path.with_name(f"{path.stem}-contact-regression.pt")
    regression = Path(contact_regression) if contact_regression is not None else beside
    if contact_regression is not None and not regression.is_file():
        raise FileNotFoundError(f"There is no contact regression {regression}.")
    return path, regression if regression.is_file() else None


def download(url: str, sha256: str | None = None) -> Path:
    """Download a published file, or go on where an earlier download was cut; a complete one is used as it is.

    It lies where fair-esm puts it, ``<torch.hub.get_dir()>/checkpoints``, so neither downloads twice.

    Parameters
    ----------
    url : str
        Its last part is the file's name.
    sha256 : str, optional
        What `file_sha256` must give, new file or old.

    Returns
    -------
    Path

    Raises
    ------
    ChecksumError
        If its checksum is another. Nothing of the file has been unpickled then.
    ConversionError
        If it could not be downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        _download(url, path)
    if sha256 is not None:
        check_sha256(path, sha256)
    return path


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: str | os.PathLike, expected: str) -> None:
    """Raise ChecksumError if a file's SHA-256 is another than `expected`."""
    if (found := file_sha256(path)) != expected.lower():
        raise ChecksumError(
            f"{path} was refused: its SHA-256 is {found}, and {expected} was recorded. It is damaged, or another "
            "file than then: remove it and download it again."
        )


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        head = get_session().head(url, follow_redirects=True)
        head.raise_for_status()
        size = int(head.headers["Content-Length"])
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        with part.open("ab") as file:
            http_get(url, file, resume_size=file.tell(), expected_size=size, displayed_filename=path.name)
    except Exception as error:
        raise ConversionError(
            f"{url} could not be downloaded ({type(error).__name__}: {error}). Run the command again to go on from "
            f"where it stopped, or download it by other means and give the file."
        ) from error
    part.replace(path)


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
    content = _load(path)
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
    if (
        not isinstance(state, dict)
        or not state
        or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items())
    ):
        raise ConversionError(
            f"{path} holds neither fair-esm's {{'args', 'model'}} nor a state dict (its keys: {_some(content)})."
        )
    if args is not None or any(name.startswith("encoder.") for name in state):
        state = {_upgraded_name(name): tensor for name, tensor in state.items()}
    if contact_regression is not None:
        regression = _load(contact_regression)
        regression = regression.get("model", regression) if isinstance(regression, dict) else {}
        if (
            not isinstance(regression, dict)
            or set(regression) != set(CONTACT_NAMES)
            or not all(isinstance(value, torch.Tensor) and value.ndim for value in regression.values())
        ):
            held = regression if isinstance(regression, dict) else [type(regression).__name__]
            raise ConversionError(
                f"{contact_regression} is not a contact regression: it holds {_some(held)} instead of the tensors "
                f"{', '.join(CONTACT_NAMES)}."
            )
        state = state | regression
    return args, state


def config_from_fair_esm(
    args: argparse.Namespace | None, state: dict[str, torch.Tensor], attention_heads: int | None = None
) -> MsaConfig:
    """Read the sizes off the tensors, and what tensors do not tell off `args`."""
    for name, axes in {
        "embed_tokens.weight": 2,
        "embed_positions.weight": 2,
        "msa_position_embedding": 4,
        "layers.0.feed_forward_layer.layer.fc1.weight": 2,
        CONTACT_NAMES[0]: 2,
    }.items():
        if name not in state and name not in ("msa_position_embedding", CONTACT_NAMES[0]):
            raise ConversionError(
                f"This is no MSA Transformer checkpoint, or a truncated one: {name} is missing. It holds "
                f"{_some(state)}."
            )
        if name in state and state[name].ndim != axes:
            raise ConversionError(f"{name} must have {axes} axes; its shape is {tuple(state[name].shape)}.")
    layers = 1 + max(int(match[1]) for name in state if (match := re.match(r"layers\.(\d+)\.", name)))
    layers = getattr(args, "layers", layers)
    contacts = state.get(CONTACT_NAMES[0])
    heads = getattr(args, "attention_heads", attention_heads)
    if heads is None and contacts is not None:
        heads = contacts.shape[1] // layers
    if heads is None:
        raise ConversionError(
            "A bare state dict without contact regression does not tell the number of attention heads: give it "
            "(--attention-heads), or the regression (--contact-regression)."
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
            "The sizes in this checkpoint, or its contact regression, fit no MSA Transformer: "
            f"{error.__cause__ or error}"
        ) from error


def compare_with_fair_esm(
    model: MsaForMaskedLM, path: str | os.PathLike, contact_regression: str | os.PathLike | None = None
) -> tuple[dict[str, float], str]:
    """Largest absolute differences between `model` and what fair-esm makes of the file(s), on a small MSA."""
    import esm

    args, state = read_fair_esm(path, contact_regression)
    defaults = fair_esm_args(model.config)
    reference: Any
    if args is not None:
        # by fair-esm's own reading of the names, not by ours
        content = _load(path)
        content["args"] = argparse.Namespace(**vars(defaults) | vars(content["args"]))
        content["model"].update({name: state[name] for name in CONTACT_NAMES if name in state})
        reference, alphabet, state = esm.pretrained._load_model_and_alphabet_core_v1(content)
    else:
        alphabet = esm.data.Alphabet.from_architecture("msa_transformer")
        reference = esm.MSATransformer(defaults, alphabet)
    has_contacts = bool(model.msa.contact_head.regression.weight.any())
    reference.load_state_dict(state, strict=has_contacts)
    reference.eval()
    shape = (1, 8, min(64, model.config.max_position_embeddings))
    tokens = torch.randint(4, 24, shape, generator=torch.Generator().manual_seed(0))  # the twenty amino acids
    tokens[:, :, 0] = alphabet.cls_idx
    with torch.no_grad():
        expected = reference(tokens, return_contacts=True)
        logits = model(tokens).logits
        contacts = model.msa.contact_logits(tokens)[0].sigmoid()
    differences = {"logits": (logits.float() - expected["logits"]).abs().max().item()}
    if has_contacts:
        differences["contacts"] = (contacts - expected["contacts"]).abs().max().item()
    return differences, f"{shape[1]} random rows of {shape[2] - 1} residues"


def _reverse_files(folder: str | os.PathLike, output: Path) -> tuple[Path, Path]:
    """Choose the two files that `revert_checkpoint` writes, and make sure that they can be written and read."""
    if output.suffix != ".pt":
        if output.exists() and not output.is_dir():
            raise ConversionError(f"{output} is a file: name one that ends in .pt, or a folder.")
        name = Path(folder).resolve().name if Path(folder).is_dir() else str(folder).rstrip("/").rsplit("/", 1)[-1]
        output = output / f"{name}.pt"
    if re.match("esm2", output.stem) or re.search("esm1v|esm_if", output.stem):
        raise ConversionError(
            f"fair-esm takes a file named {output.name} for another kind of model: name it otherwise."
        )
    regression = output.with_name(f"{output.stem}-contact-regression.pt")
    for file in (output, regression):
        if file.exists():
            raise ConversionError(f"{file} exists: remove it, or choose another name.")
    return output, regression


def _check_expressible(config: MsaConfig) -> None:
    """Raise for what fair-esm has fixed in its code and this model has otherwise."""
    fixed = {"vocab_size": FAIR_ESM_TOKENS, "pad_token_id": 1, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
    if config.row_position_embedding_size is not None:
        fixed["max_row_position_embeddings"] = FAIR_ESM_ROWS
    for name, value in fixed.items():
        if getattr(config, name) != value:
            raise ConversionError(
                f"fair-esm cannot express this model: its {name} is {value!r}, always, and this model's is "
                f"{getattr(config, name)!r}."
            )


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


def _swap_row_and_column(name: str) -> str:
    return name.replace("row", "column") if "row" in name else name.replace("column", "row")


def _upgraded_name(name: str) -> str:
    return _swap_row_and_column(name).removeprefix("encoder.").removeprefix("sentence_encoder.")


def _published_name(name: str) -> str:
    prefix = "encoder." if name.startswith("lm_head.") else "encoder.sentence_encoder."
    return prefix + _swap_row_and_column(name)


def _to_ours(source: dict[str, torch.Tensor], config: MsaConfig, path: Path) -> dict[str, torch.Tensor]:
    """Rename and reshape `source` for a model of `config`, or raise with all that does not fit."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in MsaForMaskedLM(config).state_dict().items()}
    fair_names = {translate(name, to_ours=False): name for name in expected}
    problems = []
    if missing := sorted(set(fair_names) - set(source)):
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if unexpected := sorted(set(source) - set(fair_names)):
        problems.append(f"{len(unexpected)} unexpected: {_some(unexpected)}")
    state = {}
    for fair_name in sorted(set(fair_names) & set(source)):
        name, tensor = fair_names[fair_name], source[fair_name]
        if fair_name == "msa_position_embedding":  # (1, R, 1, width) there
            tensor = tensor.reshape(-1, tensor.shape[-1])
        if tensor.shape != expected[name]:
            problems.append(f"{fair_name} has the shape {tuple(tensor.shape)}, not {tuple(expected[name])}")
        if not tensor.is_floating_point():
            problems.append(f"{fair_name} is of the type {tensor.dtype}, not of floats")
        state[name] = tensor
    if problems:
        raise ConversionError(
            f"{path} does not hold the tensors of an MSA Transformer of {config.num_hidden_layers} layers, width "
            f"{config.hidden_size} and {config.num_attention_heads} heads; it may be truncated or of another model. "
            + "; ".join(problems)
            + "."
        )
    if not torch.equal(source["lm_head.weight"], source["embed_tokens.weight"]):
        raise ConversionError(f"{path}: lm_head.weight and embed_tokens.weight differ, but fair-esm ties them.")
    return state


def to_fair_esm(model: MsaForMaskedLM) -> tuple[argparse.Namespace, dict[str, torch.Tensor]]:
    """Arguments and tensors of `model` by fair-esm's upgraded names."""
    state = {}
    for name, tensor in model.state_dict().items():
        fair_name = translate(name, to_ours=False)
        state[fair_name] = tensor[None, :, None] if fair_name == "msa_position_embedding" else tensor
    return fair_esm_args(model.config), {name: tensor.contiguous().clone() for name, tensor in state.items()}


def fair_esm_args(config: MsaConfig) -> argparse.Namespace:
    """Build the arguments that fair-esm's module is made with."""
    args = {
        "arch": "msa_transformer",
        "layers": config.num_hidden_layers,
        "embed_dim": config.hidden_size,
        "ffn_embed_dim": config.intermediate_size,
        "attention_heads": config.num_attention_heads,
        "max_positions": config.max_position_embeddings,
        "dropout": config.hidden_dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.activation_dropout,
        "max_tokens": 2**14,
        "max_tokens_per_msa": 2**14,
        "logit_bias": True,
        "embed_positions_msa": config.row_position_embedding_size is not None,
    }
    if config.row_position_embedding_size is not None:
        args["embed_positions_msa_dim"] = config.row_position_embedding_size
    return argparse.Namespace(**args)


def _empty_contacts(config: MsaConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Make a contact regression that says "never fitted"."""
    width = config.num_hidden_layers * config.num_attention_heads
    return dict(zip(CONTACT_NAMES, (torch.zeros(1, width, dtype=dtype), torch.zeros(1, dtype=dtype)), strict=True))


def _compare(source: dict[str, torch.Tensor], loaded: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Count tensors and numbers, after making sure that both sides agree bit for bit."""
    wrong = [name for name in source if name not in loaded or not torch.equal(source[name], loaded[name])]
    wrong += [name for name in loaded if name not in source]
    if wrong:
        raise ConversionError(f"After reading back, {len(wrong)} tensors differ from the source: {_some(wrong)}.")
    return len(source), sum(tensor.numel() for tensor in source.values())


def _load(path: str | os.PathLike) -> Any:
    """Unpickle tensors, containers and argparse.Namespace, and refuse everything else before it runs."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Exception as error:  # a damaged file fails anywhere in the unpickler: IndexError, struct.error, OSError ...
        if isinstance(error, pickle.UnpicklingError) and (found := re.search(r"GLOBAL ([\w.]+)", str(error))):
            raise ConversionError(
                f"{path} was refused: unpickling it would run {found[1]}. A checkpoint needs tensors and "
                "argparse.Namespace only; do not load this file unless you know where it comes from."
            ) from None
        raise ConversionError(
            f"{path} is no PyTorch checkpoint, or a truncated or damaged one: remove it, and copy or download it "
            "again."
        ) from error


def _some(names: Iterable[Any], limit: int = 6) -> str:
    """List a few of `names`, and say how many more there are."""
    names = [str(name) for name in names]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) or "nothing") + more


def _fair_esm_version() -> str:
    return importlib.metadata.version("fair-esm")
