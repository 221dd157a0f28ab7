"""From a recipe to the objects that train it: model, datasets, collators and Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, set_seed

from ..alignments.known_contacts import contact_files
from ..alignments.listing import list_alignments, name_of
from ..alignments.reading import read_alignment
from ..configuration_msa_transformer import MsaConfig
from ..hub.adapters import import_peft
from ..hub.loading import load_checkpoint
from ..modeling_msa_transformer import (
    MsaForContactPrediction,
    MsaForMaskedLM,
    MsaForSequenceClassification,
    MsaForTokenClassification,
    MsaPreTrainedModel,
)
from ..tokenization_msa_transformer import MsaTokenizer
from .adapters import add_adapters
from .arguments import SIMULATED, DataArguments, ModelArguments
from .collators import (
    MsaDataCollator,
    MsaDataCollatorForContactPrediction,
    MsaDataCollatorForMaskedLM,
    MsaDataCollatorForSequenceClassification,
    MsaDataCollatorForTokenClassification,
)
from .datasets import MsaDataset, VariantDataset
from .labels import read_labels
from .metrics import metric_for
from .mixture import BatchShape, FileSource, MixedFamilies, SimulatedSource
from .recipes import Recipe
from .shipped import find_config
from .trainer import MsaTrainer


class _Objective(NamedTuple):
    model: type[MsaPreTrainedModel]
    collator: type[MsaDataCollator]
    head: str | None  # trained whole beside LoRA adapters


_OBJECTIVES = {
    "mlm": _Objective(MsaForMaskedLM, MsaDataCollatorForMaskedLM, None),
    "token": _Objective(MsaForTokenClassification, MsaDataCollatorForTokenClassification, "classifier"),
    "sequence": _Objective(MsaForSequenceClassification, MsaDataCollatorForSequenceClassification, "classifier"),
    "contacts": _Objective(MsaForContactPrediction, MsaDataCollatorForContactPrediction, "contact_head"),
    "variants": _Objective(MsaForSequenceClassification, MsaDataCollatorForSequenceClassification, "classifier"),
}


def make_model(arguments: ModelArguments, classes: Sequence[str] | None, seed: int) -> PreTrainedModel:
    """Make the model of a recipe: from scratch or from weights, with its head and its adapters.

    `classes` are the names of the classes to distinguish, None for values and where there is no new head; `seed` is
    that of new weights. Raises ValueError or OSError if the weights cannot be loaded.
    """
    assert not isinstance(arguments.config_overrides, str)
    options: dict[str, Any] = dict(arguments.config_overrides or {})
    if arguments.objective in ("token", "sequence", "variants"):
        names = classes or ["value"]
        options |= {"id2label": dict(enumerate(names)), "label2id": {name: k for k, name in enumerate(names)}}
        options["problem_type"] = "single_label_classification" if classes else "regression"
    cls: Any = _OBJECTIVES[arguments.objective].model
    head, has_adapters = _OBJECTIVES[arguments.objective].head, arguments.lora_r is not None
    if has_adapters:
        import_peft()  # before weights are loaded
    set_seed(seed)
    if path := find_config(arguments.config):
        # from_pretrained would change single values unchecked
        config = MsaConfig(**MsaConfig.get_config_dict(path)[0] | options)
        model = cls._from_config(config, attn_implementation=arguments.attn_implementation)
    else:
        options |= {"dtype": torch.float32, "attn_implementation": arguments.attn_implementation}
        # a head with another number of classes is replaced by a new one, which must not stay as it is
        model = load_checkpoint(cls, str(arguments.model), new_head=head is not None or not has_adapters, **options)
    return add_adapters(model, arguments, head) if has_adapters else model


def make_datasets(recipe: Recipe) -> tuple[Any, MsaDataset | VariantDataset | None, Sequence[str] | None]:
    """List the alignments of a recipe, and read their labels.

    Returns the datasets of training (None for a mixture) and of evaluation (None if nothing is held out), and the
    names of the classes (None for values, contacts and masked residues). Raises ValueError or OSError if there are no
    alignments, or alignments and labels do not match.
    """
    arguments, seed = recipe.data, recipe.training.seed
    options: dict[str, Any] = {"format": arguments.format, "on_error": arguments.on_error}
    if recipe.model.objective == "variants":
        return *_variant_datasets(arguments, seed), None
    labels, eval_labels, classes = _labels(arguments, recipe.model)
    held_out = _listed(arguments.eval_data)
    if arguments.shares:
        training: Any = None
    elif arguments.streaming:
        training = _stream(recipe, labels)
    else:
        files = _listed(arguments.train_data)
        if labels is not None:
            _require_files(labels, [*files, *held_out] if eval_labels is labels else files, arguments.labels)
            files = [path for path in files if name_of(path) in labels]
        if arguments.eval_fraction is not None:
            if len(files) == 1 and recipe.model.objective == "mlm":
                return *_row_datasets(files[0], arguments, seed), None
            kept, out = _split(len(files), arguments.eval_fraction, seed)
            files, held_out = [files[k] for k in kept], [files[k] for k in out]
        training = MsaDataset(files * arguments.repeats, labels=_of(files, labels), **options)
    evaluation = None
    if held_out:
        evaluation = MsaDataset(held_out, labels=_of(held_out, eval_labels), fixed=True, **options)
    return training, evaluation, classes


def _stream(recipe: Recipe, labels: Mapping[str, Any] | None) -> Any:
    """Stream of the shards of the training data, or of this process's part of them."""
    from .shards import load_stream

    arguments, training = recipe.data, recipe.training
    part = {"rank": training.process_index, "world_size": training.world_size} if training.world_size > 1 else {}
    shards = arguments.train_data or []
    return load_stream(shards, labels=labels, seed=training.seed, on_error=arguments.on_error, repeat=True, **part)


