"""The call tracer against programs that see the same calls: strace, and the kernel's own tracefs.

strace tells how a call reads, in a second run of the same script; tracefs, where root has it, which
calls there were and what they gave, in the same run.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import functools
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sockwork.facts import Process
from sockwork.testbed import Seen, Testbed, TestbedError

PORT = 7007
TARGET = "192.0.2.1"
PYTHON = ["/usr/bin/python3", "-SIB"]
Record = dict[str, Any]

# docs/trace.md, "call".
TRACED = set(
    """
    socket socketpair bind listen accept accept4 connect getsockname getpeername setsockopt
    getsockopt shutdown close close_range dup dup2 dup3 fcntl ioctl read write readv writev pread64
    pwrite64 recvfrom sendto recvmsg sendmsg recvmmsg sendmmsg sendfile splice poll ppoll select
    pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait pipe pipe2 eventfd2 signalfd4
    timerfd_create timerfd_settime rt_sigaction rt_sigprocmask kill tgkill clone clone3 fork vfork
    execve wait4 waitid exit_group nanosleep clock_nanosleep alarm setitimer restart_syscall
    """.split()
)
MAKES_PROCESSES = {"fork", "vfork", "clone", "clone3", "wait4"}
# Calls that only programs with sockets make; what other threads do besides depends on the moment.
OF_SOCKETS = set(
    """
    socket bind listen accept accept4 connect getsockname getpeername setsockopt getsockopt shutdown
    recvfrom sendto recvmsg sendmsg
    """.split()
)
# include/linux/errno.h: what the kernel tells itself about a call that is made again.
RESTARTS = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
}
# The same for a thread that was killed in a call, or at its entry, before it was made.
UNFINISHED = {*RESTARTS, errno.ENOSYS}

# One number, two names: ours and strace's.
SYNONYMS = {
    "O_CLOEXEC": r"\w+_CLOEXEC",
    "O_NONBLOCK": r"\w+_NONBLOCK",
    "SIGPOLL": "SIGIO",
}


# --- a testbed and what runs in it ----------------------------------------------------------------


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built programs of programs/traced.c."""
    folder = tmp_path_factory.mktemp("traced")
    folder.chmod(0o755)
    source = Path(__file__).parent / "programs" / "traced.c"
    compiler = ["gcc", "-std=c17", "-g", "-O1", "-pthread", str(source), "-o"]
    subprocess.run([*compiler, str(folder / "traced")], check=True)
    subprocess.run([*compiler, str(folder / "static"), "-static"], check=True)
    return folder


@contextlib.contextmanager
def opened(tier: str = "auto") -> Iterator[Testbed]:
    with contextlib.closing(Testbed(tier=tier)) as bed:
        told = bed.opened(bed.begin("open"))
        if not {"ptrace"} <= told.capabilities:
            pytest.skip("no program may be traced here")
        if tier == "auto" and "link" not in told.capabilities:
            pytest.skip("this tier has no link")
        yield bed


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with opened() as testbed:
        yield testbed
        stats = testbed.call("end").fields
        assert stats["lost"] == 0, stats["lost_where"]


def wait(bed: Testbed, kind: str, **fields: object) -> Seen:
    wanted = {"for": kind, "deadline": 60, **fields}
    return Seen.parse(bed.await_reply(bed.begin("wait", wanted), 300).fields)


def start(bed: Testbed, argv: Sequence[str], **fields: object) -> int:
    wanted = {"name": argv[0], "argv": list(argv), "trace": True, "stderr_limit": 1 << 26}
    return bed.run({**wanted, **fields}).run


def mode(folder: Path, name: str, number: int = 0, **fields: object) -> dict[str, object]:
    """The fields of a run of programs/traced.c."""
    words = ["/work/traced", name, str(number), TARGET, str(PORT)]
    return {"argv": words, "directory": str(folder), **fields}


def perform(bed: Testbed, fields: Mapping[str, object], name: str = "program") -> int:
    return bed.run({"name": name, "trace": True, "stderr_limit": 1 << 26, **fields}).run


def records(bed: Testbed) -> list[Record]:
    return [json.loads(line) for line in bed.attachment("trace").splitlines()]


def calls_of(bed: Testbed, run: int, *names: str) -> list[Record]:
    found = [record for record in records(bed) if record["kind"] == "call"]
    facts = [{**record["call"], "time": record["time"]} for record in found]
    return [call for call in facts if call["run"] == run and (not names or call["name"] in names)]


def argument(call: Record, name: str) -> Any:
    return next(entry["value"] for entry in call["args"] if entry["name"] == name)


def listening(bed: Testbed, run: int, transport: str = "tcp", port: int = PORT) -> None:
    seen = wait(bed, "listening", run=run, port=port, transport=transport)
    assert seen.held, (seen.facts, bed.output(run, "stderr")[-2000:])


def connect(bed: Testbed, port: int = PORT, host: str = "peer") -> socket.socket:
    made = bed.make_sockets(1, host, "inet", "stream")[0]
    made.settimeout(30)
    made.connect((TARGET, port))
    return made


def receive(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := peer.recv(size - len(data))):
        data += part
    return data


def exited(bed: Testbed, run: int) -> dict[str, Any]:
    seen = wait(bed, "exited", run=run)
    assert seen.held, bed.output(run, "stderr")[-2000:]
    return dict(seen.facts["status"])


def process_named(bed: Testbed, run: int, name: str) -> Process:
    """The first process of a run with this name; under strace it is not the first of all."""
    return min((p for p in bed.processes(run) if p.command == name), key=lambda p: p.pid)


# --- scripts: what happens to a program from outside ----------------------------------------------

Script = Callable[[Testbed, int], None]


