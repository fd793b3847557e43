"""What stands in the folder that commands run in."""

STUDY = """\
data: photos
backbone: test_resnet
weights: none
image_size: 32
epochs: 2
strategies:
  scratch: {train: all}
  sgd: {train: all, optimizer: {name: sgd, lr: 1e-2}}
regimes:
  few: {train_per_class: 3}
seeds: 1
"""
