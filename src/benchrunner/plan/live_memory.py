"""What a device holds while a step is walked through, and the most that it held at once."""

from dataclasses import dataclass, field

CATEGORIES = (
    "parameters",
    "gradients",
    "optimizer",
    "activations",
    "communication",
    "logits",
    "cache",
    "temporaries",
    "workspaces",
)


@dataclass(slots=True)
class Tape:
    """What is alive, by category, and what was alive at the peak."""

    live: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0.0))
    total: float = 0.0
    peak: float = 0.0
    at_peak: dict[str, float] = field(default_factory=dict)
    phase: str = "build"
    peak_phase: str = "build"

    def take(self, category: str, num_bytes: float) -> None:
        """Allocate."""
        self.live[category] += num_bytes
        self.total += num_bytes
        if self.total > self.peak:
            self.peak, self.at_peak, self.peak_phase = self.total, dict(self.live), self.phase

    def drop(self, category: str, num_bytes: float) -> None:
        """Free."""
        self.live[category] -= num_bytes
        self.total -= num_bytes
