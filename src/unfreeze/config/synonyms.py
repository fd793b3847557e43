"""Synonyms of settings and values, as other libraries call them: Keras, timm, fastai, Lightning, scikit-learn."""

import re
from collections.abc import Mapping
from typing import Any

_WORDS = {
    "strategies.*.optimizer.lr": "lr learning_rate learn_rate base_lr lr_base lr0 blr init_lr initial_lr lr_init "
    "max_lr lr_max peak_lr eta eta0 step_size",
    "strategies.*.optimizer.weight_decay": "weight_decay wd decay weight_decay_rate l2 l2_reg l2_regularization",
    "strategies.*.optimizer.momentum": "momentum mom sgd_momentum",
    "strategies.*.optimizer.layer_decay": "layer_decay llrd layerwise_lr_decay layer_wise_lr_decay lr_layer_decay",
    "strategies.*.optimizer": "optimizer opt optim opt_func optimiser optimizer_name opt_name solver",
    "strategies.*.schedule.warmup": "warmup warmup_epochs warmup_ratio warmup_steps num_warmup_steps pct_start "
    "warmup_fraction warmup_lr",
    "strategies.*.schedule": "schedule sched scheduler lr_scheduler lr_schedule lr_policy lr_scheduler_type "
    "scheduler_name lr_decay",
    "strategies.*.train": "train freeze frozen freeze_backbone freeze_base freeze_encoder freeze_layers "
    "freeze_features unfreeze unfreeze_layers trainable trainable_layers train_backbone train_layers "
    "fine_tune finetune fine_tuning num_unfrozen n_unfrozen feature_extract feature_extraction linear_probe",
    "strategies.*.phases.0.epochs": "freeze_epochs frozen_epochs head_epochs initial_epochs",
    "strategies.fine_tune": "freeze_epochs frozen_epochs head_epochs initial_epochs",
    "strategies.*.batch_norm": "batch_norm freeze_bn bn_freeze train_bn bn batchnorm batch_normalization",
    "strategies.*.label_smoothing": "label_smoothing smoothing label_smooth smooth smooth_factor "
    "label_smoothing_factor",
    "strategies.*.head.dropout": "dropout drop drop_rate dropout_rate dropout_p p_dropout ps head_dropout "
    "classifier_dropout hidden_dropout",
    "strategies.*.head": "dropout drop drop_rate dropout_rate dropout_p p_dropout ps head_dropout classifier_dropout "
    "hidden_dropout hidden_units hidden_size hidden_sizes hidden_dim lin_ftrs dense_units fc_units units classifier "
    "custom_head",
    "strategies.*.head.pool": "pool pooling global_pool pool_type",
    "backbone": "model arch architecture model_name base_model base backbone_name net network encoder encoder_name "
    "model_type model_arch pretrained_model_name_or_path feature_extractor",
    "weights": "pretrained init_weights pretrained_weights initial_weights use_pretrained",
    "strategies.scratch": "pretrained use_pretrained",
    "image_size": "img_size imgsz imgsize image_shape img_shape input_size input_shape target_size resolution size "
    "image_height img_height image_width img_width crop_size image_dim",
    "batch_size": "bs train_batch_size batch batch_sz per_device_train_batch_size train_bs mini_batch_size "
    "minibatch_size batchsize",
    "epochs": "max_epochs num_epochs n_epochs n_epoch epoch num_train_epochs nb_epoch nb_epochs max_epoch total_epochs "
    "no_epochs num_epoch",
    "seeds": "seed random_state random_seed manual_seed global_seed rng_seed seed_everything n_seeds num_seeds repeats "
    "n_repeats num_runs n_runs",
    "metric": "metrics eval_metric score scoring scorer primary_metric metric_for_best_model metric_name",
    "early_stopping.patience": "patience early_stopping_patience es_patience early_stopping_rounds stop_patience "
    "n_iter_no_change",
    "early_stopping.monitor": "monitor early_stopping_monitor early_stopping_metric monitor_metric",
    "early_stopping.min_delta": "min_delta early_stopping_min_delta early_stopping_threshold",
    "early_stopping.restore_best": "restore_best restore_best_weights load_best_model_at_end save_best save_best_only",
    "early_stopping": "early_stopping early_stop earlystopping use_early_stopping",
    "precision": "amp use_amp mixed_precision fp16 bf16 bfloat16 half to_fp16 to_bf16 dtype autocast native_amp",
    "device": "accelerator gpus gpu devices cuda use_gpu use_cuda n_gpus num_gpus device_type",
    "regimes.*.augment": "augment augmentation augmentations data_augmentation aug augs aa auto_augment autoaugment "
    "use_augmentation aug_transforms batch_tfms item_tfms transforms transform hflip horizontal_flip random_flip flip",
    "regimes.*.balance": "balance class_weight class_weights weighted_loss use_class_weights pos_weight balanced "
    "sampler weighted_sampler oversample oversampling balance_classes weighted_dl",
    "regimes.*.train_per_class": "images_per_class samples_per_class num_samples_per_class shots n_shots num_shots "
    "k_shot n_shot max_per_class examples_per_class",
    "regimes.*.train_fraction": "limit_train_batches subset_fraction data_fraction train_frac sample_frac train_subset",
    "regimes.*.examples_per_epoch": "steps_per_epoch samples_per_epoch epoch_size num_samples_per_epoch",
    "split.val": "validation_split valid_pct val_split valid_split val_size valid_size validation_size val_pct "
    "val_fraction validation_fraction val_ratio valid_ratio holdout_frac dev_size dev_split validation",
    "split.test": "test_split test_size test_pct test_fraction test_ratio",
    "split.folds": "k_folds k_fold kfold kfolds n_splits num_folds n_folds nfolds cv cross_validation num_bag_folds",
    "split.group": "groups group_column group_by groupby group_col group_key",
    "budget.time": "time_limit max_time time_budget timeout",
    "budget.disk": "disk_limit max_disk cache_size disk_budget",
    "data": "data_dir data_path datadir dataset dataset_path dataset_name root image_dir images_dir img_dir train_dir "
    "train_data train_data_dir data_root path folder",
}  # fmt: skip
"""Synonyms by setting. Where a word means several settings, the first that can be set counts."""

