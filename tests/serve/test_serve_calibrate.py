"""Calibration: tables by size from boxes, sampling of pairs, ladders of tiny and real models, and what is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from test_serve_portfolio import save_family
from tinymodel import save_detector
from typer.testing import CliRunner

from edgeward.cli.calibrate import calibrate as command
from edgeward.errors import ConfigError, EdgewardError, ModelError, StoreError
from edgeward.serve.calibrate import Settings, calibrate, common_labels
from edgeward.serve.certainty import certain
from edgeward.serve.fused import heard_from
from edgeward.serve.judging import Findings, Judge, fused_rung, worth_fusing
from edgeward.serve.ladder import load_ladder
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import resolve_model
from edgeward.serve.sampling import Clip, Picture, chosen_frames, frame_counts, sampled
from edgeward.serve.sizetable import object_sizes, size_edges, size_table, static_iou
from edgeward.serve.trial import Trial
from edgeward.vision.metrics import average_precision
from edgeward.vision.metrics.precision import found_objects
from edgeward.vision.results import Detections
from edgeward.vision.truth import Truth, TruthFrame, load_truth
from edgeward.weights.store import WeightStore

PEOPLE = "test://people?seed=1&fps=25&width=160&height=120&frames=40&objects=2"


def boxes(xyxy, score=0.9):
    count = len(xyxy)
    return Detections(np.reshape(xyxy, (-1, 4)), np.full(count, score), np.zeros(count))


def truth_of(frames, ignored=()):
    """Boxes of class 0 by frame; ignored: (frame, place) of boxes that count neither way."""
    rows = [
        (frame, box, (frame, place) in ignored) for frame, each in enumerate(frames) for place, box in enumerate(each)
    ]
    columns = TruthFrame(
        np.array([box for _, box, _ in rows], np.float32).reshape(-1, 4),
        np.full(len(rows), -1, np.int32),
        np.zeros(len(rows), np.int32),
        np.array([flag for _, _, flag in rows], bool),
    )
    return Truth(len(frames), ("cat",), np.array([frame for frame, _, _ in rows], np.int32), columns)


def square(side, x=0.1, y=0.1):
    return (x, y, x + side, y + side)


SMALL, LARGE = square(0.05), square(0.4, 0.5, 0.5)


class TestAveragePrecisionBySize:
    def test_objects_and_unmatched_boxes_of_other_sizes_do_not_count(self):
        truth = truth_of([[SMALL, LARGE]])
        found = {0: boxes([SMALL, square(0.4, 0.0, 0.5)])}  # the large one lies elsewhere
        assert average_precision(found, truth, sides=(0, 0.2)) == 1.0
        assert average_precision(found, truth, sides=(0.2, 1)) == 0.0
        assert 0 < average_precision(found, truth) < 1

    def test_a_wrong_box_of_the_size_counts(self):
        truth = truth_of([[SMALL, LARGE]])
        wrong = Detections([SMALL, square(0.05, 0.6, 0.2)], [0.5, 0.9], [0, 0])
        assert average_precision({0: wrong}, truth, sides=(0, 0.2)) == 0.5

    def test_a_small_wrong_box_inside_a_large_object_counts(self):
        """The object of another size is no crowd: lying within it does not excuse a box."""
        truth = truth_of([[SMALL, LARGE]])
        wrong = Detections([SMALL, square(0.05, 0.6, 0.6)], [0.5, 0.9], [0, 0])
        assert average_precision({0: wrong}, truth, sides=(0, 0.2)) == 0.5

    def test_a_box_that_finds_an_object_just_beyond_the_bound_is_passed_over(self):
        truth = truth_of([[SMALL, square(0.201, 0.5, 0.5)]])
        found = Detections([SMALL, square(0.195, 0.5, 0.5)], [0.5, 0.9], [0, 0])
        assert average_precision({0: found}, truth, sides=(0, 0.2)) == 1.0

    @given(st.lists(st.floats(0.02, 0.9), min_size=1, max_size=6), st.integers(0, 5))
    def test_all_sides_are_the_whole(self, sides, seed):
        random = np.random.default_rng(seed)
        truth = truth_of([[square(side, *random.uniform(0, 0.1, 2))] for side in sides])
        found = {frame: boxes([square(side * 0.9)], random.uniform(0.3, 1)) for frame, side in enumerate(sides)}
        assert average_precision(found, truth, sides=(0, 9)) == average_precision(found, truth)

    def test_sides_must_rise(self):
        with pytest.raises(ConfigError, match="must rise"):
            average_precision({}, truth_of([[SMALL]]), sides=(0.2, 0.1))


class TestSizeTable:
    def test_a_model_that_sees_large_objects_only(self):
        truth = truth_of([[SMALL, LARGE]] * 50)
        [small, large] = size_table(dict.fromkeys(range(50), boxes([LARGE])), truth, (0, 0.2, 1))
        whole = average_precision(dict.fromkeys(range(50), boxes([LARGE])), truth)
        assert small == pytest.approx(10 * whole / 60, abs=1e-3)
        assert large == pytest.approx((50 + 10 * whole) / 60, abs=1e-3)

    def test_few_objects_say_little(self):
        truth = truth_of([[LARGE]] * 50 + [[SMALL]])
        found = dict.fromkeys(range(50), boxes([LARGE]))
        [small, _] = size_table(found, truth, (0, 0.2, 1))
        assert small > 0.85, "one object missed is no proof of blindness"

    def test_a_bin_without_objects_has_the_overall_figure(self):
        truth = truth_of([[LARGE]] * 10)
        found = dict.fromkeys(range(5), boxes([LARGE]))
        table = size_table(found, truth, (0, 0.2, 1))
        assert table[0] == pytest.approx(average_precision(found, truth), abs=1e-3)

    @given(st.lists(st.floats(0.01, 1.2), max_size=400))
    def test_edges_rise_from_0_to_1_with_enough_objects_between(self, values):
        edges = size_edges(np.array(values))
        assert edges[0] == 0
        assert edges[-1] == 1
        assert len(edges) <= 7
        assert all(low < high for low, high in itertools.pairwise(edges))
        if len(edges) > 2:
            assert len(values) >= 80

    def test_edges_tell_a_wide_range_apart_and_a_narrow_one_not(self):
        random = np.random.default_rng(0)
        assert len(size_edges(random.uniform(0.05, 0.5, 600) ** 2)) == 7
        assert len(size_edges(random.uniform(0.1, 0.105, 600))) == 3

    @pytest.mark.parametrize("speed", [0.0, 0.01])
    @pytest.mark.parametrize("noise", [0.0, 0.01, 0.02])
    def test_the_overlap_of_an_unmoved_object_is_told_from_a_moving_one(self, speed, noise):
        """Sides err independently; the object is 0.2 wide."""
        random = np.random.default_rng(3)
        base = np.array(square(0.2, 0.3, 0.3))

        def seen(moved):
            return boxes([base + moved + random.normal(0, noise / 2, 4)])

        pairs = [(seen(0.0), seen(speed)) for _ in range(400)]
        still = [(seen(0.0), seen(0.0)) for _ in range(400)]
        direct = np.mean([_iou(one.xyxy[0], two.xyxy[0]) for one, two in still])
        assert static_iou(pairs) == pytest.approx(direct, abs=0.03)

    def test_no_pair_is_the_usual_overlap(self):
        assert static_iou([]) == 0.8
        assert static_iou([(boxes([]), boxes([SMALL]))]) == 0.8


def _iou(one, two):
    sides = np.minimum(one[2:], two[2:]) - np.maximum(one[:2], two[:2])
    shared = np.maximum(sides, 0).prod()
    return shared / ((one[2:] - one[:2]).prod() + (two[2:] - two[:2]).prod() - shared)


class TestSampling:
    @given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(1, 400))
    def test_pairs_are_spread_over_every_recording(self, counts, frames):
        for count, chosen in zip(counts, chosen_frames(counts, frames), strict=True):
            assert chosen <= set(range(count))
            pairs = max(frames // (2 * len(counts)), 1)
            assert len(chosen) == (count if 2 * pairs >= count else 2 * pairs)
            assert count == 1 or all({index - 1, index + 1} & chosen for index in chosen)
            if 2 * pairs < count:
                assert min(chosen) <= count / pairs
                assert max(chosen) >= count - 1 - count / pairs

    def test_pictures_carry_the_truth_of_their_own_frame(self, tmp_path):
        (tmp_path / "gt.txt").write_text("\n".join(f"{frame + 1},1,{frame},5,10,20,1" for frame in range(20)))
        clips = [Clip(PEOPLE, load_truth(tmp_path / "gt.txt")), Clip(PEOPLE)]
        counts = frame_counts(clips)
        assert counts == [20, 40], "frames that the truth does not cover cannot be used"
        taken = list(sampled(clips, chosen_frames(counts, 8), ("dog", "person")))
        assert [picture.video for picture in taken] == [0] * 4 + [1] * 4
        for picture in taken[:4]:
            assert picture.truth.xyxy[0, 0] == picture.index
            assert picture.truth.class_id.tolist() == [1]
        assert taken[4].truth is None

    def test_a_live_source_is_refused(self, monkeypatch):
        from edgeward.vision.sources.synthetic import SyntheticSource

        monkeypatch.setattr(SyntheticSource, "live", property(lambda self: True))
        with pytest.raises(ConfigError, match="record some minutes"):
            frame_counts([Clip(PEOPLE)])


@pytest.fixture
def tiny(tmp_path):
    """Three detectors, each sure of one box: of a quarter by half of the frame in its middle, or (c) elsewhere."""
    store, found = WeightStore(tmp_path / "weights"), {}
    for name, width, size in (("a", 8, 32), ("b", 64, 64)):
        path = save_detector(tmp_path / f"{name}.onnx", width=width, size=size)
        entry = ModelConfig(name=name, file=path, convention="yolov8", labels=("cat", "dog"))
        found[name] = resolve_model(entry, store, tmp_path, "cpu")
    return found


def pictures(count=12, truth=None):
    return [Picture(np.zeros((48, 64, 3), np.uint8), 0, index, truth) for index in range(count)]


MIDDLE = TruthFrame(
    np.array([[24, 12, 40, 36]], np.float32), np.array([1], np.int32), np.zeros(1, np.int32), np.zeros(1, bool)
)
AWAY = replace(MIDDLE, xyxy=np.array([[1, 1, 10, 10]], np.float32))
SETTINGS = Settings(("cat", "dog"), "here")


def test_a_ladder_of_tiny_models(tiny):
    told, notes = [], []
    settings = replace(SETTINGS, truth=True, expected=12, progress=lambda *step: told.append(step), note=notes.append)
    ladder = calibrate(tiny, pictures(truth=MIDDLE), settings)
    assert (ladder.device, ladder.labels, ladder.edges) == ("here", ("cat", "dog"), (0, 1))
    assert [rung.accuracy for rung in ladder.rungs] == [(1.0,), (1.0,)]
    for rung, model in zip(ladder.rungs, tiny.values(), strict=True):
        assert rung.bytes == sum(model.tensors.values()) > 0
        assert rung.static_iou > 0.9, "it always says the same"
    assert told[-1][1] == 24
    assert [done for done, total, _ in told if total] == sorted(done for done, total, _ in told if total)
    assert any("only 12 objects" in text for text in notes)
    calibrate({"a": tiny["a"]}, pictures(truth=MIDDLE), settings)
    assert any("nothing to choose" in text for text in notes)


def test_scores_are_made_probabilities(tiny):
    """Boxes with a score of 0.9 that are right in three pictures of four: a certainty of about three quarters."""
    mixed = [replace(picture, truth=MIDDLE if index % 4 else AWAY) for index, picture in enumerate(pictures(80))]
    settings = replace(SETTINGS, truth=True, confidence=0.1)
    for rung in calibrate(tiny, mixed, settings).rungs:
        [chance] = certain(boxes([SMALL], 0.9), rung.certainty).confidence
        assert chance == pytest.approx(0.75, abs=0.02)
        assert 0.5 < rung.mean < 0.9


def test_which_boxes_find_an_object_and_which_count():
    real = truth_of([[SMALL, LARGE]], ignored={(0, 1)}).at(0)
    found = Detections([SMALL, SMALL, LARGE, square(0.1, 0.8, 0.1)], [0.5, 0.9, 0.9, 0.9], [0, 0, 0, 0])
    right, counted = found_objects(found, real)
    assert right.tolist() == [False, True, False, False]
    assert counted.tolist() == [True, True, False, True]


def test_agreement_names_the_reference_and_needs_no_truth(tiny):
    notes = []
    ladder = calibrate(tiny, iter(pictures(25)), replace(SETTINGS, reference="a", note=notes.append))
    assert [rung.accuracy for rung in ladder.rungs] == [(1.0,), (1.0,)]
    assert "agreement with 'a'" in notes[0]


@pytest.mark.parametrize(("doubtful", "mean"), [(0.1, 1.0), (0.4, 1.0), (0.6, 0.5)])
def test_what_a_reference_is_not_sure_of_is_no_truth(tiny, monkeypatch, doubtful, mean):
    """It finds two things, and is sure of one; the other model finds that one alone."""
    both = Detections([SMALL, LARGE], [0.9, doubtful], [0, 0])
    trials = {"a": Trial([0.01], [0.1], [both] * 12, [both] * 12), "b": Trial([0.02], [0.1], [boxes([SMALL])] * 12)}
    monkeypatch.setattr("edgeward.serve.calibrate.tried", lambda *given: (trials, pictures()))
    ladder = calibrate(tiny, pictures(), replace(SETTINGS, reference="a"))
    assert ladder.rung("b").mean == pytest.approx(mean, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        (SETTINGS, [], "no frame"),
        (replace(SETTINGS, truth=True), pictures(truth=None), "some pictures have no truth"),
        (replace(SETTINGS, reference="c"), pictures(), "no model 'c'"),
        (replace(SETTINGS, labels=("horse",)), pictures(), "'a' does not know the class 'horse'"),
        (replace(SETTINGS, labels=("dog",)), pictures(), "finds no dog with a score of at least 0.5 in 12 frames"),
        (
            replace(SETTINGS, truth=True, labels=("dog",)),
            pictures(truth=TruthFrame(*(column[:0] for column in vars(MIDDLE).values()))),
            "truth has no dog",
        ),
        (replace(SETTINGS, truth=True), pictures(truth=AWAY), "no model finds any of the 12 objects"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(tiny, settings, given, message):
    with pytest.raises(ConfigError, match=message):
        calibrate(tiny, given, settings)


def test_settings_and_classes_that_make_no_sense(tiny):
    with pytest.raises(ConfigError, match="no class"):
        replace(SETTINGS, labels=())
    with pytest.raises(ConfigError, match="over 0 and below 1"):
        replace(SETTINGS, confidence=0.0)
    with pytest.raises(ConfigError, match="share no class of horse"):
        common_labels(tiny, ["horse"])
    assert common_labels(tiny, ["dog"]) == ("dog",)


def test_a_model_that_fails_is_named(tiny):
    class Broken:
        def __init__(self, inner):
            self.inner, self.runs = inner, 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def run(self, batch):
            self.runs += 1
            if self.runs > 4:
                raise ModelError("out of tokens")
            return self.inner.run(batch)

    class Model(type(tiny["b"])):
        def open(self, threads):
            return Broken(super().open(threads))

    broken = Model(**vars(tiny["b"]))
    with pytest.raises(ModelError, match="model 'b' failed: out of tokens"):
        calibrate({**tiny, "b": broken}, pictures(), SETTINGS)


# Rungs of several models.


def judge_of(frames, confidence=0.3):
    taken = tuple(Picture(np.zeros((0, 0, 3), np.uint8), 0, index, None) for index in range(len(frames)))
    return Judge(truth_of(frames), taken, (0.0, 1.0), confidence)


def found_by(frames, score=0.9):
    both = [boxes(each, score) for each in frames]
    return Findings(both, both)


def rungs_of(judge, found):
    return {name: judge.rung(name, each, 0.02, 0.1, {name: 100}) for name, each in found.items()}


FAR = square(0.3, 0.6, 0.05)
SCENE = [[LARGE, FAR]] * 60


def test_two_that_err_on_different_objects_are_worth_fusing():
    """Each finds one of two objects, never the other."""
    judge = judge_of(SCENE)
    found = {"left": found_by([[LARGE]] * 60), "right": found_by([[FAR]] * 60)}
    rungs = rungs_of(judge, found)
    advice = worth_fusing(judge, rungs, found, ())
    assert len(advice) == 2
    for name, other, text in zip(("left+right", "left~right"), ("right+left", "right~left"), advice, strict=True):
        made = fused_rung(name, judge, rungs, found)
        assert made.mean > 0.9 > 1.5 * max(rung.mean for rung in rungs.values())
        assert f"{name!r} would be better than 'left'" in text
        assert f"a mean of {made.mean:.3f}, not {rungs['left'].mean:.3f}" in text
        assert "models" in text
        for known in (name, other):
            left = worth_fusing(judge, rungs, found, [replace(made, name=known, seconds=9.0)])
            assert f"{name!r} would" not in " ".join(left), "it is on the ladder already"
            assert len(left) == 1


def test_one_that_finds_nothing_is_worth_no_fusing():
    judge = judge_of(SCENE)
    found = {"left": found_by([[LARGE]] * 60), "blind": found_by([[]] * 60)}
    rungs = rungs_of(judge, found)
    assert worth_fusing(judge, rungs, found, ()) == ()
    assert fused_rung("left+blind", judge, rungs, found).mean == pytest.approx(rungs["left"].mean, abs=0.02)


def test_one_that_alone_finds_as_much_in_no_more_time_leaves_nothing_to_advise():
    judge = judge_of(SCENE)
    found = {"left": found_by([[LARGE]] * 60), "right": found_by([[FAR]] * 60), "whole": found_by(SCENE)}
    rungs = rungs_of(judge, found)
    assert worth_fusing(judge, rungs, found, ()) == ()
    slow = rungs | {"whole": replace(rungs["whole"], seconds=1.0)}
    assert [text.split()[0] for text in worth_fusing(judge, slow, found, ())] == ["'left+right'", "'left~right'"]


def test_two_of_which_neither_is_ever_sure_may_be_sure_together():
    """Alone, one box in six is right, which is less than asked for; where both agree, all are."""
    others = [
        [square(0.1, 0.15 * place, 0.8) for place in range(5)],
        [square(0.1, 0.15 * place, 0.1) for place in range(5)],
    ]
    judge = judge_of([[LARGE]] * 60)
    found = {name: found_by([[LARGE, *wrong]] * 60, 0.5) for name, wrong in zip(("one", "two"), others, strict=True)}
    rungs = rungs_of(judge, found)
    assert [rung.mean for rung in rungs.values()] == [0, 0]
    advice = worth_fusing(judge, rungs, found, ())
    assert ["not 0.000" in text for text in advice] == [True, True]


def test_what_a_fused_rung_costs_is_what_its_members_cost():
    judge = judge_of(SCENE)
    found = {"left": found_by([[LARGE]] * 60), "right": found_by([[FAR]] * 60)}
    rungs = rungs_of(judge, found)
    tensors = {"left": {"stem": 40, "left": 60}, "right": {"stem": 40, "right": 30}}
    made = fused_rung("left+right", judge, rungs, found, tensors)
    assert 0.04 <= made.seconds < 0.1, "and the fusing of their boxes"
    assert made.load_seconds == pytest.approx(0.2)
    assert made.bytes == 130, "what they share is held once"
    turns = fused_rung("left~right", judge, rungs, found, tensors)
    assert turns.accuracy == made.accuracy, "what a part of it loses by being older is not told here"
    assert 0.02 <= turns.seconds < 0.05
    assert turns.seconds == pytest.approx(sum(turns.parts) / 2)
    assert (turns.load_seconds, turns.bytes) == (made.load_seconds, made.bytes)


def test_a_pair_that_cannot_be_held_is_not_advised():
    judge = judge_of(SCENE)
    found = {"left": found_by([[LARGE]] * 60), "right": found_by([[FAR]] * 60)}
    rungs, tensors = rungs_of(judge, found), {"left": {"stem": 40, "left": 60}, "right": {"stem": 40, "right": 30}}
    assert worth_fusing(judge, rungs, found, (), tensors, memory=129) == ()
    assert len(worth_fusing(judge, rungs, found, (), tensors, memory=130)) == 2


def test_boxes_too_faint_for_the_box_have_no_say_in_a_fused_rung():
    """Where only one is sure, the other's faint box beside it would move the fit, but the box never sees it."""
    judge = judge_of([[LARGE]] * 60)
    moved = np.array(LARGE) + [0.05, 0, 0.05, 0]
    certainty = (1.0, 0.5)
    floor = heard_from(judge.confidence, [certainty])[0]
    assert 0.05 < floor < 0.15, "the least certainty, halved, as a score of a model that is too modest"

    def made(score):
        found = {"sure": found_by([[LARGE]] * 60), "faint": found_by([[moved]] * 60, score)}
        rungs = {name: replace(rung, certainty=certainty) for name, rung in rungs_of(judge, found).items()}
        return replace(fused_rung("sure+faint", judge, rungs, found), seconds=1.0)

    assert made(floor - 0.01) == made(0.06) == made(0.0)
    assert made(floor + 0.01) != made(floor - 0.01)