def echo_clients(count: int = 2, port: int = PORT, ends: bool = False) -> Script:
    """One after the other: bytes there and back, then the end. `ends`: then it ends by itself."""

    def script(bed: Testbed, run: int) -> None:
        listening(bed, run, port=port)
        for number in range(count):
            with connect(bed, port) as peer:
                assert wait(bed, "quiescent", run=run).held
                for size in (5, 300):
                    text = bytes([65 + number]) * size
                    peer.sendall(text)
                    assert receive(peer, size) == text
                    assert wait(bed, "quiescent", run=run).held
                peer.shutdown(socket.SHUT_WR)
                assert peer.recv(1) == b""
                if ends and number == count - 1:
                    assert wait(bed, "exited", run=run).held
                else:
                    assert wait(bed, "quiescent", run=run).held

    return script


def then_signal(script: Script, command: str, number: int = signal.SIGTERM) -> Script:
    def both(bed: Testbed, run: int) -> None:
        script(bed, run)
        assert wait(bed, "quiescent", run=run).held
        os.kill(process_named(bed, run, command).pid, number)

    return both


def file_client(bed: Testbed, run: int) -> None:
    listening(bed, run)
    with connect(bed) as peer:
        assert len(receive(peer, 21)) == 20
        peer.sendall(b"x")
        assert wait(bed, "quiescent", run=run).held
        peer.shutdown(socket.SHUT_WR)
        assert wait(bed, "exited", run=run).held


def datagrams(bed: Testbed, run: int) -> None:
    listening(bed, run, "udp")
    with bed.make_sockets(1, "peer", "inet", "dgram")[0] as peer:
        peer.settimeout(30)
        for size in (1, 400):
            peer.sendto(b"d" * size, (TARGET, PORT))
            assert len(peer.recv(1000)) == size


