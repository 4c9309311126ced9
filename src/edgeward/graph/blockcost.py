"""What a block costs wherever it runs.

BlockCost(name="layer1.0", output_bytes=802_816, parameters=1_000, macs=12_000_000)
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["BlockCost"]


class BlockCost(BaseModel):
    """Costs of one block for the example that was traced, in bytes and multiply-accumulates.

    name: module path of its last layer. output_bytes: what a cut after it ships, in `output_tensors` tensors.
    parameter_bytes: its weights. saved_bytes: kept for the backward pass. peak_bytes: most activations alive at once.
    reveals_input: whether the input can still be read off its output, as no trainable layer followed by a
    non-linear one has been passed. layers: first and last number of a published table's own layer count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    output_bytes: int = Field(ge=0)
    output_tensors: int = Field(default=1, ge=1)
    parameters: int = Field(default=0, ge=0)
    parameter_bytes: int = Field(default=0, ge=0)
    macs: int = Field(default=0, ge=0)
    saved_bytes: int = Field(default=0, ge=0)
    peak_bytes: int = Field(default=0, ge=0)
    reveals_input: bool = False
    layers: tuple[int, int] | None = None
