"""Tensors come back bit for bit, are held once, and leave memory when nobody holds them."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from edgeward.errors import StoreError
from edgeward.weights.store import DTYPES, WeightStore, digest_of, read_header

arrays = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: hnp.arrays(DTYPES[name], hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)


@given(st.lists(arrays, min_size=1, max_size=6))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_every_tensor_comes_back_bit_for_bit(tmp_path_factory, tensors):
    store = WeightStore(tmp_path_factory.mktemp("store"))
    for tensor, ref in zip(tensors, store.put(tensors), strict=True):
        back = store.borrow(ref)
        assert (back.dtype, back.shape, back.tobytes()) == (tensor.dtype, tensor.shape, tensor.tobytes())
        assert not back.flags.writeable
        assert ref.nbytes == tensor.nbytes


def random(seed, shape=(64, 100)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_equal_tensors_are_stored_once_and_different_shapes_are_different(tmp_path):
    store = WeightStore(tmp_path)
    first = store.put([random(0), random(1)])
    second = store.put([random(1), random(2), random(1)])
    assert second[0] == first[1] == second[2]
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    [reshaped] = store.put([random(1).reshape(100, 64)])
    assert reshaped.digest != first[1].digest
    stored = sum(ref.nbytes for ref in store.index().values())
    assert stored == 4 * 64 * 100 * 4


def test_segments_are_plain_safetensors_aligned_for_vectors(tmp_path):
    store = WeightStore(tmp_path)
    [ref] = store.put([random(3)])
    [path] = tmp_path.glob("*.safetensors")
    assert np.array_equal(load_file(path)[ref.digest], random(3))
    assert ref.offset % 4096 == 0


def test_borrowers_share_one_view_and_the_map_goes_with_the_last(tmp_path):
    store = WeightStore(tmp_path)
    [ref] = store.put([random(4, (512, 512))])
    one, two = store.borrow(ref), store.borrow(ref)
    assert one is two

    def mapped():
        return ref.segment in Path("/proc/self/maps").read_text()

    assert mapped()
    del one
    gc.collect()
    assert mapped()
    assert two.sum() == random(4, (512, 512)).sum()
    del two
    gc.collect()
    assert not mapped()


def test_a_let_go_tensor_gives_its_pages_back_while_its_neighbour_stays(tmp_path):
    store = WeightStore(tmp_path)
    refs = store.put([random(seed, (1024, 1024)) for seed in (5, 6)])
    views = [store.borrow(ref) for ref in refs]
    total = sum(float(view.sum()) for view in views)

    def resident():
        lines = Path("/proc/self/smaps").read_text().split(refs[0].segment)[1].splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))

    assert resident() >= 8 << 20
    del views[0]
    gc.collect()
    assert resident() <= (4 << 20) + (64 << 10)
    assert float(views[0].sum()) + float(store.borrow(refs[0]).sum()) == total


def test_what_nobody_wants_is_collected(tmp_path):
    store = WeightStore(tmp_path)
    [old] = store.put([random(7)])
    [kept] = store.put([random(8)])
    assert store.collect([kept.digest]) > old.nbytes
    assert store.index().keys() == {kept.digest}


def test_many_writers_at_once_agree(tmp_path):
    refs, errors = [], []

    def write():
        try:
            refs.append(WeightStore(tmp_path).put([random(9), random(10)]))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(each == refs[0] for each in refs)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("keep", [0, 4, 100, 5000])
def test_a_cut_segment_is_named(tmp_path, keep):
    store = WeightStore(tmp_path)
    [ref] = store.put([random(11)])
    path = tmp_path / ref.segment
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StoreError, match="delete"):
        store.borrow(ref)
    assert store.index() == {}
    path.unlink()
    with pytest.raises(StoreError, match="have them made again"):
        store.borrow(ref)


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_bytes_are_a_segment_or_a_store_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data)
    try:
        read_header(path)
    except StoreError as error:
        assert str(path) in str(error)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    store = WeightStore(tmp_path)

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device; free some space"):
        store.put([random(12)])
    assert list(tmp_path.iterdir()) == []


def test_a_dtype_that_no_segment_holds_is_refused():
    with pytest.raises(TypeError, match="complex64"):
        digest_of(np.zeros(3, np.complex64))
