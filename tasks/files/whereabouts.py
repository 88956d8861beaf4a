"""Whether a call's roots are here, and where else they are.

A root that settings mark as local belongs to one machine: a call about it that came to another worker is led to one
that has it, by what the nodes tell with their heartbeats.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gaia.contracts import files
from gaia.contracts.base import Call
from gaia.errors import PathDenied, RootUnavailable
from gaia.store.nodes import Node
from gaia.store.roster import KnownRoot
from tasks.roots.roots import Roots
from tasks.scope import Elsewhere

Holders = Callable[[], Mapping[str, Sequence[str]]]
"""Gives the local roots of the cluster, each with the nodes that live and have it."""


def holders(nodes: Iterable[Node], roots: Iterable[KnownRoot]) -> dict[str, list[str]]:
    """Make what `Holders` gives of the nodes that live and the roots that the cluster knows."""
    living = list(nodes)
    return {each.name: [node.name for node in living if each.name in node.roots] for each in roots if each.local}


class Whereabouts:
    """Leads calls to where their roots are. It owns nothing."""

    def __init__(self, roots: Roots, holders: Holders | None = None) -> None:
        """Take this worker's roots, and what asks the cluster for those of the others."""
        self._roots = roots
        self._holders = holders

    def require_here(self, call: Call[Any]) -> None:
        """Let a call pass that this worker has all the roots of; a root that nobody has is the operation's to refuse.

        Raises:
            Elsewhere: with the node that has them.
            PathDenied: if no worker has all of them.
            RootUnavailable: if the root is known, and nobody who lives has it.
            Unreachable: if Redis had to be asked and did not answer.
        """
        if self._holders is None:
            return
        path, target = getattr(call, "path", None), getattr(call, "target", None)
        if (path is None or self._roots.knows(path)) and (target is None or self._roots.knows(target)):
            return
        self.lead([each for each in (path, target) if each is not None])

    def require_batch_here(self, call: files.Batch) -> None:
        """Do the same for all steps of a batch, before any of them is run."""
        if self._holders is not None:
            paths = [
                path
                for step in call.steps
                for path in (getattr(step.call(), "path", None), getattr(step.call(), "target", None))
                if path is not None
            ]
            if not all(map(self._roots.knows, paths)):
                self.lead(paths)

    def lead(self, paths: Sequence[str]) -> None:
        """Find the node that has the roots that this worker has not."""
        holders = self._holders() if self._holders is not None else {}
        missing = {_root(each): each for each in paths if not self._roots.knows(each) and _root(each) in holders}
        if not missing:
            return
        nodes = set.intersection(*(set(holders[each]) for each in missing))
        path = next(iter(missing.values()))
        if any(not holders[each] for each in missing):
            raise RootUnavailable(path)
        # Whoever has a local root of the call is where it was led to: it is never led on, so never round in a circle.
        if not nodes or any(_root(each) in self._roots.local for each in paths):
            raise PathDenied(path, "lies on another machine than the other path of the call")
        raise Elsewhere(random.choice(sorted(nodes)))  # noqa: S311 - it spreads load


def _root(path: str) -> str:
    return path.partition(":")[0]
