"""Convert fair-esm's checkpoints into Hub folders and back, and compare the result with fair-esm itself."""

from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import torch

from .._files import require_new_folder, temporary_sibling, whole_folder
from ..modeling_msa_transformer import MsaForMaskedLM
from .card import is_published
from .checks import check_numbers
from .downloads import find_checkpoint
from .errors import ConversionError, some_of
from .fair_esm import (
    CONTACT_NAMES,
    check_expressible,
    config_from_fair_esm,
    fair_esm_args,
    from_fair_esm,
    published_name,
    read_fair_esm,
    to_fair_esm,
    unpickle,
)
from .loading import load_checkpoint
from .reports import ConversionReport
from .repository import complete_folder


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
        A file, or the name of a published checkpoint, which is downloaded: "esm_msa1b_t12_100M_UR50S" or
        "esm_msa1_t12_100M_UR50S".
    output : path
        The folder to make; it must not exist, or be empty. It appears whole or not at all.
    contact_regression : path, optional
        Default: ``<stem>-contact-regression.pt`` beside the checkpoint, if that file exists.
    attention_heads : int, optional
        Needed only for a bare state dict without contact regression, which does not tell.
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
    if CONTACT_NAMES[0] not in source:  # zeros say "never fitted"
        width = config.num_hidden_layers * config.num_attention_heads
        source |= dict(zip(CONTACT_NAMES, (torch.zeros(1, width), torch.zeros(1)), strict=True))
    state = from_fair_esm(source, config, path)
    with torch.device("meta"):
        model = MsaForMaskedLM(config)
    # one type for all, as transformers loads them: that of the checkpoint, whatever the regression's
    dtypes = {tensor.dtype for name, tensor in state.items() if "contact_head" not in name}
    dtype = functools.reduce(torch.promote_types, dtypes)
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    check_numbers(model, str(path))

    with whole_folder(output) as folder:
        model.eval().save_pretrained(folder)
        loaded = MsaForMaskedLM.from_pretrained(folder)
        report = ConversionReport(output, config, *_compare(state, loaded.state_dict()), has_contacts)
        _compare_if_installed(report, loaded, path, regression_path)
        license = license or ("mit" if is_published(path.stem, config) else None)
        known: dict[str, Any] = {"report": report, "license": license, "note": note}
        complete_folder(folder, config, path.stem, model_id or output.name, **known)
    return report


def revert_checkpoint(folder: str | os.PathLike, output: str | os.PathLike) -> ConversionReport:
    """Write a Hub folder as files that fair-esm's ``load_model_and_alphabet_local`` loads to the same outputs.

    Parameters
    ----------
    folder : path or str
        A folder, or Hub id, with the weights of a masked language model.
    output : path
        ``NAME.pt``, or a folder, which gets ``<name of the input>.pt``. The contact regression goes into
        ``NAME-contact-regression.pt`` beside it. Neither file may exist.

    Returns
    -------
    ConversionReport

    Raises
    ------
    ValueError, OSError
        If the folder cannot be loaded, or does not hold a whole masked language model.
    ConversionError
        If fair-esm cannot express the model (other sizes of its alphabet or row table), or a file is in the way.
    """
    output, regression = _reverse_files(folder, Path(output))
    model = load_checkpoint(MsaForMaskedLM, folder)
    config = model.config
    if hasattr(config, "quantization_config"):
        raise ConversionError(
            f"{folder} is quantized, which fair-esm's file cannot be: pass the model that it was made from."
        )
    check_expressible(config)
    args, upgraded = to_fair_esm(model)
    published = {published_name(name): tensor for name, tensor in upgraded.items() if name not in CONTACT_NAMES}
    contacts = {name: upgraded[name] for name in CONTACT_NAMES}
    with temporary_sibling(output) as temporary:
        files = temporary / output.name, temporary / regression.name
        torch.save({"args": args, "model": published}, files[0])
        torch.save({"model": contacts}, files[1])
        _, written = read_fair_esm(*files)
        tensors, parameters = _compare(from_fair_esm(written, config, output), model.state_dict())
        report = ConversionReport(output, config, tensors, parameters, bool(contacts[CONTACT_NAMES[0]].any()))
        _compare_if_installed(report, model, *files)
        # the regression first: the file that the user asked for appears last, when all is complete
        os.replace(files[1], regression)
        os.replace(files[0], output)
    return report


def _reverse_files(folder: str | os.PathLike, output: Path) -> tuple[Path, Path]:
    """Choose the two files that `revert_checkpoint` writes, and make sure that they can be written and read."""
    if output.suffix != ".pt":
        if output.exists() and not output.is_dir():
            raise ConversionError(f"{output} is a file: pass a name that ends in .pt, or a folder.")
        name = Path(folder).resolve().name if Path(folder).is_dir() else str(folder).rstrip("/").rsplit("/", 1)[-1]
        output = output / f"{name}.pt"
    if re.match("esm2", output.stem) or re.search("esm1v|esm_if", output.stem):
        raise ConversionError(
            f"fair-esm takes a file with the name {output.name} for another kind of model: choose another name."
        )
    regression = output.with_name(f"{output.stem}-contact-regression.pt")
    for file in (output, regression):
        if file.exists():
            raise ConversionError(f"{file} exists: remove it, or choose another name.")
    return output, regression


def _compare(source: dict[str, torch.Tensor], loaded: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Count tensors and numbers, after making sure that both sides agree bit for bit."""
    wrong = [name for name in source if name not in loaded or not torch.equal(source[name], loaded[name])]
    wrong += [name for name in loaded if name not in source]
    if wrong:
        raise ConversionError(f"After reading back, {len(wrong)} tensors differ from the source: {some_of(wrong)}.")
    return len(source), sum(tensor.numel() for tensor in source.values())


def _compare_if_installed(report: ConversionReport, model: MsaForMaskedLM, *files: Path | None) -> None:
    """Add to a report how far the outputs are from fair-esm's, if it is installed."""
    if importlib.util.find_spec("esm") is not None:
        differences, shape = compare_with_fair_esm(model, *files)  # type: ignore[arg-type]
        report.differences, report.compared_on = differences, shape
        report.fair_esm_version = importlib.metadata.version("fair-esm")


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
        content = unpickle(path)
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
        contacts = model.msa.contact_logits(tokens).logits.sigmoid()
    differences = {"logits": (logits.float() - expected["logits"]).abs().max().item()}
    if has_contacts:
        differences["contacts"] = (contacts - expected["contacts"]).abs().max().item()
    return differences, f"{shape[1]} random rows of {shape[2] - 1} residues"
