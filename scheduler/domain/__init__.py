"""Pure: plans, campaigns and actions as values, the state machine; no I/O, no clock."""
