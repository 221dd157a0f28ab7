"""The model card of a folder: ``hub_card.md``, filled with what is known of the weights.

What is known comes from the config, the folder itself (is the contact regression fitted? are these adapters?), and a
conversion's or a training run's report. What is not known is left out.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from ..configuration_msa_transformer import MsaConfig
from ..sharing_msa_transformer import TAGS
from .finding import PUBLISHED, resolve_model
from .reports import ConversionReport, Result, Source, TrainingReport

# The Hub's tasks. It has none for contact maps: the auto class that loads such a folder is AutoModel.
PIPELINE_TAGS = {
    "MsaModel": "feature-extraction",
    "MsaForMaskedLM": "fill-mask",
    "MsaForContactPrediction": "feature-extraction",
    "MsaForTokenClassification": "token-classification",
    "MsaForSequenceClassification": "text-classification",
}

# by our names (see modeling_msa.training.metrics): the Hub's name of a metric, and the one for readers
METRICS = {
    "loss": ("loss", "loss"),
    "perplexity": ("perplexity", "perplexity"),
    "accuracy": ("accuracy", "accuracy"),
    "macro_f1": ("f1", "macro F1"),
    "spearman": ("spearmanr", "Spearman's rank correlation"),
    "p_at_l": ("precision_at_l", "P@L"),
    "p_at_l2": ("precision_at_l_over_2", "P@L/2"),
    "long_p_at_l": ("long_range_precision_at_l", "long-range P@L"),
}

_HEADS = ("MsaForMaskedLM", "MsaForTokenClassification", "MsaForSequenceClassification")


def is_published(name: str, config: MsaConfig) -> bool:
    """Whether a checkpoint has the name and the sizes of one that fair-esm distributes."""
    sizes = (config.num_hidden_layers, config.hidden_size, config.num_attention_heads)
    return name in PUBLISHED and sizes == (12, 768, 12)


def find_source(model: str | os.PathLike, config: MsaConfig) -> Source:
    """Collect what is known of weights that were loaded from `model`, a folder or Hub id.

    A folder is known to others only if its card says that it holds a published checkpoint.
    """
    folder = Path(resolve_model(model))
    local = folder.is_dir()
    name, model_id = (folder.resolve().name, None) if local else (os.fspath(model), os.fspath(model))
    try:
        card = ModelCard.load(folder / "README.md" if local else name)
    except (OSError, ValueError, yaml.YAMLError):  # it has none that can be read, or there is no network
        return Source(name, model_id)
    title = re.search(r"^# (.*)$", card.text, flags=re.MULTILINE)
    if local and title and is_published(title[1], config):
        name = model_id = title[1]
    license = card.data.license
    return Source(name, model_id, license if isinstance(license, str) else None)


def _cached_source(config: MsaConfig, model_id: str) -> Source | None:
    """Find the repository that a model was loaded from, if it was one: then it is in the cache."""
    name = config.name_or_path or ""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name == model_id or Path(name).exists():
        return None
    return find_source(name, config) if isinstance(try_to_load_from_cache(name, "config.json"), str) else None


def has_fitted_contacts(folder: str | os.PathLike) -> bool | None:
    """Whether a folder's contact regression was fitted; None if no weights tell (adapters have none)."""
    for path in sorted(Path(folder).glob("model*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if name.endswith("contact_head.regression.weight"):
                        return bool(file.get_tensor(name).any())
        except (SafetensorError, OSError):
            return None
    return None


def card_template() -> str:
    """Text of ``hub_card.md``: in the repository it lies above the package, in an installed package inside it."""
    package = Path(__file__).parents[1]
    for folder in (package, package.parent):
        if (folder / "hub_card.md").is_file():
            return (folder / "hub_card.md").read_text(encoding="utf-8")
    raise FileNotFoundError("hub_card.md is missing from the installation: install modeling-msa again.")


def write_model_card(
    folder: str | os.PathLike,
    name: str,
    model_id: str,
    config: MsaConfig,
    report: ConversionReport | None = None,
    license: str | None = None,
    note: str | None = None,
    training: TrainingReport | None = None,
    *,
    has_contacts: bool | None = None,
) -> Path:
    """Fill ``hub_card.md`` into `folder`/README.md; what is not known is left out.

    Parameters
    ----------
    folder : path
        The folder, complete but for the card: it tells whether the contact regression was fitted, and whether it
        holds adapters.
    name : str
        The checkpoint's name.
    model_id : str
        What a reader gives to ``from_pretrained``: a Hub id or a path.
    config : MsaConfig
        The model's sizes and classes; ``architectures`` tells what it is for.
    report : ConversionReport, optional
        What was compared when the checkpoint was converted.
    license : str, optional
        Licence of the weights, by its Hub name; default: that of the weights it started from.
    note : str, optional
        A sentence about these weights, put on top.
    training : TrainingReport, optional
        What the weights were trained on and what they reach.
    has_contacts : bool, optional
        Whether the contact regression was fitted, where the weights are not in `folder`.

    Returns
    -------
    Path
        The file.
    """
    folder, training = Path(folder), training or TrainingReport()
    source = training.source or _cached_source(config, model_id)
    inherited = source.license if source and not license else None
    license = license or inherited
    if has_contacts is None:
        has_contacts = report.has_contacts if report else has_fitted_contacts(folder)
    adapter = (folder / "adapter_config.json").is_file()
    architecture = (config.architectures or [""])[0]
    uses = _uses(architecture, config, has_contacts)
    if adapter:  # without the weights beneath there is nothing to load, and contacts have no auto class
        uses = ("adapter",) if source and architecture in _HEADS else ()
    card = ModelCard.from_template(
        _metadata(name, config, license, training, source, adapter),
        template_str=card_template(),
        name=plain(name),
        model_id=_quoted(model_id),
        config=config,
        report=report,
        published=PUBLISHED[name] if report and is_published(name, config) else None,
        license={"mit": "MIT", "apache-2.0": "Apache-2.0"}.get(license or "", license),
        inherited=inherited,
        note=plain(note or ""),
        architecture=architecture,
        is_values=_is_values(config),
        has_contacts=has_contacts,
        classes=_classes(config) if "Classification" in architecture else (),
        uses=uses,
        adapter=adapter,
        merged=(folder / "merged").is_dir(),
        auto=architecture.replace("MsaFor", "AutoModelFor"),
        base_id=_quoted(source.model_id or source.name) if source else None,
        class_names=config.id2label if "Classification" in architecture else None,
        training=training,
        metrics=METRICS,
    )
    path = folder / "README.md"
    path.write_text(card.content.rstrip("\n") + "\n", encoding="utf-8")
    return path


def _metadata(
    name: str, config: MsaConfig, license: str | None, training: TrainingReport, source: Source | None, adapter: bool
) -> ModelCardData:
    """Make the metadata for the Hub, which leaves out what is None."""
    task = PIPELINE_TAGS.get((config.architectures or [""])[0])
    relation = "adapter" if adapter else training.relation
    if relation is None and getattr(config, "quantization_config", None) is not None:
        relation = "quantized"
    base_model = source.model_id if source else None
    results = _eval_results(training.results, task or "other")
    return ModelCardData(
        license=license,
        library_name="peft" if adapter else "transformers",
        pipeline_tag=task,
        tags=list(TAGS),
        base_model=base_model,
        base_model_relation=relation if base_model else None,
        datasets=list(training.datasets) or None,
        inference=False,  # the Hub's widget sends text, not alignments
        model_name=" ".join(name.split()) if results else None,
        eval_results=results or None,
    )


def _is_values(config: MsaConfig) -> bool:
    return config.problem_type == "regression" or (config.problem_type is None and config.num_labels == 1)


def _uses(architecture: str, config: MsaConfig, has_contacts: bool | None) -> tuple[str, ...]:
    """Which of the template's code blocks fit; contacts not beside another head: the weights have changed since."""
    if architecture == "MsaForTokenClassification":
        return "residue classes", "embeddings"
    if architecture == "MsaForSequenceClassification":
        return "values" if _is_values(config) else "class", "embeddings"
    contacts = ("contacts",) if has_contacts else ()
    if architecture == "MsaForContactPrediction":
        return contacts or (("contacts",) if has_contacts is None else ("embeddings",))
    return *contacts, *(("residues",) if architecture == "MsaForMaskedLM" else ()), "embeddings"


def _classes(config: MsaConfig) -> list[str]:
    """Names of the classes that a head tells apart; none for values, nor where nobody has named them."""
    names = list((config.id2label or {}).values())
    return [] if _is_values(config) or names[:1] == ["LABEL_0"] else list(map(plain, names))


def _eval_results(results: Iterable[Result], task: str) -> list[EvalResult]:
    """Make the entries of the model-index; YAML's infinities are no JSON, and the Hub refuses them."""
    return [
        EvalResult(
            task_type=task,
            dataset_type=re.sub(r"\W+", "-", result.dataset.lower()).strip("-") or "alignments",
            dataset_name=" ".join(result.dataset.split()),
            dataset_split=result.split,
            metric_type=METRICS[result.metric][0],
            metric_name=METRICS[result.metric][1],
            metric_value=float(f"{result.value:.6g}"),
        )
        for result in results
        if math.isfinite(result.value)
    ]


def plain(text: str) -> str:
    """Make one line of text that Markdown does not read as HTML."""
    return " ".join(str(text).split()).replace("<", "&lt;")


def _quoted(text: str) -> str:
    """Write a string as Python does, in double quotes."""
    return json.dumps(str(text), ensure_ascii=False)
