"""What common beginnings are refused for, what becomes of the others then, and what is kept of it."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from trunks import SIDE, Net, assert_answers_alike, classifier, pictures, trunk

from edgeward.errors import ModelError, StoreError
from edgeward.weights import prefix
from edgeward.weights.begun import BegunSession
from edgeward.weights.prefix import common_beginnings
from edgeward.weights.skeleton import Skeleton
from edgeward.weights.store import WeightStore


@pytest.fixture
def store(tmp_path):
    return WeightStore(tmp_path / "store")


@pytest.fixture
def three(tmp_path, store):
    return [classifier(tmp_path, store, tag, 40, head=head) for head, tag in enumerate("abc", start=100)]


def test_one_that_fails_leaves_the_others_together(three, store, monkeypatch):
    plain = Skeleton.piece

    def refusing(self, rest, outputs, given=()):
        if given and self.packed is three[1]:
            raise ModelError("the runtime refuses the second's own piece")
        return plain(self, rest, outputs, given)

    monkeypatch.setattr(Skeleton, "piece", refusing)
    [beginning] = common_beginnings(three, store)
    assert beginning.members == (0, 2)
    assert_answers_alike(beginning, three, store)


def test_one_that_answers_otherwise_leaves_the_others_together(three, store, monkeypatch):
    plain, asked = prefix._answers_alike, []

    def other(beginning, place, *rest):
        asked.append(place)
        return place != 0 and plain(beginning, place, *rest)

    monkeypatch.setattr(prefix, "_answers_alike", other)
    [beginning] = common_beginnings(three, store)
    assert beginning.members == (1, 2)
    assert_answers_alike(beginning, three, store)
    asked.clear()
    assert common_beginnings(three, store) == (beginning,)
    assert not asked, "that they answer otherwise is kept"


def test_a_failure_that_passes_is_not_kept(three, store, monkeypatch):
    def busy(self):
        raise ModelError("the machine is out of memory just now")

    with monkeypatch.context() as passing:
        passing.setattr(BegunSession, "attach", busy)
        assert common_beginnings(three, store) == ()
    [beginning] = common_beginnings(three, store)
    assert beginning.members == (0, 1, 2)


@pytest.mark.parametrize("where", ["prefix", "skeleton"])
def test_a_disk_that_refuses_is_a_fault_of_the_store(three, store, monkeypatch, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "skeleton":
        monkeypatch.setattr("edgeward.weights.skeleton.tempfile.TemporaryDirectory", full)
    else:
        monkeypatch.setattr("edgeward.weights.store.tempfile.NamedTemporaryFile", full)
    with pytest.raises(StoreError, match="No space left"):
        common_beginnings(three, store)


def test_two_that_begin_alike_are_found_however_many_stand_between(tmp_path, store):
    seeds = [(0, 1, 2, 3), *((0, *range(10 * own, 10 * own + 3)) for own in range(1, 12)), (0, 1, 2, 3)]
    models = [classifier(tmp_path, store, f"m{place}", 20, of, head=900 + place) for place, of in enumerate(seeds)]
    assert [each.members for each in common_beginnings(models, store)] == [(0, 12)]


def test_more_than_can_be_looked_at_together_are_taken_by_what_they_save():
    def saved(group):
        return 100 - sum(place % 3 for place in group) if group[0] % 2 == group[1] % 2 else 0

    found = list(prefix._near(tuple(range(26)), saved))
    assert sorted(place for each in found for place in each) == list(range(26))
    assert all(len({place % 2 for place in each}) == 1 for each in found), "only what has something in common"
    assert sorted(map(len, found)) == [3, 3, 10, 10]
    assert {0, 6, 12, 18, 24} <= set(found[0]), "those that save most with the first"


def test_only_models_that_may_look_at_one_thing_begin_together(three, store):
    assert common_beginnings(three, store, [{"gate"}, {"yard"}, set()]) == ()
    [beginning] = common_beginnings(three, store, [{"gate"}, {"yard"}, {"gate", "roof"}])
    assert beginning.members == (0, 2)
    # Each has one in common with each other, all three have none.
    [beginning] = common_beginnings(three, store, [{"gate", "yard"}, {"yard", "roof"}, {"gate", "roof"}])
    assert len(beginning.members) == 2


def test_what_mixes_pictures_does_not_cross_even_where_answers_hide_it(tmp_path, store):
    """The mean over the batch is taken off; what is left is too small for the answers, but not for large pixels."""

    def net(tag, head):
        one = Net(tag)
        value = trunk(one)
        mixed = one("Sub", value, one("ReduceMean", value, axes=[0], keepdims=1))
        large = one("Relu", one("Sub", mixed, one.constant(np.float32(20))))
        return one.packed(tmp_path, store, one.head(one.conv(large, head), head, 40))

    assert common_beginnings([net("a", 70), net("b", 71)], store) == ()


def test_numbers_of_any_width_may_cross(tmp_path, store):
    def net(tag, head, shift):
        one = Net(tag)
        found = one("Greater", trunk(one), one.constant(np.float32(0.5)))
        counted = one("Cast", found, to=TensorProto.UINT32)
        own = one("BitShift", counted, one.constant(np.uint32(shift)), direction="LEFT")
        own = one("Cast", own, to=TensorProto.FLOAT)
        return one.packed(tmp_path, store, one.head(one.conv(own, head), head, 40))

    models = [net("a", 80, 1), net("b", 81, 2)]
    [beginning] = common_beginnings(models, store)
    assert [port.type for port in beginning.prefix.outputs] == ["tensor(uint32)"]
    assert_answers_alike(beginning, models, store)


def test_strings_are_compared_by_what_they_say(three, tmp_path, store):
    def digest(file, *words):
        array = numpy_helper.from_array(np.array(words, object), "words")
        graph = helper.make_graph(
            [helper.make_node("Identity", ["words"], ["y"])], "g", [],
            [helper.make_tensor_value_info("y", TensorProto.STRING, None)], [array],
        )  # fmt: skip
        onnx.save(helper.make_model(graph), tmp_path / file)
        return Skeleton(replace(three[0], graph=tmp_path / file, tensors={}), store).digests["y"]

    assert digest("1.onnx", "cat", "dog") == digest("2.onnx", "".join("ca") + "t", "dog")
    assert digest("1.onnx", "cat", "dog") != digest("3.onnx", "cat", "cow")


def test_a_model_that_is_all_beginning_does_not_answer_when_detached(tmp_path, store):
    model = classifier(tmp_path, store, "a", 40)
    [beginning] = common_beginnings([model, model], store)
    one, two = (BegunSession(beginning, place, store) for place in (0, 1))
    one.attach()
    two.attach()
    batch = pictures(1)
    assert batch.shape[-1] == SIDE
    begun = one.begin(batch)
    one.detach()
    assert len(two.finish(begun, batch)) == 1
    with pytest.raises(ModelError, match="attach"):
        one.finish(begun, batch)
