"""A client's credential: a fixed one, or a function that returns one for each connection."""

import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twincast.client.backoff import TIMEOUT_S
from twincast.client.failures import Retryable
from twincast.errors import ServerUnreachable, ValidationFailed
from twincast.later import later

if TYPE_CHECKING:
    import asyncio
else:
    asyncio = later("asyncio")

logger = logging.getLogger("twincast.client")

Token = str | Callable[[], str | Awaitable[str]] | None
"""A credential, or a function that returns one for each connection; None for TWINCAST_TOKEN, if set."""


def clean(text: object) -> str:
    """Return a credential as a header has it, without the spaces and line ends that a file or variable may add.

    Raises:
        ValidationFailed: it cannot be a credential. The message does not show it.
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
    """Return a fixed credential, or TWINCAST_TOKEN; empty if there is neither. Raises what `clean` raises."""
    return clean(token or os.environ.get("TWINCAST_TOKEN", ""))


def headers_of(text: str) -> dict[str, str]:
    """Return the header for a credential; none for an empty one."""
    return {"Authorization": f"Bearer {text}"} if text else {}


class Credential:
    """The credential of a client's connections."""

    def __init__(self, token: Token = None) -> None:
        """Keep it.

        Raises:
            ValidationFailed: it is text that cannot be a credential.
        """
        self._get = token if callable(token) else None
        self._text = "" if callable(token) else given(token)

    @property
    def kind(self) -> str:
        """Whether another attempt has another credential: "none", "fixed", or "renewed" for each connection."""
        if self._get is not None:
            return "renewed"
        return "fixed" if self._text else "none"

    async def get(self) -> str:
        """Return it; empty if there is none.

        Raises:
            Retryable: the function failed, in whatever way; its error is logged.
        """
        if self._get is None:
            return self._text
        try:
            async with asyncio.timeout(TIMEOUT_S):
                text = self._get()
                return clean(text if text is None or isinstance(text, str | bytes | int) else await text)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # this client is ending
                raise
            raise _failed(error) from None
        except ValidationFailed as error:
            raise Retryable(ServerUnreachable(f"the function that returns the credential: {error.message}")) from None
        except Exception as error:
            raise _failed(error) from None


def _failed(error: BaseException) -> Retryable:
    # The error's own words may contain secrets, such as those sent to an issuer: they are logged at level debug only.
    words = f"the function that returns the credential failed: {type(error).__name__}"
    logger.warning("%s; it is called again", words)
    logger.debug("its error", exc_info=error)
    return Retryable(ServerUnreachable(words))
