"""An Ollama Modelfile beside a GGUF file.

Ollama writes templates in Go's language, and translating Jinja to it is guesswork. So the chat
template is rendered on short conversations, and only where that is, letter for letter, one of the
forms below is there a TEMPLATE.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.gguf.vocabulary import BYTE, NORMAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.gguf.convert import ModelFolder

_SYSTEM, _ASK, _SAY, _MORE = "sys tem", "as k", "sa y", "mo re"


@dataclass(frozen=True)
class TurnForm:
    """A way to write a conversation: what stands before and after each role's text.

    `folded` puts the system text at the head of the first user's, with an empty line between.
    """

    name: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    folded: bool = False


def _headed(name: str, before: str, between: str, end: str) -> TurnForm:
    """A form that writes every role alike."""
    system, user, assistant = (
        (f"{before}{role}{between}", end) for role in ("system", "user", "assistant")
    )
    return TurnForm(name, system, user, assistant)


FORMS = (
    _headed("ChatML", "<|im_start|>", "\n", "<|im_end|>\n"),
    _headed("Llama 3", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"),
    _headed("nano", "<|", "|>", "<|end|>"),
    TurnForm("Mistral", ("", ""), ("[INST] ", " [/INST]"), (" ", "</s>"), folded=True),
    TurnForm("Mistral v3", ("", ""), ("[INST] ", "[/INST]"), (" ", "</s>"), folded=True),
    TurnForm("Mistral Tekken", ("", ""), ("[INST]", "[/INST]"), ("", "</s>"), folded=True),
    TurnForm(
        "Gemma",
        ("", ""),
        ("<start_of_turn>user\n", "<end_of_turn>\n"),
        ("<start_of_turn>model\n", "<end_of_turn>\n"),
        folded=True,
    ),
)


def modelfile(source: ModelFolder, gguf_name: str, license_text: str | None = None) -> str:
    """Return the Modelfile for a GGUF file that lies beside it under `gguf_name`.

    Args:
        source: the model that the file was made from.
        gguf_name: the file's name, without a folder.
        license_text: the license's name or text; left out without.
    """
    lines = [f"FROM ./{gguf_name}"]
    found = find_form(source)
    if found is None:
        why = (
            "is none that is known in Ollama's language"
            if source.vocabulary.template
            else "is none"
        )
        lines.append(f"# No TEMPLATE: the model's chat template {why}.")
    else:
        form, default = found
        lines += [f"# {form.name}", f'TEMPLATE """{go_template(form)}"""']
        if default:
            lines.append(f'SYSTEM """{default}"""')
    lines += [f"PARAMETER stop {_quoted(token)}" for token in _stops(source)]
    if license_text and is_quotable(license_text):
        lines.append(f'LICENSE """{license_text}"""')
    elif license_text:
        lines.append("# No LICENSE: its text can't be quoted here.")
    return "\n".join([*lines, ""])


def is_quotable(text: str) -> bool:
    """Whether Ollama reads this text back from between three quotes, and nothing after it.

    Its parser (parser/parser.go) knows no escapes. It ends a value at a line's end after three
    quotes, and leaves out every character that Go's `strconv.IsPrint` doesn't know: letters, marks,
    numbers, punctuation, symbols and the space are printed.
    """
    return '"""' not in text and all(
        one in " \t\r\n" or unicodedata.category(one)[0] in "LMNPS" for one in text
    )


def _quoted(text: str) -> str:
    return f'"""{text}"""' if '"' in text else f'"{text}"'


def find_form(source: ModelFolder) -> tuple[TurnForm, str] | None:
    """Return the form of the chat template and its own system text; None where none fits."""
    tokenizer = source.tokenizer
    if not source.vocabulary.template:
        return None
    user, said, more = _turn("user", _ASK), _turn("assistant", _SAY), _turn("user", _MORE)
    chats = ([user], [user, said, more])
    for form in FORMS:
        default = _default_system(tokenizer, form)
        if not is_quotable(default):
            continue
        own = [_turn("system", default)] if default else []
        plain = all(_rendered(tokenizer, c) == render_form(form, [*own, *c]) for c in chats)
        given = [_turn("system", _SYSTEM), user]
        # Some have no system role; Ollama's folding is then as good as any.
        with_system = _rendered(tokenizer, given)
        if plain and with_system in (render_form(form, given), None if form.folded else ""):
            return form, default
    return None


def render_form(form: TurnForm, chat: Sequence[dict[str, str]]) -> str:
    """Return a conversation in a form, ready for the assistant's answer."""
    parts = []
    held = ""
    for message in chat:
        role, text = message["role"], message["content"]
        if form.folded and role == "system":
            held = f"{text}\n\n"
            continue
        before, after = getattr(form, role)
        parts.append(f"{before}{held if role == 'user' else ''}{text}{after}")
        held = "" if role == "user" else held
    return "".join(parts) + form.assistant[0].rstrip(" ")


def go_template(form: TurnForm) -> str:
    """Return the form in Ollama's language, which is Go's text/template.

    On one line but for the form's own: `{{-` would take away the line breaks of the form too.
    """
    content = "{{ .Content }}"
    first = "{{ if and $.System (eq $i 1) }}{{ $.System }}\n\n{{ end }}" if form.folded else ""
    said = "" if form.folded else f"{form.system[0]}{content}{form.system[1]}"
    opening = form.assistant[0].rstrip(" ")
    return (
        "{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "system" }}}}{said}'
        f'{{{{ else if eq .Role "user" }}}}{form.user[0]}{first}{content}{form.user[1]}'
        f'{{{{ else if eq .Role "assistant" }}}}{form.assistant[0]}{content}'
        f"{{{{ if not $last }}}}{form.assistant[1]}{{{{ end }}}}{{{{ end }}}}"
        f'{{{{ if and $last (ne .Role "assistant") }}}}{opening}{{{{ end }}}}'
        "{{ end }}"
    )


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _default_system(tokenizer: Any, form: TurnForm) -> str:
    """Return the system text that the template writes where none is given."""
    said = _rendered(tokenizer, [_turn("user", _ASK)]) or ""
    before, after = form.system
    bare = render_form(form, [_turn("user", _ASK)])
    if form.folded or said == bare or not (said.startswith(before) and said.endswith(bare)):
        return ""
    return said.removesuffix(bare).removeprefix(before).removesuffix(after)


def _rendered(tokenizer: Any, chat: Sequence[dict[str, str]]) -> str | None:
    """Return the template's text without the leading bos; None where it refuses the chat."""
    from jinja2 import TemplateError

    try:
        said = str(
            tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True)
        )
    except TemplateError:
        return None
    return said.removeprefix(tokenizer.bos_token or "")


def _stops(source: ModelFolder) -> list[str]:
    """Return the texts that end an answer, as far as a Modelfile can say them."""
    found = (_text(source, end) for end in source.ends if end < len(source.vocabulary.tokens))
    return [text for text in dict.fromkeys(found) if text and is_quotable(text)]


def _text(source: ModelFolder, token: int) -> str:
    """Return what a token writes; only added ones stand in the vocabulary as they are."""
    if source.vocabulary.types[token] in (NORMAL, BYTE):
        return str(source.tokenizer.decode([token]))
    return source.vocabulary.tokens[token]
