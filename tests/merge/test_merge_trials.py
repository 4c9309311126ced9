"""The course of a search, and when training looks again or gives up: pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.merge.groups import Group, Instance
from edgeward.merge.sharing import Sharing
from edgeward.merge.signature import Signature
from edgeward.merge.stopping import LEAST_FRACTION, gap, hopeless, loss_weight, next_fraction
from edgeward.merge.trials import Trial, Verdict, begin, following, good, worthwhile


def group(size, models):
    return Group(Signature("Linear", size, 4, False), tuple(Instance(name, f"fc{size}") for name in models))


GROUPS = (group(64, "abcdef"), group(32, "abcdef"), group(8, "abc"))


def test_golden_weights():
    assert round(loss_weight(0.9, 0.45), 3) == 1.682
    assert loss_weight(0.9, 0.0) == loss_weight(0.9, 1e-9) == 10
    assert loss_weight(0.9, 0.9) == 1


@given(st.dictionaries(st.sampled_from("abc"), st.tuples(st.floats(1e-6, 1), st.floats(-1, 1)), min_size=1))
@settings(max_examples=100, deadline=None)
def test_next_look_is_within_an_epoch(models):
    found = next_fraction({k: v[0] for k, v in models.items()}, {k: v[1] for k, v in models.items()})
    assert LEAST_FRACTION <= found <= 1
    if all(lift <= 0 for _, lift in models.values()):
        assert found == 1


def test_next_look_is_when_the_first_may_be_there():
    assert next_fraction({"a": 0.04, "b": 0.5}, {"a": 0.1, "b": 0.1}) == pytest.approx(0.4)
    assert gap(0.9, 0.9) == 0
    assert gap(0.8, 0.4) == 0.5


def test_hopeless_needs_two_misses_in_a_row_after_two_epochs():
    assert not hopeless(((0, 0.3), (1, 0.31)), 0.9, 5)
    assert not hopeless(((0, 0.3), (1, 0.31), (2, 0.32)), 0.9, 5)
    assert hopeless(((0, 0.3), (1, 0.31), (2, 0.32), (3, 0.33)), 0.9, 5)
    assert not hopeless(((0, 0.3), (2, 0.32), (3, 0.6)), 0.9, 5)  # 0.6 + 2 * 0.28 is enough
    assert not hopeless(((0, 0.3), (2, 0.32), (3, 0.6), (4, 0.61)), 0.9, 5)  # one miss after a hit


def verdict(trial, met, closeness=None):
    passed = all(one.model in met for one in trial.instances)
    return Verdict(passed, frozenset(one for one in trial.trying if one.model in met), closeness or {})


def models(trial):
    return "".join(one.model for one in trial.trying)


def test_those_that_met_try_again_before_they_count():
    trial = begin(GROUPS, 0)
    again = following(GROUPS, trial, verdict(trial, "abcd"))
    assert (again.group, models(again), again.copy) == (0, "abcd", ())
    # When they have passed, the better half of the others joins them: that is worth one copy of 64, less than 5 of 32.
    assert following(GROUPS, again, verdict(again, "abcd")).group == 1
    heavy = (group(512, "abcdef"), GROUPS[1])
    joining = following(heavy, again, verdict(again, "abcd", {"e": 0.9, "f": 0.99}))
    assert (joining.group, len(joining.trying), len(joining.copy)) == (0, 1, 4)


def test_the_half_closest_to_its_target_is_kept():
    trial = begin((GROUPS[0],), 0)
    closeness = dict(zip("abcdef", (0.1, 0.9, 0.2, 0.8, 0.3, 0.7), strict=True))
    assert models(following((GROUPS[0],), trial, verdict(trial, "", closeness))) == "bdf"


def test_a_light_half_gives_way_to_the_next_group():
    trial = begin(GROUPS, 0)
    after = following((GROUPS[0], group(60, "abcdef")), trial, verdict(trial, ""))
    assert (after.group, len(after.trying)) == (1, 6)


MANY = tuple(group(1000 - size, "abc") for size in range(50))


def course(groups, bad):
    """All trials of a search in which those fail, whole, that take in a group of `bad`."""
    trial, found = begin(groups, 0), []
    while trial is not None:
        span = range(trial.group, trial.group + trial.width)
        assert trial.instances <= {one for index in span for one in groups[index].instances}
        found.append(trial)
        met = "" if bad & set(span) else "abc"
        trial = following(groups, trial, verdict(trial, met))
    return found


def shared(trials, groups, bad):
    """Groups that are wholly shared in the end."""
    whole = [
        one for one in trials if set(range(one.group, one.group + one.width)).isdisjoint(bad)
        and len(one.trying) == sum(len(groups[one.group + index].instances) for index in range(one.width))
    ]  # fmt: skip
    return {one.group + index for one in whole for index in range(one.width)}


def test_light_groups_are_tried_together_after_successes():
    trials = course(MANY, set())
    assert [one.width for one in trials] == [1, 2, 4, 8, 16, 19]
    assert shared(trials, MANY, set()) == set(range(50))
    assert trials[1].of(MANY) == MANY[1:3]


@given(st.sets(st.integers(0, 49), max_size=8))
@settings(max_examples=100, deadline=None)
def test_bisection_finds_each_group_that_fails_and_shares_all_others(bad):
    trials = course(MANY, bad)
    assert shared(trials, MANY, bad) == set(range(50)) - bad
    # Every bad group costs the halvings of one trial, those of its models, and the widening afterwards.
    assert len(trials) <= 6 + 14 * len(bad)
    assert all(worthwhile(one, Sharing(), frozenset("a")) == (one.width == 1) for one in trials if not one.copy)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_groups_fail_and_the_search_ends(count):
    # Trap 3: a loop that never ends and an index behind the last group.
    trial, steps = begin(GROUPS, 3 - count), 0
    while trial is not None:
        trial, steps = following(GROUPS, trial, verdict(trial, "")), steps + 1
    assert count <= steps <= 3 * count


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_whatever_happens_it_ends_and_never_repeats_itself(seed, count):
    import random

    rolls = random.Random(seed)
    some = tuple(group(2 ** (7 - i), "abcdefgh"[: rolls.randint(2, 8)]) for i in range(count))
    trial, seen = begin(some, 0), set()
    while trial is not None:
        assert len(trial.trying) >= trial.enough
        assert trial not in seen
        seen.add(trial)
        met = {one.model for one in trial.instances if rolls.random() < 0.6}
        trial = following(some, trial, verdict(trial, met, {one.model: rolls.random() for one in trial.trying}))
    assert len(seen) <= 8 * count


def test_a_model_outside_that_fails_takes_along_the_layer_that_touched_it():
    held = group(16, "ax")
    confirmed = Sharing((held,))
    trial = Trial(0, GROUPS[0].instances[:3])
    assert {one.model for one in good(trial, confirmed, frozenset("x"))} == {"b", "c"}
    assert {one.model for one in good(trial, confirmed, frozenset("b"))} == {"a", "c"}
    assert worthwhile(trial, confirmed, frozenset("x"))
    assert not worthwhile(trial, confirmed, frozenset("bc"))


def test_when_one_that_shares_already_fails_joining_is_out():
    trial = Trial(0, GROUPS[0].instances[:2], GROUPS[0].instances[2:4])
    assert good(trial, Sharing(), frozenset("c")) == frozenset()
