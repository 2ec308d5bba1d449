"""The extras: libraries that one verb needs and the rest of gapmend doesn't."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from registry.errors import MachineError

Extra = Literal["signing", "openlineage", "mergekit", "quants", "vllm"]

_MODULES: dict[Extra, tuple[str, ...]] = {
    "signing": ("model_signing", "OpenSSL", "cryptography"),
    "openlineage": ("openlineage.client",),
    "mergekit": ("mergekit",),
    "quants": ("llama_cpp",),
    "vllm": ("vllm",),
}


def require_extra(extra: Extra, where: str | None = None, *, otherwise: str = "") -> None:
    """Check that an extra's libraries are installed, without importing them.

    Args:
        extra: as pyproject.toml names it.
        where: the key or option that asks for it.
        otherwise: what else the user can do, for the end of the line.

    Raises:
        UserError: one isn't; the line says what installs it.
    """
    missing = next((name for name in _MODULES[extra] if not _is_there(name)), None)
    if missing is None:
        return
    raise MachineError(
        f"this needs the extra '{extra}', and {missing} isn't installed",
        where,
        fix=f"in the folder of gapmend's pyproject.toml: pip install '.[{extra}]'{otherwise}",
    )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False
