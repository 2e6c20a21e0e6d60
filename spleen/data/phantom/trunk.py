"""The trunk of the synthetic CT: outline, wall, muscles, skeleton, diaphragm and lungs, as parts in painting order.

Millimetres, RAS+: +x right, +y anterior, +z superior. The spine is near x = 0, y = -30; heights follow a supine
adult from the pelvis (z = 0) to the lower heart (z = 450).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spleen.data.phantom.shapes import (
    Field,
    Number,
    Part,
    Points,
    Shape,
    Vector,
    above,
    barrel,
    capsule,
    curve,
    curved_tube,
    ellipsoid,
    grow,
    intersect,
    region,
    shell,
    subtract,
    tube,
    union,
)

Profile = NDArray[np.float64]
HEIGHTS_MM = np.array([0, 60, 120, 170, 220, 280, 340, 400, 450.0])
SKIN_MM = {
    "side": np.array([172, 170, 158, 151, 154, 160, 164, 167, 170.0]),
    "front": np.array([106, 110, 112, 113, 117, 121, 122, 120, 116.0]),
    "back": np.array([122, 118, 112, 110, 114, 119, 122, 124, 124.0]),
}
FAT_MM = {
    "side": np.array([30, 30, 25, 19, 14, 12, 11, 11, 12.0]),
    "front": np.array([26, 28, 26, 22, 17, 14, 12, 12, 14.0]),
    "back": np.array([32, 26, 20, 15, 12, 11, 11, 11, 11.0]),
}
WALL_MM = {
    "side": np.array([22, 17, 17, 18, 17, 16, 16, 16, 18.0]),
    "front": np.array([9, 10, 10, 10, 11, 12, 13, 15, 17.0]),
    "back": np.array([38, 40, 41, 40, 38, 36, 35, 33, 32.0]),
}
VERTEBRAE_MM = [85, 121, 157, 192, 226, 258, 287, 314, 340, 365, 389, 412, 435, 457]
FIRST_RIB_VERTEBRA = 5
RIB_END_DEG = [-42, -8, 28, 42, 50, 55, 58, 60, 60]


@dataclass(frozen=True)
class Girth:
    """A closed outline around the trunk: half width, anterior and posterior extent in mm, per height."""

    side: Profile
    front: Profile
    back: Profile
    groove_mm: Number = 0.0
    squareness: Number = 0.42

    def inset(self, layer: dict[str, Profile], fraction: Number = 1.0) -> "Girth":
        """The outline moved inwards by a fraction of a tissue layer's thickness."""
        side, front, back = (getattr(self, key) - fraction * layer[key] for key in ("side", "front", "back"))
        return replace(self, side=side, front=front, back=back)

    def shape(self) -> Shape:
        """The region inside the outline: a squircle whose half axes vary with height."""
        reach = float(self.side.max())
        lower, upper = (-reach, -float(self.back.max()), -1e4), (reach, float(self.front.max()), 1e4)
        return Shape(lower, upper, self._distance)

    def _distance(self, p: Points) -> Field:
        side, front, back = (
            np.interp(p.slice_mm, HEIGHTS_MM, profile).astype(np.float32)
            for profile in (self.side, self.front, self.back)
        )
        u, v = p.x / side, p.y / np.where(p.y > 0, front, back)
        u, v = u * u, v * v
        value: Field = (np.sqrt(np.maximum(u + v - np.float32(self.squareness) * u * v, 0)) - 1) * back
        if self.groove_mm:
            value += np.where(p.y < 0, np.float32(self.groove_mm), 0) / (1 + (p.x / 13) ** 2) ** 2
        return value

    def at(self, height_mm: Number, angle_deg: Number) -> tuple[float, float]:
        """The point (x, y) of the outline in the given direction: 0° is right, 90° anterior."""
        c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
        side, front, back = (np.interp(height_mm, HEIGHTS_MM, p) for p in (self.side, self.front, self.back))
        u, v = (c / side) ** 2, (s / (front if s > 0 else back)) ** 2
        reach = np.sqrt(2 / (u + v + np.sqrt((u + v) ** 2 - 4 * self.squareness * u * v)))
        return float(reach * c), float(reach * s)


