"""Sharing a folder on the Hub: what goes up, what is missing first, and what the Hub's errors mean."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    is_offline_mode,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from .. import modeling_msa_transformer
from ..configuration_msa_transformer import AUTO_MAP, MsaConfig
from ..sharing_msa_transformer import CARD, INDEX, LICENSE, WEIGHTS, some_of

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
OFFLINE = "Offline mode is on (HF_HUB_OFFLINE), so nothing was sent: unset it."
# httpx's base of all errors, or httpx2's: which one huggingface_hub uses depends on its version
_HTTP_ERRORS = tuple(cls for cls in HfHubHTTPError.__mro__ if cls.__name__ == "HTTPError")


class HubError(OSError):
    """What the Hub refused, or why it could not be reached; the message says the mend."""


@dataclass
class Upload:
    """What a push sends.

    Attributes
    ----------
    folder : Path
        Where it lies.
    repo_id : str
        Where it goes, OWNER/NAME; or NAME, the owner being who is logged in.
    files : dict of str to int
        Sizes in bytes by path in the repository.
    left_out : dict of str to str
        What is not for others, and why: files, or folders (which end in a slash).
    """

    folder: Path
    repo_id: str
    files: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def card(self) -> str:
        """README.md as it goes up: where its code loads this folder by a path, it names the repository."""
        text = (self.folder / CARD).read_text(encoding="utf-8")

        def rename(match: re.Match[str]) -> str:
            return f'{match[1]}"{self.repo_id}"' if is_local_name(match[3], self.folder) else match[0]

        return re.sub(r"""(from_pretrained\(\s*|\bmodel=)(["'])([^"'\n]+)\2""", rename, text)

    def __str__(self) -> str:
        sizes = self.files | {CARD: len(self.card.encode())}
        rows = [(name, _size(sizes[name])) for name in sorted(sizes)]
        total = (f"{len(sizes)} files", _size(sum(sizes.values())))
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
        If something is missing or damaged: all of it, and how to mend it.
    FileNotFoundError
        If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"A repository on the Hub is called OWNER/NAME: {error}") from None
    if problems := find_missing(folder):
        listed = "".join(f"\n  {problem}" for problem in problems)
        mends = "".join(f"\n  {mend}" for mend in dict.fromkeys(problems.values()) if mend)
        raise ValueError(f"{folder} is no complete repository, and nothing was sent:{listed}\nTo mend it:{mends}")
    upload = Upload(folder, repo_id)
    weights = _weight_files(folder)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts = path.relative_to(folder).parts
        if len(parts) == 1 and _is_weights(parts[0]) and parts[0] not in weights:
            upload.left_out[parts[0]] = "not loaded, as there are other weights"
        elif found := _left_out(parts):
            upload.left_out[found[0]] = found[1]
        else:
            upload.files["/".join(parts)] = path.stat().st_size
    return upload


def _left_out(parts: tuple[str, ...]) -> tuple[str, str] | None:
    """The file, or the topmost folder, that does not go up, and why; None if it does."""
    for depth, part in enumerate(parts, start=1):
        for why, patterns in LEFT_OUT.items():
            if any(fnmatchcase(part, pattern) for pattern in patterns):
                return "/".join(parts[:depth]) + ("/" if depth < len(parts) else ""), why
    return None


def find_missing(folder: Path) -> dict[str, str]:
    """What a folder lacks of a complete repository, each with its mend; empty if it is whole."""
    if (folder / "adapter_config.json").is_file():
        merged = f"push {folder / 'merged'}, the model with them in it"
        mend = merged if (folder / "merged").is_dir() else "save the model with them in it (PEFT: merge_and_unload)"
        return {"it holds adapters, not a model": mend}
    again = "in Python, import {0} from modeling_msa: {0}.from_pretrained({1!r}).save_pretrained({1!r})"
    save, save_tokenizer = (again.format(name, str(folder)) for name in ("MsaConfig", "MsaTokenizer"))
    problems: dict[str, str] = {}
    maps: dict[str, Any] = {}
    for name, wanted, mend in (
        ("config.json", AUTO_MAP, save),
        ("tokenizer_config.json", ["AutoTokenizer"], save_tokenizer),
    ):
        content = _read_json(folder / name)
        if content is None:
            what = "tokenizer" if "tokenizer" in name else "model"
            problems[f"{name} is missing, or damaged"] = f"save the {what} there by save_pretrained"
            continue
        kind = content.get("model_type")
        if wanted is AUTO_MAP and kind != MsaConfig.model_type:
            return {f"it holds a model of the type {kind!r}, not {MsaConfig.model_type!r}": "push it by other means"}
        auto_map = content.get("auto_map") or {}
        if lacking := [key for key in wanted if key not in auto_map or "--" in str(auto_map[key])]:
            problems[f"the auto_map of {name} lacks {', '.join(lacking)}"] = mend
        maps |= auto_map | {key: task.get("impl") for key, task in (content.get("custom_pipelines") or {}).items()}
    if lacking := [name for name in _code_files(folder, maps) if not (folder / name).is_file()]:
        problems[f"code is missing: {', '.join(lacking)}"] = save
    problems |= dict.fromkeys(_weight_problems(folder), "save the model there by save_pretrained, or copy it again")
    if not (folder / CARD).is_file():
        problems[f"{CARD} is missing, the model card"] = (
            "write a card, or in Python, import complete_folder and MsaConfig from modeling_msa: "
            f"complete_folder({str(folder)!r}, MsaConfig.from_pretrained({str(folder)!r}), {folder.resolve().name!r})"
        )
    if not (folder / LICENSE).is_file():
        problems[f"{LICENSE} is missing, the code's"] = save
    return problems


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _code_files(folder: Path, maps: dict[str, Any]) -> list[str]:
    """Files that the maps name, and those that they import, as far as they are there to be read."""
    values = [value for entry in maps.values() for value in (entry if isinstance(entry, list) else [entry])]
    files = [f"{value.partition('.')[0]}.py" for value in values if isinstance(value, str) and "--" not in value]
    files = list(dict.fromkeys(files))
    for name in files:  # grows as it goes
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            found = re.findall(r"^\s*from\s+\.(\w+)\s+import", text, flags=re.MULTILINE)
            files += [file for file in dict.fromkeys(f"{module}.py" for module in found) if file not in files]
    return files


def _is_weights(name: str) -> bool:
    return re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", name) is not None


def _weight_files(folder: Path) -> list[str]:
    """Files of weights that are loaded: the single one goes first, as in transformers; else what the index names."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    index = _read_json(folder / INDEX)
    shards = index.get("weight_map") if index else None
    return [INDEX, *sorted(set(shards.values()))] if isinstance(shards, dict) and shards else []


def _weight_problems(folder: Path) -> list[str]:
    files = _weight_files(folder)
    if not files:
        return [f"the weights are missing: {WEIGHTS}, or {INDEX} with its shards"]
    problems, held = [], {}
    for name in (name for name in files if name != INDEX):
        try:
            with safe_open(folder / name, framework="pt") as file:
                held[name] = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            why = f"is damaged ({error})" if (folder / name).is_file() else f"is missing, which {INDEX} names"
            problems.append(f"{name} {why}")
    if not problems:
        problems += _misfits(folder, {key: shape for shapes in held.values() for key, shape in shapes.items()})
    named = _read_json(folder / INDEX)["weight_map"] if INDEX in files else {}  # type: ignore[index]
    if lacking := [tensor for tensor, name in named.items() if name in held and tensor not in held[name]]:
        problems.append(f"{named[lacking[0]]} lacks {lacking[0]}, which {INDEX} names")
    return problems


def _misfits(folder: Path, shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """What of the weights is not as the config and its class want it."""
    saved = _read_json(folder / "config.json") or {}
    cls = getattr(modeling_msa_transformer, (saved.get("architectures") or [""])[0], None)
    if cls is None or "quantization_config" in saved:  # a class of the user's own; torchao stores other tensors
        return []
    with torch.device("meta"):
        model = cls(MsaConfig.from_pretrained(folder))
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    lacking = wanted.keys() - shapes.keys() - set(model.all_tied_weights_keys)
    wrong = {name for name in wanted.keys() & shapes.keys() if wanted[name] != shapes[name]}
    if not lacking | wrong:
        return []
    words = [
        f"{word} {some_of(names)}" for word, names in (("lacking", lacking), ("of another shape", wrong)) if names
    ]
    return [f"the weights do not fit {cls.__name__} and config.json: {'; '.join(words)}"]


def is_local_name(name: str, folder: Path) -> bool:
    """Whether what a card's code loads is the folder here rather than a repository.

    Examples
    --------
    >>> is_local_name("msa1b", Path("models/msa1b")), is_local_name("them/msa1b-base", Path("models/msa1b"))
    (True, False)
    """
    return name.count("/") != 1 or Path(name).is_dir() or Path(name).name == folder.resolve().name


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
    """Raise if nobody is logged in to the Hub: better before a long conversion than after. Gives the user's name."""
    if is_offline_mode():
        raise HubError(OFFLINE)
    if not get_token():
        raise HubError(
            "Nobody is logged in to the Hub: run hf auth login, or set HF_TOKEN, with a token that may write."
        )
    with hub_errors("", sending=True):
        return HfApi().whoami()["name"]


def push_folder(
    folder: str | os.PathLike, repo_id: str, *, private: bool | None = None, revision: str | None = None
) -> str:
    """Upload a complete folder to the Hub in one commit, making the repository and the branch if need be.

    Parameters
    ----------
    folder, repo_id
        As in `plan_upload`.
    private : bool, optional
        Of a repository that is made; default: as the owner has set it.
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
        If the Hub refused it, or could not be reached. What has arrived is not sent again by the next call.
    """
    return send(plan_upload(folder, repo_id), private=private, revision=revision)


def send(upload: Upload, *, private: bool | None = None, revision: str | None = None) -> str:
    """Send what `plan_upload` chose, as `push_folder` does."""
    api, user = HfApi(), require_login()
    if "/" not in upload.repo_id:
        upload.repo_id = f"{user}/{upload.repo_id}"
    repo_id = upload.repo_id
    with hub_errors(repo_id, sending=True):
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.model_info(repo_id).private:
            raise HubError(
                f"{repo_id} exists already and is public, so nothing was sent: make it private in its settings first, "
                "or choose another name."
            )
        if revision and revision != constants.DEFAULT_REVISION:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        # else weights of an earlier push would be loaded before shards
        there = api.list_repo_files(repo_id, revision=revision)
        stale = [name for name in there if _is_weights(name) and name not in upload.files]
        commit = api.create_commit(  # not upload_folder: that one may make several commits
            repo_id,
            [
                *(CommitOperationDelete(name) for name in stale),
                *(
                    CommitOperationAdd(name, upload.card.encode() if name == CARD else str(upload.folder / name))
                    for name in upload.files
                ),
            ],
            commit_message="Upload MSA Transformer",
            revision=revision,
        )
    return str(commit.commit_url)


@contextmanager
def hub_errors(repo_id: str, sending: bool = False) -> Iterator[None]:
    """Turn what huggingface_hub and transformers raise into `HubError`, in words; other errors go through."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        chain: list[BaseException] = [error]
        while cause := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(cause)
        words = next(filter(None, (_words(each, repo_id, sending) for each in reversed(chain))), None)
        if words is None:
            raise
        raise HubError(words) from error


def _words(error: BaseException, repo_id: str, sending: bool) -> str | None:
    """What one error of a chain means; None if it is none of the Hub's."""
    again = "Run it again: what has arrived is not sent again." if sending else "Run it again."
    if isinstance(error, OfflineModeIsEnabled) and sending:
        return OFFLINE
    if isinstance(error, OfflineModeIsEnabled) or (is_offline_mode() and isinstance(error, LocalEntryNotFoundError)):
        return (
            f"{repo_id} is no folder and not, or not whole, in the cache, and offline mode is on (HF_HUB_OFFLINE): "
            "load it once with the network, or name a folder."
        )
    if isinstance(error, HfHubHTTPError) and getattr(error, "response", None) is not None:
        return _status_words(error, repo_id, sending, again)
    if isinstance(error, _HTTP_ERRORS) and not hasattr(
        error, "response"
    ):  # what has one comes again, as the Hub's own
        return f"The connection to {constants.ENDPOINT} could not be made, or was cut ({error}). {again}"
    return None


def _status_words(error: HfHubHTTPError, repo_id: str, sending: bool, again: str) -> str | None:
    status = error.response.status_code
    said = f" (the Hub says: {error.server_message})" if error.server_message else ""
    if status == 401 and (not isinstance(error, RepositoryNotFoundError) or not repo_id):
        mend = "log in again by hf auth login, or set another HF_TOKEN" if get_token() else "run hf auth login first"
        return f"The Hub does not know you: {mend}{said}."
    if isinstance(error, RepositoryNotFoundError):
        what = "repository" if sending else "folder and no repository"
        mend = "and your token may not read it" if get_token() else "then run hf auth login first, or set HF_TOKEN"
        return f"There is no {what} {repo_id} on the Hub; or it is private, {mend}{said}."
    if status == 403:
        what = "write to" if sending else "read"
        return (
            f"Your token may not {what} {repo_id}{said}. Log in by hf auth login with a token that may, or name a "
            "repository of your own."
        )
    if status == 404:  # transformers names the file or revision that it looked for
        return f"{repo_id} on the Hub has no such revision or file{said}." if sending else None
    if status in (409, 412):
        return f"Somebody else changed {repo_id} meanwhile{said}. {again}"
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        when = f"in {wait} seconds" if wait else "in some minutes"
        return f"The Hub takes no more requests from you for now (429): try {when}. {again}"
    if status >= 500:
        return f"The Hub has failed ({status}){said}: try in some minutes. {again}"
    return f"The Hub refused it ({status}){said or f': {error}'}."
