"""Run-time selection: what the estimates say, and that switching keeps its rules."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import BudgetError, ConfigError
from edgeward.serve.ages import frames_on_screen
from edgeward.serve.choice import Answer, Choice
from edgeward.serve.evidence import Drift
from edgeward.serve.ladder import Ladder, Rung
from edgeward.serve.latency import LATELY, SHORTLY, SLICE, Latency, alone, among, programs
from edgeward.serve.looks import left_after, price
from edgeward.serve.rivals import Fixed, Oracle, Periodic, Random, RoundRobin, Thresholds, agreement
from edgeward.serve.rules import Rules
from edgeward.serve.selection import Selector
from edgeward.vision.results import Detections

FPS, PIXELS = 30, 1000
EDGES = (0.0, 0.1, 0.25, 1.0)
TINY = Rung("tiny", (0.0, 0.3, 0.8), 0.025, 0.1, 4, 0.8)
MIDDLE = Rung("middle", (0.2, 0.8, 0.9), 0.12, 0.2, 20, 0.8)
LARGE = Rung("large", (0.8, 0.9, 0.95), 0.22, 0.4, 60, 0.8)
LADDER = Ladder("box", ("object",), EDGES, (TINY, MIDDLE, LARGE))
RULES = Rules(FPS, PIXELS, PIXELS)


def squares(sides, speed=0.0, time=0.0, seen=None):
    """Squares in a row, moving right by `speed` of their own side per second; only those of `seen`."""
    sides = np.asarray(sides, float)
    left = np.arange(len(sides)) * 3000.0 + sides * speed * time
    keep = np.ones(len(sides), bool) if seen is None else np.asarray(seen, bool)
    box = np.stack([left, np.zeros(len(sides)), left + sides, sides], axis=1)[keep]
    return Detections(box, np.full(len(box), 0.9), np.zeros(len(box)))


def live(selector, scene, until, load=lambda now: 1.0, start=0.0, resident=()):
    """Serve a scene; `scene(rung, now)` gives the boxes that a rung sees. Returns the selector and (time, choice)s."""
    now, taken = start, []
    while now < until:
        choice = selector.choice(now, resident)
        selector = selector.taken(choice, now)
        taken.append((now, choice))
        seconds = LADDER.rung(choice.name).seconds * load(now)
        answer = Answer(choice.name, now, scene(choice.name, now))
        selector = selector.observe(answer, now + seconds, seconds)
        now += frames_on_screen(seconds, FPS) / FPS
    return selector, taken


def small_and_large(rung, now):
    """Fifteen small standing objects that `tiny` misses, three large ones."""
    sides = [60] * 15 + [400] * 3
    return squares(sides, 0.0, now, [rung != "tiny"] * 15 + [True] * 3)


def test_a_ladder_of_one_is_always_chosen():
    _, taken = live(Selector.start(replace(LADDER, rungs=(MIDDLE,)), RULES), small_and_large, 5)
    assert {choice.name for _, choice in taken} == {"middle"}
    assert not any(choice.probe for _, choice in taken)
    assert "only model" in taken[-1][1].reason


@pytest.mark.parametrize(
    ("seconds", "frames"), [(1 / 30, 1), (0.0001, 1), (1 / 30 + 0.01, 2), (2 / 30, 2), (0.126, 4), (0.216, 7)]
)
def test_a_result_stays_for_whole_frames(seconds, frames):
    assert frames_on_screen(seconds, 30) == frames


@given(st.integers(1, 40), st.sampled_from([10, 25, 29.97, 30, 60]))
def test_a_latency_of_whole_frames_is_not_rounded_up(frames, fps):
    assert frames_on_screen(frames / fps, fps) == frames


@given(st.integers(1, 30), st.sampled_from(["all", "bin"]), st.sampled_from(["displacement", "decay"]))
def test_precision_is_that_of_boxes_n_to_2n_minus_1_frames_old(frames, by, model):
    rules = replace(RULES, motion=replace(RULES.motion, by=by, model=model))
    selector = Selector.start(replace(LADDER, rungs=(replace(LARGE, seconds=frames / FPS),)), rules)
    rates = selector.retention.rates
    first = 0 if frames == 1 else frames
    ages = np.arange(first, first + frames, dtype=float)
    kept = rules.motion.kept(rates, ages).mean(axis=1)
    assert selector.precision("large") == pytest.approx(np.mean(np.multiply(LARGE.accuracy, kept)))
    streaming = replace(selector, rules=replace(rules, own_frame=False))
    assert streaming.precision("large") <= selector.precision("large")


@given(st.floats(1.01, 8))
def test_slower_and_less_accurate_rungs_are_worth_less(factor):
    selector = Selector.start(LADDER, RULES)
    for rung in LADDER.rungs:
        slow = replace(selector, latency=Latency.nominal({rung.name: rung.seconds * factor}))
        assert slow.precision(rung.name) <= selector.precision(rung.name) * (1 + 1e-12)
        weak = replace(rung, accuracy=tuple(each / factor for each in rung.accuracy))
        assert Selector.start(replace(LADDER, rungs=(weak,)), RULES).precision(rung.name) < selector.precision(
            rung.name
        )
        paced = selector.precision(rung.name, cycle=rung.seconds * factor)
        assert paced <= selector.precision(rung.name) * (1 + 1e-12)


@given(st.lists(st.floats(0.001, 0.5), min_size=3, max_size=3), st.lists(st.floats(0, 2), min_size=3, max_size=3))
def test_it_begins_with_who_answers_first_until_load_and_motion_are_known(seconds, loads):
    rungs = [
        replace(rung, seconds=taken, load_seconds=load)
        for rung, taken, load in zip(LADDER.rungs, seconds, loads, strict=True)
    ]
    ladder = replace(LADDER, rungs=(*rungs, replace(LARGE, name="other", seconds=1.0, load_seconds=9.0)))
    selector = Selector.start(ladder, RULES)
    for resident in ((), ("middle",), tuple(rung.name for rung in rungs)):
        until = {rung.name: rung.seconds + rung.load_seconds * (rung.name not in resident) for rung in ladder.rungs}
        chosen = selector.choice(0.0, resident)
        assert until[chosen.name] == min(until.values())
        assert "quickest" in chosen.reason
    selector = selector.taken(chosen, 0.0)
    assert selector.choice(60.0).name == chosen.name  # the first frame may come long after the box was started
    selector = replace(selector, rules=replace(RULES, probe_share=0.0))
    for late in (0.0, 0.1, 0.29):
        selector = selector.observe(Answer(chosen.name, 60 + late, squares([60] * 18)), 60.2 + late, 0.2)
        assert selector.choice(60.2 + late).name == chosen.name


def test_content_and_load_decide():
    slow_small, _ = live(Selector.start(LADDER, RULES), lambda rung, now: squares([60] * 18, 0.0, now), 4)
    assert slow_small.active == "large"
    fast_large, _ = live(Selector.start(LADDER, RULES), lambda rung, now: squares([400] * 18, 6.0, now), 4)
    assert fast_large.active == "tiny"
    still_large, _ = live(Selector.start(LADDER, RULES), lambda rung, now: squares([180] * 18, 0.6, now), 4)
    loaded, _ = live(Selector.start(LADDER, RULES), lambda rung, now: squares([180] * 18, 0.6, now), 4, lambda now: 6.0)
    assert still_large.latency.seconds["large"] < loaded.latency.seconds["large"]
    assert LADDER.rung(loaded.active).seconds < LADDER.rung(still_large.active).seconds


def test_probes_free_it_from_a_blind_spot_and_cost_their_share():
    # It begins among large fast objects, which make the tiny model right; then only small ones are left.
    def scene(rung, now):
        if now < 5:
            return squares([400] * 18, 6.0, now)
        return squares([60] * 15 + [400] * 2, 0.0, now, [rung == "large"] * 15 + [True] * 2)

    rules = RULES
    blind, _ = live(Selector.start(LADDER, replace(rules, probe_share=0.0)), scene, 60)
    assert blind.active == "tiny"
    seeing, taken = live(Selector.start(LADDER, rules), scene, 60)
    assert seeing.active == "large"
    looks = [now for now, choice in taken if choice.probe]
    assert all(later - before >= LARGE.seconds / rules.probe_share for before, later in itertools.pairwise(looks))
    spent = sum(LARGE.seconds for now in looks)
    assert spent <= rules.probe_share * 60


def hoped_for(selector, rival):
    """Seconds' worth by which one look may better the choice, by integration over what it may teach."""
    values = selector.precision(rival), selector.precision(selector.active)
    ahead = math.log(values[0] / values[1]) - math.log1p(selector.rules.margin)
    expected = float(np.dot(selector.histogram.shares, selector.ladder.rung(rival).accuracy))
    learned = selector.evidence.learned(rival, selector.active, expected, max(selector.turn, 1 / FPS))
    deviations = np.linspace(-9, 9, 20001)
    chances = np.exp(-(deviations**2) / 2) / math.sqrt(2 * math.pi)
    then = np.trapezoid(chances * np.maximum(ahead + learned * deviations, 0), deviations)
    return selector.evidence.drift.own_seconds * (then - max(ahead, 0))


