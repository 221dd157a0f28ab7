"""What the name of a model stands for: the checkpoint in the package, a folder, or a repository on the Hub.

None of it imports torch.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .._files import file_sha256, stands_for
from ..tasks.distance_model import WEIGHTS_NAME

# the checkpoint that commands use by default; it comes with the package, as do all that the notes name
EMBEDDED = "msa-small"
_EMBEDDED_FOLDERS = Path(__file__).parents[1] / "checkpoints"
EMBEDDED_NOTES = {
    "msa-small": (
        "msa-small is a small model that was trained for minutes; its card says what it reaches. Pass --model to use "
        "another, such as the published ESM-MSA-1b."
    ),
    "msa-tiny": (
        "msa-tiny is for tests and was trained on simulated families: do not rely on its probabilities and scores for "
        "real proteins. Pass --model to use another."
    ),
}

ADAPTER_CONFIG = "adapter_config.json"  # PEFT's name
# files that the weights of a model, or of adapters, are in
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")

# by name: what is published about the weights that fair-esm distributes
PUBLISHED = {
    "esm_msa1b_t12_100M_UR50S": "ESM-MSA-1b, trained on 26 million MSAs of UniRef50 queries against UniClust30",
    "esm_msa1_t12_100M_UR50S": "ESM-MSA-1, trained on 26 million MSAs of UniRef50 queries against UniClust30",
}


def resolve_model(name: str | os.PathLike) -> str:
    """Return the folder of a checkpoint that comes with the package; any other name or path is returned as it is.

    ``msa-small`` is the checkpoint of the package even beside a folder of that name, which is ``./msa-small``.

    Examples
    --------
    >>> from modeling_msa.hub.finding import resolve_model
    >>> resolve_model("my/model")
    'my/model'
    """
    embedded = _EMBEDDED_FOLDERS / name
    return str(embedded if stands_for(name, embedded / "config.json", "model") else name)


def embedded_name(folder: str | os.PathLike) -> str | None:
    """Return the name of a folder that comes with the package; None for any other."""
    path = Path(folder).resolve()
    return path.name if path.parent == _EMBEDDED_FOLDERS.resolve() else None


def check_checkpoint(name: str | os.PathLike) -> None:
    """Raise FileNotFoundError if `name` is neither a fair-esm file nor the name of a published checkpoint."""
    if str(name) not in PUBLISHED and not Path(name).is_file():
        raise FileNotFoundError(
            f"There is no file {name}. Pass a fair-esm checkpoint (.pt) or one of the published names: "
            f"{', '.join(PUBLISHED)}."
        )


def find_model(name: str | os.PathLike) -> str:
    """Return the folder or Hub id that `name` stands for.

    Raises
    ------
    FileNotFoundError
        If `name` can only be a folder and does not exist, or is a folder without config.json.
    ValueError
        If `name` is a file.
    """
    found = resolve_model(name)
    if not os.path.exists(found) and not _may_be_on_the_hub(found):
        raise FileNotFoundError(f"{found}: no such folder. The name of a model on the Hub has the form OWNER/NAME.")
    if os.path.isfile(found):
        raise ValueError(
            f"{found} is a file, not the folder of a model. Convert a fair-esm checkpoint (.pt) into a folder first "
            "(msa convert)."
        )
    if os.path.isdir(found) and not (is_adapter(found) or os.path.exists(os.path.join(found, "config.json"))):
        raise FileNotFoundError(f"{found} is not the folder of a model: it has no config.json.")
    return found


def _may_be_on_the_hub(name: str) -> bool:
    return "/" in name and not name.startswith((".", "/", "~"))


def is_adapter(folder: str | os.PathLike) -> bool:
    """Whether a folder holds adapters (PEFT) beside a base model that lies elsewhere.

    Raises
    ------
    ValueError
        If it holds a whole model too, so that it is not clear which of them is meant.
    """
    has_adapter = Path(folder, ADAPTER_CONFIG).is_file()
    if has_adapter and Path(folder, "config.json").is_file():
        raise ValueError(
            f"{folder} holds both a whole model (config.json) and adapters ({ADAPTER_CONFIG}): move one of them, with "
            "its weights, to a folder of its own."
        )
    return has_adapter


def read_adapter(folder: str | os.PathLike) -> dict[str, Any]:
    """Read the adapter_config.json of a folder; ValueError if it is damaged or names no base model.

    The value of ``auto_mapping["modeling_msa"]``, which `modeling_msa.training.adapters` writes, is always a dict.
    """
    path = Path(folder, ADAPTER_CONFIG)
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        saved["auto_mapping"] = saved.get("auto_mapping") or {}
        noted = saved["auto_mapping"].setdefault("modeling_msa", {})
        noted |= {"base_sha256": dict(noted.get("base_sha256") or {}), "config": dict(noted.get("config") or {})}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}). Copy or train the adapters again.") from None
    if not isinstance(saved.get("base_model_name_or_path"), str):
        raise ValueError(f"{path} does not name the model that the adapters belong to (base_model_name_or_path).")
    return saved


def find_base(folder: str | os.PathLike) -> str:
    """Return the folder or Hub id of the model that a folder's adapters belong to.

    A local base may lie where it lay when the adapters were saved, or in the same place relative to them. If its
    weights were noted, they must be the same.

    Raises
    ------
    FileNotFoundError
        If the base is not there.
    ValueError
        If it has other weights than the ones that the adapters were trained on, or adapter_config.json is damaged.
    """
    saved = read_adapter(folder)
    name, noted = saved["base_model_name_or_path"], saved["auto_mapping"]["modeling_msa"]
    relative = noted.get("base_folder")
    if isinstance(relative, str):
        places = [name, os.path.normpath(os.path.join(folder, relative))]
    elif name in EMBEDDED_NOTES and "base_folder" in noted:
        places = [str(_EMBEDDED_FOLDERS / name)]  # not a folder of that name that happens to be here
    elif not os.path.isdir(name) and _may_be_on_the_hub(name):
        return name
    else:
        places = [name]
    found = [place for place in places if os.path.isdir(place) and not os.path.samefile(place, folder)]
    for place in found:
        if all(_has_digest(Path(place, file), digest) for file, digest in noted["base_sha256"].items()):
            return place
    merged = Path(folder, "merged")
    whole = f" {merged}, a whole model, loads without it." if merged.is_dir() else ""
    if found:
        raise ValueError(
            f"{folder} holds adapters that were trained on other weights than those in {found[0]} now: copy the "
            f"weights that they belong to there.{whole}"
        )
    raise FileNotFoundError(
        f"{folder} holds adapters, and the model that they belong to is missing: there is no folder "
        f"{' or '.join(dict.fromkeys(places))}. Copy it there.{whole}"
    )


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def model_files(name: str | os.PathLike) -> dict[str, Path]:
    """List the files that decide what a model computes, without importing torch.

    Parameters
    ----------
    name : path or str
        As for `load_model`.

    Returns
    -------
    dict of str to Path
        ``config.json``, the weights, and what adapters have instead, by their names; those of the model that adapters
        belong to as ``base/config.json`` and so on. Empty for a Hub id.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or its adapters belong to a model that is not there.
    ValueError
        If the folder holds both adapters and a whole model, or adapter_config.json is damaged.
    """
    folder = Path(find_model(name))
    if not folder.is_dir():
        return {}
    found = [*folder.glob("config.json"), *folder.glob(ADAPTER_CONFIG)]
    found += [path for pattern in _WEIGHTS for path in folder.glob(pattern)]
    files = {path.name: path for path in sorted(found) if path.name not in ("training_args.bin", "optimizer.bin")}
    base = model_files(find_base(folder)) if is_adapter(folder) else {}
    return files | {f"base/{key}": path for key, path in base.items()}


def fetch_model(repo_id: str) -> Path:
    """Fetch what decides what a Hub repository's model computes; return its folder, which is named after the commit.

    Without a network, the files that were fetched last.

    Raises
    ------
    HubError
        If there is no such repository, or the Hub cannot be reached or refuses it.
    """
    from huggingface_hub import snapshot_download  # slow to import

    from .errors import hub_errors, must_use_cache

    named = ["config.json", "adapter_config.json"]
    endings = "{}*.safetensors", "{}*.safetensors.index.json"
    with hub_errors(repo_id):
        hub: dict[str, Any] = {"local_files_only": must_use_cache(repo_id)}
        names = [*named, *(each.format(stem) for stem in ("model", "adapter_model") for each in endings)]
        folder = Path(snapshot_download(repo_id, allow_patterns=names, **hub))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(repo_id, allow_patterns=["pytorch_model*.bin*"], **hub))
    return folder


def find_distance_weights(model: str | os.PathLike) -> Path | None:
    """Path of the ``distances.json`` in a model's folder or Hub repository, if it has one."""
    folder = Path(resolve_model(model))
    if folder.is_dir():
        return folder / WEIGHTS_NAME if (folder / WEIGHTS_NAME).is_file() else None
    from huggingface_hub import hf_hub_download  # slow to import
    from huggingface_hub.errors import EntryNotFoundError

    from .errors import must_use_cache

    try:
        return Path(hf_hub_download(str(model), WEIGHTS_NAME, local_files_only=must_use_cache(str(model))))
    except EntryNotFoundError:  # also without a network, if it was never fetched
        return None
