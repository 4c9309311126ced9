"""Common beginnings are found by content, cut so that the pieces answer as the whole, and share its memory."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pytest
from trunks import SIDE, Net, assert_answers_alike, classifier, pictures, trunk

from edgeward.errors import ModelError, StoreError
from edgeward.weights.begun import BegunSession
from edgeward.weights.prefix import common_beginnings
from edgeward.weights.session import Session
from edgeward.weights.store import WeightStore


@pytest.fixture
def store(tmp_path):
    return WeightStore(tmp_path / "store")


def test_heads_on_one_trunk_begin_together_whatever_things_are_called(tmp_path, store):
    models = [
        classifier(tmp_path, store, "a", 40),
        classifier(tmp_path, store, "b", 70, head=101, entry="images"),
        classifier(tmp_path, store, "c", 20, head=102),
    ]
    tensors = set(store.index())
    [beginning] = common_beginnings(models, store)
    assert beginning.members == (0, 1, 2)
    assert all(0.95 < ending.share < 1 for ending in beginning.endings)
    assert_answers_alike(beginning, models, store)
    assert set(store.index()) == tensors, "pieces bring no weights of their own"
    for model, ending in zip(models, beginning.endings, strict=True):
        assert {**beginning.prefix.tensor_bytes, **ending.suffix.tensor_bytes} == model.tensor_bytes


def test_what_is_common_ends_where_weights_differ(tmp_path, store):
    first = classifier(tmp_path, store, "a", 40)
    shares = []
    for differs in range(4):
        seeds = [50 + place if place >= differs else place for place in range(4)]
        other = classifier(tmp_path, store, f"b{differs}", 40, seeds)
        found = common_beginnings([first, other], store)
        for beginning in found:
            assert_answers_alike(beginning, [first, other], store)
        shares.append(found[0].endings[0].share if found else 0)
    assert shares[0] == shares[1] == 0, "one layer of three channels is less than a tenth of the work"
    assert 0.3 < shares[2] < 0.4
    assert 0.6 < shares[3] < 0.7


def test_the_same_weights_used_otherwise_are_another_computation(tmp_path, store):
    def net(tag, dilation):
        one = Net(tag)
        value = one.conv(one.conv("x", 0, inputs=3), 1)
        weight = one.weight(2, 16, 16, 3, 3)
        value = one("Conv", value, weight, pads=[dilation] * 4, dilations=[dilation] * 2)
        return one.packed(tmp_path, store, one.head(value, 9, 40))

    models = [net("a", 1), net("b", 2)]
    [beginning] = common_beginnings(models, store)
    assert all(0.5 < ending.share < 0.6 for ending in beginning.endings)
    assert_answers_alike(beginning, models, store)


def test_branches_several_crossing_values_and_the_input_itself(tmp_path, store):
    """Both read two levels of the trunk, one also the picture, in another order and with an operation of its own."""

    def net(tag, own):
        one = Net(tag)
        low = one.conv("x", 0, inputs=3)
        late = None if own else one.conv(low, 7)
        high = one.conv(one.conv(low, 1), 2)
        late = late or one.conv(low, 7)
        mixed = one("Add", one("Sigmoid", low) if own else low, high)
        end = one.conv(one("Concat", mixed, "x", axis=1), 30, inputs=19) if own else one.conv(mixed, 31)
        return one.packed(tmp_path, store, one.head(end, 32 + own, 40), one.head(late, 40, 50))

    models = [net("a", own=True), net("b", own=False)]
    [beginning] = common_beginnings(models, store)
    assert len(beginning.prefix.outputs) == 3
    assert "x" in {port.name for port in beginning.endings[0].suffix.inputs}
    assert len(beginning.endings[0].given) == 3, "two levels and the whole second output"
    assert_answers_alike(beginning, models, store)


def test_equal_models_are_one_beginning_and_nothing_else(tmp_path, store):
    model = classifier(tmp_path, store, "a", 40)
    [beginning] = common_beginnings([model, model], store)
    assert [(ending.suffix, ending.share) for ending in beginning.endings] == [(None, 1)] * 2
    assert_answers_alike(beginning, [model, model], store)


def test_values_without_a_row_for_each_picture_do_not_cross(tmp_path, store):
    """Both lay the pixels of all pictures in one column: that is done again by each, so that pictures stay apart."""

    def net(tag, head):
        one = Net(tag)
        rows = one("Transpose", trunk(one), perm=[0, 2, 3, 1])
        rows = one("Reshape", rows, one.constant(np.array([-1, 16])))
        rows = one("MatMul", rows, one.weight(head, 16, 32))
        back = one("Reshape", rows, one.constant(np.array([-1, SIDE * SIDE * 32])))
        return one.packed(tmp_path, store, one("MatMul", back, one.weight(63, SIDE * SIDE * 32, 5)))

    models = [net("a", 61), net("b", 62)]
    [beginning] = common_beginnings(models, store)
    assert [len(port.shape) for port in beginning.prefix.outputs] == [4]
    assert_answers_alike(beginning, models, store)


def test_chance_is_not_shared(tmp_path, store):
    def net(tag, head):
        one = Net(tag)
        value = one.conv("x", 0, inputs=3)
        noisy = one("Add", value, one("RandomNormalLike", value, scale=1e-9))
        return one.packed(tmp_path, store, one.head(one.conv(one.conv(noisy, 1), 2), head, 40))

    assert common_beginnings([net("a", 1), net("b", 2)], store) == ()


def test_models_are_divided_so_that_most_is_saved(tmp_path, store):
    """a, b share four layers, c, d another four of which two are those of a and b: two pairs, not one four."""
    seeds = {"a": (0, 1, 2, 3), "b": (0, 1, 2, 3), "c": (0, 1, 12, 13), "d": (0, 1, 12, 13), "e": (90, 91, 92, 93)}
    models = [
        classifier(tmp_path, store, tag, 40, of, head=head) for head, (tag, of) in enumerate(seeds.items(), start=100)
    ]
    found = common_beginnings(models, store)
    assert sorted(each.members for each in found) == [(0, 1), (2, 3)]
    some = [models[0], models[2], models[4]]
    assert [each.members for each in common_beginnings(some, store)] == [(0, 1)]


def test_models_that_are_fed_otherwise_or_share_nothing_stay_whole(tmp_path, store):
    free, fixed = classifier(tmp_path, store, "a", 40), classifier(tmp_path, store, "b", 40, head=7, batch=1)
    assert common_beginnings([free, fixed], store) == ()
    again = classifier(tmp_path, store, "c", 40, head=8, batch=1)
    [beginning] = common_beginnings([free, fixed, again], store)
    assert beginning.members == (1, 2)
    assert_answers_alike(beginning, [free, fixed, again], store, count=1)
    assert common_beginnings([free], store) == common_beginnings([], store) == ()


@pytest.mark.parametrize("seed", range(12))
def test_pieces_of_random_graphs_answer_as_the_whole(tmp_path, store, seed):
    """Random graphs that agree up to a random node; whatever is cut must be right."""

    def net(tag, own):
        one, random = Net(tag), np.random.default_rng(seed)
        split = random.integers(4, 9)
        values = [one.conv("x", 1000, inputs=3)]
        for step in range(10):
            if step == split:
                random = np.random.default_rng([seed, own])
            left, right = (values[place] for place in random.integers(0, len(values), 2))
            kind, weight = random.choice(["conv", "Add", "Mul", "Sigmoid"]), int(random.integers(1 << 30))
            if kind == "conv":
                values.append(one.conv(left, weight))
            else:
                values.append(one(str(kind), *((left,) if kind == "Sigmoid" else (left, right))))
        outputs = [one.head(values[-1], own, 20), one("Identity", values[int(random.integers(len(values)))])]
        return one.packed(tmp_path, store, *outputs)

    models = [net("a", 1), net("b", 2)]
    found = common_beginnings(models, store)
    assert len(found) == 1, "they agree on at least four steps of ten"
    assert_answers_alike(found[0], models, store)


def test_loading_and_evicting_one_leaves_the_other_and_memory_is_one_copy(tmp_path, store):
    models = [classifier(tmp_path, store, "a", 40), classifier(tmp_path, store, "b", 70, head=101)]
    [beginning] = common_beginnings(models, store)
    one, two = (BegunSession(beginning, place, store) for place in (0, 1))
    batch = pictures(2)
    with ExitStack() as stack:
        wholes = [stack.enter_context(Session(model, store)) for model in models]
        one.attach()
        two.attach()
        where = {view.ctypes.data for whole in wholes for view in whole._views}
        for session in (one._prefix, two._prefix, one._suffix, two._suffix):
            assert {view.ctypes.data for view in session._views} <= where
    expected = two.finish(two.begin(batch), batch)
    one.detach()
    with pytest.raises(ModelError, match="attach"):
        one.begin(batch)
    assert np.array_equal(two.finish(two.begin(batch), batch)[0], expected[0])
    one.attach()
    assert np.array_equal(two.finish(one.begin(batch), batch)[0], expected[0])
    for session in (one, two):
        session.close()
        session.close()


def test_an_attach_that_fails_leaves_nothing_attached(tmp_path, store):
    models = [classifier(tmp_path, store, "a", 40), classifier(tmp_path, store, "b", 70, head=101)]
    [beginning] = common_beginnings(models, store)
    session = BegunSession(beginning, 1, store)
    [segment] = {ref.segment for ref in beginning.endings[1].suffix.tensors.values()}
    (store.folder / segment).rename(tmp_path / "away")
    with pytest.raises(StoreError, match="cannot be read"):
        session.attach()
    with pytest.raises(ModelError, match="attach"):
        session.begin(pictures(1))


def test_a_later_start_reads_what_is_there_and_damage_is_repaired(tmp_path, store):
    models = [classifier(tmp_path, store, "a", 40), classifier(tmp_path, store, "b", 70, head=101)]
    [beginning] = common_beginnings(models, store)
    script = (
        "import sys; from pathlib import Path; from edgeward.weights.pack import pack;"
        "from edgeward.weights.prefix import common_beginnings; from edgeward.weights.store import WeightStore;"
        "s = WeightStore(Path(sys.argv[1])); found = common_beginnings([pack(Path(p), s) for p in sys.argv[2:]], s);"
        "print(found[0].members, sorted({'onnx', 'torch'} & set(sys.modules)))"
    )
    files = [str(tmp_path / f"{tag}.onnx") for tag in "ab"]
    command = [sys.executable, "-c", script, str(store.folder), *files]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "(0, 1) []"
    for graph in (beginning.prefix.graph, beginning.endings[1].suffix.graph):
        content = graph.read_bytes()
        graph.write_bytes(content[: len(content) // 2])
        assert common_beginnings(models, store) == (beginning,)
        assert graph.read_bytes() == content
