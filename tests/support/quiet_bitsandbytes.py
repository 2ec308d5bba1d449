"""Loads bitsandbytes, which says on stderr what the machine lacks, without a word."""

import contextlib
import io

with contextlib.redirect_stderr(io.StringIO()):
    import bitsandbytes  # noqa: F401 - loaded for who comes after
