#!/usr/bin/env python3
"""Compose the unlabelled pool of customer messages for the fictional shop "Tarn & Tussock".

    python3 generate_pool.py --seed 20 --count 3200 --out DIR

writes DIR/pool.jsonl      {"id": "pool-0001", "text": ...}                                    (to be labelled)
and    DIR/pool_gold.jsonl {"id": "pool-0001", "answer": {"intent", "urgency", "order_id"}}    (analysis only)

How a message comes about
  1. plan      the number of messages per intent is fixed (INTENT_SHARES), the sequence is shuffled;
  2. compose   a core (situation and ask) of that intent is filled with a product, dates, sizes ...; around it go
               an opening, side remarks, a reason for hurry or leisure, anger, other numbers, a closing;
               the label follows from the fragments that were used (see pool_fragments.py);
  3. noise     typos, case, punctuation, abbreviations, emoji; the order number stands in as a private-use character
               meanwhile, so only a change of case can touch it, and then the gold value changes with it;
  4. accept    a text whose character-trigram Jaccard to an accepted one is above MAX_JACCARD is thrown away.
Standard library only; the same seed gives the same bytes; files are written to a temporary name and then renamed.
"""

import argparse
import json
import os
import random
import re
import sys
import tempfile
from pathlib import Path

import pool_fragments as bank

INTENT_SHARES = {
    "track_order": 0.11,
    "late_delivery": 0.11,
    "lost_parcel": 0.06,
    "refund_request": 0.105,
    "refund_status": 0.085,
    "exchange_item": 0.10,
    "damaged_item": 0.08,
    "warranty_claim": 0.05,
    "wrong_item": 0.07,
    "change_order": 0.085,
    "cancel_order": 0.07,
    "product_question": 0.075,
}
MONEY_INTENTS = {"refund_request", "refund_status"}
TRANSPORT_INTENTS = {"track_order", "late_delivery", "lost_parcel"}
HIGH_SHARE, LOW_SHARE = 0.27, 0.145  # of all intents but product_question
HIGH_SHARE_PRODUCT = 0.15  # product_question: the rest is low by rule
ORDER_SHARE = 0.60  # product_question: only where a core has a place for it
NEAR_SHARE = 0.58  # near misses among the cores of all but the short messages
SHORT_CORE = 12  # longest core, in words, of a short message
DISTRACTOR_SHARE = 0.22
LENGTH_MODES = (("short", 0.42), ("medium", 0.36), ("long", 0.165), ("rambling", 0.055))
MAX_JACCARD = 0.6
MAX_TRIES = 400
ORDER, ORDER2 = "\ue000", "\ue001"  # stand-ins for the order numbers until the noise is done


def pick_weighted(rng, pairs):
    """Return one value out of (value, weight) pairs."""
    return rng.choices([v for v, _ in pairs], [w for _, w in pairs])[0]


def digits(rng, count):
    """Return a digit string that does not begin with 0."""
    return str(rng.randint(10 ** (count - 1), 10**count - 1))


# ---------------------------------------------------------------------------------------------- numbers
def make_order(rng):
    """Return (value as the customer types it, shape)."""
    num = digits(rng, 5)
    shape = pick_weighted(rng, [("tt", 52), ("plain", 18), ("hash", 10), ("year", 10), ("store", 8), ("split", 4)])
    value = {
        "tt": rng.choice([f"TT-{num}"] * 5 + [f"TT{num}", f"tt{num}", f"tt-{num}", f"TT {num}", f"TT {num}"]),
        "plain": num,
        "hash": num,
        "year": f"202{rng.choice('566')}-0{num[:4]}",
        "store": f"W{num}-{rng.choice('ABCD')}",
        "split": f"{num[:3]} {num[3:]}",
    }[shape]
    return value, shape


def order_phrase(rng, shape, mark):
    """A noun phrase for the order, e.g. "order TT-48213"; mark stands for the number."""
    if shape == "hash":
        return rng.choice([f"order #{mark}", f"order #{mark}", f"#{mark}", f"order no. #{mark}"])
    if shape == "split":
        return rng.choice([f"order No. {mark}", f"order no. {mark}", f"order number {mark}"])
    forms = [f"order {mark}"] * 4 + [f"order no. {mark}", f"order number {mark}", f"order nr {mark}"]
    if shape != "plain":
        forms += [mark] * 3
    return rng.choice(forms)


