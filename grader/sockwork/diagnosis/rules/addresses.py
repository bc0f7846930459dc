"""Addresses: what a socket or a name has, and what the program shows or uses of it."""

from __future__ import annotations

import re
from ipaddress import ip_address

from sockwork.diagnosis.case import WRITES, Case, Stream
from sockwork.diagnosis.entry import Evidence, found, rule
from sockwork.diagnosis.rules.arguments import is_address
from sockwork.facts import Address
from sockwork.trace import Call

_LINE = re.compile(r"^(listening|local|peer|remote) (\S+) (\d+)$", re.MULTILINE)


def _shown(case: Case) -> dict[str, Address]:
    """The addresses that `endpoints` printed, by the word in front of them."""
    text = case.printed(case.last).decode(errors="replace")
    return {m[1]: (m[2], int(m[3])) for m in _LINE.finditer(text) if is_address(m[2])}


def _last_stream(case: Case) -> Stream | None:
    return case.streams[-1] if case.streams else None


def _text(address: Address | None) -> str:
    return f"{address[0]} {address[1]}" if address else "nothing"


@rule("E-SOCKLEN", concept="socket-addresses", pitfalls="P04")
def socklen(case: Case) -> Evidence | None:
    """The kernel knows how large my address structure is.

    Seen: The program shows an address of zeros for a client whose address the kernel knows.

    Why: The length passed to accept(2) and getpeername(2) goes both ways: on entry it is the room
    that there is, on return the length of the address. With 0 the kernel writes nothing, and that
    is no error.

    Ask: Which value does your `socklen_t` have directly before the call?

    1: How does the kernel find out how many bytes it may write into your structure?

    2: Look at the line where the `socklen_t` is declared. Is there a value, and is it set again
    before each call of the loop?

    3: A logger for syslog reads datagrams with recvfrom and notes who sent them. The first line of
    its log is right; from then on all senders are cut or zero. The length variable was set once,
    before the loop. The first call returned in it the length of an IPv4 address, 16, and that was
    the room offered to the second call, which had an IPv6 address of 28 bytes. Now the variable is
    set inside the loop.

    Look: strace -e trace=accept4,accept,getpeername ./PROGRAM 127.0.0.1 7000
    """
    stream, peer = _last_stream(case), _shown(case).get("peer")
    if not stream or not peer or peer[1] != 0 or stream.remote in (None, peer):
        return None
    asked = [stream.opened, *(c for c in stream.calls if c.name == "getpeername")]
    if stream.opened.name == "connect" or any(call.argument("addr") for call in asked):
        return None
    first = f"The client is {_text(stream.remote)}, and the program shows {_text(peer)}."
    note = "the kernel wrote no byte of the address into the structure"
    return found(first, asked[-1], note, at=asked[-1], expected=f"address {_text(stream.remote)}")


@rule(
    "E-LISTENER-NAME",
    concept="listening-sockets",
    pitfalls="P28",
    beats={"E-BIND-ANY": "that it listens everywhere is part of what it was asked for"},
)
def listener_name(case: Case) -> Evidence | None:
    """The listening socket and the connection are one socket with one address.

    Seen: The program shows the address of its listening socket as that of the connection.

    Why: accept(2) returns a new socket, with both addresses of this one connection. A listener
    bound to 0.0.0.0 goes on having 0.0.0.0 as its own address.

    Ask: Which of your two descriptors goes into getsockname?

    1: How many sockets does your program have after `accept`, and which of them has two ends?

    2: Look at the first argument of getsockname in the part that prints the line `local`.

    3: An FTP server must tell the client at which of its addresses it is to be reached for a
    transfer. It listens at 0.0.0.0 and sends `227 Entering Passive Mode (0,0,0,0,...)`, an address
    at which nobody can be reached. It had asked its listening socket. The connection on which the
    command came has the answer: getsockname on that descriptor says through which of its addresses
    the machine was reached by this client, 198.51.100.4 in this case.

    Look: ss -tan; strace -e trace=accept,getsockname ./endpoints 0.0.0.0 7000
    """
    stream, local = _last_stream(case), _shown(case).get("local")
    if not stream or not local or local == stream.local:
        return None
    asked = [c for s in case.listeners for c in s.calls if c.name == "getsockname"]
    if any(call.name == "getsockname" for call in stream.calls):
        return None
    for call in reversed(asked):
        if call.argument("addr") == local:
            first = f"The connection is at {_text(stream.local)}, and `local` shows {_text(local)}."
            expected = f"getsockname on descriptor {stream.opened.result}"
            return found(first, stream.opened, call, at=call, expected=expected)
    return None


