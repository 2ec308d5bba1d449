from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.store.hashing import canonical_json, digest, file_digest

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abcé"), inner),
    max_leaves=10,
)


@settings(deadline=None)  # a busy machine is no fault
@given(JSON)
def test_canonical_json_says_the_same_and_only_once(value: object) -> None:
    written = canonical_json(value)
    again = json.loads(written)
    assert again == value
    assert canonical_json(again) == written


def test_the_form_is_fixed() -> None:
    # Changing any of this renames every object in every store.
    value = {"b": [1, 2.5, True, None], "a": {"ü": "é\n"}, "tuple": (1,)}
    written = '{"a":{"ü":"é\\n"},"b":[1,2.5,true,null],"tuple":[1]}'
    assert canonical_json(value) == written.encode()
    assert digest(value) == hashlib.sha256(written.encode()).hexdigest()


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}, "\ud800"])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"JSON compliant|surrogates"):
        canonical_json(value)


@pytest.mark.parametrize("value", [{1: "a"}, [{"a": {None: 1}}], {"a": {1, 2}}, b"bytes"])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 1_000_000)
    assert file_digest(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
