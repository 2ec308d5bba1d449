"""Signatures in OpenSSF's model signing format (OMS) with a local key; no network, ever.

A signature covers every file of a folder by name and SHA-256, but two by rule: `model.sig`, which
is the signature, and `manifest.json`, which is the store's own note about an object and differs
from machine to machine. Both only at the top of the folder.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import GateRefusedError, UserError
from registry.extras import require_extra
from registry.store.filenames import MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

SIGNATURE = "model.sig"
NOT_SIGNED = (SIGNATURE, MANIFEST)
"""Names at the top of a folder that no signature covers."""

_PRIVATE, _PUBLIC = "gapmend-signing.key", "gapmend-signing.pub"
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_LARGEST_SIGNATURE = 64 * 2**20  # bytes; one line a file


@dataclass(frozen=True)
class KeyPair:
    """Where a new pair of keys lies: keep the private one, hand out the public one."""

    private: Path
    public: Path


@dataclass(frozen=True)
class SignatureFacts:
    """A signature that holds.

    Attributes:
        files: name -> SHA-256 of each file that it covers, in order of name.
        ignored: names that are there and are, by rule, not covered.
        key: SHA-256 of the public key.
    """

    files: dict[str, str]
    ignored: tuple[str, ...]
    key: str


def make_key(folder: Path) -> KeyPair:
    """Make a pair of keys (EC, P-256) in `folder`, the private one readable by its owner alone.

    Raises:
        UserError: there are keys already; none is ever overwritten. Or the extra is missing.
    """
    require_extra("signing")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pair = KeyPair(folder / _PRIVATE, folder / _PUBLIC)
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    for path, content, mode in (
        (pair.private, secret, 0o600),
        (pair.public, _pem(key.public_key()), 0o644),
    ):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise UserError(
                "there is a key already", str(path), fix="use it, or name another folder"
            ) from None
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return pair


def key_id(key: Path) -> str:
    """Return the SHA-256 of a public key, or of a private key's public one.

    Raises:
        UserError: no such file, or no key on a curve that OMS takes. Or the extra is missing.
    """
    require_extra("signing")
    return hashlib.sha256(_pem(_public_of(key))).hexdigest()


def sign(folder: Path, key: Path, signature: Path) -> SignatureFacts:
    """Sign all files of `folder` with a private key and write the signature to a file.

    Raises:
        UserError: the key can't be used, the folder is empty, or holds a link. Or the extra is
            missing.
    """
    require_extra("signing")
    _refuse_links(folder)
    _private_key(key)
    if not _files(folder):
        raise UserError("no files to sign", str(folder))
    from model_signing import signing

    config = signing.Config().use_elliptic_key_signer(private_key=key)
    draft = signature.with_name(f".{signature.name}.{os.getpid()}")
    try:
        config.set_hashing_config(_hashing()).sign(folder, draft)
        draft.replace(signature)
    finally:
        draft.unlink(missing_ok=True)
    return SignatureFacts(_covered(signature), _left_out(folder), key_id(key))


def verify(folder: Path, signature: Path, public_key: Path) -> SignatureFacts:
    """Check that `folder` is, file by file, what was signed by the owner of a key.

    Raises:
        UserError: key or signature can't be read, or the folder holds a link. Or the extra is
            missing.
        GateRefusedError: another key signed it, or files are changed, added or missing; named.
    """
    require_extra("signing")
    public = _public_of(public_key)
    _check_form(signature)
    _refuse_links(folder)
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    config.set_hashing_config(_hashing())
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its advice about older signatures
            config.verify(folder, signature)
    except InvalidSignature:
        message = f"{signature}: the signature is not by this key, or was changed"
        raise GateRefusedError(message) from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _refusal(folder, signature, error) from error
    covered = _covered(signature)
    if covered.keys() != _files(folder).keys():  # by rule, a signature covers all but two names
        raise _refusal(folder, signature, ValueError("Signature mismatch"))
    return SignatureFacts(covered, _left_out(folder), hashlib.sha256(_pem(public)).hexdigest())


def _hashing() -> Any:
    from model_signing import hashing

    # Git's files are files: what lies in a folder unsigned could be put there by anyone.
    return hashing.Config().set_ignored_paths(paths=NOT_SIGNED, ignore_git_paths=False)


def _refusal(folder: Path, signature: Path, error: Exception) -> GateRefusedError | UserError:
    """Return the one line for what the library refused."""
    said = str(error)
    if "Key mismatch" in said:
        return GateRefusedError(f"{signature}: signed with another key")
    if "Signature mismatch" not in said:
        return _malformed(signature, said.splitlines()[0] if said else type(error).__name__)
    wanted, found = _covered(signature), _files(folder)
    changed = [n for n in wanted if n in found and _sha256(found[n]) != wanted[n]]
    parts = [
        f"{what}: {', '.join(names[:3])}"
        + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004
        for what, names in (
            ("changed", changed),
            ("missing", sorted(wanted.keys() - found.keys())),
            ("not signed", sorted(found.keys() - wanted.keys())),
        )
        if names
    ]
    return GateRefusedError(f"{folder} is not what was signed; {'; '.join(parts) or 'it differs'}")


def _check_form(signature: Path) -> None:
    """Refuse a signature file that isn't of the format, before the library reads it."""
    try:
        if signature.stat().st_size > _LARGEST_SIGNATURE:
            raise _malformed(signature, "too large")
        _covered(signature)
    except FileNotFoundError:
        raise UserError("no signature here", str(signature), expected=SIGNATURE) from None


