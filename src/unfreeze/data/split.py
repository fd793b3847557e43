"""Draw train, validation and test from the images' content, without a seed.

Copies of a picture and the images of a group form a cluster with one key. Two independent hashes of the key decide: a
cluster is test if the first is below the test share, else validation if the second is below the validation share, else
train. So adding an image moves no other, except in a class so small that the hashes leave one of the three empty.

Splits that the data gives are kept: ``given_pools`` says what each is used for.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from unfreeze.config.identity import split_record
from unfreeze.config.schema import LARGER_VAL, USUAL_VAL, SplitConfig
from unfreeze.data.catalog import Catalog
from unfreeze.errors import UserError

TRAIN, VALIDATION, TEST = "train", "validation", "test"

LEFT_OUT = "left_out"
"""Split of a copy of a test image that the data gives for training or validation; no cell uses it."""

ENOUGH = 100
"""Validation images from which ``split.val: auto`` is the usual share."""


@dataclass(frozen=True)
class _Cluster:
    """Images that stay together; the key does not depend on the number of copies."""

    key: str
    labels: frozenset[str]


def draw_split(
    catalog: Catalog, split: SplitConfig, fold: int | None = None, earlier: Mapping[str, str] | None = None
) -> pd.Series:
    """Return the split of each used image: train, validation, test, left_out, or test_NAME for further test sets.

    Splits that the data gives are used as ``given_pools`` says; if they are training and test images, validation is
    drawn from the training images. `split.val` is a share of all images, so among those that are not test it is drawn
    with val / (1 - test).

    Args:
        catalog: the images.
        split: shares, or the number of folds.
        fold: the fold that is test, 0 to split.folds - 1; None without folds.
        earlier: what the study drew before, by image id. It is kept, unless a class lost its last image for training or
            validation, and no new image becomes a test image.

    Returns:
        Text by image id, in the catalog's order.

    Raises:
        UserError: a class has too few distinct images (clusters) for one in each split, or the study asks for folds of
            data that gives splits.
        ValueError: fold is not a fold of split.folds.
    """
    if (fold is None) != (split.folds is None) or (fold is not None and not 0 <= fold < (split.folds or 0)):
        raise ValueError(f"fold {fold} is not one of folds: {split.folds}")
    images = catalog.images[catalog.images["status"] == "used"]
    further = (images["source"] != "").to_numpy()
    given = ("test_" + images["source"]).to_numpy(dtype=object, copy=True)
    given[~further] = given_pools(images[~further], split, earlier)
    _refuse_given(images[~further], given[~further], split)

    present = set(given[~further]) - {""}
    to_draw = ~further & (given == "")
    if not present:
        wanted = {TRAIN: True, VALIDATION: split.val != TEST, TEST: split.folds is not None or split.test > 0}
        pools = [pool for pool, want in wanted.items() if want]
    elif VALIDATION in present or TEST not in present or split.val == TEST:
        return _by_id(images, given)
    else:
        to_draw, pools = given == TRAIN, [TRAIN, VALIDATION]
    split = with_share(split, int(to_draw.sum()), bool(present))
    turn = 0.0 if split.folds is None else (fold or 0) / split.folds
    if split.folds is not None and (images["given_fold"][to_draw] != "").any():
        is_test = to_draw & _is_given_fold(images, to_draw, split.folds, fold or 0)
        given[is_test] = TEST
        to_draw, pools = to_draw & ~is_test, [pool for pool in pools if pool != TEST]
        split, fold = split.model_copy(update={"folds": None, "test": 1 / split.folds}), None
    clusters, members = _clusters(images[to_draw])
    pool_of = _draw(clusters, catalog.classes, split, pools, fold, turn)
    given[to_draw] = [pool_of[number] for number in members]
    if earlier:
        share = validation_share(split) if VALIDATION in pools else 0.0
        kept = {name: pool for name, pool in earlier.items() if pool in pools}
        before = _as_before(images["id"][to_draw], given[to_draw], clusters, members, (turn, share), kept)
        given[to_draw] = _filled_up(before, clusters, members, catalog.classes, pools)
    return _by_id(images, given)


def given_use(given: Collection[str], split: SplitConfig) -> dict[str, str]:
    """Return what each split that the data gives is used for: train, validation or test.

    Next to training images a single other split is the test set, whatever its name, so that every study has scores on
    images that chose nothing; validation is then drawn from the training images, except with ``split.val: given``.

    Args:
        given: those of train, validation and test that the data gives.
        split: settings of the study.
    """
    two = set(given) == {TRAIN, VALIDATION} and split.val != "given"
    return {name: TEST if two and name == VALIDATION else name for name in given}


def given_pools(images: pd.DataFrame, split: SplitConfig, earlier: Mapping[str, str] | None = None) -> np.ndarray:
    """Return the split of each image by the splits that the data gives: train, validation, test, left_out, or "".

    Images with "" are to be drawn. Copies of test images among given training or validation images are left out.

    Args:
        images: used images of the main data, rows of a catalog.
        split: settings of the study.
        earlier: see ``draw_split``. Images that an earlier run validated on stay validation even if they are the only
            split next to training, and copies that it trained on stay in use, except copies of new test images.
    """
    named = images["given_split"].to_numpy(dtype=object, copy=True)
    before = np.array([(earlier or {}).get(name, "") for name in images["id"]], dtype=object)
    use = given_use(set(named) - {""}, split)
    if TEST not in before and (before[named == VALIDATION] == VALIDATION).any():
        use[VALIDATION] = VALIDATION
    pools = np.array([use.get(name, "") for name in named], dtype=object)
    others = (pools == TRAIN) | (pools == VALIDATION)
    used_before = (before == TRAIN) | (before == VALIDATION)
    kept = used_before & ~_copied(images, (pools == TEST) & (before != TEST))
    pools[others & ~kept & _copied(images, pools == TEST)] = LEFT_OUT
    return pools


def _copied(images: pd.DataFrame, of: np.ndarray) -> np.ndarray:
    """Return which images have the content or the cluster of one of the images that ``of`` marks."""
    found = np.zeros(len(images), dtype=bool)
    for column in ("sha256", "cluster"):
        found |= images[column].isin(list(set(images.loc[of, column]) - {""})).to_numpy()
    return found


def _refuse_given(images: pd.DataFrame, pools: np.ndarray, split: SplitConfig) -> None:
    """Refuse settings that contradict the splits that the data gives, and classes of which only copies are given."""
    present = sorted(set(images["given_split"]) - {""})
    if split.folds is not None and present:
        raise UserError(
            f"split.folds: {split.folds}: the data already gives {', '.join(present)}",
            "folds of data that gives no splits",
            "remove folds from the study, or give data without train, validation and test in folders or a column",
        )
    if split.val == "given" and VALIDATION not in present:
        raise UserError(
            f"split.val: given: the data gives {' and '.join(present) if present else 'no splits'}",
            "validation images in a folder of their own, or named in a column",
            f"draw them: --set split.val={USUAL_VAL}",
        )
    for name in (TRAIN, VALIDATION):
        of = images["given_split"] == name
        lost = sorted(set(images.loc[of, "label"]) - set(images.loc[of & (pools != LEFT_OUT), "label"]))
        if lost:
            raise UserError(
                f"all {name} images of {', '.join(lost)} are copies of test images",
                f"{name} images that are not test images, too",
                "add others; if they only look similar, count only images with the same pixels as copies: "
                "--set check.near_duplicates=ignore",
            )


def with_share(split: SplitConfig, images: int, given: bool) -> SplitConfig:
    """Return the settings with ``val: auto`` as a number: 0.15, or 0.25 if that would be under 100 images.

    Args:
        split: settings of the study.
        images: number of images that validation is drawn from: only training images with ``given``, else all.
        given: whether the data gives the test set.
    """
    if split.val != "auto":
        return split
    usual = split.model_copy(update={"val": USUAL_VAL})
    expected = images * (validation_share(usual) if given else USUAL_VAL)
    return usual if expected >= ENOUGH else split.model_copy(update={"val": LARGER_VAL})


def is_same_split(before: Mapping[str, Any], split: SplitConfig) -> bool:
    """Tell whether settings ask for the split that a study drew before; ``val: auto`` equals any share.

    Args:
        before: the settings that the study recorded; missing ones are at their defaults.
        split: the settings now.
    """
    was, now = split_record(SplitConfig()) | dict(before), split_record(split)
    if split.val == "auto" and not isinstance(was["val"], str):
        was["val"] = "auto"
    return bool(was == now)


def _is_given_fold(images: pd.DataFrame, to_draw: np.ndarray, folds: int, fold: int) -> np.ndarray:
    """Return which images the data puts into a fold: the one whose name is at position ``fold`` of the sorted names."""
    names = sorted(set(images["given_fold"][to_draw]))
    if len(names) != folds or "" in names:
        listed = ", ".join(name or "(none)" for name in names)
        raise UserError(
            f"split.folds: {folds}: the data's column fold has {len(names)} values: {listed}",
            "as many values as folds, one in every row",
            f"say folds: {len(set(names) - {''})}, or fix the column",
        )
    return (images["given_fold"] == names[fold]).to_numpy()


def _as_before(
    ids: pd.Series,
    drawn: np.ndarray,
    clusters: Sequence[_Cluster],
    members: np.ndarray,
    part: tuple[float, float],
    earlier: Mapping[str, str],
) -> list[str]:
    """Return the split of each image: its earlier one, else its cluster's, else the one drawn now, but never test."""
    before = [earlier.get(name, "") for name in ids]
    of_cluster: dict[int, str] = {}
    for number, pool in zip(members, before, strict=True):
        if pool:  # if a new image joins clusters in different pools, the result must not depend on the order
            of_cluster[number] = max(pool, of_cluster.get(number, pool), key=(TRAIN, VALIDATION, TEST).index)
    found = []
    for number, pool, new_pool in zip(members, before, drawn, strict=True):
        if new_pool == TEST and number not in of_cluster:
            turn, share = part
            new_pool = VALIDATION if _from(turn, "val", clusters[number].key) < share else TRAIN
        found.append(pool or of_cluster.get(number) or new_pool)
    return found


