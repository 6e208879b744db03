"""Pays one URL N times with the official Python client, C calls at a time: bench_client.py URL N C, the key in BUYER_KEY.

Prints one JSON line in the shape of tests/peers/v2/bench-client.mjs."""
import asyncio
import json
import os
import sys
import time

from eth_account import Account
from x402 import x402Client
from x402.http.clients import x402HttpxClient
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact.register import register_exact_evm_client

url, n, concurrency = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


async def main():
    client = x402Client()
    register_exact_evm_client(client, EthAccountSigner(Account.from_key(os.environ["BUYER_KEY"])))
    times, errors, started = [], [], 0

    async def worker(http):
        nonlocal started
        while started < n:
            started += 1
            begun = time.perf_counter()
            try:
                answer = await http.get(url)
                await answer.aread()
                if not answer.is_success:
                    raise RuntimeError(f"{answer.status_code}: {answer.text[:200]}")
                times.append(time.perf_counter() - begun)
            except Exception as error:  # whatever it is, it is no purchase
                errors.append(repr(error))

    begun = time.perf_counter()
    async with x402HttpxClient(client, timeout=120, trust_env=False) as http:
        await asyncio.gather(*(worker(http) for _ in range(min(n, concurrency))))
    seconds = time.perf_counter() - begun
    times.sort()

    def quantile(percent):
        rank = max(1, -(-len(times) * percent // 100))
        return round(times[rank - 1] * 1000, 2) if times else None

    print(json.dumps({
        "n": n, "concurrency": concurrency, "seconds": seconds, "per_second": len(times) / seconds,
        "p50_ms": quantile(50), "p99_ms": quantile(99), "errors": len(errors), "first_error": errors[0] if errors else None,
    }))


asyncio.run(main())
