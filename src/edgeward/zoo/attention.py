"""Multi-head attention narrower inside than outside, which torch's own module cannot be.

    slim = SlimAttention(dense)          # of an nn.MultiheadAttention whose tensors and sizes were cut
    slim(x, x, x)[0]

It takes the place of nn.MultiheadAttention in a pruned network, also inside nn.TransformerEncoderLayer, with the
same arguments and the same names of tensors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["SlimAttention"]


class SlimAttention(nn.MultiheadAttention):
    """As nn.MultiheadAttention, with as many heads as `num_heads` says and their width as the weights say.

    in_proj_weight is [3 x heads x head width, embed_dim], out_proj.weight [embed_dim, heads x head width]. The tensors
    are those of the module it is made of, not copies.
    """

    def __init__(self, dense: nn.MultiheadAttention) -> None:
        nn.Module.__init__(self)
        self.__dict__.update({name: value for name, value in vars(dense).items() if not name.startswith("_")})
        self.in_proj_weight, self.in_proj_bias = dense.in_proj_weight, dense.in_proj_bias
        self.out_proj = dense.out_proj
        self._qkv_same_embed_dim = False  # else nn.TransformerEncoderLayer runs its fused kernel instead of this
        self.training = dense.training

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention.forward: [tokens, n, width], or [n, tokens, width] when batch_first."""
        batched = query.dim() == 3
        given = [one if batched else one.unsqueeze(1) for one in (query, key, value)]
        if self.batch_first and batched:
            given = [one.transpose(0, 1) for one in given]
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (self._heads(*three) for three in zip(given, weights, biases, strict=True))
        mask = self._mask(q, key_padding_mask, attn_mask)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        shares = functional.dropout(
            (scores if mask is None else scores + mask).softmax(-1), self.dropout, self.training
        )
        mixed = (shares @ v).permute(2, 0, 1, 3).flatten(2)
        out = functional.linear(mixed, self.out_proj.weight, self.out_proj.bias)
        if not batched:
            out = out.squeeze(1)
        elif self.batch_first:
            out = out.transpose(0, 1)
        if not need_weights:
            return out, None
        shown = shares.mean(1) if average_attn_weights else shares
        return out, shown if batched else shown.squeeze(0)

    def _heads(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[tokens, n, width] to [n, heads, tokens, head width]."""
        projected = functional.linear(x, weight, bias)
        return projected.reshape(*projected.shape[:2], self.num_heads, -1).permute(1, 2, 0, 3)

    def _mask(self, q: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Both masks as what is added to the scores, broadcast to [n, heads, tokens, tokens]."""
        total: Tensor | None = None
        if mask is not None:
            total = _added(mask, q.dtype)
            if total.dim() == 3:  # [n x dense heads, ...] would have to be cut; equal masks for all heads are not
                total = total.reshape(q.shape[0], -1, *total.shape[1:])[:, : self.num_heads]
        if padding is not None:
            hidden = _added(padding, q.dtype).reshape(q.shape[0], 1, 1, -1)
            total = hidden if total is None else total + hidden
        return total


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)
    return mask.to(dtype)
