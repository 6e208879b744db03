// GET URL with one of Node's HTTP clients as it comes; prints the answer as one JSON line.
const [client, url] = process.argv.slice(2);

const clients = {
  async axios() {
    const { default: axios } = await import('axios');
    const answer = await axios.get(url, { responseType: 'text', transformResponse: x => x });
    return { status: answer.status, headers: { ...answer.headers }, body: answer.data };
  },
  // From 22.21 on Node's own fetch reads the proxy from the environment; before, it is told to by undici.
  async fetch() {
    const [major, minor] = process.versions.node.split('.').map(Number);
    if (major < 22 || (major === 22 && minor < 21)) {
      const { EnvHttpProxyAgent, setGlobalDispatcher } = await import('undici');
      setGlobalDispatcher(new EnvHttpProxyAgent());
    }
    const answer = await fetch(url);
    return { status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text() };
  },
};
console.log(JSON.stringify(await clients[client]()));
