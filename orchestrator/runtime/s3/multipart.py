"""What a bucket can be asked besides objects: uploads in parts that were never completed."""

from collections.abc import Sequence
from typing import Any

import boto3

from orchestrator.runtime.s3.blobs import S3Blobs, open_client
from orchestrator.store.blobs import Blobs
from orchestrator.store.gc import Garbage


def credentials_source() -> str | None:
    """Return whence boto3 has its credentials (env, iam-role, shared-credentials-file, ...), if any."""
    found = boto3.session.Session().get_credentials()
    return None if found is None else str(found.method)


def uploads_in(blobs: Blobs) -> "PendingUploads | None":
    """Return the pending uploads of a store, or None where stores have none."""
    return PendingUploads(blobs.bucket, blobs.prefix) if isinstance(blobs, S3Blobs) else None


class PendingUploads:
    """Implements `Uploads` under a prefix of a bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket, self._root = bucket, f"{prefix}/" if prefix else ""
        self._client = open_client()

    def pending(self) -> Sequence[Garbage]:
        """Return all of them, with the bytes they hold."""
        pages = self._client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket, Prefix=self._root
        )
        return [self._describe(item) for page in pages for item in page.get("Uploads", ())]

    def abort(self, upload: Garbage) -> None:
        """Free one."""
        self._client.abort_multipart_upload(
            Bucket=self._bucket, Key=self._root + upload.name, UploadId=upload.upload
        )

    def _describe(self, item: dict[str, Any]) -> Garbage:
        pages = self._client.get_paginator("list_parts").paginate(
            Bucket=self._bucket, Key=item["Key"], UploadId=item["UploadId"]
        )
        return Garbage(
            kind="upload",
            name=item["Key"].removeprefix(self._root),
            size=sum(part["Size"] for page in pages for part in page.get("Parts", ())),
            modified_ms=round(item["Initiated"].timestamp() * 1000),
            upload=item["UploadId"],
        )
