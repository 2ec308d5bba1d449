r"""Numbers in text: the one that an answer, or an expected value, gives.

One grammar reads both. A number is digits with an optional sign and currency (`-$5`, `$-5`), with
thousands set apart (`1,234`, `12,34,567`, `1'234`, `1{,}234`), a decimal point, or a decimal comma;
a fraction (`3/4`, `1 1/2`, `\frac{3}{4}`, `½`); a power of ten (`2e3`, `2 \times 10^{3}`); each may
be a percentage. A clock time or ratio (`12:30`) is compared part by part. What else is made of
digits (`3-5`, `2026-11-29`, `1.2.3`, `GPT-4`) is no number, and isn't cut to one.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_WIDE = str.maketrans("−－﹣‐‑‒–—％", "--------%")  # noqa: RUF001 - what is read
# LaTeX and typography, to what stands on a keyboard; an apostrophe sets groups of digits apart.
_PLAIN = [
    (re.compile(r"(?<=\d)\s*(?=\\[dt]?frac)"), " "),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2 "),
    (re.compile(r"(?<=\d)(?:\{,\}|,\\!|\\,|\\ |[\u00a0\u2009\u202f\u2019_])(?=\d{3})"), "'"),
    (re.compile(r"\\(?:left|right|!|,|;|:|quad)(?![a-zA-Z])"), " "),
    (re.compile(r"\\(?:times|cdot)\b|[\u00d7\u00b7]"), "*"),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\^\{([^{}]*)\}|\^\(([^()]*)\)"), r"^\1\2"),
    (re.compile(r"(?<=\d)\s*⁄\s*(?=\d)"), "/"),  # noqa: RUF001 - the fraction slash
]
# Of scripts whose words are set apart by spaces: 共42个 is 42, and GPT4 is no number.
_LETTER = "[A-Za-z\u00aa-\u024f\u0370-\u052f]"
_CURRENCY = "[$€£¥₩₹₽₪₫฿]"
# Between words and numbers it is a hyphen or a minus of two.
_SIGN = r"(?:^|(?<=[=:(]))\s?[-+]\s?|(?<![\w.)])[-+]"
_CLUMP = re.compile(
    rf"(?P<before>(?:{_LETTER}-?)?)(?P<sign>(?:{_SIGN})?(?:{_CURRENCY}\s?[-+]?)?)"
    r"(?P<body>(?:\d+ (?=\d+/\d))?(?:\d|\.(?=\d))(?:\d|[-.,':/](?=\d))*)"
    r"(?P<power>[eE][-+]?\d{1,3}(?!\w)|\s?[*xX]\s?10\^[-+]?\d{1,3}(?!\w)|\^[-+]?\d{1,3}(?!\w))?"
    r"(?P<percent>\s?(?:%|per\s?cent\b))?(?P<half>\s?[ap]\.?m\b)?"
    rf"(?P<after>{_LETTER}+\d\w*)?"
)
_POINT = r"\d*\.\d+|[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?"
_COMMA = r"\d+,\d+|[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?"
_EITHER = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")  # 1,234: thousands, or three decimals
_APART = r"\d{1,3}(?:'\d{3})+(?:[.,]\d+)?"
_BOXED = re.compile(r"\\(?:f?boxed)\s*\{")
MARKED = re.compile(
    r"\banswer\s*(?:is)?\W*?[:=]\s*(.+?)\s*$|^\s*####\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE
)
"""A line that says which the answer is."""
_NOON = 12
_LONGEST = 400  # characters of a number; no answer needs more, and Python converts 4,300 at most


@dataclass(frozen=True, slots=True)
class Number:
    """A number; a time or a ratio has its parts."""

    parts: tuple[Fraction, ...]
    percent: bool = False

    def same(self, other: Number) -> bool:
        """Return whether they are equal: 50% is as good as 50, and as 0.5."""
        if self.percent == other.percent or len(self.parts) != 1 or len(other.parts) != 1:
            return self._short() == other._short()
        share, plain = (self, other) if self.percent else (other, self)
        return plain.parts[0] in (share.parts[0], share.parts[0] / 100)

    def _short(self) -> tuple[Fraction, ...]:
        """12:30:00 is 12:30."""
        return self.parts[:-1] if self.parts[2:] == (Fraction(0),) else self.parts


def last_number(text: str) -> Number | None:
    r"""Return the number that an answer gives.

    It is the last one in the last `\boxed{…}`; without that, in the last line `#### …` or
    `Answer: …`; without that, in the text.
    """
    found = [number for number in _numbers(_given(text)) if number]
    return found[-1] if found else None


def expected_number(text: str) -> Number | None:
    """Return the number that is expected; None where what stands last is not one plain number."""
    found = _numbers(_given(text))
    return found[-1] if found else None


def _given(text: str) -> str:
    boxes = list(_BOXED.finditer(text))
    if boxes:
        return _braced(text, boxes[-1].end())
    marked = MARKED.findall(text)
    return "".join(marked[-1]) if marked else text


def _braced(text: str, start: int) -> str:
    depth = 1
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return text[start:end]
    return text[start:]


def _numbers(text: str) -> list[Number | None]:
    """Return what is made of digits, in order; None for what is no number."""
    clumps = list(_CLUMP.finditer(_plain(text)))
    comma = _writes_commas([clump["body"] for clump in clumps])
    return [_number(clump, comma=comma) for clump in clumps]


def _plain(text: str) -> str:
    text = _VULGAR.sub(lambda one: " " + unicodedata.normalize("NFKC", one[0]), text)
    text = re.sub("[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda one: "^" + one[0].translate(_SUPERSCRIPT), text)
    text = "".join(
        str(unicodedata.decimal(one)) if one.isdecimal() else one for one in text.translate(_WIDE)
    )
    for pattern, plain in _PLAIN:
        text = pattern.sub(plain, text)
    return text


def _writes_commas(bodies: list[str]) -> bool:
    """Return whether the text's other numbers, which read one way alone, have decimal commas."""
    clear = [body for body in bodies if not _EITHER.fullmatch(body)]
    points = any(re.fullmatch(_POINT, body) for body in clear)
    return not points and any(re.fullmatch(_COMMA, body) for body in clear)


