"""The lineage as a graph: what was made from what, layer by layer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.pages.charts.draw import AFTER, GRID, INK, QUIET, Picture

if TYPE_CHECKING:
    from registry.lineage.graph import Lineage

_LAYER, _ROW = 135, 26  # pixels between two things
_BESIDE = 0.6  # of a layer left and right of the outermost: their names are centred
_NARROWEST = 620
_PASSED = frozenset({"run", "eval", "forgetting", "metrics", "rows", "uids", "places"})
_MOST = 40  # nodes; beyond them the graph is no picture any more


def lineage_picture(found: Lineage) -> Picture | None:
    """Draw what a thing was made from; runs and measurements are passed over.

    None where there is nothing above it, or too much to be seen.
    """
    kept = [one for one in found.nodes if one.kind not in _PASSED or one.id == found.root]
    nodes = {one.id: one for one in kept}
    links = _links(found, frozenset(nodes))
    if not links or len(nodes) > _MOST:
        return None
    depth = _layers(found.root, links)
    deepest = max(depth.values()) or 1
    layers: dict[int, list[str]] = {}
    for key in nodes:
        if key in depth:
            layers.setdefault(depth[key], []).append(key)
    tallest = max(map(len, layers.values()))
    places: dict[str, dict[str, Any]] = {}
    for layer, keys in layers.items():
        for at, key in enumerate(keys):
            one = nodes[key]
            places[key] = {
                "x": deepest - layer,
                "y": (at + 0.5) * tallest / len(keys),
                "what": f"{one.kind.replace('_', ' ')} {key[:8]}",
                "label": one.label,
                "root": key == found.root,
            }
    lines = [
        {"x": places[a]["x"], "y": places[a]["y"], "x2": places[b]["x"], "y2": places[b]["y"]}
        for a, b in links
        if a in places and b in places
    ]
    said = "; ".join(f"{one.kind} {one.id[:8]} {one.label}".strip() for one in nodes.values())
    return Picture(
        "lineage",
        "What it was made from",
        f"From the data on the left to the result on the right: {said}.",
        partial(_graph, list(places.values()), lines, deepest, tallest),
    )


def _graph(
    places: list[dict[str, Any]], lines: list[dict[str, Any]], deepest: int, tallest: int
) -> Any:
    import altair as alt

    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-_BESIDE, deepest + _BESIDE]))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[0, tallest], reverse=True))
    edges = (
        alt.Chart(alt.Data(values=lines)).mark_rule(color=GRID).encode(x=x, y=y, x2="x2", y2="y2")
    )
    seen = alt.Chart(alt.Data(values=places)).encode(x=x, y=y)
    dots = seen.mark_point(filled=True, size=60, opacity=1).encode(
        color=alt.condition("datum.root", alt.value(AFTER), alt.value(QUIET))
    )
    names = seen.mark_text(dy=-9, fontSize=11, color=INK).encode(text="what:N")
    labels = seen.mark_text(dy=13, fontSize=10, color=QUIET, limit=150).encode(text="label:N")
    return alt.layer(edges, dots, names, labels).properties(
        width=max(_NARROWEST, round(_LAYER * (deepest + 2 * _BESIDE))),
        height=max(120, 2 * _ROW * tallest),
    )


def _links(found: Lineage, shown: frozenset[str]) -> list[tuple[str, str]]:
    """Return what was made from what among the shown, through what is passed over."""
    above: dict[str, list[str]] = {}
    for edge in found.edges:
        above.setdefault(edge.child, []).append(edge.parent)
    links: list[tuple[str, str]] = []
    for key in shown:
        seen, ahead = {key}, list(above.get(key, ()))
        while ahead:
            parent = ahead.pop()
            if parent in seen:
                continue
            seen.add(parent)
            if parent in shown:
                links.append((key, parent))
            else:
                ahead += above.get(parent, ())
    return _direct(sorted(links))


def _direct(links: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out a link where others lead from the one to the other."""
    above: dict[str, set[str]] = {}
    for child, parent in links:
        above.setdefault(child, set()).add(parent)

    def beyond(start: str) -> set[str]:
        reached: set[str] = set()
        ahead = [start]
        while ahead:
            for parent in above.get(ahead.pop(), set()) - reached:
                reached.add(parent)
                ahead.append(parent)
        return reached

    over = {key: beyond(key) for key in above}
    return [
        (child, parent)
        for child, parent in links
        if not any(parent in over.get(other, ()) for other in above[child] - {parent})
    ]


def _layers(root: str, links: list[tuple[str, str]]) -> dict[str, int]:
    """Return the longest way from the root to each: no link goes within a layer."""
    above: dict[str, list[str]] = {}
    for child, parent in links:
        above.setdefault(child, []).append(parent)
    depth = {root: 0}
    ahead = [root]
    while ahead:
        child = ahead.pop(0)
        for parent in above.get(child, ()):
            if depth.get(parent, -1) < depth[child] + 1:
                depth[parent] = depth[child] + 1
                ahead.append(parent)
    return depth
