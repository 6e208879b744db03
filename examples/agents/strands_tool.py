"""Strands: `Agent(tools=[paid_fetch])`."""

from countersign_tool import paid_fetch as fetch
from strands import tool

paid_fetch = tool(fetch)
