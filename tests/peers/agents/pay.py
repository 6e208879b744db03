"""One call with an official x402 client that holds no key: pay.py CLIENT METHOD URL [BODY]. Prints {status, headers, body}."""

import asyncio
import json
import sys


def with_requests(method, url, body, headers):
    import requests
    from x402_requests import Countersign, CountersignAdapter

    with requests.Session() as session:
        session.mount("http://", CountersignAdapter(Countersign()))
        return session.request(method, url, data=body, headers=headers)


def with_httpx(method, url, body, headers):
    import httpx
    from x402_httpx import Countersign, CountersignTransport

    async def call():
        async with httpx.AsyncClient(transport=CountersignTransport(Countersign())) as client:
            return await client.request(method, url, content=body, headers=headers)

    return asyncio.run(call())


client, method, url, *rest = sys.argv[1:]
body = rest[0] if rest else None
headers = {"content-type": "application/json"} if body else {}
try:
    answer = {"requests": with_requests, "httpx": with_httpx}[client](method, url, body, headers)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    print(json.dumps({"status": answer.status_code, "headers": headers, "body": answer.text}))
except Exception as error:
    print(json.dumps({"error": str(error)}))