_TYPICAL: Mapping[str, Any] = {
    "strategies.*.optimizer.lr": 1e-3,
    "strategies.*.optimizer.weight_decay": 0.05,
    "strategies.*.optimizer.momentum": 0.9,
    "strategies.*.optimizer": "adamw",
    "strategies.*.schedule": "cosine",
    "strategies.*.schedule.warmup": 0.05,
    "strategies.*.train": "head",
    "strategies.*.train.last": 1,
    "strategies.*": {"train": "head"},
    "strategies": {"head": {"train": "head"}},
    "regimes.*": {},
    "regimes": {"full": {}},
    "regimes.*.sweep": {"train_per_class": [10, 30, 100]},
    "regimes.*.sweep.train_per_class": [10, 30, 100],
    "backbone": "tf_efficientnet_lite0",
    "strategies.fine_tune": {"phases": [{"train": "head", "epochs": 1}, {"train": "all"}]},
    "strategies.*.batch_norm": "train",
    "strategies.*.label_smoothing": 0.1,
    "strategies.*.head": {"hidden": [256], "dropout": [0.5]},
    "weights": "pretrained",
    "image_size": 224,
    "batch_size": 32,
    "epochs": 10,
    "seeds": 3,
    "metric": "accuracy",
    "early_stopping": {"patience": 5},
    "early_stopping.patience": 5,
    "early_stopping.monitor": "val_loss",
    "precision": "bfloat16",
    "device": "auto",
    "regimes.*.augment": "trivial",
    "regimes.*.views": "fresh",
    "regimes.*.balance": "weights",
    "regimes.*.train_per_class": 25,
    "regimes.*.train_fraction": 0.5,
    "split.val": 0.15,
    "split.test": 0.2,
    "split.folds": 5,
    "budget.time": "30m",
    "budget.disk": "20GB",
}
"""A typical value of each setting, suggested where the given value is impossible."""

_COMMAND = "this is an option of the command: unfreeze run STUDY"