@rule("E-ENDS-SWAPPED", concept="socket-addresses")
def ends_swapped(case: Case) -> Evidence | None:
    """getsockname is the other one.

    Seen: The program shows the two ends of the connection in the place of each other.

    Why: getsockname(2) returns the address of the own end, getpeername(2) that of the other end.
    Each connection has both.

    Ask: Which call fills in the address behind the word `local`?

    1: Seen from your program: which end of the connection is `local`?

    2: Look at the two calls and the two lines that print. Follow one address from its call to its
    word.

    3: A chat server writes for each user a line `user at ADDRESS`. All users have the same address
    and port, that of the server. Its author had read `sock name` as the name of the socket over
    there. getsockname asks for the own name of the socket, the one that bind would give;
    getpeername asks for the peer. A test with a client on another machine shows the difference at
    once, a test on one machine hides half of it.

    Look: ss -tan; strace -e trace=getsockname,getpeername ./endpoints 127.0.0.1 7000
    """
    stream, shown = _last_stream(case), _shown(case)
    if not stream or not stream.remote or stream.local == stream.remote:
        return None
    if (shown.get("local"), shown.get("peer", stream.local)) != (stream.remote, stream.local):
        return None
    at = next((c for c in stream.calls if c.name == "getpeername"), None)
    first = f"The program's own end is {_text(stream.local)}; it shows it as that of its peer."
    lines = [f"it printed  local {_text(stream.remote)}", "getsockname(2) gives the own end"]
    return found(first, at, *lines, at=at, expected=f"local {_text(stream.local)}")


@rule("E-EPHEMERAL-PORT", concept="listening-sockets")
def ephemeral_port(case: Case) -> Evidence | None:
    """The port that I asked for is the port that I have.

    Seen: The program was given port 0 and shows 0 as the port at which it listens.

    Why: With port 0 the kernel picks a free port at bind(2) or listen(2). getsockname(2) tells
    which one (ip(7)).

    Ask: Who knows the port that the kernel has picked, and how can you ask?

    1: What does a program want that passes port 0 to `bind`?

    2: Look at the line that prints the port: does it show the argument, or what the socket has now?

    3: A test starts a small HTTP server with port 0, so that two tests never meet at one port. The
    server prints `ready on port 0` and the test cannot find it. Only the kernel knows: after
    `listen` the server asks getsockname for its own address, finds 43817 there, and prints that.
    The test reads the line and connects. Now a hundred tests may run side by side, and no number
    stands in any file.

    Look: ./endpoints 127.0.0.1 0 & ss -tlnp
    """
    shown = _shown(case).get("listening")
    listener = next((s for s in case.listeners if s.run == case.last and s.call("listen")), None)
    if not listener or case.port(case.last) != 0 or not shown or shown[1] != 0:
        return None
    call = listener.call("listen")
    first = "PORT was 0, so the kernel picked a port; the program shows 0."
    return found(first, call, at=call, expected="getsockname after listen")