def _filled_up(
    found: Sequence[str],
    clusters: Sequence[_Cluster],
    members: np.ndarray,
    classes: Sequence[str],
    pools: Sequence[str],
) -> list[str]:
    """Return the split of each image after moving one of a class to validation or training that lost its last one.

    It is taken from the other of the two; test images stay, and so do clusters that joined across pools.
    """
    of_cluster: dict[int, set[str]] = {}
    for number, pool in zip(members, found, strict=True):
        of_cluster.setdefault(number, set()).add(pool)
    settled = {number for number, in_pools in of_cluster.items() if len(in_pools) > 1 or TEST in in_pools}
    drawn = [TEST if number in settled else next(iter(of_cluster[number])) for number in range(len(clusters))]
    for pool, rank in ((VALIDATION, [_uniform("val", cluster.key) for cluster in clusters]),
                       (TRAIN, [-_uniform("test", cluster.key) for cluster in clusters])):  # fmt: skip
        if pool in pools:
            drawn = _filled(drawn, pool, 1, clusters, classes, rank, TEST)
    return [pool if number in settled else drawn[number] for number, pool in zip(members, found, strict=True)]


def _by_id(images: pd.DataFrame, splits: np.ndarray) -> pd.Series:
    return pd.Series(splits, index=pd.Index(images["id"]), name="split")


