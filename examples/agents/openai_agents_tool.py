"""OpenAI Agents SDK: `Agent(name=..., tools=[paid_fetch])`."""

from agents import function_tool
from countersign_tool import paid_fetch as fetch

paid_fetch = function_tool(fetch)
