"""The architectures that the tests go through, each with an input size that keeps them quick."""

NAMED = {
    "vgg16": 32,
    "vgg16_bn": 32,
    "resnet18": 64,
    "resnet50": 64,
    "tf_efficientnet_lite0": 64,
    "efficientnet_b0": 64,
    "mobilenetv3_large_100": 64,
    "convnext_tiny": 64,
    "regnety_008": 64,
    "vit_small_patch16_224": 32,
    "vit_medium_patch16_reg4_gap_256": 32,  # register tokens; fc_norm after the pooling
    "swin_tiny_patch4_window7_224": 64,
}
TINY = {
    "test_byobnet": 64,
    "test_convnext": 64,
    "test_convnext2": 64,
    "test_convnext3": 64,
    "test_efficientnet": 64,
    "test_efficientnet_evos": 64,
    "test_efficientnet_gn": 64,
    "test_efficientnet_ln": 64,
    "test_resnet": 64,
    "test_vit": 64,
    "test_vit2": 64,
    "test_vit3": 64,  # attention pooling
    "test_vit4": 64,
}
ARCHITECTURES = NAMED | TINY
