"""The options of `hawse lab …`. Standard library only: `--help` costs nothing."""

from __future__ import annotations

import argparse

DATAPATHS = ("bridge", "openflow")
"""What all hosts of a topology can be on: a test compares with `values.Datapath`, which costs an import."""


def up(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lab up`."""
    parser.add_argument("file", metavar="FILE", help="a topology, e.g. topologies/two-hosts.yaml")
    parser.add_argument("--name", default=None, help="the lab's name (default: the one in the file)")
    _datapath(parser, "of every host, whatever the file says")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress on stderr")


def check(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lab check`."""
    _lab(parser)


def exec(parser: argparse.ArgumentParser) -> None:  # noqa: A001 - named after its command
    """Arguments of `lab exec`."""
    parser.add_argument("--lab", default=None, metavar="NAME", help="which lab (default: the only one)")
    parser.add_argument("place", metavar="HOST|CONTAINER", help="where; `underlay` is where the controller runs")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="after `--`; default: a shell")


def ps(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lab ps`."""
    _lab(parser)


def ls(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lab ls`: none."""


def down(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lab down`."""
    _lab(parser)
    parser.add_argument("--all", action="store_true", help="every lab of this machine")


def demo(parser: argparse.ArgumentParser) -> None:
    """Arguments of `lab demo`: the file is the one that the package brings along."""
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    _datapath(parser, "of the hosts (default: bridge)")


def _datapath(parser: argparse.ArgumentParser, summary: str) -> None:
    parser.add_argument("--datapath", choices=DATAPATHS, default=None, help=summary)


def _lab(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", default=None, help="which lab (default: the only one)")
