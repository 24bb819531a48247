"""Towers and released checkpoints → bundles. Imports torch, onnx, `training.towers`, `training.lora` and `bindery`; never the service."""
