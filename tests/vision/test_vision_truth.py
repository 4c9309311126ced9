"""Ground truth files: what they mean, and that every fault names its place."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import ConfigError
from edgeward.vision import truth as module
from edgeward.vision.truth import Truth, load_truth

MOT = "2,7,10,20,30,40,1,-1,-1,-1\n\n1,3,0.5,1,2,3,0\n4,7,1,1,1,1,1\n1,7,11,20,30,40,1"


def coco(**changes):
    record = {
        "images": [{"id": 5, "file_name": "img10.jpg"}, {"id": 9, "file_name": "img2.jpg"}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [
            {"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "track_id": 8},
            {"image_id": 9, "category_id": 3, "bbox": [5, 6, 7, 8], "iscrowd": 1},
            {"image_id": 9, "category_id": 3, "bbox": [5, 6, 7, 8], "ignore": 1},
        ],
    }
    return json.dumps(record | changes)


def loaded(folder, text, name="gt.txt"):
    path = folder / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return load_truth(path)


@pytest.mark.parametrize("name", ["gt.txt", "gt.txt.gz"])
def test_mot_text(tmp_path, name):
    truth = loaded(tmp_path, MOT, name)
    assert (truth.frames, truth.labels) == (4, ("person",))
    first = truth.at(0)
    assert first.xyxy.tolist() == [[0.5, 1, 2.5, 4], [11, 20, 41, 60]]
    assert first.xyxy.dtype == np.float32
    assert first.tracker_id.tolist() == [3, 7]
    assert first.ignored.tolist() == [True, False]
    assert [len(truth.at(index)) for index in (-1, 0, 1, 2, 3, 4)] == [0, 2, 1, 0, 1, 0]


def test_coco_json(tmp_path):
    truth = loaded(tmp_path, coco(), "gt.json")
    assert (truth.frames, truth.labels) == (2, ("cat", "dog"))  # img2 comes before img10
    assert truth.at(0).ignored.tolist() == [True, True]
    last = truth.at(1)
    assert (last.xyxy.tolist(), last.class_id.tolist(), last.tracker_id.tolist()) == ([[1, 2, 4, 6]], [1], [8])


def test_coco_images_are_in_the_order_of_the_folder_source(tmp_path):
    natural_key = pytest.importorskip("edgeward.vision.sources.folder").natural_key
    names = ["10.jpg", "9.jpg", "b.jpg", "B2.jpg", "a10", "a9", "_1", "b/2", "1b", "a", "007"]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    notes = [{"image_id": number, "category_id": 1, "bbox": [number, 0, 1, 1]} for number in range(len(names))]
    truth = loaded(tmp_path, coco(images=images, annotations=notes), "gt.json")
    order = [names[int(truth.at(frame).xyxy[0, 0])] for frame in range(len(names))]
    assert order == sorted(names, key=natural_key)


def test_coco_video_frames_are_those_it_states(tmp_path):
    images = [{"id": 5, "frame_id": 0, "file_name": "z"}, {"id": 9, "frame_id": 6, "file_name": "a"}]
    truth = loaded(tmp_path, coco(images=images), "gt.json")
    assert truth.frames == 7
    assert (len(truth.at(0)), len(truth.at(6))) == (1, 2)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("one,2,3,4,5,6,1", "is not 'frame,id"),
        ("1,2,3,4,5", "is not 'frame,id"),
        ("0,2,3,4,5,6,1", "frame 0.0 is not a whole number in 1.."),
        ("1.5,2,3,4,5,6,1", "frame 1.5"),
        ("99999999,2,3,4,5,6,1", "frame 99999999.0"),
        ("1,1e12,3,4,5,6,1", "id 1000000000000.0"),
        ("nan,2,3,4,5,6,1", "frame nan"),
        ("1,2,3,inf,5,6,1", "coordinates in pixels"),
        ("1,2,3,4,-5,6,1", "not negative"),
        ("1,7,3,4,5,6,1", "id 7 is in frame 1 twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, complaint):
    with pytest.raises(ConfigError, match=r"gt\.txt, line 6") as error:
        loaded(tmp_path, MOT + "\n" + line)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": None}, "no list 'images'"),
        ({"annotations": [1]}, "no list 'annotations'"),
        ({"categories": [{"id": 1}]}, "category 0: name is None"),
        ({"images": [{"id": [], "file_name": "a"}]}, "image 0: id is"),
        ({"annotations": [{"image_id": 6, "category_id": 1, "bbox": [1, 2, 3, 4]}]}, "annotation 0: image_id"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3]}]}, "annotation 0: bbox"),
        ({"annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, -4]}]}, "annotation 0: box"),
        ({"images": [{"id": 1, "frame_id": 2}, {"id": 2, "frame_id": 2}]}, "frame_id is there twice"),
    ],
)
def test_a_bad_record_is_named(tmp_path, changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        loaded(tmp_path, coco(**changes), "gt.json")


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        ("", "gt.txt", "is empty"),
        (b"\xff\xfe\x00", "gt.txt", "is not text"),
        ("{", "gt.json", "not valid JSON"),
        ("[" * 100_000, "gt.json", "line 1"),
        ('{"a":' + "[" * 100_000, "gt.json", "not valid JSON"),
    ],
)
def test_a_file_that_is_no_truth(tmp_path, text, name, complaint):
    with pytest.raises(ConfigError, match=complaint):
        loaded(tmp_path, text, name)


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_truth(tmp_path / "absent.txt")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(MOT.encode())[:-9])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_truth(tmp_path / "cut.gz")


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    with pytest.raises(ConfigError, match="more than 1 MiB"):
        loaded(tmp_path, b"1" * (3 << 20), "bomb.gz")


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet='0123456789,.-e\n{}[]":nai ', max_size=80))
def test_any_text_is_a_truth_or_a_config_error(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_text(text)
    try:
        truth = load_truth(path)
    except ConfigError:
        return
    assert truth.frames >= 0


def test_columns_must_fit():
    boxes = module.TruthFrame(np.zeros((2, 4)), np.zeros(2), np.zeros(2), np.zeros(2, bool))
    for frame in ([0], [1, 0], [0, 5]):
        with pytest.raises(ValueError, match="frame numbers"):
            Truth(2, ("a",), np.array(frame), boxes)


def test_real_annotation(shared_data):
    truth = load_truth(shared_data / "multicam/pets2009_s2l1/view_001_gt_mot15.txt")
    wanted = ~truth.boxes.ignored
    assert (truth.frames, wanted.sum(), (~wanted).sum()) == (795, 4476, 174)
    assert len(np.unique(truth.boxes.tracker_id[wanted])) == 19
    counts = [int((~truth.at(index).ignored).sum()) for index in range(0, 795, 5)]
    assert (len(counts), sum(counts)) == (159, 895)