def web_client(bed: Testbed, run: int) -> None:
    listening(bed, run)
    with connect(bed) as peer:
        assert wait(bed, "quiescent", run=run).held
        peer.sendall(b"GET / HTTP/1.1\r\nHost: target\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := peer.recv(4096):
            answer += part
        assert b"200 OK" in answer and b"a page of" in answer
    assert wait(bed, "quiescent", run=run).held


def asked_by_dig(bed: Testbed, run: int) -> None:
    listening(bed, run, "udp")
    for transport in ("+notcp", "+tcp"):
        words = ["dig", f"@{TARGET}", "-p", str(PORT), transport, "host.example", "A", "+short"]
        asking = start(bed, words, host="peer", trace=False)
        exited(bed, asking)
        assert b"192.0.2.99" in bed.output(asking, "stdout")
        assert wait(bed, "quiescent", run=run).held


def kill_the_reader(bed: Testbed, run: int) -> None:
    assert wait(bed, "blocked", run=run, calls=["read"]).held
    os.kill(max(p.pid for p in bed.processes(run) if p.command == "traced"), signal.SIGKILL)


def nothing(bed: Testbed, run: int) -> None:
    pass


# --- the same calls by others ---------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """One program and what happens to it, the same in every run."""

    name: str
    argv: Sequence[str]
    script: Script = nothing
    fields: Mapping[str, object] = field(default_factory=dict)
    peer: Sequence[str] = ()  # a program in the other host, ready when it listens on PORT there
    peer_transport: str = "tcp"
    # How strace's run compares: "process" call by call, in the order in which processes began;
    # "sockets" the socket calls of all threads together, where threads share work as it comes;
    # "all" all calls together.
    by: str = "process"
    slow: bool = False


def c_scene(name: str, number: int, script: Script, **options: Any) -> Scene:
    words = ["/work/traced", name, str(number), TARGET, str(PORT)]
    return Scene(name, words, script, **options)


SOCKETSERVER = """
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(4096):
            self.request.sendall(data)
kind = getattr(socketserver, sys.argv[3])
kind.allow_reuse_address = True
with kind((sys.argv[1], int(sys.argv[2])), Echo) as server:
    for _ in range(2):
        server.handle_request()
"""
NODE = """
let left = 2;
const server = require('net').createServer({allowHalfOpen: true}, connection => {
  connection.on('data', data => connection.write(data));
  connection.on('end', () => { connection.end(); if (--left === 0) server.close(); });
});
server.listen(7007, '192.0.2.1');
"""
PAGES = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a page of text")
http.server.HTTPServer(("192.0.2.2", 7007), Page).serve_forever()
"""
NGINX = f"""
daemon off; worker_processes 1; pid /tmp/nginx.pid; error_log /tmp/error.log;
events {{ worker_connections 64; }}
http {{
  access_log /tmp/access.log; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b;
  fastcgi_temp_path /tmp/c; uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
  server {{ listen {TARGET}:{PORT}; return 200 "a page of text"; }}
}}
"""
XINETD = f"""
service echo-here
{{
  type = UNLISTED
  socket_type = stream
  protocol = tcp
  wait = no
  user = student
  server = /usr/bin/cat
  port = {PORT}
  bind = {TARGET}
}}
"""
DNSMASQ = [
    "/usr/sbin/dnsmasq",
    "--keep-in-foreground",
    "--conf-file=/dev/null",
    f"--port={PORT}",
    "--no-resolv",
    "--no-hosts",
    "--user=",
    "--group=",
    "--pid-file=",
    "--address=/host.example/192.0.2.99",
]
SCENES = [
    c_scene("fork", 2, echo_clients(ends=True)),
    c_scene("threads", 2, echo_clients(ends=True)),
    c_scene("poll", 2, echo_clients(ends=True)),
    c_scene("select", 2, echo_clients(ends=True)),
    c_scene("epoll", 2, echo_clients(ends=True)),
    c_scene("sendfile", 1, file_client),
    c_scene("datagrams", 2, datagrams),
    c_scene("handlers", 0, nothing),
    c_scene("exec-thread", 0, nothing, by="all"),
    c_scene("spawns", 0, nothing),
    c_scene("killed", 0, kill_the_reader),
    c_scene("two-parts", 0, nothing),
    c_scene("many-threads", 200, nothing, by="all", slow=True),
    c_scene("many-forks", 500, nothing, by="sockets", slow=True),
    c_scene("many-execs", 100, nothing, slow=True),
    Scene("static", ["/work/static", "fork", "2", TARGET, str(PORT)], echo_clients(ends=True)),
    Scene(
        "curl",
        ["/usr/bin/curl", "-s", f"http://192.0.2.2:{PORT}/"],
        peer=[*PYTHON, "-c", PAGES],
        by="sockets",
    ),
    Scene(
        "socat-plain",
        ["/usr/bin/socat", f"TCP-LISTEN:{PORT},reuseaddr", "EXEC:cat"],
        echo_clients(1, ends=True),
        by="sockets",
    ),
    Scene(
        "socat-fork",
        ["/usr/bin/socat", f"TCP-LISTEN:{PORT},reuseaddr,fork", "EXEC:cat"],
        then_signal(echo_clients(), "socat"),
        by="sockets",
        slow=True,
    ),
    Scene(
        "socketserver-threads",
        [*PYTHON, "-c", SOCKETSERVER, TARGET, str(PORT), "ThreadingTCPServer"],
        echo_clients(ends=True),
        slow=True,
    ),
    Scene(
        "socketserver-forks",
        [*PYTHON, "-c", SOCKETSERVER, TARGET, str(PORT), "ForkingTCPServer"],
        echo_clients(ends=True),
        slow=True,
    ),
    Scene("node", ["/usr/bin/node", "-e", NODE], echo_clients(ends=True), by="sockets", slow=True),
    Scene(
        "nginx",
        ["/usr/sbin/nginx", "-e", "/tmp/error.log", "-p", "/tmp", "-c", "/etc/own-nginx.conf"],
        then_signal(web_client, "nginx"),
        {"files": {"/etc/own-nginx.conf": NGINX}},
        slow=True,
    ),
    Scene("dnsmasq", DNSMASQ, then_signal(asked_by_dig, "dnsmasq"), by="sockets", slow=True),
    Scene(
        "dig",
        ["/usr/bin/dig", "@192.0.2.2", "-p", str(PORT), "host.example", "A", "+short"],
        peer=DNSMASQ,
        peer_transport="udp",
        by="sockets",
        slow=True,
    ),
    Scene(
        "ncat",
        ["/usr/bin/ncat", "-l", TARGET, str(PORT), "--exec", "/bin/cat"],
        echo_clients(1, ends=True),
        slow=True,
    ),
    Scene(
        "xinetd",
        ["/usr/sbin/xinetd", "-dontfork", "-f", "/etc/own-xinetd", "-pidfile", "/tmp/x.pid"],
        then_signal(echo_clients(), "xinetd"),
        {"files": {"/etc/own-xinetd": XINETD}},
        slow=True,
    ),
]
EVERY_SCENE = [
    pytest.param(scene, id=scene.name, marks=[pytest.mark.slow] if scene.slow else [])
    for scene in SCENES
]


@contextlib.contextmanager
def performed(scene: Scene, folder: Path, **fields: object) -> Iterator[tuple[Testbed, int]]:
    """The scene, over, in a testbed that is still there."""
    with opened() as bed:
        run = act(bed, scene, folder, **fields)
        yield bed, run
        assert bed.call("end").fields["lost"] == 0


def act(bed: Testbed, scene: Scene, folder: Path, **fields: object) -> int:
    if not scene.argv[0].startswith("/work") and not shutil.which(scene.argv[0]):
        pytest.skip(f"{scene.argv[0]} is not installed")
    if scene.peer:
        other = start(bed, scene.peer, host="peer", trace=False)
        listening(bed, other, scene.peer_transport)
    wanted: dict[str, object] = {"argv": scene.argv, "directory": str(folder)}
    wanted |= {**scene.fields, **fields}
    run = perform(bed, wanted, scene.name)
    scene.script(bed, run)
    exited(bed, run)
    return run


# --- tracefs ---


@functools.cache
def call_numbers() -> dict[int, str]:
    """This machine's system calls by number, from the kernel's own header."""
    text = subprocess.run(
        ["gcc", "-dM", "-E", "-include", "sys/syscall.h", "-xc", "/dev/null"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {int(n): name for name, n in re.findall(r"#define __NR_(\w+) (\d+)", text)}


def mount_tracefs() -> Path | None:
    """A mount of tracefs that nobody else sees and that ends with this process (fsmount(2))."""
    fsopen, fsconfig, fsmount, create = 430, 431, 432, 6
    libc = ctypes.CDLL(None, use_errno=True)
    context = libc.syscall(fsopen, b"tracefs", 0)
    if context < 0:
        return None
    made = libc.syscall(fsconfig, context, create, None, None, 0)
    mount = libc.syscall(fsmount, context, 0, 0) if made == 0 else -1
    os.close(context)
    return Path(f"/proc/self/fd/{mount}") if mount >= 0 else None


class Tracefs:
    """The returns of system calls of a process and all that it starts, as the kernel notes them."""

    def __init__(self, instance: Path) -> None:
        self._instance = instance

    def follow(self, pid: int) -> None:
        self._set("set_event_pid", pid)
        self._set("events/raw_syscalls/sys_exit/enable", 1)

    def _set(self, name: str, value: object) -> None:
        (self._instance / name).write_text(f"{value}\n")

    def returns(self) -> dict[int, list[tuple[str, int]]]:
        """By thread, in order: the call's name and its raw result."""
        self._set("tracing_on", 0)
        for stats in self._instance.glob("per_cpu/cpu*/stats"):
            lost = re.findall(r"(overrun|dropped events): (\d+)", stats.read_text())
            assert {count for _, count in lost} == {"0"}, stats.read_text()
        names = call_numbers()
        found: dict[int, list[tuple[str, int]]] = defaultdict(list)
        pattern = re.compile(r"-(\d+) +\[\d+\] .*: sys_exit: NR (-?\d+) = (-?\d+)$")
        for line in (self._instance / "trace").read_text(errors="replace").splitlines():
            if match := pattern.search(line):
                tid, number, result = (int(word) for word in match.groups())
                found[tid].append((names.get(number, str(number)), result))
        return found


@pytest.fixture
def tracefs() -> Iterator[Tracefs]:
    root = mount_tracefs() if os.geteuid() == 0 else None
    if root is None:
        pytest.skip("needs root and tracefs")
    instance = root / "instances" / f"sockwork-{os.getpid()}"
    instance.mkdir()
    try:
        (instance / "options" / "event-fork").write_text("1\n")
        (instance / "buffer_size_kb").write_text("24576\n")
        yield Tracefs(instance)
    finally:
        (instance / "tracing_on").write_text("0\n")
        (instance / "events" / "enable").write_text("0\n")
        instance.rmdir()
        os.close(int(root.name))


def raw_result(call: Record) -> int | None:
    if call["error"] is None:
        return None if call["result"] is None else int(call["result"])
    restarts = {name: number for number, name in RESTARTS.items()}
    return -(restarts.get(call["error"]) or int(getattr(errno, call["error"])))


def kernel_calls(returns: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """The traced calls, from the moment at which the program's filter was set up."""
    places = [i for i, entry in enumerate(returns) if entry == ("seccomp", 0)]
    own = returns[places[0] + 1 :] if places else returns
    calls = [entry for entry in own if entry[0] in TRACED]
    # A child comes out of a call that it never went into.
    return calls[calls[:1] in ([(name, 0)] for name in MAKES_PROCESSES) :]


def own_calls(calls: list[Record]) -> dict[int, list[tuple[str, int | None]]]:
    found: dict[int, list[tuple[str, int | None]]] = defaultdict(list)
    for call in calls:
        found[call["tid"]].append((call["name"], raw_result(call)))
    return found


def assert_same_as_kernel(
    calls: list[Record], returns: Mapping[int, list[tuple[str, int]]], threads_change: bool
) -> int:
    ours = own_calls(calls)
    theirs = {tid: kernel_calls(returns.get(tid, [])) for tid in ours}
    for tid, own in ours.items():
        if own and own[-1][1] is None:  # it never returned to the program, killed or over
            own.pop()
            if theirs[tid] and -theirs[tid][-1][1] in UNFINISHED:
                theirs[tid].pop()
    if threads_change:  # execve by another thread returns under the number of the first
        every = [entry for thread in ours.values() for entry in thread]
        returned = Counter(entry for entry in every if entry[1] is not None)
        seen = Counter(e for thread in theirs.values() for e in thread if -e[1] not in UNFINISHED)
        assert not returned - seen
        # A thread that is killed on its way out of a call has returned for the kernel only.
        missing = Counter(name for name, _ in (seen - returned).elements())
        assert not missing - Counter(name for name, result in every if result is None)
    else:
        for tid in ours:
            assert ours[tid] == theirs[tid], tid
    return sum(map(len, ours.values()))


@pytest.mark.parametrize("scene", EVERY_SCENE)
def test_no_call_is_missed_or_invented(scene: Scene, traced: Path, tracefs: Tracefs) -> None:
    with opened() as bed:
        tracefs.follow(bed._process.pid)
        run = act(bed, scene, traced)
        bed.call("signal", {"run": run, "signal": "SIGKILL", "to": "all"})
        calls = calls_of(bed, run)
        assert bed.call("end").fields["lost"] == 0
    compared = assert_same_as_kernel(calls, tracefs.returns(), scene.name == "exec-thread")
    print(f"{scene.name}: {compared} calls as in tracefs")
    assert compared >= 5


# --- strace ---


@dataclass
class Straced:
    """One call in strace's words."""

    name: str
    text: str  # between the brackets
    result: str


def parse_strace(text: str) -> dict[int, list[Straced]]:
    """By thread; a call that was interrupted by another thread's line is put together again."""
    threads: dict[int, list[Straced]] = defaultdict(list)
    begun: dict[int, str] = {}
    for line in text.splitlines():
        head, _, rest = line.partition(" ")
        tid, rest = int(head), rest.strip()
        if rest.startswith(("---", "+++")):
            continue
        if rest.endswith("<unfinished ...>"):
            begun[tid] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if match := re.match(r"<\.\.\. (\w+) resumed>(.*)", rest):
            # execve by another thread ends under the number of the first.
            other = next(t for t in (tid, *begun) if begun.get(t, "").startswith(match[1] + "("))
            rest = begun.pop(other) + " " + match[2].lstrip()
        if parsed := re.match(r"(\w+)\((.*)\)\s+= (.*)", rest):
            threads[tid].append(Straced(*parsed.groups()))
    for tid, rest in begun.items():
        name, _, arguments = rest.partition("(")
        threads[tid].append(Straced(name, arguments, "?"))
    return threads


def strace_outcome(call: Straced) -> str:
    if match := re.match(r"(?:-1|\?) (E\w+)", call.result):
        return match[1]
    if call.result.startswith("?"):
        return "-"
    number = int(call.result.split()[0], 0)
    return "process" if call.name in MAKES_PROCESSES and number > 0 else str(number)


def own_outcome(call: Record) -> str:
    if call["error"]:
        return str(call["error"])
    if call["result"] is None:
        return "-"
    makes = call["name"] in MAKES_PROCESSES and call["result"] > 0
    return "process" if makes else str(call["result"])


def words_of(call: Record) -> set[str]:
    """What strace's line must hold as well: names of constants, addresses, descriptors."""
    words: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, str) and value not in ("", "0"):
            words.update(word for word in value.split("|") if not word.startswith("@"))
        elif isinstance(value, list):
            if len(value) == 2 and isinstance(value[0], str):
                words.add(value[0])
                if value[1] < 32768:  # else the kernel's choice, another in every run
                    words.add(f"htons({value[1]})")
            else:
                for entry in value:
                    collect(entry)
        elif isinstance(value, dict):
            for entry in value.values():
                collect(entry)

    for entry in call["args"]:
        if entry["name"] != "path":
            collect(entry["value"])
    if call["fd"] is not None and call["name"] != "socket":
        words.add(str(call["fd"]))
    return words


def assert_reads_alike(ours: Record, theirs: Straced) -> None:
    pair = (ours, theirs)
    if theirs.name == "???":  # strace did not see in which call the thread was killed
        assert own_outcome(ours) == "-"
        return
    assert (ours["name"], own_outcome(ours)) == (theirs.name, strace_outcome(theirs)), pair
    for word in words_of(ours):
        pattern = SYNONYMS.get(word) or re.escape(word).replace("IPPROTO_", "(IPPROTO|SOL)_")
        assert re.search(rf"(?<!\w)({pattern})(?!\w)", f"{theirs.text} = {theirs.result}"), (
            word,
            *pair,
        )


def straced(scene: Scene, folder: Path) -> dict[int, list[Straced]]:
    """The scene once more, in the same sandbox, under strace instead."""
    names = ",".join("?" + name for name in sorted(TRACED))
    marker = "~~~ strace ~~~"
    script = f'strace -f -q -o /tmp/strace -e trace={names} "$@"; echo "{marker}" >&2; '
    words = ["/bin/sh", "-c", script + "cat /tmp/strace >&2", "sh", *scene.argv]
    with performed(scene, folder, argv=words, trace=False) as (bed, run):
        text = bed.output(run, "stderr").decode(errors="replace")
        assert len(text) < 1 << 26
    return parse_strace(text.partition(marker + "\n")[2])


def in_order(threads: Mapping[int, list[Any]]) -> list[list[Any]]:
    """The threads that made calls, by number, which is by age in a small process tree."""
    return [calls for _, calls in sorted(threads.items()) if calls]


@pytest.mark.parametrize("scene", EVERY_SCENE)
def test_calls_read_as_in_strace(scene: Scene, traced: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    with performed(scene, traced) as (bed, run):
        calls = calls_of(bed, run)
    own: dict[int, list[Record]] = defaultdict(list)
    for call in calls:
        own[call["tid"]].append(call)
    theirs = straced(scene, traced)
    if scene.by != "process":
        names = OF_SOCKETS if scene.by == "sockets" else TRACED
        mine = [c for c in calls if c["name"] in names and c["error"] != "EAGAIN"]
        others = [c for thread in theirs.values() for c in thread if c.name in names]
        others = [c for c in others if strace_outcome(c) != "EAGAIN"]
        # These are two runs, and how often such a program waits depends on the moment. That every
        # single call is seen is shown by tracefs, in one run.
        assert {c["name"] for c in mine} == {c.name for c in others}
        compared = len(mine)
    else:
        assert [len(thread) for thread in in_order(own)] == [len(t) for t in in_order(theirs)]
        compared = 0
        for mine, others in zip(in_order(own), in_order(theirs), strict=True):
            for ours, other in zip(mine, others, strict=True):
                assert_reads_alike(ours, other)
                compared += 1
    print(f"{scene.name}: {compared} calls as in strace")
    assert compared >= 5


# --- what a call says besides ---------------------------------------------------------------------


def test_a_descriptor_is_the_socket_that_the_table_shows(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "fork", 1))
    listening(bed, run)
    with connect(bed) as peer:
        peer.sendall(b"hello")
        assert receive(peer, 5) == b"hello"
        rows = {row.inode: row for row in bed.rows("target", "tcp")}
        here = peer.getsockname()
        peer.shutdown(socket.SHUT_WR)
        exited(bed, run)
    calls = calls_of(bed, run)
    accepted = next(call for call in calls if call["name"] == "accept")
    assert rows[accepted["socket"]["inode"]].state == "LISTEN"
    row = rows[accepted["accepted"]["inode"]]
    assert (row.local, row.remote) == ((TARGET, PORT), here)
    # The same in the child, where it is no longer the parent's descriptor.
    moved = [call for call in calls if call["name"] in ("recvfrom", "sendto")]
    assert {call["pid"] for call in moved}.isdisjoint({accepted["pid"]})
    for call in moved:
        assert call["socket"] == {
            "inode": row.inode,
            "transport": "tcp",
            "local": [TARGET, PORT],
            "remote": list(here),
        }
    assert base64.b64decode(moved[0]["bytes"]["head"]) == b"hello"


def test_a_connect_in_the_background_has_a_peer_afterwards(bed: Testbed, traced: Path) -> None:
    with bed.make_sockets(1, "peer", "inet", "stream")[0] as server:
        server.settimeout(30)
        server.bind(("192.0.2.2", PORT))
        server.listen()
        words = ["/work/traced", "connect", "0", "192.0.2.2", str(PORT)]
        run = perform(bed, {"argv": words, "directory": str(traced)})
        connection, theirs = server.accept()
        exited(bed, run)
        connection.close()
    (sent,) = calls_of(bed, run, "sendto")
    assert sent["socket"]["remote"] == ["192.0.2.2", PORT]
    assert sent["socket"]["local"] == list(theirs)


def test_a_datagram_socket_has_no_peer(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "datagrams", 2))
    datagrams(bed, run)
    exited(bed, run)
    moved = calls_of(bed, run, "recvfrom", "sendto")
    assert {call["socket"]["transport"] for call in moved} == {"udp"}
    assert all(call["socket"]["local"] == [TARGET, PORT] for call in moved)
    assert all(call["socket"]["remote"] is None for call in moved)


