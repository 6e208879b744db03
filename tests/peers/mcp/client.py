"""The official MCP client, driven by one JSON order a line on standard input; answers the same way.

client.py MODE http URL            the token is in TOKEN; headers beside it, as JSON, in HEADERS
client.py MODE stdio BINARY URL    the token is handed on as COUNTERSIGN_AGENT_TOKEN

MODE is how the version is negotiated: `legacy` for the handshake, `auto`, or a version.
"""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError


def say(answer):
    print(json.dumps(answer), flush=True)


def plain(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def call(client, order):
    """One call; `progress` lines come before its answer. `give_up`: cancelled as soon as it waits."""
    waits = asyncio.Event()

    async def progress(done, total, message):
        waits.set()
        say({"progress": done, "total": total, "message": message})

    said = {"progress_callback": progress, "meta": order.get("meta")}
    made = asyncio.create_task(client.call_tool(order["tool"], order.get("arguments"), **said))
    if order.get("give_up"):
        await waits.wait()
        made.cancel()
        await asyncio.wait([made])
        return {"cancelled": made.cancelled()}
    return {"result": plain(await made)}


async def obey(client, order):
    if order["do"] == "list":
        return {"version": client.protocol_version, "tools": plain(await client.list_tools())["tools"]}
    return await call(client, order)


async def serve(client):
    loop = asyncio.get_running_loop()
    async with client:
        say({"ready": client.protocol_version})
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                say(await obey(client, json.loads(line)))
            except MCPError as error:
                say({"error": {"code": error.code, "message": error.message}})


async def main(mode, kind, *where):
    token = os.environ["TOKEN"]
    if kind == "stdio":
        binary, url = where
        env = {"COUNTERSIGN_AGENT_TOKEN": token}
        server = StdioServerParameters(command=binary, args=["mcp", "--gateway", url], env=env)
        return await serve(Client(server, mode=mode))
    headers = {"Authorization": f"Bearer {token}"} | json.loads(os.environ.get("HEADERS", "{}"))
    async with httpx2.AsyncClient(headers=headers, timeout=120, trust_env=False) as http:
        return await serve(Client(streamable_http_client(where[0], http_client=http), mode=mode))


asyncio.run(main(*sys.argv[1:]))
