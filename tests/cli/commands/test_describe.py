"""``unfreeze describe``: stages of a backbone, and their state in each strategy."""

from tests.support.commands import STUDY

ALONE = """\
test_resnet, 64 x 64 pixels, 96 features

stage          output   parameters    FLOPs
───────────────────────────────────────────
stem     32 x 16 x 16        7.5 k   15.0 M
layer1   32 x 16 x 16       18.6 k    9.4 M
layer2     48 x 8 x 8       36.4 k    4.6 M
layer3    192 x 4 x 4       42.4 k    1.5 M
layer4     96 x 2 x 2      267.8 k    2.1 M

all                        372.7 k   32.8 M

FLOPs: forward pass of one image, a multiply-add counted as two. The head is not included.
"""


def test_a_backbone(unfreeze, folder):
    code, said, told = unfreeze("describe", "test_resnet", "--image-size", "64")
    assert (code, told) == (0, "")
    assert said == ALONE


def test_where_the_strategies_of_a_study_cut(unfreeze, study):
    (study / "study.yaml").write_text(
        STUDY.replace(
            "  sgd: {train: all, optimizer: {name: sgd, lr: 1e-2}}",
            "  fine_tune: {weights: pretrained, phases: [{train: head}, {train: {last: 2}}]}\n"
            "  other: {backbone: test_vit, image_size: 160, train: all}",
        )
    )
    code, said, told = unfreeze("describe", "test_resnet", "--study", "study.yaml", "--image-size", "64")
    assert (code, told) == (0, "")
    rows = {line.split()[0]: line.split()[-3:] for line in said.splitlines() if line.startswith(("stem", "layer"))}
    assert "scratch   fine_tune 1   fine_tune 2\n" in said
    assert rows == {
        "stem": ["new", "frozen", "frozen"],
        "layer1": ["new", "frozen", "frozen"],
        "layer2": ["new", "frozen", "frozen"],
        "layer3": ["new", "frozen", "trained"],
        "layer4": ["new", "frozen", "trained"],
    }
