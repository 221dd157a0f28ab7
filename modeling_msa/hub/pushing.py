"""Sharing a folder on the Hub: what of it goes up, what it lacks first, and sending it in one commit."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable
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
    DIGESTS,
    INDEX,
    LICENSE,
    OLD_CODE_FILES,
    TOKENIZER_FILES,
    WEIGHTS,
    describe_digests,
    is_weights,
    points_out,
    upload,
)
from ..tasks.distance_model import WEIGHTS_NAME
from .checks import check_digest
from .errors import HubError, check_repo_id, hub_errors
from .loading import load_checkpoint

# What a complete repository may hold besides its weights; `recipe.yaml` is what the card of a trained model refers to.
REPOSITORY = {
    CARD,
    LICENSE,
    "config.json",
    "generation_config.json",
    "recipe.yaml",
    *CODE_FILES,
    *OLD_CODE_FILES,
    *TOKENIZER_FILES,
    "special_tokens_map.json",
    WEIGHTS_NAME,
}

# What never goes up unless it is named exactly: why, and names, in lower case, of files or of folders above them.
# Pickles run code when they are loaded; what training leaves tells of paths and machines.
LEFT_OUT = {
    "a secret": (
        *("*token", "*token.*", "*tokens.*", "*token[_-]*", "*secret*", "*password*", "*passwd*", "*credential*"),
        *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx"),
        *("kaggle.json", ".env*", "*.env", "*.env.*", ".netrc", "_netrc", ".ssh", ".aws", "*api[_-]key*"),
    ),
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
    "a pickle": ("*.pt", "*.pth", "*.bin", "*.ckpt", "*.pkl", "*.pickle", "*.joblib"),
    "compiled": ("__pycache__", "*.pyc"),
    "temporary": ("*.tmp", "*.part", "*.incomplete", "*.lock", "*~"),
}
OTHER, LINK = "not part of a model", "a link to a file outside"


@dataclass
class Upload:
    """What a push sends, and where from and to."""

    folder: Path
    repo_id: str  # OWNER/NAME; or NAME, the owner being the user who is logged in
    files: dict[str, int] = field(default_factory=dict)  # sizes in bytes by path in the repository
    left_out: dict[str, str] = field(default_factory=dict)  # files, or folders (which end in a slash), and why
    digests: str = ""  # of the weights, as they go up

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
            lines.append("\nLeft out (--include uploads more):")
            width = max(map(len, self.left_out))
            lines += [f"{name:<{width}}  {why}" for name, why in sorted(self.left_out.items())]
        return "\n".join(lines)


def plan_upload(folder: str | os.PathLike, repo_id: str, include: Iterable[str] = ()) -> Upload:
    """Check that a folder is a complete repository, and choose what of it goes up. Nothing is sent.

    Only the files that make up a model do: config, code, weights that are loaded, tokenizer, card, licence, the recipe
    of a training run and the weights of distances. A link that points out of the folder is never followed.

    Parameters
    ----------
    folder : path
        With config, code, weights, tokenizer, card and licence.
    repo_id : str
        OWNER/NAME, or NAME alone.
    include : iterable of str, optional
        Further files: paths in the folder, patterns such as ``"figures/*.png"``, or folders. What may be a secret,
        pickles, hidden files and what training leaves must be named exactly.

    Returns
    -------
    Upload

    Raises
    ------
    ValueError
        If something is missing, damaged or does not fit, with what to do about it, `repo_id` cannot be a name, or an
        entry of `include` stands for no file.
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
    planned, loaded, include = Upload(folder, repo_id), _weight_files(folder), list(include)
    reasons = {}
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for name, path in paths.items():
        if reason := _reason(name, path, folder, loaded, include):
            reasons[name] = reason
        else:
            planned.files[name] = path.stat().st_size
    for pattern in include:
        if not any(_matches(name, pattern) for name in paths):
            raise ValueError(f"{folder} has no file {pattern}, which is to be included: pass a path in the folder.")
    for name, reason in reasons.items():  # by the topmost folder of which nothing goes up
        above = [f"{parent}/" for parent in reversed(Path(name).parents[:-1])]
        bare = [parent for parent in above if not any(each.startswith(parent) for each in planned.files)]
        planned.left_out.setdefault(bare[0] if bare else name, reason)
    planned.digests = describe_digests(folder / name for name in loaded if name != INDEX)
    planned.files[DIGESTS] = len(planned.digests)
    return planned


def _matches(name: str, pattern: str) -> bool:
    pattern = pattern.removeprefix("./").rstrip("/")
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}/*")


def _reason(name: str, path: Path, folder: Path, loaded: Collection[str], include: Iterable[str]) -> str:
    """Why a file does not go up; "" if it does."""
    if points_out(path, folder):
        return LINK
    if name in REPOSITORY or name in loaded or name in include:
        return ""
    if is_weights(name):
        return "" if name == DIGESTS else "not loaded, as there are other weights"
    for part in name.lower().split("/"):
        for why, patterns in LEFT_OUT.items():
            if any(fnmatchcase(part, pattern) for pattern in patterns):
                return why
    return "" if any(_matches(name, pattern) for pattern in include) else OTHER


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
    links = [name for name in ("config.json", *names, *_weight_files(folder)) if points_out(folder / name, folder)]
    if links:
        return [f"{name} is a link to a file outside, which is not followed: copy the file itself." for name in links]
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
        check_digest(path)
        with safe_open(path, framework="pt"):
            return ""
    except (SafetensorError, OSError, ValueError) as error:
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
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    include: Iterable[str] = (),
) -> str:
    """Upload a complete folder to the Hub in one commit, creating the repository and the branch if needed.

    Parameters
    ----------
    folder, repo_id, include
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
    return send(plan_upload(folder, repo_id, include), private=private, revision=revision)


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
            files | {CARD: planned.card.encode(), DIGESTS: planned.digests.encode()},
            api.list_repo_files(repo_id, revision=revision),
            commit_message="Upload MSA Transformer",
            revision=revision,
        )
    return str(commit.commit_url)
