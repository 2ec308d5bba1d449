"""Which part of the loop `run --from STAGE --until STAGE` means."""

from __future__ import annotations

import pytest

from pipeline.run import STAGES, span
from registry.errors import UserError


@pytest.mark.parametrize(
    ("start", "until", "expected"),
    [
        (None, None, ("ingest", "merge")),
        ("train", None, ("train", "merge")),
        (None, "gap", ("ingest", "gap")),
        ("mend", "mend", ("mend", "mend")),
        ("select", "train", ("select", "train")),
    ],
)
def test_a_span_is_its_first_and_last_stage(
    start: str | None, until: str | None, expected: tuple[str, str]
) -> None:
    assert span(start, until) == expected


@pytest.mark.parametrize(
    ("start", "until", "said"),
    [
        ("trian", None, "--from: no stage is called 'trian'; expected one of ingest, gap, select"),
        (None, "", "--until: no stage is called ''; expected one of ingest"),
        ("train", "gap", "--until: 'gap' comes before 'train'; expected train or a stage after it"),
    ],
)
def test_what_is_no_span_is_one_line(start: str | None, until: str | None, said: str) -> None:
    with pytest.raises(UserError) as caught:
        span(start, until)
    assert str(caught.value).startswith(said)
    assert caught.value.record().key in ("--from", "--until")


def test_every_stage_may_be_the_first_of_itself() -> None:
    assert [span(stage, stage) for stage in STAGES] == [(stage, stage) for stage in STAGES]
