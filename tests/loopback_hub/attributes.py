"""Which files the Hub keeps as large ones (LFS): by name, by size, and binary ones."""

from __future__ import annotations

from fnmatch import fnmatchcase

LARGE = 10_000_000  # bytes: above it a file is large whatever its name
_PATTERNS = (
    "*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack "
    "*.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors "
    "saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*"
)
# What the Hub commits to a new repository.
DEFAULT_ATTRIBUTES = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _PATTERNS.split()
).encode()


def is_large(path: str, size: int, sample: bytes, attributes: str) -> bool:
    """Say whether a file goes to LFS.

    Args:
        path: where it is to stand.
        size: in bytes; an empty file is never large.
        sample: its first 512 bytes; a zero byte among them makes it binary.
        attributes: the text of `.gitattributes`.
    """
    if size == 0:
        return False
    return size > LARGE or b"\0" in sample or _named(path, attributes)


def _named(path: str, attributes: str) -> bool:
    name = path.rpartition("/")[2]
    large = False
    for line in attributes.splitlines():
        pattern, *said = line.split()
        against = path if "/" in pattern else name
        if fnmatchcase(against, pattern.replace("**/*", "*")):
            if "filter=lfs" in said:
                large = True
            elif "-filter" in said or "!filter" in said:
                large = False
    return large