def _clusters(images: pd.DataFrame) -> tuple[list[_Cluster], np.ndarray]:
    """Return the clusters, joined by content, by duplicates or by group, and the cluster number of each image."""
    n = len(images)
    # A graph of images, contents, clusters of duplicates and groups; edges join an image with the others.
    starts, ends = [], []
    for number, column in enumerate(("sha256", "cluster", "group"), 1):
        joined, _ = pd.factorize(images[column].where(images[column] != "", None))
        members = np.flatnonzero(joined >= 0)
        starts.append(members)
        ends.append(number * n + joined[members])
    edges = np.concatenate(starts), np.concatenate(ends)
    graph = coo_array((np.ones(len(edges[0]), dtype=np.int8), edges), shape=(4 * n, 4 * n))
    _, found = connected_components(graph, directed=False)
    members, _ = pd.factorize(found[:n])
    keys: dict[int, str] = {}
    labels: dict[int, set[str]] = {}
    columns = zip(members, images["sha256"], images["group"], images["label"], strict=True)
    for number, sha256, name, label in columns:
        key = f"group\x1f{name}" if name else f"image\x1f{sha256}"
        keys[number] = min(key, keys.get(number, key))
        labels.setdefault(number, set()).add(label)
    return [_Cluster(keys[number], frozenset(labels[number])) for number in range(len(keys))], members


def cluster_keys(images: pd.DataFrame) -> list[str]:
    """Return the key of each image's cluster, a pure function of the cluster's images."""
    clusters, members = _clusters(images)
    return [clusters[number].key for number in members]


