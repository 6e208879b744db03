// A seller built with the official, deprecated x402-express (v1). See ../README.md for the routes.
import express from 'express';
import { paymentMiddleware } from 'x402-express';
import { serve, setting } from '../lifeline.mjs';

const PEER = 'x402-express-v1';
const PAY_TO = '0x90F79bf6EB2c4f870365E785982E1f101E93b906'; // development account 3, as in ../v2/world.mjs
const network = 'base-sepolia';
const usdc = { address: '0x036CbD53842c5426634e7929541eC2318f3dCF7e', decimals: 6, eip712: { name: 'USDC', version: '2' } };

const app = express();
app.use(paymentMiddleware(PAY_TO, {
  'GET /cheap': { price: '$0.001', network, config: { description: 'cheap quote', mimeType: 'application/json' } },
  'GET /report': { price: '$2.50', network, config: { description: 'report' } },
  'GET /big': { price: '$100', network },
  'GET /atomic': { price: { amount: '3000', asset: usdc }, network },
  'POST /echo': { price: '$0.002', network, config: { description: 'echo' } },
  'GET /fail500': { price: '$0.001', network },
}, { url: setting('FACILITATOR_URL') }));
app.use(express.json());
for (const route of ['cheap', 'report', 'big', 'atomic']) {
  app.get(`/${route}`, (_request, response) => response.json({ peer: PEER, route }));
}
app.post('/echo', (request, response) => response.json({ peer: PEER, echo: request.body }));
app.get('/fail500', (_request, response) => response.status(500).json({ error: 'handler failed' }));
serve(app, 'v1');