@pytest.mark.parametrize(
    ("worse", "holds", "looks"),
    [(0.97, 1.0, True), (0.99, 1.0, True), (0.97, 0.25, True), (0.99, 0.25, False), (0.9, 1.0, False), (0.7, 1, False)],
)
def test_looks_are_taken_just_where_what_they_may_teach_is_worth_their_price(worse, holds, looks):
    """The more of what scores tell is held true, the more a look may change."""
    swift = replace(MIDDLE, seconds=0.03)
    accuracy = (0.3, *(worse * each for each in swift.accuracy[1:]))
    rungs = (swift, replace(swift, name="rival", accuracy=accuracy))
    rules = replace(RULES, drift=Drift(holds=holds))
    selector, resident = Selector.start(replace(LADDER, rungs=rungs), rules), ("middle", "rival")
    taken, now = 0, 0.0
    while now < 20:
        choice = selector.choice(now, resident)
        if selector.active and now - selector.credit[1] >= RULES.dwell:
            (other,) = {"middle", "rival"} - {selector.active}
            rung = selector.ladder.rung(other)
            net = hoped_for(selector, other) - price(selector, rung, resident)
            affordable = left_after(selector, rung, now, resident) >= 0
            if abs(net) > 1e-6:
                assert choice.probe == (net > 0 and affordable)
            taken += choice.probe
        else:
            assert not choice.probe
        selector = selector.taken(choice, now)
        answer = Answer(choice.name, now, squares([180] * 18, 0.5, now))
        selector = selector.observe(answer, now + swift.seconds, swift.seconds)
        now += 1 / FPS
    assert (taken > 0) == looks


