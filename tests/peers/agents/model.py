"""An agent of a framework whose model is a stub: model.py FRAMEWORK URL OTHER. Prints what the model was told by the tool.

The model fetches URL, fetches it again under the purchase_id it was told, fetches OTHER, and is done.
"""

import asyncio
import json
import sys
import uuid

framework, url, other = sys.argv[1:]


def wish(told):
    """The tool's next arguments, after what it has told so far; none when done."""
    calls = [{"url": url}, {"url": url}, {"url": other, "purpose": "the other"}]
    if len(told) >= len(calls):
        return None
    call = calls[len(told)]
    if len(told) == 1:
        call["purchase_id"] = json.loads(told[0])["purchase_id"]
    return call


def langchain():
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, ToolMessage
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_tool import paid_fetch
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    class Stub(BaseChatModel):
        _llm_type = "stub"

        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            call = wish([m.content for m in messages if isinstance(m, ToolMessage)])
            calls = [{"name": "paid_fetch", "args": call, "id": uuid.uuid4().hex}] if call else []
            return ChatResult(generations=[ChatGeneration(message=AIMessage(content="", tool_calls=calls))])

    model = Stub()
    graph = StateGraph(MessagesState)
    graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([paid_fetch]))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", tools_condition)
    graph.add_edge("tools", "agent")
    done = graph.compile().invoke({"messages": [("user", "buy it")]})
    return [m.content for m in done["messages"] if isinstance(m, ToolMessage)], paid_fetch.args


def llamaindex():
    from llama_index.core.agent.workflow import ReActAgent, ToolCallResult
    from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
    from llamaindex_tool import paid_fetch

    told = []

    class Stub(CustomLLM):
        @property
        def metadata(self):
            return LLMMetadata(model_name="stub")

        def complete(self, prompt, **kwargs):
            call = wish(told)
            if call:
                text = f"Thought: I need a tool.\nAction: paid_fetch\nAction Input: {json.dumps(call)}"
            else:
                text = "Thought: I can answer without using any more tools.\nAnswer: done"
            return CompletionResponse(text=text)

        def stream_complete(self, prompt, **kwargs):
            yield self.complete(prompt)

    async def run():
        running = ReActAgent(tools=[paid_fetch], llm=Stub()).run("buy it")
        async for event in running.stream_events():
            if isinstance(event, ToolCallResult):
                told.append(str(event.tool_output))
        await running

    asyncio.run(run())
    return told, json.loads(paid_fetch.metadata.fn_schema_str)["properties"]


def strands():
    from strands import Agent
    from strands.models import Model
    from strands_tool import paid_fetch

    def results(messages):
        blocks = [block["toolResult"] for m in messages for block in m["content"] if "toolResult" in block]
        return [result["content"][0]["text"] for result in blocks]

    class Stub(Model):
        def update_config(self, **config):
            pass

        def get_config(self):
            return {}

        def structured_output(self, *args, **kwargs):
            raise NotImplementedError

        async def stream(self, messages, *args, **kwargs):
            call = wish(results(messages))
            use = {"toolUse": {"name": "paid_fetch", "toolUseId": uuid.uuid4().hex}}
            delta = {"toolUse": {"input": json.dumps(call)}} if call else {"text": "done"}
            yield {"messageStart": {"role": "assistant"}}
            yield {"contentBlockStart": {"start": use if call else {}}}
            yield {"contentBlockDelta": {"delta": delta}}
            yield {"contentBlockStop": {}}
            yield {"messageStop": {"stopReason": "tool_use" if call else "end_turn"}}

    agent = Agent(model=Stub(), tools=[paid_fetch], callback_handler=None)
    agent("buy it")
    return results(agent.messages), paid_fetch.tool_spec["inputSchema"]["json"]["properties"]


def openai_agents():
    from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
    from openai_agents_tool import paid_fetch

    set_tracing_disabled(True)

    def results(items):
        return [item["output"] for item in items if isinstance(item, dict) and item.get("type") == "function_call_output"]

    class Stub(Model):
        async def get_response(self, system_instructions, input, *args, **kwargs):
            call = wish(results(input))
            if call:
                arguments = {"call_id": uuid.uuid4().hex, "name": "paid_fetch", "arguments": json.dumps(call)}
                said = ResponseFunctionToolCall(type="function_call", **arguments)
            else:
                text = ResponseOutputText(type="output_text", text="done", annotations=[])
                message = {"id": "1", "type": "message", "role": "assistant", "status": "completed"}
                said = ResponseOutputMessage(content=[text], **message)
            return ModelResponse(output=[said], usage=Usage(), response_id=None)

        def stream_response(self, *args, **kwargs):
            raise NotImplementedError

    done = Runner.run_sync(Agent(name="stub", model=Stub(), tools=[paid_fetch]), "buy it")
    return results(done.to_input_list()), paid_fetch.params_json_schema["properties"]


def crewai():
    from crewai import Agent, BaseLLM, Crew, Task
    from crewai_tool import paid_fetch

    told = []

    class Stub(BaseLLM):
        def call(self, messages, *args, **kwargs):
            lines = "\n".join(message["content"] for message in messages).splitlines()
            seen = [line.removeprefix("Observation:").strip() for line in lines if line.startswith("Observation:")]
            told[:] = [one for one in seen if one.startswith("{")]
            call = wish(told)
            if call:
                return f"Thought: I need a tool.\nAction: paid_fetch\nAction Input: {json.dumps(call)}"
            return "Thought: I now can give a great answer\nFinal Answer: done"

    agent = Agent(role="buyer", goal="buy it", backstory="none", tools=[paid_fetch], llm=Stub(model="stub"))
    task = Task(description="buy it", expected_output="done", agent=agent)
    Crew(agents=[agent], tasks=[task]).kickoff()
    return told, paid_fetch.args_schema.model_json_schema()["properties"]


run = {"langchain": langchain, "llamaindex": llamaindex, "strands": strands, "openai": openai_agents, "crewai": crewai}
told, arguments = run[framework]()
print(json.dumps({"told": [json.loads(one) for one in told], "arguments": sorted(arguments)}))
