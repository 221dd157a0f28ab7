"""fair-esm's published files: where they are, downloading them, and their checksums."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import get_session

from .._files import file_sha256, is_disk_full
from .errors import ChecksumError, ConversionError
from .finding import check_checkpoint

DOWNLOAD_URL = "https://dl.fbaipublicfiles.com/fair-esm"


def find_checkpoint(
    checkpoint: str | os.PathLike, contact_regression: str | os.PathLike | None = None
) -> tuple[Path, Path | None]:
    """Locate a checkpoint and its contact regression (None if there is none), downloading a published one."""
    check_checkpoint(checkpoint)
    path = Path(checkpoint)
    if not path.is_file():
        path = download(f"{DOWNLOAD_URL}/models/{checkpoint}.pt")
        if contact_regression is None:
            return path, download(f"{DOWNLOAD_URL}/regression/{checkpoint}-contact-regression.pt")
    beside = path.with_name(f"{path.stem}-contact-regression.pt")
    regression = Path(contact_regression) if contact_regression is not None else beside
    if contact_regression is not None and not regression.is_file():
        raise FileNotFoundError(f"There is no contact regression {regression}.")
    return path, regression if regression.is_file() else None


def download(url: str, sha256: str | None = None) -> Path:
    """Download a published file, or the rest of one whose download was cut; a complete one is used as it is.

    It lies where fair-esm puts it, ``<torch.hub.get_dir()>/checkpoints``, so neither downloads twice.

    Parameters
    ----------
    url : str
        Its last part is the file's name.
    sha256 : str, optional
        The expected checksum, 64 hexadecimal digits, of a new file or an old one.

    Returns
    -------
    Path

    Raises
    ------
    ChecksumError
        If its checksum is another. Nothing of the file has been unpickled then.
    ConversionError
        If it could not be downloaded.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[1]
    if not path.is_file():
        _download(url, path)
    if sha256 is not None:
        check_sha256(path, sha256)
    return path


def check_sha256(path: str | os.PathLike, expected: str) -> None:
    """Raise ChecksumError if a file's SHA-256 is not `expected`."""
    if (found := file_sha256(path)) != expected.lower():
        raise ChecksumError(
            f"{path} was refused: its SHA-256 is {found}, but {expected} was recorded. It is damaged, or not the "
            "same file: remove it and download it again."
        )


def _download(url: str, path: Path) -> None:
    """Download into ``NAME.part``, with the server's name of this version beside it; rename it once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part, version = (path.with_name(f"{path.name}{ending}") for ending in (".part", ".part.etag"))
    try:
        with _locked(path):
            if path.is_file():  # by the process that held the lock
                return
            head = get_session().head(url, follow_redirects=True)
            head.raise_for_status()
            size = int(head.headers["Content-Length"])
            etag = head.headers.get("ETag") or head.headers.get("Last-Modified") or ""
            known = version.read_text(encoding="utf-8") if version.is_file() else ""
            if part.exists() and (part.stat().st_size > size or known != etag):
                part.unlink()
            version.write_text(etag, encoding="utf-8")
            with part.open("ab") as file:
                http_get(url, file, resume_size=file.tell(), expected_size=size, displayed_filename=path.name)
            if problem := _damage(part, size, head.headers):
                part.unlink()
                raise ValueError(problem)
            part.replace(path)
            version.unlink()
    except Exception as error:
        if is_disk_full(error):
            raise ConversionError(
                f"{path} cannot be written: the disk is full. Free some space, and run it again."
            ) from error
        raise ConversionError(
            f"{url} could not be downloaded ({type(error).__name__}: {error}). Run the command again to resume the "
            "download, or download the file by other means and pass its path."
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait until no other process downloads `path`."""
    lock = FileLock(Path(torch.hub.get_dir()) / ".locks" / f"{path.name}.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        warnings.warn(f"Another process downloads {path.name}: waiting for it.", stacklevel=2)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _damage(path: Path, size: int, headers: Mapping[str, str]) -> str:
    """Say what is wrong with a downloaded file; "" if its length, and its MD5 where the server tells it, are right.

    The storage that Meta publishes from has the MD5 as ETag of what was uploaded in one part and without a key.
    """
    if (length := path.stat().st_size) != size:
        return f"it has {length} bytes, not {size}, and was removed"
    encryption = {value for name, value in headers.items() if name.lower().startswith("x-amz-server-side-encryption")}
    if encryption <= {"AES256"} and re.fullmatch(r"[0-9a-f]{32}", expected := headers.get("ETag", "").strip('"')):
        with path.open("rb") as file:
            if (found := hashlib.file_digest(file, "md5").hexdigest()) != expected:
                return f"its MD5 is {found}, not {expected}, and it was removed"
    return ""
