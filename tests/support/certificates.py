"""An authority of our own, and a server's certificate by it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """`authority` is a file for SSL_CERT_FILE; `server` is for a server on localhost."""

    authority: Path
    server: ssl.SSLContext
    of_another_host: ssl.SSLContext


def make_certificates(folder: Path) -> Certificates:
    """Fresh ones."""
    authority = trustme.CA()
    file = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return Certificates(file, _context(authority, "localhost"), _context(authority, "elsewhere.example"))


def _context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context
