"""Words of the command line that are read without a look at whether they make sense."""

from __future__ import annotations

import re
from ipaddress import ip_address

from sockwork.diagnosis.case import Case
from sockwork.diagnosis.entry import Evidence, found, rule
from sockwork.harness.ports import swapped
from sockwork.harness.text import quoted
from sockwork.trace import Socket

_LAST_PORT = 65535


def is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= _LAST_PORT


def _as_atoi_does(text: str) -> int:
    """The port that is left of a text that was not looked at: its leading number, 16 bits of it."""
    number = re.match(r"\s*[+-]?\d+", text)
    return int(number[0]) & _LAST_PORT if number else 0


@rule("E-PORT-ATOI", concept="checking-arguments", pitfalls="P11")
def port_atoi(case: Case) -> Evidence | None:
    """Every text that somebody gives as a port is a port number.

    Seen: The program was given a text that is no port number, and it went on with some other
    number.

    Why: A port has 16 bits (RFC 9293 section 3.1). atoi(3) stops at the first character that is no
    digit and reports nothing; a value above 65535 loses its high bits when it is stored.

    Ask: For which texts does your conversion return a number although the text is none?

    1: Which texts are port numbers, and what shall happen with all the others?

    2: Look at the line where the argument PORT becomes a number. Can it tell you where it stopped
    reading, and whether the number fitted?

    3: A time server was told to use port `70000`. atoi gave 70000, 16 bits of it are 4464, and
    there the server waited; nobody found it. The next version used std::from_chars: it stores the
    number, says whether it fitted, and returns where it stopped. The text is a port only if all of
    it was used and the number is not above 65535. Everything else leads to the usage line and
    status 2.

    Look: ./PROGRAM 127.0.0.1 70000 & ss -tlnp; ./PROGRAM 127.0.0.1 80x; echo $?
    """
    text = case.argument(case.last, "PORT")
    if len(case.arguments(case.last)) != 2 or _is_port(text):
        return None
    number = _as_atoi_does(text)
    for call in case.calls_of(case.last):
        address = call.argument("addr")
        tcp = call.socket and call.socket.transport == "tcp"
        if tcp and call.name in ("bind", "connect") and address and address[1] == number:
            first = f'PORT was "{text}", which is no port, and the program used port {number}.'
            return found(first, call, at=call, expected="a usage error")
    words = case.printed(case.last).decode(errors="replace").split()
    if len(words) == 3 and words[1] == f"{number:04x}":
        first = f'PORT was "{text}", which is no port, and the program took it as {number}.'
        return found(first, f"it printed  {' '.join(words)}")
    return None


@rule("E-ARGUMENT-COUNT", concept="checking-arguments")
def argument_count(case: Case) -> Evidence | None:
    """argv[1] and argv[2] are always there.

    Seen: The program was started with too few or too many arguments and did not answer with its
    usage line and status 2.

    Why: execve(2) passes on the words that were given, however many there are. argv[argc] is a
    null pointer, and only the program itself can count.

    Ask: Which values of argc go on to the rest of your program?

    1: What does argv[1] hold if nobody gave an argument?

    2: Look at the first lines of `main`. Is there a test of argc before the first use of argv, and
    does it also refuse one word too many?

    3: A whois client took its server from argv[1]. Started alone it passed a null pointer to
    strlen and was killed by SIGSEGV; a script that called it saw only the status 139. The next
    version began with one test, `argc != 3`: the name of the program counts as well. If it holds,
    the client writes `usage: whois SERVER NAME` to standard error and returns 2, before it has
    done anything else.

    Look: ./PROGRAM; echo $?; ./PROGRAM one two three; echo $?
    """
    declared = next((p.arguments for p in case.lab.programs if p.name == case.program), ())
    given = case.arguments(case.last)
    status = case.ended(case.last)
    if not case.runs or len(given) == len(declared):
        return None
    if status is None or (status.kind, status.code) == ("exit", 2):
        return None
    first = f"It was started with {len(given)} arguments in place of {len(declared)}."
    line = f"it ended with {status.text}"
    return Evidence((first, line), case.failure.source, expected="a usage error")


