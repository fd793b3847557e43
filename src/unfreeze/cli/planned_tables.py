"""The tables of ``unfreeze plan``: cells, regimes, and each strategy in words."""

from typing import TYPE_CHECKING

from rich.table import Table

from unfreeze.cli.files import Pools
from unfreeze.cli.screen import table
from unfreeze.results.words import count_text, plural

if TYPE_CHECKING:
    from unfreeze.config.study import RegimeConfig, StudyConfig
    from unfreeze.data.sources import Source
    from unfreeze.study.plan import NetworkPlan, Plan


def data_lines(study: "StudyConfig", source: "Source | None") -> tuple[str, ...]:
    """Say what was understood of the data, as every command does."""
    from unfreeze.data.understood import lines

    if source is None:
        return (f"data: {study.data}, not on this machine",)
    return lines(study.data, source, study.split, study.tests)


def grid(study: "StudyConfig", planned: "Plan") -> Table:
    """Strategies down, regimes across: which seeds run."""
    made = table("cells", *study.regimes)
    for strategy in study.strategies:
        row = []
        for regime in study.regimes:
            own = [cell for cell in planned.cells if (cell.strategy, cell.regime) == (strategy, regime)]
            seeds = sorted({cell.seed for cell in own})
            row.append(f"seed{'s' if len(seeds) > 1 else ''} {_short(seeds)}" + _folds(len(own) // len(seeds)))
        made.add_row(strategy, *row)
    return made


def _short(seeds: list[int]) -> str:
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def _folds(count: int) -> str:
    return f" x {count} folds" if count > 1 else ""


def regimes(study: "StudyConfig", pools: dict[str, Pools]) -> Table:
    """How many files a class each regime trains and validates on, and how it shows them."""
    made = table("regime", "training", "validation", "augmentation", "epoch")
    made.caption = "files a class" + ("" if pools else " (as asked for; the data is not here)")
    made.caption_justify, made.caption_style = "left", "dim"
    for name, regime in study.regimes.items():
        seen = regime.validation
        shown = "" if seen.augment == "none" else f", {seen.augment}"
        shown += f", {seen.examples:,} drawn" if seen.examples else ""
        made.add_row(
            name,
            _training(regime, pools),
            _asked(regime.val_per_class, [pool.validation for pool in pools.values()], _exact(pools)) + shown,
            regime.augment,
            plural(regime.examples_per_epoch, "example") if regime.examples_per_epoch else "one pass",
        )
    return made


def _exact(pools: dict[str, Pools]) -> bool:
    return all(pool.exact for pool in pools.values())


def _training(regime: "RegimeConfig", pools: dict[str, Pools]) -> str:
    sizes = [pool.train for pool in pools.values()]
    if regime.train_fraction is not None:
        text = _asked(None, [size * regime.train_fraction for size in sizes], exact=False)
        return f"{regime.train_fraction:.0%}: {text}" if sizes else f"{regime.train_fraction:.0%}"
    strict = " or refuse" if regime.strict else ""
    return _asked(regime.train_per_class, sizes, _exact(pools)) + strict


def _asked(asked: int | None, sizes: list[float], exact: bool) -> str:
    """Write ``up to 80``, ``all: about 89 to 386``, or where some have fewer ``up to 100: about 89 to 100``."""
    if not sizes:
        return "all" if asked is None else f"up to {asked}"
    taken = [size if asked is None else min(size, asked) for size in sizes]
    if asked is not None and min(taken) == asked:
        return str(asked)
    about = "" if exact else "about "
    least, most = f"{min(taken):.0f}", f"{max(taken):.0f}"
    span = least if least == most else f"{least} to {most}"
    return f"{'all' if asked is None else f'up to {asked}'}: {about}{span}"


def strategies(planned: "Plan") -> str:
    """Each strategy in words: its network, its head, and phase by phase what trains how."""
    return "\n\n".join(
        f"{name}\n" + "\n".join(f"    {line}" for line in _settings(network, len(planned.candidates[name])))
        for name, network in planned.networks.items()
    )


def _settings(network: "NetworkPlan", candidates: int) -> list[str]:
    strategy = network.strategy
    weights = {"none": "random weights", "pretrained": "pretrained"}.get(
        strategy.backbone.weights, f"weights {strategy.backbone.weights}"
    )
    lines = [
        f"{strategy.backbone.name}, {weights}, {strategy.image_size} pixels ({strategy.resize}), "
        f"batches of {strategy.batch_size}",
        f"head: {', '.join(network.head.layers)}",
    ]
    for number in range(len(strategy.phases)):
        lines += _phase(network, number)
    stopping = strategy.early_stopping
    if stopping:
        lines.append(
            f"stops early after {plural(stopping.patience, 'epoch')} without a better {stopping.monitor}"
            + (", keeps the best epoch" if stopping.restore_best else "")
        )
    if candidates > 1:
        lines.append(f"tuned: {candidates} candidates a cell, chosen on validation; the first is shown")
    return lines


def _phase(network: "NetworkPlan", number: int) -> list[str]:
    from unfreeze.study.plan import optimizer_words, train_words

    phase, cut, stages = network.strategy.phases[number], network.cuts[number], network.stages
    total = sum(stage.params for stage in stages) + network.head.params
    trained = sum(stage.params for stage in stages[cut:]) + network.head.params
    where = f"cut after {stages[cut - 1].name} ({cut} of {len(stages)} stages frozen)" if cut else "nothing frozen"
    opening = f"phase {number + 1} trains" if len(network.strategy.phases) > 1 else "trains"
    further = [
        "fresh weights" if phase.reinit else "",
        "BatchNorm trains" if phase.batch_norm == "train" else "",
        f"label smoothing {phase.label_smoothing:g}" if phase.label_smoothing else "",
    ]
    warmup = f" after {phase.schedule.warmup:.0%} warm-up" if phase.schedule.warmup else ""
    return [
        f"{opening} {train_words(phase.train)}: {count_text(trained)} of {count_text(total)} parameters; {where}",
        ", ".join(
            [
                f"{plural(phase.epochs, 'epoch')} of {optimizer_words(phase.optimizer)}",
                f"{phase.schedule.name} schedule{warmup}",
                *filter(None, further),
            ]
        ),
    ]
