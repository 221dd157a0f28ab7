# Copyright 2026 The modeling-msa authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Complete repositories: what saving and pushing add to transformers' own files.

A complete repository has the config, all code files, the weights and their digests, the tokenizer, a card and the
code's licence.
transformers saves or pushes one object at a time, and copies only the code that this object imports.
"""

import filecmp
import hashlib
import inspect
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from torch import distributed
from transformers.utils import cached_file

CODE_FILES = (
    "configuration_msa_transformer.py",
    "inference_msa_transformer.py",
    "modeling_msa_transformer.py",
    "pipeline_msa_transformer.py",
    "sharing_msa_transformer.py",
    "tokenization_msa_transformer.py",
)
# as earlier versions named them; Python run in such a folder imports its modeling_msa.py instead of the package
OLD_CODE_FILES = tuple(name.replace("_transformer", "") for name in CODE_FILES if not name.startswith("inference"))
LICENSE, CARD = "LICENSE", "README.md"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DIGESTS = "weights.sha256.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
TAGS = ("biology", "protein", "protein-language-model", "msa", "msa-transformer", "contact-prediction")


def find_at_source(owner: Any, name: str, download: bool = False, token: str | bool | None = None) -> Path | None:
    """Find a file of the folder or Hub repository that a model, config or tokenizer came from; None if it has none.

    Without `download`, only the cache is searched for a file of a repository.
    """
    # code of a Hub repository runs from a folder that its commit names, code of a local folder from another
    ran_from = Path(__file__).parent
    commit = ran_from.name if re.fullmatch(r"[0-9a-f]{40}", ran_from.name) else None
    is_of_folder = "transformers_modules" in ran_from.parts and commit is None
    if not owner.name_or_path or (is_of_folder and not os.path.isdir(owner.name_or_path)):
        return None  # a repository that happens to have the name of a deleted folder is not the source
    try:
        path = cached_file(
            owner.name_or_path,
            name,
            revision=getattr(owner, "_source_revision", None) or commit,
            local_files_only=not download,
            token=token,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except (OSError, ValueError):  # a deleted folder, or a name that no repository can have
        return None
    if path is None or (os.path.isdir(owner.name_or_path) and points_out(Path(path), Path(owner.name_or_path))):
        return None
    return Path(path)


def copy_companions(
    owner: Any, folder: str | os.PathLike, download: bool = False, token: str | bool | None = None
) -> None:
    """Copy the code files, and their licence unless there is one, into a folder that `owner` is saved to.

    They lie beside this file, the licence of a checkout one folder above. transformers' cache of modules, from which
    code of the Hub runs, has only what was imported and no licence: the rest comes from where `owner` came from.
    """
    folder, here = Path(folder), Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*CODE_FILES, *(() if (folder / LICENSE).is_file() else (LICENSE,))):
        places = [here / name] if name in CODE_FILES else [here / name, here.parent / name]
        source = next((place for place in places if place.is_file()), None) or find_at_source(
            owner, name, download, token
        )
        if source is not None and source.resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)


def remove_old_code(folder: Path) -> None:
    """Remove the code files under their old names, once neither config nor tokenizer of the folder names them."""
    maps = [folder / name for name in ("config.json", "tokenizer_config.json")]
    text = "".join(path.read_text(encoding="utf-8") for path in maps if path.is_file())
    if re.search(r'"(configuration|modeling|pipeline|tokenization)_msa\.', text):
        return
    for path in (folder / name for name in OLD_CODE_FILES):
        if path.is_file() and "The modeling-msa authors" in path.read_text(encoding="utf-8", errors="replace"):
            path.unlink()


def is_weights(name: str) -> bool:
    """Whether a file of a repository holds its weights, some of them, their index or their digests."""
    return name == DIGESTS or re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?", name) is not None


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_digests(files: Iterable[Path]) -> str:
    """JSON with the SHA-256 of files of weights by name, as `DIGESTS` has it."""
    return json.dumps({path.name: file_sha256(path) for path in sorted(files)}, indent=2) + "\n"


def points_out(path: Path, folder: Path) -> bool:
    """Whether a file of a folder is a link to one outside, which may be private; the Hub's cache has links."""
    target, folder = path.resolve(), folder.resolve()
    return not target.is_relative_to(folder) and target.parent not in [each / "blobs" for each in folder.parents[1:2]]


def upload(
    api: HfApi, repo_id: str, files: Mapping[str, Path | bytes], there: Collection[str], **commit: Any
) -> CommitInfo:
    """Send files by their names in one commit, and remove weights of the repository that these replace.

    transformers would load a single file of weights that lies beside new shards. `there` are the files that the
    repository has; `commit` goes to ``HfApi.create_commit``.
    """
    replaced = [name for name in there if is_weights(name) and name not in files and any(map(is_weights, files))]
    added = [CommitOperationAdd(name, source) for name, source in files.items()]
    return api.create_commit(repo_id, [*map(CommitOperationDelete, replaced), *added], **commit)


def _is_later_rank() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0


