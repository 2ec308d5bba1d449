"""What the Hub says for itself is in the one line that people get."""

from __future__ import annotations

from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.utils._http import hf_raise_for_status

from registry.errors import HubError
from registry.hub.base import fetch_snapshot, stored_parameters
from registry.hub.errors import call_hub

TOLD = "You have exceeded your 100 GB of private storage."


def refusing(status: int, message: str, code: str | None = None):
    """Return a call that the Hub answers so, as its client reports it."""

    def call(*_: object, **__: object) -> None:
        request = httpx2.Request("GET", "https://hub/api/models/me/it/revision/main")
        headers = {} if code is None else {"X-Error-Code": code}
        hf_raise_for_status(
            httpx2.Response(status, json={"error": message}, headers=headers, request=request)
        )

    return call


@pytest.mark.parametrize("status", [400, 401, 403, 409, 413])
def test_a_refusal_says_why(status: int) -> None:
    with pytest.raises(Exception, match=TOLD.replace(".", r"\.")) as refused:
        call_hub(refusing(status, TOLD), "me/it")
    if status != 401:  # which stands for a repository that isn't there
        assert isinstance(refused.value, HubError)


def test_a_gated_base_says_whom_to_ask(monkeypatch) -> None:
    told = "Access to model me/it is restricted and you are not in the authorized list."
    gated = refusing(403, told, "GatedRepo")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", gated)
    with pytest.raises(HubError) as refused:
        fetch_snapshot("me/it", None, [], "bases.b", Path())
    assert told in str(refused.value)
    assert "ask for access on its page" in str(refused.value).lower()
    with pytest.raises(HubError, match="is gated: Access to model"):
        call_hub(gated, "me/it")


def test_a_base_that_is_not_fetched_says_what_the_hub_answered(monkeypatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fetched(*_: object, **__: object) -> None:
        try:
            refusing(500, "Internal Error - we're working hard to fix this")()
        except Exception as error:
            raise LocalEntryNotFoundError("see above") from error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    with pytest.raises(HubError, match=r"isn't reached .*we're working hard"):
        fetch_snapshot("me/it", None, [], "bases.b", Path())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing(400, TOLD))
    with pytest.raises(HubError, match=r"can't be fetched: You have exceeded"):
        fetch_snapshot("me/it", None, [], "bases.b", Path())
    monkeypatch.setattr(
        huggingface_hub.HfApi, "get_safetensors_metadata", refusing(403, "No headers for you")
    )
    with pytest.raises(HubError, match="No headers for you") as refused:
        stored_parameters(f"me/it@{'0' * 40}", "bases.b")
    assert "\n" not in str(refused.value)