@rule("E-FIRST-ADDRESS", concept="names-and-addresses", pitfalls="P03")
def first_address(case: Case) -> Evidence | None:
    """A name has one address.

    Seen: The name has several addresses, and the program used only the first of them.

    Why: getaddrinfo(3) returns a list, and a client should try its entries in turn until one
    connects (RFC 1123 section 2.3).

    Ask: What does your program do with the entry behind `ai_next`?

    1: How many addresses can a name have, and what does it mean if the first one does not answer?

    2: Look at the code behind getaddrinfo. Is there a loop over the list, and does it make a new
    socket for each entry?

    3: A time client asks `localhost`, which has the addresses ::1 and 127.0.0.1; the server
    listens at 127.0.0.1 only. The client connects to ::1, is refused and gives up. A better one
    walks along the list: a new socket for each entry, connect, and if that fails it closes the
    socket, remembers the reason and takes the next entry. Only at the end of the list does it
    report the last reason.

    Look: getent ahosts localhost; strace -e trace=connect ./PROGRAM localhost 7000
    """
    known = _known_addresses(case)
    if len(known) < 2:
        return None
    if case.program == "resolve":
        lines = case.printed(case.last).decode(errors="replace").splitlines()
        if len(lines) != 1:
            return None
        first = f"The resolver has {len(known)} addresses, and the program shows 1."
        return found(first, f"addresses  {', '.join(known[:6])}", f"it printed  {lines[0]}")
    tried = [c for c in case.named("connect") if c.socket and c.socket.transport == "tcp"]
    hosts = {call.argument("addr")[0] for call in tried if call.argument("addr")}
    if len(hosts) != 1 or not all(call.error for call in tried):
        return None
    if not case.gave_up_after(tried[-1]):
        return None
    first = f"The name has {len(known)} addresses, and the program tried 1."
    line = f"addresses  {', '.join(known[:6])}"
    return found(first, line, tried[-1], at=tried[-1], expected="connect to the next address")


def _known_addresses(case: Case) -> list[str]:
    """The addresses in the order of the answer: getaddrinfo connects a UDP socket to each, to see
    which address of this machine would be used (RFC 6724 section 2)."""
    seen = []
    for call in case.calls_of(case.last):
        address = call.argument("addr")
        udp = call.socket and call.socket.transport == "udp"
        if call.name == "connect" and udp and address and address[1] != 53:
            seen.append(str(address[0]))
    return list(dict.fromkeys(seen))


@rule("E-SORTED", concept="names-and-addresses")
def sorted_addresses(case: Case) -> Evidence | None:
    """The order of the addresses of a name means nothing.

    Seen: The program shows all addresses, but in an order of its own.

    Why: getaddrinfo(3) has put the list in the order in which the addresses are best tried (RFC
    6724 section 6). Sorting it again throws this away.

    Ask: In which container do you keep the addresses before you print them?

    1: Who has put the list of getaddrinfo in order, and what for?

    2: Look at what happens between the list and the output: a set, a map or a call of sort gives
    another order.

    3: A browser collects the addresses of a site in a std::set to have each only once. The set
    keeps them sorted as texts, so 10.0.0.9 comes before 2001:db8::1, although the resolver had put
    the IPv6 address first because it is nearer. Each page now starts over the slower way. To drop
    repeated entries and keep the order, walk through the list and add what is not there yet.

    Look: getent ahosts localhost; ./resolve localhost 80
    """
    if case.program != "resolve":
        return None
    lines = case.printed(case.last).decode(errors="replace").splitlines()
    shown = [line.split()[1] for line in lines if len(line.split()) == 3]
    known = _known_addresses(case)
    if len(known) < 2 or set(shown) != set(known) or shown == known:
        return None
    if any(not is_address(each) or ":" in each for each in shown):
        return None  # of two families the resolver itself puts one first, behind our back
    orders = [sorted(shown), sorted(shown, key=lambda text: int(ip_address(text)))]
    if shown not in orders and shown[::-1] not in orders:
        return None
    first = "All addresses are there, sorted, and not in the order of the resolver."
    return found(first, f"resolver  {', '.join(known[:6])}", f"program   {', '.join(shown[:6])}")


