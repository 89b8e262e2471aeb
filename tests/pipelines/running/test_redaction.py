"""Passwords do not reach messages."""

import pytest

from pipelines.adapters.storage import Store
from pipelines.running.redaction import redacted
from tcformer.errors import UserError


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://anna:secret@host:5000/path", "http://***@host:5000/path"),
        ("postgresql+psycopg2://u:p@ss@host/db", "postgresql+psycopg2://***@host/db"),
        ("s3://AKIA:se/cr+et@bucket/folder", "s3://***@bucket/folder"),
        ("S3:/AKIA:secret@bucket", "S3:/***@bucket"),
        ("https://token@host", "https://***@host"),
        ("s3://bucket/x?access_key=a&secret_key=b&region=c", "s3://bucket/x?access_key=***&secret_key=***&region=c"),
        ("no answer from http://a:b@h: use http://c:d@i/", "no answer from http://***@h: use http://***@i/"),
        ("http://127.0.0.1:5000/a@b", "http://127.0.0.1:5000/a@b"),
        ("sqlite:////folder/mlflow.db", "sqlite:////folder/mlflow.db"),
        ("s3://bucket/folder", "s3://bucket/folder"),
    ],
)
def test_addresses_lose_their_passwords(given: str, shown: str) -> None:
    assert redacted(given) == shown


@pytest.mark.parametrize("root", ["S3://key:secret@bucket/x", "s3:/key:secret@bucket/x", "ftp://key:secret@host/x"])
def test_messages_of_the_storage_contain_no_password(root: str) -> None:
    with pytest.raises(UserError) as caught:
        Store(root)
    assert "secret" not in str(caught.value) and "***" in str(caught.value)
