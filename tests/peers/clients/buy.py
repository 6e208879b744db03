"""GET URL with one of Python's HTTP clients as it comes; prints the answer as one JSON line."""
import asyncio
import json
import sys
import urllib.request


def with_urllib(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.status, answer.headers.items(), answer.read()


def with_requests(url):
    import requests

    answer = requests.get(url, timeout=60)
    return answer.status_code, answer.headers.items(), answer.content


def with_httpx(url):
    import httpx

    with httpx.Client(http2=True, timeout=60) as client:
        answer = client.get(url)
    # What the test is for: this client speaks HTTP/2 where it is offered.
    assert url.startswith("http:") or answer.http_version == "HTTP/2", answer.http_version
    return answer.status_code, answer.headers.items(), answer.content


def with_aiohttp(url):
    import aiohttp

    async def get():
        async with aiohttp.ClientSession(trust_env=True) as session, session.get(url) as answer:
            return answer.status, answer.headers.items(), await answer.read()

    return asyncio.run(get())


client, url = sys.argv[1:]
status, headers, body = globals()[f"with_{client}"](url)
print(json.dumps({"status": status, "headers": {k.lower(): v for k, v in headers}, "body": body.decode()}))