@rule("E-ADDRESS-UNCHECKED", concept="checking-arguments", pitfalls="P07")
def address_unchecked(case: Case) -> Evidence | None:
    """inet_pton always fills in the address.

    Seen: The text was no address, and the program printed an address all the same.

    Why: inet_pton(3) returns 1 if it has filled in the address, 0 if the text is none, and it sets
    no errno for a bad text. What it did not fill in holds whatever was there before.

    Ask: What does your program do when inet_pton returns 0?

    1: How does a call tell you that it has written nothing into your variable?

    2: Find the call that turns the text into bytes. Its result can be 1, 0 or -1. Follow each of
    the three through your code.

    3: A clock reads an NTP packet from a file: `n = read(fd, packet, 48)`. Nobody looks at n. The
    file is empty, n is 0, the packet is full of zeros, and the clock shows the year 1900. A call
    that can fail has two outputs: the data, and the news whether there is data. The second has to
    be read first, and here it says: no packet, no time, status 2 with one line on standard error.

    Look: ./sockaddr_bytes 192.0.2.999 80; echo $?
    """
    arguments = case.arguments(case.last)
    status = case.ended(case.last)
    printed = case.printed(case.last)
    if case.program != "sockaddr_bytes" or len(arguments) != 2 or is_address(arguments[0]):
        return None
    if not printed or status is None or status.code != 0:
        return None
    first = f'"{arguments[0]}" is no numeric address, and the program took it for one.'
    return found(first, f"it printed  {printed.decode(errors='replace').strip()}")


@rule("E-SERVICE-ATOI", concept="names-and-addresses")
def service_atoi(case: Case) -> Evidence | None:
    """A service is a number.

    Seen: A service was given by its name, and every line of the output has port 0.

    Why: atoi(3) returns 0 for a text without a number. getaddrinfo(3) takes names such as `http`
    as well and looks them up in /etc/services.

    Ask: Which of your lines decides what `http` stands for?

    1: Who knows which port the name `http` stands for?

    2: Look at the way of the second argument: is it turned into a number before getaddrinfo sees
    it, or is it passed on as it is?

    3: A mail program is told to use the service `submission`. Its author had written atoi for the
    port, got 0, and stored it in each address of the list; connect then failed with ECONNREFUSED
    at port 0. The repair was to do less: the text goes to getaddrinfo as it came. The resolver
    finds `submission 587/tcp` in /etc/services, puts the port into each address in network byte
    order, and a text of digits works as well.

    Look: getent services http; ./resolve localhost http
    """
    arguments = case.arguments(case.last)
    lines = case.printed(case.last).decode(errors="replace").splitlines()
    if case.program != "resolve" or len(arguments) != 2 or arguments[1].isdecimal() or not lines:
        return None
    if not all(line.endswith(" 0") for line in lines):
        return None
    first = f'The service was "{arguments[1]}", and the program shows port 0.'
    return found(first, f"it printed  {lines[0]}")


@rule("E-BYTE-ORDER", concept="socket-addresses", pitfalls="P01")
def byte_order(case: Case) -> Evidence | None:
    """A port in a socket address is an ordinary number of this machine.

    Seen: A port appears with its two bytes in the wrong order.

    Why: Ports in a socket address are in network byte order, highest byte first (ip(7)). PCs keep
    the lowest byte first, so htons(3) stands on the way in and ntohs(3) on the way out.

    Ask: On its way between the command line, the socket address and the output: how often is the
    port converted?

    1: Which of the two bytes of a port comes first in a packet, and which in the memory of your
    machine?

    2: Look at each line that writes or reads `sin_port`. Is there exactly one conversion between
    the field and the number?

    3: The time protocol (RFC 868) sends the seconds since 1900 as four bytes, highest first. A
    server on a PC holds 0x83AA7E80, and in its memory lies `80 7e aa 83`. `htonl` returns a number
    whose bytes in memory are `83 aa 7e 80`, and these go to the wire. The reader calls ntohl once.
    Two programs that both forget the call agree with each other, and fail with every other program
    of the world.

    Look: ss -tln; printf '%x\\n' 7000 22555
    """
    for call in case.named("bind"):
        address, wanted = call.argument("addr"), case.port(call.run)
        tcp = call.socket and call.socket.transport == "tcp"
        if tcp and address and wanted and _is_swapped(address[1], wanted):
            first = f"It was to use port {wanted} and bound to port {address[1]}."
            hexadecimal = f"{wanted} is 0x{wanted:04x}, and {address[1]} is 0x{address[1]:04x}"
            expected = f"bind to port {wanted}"
            return found(first, call, hexadecimal, at=call, expected=expected)
    return _swapped_in_output(case)


