"""The two architectures of the embedded models. Neither normalises: the input lies in [0, 1]."""

from torch import nn

CLASSES = 10
SIDE = 28


def mlp() -> nn.Module:
    """The surrogate: a 784-256-256-10 ReLU network, untrained.

    Maps images [n, 1, 28, 28] float32 in [0, 1] to logits [n, 10] float32.
    """
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(SIDE * SIDE, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, CLASSES),
    )


def cnn() -> nn.Module:
    """The network of both ONNX files: two strided 4x4 convolutions and 100 hidden units, untrained.

    Maps images [n, 1, 28, 28] float32 in [0, 1] to logits [n, 10] float32. The widths are those of
    the MNIST network in Wong, Rice and Kolter, "Fast is better than free" (ICLR 2020); strides in
    place of pooling make adversarial training affordable on one CPU core.
    """
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100),
        nn.ReLU(),
        nn.Linear(100, CLASSES),
    )
