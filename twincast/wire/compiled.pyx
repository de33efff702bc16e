# cython: language_level=3, boundscheck=False, wraparound=False
"""Plain readings and text frames at the speed of C: an optional twin of what wire/readings and wire/frames do in Python.

It is built on demand (hatch_build.py), and wire/implementation chooses. What it takes, it takes exactly as Python does,
which the tests hold and the fuzzer looks for; what it leaves, Python takes. So it knows only the plainest spelling:
fields in the order type, device_id, value; no white space but the single spaces of `json.dumps`; no escapes; a name in
ASCII; a value without an object in its members, whose numbers need no second look.

Every look at a byte is bounded by `end`. Nothing calls itself, so no input decides how much of the stack is used.
"""

from libc.string cimport memcmp, memcpy, strlen

from msgspec import Raw

from twincast.core.model import DataUpdate
from twincast.core.names import NAME_MAX_CHARS

cdef extern from "Python.h":
    bytes PyBytes_FromStringAndSize(const char*, Py_ssize_t)
    char* PyBytes_AS_STRING(object)
    Py_ssize_t PY_SSIZE_T_MAX

cdef enum:
    SPACE = 0x20
    QUOTE = 0x22
    BACKSLASH = 0x5C
    DELETE = 0x7F
    NUMBER_MAX_CHARS = 18  # a longer one may not fit 64 bits, as in wire/values
    NAMES_MAX = 32  # of an object; each is compared with all before it
    HEADER_MAX_BYTES = 10

cdef object _reading = DataUpdate
cdef object _raw = Raw
cdef Py_ssize_t _name_max_bytes = NAME_MAX_CHARS

cdef struct Cursor:
    const unsigned char* at
    const unsigned char* end
    Py_ssize_t spaces  # between tokens, that were passed over


cdef inline bint skip(Cursor* cursor, const char* token) noexcept nogil:
    """Pass over a token; False if it does not stand here, as in all that follow."""
    cdef size_t size = strlen(token)
    if <size_t> (cursor.end - cursor.at) < size or memcmp(cursor.at, token, size) != 0:
        return False
    cursor.at += size
    return True


cdef inline bint skip_byte(Cursor* cursor, unsigned char byte) noexcept nogil:
    if cursor.at == cursor.end or cursor.at[0] != byte:
        return False
    cursor.at += 1
    return True


cdef inline void skip_space(Cursor* cursor) noexcept nogil:
    """Pass over one space, if there is one."""
    cursor.spaces += skip_byte(cursor, SPACE)


cdef inline bint skip_name(Cursor* cursor) noexcept nogil:
    """Pass over printable ASCII up to a quote: the name of a device."""
    cdef const unsigned char* start = cursor.at
    while cursor.at < cursor.end and SPACE <= cursor.at[0] < DELETE and cursor.at[0] not in (QUOTE, BACKSLASH):
        cursor.at += 1
    return 0 < cursor.at - start <= _name_max_bytes


cdef inline bint skip_text(Cursor* cursor) noexcept nogil:
    """Pass over a text in quotes. It is valid UTF-8, as the whole message, so what is above ASCII needs no look."""
    if not skip_byte(cursor, QUOTE):
        return False
    while cursor.at < cursor.end and cursor.at[0] >= SPACE and cursor.at[0] not in (QUOTE, BACKSLASH):
        cursor.at += 1
    return skip_byte(cursor, QUOTE)


cdef inline bint skip_digits(Cursor* cursor) noexcept nogil:
    cdef const unsigned char* start = cursor.at
    while cursor.at < cursor.end and c"0" <= cursor.at[0] <= c"9":
        cursor.at += 1
    return cursor.at > start


cdef inline bint skip_number(Cursor* cursor) noexcept nogil:
    """Pass over a short number. An exponent, or a digit behind a leading zero, ends it, and then nothing fits there."""
    cdef const unsigned char* start = cursor.at
    skip_byte(cursor, c"-")
    if not skip_byte(cursor, c"0") and not skip_digits(cursor):
        return False
    if skip_byte(cursor, c".") and not skip_digits(cursor):
        return False
    return cursor.at - start <= NUMBER_MAX_CHARS


cdef inline bint skip_scalar(Cursor* cursor) noexcept nogil:
    if cursor.at == cursor.end:
        return False
    if cursor.at[0] == QUOTE:
        return skip_text(cursor)
    if cursor.at[0] == c"t":
        return skip(cursor, "true")
    if cursor.at[0] == c"f":
        return skip(cursor, "false")
    if cursor.at[0] == c"n":
        return skip(cursor, "null")
    return skip_number(cursor)


cdef bint skip_array_or_scalar(Cursor* cursor) noexcept nogil:
    """Pass over a scalar, or over an array of scalars."""
    if not skip_byte(cursor, c"["):
        return skip_scalar(cursor)
    if skip_byte(cursor, c"]"):
        return True
    while skip_scalar(cursor):
        if skip_byte(cursor, c"]"):
            return True
        if not skip_byte(cursor, c","):
            return False
        skip_space(cursor)
    return False


