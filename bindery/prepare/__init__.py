"""Prepare: decoded arrays and a spec become tensors.

Pure functions: no I/O (the tokenizer's file apart), no clock, no randomness, no argument changed in place.
May import numpy, soxr, tokenizers and ftfy; never codecs, never the runtime.
"""
