"""Which pictures an account has, in the order of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.pages.charts.graph import lineage_picture
from pipeline.pages.charts.rows import (
    kept_out_picture,
    nearness_picture,
    rounds_picture,
    scale_picture,
    selection_picture,
)
from pipeline.pages.charts.scores import forgetting_picture, gap_picture
from pipeline.pages.charts.training import curve_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.pages.account import Account
    from pipeline.pages.charts.draw import Picture


def pictures(told: Account) -> dict[str, list[Picture]]:
    """Return the pictures of an account by the part of the page that they stand in."""
    made: dict[str, list[Picture | None]] = {
        "gap": [gap_picture(told)],
        "forgetting": [forgetting_picture(told), rounds_picture(told)],
        "selection": list(_of_rows(told)),
        "training": list(curve_pictures(told)),
        "mending": [scale_picture(one) for one in told.trainings],
        "lineage": [lineage_picture(told.lineage)],
    }
    return {part: [one for one in found if one is not None] for part, found in made.items()}


def _of_rows(told: Account) -> Iterator[Picture | None]:
    if told.trainings:
        last = told.trainings[-1]
        yield selection_picture(last)
        yield kept_out_picture(last)
        yield nearness_picture(last)
