"""Caps what each agent spends in a day."""

import json
import re

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import log
from wit_world.imports import types as t

KEY = "per-agent-day"
SETTINGS_SCHEMA = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "per-agent-day": { "type": "string", "description": "The most an agent may spend in a UTC day, such as 5.00." }
  },
  "required": ["per-agent-day"],
  "additionalProperties": false
}
"""

# The limit in micros, millionths of the reference currency.
per_agent_day = None


class Policy(exports.Policy):
    def describe(self) -> t.Description:
        return t.Description("{{name}}", "0.1.0", "Caps what each agent spends in a day.", SETTINGS_SCHEMA)

    def configure(self, settings: str) -> None:
        """Takes the settings, or raises every problem with them."""
        global per_agent_day
        document = json.loads(settings)
        if not isinstance(document, dict):
            raise Err([t.Problem("", "expected an object")])
        problems = [t.Problem(below(key), "unknown key") for key in document if key != KEY]
        per_agent_day = micros(document.get(KEY))
        if per_agent_day is None:
            problems.append(t.Problem(below(KEY), 'required: an amount as a string such as "5.00"'))
        if problems:
            raise Err(problems)

    def evaluate(self, request: t.SpendRequest) -> t.Decision:
        amount = request.payment.value
        if amount == 0:
            reason = t.Reason("zero-value", "the payment is worth nothing")
            return t.Decision(t.Verdict.DENY, [reason], [], None, [], [])
        agent = request.principal.agent
        log.log(log.Level.DEBUG, f"charging {agent}")
        # Not a comparison with what was spent: the host reserves this, or refuses the payment.
        hold = t.Hold(f"agent/{agent}", t.Unit.MICROS, t.Window_Day("UTC"), per_agent_day, amount, None, None)
        return t.Decision(t.Verdict.ALLOW, [], [hold], None, [], [])


def below(key):
    """JSON Pointer, RFC 6901."""
    return "/" + key.replace("~", "~0").replace("/", "~1")


def micros(text):
    """Makes 5000000 of "5.00". Integers only: a float is no amount of money."""
    found = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?", text) if isinstance(text, str) else None
    return found and int(found[1]) * 1_000_000 + int((found[2] or "").ljust(6, "0"))
