"""Changing the variant under load: nobody waits for ever, nobody is dropped, every answer is some variant's whole answer."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from slimnets import family, plain, save_onnx, slim
from torch import nn

from edgeward.errors import ModelError, PruneError
from edgeward.prune.reload import Reload, ReloadSession
from edgeward.prune.stores import Borrowed, Opened, Resident, VariantStore
from edgeward.prune.superset import Superset
from edgeward.prune.switch import Switcher, open_store
from edgeward.weights.handover import Handover
from edgeward.weights.store import WeightStore

EXAMPLE = np.zeros((1, 3, 8, 8), np.float32)
KINDS = ("resident", "borrowed", "superset", "torch.load", "safetensors", "load_state_dict", "session")


@pytest.fixture(scope="module")
def nets():
    return family()


@pytest.fixture(scope="module")
def files(nets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    return {name: save_onnx(net, folder / f"{name}.onnx") for name, net in nets.items()}


@pytest.fixture
def make(nets, files, tmp_path):
    def store(kind):
        match kind:
            case "resident" | "borrowed":
                return open_store(kind, files, tmp_path / "cache")
            case "superset":
                return open_store(kind, nets)
            case "session":
                return ReloadSession(files)
        factories = {name: (lambda name=name: plain(int(name[1:]))) for name in nets}
        paths = {name: tmp_path / f"{name}.{kind}" for name in nets}
        for name, net in nets.items():
            (save_file if kind == "safetensors" else torch.save)(net.state_dict(), paths[name])
        return Reload(factories, paths, kind)

    return store


def batch(seed, n=2):
    return np.random.default_rng(seed).normal(size=(n, 3, 8, 8)).astype(np.float32)


def whole(net, pictures):
    with torch.no_grad():
        return net(torch.from_numpy(pictures)).numpy()


def weights(net):
    return sum(t.nbytes for t in [*net.parameters(), *net.buffers()])


@pytest.mark.parametrize("kind", KINDS)
def test_every_store_answers_as_the_network_itself_before_and_after_each_change(kind, make, nets):
    with Switcher(make(kind), "w12", EXAMPLE) as switcher:
        for step, name in enumerate(("w4", "w12", "w8", "w8", "w4")):
            switched = switcher.switch(name)
            assert (switched.name, switcher.active) == (name, name)
            assert switched.seconds == switched.opening + switched.warming >= 0
            pictures = batch(step, n=1 + step)  # batch sizes change: nothing may be remembered by shape
            np.testing.assert_allclose(switcher.run(pictures)[0], whole(nets[name], pictures), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_request_is_dropped_or_half_loaded_while_variants_change(kind, make, nets):
    pictures = batch(1, n=1)
    answers = {name: whole(net, pictures) for name, net in nets.items()}
    seen: list[np.ndarray] = []
    failures: list[Exception] = []
    done = threading.Event()

    def ask():
        while not done.is_set():
            try:
                seen.append(switcher.run(pictures)[0])
            except Exception as error:
                failures.append(error)
                return

    with Switcher(make(kind), "w12", EXAMPLE) as switcher:
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for round_ in range(30):
                name = ("w4", "w8", "w12")[round_ % 3]
                switcher.switch(name)
                mine = switcher.run(pictures)[0]  # who comes after a change is answered by the new one
                np.testing.assert_allclose(mine, answers[name], atol=1e-5)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert not failures
    assert len(seen) > 30
    matches = [[np.allclose(one, answer, atol=1e-5) for answer in answers.values()] for one in seen]
    assert all(sum(match) == 1 for match in matches)


def test_bytes_are_counted_exactly(make, nets):
    own = {name: weights(net) for name, net in nets.items()}
    with Switcher(make("superset"), "w12", EXAMPLE) as switcher:
        # Each variant keeps its one-axis tensors, except those that are the largest one's leading slices.
        apart = 0
        wide = dict([*nets["w12"].named_parameters(), *nets["w12"].named_buffers()])
        for name in ("w8", "w4"):
            for path, tensor in [*nets[name].named_parameters(), *nets[name].named_buffers()]:
                leading = wide[path][tuple(slice(size) for size in tensor.shape)]
                apart += 0 if torch.equal(leading, tensor) else tensor.nbytes
        assert switcher.resident_bytes() == own["w12"] + apart < sum(own.values())
    with Switcher(make("torch.load"), "w12", EXAMPLE) as switcher:
        assert switcher.resident_bytes() == own["w12"]
        switcher.switch("w4")
        assert switcher.resident_bytes() == own["w4"]
    assert switcher.resident_bytes() == 0


def test_only_the_active_variant_holds_borrowed_weights(make):
    resident = make("resident").resident_bytes()
    with Switcher(make("borrowed"), "w12", EXAMPLE) as switcher:
        large = switcher.resident_bytes()
        switcher.switch("w4")
        small = switcher.resident_bytes()
        assert 0 < small < large < resident
        switcher.switch("w12")
        assert switcher.resident_bytes() == large
    assert switcher.resident_bytes() == 0


def test_views_share_the_memory_of_the_largest(nets):
    store = Superset.build(nets)
    starts = {store.open(name).module[0].weight.data_ptr() for name in store.names}
    assert len(starts) == 1
    assert starts != {nets["w12"][0].weight.data_ptr()}  # of a copy: training the original changes nothing here
    assert torch.equal(store.open("w4").module[3].weight, nets["w4"][3].weight)


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self, width):
            super().__init__()
            torch.manual_seed(0)
            self.a = nn.Linear(width, width, bias=False)
            self.b = self.a

        def forward(self, x):
            return self.b(self.a(x))

    module = Superset.build({"one": Tied(4)}).open("one").module
    assert module.a.weight is module.b.weight


def test_a_variant_that_is_no_slice_is_named_with_its_first_tensor(nets):
    other = slim(nets["w12"], 6)
    with torch.no_grad():
        other[3].weight[5, 2, 1, 0] += 1
    with pytest.raises(PruneError, match=r"'w6' is no slice of 'w12': 3\.weight differs .* first at \[5, 2, 1, 0\]"):
        Superset.build({**nets, "w6": other})
    wider = slim(nets["w12"], 6)
    wider[8] = nn.Linear(48, 7)
    with pytest.raises(PruneError, match=r"8\.weight has shape \[7, 48\].* there \[5, 96\]"):
        Superset.build({"w12": nets["w12"], "wider": wider})
    moved = nn.Sequential(nn.Identity(), *slim(nets["w12"], 4))
    with pytest.raises(PruneError, match=r"1\.weight has shape \[4, 3, 3, 3\].* there \[12\]"):
        Superset.build({"w12": nets["w12"], "moved": moved})


class Slow(VariantStore, Opened):
    """One variant of two names that takes as long as it is told, or fails, to see what happens meanwhile."""

    names = ("a", "b")

    def __init__(self):
        self.closed = 0
        self.hold = threading.Event()
        self.inside = threading.Event()
        self.fail_open = self.fail_run = False

    def open(self, name):
        if self.fail_open:
            raise ModelError("damaged")
        return self

    def resident_bytes(self):
        return 1

    def run(self, inputs):
        if self.fail_run:
            raise ModelError("cannot run")
        if inputs.any():
            self.inside.set()
            assert self.hold.wait(10)
        return [inputs]

    def close(self):
        self.closed += 1


def test_a_request_under_way_finishes_on_the_old_variant_which_is_closed_only_then():
    store = Slow()
    switcher = Switcher(store, "a", EXAMPLE)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(switcher.run(EXAMPLE + 1)))
    asking.start()
    assert store.inside.wait(5)
    changing = threading.Thread(target=switcher.switch, args=("b",))
    changing.start()
    end = time.monotonic() + 5
    while switcher.active != "b" and time.monotonic() < end:
        time.sleep(0.001)
    assert switcher.run(EXAMPLE)[0] is EXAMPLE  # new requests do not wait for the old one
    assert store.closed == 0
    store.hold.set()
    changing.join(5)
    asking.join(5)
    assert (store.closed, len(answers)) == (1, 1)


@pytest.mark.parametrize("fault", ["fail_open", "fail_run"])
def test_a_change_that_fails_leaves_the_old_variant_serving(fault):
    store = Slow()
    switcher = Switcher(store, "a", EXAMPLE)
    setattr(store, fault, True)
    with pytest.raises(ModelError):
        switcher.switch("b")
    store.fail_run = False
    assert switcher.active == "a"
    assert switcher.run(EXAMPLE)[0] is EXAMPLE
    assert store.closed == (1 if fault == "fail_run" else 0)


def test_replacing_waits_for_every_user():
    serving = Handover("old")
    with serving.using() as first, serving.using() as second:
        old = serving.replace("new")
        assert (first, second, old.users) == ("old", "old", 2)
        with serving.using() as third:
            assert third == "new"
    assert old.drained() == "old"
    assert serving.replace("newer").drained() == "new"


def test_mistakes_are_named(make, nets, files, tmp_path):
    switcher = Switcher(make("resident"), "w12", EXAMPLE)
    with pytest.raises(PruneError, match="did you mean 'w12'"):
        switcher.switch("w122")
    with pytest.raises(ModelError, match="inference failed"):
        switcher.run(np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(ModelError, match="inference failed"):
        Switcher(make("superset"), "w12", np.zeros((1, 4, 8, 8), np.float32))
    switcher.close()
    with pytest.raises(PruneError, match="closed"):
        switcher.run(EXAMPLE)
    with pytest.raises(PruneError, match="at least one"):
        open_store("resident", {})
    with pytest.raises(PruneError, match="takes torch modules"):
        open_store("superset", files)
    with pytest.raises(PruneError, match="takes paths"):
        open_store("borrowed", nets, tmp_path)
    with pytest.raises(PruneError, match="'cache'"):
        open_store("borrowed", files)
    with pytest.raises(PruneError, match="known: borrowed, resident, superset"):
        open_store("lent", files)


def test_damaged_files_are_named(nets, files, tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(b"no weights")
    for how in ("torch.load", "safetensors"):
        with pytest.raises(ModelError, match="broken"):
            Reload({"x": lambda: plain(4)}, {"x": broken}, how).open("x")
    with pytest.raises(ModelError, match="broken"):
        Resident({"x": broken})
    with pytest.raises(ModelError, match="broken"):
        Borrowed({"x": broken}, WeightStore(tmp_path / "cache"))
    torch.save(nets["w4"].state_dict(), tmp_path / "w4.pt")
    with pytest.raises(ModelError, match="does not fit variant 'x'"):
        Reload({"x": lambda: plain(8)}, {"x": tmp_path / "w4.pt"}, "torch.load").open("x")
