"""LlamaIndex: `FunctionAgent(tools=[paid_fetch], llm=...)`, `ReActAgent(tools=[paid_fetch], llm=...)`."""

from countersign_tool import paid_fetch as fetch
from llama_index.core.tools import FunctionTool

paid_fetch = FunctionTool.from_defaults(fetch)
