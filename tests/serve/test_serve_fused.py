"""Rungs of several models: one answer of all, memory held once, every mistake told, and a whole box that uses one."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serve_box import Process
from test_serve_portfolio import save_family
from tinyheads import answers, assert_same, detectors, images, loaded
from tinymodel import save_detector

from edgeward.errors import ConfigError, ModelError
from edgeward.serve.answering import device_name
from edgeward.serve.beginnings import BegunModel, begin_together
from edgeward.serve.box import Box
from edgeward.serve.certainty import certain
from edgeward.serve.configfile import parse_config
from edgeward.serve.events import Failed, Inferred
from edgeward.serve.fused import fused_model
from edgeward.serve.ladder import Ladder, Rung, save_ladder
from edgeward.serve.log import read_log
from edgeward.serve.modelconfig import members_of
from edgeward.serve.models import ServedModel
from edgeward.serve.replay import replay
from edgeward.serve.runner import PartError, Runner
from edgeward.serve.state import union_bytes
from edgeward.vision.fusion import fused
from edgeward.vision.labels import relabelled
from edgeward.weights.store import WeightStore

DEVICE = device_name("cpu", 1)
CERTAINTY = {"m1": (1.3, -0.4), "m2": (0.7, 0.2), "m3": (1.0, 0.0)}


def ladder(names, labels=("c0",), certainty=CERTAINTY):
    rungs = [Rung(name, (0.5,), 0.01, certainty=certainty.get(name, (1.0, 0.0))) for name in names]
    return Ladder("here", labels, (0.0, 1.0), tuple(rungs))


def together(models, *names):
    """The models and those made of several, for c0."""
    return models | {name: fused_model(name, models, ladder(models)) for name in names}


@pytest.fixture
def heads(tmp_path):
    """m1 knows c0, m2 knows c0 and c1, m3 a third class; what they find depends on the picture."""
    return detectors(tmp_path, WeightStore(tmp_path / "weights"))


# One answer of all.


def test_a_member_that_fails_is_named(heads, monkeypatch):
    runner = Runner(together(heads, "m1+m2"), threads=1)
    runner.load("m1+m2")

    def broken(*args):
        raise TypeError("not of this kind")

    image = images(1)[0]
    picture = runner.prepare("m1+m2", image)
    monkeypatch.setattr(runner._engines["m2"], "run", broken)
    with pytest.raises(PartError, match="'m2': TypeError: not of this kind") as caught:
        runner.infer("m1+m2", [picture], 0.3)
    assert caught.value.part == "m2"
    with pytest.raises(TypeError):  # a fault of ours is no mistake of the user
        runner.rehearse("m1+m2")
    monkeypatch.setattr(runner, "_pieces", broken)
    with pytest.raises(PartError, match="'m1': TypeError") as caught:
        runner.prepare("m1+m2", image)


def by_hand(runner, models, name, picture, floors):
    """The members' own answers, boxes from `floors` on, fused; classes by the number that c0 has."""
    found = []
    for member, floor, dialect in zip(members_of(name), floors, models[name].dialects, strict=True):
        [boxes] = runner.infer(member, [runner.prepare(member, picture)], floor)
        boxes = relabelled(boxes, models[member].card.labels, models[name].card.labels)
        assert dialect.certainty == CERTAINTY[member]
        found.append(certain(boxes, CERTAINTY[member]))
    return fused(found)


@pytest.mark.parametrize(("names", "labels"), [(("m1+m2", "m1+m2+m3"), ("c0",)), (("m2+m3", "m3+m2"), ("c1", "c0"))])
def test_a_fused_answer_is_the_fusing_of_the_members_answers(heads, names, labels):
    models = heads | {name: fused_model(name, heads, ladder(members_of(name), labels)) for name in names}
    runner, seen = loaded(models), 0
    for name, picture in itertools.product(names, images(6)):
        [found] = runner.infer(name, [runner.prepare(name, picture)], 0.3)
        expected = by_hand(runner, models, name, picture, models[name].floors(0.3))
        assert_same([found], [expected[expected.confidence >= 0.3]])
        # Boxes too faint to be asked for could have raised a confidence by less than half of the least one.
        sure = by_hand(runner, models, name, picture, [0.01] * len(members_of(name))).confidence
        assert (sure >= 0.45).sum() <= len(found) <= (sure >= 0.3).sum()
        seen += len(found)
    assert seen > 10


