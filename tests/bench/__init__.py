"""Ratios against a peer or the physical limit, measured in the same run, interleaved; never a bare time.

`measure` takes samples of both sides in turn and keeps medians with spread; each other module holds rows of one kind.
`python -m tests.bench [SLUG …]` prints the table and writes `build/bench.json`.
"""
