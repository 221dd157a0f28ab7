"""Sharing a folder on the Hub."""

from __future__ import annotations

import os

from huggingface_hub import HfApi


def require_login() -> None:
    """Raise if nobody is logged in to the Hub: better before a long conversion than after."""
    try:
        HfApi().whoami()
    except OSError as error:
        raise OSError(f"The Hub does not know you ({error}). Log in first: hf auth login.") from error


def push_folder(folder: str | os.PathLike, repo_id: str) -> str:
    """Upload a converted folder whole to the Hub, making the repository if need be; returns its address."""
    api = HfApi()
    repo_id = api.create_repo(repo_id, exist_ok=True).repo_id
    api.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message="Upload MSA Transformer")
    return f"{api.endpoint}/{repo_id}"
