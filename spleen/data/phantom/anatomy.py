"""The abdominal organs of the synthetic CT, in the portal venous phase, as parts in painting order.

Same frame as the trunk: millimetres, RAS+ (+x right, +y front, +z up), pelvis at z = 0, lower heart at z = 450.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from spleen.data.phantom.shapes import (
    Number,
    Part,
    Shape,
    Vector,
    curved_tube,
    ellipsoid,
    grow,
    in_front_of,
    intersect,
    moved,
    shell,
    subtract,
    union,
)
from spleen.data.phantom.trunk import Trunk, back_muscles, draw_trunk, lungs, skeleton, walls
from spleen.data.phantom.visit import Visit

Knots = list[tuple[Number, Number, Number, Number]]

# Spleen volume of the reference scan.
SPLEEN_MM3 = 96_672.0

# Paths: x, y, z and radius in mm. Vessels: HU, then the path.
VESSELS: list[tuple[Number, Knots]] = [
    (165, [(-20, -14, 470, 12), (-16, -12, 380, 12), (-10, -2, 300, 11), (-8, 4, 220, 10), (-6, 8, 120, 9)]),
    (165, [(-6, 8, 120, 8), (-30, 4, 70, 6), (-58, -4, 10, 5)]),
    (165, [(-6, 8, 120, 8), (22, 6, 70, 6), (54, 0, 10, 5)]),
    (128, [(24, 14, 380, 12), (24, 10, 330, 12), (20, 2, 260, 11), (18, 2, 190, 11), (17, 4, 112, 10)]),
    (125, [(17, 4, 112, 9), (-20, -4, 70, 7), (-50, -12, 10, 6)]),
    (125, [(17, 4, 112, 9), (34, -4, 70, 7), (64, -8, 10, 6)]),
    (165, [(-9, 4, 262, 4), (-9, 22, 262, 4), (-34, 28, 262, 3), (-70, 6, 264, 3)]),
    (165, [(-9, 4, 250, 4), (-7, 22, 240, 4), (-6, 30, 200, 4), (4, 34, 140, 3)]),
    (160, [(8, 36, 130, 4), (8, 32, 200, 5), (6, 22, 236, 6)]),
    (160, [(6, 22, 236, 7), (24, 24, 252, 7), (46, 20, 272, 7)]),
    (160, [(-84, -14, 272, 4), (-58, 4, 262, 4), (-28, 22, 248, 5), (6, 22, 236, 6)]),
    (140, [(-84, -14, 272, 2.5), (-92, 12, 285, 2), (-88, 40, 292, 1.5)]),
    (140, [(-84, -14, 272, 2.5), (-100, 10, 258, 2), (-92, 48, 248, 1.5)]),
    (165, [(-9, 4, 228, 3), (-28, -14, 222, 3), (-44, -26, 212, 2)]),
    (165, [(-9, 4, 226, 3), (10, -12, 220, 3), (44, -28, 202, 2)]),
    (132, [(18, 2, 222, 5), (-12, 16, 222, 4), (-30, -6, 216, 4), (-46, -24, 210, 3)]),
    (132, [(18, 2, 212, 5), (34, -14, 206, 4), (46, -28, 200, 3)]),
]
LIVER_VESSELS: list[Knots] = [
    [(46, 20, 272, 6), (70, 6, 274, 5), (98, -14, 262, 2)],
    [(70, 6, 274, 4), (92, 28, 278, 3), (108, 40, 262, 1.5)],
    [(46, 20, 272, 5), (28, 42, 290, 5), (4, 54, 292, 3), (-26, 58, 296, 1.5)],
    [(28, 8, 336, 6), (62, -8, 320, 5), (98, -14, 296, 2)],
    [(28, 8, 336, 5), (46, 32, 316, 4), (66, 50, 282, 2)],
    [(26, 10, 336, 5), (10, 38, 320, 4), (-18, 56, 308, 2)],
]
STOMACH: Knots = [
    (-52, -22, 314, 27),
    (-66, 10, 304, 36),
    (-66, 48, 278, 31),
    (-42, 68, 244, 24),
    (-6, 68, 222, 18),
    (24, 54, 226, 9),
]
OESOPHAGUS: Knots = [(-6, -12, 470, 8), (-8, -6, 370, 8), (-16, 4, 335, 8), (-36, 0, 320, 9)]
DUODENUM: Knots = [
    (24, 54, 226, 11),
    (48, 42, 222, 13),
    (50, 20, 196, 13),
    (42, 16, 168, 12),
    (8, 18, 158, 11),
    (-24, 26, 170, 12),
]
PANCREAS: Knots = [
    (36, 26, 196, 11),
    (34, 28, 216, 14),
    (12, 32, 234, 9),
    (-20, 32, 250, 11),
    (-50, 12, 262, 11),
    (-74, -2, 268, 8),
]
COLON: Knots = [
    (72, 18, 60, 24), (98, 6, 110, 24), (104, 6, 160, 23), (94, 38, 178, 21), (62, 76, 172, 18), (0, 82, 162, 17),
    (-50, 78, 178, 17), (-88, 50, 212, 18), (-108, 14, 228, 17), (-110, -14, 200, 15), (-110, -18, 150, 14),
    (-104, -6, 90, 14), (-84, 4, 50, 14), (-40, 16, 24, 15), (0, -8, 10, 16),
]  # fmt: skip


def abdomen(rng: np.random.Generator, volume_mm3: Callable[[Shape], float], visit: Visit) -> Iterator[Part]:
    """All parts of one patient in painting order; `volume_mm3` returns the volume of a shape in that patient."""
    # One random stream per organ, so that a change to one organ does not affect the others.
    streams = rng.spawn(9)
    trunk = draw_trunk(streams[0])
    yield from walls(trunk)
    yield from _lowered(lungs(trunk, streams[1]), visit.breath_mm)
    yield from back_muscles(trunk)
    yield from skeleton(trunk)
    yield from _lowered(_organs(trunk, streams, volume_mm3, visit), visit.breath_mm)


def _organs(
    trunk: Trunk, streams: Sequence[np.random.Generator], volume_mm3: Callable[[Shape], float], visit: Visit
) -> Iterator[Part]:
    """Everything that moves with the diaphragm, where it lies at the first visit."""
    yield from _mesentery(streams[2])
    yield from _shifted(_bowel(streams[3]), streams[3], 3)
    yield from _shifted(_colon(streams[4]), streams[4], 4)
    yield from _shifted(_kidneys(streams[5]), streams[5], 3)
    yield from _liver(trunk, streams[6])
    yield from _shifted(_stomach(), streams[7], 2)
    yield Part("spleen", 112, 6, _spleen(trunk, streams[8], volume_mm3, visit))
    yield from _shifted(_vessels(), streams[8], 1.5)


def _lowered(parts: Iterable[Part], breath_mm: Number) -> Iterator[Part]:
    """The parts as a breath deeper by `breath_mm` puts them."""
    for part in parts:
        yield replace(part, shape=moved(part.shape, (0, 0, -breath_mm))) if breath_mm else part


def _shifted(parts: Iterable[Part], rng: np.random.Generator, sigma_mm: Number) -> Iterator[Part]:
    """Shift an organ with all its layers by a small random offset per patient."""
    dx, dy, dz = (float(d) for d in rng.uniform(-sigma_mm, sigma_mm, 3))
    for part in parts:
        yield Part(part.name, part.hu, part.texture_hu, moved(part.shape, (dx, dy, dz)))


def _spleen(trunk: Trunk, rng: np.random.Generator, volume_mm3: Callable[[Shape], float], visit: Visit) -> Shape:
    """The spleen, scaled to its target volume, because wall, diaphragm and hilum cut it differently in each patient."""
    shift: Vector = tuple(float(d) for d in rng.uniform(-3, 3, 3))  # type: ignore[assignment]
    goal_mm3, scale = SPLEEN_MM3 * rng.uniform(0.95, 1.05), 1.0
    for _ in range(4):
        scale *= (goal_mm3 / volume_mm3(_crescent(trunk, shift, scale))) ** 0.4
    if visit.number:
        # Measured where the breath puts it: the patient's deformation differs from place to place.
        goal_mm3 = volume_mm3(_crescent(trunk, shift, scale)) * visit.spleen_factor
        for _ in range(12):
            lowered = moved(_crescent(trunk, shift, scale), (0, 0, -visit.breath_mm))
            scale *= (goal_mm3 / volume_mm3(lowered)) ** 0.4
    return _crescent(trunk, shift, scale)


def _crescent(trunk: Trunk, shift_mm: Vector, scale: Number) -> Shape:
    """Along the tenth rib: convex towards diaphragm and ribs, concave at the hilum, upper pole posterior."""
    dx, dy, dz = shift_mm
    centre = (-106 + dx, -30 + dy, 274 + dz)
    body = ellipsoid(centre, (31 * scale, 42 * scale, 51 * scale), (24, 14, -14))
    hilum = ellipsoid((centre[0] + 43, centre[1] + 26, centre[2] + 2), (36, 44, 46), (20, 10, -14))
    kidney_bed = ellipsoid((-58 + dx, -34 + dy, 216 + dz), (36, 32, 60), (0, 10, 0))
    bounded = intersect(body, grow(trunk.cavity.shape(), -2.0), grow(trunk.dome, -3.5), blend_mm=4)
    return subtract(bounded, hilum, kidney_bed, blend_mm=8)


def _liver(trunk: Trunk, rng: np.random.Generator) -> Iterator[Part]:
    """Right lobe under the dome, left lobe across the midline, concave below; vessels and gallbladder."""
    size = rng.uniform(0.97, 1.03)
    right = ellipsoid((74, 8, 262), (74 * size, 98, 104), (0, -8, 0))
    left = ellipsoid((-8, 62, 294), (78 * size, 42, 42), (0, -8, -8))
    hollow = ellipsoid((18, 4, 186), (60, 72, 66), (0, 24, 0))
    porta = ellipsoid((14, 20, 262), (34, 20, 18), (0, 0, -20))
    spine_bed = ellipsoid((-8, -34, 280), (38, 38, 120))
    kidney_bed = ellipsoid((64, -50, 196), (36, 36, 66))
    merged = union(right, left, blend_mm=20)
    edge = grow(trunk.cavity.shape(), -1.5)
    shape = subtract(
        intersect(merged, edge, grow(trunk.dome, -4.0), blend_mm=5),
        hollow,
        porta,
        spine_bed,
        kidney_bed,
        blend_mm=10,
    )
    yield Part("liver", 106, 6, shape)
    for knots in LIVER_VESSELS:
        yield from (Part("blood", 150, 5, intersect(rod, shape)) for rod in curved_tube(knots, 9))
    fissure = ellipsoid((20, 78, 262), (2.2, 22, 24), (0, 0, 14))
    yield Part("fat", -60, 10, fissure)
    bladder = ellipsoid((56, 66, 214), (14, 21, 26), (-25, 0, 10))
    yield Part("wall", 70, 5, bladder)
    yield Part("bile", 10, 3, grow(bladder, -1.8))


def _kidneys(rng: np.random.Generator) -> Iterator[Part]:
    """Cortex, pyramids, sinus fat, pelvis and ureter, the fascia behind, and the adrenal above."""
    for side, z in ((-1, 210.0), (1, 198.0)):
        x, y, tilt = side * 60.0, -34.0, -side * 12.0
        outer = ellipsoid((x, y, z), (28, 26, 57), (0, tilt, side * 30))
        sinus = ellipsoid((x - side * 20, y + 10, z), (20, 13, 24), (0, tilt, 0))
        yield Part("fat", -60, 10, intersect(shell(grow(outer, 11), 1.6), ellipsoid((x, y - 20, z), (60, 50, 60))))
        yield Part("cortex", 158, 8, subtract(outer, sinus, blend_mm=6))
        for height in np.linspace(-36, 36, 7):
            for angle in (-70.0, 0.0, 70.0):
                reach = 15.5 * np.sqrt(1 - (height / 54) ** 2)
                direction = np.deg2rad((0 if side > 0 else 180) + angle)
                lean = -side * np.tan(np.deg2rad(12)) * height
                cx, cy = x + lean + reach * np.cos(direction), y + reach * np.sin(direction)
                size = float(rng.uniform(6.0, 8.0))
                yield Part("medulla", 112, 4, ellipsoid((cx, cy, z + height), (size, size, size)))
        yield Part("fat", -75, 12, intersect(sinus, grow(outer, -1)))
        pelvis: Knots = [
            (x - side * 4, y + 6, z, 6),
            (x - side * 20, y + 12, z - 6, 5),
            (x - side * 26, y + 12, z - 36, 2.5),
        ]
        ureter: Knots = [
            (x - side * 26, y + 12, z - 36, 2.5),
            (x - side * 22, 8, z - 110, 2.5),
            (side * 40, 0, 20, 2.5),
        ]
        yield from (Part("urine", 20, 3, rod) for rod in [*curved_tube(pelvis, 6), *curved_tube(ureter, 8)])
        adrenal: Knots = [
            (side * 26, -14, z + 64, 3),
            (side * 32, -24, z + 58, 2.5),
            (side * 38, -34, z + 54, 2),
        ]
        yield from (Part("adrenal", 85, 3, rod) for rod in curved_tube(adrenal, 5))


def _stomach() -> Iterator[Part]:
    yield from (Part("wall", 68, 4, rod) for rod in curved_tube(OESOPHAGUS, 10))
    yield from (Part("content", -100, 40, rod) for rod in curved_tube(OESOPHAGUS, 10, 5.5))
    yield from (Part("wall", 82, 8, rod) for rod in curved_tube(PANCREAS, 16))
    yield from _hollow(DUODENUM, 14, 3.0, 25, 84)
    yield from _hollow(STOMACH, 18, 4.5, 30, 84)
    yield from (
        Part("gas", -960, 0, intersect(rod, in_front_of(58), blend_mm=0.5)) for rod in curved_tube(STOMACH, 18, 5.5)
    )


def _hollow(knots: Knots, n: int, wall_mm: Number, content_hu: Number, wall_hu: Number) -> Iterator[Part]:
    """A tube with a wall; the wall is painted first so that the lumen is continuous."""
    yield from (Part("wall", wall_hu, 6, rod) for rod in curved_tube(knots, n))
    yield from (Part("content", content_hu, 14, rod) for rod in curved_tube(knots, n, wall_mm))


def _colon(rng: np.random.Generator) -> Iterator[Part]:
    """Haustra as radius changes along the path, stool with bubbles, and gas anteriorly."""
    n = 90
    table = np.array(COLON)
    haustra: Knots = []
    t = np.linspace(0, len(COLON) - 1, n)
    wobble = 1 + 0.16 * np.sin(np.arange(n) * 2.1) + rng.normal(0, 0.04, n)
    for position, factor in zip(t, wobble, strict=True):
        row = [np.interp(position, np.arange(len(COLON)), table[:, c]) for c in range(4)]
        haustra.append((float(row[0]), float(row[1]), float(row[2]), float(row[3] * factor)))
    yield from _hollow(haustra, n, 2.6, 40, 78)
    for piece in curved_tube(haustra, n, 3.2):
        level_y = (piece.lower[1] + piece.upper[1]) / 2 + rng.normal(4, 3)
        yield Part("gas", -930, 30, intersect(piece, in_front_of(level_y), blend_mm=1))
    for _ in range(180):
        x, y, z, r = haustra[int(rng.integers(n))]
        cx, cy, cz = np.array([x, y, z]) + rng.normal(0, r * 0.33, 3)
        size = float(rng.uniform(1.2, 3.4))
        yield Part("stool", float(rng.choice([-650, -350, 90])), 0, ellipsoid((cx, cy, cz), (size, size * 0.8, size)))


def _bowel(rng: np.random.Generator) -> Iterator[Part]:
    """Small bowel: random loops in the lower abdomen, some filled, some collapsed, some with gas."""
    for loop in range(22):
        jejunal = loop > 15
        left, right, low, high = (-90, -16, 165, 232) if jejunal else (-76, 76, 8, 165)
        x, y, z = rng.uniform(left, right), rng.uniform(24, 66), rng.uniform(low, high)
        knots: Knots = []
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(7):
            knots.append((float(x), float(y), float(z), float(rng.uniform(8.5, 13))))
            heading += rng.normal(0, 1.1)
            x = np.clip(x + 26 * np.cos(heading), left, right)
            y = np.clip(y + 20 * np.sin(heading), 14, 66)
            z = np.clip(z + rng.normal(0, 9), low, high)
        yield from _hollow(knots, 15, 2.6, float(rng.choice([15, 30, 60])), 92)
        if loop % 3 == 0:
            gas = curved_tube(knots, 15, 3.5)[1:3]
            yield from (Part("gas", -900, 0, intersect(rod, in_front_of(knots[3][1] + 2), blend_mm=1)) for rod in gas)


def _mesentery(rng: np.random.Generator) -> Iterator[Part]:
    """Small vessels and strands fanning out through the fat from the mesenteric root."""
    for _ in range(60):
        root = np.array([0, 30, rng.uniform(110, 225)]) + rng.normal(0, 6, 3)
        tip = np.array([rng.uniform(-88, 88), rng.uniform(30, 86), root[2] + rng.normal(-40, 30)])
        middle = (root + tip) / 2 + rng.normal(0, 9, 3)
        radius = float(rng.uniform(1.3, 2.6))
        knots = [[*root, radius], [*middle, radius], [*tip, 0.8]]
        yield from (Part("blood", 120, 0, rod) for rod in curved_tube(knots, 4))


def _vessels() -> Iterator[Part]:
    for hu, knots in VESSELS:
        yield from (Part("blood", hu, 4, rod) for rod in curved_tube(knots, 4 * len(knots)))
