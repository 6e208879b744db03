// Pays one URL N times with the official @x402/fetch client, C calls at a time, and prints one JSON line:
//   node bench-client.mjs URL [N=1] [C=1]      ACCOUNT=2 chooses the development account that pays
//   {"n", "concurrency", "seconds", "per_second", "p50_ms", "p99_ms", "errors"[, "first_error"]}
// A call counts from the first request to the last byte of the paid answer; anything but 2xx is an error.
import { wrapFetchWithPayment, x402Client } from '@x402/fetch';
import { ExactEvmScheme } from '@x402/evm/exact/client';
import { ExactEvmSchemeV1 } from '@x402/evm/exact/v1/client';
import { account, NETWORK_V1 } from './world.mjs';

const [url, n, concurrency] = [process.argv[2], Number(process.argv[3] ?? 1), Number(process.argv[4] ?? 1)];
if (!url || !(n >= 1) || !(concurrency >= 1)) { console.error('usage: node bench-client.mjs URL [N] [CONCURRENCY]'); process.exit(2); }

const payer = account(Number(process.env.ACCOUNT ?? 2));
const client = new x402Client().register('eip155:*', new ExactEvmScheme(payer)).registerV1(NETWORK_V1, new ExactEvmSchemeV1(payer));
client.setSpendControls(false);
const pay = wrapFetchWithPayment(fetch, client);

const times = [];
let started = 0, errors = 0, firstError;
async function worker() {
  while (started < n) {
    started += 1;
    const from = performance.now();
    try {
      const response = await pay(url);
      const body = await response.text();
      if (!response.ok) throw new Error(`status ${response.status}: ${body.slice(0, 200)}`);
    } catch (e) {
      errors += 1;
      firstError ??= String(e?.message ?? e);
    }
    times.push(performance.now() - from);
  }
}
const from = performance.now();
await Promise.all(Array.from({ length: Math.min(n, concurrency) }, worker));
const seconds = (performance.now() - from) / 1000;
times.sort((a, b) => a - b);
const round = x => Math.round(x * 1000) / 1000;
const percentile = p => round(times[Math.min(times.length - 1, Math.ceil(times.length * p) - 1)]);
console.log(JSON.stringify({
  n, concurrency, seconds: round(seconds), per_second: round(n / seconds),
  p50_ms: percentile(0.5), p99_ms: percentile(0.99), errors, ...(errors && { first_error: firstError }),
}));