_UNSUPPORTED_WORDS = {
    "the number of loader processes is chosen automatically and does not change results": "num_workers workers nw "
    "dataloader_num_workers pin_memory persistent_workers prefetch prefetch_factor use_multiprocessing max_queue_size",
    "frozen stages run on OpenVINO where a short check finds that it works, otherwise on PyTorch; ncnn and Winograd "
    "convolutions are no longer supported": "engine engines",
    "the classes come from the data": "num_classes n_classes nb_classes n_out num_labels n_labels class_names classes "
    "labels label_names c",
    "training images are always shuffled in every epoch": "shuffle drop_last",
    "training always minimises cross-entropy": "loss criterion loss_fn loss_func loss_function objective",
    "gradients are not clipped": "grad_clip clip_grad clip_grad_norm gradient_clip_val gradient_clip max_grad_norm "
    "clipnorm clipvalue",
    "where memory is short, a batch is automatically split into micro-batches": "accumulate_grad_batches grad_accum "
    "gradient_accumulation_steps accumulation_steps",
    "images are normalised as the pretrained weights require": "mean std normalize normalise normalization rescale",
    "images are always read in colour": "in_chans in_channels num_channels n_channels channels color_mode",
    "this augmentation is not supported; regimes.NAME.augment takes flip_crop, trivial or rand": "mixup mixup_alpha "
    "cutmix cutmix_alpha cutout reprob random_erasing erasing color_jitter",
    "averaging of weights is not supported": "ema model_ema ema_decay swa",
    "the optimiser's other settings are PyTorch's defaults": "betas beta1 beta2 eps epsilon nesterov amsgrad",
    "progress is always shown": "verbose progress_bar progbar logger callbacks cbs log_every_n_steps",
    f"{_COMMAND} --parallel 2": "n_jobs jobs parallel num_processes",
    f"{_COMMAND} --out DIR": "out output output_dir out_dir save_dir save_path default_root_dir log_dir logdir "
    "ckpt_dir project run_dir",
    "unfreeze run STUDY, run again, resumes an interrupted study": "resume ckpt_path resume_from_checkpoint "
    "checkpoint resume_from",
    f"{_COMMAND} --preset quick": "preset presets",
}
"""Words without a setting here, by the reason that the message gives."""

_TRUE, _FALSE = "true yes on 1", "false no off 0 none null"

_VALUE_WORDS: dict[str, dict[Any, str]] = {
    "strategies.*.optimizer": {
        "sgd": "sgd momentum nesterov sgdp",
        "adam": "adam amsgrad adamax nadam radam",
        "adamw": "adamw adamwlegacy rmsprop rmsproptf lion lamb adagrad adadelta adafactor ranger lookahead nadamw "
        "lars",
    },
    "strategies.*.schedule": {
        "cosine": "cosine cos cosineannealing cosineannealinglr cosineannealingwarmrestarts cosinedecay onecycle "
        "onecyclelr fitonecycle flatcos linear poly polynomial exponential step steplr multistep plateau "
        "reducelronplateau " + _TRUE,
        "constant": "constant fixed constantlr " + _FALSE,
    },
    "strategies.*.train": {
        "all": "all full fulltune everything whole entire finetune finetuning finetuned unfrozen fullfinetuning",
        "head": "head headonly frozen freeze linear linearprobe linearprobing probe featureextraction featureextractor "
        "features classifier classifieronly top fc none null lasthead",
    },
    "strategies.*.batch_norm": {"frozen": "frozen freeze eval " + _FALSE, "train": "train training " + _TRUE},
    "strategies.*.head.pool": {
        "avg": "avg average mean gap globalaverage adaptiveavg avgpool",
        "max": "max gmp globalmax adaptivemax maxpool catavgmax avgmax",
        "flatten": "flatten none null false",
        "own": "own default",
    },
    "strategies.*.head": {"linear": "linear fc dense logistic softmax none null", "native": "native own default"},
    "weights": {
        "pretrained": "pretrained imagenet default imagenet1k imagenet1kv1 imagenet1kv2 imagenet21k timm hub " + _TRUE,
        "none": "random scratch fresh " + _FALSE,
    },
    "resize": {
        "crop": "crop centercrop centrecrop center resizecrop",
        "squash": "squash resize stretch warp fill",
        "pad": "pad letterbox padding padded fit contain",
    },
    "metric": {
        "accuracy": "accuracy acc top1 top1accuracy errorrate categoricalaccuracy sparsecategoricalaccuracy "
        "multiclassaccuracy valaccuracy",
        "balanced_accuracy": "balancedaccuracy balancedacc balancedaccuracyscore bacc macrorecall meanrecall uar",
        "macro_f1": "macrof1 f1 f1macro f1score f1scoremulti f1weighted fbeta multiclassf1score",
        "auroc": "auroc auc rocauc rocaucscore rocaucovr aucroc multiclassauroc",
        "log_loss": "logloss loss crossentropy nll nllloss ce neglogloss valloss",
    },
    "early_stopping.monitor": {
        "val_loss": "valloss validloss validationloss evalloss loss " + _TRUE,
        "val_accuracy": "valaccuracy valacc validaccuracy validacc evalaccuracy accuracy acc",
        "val_metric": "valmetric metric valf1 f1 f1score valauc auc valf1score",
        "train_loss": "trainloss trainingloss",
    },
    "precision": {
        "bfloat16": "bfloat16 bf16 fp16 float16 half 16 16mixed bf16mixed mixed bf16true 16true amp mixedfloat16 "
        "mixedbfloat16 " + _TRUE,
        "float32": "float32 fp32 float single full 32 32true highest high 64 " + _FALSE,
    },
    "activations": {"float16": "float16 fp16 half 16 bfloat16 bf16", "float32": "float32 fp32 float single 32"},
    "device": {
        "cuda": "cuda gpu nvidia " + " ".join(map(str, range(1, 9))) + " cuda0 cuda1 gpu0 true yes rocm",
        "cpu": "cpu 0 false no none null",
        "mps": "mps metal apple",
        "auto": "auto default tpu",
    },
    "regimes.*.augment": {
        "none": "none null false no off",
        "flip_crop": "flipcrop flip hflip horizontalflip randomflip randomhorizontalflip flips basic simple standard "
        "randomresizedcrop randomcrop",
        "trivial": "trivial trivialaugment trivialaugmentwide tawide ta default light true yes on",
        "rand": "rand randaugment randaug ra autoaugment auto aa original v0 augmix strong heavy",
        "article": "article",
    },
    "regimes.*.balance": {
        "weights": "weights weight weighted weightedloss classweight classweights balanced auto true yes on loss",
        "oversample": "oversample oversampling sampler sample sampling weightedsampler weightedrandomsampler "
        "upsample resample over",
        "none": "none null false no off",
    },
    "check.label_conflicts": {"set_aside": "setaside drop remove delete exclude", "keep": "keep ignore allow"},
    "check.near_duplicates": {"together": "together group grouped keep", "ignore": "ignore off false no none"},
    "check.truncated": {"set_aside": "setaside drop remove delete exclude false no", "keep": "keep allow load true"},
    "split.val": {"test": "test testset same"},
}  # fmt: skip


