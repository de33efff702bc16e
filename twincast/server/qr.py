"""An address as a QR code for a terminal, so that a phone's camera can read it."""

from typing import TYPE_CHECKING

from rich.text import Text

from twincast.later import later

if TYPE_CHECKING:
    import segno
else:
    segno = later("segno")

QUIET_MODULES = 2
"""White modules around the code. The standard asks for four; two are enough for cameras and fit small terminals."""
_BLOCKS = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_STYLE = "#ffffff on #000000"


def drawn(address: str) -> list[Text]:
    """Return the lines of a QR code, two rows of it in each: white on black by themselves, in colours where there are.

    A terminal without colours mostly has a dark ground, on which it is right as well.
    """
    code = segno.make_qr(address, error="l", boost_error=False)
    rows = [[not is_dark for is_dark in row] for row in code.matrix_iter(border=QUIET_MODULES)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return [
        Text("".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True)), style=_STYLE)
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]


def can_be_drawn(encoding: str) -> bool:
    """Whether an output has the letters for it."""
    try:
        "".join(_BLOCKS.values()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