def _covered(signature: Path) -> dict[str, str]:
    """Return name -> SHA-256 of the files that a signature names; says nothing of its truth."""
    try:
        bundle = json.loads(signature.read_text(encoding="utf-8"))
        payload = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True))
        predicate = payload["predicate"]
        if predicate["serialization"]["hash_type"] != "sha256":
            raise _malformed(signature, "its hashes are no SHA-256")
        listed = {str(one["name"]): str(one["digest"]) for one in predicate["resources"]}
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise _malformed(signature, f"{type(error).__name__}: {error}") from error
    return dict(sorted(listed.items()))


def _malformed(signature: Path, why: str) -> UserError:
    return UserError(f"not a signature ({why})", str(signature), "an OMS bundle (sigstore JSON)")


def _files(folder: Path) -> dict[str, Path]:
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path for name, path in found.items() if name not in NOT_SIGNED}


def _left_out(folder: Path) -> tuple[str, ...]:
    return tuple(name for name in NOT_SIGNED if (folder / name).is_file())


def _refuse_links(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError("no such folder", str(folder))
    link = next((path for path in folder.rglob("*") if path.is_symlink()), None)
    if link is not None:
        raise UserError(
            "a link can't be signed: what it points at may change",
            str(link),
            fix="put the file itself there",
        )


def _sha256(path: Path) -> str:
    from registry.store.hashing import file_digest

    return file_digest(path)


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _public_of(path: Path) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives import serialization

    content = _read_key(path)
    if b"PRIVATE KEY" in content:
        return _private_key(path).public_key()
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, TypeError) as error:
        raise _no_key(path) from error
    return _on_a_curve(key, path)


def _private_key(path: Path) -> Any:
    from cryptography.hazmat.primitives import serialization

    try:
        key: Any = serialization.load_pem_private_key(_read_key(path), password=None)
    except TypeError as error:
        raise UserError("this key is locked with a password", str(path)) from error
    except ValueError as error:
        raise _no_key(path) from error
    _on_a_curve(key.public_key(), path)
    return key


def _on_a_curve(key: Any, path: Path) -> EllipticCurvePublicKey:
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve not in _CURVES:
        raise UserError(
            f"this key is of no curve that signs models ({curve or type(key).__name__})",
            str(path),
            "an EC key on P-256, P-384 or P-521",
        )
    return key


def _read_key(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(
            "no key here", str(path), fix="make one: gapmend sign --new-key keys"
        ) from None


def _no_key(path: Path) -> UserError:
    return UserError("not a key", str(path), "a PEM file with an EC key")
