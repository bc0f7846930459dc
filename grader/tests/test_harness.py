"""The verbs of the harness on programs that are right, or wrong in one known way.

Every test starts a real program in a real testbed. A right program must pass, and a wrong one must
fail for the reason that names its fault, early and with the kernel's evidence.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from toys import Perform
from sockwork.harness import Bed
from sockwork.model import Failure, Launch, Outcome

Function = Callable[[Bed], None]


# --- checks ------------------------------------------------------------------------------------


def one_line(bed: Bed) -> None:
    """Why."""
    server = bed.start_server()
    connection = bed.connect(server)
    connection.send(b"hello\n")
    connection.expect(b"hello\n")
    connection.expect_nothing("everything was answered")
    connection.finish()
    connection.expect_end("the client has ended its side")
    connection.target_state("NONE")


def last_opened_first(bed: Bed) -> None:
    """Why."""
    server = bed.start_server()
    first, second = bed.connect(server), bed.connect(server)
    second.send(b"second")
    second.expect(b"second")
    first.send(b"first")
    first.expect(b"first")


def frozen(bed: Bed) -> None:
    """Why."""
    server = bed.start_server()
    with server.frozen():
        connections = [bed.connect(server) for _ in range(4)]
        for connection in connections:
            connection.send(b"abc")
            connection.delivered()
            assert connection.target_row()
    for connection in connections:
        connection.consumed()
        connection.expect(b"abc")


def large(bed: Bed) -> None:
    """Why."""
    connection = bed.connect(bed.start_server(), receive_buffer=8192, send_buffer=8192)
    data = bed.bytes(1 << 20)
    connection.expect_echo(data)


def half_close(bed: Bed) -> None:
    """Why."""
    connection = bed.connect(bed.start_server(), send_buffer=4096)
    data = bed.bytes(500_000)
    connection.send_in_background(data)
    connection.finish()  # goes behind the data
    connection.expect(data[:100])
    assert connection.read_to_end() == data[100:]


def idle(bed: Bed) -> None:
    """Why."""
    server = bed.start_server()
    bed.connect(server).send(b"x")
    server.expect_idle("nobody speaks any more")


def descriptors(bed: Bed) -> None:
    """Why."""
    server = bed.start_server()
    before = server.resources()
    for _ in range(10):
        connection = bed.connect(server)
        connection.send(b"x")
        connection.expect(b"x")
        connection.close()
    server.expect_resources("all clients have gone", fds_at_most=before.fds, zombies_at_most=0)


def read_by_server(bed: Bed) -> None:
    """Why."""
    connection = bed.connect(bed.start_server())
    connection.send(b"x")
    connection.consumed()


def flood(bed: Bed) -> None:
    """Why."""
    connection = bed.connect(bed.start_server(), receive_buffer=4096, send_buffer=4096)
    connection.send(bed.bytes(8 << 20))


def crowd(bed: Bed) -> None:
    """Why."""
    server = bed.start_server(limits={"nofile": 1000})
    connections = bed.connect_many(server, 300)
    bed.echo_all(connections, [bed.token() for _ in connections])


def taken_port(bed: Bed) -> None:
    """Why."""
    bed.occupy(bed.port)
    run = bed.start(bed.target.inet, bed.port)
    run.expect_error("bind", "Address already in use")


def client_talks(bed: Bed) -> None:
    """Why."""
    listener = bed.listen()
    run = bed.start(*listener.address, stdin=b"hello")
    connection = listener.accept()
    connection.expect(b"hello")
    connection.expect_end("its input has ended")
    connection.send(b"back\n")
    connection.close()
    run.expect_exit()
    run.expect_lines("back")


def client_is_refused(bed: Bed) -> None:
    """Why."""
    run = bed.start(bed.peer.inet, bed.port)
    run.expect_error("connect", "Connection refused")


def client_through_pipes(bed: Bed) -> None:
    """Why."""
    listener = bed.listen()
    run = bed.start(*listener.address, stdin="pipe")
    connection = listener.accept()
    for line in (b"one\n", b"two\n"):
        run.stdin_write(line)
        connection.expect(line)
        connection.send(line)
        assert run.next_line() == line.decode().strip()
    run.expect_output(b"one\ntwo\n")
    big = bed.bytes(1 << 20)
    run.stdin_write(big)
    run.stdin_close()
    connection.expect(big)
    connection.expect_end("its input has ended")
    connection.finish()
    run.expect_stdout(b"one\ntwo\n")


# --- right programs ----------------------------------------------------------------------------

SERVER_CHECKS = [
    one_line,
    last_opened_first,
    frozen,
    large,
    half_close,
    idle,
    descriptors,
    read_by_server,
    flood,
    crowd,
    taken_port,
]
CLIENT_CHECKS = [client_talks, client_is_refused, client_through_pipes]


@pytest.mark.parametrize("tier", ["auto", "T0"])
@pytest.mark.parametrize("function", SERVER_CHECKS)
def test_a_right_server_passes(perform: Perform, function: Function, tier: str) -> None:
    mode = "swallows" if function is flood else "right"
    assert_passed(perform(function, mode, tier=tier))


@pytest.mark.parametrize("tier", ["auto", "T0"])
@pytest.mark.parametrize("function", CLIENT_CHECKS)
def test_a_right_client_passes(perform: Perform, function: Function, tier: str) -> None:
    assert_passed(perform(function, program="echo_client", tier=tier))


def assert_passed(outcome: Outcome) -> None:
    assert outcome.status == "pass", (outcome.reason, outcome.failure, outcome.steps)


# --- wrong programs ----------------------------------------------------------------------------

WRONG_SERVERS = [
    # the program, the check, the reason, and words of the explanation
    ("silent", one_line, "missing-bytes", "nothing can move any more on connection 1 after 0 of 6"),
    ("wrong", one_line, "wrong-bytes", 'byte 3 is "m" instead of "l"'),
    ("extra", one_line, "wrong-bytes", 'byte 0 is "m" instead of "h"'),
    ("more-later", one_line, "unexpected-bytes", '"more"'),
    ("closes", one_line, "ended-early", "ended with FIN after 0 of 6 bytes"),
    ("resets", one_line, "reset", "reset (RST) after 0 of 6 bytes"),
    ("never-closes", one_line, "no-fin", "nothing can move any more"),
    ("aborts", one_line, "signal", "killed by SIGABRT"),
    ("exits", one_line, "exited", "exit status 3"),
    ("one-client", one_line, "exited", "exit status 0"),
    ("overflows", one_line, "sanitizer", "heap-buffer-overflow at toy.c"),
    ("undefined", one_line, "sanitizer", "signed integer overflow"),
    ("byte-order", one_line, "byte-order", "the two bytes of"),
    ("other-port", one_line, "wrong-port", "listens at port 7777"),
    ("loopback", one_line, "wrong-address", "listens at 127.0.0.1"),
    ("no-listen", one_line, "not-listening", "does not listen"),
    ("early", one_line, "exited", "ended before it listened: exit status 4"),
    ("iterative", last_opened_first, "missing-bytes", "connection 2"),
    ("backlog", frozen, "backlog-full", "is full and nobody accepts them"),
    ("spins", idle, "spin", "of processor time"),
    ("never-closes", descriptors, "leak", "holds 14 descriptors"),
    ("never-reads", read_by_server, "not-reading", "1 byte unread"),
    ("never-reads", flood, "not-reading", "cannot be sent on connection 1"),
    ("silent", crowd, "missing-bytes", "300 of 300 clients got no answer"),
    ("wrong", crowd, "wrong-bytes", "instead of"),
    ("unchecked", taken_port, "still-running", "has not ended: echo_server sleeps in accept"),
]
WRONG_CLIENTS = [
    ("no-connect", client_talks, "no-connection", "Nobody connects to"),
    ("no-fin", client_talks, "no-fin", "nothing can move any more"),
    ("mute", client_talks, "wrong-output", "only 0 of 5 bytes came"),
    ("exit-status", client_talks, "wrong-exit", "exit status 9"),
    ("success", client_is_refused, "wrong-error", "connect: Success"),
    ("mute", client_through_pipes, "missing-output", "has written 0 lines"),
]


@pytest.mark.parametrize(("mode", "function", "reason", "words"), WRONG_SERVERS)
def test_a_wrong_server_fails(
    perform: Perform, mode: str, function: Function, reason: str, words: str
) -> None:
    assert_failed(perform(function, mode), reason, words)


@pytest.mark.parametrize(("mode", "function", "reason", "words"), WRONG_CLIENTS)
def test_a_wrong_client_fails(
    perform: Perform, mode: str, function: Function, reason: str, words: str
) -> None:
    assert_failed(perform(function, mode, program="echo_client"), reason, words)


def assert_failed(outcome: Outcome, reason: str, words: str) -> Failure:
    assert outcome.status == "fail", outcome
    failure = outcome.failure
    assert failure and failure.reason == outcome.reason == reason, failure
    assert words.lower() in failure.observed.lower()
    assert failure.expected and outcome.steps
    assert outcome.trace and outcome.command[0].startswith("./toy")
    return failure


def test_the_evidence_is_the_kernels(perform: Perform) -> None:
    outcome = perform(last_opened_first, "iterative", needs=("link",))
    failure = assert_failed(outcome, "missing-bytes", "connection 2 after 0 of 6 bytes")
    evidence = "\n".join(failure.evidence)
    assert "ESTABLISHED  Recv-Q 6, Send-Q 0" in evidence
    assert "LISTEN  1 not accepted" in evidence
    assert "echo_server sleeps in recvfrom" in evidence
    assert "PSH ACK" in evidence
    assert outcome.capture and outcome.capture[:4] == b"\x4d\x3c\xb2\xa1"


def test_a_crash_names_its_line(perform: Perform) -> None:
    failure = assert_failed(perform(one_line, "overflows"), "sanitizer", "heap-buffer-overflow")
    assert failure.source and failure.source.startswith("toy.c:")
    assert any(line.startswith("seen by the check: ") for line in failure.evidence)


def test_right_bytes_do_not_hide_an_error_of_memory(perform: Perform) -> None:
    def right_bytes(bed: Bed) -> None:
        """Why."""
        connection = bed.connect(bed.start_server())
        connection.send(b"x")
        connection.expect(b"x")

    outcome = perform(right_bytes, "undefined")
    assert_failed(outcome, "sanitizer", "signed integer overflow")


def test_a_server_that_died_after_the_last_answer(perform: Perform) -> None:
    def only_connects(bed: Bed) -> None:
        """Why."""
        connection = bed.connect(bed.start_server())
        connection.finish()
        connection.expect_end()
        bed.quiet()

    assert_failed(perform(only_connects, "one-client"), "exited", "exit status 0")


def test_a_server_that_the_check_ends_has_not_died(perform: Perform) -> None:
    def kills(bed: Bed) -> None:
        """Why."""
        server = bed.start_server()
        bed.connect(server)
        server.signal("SIGKILL")
        assert server.wait_exit().signal == "SIGKILL"
        again = bed.start_server()
        bed.connect(again)
        assert again.name == "echo_server (2)"

    assert_passed(perform(kills))


# --- packets, rules, tables --------------------------------------------------------------------


def test_packets_and_rules(perform: Perform) -> None:
    def rules(bed: Bed) -> None:
        """Why."""
        server = bed.start_server()
        connection = bed.connect(server)
        held = bed.hold(from_="target", min_length=1)
        connection.send(b"held")
        bed.expect_packet("the answer", from_="target", min_length=4)
        with pytest.raises(BlockingIOError):
            connection.socket.recv(1)
        held.release()
        connection.expect(b"held")
        assert [p.fate for p in bed.packets(from_="target", min_length=1)][0] == "released"
        bed.duplicate(from_="peer", min_length=1, times=1)
        connection.send(b"twice")
        connection.expect(b"twice")
        connection.expect_nothing("TCP drops the copy")
        bed.expect_no_packet("nobody resets", flags="RST")
        bed.drop(from_="peer", flags="FIN", times=1)
        connection.finish()
        connection.expect_end("the FIN is sent again")

    assert_passed(perform(rules, needs=("link",)))


@pytest.mark.parametrize(
    ("verb", "reason"), [("expect_packet", "no-packet"), ("expect_no_packet", "unexpected-packet")]
)
def test_a_wrong_packet(perform: Perform, verb: str, reason: str) -> None:
    def packets(bed: Bed) -> None:
        """Why."""
        bed.connect(bed.start_server())
        flags = "RST" if verb == "expect_packet" else "SYN"
        getattr(bed, verb)("so it has to be", from_="target", flags=flags)

    assert_failed(perform(packets, needs=("link",)), reason, "passed the link")


def test_a_forged_reset_reaches_the_server(perform: Perform) -> None:
    def forged(bed: Bed) -> None:
        """Why."""
        server = bed.start_server()
        connection = bed.connect(server)
        connection.send(b"x")
        connection.expect(b"x")
        bed.inject_rst(connection)
        connection.target_state("NONE")
        assert connection.state("ESTABLISHED") == "ESTABLISHED"
        server.expect_idle("the client is gone")

    assert_passed(perform(forged, needs=("link",)))


def test_tables_and_states(perform: Perform) -> None:
    def tables(bed: Bed) -> None:
        """Why."""
        server = bed.start_server(port=0)
        assert server.port != 0
        bed.expect_rows("it listens once", at_least=1, at_most=1, state="LISTEN")
        (row,) = bed.rows(state="LISTEN", local_port=server.port)
        assert row.owners and row.local == server.address
        with server.frozen():
            connection = bed.connect(server)
            connection.finish()
            assert connection.target_state("CLOSE_WAIT") == "CLOSE_WAIT"
            connection.state("FIN_WAIT2")
        connection.expect_end()
        connection.state("TIME_WAIT", "NONE")

    assert_passed(perform(tables))


def test_a_state_that_does_not_come(perform: Perform) -> None:
    def states(bed: Bed) -> None:
        """Why."""
        bed.connect(bed.start_server()).target_state("CLOSE_WAIT", "LAST_ACK")

    assert_failed(perform(states), "wrong-state", "is in ESTABLISHED and stays there")


def test_rows_that_do_not_go(perform: Perform) -> None:
    def rows(bed: Bed) -> None:
        """Why."""
        server = bed.start_server()
        for _ in range(3):
            connection = bed.connect(server)
            connection.finish()
        bed.expect_rows("they have gone", at_most=0, state="CLOSE_WAIT", local_port=server.port)

    assert_passed(perform(rows))
    assert_failed(perform(rows, "never-closes"), "wrong-rows", "has 3 CLOSE_WAIT sockets")


def test_a_reset_is_seen(perform: Perform) -> None:
    def resets(bed: Bed) -> None:
        """Why."""
        connection = bed.connect(bed.start_server())
        connection.send(b"x")
        connection.expect_reset()

    assert_passed(perform(resets, "resets"))
    assert_failed(perform(resets, "silent"), "no-reset", "nothing can move any more")


def test_datagrams_and_other_hosts(perform: Perform) -> None:
    def datagrams(bed: Bed) -> None:
        """Why."""
        with bed.udp(5353, host="third") as receiver, bed.udp(5354) as sender:
            sender.sendto(b"x", (bed.host("third").inet, 5353))
            bed.expect_packet("the datagram", transport="udp", destination_port=5353)
            receiver.settimeout(5)
            assert receiver.recvfrom(10) == (b"x", (bed.peer.inet, 5354))

    assert_passed(perform(datagrams, needs=("link",), hosts=("target", "peer", "third")))


def test_usage_and_limits(perform: Perform) -> None:
    def usage(bed: Bed) -> None:
        """Why."""
        bed.start("only one argument").expect_usage_error()
        server = bed.start_server()
        limit = server.limit_descriptors(spare=2)
        assert limit == server.resources().fds + 2
        connections = [bed.connect(server) for _ in range(3)]
        for connection in connections[:2]:
            connection.send(b"x")
            connection.expect(b"x")
        connections[2].send(b"x")
        connections[2].delivered()
        assert server.resources().fds == limit
        server.signal("SIGKILL")  # it spins now: accept(2) fails at once, again and again

    outcome = perform(usage, optimised=True)
    assert_passed(outcome)
    assert outcome.command[0] == "./toy-plain"


def test_the_deadline_ends_a_wait_that_proves_nothing(perform: Perform) -> None:
    """A program that spins may always go on: nothing is proven, and the deadline decides."""
    outcome = perform(one_line, "spins")
    assert outcome.status == "fail" and outcome.reason == "missing-bytes"
    assert outcome.failure and "in time" in outcome.failure.observed
    assert outcome.seconds > 10  # the deadline, not a proof; twice, since a failure is traced


def test_a_program_that_cannot_be_started(perform: Perform, toys: Path) -> None:
    def starts(bed: Bed) -> None:
        """Why."""
        bed.start_server()

    nothing = Launch(("./nothing",), toys)
    outcome = perform(starts, launched={"echo_server": nothing})
    assert_failed_without_program(outcome, "not-started", "cannot be started: ./nothing")


def test_a_command_sees_its_arguments_as_variables(perform: Perform, toys: Path) -> None:
    def echoes(bed: Bed) -> None:
        """Why."""
        run = bed.start("a host", 7)
        run.expect_lines("a host+7+a host")

    words = ("/bin/sh", "-c", 'echo "$HOST+$PORT+$1"', "echo_client")
    launch = Launch(words, toys, shell=True)
    assert_passed(perform(echoes, program="echo_client", launched={"echo_client": launch}))


def test_nobody_listens(perform: Perform) -> None:
    def connects(bed: Bed) -> None:
        """Why."""
        bed.connect((bed.target.inet, bed.port))

    assert_failed_without_program(perform(connects), "refused", "Connection refused")


def assert_failed_without_program(outcome: Outcome, reason: str, words: str) -> None:
    assert outcome.status == "fail" and outcome.failure
    assert outcome.reason == reason and words in outcome.failure.observed


def test_the_plain_socket_is_there(perform: Perform) -> None:
    def plain(bed: Bed) -> None:
        """Why."""
        connection = bed.connect(bed.start_server())
        assert isinstance(connection.socket, socket.socket)
        assert connection.socket.getpeername()[:2] == connection.remote
        assert connection.send_some(b"x" * (8 << 20)) < 8 << 20

    assert_passed(perform(plain, "never-reads"))
