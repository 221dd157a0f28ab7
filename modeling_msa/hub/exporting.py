"""Export models for other runtimes: as a program of `torch.export`, or as an ONNX file that describes itself.

Both accept any number of MSAs, rows and columns. torch's own exporters make them; those of transformers, which are
built on these, change from release to release and patch much that this model does not need.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from .._files import check_ending, check_output, temporary_sibling
from ..inference_msa_transformer import evaluation_copy
from ..modeling_msa_transformer import MsaPreTrainedModel
from ..tokenization_msa_transformer import MsaTokenizer

Task = Literal["contacts", "logits", "embeddings"]
TASKS = ("contacts", "logits", "embeddings")
INPUTS = ("input_ids", "attention_mask")
TOLERANCE = 1e-4  # of an ONNX file against torch
# Rows and columns of the MSAs that are traced and compared. A traced axis of size 1 would be taken for a constant;
# the MSAs compared differ from those traced, and pad each other.
TRACED = ((3, 5), (2, 4))
COMPARED = (((5, 17), (9, 8), (1, 23)), ((1, 3),), ((7, 11),))


class ExportError(ValueError):
    """A model that cannot be exported, or an ONNX file whose results are not the model's."""


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and how it compares with torch.

    Attributes
    ----------
    output : Path
        The ONNX file.
    size : int
        In bytes, including the weights in a file of their own (``<output>.data``).
    task : str
        One of `TASKS`, which is also the name of the output.
    axes : dict of str to list
        Axes of the inputs and the output: ``"batch"``, ``"rows"``, ``"columns"``, expressions of these, or numbers.
    max_rows, max_columns : int or None
        Size of the largest MSA, with ``<cls>``; None where there is no limit.
    difference : float
        Largest absolute difference between ONNX Runtime and torch, relative where values are larger than 1.
    compared_on : str
        The input of that comparison.
    """

    output: Path
    size: int
    task: str
    axes: dict[str, list[str | int]]
    max_rows: int | None
    max_columns: int
    difference: float
    compared_on: str

    def __str__(self) -> str:
        shapes = {name: f"{name} ({', '.join(map(str, axes))})" for name, axes in self.axes.items()}
        rows = "any number of" if self.max_rows is None else f"up to {self.max_rows}"
        version = importlib.metadata.version("onnxruntime")
        lines = [
            ("written", f"{self.output}, {self.size / 1e6:.1f} MB"),
            ("inputs", ", ".join(shapes[name] for name in INPUTS)),
            ("output", shapes[self.task]),
            ("sizes", f"{rows} rows, up to {self.max_columns} columns with <cls>"),
            ("against", f"torch, {self.compared_on}: ONNX Runtime {version}, max |difference| {self.difference:.1e}"),
        ]
        return "\n".join(f"{name:<10} {text}" for name, text in lines)


class _TaskModule(nn.Module):
    """A model with two inputs and one output."""

    model: Any

    def __init__(self, model: MsaPreTrainedModel, task: Task):
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.task == "contacts":
            output = self.model.base_model.contact_logits(input_ids, attention_mask).logits.sigmoid()
        elif self.task == "embeddings":
            output = self.model.base_model(input_ids, attention_mask).last_hidden_state
        else:
            output = self.model(input_ids, attention_mask).logits
        return {self.task: output}


def export_program(model: MsaPreTrainedModel, task: Task = "contacts") -> ExportedProgram:
    """Export a model with `torch.export`.

    Parameters
    ----------
    model : MsaPreTrainedModel
        Any class, on one device, in any dtype. It is not changed, and shares its weights with the program.
    task : str, default "contacts"
        "contacts": probabilities ``(B, L, L)``, as of `predict_contacts`. "embeddings": the last hidden state
        ``(B, R, C, D)``. "logits": the output of the model's own head, such as ``(B, R, C, V)`` of `MsaForMaskedLM`.

    Returns
    -------
    torch.export.ExportedProgram
        Its ``module()`` takes ``input_ids`` and ``attention_mask``, ``(B, R, C)`` int64 each, both by name, and
        returns ``{task: output}``. MSAs must have at least two residues.

    Raises
    ------
    ExportError
        If the contact regression was never fitted, if there is no head for logits, or if the model is of another
        package, quantized, sharded, offloaded, set to flash attention, or limited to one row or one residue.

    Examples
    --------
    >>> from modeling_msa import MsaTokenizer, load_model
    >>> from modeling_msa.hub.exporting import export_program
    >>> program = export_program(load_model(device="cpu"))
    >>> inputs = MsaTokenizer()(["MKVLA", "MRV-A", "-KILA"], return_tensors="pt")
    >>> program.module()(**inputs)["contacts"].shape
    torch.Size([1, 5, 5])
    """
    _check_model(model, task)
    axes = _dynamic_axes(model.config)
    inputs = dict(zip(INPUTS, _batch(TRACED, model), strict=True))
    with _as_at_inference(model, task) as module:
        return torch.export.export(module, (), inputs, dynamic_shapes=dict.fromkeys(INPUTS, axes))


def export_onnx(
    model: MsaPreTrainedModel,
    output: str | os.PathLike[str],
    task: Task = "contacts",
    *,
    external_data: bool = False,
) -> ExportReport:
    """Write a model as an ONNX file, which is compared with torch before it appears.

    Its inputs are ``input_ids`` and ``attention_mask``, ``(batch, rows, columns)`` int64; its output has the task's
    name. The file's metadata have what a program without Python requires: ``model`` (the class), ``name``, ``version``
    (of this package), ``task``, and as JSON ``config``, ``axes``, ``max_rows``, ``max_columns`` and ``alphabet`` (the
    tokens in the order of their ids).

    Parameters
    ----------
    model : MsaPreTrainedModel
        In float32; otherwise as for `export_program`.
    output : path
        ``NAME.onnx``. The file appears whole or not at all.
    task : str, default "contacts"
        As for `export_program`.
    external_data : bool, default False
        Write the weights to a file of their own, ``NAME.onnx.data``, which must stay beside it. Weights of more than
        1.5 GB always are, since a single ONNX file is limited to 2 GB.

    Returns
    -------
    ExportReport

    Raises
    ------
    ImportError
        Without onnx, onnxscript and onnxruntime.
    ExportError
        As `export_program`, for a model in half precision, and if ONNX Runtime's results differ from torch's by more
        than 1e-4.
    ValueError
        If the file cannot be written.
    """
    output = Path(output)
    check_export(output)
    _check_model(model, task)
    if model.dtype != torch.float32:
        raise ExportError(f"The model is in {model.dtype}, but ONNX files are written in float32: pass model.float().")
    program = export_program(model, task)
    with warnings.catch_warnings(), _quiet_torch_onnx():
        warnings.simplefilter("ignore")  # torch's, about its own code
        onnx_program = torch.onnx.export(
            program,
            input_names=list(INPUTS),
            output_names=[task],
            dynamic_shapes=dict.fromkeys(INPUTS, _dynamic_axes(model.config)),
            verbose=False,
        )
    assert onnx_program is not None
    axes = _describe(onnx_program.model, model, task)
    with temporary_sibling(output) as folder:
        file = folder / output.name
        onnx_program.save(file, external_data=external_data or None)
        with _as_at_inference(model, task) as module:
            difference = _compare(file, module, task)
        if not difference <= TOLERANCE:  # NaN too
            raise ExportError(
                f"ONNX Runtime's {task} differ from torch's by {difference:.1e}, more than {TOLERANCE:.0e}: nothing "
                "was written. The installed versions of torch, onnxscript and onnxruntime may not be compatible."
            )
        data = file.with_name(f"{file.name}.data")
        size = sum(path.stat().st_size for path in (file, data) if path.exists())
        old = output.with_name(data.name)
        if data.exists():
            os.replace(data, old)  # before the file that needs it
            os.replace(file, output)
        else:
            os.replace(file, output)
            old.unlink(missing_ok=True)  # belongs to the file that was replaced
    count = sum(map(len, COMPARED))
    return ExportReport(
        output,
        size,
        task,
        axes,
        _max_rows(model.config),
        model.config.max_position_embeddings,
        difference,
        f"{count} random MSAs of other sizes than traced, padded and not",
    )


def check_export(output: str | os.PathLike[str]) -> None:
    """Raise as `export_onnx` does for missing packages or a file that cannot be written, before a model is loaded."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"Writing ONNX files requires {' and '.join(missing)}: pip install 'modeling-msa[export]'.")
    check_ending(output, (".onnx",))
    check_output(output)