def order_value(rng, shape, mark):
    """The bare number where the word "order" already stands before it."""
    return f"#{mark}" if shape == "hash" else mark


def tracking(rng):
    return rng.choice(
        [
            f"JD0146{digits(rng, 9)}",
            f"1Z999AA1{digits(rng, 8)}",
            f"00340434{digits(rng, 10)}",
            f"RX{digits(rng, 9)}TN",
            f"H{digits(rng, 13)}",
            f"{digits(rng, 4)} {digits(rng, 4)} {digits(rng, 4)}",
        ]
    )


def phone(rng):
    return rng.choice(
        [
            f"07700 900{digits(rng, 3)}",
            f"01632 96{digits(rng, 4)}",
            f"555-01{digits(rng, 2)}",
            f"0555 {digits(rng, 3)} {digits(rng, 3)}",
            f"07700900{digits(rng, 3)}",
        ]
    )


def two_prices(rng):
    """Two prices in the same style, the higher one first."""
    style = rng.choice(["£{0}", "{0}.{1}", "£{0}.{1}", "${0}", "{0} euros", "{0} pounds"])
    high = rng.randint(30, 390)
    low = high - rng.randint(5, high // 2)
    return [style.format(whole, rng.choice(["00", "50", "90", "95", "99"])) for whole in (high, low)]


def with_article(size):
    """ "an XL", "a medium", "an 8" as it is spoken."""
    spoken_vowel = (size[0] in "SMLXe8" and size not in ("small", "medium", "large")) or size == "11"
    return f"an {size}" if spoken_vowel else f"a {size}"


def date(rng):
    day, month = rng.randint(1, 28), rng.choice(bank.MONTHS)
    ending = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd"}.get(day, "th")
    return rng.choice(
        [
            f"{day} {month}",
            f"the {day}{ending}",
            f"{month} {day}",
            f"{day:02d}/{rng.randint(1, 12):02d}",
            f"the {day}{ending} of {month}",
        ]
    )


NUMBER_MAKERS = {
    "track": tracking,
    "phone": phone,
    "date": date,
    "art": lambda rng: rng.choice(
        [digits(rng, 4), digits(rng, 5), f"{digits(rng, 2)}-{digits(rng, 3)}", f"B{digits(rng, 4)}"]
    ),
    "rma": lambda rng: rng.choice([digits(rng, 4), digits(rng, 5), f"R-{digits(rng, 4)}"]),
    "member": lambda rng: rng.choice([digits(rng, 5), digits(rng, 6), f"M-{digits(rng, 5)}"]),
    "inv": lambda rng: rng.choice([digits(rng, 5), f"2026/{digits(rng, 4)}", f"INV-{digits(rng, 5)}"]),
    "ticket": lambda rng: rng.choice([digits(rng, 6), f"C{digits(rng, 5)}"]),
    "voucher": lambda rng: rng.choice([f"SPRING{rng.choice([10, 15, 20])}", f"HIKE-{digits(rng, 4)}", "TRAIL25"]),
    "post": lambda rng: rng.choice(
        [digits(rng, 5), f"{rng.choice('ABCDKL')}{rng.choice('RTXZ')}{digits(rng, 1)} {digits(rng, 1)}QX"]
    ),
    "num2": lambda rng: str(rng.randint(152, 201)),
    "addr": lambda rng: f"{rng.randint(2, 98)} {rng.choice(bank.STREETS)}",
}


# ---------------------------------------------------------------------------------------------- filling fragments
def plural_of(name):
    """Plural of a singular product name."""
    if name.endswith("GPS"):
        return name + " units"
    return name + ("es" if name.endswith(("s", "ch", "x")) else "s")


def product_forms(rng, product):
    """All the slots that depend on one product."""
    _, kind, name = product
    single = kind == "s"
    unit = {"s": name, "p": f"pair of {name}", "n": f"set of {name}"}[kind]
    article = "an" if unit[0] in "aeiou" else "a"
    plain_plural = kind == "n" or (kind == "p" and rng.random() < 0.45)
    form = {
        "item": name,
        "unit": unit,
        "an": name if plain_plural else f"{article} {unit}",
        "items": plural_of(name) if single else name,
        "nitems": plural_of(name) if single else {"p": "pairs", "n": "sets"}[kind] + f" of {name}",
        "oneof": {"s": "one", "p": "a pair", "n": "a set"}[kind],
    }
    one_many = {
        "is": "is are",
        "was": "was were",
        "has": "has have",
        "hasnt": "hasn't haven't",
        "does": "does do",
        "doesnt": "doesn't don't",
        "isnt": "isn't aren't",
        "it": "it they",
        "them": "it them",
        "this": "this these",
        "these": "this these",
        "its": "its their",
        "itself": "itself themselves",
    }
    form.update({slot: pair.split()[0 if single else 1] for slot, pair in one_many.items()})
    form.update(s="s" if single else "", es="es" if single else "")
    return form


def sizes_for(rng, category):
    """Two different sizes that make sense for the category."""
    if category == "boots":
        scale = rng.choice([list(range(36, 48)), list(range(4, 13)), ["5.5", "6.5", "7.5", "8.5", "9.5", "10.5"]])
    else:
        scale = rng.choice(
            [["S", "M", "L", "XL"], ["small", "medium", "large", "extra large"], ["XS", "S", "M", "L", "XXL"]]
        )
    at = rng.randrange(len(scale) - 1)
    pair = [str(scale[at]), str(scale[at + 1])]
    rng.shuffle(pair)
    return pair


class Filler:
    """Fills the slots of the fragments of ONE message, so that product, size, dates ... stay the same throughout."""

    def __init__(self, rng, product, has_order):
        self.rng, self.product = rng, product
        self.slots = product_forms(rng, product)
        other = rng.choice([p for p in bank.PRODUCTS if p[0] != product[0]])
        other_forms = product_forms(rng, other)
        sibling = rng.choice([p for p in bank.PRODUCTS if p[0] == product[0] and p != product])
        self.slots.update(item2=other[2], an2=other_forms["an"], sib=sibling[2])
        self.slots["size"], self.slots["size2"] = sizes_for(rng, product[0])
        self.slots.update(asize=with_article(self.slots["size"]), asize2=with_article(self.slots["size2"]))
        self.slots["price"], self.slots["price2"] = two_prices(rng)
        self.slots["from_you"] = rng.choice(["from you", "from your sale", "from your town store"])
        self.slots["colour"], self.slots["colour2"] = rng.sample(bank.COLOURS, 2)
        self.slots["day"], self.slots["day2"] = rng.sample(bank.DAYS, 2)
        self.slots["use"] = rng.choice(bank.USES)
        self.slots["age"] = rng.choice([u for u in bank.USES if "month" in u or "year" in u])
        self.slots["soon"] = rng.choice(bank.SOON)
        self.slots["soon_by"] = rng.choice(
            ["tomorrow evening", "Friday, that's in two days", "tomorrow noon", "tonight"]
        )
        self.slots["soon_del"] = rng.choice(["tomorrow", "today", "on Friday, the day after tomorrow"])
        self.slots["soon_from"] = rng.choice(["tomorrow", "tonight", "the day after tomorrow"])
        self.slots["far"] = rng.choice(["5th", "9th", "12th", "20th"])
        self.slots["num"] = rng.choice(["three", "four", "five", "6", "8", "twelve", "10"])
        for slot, values in (
            ("span", bank.SPANS),
            ("name", bank.NAMES),
            ("person", bank.PEOPLE),
            ("place", bank.PLACES),
            ("carrier", bank.CARRIERS),
            ("month", bank.MONTHS),
        ):
            self.slots[slot] = rng.choice(values)
        self.slots["Person"] = self.slots["person"]
        self.slots.update({slot: make(rng) for slot, make in NUMBER_MAKERS.items()})
        for slot, faults in (
            ("fault", bank.FAULTS_NEW),
            ("failed", bank.FAULTS_USED),
            ("danger", bank.FAULTS_DANGER),
        ):
            texts = [t.strip() for t in faults.get(product[0], "").split(";") if t.strip()]
            self.slots[slot] = self._plain(rng.choice(texts)) if texts else ""
        self.order, self.shape = make_order(rng) if has_order else (None, None)
        self.order2, self.shape2 = make_order(rng)
        self.plain_order = rng.choice(
            ["my order"] * 6 + [f"my {product[2]} order", f"the order I placed on {self.slots['day']}"]
        )

    def _plain(self, text):
        return re.sub(r"\{(\w+)\}", lambda m: self.slots[m.group(1)], text)

    def _order_slot(self, slot, in_core):
        rng = self.rng
        if slot in ("ref", "Ref"):
            return order_phrase(rng, self.shape, ORDER)
        if slot == "o":
            return order_value(rng, self.shape, ORDER)
        if slot == "o2":
            return order_value(rng, self.shape2, ORDER2)
        if in_core:  # {myorder} with the number
            phrase = order_phrase(rng, self.shape, ORDER)
            return phrase if rng.random() < 0.5 or not phrase.startswith("order") else f"my {phrase}"
        return self.plain_order

    def fill(self, fragment, in_core=False):
        """Expand alternatives, the optional order segment and the slots; mend capitals."""
        text = re.sub(r"<([^<>]*)>", lambda m: self.rng.choice(m.group(1).split("|")), fragment)
        text = re.sub(r"\[([^\]]*)\]", lambda m: m.group(1) if in_core else "", text)

        def slot(match):
            name = match.group(1)
            if name in ("ref", "Ref", "o", "o2", "myorder"):
                return self._order_slot(name, in_core)
            return self.slots[name]

        text = re.sub(r"\{(\w+)\}", slot, text).replace("\\n", "\n")
        return capitalise(re.sub(r"([.?!])\.", r"\1", text))


def capitalise(text):
    """Upper-case the first letter and letters after a full stop (but not after "no.", "art." and the like)."""
    text = re.sub(r"^([\"(]?)([a-z])", lambda m: m.group(1) + m.group(2).upper(), text)
    return re.sub(
        r"(?<!no)(?<!No)(?<!nr)(?<!art)(?<!Art)(?<!Tel)([.?!] )([a-z])",
        lambda m: m.group(1) + m.group(2).upper(),
        text,
    )


# ---------------------------------------------------------------------------------------------- choosing fragments
def split_tag(core):
    """Return (set of allowed categories or None, core without the tag)."""
    if not core.startswith("@"):
        return None, core
    tag, text = core.split(" ", 1)
    allowed = set()
    for name in tag[1:].split(","):
        allowed.update(bank.GROUPS.get(name, (name,)))
    return allowed, text


def choose_product(rng, core):
    """A product that fits the core (every category equally likely, so that no shelf dominates)."""
    allowed, _ = split_tag(core)
    categories = sorted({p[0] for p in bank.PRODUCTS if allowed is None or p[0] in allowed})
    if allowed is None:
        categories = [c for c in categories if c != "paper"]
    if "{s}" not in core and "{nitems}" in core:
        categories = [c for c in categories if c != "paper"] or categories
    category = rng.choice(categories)
    return rng.choice([p for p in bank.PRODUCTS if p[0] == category])


def choose_urgency(rng, intent):
    if intent == "product_question":
        return "high" if rng.random() < HIGH_SHARE_PRODUCT else "low"
    draw = rng.random()
    return "high" if draw < HIGH_SHARE else "low" if draw < HIGH_SHARE + LOW_SHARE else "normal"


def core_length(core):
    """Words of a core without its tag and without the optional order segment."""
    return len(re.sub(r"\[[^\]]*\]|@\S+ ", "", core).split())


def choose_core(rng, intent, urgency, mode):
    """Return (core, whether the core already carries the urgency)."""
    if urgency == "high" and rng.random() < 0.26:
        return rng.choice(bank.HIGH_CORES[intent]), True
    if urgency == "low" and rng.random() < (0.08 if intent == "product_question" else 0.12):
        return rng.choice(bank.LOW_CORES[intent]), True
    if mode == "short":
        return rng.choice([c for c in bank.CORES[intent] + bank.NEAR[intent] if core_length(c) <= SHORT_CORE]), False
    pool = bank.NEAR[intent] if rng.random() < NEAR_SHARE else bank.CORES[intent]
    return rng.choice(pool), False


def urgency_phrase(rng, intent, urgency, mode):
    """A fragment that makes the message pressing or leisurely, or None."""
    if urgency == "high":
        choices = {
            "refund_request": bank.HIGH_MONEY,
            "refund_status": bank.HIGH_MONEY,
            "cancel_order": bank.HIGH_CANCEL,
            "change_order": bank.HIGH_CHANGE,
            "product_question": bank.HIGH_PRODUCT,
        }.get(intent, bank.HIGH_GOODS)
    elif urgency == "low" and intent == "product_question":
        if rng.random() < 0.66:
            return None
        choices = bank.LOW_PRODUCT + bank.LOW_ANY
    elif urgency == "low":
        choices = bank.LOW_ANY
        if intent not in MONEY_INTENTS and intent != "cancel_order" and rng.random() < 0.35:
            choices = bank.LOW_GOODS
    elif intent not in MONEY_INTENTS and intent != "cancel_order" and rng.random() < 0.07:
        choices = bank.NORMAL_DATES
    else:
        return None
    if mode == "short":
        choices = [c for c in choices if len(c.split()) <= 8] or choices
    return rng.choice(choices)


def tone_phrase(rng, intent, urgency):
    """Anger or haste without a reason: never decides the urgency."""
    if intent == "product_question":
        return rng.choice(bank.TONE_SOFT) if urgency == "low" and rng.random() < 0.06 else None
    share = {"normal": 0.22, "high": 0.08, "low": 0.0}[urgency]
    return rng.choice(bank.TONE) if rng.random() < share else None


def distractor(rng, intent, core):
    """A clause with a number that is no order number."""
    if intent == "product_question":
        return rng.choice(bank.DISTRACT_PRODUCT)
    choices = bank.DISTRACT_ANY
    if intent in TRANSPORT_INTENTS and rng.random() < 0.6:
        choices = bank.DISTRACT_TRACK
    if intent == "refund_status" and rng.random() < 0.6 and re.search(r"sen[dt] |return|posted|goods", core):
        choices = bank.DISTRACT_RETURN
    return rng.choice(choices)


# ---------------------------------------------------------------------------------------------- composing
def lower_first(text):
    """Lower-case the first letter where that is no name, "I" or abbreviation."""
    if re.match(r"(I\b|I'|[A-Z]{2}|RMA|Tel)", text) or text[:1] in '"(':
        return text
    first = text.split(" ", 1)[0].rstrip(",.")
    return text if first in bank.MONTHS + bank.DAYS else text[:1].lower() + text[1:]


def join_parts(rng, parts, layout):
    """Join the parts; layout "lines" puts opening and closing on their own lines."""
    text = ""
    for at, part in enumerate(parts):
        if not text:
            text = part
            continue
        at_edge = (at == 1 and text.endswith(",")) or at == len(parts) - 1
        if "\n" in part or part.startswith(">") or (layout == "lines" and (at_edge or rng.random() < 0.12)):
            text += ("\n\n" if layout == "lines" and rng.random() < 0.3 else "\n") + part
        elif text.endswith(","):
            text += " " + (lower_first(part) if rng.random() < 0.85 else part)
        elif text[-1] not in ".!?:-\n)" and rng.random() < 0.75:
            text += f". {part}" if rng.random() < 0.7 else f", {lower_first(part)}"
        else:
            text += " " + part
    return text


def order_parts(rng, filler, in_core, mode):
    """Where the order number goes if not into the core: (start, middle, end, signature), three of them None."""
    places = [None, None, None, None]
    if filler.order is None or in_core:
        return places
    at = rng.choices(range(4), [32, 18, 38, 12 if mode != "short" else 0])[0]
    fragment = rng.choice([bank.ORDER_START, bank.ORDER_END, bank.ORDER_END, bank.ORDER_SIGN][at])
    places[at] = filler.fill(fragment, in_core=True)
    return places


def side_remarks(rng, mode, intent):
    """Back story of the length that the mode asks for."""
    count = {
        "short": 0,
        "medium": int(rng.random() < 0.22),
        "long": rng.choice([1, 2, 2]),
        "rambling": rng.choice([4, 5, 6, 7]),
    }[mode]
    stories = bank.STORIES_PRODUCT if intent == "product_question" else bank.STORIES
    told = sum(rng.random() < 0.5 for _ in range(count))
    remarks = rng.sample(stories, told) + rng.sample(bank.REMARKS, count - told)
    if count and rng.random() < 0.25:
        remarks[-1] = rng.choice(bank.CROSS_REMARKS)
    return remarks


def frame(rng, mode):
    """Opening and closing (either may be None)."""
    opening = {"short": 0.16, "medium": 0.55, "long": 0.75, "rambling": 0.9}[mode]
    closing = {"short": 0.15, "medium": 0.45, "long": 0.65, "rambling": 0.8}[mode]
    return (
        rng.choice(bank.OPENINGS) if rng.random() < opening else None,
        rng.choice(bank.CLOSINGS) if rng.random() < closing else None,
    )


def number_clauses(rng, filler, intent, mode, core):
    """Clauses with numbers that must not be copied, and notes that the order number is not at hand."""
    clauses = []
    if rng.random() < DISTRACTOR_SHARE * (0.6 if mode == "short" else 1.2):
        clauses.append(filler.fill(distractor(rng, intent, core)))
    if intent == "product_question" or mode == "short":
        return clauses
    if filler.order is None and rng.random() < 0.05:
        clauses.append(filler.fill(rng.choice(bank.NO_ORDER_NOTES)))
    elif filler.order is not None and rng.random() < 0.06 and not re.search(r"two|twice|second|parcels", core):
        clauses.append(filler.fill(rng.choice(bank.SECOND_ORDER)))
    return clauses


def compose(rng, intent):
    """Return (text with stand-ins, filler, urgency, is_angry), or None where the fragments do not go together."""
    mode = pick_weighted(rng, LENGTH_MODES)
    urgency = choose_urgency(rng, intent)
    core, settled = choose_core(rng, intent, urgency, mode)
    product = choose_product(rng, core)
    _, core = split_tag(core)
    takes_order = "[" in core or "{myorder}" in core
    if intent == "product_question":
        has_order = "[" in core and rng.random() < 0.6
        in_core = has_order
    else:
        has_order = rng.random() < ORDER_SHARE
        in_core = has_order and takes_order and rng.random() < 0.55
    filler = Filler(rng, product, has_order)
    if "{item}" in core or rng.random() < 0.3:
        filler.plain_order = "my order"
    start, middle, end, signature = order_parts(rng, filler, in_core, mode)
    opening, closing = frame(rng, mode)
    before, after = [], []
    extras = side_remarks(rng, mode, intent)
    hurry = None if settled else urgency_phrase(rng, intent, urgency, mode)
    tone = tone_phrase(rng, intent, urgency)
    for fragment, chance in [(hurry, 0.25), (tone, 0.4)] + [(r, 0.4) for r in extras]:
        if fragment:
            (before if rng.random() < chance else after).append(filler.fill(fragment))
    after += number_clauses(rng, filler, intent, mode, core)
    rng.shuffle(before)
    rng.shuffle(after)
    main = filler.fill(core, in_core=in_core)
    if contradicts(main, urgency, hurry):
        return None
    parts = [
        opening and filler.fill(opening),
        start,
        *before,
        main,
        middle,
        *after,
        end,
        closing and filler.fill(closing),
        signature,
    ]
    parts = [p for p in parts if p]
    if intent != "product_question" and mode != "short" and rng.random() < 0.02:
        parts.append(rng.choice(bank.QUOTES))
    layout = "lines" if rng.random() < 0.3 else "flow"
    return join_parts(rng, parts, layout), filler, urgency, bool(tone)


NOT_JUST_PLACED = re.compile(
    r"late\b|wait|yesterday|placed on|ordered on|delay"
    r"|pushed|label|back order|hasn't|haven't|last|moving|first"
)
NOT_PRESSING = re.compile(
    r"just planning|only looking|spring|sale again|season|only wonder"
    r"|next month|month's|before you buy|Nothing bought"
)


def contradicts(main, urgency, hurry):
    """Fragments that a sensible customer would not say in one breath."""
    if urgency == "high" and NOT_PRESSING.search(main):
        return True
    return bool(hurry and re.search(r" ago\b|after I pressed", hurry) and NOT_JUST_PLACED.search(main))


# ---------------------------------------------------------------------------------------------- noise
NEIGHBOURS = {
    "a": "sq",
    "b": "vn",
    "c": "xv",
    "d": "sf",
    "e": "wr",
    "f": "dg",
    "g": "fh",
    "h": "gj",
    "i": "uo",
    "j": "hk",
    "k": "jl",
    "l": "k",
    "m": "n",
    "n": "bm",
    "o": "ip",
    "p": "o",
    "q": "w",
    "r": "et",
    "s": "ad",
    "t": "ry",
    "u": "yi",
    "v": "cb",
    "w": "qe",
    "x": "zc",
    "y": "tu",
    "z": "x",
}


def typo(rng, word):
    """One slip inside a word of at least four letters; the first letter stays."""
    at = rng.randrange(1, len(word) - 1)
    kind = rng.choice(["swap", "drop", "double", "near"])
    if kind == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice(NEIGHBOURS.get(word[at].lower(), word[at])) + word[at + 1 :]


def add_typos(rng, text, per_word):
    """Give about per_word of the words a slip, one word at least."""
    spots = [m for m in re.finditer(r"(?<![\w'@])[A-Za-z]{4,}(?![\w'])", text)]
    wanted = min(len(spots), max(1, round(len(spots) * per_word)))
    for match in sorted(rng.sample(spots, wanted), key=lambda m: -m.start()):
        text = text[: match.start()] + typo(rng, match.group()) + text[match.end() :]
    return text


def abbreviate(rng, text):
    """Phone-style short forms; the odder ones more rarely."""

    def short(match):
        word = match.group()
        target = bank.ABBREVIATIONS.get(word.lower())
        chance = 0.2 if word.lower() in ("to", "with", "are", "and", "number", "tonight") else 0.65
        if target is None or rng.random() > chance:
            return word
        return target.capitalize() if word[0].isupper() else target

    return re.sub(r"(?<![\w'-])[A-Za-z]+(?![\w'-])", short, text)


def drop_punctuation(rng, text):
    """Dictated or hasty: no punctuation, though numbers keep their inner points."""
    text = re.sub(r"(?<!\d)[.,;:!?\"()]|[.,;:!?\"()](?!\d)", "", text)
    text = text.replace(" - ", " ").replace(" -", " ")
    return re.sub(r" {2,}", " ", re.sub(r"\n+", " ", text) if rng.random() < 0.7 else text)


def drop_articles(rng, text):
    """A writer whose own language has no articles."""
    text = re.sub(r"\b(?:the|a|an) (?=[a-z])", lambda m: "" if rng.random() < 0.6 else m.group(), text)
    return capitalise(re.sub(r"\b(?:The|A|An) (?=[a-z])", lambda m: "" if rng.random() < 0.5 else m.group(), text))


def glue_sentences(rng, text):
    """Missing spaces after full stops and commas."""
    return re.sub(r"([.!?,]) (?=[A-Za-z])", lambda m: m.group(1) + ("" if rng.random() < 0.6 else " "), text)


def add_emoji(rng, text, urgency, angry):
    face = rng.choice(bank.EMOJI["tone" if angry else urgency])
    return f"{text} {face}" if rng.random() < 0.75 else re.sub(r"(?<=[.!?]) ", f" {face} ", text, count=1)


def add_noise(rng, text, filler, urgency, angry):
    """Return (noisy text, order value as it now stands)."""
    order = filler.order
    if rng.random() < 0.05:
        text = drop_articles(rng, text)
    if rng.random() < 0.14:
        text = abbreviate(rng, text)
    if rng.random() < 0.34:
        text = add_typos(rng, text, rng.choice([0.03, 0.05, 0.08, 0.12]))
    hasty = rng.random()
    if hasty < 0.13:
        text = drop_punctuation(rng, text)
    elif hasty < 0.19:
        text = glue_sentences(rng, text)
    if rng.random() < (0.6 if hasty < 0.13 else 0.14):
        text = text.replace("'", "")
    case = rng.random()
    if case < (0.6 if hasty < 0.13 else 0.16):
        text = text.lower()
        order = order.lower() if order and rng.random() < 0.6 else order
    elif case > (0.9 if angry else 0.965):
        text = text.upper()
        order = order.upper() if order and rng.random() < 0.85 else order
    if rng.random() < 0.25 and text[-1] == ".":
        text = text[:-1]
    if rng.random() < 0.09:
        text = add_emoji(rng, text, urgency, angry)
    return text.replace(ORDER, order or "").replace(ORDER2, filler.order2).strip(), order


def is_sound(text, order):
    """The order number stands alone in the text, and no digits run on from it."""
    if not 4 <= len(text.split()) <= 105 or len(text) > 880 or "{" in text or "<" in text:
        return False
    if order is None:
        return True
    found = re.findall(r"(?<![\w-])" + re.escape(order) + r"(?![\w-])", text)
    runs_on = re.search(re.escape(order) + r" \d|\d " + re.escape(order), text)
    return len(found) == 1 and text.count(order) == 1 and not runs_on


# ---------------------------------------------------------------------------------------------- near duplicates
class NearDuplicates:
    """Exact trigram Jaccard against all accepted texts; a text is an integer with one bit per trigram."""

    def __init__(self, limit):
        self.limit, self.bit_of, self.seen = limit, {}, []

    def mask(self, text):
        low, mask = text.lower(), 0
        for at in range(len(low) - 2):
            mask |= 1 << self.bit_of.setdefault(low[at : at + 3], len(self.bit_of))
        return mask

    def accept(self, text):
        """Add the text unless it is too close to an earlier one."""
        mask = self.mask(text)
        size = mask.bit_count()
        for other, other_size in self.seen:
            if not self.limit * size <= other_size <= size / self.limit:
                continue
            common = (mask & other).bit_count()
            if common > self.limit * (size + other_size - common):
                return False
        self.seen.append((mask, size))
        return True


# ---------------------------------------------------------------------------------------------- the whole pool
def plan_intents(rng, count):
    """Shuffled list of intents with the planned shares (largest remainders make up the count)."""
    exact = {intent: share * count for intent, share in INTENT_SHARES.items()}
    numbers = {intent: int(value) for intent, value in exact.items()}
    by_rest = sorted(exact, key=lambda i: (numbers[i] - exact[i], i))
    for at in range(count - sum(numbers.values())):
        numbers[by_rest[at % len(by_rest)]] += 1
    plan = [intent for intent, number in numbers.items() for _ in range(number)]
    rng.shuffle(plan)
    return plan


def generate(seed, count):
    """Yield (id, text, answer) for the whole pool."""
    rng = random.Random(seed)
    duplicates = NearDuplicates(MAX_JACCARD)
    for number, intent in enumerate(plan_intents(rng, count), 1):
        for _ in range(MAX_TRIES):
            message = compose(rng, intent)
            if message is None:
                continue
            draft, filler, urgency, angry = message
            text, order = add_noise(rng, draft, filler, urgency, angry)
            if is_sound(text, order) and duplicates.accept(text):
                break
        else:
            raise RuntimeError(f"no new {intent} message found after {MAX_TRIES} tries: bank too small for {count}")
        yield f"pool-{number:04d}", text, {"intent": intent, "urgency": urgency, "order_id": order}


def write_atomically(path, rows):
    """Write JSON lines to a temporary file beside path, then rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--count", type=int, default=3200)
    parser.add_argument("--out", type=Path, required=True, help="folder for pool.jsonl and pool_gold.jsonl")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = list(generate(args.seed, args.count))
    write_atomically(args.out / "pool.jsonl", [{"id": i, "text": text} for i, text, _ in rows])
    write_atomically(args.out / "pool_gold.jsonl", [{"id": i, "answer": answer} for i, _, answer in rows])
    print(f"{len(rows)} messages written to {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
