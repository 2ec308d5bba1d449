"""Errors of the Hub: what is worth another try, and the one line for the rest."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from registry.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_TRIES = 12
_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 30.0
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class MovedError(Exception):
    """Main is not where it was when it was looked at."""


def call_hub(call: Callable[[], _T], repo_id: str) -> _T:
    """Call the Hub; repeat what failed for a while, and say plainly what failed for good.

    Raises:
        MovedError: the parent commit isn't the newest any more.
        UserError: not allowed, not reached, refused.
        RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError: as the client says.
    """
    import tenacity

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        wait=_pause,
        stop=tenacity.stop_after_attempt(_TRIES),
        reraise=True,
    )
    try:
        return retrying(call)
    except Exception as error:
        told = _translated(error, repo_id)
        if told is error:
            raise
        raise told from None


def without_token(text: str) -> str:
    """Return a text without the token that this process sends."""
    from huggingface_hub import get_token

    token = get_token()
    return text.replace(token, "(token)") if token else text


def said_by_hub(error: BaseException) -> str:
    """Return the Hub's own reason in one line: what it wrote, or what the client makes of it.

    The client's errors begin with the status and the address; what the Hub wrote comes after that,
    or is in the error that was the cause.
    """
    told: BaseException | None = error
    while told is not None:
        if message := str(getattr(told, "server_message", None) or ""):
            return without_token(" ".join(message.split()))
        told = told.__cause__
    return without_token(next(iter(str(error).strip().splitlines()), type(error).__name__))


def _translated(error: Exception, repo_id: str) -> Exception:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = _status(error)
    told: Exception = error
    if isinstance(error, GatedRepoError):
        told = gated(error, repo_id)
    elif isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | EntryNotFoundError):
        pass
    elif status == HTTPStatus.PRECONDITION_FAILED:
        told = MovedError(str(error))
    elif isinstance(error, OfflineModeIsEnabled):
        told = HubError("the Hub is switched off (HF_HUB_OFFLINE)", fix="unset HF_HUB_OFFLINE")
    elif isinstance(error, LocalTokenNotFoundError) or status in {401, 403}:
        told = HubError(
            f"the Hub does not let us do this with {repo_id}: {said_by_hub(error)}",
            expected="a token with the right to write there",
            fix="log in with `hf auth login`, or set HF_TOKEN",
        )
    elif isinstance(error, HFValidationError):
        told = HubError(f"{repo_id}: {error}", expected="owner/name")
    elif status is not None or _is_transient(error):
        told = HubError(
            f"the Hub can't be reached or refuses ({said_by_hub(error)})",
            repo_id,
            fix="call again: what is done is not done twice",
        )
    return told


def gated(error: BaseException, repo_id: str, where: str | None = None) -> HubError:
    """Return the error for a repository that is there, for those whom its owner lets in."""
    return HubError(
        f"{repo_id} is gated: {said_by_hub(error)}",
        where,
        fix="ask for access on its page, and log in with `hf auth login`",
    )


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return int(status) if status is not None else None


def _is_transient(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return False
    if isinstance(error, HfHubHTTPError):
        return _status(error) is None or _status(error) in _TRANSIENT
    # Connections that are refused, cut or silent, of whichever HTTP library; an answer cut short.
    module = type(error).__module__.partition(".")[0]
    return module.startswith(("httpx", "httpcore", "requests", "urllib3")) or isinstance(
        error, ConnectionError | TimeoutError | json.JSONDecodeError
    )


def _pause(state: Any) -> float:
    error = state.outcome.exception()
    headers = getattr(getattr(error, "response", None), "headers", {})
    asked = str(headers.get("Retry-After", ""))
    wait = float(asked) if asked.isdigit() else _FIRST_WAIT_S * 2 ** (state.attempt_number - 1)
    return float(min(wait, _LONGEST_WAIT_S))
