"""Procedural landscapes: a picture as a function of (seed, size), and sentences that describe it.

The same seed gives the same scene at every size; a larger picture carries more octaves of detail, a smaller one
is band-limited. Each scene has one kind, one time of day and exactly one sun (a moon at night), never hidden.
Coordinates: v runs down from 0 to 1, u runs right from 0 to the aspect ratio. Colours are RGB in [0, 1].

    python scenes.py sheet.png        writes a contact sheet
"""
import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

KINDS = ("mountains", "lake", "city", "desert", "sea", "forest")
TIMES = ("noon", "sunset", "dawn", "night")
F = np.float32


def rgb(*c):
    return np.array(c, F)


# sky top, sky at the horizon, haze far away, dark near ground, light of the sun or moon, brightness of the ground
PALETTE = {
    "noon": (rgb(.16, .42, .86), rgb(.74, .88, .98), rgb(.60, .72, .86), rgb(.13, .27, .13), rgb(1, .98, .88), 1.0),
    "sunset": (rgb(.22, .14, .42), rgb(1.0, .50, .18), rgb(.72, .36, .36), rgb(.12, .07, .10), rgb(1, .80, .42), .62),
    "dawn": (rgb(.46, .58, .86), rgb(1.0, .80, .80), rgb(.74, .68, .82), rgb(.20, .24, .30), rgb(1, .93, .86), .78),
    "night": (rgb(.012, .02, .085), rgb(.09, .13, .30), rgb(.08, .11, .23), rgb(.012, .02, .04), rgb(.93, .95, 1), .20),
}


@dataclass
class Scene:
    """What a seed decides before anything is drawn."""
    seed: int
    kind: str
    time: str
    clouds: float      # 0 clear .. 1 cloudy
    horizon: float     # v of the horizon
    sun_u: float       # in units of the width
    sun_lift: float    # 0 just above the skyline .. 1 top of the sky
    sun_radius: float

    @staticmethod
    def of(seed, kind=None, time=None):
        r = np.random.default_rng([seed, 0])
        k, t = KINDS[r.integers(6)], TIMES[r.integers(4)]
        clouds = float(r.choice([0.0, r.uniform(.3, .55), r.uniform(.6, 1.0)]))
        horizon, sun_u, lift, radius = r.uniform(.56, .66), r.uniform(.14, .86), r.uniform(0, 1), r.uniform(.042, .06)
        return Scene(seed, kind or k, time or t, clouds, horizon, sun_u, lift, radius)

    def rng(self, stream):
        return np.random.default_rng([self.seed, stream])


def smooth(a, b, x):
    t = np.clip((x - a) / (b - a), 0, 1)
    return t * t * (3 - 2 * t)


def lattice_weights(p, size, linear=False):
    i = np.floor(p).astype(int)
    t = (p - i).astype(F)
    t = t if linear else t * t * (3 - 2 * t)
    w = np.zeros((len(p), size), F)
    n = np.arange(len(p))
    w[n, i] = 1 - t
    w[n, i + 1] += t
    return w


@lru_cache(maxsize=256)
def cached_weights(n, extent, freq, size):
    return lattice_weights((np.arange(n) + .5) / n * extent * freq, size)


def noise2(scene, stream, h, w, fv, fu, octaves=6, rough=.55, rows=None):
    """Value-noise fBm, about [-1, 1], [h, w]; octaves finer than a pixel are left out."""
    aspect, out, amp, total = w / h, np.zeros((h, w), F), 1.0, 0.0
    span = 1.0 if rows is None else float(rows.max()) + 1e-6
    for o in range(octaves):
        scale = 2.0 ** o
        fade = np.clip(h / (max(fv, fu) * scale) / 2 - .5, 0, 1)
        total += amp
        if fade > 0:
            nv, nu = int(span * fv * scale) + 2, int(aspect * fu * scale) + 2
            grid = scene.rng(stream * 100 + o).random((nv, nu), F) * 2 - 1
            wv = cached_weights(h, 1.0, fv * scale, nv) if rows is None else lattice_weights(rows * fv * scale, nv)
            out += F(amp * fade) * (wv @ grid @ cached_weights(w, aspect, fu * scale, nu).T)
        amp *= rough
    return out * F(1.6 / total)


