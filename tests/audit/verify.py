#!/usr/bin/env python3
"""Verifies an exported audit log of Countersign. Needs Python 3.11 and nothing else.

    verify.py KEY EXPORT [OLDER-CHECKPOINT]

KEY is the log's public key (`name+hash+base64`), EXPORT a file as `countersign ledger export` writes it,
OLDER-CHECKPOINT a file with a checkpoint that was kept earlier. It is written from the description of the format, not
from the gateway's own verifier, and tests hold the two to the same answers.

`verify.py --cases FILE` answers many exports at once: each line of FILE is {"key", "export" (base64), "older" (or null)};
each answer is `ok RECORDS`, or `LINE CODE` of the first fault.
"""

import base64
import hashlib
import io
import json
import re
import sys

MAX_LINE = 16 << 20
MAX_DEPTH = 32
MAX_AT = 253_402_300_799_999


class Fault(Exception):
    """What is wrong: a code and a text."""

    def __init__(self, code, why):
        super().__init__(why)
        self.code = code


def need(condition, code, why):
    if not condition:
        raise Fault(code, why)


# Ed25519 as RFC 8032 defines it, points in extended coordinates.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & ((1 << 255) - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


def add(p, q):
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(n, p):
    q = (0, 1, 1, 0)
    while n:
        if n & 1:
            q = add(q, p)
        p = add(p, p)
        n >>= 1
    return q


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def ed25519(public, text, signature):
    if len(signature) != 64:
        return False
    a, r, s = point(public), point(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + text).digest(), "little") % L
    left, right = times(s, BASE), add(r, times(k, a))
    return not ((left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P)


# Signed notes and checkpoints.


def unbase64(text):
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == text else None


def is_name(name):
    return name != "" and not any(c.isspace() or c == "+" or c < " " or "\x7f" <= c < "\xa0" for c in name)


class Key:
    def __init__(self, text):
        self.name, digest, data = text.split("+", 2)
        data = unbase64(data)
        if not is_name(self.name) or data is None or len(data) != 33 or data[0] != 1:
            raise SystemExit(f"not a key: {text}")
        self.public = data[1:]
        self.id = hashlib.sha256(self.name.encode() + b"\n" + data).digest()[:4]
        if self.id.hex() != digest:
            raise SystemExit(f"not a key: {text}")


def open_note(note, key):
    def form(condition):
        need(condition, "checkpoint", "not a signed note")

    text, gap, rest = note.rpartition("\n\n")
    form(gap)
    text += "\n"
    form(not any(c < " " and c != "\n" for c in text))
    form(rest.endswith("\n"))
    lines = rest[:-1].split("\n")
    form(len(lines) <= 64)
    signed = False
    for line in lines:
        dash, name, signature = (line.split(" ", 2) + ["", "", ""])[:3]
        data = unbase64(signature)
        form(dash == "\u2014" and is_name(name) and data is not None and len(data) > 4)
        if name != key.name or data[:4] != key.id:
            continue
        form(not signed)
        need(ed25519(key.public, text.encode(), data[4:]), "checkpoint", "the signature is not the log's")
        signed = True
    need(signed, "checkpoint", "not signed by the log's key")
    return text


def checkpoint(note, key):
    lines = open_note(note, key).split("\n")
    need(len(lines) == 4 and lines[3] == "", "checkpoint", "not three lines")
    need(lines[0] == key.name, "checkpoint", "of another log")
    need(re.fullmatch(r"0|[1-9][0-9]{0,19}", lines[1]) and int(lines[1]) < 2**64, "checkpoint", "no size")
    root = unbase64(lines[2])
    need(root is not None and len(root) == 32, "checkpoint", "no root")
    return int(lines[1]), root


# The Merkle tree of RFC 6962.


def leaf(line):
    return hashlib.sha256(b"\0" + line).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(size):
    return 1 << ((size - 1).bit_length() - 1)


def included_root(hash_, index, size, proof):
    """The root a proof leads to, by RFC 6962's recursion turned upside down; None if it does not fit."""

    def up(index, size, proof):
        if size == 1:
            return None if proof else hash_
        if not proof:
            return None
        half = split(size)
        if index < half:
            inner = up(index, half, proof[:-1])
            return inner and node(inner, proof[-1])
        inner = up(index - half, size - half, proof[:-1])
        return inner and node(proof[-1], inner)

    return up(index, size, proof) if index < size else None


def consistent(old, old_root, new, new_root, proof):
    def up(old, new, proof, whole):
        """The two roots that a subproof leads to."""
        if old == new:
            if whole:
                return None if proof else (old_root, old_root)
            return (proof[0], proof[0]) if len(proof) == 1 else None
        if not proof:
            return None
        half = split(new)
        if old <= half:
            inner = up(old, half, proof[:-1], whole)
            return inner and (inner[0], node(inner[1], proof[-1]))
        inner = up(old - half, new - half, proof[:-1], False)
        return inner and (node(proof[-1], inner[0]), node(proof[-1], inner[1]))

    return up(old, new, proof, True) == (old_root, new_root)


class Tree:
    def __init__(self):
        self.size, self.edge = 0, []

    def push(self, hash_):
        size = self.size
        while size & 1:
            hash_, size = node(self.edge.pop(), hash_), size >> 1
        self.edge.append(hash_)
        self.size += 1

    def root(self):
        if not self.edge:
            return hashlib.sha256().digest()
        hash_ = self.edge[-1]
        for left in reversed(self.edge[:-1]):
            hash_ = node(left, hash_)
        return hash_


# Canonical JSON.


def refuse(_):
    raise ValueError("not an integer")


DECODER = json.JSONDecoder(parse_float=refuse, parse_constant=refuse, strict=True)


def canonical(line):
    try:
        text = line.decode("utf-8")
        value, end = DECODER.raw_decode(text)
        again = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        raise Fault("form", "not JSON of integers") from None
    need(end == len(text) and again == text, "form", "not canonical JSON")
    deep = MAX_DEPTH + (1 if text.startswith('{"proof":') else 0)
    need(plain(value, deep), "form", "nested too deep, or a number out of range")
    return value


def plain(value, depth):
    if isinstance(value, dict):
        return depth > 0 and all(plain(v, depth - 1) for v in value.values())
    if isinstance(value, list):
        return depth > 0 and all(plain(v, depth - 1) for v in value)
    return not is_int(value) or -(2**63) <= value < 2**64


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


def is_u64(value):
    return is_int(value) and 0 <= value < 2**64


def is_hex(value, digits):
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


def dump(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# The books.

DENIED, REVIEW, SIGNED, REDEEMABLE, SEEN, SETTLED, RELEASED, REFUNDED, DISPUTED, STUCK = 1, 2, 4, 5, 6, 7, 8, 9, 10, 11
STATES = (DENIED, REVIEW, SIGNED, REDEEMABLE, SEEN, SETTLED, RELEASED, REFUNDED, DISPUTED, STUCK)

STEPS = {
    (REVIEW, "resume"): (SIGNED, "replace"),
    (REVIEW, "withdraw"): (RELEASED, "release"),
    (SIGNED, "signer-refused"): (RELEASED, "release"),
    (SIGNED, "ambiguous"): (REDEEMABLE, "keep"),
    (SIGNED, "receipt"): (SEEN, "keep"),
    (SIGNED, "redeemed"): (SETTLED, "settle"),
    (SIGNED, "unused"): (RELEASED, "release"),
    (SIGNED, "contradicted"): (STUCK, "keep"),
    (REDEEMABLE, "ambiguous"): (REDEEMABLE, "keep"),
    (REDEEMABLE, "receipt"): (SEEN, "keep"),
    (REDEEMABLE, "redeemed"): (SETTLED, "settle"),
    (REDEEMABLE, "unused"): (RELEASED, "release"),
    (REDEEMABLE, "contradicted"): (STUCK, "keep"),
    (SEEN, "receipt"): (SEEN, "keep"),
    (SEEN, "redeemed"): (SETTLED, "settle"),
    (SEEN, "unused"): (RELEASED, "release"),
    (SEEN, "reorganised"): (REDEEMABLE, "keep"),
    (SEEN, "contradicted"): (STUCK, "keep"),
    (STUCK, "ambiguous"): (STUCK, "keep"),
    (STUCK, "receipt"): (STUCK, "keep"),
    (STUCK, "redeemed"): (SETTLED, "settle"),
    (STUCK, "unused"): (RELEASED, "release"),
    (SETTLED, "refund"): (REFUNDED, "refund"),
    (SETTLED, "dispute"): (DISPUTED, "keep"),
    (REFUNDED, "refund"): (REFUNDED, "refund"),
    (REFUNDED, "dispute"): (DISPUTED, "keep"),
    (DISPUTED, "refund"): (DISPUTED, "refund"),
    (DISPUTED, "dropped"): (SETTLED, "keep"),
    (DISPUTED, "redressed"): (REFUNDED, "keep"),
    (DISPUTED, "dispute"): (DISPUTED, "keep"),
}
EVENTS = {event for _, event in STEPS} - {"resume"}
MOVES = ("amount", "hold", "release", "spend", "refund", "aged", "aged-spent", "left", "seeded")


class Books:
    def __init__(self):
        self.windows = {}  # (budget, win) -> [held, spent, open, aged]
        self.payments = {}  # id -> [state, version, [[window, amount, open]]]
        self.over = set()

    def take(self, record, whole):
        kind, id_, effect = record["kind"], None, "none"
        if kind == "payment-denied":
            id_ = self.begin(record, DENIED)
        elif kind == "payment-review":
            id_, effect = self.begin(record, REVIEW), "place"
        elif kind == "payment-signed" and record.get("approval") is None:
            id_, effect = self.begin(record, SIGNED), "place"
        elif kind == "payment-signed":
            id_ = payment_of(record)
            effect = self.step(id_, "resume", None)
        elif kind == "payment-changed":
            id_ = payment_of(record)
            need(record.get("from") in STATES and is_int(record["from"]), "record", "from")
            need(record.get("to") in STATES and is_int(record["to"]), "record", "to")
            need(is_u64(record.get("version")), "record", "version")
            need(isinstance(record.get("event"), str) and record["event"] in EVENTS, "record", "event")
            effect = self.step(id_, record["event"], record)
        own = self.payments[id_][2] if id_ else []
        before = list(own)
        self.moves(record.get("budgets"), own, effect, whole)
        if effect in ("release", "settle", "replace"):
            need(not any(hold[2] for hold in before), "hold", "a hold stays open")
        if id_:
            if self.payments[id_][0] in (DENIED, RELEASED):
                del self.payments[id_]
                self.over.add(id_)
            else:
                own[:] = [hold for hold in own if hold[2] or hold[1]]

    def begin(self, record, state):
        id_ = payment_of(record)
        need(id_ not in self.payments and id_ not in self.over, "payment", "begins twice")
        self.payments[id_] = [state, 0, []]
        return id_

    def step(self, id_, event, said):
        need(id_ in self.payments, "payment", "unknown payment")
        payment = self.payments[id_]
        if said:
            need((said["from"], said["version"]) == (payment[0], payment[1] + 1), "payment", "not there")
        to, effect = STEPS.get((payment[0], event), (None, None))
        need(to is not None and (not said or said["to"] == to), "payment", "no such step")
        payment[0], payment[1] = to, payment[1] + 1
        return effect

    def moves(self, entries, own, effect, whole):
        if entries is None:
            return
        need(isinstance(entries, list), "record", "budgets")
        seen = set()
        for entry in entries:
            e = checked(entry)
            window = (entry["budget"], entry["win"])
            need(window not in seen, "record", "two entries")
            seen.add(window)
            need(not e["hold"] or entry["held"] + entry["spent"] <= entry["limit"], "limit", "over the limit")
            w = self.windows.setdefault(window, [0, 0, 0, 0]) if whole else [0, 0, 0, 0]
            if whole:
                held = w[0] + e["hold"] - e["release"] - e["aged"]
                spent = w[1] + e["spend"] + e["aged-spent"] + e["seeded"] - e["left"] - e["refund"]
                need((held, spent) == (entry["held"], entry["spent"]), "budget", "the counters do not follow")
                w[0], w[1] = held, spent
            closed_aged = close(e, window, own, effect)
            if whole:
                w[3] += e["aged"] - closed_aged
                w[2] += e["hold"] - e["amount"]
                need(w[3] >= 0 and w[2] >= 0 and w[2] - w[3] == w[0], "hold", "held is not the sum of the holds")


def close(e, window, own, effect):
    closes, places = effect in ("release", "settle", "replace"), effect in ("place", "replace")
    need(not e["amount"] or closes, "hold", "closes")
    need(not e["hold"] or places, "hold", "places")
    need(e["hold"] or not (e["aged"] or e["left"] or e["seeded"]), "hold", "upkeep without a hold")
    need(e["aged-spent"] <= e["aged"], "hold", "aged")
    aged = 0
    if e["amount"]:
        found = [hold for hold in own if hold[2] and hold[0] == window]
        need(found and found[0][1] == e["amount"], "hold", "no such hold")
        if e["release"]:
            need(e["release"] == e["amount"] and not e["refund"], "hold", "in part")
            counted = e["spend"]
        else:
            aged = e["amount"]
            need(not e["spend"] and e["refund"] <= e["amount"], "hold", "an aged hold")
            counted = e["amount"] - e["refund"]
        need(e["spend"] <= e["amount"] and (not e["spend"] or effect == "settle"), "hold", "spend")
        found[0][1:] = [counted if effect == "settle" else 0, False]
    else:
        need(not e["release"] and not e["spend"], "hold", "without a hold")
        if e["refund"]:
            need(effect == "refund", "hold", "a refund")
            found = [hold for hold in own if not hold[2] and hold[0] == window]
            need(found and found[0][1] >= e["refund"], "hold", "more than was spent")
            found[0][1] -= e["refund"]
    if e["hold"]:
        own.append([window, e["hold"], True])
    return aged


def checked(entry):
    need(isinstance(entry, dict), "record", "entry")
    base = {"budget", "label", "win", "limit", "held", "spent"}
    need(base <= set(entry) and set(entry) <= base | set(MOVES), "record", "entry")
    need(is_hex(entry["budget"], 32) and isinstance(entry["label"], str), "record", "entry")
    need(all(is_u64(entry[name]) for name in ("win", "limit", "held", "spent")), "record", "entry")
    moved = {name: entry[name] for name in MOVES if name in entry}
    need(all(is_u64(amount) and amount for amount in moved.values()), "record", "entry")
    return {name: moved.get(name, 0) for name in MOVES}


def payment_of(record):
    id_ = record.get("payment")
    need(isinstance(id_, str) and re.fullmatch("pay_[0-9a-f]{32}", id_), "record", "payment")
    return id_


# The export.


class Verifier:
    def __init__(self, key, older=None):
        self.key, self.older = key, older
        self.mode, self.seq, self.last = None, 0, bytes(32)
        self.tree, self.then = Tree(), None
        self.size, self.root, self.consistency = 0, None, None
        self.books, self.records, self.kinds, self.end = Books(), 0, {}, None

    def line(self, line):
        need(self.end is None, "form", "after the checkpoint")
        need(len(line) <= MAX_LINE, "form", "too long")
        value = canonical(line)
        need(isinstance(value, dict), "form", "not an object")
        keys = sorted(value)
        if keys == ["checkpoint"]:
            self.finish(value["checkpoint"])
        elif keys == ["consistency"]:
            self.is_mode("partial")
            self.consistency = proof_of(value["consistency"], "old")
        elif keys == ["proof", "record"]:
            self.is_mode("partial")
            self.record(value["record"], dump(value["record"]), value["proof"])
        else:
            self.is_mode("whole")
            self.record(value, line, None)

    def is_mode(self, mode):
        self.mode = self.mode or mode
        need(self.mode == mode and self.consistency is None, "form", "another kind of export")

    def record(self, record, line, proof):
        need(isinstance(record, dict), "record", "not an object")
        need(is_u64(record.get("seq")) and record["seq"], "record", "seq")
        need(is_hex(record.get("prev"), 64), "record", "prev")
        need(is_u64(record.get("at")) and record["at"] <= MAX_AT, "record", "at")
        need(isinstance(record.get("kind"), str) and record["kind"], "record", "kind")
        whole, adjacent = proof is None, record["seq"] == self.seq + 1
        need(adjacent or (not whole and record["seq"] > self.seq), "seq", "a gap, or twice")
        self.seq = record["seq"]
        need(not adjacent or bytes.fromhex(record["prev"]) == self.last, "prev", "does not follow")
        hash_ = leaf(line)
        if whole:
            self.tree.push(hash_)
            if self.older and self.older[0] == self.tree.size:
                self.then = self.tree.root()
        else:
            size, hashes = proof_of(proof, "size")
            need(not self.records or size == self.size, "proof", "another tree")
            root = included_root(hash_, self.seq - 1, size, hashes)
            need(root is not None and (not self.records or root == self.root), "proof", "not in the tree")
            self.size, self.root = size, root
        self.last = hash_
        self.records += 1
        self.kinds[record["kind"]] = self.kinds.get(record["kind"], 0) + 1
        self.books.take(record, whole)

    def finish(self, note):
        need(isinstance(note, str), "form", "checkpoint")
        size, root = checkpoint(note, self.key)
        if self.mode != "partial":
            need((size, root) == (self.tree.size, self.tree.root()), "root", "other records")
        elif self.records:
            need((size, root) == (self.size, self.root), "root", "other records")
        if self.older:
            old, old_root = self.older
            need(old <= size, "fork", "shorter than it was")
            if old == 0:
                need(old_root == hashlib.sha256().digest(), "fork", "another log")
            elif old == size:
                need(old_root == root, "fork", "another log")
            elif self.mode != "partial":
                need(old_root == self.then, "fork", "another log")
            else:
                need(self.consistency and self.consistency[0] == old, "fork", "no proof")
                need(consistent(old, old_root, size, root, self.consistency[1]), "fork", "another log")
        self.end = (size, root)


def proof_of(proof, number):
    need(isinstance(proof, dict) and set(proof) == {"hashes", number}, "form", "proof")
    hashes = proof["hashes"]
    need(isinstance(hashes, list) and len(hashes) <= 128 and all(is_hex(h, 64) for h in hashes), "form", "proof")
    need(is_u64(proof[number]), "form", "proof")
    return proof[number], [bytes.fromhex(h) for h in hashes]


def verify(lines, verifier):
    """Takes an export's lines; answers the line of the first fault and the fault, or the number of lines and None."""
    number = 0
    try:
        for line in lines:
            number += 1
            need(line.endswith(b"\n"), "form", "a line without an end")
            verifier.line(line[:-1])
        number += 1
        need(verifier.end, "form", "no checkpoint at the end: something was cut off")
    except Fault as fault:
        return number, fault
    return number, None


def cases(path):
    with open(path, encoding="utf-8") as file:
        for case in map(json.loads, file):
            key = Key(case["key"])
            older = checkpoint(case["older"], key) if case["older"] else None
            verifier = Verifier(key, older)
            line, fault = verify(io.BytesIO(base64.b64decode(case["export"])), verifier)
            print(f"{line} {fault.code}" if fault else f"ok {verifier.records}")


def main(args):
    if len(args) == 2 and args[0] == "--cases":
        return cases(args[1])
    if len(args) not in (2, 3):
        raise SystemExit(__doc__)
    key = Key(args[0])
    older = None
    if len(args) == 3:
        with open(args[2], encoding="utf-8", newline="") as file:
            older = checkpoint(file.read(), key)
    verifier = Verifier(key, older)
    with open(args[1], "rb") as file:
        line, fault = verify(file, verifier)
    if fault:
        raise SystemExit(f"line {line}: {fault} ({fault.code})")
    print(f"{verifier.records} records hold; the log has {verifier.end[0]}, root {verifier.end[1].hex()}")
    for kind, count in sorted(verifier.kinds.items()):
        print(f"{count:>10}  {kind}")


if __name__ == "__main__":
    main(sys.argv[1:])