def _check_model(model: Any, task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; use {', '.join(TASKS[:-1])} or {TASKS[-1]}.")
    if not hasattr(getattr(model, "base_model", None), "contact_logits"):
        raise ExportError(
            f"{type(model).__name__} is not an MSA Transformer. Merge an adapter first: model.merge_and_unload()."
        )
    parameters = list(model.parameters())
    if any(type(parameter) is not nn.Parameter for parameter in parameters):
        raise ExportError("The model's weights are quantized or sharded: export the plain model.")
    if len({parameter.device for parameter in parameters}) > 1 or model.device.type == "meta":
        raise ExportError("The model's weights are on several devices, or offloaded: load it on one device.")
    implementation = model.config._attn_implementation
    if implementation not in ("eager", "sdpa"):
        raise ExportError(f"{implementation} cannot be exported: load the model with attn_implementation='sdpa'.")
    if _max_rows(model.config) == 1 or model.config.max_position_embeddings < 4:
        raise ExportError(
            "The model is limited to MSAs of one row or one residue, but torch.export takes an axis with a single "
            "possible size for a constant: export a model with max_row_position_embeddings of at least 2 and "
            "max_position_embeddings of at least 4."
        )
    if task == "logits" and model.base_model is model:
        raise ExportError("MsaModel has no head for logits: load MsaForMaskedLM or another class with a head.")
    if task == "contacts" and not model.base_model.contact_head.regression.weight.any():
        raise ExportError(
            "This model's contact regression was never fitted (its weights are zero): fit it (fit_contact_regression) "
            "or train MsaForContactPrediction before exporting it."
        )


@contextmanager
def _as_at_inference(model: MsaPreTrainedModel, task: Task) -> Iterator[_TaskModule]:
    """Give the task's module, without dropout and gradients."""
    with torch.no_grad():
        yield _TaskModule(evaluation_copy(model), task).eval()


@contextmanager
def _quiet_torch_onnx() -> Iterator[None]:
    """Keep torch.onnx from reporting that torchvision, which is not needed here, is not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _max_rows(config: Any) -> int | None:
    return None if config.row_position_embedding_size is None else config.max_row_position_embeddings


def _dynamic_axes(config: Any) -> dict[int, Dim]:
    # from 3 columns on: torch.export specialises a program on a single residue. The ONNX file accepts one.
    columns = Dim("columns", min=3, max=config.max_position_embeddings)
    return {0: Dim("batch"), 1: Dim("rows", max=_max_rows(config)), 2: columns}


def _batch(sizes: Any, model: MsaPreTrainedModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Make random MSAs of these rows and columns, within the model's limits: tokens and mask, padded."""
    config: Any = model.config
    random = torch.Generator().manual_seed(0)
    limits = (_max_rows(config) or 10**9, config.max_position_embeddings)
    sizes = [tuple(map(min, size, limits)) for size in sizes]
    shape = (len(sizes), *map(max, zip(*sizes, strict=True)))
    tokens = torch.randint(0, config.vocab_size, shape, generator=random)
    tokens[tokens == config.pad_token_id] = config.gap_token_id
    mask = torch.zeros(shape, dtype=torch.int64)
    for index, (rows, columns) in enumerate(sizes):
        mask[index, :rows, :columns] = 1
    tokens = tokens.masked_fill(mask == 0, config.pad_token_id)
    return tokens.to(model.device), mask.to(model.device)


def _describe(onnx_model: Any, model: MsaPreTrainedModel, task: Task) -> dict[str, list[str | int]]:
    """Replace an ONNX model's references to this code by a description of the model; return the axes."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # comes with onnxscript

    from .._version import __version__

    ClearMetadataAndDocStringPass()(onnx_model)
    graph, config = onnx_model.graph, model.config
    axes = {
        value.name: [axis if isinstance(axis, int) else str(axis.value) for axis in value.shape]
        for value in (*graph.inputs, *graph.outputs)
    }
    alphabet = MsaTokenizer.for_config(config).convert_ids_to_tokens(list(range(config.vocab_size)))
    onnx_model.doc_string = (
        f"MSA Transformer, {task}. attention_mask is 1 where a token counts; padding is right and below, the same for "
        "all rows of an MSA. Row 0 is the query, column 0 <cls>."
    )
    onnx_model.metadata_props.update(
        model=type(model).__name__,
        name=Path(model.name_or_path).name if Path(model.name_or_path).exists() else model.name_or_path,
        version=__version__,
        task=task,
        config=json.dumps(config.to_diff_dict()),
        axes=json.dumps(axes),
        max_rows=json.dumps(_max_rows(config)),
        max_columns=json.dumps(config.max_position_embeddings),
        alphabet=json.dumps(alphabet),
    )
    return axes


def _compare(file: Path, module: _TaskModule, task: Task) -> float:
    """Run a file on batches, and torch on each of their MSAs alone; return the largest difference."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    largest = torch.tensor(0.0)
    for sizes in COMPARED:
        tokens, mask = _batch(sizes, module.model)
        feed = {name: tensor.cpu().numpy() for name, tensor in zip(INPUTS, (tokens, mask), strict=True)}
        (results,) = session.run([task], feed)
        for index, result in enumerate(torch.from_numpy(results)):
            rows, columns = mask[index].any(1).sum(), mask[index].any(0).sum()
            alone = slice(index, index + 1), slice(rows), slice(columns)
            expected = module(tokens[alone], mask[alone])[task][0].cpu()
            real = result[tuple(map(slice, expected.shape))]  # all outputs are padded right and below
            # torch.maximum keeps NaN
            largest = torch.maximum(largest, (real - expected).abs().max() / expected.abs().max().clamp(min=1))
    return largest.item()
