"""The JSON Schema of a plan, for editors and for other languages.

It knows the structure. What needs the whole graph (unknown targets, reach, loops) or the list of time zones
only `CampaignPlan.parse` checks: a plan that parses satisfies the schema, not always the other way round.
"""

from __future__ import annotations

from typing import Any, Final

from scheduler.domain.node import NODE_ACTIONS, STOP_NODE_ID
from scheduler.domain.plan_findings import LONGEST_ID
from scheduler.domain.plan_reading import (
    DEFAULT_CHANNEL,
    DEFAULT_MAX_TRANSITIONS,
    LONGEST_CHANNEL,
    LONGEST_NAME,
    MACHINE_OPENS,
    TIMER_SUFFIX,
    VERSION,
)
from scheduler.domain.timing import DURATION_PATTERN, LONGEST_DURATION_TEXT, WALL_TIME_PATTERN

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_EVENT_TYPE: Final = r"^\s*[A-Za-z][A-Za-z0-9_ -]*\s*$"
_SYNTHETIC: Final = r"^\s*[Nn][Oo][_ -]"


def plan_schema() -> dict[str, Any]:
    """A new copy of the schema (draft 2020-12)."""
    return {
        "$schema": DRAFT,
        "title": "Campaign plan",
        "description": "A graph of nodes that says how one contact is approached. Unknown keys are ignored.",
        "type": "object",
        "required": ["version", "startNodeId", "nodes"],
        "properties": _plan_properties(),
        "$defs": _definitions(),
    }


def _plan_properties() -> dict[str, Any]:
    return {
        "version": _described({"const": VERSION}, "The format of this document."),
        "name": _text("What people call the plan.", longest=LONGEST_NAME),
        "timezone": _text("The IANA zone of calendar steps, and of contacts without their own; UTC if missing."),
        "quietHours": _optional_reference("quietHours"),
        "defaults": _optional_reference("defaults"),
        "startNodeId": _reference("nodeId", "The node at which a campaign begins."),
        "nodes": {
            "description": "The steps, in any order.",
            "type": "array",
            "minItems": 1,
            "items": _reference("node"),
        },
        "maxTransitions": {
            "description": "A campaign that makes more transitions than this is stopped.",
            "type": ["integer", "null"],
            "minimum": 1,
            "default": DEFAULT_MAX_TRANSITIONS,
        },
        "exits": {
            "description": "The real events that end a campaign wherever it is. Replaces unsubscribed,"
            " spamreport and bounced; an unsubscribe suppresses the contact all the same.",
            "type": ["array", "null"],
            "items": {"allOf": [_reference("eventType"), {"not": {"pattern": _SYNTHETIC}}]},
        },
        "machineOpens": {
            "description": "Whether opens by mail gateways count as opens.",
            "enum": [*MACHINE_OPENS, None],
            "default": MACHINE_OPENS[0],
        },
    }


def _definitions() -> dict[str, Any]:
    return {
        "nodeId": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID, "pattern": r"\S"},
        "eventType": {"type": "string", "maxLength": 128, "pattern": _EVENT_TYPE},
        "duration": {
            "description": "ISO-8601, such as PT72H; a day is 24 hours, months and years are calendar steps.",
            "type": ["string", "null"],
            "maxLength": LONGEST_DURATION_TEXT,
            "pattern": f"^{DURATION_PATTERN}$",
        },
        "quietHours": _quiet_hours(),
        "defaults": _defaults(),
        "node": _node(),
        "transition": _transition(),
    }


def _quiet_hours() -> dict[str, Any]:
    return {
        "description": "The local time of day at which nothing is sent; may cross midnight.",
        "type": "object",
        "required": ["start", "end"],
        "properties": {
            "start": {
                "description": "The first quiet moment, HH:MM or HH:MM:SS.",
                "type": "string",
                "pattern": f"^{WALL_TIME_PATTERN}$",
            },
            "end": {
                "description": "The first moment that isn't quiet any more; 24:00 is midnight.",
                "type": "string",
                "pattern": f"^({WALL_TIME_PATTERN}|24:00(:00)?)$",
            },
        },
    }


def _defaults() -> dict[str, Any]:
    timers = {
        "description": "What a synthetic event waits whose transition doesn't say, as no_open_after.",
        "type": ["object", "null"],
        "patternProperties": {f"^no_.*{TIMER_SUFFIX}$": _reference("duration")},
    }
    return {
        "description": "What holds where a node doesn't say.",
        "type": "object",
        "properties": {"timers": timers},
    }


def _node() -> dict[str, Any]:
    is_stop = {"properties": {"id": {"const": STOP_NODE_ID}}, "required": ["id"]}
    return {
        "description": "One step.",
        "type": "object",
        "required": ["id", "action"],
        "properties": {
            "id": _reference("nodeId", "Unique in the plan. A node stop exists without being written, too."),
            "channel": _text("How the contact is reached.", longest=LONGEST_CHANNEL, default=DEFAULT_CHANNEL),
            "action": _described({"enum": list(NODE_ACTIONS)}, "Send something, wait, or end the campaign."),
            "subject": _text("A send's subject; {{variable}} stands for what is known of the contact."),
            "body": _text("A send's text, with the same variables."),
            "schedule": {
                "description": "When a send is due, from entering the node.",
                "type": ["object", "null"],
                "properties": {"delay": _reference("duration")},
            },
            "transitions": {
                "description": "The ways on; the first that matches is taken.",
                "type": ["array", "null"],
                "items": _reference("transition"),
            },
        },
        "if": is_stop,
        "then": {"properties": {"action": {"const": "stop"}}},
    }


def _transition() -> dict[str, Any]:
    return {
        "description": "A way on. A synthetic event (no_open) makes a timeout, a real one (opened) doesn't.",
        "type": "object",
        "required": ["on", "to"],
        "properties": {
            "on": _reference("eventType", "The event: opened, clicked, replied, no_open, no_click, ..."),
            "to": _reference("nodeId", "The next node's id, or stop."),
            "after": _reference("duration", "Synthetic: how long to wait. Real: it must not have occurred earlier."),
            "within": _reference("duration", "Real: it must not have occurred later. Synthetic: the same as after."),
        },
    }


def _reference(name: str, description: str | None = None) -> dict[str, Any]:
    return _described({"$ref": f"#/$defs/{name}"}, description)


def _optional_reference(name: str) -> dict[str, Any]:
    return {"anyOf": [_reference(name), {"type": "null"}]}


def _described(schema: dict[str, Any], description: str | None) -> dict[str, Any]:
    return schema if description is None else {"description": description, **schema}


def _text(description: str, longest: int | None = None, default: str | None = None) -> dict[str, Any]:
    limits = {} if longest is None else {"minLength": 1, "maxLength": longest}
    defaults = {} if default is None else {"default": default}
    return {"description": description, "type": ["string", "null"], **limits, **defaults}
