"""The `hawse` command: what people type.

A static table of strings (`commands`) maps each command to a function that is imported when it is called, so that
`hawse network ls` pays for nothing but itself. `main` finds the command, builds its parser, calls it, and maps errors
to one sentence and an exit code. Commands speak to the controller through `sdn.client` and to the agent through the
attach contract; tables for people, `-o json` for programs.
"""
