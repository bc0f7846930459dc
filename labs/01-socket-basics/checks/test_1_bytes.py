"""sockaddr_bytes: an address and a port as the bytes that lie in the socket address."""

from __future__ import annotations

from ipaddress import ip_address

from sockwork.harness import Bed, check

STAGE = "bytes of an address"
PLAIN = [16 * high + low for high in range(1, 8) for low in range(10)]  # two digits, no letter
SMALL = range(0x10)
LARGE = range(0x80, 0x100)


def expect_bytes(bed: Bed, address: str, port: int) -> None:
    """Runs the program for one address and compares its line with the bytes of that address."""
    numeric = ip_address(address)
    family = "inet" if numeric.version == 4 else "inet6"
    run = bed.start(address, port)
    run.expect_exit(0)
    run.expect_lines(f"{family} {port:04x} {numeric.packed.hex()}")


def dotted(octets: list[int]) -> str:
    return ".".join(str(octet) for octet in octets)


@check(
    title="An IPv4 address and its port are shown in the order in which they lie in memory",
    stage=STAGE,
    program="sockaddr_bytes",
    points=3,
    concept="socket-addresses",
    covers=("P01",),
    hints=(
        "A port is a number of two bytes. Which of its two bytes comes first in a packet, and "
        "which one comes first in the memory of your machine?",
        "Look at the line that fills in `sin_port`. Is there a step between the number you read "
        "from the command line and the field? Then look at the loop that prints: does it print the "
        "bytes of the field one after the other, or a number that the field holds?",
        "The time protocol (RFC 868) sends the seconds since 1900 as four bytes, highest byte "
        "first. A server on a PC has the number 0x83AA7E80. In the memory of the PC it lies as `80 "
        "7e aa 83`, lowest byte first. `htonl(0x83AA7E80)` returns a number whose bytes in memory "
        "are `83 aa 7e 80`: these may be copied to the wire as they are. The reader calls `ntohl` "
        "once and has the number back. One call on the way out, one on the way in. With no call at "
        "all both programs agree on the same PC, and fail as soon as they meet a program written "
        "by somebody else.",
    ),
)
def test_bytes_inet(bed: Bed) -> None:
    """Ports and addresses in a socket address are in network byte order: highest byte first. PCs
    keep numbers lowest byte first, so htons(3) has to stand between the two. See ip(7)."""
    expect_bytes(bed, "16.50.52.71", 0x1234)
    for _ in range(2):
        octets = bed.rng.sample(PLAIN, 4)
        high, low = bed.rng.sample(PLAIN, 2)
        expect_bytes(bed, dotted(octets), 256 * high + low)


@check(
    title="Every byte is shown as two lower-case hex digits",
    stage=STAGE,
    program="sockaddr_bytes",
    points=2,
    concept="socket-addresses",
    after=("bytes-inet",),
    hints=(
        "How many hex digits does one byte need, always? What becomes of the value 5, and of the "
        "value 200?",
        "Look at the type of the byte you print and at the conversion that prints it. A `char` may "
        "be signed: then the byte 0xc0 is a negative number before it reaches the conversion.",
        "A MAC address is six bytes, as in an ARP packet (RFC 826): `02 00 5e 10 00 ff`. A tool "
        "that prints it with `%x` shows `205e100ff`; nobody can say any more where one byte ends. "
        "With a `char` array and `%02x` the last byte comes out as `ffffffff`, because a signed "
        "char with all bits set is -1, and -1 becomes an int with all bits set. The tool needs "
        "both: a width of two with leading zeros, and a byte type without a sign (`unsigned char`, "
        "or `std::to_integer<unsigned>` for a `std::byte`). A test with the bytes 00, 0f, 80 and "
        "ff finds each of these faults.",
    ),
)
def test_bytes_two_digits(bed: Bed) -> None:
    """A byte has eight bits: two hex digits, from 00 to ff. A signed char is extended with its
    sign when it is passed to a function such as printf(3), and 0xc0 becomes 0xffffffc0."""
    expect_bytes(bed, "192.0.2.5", 80)
    expect_bytes(bed, "127.0.0.1", 65535)
    for _ in range(2):
        octets = bed.rng.sample(SMALL, 2) + bed.rng.sample(LARGE, 2)
        bed.rng.shuffle(octets)
        port = 256 * bed.rng.choice(SMALL) + bed.rng.choice(LARGE)
        expect_bytes(bed, dotted(octets), port)