def noise1(scene, stream, u, freq, octaves=8, rough=.5, linear=False):
    """1-D fBm over u, about [-1, 1]."""
    out, amp, total = np.zeros(len(u), F), 1.0, 0.0
    for o in range(octaves):
        f = freq * 2.0 ** o
        total += amp
        if len(u) / (u[-1] + u[0]) / f > 1.5:
            size = int((u[-1] + u[0]) * f) + 3
            grid = scene.rng(stream * 100 + o).random(size, F) * 2 - 1
            out += F(amp) * (lattice_weights(u * f, size, linear) @ grid)
        amp *= rough
    return out * F(1.4 / total)


class Canvas:
    def __init__(self, scene, h, w):
        self.scene, self.h, self.w, self.aspect = scene, h, w, w / h
        self.v = ((np.arange(h, dtype=F) + F(.5)) / h)[:, None]
        self.u = (np.arange(w, dtype=F) + F(.5)) / w * F(w / h)
        r = scene.rng(1)
        jitter = lambda c: np.clip(c * r.uniform(.93, 1.07) + r.normal(0, .012, 3), 0, 1).astype(F)
        top, hor, far, near, light, self.sunlit = PALETTE[scene.time]
        self.top, self.hor, self.far, self.near, self.light = jitter(top), jitter(hor), jitter(far), jitter(near), light
        self.image = np.zeros((h, w, 3), F)
        self.skyline = np.full(w, scene.horizon, F)
        self.layers = []

    def noise(self, stream, fv, fu, octaves=6, rough=.55, rows=None):
        return noise2(self.scene, stream, self.h, self.w, fv, fu, octaves, rough, rows)

    def ridge(self, stream, freq, octaves=9, rough=.5, linear=False):
        return noise1(self.scene, stream, self.u, freq, octaves, rough, linear)

    def below(self, crest):
        """Coverage of what lies below the line v = crest(u), antialiased. [h, w]"""
        return np.clip((self.v - crest) * self.h + .5, 0, 1)

    def paint(self, mask, colour):
        self.image += mask[..., None] * (colour - self.image)

    def draw_sky(self):
        s, v = self.scene, self.v
        g = np.clip(v / s.horizon, 0, 1)[..., None]
        self.image[:] = self.top + (self.hor - self.top) * g ** 1.5
        if s.time == "night":
            self.draw_stars()
        clearance = self.skyline[np.clip(int(s.sun_u * self.w), 0, self.w - 1)]
        left, right = int((s.sun_u * self.aspect - s.sun_radius * 1.3) * self.h), int((s.sun_u * self.aspect + s.sun_radius * 1.3) * self.h)
        clearance = float(self.skyline[max(left, 0):max(right, 1)].min())
        lowest = clearance - s.sun_radius * 1.25
        highest = max(.09, min(.14, lowest))
        lift = s.sun_lift if s.time in ("noon", "night") else s.sun_lift * .6
        self.sun_v = max(lowest + (highest - lowest) * lift, s.sun_radius * 1.1)
        self.sun_u = s.sun_u * self.aspect
        d = np.hypot(self.u - self.sun_u, v - self.sun_v)
        glow = np.exp(-np.maximum(d - s.sun_radius, 0) / (.11 if s.time != "night" else .07)) * (.62 if s.time != "night" else .30)
        if s.time in ("sunset", "dawn"):
            band = np.exp(-np.abs(v - s.horizon) / .12) * np.exp(-np.abs(self.u - self.sun_u) / .45) * .35
            self.image += band[..., None] * (self.light - self.image)
        self.image += glow[..., None] * (self.light - self.image)
        if s.clouds > 0:
            self.draw_clouds(d)
        self.without_disc = self.image.copy()
        self.disc = disc = np.clip((s.sun_radius - d) * self.h / 1.4 + .5, 0, 1)
        colour = self.light * .35 + .65 if s.time != "night" else self.light
        if s.time == "night":
            colour = self.light * (1 - .12 * smooth(0, .6, self.noise(9, 14, 14, 4))[..., None])
        self.paint(disc, colour)

    def draw_stars(self):
        r = self.scene.rng(2)
        n = int(110 * self.aspect)
        su, sv, b = r.random(n) * self.aspect, r.random(n) ** 1.2 * self.scene.horizon, r.uniform(.35, 1, n) ** 1.5
        size = .0026 * (1 + b)                       # radius in units of the height
        for x, y, bright, rad in zip(su * self.h, sv * self.h, b, np.maximum(size * self.h, .75)):
            k = int(rad * 2) + 1
            y0, y1, x0, x1 = max(int(y) - k, 0), min(int(y) + k + 1, self.h), max(int(x) - k, 0), min(int(x) + k + 1, self.w)
            yy, xx = np.arange(y0, y1)[:, None] + .5 - y, np.arange(x0, x1)[None] + .5 - x
            a = np.exp(-(yy * yy + xx * xx) / (rad * rad * .7)) * bright
            self.image[y0:y1, x0:x1] += a[..., None].astype(F) * (1 - self.image[y0:y1, x0:x1])

    def draw_clouds(self, d):
        s = self.scene
        rows = (1.0 / (1.25 - np.clip(self.v[:, 0] / s.horizon, 0, 1)) - .8).astype(F)   # flatter towards the horizon
        n = self.noise(10, 2.2, 2.4, 7, .52, rows)
        shift = max(int(.025 * self.h), 1)
        lit = np.clip(.55 + 1.6 * (n - np.concatenate([n[:1].repeat(shift, 0), n[:-shift]])), 0, 1)
        cover = .42 - .50 * s.clouds
        mask = smooth(cover, cover + .42, n) * smooth(1.02, .80, self.v / s.horizon) * .9
        mask *= .12 + .88 * smooth(s.sun_radius * .9, s.sun_radius * 2.4, d)
        bright = {"noon": rgb(1, 1, 1), "sunset": rgb(1, .62, .36), "dawn": rgb(1, .90, .88), "night": rgb(.26, .30, .44)}[s.time]
        shade = {"noon": rgb(.72, .78, .88), "sunset": rgb(.52, .24, .38), "dawn": rgb(.74, .68, .82), "night": rgb(.08, .10, .19)}[s.time]
        self.paint(mask, shade + (bright - shade) * lit[..., None])

    def facets(self, stream, crest, fv=5, fu=7, strength=2.2):
        """Light and shadow on a slope that follows its crest. [h, w] around 1"""
        n = self.noise(stream, fv, fu, 7, .60)
        row = (np.arange(self.h)[:, None] - ((crest - crest.min()) * self.h * .8).astype(int)) % self.h
        lean = (np.arange(self.w)[None] + (row * (.55 if self.scene.seed % 2 else -.55)).astype(int)) % self.w
        n = n[row, lean]
        step = max(self.w // 128, 1)
        side = 1.0 if self.scene.sun_u > .5 else -1.0
        slope = (np.roll(n, -step, 1) - np.roll(n, step, 1)) * side * (128 * step / self.w) ** -1.0
        return np.clip(1 + strength * slope, .45, 1.5)

    def hills(self, stream, base, amp, tone, texture=.16, freq=1.6, rough=.48):
        crest = base - amp * (.5 + .5 * self.ridge(stream, freq, 9, rough))
        body = self.near * self.day_ground() + (self.far - self.near * self.day_ground()) * tone
        tex = 1 + texture * self.noise(stream + 1, 9, 6, 7, .62)
        self.layers.append((crest, lambda: body * tex[..., None]))
        return crest

    def day_ground(self):
        return {"noon": 1.0, "sunset": 1.0, "dawn": 1.0, "night": 1.0}[self.scene.time]

    def mountain(self, stream, base, amp, tone, snow):
        r = self.scene.rng(stream)
        ridge = self.ridge(stream, r.uniform(2.2, 3.2), 10, .46, linear=True)
        height = .58 + .85 * ridge
        height = np.where(height > .9, .9 + .4 * np.tanh((height - .9) / .4), np.maximum(height, .05))
        crest = (base - amp * height).astype(F)
        light = .30 + .70 * self.light
        rock = {"noon": rgb(.42, .42, .46), "sunset": rgb(.38, .22, .26), "dawn": rgb(.44, .40, .50), "night": rgb(.07, .09, .15)}[self.scene.time]

        def colour():
            f = self.facets(stream + 1, crest)[..., None]
            c = np.broadcast_to(rock, self.image.shape) * f
            if snow:
                line = base - amp * .42 + .06 * self.noise(stream + 2, 9, 12, 6, .6) - .25 * (crest - (base - amp * .5))
                m = smooth(.012, -.012, self.v - line)[..., None]
                white = light * (.20 + .74 * self.sunlit ** .6) * np.clip(f, .62, 1.12) * rgb(.97, .98, 1.03)
                c = c + m * (white - c)
            return c + (self.far - c) * tone
        self.layers.append((crest, colour))
        return crest

    def finish_layers(self):
        for crest, colour in self.layers:
            self.paint(self.below(crest), np.clip(colour(), 0, 1))
        self.layers = []

    def begin(self):
        for crest, _ in self.layers:
            self.skyline = np.minimum(self.skyline, crest)
        self.draw_sky()
        self.finish_layers()


def draw_mountains(c):
    r, hz = c.scene.rng(3), c.scene.horizon
    c.hills(30, hz + .02, r.uniform(.16, .24), .80, .05)
    c.mountain(33, hz + .12, r.uniform(.34, .44), r.uniform(.12, .25), True)
    c.hills(36, hz + .16, .10, .35)
    c.hills(38, hz + .32, .14, .06, .24)
    c.begin()


def draw_lake(c):
    r, hz = c.scene.rng(3), c.scene.horizon + .02
    c.mountain(33, hz + .06, r.uniform(.26, .38), r.uniform(.30, .45), True)
    c.hills(36, hz + .01, r.uniform(.05, .10), .22, .14, 2.2)
    c.begin()
    first = int(hz * c.h)
    d = (c.v[first:, 0] - hz)
    rows = np.clip(((hz - d * .96) * c.h).astype(int), 0, c.h - 1)
    waves = c.noise(50, 26, 3, 5, .6, rows=(1.2 / (d.max() + .25) * np.sqrt(np.clip(c.v[:, 0] - hz, 0, 1) + .02)).astype(F))[first:]
    shift = (waves * d[:, None] * .10 * c.h).astype(int)
    cols = np.arange(c.w)[None] + np.zeros_like(shift)
    lift = np.clip(rows[:, None] + shift, 0, first - 1)
    # the water carries the glow, not a second disc
    mirror = np.where((c.disc > 0)[..., None], c.without_disc, c.image)[lift, cols]
    deep = c.near * .5 + rgb(.01, .05, .09) * (.3 + c.sunlit)
    keep = (.84 - .42 * smooth(0, .40, d))[:, None, None]
    c.image[first:] = mirror * keep + deep * (1 - keep) + (.05 * c.sunlit + .01) * waves[..., None]
    shore = np.exp(-np.abs(c.v - hz) / .004) * .35
    c.paint(shore, c.near * .6)
    if r.random() < .5:                              # a dark bank in front
        c.hills(56, 1.02, .09, .0, .3, 2.0)
        c.finish_layers()


def draw_buildings(c, stream, count, base, low, high, body, lit_share, glass):
    r = c.scene.rng(stream)
    lamp = rgb(1, .84, .48)
    xs = np.linspace(-.02, c.aspect + .02, count) + r.uniform(-.02, .02, count)
    boxes = []
    for x in r.permutation(xs):
        boxes.append((x, r.uniform(.05, .085), r.uniform(low, high), r.uniform(.80, 1.15), r.random(), int(r.integers(1 << 30))))
    def draw():
        for x, width, height, shade, roof, seed in boxes:
            y0, y1, x0, x1 = base - height, 1.0, x - width / 2, x + width / 2
            cover = np.clip((np.minimum(c.u + .5 / c.h, x1) - np.maximum(c.u - .5 / c.h, x0)) * c.h, 0, 1)
            rows = np.clip((c.v[:, 0] - y0) * c.h + .5, 0, 1)
            if roof > .75:                           # a spire
                thin = np.clip((.004 - np.abs(c.u - x)) * c.h + .5, 0, 1)
                c.paint(np.clip((c.v - (y0 - .05)) * c.h + .5, 0, 1) * thin, body * shade)
            a, b = np.searchsorted(c.u, x0 - 1.0 / c.h), np.searchsorted(c.u, x1 + 1.0 / c.h)
            if b <= a:
                continue
            k = int(max(y0 * c.h - 1, 0))
            part = c.image[k:, a:b]
            m = (rows[k:, None] * cover[None, a:b])[..., None]
            part += m * (body * shade * (1 + .12 * (c.u[a:b, None] - x) / width) - part)
            if glass is None:
                continue
            cu, cv = .0168, .0235                    # cell of a window
            nu, nv = max(int((width - .008) / cu), 1), int((1.0 - y0) / cv) + 1
            on = np.random.default_rng(seed).random((nv + 1, nu + 1))
            pu, pv = (c.u[a:b] - x) / cu + nu / 2, (c.v[k:, 0] - y0 - .010) / cv
            edge_u, edge_v = cu * c.h * .9, cv * c.h * .9
            inside_u = np.clip((.30 - np.abs(pu % 1 - .5)) * edge_u + .5, 0, 1) * (pu > 0) * (pu < nu)
            inside_v = np.clip((.30 - np.abs(pv % 1 - .5)) * edge_v + .5, 0, 1) * (pv > 0)
            o = on[np.clip(pv.astype(int), 0, nv)[:, None], np.clip(pu.astype(int), 0, nu)[None]]
            col = np.where((o < lit_share)[..., None], lamp * (.70 + .6 * o[..., None] / max(lit_share, .1) * .5), glass)
            part += (inside_v[:, None] * inside_u[None])[..., None] * m * (np.clip(col, 0, 1) - part)
    crest = np.full(c.w, 1.0, F)
    for x, width, height, _, roof, _ in boxes:
        inside = np.abs(c.u - x) < width / 2 + .006
        crest[inside] = np.minimum(crest[inside], base - height - (.05 if roof > .75 else 0))
    return crest, draw


def draw_city(c):
    r, s, hz = c.scene.rng(3), c.scene, c.scene.horizon + .10
    lit = {"noon": .03, "sunset": .42, "dawn": .22, "night": .52}[s.time]
    dark = {"noon": rgb(.36, .40, .47), "sunset": rgb(.20, .12, .19), "dawn": rgb(.34, .34, .44), "night": rgb(.035, .045, .085)}[s.time]
    glass = {"noon": rgb(.62, .74, .86), "sunset": rgb(.36, .20, .24), "dawn": rgb(.58, .56, .66), "night": rgb(.06, .075, .13)}[s.time]
    far_crest, far = draw_buildings(c, 40, int(15 * c.aspect), hz, .14, r.uniform(.28, .36), c.far * .6 + dark * .4, lit, None)
    near_crest, near = draw_buildings(c, 41, int(11 * c.aspect), hz + .06, .16, r.uniform(.34, .44), dark, lit, glass)
    c.skyline = np.minimum(np.minimum(far_crest, near_crest), c.skyline)
    c.begin()
    far()
    near()
    ground = hz + .16
    tex = 1 + .10 * c.noise(48, 10, 5, 5)
    c.paint(c.below(np.full(c.w, ground, F)), (c.near * .7 + dark * .35) * tex[..., None])


def draw_desert(c):
    r, s, hz = c.scene.rng(3), c.scene, c.scene.horizon
    sand = {"noon": rgb(.93, .74, .46), "sunset": rgb(.90, .48, .24), "dawn": rgb(.88, .68, .56), "night": rgb(.17, .17, .24)}[s.time]
    dark = {"noon": rgb(.70, .50, .28), "sunset": rgb(.40, .16, .15), "dawn": rgb(.58, .42, .44), "night": rgb(.055, .06, .11)}[s.time]
    n = 4
    for k in range(n):
        z = k / (n - 1)
        base, amp = hz + .04 + z * .26, .07 + .09 * z
        crest = base - amp * c.ridge(30 + 3 * k, 1.2 + .5 * (1 - z), 3, .34)
        def colour(k=k, z=z, crest=crest):
            step = 3
            slope = (np.roll(crest, -step) - np.roll(crest, step)) / (2 * step) * c.h
            slope[:step], slope[-step:] = slope[step], slope[-step - 1]
            skew = ((c.v - crest) * .8 * c.h).astype(int) * (1 if s.sun_u > .5 else -1)
            idx = np.clip(np.arange(c.w)[None] + skew, 0, c.w - 1)
            lit = smooth(-.16, .20, slope[idx] * (-1 if s.sun_u > .5 else 1))
            grain = .05 * c.noise(31 + 3 * k, 30 + 20 * (1 - z), 5, 5, .6)
            out = dark + (sand - dark) * np.clip(.18 + .82 * lit + grain, 0, 1.1)[..., None]
            return out + (c.hor * .6 + c.far * .4 - out) * F((1 - z) * .32)
        c.layers.append((crest, colour))
    c.begin()


def draw_sea(c):
    r, s, hz = c.scene.rng(3), c.scene, c.scene.horizon - .01
    c.skyline[:] = hz
    if r.random() < .35:
        c.hills(36, hz + .004, r.uniform(.03, .07), .55, .08, 1.5)
    c.begin()
    d = np.clip(c.v - hz, 0, 1)
    deep = {"noon": rgb(.03, .25, .42), "sunset": rgb(.13, .08, .20), "dawn": rgb(.22, .32, .48), "night": rgb(.012, .03, .08)}[s.time]
    pale = {"noon": rgb(.25, .58, .74), "sunset": rgb(.78, .38, .28), "dawn": rgb(.80, .68, .76), "night": rgb(.07, .11, .22)}[s.time]
    rows = (2.2 * np.log1p(np.clip(d[:, 0], 0, 1) * 14) / np.log(15)).astype(F)
    waves = c.noise(50, 9, 4, 6, .66, rows) * (.35 + .65 * smooth(0, .2, d))
    water = pale + (deep - pale) * (smooth(0, .36, d)[..., None] ** .7)
    water = water * (1 + .40 * waves[..., None])
    width = .03 + .22 * d
    path = np.exp(-((c.u - c.sun_u) / width) ** 2) * smooth(-.45, .75, waves + .25 - .5 * d)
    water = water + np.clip(path * (.85 if s.time != "night" else .55), 0, 1)[..., None] * (c.light - water)
    foam = smooth(.55, .95, waves) * smooth(.02, .25, d) * (.45 * c.sunlit)
    water = water + foam[..., None] * (c.light * .9 - water)
    c.paint(c.below(np.full(c.w, hz, F)), np.clip(water, 0, 1))


def draw_forest(c):
    r, hz = c.scene.rng(3), c.scene.horizon
    c.hills(30, hz - .02, r.uniform(.12, .20), .85, .04)
    leaf = {"noon": rgb(.10, .25, .12), "sunset": rgb(.11, .07, .08), "dawn": rgb(.13, .20, .20), "night": rgb(.02, .045, .06)}[c.scene.time]
    n = 4
    for k in range(n):
        z = k / (n - 1)
        rr = c.scene.rng(60 + k)
        count = int((34 - 17 * z) * c.aspect)
        x = (np.arange(count) + rr.uniform(.1, .9, count)) / count * (c.aspect + .1) - .05
        tall, wide = rr.uniform(.6, 1.15, count) * (.10 + .15 * z), rr.uniform(.8, 1.2, count) * (.020 + .022 * z)
        p = 1 - np.abs(c.u[None] - x[:, None]) / wide[:, None]
        saw = (p * 7) % 1
        p = np.where(p > 0, p - (.10 * saw * (p < .93)), -1)
        ground = hz + .05 + .17 * z - .03 * c.ridge(70 + k, 2.0, 4)
        crest = np.minimum(ground, (ground[None] - (p * tall[:, None])).min(0)).astype(F)
        haze = F((1 - z) * .62)
        fog = smooth(0, .22, c.v - crest)[..., None] * F((1 - z) * .45 + .04)
        def colour(k=k, haze=haze, fog=fog):
            body = leaf * (1 + .45 * c.noise(80 + k, 16, 20, 6, .65))[..., None]
            body = body + (c.far - body) * haze
            return body + (c.far * .8 + c.hor * .2 - body) * fog
        c.layers.append((crest, colour))
    c.begin()


DRAW = {"mountains": draw_mountains, "lake": draw_lake, "city": draw_city, "desert": draw_desert, "sea": draw_sea, "forest": draw_forest}


def render(scene, h, w):
    """The picture of a scene, uint8 [h, w, 3]."""
    return render_with_sun(scene, h, w)[0]


def render_with_sun(scene, h, w):
    """The picture and where its sun is: (uint8 [h, w, 3], (u, v) as shares of width and height)."""
    c = Canvas(scene, h, w)
    DRAW[scene.kind](c)
    return (np.clip(c.image, 0, 1) * 255 + .5).astype(np.uint8), (c.sun_u / c.aspect, c.sun_v)


KIND_WORDS = {
    "mountains": ["mountains", "snowy mountains", "a mountain landscape", "snowy peaks", "a mountain range", "mountain peaks with snow", "an alpine landscape", "a high mountain"],
    "lake": ["a lake", "a calm lake", "a mountain lake", "a lake below snowy mountains", "a quiet lake with reflections", "a lake that reflects the mountains", "still water below the mountains", "a calm lake below mountains"],
    "city": ["a city", "a city skyline", "skyscrapers", "a city with lit windows", "tall buildings", "a skyline of towers", "a big city", "buildings of a town"],
    "desert": ["a desert", "sand dunes", "desert dunes", "dunes of sand", "a dry desert", "a sandy desert", "golden dunes", "a desert landscape"],
    "sea": ["the sea", "the ocean", "a calm sea", "ocean waves", "the open sea", "waves on the sea", "a seascape", "the sea with waves"],
    "forest": ["a forest", "a misty forest", "pine trees", "a forest of firs", "woods", "a pine forest", "trees in the mist", "a dark forest"],
}
TIME_WORDS = {
    "noon": ["at noon", "at midday", "by day", "on a sunny day", "in the bright daylight", "under a blue sky", "in the sunshine", "in the afternoon"],
    "sunset": ["at sunset", "at dusk", "in the evening", "in the evening light", "under an orange sky", "at golden hour", "in the glow of sunset", "under a red sky"],
    "dawn": ["at dawn", "at sunrise", "in the morning", "in the early morning", "in the morning light", "under a pink sky", "at daybreak", "in the soft light of dawn"],
    "night": ["at night", "by night", "in the moonlight", "under the stars", "under a starry sky", "at midnight", "in the dark night", "under the moon"],
}
CLOUD_WORDS = {0: ["clear sky", "a clear sky", "no clouds", "a cloudless sky"], 1: ["some clouds", "a few clouds", "scattered clouds"], 2: ["many clouds", "a cloudy sky", "clouds", "heavy clouds"]}
OPENINGS = ["", "", "", "", "a photo of ", "a picture of ", "a landscape with ", "a view of ", "a beautiful view of ", "a painting of "]


def cloud_class(scene):
    return 0 if scene.clouds == 0 else (1 if scene.clouds < .58 else 2)


FILLERS = ["beautiful", "detailed", "wonderful", "very", "wide", "great", "digital", "cinematic", "highly", "realistic", "nice", "old", "small", "big"]


def caption(scene, r, flipped=False):
    """A sentence about the scene and what it says: (text, {"kind", "time", "clouds", "side"}), -1 for what it leaves out.

    `r` is a numpy Generator; `flipped` says that the picture is mirrored.
    """
    pick = lambda words: words[r.integers(len(words))]
    said = {"kind": -1, "time": -1, "clouds": -1, "side": -1}
    parts = [pick(OPENINGS)]
    words = {"kind": pick(KIND_WORDS[scene.kind]), "time": pick(TIME_WORDS[scene.time])}
    named = ["kind", "time"] if r.random() < .90 else [pick(["kind", "time"])]
    for n in named:
        said[n] = KINDS.index(scene.kind) if n == "kind" else TIMES.index(scene.time)
    text = parts[0] + " ".join(words[n] for n in named) if r.random() < .75 else ", ".join(words[n] for n in reversed(named))
    if r.random() < .45:
        said["clouds"] = cloud_class(scene)
        text += pick([" with ", ", "]) + pick(CLOUD_WORDS[said["clouds"]])
    if r.random() < .45:
        x = 1 - scene.sun_u if flipped else scene.sun_u
        said["side"] = 0 if x < .40 else (2 if x > .60 else 1)
        body = "moon" if scene.time == "night" else "sun"
        text += ", " + pick(["the ", "one ", "a "]) + body + " " + ["on the left", "in the middle", "on the right"][said["side"]]
    return decorate(text, r), said


def decorate(text, r):
    """What people add: words that say nothing, capitals, a full stop."""
    if r.random() < .25:
        junk = FILLERS[r.integers(len(FILLERS))] if r.random() < .7 else "".join("abcdefghijklmnopqrstuvwxyz"[i] for i in r.integers(0, 26, r.integers(3, 7)))
        words = text.split(" ")
        words.insert(int(r.integers(len(words) + 1)), junk)
        text = " ".join(words)
    if r.random() < .3:
        text = text[0].upper() + text[1:]
    return text + "." if r.random() < .2 else text


def contact_sheet(path, first=0, columns=8, rows=6, size=256):
    from PIL import Image
    sheet = np.concatenate([np.concatenate([render(Scene.of(first + y * columns + x, KINDS[y % 6], TIMES[x % 4]), size, size) for x in range(columns)], 1) for y in range(rows)])
    Image.fromarray(sheet).save(path)


if __name__ == "__main__":
    contact_sheet(sys.argv[1] if len(sys.argv) > 1 else "sheet.png")
