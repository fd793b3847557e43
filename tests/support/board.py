"""What a board is told in tests, and a clock that is set by hand."""

CELLS = ("head.few.s0", "all.few.s0", "head.few.s1", "all.few.s1")
EPOCH = {
    "candidate": "", "epoch": 3, "train_loss": 0.5, "train_accuracy": 0.75, "val_loss": 0.4, "val_accuracy": 0.8,
    "seconds": 2.0, "val_metric": 0.7,
}  # fmt: skip
RESULT = {"val_metric": 0.8, "test_metric": 0.7, "epochs": 5, "best_epoch": 3, "seconds_total": 12.0}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now