@rule("E-SOCKTYPE", concept="names-and-addresses")
def socktype(case: Case) -> Evidence | None:
    """getaddrinfo returns each address once.

    Seen: The program shows the same address several times.

    Why: Without a socket type in the hints, getaddrinfo(3) returns each address once for each
    type: stream, datagram and raw.

    Ask: Which fields of the hints do you fill in?

    1: For which kinds of sockets may an address be used, and which kind do you want?

    2: Look at the structure that you pass as hints. What does `ai_socktype` hold?

    3: A tool that tests mail servers opens three connections to each of them, and the servers
    complain. Its list came from getaddrinfo with hints full of zeros: `any family, any type`. For
    every address there were three entries, one for SOCK_STREAM, one for SOCK_DGRAM and one for
    SOCK_RAW, with the same address in all of them. With SOCK_STREAM in the hints the list has one
    entry for each address, and these are the ones that connect can use.

    Look: getent ahosts localhost
    """
    lines = case.printed(case.last).decode(errors="replace").splitlines()
    if case.program != "resolve" or len(lines) < 2 or len(set(lines)) == len(lines):
        return None
    most = max(set(lines), key=lines.count)
    first = f"The line `{most}` stands there {lines.count(most)} times."
    return found(first, f"it printed {len(lines)} lines, {len(set(lines))} of them different")


@rule("E-NUMERIC-ONLY", concept="names-and-addresses")
def numeric_only(case: Case) -> Evidence | None:
    """AI_NUMERICHOST helps to read addresses.

    Seen: The program refused a name without looking it up anywhere.

    Why: With AI_NUMERICHOST getaddrinfo(3) takes numeric addresses only: it reads no file, asks no
    server, and reports EAI_NONAME for every name.

    Ask: Which flags do your hints have?

    1: Which places does the resolver look at for a name? Did it look at any of them?

    2: Look at `ai_flags` in your hints, and read in getaddrinfo(3) what each flag forbids.

    3: A proxy was given AI_NUMERICHOST because `it must never wait for the DNS while it reads its
    settings`. That was right for the settings. The same helper function was then used for the
    hosts that users type, and every name was unknown, also `localhost`. Now the helper has no
    flags, and the settings are checked with inet_pton before. A flag that forbids something
    belongs to the one call that needs it.

    Look: strace -e trace=openat,connect ./resolve localhost 80
    """
    if not _unknown_name(case) or _reads_hosts(case) or _asked_name_server(case):
        return None
    words = case.said(case.last).strip()
    first = f"The name {case.argument(case.last, 'HOST')} was looked up nowhere."
    return found(first, "no file of names was read, no name server was asked", f"stderr: {words}")


@rule("E-OWN-RESOLVER", concept="names-and-addresses")
def own_resolver(case: Case) -> Evidence | None:
    """The names of the world stand in /etc/hosts.

    Seen: The program read the file of host names and asked no name server.

    Why: Names come from several places, in an order that the administrator sets
    (nsswitch.conf(5)): a file, the DNS, others. getaddrinfo(3) asks them all.

    Ask: Which calls of your program look for the name, and where do they look?

    1: Which places can the address of a name come from?

    2: Compare what your program does with the one call that knows all these places.

    3: A backup tool read /etc/hosts with fifteen lines of its own, since `that is where the names
    are`. In the laboratory each machine stood there. At the customer the names came from the DNS,
    and the tool knew none of them; at the next one they came from LDAP. One call of getaddrinfo
    replaced the fifteen lines. It reads nsswitch.conf and asks each source that stands there, in
    that order, and returns both families.

    Look: getent ahosts localhost; cat /etc/nsswitch.conf
    """
    if not _unknown_name(case) or not _reads_hosts(case) or _asked_name_server(case):
        return None
    name = case.argument(case.last, "HOST")
    first = f"The file of host names was read; no name server was asked for {name}."
    return found(first, "no datagram went to port 53", f"stderr: {case.said(case.last).strip()}")


