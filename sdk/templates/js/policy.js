// Caps what each agent spends in a day.

import { log } from "countersign:policy/log@0.1.0";

const KEY = "per-agent-day";
const SETTINGS_SCHEMA = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "per-agent-day": { "type": "string", "description": "The most an agent may spend in a UTC day, such as 5.00." }
  },
  "required": ["per-agent-day"],
  "additionalProperties": false
}`;

// The limit in micros, millionths of the reference currency.
let perAgentDay;

function describe() {
  return {
    name: "{{name}}",
    version: "0.1.0",
    summary: "Caps what each agent spends in a day.",
    settingsSchema: SETTINGS_SCHEMA,
  };
}

// What is thrown is the error of the WIT's result: here every problem with the settings.
function configure(text) {
  const settings = JSON.parse(text);
  if (typeof settings !== "object" || settings === null || Array.isArray(settings)) {
    throw [{ path: "", message: "expected an object" }];
  }
  const problems = Object.keys(settings)
    .filter((key) => key !== KEY)
    .map((key) => ({ path: below(key), message: "unknown key" }));
  perAgentDay = micros(settings[KEY]);
  if (perAgentDay === undefined) {
    problems.push({ path: below(KEY), message: 'required: an amount as a string such as "5.00"' });
  }
  if (problems.length > 0) throw problems;
}

function evaluate(request) {
  // A u64 of the contract is a Number here: exact, because the host keeps micros below 2^53.
  const amount = request.payment.value;
  if (amount === 0) {
    return decision("deny", [{ code: "zero-value", message: "the payment is worth nothing" }], []);
  }
  const agent = request.principal.agent;
  log("debug", `charging ${agent}`);
  // Not a comparison with what was spent: the host reserves this, or refuses the payment.
  const window = { tag: "day", val: "UTC" };
  return decision("allow", [], [{ budget: `agent/${agent}`, unit: "micros", window, limit: perAgentDay, amount }]);
}

export const policy = { describe, configure, evaluate };

function decision(verdict, reasons, holds) {
  return { verdict, reasons, holds, review: undefined, obligations: [], notes: [] };
}

// JSON Pointer, RFC 6901.
function below(key) {
  return `/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

// "5.00" is 5000000. Whole numbers only: 0.1 + 0.2 is no amount of money.
function micros(text) {
  const found = typeof text === "string" && /^([0-9]{1,9})(?:\.([0-9]{1,6}))?$/.exec(text);
  if (!found) return undefined;
  return Number(found[1]) * 1000000 + Number((found[2] ?? "").padEnd(6, "0"));
}
