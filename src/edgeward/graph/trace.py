"""A module's forward pass as a flat graph, in eval and in train mode.

    traced = trace(model, (torch.zeros(1, 3, 224, 224),))
    traced.eval_graph.graph.print_tabular()

Symbolic tracing (torch.fx) comes first: it keeps layers whole, so the graph takes any batch size and follows the
model's own train and eval switches. What it cannot follow (most `transformers` models) is exported (torch.export),
with shapes fixed to the example's. Either way the graph is run once and must repeat the model bit for bit.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from edgeward.errors import TraceError

__all__ = ["Example", "Traced", "restored", "same", "trace"]

_LARGEST_REASON = 200


@dataclass(frozen=True)
class Example:
    """Arguments of one call of a model; tensors, or nested tuples, lists and dicts of them."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    def call(self, model: nn.Module) -> Any:
        """What the model returns for it."""
        return model(*self.args, **dict(self.kwargs or {}))


@dataclass(frozen=True)
class Traced:
    """A forward pass as graphs: one for eval mode, and one for train mode or the reason why there is none.

    Both graphs have the same placeholders (the flat inputs) and one output node that holds a flat tuple;
    `inputs_of` flattens a call's arguments, `output_of` restores what the model itself would return.
    """

    eval_graph: fx.GraphModule
    train_graph: fx.GraphModule | str
    signature: inspect.Signature
    names: tuple[str, ...]
    output_spec: pytree.TreeSpec
    frontend: str

    def inputs_of(self, example: Example) -> tuple[Any, ...]:
        """The flat inputs of a call. Raises TraceError when they are not those that were traced."""
        try:
            bound = self.signature.bind(*example.args, **dict(example.kwargs or {}))
        except TypeError as error:
            raise TraceError(f"these are not the model's arguments: {error}") from error
        given = {name: value for name, value in bound.arguments.items() if value is not None}
        if tuple(given) != self.names:
            raise TraceError(
                f"the chain was traced with {', '.join(self.names)}, not with {', '.join(given)}; cut it anew"
            )
        return tuple(leaf for value in given.values() for leaf in pytree.tree_leaves(value))

    def output_of(self, values: Sequence[Any]) -> Any:
        """The model's own output structure, of the flat output values."""
        return pytree.tree_unflatten(list(values), self.output_spec)


def trace(model: nn.Module, example: Example, leaves: Sequence[str] = ()) -> Traced:
    """The graphs of a model.

    leaves: paths of modules to keep whole, for parts that cannot be traced. Raises TraceError when the example does
    not fit the model, or when no front end can follow it; the message then names the operation and the module.
    """
    with restored(model):
        model.eval()
        try:
            with torch.no_grad():
                expected = example.call(model)
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            shapes = [
                tuple(leaf.shape)
                for leaf in pytree.tree_leaves((example.args, example.kwargs))
                if isinstance(leaf, Tensor)
            ]
            raise TraceError(f"the model does not take an example of shape {shapes}: {_short(error)}") from error
        reasons, where = [], ""
        for frontend in (_symbolic, _exported):
            try:
                traced = frontend(model, example, tuple(leaves))
            except TraceError as error:
                reasons.append(str(error))
                where = where or getattr(error, "where", "")
                continue
            if same(_run(traced, example), expected):
                return traced
            reasons.append(f"{traced.frontend} gave a graph with other outputs (the forward pass depends on values)")
        raise TraceError(
            f"{type(model).__name__} cannot be traced: {'; '.join(reasons)}; keep the module that does this whole: "
            f"CutOptions(leaves=({where or 'path.of.module'!r},)), --leaf {where or 'path.of.module'}"
        )


