"""Defenses of the target's training against model inversion; they compose with each other and with the
frozen-layer budget."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.config.base import Count, Intensity, Positive, Refused, Share, Spec, Weight, added_field


class Mid(Spec):
    """Mutual-information defense (Wang et al., AAAI 2021): a noisy bottleneck in place of the head."""

    weight: Weight = 0.003
    """lambda of the divergence beside the cross-entropy. Printed: 0.002 to 0.01 for VGG16 on CelebA, 0.01 to
    0.05 on FaceScrub; the default lies in the first range. The divergence is a sum over the dimensions of the
    code, half of the features: 1,024 for VGG16 at 64x64 and width 1, 256 for ResNet-18. So a printed lambda
    does not transfer to another width or network: times 1,024 / dimensions it weighs as much in all."""

    noise_at_inference: bool = True
    """Whether the trained network still draws noise for each prediction, as the released ones do."""

    # None is left out of JSON, so that networks without such a norm keep their keys.
    replaces_norm: bool | None = Field(default=True, exclude_if=lambda value: value is None)
    """Whether the batch norm between features and head goes with the head, as in the released VGG16 with MID;
    None is true for VGG16. No other network has such a norm, and there it is None."""


class Bido(Spec):
    """Bilateral dependency optimisation (Peng et al., KDD 2022): hidden representations depend less on the
    images and more on the labels. Defaults: a published choice for VGG16 on CelebA."""

    kind: Literal["hsic", "coco"] = "hsic"
    """Measure of dependence: normalised HSIC or constrained covariance. Published weights for coco: (5, 50)
    and (10, 50)."""

    weight_x: Weight = 0.05
    """lambda_x of the dependence on the images, a penalty. Printed accuracy is very sensitive: 80.35 % at
    0.05, 76.13 % at 0.06."""

    weight_y: Weight = 0.5
    """lambda_y of the dependence on the labels, a reward."""

    sigma: Positive = 5.0
    """Width of the Gaussian kernel on images and representations, in units of sqrt(dimensions) (released
    code)."""

    epsilon: Positive = 1e-5
    """Ridge of hsic, times the batch size (released code); coco has none."""


class Smoothing(Spec):
    """Label smoothing; a negative factor defends (Struppek et al., ICLR 2024), a positive one does the
    opposite."""

    alpha: Annotated[float, Field(gt=-1.0, le=1.0)] = -0.05
    """Share of the label that goes to the mean over all classes (their choice for the defense)."""

    start: Share = 0.0
    """alpha is 0 for this share of the epochs (their code: half of 100 epochs), then rises in a line ..."""

    full: Intensity = 0.0
    """... to its value after this share of them (their code: three quarters). Both 0: constant."""

    ramp: Literal["line", "released"] = added_field("line")
    """The line's slope: line, it ends at alpha, as described; released, it would end at alpha after the last
    epoch, so that alpha jumps to its value from the middle of the line (their code)."""

    @model_validator(mode="after")
    def _rises_forward(self) -> Self:
        if self.start > self.full:
            raise Refused(
                "start",
                self.start,
                f"must not exceed full={self.full}, where alpha has its value",
                "lower start or raise full (both 0: constant)",
            )
        return self


class Erasing(Spec):
    """Random erasing (MIDRE; Tran et al., TMLR 2025): a rectangle of each training image is filled, so that F
    never sees a whole face. Defaults: the released configuration of ResNet-18 on FaceScrub."""

    least: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Least share of an image's area that is erased."""

    most: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    """Largest share of it (released: 0.4 and 0.8)."""

    elongation: Annotated[float, Field(ge=1.0, le=10.0)] = 1.0
    """Largest ratio of the longer side to the shorter one; 1 erases squares, as released."""

    probability: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Of an image to be erased, drawn again in each epoch."""

    fill: Literal["imagenet-mean", "released", "black"] = "imagenet-mean"
    """What a rectangle is filled with: ImageNet's mean colour, as described; released, the same numbers after
    pixels are scaled to [-1, 1], a light grey; or black. Grey images get the grey of the colour."""

    @model_validator(mode="after")
    def _areas_ascend(self) -> Self:
        if self.least > self.most:
            way_out = "lower least or raise most"
            raise Refused("least", self.least, f"must not exceed most={self.most}", way_out)
        return self


class Loft(Spec):
    """LoFt, formerly CALoR (Yu et al., arXiv 2410.05814): a narrow layer before the head, so that logits
    depend on few directions of the features."""

    rank: Count = 50
    """Units of the narrow layer (released: 50; 20 to 500 tried); fewer than features, to mean anything."""

    norm: bool = True
    """Whether a batch norm of the features precedes it, as in the released code."""


class DpSgd(Spec):
    """DP-SGD (Abadi et al., CCS 2016): each image's gradient is clipped and their sum is blurred. Trainable
    batch norms become group norms. Defaults: the MNIST example of Opacus."""

    noise_multiplier: Weight = 1.0
    """Standard deviation of the noise on the sum of clipped gradients, in units of `max_grad_norm`; 0 only
    clips, and protects nothing."""

    max_grad_norm: Positive = 1.0
    """Largest norm of one image's gradient, over all trained parameters together."""

    delta: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-5
    """The probability at which epsilon is stated; below 1 / number of training images to mean anything."""


class Defense(Spec):
    """Defenses of the target's training beside minimising cross-entropy; several at once add up."""

    mid: Mid | None = None
    """None keeps the head of the classifier."""

    bido: Bido | None = None
    """None leaves the hidden representations alone."""

    smoothing: Smoothing | None = None
    """None trains on one-hot labels."""

    dp: DpSgd | None = None
    """None trains on plain gradients."""

    erasing: Erasing | None = added_field(None)
    """None shows training images whole."""

    loft: Loft | None = added_field(None)
    """None reads logits off the features directly."""

    rolss: bool = added_field(False)
    """True leaves out the residual sums of the last stage of a ResNet or IR network (RoLSS; Koh et al., ECCV
    2024), with the projection that the first of them has. Pretraining has them."""

    @model_validator(mode="after")
    def _one_head(self) -> Self:
        if self.mid and self.loft:
            rule = "puts a narrow layer before the head, which target.defense.mid replaces by one of its own"
            raise Refused("loft.rank", self.loft.rank, rule, "set one of them to null")
        return self

    @model_validator(mode="after")
    def _every_image_has_a_gradient(self) -> Self:
        if self.dp and self.bido:
            raise Refused(
                "bido.kind",
                self.bido.kind,
                "compares the images of a batch with each other: no image has a gradient of its own, for "
                "target.defense.dp to clip",
                "set one of them to null",
            )
        return self
