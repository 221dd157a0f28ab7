"""The keys of a training recipe: three dataclasses with their types, defaults and help texts."""

# ruff: noqa: RUF009 (`_key` makes a dataclasses.field)

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

SIMULATED = "simulated"  # the name of simulated families among train_data


def _key(help: str, default: Any = None, **metadata: Any) -> Any:
    """Field of a key with its help text."""
    return field(default=default, metadata={"help": help, **metadata})


def nearest(key: str, known: Iterable[str]) -> str:
    """Suggestion for a misspelt key, as the end of a message; empty if no key resembles it."""
    found = difflib.get_close_matches(key, list(known), 1, 0.5)
    return f"; did you mean {found[0]}?" if found else "."


@dataclass
class ModelArguments:
    """The model to train: its initial weights, its objective and its adapters."""

    objective: Literal["mlm", "token", "sequence", "contacts", "variants"] = _key(
        "What to learn: mlm (masked residues), token (a class for each residue of the query), sequence (a class or "
        "value for each query), contacts (pairs of residues), variants (a score for each variant of one query).",
        "mlm",
    )
    model: str | None = _key("Folder or Hub id of the model to start from.")
    config: str | None = _key(
        "Instead of --model, to train from scratch: a config.json, or a name in configuration/models."
    )
    config_overrides: dict | str | None = _key('Changes to the configuration, such as {"hidden_dropout": 0.0}.')
    attn_implementation: str | None = _key("Attention code: sdpa (default), eager or flash_attention_2.")
    num_labels: int | None = _key(
        "Number of classes, for the objectives token and sequence; 1 (for sequence and variants) means a value."
    )
    class_names: list[str] | None = _key("Names of the classes, in order. Labels are these names, or numbers from 0.")
    lora_r: int | None = _key("Rank of LoRA adapters. With it, only adapters and a new head are trained.")
    lora_alpha: int | None = _key("Scale of the adapters (default: twice the rank).")
    lora_dropout: float = _key("Dropout before the adapters.", 0.0)
    lora_target_modules: list[str] | None = _key(
        "Layers that get adapters (default: all projections of the attentions)."
    )

    def __post_init__(self) -> None:
        """Parse the mapping that the command line gives as text, and check its keys."""
        if isinstance(self.config_overrides, str):
            try:
                self.config_overrides = json.loads(self.config_overrides)
            except ValueError:
                raise ValueError(f"config_overrides: {self.config_overrides!r} is not valid JSON.") from None
        changes = {} if self.config_overrides is None else self.config_overrides
        if not isinstance(changes, dict):
            raise ValueError('config_overrides must be a mapping, such as {"hidden_dropout": 0.0}.')
        from ..configuration_msa_transformer import MsaConfig  # imports transformers, which help texts do without

        known = {entry.name for entry in dataclasses.fields(MsaConfig)}
        for key in changes:
            if key not in known:
                raise ValueError(f"config_overrides: the configuration has no key {key}{nearest(key, known)}")


@dataclass
class DataArguments:
    """The alignments and labels, and how batches are made of them."""

    train_data: list[str] | None = _key(
        "Alignments to train on: a folder, files (A3M, A2M, FASTA, Stockholm; .gz and .xz too) or a list file. With "
        "--shares: folders of shards made by msa pack, or of alignments, and simulated (families made on the fly)."
    )
    shares: list[float] | None = _key(
        "Shares of the batches for each of train_data, such as 0.6 0.4. A batch then has as many families of similar "
        "size as fit into per_device_train_batch_size times max_tokens, and any row of an alignment may be the query."
    )
    eval_data: list[str] | None = _key("Alignments to evaluate on, in the same forms.")
    eval_fraction: float | None = _key(
        "Instead of --eval_data: fraction of the files (or of the rows of a single family) to hold out."
    )
    repeats: int = _key(
        "Times an alignment is used in an epoch, with other rows each time; useful for a single family.", 1
    )
    labels: str | None = _key(
        "Labels by file name without endings: a table, FASTA or JSON file; for contacts, a folder of structures."
    )
    eval_labels: str | None = _key("Labels of --eval_data (default: --labels).")
    format: Literal["a3m", "a2m", "fasta", "stockholm"] | None = _key(
        "Format of the alignments (default: by the file's ending)."
    )
    streaming: bool = _key("Read train_data, shards made by msa pack, as a stream.", False)
    on_error: Literal["raise", "skip"] = _key("Stop at a file that cannot be read (raise), or skip it.", "raise")
    max_tokens: int = _key("Maximum number of tokens (rows times columns) of one alignment.", 2**14)
    max_rows: int | None = _key("Maximum number of rows (default: the model's maximum, but at most 1,024).")
    max_columns: int | None = _key("Maximum number of columns, <cls> included (default: the model's maximum).")
    min_rows: int = _key("Minimum number of rows with --depth log_uniform.", 1)
    select: Literal["random", "diverse", "weighted", "first"] = _key(
        "How rows are chosen; random and weighted choose anew each time.", "random"
    )
    depth: Literal["full", "log_uniform"] = _key(
        "Rows in a training step: all that fit (full), or a random number of them (log_uniform).", "full"
    )
    crop: Literal["random", "first"] = _key("Which columns of a training alignment that is too long.", "random")
    random_positions: bool = _key(
        "Number the columns from a random start, so that all position embeddings are trained.", False
    )
    pad_to_multiple_of: int = _key("Pad the columns to a multiple of this, such as 8, which GPUs prefer.", 1)
    mlm_probability: float = _key("Fraction of residues to predict.", 0.15)
    mask_columns: float = _key("Fraction of the predicted residues that are masked as whole columns.", 0.0)
    mask_gaps: bool = _key("Predict gaps too.", True)
    group_by_size: bool = _key("Put alignments of similar size in a batch, which saves padding.", True)


@dataclass
class TrainingKeys:
    """Keys of our own beside transformers' TrainingArguments, and keys with other defaults."""

    remove_unused_columns: bool = _key("Must be false: features are whole alignments.", False)
    label_names: list[str] | None = field(default_factory=lambda: ["labels"], metadata={"help": "Must be labels."})
    logging_steps: float = _key("Steps between two lines of the log.", 10)
    logging_nan_inf_filter: bool = _key(
        "Leave NaN and infinite losses out of the log, instead of ending the run at the first one.", False
    )
    save_total_limit: int | None = _key("Maximum number of checkpoints to keep.", 3)
    average_checkpoints: int = _key(
        "Number of last checkpoints whose mean weights the run ends with. At a constant learning rate this achieves "
        "much of what a falling one does. 0 or 1 ends with the last weights.",
        0,
    )
    average_decay: float = _key(
        "Decay of an exponential moving average of the weights, such as 0.995. The run ends with the average, which "
        "evaluations see too. 0 ends with the last weights.",
        0.0,
    )
    max_time: float | None = _key(
        "Minutes in which the run ends and its model is saved. The learning rate falls to zero by then, in the share "
        "of the time that num_decay_steps is of max_steps, or a third. A last evaluation is expected to take as "
        "long as the one before."
    )
    muon: bool = _key(
        "Train the matrices of the layers with Muon and all other weights with AdamW. For training from scratch; "
        "not with FSDP, DeepSpeed or LoRA.",
        False,
    )
    resume_from_checkpoint: str | None = _key(
        "Folder of a checkpoint, or true for the last one of the run.", nargs="?", const="true"
    )
    ddp_find_unused_parameters: bool | None = _key(
        "Whether parameters may be without a gradient; here none is.", False
    )
    report_to: list[str] | str | None = _key("Where to report: tensorboard, wandb ...", "none")
