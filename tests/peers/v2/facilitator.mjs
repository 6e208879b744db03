// The official x402 facilitator (v2 and v1, scheme exact) over HTTP, settling on the local chain, with two test controls:
//   POST /_fault  {"verifyDelayMs": 0, "settleDelayMs": 0, "failVerify": "code", "failSettle": "code",
//                  "dropSettleReply": true, "skipSettle": true}       {} clears all
//   GET  /_log    every verify and settle so far, oldest first        DELETE /_log forgets them
// failSettle and skipSettle leave the chain alone (skipSettle lies about it); dropSettleReply settles, then hangs up.
import express from 'express';
import { setTimeout as pause } from 'node:timers/promises';
import { createWalletClient, http, publicActions } from 'viem';
import { x402Facilitator } from '@x402/core/facilitator';
import { toFacilitatorEvmSigner } from '@x402/evm';
import { ExactEvmScheme } from '@x402/evm/exact/facilitator';
import { ExactEvmSchemeV1 } from '@x402/evm/exact/v1/facilitator';
import { BAZAAR, extractDiscoveryInfo } from '@x402/extensions/bazaar';
import { serve, setting } from '../lifeline.mjs';
import { account, chainAt, NETWORK, NETWORK_V1 } from './world.mjs';

const rpc = setting('RPC_URL');
const payer = account(1);
const chain = createWalletClient({ account: payer, chain: chainAt(rpc), transport: http(rpc), pollingInterval: 50 }).extend(publicActions);

// One account sends everything, so sending is one at a time: two transactions must not choose the same number.
let last = Promise.resolve();
const inTurn = send => { const mine = last.then(send); last = mine.catch(() => {}); return mine; };

const signer = toFacilitatorEvmSigner({
  address: payer.address,
  readContract: a => chain.readContract({ ...a, args: a.args ?? [] }),
  verifyTypedData: a => chain.verifyTypedData(a),
  writeContract: a => inTurn(() => chain.writeContract({ ...a, args: a.args ?? [] })),
  sendTransaction: a => inTurn(() => chain.sendTransaction(a)),
  waitForTransactionReceipt: a => chain.waitForTransactionReceipt(a),
  getCode: a => chain.getCode(a),
});
const facilitator = new x402Facilitator()
  .register(NETWORK, new ExactEvmScheme(signer))
  .registerV1([NETWORK_V1], new ExactEvmSchemeV1(signer));
facilitator.registerExtension(BAZAAR);

const KEPT = 10_000;
const log = [];
const catalog = new Map();
let fault = {};

/** A handler which logs the call and answers with what `work` returns, or 500 with what it throws. */
const call = (op, work) => async (request, response) => {
  const { paymentPayload, paymentRequirements } = request.body ?? {};
  const entry = { at: new Date().toISOString(), op, paymentPayload, paymentRequirements };
  log.push(entry);
  if (log.length > KEPT) log.shift();
  try {
    entry.result = await work(paymentPayload, paymentRequirements);
    if (op === 'settle' && fault.dropSettleReply) return request.socket.destroy();
    response.json(entry.result);
  } catch (e) {
    entry.error = String(e?.message ?? e);
    response.status(500).json({ error: entry.error });
  }
};

const app = express();
app.use(express.json({ limit: '1mb' }));
app.get('/supported', (_request, response) => response.json(facilitator.getSupported()));
app.post('/verify', call('verify', async (payload, terms) => {
  if (fault.verifyDelayMs) await pause(fault.verifyDelayMs);
  if (fault.failVerify) return { isValid: false, invalidReason: fault.failVerify, payer: payload?.payload?.authorization?.from };
  const result = await facilitator.verify(payload, terms);
  const found = result.isValid && extractDiscoveryInfo(payload, terms);
  if (found) {
    catalog.set(found.resourceUrl, {
      resource: found.resourceUrl, type: 'http', x402Version: found.x402Version ?? payload.x402Version,
      accepts: [terms], lastUpdated: new Date().toISOString(), discoveryInfo: found.discoveryInfo,
    });
  }
  return result;
}));
app.post('/settle', call('settle', async (payload, terms) => {
  if (fault.settleDelayMs) await pause(fault.settleDelayMs);
  const about = { network: terms?.network, payer: payload?.payload?.authorization?.from };
  if (fault.failSettle) return { success: false, errorReason: fault.failSettle, transaction: '', ...about };
  if (fault.skipSettle) return { success: true, transaction: '0x' + '00'.repeat(32), ...about };
  return facilitator.settle(payload, terms);
}));
app.get('/discovery/resources', (request, response) => {
  const limit = Math.min(100, Number(request.query.limit ?? 20)), offset = Number(request.query.offset ?? 0);
  const items = [...catalog.values()].filter(item => !request.query.type || item.type === request.query.type);
  response.json({ x402Version: 2, items: items.slice(offset, offset + limit), pagination: { limit, offset, total: items.length } });
});
app.get('/_log', (_request, response) => response.json(log));
app.delete('/_log', (_request, response) => { log.length = 0; response.json({}); });
app.post('/_fault', (request, response) => { fault = request.body ?? {}; response.json(fault); });
serve(app, 'facilitator');
