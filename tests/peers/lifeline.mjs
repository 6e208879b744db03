// What every peer does the same way: listen on loopback, say so in one line, and never outlive whoever started it.

/** Ends this process when its standard input closes, which it does whenever the parent is gone, however it went. */
export function dieWithParent(onEnd = () => {}) {
  const end = () => { onEnd(); process.exit(0); };
  process.stdin.on('end', end).on('close', end).on('error', end).resume();
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, end);
}

/** The single line on standard output that the harness waits for. */
export const ready = (peer, url) => process.stdout.write(JSON.stringify({ ready: peer, url }) + '\n');

/** Serves an Express app on 127.0.0.1 at PORT (0 or unset: any free port), then says so. */
export function serve(app, peer) {
  dieWithParent();
  const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1');
  server.on('error', e => { console.error(String(e)); process.exit(1); });
  server.on('listening', () => ready(peer, `http://127.0.0.1:${server.address().port}`));
}

/** A required setting from the environment. */
export function setting(name) {
  const value = process.env[name];
  if (!value) { console.error(`${name} is not set`); process.exit(2); }
  return value;
}
