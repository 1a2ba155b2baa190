"""Networks: from a PyG model to segments and aggregations, and the kernels of the latter."""
