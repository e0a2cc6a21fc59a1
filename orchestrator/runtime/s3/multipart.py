"""Uploads in parts that no client completed: S3 keeps them, and charges for them, until they are aborted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.exceptions as boto

from orchestrator.runtime.s3.errors import name_of
from orchestrator.runtime.s3.retry import repeat
from orchestrator.store.blobs import Unfinished


def pending(client: Any, bucket: str, root: str) -> list[Unfinished]:
    """Return the uploads whose keys start with `root`, and their bytes; names are without `root`."""
    uploads = []
    for item in _pages(client, "list_multipart_uploads", "Uploads", Bucket=bucket, Prefix=root):
        with _unless_ended():
            uploads.append(_described(client, bucket, root, item))
    return uploads


def abort(client: Any, bucket: str, root: str, upload: Unfinished) -> None:
    """Abort an upload, which frees its parts; no error if it has been completed or aborted meanwhile."""
    key = root + upload.name
    with _unless_ended():
        repeat(
            lambda: client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload.upload_id),
            f"operation=abort bucket={bucket} key={key}",
        )


@contextmanager
def _unless_ended() -> Iterator[None]:
    try:
        yield
    except boto.ClientError as error:
        if name_of(error) != "NoSuchUpload":
            raise


def _described(client: Any, bucket: str, root: str, item: dict[str, Any]) -> Unfinished:
    key, upload_id = item["Key"], item["UploadId"]
    parts = _pages(client, "list_parts", "Parts", Bucket=bucket, Key=key, UploadId=upload_id)
    return Unfinished(
        kind="upload",
        name=key.removeprefix(root),
        size=sum(part["Size"] for part in parts),
        modified_ms=round(item["Initiated"].timestamp() * 1000),
        upload_id=upload_id,
    )


def _pages(client: Any, operation: str, field: str, **request: Any) -> list[dict[str, Any]]:
    """Return the entries of all pages of a listing; one that breaks begins again."""
    pager = client.get_paginator(operation)
    pages = repeat(
        lambda: list(pager.paginate(**request)), f"operation={operation} bucket={request['Bucket']}"
    )
    return [item for page in pages for item in page.get(field, ())]
