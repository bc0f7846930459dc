// Bug: the reply carries a friendly "echo: " that RFC 862 does not know.
'use strict';
const fs = require('fs');
const net = require('net');
const stream = require('stream');
const util = require('util');

function fail(call, error) {
  const words = (util.getSystemErrorMap().get(error.errno) || [])[1] || error.message;
  console.error(`echo_server: ${call}: ${words[0].toUpperCase()}${words.slice(1)}`);
  process.exit(1);
}

// 7, 65535 and "echo" are ports; 70000, 80x and -1 are not.
function portNumber(text) {
  if (/^[0-9]+$/.test(text)) return Number(text) <= 65535 ? Number(text) : null;
  if (!/^[a-z]/i.test(text)) return null;
  const services = fs.readFileSync('/etc/services', 'latin1');
  const line = services.match(new RegExp(`^${text}\\s+(\\d+)/tcp`, 'm'));
  return line ? Number(line[1]) : null;
}

function serve(socket) {
  socket.on('error', () => socket.destroy());
  const prefix = new stream.Transform({
    transform(data, encoding, done) {
      done(null, Buffer.concat([Buffer.from('echo: '), data]));
    },
  });
  socket.pipe(prefix).pipe(socket);
}

const [host, service] = process.argv.slice(2);
const port = process.argv.length === 4 ? portNumber(service) : null;
if (port === null) {
  console.error('usage: echo_server HOST PORT');
  process.exit(2);
}
const server = net.createServer({ allowHalfOpen: true }, serve);
server.on('error', (error) => {
  if (!server.listening) fail(error.syscall === 'listen' ? 'bind' : error.syscall, error);
});
server.listen({ host, port, backlog: 1024 });
