"""CrewAI: `Agent(role=..., tools=[paid_fetch])`."""

from countersign_tool import paid_fetch as fetch
from crewai.tools import tool

paid_fetch = tool("paid_fetch")(fetch)
