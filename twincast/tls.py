"""The server's certificate, read again when its files change, so that a renewed one needs no restart."""

import logging
import os
import ssl

from twincast.errors import LoginUnusable

logger = logging.getLogger("twincast.tls")


class Certificate:
    """A certificate and its key; `context` serves handshakes with whatever they are at the moment."""

    def __init__(self, cert: str | None, key: str | None) -> None:
        """Read the files.

        Raises:
            LoginUnusable: one is missing or cannot be used.
        """
        if cert is None or key is None:
            raise LoginUnusable("TLS takes both --tls-cert and --tls-key")
        self._cert, self._key = cert, key
        self.context = _new_context()
        self._seen = self._stamps()
        try:
            self.context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise LoginUnusable(f"the certificate {cert} with the key {key} cannot be used: {error}") from None

    def reload_if_changed(self) -> bool:
        """Read the files again if they have changed; keep the old certificate if the new one cannot be used."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            # A try-out first: a context that fails half way is left with a certificate and another one's key.
            _new_context().load_cert_chain(self._cert, self._key)
            self.context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            logger.warning("the certificate stays as it was, the changed one cannot be used: %s", error)
            return False
        logger.info("the certificate was read again")
        return True

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stamp, (self._cert, self._key)))


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 and newer, ciphers as OpenSSL recommends
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
