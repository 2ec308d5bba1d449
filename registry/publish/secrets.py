"""The scan for secrets and paths in everything that would leave this machine."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import HubError
from registry.models.safetensors_header import header_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# detect-secrets' patterns of keys that have a form of their own. Its guesses by entropy are left
# out: every digest and every merge of a tokenizer is a hit.
_PATTERNS = (
    "ArtifactoryDetector", "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector",
    "CloudantDetector", "DiscordBotTokenDetector", "GitHubTokenDetector", "GitLabTokenDetector",
    "JwtTokenDetector", "MailchimpDetector", "NpmDetector", "OpenAIDetector",
    "PrivateKeyDetector", "PypiTokenDetector", "SendGridDetector", "SlackDetector",
    "SquareOAuthDetector", "StripeDetector", "TelegramBotTokenDetector", "TwilioKeyDetector",
)  # fmt: skip
# Ours: the forms that those miss. A letter or digit in front makes another word of it, an
# underscore does not: TOKEN_hf_... is a token.
_OWN = tuple(
    (kind, re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})"))
    for kind, pattern in (
        ("a Hugging Face token", r"(?:hf|api_org)_[A-Za-z0-9]{16,}"),
        ("a GitHub token", r"github_pat_[A-Za-z0-9_]{20,}"),
        ("a GitLab token", r"gl(?:pat|dt|ft|soat|rt|ptt|agent)-[A-Za-z0-9_-]{20,}"),
        ("a Google key", r"AIza[A-Za-z0-9_-]{35}"),
        ("an OpenAI or Anthropic key", r"sk-(?:ant|proj|svcacct|admin|or)-[A-Za-z0-9_-]{20,}"),
        ("an OpenAI key", r"sk-[A-Za-z0-9]{20,}"),
        ("an OpenAI key", r"sk-(?=[\w-]{0,80}[A-Z])(?=[\w-]{0,80}[0-9])[A-Za-z0-9_-]{32,}"),
        ("a Groq key", r"gsk_[A-Za-z0-9]{20,}"),
        ("an xAI key", r"xai-[A-Za-z0-9]{20,}"),
        ("a Slack token", r"xox[a-z][.-][A-Za-z0-9.%-]{16,}|xapp-[0-9]-[A-Za-z0-9-]{16,}"),
        ("a Stripe key", r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{24,}"),
        ("a SendGrid key", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{32,}"),
        ("an npm token", r"npm_[A-Za-z0-9]{36}"),
        (
            "an AWS secret key",
            r"(?i:(?:aws_?)?secret_?(?:access_?)?key)[\"']?\s*[:=]\s*[\"']?[\w/+]{40}(?![\w/+=])",
        ),
        (
            "an authorization header",
            r"(?i:authorization\W{1,5}(?:bearer|token|basic)\s+)(?=\w{0,99}\d|[A-Za-z0-9]{16})[\w.~+/=-]{16,}",
        ),
    )
)
# A folder's name is one only at the start of a path: https://huggingface.co/data/x is no folder of
# a machine, and neither is ../data/x.
_HOME = re.compile(
    r"(?m:^|[\s\"'`=(:,;\[<>{|]|[^\x00-\x7f…]|file://(?:localhost)?)"
    r"(?:/(?:home|Users|root|mnt|media|opt|data|tmp|srv|var)/[\w.-]+"
    r"|[A-Za-z]:[\\/]Users[\\/]"
    r"|\\\\[A-Za-z0-9][\w.-]+\\[\w$][\w$.-]*)"
)
_LONGEST_LINE = 1 << 16  # a longer one is cut into pieces that overlap
_OVERLAP = 512
_NAMED = 3


@dataclass(frozen=True, slots=True)
class SecretFinding:
    """A secret or path: what it looks like and where; the text itself is kept nowhere."""

    kind: str
    file: str
    line: int


def refuse_secrets(found: Sequence[SecretFinding]) -> None:
    """Raise UserError if anything was found; it names kinds and places, not the secrets."""
    if not found:
        return
    told = "; ".join(f"{one.file}:{one.line}: {one.kind}" for one in found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise HubError(
        f"what would be pushed holds {told}{more}",
        expected="no secret and no path of this machine",
        fix="take it out where it comes from, and revoke a secret that was written to a file",
    )


def scan_files(
    files: Sequence[tuple[str, Path | bytes]], private: Sequence[str]
) -> list[SecretFinding]:
    """Look through files as they would be pushed: text, safetensors headers, Parquet, GGUF.

    Args:
        files: (name in the repository, a file or its bytes).
        private: texts that must not be in them, such as this machine's folders and tokens.
    """
    return [
        finding
        for name, content in files
        for finding in scan_lines(name, _lines(name, content), private)
    ]


def scan_lines(
    name: str, lines: Iterator[tuple[int, str]], private: Sequence[str]
) -> Iterator[SecretFinding]:
    """Yield what is found in numbered lines."""
    from detect_secrets.settings import get_plugins, transient_settings

    with transient_settings({"plugins_used": [{"name": one} for one in _PATTERNS]}):
        plugins = get_plugins()
        for number, line in lines:
            for piece in _pieces(line):
                yield from (
                    SecretFinding(kind, name, number) for kind in _kinds(piece, private, plugins)
                )
                # People's rows may speak of any folder; what we wrote has no need to.
                if not name.endswith(".parquet") and _HOME.search(piece):
                    yield SecretFinding("a path of some machine", name, number)


def _kinds(text: str, private: Sequence[str], plugins: Sequence[Any]) -> Iterator[str]:
    yield from dict.fromkeys(kind for kind, pattern in _OWN if pattern.search(text))
    if any(one in text for one in private):
        yield "a path or token of this machine"
    for plugin in plugins:
        # Asked directly: through `scan_line` a "pragma: allowlist" in the text would silence it.
        for secret in plugin.analyze_line(filename="", line=text, line_number=1):
            yield f"a secret ({secret.type})"


def _pieces(line: str) -> Iterator[str]:
    for start in range(0, max(len(line), 1), _LONGEST_LINE - _OVERLAP):
        yield line[start : start + _LONGEST_LINE]


def _lines(name: str, content: Path | bytes) -> Iterator[tuple[int, str]]:
    if isinstance(content, Path) and content.suffix == ".safetensors":
        yield from ((1, line) for line in _unescaped(header_text(content)).splitlines())
    elif isinstance(content, Path) and content.suffix == ".parquet":
        yield from _parquet(content)
    elif isinstance(content, Path) and content.suffix == ".gguf":
        yield from _gguf(content)
    else:
        data = content.read_bytes() if isinstance(content, Path) else content
        text = data.decode("utf-8", errors="replace")
        if name.endswith(".json"):
            text = _unescaped(text)
        yield from enumerate(text.splitlines(), start=1)


def _unescaped(text: str) -> str:
    """Return JSON as lines of plain text.

    A slash may be written as backslash and slash, and a line's end as backslash and n: whatever
    follows that would seem to go on a word.
    """
    try:
        return "\n".join(_plain(json.loads(text), ""))
    except (ValueError, RecursionError):
        return text


def _plain(value: object, key: str) -> Iterator[str]:
    """Yield every key with its value, as they read without quotes and escapes."""
    children: Iterable[tuple[object, object]]
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = ((key, child) for child in value)
    else:
        yield f"{key}: {value}" if key else str(value)
        return
    if not value:
        yield key
    for name, child in children:
        yield from _plain(child, str(name))


def _parquet(path: Path) -> Iterator[tuple[int, str]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        yield 0, str(file.schema_arrow.metadata or {})
        number = 0
        for batch in file.iter_batches(batch_size=1_000):
            for record in batch.to_pylist():
                number += 1
                yield number, "\n".join(_plain(record, ""))


def _gguf(path: Path) -> Iterator[tuple[int, str]]:
    from gguf import GGUFReader

    for number, field in enumerate(GGUFReader(path).fields.values(), start=1):
        yield number, f"{field.name} {field.contents()}"
