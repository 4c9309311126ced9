"""Looks: when another model of a ladder answers once, for what it may see.

    name = candidate(selector, rungs, values, now, resident)       # None: nobody looks
    name = at_once(selector, rungs, resident)                      # in a new view: who looks first

A look costs accuracy on screen: its boxes may be worse, and better ones come later. What looks may cost together is
saved up over time, and one is taken only where what it is expected to teach is worth more than it costs (the knowledge
gradient of Frazier, Powell and Dayanik, "A knowledge-gradient policy for sequential information collection", SIAM J.
Control Optim. 47(5), 2008).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from edgeward.serve.ages import frames_on_screen
from edgeward.serve.ladder import Rung
from edgeward.serve.members import held_bytes, missing_seconds
from edgeward.serve.staleness import FPS

if TYPE_CHECKING:
    from edgeward.serve.selection import Selector

__all__ = ["at_once", "candidate", "left_after", "price"]

SHARED = 1.5
"""How much longer the turns are than the answers when others use the processor, too."""
BLIND = 0.25
"""A model that finds less than this share of what the strongest finds of a size may miss what counts."""
SAVED = 10.0
"""Seconds for which looks may be saved up."""
CHEAPEST = 0.25
"""Share of the accuracy that a look costs at least."""
FAR = 4.0
"""Standard deviations by which a rung never differs from what is expected: it needs no look."""
NORMAL = NormalDist()


def candidate(
    selector: Selector, rungs: Mapping[str, Rung], values: Mapping[str, float], now: float, resident: Collection[str]
) -> str | None:
    """The rung of which one look is worth most beyond its price, None when none is worth it or can be afforded.

    Where the one in charge is blind for sizes, the strongest has its turn first. resident: rungs in memory.
    """
    if not selector.rules.probe_share:
        return None
    if (unasked := _while_nothing_is_seen(selector, rungs, now, resident)) is not None:
        return unasked
    active = selector.ladder.rung(selector.active)
    strongest = max(rungs.values(), key=lambda rung: (rung.mean, rung.name))
    blind = any(own < BLIND * its for own, its in zip(active.accuracy, strongest.accuracy, strict=True))
    if blind and strongest.name != selector.active:
        looked = selector.latency.ran.get(strongest.name, now if selector.began is None else selector.began)
        due = (now - looked) * selector.rules.probe_share >= price(selector, strongest, resident)
        if due and left_after(selector, strongest, now, resident) >= 0:
            return strongest.name
    if selector.rules.drift is None or _sharing(selector) > 1:
        return None
    known = (name for name in sorted(rungs) if name != selector.active and min(values[name], values[active.name]) > 0)
    net = {
        name: taught - price(selector, rungs[name], resident)
        for name in known
        if (taught := _taught(selector, rungs[name], values[name] / values[active.name]))
        > _least_price(selector, rungs[name])  # what a look costs in full takes longer to tell
    }
    worth = [name for name in net if net[name] > 0 and left_after(selector, rungs[name], now, resident) >= 0]
    return max(worth, key=net.__getitem__, default=None)


def _while_nothing_is_seen(
    selector: Selector, rungs: Mapping[str, Rung], now: float, resident: Collection[str]
) -> str | None:
    """Whose look is longest due. On an empty screen looks cost nothing but time, of which they take `probe_share`."""
    since, share = selector.doubt.since, selector.rules.probe_share
    if since is None or now - since < selector.rules.dwell or _sharing(selector) > 1:
        return None
    ladder, memory = selector.ladder, selector.rules.memory
    names = [
        name
        for name in selector.others
        if name in rungs and (memory is None or held_bytes(ladder, (selector.active, name)) <= memory)
    ]
    due = {}
    for name in names:
        seconds = selector.latency.seconds[name] + missing_seconds(ladder, name, resident)
        due[name] = (now - selector.doubt.looks.get(name, since)) * share / (len(names) * seconds)
    name = max(due, key=lambda each: due[each], default="")
    return name if name and due[name] >= 1 else None


def _taught(selector: Selector, rung: Rung, ratio: float) -> float:
    """Seconds' worth of accuracy that one look is expected to gain: it may turn out that the rung should be in charge
    after all, or should not, for as long as what is learned holds. ratio: of what is expected of it to what is expected
    of the one in charge.
    """
    drift, seconds = selector.evidence.drift, max(selector.turn, 1 / selector.rules.fps)
    away = abs(math.log(ratio) - math.log1p(selector.rules.margin))
    if away > FAR * math.sqrt(2) * drift.own * drift.holds:
        return 0.0
    expected = float(np.dot(selector.histogram.shares, rung.accuracy))
    learned = selector.evidence.learned(rung.name, selector.active, expected, seconds)
    if not learned:
        return 0.0
    gain = learned * NORMAL.pdf(away / learned) - away * NORMAL.cdf(-away / learned)
    return gain * drift.own_seconds


def price(selector: Selector, rung: Rung, resident: Collection[str]) -> float:
    """Seconds' worth of accuracy on screen that a look costs: its boxes are worse, and it holds up better ones."""
    seconds, own = selector.latency.seconds[rung.name], selector.precision(selector.active)
    if own <= 0:
        return 0.0
    held = 1 - selector.precision(selector.active, selector.latency.seconds[selector.active] + seconds) / own
    worse = max(1 - selector.precision(rung.name) / own, 0.0)
    cost = _least_price(selector, rung) * max(worse / CHEAPEST, 1.0) + seconds * max(held, 0.0)
    cost *= _sharing(selector)
    if rung.name not in resident:
        ladder, memory = selector.ladder, selector.rules.memory
        cost += missing_seconds(ladder, rung.name, resident)
        if memory is not None and held_bytes(ladder, (selector.active, rung.name)) > memory:
            cost += ladder.rung(selector.active).load_seconds  # it has to make room, and to come back
    return cost


