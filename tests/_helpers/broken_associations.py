"""Associations with the node that go wrong, each in its own way, as raw bytes (PS3.8 9.3)."""

import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
RELEASE = struct.pack(">BBII", 5, 0, 4, 0)
ABORT = struct.pack(">BBIBBBB", 7, 0, 4, 0, 0, 0, 0)


def pdu(kind: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBI", kind, 0, len(content) if length is None else length) + content


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def request(
    calling: str = "SENDER", called: str = "SPLEEN", abstract: str = CT, transfer: str = EXPLICIT, contexts: int = 1
) -> bytes:
    """An A-ASSOCIATE-RQ."""
    titles = called.ljust(16).encode("latin-1") + calling.ljust(16).encode("latin-1")
    offered = b"".join(
        item(0x20, bytes([2 * number + 1, 0, 0, 0]) + item(0x30, abstract.encode()) + item(0x40, transfer.encode()))
        for number in range(contexts)
    )
    user = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3"))
    return pdu(1, struct.pack(">HH", 1, 0) + titles + bytes(32) + item(0x10, b"1.2.840.10008.3.1.1.1") + offered + user)


def element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def command(uid: str = "1.2.3", field: int = 0x0001, data: int = 0x0001, abstract: str = CT) -> bytes:
    """A C-STORE-RQ, or another command."""
    padded = [text.encode() + bytes(len(text) % 2) for text in (abstract, uid)]
    content = (
        element(0x0002, padded[0]) + element(0x0100, struct.pack("<H", field)) + element(0x0110, struct.pack("<H", 1))
        + element(0x0700, struct.pack("<H", 0)) + element(0x0800, struct.pack("<H", data)) + element(0x1000, padded[1])
    )  # fmt: skip
    return element(0x0000, struct.pack("<I", len(content))) + content


def p_data(content: bytes, is_command: bool, is_last: bool = True, context: int = 1) -> bytes:
    header = bytes([context, (1 if is_command else 0) | (2 if is_last else 0)])
    return pdu(4, struct.pack(">I", len(content) + 2) + header + content)


@contextmanager
def connect(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        yield connection


@contextmanager
def associate(port: int, **changes: object) -> Iterator[socket.socket]:
    """A connection on which an association was accepted."""
    with connect(port) as connection:
        connection.sendall(request(**changes))  # type: ignore[arg-type]
        kind = connection.recv(4096)[:1]
        assert kind == b"\x02", kind
        yield connection


def send_on(port: int, *parts: bytes, wait: bool = True, **changes: object) -> None:
    """Send parts on an association, and read until the peer closes; being cut off is expected."""
    with suppress(OSError), associate(port, **changes) as connection:
        for part in parts:
            connection.sendall(part)
        if wait:
            connection.settimeout(3)
            while connection.recv(65536):
                pass


def send_raw(port: int, *parts: bytes, wait: bool = False) -> None:
    """Send parts without any association."""
    with suppress(OSError), connect(port) as connection:
        for part in parts:
            connection.sendall(part)
        if wait:
            connection.settimeout(3)
            while connection.recv(65536):
                pass


def garbage(port: int) -> None:
    send_raw(port, os.urandom(2000))


def nothing_at_all(port: int) -> None:
    send_raw(port)


def http(port: int) -> None:
    send_raw(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def half_a_header(port: int) -> None:
    send_raw(port, request()[:3])


def half_a_request(port: int) -> None:
    send_raw(port, request()[:60])


def request_of_four_gigabytes(port: int) -> None:
    send_raw(port, pdu(1, bytes(100_000), length=2**32 - 1), wait=True)


def request_with_lengths_beyond_it(port: int) -> None:
    content = bytearray(request())
    content[74 + 2 : 74 + 4] = b"\xff\xff"
    send_raw(port, bytes(content))


def request_with_random_items(port: int) -> None:
    chance, content = random.Random(port), bytearray(request())
    for _ in range(30):
        content[chance.randrange(74, len(content))] = chance.randrange(256)
    send_raw(port, bytes(content))


def wrong_titles(port: int) -> None:
    send_raw(port, request(calling="NOBODY"), wait=True)
    send_raw(port, request(called="NOBODY"), wait=True)
    send_raw(port, request(calling="\xff\xfe\x00\n"), wait=True)


def wrong_contexts(port: int) -> None:
    send_on(port, RELEASE, abstract="1.2.840.10008.5.1.4.1.1.7")
    send_on(port, RELEASE, transfer="1.2.840.10008.1.2.1.99")
    send_on(port, RELEASE, contexts=128)


def store_on_a_context_that_was_rejected(port: int) -> None:
    send_on(port, p_data(command(), True), p_data(b"\0" * 100, False), abstract="1.2.840.10008.5.1.4.1.1.7")


def store_on_a_context_that_is_none(port: int) -> None:
    send_on(port, p_data(command(), True, context=77), p_data(b"\0" * 100, False, context=77))


def aborted_in_the_middle(port: int) -> None:
    send_on(port, p_data(command(), True), p_data(bytes(10_000), False, is_last=False), ABORT)


def gone_in_the_middle(port: int) -> None:
    send_on(port, p_data(command(), True), p_data(bytes(10_000), False, is_last=False), wait=False)


def half_a_pdu_of_data(port: int) -> None:
    send_on(port, p_data(command(), True), p_data(bytes(10_000), False)[:5_000], wait=False)


def data_that_are_no_dicom(port: int) -> None:
    send_on(port, p_data(command(), True), p_data(os.urandom(5_000), False), RELEASE)


def no_data_where_they_are_promised(port: int) -> None:
    send_on(port, p_data(command(), True), RELEASE)


def data_of_four_gigabytes(port: int) -> None:
    send_on(port, p_data(command(), True), pdu(4, bytes(100_000), length=2**32 - 1))


def command_without_end(port: int) -> None:
    send_on(port, *[p_data(bytes(60_000), True, is_last=False)] * 60)


def command_of_garbage(port: int) -> None:
    send_on(port, p_data(os.urandom(500), True))


def command_without_its_kind(port: int) -> None:
    send_on(port, p_data(element(0x0002, CT.encode() + b"\0"), True))


def command_of_no_kind(port: int) -> None:
    send_on(port, p_data(command(field=0x7777), True))


def store_without_uids(port: int) -> None:
    content = element(0x0100, struct.pack("<H", 1)) + element(0x0800, struct.pack("<H", 1))
    send_on(port, p_data(content, True), p_data(bytes(100), False))


def store_with_a_path_as_uid(port: int) -> None:
    send_on(port, p_data(command(uid="../../../../tmp/x"), True), p_data(bytes(100), False), RELEASE)


def find_with_much_data(port: int) -> None:
    send_on(port, p_data(command(field=0x0020), True), *[p_data(bytes(60_000), False, is_last=False)] * 60)


def many_verifications_at_once(port: int) -> None:
    verify = command(field=0x0030, data=0x0101, abstract=VERIFICATION)
    send_on(port, *[p_data(verify, True)] * 200, RELEASE, abstract=VERIFICATION)


def data_without_a_command(port: int) -> None:
    send_on(port, p_data(bytes(10_000), False))


def fragments_of_wrong_length(port: int) -> None:
    send_on(port, pdu(4, struct.pack(">I", 0)), wait=False)
    send_on(port, pdu(4, struct.pack(">I", 2**31) + b"\1\3"), wait=False)
    send_on(port, pdu(4, b""), wait=False)


def release_and_answers_out_of_turn(port: int) -> None:
    send_raw(port, RELEASE)
    send_raw(port, pdu(2, bytes(200)))
    send_on(port, request())
    send_on(port, pdu(6, bytes(4)))


MISUSES: tuple[Callable[[int], None], ...] = (
    garbage, nothing_at_all, http, half_a_header, half_a_request, request_of_four_gigabytes,
    request_with_lengths_beyond_it, request_with_random_items, wrong_titles, wrong_contexts,
    store_on_a_context_that_was_rejected, store_on_a_context_that_is_none, aborted_in_the_middle, gone_in_the_middle,
    half_a_pdu_of_data, data_that_are_no_dicom, no_data_where_they_are_promised, data_of_four_gigabytes,
    command_without_end, command_of_garbage, command_without_its_kind, command_of_no_kind, store_without_uids,
    store_with_a_path_as_uid, find_with_much_data, many_verifications_at_once, data_without_a_command,
    fragments_of_wrong_length, release_and_answers_out_of_turn,
)  # fmt: skip
