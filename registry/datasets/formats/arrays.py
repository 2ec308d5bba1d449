"""The kinds of NumPy arrays that rows are kept in as columns; imported for type checking alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
Int32Array = NDArray[np.int32]
Uint8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
HashArray = NDArray[np.uint64]
"""Row hashes: [n, 4], the first number decides the order."""
KeyArray = NDArray[np.uint64]
"""MinHash keys: [bands, n]."""
