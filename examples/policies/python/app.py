"""A budget for each client: who may spend, and how much in a day and in a month.

The same policy is beside this one in four other languages; `../conformance.json` says what all of them answer.
"""

import json
import re

from wit_world import exports
from componentize_py_types import Err
from wit_world.imports import log
from wit_world.imports import types as t

NOT_AN_OBJECT = "expected an object"
UNKNOWN_KEY = "unknown key"
REQUIRED = "is required"
NO_CLIENTS = "list at least one client"
NO_CAPS = "set per-day, per-month or both"
NOT_A_NAME = "a client is named by 1 to 100 letters, digits and . _ @ : -"
NOT_MONEY = (
    'write an amount as a string such as "1.00": digits, then at most a point and six digits, '
    "below 9007199254.740992"
)

# What the host accepts as part of a budget's name.
NAME = re.compile(r"[A-Za-z0-9._@:-]{1,100}")
MONEY = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]{1,6}))?")
MICROS_PER_UNIT = 1_000_000
MOST_MICROS = 2**53 - 1

SETTINGS_SCHEMA = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "clients": {
      "type": "object",
      "description": "What each client may cost, in UTC days and months. A client that is not listed may not spend.",
      "additionalProperties": {
        "type": "object",
        "properties": {
          "per-day": { "type": "string", "description": "Decimal, such as 5.00." },
          "per-month": { "type": "string", "description": "Decimal, such as 50.00." }
        },
        "additionalProperties": false
      }
    },
    "review-above": { "type": "string", "description": "People are asked about payments worth more than this." }
  },
  "required": ["clients"],
  "additionalProperties": false
}
"""


class Policy(exports.Policy):
    """The three functions of the contract; an instance of the component answers for one decision."""

    def describe(self) -> t.Description:
        return t.Description(
            name="client-budget-python",
            version="0.1.0",
            summary="Caps what is spent for each client in a day and in a month.",
            settings_schema=SETTINGS_SCHEMA,
        )

    def configure(self, settings: str) -> None:
        """Takes the settings, or raises every problem with them."""
        global configured
        try:
            document = json.loads(settings)
        except ValueError:
            raise Err([t.Problem("", "not JSON")])
        reader = Reader()
        configured = reader.settings(document)
        if reader.problems:
            raise Err(sorted(reader.problems, key=lambda problem: (problem.path, problem.message)))

    def evaluate(self, request: t.SpendRequest) -> t.Decision:
        client = request.principal.client
        if client is None:
            return deny("no-client", "spending must be for a client")
        caps = configured["clients"].get(client)
        if caps is None:
            return deny("client-without-budget", f"client `{client}` has no budget")
        value = request.payment.value
        if value == 0:
            return deny("zero-value", "the payment is worth nothing")
        log.log(log.Level.DEBUG, f"charging client `{client}`")
        windows = [(t.Window_Day("UTC"), caps["per-day"]), (t.Window_Month("UTC"), caps["per-month"])]
        holds = [
            t.Hold(f"client/{client}", t.Unit.MICROS, window, limit, value, None, None)
            for window, limit in windows
            if limit is not None
        ]
        above = configured["review-above"]
        if above is None or value <= above:
            return decision(t.Verdict.ALLOW, holds=holds)
        message = f"the payment of {format_money(value)} is above {format_money(above)}"
        reasons = [t.Reason("above-review-threshold", message)]
        # Quorum and expiry 0: as the operator configured.
        return decision(t.Verdict.REVIEW, reasons, holds, t.ReviewTerms(None, 0, 0))


configured = None


def deny(code: str, message: str) -> t.Decision:
    return decision(t.Verdict.DENY, [t.Reason(code, message)])


def decision(verdict, reasons=(), holds=(), review=None) -> t.Decision:
    return t.Decision(verdict, list(reasons), list(holds), review, [], [])


class Reader:
    """Reads the settings and collects what is wrong with them."""

    def __init__(self):
        self.problems = []

    def settings(self, document):
        if not self.object("", document):
            return None
        self.unknown("", document, ["clients", "review-above"])
        clients = {}
        if "clients" not in document:
            self.problem("/clients", REQUIRED)
        elif self.object("/clients", document["clients"]):
            if not document["clients"]:
                self.problem("/clients", NO_CLIENTS)
            clients = {name: self.client(name, caps) for name, caps in document["clients"].items()}
        return {"clients": clients, "review-above": self.money("", document, "review-above")}

    def client(self, name, caps):
        path = below("/clients", name)
        if not NAME.fullmatch(name):
            self.problem(path, NOT_A_NAME)
        if not self.object(path, caps):
            return None
        self.unknown(path, caps, ["per-day", "per-month"])
        if "per-day" not in caps and "per-month" not in caps:
            self.problem(path, NO_CAPS)
        return {key: self.money(path, caps, key) for key in ("per-day", "per-month")}

    def money(self, path, members, key):
        if key not in members:
            return None
        micros = parse_money(members[key])
        if micros is None:
            self.problem(below(path, key), NOT_MONEY)
        return micros

    def object(self, path, value):
        if not isinstance(value, dict):
            self.problem(path, NOT_AN_OBJECT)
            return False
        return True

    def unknown(self, path, members, known):
        for key in members:
            if key not in known:
                self.problem(below(path, key), UNKNOWN_KEY)

    def problem(self, path, message):
        self.problems.append(t.Problem(path, message))


def parse_money(text):
    """Micros, exactly; integers only, because a float is no amount of money."""
    found = MONEY.fullmatch(text) if isinstance(text, str) else None
    if found is None or len(found[1]) > 10:
        return None
    micros = int(found[1]) * MICROS_PER_UNIT + int((found[2] or "").ljust(6, "0"))
    return micros if micros <= MOST_MICROS else None


def format_money(micros):
    """At least two decimals, no needless zeros behind."""
    whole, fraction = divmod(micros, MICROS_PER_UNIT)
    return f"{whole}.{f'{fraction:06}'.rstrip('0'):0<2}"


def below(path, key):
    """JSON Pointer, RFC 6901."""
    return f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
