// A seller built with the official @x402/express (v2). See ../README.md for the routes and the settings.
import express from 'express';
import { setTimeout as pause } from 'node:timers/promises';
import { HTTPFacilitatorClient } from '@x402/core/server';
import { ExactEvmScheme } from '@x402/evm/exact/server';
import { paymentMiddleware, x402ResourceServer } from '@x402/express';
import { bazaarResourceServerExtension, declareDiscoveryExtension } from '@x402/extensions/bazaar';
import { declarePaymentIdentifierExtension, PAYMENT_IDENTIFIER, paymentIdentifierResourceServerExtension } from '@x402/extensions/payment-identifier';
import { serve, setting } from '../lifeline.mjs';
import { account, NETWORK, USD18, USDC } from './world.mjs';

const PEER = 'x402-express-v2';
const payTo = account(3).address;
const exact = (price, more) => ({ scheme: 'exact', network: NETWORK, payTo, price, ...more });
const usdc = atomic => ({ amount: atomic, asset: USDC, extra: { name: 'USDC', version: '2' } });
const usd18 = atomic => ({ amount: atomic, asset: USD18, extra: { name: 'Dollar18', version: '1' } });
const perUnit = ({ adapter }) => '$' + (Number(adapter.getQueryParam?.('units') ?? 1) * 0.001).toFixed(6);

const routes = {
  'GET /cheap': {
    accepts: exact('$0.001'), description: 'cheap quote', mimeType: 'application/json',
    extensions: declareDiscoveryExtension({ output: { example: { peer: PEER } } }),
  },
  'GET /report': { accepts: exact('$2.50'), description: 'report' },
  'GET /big': { accepts: exact('$100'), description: 'big' },
  'GET /dynamic': { accepts: exact(perUnit), description: 'the price depends on ?units=' },
  'POST /echo': { accepts: exact('$0.002'), description: 'echo' },
  'GET /multi': {
    accepts: [exact('$0.50'), exact(usdc('3000')), exact(usd18('2000000000000000'))],
    description: 'three offers: 0.50 USDC, 0.003 USDC, 0.002 USD18',
  },
  'GET /usd18': { accepts: exact(usd18('1000000000000000')), description: '0.001 in a token with 18 decimals' },
  'GET /fail500': { accepts: exact('$0.001'), description: 'the handler fails: not settled' },
  'GET /slow': { accepts: exact('$0.001', { maxTimeoutSeconds: 10 }), description: 'the handler takes ?ms=' },
  'GET /stream': { accepts: exact('$0.001'), description: 'a body in pieces' },
  'GET /identified': {
    accepts: exact('$0.001'), description: 'payment-identifier',
    extensions: { [PAYMENT_IDENTIFIER]: declarePaymentIdentifierExtension(false) },
  },
};
const patience = process.env.FACILITATOR_TIMEOUT_MS;
const facilitator = { url: setting('FACILITATOR_URL'), ...(patience && { timeoutMs: Number(patience) }) };
const resources = new x402ResourceServer(new HTTPFacilitatorClient(facilitator))
  .register('eip155:*', new ExactEvmScheme());
resources.registerExtension(bazaarResourceServerExtension);
resources.registerExtension(paymentIdentifierResourceServerExtension);

const app = express();
app.get('/free', (_request, response) => response.json({ peer: PEER, route: 'free' }));
app.use(paymentMiddleware(routes, resources));
app.use(express.json());
for (const route of ['cheap', 'report', 'big', 'dynamic', 'multi', 'usd18', 'identified']) {
  app.get(`/${route}`, (_request, response) => response.json({ peer: PEER, route }));
}
app.post('/echo', (request, response) => response.json({ peer: PEER, echo: request.body }));
app.get('/fail500', (_request, response) => response.status(500).json({ error: 'handler failed' }));
app.get('/slow', async (request, response) => {
  await pause(Number(request.query.ms ?? 1500));
  response.json({ peer: PEER, route: 'slow' });
});
app.get('/stream', async (_request, response) => {
  for (let i = 0; i < 5; i++) { response.write(`line ${i}\n`); await pause(50); }
  response.end();
});
serve(app, 'v2');
