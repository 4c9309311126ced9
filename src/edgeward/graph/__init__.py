"""A network as a chain of blocks: tracing, cut points, costs."""
