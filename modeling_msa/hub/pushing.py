"""Sharing a folder on the Hub: what of it goes up, what it lacks first, and sending it in one commit."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from safetensors import SafetensorError, safe_open

from .. import modeling_msa_transformer
from .._words import counted
from ..configuration_msa_transformer import AUTO_MAP, MsaConfig
from ..modeling_msa_transformer import MsaModel
from ..sharing_msa_transformer import (
    CARD,
    CODE_FILES,
    INDEX,
    LICENSE,
    OLD_CODE_FILES,
    TOKENIZER_FILES,
    WEIGHTS,
    is_weights,
    upload,
)
from .errors import HubError, check_repo_id, hub_errors
from .loading import load_checkpoint

# What a folder may hold that is not for others: why, and names of files or of folders above them. Pickles run code
# when they are loaded; what training leaves tells of paths and machines.
LEFT_OUT = {
    "hidden": (".*",),
    "of training": (
        "checkpoint-*",
        "global_step*",
        "optimizer*",
        "trainer_state.json",
        "events.out.tfevents*",
        "wandb",
        "*.log",
    ),
    "a secret": ("*token", "id_rsa*", "id_ed25519*", "*.pem", "*.key"),
    "a pickle": ("*.pt", "*.pth", "*.bin", "*.ckpt", "*.pkl", "*.pickle", "*.joblib"),
    "compiled": ("__pycache__", "*.pyc"),
    "temporary": ("*.tmp", "*.part", "*.incomplete", "*.lock", "*~"),
}


@dataclass
class Upload:
    """What a push sends, and where from and to."""

    folder: Path
    repo_id: str  # OWNER/NAME; or NAME, the owner being the user who is logged in
    files: dict[str, int] = field(default_factory=dict)  # sizes in bytes by path in the repository
    left_out: dict[str, str] = field(default_factory=dict)  # files, or folders (which end in a slash), and why

    @property
    def card(self) -> str:
        """README.md as it goes up: where its code loads this folder by a path, it names the repository."""
        text = (self.folder / CARD).read_text(encoding="utf-8")

        def rename(match: re.Match[str]) -> str:
            name = match[3]
            is_local = name.count("/") != 1 or Path(name).is_dir() or Path(name).name == self.folder.resolve().name
            return f'{match[1]}"{self.repo_id}"' if is_local else match[0]

        return re.sub(r"""(from_pretrained\(\s*|\bmodel=)(["'])([^"'\n]+)\2""", rename, text)

    def __str__(self) -> str:
        sizes = self.files | {CARD: len(self.card.encode())}
        rows = [(name, _size(sizes[name])) for name in sorted(sizes)]
        total = (counted(len(sizes), "file"), _size(sum(sizes.values())))
        names, figures = (max(map(len, column)) for column in zip(*rows, total, strict=True))
        lines = [f"{name:<{names}}  {figure:>{figures}}" for name, figure in [*rows, total]]
        lines.insert(-1, "-" * len(lines[0]))
        if self.left_out:
            lines.append("\nLeft out:")
            width = max(map(len, self.left_out))
            lines += [f"{name:<{width}}  {why}" for name, why in sorted(self.left_out.items())]
        return "\n".join(lines)


def plan_upload(folder: str | os.PathLike, repo_id: str) -> Upload:
    """Check that a folder is a complete repository, and choose what of it goes up. Nothing is sent.

    Parameters
    ----------
    folder : path
        With config, code, weights, tokenizer, card and licence.
    repo_id : str
        OWNER/NAME, or NAME alone.

    Returns
    -------
    Upload

    Raises
    ------
    ValueError
        If something is missing, damaged or does not fit, with what to do about it, or `repo_id` cannot be a name.
    FileNotFoundError
        If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    check_repo_id(repo_id)
    if problems := find_problems(folder):
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ValueError(f"{folder} is not a complete repository, so nothing was sent:{listed}")
    planned, loaded = Upload(folder, repo_id), _weight_files(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = path.relative_to(folder).parts
        if found := _left_out(parts):
            planned.left_out[found[0]] = found[1]
        elif path.parent == folder and is_weights(path.name) and path.name not in loaded:
            planned.left_out[path.name] = "not loaded, as there are other weights"
        else:
            planned.files["/".join(parts)] = path.stat().st_size
    return planned


def _left_out(parts: tuple[str, ...]) -> tuple[str, str] | None:
    """The file, or the topmost folder, that does not go up, and why; None if it does."""
    for depth, part in enumerate(parts, start=1):
        for why, patterns in LEFT_OUT.items():
            if any(fnmatchcase(part, pattern) for pattern in patterns):
                return "/".join(parts[:depth]) + ("/" if depth < len(parts) else ""), why
    return None


def find_problems(folder: Path) -> list[str]:
    """Say what a folder lacks of a complete repository, and what to do; empty if it is whole."""
    if (folder / "adapter_config.json").is_file():
        merged = f"push {folder / 'merged'}" if (folder / "merged").is_dir() else "save it (PEFT: merge_and_unload)"
        return [f"It holds adapters instead of a model. Merge them into one and {merged}."]
    config, tokenizer = (_read_json(folder / name) for name in ("config.json", "tokenizer_config.json"))
    if config is None:
        return ["config.json is missing or damaged. Save the model to the folder with save_pretrained."]
    if config.get("model_type") != MsaConfig.model_type:
        return [f"It holds a model of the type {config.get('model_type')!r}, not {MsaConfig.model_type!r}."]
    maps = (config.get("auto_map") or {}) | ((tokenizer or {}).get("auto_map") or {})
    code = OLD_CODE_FILES if maps.get("AutoModel") == "modeling_msa.MsaModel" else CODE_FILES
    names = [*code, *TOKENIZER_FILES, LICENSE, CARD]
    problems = [f"{name} is missing." for name in names if not (folder / name).is_file()]
    lacking = [key for key in (*AUTO_MAP, "AutoTokenizer") if key not in maps or "--" in str(maps[key])]
    if lacking:
        problems.append(f"The auto_map lacks {', '.join(lacking)}.")
    if problems:
        place, name = repr(str(folder)), repr(folder.resolve().name)
        card = "" if (folder / CARD).is_file() else f"; complete_folder({place}, config, {name})"
        problems.append(
            "To complete it, in Python: from modeling_msa import MsaConfig, MsaTokenizer, complete_folder; "
            f"config = MsaConfig.from_pretrained({place}); config.save_pretrained({place}); "
            f"MsaTokenizer.for_config(config).save_pretrained({place}){card}"
        )
    return problems + _weight_problems(folder, config)


def _weight_problems(folder: Path, config: dict[str, Any]) -> list[str]:
    files = _weight_files(folder)
    if not files:
        return [f"The weights are missing: {WEIGHTS}, or {INDEX} with its shards."]
    if "quantization_config" in config:  # their tensors are torchao's, so only the files are checked
        return [problem for name in files if name != INDEX and (problem := _file_problem(folder / name))]
    cls = getattr(modeling_msa_transformer, (config.get("architectures") or [""])[0], MsaModel)
    try:
        load_checkpoint(cls, folder, use_safetensors=True)
    except (ValueError, OSError) as error:
        return [str(error)]
    return []


def _weight_files(folder: Path) -> list[str]:
    """Files of weights that are loaded: the single one comes first, as in transformers; else what the index names."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    shards = (_read_json(folder / INDEX) or {}).get("weight_map")
    return [INDEX, *sorted(set(shards.values()))] if isinstance(shards, dict) and shards else []


def _file_problem(path: Path) -> str:
    try:
        with safe_open(path, framework="pt"):
            return ""
    except (SafetensorError, OSError) as error:
        return f"{path.name} is missing or damaged ({error}). Save the model again, or copy it again."


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _size(count: int) -> str:
    """Bytes in decimal units, as the Hub shows them.

    >>> _size(12), _size(1369704)
    ('12 B', '1.4 MB')
    """
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"


def require_login() -> str:
    """Raise HubError if nobody is logged in to the Hub, before long work rather than after; return the user's name."""
    with hub_errors(constants.ENDPOINT):
        return HfApi().whoami()["name"]


def push_folder(
    folder: str | os.PathLike, repo_id: str, *, private: bool | None = None, revision: str | None = None
) -> str:
    """Upload a complete folder to the Hub in one commit, creating the repository and the branch if needed.

    Parameters
    ----------
    folder, repo_id
        As in `plan_upload`.
    private : bool, optional
        Whether a new repository is private; default: as the owner has set it.
    revision : str, optional
        The branch; default main.

    Returns
    -------
    str
        Address of the commit.

    Raises
    ------
    ValueError
        If the folder is not complete.
    HubError
        If the Hub refused it, or could not be reached. Files that have arrived are not sent again by the next call.
    """
    return send(plan_upload(folder, repo_id), private=private, revision=revision)


def send(planned: Upload, *, private: bool | None = None, revision: str | None = None) -> str:
    """Send what `plan_upload` chose, as `push_folder` does."""
    api, user = HfApi(), require_login()
    if "/" not in planned.repo_id:
        planned.repo_id = f"{user}/{planned.repo_id}"
    repo_id = planned.repo_id
    with hub_errors(repo_id):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise HubError(
                f"{repo_id} exists already and is public, so nothing was sent: make it private in its settings first, "
                "or choose another name."
            )
        if revision and revision != constants.DEFAULT_REVISION:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        files: dict[str, Path | bytes] = {name: planned.folder / name for name in planned.files}
        commit = upload(
            api,
            repo_id,
            files | {CARD: planned.card.encode()},
            api.list_repo_files(repo_id, revision=revision),
            commit_message="Upload MSA Transformer",
            revision=revision,
        )
    return str(commit.commit_url)
