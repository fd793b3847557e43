"""Strategies and regimes of tiny studies: training of every kind, on plain, stored and fresh views."""

from typing import Any

STOPPING = {"patience": 2, "monitor": "val_loss"}
ADAM = {"name": "adam", "lr": 1e-2}

ONE = {"dropout": {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}}}
TWO = {"two": {"phases": [{"train": "head", "epochs": 1, "optimizer": {"lr": 1e-2}}, {"train": "all", "epochs": 1}]}}
BACK = {
    "back": {
        "phases": [
            {"train": {"last": 2}, "epochs": 1, "batch_norm": "train"},
            {"train": {"last": 1}, "epochs": 1, "batch_norm": "train"},
        ]
    }
}
SGD = {"name": "sgd", "lr": 1e-2, "momentum": 0.9}
ANEW = {
    "anew": {
        "phases": [
            {"train": "head", "epochs": 1, "optimizer": SGD},
            {"train": {"last": 2}, "epochs": 1, "reinit": True, "optimizer": SGD},
        ]
    }
}
TUNED = {"tuned": {"train": "head", "tune": {"optimizer.lr": [1e-3, 1e30, 1e-2]}, "optimizer": {"name": "sgd"}}}
SIZES = {"sizes": {"train": {"last": 1}, "tune": {"image_size": [24, 32], "optimizer.lr": [1e-3, 1e30]}}}
EARLY = {"early": {"train": "head", "optimizer": ADAM, "epochs": 4, "early_stopping": STOPPING}}
EARLY_TWO = {
    "early": {
        "phases": [{"train": "head", "epochs": 3, "optimizer": {"lr": 0.1}}, {"train": "all", "epochs": 2}],
        "early_stopping": {"patience": 1, "min_delta": 0.05},
    }
}
SCRATCH = {"scratch": {"weights": "none", "train": "all", "head": "native"}}
GROUP = {
    "head": {"train": "head", "optimizer": {"lr": 1e-2}},
    "last": {"train": {"last": 1}, "head": {"hidden": [8], "dropout": [0.5]}, "epochs": 1},
    "two": {"phases": [{"train": "head", "epochs": 1}, {"train": {"last": 1}, "epochs": 2}]},
}
PLAIN = {"small": {"train_per_class": 5, "val_per_class": 2}}
BANK = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "views": 2}}
FRESH = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop"}}
EPOCHS = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "examples_per_epoch": 9}}
OVERSAMPLED = {"small": {"train_per_class": 5, "val_per_class": 2, "augment": "flip_crop", "balance": "oversample"}}

MANY: dict[str, Any] = {
    "strategies": GROUP | SCRATCH | TUNED,
    "regimes": {"bank": BANK["small"], "fresh": FRESH["small"]},
}
"""Groups in lock-step, cells alone, stored and live views, a candidate that diverges."""
TWO_GROUPS: dict[str, Any] = {"strategies": {"all": {"train": "all"}, "last": {"train": {"last": 1}}}, "epochs": 6}
"""Two groups, of which one trains all."""