class SharingMixin:
    """What a config, a tokenizer or a model saves and pushes."""

    has_weights = False

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Save as transformers does, with all the code and its licence."""
        save: Any = super().save_pretrained  # type: ignore[misc]
        given = inspect.signature(save).bind(save_directory, *args, **kwargs).arguments  # by name, for the push
        kwargs = given.pop("kwargs", {}) | given
        del kwargs["save_directory"]
        push_to_hub = kwargs.pop("push_to_hub", False)
        pushed = inspect.signature(self.push_to_hub).parameters
        options = {name: kwargs.pop(name) for name in kwargs.keys() & pushed.keys()}
        copy_companions(self, save_directory)
        folder, is_main = Path(save_directory).resolve(), kwargs.get("is_main_process", True)
        has_digests = self.has_weights and is_main and not _is_later_rank()
        if has_digests:  # those of other weights must not lie beside half of the new ones
            (folder / DIGESTS).unlink(missing_ok=True)
        saved = save(save_directory, **kwargs)
        weights = [path for path in folder.glob("*.safetensors") if is_weights(path.name)]
        if (folder / "config.json").is_file() and is_main:
            for path in weights:  # safetensors keeps its files to their owner
                shutil.copymode(folder / "config.json", path)
        if has_digests and weights:
            (folder / DIGESTS).write_text(describe_digests(weights), encoding="utf-8")
        remove_old_code(folder)
        if push_to_hub and is_main:
            self.push_to_hub(options.pop("repo_id", folder.name), **options, **kwargs, _saved_to=folder)
        return saved

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        tags: list[str] | None = None,
        _saved_to: Path | None = None,
        **kwargs: Any,
    ) -> CommitInfo:
        """Upload to the Hub in one commit, with what a complete repository has and this one lacks.

        The parameters are those of transformers; further ones, such as ``max_shard_size``, go to `save_pretrained`.
        """
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision and not create_pr and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        there = api.list_repo_files(repo_id, revision=revision)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if CARD in there:
                shutil.copyfile(api.hf_hub_download(repo_id, CARD, revision=revision), folder / CARD)
            self.save_pretrained(folder, **kwargs)
            for name in (LICENSE, CARD, *TOKENIZER_FILES):  # the user's, beside what was saved
                own = _saved_to / name if _saved_to is not None else None
                if own and own.is_file() and not points_out(own, own.parent) and name not in there:
                    shutil.copyfile(own, folder / name)
            copy_companions(self, folder, download=True, token=token)
            self._complete(folder, repo_id, there, tags or [], token)
            if LICENSE in there:  # theirs stays
                (folder / LICENSE).unlink(missing_ok=True)
            return upload(
                api,
                repo_id,
                {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()},
                there,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
            )

    def _complete(self, folder: Path, repo_id: str, there: Collection[str], tags: list[str], token: Any) -> None:
        """Add what else goes up; nothing: tokenizer and card are left to the model, which is pushed later."""


class SharedModelMixin(SharingMixin):
    """What all MSA Transformer classes load and push."""

    has_weights = True
    config: Any
    name_or_path: Any
    tokenizer_class: Any
    # (self, folder, repo_id): writes a new card. The package modeling-msa puts it here; where the code runs without
    # the package, the source's card is all that is known.
    write_card: Any = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # for Trainer's card, too; a list of this model's own, because transformers appends to it
        self.model_tags: list[str] | None = list(TAGS)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does; what this class does not train stays frozen."""
        loaded = super().from_pretrained(*args, **kwargs)  # type: ignore[misc]
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._source_revision = kwargs.get("revision")
        model._freeze_unused()  # loading has unfrozen it
        return loaded

    def _complete(self, folder: Path, repo_id: str, there: Collection[str], tags: list[str], token: Any) -> None:
        if not set(TOKENIZER_FILES) & {*there, *os.listdir(folder)}:
            self.tokenizer_class.for_config(self.config).save_pretrained(folder)
        if not (folder / CARD).is_file():
            self._write_card(folder, repo_id, token)
            tags = [*(self.model_tags or []), *tags]
        if tags:
            card = ModelCard.load(folder / CARD, ignore_metadata_errors=True)
            card.data.tags = list(dict.fromkeys([*(card.data.tags or []), *tags]))
            card.save(folder / CARD)

    def _write_card(self, folder: Path, repo_id: str, token: Any) -> None:
        """Carry the source's card, if it holds for these weights; else write a new one."""
        is_of_hub = not os.path.isdir(self.name_or_path) and find_at_source(self, "config.json") is not None
        theirs, ours = find_at_source(self, WEIGHTS), folder / WEIGHTS
        is_unchanged = theirs is not None and ours.is_file() and filecmp.cmp(theirs, ours, shallow=False)
        source = find_at_source(self, CARD, download=True, token=token)
        if self.write_card is not None and not (source and is_unchanged):
            self.write_card(folder, repo_id)
            card = ModelCard.load(folder / CARD)
        elif source is None:
            card = ModelCard(f"---\nlibrary_name: transformers\n---\n\n# {repo_id.rpartition('/')[2]}\n")
        else:
            card, name = ModelCard.load(source, ignore_metadata_errors=True), Path(self.name_or_path).name
            for loaded in (self.name_or_path, str(Path(self.name_or_path).resolve()), name):  # as its examples load it
                card.text = card.text.replace(f'"{loaded}"', f'"{repo_id}"')
            if not is_unchanged:
                name = self.name_or_path if is_of_hub else name
                card.data.eval_results = card.data.model_name = None  # of the source's weights
                card.text = (
                    f"\n> Made from {name}, with other weights or another head. This is the card of {name}.\n"
                    f"{card.text}"
                )
        card.data.library_name = card.data.library_name or "transformers"
        if is_of_hub and self.name_or_path != repo_id and card.data.base_model is None:
            card.data.base_model = self.name_or_path
        card.save(folder / CARD)