def _number(clump: re.Match[str], *, comma: bool) -> Number | None:
    if clump["before"] or clump["after"]:  # part of a word, as in GPT-4 and 0x1F
        return None
    if len(clump["body"]) > _LONGEST:
        return None
    parts = _parts(clump["body"], comma=comma)
    if parts is None:
        return None
    if len(parts) > 1:
        return Number(_of_the_day(parts, clump["half"]))
    (value,) = parts
    if power := clump["power"]:
        exponent = int(re.split("[eE^]", power)[-1])
        if power.startswith("^") and value != 10:  # noqa: PLR2004 - 2^10 is an expression
            return None
        value = Fraction(10) ** exponent * (1 if power.startswith("^") else value)
    sign = -1 if "-" in clump["sign"] else 1
    return Number((sign * value,), percent=clump["percent"] is not None)


def _of_the_day(parts: tuple[Fraction, ...], half: str | None) -> tuple[Fraction, ...]:
    if half is None:
        return parts
    hour = parts[0] % _NOON + (_NOON if "p" in half else 0)
    return (hour, *parts[1:])


def _parts(body: str, *, comma: bool) -> tuple[Fraction, ...] | None:
    """Return the value of digits with what stands between them; None where it is no number."""
    if re.fullmatch(r"\d+(?::\d+)+", body):
        return tuple(Fraction(part) for part in body.split(":"))
    if found := re.fullmatch(r"(?:(\d+) )?(\d+)/(\d+)", body):
        whole, above, below = (int(part or 0) for part in found.groups())
        return (whole + Fraction(above, below),) if below else None
    if body.isdecimal():
        return (Fraction(body),)
    if re.fullmatch(_APART, body):
        return (Fraction(body.replace("'", "").replace(",", ".")),)
    ways = [(_COMMA, ".", ","), (_POINT, ",", ".")]
    if not comma or not _EITHER.fullmatch(body):
        ways.reverse()
    for form, apart, point in ways:
        if re.fullmatch(form, body):
            return (Fraction(body.replace(apart, "").replace(point, ".")),)
    return None