def _uniform(name: str, key: str) -> float:
    """Return a number in [0, 1), a pure function of its arguments."""
    digest = hashlib.blake2b(f"{name}\x1f{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _from(turn: float, name: str, key: str) -> float:
    """Return ``_uniform`` shifted by ``turn``, modulo 1, so that each fold validates on other images."""
    return (_uniform(name, key) - turn) % 1


def _draw(
    clusters: Sequence[_Cluster],
    classes: Sequence[str],
    split: SplitConfig,
    pools: Sequence[str],
    fold: int | None,
    turn: float,
) -> list[str]:
    """Return the pool of each cluster, with each class in each pool; ``turn`` is where validation hashes start."""
    _check_counts(clusters, classes, pools, split.folds)
    by_test = [_uniform("test", cluster.key) for cluster in clusters]
    by_val = [_from(turn, "val", cluster.key) for cluster in clusters]
    if split.folds is None:
        is_test = [TEST in pools and u < split.test for u in by_test]
    else:
        is_test = [number == str(fold) for number in _folds(clusters, classes, pools, by_test, split.folds)]
    share = validation_share(split)
    drawn = [TEST if test else VALIDATION if u < share else TRAIN for test, u in zip(is_test, by_val, strict=True)]
    drawn = [pool if pool in pools else TRAIN for pool in drawn]
    ranks = {TEST: by_test, VALIDATION: by_val, TRAIN: [-u for u in by_test]}
    keep = TEST if split.folds is not None else None  # the test set of a fold does not change
    for pool in (TEST, VALIDATION, TRAIN):
        if pool in pools and pool != keep:
            drawn = _filled(drawn, pool, 1, clusters, classes, ranks[pool], keep)
    _check_pools(drawn, clusters, classes, pools)
    return drawn


def _folds(
    clusters: Sequence[_Cluster], classes: Sequence[str], pools: Sequence[str], by_test: list[float], folds: int
) -> list[str]:
    """Return the number of each cluster's fold as text, with each class in each fold."""
    numbers = [str(int(u * folds)) for u in by_test]
    for number in range(folds):
        numbers = _filled(numbers, str(number), _least_in_fold(pools, folds), clusters, classes, by_test, None)
    return numbers


def _least_in_fold(pools: Sequence[str], folds: int) -> int:
    """Return how many clusters of a class a fold needs; of two folds, each must supply the other's remaining pools."""
    return len(pools) - 1 if folds == 2 else 1


def validation_share(split: SplitConfig) -> float:
    """Return the share of validation images among those that are not test."""
    if isinstance(split.val, str):
        return 0.0
    test = split.test if split.folds is None else 1 / split.folds
    if test + split.val >= 1:
        raise UserError(
            f"split.val: {split.val} with folds: {split.folds} leaves nothing to train on",
            f"a share of all images below {1 - test:g}",
            "lower val or raise folds",
        )
    return split.val / (1 - test)


def _filled(
    pools: Sequence[str],
    pool: str,
    least: int,
    clusters: Sequence[_Cluster],
    classes: Sequence[str],
    rank: Sequence[float],
    keep: str | None,
) -> list[str]:
    """Return the pool of each cluster after moving clusters into ``pool`` until it has ``least`` of each class.

    Those of the lowest rank are moved first. Clusters stay in the pool ``keep``, and in pools that would be left with
    fewer than ``least`` of a class.
    """
    drawn = list(pools)
    counts = Counter((where, label) for where, cluster in zip(drawn, clusters, strict=True) for label in cluster.labels)
    of_label: dict[str, list[int]] = {}
    for i, cluster in enumerate(clusters):
        for label in cluster.labels:
            of_label.setdefault(label, []).append(i)
    for label in classes:
        while counts[pool, label] < least:
            movable = [
                i
                for i in of_label.get(label, [])
                if drawn[i] not in (pool, keep) and all(counts[drawn[i], other] > least for other in clusters[i].labels)
            ]
            if not movable:
                break  # reported by the caller, for all classes at once
            chosen = min(movable, key=lambda i: (rank[i], clusters[i].key))
            counts.subtract((drawn[chosen], other) for other in clusters[chosen].labels)
            counts.update((pool, other) for other in clusters[chosen].labels)
            drawn[chosen] = pool
    return drawn


def _check_counts(
    clusters: Sequence[_Cluster], classes: Sequence[str], pools: Sequence[str], folds: int | None
) -> None:
    counts = Counter(label for cluster in clusters for label in cluster.labels)
    needed = len(pools) if folds is None else folds * _least_in_fold(pools, folds)
    few = [f"{label} has {counts[label]}" for label in classes if counts[label] < needed]
    if few:
        each = f"one each for {' and '.join(pools)}" if folds is None else f"enough for {folds} folds"
        raise UserError(
            f"too few images in {len(few)} of {len(classes)} classes: {', '.join(few)} "
            "(copies of one picture, and the images of one group, count once)",
            f"at least {needed} in each class: {each}",
            "add images to these classes, or remove their folders",
        )


def _check_pools(
    drawn: Sequence[str], clusters: Sequence[_Cluster], classes: Sequence[str], pools: Sequence[str]
) -> None:
    """Refuse a pool without a class, which happens only if clusters contain several classes."""
    found = {(pool, label) for pool, cluster in zip(drawn, clusters, strict=True) for label in cluster.labels}
    missing = [f"no {pool} image of {label}" for label in classes for pool in pools if (pool, label) not in found]
    if missing:
        raise UserError(
            f"groups and copies cannot be kept together: {', '.join(missing)}",
            "an image of each class in each of " + ", ".join(pools),
            "make the groups smaller, or remove these classes",
        )