@check(
    title="An IPv6 address is shown with all its sixteen bytes",
    stage=STAGE,
    program="sockaddr_bytes",
    points=3,
    concept="socket-addresses",
    covers=("P17",),
    after=("bytes-two-digits",),
    hints=(
        "How does a program that gets a text find out which family the address belongs to?",
        "Look at what you do when the text is not an IPv4 address. Then look at the struct of the "
        "other family in ipv6(7): which field holds the address, and what lies between the port "
        "and this field?",
        "A logger writes the sender of each syslog message (RFC 5424) into a file. The sender sits "
        "in a `sockaddr_storage`. Its first field says what the rest is: the logger reads "
        "`ss_family` and then looks at the same bytes as a `sockaddr_in` or as a `sockaddr_in6`. "
        "It copies 4 bytes from `sin_addr`, or 16 bytes from `sin6_addr`. It never counts offsets "
        "by hand: in the IPv6 struct four bytes of flow information follow the port, and an "
        "address read from the wrong place begins with four zero bytes.",
    ),
)
def test_bytes_inet6(bed: Bed) -> None:
    """An IPv6 address has 16 bytes and many spellings (RFC 4291 section 2.2). sockaddr_in6 has
    another layout than sockaddr_in: the flow information stands before the address. See
    ipv6(7)."""
    expect_bytes(bed, "::1", bed.port)
    expect_bytes(bed, f"::ffff:192.0.2.{bed.rng.randint(1, 254)}", bed.port)
    expect_bytes(bed, f"2001:DB8:0:0:0:0:0:{bed.rng.randint(0xA, 0xFFFF):X}", bed.port)
    expect_bytes(bed, str(ip_address(b"\x20\x01\x0d\xb8" + bed.bytes(12))), bed.other_port())


@check(
    title="A text that is no numeric address is a usage error",
    stage=STAGE,
    program="sockaddr_bytes",
    points=2,
    concept="checking-arguments",
    hints=(
        "What does `inet_pton` return for a text that it cannot read, and what is in the address "
        "it should have filled in?",
        "Find the call that turns the text into bytes. Its result can be 1, 0 or -1. What does "
        "your program do for each of them, for both families?",
        "A tool sets the clock from an NTP packet (RFC 5905) that it reads from a file: `n = "
        "read(fd, packet, 48)`. A student prints the time at once and never looks at `n`. For an "
        "empty file `n` is 0, nothing was written into `packet`, and the tool shows the year 1900 "
        "with full confidence. A call that can fail has two outputs: the data, and the news "
        "whether there is data. The second one has to be read first. The right tool says `packet "
        "too short` and ends with a status other than zero, so that the script which called it "
        "stops too.",
    ),
)
def test_bytes_bad_address(bed: Bed) -> None:
    """inet_pton(3) returns 1 when it has filled in the address and 0 when the text is not one.
    It sets no errno for a bad text: only the return value tells."""
    octet = bed.rng.randint(256, 999)
    for text in (
        "localhost",
        "",
        f"192.0.2.{octet}",
        "192.0.2.5.1",
        "192.0.2.5x",
        "192.0.2.5:80",
        "2001:db8::1::2",
        "2001:db8::g",
    ):
        bed.start(text, bed.port).expect_usage_error()


@check(
    title="A text that is no port number is a usage error",
    stage=STAGE,
    program="sockaddr_bytes",
    points=2,
    concept="checking-arguments",
    covers=("P11",),
    hints=(
        "Which numbers fit into two bytes? And what should happen to a text that only begins with "
        "a number?",
        "Look at the call that turns the text into a number. How does it tell you that it stopped "
        "before the end of the text? Which line compares the number with the largest port?",
        "A whois client (RFC 3912) takes a time limit in seconds, 1 to 300. With `atoi` the text "
        "`30s` gives 30, `abc` gives 0, and a very long number gives anything. "
        "`std::from_chars(first, last, number)` tells three things: whether there was a number, "
        "whether it fitted, and where it stopped. The client accepts the text only when there was "
        "a number, when it stopped exactly at `last`, and when it lies from 1 to 300. Three "
        "conditions, one line of code, and `30s` is refused with the usage line instead of being "
        "read as something that the user did not write.",
    ),
)
def test_bytes_bad_port(bed: Bed) -> None:
    """A port has 16 bits (RFC 9293 section 3.1). atoi(3) reports no error: `80x` becomes 80, and
    70000 loses its high bits in a 16-bit field and becomes 4464."""
    wrapped = 2**32 + bed.port
    for text in ("70000", "65536", "-1", "80x", "", " 80", "+80", wrapped, f"{bed.port}.0"):
        bed.start("192.0.2.5", text).expect_usage_error()


@check(
    title="Too few or too many arguments are a usage error",
    stage=STAGE,
    program="sockaddr_bytes",
    points=2,
    concept="checking-arguments",
    hints=(
        "What does `argv[1]` hold when a program is started without arguments?",
        "Look at the first lines of `main`: which values of `argc` go on to the rest of the "
        "program?",
        "A finger client (RFC 1288) is started as `finger USER HOST`. `argc` counts the name of "
        "the program too, so a good call has `argc == 3`. Started alone, `argv[1]` is a null "
        "pointer, and the first function that reads it ends the program with a segmentation fault. "
        "The client tests `argc != 3` before it looks at any argument, writes one line such as "
        "`usage: finger USER HOST` to standard error, and returns 2. Status 2 is an old custom for "
        "`you called me in the wrong way`; status 1 means `I tried, and it did not work`.",
    ),
)
def test_bytes_arguments(bed: Bed) -> None:
    """argv[argc] is a null pointer: a program that reads arguments nobody gave reads that
    pointer. execve(2) passes the arguments on as they are; only the program itself can count
    them."""
    for arguments in ((), ("192.0.2.5",), ("192.0.2.5", bed.port, bed.token().decode())):
        bed.start(*arguments).expect_usage_error()
