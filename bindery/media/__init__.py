"""Media: a file becomes plain arrays at its own size and rate.

May import PyAV, Pillow, soundfile, tifffile, OpenEXR and the small types of the core; never specs of models, never
`bindery.prepare`. Every function here is safe on hostile bytes: limits are checked from headers, before allocation.
"""