def test_sockets_are_known_when_the_first_thread_has_ended(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "first-thread-ends"))
    exited(bed, run)
    (name,) = calls_of(bed, run, "getsockname")
    port = int(bed.output(run, "stdout"))
    assert name["socket"]["local"] == ["127.0.0.1", port]


def test_the_head_lies_across_all_parts_of_a_vector(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "two-parts"))
    exited(bed, run)
    (call,) = calls_of(bed, run, "writev")
    assert call["bytes"] == {"size": 6, "head": base64.b64encode(b"abcdef").decode()}


def test_io_uring_does_not_exist(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "uring"))
    exited(bed, run)
    assert bed.output(run, "stdout") == b"ENOSYS\n"


def test_a_call_that_has_not_returned_has_no_result(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "blocked", stdin="pipe"))
    assert wait(bed, "blocked", run=run, calls=["read"]).held
    last = calls_of(bed, run)[-1]
    assert (last["name"], last["result"], last["error"], last["ended"]) == (
        "read",
        None,
        None,
        None,
    )
    bed.call("signal", {"run": run, "signal": "SIGKILL", "to": "main"})
    assert exited(bed, run) == {"kind": "signal", "signal": "SIGKILL"}
    assert calls_of(bed, run)[-1] == last


def test_calls_and_packets_are_in_one_order(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "poll", 1))
    listening(bed, run)
    with connect(bed) as peer:
        peer.sendall(b"hello")
        assert receive(peer, 5) == b"hello"
    exited(bed, run)
    found = records(bed)
    assert [record["time"] for record in found] == sorted(record["time"] for record in found)
    order = [
        record["call"]["name"] if record["kind"] == "call" else record["packet"]["from"]
        for record in found
        if record["kind"] == "call"
        and record["call"]["name"] in ("recvfrom", "sendto")
        and record["call"]["result"]
        or record["kind"] == "packet"
        and record["packet"]["length"] == 5
    ]
    assert order == ["peer", "recvfrom", "sendto", "target"]
    for call in calls_of(bed, run):
        assert call["ended"] is None or call["ended"] >= call["time"]


