// A local chain: anvil, with the test contracts in place and the buyer funded before it is called ready.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { createTestClient, http, publicActions, walletActions } from 'viem';
import { dieWithParent, ready } from '../lifeline.mjs';
import { account, chainAt, MULTICALL, USD18, USDC } from './world.mjs';

const here = import.meta.dirname;

/** Compiled contracts: {name: {code, abi}}. Kept beside node_modules, because the compiler takes seconds to load. */
async function contracts() {
  const source = fs.readFileSync(path.join(here, '..', 'contracts', 'TestToken.sol'), 'utf8');
  const lock = fs.readFileSync(path.join(here, 'package-lock.json'));
  const key = createHash('sha256').update(source).update(lock).digest('hex').slice(0, 16);
  const cache = path.join(here, 'node_modules', '.cache', `contracts-${key}.json`);
  if (fs.existsSync(cache)) return JSON.parse(fs.readFileSync(cache, 'utf8'));

  const { default: solc } = await import('solc');
  const out = JSON.parse(solc.compile(JSON.stringify({
    language: 'Solidity',
    sources: { 'TestToken.sol': { content: source } },
    settings: {
      optimizer: { enabled: true, runs: 200 }, viaIR: true, evmVersion: 'cancun',
      outputSelection: { '*': { '*': ['abi', 'evm.deployedBytecode.object'] } },
    },
  })));
  const errors = (out.errors ?? []).filter(e => e.severity === 'error');
  if (errors.length) throw new Error(errors.map(e => e.formattedMessage).join('\n'));
  const compiled = Object.fromEntries(Object.entries(out.contracts['TestToken.sol'])
    .map(([name, c]) => [name, { code: '0x' + c.evm.deployedBytecode.object, abi: c.abi }]));
  fs.mkdirSync(path.dirname(cache), { recursive: true });
  const mine = `${cache}.${process.pid}`; // other test binaries may be doing the same: rename is atomic
  fs.writeFileSync(mine, JSON.stringify(compiled));
  fs.renameSync(mine, cache);
  return compiled;
}

/** Starts anvil and returns its URL. A shell between us kills it when we are gone, even by SIGKILL. */
function startAnvil() {
  const binary = process.env.ANVIL
    ?? path.join(here, 'node_modules', '@foundry-rs', 'anvil-linux-amd64', 'bin', 'anvil');
  const args = ['--host', '127.0.0.1', '--port', process.env.PORT ?? '0', '--chain-id', '84532'];
  const shell = spawn('/bin/sh', ['-c', '"$0" "$@" </dev/null & pid=$!; exec >/dev/null; read -r _; kill -9 $pid', binary, ...args],
    { stdio: ['pipe', 'pipe', 'inherit'] });
  dieWithParent(() => shell.stdin.end());
  return new Promise((resolve, reject) => {
    const lines = createInterface({ input: shell.stdout });
    lines.on('line', line => {
      const address = /^Listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
      if (address) resolve(`http://${address}`);
    });
    lines.on('close', () => { reject(new Error('anvil did not start')); console.error('anvil ended'); process.exit(1); });
  });
}

const [rpc, compiled] = await Promise.all([startAnvil(), contracts()]);
const chain = createTestClient({ mode: 'anvil', transport: http(rpc), chain: chainAt(rpc), account: account(0), pollingInterval: 50 })
  .extend(publicActions).extend(walletActions);
const place = (address, name) => chain.setCode({ address, bytecode: compiled[name].code });
await Promise.all([place(USDC, 'TestUSDC'), place(USD18, 'Dollar18'), place(MULTICALL, 'Multicall')]);
for (const [token, value] of [[USDC, 1_000_000n * 10n ** 6n], [USD18, 1_000_000n * 10n ** 18n]]) {
  const hash = await chain.writeContract({ address: token, abi: compiled.TestUSDC.abi, functionName: 'mint', args: [account(2).address, value] });
  await chain.waitForTransactionReceipt({ hash });
}
ready('chain', rpc);