@dataclass(frozen=True)
class Trunk:
    """The nested outlines and the diaphragm domes of one patient."""

    skin: Girth
    fat: Girth
    wall: Girth
    cavity: Girth
    dome: Shape


def draw_trunk(rng: np.random.Generator) -> Trunk:
    """Draw a patient: a few per cent wider or thinner, with more or less fat, than the average."""
    width, depth = rng.uniform(0.98, 1.02, 2)
    skin = Girth(SKIN_MM["side"] * width, SKIN_MM["front"] * depth, SKIN_MM["back"] * depth, groove_mm=7.0)
    fat = skin.inset({key: np.full(9, 2.0) for key in FAT_MM})
    wall = replace(fat.inset(FAT_MM, rng.uniform(0.85, 1.15)), groove_mm=9.0)
    cavity = replace(wall.inset(WALL_MM), groove_mm=0.0, squareness=0.3)
    right, left = rng.uniform(-4, 4, 2)
    dome = union(
        ellipsoid((66, 13, 250 + right), (70, 92, 108), rise_only=True),
        ellipsoid((-67, 10, 240 + left), (69, 90, 104), rise_only=True),
        ellipsoid((0, 28, 245), (60, 66, 86), rise_only=True),
        blend_mm=14,
    )
    return Trunk(skin, fat, wall, cavity, dome)


def spine_y(height_mm: Number) -> float:
    """Anterior-posterior position of the vertebral bodies: lordosis below, kyphosis above."""
    return float(np.interp(height_mm, [0, 70, 150, 250, 350, 450], [-46, -28, -20, -27, -36, -42]))


def _table(p: Points, middle_y: Number) -> Field:
    """A curved plate, 4 mm thick, under the patient."""
    height = np.abs(p.y - np.float32(middle_y) - p.x * p.x * np.float32(0.0011))
    return np.asarray(np.maximum(height - 2, np.abs(p.x) - 180))


def walls(trunk: Trunk) -> Iterator[Part]:
    """Table, skin, fat and the muscular wall around a fat-filled cavity."""
    table_y = -float(trunk.skin.back.max()) - 22
    plate = Shape((-185, table_y - 5, -1e4), (185, table_y + 40, 1e4), lambda p: _table(p, table_y))
    yield Part("table", 20, 0, plate, rigid=True)
    yield Part("skin", 25, 10, trunk.skin.shape())
    yield Part("fat", -104, 9, trunk.fat.shape())
    yield Part("muscle", 56, 8, trunk.wall.shape())
    for fraction in (0.33, 0.64):
        seam = shell(trunk.wall.inset(WALL_MM, fraction).shape(), 1.0)
        for low, high in ((-180.0, -80.0), (80.0, 180.0)):
            beside = replace(seam, lower=(low, -90.0, -1e4), upper=(high, 110.0, 300.0))
            fade = region(lambda p: np.maximum(70 - np.abs(p.x), p.slice_mm - 300))
            yield Part("fat", -40, 40, intersect(beside, fade))
    yield Part("fat", -98, 12, trunk.cavity.shape())


