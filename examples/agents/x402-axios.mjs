// `@x402/axios` without a key: each call that is answered 402 is paid for with what Countersign signs for that very call.
import { createHash } from 'node:crypto';
import { wrapAxiosWithPayment, x402HTTPClient } from '@x402/axios';
const CALL = 'x-countersign-call'; // Never sent: tells the client which call was answered 402.
class Countersign extends x402HTTPClient {
  getPaymentRequiredResponse(header, body) {
    const required = header('PAYMENT-REQUIRED');
    return { ...(required ? { header: required } : { payment_required: body }), resource: JSON.parse(header(CALL)) };
  }
  async handlePaymentRequired() {}
  async createPaymentPayload(order) {
    const headers = { Authorization: `Bearer ${process.env.COUNTERSIGN_TOKEN}` };
    const body = JSON.stringify(order);
    const signed = await (await fetch(`${process.env.COUNTERSIGN_URL}/v1/sign`, { method: 'POST', headers, body })).json();
    if (!signed.header_name) throw new Error(`${signed.code}: ${signed.detail} (purchase ${signed.purchase})`);
    return signed;
  }
  encodePaymentSignatureHeader = signed => ({ [signed.header_name]: signed.header_value });
}

export function withPayment(instance) {
  instance.interceptors.response.use(undefined, error => {
    const { config: { method, data = '' }, response } = error;
    const digest = () => createHash('sha256').update(data).digest('hex');
    const call = () => ({ url: instance.getUri(error.config), method, body_sha256: digest() });
    if (response?.status === 402) response.headers[CALL] = JSON.stringify(call());
    throw error;
  });
  return wrapAxiosWithPayment(instance, new Countersign());
}
