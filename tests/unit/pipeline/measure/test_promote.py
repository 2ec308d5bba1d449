"""Promote's gates: figures in, verdict out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.measure.gates import gates, holds, refusals


@dataclass(frozen=True)
class Closed:
    verdict: str


@dataclass(frozen=True)
class Kept:
    verdict: str
    accepted: bool = False
    witness: bool = False


CLOSED = st.builds(Closed, st.sampled_from(["closed", "open", "inconclusive"]))
KEPT = st.builds(Kept, st.sampled_from(["kept", "forgotten", "inconclusive"]), st.booleans())


@given(
    st.dictionaries(st.text("ab", min_size=1), CLOSED, min_size=1),
    st.dictionaries(st.text("xy", min_size=1), KEPT),
)
def test_nothing_passes_but_closed_gaps_with_everything_kept_or_accepted(closing, keeping) -> None:
    reasons = refusals(gates(closing, keeping))
    fine = all(c.verdict == "closed" for c in closing.values()) and all(
        k.verdict == "kept" or k.accepted for k in keeping.values()
    )
    assert (not reasons) == fine == holds(closing.values(), keeping.values())


@pytest.mark.parametrize("verdict", ["open", "inconclusive"])
def test_a_gap_that_is_not_closed_is_named(verdict) -> None:
    reasons = refusals(gates({"mood": Closed(verdict)}, {"facts": Kept("kept")}))
    assert reasons == (f"mood: the gap is {verdict} on test",)


def test_an_accepted_loss_passes_and_is_on_the_record() -> None:
    found = gates({"mood": Closed("closed")}, {"facts": Kept("forgotten", accepted=True)})
    assert refusals(found) == ()
    assert "accepts" in found[1].reason


def test_an_adapter_that_was_tuned_for_nothing_is_refused() -> None:
    assert refusals(gates({}, {"facts": Kept("kept")}))


def test_each_gate_says_what_was_found_and_accepts_a_loss_alone() -> None:
    closing = {"mood": Closed("closed"), "intent": Closed("open")}
    keeping = {
        "facts": Kept("kept", accepted=True),
        "sums": Kept("forgotten"),
        "names": Kept("inconclusive", accepted=True),
    }
    assert [(one.name, one.passed, one.reason) for one in gates(closing, keeping, "dev")] == [
        ("closed:mood", True, "mood: the gap is closed on dev"),
        ("closed:intent", False, "intent: the gap is open on dev"),
        ("kept:facts", True, "facts is kept on dev"),
        ("kept:sums", False, "sums is forgotten on dev"),
        ("kept:names", True, "names is inconclusive on dev, which the spec accepts"),
    ]
    told = gates(
        {"mood": Closed("inconclusive")},
        {"days": Kept("forgotten", witness=True)},
        settling={"mood": "about 480 items would settle it"},
    )
    assert [one.reason for one in told] == [
        "mood: the gap is inconclusive on test (about 480 items would settle it)",
        "days, a witness, is forgotten on test",
    ]
    (alone,) = gates({}, {})
    assert (alone.name, alone.passed) == ("tuned", False)