# --- source lines ---------------------------------------------------------------------------------

MAIN = """
#include <sys/socket.h>
#include <thread>
#include <unistd.h>
#include "inline.h"
void in_another_file(int fd);
long sent = 0;  // a call at the very end of a function would leave nothing of it on the stack
static inline __attribute__((always_inline)) void inlined(int fd) {
  sent += ::send(fd, "b", 1, 0);  // inlined
}
int main() {
  int ends[2];
  ::socketpair(AF_UNIX, SOCK_STREAM, 0, ends);  // main
  sent += ::send(ends[0], "a", 1, 0);  // direct
  inlined(ends[0]);
  in_another_file(ends[0]);
  from_a_header(ends[0]);
  std::thread([&] {
    sent += ::send(ends[0], "e", 1, 0);  // thread
  }).join();
  char buffer[5];
  return ::recv(ends[1], buffer, 5, MSG_WAITALL) == 5 ? 0 : 1;  // last
}
"""
OTHER = """
#include <sys/socket.h>
extern long sent;
void in_another_file(int fd) {
  sent += ::send(fd, "c", 1, 0);  // other
}
"""
HEADER = """
#include <sys/socket.h>
extern long sent;
inline void from_a_header(int fd) {
  sent += ::send(fd, "d", 1, 0);  // header
}
"""
PLAIN_C = """
#include <sys/socket.h>
int main(void) {
  int ends[2];
  socketpair(AF_UNIX, SOCK_STREAM, 0, ends);
  send(ends[0], "a", 1, 0);  /* direct */
  return 0;
}
"""


