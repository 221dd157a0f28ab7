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
"""Complete repositories: what saving and pushing leave beyond transformers', and what loading insists on.

A complete repository has the config, all code files, the weights, the tokenizer, a card and the code's licence.
transformers saves or pushes one object at a time, copies only the code that this object imports, and initialises anew
what it does not find in a file of weights.
"""

import filecmp
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import RevisionNotFoundError
from safetensors import SafetensorError
from transformers.utils import PushToHubMixin, cached_file

CODE_FILES = (
    "configuration_msa_transformer.py",
    "modeling_msa_transformer.py",
    "pipeline_msa_transformer.py",
    "sharing_msa_transformer.py",
    "tokenization_msa_transformer.py",
)
LICENSE, CARD, WEIGHTS, INDEX = "LICENSE", "README.md", "model.safetensors", "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
TAGS = ("biology", "protein", "protein-language-model", "msa", "msa-transformer", "contact-prediction")


def find_at_source(owner: Any, name: str, download: bool = False, token: str | bool | None = None) -> Path | None:
    """A file of the folder or Hub repository that a model, config or tokenizer came from; None if there is none.

    Without `download` a repository is looked for in the cache only.
    """
    # code of a Hub repository runs from a folder that its commit names, code of a local folder from another
    ran_from = Path(__file__).parent
    commit = ran_from.name if re.fullmatch(r"[0-9a-f]{40}", ran_from.name) else None
    is_of_folder = "transformers_modules" in ran_from.parts and commit is None
    if not owner.name_or_path or (is_of_folder and not os.path.isdir(owner.name_or_path)):
        return None  # a folder that is gone is no repository that happens to have its name
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
    except (OSError, ValueError):  # a folder that is gone, a name that no repository can have
        return None
    return None if path is None else Path(path)


def copy_companions(
    owner: Any, folder: str | os.PathLike, download: bool = False, token: str | bool | None = None
) -> None:
    """Copy the code files and their licence, unless one is there, into a folder that `owner` is saved to.

    They lie beside this file, the licence of a checkout one above. transformers' cache of modules, from which code of
    the Hub runs, has only what was imported and no licence: the rest comes from where `owner` came from.
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


class _Timestamps(dict):
    """When the files of a folder were written before it was saved to, and its card of that time."""

    card = b""


class SharingMixin(PushToHubMixin):
    """What a config, a tokenizer or a model pushes, by ``push_to_hub`` or ``save_pretrained(push_to_hub=True)``."""

    def _upload_modified_files(  # type: ignore[override]
        self,
        working_dir: str | os.PathLike,
        repo_id: str,
        files_timestamps: dict[str, float],
        token: str | bool | None = None,
        revision: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Complete the folder before it goes up: every way of pushing ends here, with one commit."""
        folder, api = Path(working_dir), HfApi(token=token)
        try:
            there = set(api.list_repo_files(repo_id, revision=revision))
        except RevisionNotFoundError:  # a branch that is yet to be made, from main
            revision_there, there = None, set(api.list_repo_files(repo_id))
        else:
            revision_there = revision
        if (folder / INDEX).is_file() and WEIGHTS in there:
            raise ValueError(
                f"{repo_id} has {WEIGHTS}, which would be loaded instead of these shards: remove it there, or save to "
                "a folder and use `msa push`, which removes it."
            )
        copy_companions(self, folder, download=True, token=token)
        if LICENSE in there:  # theirs stays
            files_timestamps[LICENSE] = float("inf")
        if own := getattr(files_timestamps, "card", None):
            (folder / CARD).write_bytes(own)
            os.utime(folder / CARD, (files_timestamps[CARD],) * 2)
        elif (folder / CARD).is_file():  # transformers has just put one there
            theirs = api.hf_hub_download(repo_id, CARD, revision=revision_there) if CARD in there else None
            self._complete_card(folder / CARD, repo_id, theirs, token)
        self._complete_tokenizer(folder, there)
        # what was in the folder already goes up too, if the repository lacks it
        for name in {*CODE_FILES, LICENSE, CARD, *TOKENIZER_FILES} - there:
            files_timestamps.pop(name, None)
        return super()._upload_modified_files(
            working_dir, repo_id, files_timestamps, token=token, revision=revision, **kwargs
        )

    def _get_files_timestamps(self, working_dir: str | os.PathLike) -> dict[str, float]:
        """Keep the folder's card, too: saving with ``push_to_hub=True`` writes transformers' over it."""
        timestamps, card = _Timestamps(super()._get_files_timestamps(working_dir)), Path(working_dir, CARD)
        timestamps.card = card.read_bytes() if card.is_file() else b""
        return timestamps

    def _complete_card(self, path: Path, repo_id: str, theirs: str | None, token: Any) -> None:
        """Keep the repository's card as it is; without one, leave it to the model that is pushed later."""
        path.unlink() if theirs is None else shutil.copyfile(theirs, path)

    def _complete_tokenizer(self, folder: Path, there: set[str]) -> None:
        """Only a model needs one."""


