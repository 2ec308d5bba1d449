"""What is the same text: in any Unicode form, and in scripts that put no space between words."""

# ruff: noqa: RUF001 - sentences in several scripts, with their own punctuation

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.datasets.duplicates.near_duplicates import (
    THRESHOLD,
    clusters,
    jaccard,
    near_pairs,
    shingles,
)
from registry.datasets.duplicates.overlap import HeldOut, HeldOutItem, RowWords, grams
from registry.datasets.duplicates.tokens import one_form, runs_of_words, tokens_of, words_of

# Sentences of about thirty words of English, each with the same word changed in every language.
LANGUAGES = {
    "en": (
        (
            "I lost my bank card on the train to Bangkok yesterday evening and I would like to"
            " know how I can block it and order a new one before I fly home next Sunday"
        ),
        "Bangkok",
        "London",
    ),
    "zh": (
        "我昨天傍晚在去曼谷的火车上丢了银行卡，想知道怎样才能把它冻结，并且在下个星期天坐飞机回家之前申请一张新的卡寄到我住的酒店，谢谢你们的帮助",
        "曼谷",
        "伦敦",
    ),
    "ja": (
        "昨日の夕方、バンコク行きの電車の中で銀行のカードをなくしてしまいました。カードを止める方法と、来週の日曜日に飛行機で帰国する前に新しいカードを注文する方法を教えてください",
        "バンコク",
        "ロンドン",
    ),
    "th": (
        (
            "ฉันทำบัตรธนาคารหายบนรถไฟไปกรุงเทพเมื่อเย็นวานนี้ และอยากทราบว่าจะอายัดบัตรและสั่งบัตรใบใหม่ได้อย่างไร"
            "ก่อนที่ฉันจะบินกลับบ้านในวันอาทิตย์หน้า ขอบคุณสำหรับความช่วยเหลือ"
        ),
        "กรุงเทพ",
        "ลอนดอน",
    ),
}
FORMS = {
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "full width": lambda text: "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text
    ),
    "zero-width": lambda text: "\u200b".join(text) + "\ufeff",
    "soft hyphens": lambda text: text.replace("r", "\u00adr"),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
}
TEXT = "Où est ma carte bancaire ? Je l'ai perdue à Besançon, près du café."


@pytest.mark.parametrize("form", FORMS)
def test_equal_text_in_another_unicode_form_is_the_same_text(form: str) -> None:
    other = FORMS[form](TEXT)
    assert other != TEXT
    assert clusters([TEXT, other]).tolist() == [0, 0]
    assert jaccard(shingles(TEXT), shingles(other)) == 1.0
    item = HeldOutItem("bank test", "test.csv:2", "", TEXT, (TEXT,))
    row = RowWords("another hash", other, other)
    assert HeldOut([item]).refuses(row) == "exact"
    assert [found.kind for found in HeldOut([item]).find([row])] == ["exact"]


@given(st.text())
def test_one_form_is_final(text: str) -> None:
    assert one_form(one_form(text)) == one_form(text)
    assert one_form(unicodedata.normalize("NFD", text)) == one_form(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_word_changed_is_near_in_every_language(language: str) -> None:
    text, word, other = LANGUAGES[language]
    assert text.count(word) == 1
    changed = text.replace(word, other)
    assert 0.8 <= jaccard(shingles(text), shingles(changed)) < 0.9
    assert [pair.right for pair in near_pairs([changed], [text])] == [0]
    assert clusters([text, changed]).tolist() == [0, 0]


@pytest.mark.parametrize("language", LANGUAGES)
def test_half_a_sentence_is_another_one_in_every_language(language: str) -> None:
    text = LANGUAGES[language][0]
    for part in (text[: len(text) // 2], text[len(text) // 3 :]):
        assert jaccard(shingles(text), shingles(part)) < THRESHOLD


def test_one_character_of_86_leaves_nine_tenths_as_one_word_of_86_does() -> None:
    chinese = "".join(chr(0x4E00 + 7 * number) for number in range(86))
    english = " ".join(f"w{number}" for number in range(86))
    assert jaccard(shingles(english), shingles(english.replace("w40", "x"))) == 81 / 87
    assert jaccard(shingles(chinese), shingles(chinese.replace(chinese[40], "一"))) == 79 / 87


def test_short_rows_of_one_chinese_template_stay_apart() -> None:
    made = [f"{one}的首都是哪里？" for one in ("法国", "德国", "日本", "泰国", "阿根廷")]
    assert clusters(made).tolist() == [0, 1, 2, 3, 4]


def test_a_long_run_of_a_chinese_test_item_in_a_row_is_a_leak() -> None:
    held = LANGUAGES["zh"][0]
    item = HeldOutItem("bank test", "test.csv:2", "", held, (held,))
    row = RowWords("", "请翻译下面这句话。" + held[10:40] + "！", "请翻译下面这句话。")
    assert HeldOut([item]).refuses(row) == "13-gram"
    short = RowWords("", "请翻译下面这句话。" + held[10:22] + "！", "请翻译下面这句话。")
    assert HeldOut([item]).refuses(short) is None


def test_tokens_by_script() -> None:
    assert tokens_of("My card, 3%") == ["my", "card", ",", "3", "%"]
    assert tokens_of("我的 GPT-4 卡。") == ["我", "的", "gpt", "-", "4", "卡", "。"]
    assert tokens_of("ก็ดี") == ["ก", "็", "ด", "ี"]
    assert tokens_of("내 카드, 3") == ["내", "카드", ",", "3"]  # Korean is spaced
    assert words_of("我的 GPT-4 卡。") == ["我", "的", "gpt", "4", "卡"]


def test_runs_are_as_long_as_so_many_words() -> None:
    assert list(runs_of_words(list("abcd"), 3)) == ["a b c", "b c d"]
    assert list(runs_of_words(list("一二三四五"), 3)) == ["一 二 三 四", "二 三 四 五"]
    assert list(runs_of_words(list("กขคฆงจ"), 3)) == ["ก ข ค ฆ ง จ"]
    assert list(runs_of_words(["a", "一", "b", "二"], 3)) == ["a 一 b 二"]
    assert list(runs_of_words(list("一二三"), 3)) == list(runs_of_words(["a", "b"], 3)) == []


@given(st.lists(st.sampled_from(["a", "b", ",", "一", "二", "ก", "ข"]), max_size=40))
def test_a_run_is_the_shortest_that_is_long_enough(tokens: list[str]) -> None:
    size = {"一": 9, "二": 9, "ก": 6, "ข": 6}
    wanted = []
    for start in range(len(tokens)):
        for end in range(start, len(tokens) + 1):
            if sum(size.get(token, 12) for token in tokens[start:end]) >= 36:
                wanted.append(" ".join(tokens[start:end]))
                break
    assert list(runs_of_words(tokens, 3)) == wanted


def test_thirteen_words_are_a_run_where_words_are_spaced() -> None:
    text = " ".join(f"w{number}" for number in range(14))
    assert len(list(grams(text))) == 2
