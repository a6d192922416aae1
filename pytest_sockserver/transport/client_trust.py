"""What a client must trust to speak TLS with one server: a context for it, or a file to be named to it."""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING, Any

from ..errors.exceptions import InvalidState
from ..errors.location import hide_frame
from ..originals import original

if TYPE_CHECKING:
    import ssl

__tracebackhide__ = hide_frame


class Trust:
    """What the clients of one server trust: the root that signs its certificates.

    Args:
        tls: The server's ``tls=``.
    """

    def __init__(self, tls: Any) -> None:
        self._tls = tls
        self._lock = original.RLock()  # guards the directory
        self._directory: str | None = None

    def client_context(self, name: str, options: dict[str, Any]) -> ssl.SSLContext:
        """Return a client's context."""
        self._check(name, "client_context()")
        from .tls_contexts import client_context

        return client_context(**options)

    def ca_path(self, name: str) -> str:
        """Return the path of a file with the root's certificate, made when first asked for."""
        self._check(name, "ca_path")
        from .certificate_authority import write_ca

        with self._lock:
            if self._directory is None:
                self._directory = tempfile.mkdtemp(prefix="sockserver-ca-")
            return write_ca(self._directory)

    def release(self) -> None:
        """Remove the file."""
        with self._lock:
            directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)

    def _check(self, name: str, what: str) -> None:
        if self._tls is None:
            raise InvalidState(f"{name} has no {what}: it has no TLS; make it by sockserver.tls(), or give it tls=True")
        if hasattr(self._tls, "wrap_socket"):
            raise InvalidState(
                f"{name} has no {what}: its context is yours, and what its clients must trust is not known here; "
                "tls=True, a TLS or a Certificate has one"
            )
