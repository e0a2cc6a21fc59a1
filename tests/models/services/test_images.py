"""Images as they are sent: the same pixels in any encoding, in the place that the request has for them."""

import base64
import io
import json
from email.parser import BytesParser
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.config.service import Service
from orchestrator.models.services.images import Body, _canonical, body_of, sent_images
from tests.config.test_service import described

IMAGES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).reshape(2, 3, 4, 4) * 2
COLOUR = {"image_size": 4, "channels": 3}


def body(service: Service, number: int = 1) -> Body:
    return body_of(list(sent_images(IMAGES, service))[:number], service)


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).transpose(2, 0, 1)


def test_an_image_is_known_by_its_pixels() -> None:
    service = described(**COLOUR)
    by_levels = [one.digest for one in sent_images(IMAGES, service)]
    by_shares = [one.digest for one in sent_images(IMAGES / 255 + 1e-4, service)]  # PNG has 256 levels
    assert by_levels == by_shares
    assert len(set(by_levels)) == 2
    floats = described(**COLOUR, encoding="floats")
    assert [one.digest for one in sent_images(IMAGES / 255 + 1e-4, floats)] != [
        one.digest for one in sent_images(IMAGES, floats)
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_one_in_any_layout_and_rounding(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (70, channels, 64, 64), generator=generator, dtype=torch.uint8)
    service = described(image_size=160, channels=channels)
    wanted = [one.digest for one in sent_images(levels, service)]
    by_reciprocal = levels.float() * torch.tensor(1 / 255)  # as accelerators divide
    assert not torch.equal(by_reciprocal, levels / 255)
    formats = (torch.channels_last, torch.contiguous_format)
    for images in (levels, levels / 255, by_reciprocal, by_reciprocal.double()):
        for layout in formats:
            given = images.to(memory_format=layout)
            assert _canonical(given).stride() == torch.empty(given.shape).stride()  # what resizing may heed
            assert [one.digest for one in sent_images(given, service)] == wanted
    assert [one.digest for part in levels.split(9) for one in sent_images(part / 255, service)] == wanted


def test_images_get_the_size_of_the_service() -> None:
    (one, _) = sent_images(IMAGES, described(image_size=8, channels=3))
    assert one.pixels.shape == (3, 8, 8)


def test_a_png_is_in_base64_in_its_place() -> None:
    sent = json.loads(body(described(**COLOUR, request={"a": [1, {"b": "data:x,{image}"}], "c": None})).data)
    assert sent["c"] is None
    assert sent["a"][0] == 1
    prefix, _, text = sent["a"][1]["b"].partition(",")
    assert prefix == "data:x"
    assert (pixels(base64.b64decode(text)) == IMAGES[0].numpy()).all()


@pytest.mark.parametrize("number", [1, 2])
def test_a_list_has_an_entry_for_each_image(number: int) -> None:
    changes = {"images_per_request": 2, "response": {"answers": "", "scores": ""}}
    service = described(**COLOUR, **changes, request={"n": [[{"b64": "{image}"}]], "k": 5})
    sent = json.loads(body(service, number).data)
    assert sent["k"] == 5
    (row,) = sent["n"]
    assert len(row) == number
    for one, image in zip(row, IMAGES[:number], strict=True):
        assert (pixels(base64.b64decode(one["b64"])) == image.numpy()).all()


@pytest.mark.parametrize("layout", ["channels-first", "channels-last"])
def test_floats_are_scaled_and_laid_out(layout: str) -> None:
    sent: Any = json.loads(body(described(**COLOUR, encoding="floats", scaling="signed", layout=layout)).data)
    wanted = IMAGES[0].numpy() / 255 * 2 - 1
    found = np.array(sent["image"])
    assert np.allclose(found if layout == "channels-first" else found.transpose(2, 0, 1), wanted, atol=1e-6)


def test_a_raw_body_is_the_file() -> None:
    sent = body(described(**COLOUR, body="raw", request=None, encoding="jpeg"))
    assert sent.media_type == "image/jpeg"
    assert pixels(sent.data).shape == (3, 4, 4)


def test_a_form_is_one() -> None:
    request = {"file": "{image}", "api_key": "{key}", 'na"me': "\u00fc"}
    service = described(**COLOUR, body="multipart", request=request)
    sent = body_of(list(sent_images(IMAGES, service))[:1], service, "k1")
    head = f"Content-Type: {sent.media_type}\r\n\r\n".encode()
    parts: Any = BytesParser().parsebytes(head + sent.data).get_payload()
    file, key, other = parts
    assert file.get_filename() == "image.png"
    assert (pixels(file.get_payload(decode=True)) == IMAGES[0].numpy()).all()
    assert key.get_param("name", header="content-disposition") == "api_key"
    assert key.get_payload() == "k1"
    assert other.get_payload(decode=True).decode() == "\u00fc"


def test_the_key_is_put_into_texts_of_the_request() -> None:
    request = {"image": "{image}", "auth": [{"key": "Bearer {key}"}]}
    service = described(**COLOUR, request=request)
    sent = json.loads(body_of(list(sent_images(IMAGES, service))[:1], service, 'k"1').data)
    assert sent["auth"] == [{"key": 'Bearer k"1'}]
    assert request["auth"] == [{"key": "Bearer {key}"}]  # what is stored
