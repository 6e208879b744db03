// A seller built with the official mppx (MPP, method `evm`), which settles through the x402 facilitator. See ../README.md.
import express from 'express';
import { evm, payment } from 'mppx/express';
import { Mppx as Server } from 'mppx/server';
import { serve, setting } from '../lifeline.mjs';

const PEER = 'mppx';
const USDC = '0x036CbD53842c5426634e7929541eC2318f3dCF7e';

const { evm: seller } = Server.create({
  methods: [
    evm({
      currency: USDC, chainId: 84532, decimals: 6, authorization: { name: 'USDC', version: '2' },
      recipient: '0x90F79bf6EB2c4f870365E785982E1f101E93b906',
      x402: { facilitator: setting('FACILITATOR_URL') },
    }),
  ],
  realm: 'mppx.test',
  secretKey: 'a-secret-of-the-tests-and-of-nothing-else',
});
const charge = options => payment(seller.charge, options);

/** mppx makes an x402 offer beside every challenge, where it is not hidden from the answer. */
const onlyMpp = (_request, response, next) => {
  const set = response.setHeader.bind(response);
  response.setHeader = (name, value) => (name.toLowerCase() === 'payment-required' ? response : set(name, value));
  next();
};

const app = express();
const answer = route => (_request, response) => response.json({ peer: PEER, route });
app.get('/cheap', onlyMpp, charge({ amount: '0.001', description: 'a "cheap" quote — one tenth of a cent' }), answer('cheap'));
app.get('/both', charge({ amount: '0.001', description: 'both' }), answer('both'));
app.post('/echo', onlyMpp, charge({ amount: '0.002' }), express.json(), (request, response) => {
  response.json({ peer: PEER, echo: request.body });
});
serve(app, 'mpp');
