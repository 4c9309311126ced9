"""What makes two layers interchangeable in form: their signature.

    layers(build("vgg16"))["classifier.0"]       # Signature(kind="Linear", inputs=25088, outputs=4096, ...)

Layers of equal signature take and give tensors of the same shapes and compute the same function of input, weight and
bias, so that one copy of the weights can serve both (Padmanabhan et al., "Gemel", NSDI 2023). Stride, padding and
dilation belong to it: the same weights under another stride are another function.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

from torch import nn

__all__ = ["Signature", "layers"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Signature:
    """Form of a layer. bias: whether it has one that is shared with the weight; None: a bias stays private.

    kind: the layer's class. dtype: of the weight. itemsize: bytes of one weight. The tuples are empty for Linear.
    """

    kind: str
    inputs: int
    outputs: int
    bias: bool | None
    dtype: str = "float32"
    itemsize: int = 4
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] | str = ()
    padding_mode: str = ""
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the parameters that are shared."""
        return ("weight", "bias") if self.bias else ("weight",)

    @property
    def bytes(self) -> int:
        """Bytes of what is shared."""
        weights = self.outputs * (self.inputs // self.groups) * prod(self.kernel)
        return (weights + (self.outputs if self.bias else 0)) * self.itemsize

    def __str__(self) -> str:
        shape = f"{self.kind} {self.inputs}->{self.outputs}"
        if not self.kernel:
            return shape
        extent = "x".join(map(str, self.kernel))
        step = f"/{self.stride[0]}" if set(self.stride) != {1} else ""
        return f"{shape} {extent}{step}" + (f" in {self.groups} groups" if self.groups > 1 else "")


def layers(module: nn.Module, *, private_bias: bool = False) -> dict[str, Signature]:
    """Signatures of the layers that could be shared, by path, in the order the model registers them.

    These are convolutions and linear layers whose weights the model uses nowhere else; normalisation stays private.
    private_bias: share weights only, so that a layer with a bias may pair with one without.
    """
    # A weight that the model itself uses twice (tied embeddings) would be torn from its other place.
    uses = Counter(id(one) for _, one in module.named_parameters(remove_duplicate=False))
    found = {}
    for path, layer in module.named_modules():
        if not isinstance(layer, (*_CONVOLUTIONS, nn.Linear)) or isinstance(layer, nn.modules.lazy.LazyModuleMixin):
            continue
        own = dict(layer.named_parameters(recurse=False))
        if "weight" in own and not any(uses[id(one)] > 1 for one in own.values()):
            found[path] = _signature(layer, private_bias)
    return found


def _signature(layer: nn.Module, private_bias: bool) -> Signature:
    weight, kind = layer.weight, type(layer).__name__
    assert isinstance(weight, nn.Parameter)
    bias = None if private_bias else layer.bias is not None
    dtype, itemsize = str(weight.dtype).removeprefix("torch."), weight.element_size()
    if isinstance(layer, nn.Linear):
        return Signature(kind, layer.in_features, layer.out_features, bias, dtype, itemsize)
    assert isinstance(layer, _CONVOLUTIONS)
    return Signature(
        kind,
        layer.in_channels,
        layer.out_channels,
        bias,
        dtype,
        itemsize,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.padding_mode,
        layer.dilation,
        layer.groups,
    )