def test_who_cannot_be_afforded_keeps_nobody_from_looking():
    """One rival is a little better but takes half a minute to load, the other is there."""
    swift = replace(MIDDLE, seconds=0.03)
    far = replace(swift, name="far", accuracy=(0.3, 0.8, 0.9), load_seconds=30.0, bytes=30)
    near = replace(swift, name="near", accuracy=(0.3, 0.795, 0.895), bytes=10)
    selector = Selector.start(replace(LADDER, rungs=(swift, far, near)), replace(RULES, margin=0.01))
    looked, now = Counter(), 0.0
    while now < 20:
        choice = selector.choice(now, ("middle", "near"))
        selector = selector.taken(choice, now)
        looked[choice.name] += choice.probe
        answer = Answer(choice.name, now, squares([180] * 18, 0.5, now))
        selector = selector.observe(answer, now + swift.seconds, swift.seconds)
        now += 1 / FPS
    assert looked["near"] + looked["middle"] > 3
    assert looked["far"] == 0


def test_without_objects_for_minutes_every_size_is_as_likely():
    selector, _ = live(Selector.start(LADDER, RULES), small_and_large, 3)
    selector, taken = live(selector, lambda rung, now: Detections.empty(), 240, start=3.0)
    assert selector.histogram.shares == pytest.approx((1 / 3,) * 3, abs=0.01)
    assert all(math.isfinite(value) for value in taken[-1][1].relative.values())
    served = [choice.name for _, choice in taken if not choice.probe]
    assert sum(before != after for before, after in itertools.pairwise(served)) < 10


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.05, 0.2]))
def test_it_never_switches_before_its_dwell_nor_within_its_margin(seed, dwell, margin):
    draw = np.random.default_rng(seed)

    def noise(rung, now):
        n = draw.integers(0, 12)
        return squares(draw.uniform(20, 600, n), draw.uniform(0, 8), now)

    rules = replace(RULES, dwell=dwell, margin=margin)
    _, taken = live(Selector.start(LADDER, rules), noise, 10, lambda now: float(draw.uniform(0.5, 4)))
    served = [(now, choice) for now, choice in taken if not choice.probe]
    switches = [
        (now, before, after) for (_, before), (now, after) in itertools.pairwise(served) if before.name != after.name
    ]
    times = [served[0][0], *(now for now, _, _ in switches)]
    assert all(later - before >= dwell - 1e-9 for before, later in itertools.pairwise(times))
    assert all(after.relative[after.name] > 1 + margin for _, _, after in switches)


