"""What the name of a model stands for: the checkpoint in the package, a folder, or a repository on the Hub.

None of it imports torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..tasks.distance_model import WEIGHTS_NAME

# the checkpoint that comes with the package
EMBEDDED = "msa-tiny"
EMBEDDED_NOTE = (
    "msa-tiny is a small model for trying things out, trained on simulated families: do not rely on its probabilities "
    "and scores for real proteins. Pass --model to use another."
)

# by name: what is published about the weights that fair-esm distributes
PUBLISHED = {
    "esm_msa1b_t12_100M_UR50S": "ESM-MSA-1b, trained on 26 million MSAs of UniRef50 queries against UniClust30",
    "esm_msa1_t12_100M_UR50S": "ESM-MSA-1, trained on 26 million MSAs of UniRef50 queries against UniClust30",
}


def resolve_model(name: str | os.PathLike) -> str:
    """Return the folder of a checkpoint that comes with the package; any other name is returned as it is.

    Examples
    --------
    >>> from modeling_msa.hub.finding import resolve_model
    >>> resolve_model("my/model")
    'my/model'
    """
    embedded = Path(__file__).parents[1] / "checkpoints" / name
    return str(embedded if not Path(name).exists() and (embedded / "config.json").is_file() else name)


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
    """
    found = resolve_model(name)
    is_path = "/" not in found or found.startswith((".", "/", "~"))
    if is_path and not os.path.exists(found):
        raise FileNotFoundError(f"{found}: no such folder. The name of a model on the Hub has the form OWNER/NAME.")
    if os.path.isdir(found) and not os.path.exists(os.path.join(found, "config.json")):
        raise FileNotFoundError(f"{found} is not the folder of a model: it has no config.json.")
    return found


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
