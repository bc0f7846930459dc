// Everything that the server sends, on standard output.
'use strict';
const dns = require('dns');
const fs = require('fs');
const net = require('net');
const util = require('util');

const PROGRAM = 'greeting_client';
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

function print(socket) {
  socket.on('error', (error) => fail('recv', textOf(error)));
  process.stdout.on('error', (error) => fail('write', textOf(error)));
  socket.pipe(process.stdout, { end: false });
}

function connect([{ address }, ...others], port) {
  const socket = net.connect({ host: address, port });
  const onError = (error) => {
    if (others.length === 0) fail(error.syscall, textOf(error));
    connect(others, port);
  };
  socket.once('error', onError);
  socket.once('connect', () => {
    socket.off('error', onError);
    print(socket);
  });
}

withAddresses(connect);