@settings(deadline=None, max_examples=15)
@given(st.permutations(LADDER.rungs), st.integers(0, 1000))
def test_the_order_of_rungs_does_not_matter(rungs, seed):
    def scene(rung, now):
        return squares(np.random.default_rng(seed).uniform(30, 500, 12), seed % 4, now)

    _, expected = live(Selector.start(LADDER, RULES), scene, 3)
    _, found = live(Selector.start(replace(LADDER, rungs=tuple(rungs)), RULES), scene, 3)
    assert found == expected


def test_a_switch_must_pay_for_its_load():
    selector, _ = live(Selector.start(LADDER, replace(RULES, dwell=0.0, probe_share=0.0)), small_and_large, 3)
    selector = replace(selector, active="middle", since=0.0)
    assert selector.choice(3.0, resident=("large",)).name == "large"
    heavy = replace(LADDER, rungs=(TINY, MIDDLE, replace(LARGE, load_seconds=1.9)))
    assert replace(selector, ladder=heavy).choice(3.0).name == "middle"
    assert replace(selector, ladder=heavy).choice(3.0, resident=("large",)).name == "large"


def test_rungs_that_do_not_fit_in_memory_are_left_out():
    _, taken = live(Selector.start(LADDER, replace(RULES, memory=30)), small_and_large, 5)
    assert {choice.name for _, choice in taken} <= {"tiny", "middle"}
    with pytest.raises(BudgetError, match="smallest, 'tiny', needs 4 B"):
        Selector.start(LADDER, replace(RULES, memory=3))


def test_a_rung_that_fails_leaves_with_a_reason_and_is_tried_again_later():
    selector, _ = live(Selector.start(LADDER, RULES), small_and_large, 3)
    assert selector.active == "large"
    broken = selector.failed("large", 3.0, "out of memory")
    choice = broken.choice(3.0)
    assert choice.name != "large"
    assert "'large' left the ladder: out of memory" in choice.reason
    broken = broken.taken(choice, 3.0)
    assert broken.choice(12.9).name != "large"
    assert broken.choice(14.0).name == "large"
    again = broken.failed("large", 14.0, "out of memory")
    assert again.out["large"].until == pytest.approx(14 + 2 * RULES.retry)
    healed = broken.observe(Answer("large", 14.0, small_and_large("large", 14.0)), 14.2, 0.2)
    assert "large" not in healed.out
    for name in ("tiny", "middle"):
        again = again.failed(name, 15.0, "no device")
    assert again.choice(16.0).name == "middle"  # of those that failed, whichever is due first (by name of equals)
    with pytest.raises(ConfigError, match="no rung 'huge'"):
        selector.failed("huge", 0.0, "")


def test_a_dominated_rung_steps_in_when_the_better_one_fails():
    twin = replace(LARGE, name="twin", seconds=0.3)
    selector = Selector.start(replace(LADDER, rungs=(LARGE, twin)), RULES)
    assert selector.choice(0.0).name == "large"
    assert "twin" not in selector.choice(0.0).relative
    assert selector.failed("large", 0.0, "gone").choice(0.0).name == "twin"


def test_the_load_slows_models_that_did_not_run_and_own_pace_is_their_own():
    latency = Latency.nominal({"small": 0.02, "large": 0.2})
    for step in range(20):
        latency = latency.observed("small", 3 * 0.02 + 2 * SLICE, 0.1 * step, beside=2.0)
    assert latency.seconds["large"] == pytest.approx(3 * 0.2 + 2 * SLICE, rel=0.01)
    own = latency.observed("large", 0.9, 2.9, beside=2.0)
    assert own.seconds == pytest.approx({"small": 0.066, "large": 0.9}, rel=0.01)
    later = own.observed("large", (0.9 - 2 * SLICE) / 3, 60.0)  # nothing ran lately: what it takes now is the load's
    assert later.seconds == pytest.approx({"small": 0.02, "large": 0.298}, rel=0.01)


