// One connection and both of its ends.
'use strict';
const dns = require('dns');
const fs = require('fs');
const net = require('net');
const util = require('util');

const PROGRAM = 'endpoints';
const ARGUMENTS = 'HOST PORT';

function fail(call, text) {
  process.stderr.write(`${PROGRAM}: ${call}: ${text}\n`);
  process.exit(1);
}

// libuv has texts of its own; these are the C library's.
function textOf(error) {
  const texts = {
    EADDRNOTAVAIL: 'Cannot assign requested address',
    EAI_NODATA: 'No address associated with hostname',
    EAI_NONAME: 'Name or service not known',
    EAI_AGAIN: 'Temporary failure in name resolution',
    EAI_FAIL: 'Non-recoverable failure in name resolution',
  };
  const [name, text] = util.getSystemErrorMap().get(error.errno) || [error.code, error.message];
  return texts[name] || text[0].toUpperCase() + text.slice(1);
}

// libuv calls bind and listen in one go and names the second.
function callOf(error) {
  const ofBind = ['EADDRINUSE', 'EADDRNOTAVAIL', 'EACCES'];
  return error.syscall === 'listen' && ofBind.includes(error.code) ? 'bind' : error.syscall;
}

// A number up to 65535, or a name of /etc/services; undefined for what is neither.
function portOf(text) {
  if (/^[0-9]+$/.test(text)) return Number(text) <= 65535 ? Number(text) : undefined;
  const services = fs.existsSync('/etc/services') ? fs.readFileSync('/etc/services', 'utf8') : '';
  for (const line of services.split('\n')) {
    const [name, entry, ...aliases] = line.split('#')[0].trim().split(/\s+/);
    if (entry && entry.endsWith('/tcp') && [name, ...aliases].includes(text))
      return parseInt(entry, 10);
  }
  return undefined;
}

function withAddresses(next) {
  const [host, portText, ...rest] = process.argv.slice(2);
  const port = portText === undefined || rest.length > 0 ? undefined : portOf(portText);
  if (port === undefined) {
    process.stderr.write(`usage: ${PROGRAM} ${ARGUMENTS}\n`);
    process.exit(2);
  }
  dns.lookup(host, { all: true, verbatim: true }, (error, addresses) => {
    if (error) fail('getaddrinfo', textOf(error));
    if (addresses.length === 0) fail('getaddrinfo', 'Name or service not known');
    next(addresses, port);
  });
}

function show(what, address, port) {
  process.stdout.write(`${what} ${address} ${port}\n`);
}

withAddresses(([{ address }], port) => {
  const server = net.createServer({ pauseOnConnect: true });
  server.on('error', (error) => fail(callOf(error), textOf(error)));
  server.once('connection', (socket) => {
    server.close();
    show('local', socket.localAddress, socket.localPort);
    show('peer', socket.remoteAddress, socket.remotePort);
    socket.on('error', (error) => fail('recv', textOf(error)));
    socket.resume(); // reads and drops; at the client's end node.js ends our side too
  });
  server.listen({ host: address, port }, () => {
    const own = server.address();
    show('listening', own.address, own.port);
  });
});