def _least_price(selector: Selector, rung: Rung) -> float:
    """Of a look whose boxes are not much worse, which holds up nothing and needs no load."""
    return CHEAPEST * max(selector.latency.seconds[rung.name], 1 / selector.rules.fps)


def _sharing(selector: Selector) -> float:
    """How many others, at least as slow, seem to wait for the processor, too; 1 for none but itself."""
    alone = max(selector.latency.seconds[selector.active], 1 / selector.rules.fps)
    return selector.turn / alone if selector.turn > SHARED * alone else 1.0


def at_once(selector: Selector, rungs: Mapping[str, Rung], resident: Collection[str]) -> str:
    """Who in memory answers first in a new view, where nothing on screen holds; then who is in charge goes on.

    Either R looks first: its boxes are there from its answer to that of A, which is in charge and takes up the next
    frame; or A does: until then its own are there for all but its own latency. Another view may come at another pace,
    so that R has to gain as a mean over the camera's pace and the usual one.
    """
    paces = (selector.rules.fps, max(selector.rules.fps, FPS))

    def gain(name: str) -> float:
        return sum(_gained(selector, name, fps) for fps in paces)

    there = [name for name in sorted(rungs) if name in resident or name == selector.active]
    return max(there, key=lambda name: (gain(name), name == selector.active))


def _gained(selector: Selector, name: str, fps: float) -> float:
    """Seconds' worth of accuracy that are gained when `name` looks at the first frame, not who is in charge."""
    late, own = (frames_on_screen(selector.latency.seconds[each], fps) / fps for each in (name, selector.active))
    following = max(late, selector.rules.period, 1 / fps)
    worth, kept = (
        float(selector.precisions(each, np.array([seconds * selector.rules.fps]))[0])
        for each, seconds in ((name, late), (selector.active, own))
    )
    return worth * (following + own - late) - kept * following


def left_after(selector: Selector, rung: Rung, now: float, resident: Collection[str]) -> float:
    """What is left of the seconds' worth that looks may cost after one of this rung; below 0 it has to wait."""
    saved, when = selector.credit
    began = now if selector.began is None else selector.began
    cost = price(selector, rung, resident)
    saved += (now - max(when, began)) * selector.rules.probe_share
    return min(saved, max(SAVED * selector.rules.probe_share, cost)) - cost