def line_of(source: str, mark: str) -> int:
    lines = source.splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.endswith((f"// {mark}", f"{mark} */")))


def lines_of(bed: Testbed, folder: Path, program: str, *names: str) -> list[Record]:
    fields = {"argv": [f"/work/{program}"], "directory": str(folder), "lines": True}
    run = perform(bed, {**fields, "env": {"ASAN_OPTIONS": "detect_leaks=0"}})
    assert exited(bed, run)["code"] == 0, bed.output(run, "stderr")
    return calls_of(bed, run, *names)


@pytest.fixture
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a folder with spaces")
    folder.chmod(0o755)
    texts = {"main.cpp": MAIN, "other.cpp": OTHER, "inline.h": HEADER, "plain.c": PLAIN_C}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


COMPILERS = [
    f"{compiler} {more}".split()
    for compiler in ("g++ -O0", "g++ -O1", "g++ -O2", "clang++ -O0", "clang++ -O1", "clang++ -O2")
    for more in ("", "-fsanitize=address")
]


@pytest.mark.parametrize(
    "compiler",
    [
        pytest.param(words, id=" ".join(words), marks=[] if n in (0, 3) else [pytest.mark.slow])
        for n, words in enumerate(COMPILERS)
    ],
)
def test_calls_have_their_source_lines(bed: Testbed, sources: Path, compiler: list[str]) -> None:
    if not shutil.which(compiler[0]):
        pytest.skip(f"{compiler[0]} is not installed")
    words = [*compiler, "-g", "-std=c++20", "-pthread", "main.cpp", "other.cpp", "-o", "program"]
    subprocess.run(words, cwd=sources, check=True)
    sent = lines_of(bed, sources, "program", "sendto")
    places = [(call["at"]["file"], call["at"]["line"]) for call in sent]
    expected = [
        ("main.cpp", line_of(MAIN, "direct")),
        ("main.cpp", line_of(MAIN, "inlined")),
        ("other.cpp", line_of(OTHER, "other")),
        ("inline.h", line_of(HEADER, "header")),
        ("main.cpp", line_of(MAIN, "thread")),
    ]
    assert places == expected
    assert [call["at"]["function"] for call in sent][:4] == [
        "main",
        "inlined",
        "in_another_file",
        "from_a_header",
    ]
    (pair,) = calls_of(bed, 1, "socketpair")
    assert pair["at"] == {"file": "main.cpp", "line": line_of(MAIN, "main"), "function": "main"}
    files = {call["at"]["file"] for call in calls_of(bed, 1) if call["at"]}
    assert files == {"main.cpp", "other.cpp", "inline.h"}


