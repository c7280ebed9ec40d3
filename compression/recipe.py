"""How a recall model's tables are made small: a rank, a code width, what scales belong to, a rotation or none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from compression.quantize import Axis
from compression.tiers import Widths

RANK_SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.1875, 0.125)
LEAST_RANK = 4
LEAST_ROTATED_SHARE = 0.5
"""Below, fewer bits for all directions lose less than fewer directions."""
SPREAD = 0.5
"""See ``compression.tiers.quantize_tiers``: of 0, 0.5 and 1 the one that kept most on held-out lists."""


@dataclass(frozen=True)
class TierPlan:
    """Bits of the four tiers of popularity.

    Attributes:
        items: Of tables that candidates are scored with.
        histories: Of tables that are summed over a history: their errors average out, so that fewer bits do.
    """

    items: Widths
    histories: Widths

    @property
    def name(self) -> str:
        """Such as ``5421h3221``."""
        return "".join(map(str, self.items)) + "h" + "".join(map(str, self.histories))

    @property
    def mean_bits(self) -> float:
        """Over both."""
        return sum(self.items + self.histories) / 8


TIERS = (
    TierPlan((6, 5, 4, 3), (5, 4, 3, 2)),
    TierPlan((5, 4, 3, 2), (4, 3, 2, 2)),
    TierPlan((5, 4, 2, 1), (3, 2, 2, 1)),
    TierPlan((5, 4, 1, 0), (3, 2, 1, 0)),
    TierPlan((4, 3, 1, 0), (3, 2, 1, 0)),
)


ROTATED_TIERS = tuple(
    TierPlan(widths, widths)
    for widths in (
        (6, 6, 6, 6),
        (5, 5, 5, 5),
        (5, 4, 4, 3),
        (4, 4, 3, 3),
        (3, 3, 3, 3),
        (4, 3, 3, 2),
        (3, 3, 2, 2),
        (3, 2, 2, 1),
    )
)
"""Of tables that were rotated: rows are alike then, and popularity decides less."""


@dataclass(frozen=True)
class Recipe:
    """What is done to every table of a model.

    Attributes:
        share: Rank as a share of each table's width; 1 leaves the rank.
        bits: 8 or 4; 32 leaves floats; 0 where tiers say it.
        axis: Scales per row or per column.
        rotate: Whether a random rotation precedes scales per row.
        tiers: Bits by popularity, instead of ``bits``.
        blocks: Whether the items of large catalogues are arranged in blocks, of which a request reads a few.
    """

    share: float
    bits: int
    axis: Axis = "columns"
    rotate: bool = False
    tiers: TierPlan | None = None
    blocks: bool = False

    @property
    def name(self) -> str:
        """Such as ``rank50-int4-columns`` or ``rank75-tiers5421h3221``; the rank in percent of the width."""
        parts = ["blocks"] if self.blocks else []
        parts += [f"rank{self.share * 100:.4g}"] if self.share < 1 else []
        parts += ["rotated"] if self.rotate else []
        parts += [f"tiers{self.tiers.name}"] if self.tiers else []
        parts += [f"int{self.bits}-{self.axis}"] if self.bits in (4, 8) else []
        return "-".join(parts) or "fp32"

    @property
    def parent(self) -> str:
        """Name of the recipe without its last pass."""
        if self.blocks:
            return replace(self, blocks=False).name
        if self.bits < 32:
            return Recipe(self.share, 32).name
        return "fp32"

    def rank_of(self, width: int) -> int:
        """Columns kept of ``width``: even, so that two 4-bit codes fill a byte."""
        return min(width, max(LEAST_RANK, 2 * round(self.share * width / 2))) if self.share < 1 else width

    @property
    def mean_bits(self) -> float:
        """Bits a number."""
        return self.tiers.mean_bits if self.tiers else self.bits

    @property
    def ratio(self) -> float:
        """Roughly how many times smaller than fp32 tables get, scales left out."""
        return 32 / (self.share * self.mean_bits)


@dataclass(frozen=True)
class MixRecipe:
    """A recipe for each member of a mix: what one of them can spare another one may need.

    Attributes:
        members: In the mix's order.
    """

    members: tuple[Recipe, ...]

    @property
    def name(self) -> str:
        """Those of the members."""
        return "+".join(recipe.name for recipe in self.members)

    @property
    def parent(self) -> str:
        """Members are compressed in one pass."""
        return "fp32"


def recipe_of(name: str) -> Recipe | MixRecipe:
    """The recipe of that name.

    Raises:
        KeyError: There is none.
    """
    known = {recipe.name: recipe for recipe in all_recipes()} | {"fp32": Recipe(1.0, 32)}
    parts = tuple(known[part] for part in name.split("+"))
    return MixRecipe(parts) if len(parts) > 1 else parts[0]


def all_recipes() -> Iterator[Recipe]:
    """Every recipe that is tried, mildest first."""
    found = [Recipe(share, 32) for share in RANK_SHARES if share < 1]
    for share in RANK_SHARES:
        found += [Recipe(share, 8), Recipe(share, 4), Recipe(share, 4, "rows", rotate=True)]
        found += [Recipe(share, 0, tiers=plan) for plan in TIERS]
        found += [Recipe(share, 0, rotate=True, tiers=plan) for plan in ROTATED_TIERS if share >= LEAST_ROTATED_SHARE]
    found += [Recipe(1.0, 8, "rows"), Recipe(0.5, 8, "rows"), Recipe(0.25, 8, "rows"), Recipe(1.0, 4, "rows")]
    found += [Recipe(1.0, 8, "rows", rotate=True)]
    found += [replace(recipe, blocks=True) for recipe in found if recipe.bits < 32]
    yield from sorted(found, key=lambda recipe: recipe.ratio)
