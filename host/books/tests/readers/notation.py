"""What every reader needs: the notation of hidden characters undone, exact figures, and the truth."""
import json
import re
from fractions import Fraction

HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]")
ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]+)\}|(.))")
NAMED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def undo(text):
    return ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else NAMED[m[2]], text)


def truth(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def lines(path):
    """Physical lines as any editor would show them; none may hold what is not seen."""
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    found = text.replace("\r\n", "\n").split("\n")
    for line in found:
        assert not HIDDEN.search(line), ascii(line)
    assert found[-1] == ""
    return found[:-1]


def ceil(value):
    return -(-value.numerator // value.denominator)


def money(p):
    """Atomic units and millionths: what was settled, each refund, what is in doubt."""
    amount, value, redeemed = int(p["amount"]), int(p["value"]), int(p["redeemed"])
    if not p["spent"]:
        return (0, 0), [], (amount, value) if p["open"] else (0, 0)
    settled = (redeemed, ceil(Fraction(value * redeemed, amount)))
    refunds, so_far, paid = [], 0, 0
    for refund in p["refunds"]:
        so_far += int(refund["amount"])
        upto = settled[1] * so_far // settled[0]
        refunds.append((int(refund["amount"]), upto - paid))
        paid = upto
    return settled, refunds, (0, 0)


def millionths(text):
    value = Fraction(text) * 10**6
    assert value.denominator == 1, text
    return value.numerator
