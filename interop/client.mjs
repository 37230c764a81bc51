// The WebSocket client of npm's ws against a Noria server:
//   node client.mjs ws://127.0.0.1:7001/ MAX
// MAX is the server's --max-message. Messages of every length class must come back
// unchanged, with and without compression, whole and in fragments. The server must
// answer a close with the same code, and a violation with the right one.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import WebSocket from 'ws';

const [url, max] = [process.argv[2], Number(process.argv[3])];
const sizes = [0, 1, 125, 126, 127, 1000, 65535, 65536, 1 << 20, 8 << 20];
const words = Buffer.from('a wheel turns, größer und größer. '.repeat(300_000));

// text returns about n bytes of words, and does not cut a character.
function text(n) {
  while (n > 0 && (words[n] & 0xc0) === 0x80) n--;
  return words.subarray(0, n);
}

async function open(perMessageDeflate) {
  const socket = new WebSocket(url, { perMessageDeflate, maxPayload: 0 });
  const received = [];
  let wake = () => {};
  socket.on('message', (data, binary) => { received.push([data, binary]); wake(); });
  await once(socket, 'open');
  const next = async () => {
    while (received.length === 0) await new Promise((r) => { wake = r; });
    return received.shift();
  };
  return { socket, next };
}

async function closed(socket) {
  const [code, reason] = await once(socket, 'close');
  return `${code} ${reason}`;
}

async function echoes(perMessageDeflate) {
  const { socket, next } = await open(perMessageDeflate);
  assert.equal(socket.extensions !== '', Boolean(perMessageDeflate), `extensions ${socket.extensions}`);
  const echo = async (sent, binary) => {
    const [data, isBinary] = await next();
    assert.equal(isBinary, binary);
    assert.ok(data.equals(sent), `${sent.length} bytes came back as ${data.length} others`);
  };
  let n = 0;
  for (const size of sizes) {
    for (const [sent, binary] of [[randomBytes(size), true], [text(size), false]]) {
      socket.send(sent, { binary });
      await echo(sent, binary);
      n++;
    }
  }
  // Several in flight at once.
  const many = Array.from({ length: 500 }, (_, i) => Buffer.from(`message ${i}, `.repeat(i)));
  for (const m of many) socket.send(m, { binary: false });
  for (const m of many) await echo(m, false);
  // In fragments, with a ping between them.
  const parts = Array.from({ length: 50 }, (_, i) => text(i * 37));
  const pong = once(socket, 'pong');
  parts.forEach((p, i) => {
    if (i === 25) socket.ping('between');
    socket.send(p, { binary: false, fin: i === parts.length - 1 });
  });
  await echo(Buffer.concat(parts), false);
  assert.equal(String((await pong)[0]), 'between');
  socket.close(4321, 'größer');
  assert.equal((await closed(socket)).split(' ')[0], '4321');
  return `${n + many.length + 1} messages came back, ${socket.extensions || 'not compressed'}`;
}

for (const d of [false, true,
  { serverNoContextTakeover: true, clientNoContextTakeover: true, threshold: 0 },
  { serverMaxWindowBits: 9, clientMaxWindowBits: 10, threshold: 0 }]) {
  console.log('npm ws, client:', await echoes(d));
}
for (const code of [1000, 1001, 3000, 4999]) {
  const { socket } = await open(false);
  socket.close(code);
  assert.equal(await closed(socket), `${code} `);
}
for (const [sent, binary, code] of [[Buffer.from([0x61, 0xff]), false, 1007], [Buffer.alloc(max + 1), true, 1009]]) {
  for (const d of [false, { threshold: 0 }]) {
    const { socket } = await open(d);
    socket.on('error', () => {}); // the server may close before everything is sent
    socket.send(sent, { binary, compress: Boolean(d) }, () => {});
    assert.equal((await closed(socket)).split(' ')[0], String(code));
  }
}
console.log('npm ws, client: the close codes are right');
