"""Few-shot examples chosen for each question: the train items whose questions are most like it.

Likeness is the cosine of TF-IDF vectors over runs of 3 to 5 characters inside words: it needs no
model, so that an evaluation that was done is found without loading one, and it serves any script
and any spelling. What an item is shown depends on it and on train alone, never on which other items
are asked. The most similar example stands last, next to the question, as Liu et al. (2022, "What
makes good in-context examples for GPT-3?") order them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evals.tasks.prompts import question_of, require_enough, shot_order, usable_shots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evals.tasks.capability import Item
    from evals.tasks.prompts import Arm

POOL = 20_000
"""Train items that examples are looked for among, at most, chosen by hash."""

_BLOCK = 256  # questions compared with the whole pool at once
_CHARACTERS = (3, 5)


def similar_shots(
    train: Sequence[Item], items: Sequence[Item], arm: Arm, labels: Sequence[str] = ()
) -> dict[int, tuple[Item, ...]]:
    """Return uid -> the `arm.shots` examples of each item, the most similar last.

    No two are of one duplicate cluster, and none is of the item's own.

    Raises:
        UserError: train has too few distinct items.
    """
    pool = sorted(usable_shots(train), key=lambda item: shot_order(item, 0))[:POOL]
    require_enough(arm, len({item.cluster for item in pool}))
    order = _by_likeness(
        [question_of(arm, item, labels) for item in pool],
        [question_of(arm, item, labels) for item in items],
    )
    return {
        item.uid: _first(pool, places, item, arm.shots)
        for item, places in zip(items, order, strict=True)
    }


def _by_likeness(pool: Sequence[str], asked: Sequence[str]) -> Iterator[list[int]]:
    """Yield the pool's positions for each item, the likest first, ties in the pool's order."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=_CHARACTERS, dtype=np.float32)
    if not any(text.strip() for text in pool):  # blank questions are all alike
        for _ in asked:
            yield list(range(len(pool)))
        return
    known = vectors.fit_transform(pool).T.tocsc()
    for start in range(0, len(asked), _BLOCK):
        block = asked[start : start + _BLOCK]
        likeness = (vectors.transform(block) @ known).toarray()
        # Float32 sums may differ in the last bits between machines: such differences are ties.
        for row in np.round(likeness, 5):
            yield np.argsort(-row, kind="stable").tolist()


def _first(pool: Sequence[Item], places: Sequence[int], item: Item, count: int) -> tuple[Item, ...]:
    chosen: dict[int, Item] = {}
    for place in places:
        if pool[place].cluster != item.cluster:
            chosen.setdefault(pool[place].cluster, pool[place])
        if len(chosen) == count:
            break
    return tuple(chosen.values())[::-1]
