"""The gateway before Triton: what it takes, how long it waits, how it explores."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from core.sections.base import Section


class GatewaySettings(Section):
    """The only part that users reach, see serving/gateway/."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs require_keys."""
    port: int = Field(8080, ge=0, le=65535)
    """0 takes a free one."""
    keys: Path | None = None
    """File of hashed API keys; keys/api.keys under paths.var when empty."""
    require_keys: bool = False
    """Refuse requests without a key. The operator's verbs always need one."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """Both or neither: HTTPS without a proxy in front."""
    starts_triton: bool = True
    """Start Triton where none runs. Off where another container runs it: without one the gateway then ends."""
    operator: bool = True
    """The operator may retrain and roll back through this gateway. Off where paths.var follows another machine's."""
    cors_origins: tuple[str, ...] = ()
    """Web origins that browsers may call from; none by default."""
    demo: bool = True
    """Serve the demo page and what it needs: a few user ids, stable beside canary."""
    json_logs: bool = False
    """Log as JSON lines on standard error, a line per request too."""
    max_body_bytes: int = Field(1 << 20, ge=1024)
    """Largest body, packed and unpacked."""
    body_seconds: float = Field(5.0, gt=0)
    """How long a client may take to send a body."""
    requests_per_second: float = Field(500.0, gt=0)
    """Per key, or per address where there is no key."""
    burst: float = Field(1_000.0, ge=1)
    """Requests that may come at once."""
    replicas: tuple[str, ...] = ()
    """host:port of gRPC of further Tritons on other machines that serve the same releases. Those of this machine on the
    live repository (`conch serve` with other ports) are found by themselves when the gateway starts."""
    max_active: int = Field(32, ge=1)
    """Recommendations and batches of events under way at once, in whatever state; more get 503 at once."""
    deadline_ms: float = Field(400.0, gt=0)
    """How long Triton may take, waiting for a place included; then popularity answers."""
    max_in_flight: int = Field(16, ge=1)
    """Requests inside each Triton at once: its own queue has no limit."""
    max_waiting: int = Field(16, ge=0)
    """Requests that wait for a place; more get popularity at once."""
    wait_ms: float = Field(100.0, ge=0)
    """How long one waits for a place."""
    breaker_failures: int = Field(5, ge=1)
    """Failures in a row after which Triton is left alone."""
    breaker_seconds: float = Field(2.0, gt=0)
    """Then one request tries it again; the probe closes the breaker earlier."""
    probe_seconds: float = Field(0.5, gt=0)
    """Pause between two probes: real inferences, since a dead python stub still says ready."""
    probe_deadline_seconds: float = Field(0.6, gt=0)
    """Two answers in a row that take longer mean that the models do not answer."""
    restart_after_failures: int = Field(10, ge=1)
    """Failed probes in a row, healing included, after which Triton is restarted where the gateway may do that."""
    drain_seconds: float = Field(1.0, ge=0)
    """After SIGTERM: not ready, still answering, so that balancers notice."""
    stop_seconds: int = Field(10, ge=1)
    """Then answers under way get this long."""
    impressions_waiting: int = Field(10_000, ge=1)
    """Impressions that wait for the store; more are lost, and counted."""
    events_waiting: int = Field(20_000, ge=1)
    """Events that wait for the store; more get 503."""
    recent_events: int = Field(64, ge=1)
    """Newest events of a user that join the session."""
    recent_ms: float = Field(50.0, gt=0)
    """How long reading them may take; then the answer goes on without."""
    explore_temperature: float = Field(0.02, ge=0)
    """Plackett-Luce over the candidates, in standard deviations of their scores; 0 is off."""
    explore_epsilon: float = Field(0.02, ge=0, le=1)
    """Share of uniform choices in the lower half of a slate."""
    explore_pool: int = Field(30, ge=1)
    """Candidates that compete for a slate, the slate itself included."""
    explore_draws: int = Field(200, ge=0)
    """Samples behind a logged propensity."""
    shadow_in_flight: int = Field(2, ge=0)
    """Copies for the shadow release at once; more are dropped."""
