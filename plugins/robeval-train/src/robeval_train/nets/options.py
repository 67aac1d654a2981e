"""What an architecture may be asked for; nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from robustbench_lite import Params

Top = Literal["softmax", "sigmoids"]
Positive = Annotated[int, Field(ge=1)]


class Softmax(Params):
    """Softmax regression, started at zero."""

    name: Literal["softmax"] = "softmax"


class Logistic(Params):
    """Logistic regression of two classes: scores (0, w.x + b), started at zero."""

    name: Literal["logistic"] = "logistic"


class Mlp(Params):
    """Fully connected ReLU layers. `drop`: share of hidden units left out in training."""

    name: Literal["mlp"] = "mlp"
    widths: tuple[Positive, ...] = (256, 256)
    drop: FiniteFloat = Field(default=0.0, ge=0, lt=1)


class Maxout(Params):
    """Permutation-invariant maxout network (Goodfellow et al. 2013) as its MNIST recipe has it.

    `init`: weights start uniformly in [-init, init], biases at 0. `max_norm`: of the incoming
    weights of every linear piece and output. `keep_input`: inputs kept in training, not rescaled;
    `keep_hidden`: hidden units kept, rescaled by its inverse. `top`: one softmax, or a sigmoid for
    each class, trained by binary cross-entropy.
    """

    name: Literal["maxout"] = "maxout"
    units: int = Field(default=240, ge=1)
    pieces: int = Field(default=5, ge=1)
    layers: int = Field(default=2, ge=1)
    init: FiniteFloat = Field(default=0.005, gt=0)
    max_norm: FiniteFloat = Field(default=1.9365, gt=0)
    keep_input: FiniteFloat = Field(default=0.8, gt=0, le=1)
    keep_hidden: FiniteFloat = Field(default=0.5, gt=0, le=1)
    top: Top = "softmax"


class ConvMaxout(Params):
    """Convolutional maxout of the CIFAR-10 recipe (Goodfellow et al. 2013); `init` as in maxout."""

    name: Literal["conv-maxout"] = "conv-maxout"
    channels: tuple[Positive, Positive, Positive] = (96, 192, 192)
    pieces: int = Field(default=2, ge=1)
    dense: int = Field(default=500, ge=1)
    dense_pieces: int = Field(default=5, ge=1)
    init: FiniteFloat = Field(default=0.005, gt=0)
    keep_input: FiniteFloat = Field(default=0.8, gt=0, le=1)
    keep_hidden: FiniteFloat = Field(default=0.5, gt=0, le=1)


class Rbf(Params):
    """Shallow RBF network: p_k = exp(-sum_f a_kf (x_f - mu_kf)^2), a >= 0, started at class means.

    The probabilities are one yes or no per class and have no common sum. `width`: one a for each
    class and input, or one for each class. `start`: of the number whose softplus is a.
    """

    name: Literal["rbf"] = "rbf"
    width: Literal["diagonal", "scalar"] = "diagonal"
    start: FiniteFloat = -4.0


class Cnn(Params):
    """Two strided 4 x 4 convolutions and one hidden layer (Wong, Rice, Kolter 2020)."""

    name: Literal["cnn"] = "cnn"
    channels: tuple[Positive, Positive] = (16, 32)
    hidden: int = Field(default=100, ge=1)


class LeNet(Params):
    """LeNet-5 with ReLU and max pooling (LeCun et al. 1998)."""

    name: Literal["lenet"] = "lenet"


class ResNet18(Params):
    """ResNet-18 with a 3 x 3 stem, for images of 28 or 32 pixels (He et al. 2016)."""

    name: Literal["resnet18"] = "resnet18"
    width: int = Field(default=64, ge=1)


Net = Softmax | Logistic | Mlp | Maxout | ConvMaxout | Rbf | Cnn | LeNet | ResNet18
NETS: dict[str, type[Net]] = {
    "softmax": Softmax,
    "logistic": Logistic,
    "mlp": Mlp,
    "maxout": Maxout,
    "conv-maxout": ConvMaxout,
    "rbf": Rbf,
    "cnn": Cnn,
    "lenet": LeNet,
    "resnet18": ResNet18,
}


def independent(net: Net) -> bool:
    """Whether each class is a yes or no of its own, trained by binary cross-entropy."""
    return isinstance(net, Rbf) or (isinstance(net, Maxout) and net.top == "sigmoids")


def convolutional(net: Net) -> bool:
    """Whether some of its layers are convolutions."""
    return isinstance(net, ConvMaxout | Cnn | LeNet | ResNet18)
