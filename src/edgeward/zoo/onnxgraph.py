"""What of an ONNX graph is needed for some of its values.

needed = behind(model.graph.node, ["boxes"])
kept = [model.graph.node[place] for place in needed.places]
rest = behind(model.graph.node, ["boxes"], known={"stem"}.__contains__)     # what is left when "stem" is given
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Needed", "behind", "reads"]


@dataclass(frozen=True)
class Needed:
    """places: positions of nodes, rising. known: values that are given instead, as far as they are read. left: names
    that no node makes and that are not given: weights, inputs of the graph, and what is in neither."""

    places: tuple[int, ...]
    known: frozenset[str]
    left: frozenset[str]


def behind(nodes: Sequence[Any], names: Iterable[str], known: Callable[[str], bool] = lambda name: False) -> Needed:
    """What computes the values of these names."""
    makers = {output: place for place, node in enumerate(nodes) for output in node.output if output}
    places, given, left, waiting = set[int](), set[str](), set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if known(name):
            given.add(name)
        elif name not in makers:
            left.add(name)
        elif makers[name] not in places:
            places.add(makers[name])
            waiting += reads(nodes[makers[name]])
    return Needed(tuple(sorted(places)), frozenset(given), frozenset(left))


def reads(node: Any) -> Iterator[str]:
    """Names of all that a node reads, also inside its branches and bodies."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)
            yield from (each.name for each in graph.output)
