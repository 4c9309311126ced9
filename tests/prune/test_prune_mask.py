"""Masks, schedules and selection: exact counts, the same choice every time, files that notice damage."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgeward.errors import PruneError, StoreError
from edgeward.prune.mask import Mask
from edgeward.prune.schedule import keeps
from edgeward.prune.scope import SCOPES, erk_densities, prunable, select


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.embed = nn.Embedding(5, 8)
        self.head = nn.Linear(8, 4)
        self.tied = self.head


def ones(shapes):
    return Mask({f"l{i}": torch.ones(shape, dtype=torch.bool) for i, shape in enumerate(shapes)})


shapes_of = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    shapes=shapes_of,
    keep=st.floats(0.01, 0.99),
    scope=st.sampled_from(SCOPES),
    coarse=st.booleans(),
    seed=st.integers(0, 999),
)
def test_select_keeps_exactly_the_count_and_never_revives(shapes, keep, scope, coarse, seed):
    generator = torch.Generator().manual_seed(seed)
    alive = Mask({name: torch.rand(one.shape, generator=generator) < 0.8 for name, one in ones(shapes).tensors.items()})
    # Coarse scores have many ties.
    scores = {name: torch.rand(one.shape, generator=generator) for name, one in alive.tensors.items()}
    scores = {name: (one * 3).floor() if coarse else one for name, one in scores.items()}
    try:
        mask = select(scores, alive, keep, scope)
    except PruneError as error:
        collapses = any(word in str(error) for word in ("nothing would be left", "alive"))
        assert collapses
        return
    assert mask.kept == round(keep * alive.total)
    assert all(not bool((one & ~alive.tensors[name]).any()) for name, one in mask.tensors.items())
    again = select(scores, alive, keep, scope)
    assert all(torch.equal(one, again.tensors[name]) for name, one in mask.tensors.items())
    if scope == "global":
        kept = torch.cat([scores[name][one] for name, one in mask.tensors.items()])
        dropped = torch.cat([scores[name][alive.tensors[name] & ~one] for name, one in mask.tensors.items()])
        assert not len(kept) or not len(dropped) or kept.min() >= dropped.max()


def test_ties_go_to_the_first():
    mask = select({"l0": torch.ones(2, 3), "l1": torch.ones(3, 2)}, ones([(2, 3), (3, 2)]), 7 / 12)
    assert mask.tensors["l0"].all()
    assert mask.tensors["l1"].flatten().tolist() == [True] + 5 * [False]


def test_floor_is_the_best_choice_within_it():
    """Against all choices of 4 among 8 that leave at least one in each layer."""
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        scores = {"l0": torch.rand(1, 5, generator=generator) + 1, "l1": torch.rand(1, 3, generator=generator)}
        flat = torch.cat([one.flatten() for one in scores.values()])
        best = max(
            float(flat[list(chosen)].sum())
            for chosen in itertools.combinations(range(8), 4)
            if any(i < 5 for i in chosen) and any(i >= 5 for i in chosen)
        )
        mask = select(scores, ones([(1, 5), (1, 3)]), 0.5, floor=1)
        assert sum(float(scores[name][one].sum()) for name, one in mask.tensors.items()) == pytest.approx(best)


def test_a_layer_that_vanishes_is_named():
    scores = {"l0": torch.full((4, 4), 2.0), "l1": torch.ones(4, 4)}
    with pytest.raises(PruneError, match="nothing would be left of l1"):
        select(scores, ones([(4, 4), (4, 4)]), 0.3)
    assert select(scores, ones([(4, 4), (4, 4)]), 0.3, floor=2).densities() == {"l0": 8 / 16, "l1": 2 / 16}
    with pytest.raises(PruneError, match="floor of 9"):
        select(scores, ones([(4, 4), (4, 4)]), 0.3, floor=9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_name_their_layer(bad):
    scores = {"l0": torch.ones(2, 2), "l1": torch.tensor([[1.0, bad]])}
    with pytest.raises(PruneError, match="1 of 2 scores of l1 are not finite"):
        select(scores, ones([(2, 2), (1, 2)]), 0.5)


def test_selection_refuses_what_does_not_fit():
    alive = ones([(2, 2)])
    with pytest.raises(PruneError, match="missing"):
        select({}, alive, 0.5)
    with pytest.raises(PruneError, match=r"\[4\]"):
        select({"l0": torch.ones(4)}, alive, 0.5)
    with pytest.raises(PruneError, match="did you mean 'global'"):
        select({"l0": torch.ones(2, 2)}, alive, 0.5, "globel")
    half = select({"l0": torch.ones(2, 2)}, alive, 0.5)
    with pytest.raises(PruneError, match="3 weights are to be kept and 2 are alive"):
        select({"l0": torch.ones(2, 2)}, half, 0.75)


@settings(max_examples=60, deadline=None)
@given(shapes=shapes_of, keep=st.floats(0.01, 0.99))
def test_erk_spends_the_budget_and_favours_small_layers(shapes, keep):
    found = erk_densities(shapes, keep)
    sizes = [math.prod(shape) for shape in shapes]
    assert sum(share * size for share, size in zip(found, sizes, strict=True)) == pytest.approx(keep * sum(sizes))
    assert all(0 < share <= 1 for share in found)
    raw = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    free = [share / value for share, value in zip(found, raw, strict=True) if share < 1]
    assert all(value == pytest.approx(free[0]) for value in free)


def test_erk_fills_small_layers_and_shares_the_rest():
    # 0.5 of 100 + 10000 weights: in proportion 20/100 : 200/10000, the first would be 4.6 full.
    assert erk_densities([(10, 10), (100, 100)], 0.5) == pytest.approx([1.0, (5050 - 100) / 10000])


@settings(max_examples=50, deadline=None)
@given(keep=st.floats(0.001, 0.999), steps=st.integers(1, 50))
def test_schedules_fall_to_the_target(keep, steps):
    for kind in ("exponential", "linear"):
        found = keeps(kind, keep, steps)
        assert len(found) == steps and found[-1] == keep
        assert all(before > after for before, after in itertools.pairwise((1.0, *found)))
    powers = (1.0, *keeps("exponential", keep, steps))
    assert all(after / before == pytest.approx(keep ** (1 / steps)) for before, after in itertools.pairwise(powers))
    gaps = [before - after for before, after in itertools.pairwise((1.0, *keeps("linear", keep, steps)))]
    assert gaps == pytest.approx([(1 - keep) / steps] * steps)
    assert keeps("one-shot", keep, steps) == (keep,)


@pytest.mark.parametrize("keep", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_shares_outside_zero_and_one_are_refused(keep):
    with pytest.raises(PruneError, match="between 0 and 1"):
        keeps("linear", keep, 3)
    with pytest.raises(PruneError, match="between 0 and 1"):
        select({"l0": torch.ones(2, 2)}, ones([(2, 2)]), keep)


def test_other_schedules_are_refused():
    with pytest.raises(PruneError, match="did you mean 'linear'"):
        keeps("liner", 0.5, 3)
    with pytest.raises(PruneError, match="0 pruning steps"):
        keeps("linear", 0.5, 0)


def test_prunable_names_weights_of_layers_once():
    model = Mixed()
    every = ("conv.weight", "attention.in_proj_weight", "attention.out_proj.weight", "head.weight")
    assert prunable(model, keep_last=False) == every
    assert prunable(model) == every[:-1]
    assert prunable(model, keep_first=True) == every[1:-1]
    separate = nn.MultiheadAttention(8, 2, kdim=6, vdim=4)
    assert prunable(separate, keep_last=False) == ("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight")
    with pytest.raises(PruneError, match="no weights to prune"):
        prunable(nn.Sequential(nn.Linear(2, 2)))


def test_apply_leaves_exact_zeros_even_of_nan():
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[math.nan, -1.0, 2.0], [math.inf, 4.0, -5.0]]))
    mask = Mask({"weight": torch.tensor([[False, False, True], [False, True, True]])})
    mask.apply_(model)
    assert model.weight.tolist() == [[0, 0, 2], [0, 4, -5]]
    assert not torch.signbit(model.weight[~mask.tensors["weight"]]).any()
    assert mask.density == 0.5 and mask.densities() == {"weight": 0.5} and mask.collapsed() == ()
    assert mask.overlap(Mask.ones(model, ["weight"])) == 1 and Mask.ones(model, ["weight"]).overlap(mask) == 0.5


def test_a_mask_refuses_what_it_is_not():
    with pytest.raises(PruneError, match="no parameters"):
        Mask({})
    with pytest.raises(PruneError, match="give booleans"):
        Mask({"weight": torch.ones(2)})
    with pytest.raises(PruneError, match="did you mean 'weight'"):
        Mask.ones(nn.Linear(2, 2), ["wieght"])
    mask = Mask.ones(nn.Linear(2, 3), ["weight"])
    with pytest.raises(PruneError, match=r"the network has \[3, 4\]"):
        mask.apply_(nn.Linear(4, 3))
    with pytest.raises(PruneError, match="no such parameter"):
        mask.apply_(nn.Sequential(nn.Linear(2, 3)))


def saved(tmp_path):
    generator = torch.Generator().manual_seed(0)
    mask = Mask({"a": torch.rand(5, 7, generator=generator) < 0.3, "b.c": torch.tensor([True])}, {"criterion": "snip"})
    mask.save(tmp_path / "mask.safetensors")
    return mask, tmp_path / "mask.safetensors"


def test_files_hold_a_bit_a_weight_and_come_back(tmp_path):
    mask, path = saved(tmp_path)
    again = Mask.load(path)
    assert again.provenance == mask.provenance and list(again.tensors) == ["a", "b.c"]
    assert all(torch.equal(one, again.tensors[name]) for name, one in mask.tensors.items())
    assert sum(one.numel() for one in safetensors.torch.load_file(path).values()) == 5 + 1


def rewritten(path, change):
    with safetensors.safe_open(path, "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(about, tensors)
    path.write_bytes(safetensors.torch.save(tensors, about))


def flip(about, tensors):
    tensors["a"][0] ^= 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (flip, "SHA-256"),
        (lambda about, tensors: about.update(shapes=json.dumps({"a": [7, 5], "b.c": [1]})), "SHA-256"),
        (lambda about, tensors: about.update(provenance=json.dumps({"criterion": "drive"})), "SHA-256"),
        (lambda about, tensors: about.update(shapes="[1]"), "cannot read the mask"),
        (lambda about, tensors: about.update(version="2"), "version 2"),
        (lambda about, tensors: about.update(format="x"), "is no mask"),
        (lambda about, tensors: about.pop("sha256"), "cannot read the mask"),
    ],
)
def test_damaged_and_newer_files_are_refused(tmp_path, change, match):
    path = saved(tmp_path)[1]
    rewritten(path, change)
    with pytest.raises(StoreError, match=match):
        Mask.load(path)


def test_files_that_are_cut_or_absent_are_refused(tmp_path):
    path = saved(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(StoreError, match="cannot read"):
        Mask.load(path)
    with pytest.raises(StoreError, match="cannot read"):
        Mask.load(tmp_path / "none")