def test_a_slow_processor_slows_all_in_proportion_and_a_busy_one_makes_all_wait():
    nominal, quick, large = Latency.nominal({"quick": 0.002, "large": 0.2}), 0.002, 0.2
    slow = nominal.observed("quick", 3 * quick, 1.0)
    assert slow.seconds == pytest.approx({"quick": 3 * quick, "large": 3 * large})
    took = among(quick, 2.0)
    busy = nominal.observed("quick", took, 1.0, programs(took, took - quick))
    assert busy.seconds == pytest.approx({"quick": took, "large": among(large, 2.0)})
    assert took > 4 * quick and busy.seconds["large"] < 3.1 * large, "who is quick waits more than it works"


def test_who_comes_beside_one_model_is_beside_one_just_taken_up_too():
    latency = Latency.nominal({"small": 0.02, "large": 0.2}).observed("small", 0.02, 0.0)
    taken_up = latency.observed("large", among(0.2, 1.0), 0.5, beside=1.0)
    assert taken_up.seconds["small"] == pytest.approx(among(0.02, taken_up.beside))
    assert taken_up.beside == pytest.approx(1.0, abs=0.05)
    slower = latency.observed("large", 0.4, 0.5)  # not for others: its own, as small ran lately
    assert slower.seconds == pytest.approx({"small": 0.02, "large": 0.4})


@given(st.floats(0.0004, 2), st.floats(0.0004, 2), st.lists(st.floats(0, 8), min_size=1, max_size=9), st.booleans())
def test_after_all_loads_are_gone_every_model_takes_what_it_took(one, other, loads, waits):
    latency = Latency.nominal({"one": one, "other": other})

    def under(load, seconds):
        return among(seconds, load) if waits else (1 + load) * seconds

    for step, load in enumerate([*loads, 0.0], start=1):
        now = 100.0 * step  # nothing ran lately: what is measured is not averaged
        latency = latency.observed("one", under(load, one), now, load if waits else 0.0)
        assert latency.seconds["other"] == pytest.approx(under(load, other))


@given(st.floats(0.0001, 2), st.floats(0.0001, 2), st.floats(0, 50), st.floats(0.001, 5))
def test_beside_others_all_take_longer_and_always_some_time(seconds, more, beside, others):
    assert among(seconds, 0.0) == alone(seconds, 0.0) == seconds
    assert among(seconds + more, beside) > among(seconds, beside)
    assert among(seconds, beside + others) > among(seconds, beside)
    assert alone(among(seconds, beside), beside) == pytest.approx(seconds)
    assert 0 < alone(seconds, beside) <= seconds
    took = among(seconds, beside)
    assert programs(took, took - seconds) == pytest.approx(beside, abs=1e-6)


@given(st.floats(0, 5), st.lists(st.tuples(st.floats(0.001, 1), st.floats(0, 5)), min_size=1, max_size=20))
def test_programs_beside_are_an_average_of_what_was_told_lately(before, told):
    latency, now, seen = Latency.nominal({"one": 0.01}).observed("one", 0.01, 0.0, before), 0.0, [before]
    for pause, beside in told:
        now += pause
        latency = latency.observed("one", 0.01, now, beside)
        seen.append(beside)
        assert min(seen) - 1e-9 <= latency.beside <= max(seen) + 1e-9
    assert latency.observed("one", 0.01, now + 30 * SHORTLY, 7.0).beside == pytest.approx(7.0, abs=1e-6)
    later = latency.observed("one", among(0.01, 7.0), now + 3 * LATELY, 7.0)
    assert later.seconds["one"] == pytest.approx(among(0.01, 7.0))


def test_what_was_waited_long_ago_counts_no_more_after_a_cold_run():
    """Whose first run tells nothing of what it takes, nor of who is beside it."""
    busy = Latency.nominal({"one": 0.01, "other": 0.02}).observed("one", among(0.01, 5.0), 0.0, 5.0)
    later = busy.observed("other", None, 10.0).observed("one", 0.01, 10.1)
    assert later.beside == pytest.approx(0.0, abs=1e-6)


