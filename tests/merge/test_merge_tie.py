"""One storage for several layers: it stays one through training, and goes back bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from mergenets import digits, seeded, worn

from edgeward.errors import PlanError
from edgeward.merge.deltas import add_delta, deltas
from edgeward.merge.groups import Instance, groups
from edgeward.merge.norms import reestimate
from edgeward.merge.sharing import Sharing
from edgeward.merge.tie import blend, check_tied, parameters, take, tie, tied, unique_bytes, untie

SMALL = {"hidden": (32, 16), "channels": (4, 8)}


def pair():
    return {"a": worn(seeded(0, 1, 3, **SMALL)), "b": worn(seeded(1, 2, 2, **SMALL), 1)}


def all_tied(models):
    sharing = Sharing()
    for group in groups(models):
        tie(models, group, group.instances[0])
        sharing = sharing.plus(group)
    return sharing


def bits(models):
    return {(name, path): value.clone() for name, one in models.items() for path, value in one.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def step(models, optimizer):
    images = digits()[0][:16]
    optimizer.zero_grad()
    for module in models.values():
        module.train()
        module(images).square().mean().backward()
    optimizer.step()


def test_tied_layers_are_one_memory_after_every_step():
    models = pair()
    before = sum(one.nbytes for module in models.values() for one in module.parameters())
    sharing = all_tied(models)
    optimizer = torch.optim.SGD(parameters(models.values()), 0.1, momentum=0.9)
    for _ in range(3):
        step(models, optimizer)
        check_tied(models, sharing)
    assert before - unique_bytes(models.values()) == sharing.saved_bytes > 0


def test_layers_of_one_ancestor_are_blended_and_strangers_are_not():
    ancestor = seeded(0)
    models = {name: copy.deepcopy(ancestor) for name in "abc"}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in models.values():
            for one in module.parameters():
                one.add_(0.3 * one.std() * torch.randn(one.shape, generator=generator) if one.numel() > 1 else 0)
    before, snapshot = bits(models), take(models)
    for group in groups(models):
        source = group.instances[1]
        assert blend(models, group, source)
        for name in group.signature.tensors:
            every = [before[one.model, f"{one.layer}.{name}"] for one in group.instances]
            mean = models[source.model].get_submodule(source.layer).get_parameter(name)
            assert torch.allclose(mean, torch.stack(every).mean(0))
            assert not torch.equal(mean, every[1])
    snapshot.restore()
    assert same(bits(models), before)
    strangers = {name: seeded(index) for index, name in enumerate("abc")}
    before = bits(strangers)
    assert not any(blend(strangers, group, group.instances[0]) for group in groups(strangers))
    assert same(bits(strangers), before)


def test_an_optimiser_takes_one_step_for_a_parameter_in_two_models():
    # Trap 5: listed twice, a parameter would be moved twice.
    models = pair()
    sharing = all_tied(models)
    listed = parameters(models.values())
    assert len({id(one) for one in listed}) == len(listed)
    weight = models["b"].get_submodule(sharing.groups[0].instances[1].layer).weight
    old = weight.detach().clone()
    optimizer = torch.optim.SGD(listed, 0.1)
    step(models, optimizer)
    torch.testing.assert_close(weight.detach(), old - 0.1 * weight.grad)


def test_norms_stay_private():
    # Trap 2.
    models = pair()
    all_tied(models)
    norms = [one for module in models.values() for one in module if isinstance(one, torch.nn.BatchNorm2d)]
    places = [one.data_ptr() for norm in norms for one in (norm.weight, norm.bias, norm.running_mean, norm.running_var)]
    assert len(set(places)) == len(places)


def test_restoring_is_bit_exact_and_unties():
    models = pair()
    before, snapshot = bits(models), take(models)
    sharing = all_tied(models)
    add_delta(models["a"], sharing.groups[0].instances[0].layer, 2)
    step(models, torch.optim.SGD(parameters(models.values()), 0.5))
    assert not same(bits(models), before)
    snapshot.restore()
    assert same(bits(models), before)
    assert not deltas(models["a"])
    assert not any(tied(models, group) for group in groups(models))


def test_restoring_keeps_ties_of_before():
    models = pair()
    first, second = groups(models)[:2]
    tie(models, first, first.instances[1])
    before, snapshot = bits(models), take(models)
    tie(models, second, second.instances[0])
    step(models, torch.optim.SGD(parameters(models.values()), 0.5))
    snapshot.restore()
    assert tied(models, first)
    assert not tied(models, second)
    assert same(bits(models), before)
    step(models, torch.optim.SGD(parameters(models.values()), 0.5))
    assert tied(models, first)


def test_untying_keeps_values():
    models = pair()
    group = groups(models)[0]
    tie(models, group, group.instances[0])
    before = bits(models)
    untie(models, group)
    assert not tied(models, group)
    assert same(bits(models), before)


def test_whatever_breaks_a_tie_is_noticed():
    # Trap 6.
    models = pair()
    sharing = all_tied(models)
    check_tied(copy.deepcopy(models), sharing)  # together they stay tied
    for module in models.values():
        module.load_state_dict({path: value.clone() for path, value in module.state_dict().items()})
    check_tied(models, sharing)
    broken = [
        {**models, "b": copy.deepcopy(models["b"])},
        {**models, "b": copy.deepcopy(models["b"]).double().float()},
    ]
    loaded = copy.deepcopy(models)
    state = {path: value.clone() for path, value in models["a"].state_dict().items()}
    loaded["a"].load_state_dict(state, assign=True)
    for one in (*broken, loaded):
        with pytest.raises(PlanError, match="no longer one copy"):
            check_tied(one, sharing)


def test_a_change_of_dtype_keeps_the_tie():
    models = pair()
    sharing = all_tied(models)
    for module in models.values():
        module.half()
    check_tied(models, sharing)
    assert next(iter(models["b"].parameters())).dtype == torch.float16


def test_wrong_layers_are_errors():
    models = pair()
    group = groups(models)[0]
    with pytest.raises(PlanError, match="is not in the group"):
        tie(models, group, Instance("a", "0"))
    with pytest.raises(PlanError, match="no model 'b'"):
        tie({"a": models["a"]}, group, group.instances[0])
    other = {"a": models["a"], "b": seeded(0, 1, 2, hidden=(40, 16), channels=(4, 8))}
    with pytest.raises(PlanError, match=r"is no|has no layer"):
        tie(other, group, group.instances[0])


def test_statistics_are_the_mean_over_the_data():
    module = worn(seeded(0, 1, 2, **SMALL))
    images = digits()[0][:64]
    weights = {path: one.clone() for path, one in module.named_parameters()}
    reestimate(module, [images[:32], images[32:]], 2)
    first = module[0](images)
    torch.testing.assert_close(module[1].running_mean, first.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(one, weights[path]) for path, one in module.named_parameters())
    assert module[1].momentum == 0.1
    assert not module.training
