"""Who is touched when a shared layer changes: against a plain search of the graph."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import PlanError
from edgeward.merge.groups import Group, Instance
from edgeward.merge.sharing import Sharing, closure, components
from edgeward.merge.signature import Signature

FORMS = [Signature("Linear", size, 2, True) for size in range(1, 6)]


def group(form, *models):
    return Group(FORMS[form], tuple(Instance(name, f"layer{form}") for name in models))


names = st.sets(st.sampled_from("abcdefgh"), min_size=1, max_size=4)
sharings = st.lists(names, max_size=5).map(
    lambda sets: Sharing(tuple(group(i, *sorted(s)) for i, s in enumerate(sets)))
)


@given(sharings, names)
@settings(max_examples=200, deadline=None)
def test_closure_is_what_a_walk_reaches(sharing, start):
    reached, pending = set(start), list(start)
    while pending:
        model = pending.pop()
        for one in sharing.groups:
            if model in one.models:
                pending += one.models - reached
                reached |= one.models
    assert closure(sharing, start) == reached


@given(sharings)
@settings(max_examples=100, deadline=None)
def test_components_are_disjoint_and_cover_all_who_share(sharing):
    found = components(sharing)
    assert sum(len(one) for one in found) == len(frozenset().union(*found))
    assert frozenset().union(*found) == frozenset().union(*(one.models for one in sharing.groups))


def test_a_model_that_shares_with_the_trial_is_in_the_gate():
    # Trap 1: A-B share; a trial on B and C must judge A too.
    sharing = Sharing().plus(group(0, "a", "b"))
    assert closure(sharing.plus(group(1, "b", "c")), {"b", "c"}) == {"a", "b", "c"}


def test_plus_joins_groups_and_counts_one_copy():
    sharing = Sharing().plus(group(0, "a", "b")).plus(group(0, "c", "d")).plus(group(0, "b", "c"))
    assert [len(one.instances) for one in sharing.groups] == [4]
    assert sharing.saved_bytes == 3 * FORMS[0].bytes


def test_layers_of_two_groups_or_forms_are_errors():
    with pytest.raises(PlanError, match="two groups"):
        Sharing((group(0, "a", "b"), group(0, "b", "c")))
    other = Group(FORMS[1], (Instance("a", "layer0"), Instance("c", "layer0")))
    with pytest.raises(PlanError, match="cannot share"):
        Sharing().plus(group(0, "a", "b")).plus(other)
