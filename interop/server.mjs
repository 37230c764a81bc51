// An echo server on npm's ws. It prints its port. The text "close CODE REASON" makes it
// close the connection.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ host: '127.0.0.1', port: 0, maxPayload: 64 << 20, perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => (offered.has('echo') ? 'echo' : false) });
server.on('listening', () => console.log(server.address().port));
server.on('connection', (socket) => {
  socket.on('message', (data, binary) => {
    const asked = binary ? null : /^close (\d+) (.*)$/.exec(data);
    if (asked) socket.close(Number(asked[1]), asked[2]);
    else socket.send(data, { binary });
  });
  socket.on('error', (err) => console.error('server:', err.message));
});
