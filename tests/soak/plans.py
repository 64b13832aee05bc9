"""The plans the soak's contacts walk: sends, waits, loops, with waits of fractions of a second to seconds."""

from typing import Any, Final

from tests.support.walk import make_document, on, send, wait

DRIP: Final = make_document(
    send(
        "hello",
        on("opened", "look"),
        on("no_open", "bump", after="PT1.5S"),
        on("no_click", "last", after="PT9S"),
        on("bounced", "stop"),
    ),
    wait("look", on("clicked", "stop"), on("no_click", "bump", after="PT1S")),
    send("bump", on("opened", "stop"), on("no_open", "last", after="PT0.8S"), delay="PT0.3S"),
    wait("last", on("opened", "stop"), on("replied", "stop"), on("no_open", "stop", after="PT0.5S")),
)
TIMERS: Final = make_document(
    wait(
        "one",
        on("opened", "two"),
        on("clicked", "three"),
        on("no_open", "two", after="PT1S"),
        on("no_click", "three", after="PT1S"),
    ),
    wait("two", on("opened", "three"), on("no_open", "three", after="PT0.2S"), on("no_click", "stop", after="PT6S")),
    wait("three", on("opened", "four"), on("no_open", "four", after="PT3S")),
    wait("four", on("opened", "stop"), on("replied", "stop"), on("no_open", "stop", after="PT0.1S")),
)
# Goes round until the contact answers.
ROUNDS: Final = make_document(
    wait("there", on("replied", "stop"), on("no_open", "back", after="PT0.4S"), on("opened", "back")),
    wait("back", on("replied", "stop"), on("no_open", "there", after="PT0.7S"), on("opened", "there")),
)

PLANS: Final[dict[str, dict[str, Any]]] = {"drip": DRIP, "timers": TIMERS, "rounds": ROUNDS}
