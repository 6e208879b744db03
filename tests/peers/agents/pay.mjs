// One call with an official x402 client that holds no key: pay.mjs CLIENT METHOD URL [BODY]. Prints {status, headers, body}.
const [client, method, url, body] = process.argv.slice(2);
const json = body && { 'content-type': 'application/json' };

const clients = {
  async fetch() {
    const { fetchWithPayment } = await import('../../../examples/agents/x402-fetch.mjs');
    const answer = await fetchWithPayment(url, { method, headers: json, body });
    return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
  },
  async axios() {
    const { withPayment } = await import('../../../examples/agents/x402-axios.mjs');
    const { default: axios } = await import('../../../examples/agents/node_modules/axios/index.js');
    const answer = await withPayment(axios.create()).request({ method, url, headers: json, data: body });
    return { status: answer.status, headers: { ...answer.headers }, body: JSON.stringify(answer.data) };
  },
};

try {
  console.log(JSON.stringify(await clients[client]()));
} catch (error) {
  console.log(JSON.stringify({ error: error.message }));
}
