"""The server's certificate, read again when its files change, so that a renewed one needs no restart."""

import logging
import os
import ssl

from twincast.errors import LoginUnusable

logger = logging.getLogger("twincast.tls")


class Certificate:
    """A certificate and its key; `context` serves handshakes with the pair that was loaded last."""

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
            self._load_into(self.context)
        except (OSError, ValueError) as error:
            raise LoginUnusable(self._unusable(error)) from None

    def reload_if_changed(self) -> bool:
        """Read the files again if they have changed; keep the old certificate if the new one cannot be used."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        try:
            # Tried on another context first: one that fails half way keeps a certificate with another one's key.
            self._load_into(_new_context())
            self._load_into(self.context)
        except (OSError, ValueError) as error:
            logger.warning(f"the certificate stays as it was: {self._unusable(error)}")
            return False
        logger.info("the certificate was read again")
        return True

    def _load_into(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._cert, self._key, password=_no_password)

    def _unusable(self, error: OSError | ValueError) -> str:
        for path in (self._cert, self._key):
            try:
                with open(path, "rb"):
                    pass
            except OSError as unread:
                return f"the file {path} cannot be read: {unread.strerror}"
        why = _WORDS.get(getattr(error, "reason", ""), "they are not a certificate and its key, both in PEM")
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            why = "the key is locked by a password, which nobody could type at a restart; unlock it"
        return f"the certificate {self._cert} with the key {self._key} cannot be used: {why}"

    def _stamps(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stamp, (self._cert, self._key)))


_WORDS = {
    "KEY_VALUES_MISMATCH": "the key is another certificate's",
    "EE_KEY_TOO_SMALL": "the key is too short",
    "CA_MD_TOO_WEAK": "it is signed in a way that is no longer safe",
}
"""The most frequent reasons that OpenSSL gives, in words."""


def _no_password() -> str:
    """Refuse to enter one: OpenSSL would ask for it on the terminal, where a server would wait for ever."""
    raise ValueError


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
