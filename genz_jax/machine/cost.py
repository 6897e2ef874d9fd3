"""What a device costs: silicon area, bill of materials, price, and money per hour and per token.

Every constant has its public source beside it; where none is public the comment says "assumption". Prices of wafers,
HBM and packaging are estimates of analysts, not price lists: take the results as within a factor of two, and ratios
between designs as better than that.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from genz_jax.base import units
from genz_jax.base.fields import NOT_NEGATIVE, SHARE, Number, Rule, Spec, near, number
from genz_jax.machine.power import PowerModel, board_power
from genz_jax.machine.roofline import slowest
from genz_jax.specs import Platform
from genz_jax.specs.figures import Result, figure

HOUR = 3600.0
YEAR = 365.25 * 24 * HOUR

_SRAM_EFFICIENCY = 0.55
"""Share of an SRAM block that is bit cells. Assumption, in the range 0.53 to 0.60 that LLMCompass (ISCA 2024) has from
CACTI for blocks of 256 KB to 1 MB."""


MM2 = 1e-6
"""A square millimetre in m²."""


def _sram_area(cell: float) -> float:
    """Area per byte in m² of SRAM with bit cells of that many µm²."""
    return 8 * cell * 1e-12 / _SRAM_EFFICIENCY


# Areas of PHYs and transistors of controllers: LLMCompass, ISCA 2024, doi:10.1109/ISCA59077.2024.00082, measured on die
# photographs. Controllers are placed at the transistor density of the whole die: A100 54.2e9/826 mm², H100 80e9/814 mm²
# (NVIDIA's architecture white papers). The compute area is what remains of those dies (A100 826 mm², 312 TFLOP/s; H100
# 814 mm², 989 TFLOP/s), so that it has the caches of the cores, spare cores and the on-chip network in it.
_NODES: dict[str, dict[str, Any]] = {
    "7nm": {
        "compute_area": 2.14e-12 * MM2,
        "sram_area": _sram_area(0.027),  # TSMC N7 high-density bit cell, IEDM 2016
        "link_area": (1.888 + 74.6 / 65.6) / 25e9 * MM2,  # NVLink 3: 25 GB/s one way per link
        "stack_area": (10.45 + 552.7 / 65.6) * MM2,  # HBM2E
        "wafer_price": 9346.0,  # CSET, "AI Chips", 2020; DigiTimes 2022 has 10,000
        "defect_density": 0.09e-2 / MM2,  # TSMC, VLSI 2019, as AnandTech 16028 reports
        # Assumption: twice that of 5 nm, which brings A100 to its 400 W.
        "flop": 0.60e-12,
    },
    "5nm": {
        "compute_area": 0.681e-12 * MM2,
        "sram_area": _sram_area(0.021),  # TSMC N5 high-density bit cell, ISSCC 2020
        "link_area": (0.965 + 86.6 / 98.3) / 25e9 * MM2,  # NVLink 4: 25 GB/s one way per link
        "stack_area": (10.45 + 552.7 / 98.3) * MM2,
        "wafer_price": 16988.0,  # CSET, "AI Chips", 2020; DigiTimes 2022 has 16,000
        "defect_density": 0.10e-2 / MM2,  # TSMC Technology Symposium 2020, as AnandTech 16028 reports
        "flop": 0.30e-12,
    },
    "3nm": {
        # TSMC gives N3E 1.3 times the chip density of N5 (half logic, SRAM that hardly shrinks, analog that does not).
        "compute_area": 0.681e-12 / 1.3 * MM2,
        "sram_area": _sram_area(0.021),  # N3E has the bit cell of N5, IEDM 2022
        "link_area": (0.965 + 86.6 / 98.3) / 25e9 * MM2,  # assumption: PHYs do not shrink
        "stack_area": (10.45 + 552.7 / 98.3) * MM2,
        "wafer_price": 20000.0,  # DigiTimes, November 2022
        "defect_density": 0.10e-2 / MM2,  # assumption: as N5, which TSMC says N3 follows
        "flop": 0.66 * 0.30e-12,  # N3E draws 34 % less than N5 at the same speed, TSMC Technology Symposium 2022
    },
}

PRINTED_GB = 0.99 * 2.0**30
"""Bytes of a printed GB of memory that a process sees: a GiB, of which the driver keeps about 1 %."""

# Per stack, as sold.
_MEMORIES: dict[str, dict[str, float]] = {
    "hbm2e": {"stack_capacity": 16 * PRINTED_GB, "stack_bw": 461e9},  # JESD235D, 3.6 Gb/s per pin
    "hbm3": {"stack_capacity": 16 * PRINTED_GB, "stack_bw": 819e9},  # JESD238, 6.4 Gb/s per pin, 8-high
    "hbm3e": {"stack_capacity": 24 * PRINTED_GB, "stack_bw": 1180e9},  # 9.2 Gb/s per pin, 8-high (Micron, SK hynix)
    "hbm4": {"stack_capacity": 36 * PRINTED_GB, "stack_bw": 2048e9},  # JESD270-4, 8 Gb/s per pin of 2,048, 12-high
}


class CostModel(Spec):
    """Constants of area, price, power and hosting.

    The defaults are those of a 5 nm device with HBM3; `CostModel.preset` has other nodes and memories, and
    `gz.CostModel().replace(gross_margin=0)` prices a device at what it costs to make.
    """

    compute_area: Number = number("m2 s flop-1", "die area per peak 16-bit rate", _NODES["5nm"]["compute_area"])
    sram_area: Number = number("m2 byte-1", "die area per on-chip memory", _NODES["5nm"]["sram_area"])
    link_area: Number = number("m2 s byte-1", "die area per one-way link bandwidth", _NODES["5nm"]["link_area"])
    stack_area: Number = number(
        units.AREA, "die area of the PHY and controller of a stack", _NODES["5nm"]["stack_area"]
    )
    # 16 lanes of PCIe 5, LLMCompass: 0.64 mm² each and 5.4e6 transistors of controller.
    other_area: Number = number(units.AREA, "die area of all else", 16 * (0.64 + 5.4 / 98.3) * MM2, rule=NOT_NEGATIVE)
    sram: Number = number(units.BYTE, "on-chip memory beside that of the cores", 50e6, rule=NOT_NEGATIVE)  # H100's L2
    wafer_price: Number = number(units.MONEY, "price of a processed wafer", _NODES["5nm"]["wafer_price"])
    wafer_diameter: Number = number("m", "diameter of a wafer", 0.3)
    reticle: Number = number(
        units.AREA, "largest area of one die", 26.0 * 33.0 * MM2
    )  # the field of EUV and DUV scanners
    defect_density: Number = number("m-2", "killing defects per area", _NODES["5nm"]["defect_density"], NOT_NEGATIVE)
    clustering: Number = number(units.ONE, "clustering of defects, α", 3.0)  # ITRS has 2, Chiplet Cloud 10
    # Assumption: H100 sells 132 of 144 cores, so that a defect in a core rarely kills; 0.75 gives 82 % good dies, where
    # 80 to 85 % are quoted.
    redundancy: Number = number(units.ONE, "share of the die whose defects can be switched off", 0.75, rule=SHARE)
    stack_capacity: Number = number(units.BYTE, "capacity of a memory stack", _MEMORIES["hbm3"]["stack_capacity"])
    stack_bw: Number = number(units.BYTE_RATE, "bandwidth of a memory stack", _MEMORIES["hbm3"]["stack_bw"])
    # Estimates are 15 USD/GB (HBM3E, 2025), 17 (H100, SiliconAnalysts' cost bridge) and 7 (October 2023, LLMCompass).
    price_per_byte: Number = number("USD byte-1", "price of memory", 15.0 / PRINTED_GB, rule=NOT_NEGATIVE)
    stack_footprint: Number = number(units.AREA, "area of a stack on the interposer", 110.0 * MM2)  # assumed
    # Packaging of H100 is put at 720 to 750 USD and of B200 at 1,100 (SiliconAnalysts, cost bridge, 2026), which is 0.4
    # to 0.6 USD/mm² of dies and stacks.
    packaging_rate: Number = number("USD m-2", "packaging per area of dies and stacks", 0.50 / MM2, rule=NOT_NEGATIVE)
    # Board, test and assembly of H100: 920 USD, of MI300X: 600 (the same).
    assembly_price: Number = number(units.MONEY, "board, test and assembly", 900.0, rule=NOT_NEGATIVE)
    # H100 costs some 3,320 USD to make and sells for 25,000 to 30,000 (Raymond James, by T. Kim, August 2023).
    gross_margin: Number = number(
        units.ONE, "share of the price that is not cost", 0.88, Rule("must be from 0 to below 1", 0.0, True, 0.999)
    )
    # Processors, memory, network cards, disks and chassis of a DGX H100: 32,010 USD for 8 (SemiAnalysis, May 2023).
    host_price: Number = number(units.MONEY, "share of the server", 32010.0 / 8, rule=NOT_NEGATIVE)
    lifetime: Number = number(units.SECOND, "time over which the price is written off", 4 * YEAR)  # assumption
    # DGX H100: 10.2 kW at most for 8 devices of 700 W (NVIDIA's data sheet).
    server_power: Number = number(units.ONE, "power of server and device over that of the device", 10200 / (8 * 700.0))
    # Assumption: Uptime Institute's survey of 2024 has 1.56 on average, large operators state 1.1 to 1.2.
    pue: Number = number(units.ONE, "power usage effectiveness", 1.3)
    # 8 cents/kWh: EIA, average of industry in the US in 2023 and 2024.
    electricity_price: Number = number("USD J-1", "price of electricity", 0.08 / 3.6e6, rule=NOT_NEGATIVE)
    # 184.06 USD per kW and month: CBRE, North America Data Center Trends H2 2024, 250 to 500 kW, without electricity.
    hosting_price: Number = number(
        "USD s-1 W-1", "price of hosting per power", 184.06 / 1000 / (YEAR / 12), rule=NOT_NEGATIVE
    )
    power_model: PowerModel | None = PowerModel()

    @classmethod
    def preset(cls, node: str = "5nm", memory: str = "hbm3") -> "CostModel":
        """The constants of a process node and a kind of memory.

        Args:
            node: "7nm", "5nm" or "3nm".
            memory: "hbm2e", "hbm3", "hbm3e" or "hbm4".

        Raises:
            ValueError: no such node or memory.
        """
        for what, name, known in (("node", node, _NODES), ("memory", memory, _MEMORIES)):
            if name not in known:
                raise ValueError(f"CostModel.preset: {what} = {name!r}: unknown{near(name, known)}")
        constants = dict(_NODES[node])
        return cls(power_model=PowerModel(flop=constants.pop("flop")), **constants, **_MEMORIES[memory])


class CostResult(Result):
    """What one device costs. Prices are those of a buyer, in US dollars."""

    area: Number = figure(units.AREA, "die area", "min")
    dies: Number = figure(units.ONE, "dies that the area is cut into, as a real number")
    die_yield: Number = figure(units.ONE, "share of the dies that are good", "max")
    stacks: Number = figure(units.ONE, "memory stacks, as a real number")
    silicon_price: Number = figure(units.MONEY, "price of the good dies", "min")
    memory_price: Number = figure(units.MONEY, "price of the memory stacks", "min")
    packaging_price: Number = figure(units.MONEY, "packaging, board, test and assembly", "min")
    price: Number = figure(units.MONEY, "price of a device", "min")
    power: Number = figure(units.WATT, "board power of a device", "min")
    purchase_per_hour: Number = figure(units.MONEY_PER_HOUR, "device and share of the server, written off", "min")
    electricity_per_hour: Number = figure(units.MONEY_PER_HOUR, "electricity of device, server and cooling", "min")
    hosting_per_hour: Number = figure(units.MONEY_PER_HOUR, "space, power supply and cooling", "min")
    cost_per_hour: Number = figure(units.MONEY_PER_HOUR, "cost of ownership of a device", "min")


CostFunction = Callable[[Platform], CostResult]
"""What may stand for a `CostModel`: the user's own function of a platform."""