def test_in_a_batch_every_picture_gets_its_own_answer(heads):
    models = together(heads, "m1+m3")
    runner = Runner(models, threads=1)
    runner.load("m1+m3")
    pictures = images(4)
    alone = [answer for each in pictures for answer in answers(runner, "m1+m3", [each])]
    assert_same(answers(runner, "m1+m3", pictures), alone)
    assert len({each.confidence.sum().round(4) for each in alone}) > 1, "they differ"


def test_models_with_other_lists_of_classes_are_understood_by_name(heads):
    """The same network under two lists: what one calls c0 the other calls c1, so that they never agree."""
    two = heads["m2"]
    turned = replace(two, name="turned", card=two.card.model_copy(update={"labels": ("c1", "c0")}))
    alike = replace(two, name="alike")
    known = {"m2": two, "turned": turned, "alike": alike}
    unchanged = ladder(known, ("c1", "c0"), certainty={})
    models = known | {name: fused_model(name, known, unchanged) for name in ("m2+turned", "m2+alike")}
    runner = loaded(models)
    for picture in images(3):
        [own] = answers(runner, "m2", [picture])
        [agreed] = answers(runner, "m2+alike", [picture])
        assert_same([agreed], [replace(own, class_id=1 - own.class_id)])
        [apart] = runner.infer("m2+turned", [runner.prepare("m2+turned", picture)], 0.01)
        assert Counter(apart.class_id.tolist())[0] == Counter(apart.class_id.tolist())[1] == len(apart) / 2
        assert apart.confidence.max() <= own.confidence.max() / 2 + 1e-6


def test_members_that_begin_alike_answer_as_if_they_did_not(heads):
    whole = together(heads, "m1+m2")
    begun = begin_together(whole)
    assert isinstance(begun["m1"], BegunModel)
    one, other = Runner(whole, threads=1), Runner(begun, threads=1)
    for runner in (one, other):
        runner.load("m1+m2")
    for picture in images(3):
        assert_same(answers(other, "m1+m2", [picture]), answers(one, "m1+m2", [picture]))
        assert other.begun("m1+m2", [other.prepare("m2", picture)])


def test_a_fused_model_is_run_by_its_members_only(heads):
    model = fused_model("m1+m2", heads, ladder(heads))
    assert model.card.labels == ("c0",)
    assert model.max_batch == min(heads[name].max_batch for name in ("m1", "m2"))
    with pytest.raises(ModelError, match="run by m1 and m2"):
        model.open(1)


# Memory is held once.


def test_a_member_stays_in_memory_for_whoever_else_needs_it(heads):
    runner = Runner(together(heads, "m1+m2"), threads=1)
    [picture] = images(1)
    runner.load("m1+m2")
    runner.load("m1")
    before = answers(runner, "m1", [picture])
    runner.evict("m1+m2")
    assert_same(answers(runner, "m1", [picture]), before)
    for name in ("m2", "m1+m2"):
        with pytest.raises(ModelError, match="not"):
            answers(runner, name, [picture])
    runner.load("m1+m2")
    runner.evict("m1")
    assert len(answers(runner, "m1+m2", [picture])) == 1


def test_bytes_of_members_and_of_both_together_count_once(heads):
    models = together(heads, "m1+m2", "m2+m3")
    both = models["m1+m2"]
    assert both.tensors == {**heads["m1"].tensors, **heads["m2"].tensors}
    for names in (("m1", "m1+m2"), ("m1", "m2", "m1+m2"), ("m1+m2", "m2+m3")):
        parts = {member for name in names for member in members_of(name)}
        assert union_bytes(models[name].spec for name in names) == union_bytes(models[name].spec for name in parts)
    assert both.spec.bytes < heads["m1"].spec.bytes + heads["m2"].spec.bytes, "the stem is the same"


