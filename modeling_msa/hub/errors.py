"""Errors of checkpoints and of the Hub, in words that say what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import get_session, validate_repo_id

# httpx's base of all errors, or httpx2's: which one huggingface_hub uses depends on its version
_HTTP_ERRORS = tuple(cls for cls in HfHubHTTPError.__mro__ if cls.__name__ == "HTTPError")
PATIENCE = 5.0  # seconds in which the Hub must answer
_AGAIN = "Run the command again; files that have arrived are not sent again."


class HubError(OSError):
    """What the Hub refused, or why it could not be reached."""


class ConversionError(ValueError):
    """A checkpoint or folder that cannot be converted as it is; the message says what to do."""


class ChecksumError(ConversionError):
    """A file that is not the one whose checksum was recorded."""


def check_repo_id(repo_id: str) -> None:
    """Raise ValueError if `repo_id` cannot be the name of a repository."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"The name of a repository on the Hub has the form OWNER/NAME: {error}") from None


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """Raise errors of the Hub as `HubError`: huggingface_hub's words, and what to do where they do not say it."""
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        chain: list[BaseException] = [error]
        while cause := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(cause)
        of_hub = [(each, advice) for each in reversed(chain) if (advice := _advice(each)) is not None]
        if not of_hub:
            raise
        cause, advice = of_hub[0]
        words = " ".join(str(cause).split()) or type(cause).__name__
        place = "" if repo_id in words else f"{repo_id}: "
        raise HubError(f"{place}{words.rstrip('.')}. {advice}".strip()) from error


def must_use_cache(repo_id: str) -> bool:
    """Whether the Hub does not answer, so that a repository can only be read from the cache; asks it once.

    huggingface_hub itself would try for half a minute. In offline mode it does not try. Raises HubError if the cache
    does not have the repository's config.
    """
    if is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except _HTTP_ERRORS as error:  # type: ignore[misc]
        if not isinstance(try_to_load_from_cache(repo_id, "config.json"), str):
            raise HubError(
                f"{repo_id}: {error or type(error).__name__}. The connection to {constants.ENDPOINT} failed, and the "
                "model is not in the cache. Run the command again with a network, or pass the path of a folder."
            ) from error
        return True
    return False


def _advice(error: BaseException) -> str | None:
    """What to do about one error of a chain, "" if its words say it; None if it does not come from the Hub."""
    if isinstance(error, OfflineModeIsEnabled) or (is_offline_mode() and isinstance(error, LocalEntryNotFoundError)):
        return "Offline mode is on: unset HF_HUB_OFFLINE, or pass the path of a folder."
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status is not None:
        if status == 401 or isinstance(error, RepositoryNotFoundError):
            return "To log in, run `hf auth login`, or set HF_TOKEN to a valid token."
        return _AGAIN if status in (409, 412) else f"Wait some minutes. {_AGAIN}" if status > 404 else ""
    if isinstance(error, _HTTP_ERRORS) and status is None:
        return f"The connection to {constants.ENDPOINT} failed. {_AGAIN}"
    return None


def describe_misfit(
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    mismatched: Iterable[tuple[str, Any, Any]] = (),
) -> str:
    """Say which tensors of a file do not fit a model; "" if all do.

    Parameters
    ----------
    missing, unexpected : iterable of str
        Names that the model has and the file does not, and the other way round.
    mismatched : iterable of (str, shape, shape)
        Names, the shape in the file, and the model's.

    Examples
    --------
    >>> describe_misfit(["a", "b"], [], [("c", [5], [16])])
    '2 tensors are missing: a, b; c has the shape (5,), not (16,)'
    """
    parts = []
    for names, what in ((sorted(missing), "missing"), (sorted(unexpected), "unexpected")):
        if names:
            parts.append(f"{len(names)} tensor{'s are' if len(names) > 1 else ' is'} {what}: {some_of(names)}")
    shapes = [f"{name} has the shape {tuple(found)}, not {tuple(own)}" for name, found, own in sorted(mismatched)]
    return "; ".join([*parts, *([some_of(shapes)] if shapes else [])])


def some_of(items: Iterable[Any], limit: int = 6) -> str:
    """List the first few items, and say how many more there are.

    >>> some_of("abcd", limit=2)
    'a, b and 2 more'
    """
    words = [str(item) for item in items]
    more = f" and {len(words) - limit} more" if len(words) > limit else ""
    return (", ".join(words[:limit]) or "nothing") + more
