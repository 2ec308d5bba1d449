"""Tools, calls and results as plain text, for chat templates that know none.

In the words that Hermes and Qwen use: the tools as JSON lines in `<tools>` behind the system text,
a call as JSON in `<tool_call>` at the end of its turn, results in `<tool_response>` as what a user
says; results that follow each other are one turn.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from registry.chat.messages import Message

_OFFER = """\
You may call one or more of these functions to answer:
<tools>
{tools}
</tools>
For each call, write a JSON object: <tool_call>
{{"name": ..., "arguments": ...}}
</tool_call>"""


def in_text(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Return messages that say in their texts what their tools, calls and results are.

    Args:
        messages: as `registry.chat.messages.spoken` takes them.
        tools: JSON schemas of what may be called.
    """
    made: list[dict[str, Any]] = []
    answered = False  # the turn before is made of results
    for message in messages:
        turn = _said(message)
        if answered and message["role"] == "tool":
            made[-1]["content"] += f"\n{turn['content']}"
        else:
            made.append(turn)
        answered = message["role"] == "tool"
    return _offering(made, tools) if tools else made


def _said(message: Message) -> dict[str, Any]:
    kept = {k: v for k, v in message.items() if k not in {"tool_calls", "tool_call_id", "name"}}
    content = str(message.get("content") or "")
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = [f"<tool_call>\n{_call(one)}\n</tool_call>" for one in message.get("tool_calls") or ()]
    return {**kept, "content": "\n".join([*([content] if content else []), *calls])}


def _call(call: Mapping[str, Any]) -> str:
    function = call["function"]
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        return f'{{"name": {json.dumps(function["name"])}, "arguments": {arguments}}}'
    said = {"name": function["name"], "arguments": arguments}
    return json.dumps(said, ensure_ascii=False)


def _offering(
    messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    lines = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    offer = _OFFER.format(tools=lines)
    if messages and messages[0]["role"] == "system":
        first = {**messages[0], "content": f"{messages[0]['content']}\n\n{offer}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": offer}, *messages]
