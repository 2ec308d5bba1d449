"""Requests of OpenAI's API, checked.

What would change an answer and isn't done here is refused by name, never passed over; a field that
changes nothing (who the user is, what is to be stored) is. The defaults are OpenAI's.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.serving.messages import Message, Tool

MOST_CHOICES = 16
MOST_STOPS = 16
MOST_PROMPTS = 1024
TOP_CHAT, TOP_TEXT = 20, 5
TEXT_TOKENS = 16

# They change no answer.
_HARMLESS = frozenset(
    (
        *("user", "metadata", "store", "service_tier", "safety_identifier", "parallel_tool_calls"),
        *("prompt_cache_key", "prompt_cache_retention"),
    )
)
# Not done here; with these values, or null, they ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "best_of": (1,),
    "suffix": ("",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}

Stop = Annotated[str, Field(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0)]


class StreamOptions(BaseModel):
    """What a stream says beside the answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    include_usage: bool = False


class Request(BaseModel):
    """What both kinds of requests have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: tuple[Stop, ...] = Field((), max_length=MOST_STOPS)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: int = Field(1, ge=1, le=MOST_CHOICES)

    @model_validator(mode="before")
    @classmethod
    def _settled(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        asked = {
            key: value for key, value in given.items() if value is not None and key not in _HARMLESS
        }
        for key in _NEUTRAL.keys() & asked.keys():
            if asked[key] not in _NEUTRAL[key]:
                fine = ", ".join(repr(one) for one in _NEUTRAL[key])
                expected = f"{fine} or no {key}" if fine else f"no {key}"
                message = f"{key} isn't done here; expected {expected}"
                raise ValueError(message)
            del asked[key]
        if isinstance(asked.get("stop"), str):
            asked["stop"] = [asked["stop"]]
        return asked


class ChatRequest(Request):
    """POST /v1/chat/completions."""

    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[Tool, ...] = ()
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=TOP_CHAT)

    @model_validator(mode="before")
    @classmethod
    def _one_limit(cls, given: Any) -> Any:
        """Take the new name of `max_tokens`; leave tools out that are not to be called."""
        if not isinstance(given, dict):
            return given
        asked = dict(given)
        limit = asked.pop("max_completion_tokens", None)
        if limit is not None:
            asked["max_tokens"] = limit
        choice = asked.pop("tool_choice", None)
        if choice == "none":
            asked.pop("tools", None)
        elif choice not in (None, "auto"):
            message = "tool_choice: no call is forced here; expected 'auto' or 'none'"
            raise ValueError(message)
        return asked

    @model_validator(mode="after")
    def _asked_for(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            message = "top_logprobs: expected with logprobs: true"
            raise ValueError(message)
        return self

    @property
    def top(self) -> int | None:
        """How many likely tokens are told at each place; None: no log-probabilities."""
        return self.top_logprobs if self.logprobs else None


class CompletionRequest(Request):
    """POST /v1/completions: a text, or several, or their token ids."""

    prompt: str | tuple[str, ...] | tuple[TokenId, ...] | tuple[tuple[TokenId, ...], ...]
    max_tokens: int = Field(TEXT_TOKENS, ge=1)
    logprobs: int | None = Field(None, ge=0, le=TOP_TEXT)
    echo: bool = False

    @model_validator(mode="after")
    def _so_many(self) -> Self:
        if not 0 < len(self.prompts) * self.n <= MOST_PROMPTS:
            message = f"prompt: {len(self.prompts)} with n {self.n}; expected 1 to {MOST_PROMPTS}"
            raise ValueError(message)
        return self

    @property
    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        """The prompts, each as a text or as token ids."""
        if isinstance(self.prompt, str):
            return (self.prompt,)
        if self.prompt and all(isinstance(one, int) for one in self.prompt):
            return (tuple(one for one in self.prompt if isinstance(one, int)),)
        return tuple(one for one in self.prompt if not isinstance(one, int))

    @property
    def top(self) -> int | None:
        """How many likely tokens are told at each place; None: no log-probabilities."""
        return self.logprobs
