"""Tensors → unit vectors. The only room that imports onnxruntime; it knows bundles, not files and not HTTP."""
