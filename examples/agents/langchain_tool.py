"""LangChain and LangGraph: `create_agent(model, [paid_fetch])`, `ToolNode([paid_fetch])`, `model.bind_tools([paid_fetch])`."""

from countersign_tool import paid_fetch as fetch
from langchain_core.tools import tool

paid_fetch = tool(parse_docstring=True)(fetch)