def test_remarks_are_about_the_rungs_that_are_listed(tiny):
    """A model measured only because a rung holds it is neither a choice nor left out."""

    def told(**given):
        notes = []
        calibrate(tiny, pictures(truth=MIDDLE), replace(SETTINGS, truth=True, note=notes.append, **given))
        return " ".join(notes)

    every = told(fused=("a+b",))
    assert "'a+b' is left out" in every
    assert "nothing to choose" not in every
    alone = told(fused=("a+b",), listed=("a+b",))
    assert "the ladder has one model, 'a+b': there is nothing to choose" in alone
    assert "left out" not in alone


def test_a_reference_fused_with_another_does_not_agree_with_itself(tiny):
    """The boxes that stand for the truth are its own; it is judged, also as a member, on what it found mirrored."""
    settings = replace(SETTINGS, reference="a", fused=("a+b",), expected=12)
    middle = calibrate(tiny, pictures(), settings)
    assert middle.rung("a+b").mean == pytest.approx(1.0), "the box is symmetric: mirrored it is the same"
    judge = judge_of([[square(0.3, 0.1, 0.1)]] * 40)
    truth, mirrored = [boxes([square(0.3, 0.1, 0.1)])] * 40, [boxes([square(0.3, 0.25, 0.1)])] * 40
    found = {"a": Findings(mirrored, truth), "b": found_by([[]] * 40)}
    rungs = rungs_of(judge, found)
    made = fused_rung("a+b", judge, rungs, found)
    assert rungs["a"].mean == 0, "what it found mirrored lies elsewhere"
    assert made.mean == 0
    same = {"a": Findings(truth, truth), "b": found["b"]}
    assert fused_rung("a+b", judge, rungs_of(judge, same), same).mean == pytest.approx(1.0)


