"""Smaller networks: saliency, masks, structured surgery, and portfolios of variants."""