def _is_swapped(seen: int, wanted: int) -> bool:
    return 0 <= wanted <= _LAST_PORT and seen == swapped(wanted) != wanted


def _swapped_in_output(case: Case) -> Evidence | None:
    text = case.printed(case.last).decode(errors="replace")
    words = text.split()
    wanted = case.port(case.last)
    if case.program == "sockaddr_bytes" and wanted is not None and len(words) == 3:
        if wanted <= _LAST_PORT and words[1] == f"{swapped(wanted):04x}" != f"{wanted:04x}":
            first = f"Port {wanted} is 0x{wanted:04x}, and the program shows {words[1]}."
            return found(first, f"it printed  {text.strip()}")
    numbers = {int(word) for word in re.findall(r"\b\d{1,5}\b", text)}
    for stream in case.streams:
        port = stream.remote[1] if stream.remote else 0
        if case.server and port not in numbers and _is_swapped(swapped(port), port):
            if swapped(port) in numbers:
                first = f"The client came from port {port}; the program shows {swapped(port)}."
                return found(first, f"it printed  {quoted(text.encode())}", stream.opened)
    return None


@rule("E-PORT-FIXED", concept="listening-sockets", pitfalls="P12")
def port_fixed(case: Case) -> Evidence | None:
    """The port that worked in my test is the port.

    Seen: The program bound its socket to a port that nobody had named on its command line.

    Why: bind(2) takes the address that the program puts into the structure. If the argument PORT
    never gets there, it has no effect.

    Ask: On which lines of your program does the argument PORT appear?

    1: Whoever starts your program chooses the port. How does the program learn of the choice?

    2: Follow the argument PORT from argv to the address that goes into `bind`. Is there a constant
    on this way?

    3: A gopher server was tested on port 7070, since 70 needs a privilege, and the number stayed
    in the source. In the evening it ran well; next morning a second copy for another folder was
    started with 7071 and ended with `Address already in use`. Both had taken 7070. The
    administrator searched the network for an hour, and then the source for a number. A value that
    the user gives must have one place where it enters, and no second one.

    Look: ./PROGRAM 127.0.0.1 7001 & ss -tlnp
    """
    for call in case.named("bind"):
        address, wanted = call.argument("addr"), case.port(call.run)
        if not (call.socket and call.socket.transport == "tcp" and address and wanted):
            continue
        port = address[1]
        if wanted <= _LAST_PORT and port not in (0, wanted) and not _is_swapped(port, wanted):
            first = f"It was to use port {wanted} and bound to port {port}."
            return found(first, call, at=call, expected=f"bind to port {wanted}")
    return None


@rule("E-BIND-ANY", concept="listening-sockets", pitfalls="P02")
def bind_any(case: Case) -> Evidence | None:
    """A server binds to 0.0.0.0, whatever HOST is.

    Seen: The program was given one address and bound its socket to all addresses of the machine.

    Why: A socket that is bound to 0.0.0.0 or :: takes connections at every address of the machine;
    bound to one address, only there (ip(7), INADDR_ANY).

    Ask: Where does the address that you pass to `bind` come from?

    1: Your machine has several addresses. Who decides through which of them this server can be
    reached?

    2: Compare the address in your `bind` with the argument HOST. Look for INADDR_ANY, for a null
    pointer in place of the host, and for a structure that was only filled with zeros.

    3: A print server takes jobs from programs on the same machine only and is started with
    127.0.0.1. `ss -tln` shows `0.0.0.0:631`. All tests on the machine work, because 127.0.0.1 is
    one of all addresses. But a stranger in the same network can print as well. The program had
    read the address and then passed a null pointer to getaddrinfo with AI_PASSIVE, which means
    `every address`.

    Look: ss -tln; ip address
    """
    for call in case.named("bind"):
        address, host = call.argument("addr"), case.argument(call.run, "HOST")
        tcp = call.socket and call.socket.transport == "tcp"
        if tcp and address and address[0] in ("0.0.0.0", "::") and is_address(host):
            if ip_address(host) != ip_address(address[0]) and call.result == 0:
                first = f"HOST was {host}, and the program bound to {address[0]}: all addresses."
                return found(first, call, at=call, expected=f"bind to {host}")
    return None


