// Bug: prints a newline at the end that nobody sent.
'use strict';
const dns = require('dns');
const net = require('net');

const REASONS = {
  ECONNREFUSED: 'Connection refused',
  ECONNRESET: 'Connection reset by peer',
  EHOSTUNREACH: 'No route to host',
  ENETUNREACH: 'Network is unreachable',
  ENOTFOUND: 'Name or service not known',
  EAI_AGAIN: 'Temporary failure in name resolution',
};

function fail(call, error) {
  console.error(`greeting_client: ${call}: ${REASONS[error.code] || error.message}`);
  process.exit(1);
}

function validPort(text) {
  return /^[0-9]{1,5}$/.test(text) && Number(text) <= 65535;
}

function connect(addresses, port) {
  const socket = net.connect({ host: addresses[0].address, port });
  let connected = false;
  socket.on('connect', () => (connected = true));
  socket.on('data', (data) => process.stdout.write(data));
  socket.on('end', () => process.stdout.write('\n'));
  socket.on('error', (error) => {
    if (connected) fail('recv', error);
    if (addresses.length === 1) fail('connect', error);
    connect(addresses.slice(1), port);
  });
}

const [host, port] = process.argv.slice(2);
if (process.argv.length !== 4 || !validPort(port)) {
  console.error('usage: greeting_client HOST PORT');
  process.exit(2);
}
dns.lookup(host, { all: true, verbatim: true }, (error, addresses) => {
  if (error) fail('getaddrinfo', error);
  connect(addresses, Number(port));
});
