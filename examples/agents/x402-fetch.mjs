// `@x402/fetch` without a key: each call that is answered 402 is paid for with what Countersign signs for that very call.
import { createHash } from 'node:crypto';
import { wrapFetchWithPayment, x402HTTPClient } from '@x402/fetch';

class Countersign extends x402HTTPClient {
  resource;
  getPaymentRequiredResponse(header, body) {
    const required = header('PAYMENT-REQUIRED');
    return required ? { header: required } : { payment_required: body };
  }
  async handlePaymentRequired() {}
  async createPaymentPayload(copy) {
    const headers = { Authorization: `Bearer ${process.env.COUNTERSIGN_TOKEN}` };
    const body = JSON.stringify({ ...copy, resource: this.resource });
    const signed = await (await fetch(`${process.env.COUNTERSIGN_URL}/v1/sign`, { method: 'POST', headers, body })).json();
    if (!signed.header_name) throw new Error(`${signed.code}: ${signed.detail} (purchase ${signed.purchase})`);
    return signed;
  }
  encodePaymentSignatureHeader = signed => ({ [signed.header_name]: signed.header_value });
  processPaymentResult = async () => ({ recovered: false });
}

export async function fetchWithPayment(input, init) {
  const request = new Request(input, init);
  const body = Buffer.from(await request.clone().arrayBuffer());
  const client = new Countersign();
  client.resource = { url: request.url, method: request.method, body_sha256: createHash('sha256').update(body).digest('hex') };
  return wrapFetchWithPayment(fetch, client)(request);
}
