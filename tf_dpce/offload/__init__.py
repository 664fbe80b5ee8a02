"""Training where TensorFlow is not: a bundle goes there, is fitted in pure Keras, and comes back.

`pack` makes the bundle of prepared data and `unpack` makes a run of it, both with TensorFlow.
`bundle`, `batches` and `fit` import Keras, NumPy and Pillow alone.
"""

from __future__ import annotations
