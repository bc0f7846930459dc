#!/usr/bin/env bats
# Programs that people use every day, judged as they are by one command line each. Where one breaks
# the contract, the test says in which check, and shows it by means that are not the kit's.

# shellcheck disable=SC2154 # sockwork and others are set by common.bash
# shellcheck disable=SC2016 # $HOST and $PORT are for the shell that the grader starts

bats_require_minimum_version 1.5.0

setup() {
  load common
  use_built_testbed
  results=$BATS_TEST_TMPDIR/results.json
}

needs() {
  for program in "$@"; do
    command -v "$program" >/dev/null || skip "needs $program"
  done
}

# judge LAB PROGRAM COMMAND [OPTION…]: one `check --exec`, its results in $results.
judge() {
  lab=$1 program=$2 command=$3
  shift 3
  "$sockwork" check "$lab" --program "$program" --exec "$command" --only core --json "$results" \
    "$@" >"$BATS_TEST_TMPDIR/report" || true
}

# The ids of the checks that ended so, in order, on one line.
ended() {
  /usr/bin/python3 - "$results" "$1" <<'EOF'
import json, sys
labs = json.load(open(sys.argv[1]))["labs"]
checks = [check for lab in labs for check in lab["checks"] if check["status"] == sys.argv[2]]
print(" ".join(check["id"] for check in checks))
EOF
}

# Exactly these checks fail, none ends in an error, and at least $1 pass.
expect_failing() {
  least=$1
  shift
  [ "$(ended fail)" = "$*" ] || { cat "$BATS_TEST_TMPDIR/report" && false; }
  [ "$(ended error)" = "" ] || { cat "$BATS_TEST_TMPDIR/report" && false; }
  [ "$(ended pass | wc -w)" -ge "$least" ]
}

node_echo='exec node -e '\''
  const server = require("net").createServer({ allowHalfOpen: true }, (client) => {
    client.on("error", () => client.destroy());
    client.pipe(client);
  });
  const [host, port] = process.argv.slice(1);
  const usage = () => { console.error("usage: echo_server HOST PORT"); process.exit(2); };
  if (process.argv.length !== 3 || !/^[0-9]+$/.test(port) || +port > 65535) usage();
  server.on("error", (error) => {
    const reason = require("util").getSystemErrorMap().get(error.errno)[1];
    console.error("echo_server: bind: " + reason[0].toUpperCase() + reason.slice(1));
    process.exit(1);
  });
  server.listen(+port, host);
'\'' $HOST $PORT'

python_echo='exec python3 -c '\''
import socketserver, sys
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
        except OSError:
            pass
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 128
if len(sys.argv) != 3 or not sys.argv[2].isdecimal() or int(sys.argv[2]) > 65535:
    sys.stderr.write("usage: echo_server HOST PORT\n")
    sys.exit(2)
try:
    Server((sys.argv[1], int(sys.argv[2])), Echo).serve_forever()
except OSError as error:
    sys.exit("echo_server: bind: " + error.strerror)
'\'' $HOST $PORT'

xinetd_echo='printf "service echo
{
  type = INTERNAL UNLISTED
  id = echo-stream
  socket_type = stream
  protocol = tcp
  user = student
  wait = no
  port = %s
  bind = %s
  instances = UNLIMITED
  per_source = UNLIMITED
  cps = 100000 1
}" $PORT $HOST >/tmp/xinetd.conf; exec xinetd -dontfork -f /tmp/xinetd.conf'

@test "node.js: an echo server with allowHalfOpen passes every core check" {
  needs node
  judge 2 echo_server "$node_echo"
  expect_failing 35
}