def make_mixture(recipe: Recipe, collator: MsaDataCollator) -> MixedFamilies:
    """Make the batches of a recipe with shares, for all its steps and processes, within the limits of its collator."""
    data, training = recipe.data, recipe.training
    sources = [
        SimulatedSource(training.seed)
        if name == SIMULATED
        else FileSource(name, input_format=data.format, on_error=data.on_error)
        for name in data.train_data or ()
    ]
    shape = BatchShape(
        max_tokens=data.max_tokens,
        families=training.per_device_train_batch_size,
        max_rows=collator.max_rows,
        max_columns=collator.max_columns,
        min_rows=data.min_rows,
        multiple=data.pad_to_multiple_of,
    )
    batches = training.max_steps * training.gradient_accumulation_steps * training.world_size
    return MixedFamilies(sources, data.shares or (), batches, shape, training.seed)


def _of(files: Sequence[Path], labels: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Labels of some files."""
    if labels is None:
        return None
    names = [name_of(path) for path in files]
    return {name: labels[name] for name in names if name in labels}


def _listed(sources: Sequence[str] | None) -> list[Path]:
    return [path for source in sources or () for path in list_alignments(source)]


def _labels(arguments: DataArguments, model: ModelArguments) -> tuple[Any, Any, Sequence[str] | None]:
    """Labels of training and of evaluation by name, and the names of the classes."""
    paths = arguments.labels, arguments.eval_labels or arguments.labels
    if arguments.labels is None:
        return None, None, None
    if model.objective == "contacts":
        tables = [contact_files(path) for path in dict.fromkeys(map(str, paths))]
        return tables[0], tables[-1], None
    read = read_labels(str(paths[0]), model.class_names, model.num_labels)
    classes = read.classes
    if classes is None and (model.num_labels or 1) > 1:
        classes = tuple(str(k) for k in range(model.num_labels or 1))
    if classes is None and model.objective == "token":
        raise ValueError(f"{paths[0]}: the labels are numbers; set num_labels or class_names.")
    if paths[0] == paths[1]:
        return read.by_name, read.by_name, classes
    return read.by_name, read_labels(str(paths[1]), read.classes, model.num_labels).by_name, classes


def _require_files(labels: Mapping[str, Any], files: Sequence[Path], source: str | None) -> None:
    """Raise ValueError if labels have no alignment."""
    missing = set(labels) - {name_of(path) for path in files}
    if missing:
        raise ValueError(
            f"{source}: {len(missing)} of {len(labels)} labels have no alignment, for example {min(missing)!r}; a "
            f"label's name must be its file's name without endings, such as {name_of(files[0])!r}."
        )


def _split(count: int, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of the examples (or rows) for training, and of those to hold out."""
    number = round(fraction * count)
    if not 0 < number < count:
        raise ValueError(f"eval_fraction {fraction} of {count} leaves none on one side: pass eval_data instead.")
    order = np.random.default_rng(seed).permutation(count).tolist()
    return sorted(order[number:]), sorted(order[:number])


def _row_datasets(path: Path, arguments: DataArguments, seed: int) -> tuple[MsaDataset, MsaDataset]:
    """One family with some of its rows held out; the query is in both parts."""
    family = read_alignment(path, arguments.format)
    kept, out = ([0, *(k + 1 for k in rows)] for rows in _split(family.depth - 1, arguments.eval_fraction or 0, seed))
    return MsaDataset([family.take(kept)] * arguments.repeats), MsaDataset(family.take(out), fixed=True)


def _variant_datasets(arguments: DataArguments, seed: int) -> tuple[VariantDataset, VariantDataset | None]:
    """Variants of one family, some of them held out."""
    files = _listed(arguments.train_data)
    if len(files) != 1:
        raise ValueError(f"The objective variants requires exactly one alignment, but train_data has {len(files)}.")
    family = read_alignment(files[0], arguments.format)
    training = VariantDataset(family, str(arguments.labels))
    if arguments.eval_labels:
        others = _listed(arguments.eval_data)
        family = read_alignment(others[0], arguments.format) if others else family
        return training, VariantDataset(family, arguments.eval_labels, fixed=True)
    if arguments.eval_fraction is None:
        return training, None
    kept, out = _split(len(training), arguments.eval_fraction, seed)
    return training.take(kept), training.take(out, fixed=True)


def make_collators(arguments: DataArguments, model: Any, objective: str, seed: int) -> tuple[Any, Any]:
    """Make the collators of training and of evaluation, which uses all rows that fit and the first columns.

    Raises ValueError if the sizes exceed what the model can read.
    """
    tokenizer = MsaTokenizer.for_config(model.config)
    rows = min(1024, tokenizer.model_max_depth) if arguments.max_rows is None else arguments.max_rows
    columns = arguments.max_columns or tokenizer.model_max_length
    limits = {"max_rows": (rows, tokenizer.model_max_depth), "max_columns": (columns, tokenizer.model_max_length)}
    for name, (wanted, limit) in limits.items():
        if wanted > limit:
            raise ValueError(f"{name} is {wanted}, but the model can read at most {limit}.")
    common = {"max_tokens": arguments.max_tokens, "max_rows": rows, "max_columns": columns, "seed": seed}
    common |= {key: getattr(arguments, key) for key in ("min_rows", "select", "pad_to_multiple_of")}
    # a mixture has chosen rows and columns itself
    depth = "full" if arguments.shares else arguments.depth
    varied = {"depth": depth, "crop": arguments.crop, "random_positions": arguments.random_positions}
    if objective == "mlm":
        common |= {key: getattr(arguments, key) for key in ("mlm_probability", "mask_columns", "mask_gaps")}
    elif objective != "contacts":
        common["num_labels"] = model.config.num_labels
    cls: Any = _OBJECTIVES[objective].collator
    return cls(tokenizer, **common, **varied), cls(tokenizer, **common, crop="first")


def make_trainer(recipe: Recipe) -> MsaTrainer:
    """Build the Trainer of a recipe; raises ValueError or OSError if data, labels or weights do not exist or match."""
    objective, arguments = recipe.model.objective, recipe.training
    training, held_out, classes = make_datasets(recipe)
    model = make_model(recipe.model, classes, arguments.seed)
    collator, eval_collator = make_collators(recipe.data, model, objective, arguments.seed)
    return MsaTrainer(
        model,
        arguments,
        data_collator=collator,
        eval_collator=eval_collator,
        train_dataset=make_mixture(recipe, collator) if recipe.data.shares else training,
        eval_dataset=held_out,
        processing_class=collator.tokenizer,
        metric=metric_for(objective, model.config.problem_type),
        group_by_size=recipe.data.group_by_size,
        recipe=recipe,
    )