def die_yield(area: Number, model: CostModel) -> Number:
    """Share of good dies: Y = (1 + A·(1 − r)·D/α)^−α, the negative binomial (Stapper 1983; Murphy's is near α = 4)."""
    defects = area * (1.0 - model.redundancy) * model.defect_density
    return (1.0 + defects / model.clustering) ** -model.clustering


def dies_per_wafer(area: Number, diameter: Number) -> Number:
    """Whole dies of a round wafer: πd²/4A − πd/√(2A) (Hennessy and Patterson, chapter 1)."""
    return jnp.pi * diameter**2 / (4.0 * area) - jnp.pi * diameter / jnp.sqrt(2.0 * area)


def device_cost(platform: Platform, model: CostModel, smooth: float = 0.0) -> CostResult:
    """Area, price, power and cost of ownership of a device; a pure function of arrays that broadcast together.

    - stacks = max(capacity/C_stack, bandwidth/B_stack), and all of a stack is paid
    - A = a_c·F + a_s·SRAM + a_l·L + a_m·stacks + other; cut into max(A/reticle, 1) equal dies
    - price = (dies·wafer/(dies per wafer · yield) + memory + packaging)/(1 − margin)
    - cost per hour = (price + server share)/lifetime + power·s·(PUE·electricity + hosting)

    Counts of stacks and dies are real numbers, so that all figures are continuous and rise with every rate and
    capacity. Their logarithms are convex in those of the rates, but where the area passes the reticle and cutting it
    into dies makes silicon cheaper.

    Args:
        platform: the device.
        model: the constants.
        smooth: 0 for the exact count of stacks, τ > 0 for a p-norm with p = 1/τ, as `Assumptions.smooth`.
    """
    platform, model = _arrays((platform, model))
    stacks = slowest(platform.mem_capacity / model.stack_capacity, platform.mem_bw / model.stack_bw, smooth)
    cores = model.compute_area * platform.flops + model.sram_area * model.sram
    area = cores + model.link_area * platform.link_bw + model.stack_area * stacks + model.other_area
    dies = jnp.maximum(area / model.reticle, 1.0)
    die = area / dies
    good = die_yield(die, model)
    silicon = dies * model.wafer_price / (dies_per_wafer(die, model.wafer_diameter) * good)
    memory = stacks * model.stack_capacity * model.price_per_byte
    packaging = model.packaging_rate * (area + stacks * model.stack_footprint) + model.assembly_price
    price = (silicon + memory + packaging) / (1.0 - model.gross_margin)
    power = platform.power if model.power_model is None else board_power(platform, area, model.power_model)
    purchase = (price + model.host_price) * (HOUR / model.lifetime)
    drawn = power * model.server_power
    electricity = drawn * model.pue * model.electricity_price * HOUR
    hosting = drawn * model.hosting_price * HOUR
    return CostResult(
        area=area,
        dies=dies,
        die_yield=good,
        stacks=stacks,
        silicon_price=silicon,
        memory_price=memory,
        packaging_price=packaging,
        price=price,
        power=power,
        purchase_per_hour=purchase,
        electricity_per_hour=electricity,
        hosting_per_hour=hosting,
        cost_per_hour=purchase + electricity + hosting,
    )


def cost_per_million_tokens(result: Any, cost: CostResult) -> Number:
    """Cost of a million output tokens in USD: cost per device-hour over output tokens per device-hour, at full load.

    Args:
        result: a request's result; its `throughput_per_device` counts.
        cost: the cost of the same platform.

    Raises:
        ValueError: the result has no throughput per device.

    Example:
        >>> import genz_jax as gz
        >>> served = gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(batch=64))
        >>> alone = gz.estimate("llama-3.1-8b", "H100-SXM", gz.Workload(batch=1))
        >>> price = gz.cost("H100-SXM")
        >>> bool(gz.cost_per_million_tokens(served, price) < gz.cost_per_million_tokens(alone, price))
        True
    """
    rate = getattr(result, "throughput_per_device", None)
    if rate is None:
        raise ValueError(
            f"cost_per_million_tokens: a {type(result).__name__} has no throughput_per_device; use the stage 'request'"
        )
    return cost.cost_per_hour / (rate * HOUR) * 1e6


def _arrays(tree: Any) -> Any:
    """All numbers as arrays of the default float type."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype=jnp.result_type(float)), tree)