def normalized(word: Any) -> str:
    """Return a word in lower case without hyphens, underscores and other signs; "" for a value that is not a word."""
    if not isinstance(word, str | float | None) and (not isinstance(word, int) or abs(word) > 10**9):
        return ""
    return re.sub(r"[^a-z0-9]", "", str(word).lower())


def _by_word(table: Mapping[Any, str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for meant, words in table.items():
        for word in dict.fromkeys(map(normalized, words.split())):
            found.setdefault(word, []).append(meant)
    return found


SYNONYMS: Mapping[str, list[str]] = _by_word(_WORDS)
"""Settings that a normalized word may mean; * stands for the name of any strategy or regime."""

UNSUPPORTED: Mapping[str, str] = {word: reason for word, (reason, *_) in _by_word(_UNSUPPORTED_WORDS).items()}
"""Why a normalized word of another library has no setting here."""

_VALUE_OF = {
    target: {word: value for word, (value, *_) in _by_word(table).items()} for target, table in _VALUE_WORDS.items()
}


def values_meant(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    """Return what a value of another library may be here, the most likely first.

    Args:
        target: the setting, as in ``SYNONYMS``.
        word: the key that was given.
        value: its value.
        data: the study, for conversions from epochs or batches.
    """
    target = _defining(target)
    return _CONVERSIONS.get(target, _by_table)(target, normalized(word), value, data)


def typical_values(target: str) -> list[Any]:
    """Return a typical value of a setting, in a list; an empty one where none is known."""
    return [_TYPICAL[_defining(target)]] if _defining(target) in _TYPICAL else []


def _defining(target: str) -> str:
    """Return the setting that defines the values of another one; those of a strategy are the study's."""
    alone = target.removeprefix("strategies.*.").removeprefix("backbone.").replace("validation.augment", "augment")
    return alone if alone in _CONVERSIONS or alone in _VALUE_WORDS or alone in _TYPICAL else target


def _by_table(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    known = _VALUE_OF.get(target, {})
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, str | bool | int | None) and (meant := known.get(normalized(value))) is not None:
        return [meant]
    return [value]


def _train(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    frozen = word.startswith(("freeze", "frozen", "featureextract", "linearprobe"))
    if isinstance(value, bool):
        return ["head" if value is frozen else "all"]
    count = re.fullmatch(r"(?:last|top|final)?(\d{0,4})(?:layers?|stages?|blocks?)?", normalized(value))
    if isinstance(value, str) and value and count:
        return [{"last": int(count[1] or 1)}]
    if isinstance(value, int | float):
        return ["head"] if value == 0 else [{"last": 1 if frozen else value}]
    return _by_table(target, word, value, data)


def _two_phases(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return [{"phases": [{"train": "head", "epochs": value}, {"train": "all"}]}]


def _from_scratch(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return [] if value else [{"weights": "none", "train": "all"}]


def _split(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    if isinstance(value, list | tuple):  # shares of training, validation and test images
        return [{"val": value[1], "test": value[2]}] if len(value) == 3 else []
    return [{"test": share} for share in _share(target, word, value, data)]


def _budget(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return [{"disk": value}, {"time": value}]


def _further_tests(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return [{"further": value}] if isinstance(value, str) else []


def _weights(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    known = _by_table(target, word, value, data)
    return [*known, "pretrained"] if value == "none" else known


def _batch_norm(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    if word in ("freezebn", "bnfreeze") and isinstance(value, bool):
        value = not value
    return _by_table(target, word, value, data)


def _hidden(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    if "drop" in word or word == "ps":
        return [{"hidden": [256] * len(sizes), "dropout": sizes}]
    return [{"hidden": sizes}, *_by_table(target, word, value, data), {"hidden": [256]}]


def _dropout(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return [value] if isinstance(value, list | tuple) else [[value] * layers for layers in (1, 2, 3)]


def _listed(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return [value if isinstance(value, list | tuple) else [value]]


def _warmup(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    epochs = data.get("epochs", 10)
    if "epoch" in word and isinstance(value, int | float) and isinstance(epochs, int | float) and 0 < value < epochs:
        return [value / epochs]
    return [value, 0.05]


def _size(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    sides = re.findall(r"\d{1,5}", value) if isinstance(value, str) else value
    if isinstance(sides, list | tuple):
        try:
            return [max(int(side) for side in sides)]
        except (ValueError, TypeError):
            return []
    return [value]


def _seeds(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    several = "seeds" in word or "repeats" in word or "runs" in word
    one = isinstance(value, int) and not isinstance(value, bool)
    return [[value] if one and not several else value, 3]


def _metric(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return _by_table(target, word, value[0] if isinstance(value, list | tuple) and value else value, data)


def _stopping(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    if value is True:
        return [{"patience": 5}]
    if isinstance(value, str):
        return [{"monitor": meant} for meant in _by_table("early_stopping.monitor", word, value, data)] + [False]
    return [{"patience": value}, value]


def _augment(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    if isinstance(value, str) and re.match(r"rand(aug|-)", value.lower()):  # timm: rand-m9-mstd0.5
        return ["rand"]
    if "flip" in word and value not in (False, 0, None, ""):
        return ["flip_crop"]
    if isinstance(value, list | tuple | dict):
        return ["flip_crop"]
    return [*_by_table(target, word, value, data), "trivial"]


def _balance(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    if value in (False, None) or normalized(value) in ("none", "false", "no"):
        return ["none"]
    known = _by_table(target, word, value, data)
    return [*known, "oversample" if "sampl" in word else "weights"]


def _share(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 < value < 100:
        return [value / 100]  # a percentage
    return _by_table(target, word, value, data)


def _count(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return [5] if value is True else [value, 5]


def _examples(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    size = data.get("batch_size", 32)
    return [value * size] if "step" in word and isinstance(value, int) and isinstance(size, int) else [value]


def _seconds(target: str, word: str, value: Any, data: Mapping[str, Any]) -> list[Any]:
    return [f"{value}s"] if isinstance(value, int | float) and 1 < value < 10**9 else [value]


_CONVERSIONS = {
    "strategies.*.train": _train,
    "strategies.fine_tune": _two_phases,
    "strategies.scratch": _from_scratch,
    "strategies.*.batch_norm": _batch_norm,
    "weights": _weights,
    "split": _split,
    "tests": _further_tests,
    "budget": _budget,
    "strategies.*.head": _hidden,
    "strategies.*.head.dropout": _dropout,
    "strategies.*.head.hidden": _listed,
    "strategies.*.schedule.warmup": _warmup,
    "image_size": _size,
    "seeds": _seeds,
    "metric": _metric,
    "early_stopping": _stopping,
    "regimes.*.augment": _augment,
    "regimes.*.balance": _balance,
    "split.val": _share,
    "split.test": _share,
    "split.folds": _count,
    "regimes.*.train_fraction": _share,
    "regimes.*.examples_per_epoch": _examples,
    "budget.time": _seconds,
}
