"""What is asked for in a measurement: methods by their short names, and prompts in two halves."""
from itertools import count, islice

import numpy as np

import scenes
from scenes import KINDS, TIMES, Scene

HALF = 24          # prompts that go once over all kinds and times: the choice half is the first of each two such runs, the held-out half the second
HALVES = ["choice", "held-out"]
SIDES = ["on the left", "in the middle", "on the right"]


def settings(variant):
    """The keys of a variant, as files of prompts have them.

    "dy_yarn" is YaRN with DyPE, "dy_yarn:1:0.5:power" with lambda_s = 1, lambda_t = 0.5 and thresholds raised, "ladder:dy_yarn" climbs a
    ladder with it, "dy_yarn+anchor" anchors the text; "+KEY=VALUE" is any other setting.
    """
    method, *other = variant.split("+")
    climbs = method.startswith("ladder:")
    name, *rest = method.removeprefix("ladder:").split(":")
    keys = {"method": name.removeprefix("dy_"), "dype": name.startswith("dy_")}
    keys |= dict(zip(("dype_scale", "dype_exponent"), map(float, rest[:2])))
    keys |= {"dype_thresholds": rest[2]} if len(rest) > 2 else {}
    keys |= {"ladder": "auto"} if climbs else {}
    for word in other:
        key, _, value = word.partition("=")
        keys |= {"text_anchor": True} if word == "anchor" else {key: {"true": True, "false": False}.get(value, value)}
    return keys


def folder(variant):
    return variant.translate(str.maketrans(":+=", "___"))


def side(u):
    """Which of SIDES a sun at u is on, from 0 (the left border) to 1."""
    return 0 if u < .4 else (2 if u > .6 else 1)


def prompt(i):
    """Prompt i and the scene it describes. Kinds and times go round, each prompt asks for one sun or moon on a side."""
    kind, time = KINDS[i % 6], TIMES[i // 6 % 4]
    s, r = Scene.of(i, kind, time), np.random.default_rng([i, 99])
    pick = lambda words: words[r.integers(len(words))]
    body = "moon" if time == "night" else "sun"
    return f"{pick(scenes.KIND_WORDS[kind])} {pick(scenes.TIME_WORDS[time])}, one {body} {SIDES[side(s.sun_u)]}", s


def numbers(n, half="both"):
    """The first n prompts of a half, or of both by turns of 24: any twelve from the start of a 24 have each kind twice, each time three times."""
    order = [j % 6 + 6 * ((j + j // 12) % 4) for j in range(HALF)]
    runs = count() if half == "both" else count(HALVES.index(half), 2)
    return list(islice((run * HALF + i for run in runs for i in order), n))


def half_of(i):
    return HALVES[i // HALF % 2]
