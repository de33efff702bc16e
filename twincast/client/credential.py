"""Who a program says it is: a credential that it was given, or what gets a new one for each connection."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable

from twincast.client.backoff import TIMEOUT_S
from twincast.client.failures import Retried
from twincast.errors import ServerUnreachable, ValidationFailed

logger = logging.getLogger("twincast.client")

Token = str | Callable[[], str | Awaitable[str]] | None
"""A credential, or what gets a new one for each connection; None for what TWINCAST_TOKEN says, if anything."""


def clean(text: object) -> str:
    """Return a credential as it goes into a header, without the end of line that a file or a variable has.

    Raises:
        ValidationFailed: it is none. The message does not show it.
    """
    if not isinstance(text, str):
        raise ValidationFailed(f"a credential is text, not a {type(text).__name__}")
    stripped = text.strip()
    odd = next((at for at, char in enumerate(stripped, 1) if not "!" <= char <= "~"), None)
    if odd is not None:
        raise ValidationFailed(
            "a credential has no spaces, no line ends and only ASCII in it;"
            f" the one that was given has something else as character {odd} of {len(stripped)}"
        )
    return stripped


def given(token: str | None) -> str:
    """Return a fixed credential, or what TWINCAST_TOKEN says; empty if there is none. Raises what `clean` raises."""
    return clean(token or os.environ.get("TWINCAST_TOKEN", ""))


def headers_of(text: str) -> dict[str, str]:
    """Return the header that says who a program is."""
    return {"Authorization": f"Bearer {text}"} if text else {}


class Credential:
    """What a connection presents itself by."""

    def __init__(self, token: Token = None) -> None:
        """Take it.

        Raises:
            ValidationFailed: it is a text that cannot be a credential.
        """
        self._get = token if callable(token) else None
        self._text = "" if callable(token) else given(token)

    @property
    def kind(self) -> str:
        """What decides whether another attempt can do better: "none", "fixed", or "renewed" for each connection."""
        if self._get is not None:
            return "renewed"
        return "fixed" if self._text else "none"

    async def get(self) -> str:
        """Return it; empty if there is none.

        Raises:
            Retried: the function that gets it failed, in whatever way; its error is logged.
        """
        if self._get is None:
            return self._text
        try:
            async with asyncio.timeout(TIMEOUT_S):
                text = self._get()
                return clean(text if text is None or isinstance(text, str | bytes | int) else await text)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # it is this client that ends
                raise
            raise _failed(error) from None
        except ValidationFailed as error:
            raise Retried(ServerUnreachable(f"of the function that gets the credential: {error.message}")) from None
        except Exception as error:
            raise _failed(error) from None


def _failed(error: BaseException) -> Retried:
    # What it says stays out of messages: who asks an issuer may have his secrets in it. At level debug it is whole.
    words = f"the function that gets the credential failed: {type(error).__name__}"
    logger.warning("%s; it is asked again", words)
    logger.debug("this is what it raised", exc_info=error)
    return Retried(ServerUnreachable(words))
