// A real browser, headless Chromium, on the page of `noria serve`. The script drives it
// over its own WebSocket (the DevTools protocol).
//   node browser.mjs http://127.0.0.1:7001/ MAX SCREENSHOT.png
// MAX is the server's --max-message. The script checks that the page measures and
// echoes what is typed; from within the page, compression, large messages and close
// codes; and that a page of another origin is refused.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import WebSocket from 'ws';

const [url, max, screenshot] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const profile = mkdtempSync(join(tmpdir(), 'noria-chromium-'));
const chromium = spawn('chromium', ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--window-size=1100,900', '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'],
{ stdio: ['ignore', 'ignore', 'pipe'] });
let said = '';
chromium.stderr.on('data', (d) => { said += d; });
const gone = new Promise((resolve) => chromium.on('exit', resolve));

// until calls f again and again until it returns a value, and fails after a minute.
async function until(what, f) {
  for (const end = Date.now() + 60_000; Date.now() < end; await sleep(50)) {
    const v = await f();
    if (v) return v;
    if (chromium.exitCode !== null) throw new Error(`chromium ended:\n${said}`);
  }
  throw new Error(`timed out: ${what}\n${said}`);
}

async function devTools() {
  const file = join(profile, 'DevToolsActivePort');
  const port = await until('chromium starts', () => existsSync(file) && readFileSync(file, 'utf8').split('\n')[1] && readFileSync(file, 'utf8').split('\n')[0]);
  const target = await until('chromium has a page', async () => (await (await fetch(`http://127.0.0.1:${port}/json/list`)).json()).find((t) => t.type === 'page'));
  const socket = new WebSocket(target.webSocketDebuggerUrl, { perMessageDeflate: false, maxPayload: 0 });
  await new Promise((resolve, reject) => { socket.on('open', resolve); socket.on('error', reject); });
  const waiting = new Map();
  let id = 0;
  socket.on('message', (m) => {
    const { id: answers, result, error } = JSON.parse(m);
    const w = waiting.get(answers);
    waiting.delete(answers);
    if (w) error ? w.reject(new Error(error.message)) : w.resolve(result);
  });
  const call = (method, params = {}) => new Promise((resolve, reject) => {
    waiting.set(++id, { resolve, reject });
    socket.send(JSON.stringify({ id, method, params }));
  });
  // run evaluates an expression, which may be a promise, in the page.
  const run = async (expression) => {
    const r = await call('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
    if (r.exceptionDetails) throw new Error(`in the page: ${r.exceptionDetails.exception?.description ?? r.exceptionDetails.text}`);
    return r.result.value;
  };
  return { call, run };
}

// Functions that run in the page.
const inPage = `
  const opened = (s) => new Promise((resolve, reject) => { s.binaryType = 'arraybuffer'; s.onopen = () => resolve(s); s.onclose = (e) => reject(new Error('closed with ' + e.code)); });
  const closed = (s) => new Promise((resolve) => { s.onclose = (e) => resolve(e.code + ' ' + e.wasClean); });
  const message = (s) => new Promise((resolve) => { s.onmessage = (e) => resolve(e.data); });
  const to = (path) => new WebSocket(location.href.replace(/^http/, 'ws') + path);
`;

try {
  const { call, run } = await devTools();
  await call('Page.enable');
  await call('Page.navigate', { url });
  await until('the page connects', () => run(`document.readyState === 'complete' && document.getElementById('status')?.className === 'open'`));
  await until('it measures', () => run('rtts.length > 50'));
  await run(`document.getElementById('text').value = 'hello from a browser'; document.getElementById('form').requestSubmit()`);
  await run(`document.getElementById('text').value = 'größer ✓'; document.getElementById('form').requestSubmit()`);
  await until('what was typed comes back', () => run(`echoed === 2 && document.getElementById('log').textContent.includes('← größer ✓')`));
  await run(`document.getElementById('run').click()`);
  await until('it shows a throughput', () => run('rates.filter((r) => r > 100).length > 12'));
  await sleep(200); // a few frames of the plot
  const { data } = await call('Page.captureScreenshot', { format: 'png' });
  writeFileSync(screenshot, Buffer.from(data, 'base64'));
  const rate = await run(`document.getElementById('rate').textContent`);
  await run(`document.getElementById('run').click()`);

  const extensions = await run(`(async () => { ${inPage} const s = await opened(to('x')); const e = s.extensions; s.close(); return e; })()`);
  assert.match(extensions, /^permessage-deflate/);
  const sizes = await run(`(async () => { ${inPage}
    const s = await opened(to('large'));
    const done = [];
    for (const n of [0, 125, 126, 65535, 65536, 1 << 20, 16 << 20]) {
      const b = new Uint8Array(n);
      for (let i = 0; i < n; i++) b[i] = (i * i) >> 3;
      s.send(b);
      const got = new Uint8Array(await message(s));
      if (got.length !== n || got.some((v, i) => v !== b[i])) throw new Error(n + ' bytes differ');
      const t = 'größer 🎡 '.repeat(n / 16);
      s.send(t);
      if (await message(s) !== t) throw new Error(n + ' characters differ');
      done.push(n);
    }
    s.close();
    return done.length;
  })()`);
  assert.equal(sizes, 7);
  const codes = await run(`(async () => { ${inPage}
    const list = [];
    for (const code of [undefined, 1000, 3000, 4999]) {
      const s = await opened(to('close'));
      code ? s.close(code, 'größer') : s.close();
      list.push(await closed(s));
    }
    const s = await opened(to('too-big'));
    s.send(new Uint8Array(${max} + 1));
    list.push(await closed(s));
    return list;
  })()`);
  assert.deepEqual(codes, ['1005 true', '1000 true', '3000 true', '4999 true', '1009 true']);
  await run(`document.getElementById('toggle').click()`);
  await until('the page says that it is closed', () => run(`document.getElementById('status').textContent.startsWith('closed: 1000')`));

  // A page of another origin must be refused.
  const elsewhere = createServer((_, r) => { r.setHeader('Content-Type', 'text/html'); r.end('<title>elsewhere</title>'); });
  await new Promise((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
  await call('Page.navigate', { url: `http://127.0.0.1:${elsewhere.address().port}/` });
  await until('the other page is there', () => run(`document.title === 'elsewhere'`));
  const refused = await run(`(async () => { ${inPage} const s = new WebSocket(${JSON.stringify(url.replace(/^http/, 'ws'))}); return closed(s); })()`);
  assert.equal(refused, '1006 false');
  elsewhere.close();
  elsewhere.closeAllConnections();
  console.log(`chromium: ${rate}; ${extensions}; large messages, close codes ${codes.map((c) => c.split(' ')[0]).join(' ')}, another origin refused; ${screenshot}`);
} finally {
  chromium.kill();
  await gone;
  for (let tries = 0; ; tries++) { // Chromium's child processes may still write to it
    try {
      rmSync(profile, { recursive: true, force: true });
      break;
    } catch (e) {
      if (tries === 100) throw e;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
