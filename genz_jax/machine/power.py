"""Board power of a device under full load, from the energy of a flop and of a byte."""

from genz_jax.base import units
from genz_jax.base.fields import NOT_NEGATIVE, Number, Spec, number
from genz_jax.specs import Platform

WATT_PER_AREA, JOULE_PER_FLOP, JOULE_PER_BYTE = "W m-2", "J flop-1", "J byte-1"


class PowerModel(Spec):
    """What a device draws when compute, memory and links are all busy.

    The defaults are those of 5 nm devices. Their sum is within 30 % of the vendors' board power of H100, H200, B200,
    MI300X and Gaudi 3 (tests/test_cost.py); a board power is a limit that firmware keeps, not a sum of peaks.
    """

    idle: Number = number(units.WATT, "power drawn always, whatever the area", 0.0, rule=NOT_NEGATIVE)
    # H100 idles at some 15 % of its 700 W (105 W, idle shares as monitoring vendors quote them), over 814 mm².
    leakage: Number = number(WATT_PER_AREA, "power drawn always, per die area", 105.0 / 814e-6, rule=NOT_NEGATIVE)
    # Assumption: fitted on the five board powers above. 40 % of H100's 700 W over 989 TFLOP/s would be 0.28 pJ.
    flop: Number = number(JOULE_PER_FLOP, "energy of a 16-bit flop", 0.30e-12, rule=NOT_NEGATIVE)
    # 3.92 pJ/bit: HBM2 access and transfer, O'Connor et al., MICRO 2017, doi:10.1145/3123939.3124545. Micron's page of
    # ultra-bandwidth solutions has 6.0 pJ/bit for HBM2E on average; the former is taken.
    byte: Number = number(JOULE_PER_BYTE, "energy of a byte of memory traffic", 8 * 3.92e-12, rule=NOT_NEGATIVE)
    # NVLink-C2C is 1.3 pJ/bit and 5 times more efficient than PCIe 5 (NVIDIA, Grace Hopper white paper), which makes
    # 6.5 pJ/bit for links over boards; both directions are busy.
    link_byte: Number = number(
        JOULE_PER_BYTE, "energy of a byte over the links, both ways", 2 * 8 * 6.5e-12, rule=NOT_NEGATIVE
    )

    @classmethod
    def split(cls, platform: Platform) -> "PowerModel":
        """Energies at which a platform draws its own power, shared as its `power_split` says.

        The shares of arXiv 2406.01698 are 30 % static, 40 % compute, 20 % memory and 10 % network. Other platforms then
        draw more or less as their rates are.

        Args:
            platform: the platform that is taken as the reference.
        """
        shares, watts = platform.power_split, platform.power
        return cls(
            shares.static * watts,
            0.0,
            shares.compute * watts / platform.flops,
            shares.memory * watts / platform.mem_bw,
            shares.network * watts / platform.link_bw,
        )


def board_power(platform: Platform, area: Number, model: PowerModel) -> Number:
    """Power in W: idle + leakage·A + e_flop·F + e_byte·B + e_link·L, all resources busy at their peak rates."""
    static = model.idle + model.leakage * area
    busy = model.flop * platform.flops + model.byte * platform.mem_bw + model.link_byte * platform.link_bw
    return static + busy
