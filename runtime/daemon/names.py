"""Names for containers that were given none: an adjective and an animal or a thing of the sea."""

from __future__ import annotations

from collections.abc import Callable, Container

_ADJECTIVES = """
    able airy amber ample azure bold brave brisk broad calm candid cheery clear clever coral crisp deft eager early
    easy even fair fleet fond frank fresh gentle glad golden grand green happy hardy honest jolly keen kind lively
    lucid lucky mellow merry mild modest neat nimble noble plain polite prime proud quick quiet rapid ready rosy
    royal ruddy sage sharp shiny silent silver sleek smart snug sober solid spry stark steady sunny sure swift tidy
    trim true vivid warm wise witty young zesty
"""
_NOUNS = """
    anchor auk barge beacon bollard breeze brig buoy cable canoe capstan clam coble cod compass crab current cutter
    dinghy dock dolphin dory eel ferry fjord frigate galley gannet gull harbour hawser heron herring jetty kayak
    keel ketch kelp krill lagoon lantern limpet lobster lugger marlin mast mooring mussel narwhal oar otter oyster
    paddle pearl pelican pier pilot plaice porpoise prawn puffin quay raft reef rudder sail schooner seal shoal
    skerry skiff sloop sprat squid starling sturgeon tern tide tiller trawler tuna turbot walrus wave wharf whelk
    winch yawl
"""
ADJECTIVES, NOUNS = _ADJECTIVES.split(), _NOUNS.split()
TRIES = 64


def random_name(taken: Container[str], random_below: Callable[[int], int]) -> str:
    """A name that is not taken. `random_below(n)`: a number from 0 to n - 1.

    Where chance hits only taken ones, a number is added: names never run out.
    """
    for _ in range(TRIES):
        name = f"{ADJECTIVES[random_below(len(ADJECTIVES))]}-{NOUNS[random_below(len(NOUNS))]}"
        if name not in taken:
            return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"
