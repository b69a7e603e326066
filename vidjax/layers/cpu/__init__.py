"""Lowerings for XLA's CPU backend, each equal to the operation in `vidjax.layers` that it replaces.

XLA's CPU code for 3D convolutions, depthwise convolutions, attention over many heads and the gradient of max
pooling is several times slower than the forms in this package. `vidjax.layers.lowering` selects them.
"""
