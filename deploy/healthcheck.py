"""Whether the server in this container answers. Exit status 1 if not."""

import http.client
import os
import ssl
import sys

PORT = int(os.environ["TWINCAST_PORT"])
TIMEOUT_S = 4  # tried twice, within the ten seconds that the image gives it


def answers(connection: http.client.HTTPConnection) -> bool:
    """Return whether somebody there says yes, to whoever asks."""
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# The certificate is for the server's name, not for this address. Behind a proxy the server speaks without TLS.
unverified = ssl._create_unverified_context()
is_up = answers(http.client.HTTPSConnection("127.0.0.1", PORT, timeout=TIMEOUT_S, context=unverified)) or answers(
    http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT_S)
)
sys.exit(not is_up)
