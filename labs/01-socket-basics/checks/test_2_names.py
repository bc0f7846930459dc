"""resolve: every address that the resolver gives for a name."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address

from nameserver import NameServer
from sockwork.harness import Bed, Run, check

STAGE = "names"
RESOLVER = "192.0.2.2"  # the peer


def new_name(bed: Bed) -> str:
    """A host name that no program can know."""
    return "".join(bed.rng.choices("abcdefghijklmnopqrstuvwxyz", k=10)) + ".example"


def new_addresses(bed: Bed, count: int) -> list[str]:
    """IPv4 addresses that RFC 6724 gives no reason to reorder: all equally far from the target."""
    return [f"192.0.2.{last}" for last in bed.rng.sample(range(128, 255), count)]


def unsorted_addresses(bed: Bed, count: int) -> list[str]:
    """The same, in an order that is not sorted, neither as numbers nor as texts, up or down."""
    while True:
        addresses = new_addresses(bed, count)
        orders = [sorted(addresses), sorted(addresses, key=ip_address)]
        if addresses not in orders and addresses[::-1] not in orders:
            return addresses


def distinct_lines(run: Run) -> list[str]:
    """What the program printed, without repeated lines: only one check is about those."""
    run.expect_exit(0)
    return list(dict.fromkeys(run.stdout.decode(errors="replace").splitlines()))


def expect_addresses(bed: Bed, printed: Sequence[str], expected: Sequence[str]) -> None:
    if list(printed) != list(expected):
        bed.fail(
            f"the program printed {len(printed)} different lines, not the expected ones",
            f"{len(expected)} lines: {'; '.join(expected)}",
            reason="wrong-lines",
            evidence=[f"expected  {line}" for line in expected]
            + [f"printed   {line}" for line in printed],
        )


@check(
    title="A name from the hosts file becomes its address",
    stage=STAGE,
    program="resolve",
    points=2,
    needs=("names",),
    concept="names-and-addresses",
    hints=(
        "Which function turns a name and a service into a list of socket addresses? Which of its "
        "arguments say what you want to get?",
        "Look at the hints you pass and at the test of the result. A flag in `ai_flags` can forbid "
        "names. Then look at how you read one entry of the list: where are the family, the address "
        "and the port?",
        "A gopher client (RFC 1436) is started as `gopher HOST 70`. It zeroes an `addrinfo`, sets "
        "`ai_socktype = SOCK_STREAM`, and calls `getaddrinfo(host, service, &hints, &list)`. Each "
        "entry of the list has `ai_family` and a ready socket address in `ai_addr`, with its "
        "length in `ai_addrlen`. `getnameinfo` with `NI_NUMERICHOST | NI_NUMERICSERV` turns one "
        "entry back into two texts, for both families, with the port in the right byte order. At "
        "the end `freeaddrinfo(list)` gives the list back. The client never asks whether the name "
        "came from a file or from a server: the same call does both.",
    ),
)
def test_resolve_hosts_file(bed: Bed) -> None:
    """getaddrinfo(3) looks a name up in the places that the machine is set up for, in order. On
    most machines the file /etc/hosts is the first of them (hosts(5), nsswitch.conf(5))."""
    name, (address,) = new_name(bed), new_addresses(bed, 1)
    run = bed.start(name, bed.port, names=f"127.0.0.1 localhost\n{address} {name}\n")
    expect_addresses(bed, distinct_lines(run), [f"inet {address} {bed.port}"])


@check(
    title="A name that only the name server knows is asked for over the network",
    stage=STAGE,
    program="resolve",
    points=3,
    needs=("link", "names"),
    resolver=RESOLVER,
    concept="names-and-addresses",
    after=("resolve-hosts-file",),
    hints=(
        "Where can a name be known, apart from a file on your own machine?",
        "Does your program read a file of names itself? Look for the one call that asks every "
        "place a name can be in.",
        "A mail program has to reach `mail.example` with SMTP (RFC 5321). Its author reads "
        "`/etc/hosts` line by line and finds nothing: the name lives in DNS. With "
        '`getaddrinfo("mail.example", "25", ...)` the C library reads the file first, then '
        "sends a question in a UDP datagram to port 53 of the server named in `/etc/resolv.conf`, "
        "and waits for the answer. The two are one call for the program. You can see the datagram "
        "in a capture: the name stands in it in clear text, as `4 m a i l 7 e x a m p l e 0`, each "
        "part with its length before it.",
    ),
)
def test_resolve_dns(bed: Bed) -> None:
    """A name that stands in no file is asked for in a UDP datagram to port 53 of the name server
    (RFC 1035 section 4.2.1, resolv.conf(5)). getaddrinfo(3) does this for the program."""
    name, (address,) = new_name(bed), new_addresses(bed, 1)
    with NameServer(bed.udp(53), {name: [address]}):
        run = bed.start(name, bed.port)
        expect_addresses(bed, distinct_lines(run), [f"inet {address} {bed.port}"])
    bed.expect_packet(
        f"the question for {name}", from_="target", transport="udp", destination_port=53
    )


@check(
    title="All addresses of a name are shown, in the order of the resolver",
    stage=STAGE,
    program="resolve",
    points=3,
    needs=("link", "names"),
    resolver=RESOLVER,
    concept="names-and-addresses",
    covers=("P03",),
    after=("resolve-dns",),
    hints=(
        "Can one name stand for several machines? Who decides which of them should be tried first?",
        "Look at what your program does after it has shown the first entry of the list. And does "
        "anything in your program change the order: a set, a map, a sort?",
        "A time client (RFC 868) is given a pool name that has four addresses. `getaddrinfo` "
        "returns a linked list: `for (addrinfo* a = list; a != nullptr; a = a->ai_next)` visits "
        "each entry. The client tries them in this order. The order has a meaning: the resolver "
        "has put first what it thinks is best to reach (RFC 6724), and a name server may turn the "
        "list round for each client to share the load. A client that keeps the addresses in a "
        "`std::set` throws this away and always asks the server with the lowest number.",
    ),
)
def test_resolve_all(bed: Bed) -> None:
    """A name may have many addresses. getaddrinfo(3) returns all of them as a list, and puts
    first what should be tried first (RFC 6724): both the length and the order of the list
    matter."""
    name, addresses = new_name(bed), unsorted_addresses(bed, 5)
    with NameServer(bed.udp(53), {name: addresses}):
        run = bed.start(name, bed.port)
        expect_addresses(
            bed, distinct_lines(run), [f"inet {address} {bed.port}" for address in addresses]
        )


@check(
    title="Each address is shown once",
    stage=STAGE,
    program="resolve",
    points=2,
    needs=("names",),
    concept="names-and-addresses",
    after=("resolve-hosts-file",),
    hints=(
        "An entry of the list is an answer to `how can I open a socket to this service?`. What "
        "besides the address can be different between two entries?",
        "Print `ai_socktype` of each entry. Which field of the hints narrows the list down to the "
        "kind of socket that this program is about?",
        "The service `domain` (port 53) exists over TCP and over UDP. A DNS tool that passes hints "
        "of all zeros gets three entries for one address: SOCK_STREAM with TCP, SOCK_DGRAM with "
        "UDP, and SOCK_RAW. It sends its question, and when no answer comes it tries the `next "
        "server` - which is the same server. The tool wants datagrams, so it sets `ai_socktype = "
        "SOCK_DGRAM` before the call and gets one entry for one server. A web client would ask for "
        "SOCK_STREAM.",
    ),
)
def test_resolve_distinct(bed: Bed) -> None:
    """Without a socket type in its hints getaddrinfo(3) returns one entry for each type of
    socket: the same address for SOCK_STREAM, SOCK_DGRAM and SOCK_RAW."""
    name, addresses = new_name(bed), new_addresses(bed, 1)
    run = bed.start(name, bed.port, names=f"{addresses[0]} {name}\n")
    run.expect_exit(0)
    run.expect_lines(f"inet {addresses[0]} {bed.port}")


@check(
    title="IPv6 addresses are shown as well as IPv4 addresses",
    stage=STAGE,
    program="resolve",
    points=3,
    needs=("link", "names", "inet6"),
    resolver=RESOLVER,
    concept="names-and-addresses",
    covers=("P03", "P17"),
    after=("resolve-all",),
    hints=(
        "How does a program say to the resolver that it can use either family?",
        "Look at `ai_family` in your hints. Then look at the code that turns an entry into text: "
        "what does it do with an entry of the other family?",
        "An SSH client (RFC 4253) wants to reach a host that has an address of each family. It "
        "leaves `ai_family` at `AF_UNSPEC`, which is zero, and the C library sends two questions, "
        "one of type A and one of type AAAA. The list holds both answers. For each entry the "
        "client calls `socket(a->ai_family, a->ai_socktype, a->ai_protocol)` and passes `ai_addr` "
        "with `ai_addrlen` on, without ever looking into it. Nothing in this code names a family, "
        "so it works on a network that has only one of the two, whichever it is.",
    ),
)
def test_resolve_both_families(bed: Bed) -> None:
    """A records hold IPv4 addresses and AAAA records hold IPv6 addresses (RFC 3596). With
    AF_UNSPEC in its hints getaddrinfo(3) asks for both; with AF_INET it never sees the second
    kind."""
    name, (inet,) = new_name(bed), new_addresses(bed, 1)
    inet6 = f"2001:db8::{bed.rng.randint(0x100, 0xFFFF):x}"
    with NameServer(bed.udp(53), {name: [inet, inet6]}):
        run = bed.start(name, bed.port)
        # The order of the two families depends on the machine (gai.conf(5)); it is not judged here.
        expected = [f"inet {inet} {bed.port}", f"inet6 {inet6} {bed.port}"]
        expect_addresses(bed, sorted(distinct_lines(run)), expected)


@check(
    title="A service may be given by its name",
    stage=STAGE,
    program="resolve",
    points=2,
    needs=("names",),
    concept="names-and-addresses",
    after=("resolve-hosts-file",),
    hints=(
        "Where does a machine keep the list of services and their port numbers?",
        "Follow the second argument through your program. Is it turned into a number before the "
        "resolver sees it?",
        "A news reader (RFC 3977) lets its user write `news.example nntp` or `news.example 119`. "
        "It does not look at the second word at all: it passes the text as the service argument of "
        "`getaddrinfo`. A number is used as it is; a name is looked up in `/etc/services`, for the "
        "protocol that belongs to the socket type of the hints. The port comes back inside the "
        "socket address, already in network byte order. If the reader had used `atoi` first, "
        "`nntp` would have become 0, and port 0 would have gone into the address without any "
        "complaint.",
    ),
)
def test_resolve_service(bed: Bed) -> None:
    """getaddrinfo(3) takes the service as a text: a decimal number, or a name that stands in the
    file /etc/services (services(5)). The port comes back inside the socket address."""
    name, (address,) = new_name(bed), new_addresses(bed, 1)
    for service in ("http", bed.rng.choice(["smtp", "domain", "pop3"])):
        run = bed.start(name, service, names=f"{address} {name}\n")
        expect_addresses(
            bed, distinct_lines(run), [f"inet {address} {socket.getservbyname(service, 'tcp')}"]
        )


@check(
    title="An unknown name ends the program with the resolver's own reason",
    stage=STAGE,
    program="resolve",
    points=2,
    needs=("link", "names"),
    resolver=RESOLVER,
    concept="errors-and-errno",
    covers=("P08",),
    hints=(
        "Most calls put the reason of a failure into `errno`. Does this one?",
        "Look at what your program does when `getaddrinfo` returns something other than 0. Which "
        "function turns that number into a sentence?",
        "A program starts a thread with `pthread_create`. When there are too many threads the call "
        "returns the number 11 and leaves `errno` alone. A program that calls `perror` now prints "
        "the reason of some older failure, or `Success` if there was none. The right program keeps "
        "the returned number and passes it to `strerror`. So before you report a failure, read in "
        "the manual page where this call puts its reason: into `errno`, into the return value as "
        "an errno number, or into the return value as a number of its own kind with its own "
        "function for the text.",
    ),
)
def test_resolve_unknown(bed: Bed) -> None:
    """getaddrinfo(3) returns its error as a number of its own, for gai_strerror(3). errno says
    nothing about it: perror(3) would print an old reason, or `Success`."""
    name = new_name(bed)
    with NameServer(bed.udp(53), {}):
        bed.start(name, bed.port).expect_error("getaddrinfo", "Name or service not known")
