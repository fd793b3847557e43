"""Why a cell does not reuse frozen work, in words."""

from collections.abc import Iterable

from unfreeze.model.cuts import feed_cuts
from unfreeze.results.words import join_words
from unfreeze.study.needs import bank
from unfreeze.study.plan import NetworkPlan
from unfreeze.study.work import CellWork

NAMED = 3
"""Candidates that a reason names; of more it tells the number."""


def why_not(work: CellWork, unstored: bool, budget_words: str) -> Iterable[str]:
    """Say of a cell why something is not reused, the most sweeping reason first.

    Args:
        work: the cell.
        unstored: whether some activations that it takes are not stored.
        budget_words: the disk budget as the study gives it.
    """
    found: dict[str, list[str]] = {}
    for name, network in work.networks.items():
        for reason in _reasons(network):
            found.setdefault(reason, []).append(name)
    for reason, names in found.items():
        yield reason if len(names) == len(work.networks) else f"{_candidates(names, len(work.networks))}: {reason}"
    if bank(work.job.regime) is None and any(any(feed_cuts(one.cuts)) for one in work.networks.values()):
        yield (
            f"augment: {work.job.regime.augment} draws new views in every epoch (views: fresh), so the frozen stages "
            "see training images live"
        )
    if unstored:
        yield f"some activations do not fit into the disk budget of {budget_words}, so they are computed live"


def _reasons(network: NetworkPlan) -> Iterable[str]:
    """Compare what each phase freezes with what its inputs have passed: the stages that nothing has trained yet."""
    if not any(network.cuts):
        yield "everything trains, so there is no frozen work to reuse"
        return
    for number, (cut, feed) in enumerate(zip(network.cuts, feed_cuts(network.cuts), strict=True), 1):
        if not cut:
            yield f"phase {number} trains everything, so it runs from pixels"
        elif feed < cut:
            before = network.cuts.index(feed) + 1
            start = f"begins after {network.stages[feed - 1].name}, as that one does" if feed else "runs from pixels"
            yield f"phase {number} freezes stages that phase {before} has trained, so it {start}"


def _candidates(names: list[str], of: int) -> str:
    if len(names) > NAMED:
        return f"{len(names)} of {of} candidates"
    return f"{'candidate' if len(names) == 1 else 'candidates'} {join_words(names)}"