def lungs(trunk: Trunk, rng: np.random.Generator) -> Iterator[Part]:
    """Lungs with vessels above the diaphragm, the heart between them, and fat below."""
    thorax = replace(grow(trunk.cavity.shape(), 3), lower=(-150.0, -110.0, 200.0))
    middle = union(ellipsoid((-4, 0, 440), (30, 78, 300)), ellipsoid((-26, 48, 420), (62, 52, 78)))
    lung = intersect(subtract(thorax, middle, blend_mm=8), above(276, slope_y=0.72), blend_mm=6)
    yield Part("lung", -850, 28, lung)
    for side in (1, -1):
        for _ in range(45):
            root = np.array([side * 38, -10, 440]) + rng.normal(0, 10, 3)
            height = rng.uniform(270, 440)
            x, y = trunk.cavity.at(height, 90 - side * rng.uniform(-20, 165))
            reach = rng.uniform(0.6, 0.93)
            tip = np.array([x * reach, y * reach, max(height, 290 + 0.72 * y)])
            bend = (root + tip) / 2 + rng.normal(0, 9, 3)
            radius = rng.uniform(2.4, 5.0)
            knots = [[*root, radius], [*bend, radius * 0.75], [*tip, 1.1]]
            yield from (Part("vessel", 45, 0, rod) for rod in curved_tube(knots, 5))
    yield Part("muscle", 140, 12, ellipsoid((-28, 48, 420), (54, 42, 62), (0, 0, -25)))
    yield Part("blood", 185, 8, ellipsoid((-48, 42, 418), (22, 20, 38), (0, 20, -20)))
    yield Part("blood", 165, 8, ellipsoid((0, 60, 425), (26, 17, 42), (0, 0, -30)))
    inside = replace(trunk.dome, lower=(-140.0, -90.0, 215.0))
    edge = grow(trunk.cavity.shape(), 2)
    yield Part("diaphragm", 55, 8, intersect(inside, edge, above(245, slope_y=0.72)))
    yield Part("fat", -98, 12, intersect(grow(inside, -3.2), edge, above(240, slope_y=0.72)))


def back_muscles(trunk: Trunk) -> Iterator[Part]:
    """Erector spinae, psoas, quadratus lumborum, diaphragmatic crura and pelvic muscles."""
    for side in (1, -1):
        columns = [(z, max(spine_y(z), -38.0)) for z in range(-20, 490, 85)]
        for x, depth, radius in ((50, 45, 17), (20, 50, 18), (34, 44, 15)):
            rods = tube([(side * x, y - depth, z) for z, y in columns], radius)
            yield from (Part("fat", -20, 30, rod) for rod in rods)
            yield from (Part("muscle", 58, 14, grow(rod, -1.2)) for rod in rods)
        psoas = [
            (60, 2, -20, 20),
            (52, -8, 60, 21),
            (42, -22, 130, 18),
            (32, -34, 200, 12),
            (24, -44, 262, 4),
        ]
        for rod in curved_tube([(side * x, y, z, r) for x, y, z, r in psoas], 12):
            yield Part("muscle", 60, 8, rod)
        quadratus = [(72, -52, 95, 12), (62, -54, 170, 11), (46, -54, 250, 6)]
        for rod in curved_tube([(side * x, y, z, r) for x, y, z, r in quadratus], 8):
            yield Part("muscle", 58, 8, rod)
        crus = [(12, 2, 165, 4), (15, -2, 230, 6), (16, 6, 290, 6), (22, 22, 325, 4)]
        for rod in curved_tube([(side * x, y, z, r) for x, y, z, r in crus], 10):
            yield Part("muscle", 58, 5, rod)
        gluteus = ellipsoid((side * 88, -66, 20), (66, 36, 72), (0, 0, side * 18))
        yield Part("muscle", 57, 9, intersect(gluteus, trunk.wall.shape()))
        yield Part("muscle", 58, 9, ellipsoid((side * 90, -16, 40), (24, 46, 64), (0, side * 14, side * 28)))


def _bone(rods: Sequence[Shape], cortex_mm: Number = 1.8, marrow_hu: Number = 190) -> Iterator[Part]:
    """Cortex of all rods first, then the marrow inside them."""
    yield from (Part("bone", 620, 40, rod) for rod in rods)
    yield from (Part("bone", marrow_hu, 40, grow(rod, -cortex_mm)) for rod in rods)