@test "python3: a threading socketserver passes all but one: it spins when descriptors run out" {
  judge 2 echo_server "$python_echo" --without inet6
  expect_failing 33 limit-no-spin
  # The same without the kit: 12 descriptors, 12 silent clients, and one second of processor time
  # that a sleeping server would never use up. 137: the kernel's SIGKILL at that limit.
  run -137 timeout 60 bash -c '
    coproc { ulimit -n 12; ulimit -t 1; exec python3 -c "
import socketserver
class Server(socketserver.ThreadingTCPServer):
    daemon_threads, request_queue_size = True, 128
server = Server((\"127.0.0.1\", 0), socketserver.StreamRequestHandler)
print(server.server_address[1], flush=True)
class Silent(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(1)
server.RequestHandlerClass = Silent
server.serve_forever()"; }
    server=$COPROC_PID
    read -r port <&"${COPROC[0]}"
    for _ in $(seq 12); do exec {client}<>"/dev/tcp/127.0.0.1/$port"; done
    wait "$server"'
}

@test "socat: a fork for each client passes all but the texts for people" {
  needs socat
  judge 2 echo_server 'exec socat -t 30 TCP-LISTEN:$PORT,bind=$HOST,fork,reuseaddr EXEC:cat' --without inet6
  # It names the reason in words of its own, and ends with status 1 where arguments are missing.
  expect_failing 32 error-line server-usage
  run -1 socat -t 30 TCP-LISTEN:,fork EXEC:cat
}

@test "xinetd: its internal echo passes all but what it does when it cannot start" {
  needs xinetd
  judge 2 echo_server "$xinetd_echo"
  # When the port is taken xinetd logs it and stays, without any service.
  expect_failing 33 port-taken server-usage
}

@test "ncat: with --exec it cuts off the reply and refuses the hundredth client" {
  needs ncat
  judge 2 echo_server 'exec ncat -lk $HOST $PORT --exec /bin/cat' --without inet6
  [[ " $(ended fail) " == *" thousand-clients "* ]]
  # ncat(1): "The default maximum number of simultaneous connections is 100."
  run -0 ncat --help
  [[ $output == *"--max-conns"* ]]
}

node_greeting='exec node -e '\''
  const [host, port] = process.argv.slice(1);
  const usage = () => { console.error("usage: greeting_server HOST PORT"); process.exit(2); };
  if (process.argv.length !== 3 || !/^[0-9]+$/.test(port) || +port > 65535) usage();
  require("net").createServer((client) => {
    client.on("error", () => {});
    const shown = client.remoteFamily === "IPv6" ? "[" + client.remoteAddress + "]" : client.remoteAddress;
    console.log("connected from: " + shown + ":" + client.remotePort);
    client.end("hello client");
    client.resume();
  }).listen(+port, host);
'\'' $HOST $PORT'

node_client='exec node -e '\''
  const [host, port] = process.argv.slice(1);
  const usage = () => { console.error("usage: greeting_client HOST PORT"); process.exit(2); };
  if (process.argv.length !== 3 || !/^[0-9]+$/.test(port) || +port > 65535) usage();
  const net = require("net"), dns = require("dns"), util = require("util");
  const fail = (call, error) => {
    const known = util.getSystemErrorMap().get(error.errno);
    const text = call === "getaddrinfo" ? "Name or service not known" : known[1];
    console.error("greeting_client: " + call + ": " + text[0].toUpperCase() + text.slice(1));
    process.exitCode = 1;
  };
  dns.lookup(host, { all: true, verbatim: true }, (error, addresses) => {
    if (error) return fail("getaddrinfo", error);
    const next = (last) => {
      const entry = addresses.shift();
      if (!entry) return fail("connect", last);
      let connected = false;
      const socket = net.connect(+port, entry.address, () => { connected = true; });
      socket.on("error", (failure) => (connected ? fail("recv", failure) : next(failure)));
      socket.pipe(process.stdout);
    };
    next();
  });
'\'' $HOST $PORT'

@test "node.js: a greeting server passes every core check" {
  needs node
  judge 1 greeting_server "$node_greeting"
  expect_failing 8
}

@test "node.js: a greeting client passes every core check" {
  needs node
  judge 1 greeting_client "$node_client"
  expect_failing 11
}

# The greeting comes from a file: with a child process for it, socat sometimes ends a connection
# without a word, when the child is gone before it has looked.
@test "socat: as a greeting server it keeps silent about its clients and takes any number as port" {
  needs socat
  judge 1 greeting_server 'printf "hello client" >/tmp/greeting
    exec socat -U TCP-LISTEN:$PORT,bind=$HOST,fork,reuseaddr OPEN:/tmp/greeting,rdonly' --without inet6
  expect_failing 4 greeting-from greeting-bad-port
}
