// The bytes of a socket address, worked out from the text by hand.
'use strict';
const fs = require('fs');
const net = require('net');

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

function hex(number, digits) {
  return number.toString(16).padStart(digits, '0');
}

function hexOfInet(text) {
  return text.split('.').map((octet) => hex(Number(octet), 2)).join('');
}

// The groups of one side of '::', each of 16 bits; a dotted quad at the end is two of them.
function groupsOf(side) {
  if (side === '') return '';
  return side.split(':').map((g) => (g.includes('.') ? hexOfInet(g) : g.padStart(4, '0'))).join('');
}

function hexOfInet6(text) {
  const [before, after = ''] = text.split('::').map(groupsOf);
  return (before + '0'.repeat(32 - before.length - after.length) + after).toLowerCase();
}

function lineOf(address, portText) {
  const port = portText === undefined ? undefined : portOf(portText);
  if (port === undefined) return undefined;
  if (net.isIPv4(address)) return `inet ${hex(port, 4)} ${hexOfInet(address)}`;
  if (net.isIPv6(address) && !address.includes('%'))
    return `inet6 ${hex(port, 4)} ${hexOfInet6(address)}`;
  return undefined;
}

const line = process.argv.length === 4 ? lineOf(...process.argv.slice(2)) : undefined;
if (line === undefined) {
  process.stderr.write('usage: sockaddr_bytes ADDRESS PORT\n');
  process.exitCode = 2;
} else {
  process.stdout.write(`${line}\n`);
}