def test_wrong_figures_are_refused():
    selector = Selector.start(LADDER, RULES)
    with pytest.raises(ConfigError, match="measured seconds"):
        selector.observe(Answer("tiny", 0.0, Detections.empty()), 0.1, 0.0)
    with pytest.raises(ConfigError, match="no rung 'tinny'"):
        selector.observe(Answer("tinny", 0.0, Detections.empty()), 0.1, 0.1)
    for wrong in ({"fps": 0}, {"margin": -1}, {"probe_share": 1.0}, {"dwell": float("nan")}, {"retry": 0}):
        with pytest.raises(ConfigError):
            replace(RULES, **wrong)


def test_an_answer_older_than_the_last_teaches_only_its_latency():
    selector = Selector.start(LADDER, RULES).observe(Answer("tiny", 1.0, squares([200] * 5)), 1.1, 0.025)
    late = selector.observe(Answer("large", 0.9, squares([60] * 9)), 1.2, 0.3)
    assert late.histogram == selector.histogram
    assert late.last is selector.last
    assert late.latency.seconds["large"] == pytest.approx(0.3)


def test_thresholds_follow_the_median_size():
    chooser = Thresholds(("tiny", "middle", "large"), (0.3, 0.1), PIXELS, PIXELS)
    for side, name in ((400, "tiny"), (200, "middle"), (50, "large")):
        assert chooser.observe(Answer("tiny", 0.0, squares([side] * 3)), 0.1, 0.1).choice(0.2).name == name
    assert chooser.choice(0.0).name == "large"
    with pytest.raises(ConfigError, match="2 falling thresholds"):
        replace(chooser, least=(0.1, 0.3))


def test_periodic_profiling_keeps_the_cheapest_that_agrees():
    chooser, now = Periodic(("tiny", "middle", "large"), period=4.0), 0.0
    choice = chooser.choice(now)
    assert (choice.name, choice.also) == ("large", ("tiny", "middle"))
    chooser = chooser.taken(choice, now)
    for name in (*choice.also, choice.name):
        boxes = squares([200] * (3 if name == "tiny" else 9))
        chooser = chooser.observe(Answer(name, now, boxes), now, 0.1)
    assert chooser.choice(0.5) == Choice("middle", "'middle' agreed with 'large' 0.5 s ago")
    assert chooser.choice(4.0).also
    assert agreement(squares([200] * 3), squares([200] * 9)) == pytest.approx(0.5)
    assert agreement(Detections.empty(), Detections.empty()) == 1
    assert agreement(Detections.empty(), squares([10])) == 0


def test_other_rivals_choose_as_they_say():
    names = ("tiny", "middle", "large")
    assert Fixed("tiny").choice(3.0).name == "tiny"
    assert [RoundRobin(names, 1.0).choice(t).name for t in (0.5, 1.5, 2.5, 3.5)] == [*names, "tiny"]
    lots = [Random(names, seed=1).choice(t / 2).name for t in range(300)]
    assert lots == [Random(names, seed=1).choice(t / 2).name for t in range(300)]
    assert min(lots.count(name) for name in names) > 60
    oracle = Oracle((0.0, 2.0), ("large", "tiny"))
    assert [oracle.choice(t).name for t in (0.0, 1.9, 2.0, 9.0)] == ["large", "large", "tiny", "tiny"]


def test_boxes_that_are_moved_are_judged_by_where_they_are_shown():
    """Objects that move steadily: without a forecast old boxes are worth little, with a right one they stay good."""

    def seen(moved):
        selector = Selector.start(LADDER, RULES)
        selector = selector.taken(selector.choice(0.0), 0.0)
        name = LADDER.rungs[-1].name
        for step in range(40):
            left = 100.0 + 6.0 * step + np.array([0.0, 300.0, 600.0, 900.0])
            boxes = Detections(np.stack([left, left * 0, left + 60, left * 0 + 90], axis=1), [0.9] * 4, [0] * 4)
            known = boxes if moved else None
            selector = selector.observe(Answer(name, step * 0.1, boxes, known), step * 0.1 + 0.05, 0.05)
        return selector.precision(name, 0.5)

    assert seen(True) > 1.5 * seen(False)
