"""The official x402 seller for MCP, over streamable HTTP: tools that cost, and one that does not.

server.py FACILITATOR_URL PAY_TO     prints one line {"url": …}, ends with its standard input

Its tool `log` is free and says which tools ran, with their arguments, and how many sessions there are.
"""

import asyncio
import json
import socket
import sys

import uvicorn
from mcp.server.fastmcp import FastMCP
from x402 import ResourceConfig, x402ResourceServer
from x402.http import FacilitatorConfig, HTTPFacilitatorClient
from x402.mcp import create_payment_wrapper
from x402.mechanisms.evm.exact import ExactEvmServerScheme

facilitator, pay_to = sys.argv[1:]
shop = x402ResourceServer(HTTPFacilitatorClient(FacilitatorConfig(url=facilitator)))
shop.register("eip155:84532", ExactEvmServerScheme())
shop.initialize()


def costs(price):
    config = ResourceConfig(scheme="exact", network="eip155:84532", pay_to=pay_to, price=price)
    return create_payment_wrapper(shop, accepts=shop.build_payment_requirements(config))


mcp = FastMCP("paid tools", host="127.0.0.1")
ran = []


@mcp.tool(description="Weather for a city.")
@costs("$0.001")
async def get_weather(city: str) -> dict:
    ran.append(["get_weather", city])
    return {"city": city, "weather": "sunny", "run": len(ran)}


@mcp.tool(description="A report.")
@costs("$2.50")
async def report(topic: str) -> dict:
    ran.append(["report", topic])
    return {"topic": topic}


@mcp.tool(description="Always fails.")
@costs("$0.001")
async def broken() -> dict:
    ran.append(["broken", ""])
    raise RuntimeError("this tool is broken")


@mcp.tool(description="Free.", structured_output=True)
def log() -> dict[str, object]:
    return {"ran": ran, "sessions": len(mcp.session_manager._server_instances)}


async def main():
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(mcp.streamable_http_app(), log_level="warning"))
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    server.force_exit = True
    await serving


asyncio.run(main())