class Attached:
    """An engine that says whether it is in memory."""

    def __init__(self, model):
        self.model, self.there = model, False

    def attach(self):
        if self.model.broken:
            raise ModelError("its file is gone")
        self.there = True

    def run(self, batch):
        raise AssertionError("nobody asks it")

    def detach(self):
        self.there = False

    close = detach


@dataclass(frozen=True)
class Noted(ServedModel):
    broken: list = field(default_factory=list, compare=False)
    opened: list = field(default_factory=list, compare=False)

    def open(self, threads):
        self.opened[:] = [Attached(self)]
        return self.opened[0]

    @property
    def there(self):
        return self.opened[0].there


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    return detectors(folder, WeightStore(folder / "weights"), (1,))["m1"].card


NAMES = ("a", "b", "c", "a+b", "b+c", "a+b+c")
STEP = st.tuples(st.sampled_from(["load", "load", "evict", "break", "mend"]), st.sampled_from(NAMES))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(STEP, max_size=25), st.booleans())
def test_a_member_is_in_memory_while_a_loaded_model_holds_it(card, steps, keep):
    """Whatever is loaded, evicted and broken in whatever order. A load that fails changes nothing."""
    own = {name: Noted(name, card, 1, {name: 1}) for name in "abc"}
    runner = Runner(own | {name: fused_model(name, own, ladder("abc")) for name in NAMES if "+" in name}, threads=1)
    loaded: set[str] = set()
    for kind, name in steps:
        if kind == "load":
            broken = any(own[member].broken for member in members_of(name))
            if name in loaded:
                continue
            if broken:
                with pytest.raises(ModelError, match="gone"):
                    runner.load(name)
            else:
                runner.load(name)
                loaded.add(name)
        elif kind == "evict":
            runner.evict(name, keep_for="b+c" if keep else "")
            loaded.discard(name)
        else:
            own[name[0]].broken[:] = [True] if kind == "break" else []
        held = {member for each in loaded for member in members_of(each)}
        assert {name for name, model in own.items() if model.there} == held
    runner.close()
    assert not any(model.there for model in own.values())


# Mistakes.


def box_text(folder, rungs="m0, m1, m0+m1", *, extra="", calibration="pets.json", frames=50):
    lines = [f"cameras: [{{name: a, source: '{SCENE.format(frames=frames)}', rate: 25}}]", "models:"]
    for index in range(2):
        path = save_detector(folder / f"m{index}.onnx", seed=index, size=32 * (1 + index), width=16 + index)
        lines.append(f"  - {{name: m{index}, file: '{path}', convention: yolov8, labels: [cat, dog]}}")
    lines += [f"ladders: [{{name: pets, models: [{rungs}], calibration: {calibration}}}]"]
    lines += ["queries: [{camera: a, model: pets}]", "budget: {threads: 1, device: cpu}"]
    lines += [f"data: '{folder}/data'", f"cache: '{folder}/cache'", "web: {enabled: false}", extra]
    return "\n".join(lines)


SCENE = "test://people?seed=1&fps=25&width=160&height=120&frames={frames}&objects=2"


def calibrated(path, names=("m0", "m1", "m0+m1"), certainty=(1.0, 0.0)):
    """Each model better than the one before it, up to 0.8."""
    rungs = tuple(
        Rung(name, (0.8 - 0.6 / 2**place,), 0.002 * (place + 1), certainty=certainty)
        for place, name in enumerate(names)
    )
    save_ladder(Ladder(DEVICE, ("cat",), (0.0, 1.0), rungs), path)


def started(folder, text):
    Box(parse_config(text, "box.yaml").resolved(folder)).close()