def _unknown_name(case: Case) -> bool:
    host, status = case.argument(case.last, "HOST"), case.ended(case.last)
    given_up = bool(status) and status is not None and status.kind == "exit" and status.code == 1
    refused = "Name or service not known" in case.said(case.last)
    return bool(host) and not is_address(host) and given_up and refused and bool(case.calls)


def _reads_hosts(case: Case) -> bool:
    return any(
        call.name in ("read", "pread64") and call.bytes and b"127.0.0.1" in call.bytes.head
        for call in case.trace.of(Call)
    )


def _asked_name_server(case: Case) -> bool:
    return any(
        call.socket and call.socket.remote and call.socket.remote[1] == 53
        for call in case.trace.of(Call)
        if call.name in WRITES
    )


@rule("E-SMALL-STRUCT", concept="socket-addresses", pitfalls="P17 P04")
def small_struct(case: Case) -> Evidence | None:
    """Every address fits into a struct sockaddr_in.

    Seen: A call filled in an IPv6 address, and the structure had room for an IPv4 address only.

    Why: A `sockaddr_in` has 16 bytes, a `sockaddr_in6` 28. The kernel cuts an address that does
    not fit and reports its real length (getsockname(2)). `sockaddr_storage` has room for each
    family.

    Ask: How many bytes does your structure have, and how many does the address of this socket have?

    1: Which types of addresses may a socket have, and which of them has room for all?

    2: Look at the type of the variable that you pass to getsockname and accept, and at the family
    that it holds afterwards.

    3: A proxy writes who has connected. Its array for an address had 16 bytes, and for a year all
    clients had IPv4. Then the first IPv6 client came, and the log said `0.0.0.0`: the kernel had
    filled 16 bytes of 28, and the program took the part that lies where an IPv4 address would be,
    which is the flow label. With a `sockaddr_storage`, and getnameinfo with the length that the
    call returned, the same lines show both.

    Look: strace -e trace=getsockname,accept ./endpoints ::1 7000
    """
    for call in case.named("getsockname", "getpeername"):
        got, real = call.argument("addr"), call.socket.local if call.socket else None
        if call.name == "getpeername" and call.socket:
            real = call.socket.remote
        if call.result != 0 or not got or not real or ":" not in real[0] or case.role == "client":
            continue
        shown = case.printed(case.last).decode(errors="replace")
        if got[0] != real[0] and real[0] not in shown and call.socket:
            if call.socket.transport == "tcp" and got[0].startswith(real[0].split("::")[0]):
                first = f"The socket has the address {real[0]}, and the structure was too small."
                return found(first, call, at=call, expected=f"address {real[0]}")
    return None


# --- the bytes of an address as hex digits --------------------------------------------------------


def _digits(case: Case) -> tuple[bytes, str] | None:
    """The bytes of the address that `sockaddr_bytes` was given, and the digits that it shows."""
    arguments = case.arguments(case.last)
    words = case.printed(case.last).decode(errors="replace").split()
    if case.program != "sockaddr_bytes" or len(words) != 3 or not arguments:
        return None
    if not is_address(arguments[0]) or "%" in arguments[0]:
        return None
    return ip_address(arguments[0]).packed, words[2]


def _hex_evidence(first: str, packed: bytes, shown: str) -> Evidence:
    return found(first, f"expected  {packed.hex()}", f"got       {shown}")