def test_a_c_program_has_lines(bed: Testbed, sources: Path) -> None:
    subprocess.run(["gcc", "-g", "-O2", "plain.c", "-o", "program"], cwd=sources, check=True)
    (sent,) = lines_of(bed, sources, "program", "sendto")
    line = line_of(PLAIN_C, "direct")
    assert sent["at"] == {"file": "plain.c", "line": line, "function": "main"}


def test_without_debug_information_there_is_no_line(bed: Testbed, sources: Path) -> None:
    subprocess.run(["gcc", "-O2", "-s", "plain.c", "-o", "program"], cwd=sources, check=True)
    assert [call["at"] for call in lines_of(bed, sources, "program", "sendto")] == [None]


def test_a_line_is_the_students_own_not_the_librarys(bed: Testbed, sources: Path) -> None:
    common = Path(__file__).resolve().parents[2] / "common" / "include"
    text = """
#include "sock/socket.h"
int main() {
  auto made = sock::Socket::create(AF_INET, SOCK_STREAM).value();  // create
  (void)made.shutdown(SHUT_WR);  // shutdown
}
"""
    (sources / "student.cpp").write_text(text)
    words = ["g++", "-g", "-O1", "-std=c++20", f"-I{common}", "student.cpp", "-o", "program"]
    subprocess.run(words, cwd=sources, check=True)
    found = lines_of(bed, sources, "program", "socket", "shutdown")
    assert [(call["at"]["file"], call["at"]["line"]) for call in found] == [
        ("student.cpp", line_of(text, "create")),
        ("student.cpp", line_of(text, "shutdown")),
    ]


# --- changes to calls -----------------------------------------------------------------------------


def perturb(bed: Testbed, run: int, *calls: str, **fields: object) -> None:
    bed.call("perturb", {"run": run, "calls": list(calls), **fields})


@pytest.mark.parametrize("cap", [1, 3, 40])
def test_capped_calls_move_less_and_leave_the_program_as_it_was(
    bed: Testbed, traced: Path, cap: int
) -> None:
    run = perform(bed, mode(traced, "every-kind"))
    listening(bed, run)
    kinds = ["read", "recvfrom", "recvmsg", "readv", "write", "sendto", "sendmsg", "writev"]
    perturb(bed, run, *kinds, cap=cap, times=0)
    data = bytes(range(256))
    with connect(bed) as peer:
        peer.sendall(data)
        assert receive(peer, 256) == data
        rest = receive(peer, 100)
    status = exited(bed, run)
    assert status == {"kind": "exit", "code": 0}, bed.output(run, "stderr")
    moved = [
        call
        for call in calls_of(bed, run, *kinds)
        if (call["socket"] or {}).get("transport") == "tcp"
    ]
    assert {call["name"] for call in moved} == set(kinds)
    assert all(0 < call["result"] <= cap for call in moved)
    assert all(call["perturbed"] in (f"capped at {cap}", None) for call in moved)
    # From memory that cannot be written as well: nobody was told of more than was sent.
    told = bed.output(run, "stdout").decode().splitlines()[-1].split()
    assert told[0] == "constant" and [int(n) for n in told[1:]] == [min(cap, 5), min(cap, 5)]
    assert rest == b"first"[:cap] + b"first"[:cap]


def test_a_datagram_is_never_capped(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "datagrams", 2))
    listening(bed, run, "udp")
    perturb(bed, run, "recvfrom", "sendto", cap=1, times=0)
    datagrams(bed, run)
    exited(bed, run)
    moved = calls_of(bed, run, "recvfrom", "sendto")
    assert [call["result"] for call in moved] == [1, 1, 400, 400]
    assert {call["perturbed"] for call in moved} == {None}


@pytest.mark.parametrize("name", ["ECONNABORTED", "EMFILE"])
def test_accept_fails_as_often_as_is_asked_for(bed: Testbed, traced: Path, name: str) -> None:
    run = perform(bed, mode(traced, "accept", -1))
    listening(bed, run)
    perturb(bed, run, "accept", error=name, first=2, times=2)
    perturb(bed, run, "accept", error=name, times=1)
    with connect(bed):
        exited(bed, run)
    told = bed.output(run, "stdout").decode().split("\n")[:-1]
    # Each change counts the calls that no earlier one has taken.
    assert told.count(f"accept {name}") in (1, 2, 3) and told[-1] == "accept ok", told
    calls = calls_of(bed, run, "accept")
    assert [call["error"] for call in calls] == [name] * (len(calls) - 1) + [None]
    assert [call["perturbed"] for call in calls] == [name] * (len(calls) - 1) + [None]


SA_RESTART = 0x10000000


@pytest.mark.parametrize(
    ("flags", "interrupted"),
    [(-1, []), (SA_RESTART, ["poll"]), (0, ["poll", "accept"])],
    ids=["no handler", "SA_RESTART", "handler"],
)
def test_only_calls_that_a_signal_could_end_are_interrupted(
    bed: Testbed, traced: Path, flags: int, interrupted: list[str]
) -> None:
    run = perform(bed, mode(traced, "accept", flags))
    listening(bed, run)
    # The handler is there by the time it waits; poll(2) is not changed yet.
    assert wait(bed, "blocked", run=run, calls=["poll"]).held
    perturb(bed, run, "accept", error="EINTR", times=1)
    perturb(bed, run, "poll", error="EINTR", times=1)
    with connect(bed), contextlib.suppress(OSError):
        exited(bed, run)
    changed = [call["name"] for call in calls_of(bed, run) if call["perturbed"]]
    assert sorted(changed) == sorted(set(interrupted) & {"accept"} | set(changed) & {"poll"})
    assert ("accept" in changed) == ("accept" in interrupted)
    assert bed.output(run, "stdout").endswith(b"accept ok\n")


