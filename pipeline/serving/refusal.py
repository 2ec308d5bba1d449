"""Errors as OpenAI's clients read them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from registry.errors import MachineError, ModelError, StoreRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError

    from registry.errors import UserError

_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "server_error",
    HTTPStatus.INTERNAL_SERVER_ERROR: "server_error",
}


class RefusedError(Exception):
    """A request that is not answered.

    Args:
        message: what is wrong, what was expected.
        status: of HTTP.
        param: the field of the request.
        code: OpenAI's word for it, where it has one.
    """

    def __init__(
        self,
        message: str,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        """Keep the parts."""
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return it as OpenAI writes it."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        said = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": said}

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        """Return it as an answer."""
        return JSONResponse(self.body(), self.status, headers)


def of_fields(error: ValidationError) -> RefusedError:
    """Say which field of a request is wrong, and how; of several the first."""
    first = error.errors(include_url=False)[0]
    where = _dotted(first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        said = "this field isn't known here, and would be ignored"
    more = error.error_count() - 1
    also = f" (and {more} more)" if more else ""
    return RefusedError(f"{where}: {said}{also}" if where else f"{said}{also}", param=where or None)


def of_user(error: UserError) -> RefusedError:
    """Say what can't be answered, as one line: the request's mistake, or this machine's."""
    ours = isinstance(error, ModelError | MachineError | StoreRequestError)
    return RefusedError(
        str(error), HTTPStatus.INTERNAL_SERVER_ERROR if ours else HTTPStatus.BAD_REQUEST
    )


def fault(error: Exception) -> RefusedError:
    """Say that something else went wrong; what it says is for our log alone."""
    return RefusedError(
        f"a fault of ours: {type(error).__name__}", HTTPStatus.INTERNAL_SERVER_ERROR
    )


def no_model(name: str, known: Sequence[str]) -> RefusedError:
    """Say that a model isn't there, and some that are."""
    some = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")  # noqa: PLR2004 - as a line holds
    return RefusedError(
        f"The model '{name}' does not exist; there are {some}. All: GET /v1/models",
        HTTPStatus.NOT_FOUND,
        param="model",
        code="model_not_found",
    )


def _dotted(place: Sequence[int | str]) -> str:
    # Branches of a union name themselves in the middle: `prompt.list[str].0`.
    return ".".join(str(one) for one in place if isinstance(one, int) or one.isidentifier())
