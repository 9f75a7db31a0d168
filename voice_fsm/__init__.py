"""A voice for any chat backend: sessions, turns and barge-in as one explicit state machine."""