@rule(
    "E-INET-ONLY",
    concept="names-and-addresses",
    pitfalls="P17",
    beats={"E-BIND-ANY": "the address is zero because that of the other family did not fit"},
)
def inet_only(case: Case) -> Evidence | None:
    """An address is an IPv4 address.

    Seen: The program had to do with an IPv6 address, and it made no IPv6 socket and asked for no
    IPv6 address.

    Why: getaddrinfo(3) returns the family, the address and its length together. A program that
    passes all three on to socket(2), bind(2) and connect(2) works with both families (RFC 3493
    section 6.1).

    Ask: On which lines does your program name a family?

    1: Who decides whether IPv4 or IPv6 is used: your program, or the text on its command line?

    2: Look for AF_INET, for `sockaddr_in` and for inet_addr in your source. Each of them knows
    only one family. Where could the family come from instead?

    3: A news client filled a `sockaddr_in` by hand. Told to use `2001:db8::7` it said that the
    address is not valid. The next version gave the text to getaddrinfo with AF_UNSPEC. Each entry
    of the answer holds all that the next calls need: `ai_family` for socket, `ai_addr` and
    `ai_addrlen` for connect. The same lines now work for 192.0.2.7, for 2001:db8::7 and for a
    name, and no line names a family.

    Look: ./PROGRAM ::1 7000; getent ahosts localhost
    """
    host = case.argument(case.last, "HOST") or case.argument(case.last, "ADDRESS")
    if case.program == "resolve":
        return _asks_for_inet_only(case)
    status = case.ended(case.last)
    if ":" not in host or not is_address(host):
        return None
    sockets = [s.opened for s in case.sockets if s.run == case.last]
    if any(call.argument("domain") == "AF_INET6" for call in sockets):
        return None
    if case.program == "sockaddr_bytes" and status and (status.kind, status.code) == ("exit", 2):
        return found(f"The address {host} is IPv6, and the program refused it.", _last_words(case))
    if sockets:
        first = f"The address {host} is IPv6, and the program made a socket for IPv4."
        return found(first, *sockets[:2], at=sockets[0], expected="socket(AF_INET6, SOCK_STREAM)")
    if status and status.kind == "exit" and status.code == 1:
        first = f"The address {host} is IPv6, and the program gave up before it made a socket."
        return found(first, _last_words(case))
    return None


def _asks_for_inet_only(case: Case) -> Evidence | None:
    """A resolver that wants both families asks two questions, A and AAAA (RFC 3596)."""
    asked = [c for c in case.named("sendto", "sendmmsg", "sendmsg") if _to_name_server(c.socket)]
    kinds = [_question(call.bytes.head) if call.bytes else None for call in asked]
    status = case.ended(case.last)
    if asked and all(kind == 1 for kind in kinds) and status and status.code == 0:
        first = "It asked the name server for IPv4 addresses (A) only, never for IPv6 (AAAA)."
        return found(first, *asked[:2], at=asked[0], expected="a question for AAAA as well")
    return None


def _to_name_server(socket: Socket | None) -> bool:
    return socket is not None and socket.remote is not None and socket.remote[1] == 53


def _question(query: bytes) -> int | None:
    """The type of the first question of a DNS query (RFC 1035 section 4.1.2)."""
    at = 12
    while at < len(query) and query[at]:
        at += 1 + query[at]
    kind = query[at + 1 : at + 3]
    return int.from_bytes(kind) if len(kind) == 2 else None


def _last_words(case: Case) -> str | None:
    lines = case.said(case.last).strip().splitlines()
    return f"stderr: {lines[-1]}" if lines else None
