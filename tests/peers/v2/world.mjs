// The one network of the tests: a local chain that has Base Sepolia's id and a USDC where Base Sepolia has it.
import { defineChain } from 'viem';
import { mnemonicToAccount } from 'viem/accounts';

// The public development mnemonic which anvil prints at start. Its keys must never hold value.
const MNEMONIC = 'test test test test test test test test test test test junk';

/** Development account by index: 0 deployer, 1 facilitator (pays gas), 2 buyer, 3 seller, 5 buyer without tokens. */
export const account = index => mnemonicToAccount(MNEMONIC, { addressIndex: index });

export const NETWORK = 'eip155:84532';
export const NETWORK_V1 = 'base-sepolia';
export const USDC = '0x036CbD53842c5426634e7929541eC2318f3dCF7e';
export const USD18 = '0x1800000000000000000000000000000000000018';
export const MULTICALL = '0xcA11bde05977b3631167028862bE2a173976CA11';

export const chainAt = rpc => defineChain({
  id: 84532,
  name: 'local stand-in for Base Sepolia',
  nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
  rpcUrls: { default: { http: [rpc] } },
  contracts: { multicall3: { address: MULTICALL } },
});
