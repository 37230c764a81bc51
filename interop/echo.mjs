// The WebSocket client of npm's ws: text and binary messages of every length class must
// come back unchanged, and the server must answer the close.
import { randomBytes } from 'node:crypto';
import WebSocket from 'ws';

const sizes = [0, 1, 125, 126, 65535, 65536, 1 << 20];
const socket = new WebSocket(process.argv[2], { perMessageDeflate: false });
const received = [];
let wake = () => {};
socket.on('message', (data, binary) => { received.push([data, binary]); wake(); });
const next = async () => {
  while (received.length === 0) await new Promise((r) => { wake = r; });
  return received.shift();
};

await new Promise((resolve, reject) => { socket.on('open', resolve); socket.on('error', reject); });
for (const binary of [true, false]) {
  for (const size of sizes) {
    const sent = binary ? randomBytes(size) : Buffer.from('x'.repeat(size));
    socket.send(sent, { binary });
    const [data, isBinary] = await next();
    if (isBinary !== binary || !data.equals(sent)) throw new Error(`${size} bytes came back as ${data.length}`);
  }
}
const closed = new Promise((resolve) => socket.on('close', (code) => resolve(code)));
socket.close(1000);
const code = await closed;
if (code !== 1000) throw new Error(`closed with ${code}`);
console.log(`ws ${sizes.length * 2} messages came back, closed with ${code}`);