class _StoppedError(TraceError):
    """Symbolic tracing met something that it cannot follow, in the module at the path `where`."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"torch.fx stops in {where or 'the model itself'}: {reason}")
        self.where = where


class _Tracer(fx.Tracer):
    """Knows where it was when it failed, and keeps the modules it is told to keep."""

    def __init__(self, leaves: tuple[str, ...]) -> None:
        super().__init__()
        self.leaves = leaves
        self.where = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self.leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outer, self.where = self.where, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.where = outer
        return result


def _symbolic(model: nn.Module, example: Example, leaves: tuple[str, ...]) -> Traced:
    for leaf in leaves:
        if leaf not in dict(model.named_modules()):
            raise TraceError(f"there is no module {leaf!r} to keep whole; see model.named_modules()")
    signature = inspect.signature(model.forward)
    bound = signature.bind(*example.args, **dict(example.kwargs or {}))
    given = {name: value for name, value in bound.arguments.items() if value is not None}
    if any(not isinstance(value, Tensor) for value in given.values()):
        raise TraceError("torch.fx follows arguments that are tensors only")
    absent = {name: one.default for name, one in signature.parameters.items() if name not in given}

    def graph(training: bool) -> tuple[fx.GraphModule, pytree.TreeSpec]:
        model.train(training)
        tracer = _Tracer(leaves)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = tracer.trace(model, {k: v for k, v in absent.items() if v is not inspect.Parameter.empty})
        except Exception as error:  # the tracer lets anything through that the traced code raises
            raise _StoppedError(tracer.where, _short(error)) from error
        _drop_absent(found, set(given))
        spec = _flatten_output(found)
        return fx.GraphModule(model, found), spec

    eval_graph, spec = graph(training=False)
    try:
        train_graph: fx.GraphModule | str = graph(training=True)[0]
    except TraceError as error:
        train_graph = str(error)
    if isinstance(train_graph, fx.GraphModule) and train_graph.code == eval_graph.code:
        train_graph = eval_graph
    return Traced(eval_graph, train_graph, signature, tuple(given), spec, "torch.fx")


def _drop_absent(graph: fx.Graph, given: set[str]) -> None:
    """Without the placeholders of arguments that are not passed, and the checks that guard them."""
    for node in reversed(list(graph.nodes)):
        guards = node.op == "call_function" and getattr(node.target, "__name__", "").startswith("_assert")
        if guards or (node.op == "placeholder" and node.name not in given and not node.users):
            graph.erase_node(node)


def _exported(model: nn.Module, example: Example, leaves: tuple[str, ...]) -> Traced:
    if leaves:
        raise TraceError("torch.export keeps no module whole")
    signature = inspect.signature(model.forward)
    bound = signature.bind(*example.args, **dict(example.kwargs or {}))
    names = tuple(name for name, value in bound.arguments.items() if value is not None)

    def graph(training: bool) -> tuple[fx.GraphModule, pytree.TreeSpec]:
        model.train(training)
        try:
            with _quiet():
                program = torch.export.export(model, example.args, dict(example.kwargs or {}), strict=False)
                module = program.module(check_guards=False)
        except Exception as error:  # the exporter's exceptions share no base class
            raise TraceError(f"torch.export stops: {_short(error)}") from error
        assert isinstance(module, fx.GraphModule)
        return _plain(module, model), program.call_spec.out_spec

    eval_graph, spec = graph(training=False)
    try:
        train_graph: fx.GraphModule | str = graph(training=True)[0]
    except TraceError as error:
        train_graph = str(error)
    return Traced(eval_graph, train_graph, signature, names, spec, "torch.export")


def _plain(module: fx.GraphModule, model: nn.Module) -> fx.GraphModule:
    """An exported graph with plain placeholders and a flat output, whose parameters are the model's own objects."""
    graph = module.graph
    graph.set_codegen(fx.graph.CodeGen())
    for node in reversed(list(graph.nodes)):
        if node.op == "call_module" and not node.users:  # the check of its inputs
            graph.erase_node(node)
    own = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    for node in graph.nodes:
        if node.op == "get_attr" and node.target in own:
            *path, name = node.target.split(".")
            parent = module.get_submodule(".".join(path))
            parent._parameters.pop(name, None)
            parent._buffers.pop(name, None)
            setattr(parent, name, own[node.target])
    _flatten_output(graph)
    return fx.GraphModule(module, graph)


def _flatten_output(graph: fx.Graph) -> pytree.TreeSpec:
    """Make the output node hold a flat tuple; how it was nested."""
    output = next(node for node in graph.nodes if node.op == "output")
    leaves, spec = pytree.tree_flatten(fx.node.map_aggregate(output.args[0], lambda value: value))
    output.args = (tuple(leaves),)
    return spec


def _run(traced: Traced, example: Example) -> Any:
    with torch.no_grad():
        return traced.output_of(traced.eval_graph.eval()(*traced.inputs_of(example)))


def same(ours: Any, expected: Any) -> bool:
    """Whether two nested results hold equal values, bit for bit."""
    mine, theirs = pytree.tree_leaves(ours), pytree.tree_leaves(expected)
    return len(mine) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(mine, theirs, strict=True)
    )


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Afterwards the model's modes and buffers, and the random state are as they were."""
    modes = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.detach().clone() for buffer in model.buffers()}
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.fx.experimental.symbolic_shapes")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _short(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LARGEST_REASON else text[:_LARGEST_REASON] + "..."
