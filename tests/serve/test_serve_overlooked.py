"""Blindness of the model in charge: told from looks of others, seldom by chance, and never by one of several alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serve_selection import FPS, LADDER, RULES, live, squares

from edgeward.serve.overlooked import Doubt
from edgeward.serve.selection import Selector
from edgeward.vision.results import Detections

CHANCES = st.floats(0, 1)


@given(st.lists(st.tuples(CHANCES, CHANCES), max_size=200))
def test_one_of_several_does_not_decide_alone(history):
    """What one model imagines, however sure it is and however often."""
    doubt = Doubt().answered(False, 0.0, 0.9)
    for place, (chance, finds) in enumerate(history):
        doubt = doubt.looked("fast", chance, float(place)).answered(False, place + 0.1, finds)
    assert not doubt.sure(others=2)


@given(st.lists(st.tuples(st.sampled_from("abc"), CHANCES, CHANCES), max_size=60), st.integers(0, 59))
def test_whoever_sees_something_is_not_blind(history, place):
    doubt = Doubt().answered(False, 0.0, 0.9)
    for at, (name, chance, finds) in enumerate(history):
        doubt = doubt.looked(name, chance, float(at)).answered(at == place, at + 0.1, finds)
        if at == place:
            assert doubt == Doubt(looks=doubt.looks, at=at + 0.1)
            assert not doubt.sure(others=1)


@pytest.mark.parametrize("others", [1, 2, 4])
@pytest.mark.parametrize("finds", [0.6, 0.9])
def test_the_blind_are_found_out_and_others_hardly_ever_are(others, finds):
    """Each look is right nine times in ten, and sure to that degree; there are looks every half a second."""

    def told(blind, seconds, seed):
        draw, doubt = np.random.default_rng(seed), Doubt().answered(False, 0.0, finds)
        for at in np.arange(0, seconds, 0.5):
            there = draw.random() < 0.9
            doubt = doubt.looked(f"m{draw.integers(others)}", 0.9, at)
            doubt = doubt.answered(there and not blind and draw.random() < finds, at + 0.1, finds)
            if doubt.sure(others):
                return at
        return None

    found = [told(True, 60, seed) for seed in range(50)]
    assert None not in found
    assert np.median(found) <= 10
    assert sum(told(False, 60, seed) is not None for seed in range(200)) <= 24, "one of a thousand looks at most"


def test_doubts_fade():
    """A hundred things imagined in a hundred minutes are nothing; in a hundred seconds they tell."""

    def doubted(apart):
        doubt = Doubt().answered(False, 0.0, 0.9)
        for place in range(1, 100):
            doubt = doubt.looked("ab"[place % 2], 0.6, place * apart).answered(False, place * apart + 0.1, 0.9)
        return doubt.sure(others=2)

    assert doubted(1.0)
    assert not doubted(60.0)


ALL = tuple(rung.name for rung in LADDER.rungs)


def seen_by(*names, count=6):
    """A scene of large things that only these models see."""
    return lambda rung, now: squares([200] * count, 0.0, now) if rung in names else Detections.empty()


def in_charge(taken):
    return Counter(choice.name for _, choice in taken if not choice.probe)


def test_a_model_that_is_blind_here_gives_way_to_those_that_see_and_is_tried_again_ever_more_rarely():
    selector, _ = live(Selector.start(LADDER, RULES), seen_by("large", "middle", "tiny"), 5)
    assert selector.active == "large"
    selector, taken = live(selector, seen_by("middle", "tiny"), 305, start=5.0, resident=ALL)
    reasons = [choice.reason for _, choice in taken if "left the ladder" in choice.reason]
    assert "'large' left the ladder: it sees nothing where 'middle' and 'tiny' see something; " in reasons[0]
    at = [now for now, choice in taken if "left the ladder" in choice.reason]
    assert at[0] < 65
    apart = np.diff(at)
    assert len(apart) >= 1
    assert (np.diff(apart) > 0).all(), "it is tried again after 10 s, 20 s, 40 s, ..."
    assert in_charge([each for each in taken if each[0] > 100])["middle"] > len(taken) / 4
    healed, _ = live(selector, seen_by("large", "middle", "tiny"), 1000, start=305.0, resident=ALL)
    assert healed.active == "large"
    assert not healed.out


def test_in_an_empty_room_nobody_leaves_and_looks_take_their_share_of_time():
    selector, taken = live(Selector.start(LADDER, RULES), seen_by(), 300, resident=ALL)
    assert not selector.out
    took = sum(LADDER.rung(choice.name).seconds + 1 / FPS for _, choice in taken if choice.probe)
    assert 0 < took <= 2 * RULES.probe_share * 300, "itself, and the frame that it is rounded up to"
    assert len({choice.name for _, choice in taken if choice.probe}) == 2, "all others look"


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(["tiny", "middle"]))
def test_what_one_model_imagines_in_an_empty_room_changes_nothing(dreamer):
    selector, _ = live(Selector.start(LADDER, RULES), seen_by("large", "middle", "tiny"), 5)
    selector, taken = live(selector, seen_by(dreamer), 120, start=5.0, resident=ALL)
    assert not selector.out
    assert not [choice for _, choice in taken if "left the ladder" in choice.reason]
