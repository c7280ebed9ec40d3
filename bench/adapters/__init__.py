"""One program per peer, run alone in that peer's own environment: numpy and scipy, and nothing of Conch."""
