// Bug: sends a newline after the greeting.
'use strict';
const net = require('net');

function validPort(text) {
  if (/^[0-9]{1,5}$/.test(text)) return Number(text) <= 65535;
  return text === 'http';
}

const [host, port] = process.argv.slice(2);
if (process.argv.length !== 4 || !validPort(port)) {
  console.error('usage: greeting_server HOST PORT');
  process.exit(2);
}

const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => {});
  console.log(`connected from: ${socket.remoteAddress}:${socket.remotePort}`);
  socket.resume(); // unread bytes would turn the FIN into an RST
  socket.end('hello client\n');
});
server.on('error', (error) => {
  const reasons = { EADDRINUSE: 'Address already in use' };
  const call = error.syscall === 'listen' ? 'bind' : error.syscall;
  console.error(`greeting_server: ${call}: ${reasons[error.code] || error.message}`);
  process.exit(1);
});
server.listen(port === 'http' ? 80 : Number(port), host);