def test_a_ladder_of_models_and_of_both_together(tiny):
    notes = []
    settings = replace(SETTINGS, truth=True, fused=("a+b",), expected=12, note=notes.append)
    made = calibrate(tiny, pictures(truth=MIDDLE), settings)
    assert [rung.name for rung in made.rungs] == ["a", "b", "a+b"]
    one, two, both = made.rungs
    assert both.seconds >= one.seconds + two.seconds
    assert both.bytes == sum({**tiny["a"].tensors, **tiny["b"].tensors}.values())
    assert both.accuracy == (1.0,)
    assert not [text for text in notes if "would be better" in text], "each finds all there is"
    with pytest.raises(ConfigError, match="no model 'c' to fuse"):
        calibrate(tiny, pictures(truth=MIDDLE), replace(settings, fused=("a+c",)))


def run_command(*arguments):
    """The command; its error is raised."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(result.exception, EdgewardError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def box_file(folder, models, source, classes="[person]"):
    lines = ["cameras:", f"  - {{name: street, source: '{source}'}}", "models:", *models, "ladders:"]
    lines += ["  - {name: people, models: [one, two], calibration: people.json}", "queries:"]
    lines += [f"  - {{camera: street, model: people, classes: {classes}}}", f"cache: '{folder}/cache'"]
    lines += ["budget: {threads: 1, device: cpu}"]
    path = folder / "box.yaml"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def real(shared_data, tmp_path):
    file = shared_data / "detectors" / "FastestDet" / "FastestDet.onnx"
    models = [
        f"  - {{name: one, file: '{file}', convention: fastestdet, labels: coco}}",
        "  - {name: two, use: ssdlite-person}",
    ]
    return box_file(tmp_path, models, shared_data / "video" / "vtest.avi")


def test_real_models_on_real_video_with_and_without_truth(real, shared_data):
    truth = shared_data / "multicam" / "pets2009_s2l1" / "view_001_gt_mot15.txt"
    real.write_text(real.read_text().replace("[one, two]", "[one, two, one+two]"))
    run = run_command(real, "people", "--truth", truth, "--frames", 24, "--json")
    ladder = load_ladder(real.parent / "people.json")
    assert json.loads(run.stdout[run.stdout.index("{") : run.stdout.rindex("}") + 1])["labels"] == ["person"]
    assert ladder.labels == ("person",)
    assert [rung.name for rung in ladder.rungs] == ["one", "two", "one+two"]
    fast, ssd, both = ladder.rungs
    assert fast.mean > 0.5, "FastestDet has an AP of 0.77 on the whole recording"
    assert ssd.mean > 0.3, "SSDLite one of 0.61"
    assert all(0.7 < rung.static_iou < 1 and rung.seconds > 0 and rung.load_seconds >= 0 for rung in ladder.rungs)
    assert ssd.bytes > 3 * fast.bytes
    assert both.bytes == fast.bytes + ssd.bytes
    assert both.seconds >= fast.seconds + ssd.seconds
    assert both.mean > ssd.mean
    run_command(real, "--frames", 12, "--reference", "two", "-o", real.parent / "other.json")
    other = load_ladder(real.parent / "other.json")
    assert all(0 <= figure <= 1 for rung in other.rungs for figure in rung.accuracy)
    assert other.rung("two").mean > 0.5, "it agrees with itself on mirrored pictures"
    assert other.device == ladder.device


@pytest.fixture
def small(tmp_path):
    """A box of tiny models on a synthetic street."""
    models = [
        f"  - {{name: {name}, file: '{save_detector(tmp_path / f'{name}.onnx', width=width)}', convention: yolov8, "
        "labels: [cat, dog]}"
        for name, width in (("one", 8), ("two", 16))
    ]
    return box_file(tmp_path, models, PEOPLE, "[cat]")


def test_the_command_shows_a_table_and_says_where_it_is(small):
    run = run_command(small, "--frames", 10)
    assert "one" in run.output
    assert "unmoved" in run.output
    assert "written to" in run.output
    assert load_ladder(small.parent / "people.json").labels == ("cat",)


def test_what_was_measured_is_told_though_the_disk_is_full(small, monkeypatch):
    def full(*given):
        raise StoreError("cannot write people.json: No space left on device")

    monkeypatch.setattr("edgeward.serve.ladder.replace_text", full)
    app = typer.Typer()
    app.command()(command)
    run = CliRunner().invoke(app, [str(small), "--frames", "10"])
    assert isinstance(run.exception, StoreError)
    assert "unmoved" in run.output, "minutes of work are not lost"


def test_the_command_measures_models_and_what_they_find_together(small):
    text = small.read_text()
    small.write_text(text.replace("models: [one, two]", "models: [one, one+two]"))
    run = run_command(small, "--frames", 10)
    assert "one+two" in run.output
    made = load_ladder(small.parent / "people.json")
    assert [rung.name for rung in made.rungs] == ["one", "two", "one+two"], "a member that is no rung is measured, too"
    assert made.rung("one+two").seconds >= made.rung("one").seconds + made.rung("two").seconds


@pytest.mark.parametrize("rungs", ["[one, one+family]", "[one, family, one+family]"])
def test_the_command_refuses_a_portfolio_as_a_member(small, rungs):
    save_family(small.parent / "family")
    entry = "  - {name: family, portfolio: family, convention: yolov8, labels: [cat, dog]}\nladders:"
    small.write_text(small.read_text().replace("[one, two]", rungs).replace("ladders:", entry))
    with pytest.raises(ConfigError, match=r"'one.family' holds the portfolio 'family'; only whole models"):
        run_command(small, "--frames", 10)


def test_mistakes_are_told_before_the_work_begins(small, monkeypatch):
    gt = small.parent / "gt.txt"
    gt.write_text("1,1,5,5,10,20,1\n")
    with pytest.raises(ConfigError, match="no ladder 'peple'"):
        run_command(small, "peple")
    with pytest.raises(ConfigError, match=r"2 of --truth for 1 recordings"):
        run_command(small, "--truth", gt, "--truth", gt)
    with pytest.raises(ConfigError, match="annotates person, the ladder finds cat"):
        run_command(small, "--truth", gt)
    with pytest.raises(ConfigError, match="--reference stands for a truth"):
        run_command(small, "--truth", gt, "--reference", "one")
    monkeypatch.setattr("edgeward.cli.calibrate._models", lambda *given: pytest.fail("work began"))
    (small.parent / "file").write_text("")
    with pytest.raises(StoreError, match="choose another place with -o"):
        run_command(small, "-o", small.parent / "file" / "people.json")
    with pytest.raises(StoreError, match="it is a folder"):
        run_command(small, "-o", small.parent)


def test_a_failure_leaves_the_old_file(small, monkeypatch):
    place = small.parent / "people.json"
    place.write_text("old")
    with pytest.raises(ConfigError, match="no model 'three'"):
        run_command(small, "--reference", "three")
    assert place.read_text() == "old"
    assert {path.name for path in small.parent.iterdir()} >= {"people.json", "box.yaml"}
    assert not [path for path in small.parent.iterdir() if path.name.startswith(".people")]


def test_object_sizes_are_those_that_count():
    assert object_sizes(truth_of([[SMALL, LARGE]], ignored={(0, 1)})) == pytest.approx([0.05])
