"""What many pictures take, in hours and in money, from rates that were measured.

    time = start-up + n * max((compute + decode) / workers, driver)
    core hours = workers * time

`compute` and `decode` are core seconds a picture, `driver` those of the one process that writes the
answers and cannot be shared out. A worker has one core, on which decoding and computing take turns.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rates:
    """What was measured.

    Attributes:
        compute: Core seconds that the network takes for a picture.
        decode: Core seconds that reading, decoding and resizing one take.
        driver: Core seconds of the driver for a picture.
        start_up: Seconds until the workers have begun.
        efficiency: Two workers' rate, divided by twice one's.
    """

    compute: float
    decode: float
    driver: float
    start_up: float
    efficiency: float = 1.0

    def __post_init__(self) -> None:
        if min(self.compute, self.decode, self.driver, self.start_up) < 0:
            raise ValueError(f"{self}: expected seconds, none of them below 0.")
        if not 0 < self.efficiency <= 1.2:
            raise ValueError(f"efficiency={self.efficiency}: expected a share, about 1.")

    def seconds(self, num_images: float, workers: int) -> float:
        """How long so many workers take."""
        each = (self.compute + self.decode) / (workers * self.efficiency)
        return self.start_up + num_images * max(each, self.driver)

    def core_hours(self, num_images: float, workers: int) -> float:
        """What is paid for: all workers' cores and the driver's, for that time."""
        return (workers + 1) * self.seconds(num_images, workers) / 3600

    @property
    def most_workers(self) -> int:
        """With more, the driver is what limits."""
        return int((self.compute + self.decode) / (self.efficiency * self.driver))