@pytest.mark.parametrize(
    ("rungs", "message"),
    [
        ("m0, m0+m0", "'m0.m0' holds a model twice; name each once"),
        ("m0, m1, m0+", "ladders.0.models.2: 'm0.' is not a name"),
        ("m0, +m1", "ladders.0.models.1: '.m1' is not a name"),
        ("m0, m0++m1", "ladders.0.models.1: 'm0..m1' is not a name"),
        ("m0, m0+m7", "ladder 'pets' lists model 'm7'; known: m0, m1"),
        ("m0+m1, m0+m1", "'m0.m1' is listed twice"),
        ("m0, m0+m1, m1+m0", "'m0.m1' and 'm1.m0' are the same models; keep one of the two"),
        ("m0, m0+" + 65 * "m", f"ladders.0.models.1: the name '{64 * 'm'}'... has 65 characters; use at most 64"),
        (600 * "m", f"ladders.0.models.0: the name '{64 * 'm'}'... has 600 characters; use at most 64"),
        ("m0, " + 60 * "m0+m1+m0+" + "m1", "ladders.0.models.1: the names in .* have 542 characters .* at most 512"),
        ("m0, m0+" + 64 * "m", "ladder 'pets' lists model 'mmm"),
    ],
)
def test_rungs_that_cannot_be_are_refused(tmp_path, rungs, message):
    calibrated(tmp_path / "pets.json")
    with pytest.raises(ConfigError, match=message):
        started(tmp_path, box_text(tmp_path, rungs))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("m0", "m0+m1"), "ladder 'pets': its calibration says nothing of 'm1', which 'm0.m1' holds; .*calibrate"),
        (("m0", "m1"), "ladder 'pets': .*says nothing of model 'm0.m1'; .*calibrate"),
    ],
)
def test_calibrations_that_lack_the_model_or_its_member_are_refused(tmp_path, names, message):
    calibrated(tmp_path / "pets.json", names)
    with pytest.raises(ConfigError, match=message):
        started(tmp_path, box_text(tmp_path, "m0, m0+m1"))


@pytest.mark.parametrize("rungs", ["m0, m0+m", "m0, m, m0+m"])
def test_a_portfolio_is_no_member(tmp_path, rungs):
    """Whether it is on the ladder itself or not."""
    save_family(tmp_path / "family")
    calibrated(tmp_path / "pets.json", ("m0", "m", "m.w2", "m.w8", "m.w16", "m0+m"))
    text = box_text(tmp_path, rungs).replace(
        "ladders:", "  - {name: m, portfolio: family, convention: yolov8, labels: [cat, dog]}\nladders:"
    )
    with pytest.raises(ConfigError, match=r"ladder 'pets': 'm0.m' holds the portfolio 'm'; only whole models"):
        started(tmp_path, text)


def test_a_member_of_another_task_or_without_a_class_is_no_member(heads):
    one, two = heads["m1"], heads["m2"]
    other = replace(two, card=two.card.model_copy(update={"task": "classification"}))
    with pytest.raises(ConfigError, match="holds 'm2', which does classification; only detectors"):
        fused_model("m1+m2", {"m1": one, "m2": other}, ladder(("m1", "m2")))
    with pytest.raises(ConfigError, match=r"'m1', which 'm1.m2' holds, knows no class 'c1' of its calibration"):
        fused_model("m1+m2", {"m1": one, "m2": two}, ladder(("m1", "m2"), ("c0", "c1")))


def test_two_ladders_that_fuse_the_same_were_calibrated_together(tmp_path, heads):
    """The same file twice, or two that say the same, are one model; two that differ are refused."""
    calibrated(tmp_path / "pets.json")
    calibrated(tmp_path / "same.json")
    calibrated(tmp_path / "other.json", certainty=(2.0, 0.1))
    text = box_text(tmp_path).replace("queries: [", "queries: [{name: second, camera: a, model: more}, ")

    def both(name):
        return text.replace("pets.json}]", f"pets.json}}, {{name: more, models: [m0, m0+m1], calibration: {name}}}]")

    with Box(parse_config(both("same.json"), "box.yaml").resolved(tmp_path)) as box:
        assert [name for name in box.models if "+" in name] == ["m0+m1"]
    with pytest.raises(
        ConfigError, match=r"ladder 'more': another ladder fuses 'm0.m1', too, but was calibrated apart"
    ):
        started(tmp_path, both("other.json"))


def test_without_calibration_the_command_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"ladder .pets.: cannot read .*edgeward serve calibrate"):
        started(tmp_path, box_text(tmp_path))


def test_a_mistake_ends_in_one_line_and_code_2(tmp_path):
    calibrated(tmp_path / "pets.json", ("m0", "m1"))
    process = Process(tmp_path, box_text(tmp_path))
    _, errors = process.child.communicate(timeout=60)
    assert process.child.returncode == 2
    assert "Traceback" not in errors
    assert errors.splitlines()[-1].startswith("edgeward: ladder 'pets': ")
    assert "says nothing of model 'm0+m1'" in errors


