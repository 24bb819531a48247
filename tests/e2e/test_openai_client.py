"""The official `openai` client, unchanged, against a real server on loopback."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import openai
import pytest

from tests.service.conftest import address, toy_bundle, toy_settings
from tests.service.media import mp4, png, wav
from tests.toybundle import DIMENSION

__all__ = ["address", "toy_bundle", "toy_settings"]


@pytest.fixture(scope="module")
def openai_client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="unused", max_retries=0) as client:
        yield client


def uri(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def test_texts_and_images_are_embedded(openai_client: openai.OpenAI) -> None:
    answer = openai_client.embeddings.create(model="toy", input=["a dog", uri("image/png", png()), "a cat"])
    vectors = np.asarray([row.embedding for row in answer.data])
    assert vectors.shape == (3, DIMENSION)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert [row.index for row in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 14
    assert answer.model == "toy"


def test_the_clients_base64_and_plain_numbers_agree(openai_client: openai.OpenAI) -> None:
    by_default = openai_client.embeddings.create(model="toy", input="rain").data[0].embedding  # the client asks for base64
    as_float = openai_client.embeddings.create(model="toy", input="rain", encoding_format="float").data[0].embedding
    assert np.array_equal(np.asarray(by_default, np.float32), np.asarray(as_float, np.float32))


def test_dimensions_are_cut(openai_client: openai.OpenAI) -> None:
    answer = openai_client.embeddings.create(model="toy", input="rain", dimensions=3, user="someone")
    assert len(answer.data[0].embedding) == 3


def test_token_ids_are_taken_alone_and_in_lists(openai_client: openai.OpenAI) -> None:
    alone = openai_client.embeddings.create(model="toy", input=[70, 71, 72]).data
    several = openai_client.embeddings.create(model="toy", input=[[70, 71, 72], [80]]).data
    assert (len(alone), len(several)) == (1, 2)
    assert np.allclose(alone[0].embedding, several[0].embedding, atol=1e-6)


def test_sound_and_video_come_as_data_uris(openai_client: openai.OpenAI) -> None:
    answer = openai_client.embeddings.create(model="toy", input=[uri("audio/wav", wav()), uri("video/mp4", mp4())])
    assert len(answer.data) == 2


def test_models_are_listed_and_described(openai_client: openai.OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["toy"]
    assert openai_client.models.retrieve("toy").owned_by == "bindery"


def test_errors_arrive_as_the_clients_own(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        openai_client.embeddings.create(model="text-embedding-3-small", input="x")
    assert caught.value.code == "unknown_model"
    with pytest.raises(openai.UnprocessableEntityError) as failed:
        openai_client.embeddings.create(model="toy", input=["fine", uri("image/png", png()[:50])])
    assert failed.value.param == "input.1"
    assert failed.value.type == "invalid_request_error"