@pytest.mark.parametrize(
    "fields",
    [
        {"calls": ["read"], "error": "ECONNABORTED"},
        {"calls": ["close"], "error": "EINTR"},
        {"calls": ["read"], "error": "EPERM"},
        {"calls": ["accept"], "cap": 1},
        {"calls": ["read"], "cap": 0},
        {"calls": ["read"], "cap": 1, "error": "EINTR"},
        {"calls": ["read"]},
        {"calls": ["no_such_call"], "cap": 1},
    ],
    ids=lambda fields: " ".join(f"{k}={v}" for k, v in fields.items()),
)
def test_what_posix_does_not_allow_is_refused(
    bed: Testbed, traced: Path, fields: dict[str, Any]
) -> None:
    run = perform(bed, mode(traced, "blocked", stdin="pipe"))
    with pytest.raises(TestbedError) as refused:
        bed.call("perturb", {"run": run, **fields})
    assert refused.value.code == "usage"


# --- barriers and the end of things ---------------------------------------------------------------


def test_a_traced_program_freezes_and_thaws(bed: Testbed, traced: Path) -> None:
    count = 50
    started = bed.run(
        {"name": "threads", "trace": True, **mode(traced, "waiting-threads", count, stdin="pipe")}
    )
    run = started.run
    assert wait(bed, "process", run=run, threads_at_least=count + 1).held
    assert wait(bed, "quiescent", run=run).held
    for _ in range(3):
        bed.call("freeze", {"run": run})
        states = [t.state for p in bed.processes(run) for t in p.threads]
        assert states == ["T"] * (count + 1)
        bed.call("thaw", {"run": run})
        assert wait(bed, "blocked", run=run, calls=["read"]).held
        assert wait(bed, "quiescent", run=run).held
        states = [t.state for p in bed.processes(run) for t in p.threads]
        assert states == ["S"] * (count + 1)
    assert started.stdin is not None
    os.write(started.stdin, b"x" * count)
    os.close(started.stdin)
    assert exited(bed, run) == {"kind": "exit", "code": 0}


def test_a_frozen_program_reads_nothing(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "poll", 1))
    listening(bed, run)
    with connect(bed) as peer:
        assert wait(bed, "consumed", host="target", local=[TARGET, PORT], remote=[TARGET, 0]).held
        bed.call("freeze", {"run": run})
        peer.sendall(b"hello")
        ends = {"host": "target", "local": peer.getpeername(), "remote": peer.getsockname()}
        seen = wait(bed, "consumed", **ends, deadline=0.2)
        assert not seen.held
        bed.call("thaw", {"run": run})
        assert wait(bed, "consumed", **ends).held
        assert receive(peer, 5) == b"hello"
    exited(bed, run)


def test_nothing_is_left_when_the_testbed_is_killed(traced: Path) -> None:
    bed = Testbed()
    with contextlib.closing(bed):
        told = bed.opened(bed.begin("open"))
        if "ptrace" not in told.capabilities:
            pytest.skip("no program may be traced here")
        started = bed.run({"name": "x", "trace": True, **mode(traced, "waiting-threads", 5)})
        blocked = bed.run({"name": "y", "trace": True, **mode(traced, "blocked", stdin="pipe")})
        pidfds = [
            os.pidfd_open(p.pid) for r in (started.run, blocked.run) for p in bed.processes(r)
        ]
        bed.kill()
        for pidfd in pidfds:
            poller = select.poll()
            poller.register(pidfd, 1)
            assert poller.poll(10_000), "a traced process outlived the testbed"
            os.close(pidfd)


def test_the_end_comes_in_the_middle_of_everything(traced: Path) -> None:
    with opened() as bed:
        busy = perform(bed, mode(traced, "many-calls", 100_000_000))
        forking = perform(bed, mode(traced, "many-forks", 300))
        frozen = perform(bed, mode(traced, "waiting-threads", 20, stdin="pipe"))
        bed.call("freeze", {"run": frozen})
        found = [p.pid for run in (busy, forking, frozen) for p in bed.processes(run)]
        begun = time.monotonic()
        bed.call("end")
        assert time.monotonic() - begun < 15
    left = [pid for pid in found if Path(f"/proc/{pid}/root/work/traced").exists()]
    assert found and not left


def test_without_privilege_programs_are_traced_too(traced: Path) -> None:
    with opened("T0") as bed:
        words = [str(traced / "traced"), "two-parts"]
        run = start(bed, words)
        assert exited(bed, run)["code"] == 0
        (call,) = calls_of(bed, run, "writev")
        assert call["result"] == 6
        bed.end()


@pytest.mark.slow
def test_five_hundred_children_are_followed(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "many-forks", 500))
    exited(bed, run)
    events = [
        r["process"]
        for r in records(bed)
        if r["kind"] == "process" and r["process"].get("run") == run
    ]
    children = {event["child"] for event in events if event.get("event") == "fork"}
    ends = {e["pid"] for e in events if e.get("event") == "exit"}
    assert len(children) == 500 and children < ends
    pairs = calls_of(bed, run, "socketpair")
    assert {call["pid"] for call in pairs} == children


@pytest.mark.slow
def test_a_hundred_executions_are_followed(bed: Testbed, traced: Path) -> None:
    run = perform(bed, mode(traced, "many-execs", 100))
    exited(bed, run)
    assert len([c for c in calls_of(bed, run, "execve") if c["result"] == 0]) == 101


@pytest.mark.slow
def test_a_trace_is_bounded_and_says_so(bed: Testbed, traced: Path) -> None:
    small = perform(bed, mode(traced, "many-calls", 100_000))
    exited(bed, small)
    assert len(calls_of(bed, small, "close")) >= 100_000
    large = perform(bed, mode(traced, "many-calls", 450_000))
    seen = wait(bed, "exited", run=large, deadline=300)
    assert seen.held
    found = records(bed)
    assert len(found) <= 500_002
    full = [r for r in found if r["kind"] == "note" and "full" in r["note"]["text"]]
    assert len(full) == 1
