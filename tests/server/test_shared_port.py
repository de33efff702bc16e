"""A port that several processes share: taken once, handed on, and refused to everybody else."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.running import eventually, free_port
from twincast.errors import AddressUnusable
from twincast.server import shared_port
from twincast.server.process import listen
from twincast.server.shared_port import SharedPort

HERE = "127.0.0.1"


@pytest.fixture(params=[True, False], ids=["deals out", "one socket"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """How the system shares a port: as Linux does, and as the others do."""
    deals_out = bool(request.param)
    if deals_out and not shared_port.DEALS_OUT:
        pytest.skip("this system deals no connections out")
    monkeypatch.setattr(shared_port, "DEALS_OUT", deals_out)
    return deals_out


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    with ExitStack() as undo:
        yield undo


def taken(undo: ExitStack, port: int = 0, hosts: tuple[str, ...] = (HERE,)) -> SharedPort:
    made = SharedPort.take(hosts, port)
    undo.callback(made.close)
    return made


def listening(undo: ExitStack, port: SharedPort) -> socket.socket:
    """Listen as one worker does."""
    (worker,) = port.sockets()
    undo.callback(worker.close)
    worker.listen()
    worker.setblocking(False)
    return worker


def connects(undo: ExitStack, port: SharedPort) -> None:
    undo.callback(socket.create_connection(port.address, 5).close)


def accepted(undo: ExitStack, worker: socket.socket) -> int:
    count = 0
    while True:
        try:
            undo.callback(worker.accept()[0].close)
        except BlockingIOError:
            return count
        count += 1


def all_accepted(undo: ExitStack, workers: list[socket.socket], count: int) -> list[int]:
    """Wait until so many connections have come in, and no more; return how many to each worker.

    One that its client has made comes in a moment later.
    """
    counts = [0] * len(workers)

    def accept() -> bool:
        for index, worker in enumerate(workers):
            counts[index] += accepted(undo, worker)
        return sum(counts) >= count

    eventually(accept, f"{count} connections come in")
    assert sum(counts) == count
    return counts


def test_a_port_that_the_system_chooses_is_the_same_for_all(way: bool, undo: ExitStack) -> None:
    port = taken(undo)
    assert port.address[0] == HERE and port.address[1] > 0
    sockets = [each for _ in range(3) for each in port.sockets()]
    for each in sockets:
        undo.callback(each.close)
    assert {each.getsockname() for each in sockets} == {port.address}


def test_connections_come_to_those_who_listen(way: bool, undo: ExitStack) -> None:
    port = taken(undo)
    workers = [listening(undo, port) for _ in range(2)]
    for _ in range(64):
        connects(undo, port)
    counts = all_accepted(undo, workers, 64)
    if way:
        assert all(counts)  # one that got none would be a chance of 2 to the power of -63


def test_whoever_has_not_begun_to_listen_gets_nothing(undo: ExitStack) -> None:
    if not shared_port.DEALS_OUT:
        pytest.skip("there is one socket for all")
    port = taken(undo)
    undo.callback(port.sockets()[0].close)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(port.address, 5)
    worker = listening(undo, port)
    connects(undo, port)
    all_accepted(undo, [worker], 1)


def test_what_one_leaves_the_others_take(way: bool, undo: ExitStack) -> None:
    port = taken(undo)
    first, second = listening(undo, port), listening(undo, port)
    first.close()
    for _ in range(16):
        connects(undo, port)
    all_accepted(undo, [second], 16)


@pytest.mark.parametrize("listens", [True, False], ids=["while a worker listens", "while none does"])
def test_a_port_that_is_shared_is_refused_to_a_second_server_of_either_kind(
    way: bool, undo: ExitStack, listens: bool
) -> None:
    port = taken(undo, free_port())
    if listens:
        listening(undo, port)
    with pytest.raises(AddressUnusable, match="another program is listening"):
        SharedPort.take([HERE], port.address[1])
    with pytest.raises(AddressUnusable, match="another program is listening"):
        listen(HERE, port.address[1])


def test_a_port_that_the_system_chose_is_refused_as_well(way: bool, undo: ExitStack) -> None:
    port = taken(undo)
    with pytest.raises(AddressUnusable, match="another program is listening"):
        SharedPort.take([HERE], port.address[1])


def test_a_port_on_which_another_program_listens_is_refused(way: bool, undo: ExitStack) -> None:
    other = undo.enter_context(listen(HERE, 0))
    with pytest.raises(AddressUnusable, match="another program is listening"):
        SharedPort.take([HERE], other.getsockname()[1])


def test_a_port_that_another_program_would_share_is_refused(undo: ExitStack) -> None:
    if not shared_port.DEALS_OUT:
        pytest.skip("nobody shares a port here")
    other = undo.enter_context(socket.socket())
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind((HERE, 0))
    other.listen()
    with pytest.raises(AddressUnusable, match="another program is listening"):
        SharedPort.take([HERE], other.getsockname()[1])


def test_the_port_is_free_again_when_all_have_ended(way: bool, undo: ExitStack) -> None:
    port = taken(undo)
    number = port.address[1]
    worker = listening(undo, port)
    connects(undo, port)
    all_accepted(undo, [worker], 1)
    worker.close()
    port.close()
    undo.enter_context(listen(HERE, number))


def test_every_address_is_shared(way: bool, undo: ExitStack) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("there is no IPv6 here")
    port = taken(undo, hosts=(HERE, "::1"))
    for host, worker in zip((HERE, "::1"), port.sockets(), strict=True):
        undo.callback(worker.close)
        worker.listen()
        undo.callback(socket.create_connection((host, port.address[1]), 5).close)
        undo.callback(worker.accept()[0].close)