# The whole box.


def test_a_box_answers_with_the_fused_rung_and_replays(tmp_path):
    calibrated(tmp_path / "pets.json")
    with Box(parse_config(box_text(tmp_path), "box.yaml").resolved(tmp_path)) as box:
        box.run()
        report = box.report()
        found = box.detections("a-pets", limit=50)
    (query,) = report.queries
    assert query.model == "m0+m1"
    assert query.in_time + query.late >= 40
    models = {model.name: model for model in report.models}
    assert models["m0+m1"].inferences > 30
    assert report.memory.resident_bytes == models["m0+m1"].bytes <= models["m0"].bytes + models["m1"].bytes
    assert all(each["result"]["class_name"] == ["cat"] for each in found), "both are sure of the same box"
    (recording,) = read_log(tmp_path / "data" / "log")
    assert replay(recording, "edf").identical
    assert {event.model for event in recording.events if isinstance(event, Inferred)} >= {"m0+m1"}


def ran_without_m1(folder, text):
    """A box from which the weights of m1 vanished once it was made: its recording."""
    box = Box(parse_config(text, "box.yaml").resolved(folder))
    own = {ref.segment for ref in box.models["m1"].packed.tensors.values()}
    for segment in own - {ref.segment for ref in box.models["m0"].packed.tensors.values()}:
        (folder / "cache/weights" / segment).rename(folder / segment)
    with box:
        box.run()
        report = box.report()
    (recording,) = read_log(folder / "data" / "log")
    assert report.queries[0].model == "m0"
    assert {model.name: model.inferences for model in report.models}["m0"] > 30
    assert replay(recording, "edf").identical
    return recording


def assert_blamed(recording, rung):
    """m1 was to blame for what failed of a rung, and by itself failed at most to be loaded ahead."""
    failed = [event for event in recording.events if isinstance(event, Failed)]
    assert {(each.model, each.part) for each in failed} - {("m1", "")} == {(rung, "m1")}
    assert all(each.what == "load" for each in failed if not each.part)
    assert all(each.error.startswith("'m1': ") for each in failed if each.part)


def test_where_a_member_cannot_be_loaded_the_others_go_on(tmp_path):
    calibrated(tmp_path / "pets.json")
    assert_blamed(ran_without_m1(tmp_path, box_text(tmp_path, frames=75)), "m0+m1")


def test_a_rung_that_does_not_fit_in_memory_is_left_out(tmp_path):
    calibrated(tmp_path / "pets.json")
    text = box_text(tmp_path)
    with Box(parse_config(text, "box.yaml").resolved(tmp_path)) as box:
        sizes = {name: model.spec.bytes for name, model in box.models.items()}
    config = parse_config(text, "box.yaml", [f"budget.memory={sizes['m0+m1'] - 1}"]).resolved(tmp_path)
    with Box(config) as box:
        box.run(seconds=1)
        assert box.report().queries[0].model == "m1"
        assert not {model.name: model.inferences for model in box.report().models}["m0+m1"]


def test_a_ladder_of_one_fused_rung_is_the_fixed_choice(tmp_path):
    calibrated(tmp_path / "pets.json")
    with Box(parse_config(box_text(tmp_path, "m0+m1"), "box.yaml").resolved(tmp_path)) as box:
        box.run(seconds=1)
        models = {model.name: model for model in box.report().models}
    assert models["m0+m1"].inferences > 10
    assert models["m0"].inferences == models["m1"].inferences == 0
    with pytest.raises(ConfigError, match=r"queries.0.model: a query names a ladder; list 'm0.m1' among"):
        started(tmp_path, box_text(tmp_path).replace("model: pets", "model: m0+m1"))


def test_the_names_of_models_together_survive_the_report_as_json(tmp_path):
    calibrated(tmp_path / "pets.json")
    with Box(parse_config(box_text(tmp_path), "box.yaml").resolved(tmp_path)) as box:
        report = json.loads(box.report().model_dump_json())
    assert "m0+m1" in [model["name"] for model in report["models"]]
