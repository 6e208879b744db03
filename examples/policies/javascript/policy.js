// A budget for each client: who may spend, and how much in a day and in a month.
//
// The same policy is beside this one in four other languages; `../conformance.json` says what all of them answer.
// An instance answers for one decision, so the configured policy may live in a variable.

import { log } from "countersign:policy/log@0.1.0";

const NOT_AN_OBJECT = "expected an object";
const UNKNOWN_KEY = "unknown key";
const REQUIRED = "is required";
const NO_CLIENTS = "list at least one client";
const NO_CAPS = "set per-day, per-month or both";
const NOT_A_NAME = "a client is named by 1 to 100 letters, digits and . _ @ : -";
const NOT_MONEY =
  'write an amount as a string such as "1.00": digits, then at most a point and six digits, below 9007199254.740992';

const SETTINGS_SCHEMA = `{
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
`;

let configured;

function describe() {
  return {
    name: "client-budget-javascript",
    version: "0.1.0",
    summary: "Caps what is spent for each client in a day and in a month.",
    settingsSchema: SETTINGS_SCHEMA,
  };
}

// What is thrown is the `err` of the result: here every problem with the settings.
function configure(text) {
  let settings;
  try {
    settings = JSON.parse(text);
  } catch {
    throw [{ path: "", message: "not JSON" }];
  }
  const problems = [];
  configured = readSettings(settings, (path, message) => problems.push({ path, message }));
  if (problems.length > 0) {
    throw problems.sort((a, b) => compare(a.path, b.path) || compare(a.message, b.message));
  }
}

function evaluate(request) {
  const client = request.principal.client;
  if (client === undefined || client === null) {
    return deny("no-client", "spending must be for a client");
  }
  const caps = configured.clients.get(client);
  if (caps === undefined) {
    return deny("client-without-budget", `client \`${client}\` has no budget`);
  }
  // A u64 of the contract is a Number here: exact, because the host keeps micros below 2^53.
  const value = request.payment.value;
  if (value === 0) {
    return deny("zero-value", "the payment is worth nothing");
  }
  log("debug", `charging client \`${client}\``);
  const holds = [];
  const hold = (tag, limit) =>
    holds.push({ budget: `client/${client}`, unit: "micros", window: { tag, val: "UTC" }, limit, amount: value });
  if (caps.day !== undefined) hold("day", caps.day);
  if (caps.month !== undefined) hold("month", caps.month);
  const above = configured.reviewAbove;
  if (above !== undefined && value > above) {
    const message = `the payment of ${formatMoney(value)} is above ${formatMoney(above)}`;
    // Quorum and expiry 0: as the operator configured.
    const review = { group: undefined, quorum: 0, expiresInSeconds: 0 };
    return decision("review", [{ code: "above-review-threshold", message }], holds, review);
  }
  return decision("allow", [], holds);
}

export const policy = { describe, configure, evaluate };

function deny(code, message) {
  return decision("deny", [{ code, message }], []);
}

function decision(verdict, reasons, holds, review) {
  return { verdict, reasons, holds, review, obligations: [], notes: [] };
}

// --- settings

function readSettings(settings, problem) {
  const policy = { clients: new Map(), reviewAbove: undefined };
  if (!isObject(settings)) {
    problem("", NOT_AN_OBJECT);
    return policy;
  }
  unknown("", settings, ["clients", "review-above"], problem);
  if (Object.hasOwn(settings, "clients")) {
    readClients(settings.clients, policy.clients, problem);
  } else {
    problem("/clients", REQUIRED);
  }
  policy.reviewAbove = readMoney("", settings, "review-above", problem);
  return policy;
}

function readClients(value, clients, problem) {
  if (!isObject(value)) {
    problem("/clients", NOT_AN_OBJECT);
    return;
  }
  if (Object.keys(value).length === 0) problem("/clients", NO_CLIENTS);
  for (const [name, caps] of Object.entries(value)) {
    clients.set(name, readClient(name, caps, problem));
  }
}

function readClient(name, value, problem) {
  const path = below("/clients", name);
  // What the host accepts as part of a budget's name.
  if (!/^[A-Za-z0-9._@:-]{1,100}$/.test(name)) problem(path, NOT_A_NAME);
  if (!isObject(value)) {
    problem(path, NOT_AN_OBJECT);
    return {};
  }
  unknown(path, value, ["per-day", "per-month"], problem);
  if (!Object.hasOwn(value, "per-day") && !Object.hasOwn(value, "per-month")) problem(path, NO_CAPS);
  return { day: readMoney(path, value, "per-day", problem), month: readMoney(path, value, "per-month", problem) };
}

function readMoney(path, members, key, problem) {
  if (!Object.hasOwn(members, key)) return undefined;
  const micros = parseMoney(members[key]);
  if (micros === undefined) problem(below(path, key), NOT_MONEY);
  return micros;
}

// Whole numbers only: 0.1 + 0.2 is no amount of money.
function parseMoney(text) {
  if (typeof text !== "string") return undefined;
  const found = /^(0|[1-9][0-9]*)(?:\.([0-9]{1,6}))?$/.exec(text);
  if (found === null || found[1].length > 10) return undefined;
  const whole = Number(found[1]);
  const fraction = Number((found[2] ?? "").padEnd(6, "0"));
  // 2^53 - 1 micros, asked before multiplying, because the product might be inexact.
  if (whole > 9007199254 || (whole === 9007199254 && fraction > 740991)) return undefined;
  return whole * 1000000 + fraction;
}

// At least two decimals, no needless zeros behind.
function formatMoney(micros) {
  const fraction = String(micros % 1000000).padStart(6, "0").replace(/0{1,4}$/, "");
  return `${Math.floor(micros / 1000000)}.${fraction}`;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function unknown(path, members, known, problem) {
  for (const key of Object.keys(members)) {
    if (!known.includes(key)) problem(below(path, key), UNKNOWN_KEY);
  }
}

// JSON Pointer, RFC 6901.
function below(path, key) {
  return `${path}/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`;
}

// By code point, as every other language sorts: JavaScript's own order is by UTF-16 unit.
function compare(a, b) {
  const left = Array.from(a);
  const right = Array.from(b);
  for (let i = 0; i < left.length && i < right.length; i++) {
    const difference = left[i].codePointAt(0) - right[i].codePointAt(0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}
