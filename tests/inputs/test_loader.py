from pathlib import Path

import pytest
import torch

from tests.support.pictures import shas
from tests.support.worlds import write_photographs
from unfreeze.inputs.augment import Preprocessing, ViewDataset
from unfreeze.inputs.loader import EvaluationBatches, ImageSet, evaluation_draws, training_batches
from unfreeze.inputs.preprocess import DecodedPictures
from unfreeze.inputs.sampler import DrawOrder

MEAN = STD = (0.5, 0.5, 0.5)


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    folder = write_photographs(tmp_path / "photographs", per_class=5)
    paths = sorted(folder.rglob("*.png"))
    preprocessing = Preprocessing(16, "crop", MEAN, STD, "bilinear", 0.875)
    pictures = DecodedPictures(paths, shas(paths), preprocessing.base)
    views = ViewDataset(pictures, [path.name for path in paths], preprocessing, "trivial", seed=3)
    return ImageSet(views, torch.tensor([number // 5 for number in range(15)]))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_do_not_depend_on_the_number_of_workers(images: ImageSet, workers: int) -> None:
    for alone, shared in zip(
        training_batches(images, DrawOrder(len(images), 4, 0), 0, 9, workers=0),
        training_batches(images, DrawOrder(len(images), 4, 0), 0, 9, workers),
        strict=True,
    ):
        assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_batches_from_a_later_step_equal_those_reached_by_skipping(images: ImageSet) -> None:
    whole = list(training_batches(images, DrawOrder(len(images), 4, 0), 0, 10, workers=0))
    for alone, later in zip(
        whole[6:], training_batches(images, DrawOrder(len(images), 4, 0), 6, 10, workers=0), strict=True
    ):
        assert all(torch.equal(a, b) for a, b in zip(alone, later, strict=True))


def test_labels_belong_to_their_images(images: ImageSet) -> None:
    for _, labels, indices in training_batches(images, DrawOrder(len(images), 4, 0), 0, 8, workers=0):
        assert torch.equal(labels, indices // 5)


def test_evaluation_shows_each_image_once_and_the_same_each_time(images: ImageSet) -> None:
    batches = EvaluationBatches(images, workers=0)
    first, again = list(batches), list(batches)
    assert torch.cat([indices for _, _, indices in first]).tolist() == list(range(15))
    assert all(torch.equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True))


def test_evaluation_by_examples_draws_shuffled_passes_in_their_views(images: ImageSet) -> None:
    ((inputs, _, indices),) = list(EvaluationBatches(images, 0, evaluation_draws(15, 32, seed=1)))
    first, second, rest = indices[:15].tolist(), indices[15:30].tolist(), indices[30:].tolist()
    assert sorted(first) == sorted(second) == list(range(15)) != first
    assert not torch.equal(inputs[first.index(rest[0])], inputs[15 + second.index(rest[0])])
    few = torch.cat([labels for _, labels, _ in EvaluationBatches(images, 0, evaluation_draws(15, 6, seed=1))])
    assert len(set(few.tolist())) > 1


def test_a_bank_of_two_views_repeats_after_two_passes(images: ImageSet) -> None:
    def seen(number: int) -> torch.Tensor:
        batches = list(training_batches(images, DrawOrder(15, 15, 0, views=2), number, number + 1, 0))
        return batches[0][0][batches[0][2].argsort()]

    assert torch.equal(seen(0), seen(2))
    assert not torch.equal(seen(0), seen(1))
