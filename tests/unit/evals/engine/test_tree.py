"""Tries of choices, segments of shared prefixes, batches: each against the obvious way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.engine.tree import batches, build_trees, segments

# A busy machine is no failure.
PATIENT = settings(deadline=None)
TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=6)
CHOICES = st.lists(TOKENS, min_size=1, max_size=12)


def seen_by(tree, node: int) -> list[int]:
    """The tokens that a node sees among the trie's, in order of depth."""
    chosen = np.flatnonzero(tree.mask[node])
    return [int(tree.tokens[n]) for n in chosen[np.argsort(tree.depths[chosen])]]


@PATIENT
@given(CHOICES, st.sampled_from([1, 5, 1000]))
def test_each_token_is_predicted_behind_its_own_choice_alone(choices, limit) -> None:
    seen: list[int] = []
    for tree in build_trees(choices, limit):
        for owner, member in enumerate(tree.members):
            seen.append(member)
            mine = tree.owners == owner
            assert tree.targets[mine].tolist() == choices[member]
            for place, slot in enumerate(tree.slots[mine]):
                before = seen_by(tree, slot - 1) if slot else []
                assert before == choices[member][:place]
    assert sorted(seen) == list(range(len(choices)))


@PATIENT
@given(CHOICES)
def test_shared_beginnings_are_one_node(choices) -> None:
    (tree,) = build_trees(choices)
    beginnings = {tuple(c[:size]) for c in choices for size in range(1, len(c))}
    assert len(tree.tokens) == len(beginnings)


@PATIENT
@given(CHOICES)
def test_chains_read_every_token_once(choices) -> None:
    (tree,) = build_trees(choices)
    found: dict[tuple[int, int, tuple[int, ...]], int] = {}
    for chain in tree.chains():
        assert chain.chain
        assert chain.mask.tolist() == np.tri(len(chain.tokens), dtype=bool).tolist()
        for slot, target, owner in zip(chain.slots, chain.targets, chain.owners, strict=True):
            key = (int(owner), int(target), tuple(int(t) for t in chain.tokens[:slot]))
            found[key] = found.get(key, 0) + 1
    wanted: dict[tuple[int, int, tuple[int, ...]], int] = {}
    for owner, member in enumerate(tree.members):
        for place, token in enumerate(choices[member]):
            key = (owner, token, tuple(choices[member][:place]))
            wanted[key] = wanted.get(key, 0) + 1
    assert found == wanted


def test_one_token_choices_add_nothing() -> None:
    (tree,) = build_trees([[5], [6], [7]])
    assert len(tree.tokens) == 0
    assert tree.slots.tolist() == [0, 0, 0]
    assert tree.chain


@PATIENT
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=60), min_size=1, max_size=20))
def test_a_segment_shares_its_prefix(sequences) -> None:
    found = segments(sequences, worth=4)
    assert sorted(row for part in found for row in part.rows) == list(range(len(sequences)))
    for part in found:
        prefixes = {tuple(sequences[row][: part.prefix]) for row in part.rows}
        assert len(prefixes) == 1
        assert all(len(sequences[row]) > part.prefix for row in part.rows)


def test_two_tasks_with_their_own_shots_become_two_segments() -> None:
    first, second = [1] * 200, [2] * 300
    sequences = [(first if n % 2 else second) + [n + 10, n + 20] for n in range(40)]
    found = {part.prefix: len(part.rows) for part in segments(sequences)}
    assert found == {200: 20, 300: 20}


def test_shots_inside_a_shared_system_prompt_are_found_behind_it() -> None:
    system = [9] * 40
    sequences = [system + [n % 2] * 200 + [n + 10] for n in range(20)]
    sequences += [[*system, 7, n + 50] for n in range(20)]
    found = sorted((part.prefix, len(part.rows)) for part in segments(sequences))
    assert found == [(40, 20), (240, 10), (240, 10)]


def test_nothing_worth_sharing_is_not_shared() -> None:
    assert [part.prefix for part in segments([[1, 2, 3], [1, 2, 4]])] == [0]


@PATIENT
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40))
def test_batches_stay_within_the_budgets(lengths) -> None:
    made = batches(lengths, lengths, tokens=100, weight=60)
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) * max(lengths[row] for row in batch) <= 100 or len(batch) == 1
        assert sum(lengths[row] for row in batch) <= 60 or len(batch) == 1