def _vertebra(z: Number, spacing_mm: Number) -> Iterator[Part]:
    y, lumbar = spine_y(z), z < 240
    rx, ry = (25.0, 17.5) if lumbar else (20.0, 16.5)
    height = spacing_mm * 0.72
    yield Part("disc", 88, 8, barrel((0, y, z + spacing_mm / 2), rx, ry, spacing_mm * 0.4))
    body = barrel((0, y, z), rx, ry, height, waist=0.1)
    yield from _bone([body], 1.5, 160)
    back = y - ry
    rods: list[Shape] = []
    for side in (1, -1):
        rods += tube([(side * 14, back + 2, z + 5), (side * 15, back - 10, z + 3), (side * 3, back - 24, z - 8)], 5.0)
        rods.append(capsule((side * 15, back - 12, z), (side * (40 if lumbar else 30), back - 14, z + 6), 5.5, 3.0))
        rods.append(ellipsoid((side * 17, back - 14, z - 13), (7, 6, 9)))
    rods.append(capsule((0, back - 24, z - 8), (0, back - 41, z - (12 if lumbar else 20)), 4.5, 4.0))
    yield from _bone(rods)


def _rib_path(trunk: Trunk, index: int, side: int) -> list[Vector]:
    """From the vertebra backwards and around the wall, descending anteriorly; longer ribs end lower."""
    z, y = VERTEBRAE_MM[FIRST_RIB_VERTEBRA + index] + 6.0, spine_y(VERTEBRAE_MM[FIRST_RIB_VERTEBRA + index])
    middle = trunk.wall.inset(WALL_MM, 0.5)
    knots = [[side * 24.0, y - 14, z], [side * 42.0, y - 33, z - 2]]
    end = RIB_END_DEG[index]
    for angle in np.arange(-50, end + 1, 10.0):
        height = z - 8 - 72 * (angle + 50) / 100
        x_mid, y_mid = middle.at(height, angle)
        knots.append([side * x_mid, y_mid, height])
    path = curve(knots, len(knots) + 7)
    return [(float(px), float(py), float(pz)) for px, py, pz in path]


def _iliac_edge(p: Points, side: int) -> Field:
    """Negative laterally and posteriorly, below the arch of the iliac crest."""
    crest = p.z - 112 + (p.y + 15) ** 2 * np.float32(0.008)
    return np.asarray(np.maximum(np.maximum(40 - side * p.x, p.y - 0.3 * p.z - 12), crest))


def _iliac_quarter(side: int) -> Shape:
    """The lateral posterior region of the iliac wing."""
    return region(lambda p: _iliac_edge(p, side))


def skeleton(trunk: Trunk) -> Iterator[Part]:
    """Pelvis, ribs with cartilage, vertebrae with discs, and the spinal canal."""
    for side in (1, -1):
        bowl = shell(ellipsoid((side * 46, 2, 60), (68, 80, 190), (0, side * 12, 0)), 10)
        yield from _bone([intersect(bowl, _iliac_quarter(side))], 2.2, 210)
    sacrum = ellipsoid((0, spine_y(30) - 8, 14), (46, 22, 46), (-28, 0, 0))
    yield from _bone([sacrum], 2.2, 170)
    for index in range(len(RIB_END_DEG)):
        for side in (1, -1):
            path = _rib_path(trunk, index, side)
            rods = tube(path, list(np.linspace(4.6, 4.2, len(path))))
            yield from _bone(rods, 1.7, 230)
            if index >= 2:
                x, y, z = path[-1]
                tip_z = max(z + 40.0, 325.0)
                joint = trunk.wall.inset(WALL_MM, 0.45).at(tip_z, 78)
                knots = [
                    [x, y, z, 5.5],
                    [x * 0.72, y + (joint[1] - y) * 0.7, z - 3, 6],
                    [side * joint[0], joint[1], tip_z, 5],
                ]
                yield from (Part("cartilage", 115, 20, rod) for rod in curved_tube(knots, 8))
    front = trunk.wall.inset(WALL_MM, 0.4)
    yield from _bone(tube([(x, front.at(z, 90)[1], z) for z in range(345, 480, 30) for x in (-9, 9)], 5.5), 1.6, 170)
    for z, above_z in zip(VERTEBRAE_MM, [*VERTEBRAE_MM[1:], 480], strict=True):
        yield from _vertebra(z, above_z - z)
    canal = [(0.0, spine_y(z) - 26, z) for z in range(-20, 480, 40)]
    yield from (Part("fat", -60, 0, rod) for rod in tube(canal, 10))
    yield from (Part("cord", 38, 4, rod) for rod in tube(canal, 8))
