"""Ladders on disk and off it, object sizes, and how stale boxes lose."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward.errors import ConfigError
from edgeward.serve.ages import Ages
from edgeward.serve.ladder import Ladder, Rung, dominated, load_ladder, save_ladder
from edgeward.serve.sizes import SizeHistogram, counts, size_bins, sizes
from edgeward.serve.staleness import Motion, Retention, matched
from edgeward.vision.metrics.overlap import overlap
from edgeward.vision.results import Detections
from edgeward.vision.truth import load_truth

SMALL = Rung("small", (0.1, 0.7), 0.03, 0.2, 4 << 20)
LARGE = Rung("large", (0.6, 0.9), 0.2, 0.5, 40 << 20, static_iou=0.9)
LADDER = Ladder("pi", ("person",), (0.0, 0.2, 1.0), (SMALL, LARGE))


def boxes(*rows):
    return Detections(np.array(rows, np.float32).reshape(-1, 4), np.ones(len(rows)), np.zeros(len(rows)))


accuracies = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(tuple)
rungs = st.builds(
    Rung, st.text("abc", min_size=1, max_size=3), accuracies, st.floats(0.001, 1), bytes=st.integers(0, 9)
)


@given(st.lists(rungs, min_size=1, max_size=5, unique_by=lambda rung: rung.name))
def test_a_ladder_survives_its_file(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("ladder") / "ladder.json"
    ladder = Ladder("pi", ("person", "car"), (0.0, 0.1, 0.3, 1.0), tuple(found))
    save_ladder(ladder, path)
    assert load_ladder(path) == ladder


@given(st.lists(rungs, min_size=1, max_size=6, unique_by=lambda rung: rung.name), st.randoms())
def test_the_dominated_never_include_the_best_of_anything(found, random):
    out = dominated(found)
    assert len(out) < len(found)
    kept = [rung for rung in found if rung.name not in out]
    for size in range(3):
        assert max(rung.accuracy[size] for rung in kept) == max(rung.accuracy[size] for rung in found)
    assert min(rung.seconds for rung in kept) == min(rung.seconds for rung in found)
    assert min(rung.bytes for rung in kept) == min(rung.bytes for rung in found)
    random.shuffle(found)
    assert dominated(found).keys() == out.keys()


def test_a_contradictory_table_is_named_in_a_note():
    worse = Rung("worse", (0.05, 0.6), 0.3, bytes=50 << 20)
    ladder = replace(LADDER, rungs=(SMALL, LARGE, worse))
    assert len(ladder.notes) == 1
    assert "'worse'" in ladder.notes[0]
    assert "'large'" in ladder.notes[0] or "'small'" in ladder.notes[0]
    assert LADDER.notes == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rungs": ()}, "at least one"),
        ({"rungs": (SMALL, SMALL)}, "two rungs are called 'small'"),
        ({"rungs": (replace(SMALL, accuracy=(0.5,)),)}, "1 size bins, the ladder has 2"),
        ({"labels": ()}, "at least one label"),
        ({"edges": (0.0, 0.5, 0.2)}, "must rise"),
        ({"edges": (0.1, 0.2, 0.3)}, "from 0"),
        ({"format": 2}, "reads 1"),
    ],
)
def test_an_impossible_ladder_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        replace(LADDER, **changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"accuracy": (0.1, 1.2)}, "1.2 is outside 0..1"),
        ({"accuracy": (float("nan"), 0.2)}, "nan"),
        ({"seconds": 0.0}, "more than 0"),
        ({"bytes": -1}, "at least 0"),
        ({"static_iou": 0.0}, "static_iou"),
        ({"name": ""}, "no name"),
    ],
)
def test_an_impossible_rung_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        replace(SMALL, **changes)


def test_a_ladder_of_another_device_or_class_list_is_refused():
    LADDER.check("pi", ["person"])
    with pytest.raises(ConfigError, match="'pi', this device is 'nano'"):
        LADDER.check("nano", ["person"])
    with pytest.raises(ConfigError, match="classes person, the query asks for car"):
        LADDER.check("pi", ["car"])
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        LADDER.rung("smal")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "ladder"),
        ('{"device": "pi"}', "labels"),
        ("\xff", "not JSON"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, says):
    path = tmp_path / "ladder.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=says):
        load_ladder(path)


def test_a_file_with_a_wrong_figure_or_key_is_refused(tmp_path):
    path = tmp_path / "ladder.json"
    with pytest.raises(ConfigError, match="edgeward serve calibrate"):
        load_ladder(path)
    save_ladder(LADDER, path)
    record = json.loads(path.read_text())
    for change, says in (
        ({"rungs": [record["rungs"][0] | {"accuracy": [2, 0]}]}, "outside 0..1"),
        ({"rungs": [record["rungs"][0] | {"colour": 1}]}, "rungs.0.colour"),
        ({"speed": 3}, "speed"),
    ):
        path.write_text(json.dumps(record | change))
        with pytest.raises(ConfigError, match=says):
            load_ladder(path)
    with path.open("wb") as file:
        file.truncate(2 << 20)
    with pytest.raises(ConfigError, match="at most"):
        load_ladder(path)


def test_sizes_are_roots_of_shares_of_the_frame():
    found = sizes(boxes((0, 0, 100, 50), (10, 10, 10, 40), (-5, 0, 205, 110)), 200, 100)
    assert found == pytest.approx([0.5, 0.0, (210 * 110 / 20_000) ** 0.5])
    assert list(size_bins(found, (0.0, 0.5, 1.0))) == [1, 0, 1]
    assert list(counts(found, (0.0, 0.5, 1.0))) == [1, 2]
    assert list(counts(np.zeros(0), (0.0, 0.5, 1.0))) == [0, 0]


@given(
    st.lists(st.floats(0, 50), min_size=4, max_size=4),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.floats(0, 1),
)
def test_shares_are_a_distribution_and_uniform_when_nothing_is_seen(found, visible, weight):
    view = SizeHistogram.unknown(4)
    assert view.shares == (0.25,) * 4
    view = view.seen(found, visible, weight)
    assert sum(view.shares) == pytest.approx(1)
    assert min(view.shares) > 0
    for _ in range(500):
        view = view.seen((0.0,) * 4, (1.0,) * 4, 0.3)
    assert view.shares == pytest.approx((0.25,) * 4, abs=1e-6)


def test_what_a_model_misses_is_put_back_and_what_it_cannot_see_is_remembered():
    view = SizeHistogram.unknown(2)
    for _ in range(200):
        view = view.seen((2.5, 10.0), (0.25, 1.0), 0.5)  # a quarter of ten small objects, all of ten large ones
    assert view.objects == pytest.approx((10, 10), rel=1e-6)
    blind = view
    for _ in range(1000):
        blind = blind.seen((0.0, 4.0), (0.0, 1.0), 0.1)
    assert blind.objects == pytest.approx((10, 4))
    look = blind.seen((0.0, 4.0), (1.0, 1.0), 0.1)
    assert look.objects[0] < 0.2  # after a long time in the dark, one look tells
    assert view.seen((0.0, 4.0), (1.0, 1.0), 0.1).objects[0] > 1
    with pytest.raises(ConfigError, match="3 counts"):
        view.seen((1, 2, 3), (1, 1), 0.5)


@given(st.floats(0.0, 0.05), st.integers(1, 5), st.sampled_from([0.7, 0.8, 1.0]))
def test_displacement_is_found_whatever_the_lag_and_jitter(speed, lag, static):
    retention = Retention.assumed(1)
    still = (1 - static) / (1 + static)
    moved = (still**2 + (speed * lag) ** 2) ** 0.5
    ious = np.full(30, (1 - moved) / (1 + moved))
    for _ in range(60):
        retention = retention.observed((ious, np.zeros(30, np.intp)), static, lag, 0.3)
    assert max(retention.rates[0], 0) ** 0.5 == pytest.approx(speed, abs=0.006)
    assert retention.mean(Ages.between(0, 0))[0] == 1


@pytest.mark.parametrize("model", ["displacement", "decay"])
def test_older_and_faster_boxes_are_worth_less(model):
    slow, fast = (
        Retention.assumed(1, Motion("all", model)).observed((np.full(9, iou), np.zeros(9, np.intp)), 0.8, 3, 1.0)
        for iou in (0.75, 0.5)
    )
    kept = [slow.mean(Ages.between(n, 2 * n - 1))[0] for n in range(1, 20)]
    assert all(a > b for a, b in itertools.pairwise(kept))
    assert all(
        fast.mean(Ages.between(n, 2 * n - 1))[0] < slow.mean(Ages.between(n, 2 * n - 1))[0] for n in range(1, 20)
    )


def test_beta_is_the_root_of_the_overlap_kept():
    motion = Motion("all", "decay")
    assert motion.measured(0.4, 0.8, 3) == pytest.approx(0.5 ** (1 / 3))
    assert motion.measured(0.9, 0.8, 1) == 1
    assert motion.measured(0.0, 0.8, 1) == 0.5
    fixed = Retention.assumed(1, Motion("fixed", "decay", 0.95)).observed((np.zeros(9), np.zeros(9, int)), 0.8, 1, 1.0)
    assert fixed.mean(Ages.between(4, 7))[0] == pytest.approx(np.mean(0.95 ** np.arange(4, 8)))
    with pytest.raises(ConfigError, match="outside"):
        Motion(assumed=1.2)


def test_too_few_matches_keep_the_old_and_a_bin_without_any_follows_the_others():
    known = Retention.assumed(2).observed((np.full(9, 0.5), np.zeros(9, np.intp)), 0.8, 2, 1.0)
    few = known.observed((np.zeros(2), np.zeros(2, np.intp)), 0.8, 2, 0.5)
    assert few.rates == pytest.approx(known.rates, rel=0.05)
    assert known.observed((np.zeros(9), np.zeros(9, np.intp)), 0.8, 0.01, 0.5) == known  # too near to tell motion
    for _ in range(500):
        few = few.observed((np.zeros(0), np.zeros(0, np.intp)), 0.8, 2, 0.5)
    assert few.rates == pytest.approx(Retention.assumed(2).rates)
    assert known.rates[1] == pytest.approx(known.rates[0], rel=0.1)


def test_boxes_are_matched_by_place_and_shape():
    before = boxes((0, 0, 10, 20), (50, 50, 90, 60), (200, 0, 210, 10))
    after = boxes((52, 50, 92, 60), (6, 0, 16, 20), (2, 0, 42, 10), (500, 500, 510, 510))
    ious, bins = matched(before, after, [3, 4, 5])
    assert list(bins) == [3, 4]
    assert ious == pytest.approx([4 / 16, 38 / 42])
    other = replace(after, class_id=np.ones(4))
    assert len(matched(before, other, [3, 4, 5])[0]) == 0
    assert len(matched(before, Detections.empty(), [3, 4, 5])[0]) == 0
    assert len(matched(Detections.empty(), after, [])[0]) == 0


@pytest.mark.parametrize(
    ("path", "width", "height"),
    [("mot/TUD-Stadtmitte/gt/gt.txt", 640, 480), ("multicam/pets2009_s2l1/view_001_gt_mot15.txt", 768, 576)],
)
def test_people_on_real_streets_outwalk_their_boxes_as_estimated(shared_data, path, width, height):
    """Whole boxes without identities are all it gets; what it says is compared with what identities say."""
    truth = load_truth(shared_data / path)
    frames = [truth.at(index) for index in range(truth.frames)]
    found = [Detections(each.xyxy, np.ones(len(each)), each.class_id) for each in frames]
    edges, errors = (0.0, 0.12, 0.2, 1.0), []
    for lag in (1, 2, 4):
        retention = Retention.assumed(3)
        for before, after in itertools.pairwise(found[::lag]):
            at = size_bins(sizes(before, width, height), edges)
            retention = retention.observed(matched(before, after, at), 1.0, lag, 0.02)
        weights = sum(counts(sizes(each, width, height), edges) for each in found)
        for age in (1, 2, 4, 6, 8):
            said = float(retention.mean(Ages.between(age, age), fit=1.0) @ weights / weights.sum())
            pairs = [(a, b) for a, b in zip(frames, frames[age:], strict=False) if len(a) and len(b)]
            shared = np.concatenate(
                [
                    overlap(a.xyxy, b.xyxy, np.zeros(len(b), bool))[a.tracker_id[:, None] == b.tracker_id]
                    for a, b in pairs
                ]
            )
            errors.append(said - float((shared >= 0.5).mean()))
    assert np.abs(errors).max() < 0.25
    assert np.abs(errors).mean() < 0.1
