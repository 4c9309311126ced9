"""Fleet files: what is read, and that every mistake is one line that names it."""

from __future__ import annotations

import pytest

from edgeward.errors import ConfigError
from edgeward.fleet.file import MAX_BYTES, load_fleet

GOOD = """
name = "lab"
source = "pi"
[[device]]
name = "pi"
tier = "device"
compute = "25 %"
memory = "512 MiB"
power = 3.5
backend = "torch"
[[device]]
name = "box"
tier = "cloud"
threads = 2
count = 3
address = "10.0.0.2:7000"
[[link]]
between = ["pi", "box"]
bandwidth = "20 Mbit/s"
latency = "45 ms"
trace = "bus.txt"
[[zone]]
name = "home"
devices = ["pi"]
"""


@pytest.fixture
def write(tmp_path):
    def writing(text):
        path = tmp_path / "fleet.toml"
        path.write_text(text)
        return path

    return writing


def test_a_file_becomes_a_fleet(write, tmp_path):
    fleet = load_fleet(write(GOOD))
    assert (fleet.name, fleet.source) == ("lab", "pi")
    assert fleet.device("pi").compute == 0.25
    assert fleet.device("pi").memory == 512 << 20
    assert fleet.device("box").count == 3
    assert fleet.link("box", "pi").seconds(0) == 0.045
    assert fleet.links[0].trace == tmp_path / "bus.txt"
    assert fleet.zones[0].private


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "lab"', "name = lab", "not TOML"),
        ('name = "lab"', 'nmae = "lab"', "nmae: unknown key; did you mean 'name'"),
        ("power = 3.5", "pover = 3.5", "device 1, pover: unknown key; did you mean 'power'"),
        ("power = 3.5", "power = -1", r"device 1, power: .*greater than or equal to 0 \(given: -1\)"),
        ('compute = "25 %"', 'compute = "quarter"', "device 1, compute: 'quarter' is not a share; write it like"),
        ('compute = "25 %"', "compute = 0", r"compute: .*greater than 0 \(given: 0\)"),
        ('memory = "512 MiB"', 'memory = "lots"', "device 1, memory: 'lots' is not a size; write it like"),
        ("20 Mbit/s", "0 Mbit/s", "link 1, bandwidth: .*greater than 0 .given: '0 Mbit/s'"),
        ("20 Mbit/s", "20 MHz", "link 1, bandwidth: '20 MHz' is not a rate"),
        ('between = ["pi", "box"]', 'between = ["pi"]', "link 1, between"),
        ('between = ["pi", "box"]', 'between = ["pi", "bux"]', "did you mean 'box'"),
        ('tier = "cloud"', 'tier = "sky"', "device 2, tier: .*'device', 'edge' or 'cloud'.*given: 'sky'"),
        ('tier = "cloud"', "", "device 2, tier: this is required"),
        ('backend = "torch"', 'backend = "tf"', "device 1, backend: .*'torch' or 'onnxruntime'"),
        ("threads = 2", "threads = 1.5", "device 2, threads"),
        ("count = 3", "count = 0", "device 2, count"),
        ('source = "pi"', 'source = "moon"', "'source' names device 'moon'"),
        ('source = "pi"', 'source = "pi"\nzone = 3', "not TOML|zone: write each one as a table"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(write, old, new, says):
    assert old in GOOD
    with pytest.raises(ConfigError, match=says) as caught:
        load_fleet(write(GOOD.replace(old, new, 1)))
    assert "fleet.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at least one is required"),
        ('device = "pi"', r"device: write each one as a table that begins with \[\[device\]\]"),
        ("x = " + "[" * 100_000, "nested too deeply|not TOML"),
        ("#" * (MAX_BYTES + 1), f"at most {MAX_BYTES}"),
    ],
)
def test_files_that_are_no_fleet(write, text, says):
    with pytest.raises(ConfigError, match=says):
        load_fleet(write(text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*missing\.toml"):
        load_fleet(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "caf\xe9"')
    with pytest.raises(ConfigError, match="byte 11 is not UTF-8"):
        load_fleet(tmp_path / "latin.toml")
