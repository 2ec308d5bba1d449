"""OpenAI's messages and tools, checked, as a base's chat template is given them."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_STRICT = ConfigDict(frozen=True, extra="forbid")
# Parts of an answer that clients send back as they got it, and that say nothing to a model.
_UNSAID = ("annotations", "refusal", "audio", "function_call")


class TextPart(BaseModel):
    """A part of a content that is made of parts; text is all that these models read."""

    model_config = _STRICT

    type: Literal["text"]
    text: str


class CalledFunction(BaseModel):
    """Which function is called; `arguments` is JSON."""

    model_config = _STRICT

    name: str
    arguments: str = "{}"

    def as_chat(self) -> dict[str, Any]:
        """Return it with the arguments as an object, if that is what they are."""
        try:
            read = json.loads(self.arguments)
        except ValueError:
            read = None
        return {"name": self.name, "arguments": read if isinstance(read, dict) else self.arguments}


class ToolCall(BaseModel):
    """A call that the assistant made."""

    model_config = _STRICT

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # clients keep it from a stream

    def as_chat(self) -> dict[str, Any]:
        """Return it as `Chat` takes it."""
        made = {"type": "function", "function": self.function.as_chat()}
        return made if self.id is None else {"id": self.id, **made}


class Message(BaseModel):
    """One turn."""

    model_config = _STRICT

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | tuple[TextPart, ...] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: Any) -> Any:
        """Leave out what is null, and what an answer holds that was sent back."""
        if not isinstance(given, dict):
            return given
        said = {key: value for key, value in given.items() if value is not None}
        return {key: value for key, value in said.items() if key not in _UNSAID or value}

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and not self.tool_calls:
            message = f"a turn of {self.role} without content"
            raise ValueError(message)
        return self

    def as_chat(self) -> dict[str, Any]:
        """Return it as `Chat` takes it."""
        role = "system" if self.role == "developer" else self.role
        made: dict[str, Any] = {"role": role, "content": self._text()}
        if self.name is not None:
            made["name"] = self.name
        if self.reasoning_content:
            made["reasoning"] = self.reasoning_content
        if self.tool_calls:
            made["tool_calls"] = [call.as_chat() for call in self.tool_calls]
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        return made

    def _text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "\n".join(part.text for part in self.content)


class ToolFunction(BaseModel):
    """A function that may be called; `parameters` is a JSON schema."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(min_length=1)


class Tool(BaseModel):
    """A tool, which the template gets as it was sent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: Literal["function"]
    function: ToolFunction

    def as_chat(self) -> dict[str, Any]:
        """Return it as `Chat` takes it."""
        return self.model_dump(exclude_unset=True)