@rule("E-HEX-DIGITS", concept="socket-addresses")
def hex_digits(case: Case) -> Evidence | None:
    """A byte is one hex digit if it is small.

    Seen: Bytes below 0x10 are shown with one digit, and all digits behind them move.

    Why: A byte has eight bits and needs two hex digits, always: 5 is 05. The conversion %x of
    printf(3) writes as few digits as it can.

    Ask: How does your program print the byte 5?

    1: How many hex digits does one byte need, always?

    2: Look at the conversion that prints one byte: does it name a width, and what fills the empty
    place?

    3: A tool prints the six bytes of a MAC address with `%x`: 02 00 5e 10 00 ff comes out as
    `205e100ff`, and nobody can say any more where one byte ends. With `%02x` each byte has two
    places and zeros in front: `02005e1000ff`. In C++ the same needs `std::setw(2)` before each
    byte and `std::setfill('0')` once, since the width is forgotten after each output. A test with
    the bytes 00 and 0f finds it.

    Look: ./sockaddr_bytes 192.0.2.5 80
    """
    found_here = _digits(case)
    if not found_here:
        return None
    packed, shown = found_here
    if shown == packed.hex() or shown != "".join(f"{byte:x}" for byte in packed):
        return None
    return _hex_evidence("Bytes below 0x10 are shown with one digit.", packed, shown)


@rule("E-SIGN-EXTENDED", concept="socket-addresses")
def sign_extended(case: Case) -> Evidence | None:
    """A char is a byte.

    Seen: Bytes from 0x80 on are shown with eight digits, ffffff in front.

    Why: A char may be signed, and 0xc0 is then -64. Passed to a function such as printf(3) it
    becomes an int, and -64 as an int is 0xffffffc0.

    Ask: Of which type is the byte that you print?

    1: Which numbers can a `char` hold on your machine? Which number is the byte 0xc0 then?

    2: Look at the type of the array or pointer through which you read the bytes of the address.

    3: A program shows the bytes of a GIF file and prints `47 49 46 38 ffffffff`. The last byte is
    ff, all bits set, and in a signed char that is -1. On its way to printf it becomes an int, and
    -1 as an int has all 32 bits set. An `unsigned char` holds 255, and 255 as an int is 255. Bytes
    that are no letters are best kept in a type without a sign, from the first line of the program
    on.

    Look: ./sockaddr_bytes 192.0.2.200 80
    """
    found_here = _digits(case)
    if not found_here or "ffffff" not in found_here[1]:
        return None
    packed, shown = found_here
    signed = [f"ffffff{byte:02x}" if byte > 0x7F else f"{byte:02x}" for byte in packed]
    if shown != "".join(signed):
        return None
    return _hex_evidence("Bytes from 0x80 on are shown as negative numbers.", packed, shown)


@rule("E-WRONG-STRUCT", concept="socket-addresses", pitfalls="P17")
def wrong_struct(case: Case) -> Evidence | None:
    """Both families have their address at the same place.

    Seen: The IPv6 address begins with four zero bytes and lacks its last four.

    Why: In `sockaddr_in6` the flow information, four bytes, stands between the port and the
    address (ipv6(7)). In `sockaddr_in` the address follows the port.

    Ask: Through which structure does your program reach the address?

    1: What lies between the port and the address in the structure of the other family?

    2: Look at how you get to the bytes of the IPv6 address: by the name of a field, or by counting?

    3: A logger keeps the sender of each message in a `sockaddr_storage`. The first field says
    which structure the rest is. It looks at `ss_family` and then reads the same memory as a
    `sockaddr_in` or as a `sockaddr_in6`, and takes `sin_addr` or `sin6_addr`. An older version had
    counted 4 bytes from the start for both families. All IPv6 senders began with `::` and the flow
    label, four zero bytes, and the logger never noticed.

    Look: ./sockaddr_bytes 2001:db8::1 80
    """
    found_here = _digits(case)
    if not found_here:
        return None
    packed, shown = found_here
    if len(packed) != 16 or shown == packed.hex() or shown != "00000000" + packed.hex()[:24]:
        return None
    return _hex_evidence("The address was read four bytes too early.", packed, shown)
