"""Error feedback: what rounding lost is added to the next gradient, so that nothing is lost for good.

    feedback = ErrorFeedback(parse_codec("float4-e3m0"))
    blob = feedback.encode(gradient)

After Seide et al., 1-bit stochastic gradient descent (Interspeech 2014).
"""

from __future__ import annotations

import numpy as np

from edgeward.wire.codecs.base import Array, Codec

__all__ = ["ErrorFeedback"]


class ErrorFeedback:
    """One stream of arrays through one codec. The residual is dropped when shape or type change, or by `reset`."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.residual: Array | None = None

    def encode(self, array: Array) -> bytes:
        """The array plus the last residual as a blob."""
        last = self.residual
        same = last is not None and last.shape == array.shape and last.dtype == array.dtype
        wanted = array + last if same and last is not None else array
        blob = self.codec.encode(wanted)
        # What is not finite would poison every later gradient.
        finite = array.dtype.kind == "f" and bool(np.isfinite(wanted).all())
        self.residual = wanted - self.codec.decode(blob, max(wanted.nbytes, 1)) if finite else None
        return blob

    def reset(self) -> None:
        """Forget the residual, as at the end of a term or when the network changed."""
        self.residual = None