class SharedModelMixin(SharingMixin):
    """What all MSA Transformer classes load and push."""

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

    def _complete_tokenizer(self, folder: Path, there: set[str]) -> None:
        if not (set(TOKENIZER_FILES) & there or (folder / TOKENIZER_FILES[1]).is_file()):
            self.tokenizer_class.for_config(self.config).save_pretrained(folder)

    def _complete_card(self, path: Path, repo_id: str, theirs: str | None, token: Any) -> None:
        """Keep the repository's card; else carry the source's, if it holds for these weights; else write a new one."""
        tags = ModelCard.load(path, ignore_metadata_errors=True).data.tags or []  # the user's among them
        source = find_at_source(self, CARD, download=True, token=token)
        if theirs is not None:
            shutil.copyfile(theirs, path)
        elif source is not None and (self.write_card is None or self._has_weights_of_source(path.parent)):
            self._carry_card(source, path, repo_id)
        elif self.write_card is not None:
            self.write_card(path.parent, repo_id)
        card = ModelCard.load(path, ignore_metadata_errors=True)
        card.data.tags = list(dict.fromkeys([*(card.data.tags or []), *TAGS, *tags]))
        card.data.library_name = card.data.library_name or "transformers"
        if self._is_of_hub() and self.name_or_path != repo_id and card.data.base_model is None:
            card.data.base_model = self.name_or_path
        card.save(path)

    def _carry_card(self, source: Path, path: Path, repo_id: str) -> None:
        card, name = ModelCard.load(source, ignore_metadata_errors=True), Path(self.name_or_path).name
        for loaded in (self.name_or_path, str(Path(self.name_or_path).resolve()), name):  # as its examples load it
            card.text = card.text.replace(f'"{loaded}"', f'"{repo_id}"')
        if not self._has_weights_of_source(path.parent):
            name = self.name_or_path if self._is_of_hub() else name
            card.data.eval_results = card.data.model_name = None  # measured on the others
            card.text = (
                f"\n> Made from {name}, with other weights or another head; this is the card of {name}.\n{card.text}"
            )
        card.save(path)

    def _is_of_hub(self) -> bool:
        return not os.path.isdir(self.name_or_path) and find_at_source(self, "config.json") is not None

    def _has_weights_of_source(self, folder: Path) -> bool:
        source = find_at_source(self, WEIGHTS)
        if source is None or not (folder / WEIGHTS).is_file():
            return False
        return filecmp.cmp(source, folder / WEIGHTS, shallow=False)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Load as transformers does, but never a model of which a part was initialised in silence.

        A new head for fine-tuning is allowed, and so are new tensors where ``ignore_mismatched_sizes`` asks for them.

        Raises
        ------
        ValueError
            If the weights are damaged, of another model, or do not fit the config.
        OSError
            If there are none, or not all files that their index names.
        """
        source = pretrained_model_name_or_path
        where = "The given state_dict" if source is None else f"The file of weights of {source}"
        mend = "Download, copy or convert it again, whole and with its own config.json."
        wants_info = kwargs.pop("output_loading_info", False)
        may_resize = kwargs.pop("ignore_mismatched_sizes", False)
        try:
            # tensors of another shape are let through here, because transformers' own error does not name them
            model, info = super().from_pretrained(  # type: ignore[misc]
                source, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
        except (SafetensorError, json.JSONDecodeError, KeyError) as error:
            if isinstance(error, KeyError) and error.args[0] not in ("metadata", "weight_map"):  # of an index
                raise
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{where} is damaged, or its index is ({reason}). {mend}") from error
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{where} is not all there: {error}. {mend}") from error
        if problems := find_problems(model, info, may_resize):
            raise ValueError(f"{where} does not fit {cls.__name__} and its config.json: {problems}. {mend}")
        model._source_revision = kwargs.get("revision")
        model._freeze_unused()  # loading has unfrozen it
        return (model, info) if wants_info else model


def find_problems(model: Any, info: dict[str, Any], may_resize: bool) -> str:
    """What transformers only warns of and no user can want; "" if there is nothing.

    Whole heads that are new, or that this class has not, are no problem; backbones that are not all there, or have
    more than the model, and halves of heads are.
    """
    prefix = f"{model.base_model_prefix}."
    parts = {name for name, _ in model.base_model.named_children()}

    def is_backbone(name: str) -> bool:
        return name.removeprefix(prefix).partition(".")[0] in parts

    missing, tied = set(info["missing_keys"]), set(getattr(model, "all_tied_weights_keys", {}))
    found = {name.partition(".")[0] for name in model.state_dict() if name not in missing | tied}
    # saved from this class, so its head must be there too; a config alone, or another class's, promises none
    has_head = type(model).__name__ in (model.config.architectures or ())
    lacking = {name for name in missing if has_head or is_backbone(name) or name.partition(".")[0] in found}
    resized = {name: shapes for name, *shapes in info["mismatched_keys"] if not may_resize}
    wrong = {name for name in info["unexpected_keys"] if is_backbone(name)}
    problems = []
    if lacking:
        problems.append(f"it lacks {some_of(lacking)}")
    if resized:
        shapes = {f"{name} is {tuple(theirs)}, not {tuple(ours)}" for name, (theirs, ours) in resized.items()}
        new_head = "" if any(map(is_backbone, resized)) else "; ignore_mismatched_sizes=True makes a new head"
        problems.append(f"of another shape: {some_of(shapes)}{new_head}")
    if wrong:
        problems.append(f"the model has no place for {some_of(wrong)}")
    if lacking and (strange := set(info["unexpected_keys"]) - wrong):
        problems.append(f"it holds {some_of(strange)} instead")
    return "; ".join(problems)


def some_of(names: set[str], limit: int = 3) -> str:
    """Count names and list the first few."""
    more = ", ..." if len(names) > limit else ""
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}, {', '.join(sorted(names)[:limit])}{more}"