cdef bint skip_object(Cursor* cursor) noexcept nogil:
    """Pass over an object behind its brace, whose names are distinct: without escapes, equal names are equal bytes."""
    cdef const unsigned char* names[NAMES_MAX]
    cdef Py_ssize_t sizes[NAMES_MAX]
    cdef int count, other
    if skip_byte(cursor, c"}"):
        return True
    for count in range(NAMES_MAX):
        names[count] = cursor.at
        if not skip_text(cursor):
            return False
        sizes[count] = cursor.at - names[count]
        for other in range(count):
            if sizes[other] == sizes[count] and memcmp(names[other], names[count], sizes[count]) == 0:
                return False
        if not skip_byte(cursor, c":"):
            return False
        skip_space(cursor)
        if not skip_array_or_scalar(cursor):
            return False
        if skip_byte(cursor, c"}"):
            return True
        if not skip_byte(cursor, c","):
            return False
        skip_space(cursor)
    return False


cdef inline bint skip_to_name(Cursor* cursor) noexcept nogil:
    return (
        skip(cursor, '{"type":"telemetry","device_id":"')
        or skip(cursor, '{"type": "telemetry", "device_id": "')
    )


cdef inline bint skip_to_value(Cursor* cursor) noexcept nogil:
    return skip(cursor, '","value":') or skip(cursor, '", "value": ')


cdef bytes copied(const unsigned char* at, const unsigned char* end, Py_ssize_t spaces):
    """Return a value that was passed over, without its spaces between tokens, of which there are so many."""
    if spaces == 0:
        return (<const char*> at)[: end - at]
    cdef bytes value = PyBytes_FromStringAndSize(NULL, end - at - spaces)
    cdef char* out = PyBytes_AS_STRING(value)
    cdef bint is_in_text = False
    while at < end:
        if at[0] == QUOTE:
            is_in_text = not is_in_text
        if is_in_text or at[0] != SPACE:
            out[0] = <char> at[0]
            out += 1
        at += 1
    return value


def plain_readings(payloads, source, Py_ssize_t message_max_bytes):
    """Decode messages as `plain_readings` of wire/readings does, up to the first that is not spelled as plainly."""
    cdef list readings = []
    cdef bytes payload
    cdef Cursor cursor
    cdef const unsigned char* name
    cdef const unsigned char* start
    cdef Py_ssize_t size_bytes = 0, name_bytes
    for payload in payloads:
        cursor.at = payload
        cursor.end = cursor.at + len(payload)
        if len(payload) > message_max_bytes or not skip_to_name(&cursor):
            break
        name = cursor.at
        if not skip_name(&cursor):
            break
        name_bytes = cursor.at - name
        if not skip_to_value(&cursor):
            break
        start = cursor.at
        cursor.spaces = 0
        if not (skip_object(&cursor) if skip_byte(&cursor, c"{") else skip_array_or_scalar(&cursor)):
            break
        if cursor.end - cursor.at != 1 or cursor.at[0] != c"}":
            break
        value = _raw(copied(start, cursor.at, cursor.spaces))
        readings.append(_reading((<const char*> name)[:name_bytes].decode("ascii"), value, "", source))
        size_bytes += len(payload)
    return readings, size_bytes


cdef inline unsigned char* write_header(unsigned char* at, size_t size) noexcept nogil:
    """Write the header of a text frame, RFC 6455 section 5.2, and return where it ends."""
    cdef int size_bytes = 0 if size < 126 else 2 if size < 1 << 16 else 8
    at[0] = 0x81  # FIN set
    at[1] = <unsigned char> size if size_bytes == 0 else 126 if size_bytes == 2 else 127
    at += 2
    while size_bytes > 0:
        size_bytes -= 1
        at[0] = <unsigned char> (<unsigned long long> size >> (8 * size_bytes))
        at += 1
    return at


def text(messages):
    """Join messages to the bytes of one text frame each, as `text` of wire/frames does."""
    cdef tuple given = tuple(messages)  # so that it stays as it was counted
    cdef bytes message
    cdef Py_ssize_t size, size_bytes = 0
    for message in given:
        size = len(message)
        if size > PY_SSIZE_T_MAX - HEADER_MAX_BYTES - size_bytes:
            raise OverflowError("the frames are longer than any bytes may be")
        size_bytes += size + (2 if size < 126 else 4 if size < 1 << 16 else HEADER_MAX_BYTES)
    cdef bytes framed = PyBytes_FromStringAndSize(NULL, size_bytes)
    cdef unsigned char* at = <unsigned char*> PyBytes_AS_STRING(framed)
    for message in given:
        at = write_header(at, len(message))
        memcpy(at, <const char*> message, len(message))
        at += len(message)
    return framed
