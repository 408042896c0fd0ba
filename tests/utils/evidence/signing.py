"""Files with Content Credentials, signed by a chain of certificates that is made here."""

from __future__ import annotations

import datetime
import functools
import io
from typing import Any

import c2pa
import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MODEL, COMPOSITE, CAMERA = (
    SOURCE + kind for kind in ("trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia", "digitalCapture")
)


def picture(kind: str = "JPEG", **options: Any) -> bytes:
    """A small picture of noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, kind, **options)
    return held.getvalue()


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(signs, False, False, False, False, not signs, not signs, False, False)


def chain(organisation: str = "Example") -> tuple[bytes, bytes, bytes]:
    """A signer's certificates and key, and the root that a trust list would hold, PEM."""
    return _chain(organisation)


@functools.cache
def _chain(organisation: str) -> tuple[bytes, bytes, bytes]:
    start, end = datetime.datetime(2025, 1, 1), datetime.datetime(2100, 1, 1)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]

    def name(common: str) -> x509.Name:
        parts = ((NameOID.ORGANIZATION_NAME, f"{organisation} Org"), (NameOID.COMMON_NAME, f"{organisation} {common}"))
        return x509.Name([x509.NameAttribute(*part) for part in parts])

    def certificate(common: str, key: Any, *, signs: bool) -> x509.Certificate:
        made = x509.CertificateBuilder().subject_name(name(common)).issuer_name(name("Root"))
        made = made.public_key(key.public_key()).serial_number(x509.random_serial_number())
        made = made.not_valid_before(start).not_valid_after(end)
        made = made.add_extension(x509.BasicConstraints(not signs, None), True).add_extension(_usage(signs=signs), True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        if signs:
            made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
            made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), False)
        return made.sign(keys[0], hashes.SHA256())

    root, leaf = certificate("Root", keys[0], signs=False), certificate("Signer", keys[1], signs=True)
    pem = [each.public_bytes(serialization.Encoding.PEM) for each in (leaf, root)]
    private = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem[0] + pem[1], private, pem[1]


def signed(
    data: bytes, actions: list[dict[str, Any]], mime: str = "image/jpeg", *, edits: bool = False, by: str = "Example"
) -> bytes:
    """The file with credentials that name these actions; one that `edits` names the file itself as its parent."""
    certificates, key, _ = chain(by)
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", certificates, key, None))
    manifest = {
        "claim_generator_info": [{"name": "Example Maker", "version": "1.0"}],
        "title": "example",
        "assertions": [{"label": "c2pa.actions", "data": {"actions": actions}}],
    }
    builder = c2pa.Builder(manifest)
    if edits:
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
    held = io.BytesIO()
    builder.sign(signer, mime, io.BytesIO(data), held)
    return held.getvalue()


def created(source: str, agent: str = "ImageModel") -> list[dict[str, Any]]:
    """The action of a file that was made."""
    return [{"action": "c2pa.created", "softwareAgent": {"name": agent}, "digitalSourceType": source}]
