"""Edgeward makes deep models fit the devices you have and keeps them accurate on live cameras.

    from edgeward import Box, load_config
    with Box(load_config(None)) as box:
        box.run(seconds=10)
        print(box.report().throughput_fps)

The names used most are offered here; everything else is reached through its package.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeward.errors import EdgewardError
    from edgeward.fleet.file import load_fleet
    from edgeward.graph.chain import cut
    from edgeward.plan.planner import Planner
    from edgeward.profile.file import load_profile
    from edgeward.serve.box import Box
    from edgeward.serve.config import BoxConfig
    from edgeward.serve.configfile import load_config
    from edgeward.vision.frames import Frame
    from edgeward.vision.results import Classification, Detections, Embedding
    from edgeward.vision.sources import open_source
    from edgeward.weights.store import WeightStore

__all__ = [
    "Box",
    "BoxConfig",
    "Classification",
    "Detections",
    "EdgewardError",
    "Embedding",
    "Frame",
    "Planner",
    "WeightStore",
    "__version__",
    "cut",
    "load_config",
    "load_fleet",
    "load_profile",
    "open_source",
]

__version__ = "0.1.0"

# Edgeward sends nothing home, and its runtime must not either: since 1.29 ONNX Runtime's official builds
# keep a device identifier and upload usage unless this is set before they are first imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Box": "edgeward.serve.box",
    "BoxConfig": "edgeward.serve.config",
    "Classification": "edgeward.vision.results",
    "Detections": "edgeward.vision.results",
    "EdgewardError": "edgeward.errors",
    "Embedding": "edgeward.vision.results",
    "Frame": "edgeward.vision.frames",
    "Planner": "edgeward.plan.planner",
    "WeightStore": "edgeward.weights.store",
    "cut": "edgeward.graph.chain",
    "load_config": "edgeward.serve.configfile",
    "load_fleet": "edgeward.fleet.file",
    "load_profile": "edgeward.profile.file",
    "open_source": "edgeward.vision.sources",
}


def __getattr__(name: str) -> Any:
    """Import a name's home when it is first asked for: `import edgeward` itself stays quick."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'edgeward' has no attribute {name!r}")
