"""Faults of the way from an alert to a person, and of the dead man's switch that watches it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine import wait
from fault import Fault, Stage
from store_faults import stopped

# Alertmanager calls the switch once a minute, and looks at its groups once a minute too.
CALL_EVERY_S = 125
# Prometheus gives its alerts an end 4 min ahead.
CALLS_END_WITHIN_S = 310
# The switch alarms after this time without a call.
SWITCH_S = 300


@contextmanager
def receiver_fails(stage: Stage) -> Iterator[None]:
    """The chat answers 503 while an alert is to be delivered: the worker is stopped."""
    stage.receiver.status = 503
    try:
        with stopped("worker")(stage):
            yield
    finally:
        stage.receiver.status = 204


def calls_stop(service: str, within_s: float):
    """Stops a part of the alerting. The calls for the dead man's switch must end, as nothing else reports it."""
    @contextmanager
    def inject(stage: Stage) -> Iterator[None]:
        calls = stage.receiver.calls
        begun = len(calls)
        wait(CALL_EVERY_S, "a call for the dead man's switch", lambda: len(calls) > begun)
        with stopped(service)(stage):
            down = time.monotonic()
            yield
            last = max((at for at in calls if at > down), default=down) - down
            if last > within_s:
                stage.wrong.append(f"calls for the dead man's switch come {last:.0f} s after {service} stopped")
            stage.notes.append(f"last call {last:.0f} s after the stop; the switch alarms {SWITCH_S / 60:g} min later")
        back, known = time.monotonic(), len(calls)
        wait(CALL_EVERY_S + 60, "calls to come again", lambda: len(calls) > known)
        stage.notes.append(f"calls again {time.monotonic() - back:.0f} s after the start")
    return inject


BY_SWITCH = "the dead man's switch reports it"
FAULTS = (
    Fault("alert-receiver-fails", "the chat rejects messages, and the worker is stopped", receiver_fails, hold_s=60,
          alert="AlertDeliveryFailing", alert_within_s=180, person="reads the dashboard; AlertDeliveryFailing cannot arrive"),
    Fault("alertmanager-stopped", "Alertmanager stopped", calls_stop("alertmanager", 5), hold_s=130, no_alert=BY_SWITCH, person="starts it"),
    Fault("prometheus-stopped", "Prometheus stopped", calls_stop("prometheus", CALLS_END_WITHIN_S), hold_s=CALLS_END_WITHIN_S + 130,
          no_alert=BY_SWITCH, person="starts it"),
)
