"""ScissionLite's published answers, through the planner that chooses cuts and packings together."""

from __future__ import annotations

import pytest
import split_golden

from edgeward.plan.constraints import Constraints
from edgeward.plan.planner import Planner


def test_the_five_published_rows_come_out_to_four_decimals(shared_data):
    for ours, theirs in split_golden.answers(shared_data):
        assert ours == theirs


def test_with_and_without_transfer_layer_and_the_row_that_embarrasses_both(shared_data):
    wanted = split_golden.read(shared_data, "expected")["comparison"]["tx2_gpu_to_ampere"]
    planner = Planner(split_golden.profile(shared_data), split_golden.fleet(shared_data))

    def best(*texts):
        return planner.best(constraints=Constraints.parse(*texts), top=1)[0].latency

    split = ("block 0 on tx2_gpu", "use ampere", "avoid titan_cpu")
    assert best(*split, "packing identity") == pytest.approx(wanted["best_without_tl_seconds"], abs=1e-6)
    assert best(*split, "any accuracy") == pytest.approx(wanted["best_with_tl_seconds"], abs=1e-6)
    assert best("avoid ampere", "avoid titan_cpu") == pytest.approx(wanted["device_only_seconds"], abs=1e-6)
    plain = best("avoid tx2_gpu", "avoid titan_cpu")
    assert plain == pytest.approx(wanted["edge_only_with_input_upload_seconds"], abs=1e-6)
    assert plain < best(*split, "any accuracy")  # sending the picture itself wins: the layer's best cut is a raw image


@pytest.mark.parametrize(
    ("rate", "without", "layer"),
    [(2, 0.4432, 0.6552), (5, 0.4269, 0.3587), (14, 0.4199, 0.1953), (30, 0.2729, 0.1469), (200, 0.1290, 0.1109)],
)
def test_the_gain_peaks_and_falls_when_each_side_has_its_best_cut(shared_data, rate, without, layer):
    planner = Planner(split_golden.profile(shared_data), split_golden.fleet(shared_data))
    thinner = planner.with_link("tx2_gpu", "ampere", bandwidth=1e6 * rate)
    split = ("block 0 on tx2_gpu", "use ampere", "avoid titan_cpu", "no revisit")
    for packing, seconds in (("identity", without), (split_golden.LAYER, layer)):
        rules = Constraints.parse(*split, f"packing {packing}", "any accuracy")
        assert thinner.best(constraints=rules, top=1)[0].latency == pytest.approx(seconds, abs=6e-5)
